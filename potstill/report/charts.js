// The charts of reports/report.html, as Vega-Lite: a function for each, which gets its rows. Their
// colours are CSS variables of the page, so that they follow light and dark.
const PERCENT = { format: ".0%", values: [0, 0.25, 0.5, 0.75, 1] };
const PAIR = ["var(--plain)", "var(--accent)"]; // of two curves or bars that are no models
const POINT = { type: "point", filled: true, opacity: 1 };
const SHARE = { type: "quantitative", title: null, scale: { domain: [0, 1] }, axis: PERCENT };
const SPAN = { x: { field: "low", ...SHARE }, x2: { field: "high" } }; // the 95% interval

const nominal = (field, more) => ({ field, type: "nominal", title: null, ...more });

// A chart as wide as its place.
const spec = (rows, more) => ({
  // a name: nothing is loaded from there
  $schema: "https://vega.github.io/schema/vega-lite/v5.json",
  data: { values: rows },
  width: "container",
  autosize: { type: "fit-x", contains: "padding" },
  ...more,
});

// A step's height for each; Vega-Lite's own steps make it warn of a fit that nobody asked for.
const tall = (step, values) => step * new Set(values).size + 10;

// What is shown of a row under the pointer: fields, numbers with their format after a space.
const tips = (...fields) =>
  fields.map((field) => {
    const [name, format] = field.split(" ");
    return { field: name, title: name, ...(format && { type: "quantitative", format }) };
  });

// The models' colours, in their order; the page has one legend for all charts.
const modelColour = (colours) => ({
  field: "model",
  type: "nominal",
  scale: { domain: Object.keys(colours), range: Object.values(colours) },
  legend: null,
});

// A line for each model: its share with the 95% interval; the teacher's share is a line across.
function shares(rows, colours) {
  const teacher = Object.keys(colours).find((label) => colours[label] === "var(--teacher)");
  const labels = { labelFontSize: 14, labelPadding: 14 };
  const y = nominal("model", { sort: Object.keys(colours), axis: labels });
  const model = { y, color: modelColour(colours) };
  const tooltip = tips("model", "share .1%", "low .1%", "high .1%", "right ,", "rows ,");
  const number = (test, align, dx, end) => ({
    transform: [{ filter: `datum.share ${test} 0.5` }],
    mark: { type: "text", align, dx, fontSize: 14, fontWeight: 600 },
    encoding: { y, x: { field: end, ...SHARE }, text: { field: "text" } },
  });
  const across = {
    transform: [{ filter: { field: "model", equal: teacher } }],
    mark: { type: "rule", strokeDash: [4, 4], color: colours[teacher] },
    encoding: { x: { field: "share", ...SHARE } },
  };
  return spec(rows, {
    height: tall(44, Object.keys(colours)),
    layer: [
      ...(teacher ? [across] : []), // there is none where all rows are a user's own
      { mark: { type: "rule", strokeWidth: 3 }, encoding: { ...model, ...SPAN } },
      {
        mark: { ...POINT, size: 130 },
        encoding: { ...model, x: { field: "share", ...SHARE }, tooltip },
      },
      number("<=", "left", 10, "high"),
      number(">", "right", -10, "low"),
    ],
  });
}

// A line for each part of the test rows, with each model's share and interval.
function parts(rows, colours) {
  const names = [...new Set(rows.map((row) => row.name))];
  const axis = { grid: true, tickBand: "extent", labelLimit: 150 };
  const common = {
    y: nominal("name", { sort: names, axis }),
    yOffset: { field: "model", sort: Object.keys(colours) },
    color: modelColour(colours),
    tooltip: tips("name", "model", "share .1%", "low .1%", "high .1%", "rows ,"),
  };
  const share = { x: { field: "share", ...SHARE } };
  return spec(rows, {
    height: tall(17.5 * Object.keys(colours).length, names),
    layer: [
      { mark: { type: "rule", strokeWidth: 2 }, encoding: { ...common, ...SPAN } },
      { mark: { ...POINT, size: 55 }, encoding: { ...common, ...share } },
    ],
  });
}

