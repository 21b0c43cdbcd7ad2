// One view: how far it is, its definition, its first rows, what it has parked.

import { get, poll, Problem, session } from "../api.js";
import { empty, fact, follow, h, mark, say, setState, state, table } from "../dom.js";
import { folded, json, streamPlace, eventTable } from "../events.js";
import { behind, cell, count, oneLine, rate, seconds, visible, when } from "../format.js";
import { look, standing, viewRate } from "../samples.js";

const ROWS = 20;
const COLUMNS = 12;
const EXPLAINED = 20;

export const title = (name) => `View ${name}`;

export function open(main, name, failed) {
  const head = h("header", { class: "heading" }, h("h1", { tabindex: "-1" }, name));
  main.append(h("p", { class: "up" }, h("a", { href: "#/" }, "Overview")), head);
  const polls = [];
  const unlessGone = (problem) => {
    if (problem?.code === "unknown_view") head.after(empty(problem.detail, problem.hint ?? ""));
    else failed(problem);
  };
  if (session.with("operate")) {
    const lag = lagOf(name, head);
    main.append(lag.element);
    polls.push(poll(async () => lag.show((await look()).views.find((view) => view.name === name)), 2, unlessGone));
    definition(main, name).catch(unlessGoneOnly(unlessGone));
  } else main.append(needs("How far it is, and its definition, need a token with the scope ", "operate"));
  if (session.with("read")) {
    const [parked, rows] = [parkedOf(name), rowsOf(name)];
    main.append(parked.element, rows.element);
    polls.push(poll(parked.load, 5, failed), poll(rows.load, 5, failed));
  } else main.append(needs("Its rows and parked events are a tenant's data: they need a token with the scope ", "read"));
  return { back: "#/", close: () => polls.forEach((stop) => stop()) };
}

const unlessGoneOnly = (hears) => (error) => {
  if (error instanceof Problem) hears(error);
};

const needs = (why, scope) => h("p", { class: "soft" }, why, h("code", {}, scope), ". ", h("a", { href: `#/token/${scope}` }, "Add one"));

function lagOf(name, head) {
  const now = state("idle", "");
  head.append(now);
  const why = h("p", { class: "why", hidden: true });
  const parts = ["Behind", "Lag", "Events/s", "Parked", "Position"].map((one) => fact(one, "number"));
  const by = fact("Driven by");
  const element = h("section", { "aria-label": "How far it is" }, why, h("dl", { class: "facts" }, parts, by));
  const show = (view) => {
    if (view === undefined) return;
    const [kind, word, reason] = standing(view);
    setState(now, kind, word);
    why.hidden = !reason;
    say(why, reason ?? "");
    const values = [behind(view), seconds(view.behind_seconds), rate(viewRate(name)), count(view.parked), count(view.position)];
    values.forEach((value, n) => say(parts[n].value, value));
    mark(parts[3], "data-kind", view.parked ? "warn" : null);
    say(by.value, view.driven_by ?? "nobody");
  };
  return { element, show };
}

async function definition(main, name) {
  const text = h("pre", { class: "definition", tabindex: "0", role: "region", "aria-label": "Definition" }, "");
  const facts = h("dl", { class: "facts small" });
  main.append(h("section", { "aria-labelledby": "definition" }, h("h2", { id: "definition" }, "Definition"), facts, text));
  const found = await get(`v1/definitions/${encodeURIComponent(name)}`, "operate");
  say(text, found.text);
  const said = [["Kind", found.kind], ["Reads", found.reads.join(", ")], ["Key", found.key.join(", ") || "none: one row"], ["When an event cannot be applied", found.on_failure], ["Fingerprint", found.fingerprint.slice(0, 12)]];
  facts.append(...said.map(([what, value]) => h("div", {}, h("dt", {}, what), h("dd", {}, value))));
}

// Parked events ------------------------------------------------------------------------------------

function parkedOf(name) {
  const shown = eventTable("Parked events", [["Type", ""], ["Stream", "name"], ["Parked", "time"], ["Reason", "data"]]);
  const none = h("p", { class: "soft" }, "Nothing is parked.");
  const what = h("p", { class: "soft" }, "Once the cause is mended, ", h("code", {}, `headwater parked --view ${name} --replay`), " applies them again.");
  const first = h("p", { class: "soft" }, "These are the first; there are more.");
  const element = h("section", { "aria-labelledby": "parked" }, h("h2", { id: "parked" }, "Parked events"), none, shown, first, what);
  shown.hidden = what.hidden = first.hidden = true;
  const load = async () => {
    const { parked, next } = await get(`v1/parked/${encodeURIComponent(name)}`, "read");
    none.hidden = parked.length > 0;
    shown.hidden = what.hidden = parked.length === 0;
    first.hidden = next === null;
    follow(shown.rows, parked, (event) => event.position, parkedRow);
  };
  return { element, load };
}

