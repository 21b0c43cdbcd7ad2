// A live channel over fetch, since EventSource cannot send a token: resumed by the last id it saw.

import { open, Problem, server } from "./api.js";

const QUIET_MS = 40000;

/** Follows a channel until `stop()`. `hears` gets `{message(data), state(word, problem), stale()}`.
 * States: connecting, live, reconnecting, refused. */
export class Channel {
  #path;
  #hears;
  #last;
  #stopped = new AbortController();

  constructor(path, after, hears) {
    this.#path = path;
    this.#last = after === null ? null : String(after);
    this.#hears = hears;
    this.#follow();
  }

  stop() {
    this.#stopped.abort();
  }

  async #follow() {
    let wait = 500;
    this.#hears.state("connecting", null);
    while (!this.#stopped.signal.aborted) {
      try {
        await this.#read(() => {
          wait = 500;
          this.#hears.state("live", null);
        });
      } catch (error) {
        if (this.#stopped.signal.aborted) return;
        if (error instanceof Problem && error.code === "stale_token") {
          this.#hears.stale();
          return;
        }
        if (error instanceof Problem && ![429, 503].includes(error.status)) {
          this.#hears.state("refused", error);
          return;
        }
      }
      if (this.#stopped.signal.aborted) return;
      this.#hears.state("reconnecting", null);
      await this.#again(wait * (0.75 + Math.random() / 2));
      wait = Math.min(wait * 2, 5000);
    }
  }

  /** Waits, and no longer than until the server is heard of again. */
  #again(ms) {
    return new Promise((done) => {
      const over = () => {
        clearTimeout(timer);
        server.removeEventListener("change", found);
        this.#stopped.signal.removeEventListener("abort", over);
        done();
      };
      const found = () => server.lostAt === null && over();
      const timer = setTimeout(over, ms);
      server.addEventListener("change", found);
      this.#stopped.signal.addEventListener("abort", over);
    });
  }

  async #read(opened) {
    const quiet = new AbortController();
    const signal = AbortSignal.any([this.#stopped.signal, quiet.signal]);
    let timer = setTimeout(() => quiet.abort(), QUIET_MS);
    try {
      const headers = this.#last === null ? {} : { "Last-Event-ID": this.#last };
      const body = await open(this.#path, "read", headers, signal);
      opened();
      const reader = body.pipeThrough(new TextDecoderStream()).getReader();
      let text = "";
      for (;;) {
        const { done, value } = await reader.read();
        if (done) return;
        clearTimeout(timer);
        timer = setTimeout(() => quiet.abort(), QUIET_MS);
        const blocks = (text + value).split("\n\n");
        text = blocks.pop();
        for (const block of blocks) this.#take(block);
      }
    } finally {
      clearTimeout(timer);
    }
  }

  #take(block) {
    const fields = { event: "message", data: null };
    for (const line of block.split("\n")) {
      const colon = line.indexOf(": ");
      if (colon > 0) fields[line.slice(0, colon)] = line.slice(colon + 2);
    }
    if (fields.event === "message" && fields.data !== null) this.#hears.message(fields.data);
    if (fields.id) this.#last = fields.id;
  }
}
