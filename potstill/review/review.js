// The page of `make review`: keys, and what they send. Every text of a row enters by textContent,
// never as HTML.
"use strict";
const FILTERS = {
  all: () => true, passed: row => row.passed, failed: row => !row.passed, open: row => !row.said,
};
const SAID = {
  accept: ["accepted", "good"], reject: ["rejected", "bad"], edit: ["edited", "open"],
};
const SIDES = { a: "A is better", b: "B is better", tie: "tie" };
// A window, by which undo knows what was said here: it outlives a reload.
const here = sessionStorage.window ??= crypto.randomUUID();
let state, mode = "rows", filter = "all", index = { rows: -1, pairs: -1 };
let editing = false, busy = false, typed = 0;

// ---- what the page says -------------------------------------------------------------------------
function checks(listed) {  // those that failed first; those that passed are folded
  for (const id of ["checks", "passed"]) $(id).replaceChildren();
  const is = passed => listed.filter(one => one.passed === passed);
  const failed = is(false), unscored = is(null), passed = is(true);
  for (const one of [...failed, ...unscored, ...passed])
    verdict($(one.passed ? "passed" : "checks"), one);
  sum($("checks-sum"), listed);
  $("passed-sum").textContent = `${passed.length} passed`;
  $("passed-box").hidden = !passed.length;
}
function list() {  // what is shown; the answer just judged stays among those without a verdict
  const shown = i => FILTERS[filter](state.rows[i]) || i === index.rows && filter === "open";
  return state[mode].map((_, i) => i).filter(i => mode === "pairs" || shown(i));
}
function percent(part, whole) { return whole ? `${Math.round(100 * part / whole)} %` : "–"; }
function render() {
  const some = list(), all = state[mode], i = index[mode], one = all[i], rows = mode === "rows";
  const tally = state.tally, done = all.filter(row => row.said).length;
  $("mode-rows").ariaPressed = rows;
  $("mode-pairs").ariaPressed = !rows;
  $("filter-label").hidden = !rows;
  $("filter").value = filter;
  for (const id of ["filter", "mode-rows", "mode-pairs"]) $(id).disabled = editing;
  $("bar").max = all.length || 1;
  $("bar").value = done;
  $("progress").textContent = `${done} of ${all.length} ${rows ? "judged" : "compared"}`;
  $("agreement").textContent = !rows ? "" : tally.known
    ? `agreement with the checks ${percent(tally.agree, tally.known)}`
      + ` (${tally.agree} of ${tally.known})` : "no verdict yet";
  for (const [id, on] of [
    ["left", one], ["right", rows && one], ["checks-card", rows], ["prompt-card", one],
    ["judge", rows && !editing], ["editing", editing], ["rank", !rows], ["answer", !editing],
    ["editor", editing], ["undo", !editing],
  ]) $(id).hidden = !on;
  $("left").classList.toggle("wide", !rows);
  $("checks-card").classList.toggle("below", editing);
  for (const side of document.querySelectorAll(".pair")) side.hidden = rows || !one;
  for (const button of document.querySelectorAll("#judge button, #rank button"))
    button.disabled = !one;
  const at = some.indexOf(i);
  $("back").disabled = editing || at <= 0;
  $("next").disabled = editing || at < 0 || at >= some.length - 1;
  if (!one) {
    $("where").textContent = rows ? {
      all: "No answers.",
      passed: "No answer of this sample passed the checks.",
      failed: "No answer of this sample failed the checks.",
      open: "Every answer of this sample has a verdict.",
    }[filter] : "No input has two different answers. Ask for more than one: `generate.samples` in "
      + "params.yaml.";
    return $("about").textContent = "";
  }
  $("where").textContent = `${rows ? "Answer" : "Pair"} ${at + 1} of ${some.length}`;
  const about = Object.entries(one.about).filter(([, value]) => value !== null)
    .map(([name, value]) => `${name.replace("_", " ")} ${value}`);
  $("about").textContent = [one.id, ...about].join(" · ");
  $("input").replaceChildren();
  for (const [name, text] of Object.entries(one.input)) {
    if (Object.keys(one.input).length > 1) put($("input"), "h3", name);
    const box = put($("input"), "p", text, "text");
    speak(box, text);
    cut(box, ...SHORT);
  }
  $("messages").replaceChildren();
  const answer = { role: "answer, as it came", content: one.answer };
  for (const message of rows ? [...one.prompt, answer] : one.prompt) {
    put($("messages"), "h3", message.role);
    speak(put($("messages"), "pre", message.content), message.content);
  }
  if (rows) {
    const said = one.said;
    if (!editing) {
      checks(one.checks);
      code($("answer"), said ? said.pretty : one.pretty, said ? one.pretty : undefined);
    }
    $("said").hidden = !said;
    if (said) {
      const [word, kind] = SAID[said.verdict];
      $("said").textContent = said.by ? `${word} by ${said.by}` : word;
      $("said").className = `badge ${kind}`;
    }
    const edited = !editing && said && said.verdict === "edit";
    $("checks-title").textContent = edited ? "Checks of the teacher's answer" : "Checks";
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
function notice(text, kind) {
  $("notice").textContent = text;
  $("notice").className = kind || "bad";
}

// ---- what a person does -------------------------------------------------------------------------
async function call(path, body) {  // the reply, or null after saying why there is none
  const headers = { "Content-Type": "application/json" };
  try {
    const sent = body && { method: "POST", headers, body: JSON.stringify(body) };
    const reply = await fetch(path, sent);
    if (reply.ok) return await reply.json();
    notice(await reply.text());
    if (reply.status === 409 && body) await refresh();
  } catch {
    notice("The server is gone, so this was not kept. Start it again with `make review` and open "
      + "the address that it prints: this page's is dead. What you judged before is safe.");
  }
  return null;
}
async function refresh() {  // somebody else has said something; an edit goes on
  const reply = await fetch("state");
  if (!reply.ok) return;
  state = await reply.json();
  render();
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
  if (editing || at < 0 || at >= some.length) return;
  notice("");
  go(some[at]);
  heard($("where").textContent);
}
function heard(text) { $("heard").textContent = text; }
function forward() {  // to the next one without a verdict, from the start again after the last
  const some = list(), at = some.indexOf(index[mode]);
  const next = [...some.slice(at + 1), ...some.slice(0, at + 1)].find(i => !state[mode][i].said);
  if (next !== undefined) return go(next);
  go(index[mode]);
  const more = "N=200 draws a larger sample, SEED=1 another one.";
  const rows = mode === "rows";
  notice(rows ? `Every answer shown has a verdict. ${more}` : "Every pair is ranked.", "good");
}
function take(reply) {
  const kind = "row" in reply ? "rows" : "pairs";
  const { said, mark } = reply;
  Object.assign(state[kind][kind === "rows" ? reply.row : reply.pair], { said, mark });
  state.tally = reply.tally;
  return kind;
}
function shown() {  // what a verdict is about, and which one this window shows of it
  const i = index[mode];
  return { window: here, index: i, seen: state[mode][i].mark };
}
const judge = (verdict, output) => once(async () => {
  if (mode !== "rows" || index.rows < 0) return;
  const reply = await call("verdict", { ...shown(), verdict, output });
  if (!reply) return;
  take(reply);
  heard(SAID[verdict][0]);
  forward();
  if (verdict === "edit") $("where").focus({ preventScroll: true });  // the editor had it
});
const rank = verdict => once(async () => {
  if (mode !== "pairs" || index.pairs < 0) return;
  const reply = await call("rank", { ...shown(), verdict });
  if (!reply) return;
  take(reply);
  heard(SIDES[verdict]);
  forward();
});
const undo = () => once(async () => {
  if (editing) return;
  const reply = await call("undo", { window: here });
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
  const signs = pieces($("edit").value).filter(part => part.className === "sign");
  $("unseen").textContent = signs.length
    ? `In it, but not to be seen: ${signs.map(part => part.textContent).join(", ")}.` : "";
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
function start() {
  const some = list(), next = some.find(i => !state[mode][i].said);
  go(next === undefined ? some[0] : next);
}
function turn() {  // the next filter
  const names = Object.keys(FILTERS);
  if (mode === "rows") show(names[(names.indexOf(filter) + 1) % names.length]);
}

let waiting;
$("edit").addEventListener("input", () => {
  clearTimeout(waiting);
  waiting = setTimeout(recheck, 150);
});
$("filter").addEventListener("change", event => {
  show(event.target.value);
  event.target.blur();
});
const save = () => judge("edit", $("edit").value), help = () => $("help").showModal();
const back = () => step(-1), next = () => step(1);
for (const [id, act] of Object.entries({
  accept: () => judge("accept"), reject: () => judge("reject"), start: edit, save, cancel, undo,
  "rank-a": () => rank("a"), "rank-b": () => rank("b"), "rank-tie": () => rank("tie"), back, next,
  "mode-rows": () => change("rows"), "mode-pairs": () => change("pairs"), "help-open": help,
})) $(id).addEventListener("click", act);
const KEYS = {
  rows: { a: () => judge("accept"), r: () => judge("reject"), e: edit },
  pairs: { a: () => rank("a"), b: () => rank("b"), t: () => rank("tie") },
  both: { u: undo, ArrowLeft: back, ArrowRight: next, f: turn, "?": help,
    p: () => { $("prompt").open = !$("prompt").open; },
    m: () => change(mode === "rows" ? "pairs" : "rows") },
};
document.addEventListener("keydown", event => {
  if (!state || $("help").open || event.isComposing) return;
  if (editing) {
    if (event.key === "Escape") cancel();
    else if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) save();
    else return;
    return event.preventDefault();
  }
  if (event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
  if (event.target.tagName === "SELECT") return;
  const act = KEYS[mode][event.key] || KEYS.both[event.key];
  if (act) { event.preventDefault(); act(); }
});
addEventListener("beforeunload", event => { if (editing) event.preventDefault(); });
call("state").then(found => {
  if (!found) return $("where").textContent = "Nothing could be loaded.";
  state = found;
  $("task").textContent = state.task;
  document.title = `Review ${state.task} · Potstill`;
  $("file").textContent = state.file;
  start();
});
