"""The charts of reports/<task>/report.html, as Vega-Lite: colours are the page's own (potstill/report.css), light or dark."""

from typing import Any

from potstill.core.jsonl import Row
from potstill.core.models import LABELS

Spec = dict[str, Any]
SCHEMA = "https://vega.github.io/schema/vega-lite/v5.json"  # a name: nothing is loaded from there
COLOURS = {
    label: f"var(--{model})" for model, label in LABELS.items()
}  # by what a chart calls the model
PERCENT: Spec = {"format": ".0%", "values": [0, 0.25, 0.5, 0.75, 1]}


def _spec(rows: list[Row], step: int | None = None, **more: Any) -> Spec:
    """A chart as wide as its place and, with a `step`, so many pixels high a row of it."""
    height: Spec = {} if step is None else {"height": {"step": step}}
    place = {"width": "container", "autosize": {"type": "fit-x", "contains": "padding"}}
    return {"$schema": SCHEMA, "data": {"values": rows}, **place, **height, **more}


def _models(rows: list[Row], **more: Any) -> Spec:
    """The colour of each model that the rows have."""
    there = [model for model in COLOURS if any(row["model"] == model for row in rows)]
    scale = {"domain": there, "range": [COLOURS[model] for model in there]}
    return {"field": "model", "type": "nominal", "scale": scale, **more}


def shares(rows: list[Row]) -> Spec:
    """A line for each model: its share with the 95 % interval; the teacher's share is a line across."""
    rows = [
        {**row, "text": f"{row['share']:.1%}"} for row in rows
    ]  # Vega rounds 95.25 up, Python down
    y = {
        "field": "model",
        "type": "nominal",
        "sort": list(COLOURS),
        "title": None,
        "axis": {"labelFontSize": 14, "labelPadding": 14},
    }
    x: Spec = {"type": "quantitative", "scale": {"domain": [0, 1]}, "title": None, "axis": PERCENT}
    colour = _models(rows, legend=None)
    tips = [
        _tip("model"),
        _tip("share", ".1%"),
        _tip("low", ".1%"),
        _tip("high", ".1%"),
        _tip("right", ","),
        _tip("rows", ","),
    ]
    bounds = {"x": {**x, "field": "low"}, "x2": {"field": "high"}}
    teacher = [{"filter": "datum.model == 'teacher'"}]
    layers: list[Spec] = [
        {
            "transform": teacher,
            "mark": {"type": "rule", "strokeDash": [4, 4], "color": COLOURS["teacher"]},
            "encoding": {"x": {**x, "field": "share"}},
        },
        {
            "mark": {"type": "rule", "strokeWidth": 3},
            "encoding": {"y": y, **bounds, "color": colour},
        },
        {
            "mark": {"type": "point", "filled": True, "size": 130, "opacity": 1},
            "encoding": {"y": y, "x": {**x, "field": "share"}, "color": colour, "tooltip": tips},
        },
        *(
            {
                "transform": [{"filter": f"datum.share {test} 0.5"}],
                "mark": {
                    "type": "text",
                    "align": align,
                    "dx": dx,
                    "fontSize": 14,
                    "fontWeight": 600,
                },
                "encoding": {"y": y, "x": {**x, "field": end}, "text": {"field": "text"}},
            }
            for test, align, dx, end in (("<=", "left", 10, "high"), (">", "right", -10, "low"))
        ),
    ]
    return _spec(rows, 44, layer=layers)


def parts(rows: list[Row], kind: str) -> Spec:
    """A line for each part of the test rows, with each model's share and interval."""
    some = [row for row in rows if row["kind"] == kind]
    names = list(dict.fromkeys(row["name"] for row in some))
    y: Spec = {"field": "name", "type": "nominal", "sort": names, "title": None}
    y["axis"] = {"grid": True, "tickBand": "extent", "labelLimit": 150}
    off: Spec = {"field": "model", "sort": list(COLOURS)}
    x: Spec = {"type": "quantitative", "scale": {"domain": [0, 1]}, "title": None, "axis": PERCENT}
    tips = [
        _tip("name"),
        _tip("model"),
        _tip("share", ".1%"),
        _tip("low", ".1%"),
        _tip("high", ".1%"),
        _tip("rows", ","),
    ]
    colour = _models(some, legend=None)  # the page has one for all
    common: Spec = {"y": y, "yOffset": off, "color": colour, "tooltip": tips}
    layers: list[Spec] = [
        {
            "mark": {"type": "rule", "strokeWidth": 2},
            "encoding": {**common, "x": {**x, "field": "low"}, "x2": {"field": "high"}},
        },
        {
            "mark": {"type": "point", "filled": True, "size": 55, "opacity": 1},
            "encoding": {**common, "x": {**x, "field": "share"}},
        },
    ]
    return _spec(some, layer=layers) | {"height": {"step": 14, "for": "offset"}}


