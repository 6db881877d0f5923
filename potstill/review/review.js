// The page of `make review`: keys, and what they send. Every text of a row enters by textContent, never as HTML.
"use strict";
const $ = id => document.getElementById(id);
const FILTERS = { all: () => true, passed: row => row.passed, failed: row => !row.passed, open: row => !row.said };
const SAID = { accept: ["accepted", "good"], reject: ["rejected", "bad"], edit: ["edited", "open"] };
const SIDES = { a: "A is better", b: "B is better", tie: "tie" };
let state, mode = "rows", filter = "all", index = { rows: -1, pairs: -1 }, editing = false, busy = false, typed = 0;

// ---- what the page says -------------------------------------------------------------------------------------------
function put(place, tag, text, kind) {
  const made = place.appendChild(document.createElement(tag));
  made.textContent = text;
  if (kind) made.className = kind;
  return made;
}
function speak(place, text) {  // a text of a row, in the font of its script
  place.lang = /[\u3040-\u30ff]/.test(text) ? "ja" : /\p{Script=Han}/u.test(text) ? "zh-Hans" : "";
}
function code(place, text, other) {  // JSON with its keys apart; lines that `other` has not are marked
  place.replaceChildren();
  speak(place, text);
  const json = /^[[{]/.test(text);
  place.classList.toggle("prose", !json);
  const there = !json || other === undefined ? null : new Set(other.split("\n").map(l => l.replace(/,$/, "")));
  text.split("\n").forEach((line, i) => {
    if (i) place.append("\n");
    const box = there && !there.has(line.replace(/,$/, "")) ? put(place, "span", "", "differs") : place;
    if (!json) return box.append(line);
    let end = 0;
    for (const found of line.matchAll(/"(?:\\.|[^"\\])*"(\s*:)?/g)) {
      box.append(line.slice(end, found.index));
      put(box, "span", found[0], found[1] ? "key" : "word");
      end = found.index + found[0].length;
    }
    box.append(line.slice(end));
  });
}
function checks(listed) {
  $("checks").replaceChildren();
  for (const one of listed) {
    const [word, kind] = one.passed === null ? ["– unscored", "open"] : one.passed ? ["✓ passed", "good"] : ["✗ failed", "bad"];
    const item = put($("checks"), "li", "");
    put(item, "b", word, kind);
    const name = put(item, "span", one.name);
    if (one.reason) put(name, "small", one.reason.startsWith(one.name + ": ") ? one.reason.slice(one.name.length + 2) : one.reason);
  }
  if (!listed.length) put($("checks"), "li", "The task has no checks.");
}
function list() { return state[mode].map((_, i) => i).filter(i => mode === "pairs" || FILTERS[filter](state.rows[i]) || i === index.rows && filter === "open"); }
function percent(part, whole) { return whole ? `${Math.round(100 * part / whole)} %` : "–"; }
function render() {
  const some = list(), all = state[mode], i = index[mode], one = all[i], rows = mode === "rows", tally = state.tally;
  const done = all.filter(row => row.said).length;
  $("mode-rows").ariaPressed = rows;
  $("mode-pairs").ariaPressed = !rows;
  $("filter-label").hidden = !rows;
  $("filter").value = filter;
  for (const id of ["filter", "mode-rows", "mode-pairs"]) $(id).disabled = editing;
  $("bar").max = all.length || 1;
  $("bar").value = done;
  $("progress").textContent = `${done} of ${all.length} ${rows ? "judged" : "compared"}`;
  $("agreement").textContent = !rows ? "" : tally.known
    ? `agreement with the checks ${percent(tally.agree, tally.known)} (${tally.agree} of ${tally.known})` : "no verdict yet";
  for (const [id, on] of [["left", one], ["right", rows && one], ["checks-card", rows], ["prompt-card", one], ["judge", rows && !editing],
    ["editing", editing], ["rank", !rows], ["answer", !editing], ["editor", editing], ["undo", !editing]]) $(id).hidden = !on;
  $("left").classList.toggle("wide", !rows);
  for (const side of document.querySelectorAll(".pair")) side.hidden = rows || !one;
  for (const button of document.querySelectorAll("#judge button, #rank button")) button.disabled = !one;
  const at = some.indexOf(i);
  $("back").disabled = editing || at <= 0;
  $("next").disabled = editing || at < 0 || at >= some.length - 1;
  if (!one) {
    $("where").textContent = rows ? { all: "No answers.", passed: "No answer of this sample passed the checks.",
      failed: "No answer of this sample failed the checks.", open: "Every answer of this sample has a verdict." }[filter]
      : "No input has two different answers. Ask for more than one: `samples` in params.yaml.";
    return $("about").textContent = "";
  }
  $("where").textContent = `${rows ? "Answer" : "Pair"} ${at + 1} of ${some.length}`;
  $("about").textContent = [one.id, ...Object.entries(one.about).filter(pair => pair[1] !== null)
    .map(([name, value]) => `${name.replace("_", " ")} ${value}`)].join(" · ");
  $("input").replaceChildren();
  for (const [name, text] of Object.entries(one.input)) {
    if (Object.keys(one.input).length > 1) put($("input"), "h3", name);
    const box = put($("input"), "p", text, "text");
    speak(box, text);
    if (box.scrollHeight > box.clientHeight) box.tabIndex = 0;  // keys can scroll what has the focus
  }
  $("messages").replaceChildren();
  for (const message of rows ? [...one.prompt, { role: "answer, as it came", content: one.answer }] : one.prompt) {
    put($("messages"), "h3", message.role);
    speak(put($("messages"), "pre", message.content), message.content);
  }
  if (rows) {
    if (!editing) { checks(one.checks); code($("answer"), one.said ? one.said.pretty : one.pretty, one.said ? one.pretty : undefined); }
    $("said").hidden = !one.said;
    if (one.said) {
      $("said").textContent = [SAID[one.said.verdict][0], one.said.by && `by ${one.said.by}`].filter(Boolean).join(" ");
      $("said").className = `badge ${SAID[one.said.verdict][1]}`;
    }
    $("checks-title").textContent = !editing && one.said && one.said.verdict === "edit" ? "Checks of the teacher's answer" : "Checks";
  } else {
    code($("a"), one.pretty[0], one.pretty[1]);
    code($("b"), one.pretty[1], one.pretty[0]);
    for (const side of ["a", "b"]) {
      $(`said-${side}`).hidden = one.said !== side && one.said !== "tie";
      $(`said-${side}`).textContent = one.said === "tie" ? "tie" : "better";
    }
    for (const side of ["a", "b", "tie"]) $(`rank-${side}`).ariaPressed = one.said === side;
  }
}
function notice(text, kind) { $("notice").textContent = text; $("notice").className = kind || "bad"; }

// ---- what a person does -------------------------------------------------------------------------------------------
async function call(path, body) {  // the reply, or null after saying why there is none
  try {
    const reply = await fetch(path, body && { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });
    if (reply.ok) return await reply.json();
    notice(await reply.text());
  } catch {
    notice("The server is gone, so this was not kept. Start it again with `make review`; what you judged before is safe.");
  }
  return null;
}
async function once(act) {  // a second key while the first is on its way to the disk does nothing
  if (busy || !state) return;
  busy = true;
  try { notice(""); await act(); } finally { busy = false; }
}
function go(i) {
  index[mode] = i === undefined ? -1 : i;
  editing = false;
  render();
  scrollTo(0, 0);
}
function step(by) {
  const some = list(), at = some.indexOf(index[mode]) + by;
  if (!editing && at >= 0 && at < some.length) { notice(""); go(some[at]); heard($("where").textContent); }
}
function heard(text) { $("heard").textContent = text; }
function forward() {  // to the next one without a verdict, from the start again after the last
  const some = list(), at = some.indexOf(index[mode]);
  const next = [...some.slice(at + 1), ...some.slice(0, at + 1)].find(i => !state[mode][i].said);
  if (next !== undefined) return go(next);
  go(index[mode]);
  notice(mode === "rows" ? "Every answer shown has a verdict. N=200 draws a larger sample, SEED=1 another one." : "Every pair is ranked.", "good");
}
function take(reply) {
  const kind = "row" in reply ? "rows" : "pairs";
  state[kind][kind === "rows" ? reply.row : reply.pair].said = reply.said;
  state.tally = reply.tally;
  return kind;
}
const judge = (verdict, output) => once(async () => {
  if (mode !== "rows" || index.rows < 0) return;
  const reply = await call("verdict", { index: index.rows, verdict, output });
  if (!reply) return;
  take(reply);
  heard(SAID[verdict][0]);
  forward();
  if (verdict === "edit") $("where").focus({ preventScroll: true });  // the editor had it
});
const rank = verdict => once(async () => {
  if (mode !== "pairs" || index.pairs < 0) return;
  const reply = await call("rank", { index: index.pairs, verdict });
  if (!reply) return;
  take(reply);
  heard(SIDES[verdict]);
  forward();
});
const undo = () => once(async () => {
  if (editing) return;
  const reply = await call("undo", {});
  if (!reply) return;
  mode = take(reply);
  if (mode === "rows" && !FILTERS[filter](state.rows[reply.row])) filter = "all";
  go(mode === "rows" ? reply.row : reply.pair);
  notice("Taken back.", "good");
});
function edit() {
  if (mode !== "rows" || index.rows < 0 || editing) return;
  const one = state.rows[index.rows];
  notice("");
  editing = true;
  $("edit").value = one.said ? one.said.pretty : one.pretty;
  speak($("edit"), $("edit").value);
  render();
  $("edit").focus();
  $("edit").setSelectionRange(0, 0);
  recheck();
}
async function recheck() {
  const mine = ++typed, reply = await call("check", { index: index.rows, output: $("edit").value });
  if (reply && mine === typed && editing) checks(reply.checks);
}
function cancel() {
  if (!editing) return;
  editing = false;
  notice("");
  render();
  $("start").focus();
}
function change(to) {
  if (editing || !state) return;
  notice("");
  mode = to;
  if (index[mode] < 0) return start();
  go(index[mode]);
}
function show(name) {
  if (editing || !state) return;
  notice("");
  filter = name;
  index.rows = -1;
  start();
}
function start() { const some = list(), next = some.find(i => !state[mode][i].said); go(next === undefined ? some[0] : next); }

let waiting;
$("edit").addEventListener("input", () => { clearTimeout(waiting); waiting = setTimeout(recheck, 150); });
$("filter").addEventListener("change", event => { show(event.target.value); event.target.blur(); });
for (const [id, act] of Object.entries({
  accept: () => judge("accept"), reject: () => judge("reject"), start: edit, save: () => judge("edit", $("edit").value), cancel, undo,
  "rank-a": () => rank("a"), "rank-b": () => rank("b"), "rank-tie": () => rank("tie"), back: () => step(-1), next: () => step(1),
  "mode-rows": () => change("rows"), "mode-pairs": () => change("pairs"), "help-open": () => $("help").showModal(),
})) $(id).addEventListener("click", act);
const KEYS = {
  rows: { a: () => judge("accept"), r: () => judge("reject"), e: edit },
  pairs: { a: () => rank("a"), b: () => rank("b"), t: () => rank("tie") },
  both: { u: undo, ArrowLeft: () => step(-1), ArrowRight: () => step(1), p: () => { $("prompt").open = !$("prompt").open; },
    f: () => mode === "rows" && show(Object.keys(FILTERS)[(Object.keys(FILTERS).indexOf(filter) + 1) % 4]),
    m: () => change(mode === "rows" ? "pairs" : "rows"), "?": () => $("help").showModal() },
};
document.addEventListener("keydown", event => {
  if (!state || $("help").open || event.isComposing) return;
  if (editing) {
    if (event.key === "Escape") cancel();
    else if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) judge("edit", $("edit").value);
    else return;
    return event.preventDefault();
  }
  if (event.ctrlKey || event.metaKey || event.altKey || event.repeat || event.target.tagName === "SELECT") return;
  const act = KEYS[mode][event.key] || KEYS.both[event.key];
  if (act) { event.preventDefault(); act(); }
});
addEventListener("beforeunload", event => { if (editing) event.preventDefault(); });
call("state").then(found => {
  if (!found) return $("where").textContent = "Nothing could be loaded.";
  state = found;
  $("task").textContent = document.title = `${state.task}`;
  document.title = `Review ${state.task} · Potstill`;
  $("file").textContent = state.file;
  start();
});