// Both loss curves over the steps; the axis is logarithmic where the loss falls to less than a
// twentieth.
function losses(rows) {
  const values = rows.map((row) => row.loss),
    low = Math.min(...values);
  const isLog = low > 0 && 20 * low < Math.max(...values);
  const powers = [-9, -8, -7, -6, -5, -4, -3, -2, -1, 0, 1, 2, 3];
  const ticks = isLog
    ? { values: powers.map((power) => Number(`1e${power}`)), format: "~g" }
    : { tickCount: 5 };
  return spec(rows, {
    height: 240,
    mark: { type: "line", point: rows.length < 120 && { size: 28, filled: true }, strokeWidth: 2 },
    encoding: {
      x: { field: "step", type: "quantitative", axis: { grid: false, tickCount: 6 } },
      y: {
        field: "loss",
        type: "quantitative",
        scale: isLog ? { type: "log" } : { zero: false },
        axis: { grid: true, ...ticks },
      },
      color: nominal("curve", {
        scale: { domain: ["training", "validation"], range: PAIR },
        legend: { orient: "top" },
      }),
      tooltip: tips("curve", "step ,", "loss .4g"),
    },
  });
}

// The share of validation rows right at each checkpoint, {step, accuracy}.
const accuracy = (rows) =>
  spec(rows, {
    height: 200,
    mark: { type: "line", point: { size: 28, filled: true }, strokeWidth: 2, color: PAIR[1] },
    encoding: {
      x: { field: "step", type: "quantitative", axis: { grid: false, tickCount: 6 } },
      y: {
        field: "accuracy",
        type: "quantitative",
        title: "validation rows right",
        scale: { zero: false },
        axis: { grid: true, tickCount: 5, format: ".0%" },
      },
      tooltip: tips("step ,", "accuracy .1%"),
    },
  });

// A bar for each step of the data, {step, rows}.
const funnel = (rows) =>
  spec(rows, {
    height: tall(30, rows.map((row) => row.step)),
    encoding: {
      y: nominal("step", { sort: null, axis: { labelLimit: 170 } }),
      x: { field: "rows", type: "quantitative", title: null, axis: null },
    },
    layer: [
      { mark: { type: "bar", cornerRadiusEnd: 3, color: PAIR[0], height: { band: 0.6 } } },
      {
        mark: { type: "text", align: "left", dx: 6, fontSize: 13 },
        encoding: { text: { field: "rows", format: "," } },
      },
    ],
  });

// A bar for each model: a row's tokens of prompt and answer, {model, part, tokens}.
const tokens = (rows, colours) =>
  spec(rows, {
    height: tall(34, Object.keys(colours)),
    mark: { type: "bar", height: { band: 0.6 } },
    encoding: {
      y: nominal("model", { sort: Object.keys(colours), axis: { labelFontSize: 14 } }),
      x: {
        field: "tokens",
        type: "quantitative",
        title: "tokens a row",
        axis: { grid: true, tickCount: 5, format: ",d" },
      },
      color: nominal("part", {
        scale: { domain: ["prompt", "answer"], range: PAIR },
        sort: null,
        legend: { orient: "top" },
      }),
      order: { field: "part", sort: "descending" },
      tooltip: tips("model", "part", "tokens ,.0f"),
    },
  });

const PARTS = { key: parts, label: parts, length: parts, slice: parts };
const CHARTS = { all: shares, ...PARTS, losses, accuracy, funnel, tokens };

// The page's own colours and type.
const grey = "var(--soft)",
  line = "var(--line)",
  font = getComputedStyle(document.body).fontFamily;
const config = {
  font,
  background: null,
  view: { stroke: null },
  axis: {
    labelColor: "var(--ink)",
    titleColor: grey,
    titleFontWeight: 400,
    gridColor: line,
    domain: false,
    ticks: false,
    labelFontSize: 13,
    titleFontSize: 12,
    labelPadding: 8,
  },
  axisX: { labelColor: grey, labelFontSize: 12, labelFlush: true },
  axisY: { grid: false },
  legend: { labelColor: "var(--ink)", labelFontSize: 13, offset: 4 },
  text: { fill: "var(--ink)" },
};

(async () => {
  // one after the other, so that the page can be read and scrolled meanwhile
  const { colours, rows } = JSON.parse(document.getElementById("charts").textContent);
  const places = [...document.querySelectorAll("[data-chart]")];
  for (const place of places) {
    const kind = place.dataset.chart;
    await vegaEmbed(place, CHARTS[kind](rows[kind], colours), {
      actions: false,
      renderer: "svg",
      config,
      tooltip: { theme: "custom" },
    });
    await new Promise((resume) => setTimeout(resume));
  }
  document.body.setAttribute("data-drawn", places.length);
})();
