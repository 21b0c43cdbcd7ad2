// Asking the API: with which token, and what an answer or its absence means.

import { readJson } from "./format.js";

const KEPT = "headwater.tokens";
const GIVE_UP_MS = 15000;

/** Why a request was refused: what happened, why, what to do. */
export class Problem extends Error {
  constructor({ title, detail, hint, code, status }) {
    super(detail ?? title);
    Object.assign(this, { title, detail, hint, code, status });
  }
}

/** The server did not answer. */
export class Unreachable extends Error {}

// Tokens -------------------------------------------------------------------------------------------

/** The tokens of this tab, with whom each stands for. At most one for each scope is in use. */
export const session = new (class extends EventTarget {
  #held = JSON.parse(sessionStorage.getItem(KEPT) ?? "[]");
  refused = null;

  with(scope) {
    return this.#held.find((one) => one.scopes.includes(scope));
  }

  get any() {
    return this.#held.length > 0;
  }

  get app() {
    return this.#held[0]?.app ?? null;
  }

  get tenant() {
    return this.with("read")?.tenant ?? null;
  }

  /** Takes a token once the server has said whom it stands for. Raises Problem or Unreachable. */
  async add(token) {
    const caller = await ask("v1/caller", token);
    const useful = (one) => one.scopes.some((scope) => scope !== "append" && !caller.scopes.includes(scope));
    this.#keep([{ token, ...caller }, ...this.#held.filter(useful)]);
    this.refused = null;
  }

  /** Forgets a token that was refused, or all. */
  forget(token = null, problem = null) {
    this.refused = problem;
    this.#keep(token === null ? [] : this.#held.filter((one) => one.token !== token));
  }

  #keep(held) {
    this.#held = held;
    sessionStorage.setItem(KEPT, JSON.stringify(held));
    this.dispatchEvent(new Event("change"));
  }
})();

// The server ---------------------------------------------------------------------------------------

/** Whether the server answers. While it does not, it is asked every two seconds. */
export const server = new (class extends EventTarget {
  lostAt = null;

  lost() {
    if (this.lostAt !== null) return;
    this.lostAt = new Date();
    this.dispatchEvent(new Event("change"));
    this.#ask();
  }

  #ask() {
    setTimeout(async () => {
      try {
        if (document.hidden) throw new Unreachable();
        await send("healthz", null);
      } catch {
        this.#ask();
        return;
      }
      this.lostAt = null;
      this.dispatchEvent(new Event("change"));
    }, 2000);
  }
})();

async function send(path, token, { signal = null, headers = {}, method = "GET" } = {}) {
  const given = token === null ? headers : { Authorization: `Bearer ${token}`, ...headers };
  try {
    return await fetch(path, { method, headers: given, signal, cache: "no-store", credentials: "omit", redirect: "error" });
  } catch (error) {
    if (signal?.aborted && signal.reason?.name !== "TimeoutError") throw error;
    throw new Unreachable();
  }
}

async function refusal(response) {
  try {
    return new Problem(readJson(await response.text()));
  } catch {
    return new Problem({ title: `The server answered ${response.status}.`, status: response.status, hint: "Its log may say more." });
  }
}

async function ask(path, token, method = "GET") {
  const response = await send(path, token, { method, signal: AbortSignal.timeout(GIVE_UP_MS) });
  if (!response.ok) throw await refusal(response);
  return readJson(await response.text());
}

/** What a path answers, asked with the token that has the scope. Raises Problem or Unreachable. */
export const get = (path, scope) => answer(path, scope, "GET");

/** Has something done, and what is answered. Raises Problem or Unreachable. */
export const post = (path, scope) => answer(path, scope, "POST");

async function answer(path, scope, method) {
  const { token } = held(scope);
  try {
    return await ask(path, token, method);
  } catch (error) {
    throw known(error, token);
  }
}

/** The body of a live channel. Raises Problem or Unreachable. */
export async function open(path, scope, headers, signal) {
  const { token } = held(scope);
  try {
    const response = await send(path, token, { signal, headers });
    if (!response.ok) throw await refusal(response);
    return response.body;
  } catch (error) {
    throw known(error, token);
  }
}

function held(scope) {
  const one = session.with(scope);
  if (one === undefined) throw new Problem({ title: "No token.", code: "unauthenticated", status: 401 });
  return one;
}

function known(error, token) {
  if (error instanceof Unreachable) server.lost();
  if (error instanceof Problem && error.status === 401) session.forget(token, error);
  return error;
}

// Asking again and again ---------------------------------------------------------------------------

/** Runs something now and every so often, not while the tab is hidden or the server is lost. `failed` hears
 * of problems, and of null when they are over. Returns what stops it. */
export function poll(run, everySeconds, failed) {
  let timer = null;
  let stopped = false;
  let running = false;
  const go = async () => {
    clearTimeout(timer);
    if (stopped || running || document.hidden || server.lostAt !== null) return;
    running = true;
    try {
      await run();
      if (!stopped) failed(null);
    } catch (error) {
      if (!(error instanceof Problem || error instanceof Unreachable)) throw error;
      if (!stopped && error instanceof Problem) failed(error);
    } finally {
      running = false;
      if (!stopped) timer = setTimeout(go, everySeconds * 1000);
    }
  };
  document.addEventListener("visibilitychange", go);
  server.addEventListener("change", go);
  go();
  return () => {
    stopped = true;
    clearTimeout(timer);
    document.removeEventListener("visibilitychange", go);
    server.removeEventListener("change", go);
  };
}
