// A teacher's page, or a student's own: the card after the # says which. Each message of the live channel carries a
// token: what is read with it is no older.
const card = location.hash.slice(1);
const isTeacher = card.startsWith("teacher.");
const PAUSE = 400; // between two reads, however fast messages come
const at = (id) => document.getElementById(id);
let names = {}, token = "", isTold = false, isReading = false;

function make(tag, props = {}, ...inside) {
  const made = Object.assign(document.createElement(tag), props);
  made.append(...inside);
  return made;
}

function shape(tag, attributes, text = "") {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.textContent = text;
  return made;
}

async function ask(path, options = {}) {
  const response = await fetch(path, { ...options, headers: { Authorization: `Bearer ${card}` } });
  if (!response.ok) throw new Error((await response.json()).message);
  return response.json();
}

function bar(percent, kind = "") {
  const filled = make("i");
  filled.style.width = `${percent}%`;
  return make("span", { className: `bar ${kind}`, title: `${percent} %` }, filled);
}

function drawActivity(recent) {
  const last = recent.at(-1)?.moment ?? 0, most = Math.max(10, ...recent.map((r) => r.executions));
  const height = (n) => (100 * n) / most, left = (moment) => 28 + 19 * (29 - (last - moment) / 10);
  const drawn = [0, 0.5, 1].flatMap((part) => [
    shape("line", { x1: 28, x2: 600, y1: 110 - 100 * part, y2: 110 - 100 * part }),
    shape("text", { x: 22, y: 114 - 100 * part, "text-anchor": "end" }, Math.round(most * part)),
  ]);
  for (const { moment, executions, errors } of recent.filter((r) => left(r.moment) >= 28)) {
    const good = executions - errors;
    drawn.push(shape("rect", { class: "ran", x: left(moment), width: 16, y: 110 - height(good), height: height(good) }));
    drawn.push(shape("rect", { class: "erred", x: left(moment), width: 16, y: 110 - height(executions), height: height(errors) }));
  }
  for (const minutes of [4, 3, 2, 1]) drawn.push(shape("text", { x: left(last - 60 * minutes), y: 126 }, `−${minutes} min`));
  at("activity").replaceChildren(...drawn);
}

function drawTeacher({ class: of, now, stuck, notebooks, recent, percent }) {
  const present = Object.values(now).filter((one) => one.notebook).length;
  at("title").textContent = of;
  at("state").textContent = `live: ${present} of ${Object.keys(names).length} students are at work`;
  drawActivity(recent ?? []);
  const help = stuck.map((one) => make("li", {}, make("b", { textContent: now[one]?.stuck ?? 0 }),
    make("span", {}, `${names[one] ?? one} `, make("small", { textContent: `${now[one]?.notebook ?? ""}, cell ${(now[one]?.cell ?? 0) + 1}` }))));
  at("stuck").replaceChildren(...(help.length ? help : [make("li", { className: "none", textContent: "Nobody just now." })]));
  at("notebooks").replaceChildren(...(notebooks ?? []).map((one) => make("tr", {}, make("td", { textContent: one.notebook }),
    make("td", {}, bar(one.percent)), make("td", { textContent: `${one.finished} of ${one.students}` }),
    make("td", { textContent: one.executions ? `${Math.round((100 * one.errors) / one.executions)} %` : "" }))));
  const titles = (notebooks ?? []).map((one) => one.notebook);
  at("titles").textContent = `${titles.join(", ")}; framed where they are now`;
  at("students").style.setProperty("--notebooks", titles.length);
  at("students").replaceChildren(...Object.keys(names).sort().map((one) => make("div", { className: "student" },
    make("span", { textContent: names[one] }),
    ...titles.map((title) => {
      const isHere = now[one]?.notebook === title;
      const cell = bar(percent?.[one]?.[title] ?? 0, isHere ? (now[one].stuck > 1 ? "here stuck" : "here") : "");
      cell.title = `${title}: ${cell.title}`;
      return cell;
    }))));
}

function drawStudent({ student, now, attempts }) {
  at("title").textContent = `Your progress (${student})`;
  at("state").textContent = now?.notebook ? `at work on ${now.notebook}` : "not at work";
  for (const id of ["activity", "stuck", "students"]) at(id).closest("section").hidden = true;
  at("notebooks").replaceChildren(...attempts.map((one) => make("tr", {}, make("td", { textContent: one.notebook }),
    make("td", {}, bar(one.percent)), make("td", { textContent: one.percent === 100 ? "yes" : "not yet" }),
    make("td", { textContent: `${one.errors} of ${one.executions}` }))));
}

async function read() {
  isTold = true;
  if (isReading) return;
  isReading = true;
  while (isTold) {
    isTold = false;
    try {
      drawTeacher(await ask(`class?at_least=${encodeURIComponent(token)}`));
    } catch (error) {
      at("state").textContent = error.message;
    }
    await new Promise((done) => setTimeout(done, PAUSE));
  }
  isReading = false;
}

async function follow() {
  const later = () => { at("state").textContent = "connecting again"; setTimeout(follow, 1000); };
  try {
    names = await ask("names");
    const query = new URLSearchParams({ ticket: await ask("ticket", { method: "POST" }), ...(token ? { after: token } : {}) });
    const source = new EventSource(`headwater/v1/live/views/summary?${query}`);
    const again = () => { source.close(); later(); };
    source.onmessage = (message) => { token = message.lastEventId || token; read(); };
    source.addEventListener("reset", () => { token = ""; read(); });
    source.addEventListener("dropped", again);
    source.onerror = again;
  } catch {
    later();
  }
}

async function followOwn() {
  try {
    drawStudent(await ask("mine"));
  } catch (error) {
    at("state").textContent = error.message;
  }
  setTimeout(followOwn, 2000);
}

if (!card) at("state").textContent = "Open the page by the address that the example prints: it ends with a card.";
else if (isTeacher) follow();
else followOwn();
