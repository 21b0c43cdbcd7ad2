// What the page has seen of the log, to say how fast it and its views move.

import { get } from "./api.js";

const KEPT_MS = 5 * 60 * 1000;
const OVER_MS = 10 * 1000;
const BLOCK = 2 ** 40;

const seen = [];

/** The log and its views now; remembered for rates. */
export async function look() {
  const overview = await get("v1/overview", "operate");
  const at = Date.parse(overview.at);
  const positions = new Map(overview.views.map((view) => [view.name, view.position]));
  seen.push({ at, log: overview.log.position, views: positions });
  while (seen[0].at < at - KEPT_MS) seen.shift();
  return overview;
}

/** Events a second between two samples. Positions of another month are not comparable. */
function between(before, after, of) {
  const [from, to] = [of(before), of(after)];
  const took = (after.at - before.at) / 1000;
  if (from === undefined || to === undefined || took <= 0) return null;
  if (Math.floor(from / BLOCK) !== Math.floor(to / BLOCK) || to < from) return null;
  return (to - from) / took;
}

/** Events a second over the last ten seconds; null while not known. */
function recent(of) {
  const last = seen.at(-1);
  const first = seen.find((sample) => sample.at >= last?.at - OVER_MS);
  return last === undefined || first === last ? null : between(first, last, of);
}

/** How fast the log grows. */
export const logRate = () => recent((sample) => sample.log);

/** How fast a view moves. */
export const viewRate = (name) => recent((sample) => sample.views.get(name));

/** The log's rate at each sample of the last minutes: `{at, rate}`; the first has that of the second. */
export function history() {
  if (seen.length < 2) return [];
  return seen.map(({ at }, n) => ({ at, rate: between(seen[Math.max(n - 1, 0)], seen[Math.max(n, 1)], (s) => s.log) ?? 0 }));
}

/** What to say of a view's state: a shape's kind, a word, and why. */
export function standing(view) {
  if (view.status === "missing") return ["warn", "missing", "Declared, but not deployed. headwater up deploys it."];
  if (view.status === "unknown") return ["idle", "not in this app", "Deployed, but this process does not know its definition."];
  if (view.status === "stale") return ["warn", "stale", `Its definition has changed. Run headwater rebuild ${view.name}.`];
  if (!view.driven_by) return ["warn", "not driven", "No relay drives it. Run headwater up."];
  if (view.state !== "running") return ["bad", view.state, view.detail];
  if (view.behind_seconds > 2) return ["busy", "catching up", null];
  return ["good", "current", null];
}
