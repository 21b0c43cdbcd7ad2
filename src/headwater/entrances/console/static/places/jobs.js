// Work: queues, dead letters and what to do with them, schedules.

import { get, poll, post, session } from "../api.js";
import { empty, follow, h, mark, say, setState, state, table } from "../dom.js";
import { count, pretty, seconds, visible, when } from "../format.js";

const MOST = 100;

export const title = () => "Jobs";

export function open(main, _, failed) {
  const operator = Boolean(session.with("operate"));
  const reader = Boolean(session.with("read"));
  const said = h("p", { class: "soft", role: "status" });
  const act = async (button, path) => {
    mark(button, "disabled", true);
    try {
      const done = await post(path, "operate");
      say(said, done.state === "replayed" ? `${count(done.replayed)} enqueued again.` : `It is ${done.state}.`);
      await load();
      failed(null);
    } catch (problem) {
      failed(problem);
    } finally {
      mark(button, "disabled", null);
    }
  };
  const [listed, dead, planned] = [queues(act), letters(operator ? act : null), schedules()];
  const load = async () => {
    const [a, b, c] = await Promise.all([
      operator ? get("v1/queues", "operate") : null,
      reader ? get(`v1/dead?limit=${MOST}`, "read") : null,
      operator ? get("v1/schedules", "operate") : null,
    ]);
    if (a) listed.show(a);
    if (b) dead.show(b);
    if (c) planned.show(c);
  };
  main.append(h("h1", { class: "unseen", tabindex: "-1" }, "Jobs"), said,
    operator ? listed.element : missing("Queues and schedules", "operate"),
    reader ? dead.element : missing("Dead letters", "read"));
  if (operator) main.append(planned.element);
  return { close: poll(load, 2, failed) };
}

const missing = (what, scope) => h("p", { class: "soft" }, `${what} need a token with the scope `, h("code", {}, scope), ". ", h("a", { href: `#/token/${scope}` }, "Add one"));

function frame(name, caption, columns, none) {
  const shown = table(caption, columns);
  const tools = h("span", {});
  const element = h("section", { "aria-labelledby": name }, h("div", { class: "heading" }, h("h2", { id: name }, name), tools), shown, none);
  shown.hidden = true;
  none.hidden = true;
  return { element, tools, rows: shown.body, toggle: (any) => {
    none.hidden = any;
    shown.hidden = !any;
  } };
}

// Queues -------------------------------------------------------------------------------------------

function queues(act) {
  const { element, rows, toggle } = frame("Queues", "Queues: what waits, runs and failed",
    [["Queue", "name"], ["State", ""], ["Waiting", "number"], ["Later", "number wide"], ["Running", "number wide"], ["Oldest", "number wide"], ["Ended", "number wide"], ["Failed", "number wide"], ["Dead", "number"], ["", "act"]],
    empty("There are no queues yet.", "Declare one with ", h("code", {}, "app.queue"), "; ", h("code", {}, "headwater work"), " runs its jobs."));
  const numbers = ["waiting", "later", "running", "oldest_seconds", "settled", "failed", "dead"];
  const narrow = ["waiting", "dead"];
  const make = (queue) => {
    const button = h("button", { type: "button", class: "quiet" });
    const parts = { state: state(), button, ...Object.fromEntries(numbers.map((name) => [name, h("td", { class: narrow.includes(name) ? "number" : "number wide" })])) };
    const row = h("tr", {}, h("td", { class: "name" }, queue.queue), h("td", {}, parts.state), numbers.map((name) => parts[name]), h("td", { class: "act" }, button));
    button.addEventListener("click", () => act(button, `v1/queues/${encodeURIComponent(queue.queue)}/${row.paused ? "resume" : "pause"}`));
    row.parts = parts;
    return row;
  };
  const change = (row, queue) => {
    row.paused = queue.paused;
    const standing = queue.paused ? ["warn", "paused"] : queue.running ? ["busy", "working"] : queue.waiting ? ["idle", "waiting"] : ["good", "empty"];
    setState(row.parts.state, ...standing);
    say(row.parts.button, queue.paused ? "Resume" : "Pause");
    mark(row.parts.button, "aria-label", `${queue.paused ? "Resume" : "Pause"} the queue ${queue.queue}`);
    for (const name of numbers) say(row.parts[name], name === "oldest_seconds" ? (queue.waiting ? seconds(queue.oldest_seconds) : "–") : count(queue[name]));
    mark(row.parts.dead, "data-kind", queue.dead ? "warn" : null);
  };
  return { element, show: (found) => {
    toggle(found.length > 0);
    follow(rows, found, (queue) => queue.queue, make, change);
  } };
}

// Dead letters -------------------------------------------------------------------------------------

