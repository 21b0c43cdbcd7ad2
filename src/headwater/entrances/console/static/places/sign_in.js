// Asks for a token, says how to make one, and why the last one was refused.

import { session, Unreachable } from "../api.js";
import { h, say } from "../dom.js";

const WHAT = {
  read: "This place shows a tenant's data: it needs a token with the scope read.",
  operate: "This place is about the whole installation: it needs a token with the scope operate.",
};

/** A form that takes a token. `scope` is what is missing; null where there is no token at all. */
export function signIn(scope) {
  const box = h("input", { id: "token", type: "password", autocomplete: "off", spellcheck: "false", required: true, "aria-describedby": "token-error" });
  const error = h("p", { class: "error", id: "token-error", role: "alert" });
  const button = h("button", { type: "submit" }, "Open");
  if (session.refused) say(error, sentence(session.refused));
  const submit = async (event) => {
    event.preventDefault();
    button.disabled = true;
    try {
      await session.add(box.value.trim());
    } catch (problem) {
      say(error, problem instanceof Unreachable ? "The server does not answer. Is headwater up running?" : sentence(problem));
      box.select();
    } finally {
      button.disabled = false;
    }
  };
  const lead = scope === null ? "This page shows what an access token opens." : WHAT[scope];
  const element = h("section", { class: "sign-in", "aria-labelledby": "sign-in" },
    h("h1", { id: "sign-in", tabindex: "-1" }, scope === null ? "Open with a token" : "Another token is needed"),
    h("p", {}, lead),
    h("form", { onsubmit: submit }, h("label", { for: "token" }, "Access token"), h("div", { class: "line" }, box, button), error),
    h("h2", {}, "Where to get one"),
    h("dl", { class: "ways" },
      way("headwater up", "prints a link that opens this page, on the machine where it runs. Its token ends with the process."),
      way('headwater token create "my page" --scope read', "opens one tenant's events, streams and views."),
      way('headwater token create "my page" --scope operate', "opens the log's head, each view's lag and definition, and the doctor. It sees nobody's data.")),
    h("p", { class: "soft" }, "Tokens stay in this tab until it is closed. Add both kinds to see everything."));
  return { element, box };
}

const way = (command, what) => h("div", {}, h("dt", {}, h("code", {}, command)), h("dd", {}, what));

const sentence = (problem) => [problem.detail ?? problem.title, problem.hint].filter(Boolean).join(" ");