function parkedRow(event) {
  const button = h("button", { type: "button", class: "row" }, event.type ?? "unknown");
  const row = h("tr", {}, h("td", {}, button), h("td", { class: "name" }, event.stream ? h("a", { href: streamPlace(event.stream) }, visible(event.stream)) : "–"),
    h("td", { class: "time" }, when(event.parked_at)), h("td", { class: "data" }, visible(event.reason)));
  return folded(row, () => h("div", { class: "event" }, h("p", {}, visible(event.reason)), json(event.data, "Data"),
    h("dl", { class: "facts small" }, [["Position", count(event.position)], ["Keys", event.keys?.map(visible).join(" ") ?? "unknown"], ["Version", event.version === null ? "–" : count(event.version)]]
      .map(([what, value]) => h("div", {}, h("dt", {}, what), h("dd", {}, value))))));
}

// Rows ---------------------------------------------------------------------------------------------

function rowsOf(name) {
  const place = h("div");
  const next = h("button", { type: "button", class: "quiet" }, `Next ${ROWS} rows`);
  const first = h("button", { type: "button", class: "quiet" }, "Back to the first");
  const element = h("section", { "aria-labelledby": "rows" }, h("h2", { id: "rows" }, "Rows"), place, h("p", { class: "line" }, next, first));
  next.hidden = first.hidden = true;
  let after = null;
  let beyond = null;
  let shape = null;
  const load = async () => {
    const query = new URLSearchParams({ limit: ROWS, ...(after === null ? {} : { after }) });
    const page = await get(`v1/views/${encodeURIComponent(name)}?${query}`, "read");
    beyond = page.next;
    next.hidden = beyond === null;
    first.hidden = after === null;
    const columns = [...new Set(page.rows.flatMap((one) => Object.keys(one.row)))].slice(0, COLUMNS);
    const keyed = page.view.kind === "fold";
    const names = keyed ? [page.view.key[0], ...columns] : columns;
    if (page.rows.length === 0) {
      shape = null;
      place.replaceChildren(empty("No rows here yet.", after === null ? "They appear when the view applies events of your tenant." : "There are none after this key."));
      return;
    }
    if (shape?.names !== names.join()) {
      shape = eventTable(`The first rows of ${name}`, names.map((column) => [column, kindOf(page.rows, column)]));
      shape.names = names.join();
      place.replaceChildren(shape);
    }
    const values = (one) => (keyed ? [decodeURIComponent(one.key), ...columns.map((c) => one.row[c])] : columns.map((c) => one.row[c]));
    const make = (one) => folded(
      h("tr", {}, names.map((column, n) => h("td", { class: kindOf(page.rows, column) }, n === 0 ? h("button", { type: "button", class: "row" }) : null))),
      () => explanation(name, one.key));
    const change = (group, one) => {
      const cells = group.firstElementChild.cells;
      values(one).forEach((value, n) => say(n === 0 ? cells[0].firstElementChild : cells[n], cell(value)));
    };
    follow(shape.rows, page.rows, (one) => one.key, make, change);
  };
  const go = (where) => {
    after = where;
    load().catch(() => {});
  };
  next.addEventListener("click", () => go(beyond));
  first.addEventListener("click", () => go(null));
  return { element, load };
}

/** The events behind a row, and what it was after each: the newest of them. */
function explanation(name, key) {
  const place = h("div", { class: "event", "aria-live": "polite" }, h("p", { class: "soft" }, "Reading the events behind it …"));
  get(`v1/explain/${encodeURIComponent(name)}/${key}?limit=${EXPLAINED}`, "read").then(
    (found) => place.replaceChildren(...changes(found)),
    (error) => {
      if (!(error instanceof Problem)) throw error;
      place.replaceChildren(h("p", {}, error.detail), h("p", { class: "soft" }, error.hint ?? ""));
    });
  return place;
}

function changes(found) {
  if (found.changes.length === 0) return [h("p", { class: "soft" }, "No event is behind this key.")];
  const shown = table("The events behind the row", [["When", "time"], ["Type", ""], ["Stream", "name"], ["Data", "data"], ["Row after it", "data"]]);
  shown.body.append(...found.changes.map((change) => h("tr", {},
    h("td", { class: "time" }, when(change.recorded_at)), h("td", {}, change.type),
    h("td", { class: "name" }, h("a", { href: streamPlace(change.stream) }, visible(change.stream))),
    h("td", { class: "data" }, h("code", {}, oneLine(change.data))),
    h("td", { class: "data" }, change.left_out ? change.left_out : h("code", {}, change.row === null ? "none" : oneLine(change.row))))));
  const said = found.changes.length === found.events ? `${count(found.events)} events` : `The newest ${count(found.changes.length)} of ${count(found.events)} events`;
  return [h("p", { class: "soft" }, `${said} behind it, up to position ${count(found.position)}.`), shown];
}

/** Numbers stand on the right, also those that come as text because they are exact. */
function kindOf(rows, column) {
  const values = rows.map((one) => one.row[column]).filter((value) => value !== null && value !== undefined);
  const numeric = (value) => typeof value === "number" || (typeof value === "string" && /^-?\d{1,40}(\.\d{1,40})?$/.test(value)) || JSON.isRawJSON?.(value);
  return values.length > 0 && values.every(numeric) ? "number" : "";
}