def losses(train: list[tuple[int, float]], valid: list[tuple[int, float]]) -> Spec:
    """Both loss curves over the steps; the axis is logarithmic where the loss falls to less than a twentieth."""
    named = (("training", train), ("validation", valid))
    rows: list[Row] = [
        {"curve": name, "step": step, "loss": loss} for name, curve in named for step, loss in curve
    ]
    found = [row["loss"] for row in rows]
    log = 0 < 20 * min(found) < max(found)
    scale: Spec = {"type": "log"} if log else {"zero": False}
    axis: Spec = (
        {"values": [10.0**power for power in range(-9, 4)], "format": "~g"}
        if log
        else {"tickCount": 5}
    )
    curves = {"domain": ["training", "validation"], "range": ["var(--base)", "var(--sft)"]}
    encoding = {
        "x": {
            "field": "step",
            "type": "quantitative",
            "title": "step",
            "axis": {"grid": False, "tickCount": 6},
        },
        "y": {
            "field": "loss",
            "type": "quantitative",
            "scale": scale,
            "title": "loss",
            "axis": {"grid": True, **axis},
        },
        "color": {
            "field": "curve",
            "type": "nominal",
            "title": None,
            "scale": curves,
            "legend": {"orient": "top"},
        },
        "tooltip": [_tip("curve"), _tip("step", ","), _tip("loss", ".4g")],
    }
    mark = {
        "type": "line",
        "point": {"size": 28, "filled": True} if len(rows) < 120 else False,
        "strokeWidth": 2,
    }
    return _spec(rows, height=240, mark=mark, encoding=encoding)


def funnel(rows: list[Row]) -> Spec:
    """A bar for each step of the data, {"step", "rows"}."""
    y = {
        "field": "step",
        "type": "nominal",
        "sort": None,
        "title": None,
        "axis": {"labelLimit": 170},
    }
    x = {"field": "rows", "type": "quantitative", "title": None, "axis": None}
    layers = [
        {
            "mark": {
                "type": "bar",
                "cornerRadiusEnd": 3,
                "color": "var(--base)",
                "height": {"band": 0.6},
            }
        },
        {
            "mark": {"type": "text", "align": "left", "dx": 6, "fontSize": 13},
            "encoding": {"text": {"field": "rows", "format": ","}},
        },
    ]
    return _spec(rows, 30, encoding={"y": y, "x": x}, layer=layers)


def tokens(rows: list[Row]) -> Spec:
    """A bar for each model: the tokens of a row's prompt and answer, {"model", "part", "tokens"}."""
    y = {
        "field": "model",
        "type": "nominal",
        "sort": list(COLOURS),
        "title": None,
        "axis": {"labelFontSize": 14},
    }
    x = {
        "field": "tokens",
        "type": "quantitative",
        "title": "tokens a row",
        "axis": {"grid": True, "tickCount": 5, "format": ",d"},
    }
    scale = {"domain": ["prompt", "answer"], "range": ["var(--base)", "var(--sft)"]}
    colour = {
        "field": "part",
        "type": "nominal",
        "scale": scale,
        "sort": None,
        "title": None,
        "legend": {"orient": "top"},
    }
    tips = [_tip("model"), _tip("part"), _tip("tokens", ",.0f")]
    encoding = {
        "y": y,
        "x": x,
        "color": colour,
        "order": {"field": "part", "sort": "descending"},
        "tooltip": tips,
    }
    return _spec(rows, 34, mark={"type": "bar", "height": {"band": 0.6}}, encoding=encoding)


def _tip(field: str, format: str | None = None) -> Spec:
    return {"field": field, "title": field} | (
        {} if format is None else {"type": "quantitative", "format": format}
    )