function letters(act) {
  const { element, tools, rows, toggle } = frame("Dead letters", "Dead letters, the newest first",
    [["Job", "name"], ["Queue", ""], ["Attempts", "number wide"], ["Reason", "reason"], ["Died", "wide"], ["", "act"]],
    empty("There are no dead letters.", "A job that has failed for the last time stays here until it is enqueued again."));
  const sum = h("span", { class: "soft" });
  const filter = h("select", { "aria-label": "Queue of the dead letters" }, h("option", { value: "" }, "all queues"));
  const every = h("button", { type: "button", class: "quiet", disabled: true });
  tools.append(filter, " ", ...(act ? [every, " "] : []), sum);
  let last = [];
  const chosen = () => last.filter((letter) => filter.value === "" || letter.queue === filter.value);
  const draw = () => {
    const found = chosen();
    toggle(found.length > 0);
    say(every, filter.value === "" ? "Replay all" : `Replay all of ${filter.value}`);
    mark(every, "disabled", found.length === 0);
    say(sum, last.length >= MOST ? `the newest ${MOST}` : "");
    follow(rows, found, (letter) => letter.id, make);
  };
  filter.addEventListener("change", draw);
  every.addEventListener("click", () => {
    const which = filter.value === "" ? "every dead letter of all tenants" : `every dead letter of the queue ${filter.value}, of all tenants,`;
    ask(`Enqueue ${which} again?`, () => act(every, `v1/dead/replay${filter.value === "" ? "" : `?queue=${encodeURIComponent(filter.value)}`}`));
  });
  const make = (letter) => {
    const button = h("button", { type: "button", class: "quiet", "aria-label": `Replay job ${letter.id}` }, "Replay");
    button.addEventListener("click", () => act(button, `v1/dead/replay?job=${letter.id}`));
    const more = h("pre", {});
    const unfold = h("details", {}, h("summary", {}, visible(letter.reason.split("\n")[0])), more);
    unfold.addEventListener("toggle", async () => {
      if (!unfold.open || more.textContent) return;
      try {
        const { arguments: given, failures } = await get(`v1/jobs/${letter.id}`, "read");
        const told = failures.map((one) => `Attempt ${one.attempt}, ${one.at}\n${one.reason.split("\n").map(visible).join("\n")}`);
        say(more, [`Arguments ${pretty(given)}`, ...told].join("\n\n"));
      } catch {
        say(more, "It is not known any more.");
      }
    });
    return h("tr", {}, h("td", { class: "name" }, visible(letter.job), " ", h("span", { class: "soft" }, String(letter.id))), h("td", {}, letter.queue), h("td", { class: "number wide" }, count(letter.attempts)), h("td", { class: "reason" }, unfold), h("td", { class: "wide soft time" }, when(letter.died_at)), h("td", { class: "act" }, act ? button : null));
  };
  return { element, show: (found) => {
    last = found;
    const names = [...new Set(found.map((letter) => letter.queue))].sort();
    follow(filter, names, (name) => name, (name) => h("option", { value: name }, name));
    draw();
  } };
}

/** Asks before something that cannot be taken back. */
function ask(question, go) {
  const yes = h("button", { type: "button" }, "Replay");
  const dialog = h("dialog", { class: "question", "aria-label": question }, h("p", {}, question), h("form", { method: "dialog" }, yes, " ", h("button", { class: "quiet", autofocus: true }, "Cancel")));
  yes.addEventListener("click", () => {
    dialog.close();
    go();
  });
  dialog.addEventListener("close", () => dialog.remove());
  document.body.append(dialog);
  dialog.showModal();
}

// Schedules ----------------------------------------------------------------------------------------

function schedules() {
  const { element, rows, toggle } = frame("Schedules", "Schedules, their next and last runs",
    [["Schedule", "name"], ["When", ""], ["Zone", "wide"], ["Job", "wide"], ["Next", ""], ["Last run", ""]],
    empty("There are no schedules.", "Declare one with ", h("code", {}, "app.schedule"), "."));
  const make = (one) => {
    const parts = { next: h("td", {}), last: state(), at: h("span", { class: "soft" }) };
    const row = h("tr", {}, h("td", { class: "name" }, one.schedule), h("td", {}, h("code", {}, one.when)), h("td", { class: "wide soft" }, one.zone), h("td", { class: "wide" }, visible(one.job)), parts.next, h("td", {}, parts.last, " ", parts.at));
    row.parts = parts;
    return row;
  };
  const change = (row, one) => {
    const left = (Date.parse(one.next_at) - Date.now()) / 1000;
    say(row.parts.next, one.paused ? "paused" : one.running !== null ? "after this run" : left > 0 ? `in ${seconds(left)}` : "due");
    mark(row.parts.next, "title", one.next_at);
    const bad = one.last_outcome !== null && one.last_outcome !== "done";
    setState(row.parts.last, one.running !== null ? "busy" : bad ? "bad" : one.last_outcome ? "good" : "idle", one.running !== null ? "running" : one.last_outcome ?? "none yet");
    if (one.last_planned !== null) row.parts.at.replaceChildren(when(one.last_planned));
  };
  return { element, show: (found) => {
    toggle(found.length > 0);
    follow(rows, found, (one) => one.schedule, make, change);
  } };
}
