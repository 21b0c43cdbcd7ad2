// The page: which place is open, the banner, the theme.

import { Problem, session, server } from "./api.js";
import { h, mark, say } from "./dom.js";
import { timeOfDay } from "./format.js";
import { listen } from "./keys.js";
import * as jobs from "./places/jobs.js";
import * as overview from "./places/overview.js";
import { signIn } from "./places/sign_in.js";
import * as streams from "./places/streams.js";
import * as tail from "./places/tail.js";
import * as view from "./places/view.js";

const PLACES = { "": overview, views: view, streams, tail, jobs };
const NAMES = { "": "overview", views: "overview", streams: "streams", tail: "tail", jobs: "jobs" };
const TOKEN = /^#token=(hw_[0-9a-z]{12}_[A-Za-z0-9_-]{43})$/;

const by = (id) => document.getElementById(id);
const main = by("main");
let now = { close: () => {} };
let opened = false;
let before = null;

// Places -------------------------------------------------------------------------------------------

function show() {
  const [, first = "", ...rest] = location.hash.split("/");
  now.close();
  notice(null);
  main.replaceChildren();
  let name = rest.join("/");
  try {
    name = decodeURIComponent(name);
  } catch {
    name = "";
  }
  const place = PLACES[first] ?? overview;
  const missing = missingFor(first, name, place);
  if (missing === undefined) {
    now = place.open(main, name, notice);
    document.title = `${place.title(name)} · Headwater`;
  } else {
    const asked = signIn(missing);
    main.append(asked.element);
    now = { box: asked.box, close: () => {} };
    document.title = "Open with a token · Headwater";
  }
  for (const link of document.querySelectorAll("[data-place]")) {
    mark(link, "aria-current", link.dataset.place === (NAMES[first] ?? "overview") ? "page" : null);
  }
  window.scrollTo(0, 0);
  if (opened) main.querySelector("h1")?.focus({ preventScroll: true });
  if (opened && before !== null) comeBack(before);
  opened = true;
  before = location.hash;
}

/** Puts the focus on the row that led to the place one comes from, once it is there. */
function comeBack(from) {
  const started = document.activeElement;
  const watch = new MutationObserver(() => {
    const row = [...main.querySelectorAll("a.row")].find((link) => link.hash === from);
    if (row === undefined) return;
    watch.disconnect();
    if (document.activeElement === started) row.focus();
  });
  watch.observe(main, { childList: true, subtree: true });
  setTimeout(() => watch.disconnect(), 3000);
}

/** The scope that is missing; null where any token is, undefined where none is. */
function missingFor(first, name, place) {
  if (!session.any) return null;
  if (first === "token") return session.with(name) ? undefined : name === "read" ? "read" : "operate";
  const needed = place.needs ?? (session.with("operate") ? "operate" : "read");
  return session.with(needed) ? undefined : needed;
}

// The banner ---------------------------------------------------------------------------------------

let problem = null;

function notice(found) {
  problem = found;
  tell();
}

function tell() {
  const banner = by("banner");
  banner.hidden = server.lostAt === null && problem === null;
  if (banner.hidden) {
    banner.replaceChildren();
    return;
  }
  const [what, next] = server.lostAt !== null
    ? ["The server does not answer.", `What is shown is from ${timeOfDay(server.lostAt)}. The page goes on by itself once headwater up runs again.`]
    : [problem.detail ?? problem.title, problem.hint ?? ""];
  if (banner.textContent !== what + next) banner.replaceChildren(h("strong", {}, what), h("span", {}, next));
}

// The bar ------------------------------------------------------------------------------------------

const THEMES = ["system", "light", "dark"];

function theme() {
  return document.documentElement.dataset.theme ?? "system";
}

function setTheme(name) {
  if (name === "system") {
    delete document.documentElement.dataset.theme;
    localStorage.removeItem("headwater.theme");
  } else {
    document.documentElement.dataset.theme = name;
    localStorage.setItem("headwater.theme", name);
  }
  say(by("theme").lastElementChild, name);
}

function who() {
  say(by("who"), session.any ? [session.app, session.tenant && `tenant ${session.tenant}`].filter(Boolean).join(" · ") : "");
  by("leave").hidden = !session.any;
}

/** Takes a token from the address, which no server sees, and cleans the address. */
async function takeToken() {
  const token = TOKEN.exec(location.hash)?.[1];
  if (token === undefined) return false;
  history.replaceState(null, "", "#/");
  try {
    await session.add(token);
  } catch (refused) {
    if (session.any) show();
    else session.forget(null, refused instanceof Problem ? refused : null);
  }
  return true;
}

by("theme").addEventListener("click", () => setTheme(THEMES[(THEMES.indexOf(theme()) + 1) % THEMES.length]));
by("keys").addEventListener("click", () => by("help").showModal());
by("leave").addEventListener("click", () => session.forget());
by("skip").addEventListener("click", (event) => {
  event.preventDefault();
  main.focus();
});
session.addEventListener("change", () => {
  who();
  if (location.hash.startsWith("#/token/")) history.replaceState(null, "", "#/");
  show();
});
server.addEventListener("change", tell);
window.addEventListener("hashchange", async () => {
  if (!(await takeToken())) show();
});
listen(() => now, by("help"));
setTheme(theme());
if (!(await takeToken())) {
  who();
  show();
}
