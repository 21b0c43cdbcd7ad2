// The history of one stream, or the question which.

import { get, poll } from "../api.js";
import { empty, follow, h, say } from "../dom.js";
import { eventRow, eventTable, STREAM_COLUMNS, streamPlace } from "../events.js";
import { count, visible } from "../format.js";

const PAGE = 100;
const NAME = /^[a-z][a-z0-9_-]*\/[^\u0000-\u0020\u007f]+$/;

export const needs = "read";
export const title = (name) => (name === "" ? "Streams" : `Stream ${visible(name)}`);

export function open(main, name, failed) {
  const box = h("input", { id: "stream", type: "search", autocomplete: "off", spellcheck: "false", placeholder: "order/42", value: name, maxlength: "255", "aria-describedby": "stream-error" });
  const error = h("p", { class: "error", id: "stream-error", role: "alert" });
  const go = (event) => {
    event.preventDefault();
    const wanted = box.value.trim();
    if (NAME.test(wanted)) location.hash = streamPlace(wanted);
    else say(error, "A stream is named category/id, such as order/42, without spaces.");
  };
  main.append(
    h("h1", { tabindex: "-1", class: name === "" ? "" : "long" }, name === "" ? "Streams" : visible(name)),
    h("form", { onsubmit: go, role: "search" }, h("label", { for: "stream" }, "Stream"), h("div", { class: "line" }, box, h("button", { type: "submit" }, "Show")), error));
  const stop = name === "" ? recent(main, failed) : history(main, name, failed);
  return { box, back: name === "" ? null : "#/streams", close: stop };
}

function recent(main, failed) {
  const list = h("ul", { class: "streams rows" });
  const none = empty("No events yet.", "Append one: ", h("code", {}, "headwater append TYPE DATA --stream order/42"));
  const section = h("section", { "aria-labelledby": "recent" }, h("h2", { id: "recent" }, "Written to of late"), list, none);
  none.hidden = true;
  main.append(section);
  return poll(async () => {
    const { events } = await get(`v1/events?newest=true&limit=${PAGE}`, "read");
    const newest = new Map(events.map((event) => [event.stream, event]));
    const found = [...newest.values()].sort((a, b) => b.position - a.position).slice(0, 20);
    none.hidden = found.length > 0;
    follow(list, found, (event) => event.stream,
      (event) => h("li", {}, h("a", { class: "row", href: streamPlace(event.stream) }, visible(event.stream)), h("span", { class: "soft number" })),
      (item, event) => say(item.lastElementChild, `version ${count(event.version)}`));
  }, 5, failed);
}

function history(main, name, failed) {
  const shown = eventTable(`Events of ${visible(name)}, oldest first`, STREAM_COLUMNS);
  const none = empty("There are no events in this stream.", "Names are exact, capitals too. ", h("a", { href: "#/streams" }, "Streams written to of late"));
  const more = h("button", { type: "button", class: "quiet" }, `Show the next ${PAGE}`);
  const sum = h("p", { class: "soft", role: "status" });
  shown.hidden = none.hidden = more.hidden = true;
  main.append(h("section", { "aria-label": "History" }, sum, shown, none, more));
  const events = [];
  let wanted = PAGE;
  const load = async () => {
    while (events.length < wanted) {
      const limit = Math.min(PAGE, wanted - events.length);
      const page = await get(`v1/streams/${encodeURIComponent(name)}?after_version=${events.at(-1)?.version ?? 0}&limit=${limit}`, "read");
      const known = events.at(-1)?.version ?? 0;
      events.push(...page.events.filter((event) => event.version > known));
      if (page.events.length < limit) break;
    }
    const full = events.length >= wanted;
    more.hidden = !full;
    shown.hidden = events.length === 0;
    none.hidden = events.length > 0;
    say(sum, events.length ? `${full ? "The first " : ""}${count(events.length)} ${events.length === 1 ? "event" : "events"}, oldest first` : "");
    follow(shown.rows, events, (event) => event.version, (event) => eventRow(event, { stream: false }));
  };
  more.addEventListener("click", () => {
    wanted += PAGE;
    load().catch(() => {});
  });
  return poll(load, 3, failed);
}
