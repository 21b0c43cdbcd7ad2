// Numbers, times and JSON as people read them.

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const tenth = new Intl.NumberFormat("en", { maximumFractionDigits: 1, minimumFractionDigits: 1 });
const exactly = new Intl.DateTimeFormat(undefined, { dateStyle: "full", timeStyle: "long" });
const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });

/** A whole number with thousands separators. */
export const count = (value) => whole.format(value);

/** How many events a view is behind, as exactly as it is known. */
export function behind(view) {
  if (view.exact) return count(view.behind);
  return view.behind > 10001 ? `≈ ${count(view.behind)}` : "over 10,000";
}

/** Something per second; null is not known yet. */
export function rate(value) {
  if (value === null) return "–";
  return value > 0 && value < 9.95 ? tenth.format(value) : whole.format(value);
}

/** A number of seconds in its two largest units. */
export function seconds(value) {
  if (value < 0.95) return value < 0.05 ? "0 s" : `${tenth.format(value)} s`;
  if (value < 9.5) return `${tenth.format(value)} s`;
  if (value < 60) return `${whole.format(value)} s`;
  for (const [unit, size, below, smaller] of [["min", 60, "s", 1], ["h", 3600, "min", 60], ["d", 86400, "h", 3600]]) {
    if (value < size * (unit === "min" ? 60 : unit === "h" ? 48 : Infinity)) {
      const large = Math.floor(value / size);
      const small = Math.floor((value - large * size) / smaller);
      return small ? `${count(large)} ${unit} ${small} ${below}` : `${count(large)} ${unit}`;
    }
  }
  return "";
}

/** How long ago, by this machine's clock. */
export function ago(date) {
  const passed = (Date.now() - date) / 1000;
  if (passed < 1.5) return "now";
  if (passed < 60) return `${Math.floor(passed)} s ago`;
  if (passed < 3600) return `${Math.floor(passed / 60)} min ago`;
  if (passed < 48 * 3600) return `${Math.floor(passed / 3600)} h ago`;
  return `${count(Math.floor(passed / 86400))} d ago`;
}

/** A moment to the second, with date and zone. */
export const exact = (date) => exactly.format(date);

/** The time of day. */
export const timeOfDay = (date) => clock.format(date);

/** An element that says how long ago something was; the tooltip has the moment in the reader's zone. */
export function when(text, element = document.createElement("time")) {
  if (element.dateTime !== text) {
    element.dateTime = text;
    element.title = exact(new Date(text));
    element.textContent = ago(new Date(text));
  }
  return element;
}

setInterval(() => {
  if (document.hidden) return;
  for (const element of document.querySelectorAll("time")) {
    const text = ago(new Date(element.dateTime));
    if (element.textContent !== text) element.textContent = text;
  }
}, 1000);

// JSON ---------------------------------------------------------------------------------------------

/** Reads JSON and keeps numbers that a double cannot hold as they were written. */
export function readJson(text) {
  return JSON.parse(text, (_, value, context) => {
    if (typeof value !== "number" || context?.source === undefined || !JSON.rawJSON) return value;
    const digits = context.source.replace(/[eE].*|[^0-9]/g, "").length;
    return digits > 15 && String(value) !== context.source ? JSON.rawJSON(context.source) : value;
  });
}

const hidden = /[\u0000-\u001f\u007f-\u009f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]/g;
const escaped = (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`;

/** Text with what cannot be seen, or turns its direction, spelt out. */
export const visible = (text) => text.replace(hidden, escaped);

/** JSON on one line, cut where it is long. */
export function oneLine(value, most = 300) {
  const text = JSON.stringify(value) ?? "";
  return visible(text.length > most ? `${text.slice(0, most)}…` : text);
}

/** JSON on as many lines as it takes. */
export const pretty = (value) => (JSON.stringify(value, null, 2) ?? "").replace(hidden, (c) => (c === "\n" ? c : escaped(c)));

/** One value in a cell: text as it is, other JSON on one line. */
export const cell = (value) => (typeof value === "string" ? visible(value) : value === null || value === undefined ? "–" : oneLine(value));
