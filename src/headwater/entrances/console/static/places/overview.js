// Where an operator looks first: the log, the doctor's findings, the views, what comes from other services.

import { get, poll, session } from "../api.js";
import { empty, fact, follow, h, mark, say, setState, state, svg, table } from "../dom.js";
import { behind, count, rate, seconds, when } from "../format.js";
import { history, logRate, look, standing, viewRate } from "../samples.js";

const WIDTH = 600;
const HEIGHT = 72;
const MANY = 1000;
const SPAN_MS = [60 * 1000, 5 * 60 * 1000];

export const title = () => "Overview";

export function open(main, _, failed) {
  const operator = Boolean(session.with("operate"));
  const parts = operator ? [log(), doctor(), views(), inboxes()] : [tenantViews()];
  main.append(h("h1", { class: "unseen", tabindex: "-1" }, "Overview"), ...parts.map((part) => part.element));
  const [head, findings, listed, received] = parts;
  const polls = operator
    ? [
        poll(async () => {
          const overview = await look();
          head.show(overview);
          listed.show(overview.views);
          received.show(overview);
        }, 2, failed),
        poll(async () => findings.show(await get("v1/doctor", "operate")), 5, () => {}),
      ]
    : [poll(async () => head.show((await get("v1/views", "read")).views), 2, failed)];
  return { close: () => polls.forEach((stop) => stop()) };
}

// The log ------------------------------------------------------------------------------------------

