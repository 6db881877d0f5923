// reports/report.html: shows the rows. Texts of models only ever become text nodes.
const $ = (id) => document.getElementById(id);
const PAGE = 5; // rows shown at once
// Characters; longer texts have no marks of their differences, which take the product of lengths.
const LONGEST = 1500;
const SHORT = [600, 15]; // characters and lines of a text that are shown at once
const data = JSON.parse($("data").textContent);

const every = Object.values(data.groups).reduce((sum, count) => sum + count, 0);
let group = ["broken", "neither", "fixed"].find((name) => data.groups[name]) || "fixed",
  shown = PAGE;

function haystack(row) {
  const texts = [
    row.id,
    row.slice,
    ...Object.values(row.input),
    typeof row.expected === "string" ? row.expected : JSON.stringify(row.expected),
  ];
  for (const one of Object.values(row.answers)) texts.push(one.text, ...one.why);
  return texts.join("\n").toLowerCase();
}

function parsed(text) {
  try {
    const value = JSON.parse(text);
    return value && typeof value === "object" && !Array.isArray(value) ? value : null;
  } catch {
    return null;
  }
}

const said = (value) => (typeof value === "string" ? value : JSON.stringify(value));

// The characters of `text`, those that are not in `wanted` at their place marked, and what is
// missing struck through.
function differences(text, wanted) {
  if (text === wanted) return readable(text);
  const a = [...text],
    b = [...wanted];
  if (!b.length || a.length > LONGEST || b.length > LONGEST) return readable(text);
  const width = b.length + 1,
    best = new Uint16Array((a.length + 1) * width); // longest common subsequence of the rests
  for (let i = a.length - 1; i >= 0; i--)
    for (let j = b.length - 1; j >= 0; j--)
      best[i * width + j] =
        a[i] === b[j]
          ? best[(i + 1) * width + j + 1] + 1
          : Math.max(best[(i + 1) * width + j], best[i * width + j + 1]);
  const parts = [];
  const add = (kind, character) =>
    parts.length && parts.at(-1)[0] === kind
      ? (parts.at(-1)[1] += character)
      : parts.push([kind, character]);
  let i = 0,
    j = 0;
  while (i < a.length || j < b.length) {
    if (i < a.length && j < b.length && a[i] === b[j]) {
      add("", a[i]);
      i++;
      j++;
    } else if (
      j < b.length &&
      (i === a.length || best[i * width + j + 1] >= best[(i + 1) * width + j])
    )
      add("del", b[j++]);
    else add("mark", a[i++]);
  }
  return parts.flatMap(([kind, part]) => (kind ? make(kind, "", ...pieces(part)) : pieces(part)));
}

// A text as it is, or a JSON object with one value a line; `wanted` is what it is compared with.
function laidOut(text, wanted) {
  const object = parsed(text),
    goal = wanted && typeof wanted === "object" ? wanted : null;
  const place = make("p", "text");
  if (!object) {
    const parts = typeof wanted === "string" ? differences(text, wanted) : readable(text);
    place.append(...(text ? parts : ["(no answer)"]));
    return place;
  }
  for (const key of new Set([...Object.keys(goal || {}), ...Object.keys(object)])) {
    const there = key in object,
      value = there ? said(object[key]) : "";
    place.append(make("span", "key", ...readable(key), " "));
    if (!goal || !(key in goal)) place.append(...readable(value));
    else if (there) place.append(...differences(value, said(goal[key])));
    else place.append(make("del", "", ...readable(said(goal[key]))));
    place.append("\n");
  }
  return place;
}

function card(row) {
  const about = make("div", "about", `${row.id} · `, make("bdi", "", ...readable(row.slice)));
  const made = make("article", "", about),
    places = [];
  const add = (parent, place) => {
    parent.append(place);
    places.push(place);
  };
  for (const [name, text] of Object.entries(row.input)) {
    if (Object.keys(row.input).length > 1) made.append(make("span", "key", name));
    add(made, make("p", "text", ...readable(text)));
  }
  const answers = make("div", "answers");
  if (row.expected !== null) {
    const place = make("div", "", make("h4", "", "Expected"));
    add(place, laidOut(said(row.expected)));
    answers.append(place);
  }
  for (const [name, one] of Object.entries(row.answers)) {
    const title = make("h4", "", data.titles[name] + " · ", make("span", one.state, one.state));
    const place = make("div", "", title);
    for (const why of one.why) add(place, make("p", "why", ...readable(why)));
    add(place, laidOut(one.text, row.expected));
    answers.append(place);
  }
  made.append(answers);
  for (const place of places) cut(place, ...SHORT);
  return made;
}

function show() {
  const words = $("search").value.toLowerCase().split(/\s+/).filter(Boolean);
  const here = data.rows.filter((row) => row.group === group),
    total = data.groups[group];
  const found = here.filter((row) =>
    words.every((word) => (row.all ??= haystack(row)).includes(word)),
  );
  for (const button of document.querySelectorAll("[data-group]")) {
    button.setAttribute("aria-pressed", button.dataset.group === group);
    button.querySelector("span").textContent =
      count(data.groups[button.dataset.group]);
  }
  const part =
    here.length < total
      ? ` (of ${count(total)}, ${count(here.length)} fit on this page)`
      : "";
  $("count").textContent =
    `Rows: ${count(found.length)}${part}. Test rows of all slices: ${count(every)}, ` +
    `of them right before and after: ${count(data.groups.both)}.`;
  $("rows").replaceChildren(...found.slice(0, shown).map(card));
  $("more").hidden = found.length <= shown;
}

document.querySelectorAll("[data-group]").forEach((button) =>
  button.addEventListener("click", () => {
    group = button.dataset.group;
    shown = PAGE;
    show();
  }),
);
$("search").addEventListener("input", () => {
  shown = PAGE;
  show();
});
$("more").addEventListener("click", () => {
  shown += PAGE;
  show();
});
show();
