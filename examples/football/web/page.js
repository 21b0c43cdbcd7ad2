// Follows the ticker's view by server-sent events. Each message carries a token: what is read with it is no older.
const match = new URLSearchParams(location.search).get("match") ?? "live";
const at = (id) => document.getElementById(id);
let asked = 0;

function item(...parts) {
  const line = document.createElement("li");
  for (const [kind, text, small] of parts) {
    const part = document.createElement("span");
    part.className = kind;
    part.textContent = text;
    if (small) {
      const more = document.createElement("small");
      more.textContent = small;
      part.append(document.createElement("br"), more);
    }
    line.append(part);
  }
  return line;
}

function fill(id, items, empty) {
  at(id).replaceChildren(...(items.length ? items : [item(["none", empty])]));
}

function show({ ticker, news, feed }) {
  at("score").textContent = ticker?.score || "No match yet";
  const lines = (ticker?.lines ?? []).map((line) => line.split("  "));
  fill("ticker", lines.map((l) => (l.length > 1 ? item(["minute", l[0]], ["text", l[1]]) : item(["minute", ""], ["text", l[0]]))), "Nothing has happened yet.");
  fill("news", news.map(([headline, urgency]) => item(["urgency", urgency], ["text", headline])), "No news today.");
  fill("feed", feed.map((post) => item(["text", post.content, post.hashtags.join(" ")], ["likes", `${post.engagement} ♥`])), "Nobody has reacted yet.");
}

async function read(token) {
  const number = ++asked;
  const query = token ? `?at_least=${encodeURIComponent(token)}` : "";
  const response = await fetch(`matches/${encodeURIComponent(match)}${query}`);
  if (response.ok && number === asked) show(await response.json());
}

async function follow(after) {
  let last = after;
  try {
    const ticket = await (await fetch("ticket", { method: "POST" })).json();
    const query = new URLSearchParams({ ticket, key: match, ...(after ? { after } : {}) });
    const source = new EventSource(`headwater/v1/live/views/ticker?${query}`);
    const again = () => {
      source.close();
      at("state").textContent = "connecting again";
      setTimeout(() => follow(last), 1000);
    };
    source.onopen = () => { at("state").textContent = "live"; read(last); };
    source.onmessage = (message) => { last = message.lastEventId || last; read(last); };
    source.addEventListener("reset", () => read());
    source.addEventListener("dropped", again);
    source.onerror = again;
  } catch {
    at("state").textContent = "connecting again";
    setTimeout(() => follow(last), 1000);
  }
}

follow();
