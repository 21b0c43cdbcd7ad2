// Events as they come, newest first.

import { get, Problem, server } from "../api.js";
import { empty, follow, h, say, setState, state } from "../dom.js";
import { eventRow, eventTable, TAIL_COLUMNS } from "../events.js";
import { count, readJson } from "../format.js";
import { Channel } from "../live.js";

const KEPT = 200;
const WORDS = { connecting: ["idle", "connecting"], live: ["good", "live"], reconnecting: ["warn", "reconnecting"], refused: ["bad", "refused"], paused: ["idle", "paused"] };

export const needs = "read";
export const title = () => "Tail";

/** What a filter asks the API for: a type, a stream, or a category with a slash at its end. */
export function parse(text) {
  if (text === "") return {};
  if (/^[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*){1,3}$/.test(text)) return { type: text };
  if (/^[a-z][a-z0-9_-]*\/$/.test(text)) return { category: text.slice(0, -1) };
  if (/^[a-z][a-z0-9_-]*\/[^\u0000-\u0020\u007f]+$/.test(text)) return { stream: text };
  return null;
}

const matches = (event, { type, stream, category }) =>
  (!type || event.type === type) && (!stream || event.stream === stream) && (!category || event.stream.startsWith(`${category}/`));

export function open(main, text, failed) {
  const tail = new Tail(main, text, failed);
  return { box: tail.box, space: () => tail.pause(), close: () => tail.close() };
}

class Tail {
  #filter = {};
  #events = [];
  #waiting = [];
  #missed = 0;
  #paused = false;
  #frame = null;
  #channel = null;
  #closed = false;
  #word = "connecting";
  #started = 0;

  constructor(main, text, failed) {
    this.failed = failed;
    this.box = h("input", { id: "filter", type: "search", autocomplete: "off", spellcheck: "false", maxlength: "255", placeholder: "order.placed, order/42 or order/", value: text, "aria-describedby": "filter-error" });
    this.error = h("p", { class: "error", id: "filter-error", role: "alert" });
    this.state = state("idle", "connecting");
    this.state.setAttribute("role", "status");
    this.button = h("button", { type: "button", class: "quiet", title: "Space", onclick: () => this.pause() }, "Pause");
    this.table = eventTable("Events, newest first", TAIL_COLUMNS);
    this.none = empty("No events yet.", "Whatever is appended appears here by itself.");
    this.none.hidden = this.table.hidden = true;
    main.append(
      h("div", { class: "heading" }, h("h1", { tabindex: "-1" }, "Tail"), this.state, this.button),
      h("form", { role: "search", onsubmit: (event) => this.#submit(event) }, h("label", { for: "filter" }, "Type, stream, or category/"), h("div", { class: "line" }, this.box, h("button", { type: "submit" }, "Filter")), this.error),
      this.table, this.none);
    this.table.addEventListener("unfold", () => this.#paused || this.pause()); // whoever reads is not interrupted
    this.box.addEventListener("search", () => this.box.value === "" && this.#submit(null));
    document.addEventListener("visibilitychange", this.#seen);
    server.addEventListener("change", this.#found);
    this.#submit(null);
  }

  close() {
    this.#closed = true;
    this.#channel?.stop();
    cancelAnimationFrame(this.#frame);
    document.removeEventListener("visibilitychange", this.#seen);
    server.removeEventListener("change", this.#found);
  }

  pause() {
    this.#paused = !this.#paused;
    say(this.button, this.#paused ? "Resume" : "Pause");
    this.#later();
    this.#say();
  }

  #seen = () => {
    // Nobody looks: nothing is asked for. Whoever comes back sees the newest.
    if (document.hidden) this.#channel?.stop();
    else this.#start();
  };

  #found = () => {
    if (server.lostAt === null && this.#channel === null) this.#start();
  };

  #submit(event) {
    event?.preventDefault();
    const wanted = this.box.value.trim();
    const filter = parse(wanted);
    if (filter === null) {
      say(this.error, "Write a type such as order.placed, a stream such as order/42, or a category such as order/.");
      return;
    }
    say(this.error, "");
    history.replaceState(null, "", wanted === "" ? "#/tail" : `#/tail/${encodeURIComponent(wanted)}`);
    this.#filter = filter;
    this.#events = [];
    this.#waiting = [];
    this.#start();
  }

  async #start() {
    this.#channel?.stop();
    this.#channel = null;
    const turn = (this.#started += 1);
    try {
      const query = new URLSearchParams({ newest: "true", limit: KEPT, ...(this.#filter.type ? { type: this.#filter.type } : {}) });
      const page = await get(`v1/events?${query}`, "read");
      if (turn !== this.#started || this.#closed) return;
      const known = this.#events[0]?.position ?? 0;
      const fresh = page.events.filter((one) => matches(one, this.#filter) && one.position > known);
      this.#waiting = fresh;
      this.failed(null);
      this.#later();
      this.#channel = new Channel(`v1/live/events?${new URLSearchParams(this.#filter)}`, page.next, {
        message: (data) => this.#take(readJson(data)),
        state: (word, problem) => this.#heard(word, problem),
        stale: () => this.#start(),
      });
    } catch (error) {
      if (turn !== this.#started || this.#closed) return;
      if (error instanceof Problem) {
        this.failed(error);
        if (error.status >= 500) setTimeout(() => turn === this.#started && !this.#closed && this.#start(), 3000);
      }
      this.#heard("reconnecting", null);
    }
  }

  #take(event) {
    this.#waiting.push(event);
    if (this.#waiting.length > KEPT) {
      this.#waiting.shift();
      this.#missed += 1;
    }
    this.#later();
    if (this.#paused) this.#say();
  }

  #heard(word, problem) {
    this.#word = word;
    if (word === "refused") this.failed(problem);
    if (word === "live") this.#later();
    this.#say();
  }

  #say() {
    const waiting = this.#waiting.length + this.#missed;
    const [kind, word] = WORDS[this.#paused && this.#word === "live" ? "paused" : this.#word];
    setState(this.state, kind, this.#paused && waiting ? `${word}, ${count(waiting)} new` : word);
  }

  /** Draws once a frame, however fast events come. */
  #later() {
    this.#frame ??= requestAnimationFrame(() => {
      this.#frame = null;
      if (!this.#paused) this.#draw();
    });
  }

  #draw() {
    this.#events = [...this.#waiting.reverse(), ...this.#events].slice(0, KEPT);
    this.#waiting = [];
    this.#missed = 0;
    this.table.hidden = this.#events.length === 0;
    this.none.hidden = this.#events.length > 0;
    follow(this.table.rows, this.#events, (event) => event.position, (event) => eventRow(event, { stream: true }));
  }
}
