// The texts of rows, on the pages of the report and of `make review`: they only ever become text
// nodes. What reorders or hides text is shown by its number, blank lines and long blanks are
// counted, and a long text is cut.
"use strict";

const count = (number) => number.toLocaleString("en");
const BLANK = "[\\p{Zs}\\t\\r]";
// Line ends, and what holds an emoji or a word together (Persian, Hindi, a Japanese name).
const KEPT =
  "\\r\\n|(?<=\\p{Extended_Pictographic}\\p{Emoji_Modifier}?\\ufe0f?)\\u200d(?=\\p{Emoji})" +
  "|(?<=\\p{Emoji})[\\ufe0e\\ufe0f]|(?<=\\p{Script=Han})[\\u{e0100}-\\u{e01ef}]" +
  "|(?<=[\\p{Script=Arabic}\\p{M}])[\\u200c\\u200d]";
const SIGNS = new RegExp(
  `(?<lines>(?:^|\\n)(?:${BLANK}*\\n){2,})|(?<blanks>[\\p{Zs}\\t]{40,})|${KEPT}` +
    "|(?<sign>[\\p{Default_Ignorable_Code_Point}\\p{Zl}\\p{Zp}\\p{Cs}\\u2800\\ufff9-\\ufffb]" +
    "|[^\\P{Cc}\\n\\t])\\k<sign>*",
  "gu",
);

function make(name, className, ...inside) {
  const made = document.createElement(name);
  if (className) made.className = className;
  made.append(...inside);
  return made;
}

// A label that stands for `size` characters.
function label(kind, size, text) {
  const made = make("bdi", kind, text);
  made.dataset.size = size;
  return made;
}

// A text as what to append: strings, and a label for what would not be seen.
function readable(text) {
  if (/\S/.test(text) || !text) return pieces(text);
  const parts = pieces(text); // with a label where there is more than two lines or a sign
  const seen = parts.some((part) => typeof part !== "string");
  return seen ? parts : [label("fold", text.length, `white space only: ${JSON.stringify(text)}`)];
}

// The same of a part of a text, which may be white space.
function pieces(text) {
  const parts = [];
  let end = 0;
  for (const found of text.matchAll(SIGNS)) {
    const [raw] = found,
      { lines, blanks, sign } = found.groups;
    if (!lines && !blanks && !sign) continue;
    parts.push(text.slice(end, found.index));
    end = found.index + raw.length;
    if (sign) {
      const times = raw.length / sign.length,
        number = sign.codePointAt(0).toString(16).toUpperCase().padStart(4, "0");
      parts.push(label("sign", times, `U+${number}` + (times > 1 ? ` ×${count(times)}` : "")));
    } else if (blanks) parts.push(label("fold", raw.length, `${count(raw.length)} spaces`));
    else {
      const many = raw.split("\n").length - 1 - (found.index > 0);
      if (found.index) parts.push("\n");
      parts.push(label("fold", raw.length - 1 - (found.index > 0), `${count(many)} blank lines`));
      parts.push("\n");
    }
  }
  return [...parts, text.slice(end)];
}

// Cuts what is in `place` after so many characters or lines; a button shows the rest.
function cut(place, most, lines) {
  const range = document.createRange(),
    walker = document.createTreeWalker(place, NodeFilter.SHOW_TEXT);
  range.selectNodeContents(place);
  let left = most;
  while (left > 0 && lines > 0 && walker.nextNode()) {
    const node = walker.currentNode,
      held = node.parentElement.dataset.size;
    if (held) {
      left -= held;
      range.setStartAfter(node.parentElement);
      continue;
    }
    let end = 0;
    for (const letter of node.data) {
      end += letter.length;
      if (letter === "\n") lines--;
      if (!--left || !lines) break;
    }
    range.setStart(node, end);
  }
  const size = sizeOf(range.cloneContents());
  if (size <= most / 5 && range.toString().split("\n").length < 5) return place;
  const rest = range.extractContents(),
    button = make("button", "rest", `${count(size)} more characters`);
  button.type = "button";
  button.addEventListener("click", () => button.replaceWith(rest));
  place.append(button);
  return place;
}

// The number of characters that a part of a page stands for.
function sizeOf(part) {
  let size = 0;
  const walker = document.createTreeWalker(part, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const node = walker.currentNode;
    size += Number(node.parentElement?.dataset.size) || [...node.data].length;
  }
  return size;
}
