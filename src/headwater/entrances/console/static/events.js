// Rows of events: on one line, and whole where they are opened.

import { h } from "./dom.js";
import { count, oneLine, pretty, visible, when } from "./format.js";

const SHOWN = 20000;
let numbers = 0;

/** The address of a stream's place. */
export const streamPlace = (name) => `#/streams/${encodeURIComponent(name)}`;

/** JSON as text that can be scrolled and copied; very long text is cut until it is asked for. */
export function json(value, label) {
  const text = pretty(value);
  const shown = h("pre", { tabindex: "0", role: "region", "aria-label": label }, text.slice(0, SHOWN));
  if (text.length <= SHOWN) return shown;
  const more = h("button", { type: "button", class: "quiet", onclick: () => {
    shown.textContent = text;
    more.remove();
  } }, `Show all ${count(text.length)} characters`);
  return h("div", {}, shown, more);
}

/** A row of a table that unfolds: its first cell has the button, and `whole()` gives what is below. */
export function folded(cells, whole) {
  const id = `whole-${(numbers += 1)}`;
  const button = cells.querySelector(".row");
  const group = h("tbody", { class: "fold" }, cells);
  button.setAttribute("aria-expanded", "false");
  button.addEventListener("click", () => {
    group.dispatchEvent(new Event("unfold", { bubbles: true }));
    const open = button.getAttribute("aria-expanded") === "true";
    button.setAttribute("aria-expanded", String(!open));
    if (open) {
      group.lastElementChild.remove();
      button.removeAttribute("aria-controls");
    } else {
      group.append(h("tr", { class: "whole", id }, h("td", { colspan: [...cells.cells].filter((cell) => cell.checkVisibility()).length }, whole())));
      button.setAttribute("aria-controls", id);
    }
  });
  return group;
}

/** One event as a row. `stream` says whether its stream has a column, or its version. */
export function eventRow(event, { stream }) {
  const type = h("button", { type: "button", class: "row" }, event.type);
  const name = h("a", { href: streamPlace(event.stream) }, visible(event.stream));
  const cells = stream
    ? [h("td", { class: "time" }, when(event.recorded_at)), h("td", {}, type), h("td", { class: "name" }, name), h("td", { class: "number wide" }, count(event.version))]
    : [h("td", { class: "number" }, count(event.version)), h("td", {}, type), h("td", { class: "time" }, when(event.recorded_at))];
  const row = h("tr", {}, cells, h("td", { class: "data" }, h("code", {}, oneLine(event.data))));
  return folded(row, () => whole(event));
}

function whole(event) {
  const facts = [
    ["Position", count(event.position)],
    ["Id", event.id],
    ["Recorded", event.recorded_at],
    event.occurred_at ? ["Occurred", event.occurred_at] : null,
    ["Schema version", String(event.schema_version)],
    event.keys.length ? ["Keys", event.keys.map(visible).join(", ")] : null,
  ].filter(Boolean);
  return h("div", { class: "event" },
    json(event.data, `Data of ${event.type}, version ${event.version}`),
    h("dl", { class: "facts small" }, facts.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value)))),
    Object.keys(event.metadata).length ? h("div", {}, h("h3", {}, "Metadata"), json(event.metadata, "Metadata")) : null);
}

/** A table of folded rows: each row is a body of its own, so that what it unfolds belongs to it. */
export function eventTable(caption, columns) {
  const element = h("table", { class: "rows events" },
    h("caption", { class: "unseen" }, caption),
    h("thead", {}, h("tr", {}, columns.map(([title, kind]) => h("th", { scope: "col", class: kind }, title)))));
  const frame = h("div", { class: "scroll" }, element);
  frame.rows = element;
  return frame;
}

export const TAIL_COLUMNS = [["When", "time"], ["Type", ""], ["Stream", "name"], ["Version", "number wide"], ["Data", "data"]];
export const STREAM_COLUMNS = [["Version", "number"], ["Type", ""], ["When", "time"], ["Data", "data"]];