function log() {
  const now = h("span", { class: "figure" }, "–");
  const line = svg("path", { class: "line" });
  const area = svg("path", { class: "area" });
  const chart = svg("svg", { class: "spark", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img", "aria-label": "Events a second: measuring" }, area, line);
  const since = h("span", {}, "1 min ago");
  const top = h("span", {}, "");
  const head = fact("Head", "number");
  const newest = fact("Newest event");
  const held = fact("Not yet published", "number");
  const relays = fact("Relays alive", "number");
  const newestAt = h("time");
  const element = h("section", { class: "log", "aria-labelledby": "log" },
    h("div", { class: "rate" }, h("h2", { id: "log" }, "Log"), h("p", {}, now, " ", h("span", { class: "soft" }, "events/s"))),
    h("figure", {}, chart, h("figcaption", { class: "soft" }, since, top, h("span", {}, "now"))),
    h("dl", { class: "facts" }, head, newest, held, relays));
  const show = (overview) => {
    const { log: it } = overview;
    say(now, rate(logRate()));
    say(head.value, count(it.position));
    say(held.value, it.drawn > it.position ? count(it.drawn - it.position) : "none");
    say(relays.value, count(it.relays));
    mark(relays, "data-kind", it.relays ? null : "warn");
    if (it.newest_at) newest.value.replaceChildren(when(it.newest_at, newestAt));
    else say(newest.value, "no event yet");
    draw({ chart, line, area, since, top }, Date.parse(overview.at));
  };
  return { element, show };
}

function draw({ chart, line, area, since, top }, at) {
  const points = history();
  const span = Math.min(Math.max(at - (points[0]?.at ?? at), SPAN_MS[0]), SPAN_MS[1]);
  say(since, `${seconds(span / 1000)} ago`);
  const most = Math.max(1, ...points.map((point) => point.rate));
  const place = (point) => `${(WIDTH * (1 - (at - point.at) / span)).toFixed(1)} ${(HEIGHT - 2 - (HEIGHT - 8) * (point.rate / most)).toFixed(1)}`;
  const drawn = points.map(place);
  const first = points.length ? drawn[0].split(" ")[0] : WIDTH;
  line.setAttribute("d", drawn.length > 1 ? `M${drawn.join("L")}` : "");
  area.setAttribute("d", drawn.length > 1 ? `M${first} ${HEIGHT}L${drawn.join("L")}L${WIDTH} ${HEIGHT}Z` : "");
  say(top, points.length ? `highest ${rate(most === 1 ? Math.max(...points.map((p) => p.rate)) : most)}/s` : "measuring");
  chart.setAttribute("aria-label", `Events a second while this page watched, at most 5 minutes: now ${rate(logRate())}, highest ${rate(most)}`);
}

// The doctor ---------------------------------------------------------------------------------------

function doctor() {
  const list = h("ul", { class: "findings" });
  const sum = state("idle", "examining");
  const fine = h("ul", { class: "findings plain" });
  const rest = h("details", {}, h("summary", {}, ""), fine);
  const element = h("section", { "aria-labelledby": "doctor" },
    h("div", { class: "heading" }, h("h2", { id: "doctor" }, "Doctor"), sum), list, rest);
  const show = (found) => {
    const [bad, good] = [found.filter((f) => f.level !== "ok"), found.filter((f) => f.level === "ok")];
    const fails = bad.some((f) => f.level === "fail");
    if (bad.length) setState(sum, fails ? "bad" : "warn", bad.length === 1 ? "1 finding needs attention" : `${bad.length} findings need attention`);
    else setState(sum, "good", "nothing needs attention");
    say(rest.firstElementChild, good.length === 1 ? "1 check is fine" : `${good.length} checks are fine`);
    const key = (f) => `${f.check} ${f.level} ${f.finding}`;
    follow(list, bad, key, (f) => h("li", {}, state(f.level === "fail" ? "bad" : "warn", f.level), h("div", {}, h("p", {}, h("strong", {}, checked(f.check)), ": ", sentence(f.finding)), f.remedy ? h("p", { class: "soft" }, sentence(f.remedy)) : null)));
    follow(fine, good, (f) => `${f.check} ${f.finding}`, (f) => h("li", {}, h("p", {}, h("strong", {}, f.check), ": ", sentence(f.finding))));
  };
  return { element, show };
}

const checked = (check) => (check.startsWith("view ") ? h("a", { href: `#/views/${check.slice(5)}` }, check) : check);

const sentence = (text) => (/[.!?]$/.test(text) ? text : `${text}.`);

// Views --------------------------------------------------------------------------------------------

const COLUMNS = [["View", "name"], ["State", ""], ["Behind", "number"], ["Lag", "number wide"], ["Events/s", "number wide"], ["Parked", "number"], ["Driven by", "wide"]];

function frame(columns) {
  const shown = table("The views, how far each is and who drives it", columns);
  const none = empty("There are no views yet.", "Declare one with ", h("code", {}, "@app.fold"), " or ", h("code", {}, "app.sql"), "; ", h("code", {}, "headwater up"), " deploys and drives it.");
  const element = h("section", { "aria-labelledby": "views" }, h("h2", { id: "views" }, "Views"), shown, none);
  none.hidden = true;
  return { element, rows: shown.body, toggle: (any) => {
    none.hidden = any;
    shown.hidden = !any;
  } };
}

const link = (view) => h("td", { class: "name" }, h("a", { class: "row", href: `#/views/${view.name}` }, view.name), h("span", { class: "soft kind" }, view.kind));

function views() {
  const { element, rows, toggle } = frame(COLUMNS);
  const make = (view) => {
    const parts = { state: state(), behind: h("td", { class: "number" }), lag: h("td", { class: "number wide" }), rate: h("td", { class: "number wide" }), parked: h("td", { class: "number" }), by: h("td", { class: "wide soft clip" }) };
    const row = h("tr", {}, link(view), h("td", {}, parts.state), parts.behind, parts.lag, parts.rate, parts.parked, parts.by);
    row.parts = parts;
    return opens(row);
  };
  const change = (row, view) => {
    const { parts } = row;
    setState(parts.state, ...standing(view));
    say(parts.behind, behind(view));
    say(parts.lag, seconds(view.behind_seconds));
    say(parts.rate, rate(viewRate(view.name)));
    say(parts.parked, count(view.parked));
    mark(parts.parked, "data-kind", view.parked ? "warn" : null);
    say(parts.by, view.driven_by ?? "nobody");
    mark(parts.by, "title", view.driven_by);
  };
  const show = (found) => {
    toggle(found.length > 0);
    follow(rows, found, (view) => view.name, make, change);
  };
  return { element, show };
}

/** What comes from other services; unseen where nothing does. */
function inboxes() {
  const shown = table("The inboxes, how far each is in its source's log and who drives it", [["Inbox", "name"], ["State", ""], ["Position", "number"], ["Last received", "number wide"], ["Parked", "number"], ["Driven by", "wide"]]);
  const element = h("section", { "aria-labelledby": "inboxes" }, h("h2", { id: "inboxes" }, "From other services"), shown);
  element.hidden = true;
  const make = (inbox) => {
    const parts = { state: state(), position: h("td", { class: "number" }), at: h("td", { class: "number wide" }), parked: h("td", { class: "number" }), by: h("td", { class: "wide soft clip" }) };
    const row = h("tr", {}, h("td", { class: "name" }, inbox.name.replace("inbox/", "")), h("td", {}, parts.state), parts.position, parts.at, parts.parked, parts.by);
    row.parts = parts;
    return row;
  };
  const change = (row, inbox, at) => {
    const { parts } = row;
    setState(parts.state, ...standing({ ...inbox, status: "current", behind_seconds: 0 }));
    say(parts.position, count(inbox.position));
    say(parts.at, inbox.position ? `${seconds(Math.max(0, (Date.parse(at) - Date.parse(inbox.received_at)) / 1000))} ago` : "never");
    say(parts.parked, count(inbox.parked));
    mark(parts.parked, "data-kind", inbox.parked ? "warn" : null);
    say(parts.by, inbox.driven_by ?? "nobody");
    mark(parts.by, "title", inbox.driven_by);
  };
  const show = ({ at, inboxes: found }) => {
    element.hidden = found.length === 0;
    follow(shown.body, found, (inbox) => inbox.name, make, (row, inbox) => change(row, inbox, at));
  };
  return { element, show };
}

/** What a token without the scope `operate` may see of views. */
function tenantViews() {
  const { element, rows, toggle } = frame([["View", "name"], ["State", ""], ["Positions behind", "number"], ["Parked", "number"]]);
  element.append(h("p", { class: "soft" }, "The log's head, rates, definitions and the doctor need a token with the scope ", h("code", {}, "operate"), ". ", h("a", { href: "#/token/operate" }, "Add one")));
  const make = (view) => {
    const parts = { state: state(), behind: h("td", { class: "number" }), parked: h("td", { class: "number" }) };
    const row = h("tr", {}, link(view), h("td", {}, parts.state), parts.behind, parts.parked);
    row.parts = parts;
    return opens(row);
  };
  const change = (row, view) => {
    const lagging = { ...view, driven_by: view.driven ? "a relay" : null, state: "running", behind_seconds: view.behind_positions > MANY ? Infinity : 0 };
    setState(row.parts.state, ...standing(lagging));
    say(row.parts.behind, view.position === 0 ? "all" : count(view.behind_positions));
    say(row.parts.parked, count(view.parked));
    mark(row.parts.parked, "data-kind", view.parked ? "warn" : null);
  };
  const show = (found) => {
    toggle(found.length > 0);
    follow(rows, found, (view) => view.name, make, change);
  };
  return { element, show };
}

/** The whole row opens what its link does. */
function opens(row) {
  row.classList.add("opens");
  row.addEventListener("click", (event) => {
    if (!event.target.closest("a") && getSelection().isCollapsed) row.querySelector("a").click();
  });
  return row;
}
