// What the pages of `make review` and `make try` show alike: an answer, and what each check says of
// it. Every text of a row enters by textContent, never as HTML.
"use strict";
const $ = id => document.getElementById(id);
// Characters and lines of a text that are shown at once, of an answer and of all others.
const LONG = [1000, 25], SHORT = [600, 15];

function put(place, tag, text, kind) {
  const made = place.appendChild(document.createElement(tag));
  made.append(...readable(text));
  if (kind) made.className = kind;
  return made;
}
function speak(place, text) {  // a text of a row, in the font of its script
  const han = /\p{Script=Han}/u.test(text) ? "zh-Hans" : "";
  place.lang = /[\u3040-\u30ff]/.test(text) ? "ja" : han;
}
// JSON with its keys apart; lines that `other` has not are marked
function code(place, text, other) {
  place.replaceChildren();
  speak(place, text);
  const json = /^[[{]/.test(text);
  place.classList.toggle("prose", !json);
  if (!json) {
    place.append(...readable(text || "(no answer)"));
    return cut(place, ...LONG);
  }
  const bare = line => line.replace(/,$/, "");
  const there = json && other !== undefined ? new Set(other.split("\n").map(bare)) : null;
  text.split("\n").forEach((line, i) => {
    if (i) place.append("\n");
    const box = there && !there.has(bare(line)) ? put(place, "span", "", "differs") : place;
    let end = 0;
    for (const found of line.matchAll(/"(?:\\.|[^"\\])*"(\s*:)?/g)) {
      box.append(...pieces(line.slice(end, found.index)));
      put(box, "span", found[0], found[1] ? "key" : "word");
      end = found.index + found[0].length;
    }
    box.append(...pieces(line.slice(end)));
  });
  cut(place, ...LONG);
}
function verdict(place, one) {  // a line of a list of checks
  const [word, kind] = one.passed === null ? ["– unscored", "open"]
    : one.passed ? ["✓ passed", "good"] : ["✗ failed", "bad"];
  const item = put(place, "li", "");
  put(item, "b", word, kind);
  const name = put(item, "span", one.name), start = `${one.name}: `, reason = one.reason || "";
  if (one.options) cut(put(name, "small", one.options), ...SHORT);
  const rest = reason.slice(reason.startsWith(start) ? start.length : 0);
  if (reason) cut(put(name, "p", rest), ...SHORT);
}
function sum(badge, listed) {  // how many failed or, where none did, are unscored or passed
  const many = passed => listed.filter(one => one.passed === passed).length, all = listed.length;
  const [number, word, kind] = many(false) ? [many(false), "failed", "bad"]
    : many(null) ? [many(null), "unscored", "open"] : [many(true), "passed", "good"];
  badge.textContent = all ? `${number} of ${all} ${word}` : "The task has none.";
  badge.className = `badge ${all ? kind : ""}`;
}
