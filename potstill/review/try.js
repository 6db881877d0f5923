// The page of `make try`: what is asked, and the answers as they grow. Every text of a row or a
// model enters by textContent, never as HTML.
"use strict";
const MODELS = { base: "Base, long prompt", student: "Student", teacher: "Teacher" };
const LOCAL = ["base", "student"], DIFF = 600; // characters of a text that is compared
let state, cards = {}, answers = {}, asked = null, expected = null, stop = new AbortController();

// ---- what the page says -------------------------------------------------------------------------
function notice(text, kind) {
  $("notice").textContent = text;
  $("notice").className = kind || "bad";
}
function heard(text) { $("heard").textContent = text; }
// A text whose characters that `other` has not, in the longest order that both share, are marked.
function marked(place, text, other) {
  const [a, b] = [[...text], [...other]];
  if (a.length > DIFF || b.length > DIFF) return code(place, text);
  const best = Array.from({ length: a.length + 1 }, () => new Uint16Array(b.length + 1));
  for (let i = a.length; i--;) for (let j = b.length; j--;)
    best[i][j] = a[i] === b[j] ? best[i + 1][j + 1] + 1 : Math.max(best[i + 1][j], best[i][j + 1]);
  place.replaceChildren();
  speak(place, text);
  place.classList.add("prose");
  let run = "", differs = false, j = 0;
  const end = () => {
    if (run) place.append(...(differs ? [make("span", "other", ...pieces(run))] : pieces(run)));
    run = "";
  };
  a.forEach((sign, i) => {
    while (j < b.length && b[j] !== sign && best[i][j + 1] >= best[i + 1][j]) j++;
    const same = j < b.length && b[j] === sign && best[i][j] === best[i + 1][j + 1] + 1;
    if (same) j++;
    if (same === differs) end();
    differs = !same;
    run += sign;
  });
  end();
  cut(place, ...LONG);
}
function show(place, text, other) {
  if (other === undefined || /^[[{]/.test(text)) code(place, text, other);
  else marked(place, text, other);
}
function facts(who, one) {
  const tokens = `${count(one.prompt_tokens ?? 0)} + ${count(one.completion_tokens ?? 0)} tokens`;
  const price = LOCAL.includes(who) ? "on this machine"
    : one.held ? "paid for before, from the journal"
      : one.cost === null ? state.teacher.free ? "free" : "price unknown"
        : `price ${Number(one.cost.toPrecision(3))}`;
  return [tokens, `${count(one.ms)} ms`, price].join(" · ");
}
function draw() {  // the answers that are whole, each beside the student's
  const whole = who => answers[who]?.pretty;
  for (const [who, card] of Object.entries(cards)) {
    const one = answers[who], text = whole(who);
    if (text === undefined) continue;
    const other = who === "student" ? whole("teacher") ?? expected ?? undefined : whole("student");
    show(card.querySelector(".answer"), text, other);
    card.querySelector(".facts").textContent = facts(who, one);
    const badge = card.querySelector(".badge"), [failed, fine] = card.querySelectorAll("ul");
    sum(badge, one.checks);
    badge.hidden = false;
    failed.replaceChildren();
    fine.replaceChildren();
    for (const check of one.checks) verdict(check.passed ? fine : failed, check);
    const box = card.querySelector("details");
    box.hidden = !fine.children.length;
    box.querySelector("summary").textContent = `${fine.children.length} passed`;
  }
}
function clear(who, says) {
  const card = cards[who];
  delete answers[who];
  card.classList.remove("waits");
  card.querySelector(".answer").replaceChildren();
  card.querySelector(".facts").textContent = says;
  card.querySelector(".badge").hidden = true;
  card.querySelector("details").hidden = true;
  for (const list of card.querySelectorAll("ul")) list.replaceChildren();
}

// ---- what a person does -------------------------------------------------------------------------
function input() {
  const found = {};
  for (const field of $("fields").querySelectorAll("textarea")) found[field.name] = field.value;
  return found;
}
async function post(call, body, signal) {  // the reply, or null after saying why there is none
  const headers = { "Content-Type": "application/json" };
  try {
    const sent = { method: "POST", headers, body: JSON.stringify(body), signal };
    const reply = await fetch(call, sent);
    if (reply.ok) return reply;
    notice(await reply.text());
  } catch (error) {
    if (error.name !== "AbortError") gone();
  }
  return null;
}
function gone() {
  notice("The server is gone. Start it again with `make try` and open the address that it prints: "
    + "this page's is dead.");
}
async function ask(who) {
  const card = cards[who], { signal } = stop;
  clear(who, who === "teacher" ? "The teacher's answers come whole …" : "Waiting for the model …");
  card.classList.add("waits");
  const reply = await post("ask", { who, input: asked }, signal);
  try {
    if (reply) for await (const part of lines(reply.body)) {
      if (signal.aborted) return;
      if (part.error) card.querySelector(".facts").textContent = part.error;
      else if (part.text !== undefined) code(card.querySelector(".answer"), part.text);
      else {
        answers[who] = part;
        draw();
        heard(`${MODELS[who]}: ${card.querySelector(".badge").textContent}`);
      }
    }
  } catch (error) {
    if (error.name !== "AbortError") gone();
  } finally {
    if (!signal.aborted) card.classList.remove("waits");
  }
}
async function* lines(body) {
  const decoder = new TextDecoder(), reader = body.getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const parts = (rest + decoder.decode(value, { stream: true })).split("\n");
    rest = parts.pop();
    for (const part of parts) yield JSON.parse(part);
  }
}
function same(one, other) { return JSON.stringify(one) === JSON.stringify(other); }
function begin() {  // a question: what is under way for another one ends
  const now = input();
  notice("");
  stop.abort();
  stop = new AbortController();
  asked = now;
  const row = state.rows.find(one => same(one.input, now));
  $("rows").value = row ? row.id : "";
  expected = row ? row.expected : null;
  $("expected-box").hidden = expected === null;
  code($("expected"), expected ?? "");
  clear("teacher", "Not asked.");
}
function askLocal() {
  if (!state) return;
  begin();
  for (const who of LOCAL) ask(who);
}
function askTeacher() {
  if (!state) return;
  if (!same(asked, input())) askLocal();  // the three answer one question
  ask("teacher");
}
async function keep(call) {
  if (!state) return;
  notice("");
  const reply = await post(call, { input: input(), category: $("category").value });
  if (reply) notice((await reply.json()).said, "good");
}
const addSeed = () => keep("seed"), send = () => keep("review");
function pick(row) {
  $("rows").value = row ? row.id : "";
  for (const field of $("fields").querySelectorAll("textarea"))
    field.value = row ? row.input[field.name] : "";
  if (row) return askLocal();
  $("fields").querySelector("textarea").focus();
}
function step(by) {
  const at = state.rows.findIndex(row => row.id === $("rows").value);
  const row = state.rows[at < 0 ? 0 : at + by];
  if (row) pick(row);
}
function start() {
  $("task").textContent = state.task;
  document.title = `Try ${state.task} · Potstill`;
  $("costs").textContent = state.teacher.free ? "" : " (paid)";
  for (const name of state.input) {
    const field = make("textarea");
    Object.assign(field, { name, rows: 3, spellcheck: false, autocomplete: "off" });
    const title = make("h3", state.input.length > 1 ? "" : "heard", name);
    $("fields").append(make("label", "", title, field));
  }
  for (const row of state.rows) {
    const text = Object.values(row.input).join(" · ").replace(/\s+/g, " ");
    const option = make("option", "", ...readable(text.slice(0, 60)).map(part =>
      typeof part === "string" ? part : part.textContent));
    option.value = row.id;
    $("rows").append(option);
  }
  for (const name of state.categories) $("category").append(make("option", "", name));
  $("category-label").hidden = !state.categories.length;
  for (const [who, name] of Object.entries(MODELS)) {
    $("answers").append($("card").content.cloneNode(true));
    cards[who] = $("answers").lastElementChild;
    cards[who].dataset.who = who;
    cards[who].querySelector(".who").textContent = name;
    clear(who, "Not asked.");
  }
  pick(state.rows[0]);
}

const help = () => $("help").showModal(), back = () => step(-1), next = () => step(1);
for (const [id, act] of Object.entries({
  ask: askLocal, "ask-teacher": askTeacher, seed: addSeed, review: send, "help-open": help,
  back, next,
})) $(id).addEventListener("click", act);
$("rows").addEventListener("change", event => {
  pick(state.rows.find(row => row.id === event.target.value));
});
const KEYS = {
  t: askTeacher, s: addSeed, r: send, ArrowLeft: back, ArrowRight: next, "?": help,
  i: () => $("fields").querySelector("textarea").focus(),
};
document.addEventListener("keydown", event => {
  if (!state || $("help").open || event.isComposing) return;
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
    event.preventDefault();
    return askLocal();
  }
  if (["TEXTAREA", "SELECT"].includes(event.target.tagName)) {
    if (event.key === "Escape") event.target.blur();
    return;
  }
  if (event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
  const act = KEYS[event.key];
  if (act) { event.preventDefault(); act(); }
});
fetch("state").then(async reply => {
  if (!reply.ok) return notice(await reply.text());
  state = await reply.json();
  start();
}, gone);
