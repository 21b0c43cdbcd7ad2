// The keyboard: what each key does is said in the dialog of index.html.

const PLACES = { o: "#/", s: "#/streams", t: "#/tail", j: "#/jobs" };
const PREFIX_MS = 1200;

/** Listens for keys. `place()` is the place that is open: `{box, back, space}`. */
export function listen(place, help) {
  let prefixAt = -Infinity;
  document.addEventListener("keydown", (event) => {
    if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey || help.open) return;
    const typing = event.target.closest("input, textarea, select");
    if (typing) {
      if (event.key === "Escape") typing.blur();
      return;
    }
    const afterG = performance.now() - prefixAt < PREFIX_MS;
    prefixAt = event.key === "g" ? performance.now() : -Infinity;
    if (afterG && PLACES[event.key]) {
      location.hash = PLACES[event.key];
      event.preventDefault();
      return;
    }
    if (act(event, place(), help)) event.preventDefault();
  });
}

function act(event, place, help) {
  switch (event.key) {
    case "?":
      help.showModal();
      return true;
    case "/":
      if (place.box) place.box.focus();
      else location.hash = "#/streams";
      return true;
    case "j":
      return move(1);
    case "k":
      return move(-1);
    case "ArrowDown":
      return inRows() && move(1);
    case "ArrowUp":
      return inRows() && move(-1);
    case "Escape":
      if (place.back) location.hash = place.back;
      return Boolean(place.back);
    case " ":
      if (!place.space || event.target.closest("button:not(.row), a:not(.row), summary, pre")) return false;
      place.space();
      return true;
    default:
      return false;
  }
}

const inRows = () => Boolean(document.activeElement?.closest(".rows"));

function move(step) {
  const rows = [...document.querySelectorAll("main .rows .row")];
  if (rows.length === 0) return false;
  const now = document.activeElement?.closest(".rows > *")?.querySelector(".row");
  const at = rows.indexOf(now);
  const next = at < 0 ? (step > 0 ? 0 : rows.length - 1) : Math.min(Math.max(at + step, 0), rows.length - 1);
  rows[next].focus();
  rows[next].scrollIntoView({ block: "nearest" });
  return true;
}
