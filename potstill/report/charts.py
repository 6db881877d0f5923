"""The charts of reports/report.html, as Vega-Lite. Their colours are CSS variables of the page, so
that they follow light and dark."""

from typing import Any

from potstill.core.jsonl import Row
from potstill.core.models import MODELS

Spec = dict[str, Any]
SCHEMA = "https://vega.github.io/schema/vega-lite/v5.json"  # a name: nothing is loaded from there
PERCENT: Spec = {"format": ".0%", "values": [0, 0.25, 0.5, 0.75, 1]}
PAIR = ["var(--plain)", "var(--accent)"]  # of two curves or bars that are no models
POINT = {"type": "point", "filled": True, "opacity": 1}


def _spec(rows: list[Row], step: int | None = None, **more: Any) -> Spec:
    """A chart as wide as its place and, with a `step`, so many pixels high a row of it."""
    height: Spec = {} if step is None else {"height": {"step": step}}
    place = {"width": "container", "autosize": {"type": "fit-x", "contains": "padding"}}
    return {"$schema": SCHEMA, "data": {"values": rows}, **place, **height, **more}


def _names(field: str, **more: Any) -> Spec:
    return {"field": field, "type": "nominal", "title": None, **more}


def _share(field: str) -> Spec:
    scale = {"scale": {"domain": [0, 1]}, "title": None, "axis": PERCENT}
    return {"field": field, "type": "quantitative", **scale}


def _tips(*fields: str) -> list[Spec]:
    """What is shown of a row under the pointer: fields, numbers with their format after a space."""
    tips = []
    for field in fields:
        name, _, format = field.partition(" ")
        number = {"type": "quantitative", "format": format} if format else {}
        tips.append({"field": name, "title": name, **number})
    return tips


def _colours() -> dict[str, str]:
    """The colour of each model by its label, in the models' order."""
    return {model.label: f"var(--{name})" for name, model in MODELS.items()}


def _model_colour(rows: list[Row]) -> Spec:
    """The colours of the models that the rows have; the page has one legend for all charts."""
    shown = {row["model"] for row in rows}
    colours = {label: colour for label, colour in _colours().items() if label in shown}
    scale = {"domain": list(colours), "range": list(colours.values())}
    return {"field": "model", "type": "nominal", "scale": scale, "legend": None}


def shares(rows: list[Row]) -> Spec:
    """A line for each model: its share with the 95 % interval; the teacher's share is a line
    across."""
    rows = [{**row, "text": f"{row['share']:.1%}"} for row in rows]  # Vega rounds 95.25 up
    y = _names("model", sort=list(_colours()), axis={"labelFontSize": 14, "labelPadding": 14})
    common: Spec = {"y": y, "color": _model_colour(rows)}
    tips = _tips("model", "share .1%", "low .1%", "high .1%", "right ,", "rows ,")
    teacher = MODELS["teacher"].label
    layers: list[Spec] = [
        {
            "transform": [{"filter": f"datum.model == {teacher!r}"}],
            "mark": {"type": "rule", "strokeDash": [4, 4], "color": _colours()[teacher]},
            "encoding": {"x": _share("share")},
        },
        {
            "mark": {"type": "rule", "strokeWidth": 3},
            "encoding": {**common, "x": _share("low"), "x2": {"field": "high"}},
        },
        {
            "mark": {**POINT, "size": 130},
            "encoding": {**common, "x": _share("share"), "tooltip": tips},
        },
    ]
    for test, align, dx, end in (("<=", "left", 10, "high"), (">", "right", -10, "low")):
        style = {"type": "text", "align": align, "dx": dx, "fontSize": 14, "fontWeight": 600}
        text = {"y": y, "x": _share(end), "text": {"field": "text"}}
        where = [{"filter": f"datum.share {test} 0.5"}]
        layers.append({"transform": where, "mark": style, "encoding": text})
    return _spec(rows, 44, layer=layers)


def parts(rows: list[Row], kind: str) -> Spec:
    """A line for each part of the test rows, with each model's share and interval."""
    rows = [row for row in rows if row["kind"] == kind]
    names = list(dict.fromkeys(row["name"] for row in rows))
    axis = {"grid": True, "tickBand": "extent", "labelLimit": 150}
    common: Spec = {
        "y": _names("name", sort=names, axis=axis),
        "yOffset": {"field": "model", "sort": list(_colours())},
        "color": _model_colour(rows),
        "tooltip": _tips("name", "model", "share .1%", "low .1%", "high .1%", "rows ,"),
    }
    interval = {"x": _share("low"), "x2": {"field": "high"}}
    layers: list[Spec] = [
        {"mark": {"type": "rule", "strokeWidth": 2}, "encoding": {**common, **interval}},
        {"mark": {**POINT, "size": 55}, "encoding": {**common, "x": _share("share")}},
    ]
    return _spec(rows, layer=layers, height={"step": 14, "for": "offset"})


def losses(train: list[Row], valid: list[Row]) -> Spec:
    """Both loss curves over the steps; the axis is logarithmic where the loss falls to less than a
    twentieth."""
    curves = {"training": train, "validation": valid}
    rows: list[Row] = [
        {"curve": name, "step": int(point["step"]), "loss": float(point["loss"])}
        for name, curve in curves.items()
        for point in curve
    ]
    losses = [row["loss"] for row in rows]
    scale: Spec = {"zero": False}
    axis: Spec = {"tickCount": 5}
    if 0 < 20 * min(losses) < max(losses):
        scale, powers = {"type": "log"}, range(-9, 4)
        axis = {"values": [10.0**power for power in powers], "format": "~g"}
    steps, colours = {"grid": False, "tickCount": 6}, {"domain": list(curves), "range": PAIR}
    encoding = {
        "x": {"field": "step", "type": "quantitative", "axis": steps},
        "y": {
            "field": "loss",
            "type": "quantitative",
            "scale": scale,
            "axis": {"grid": True} | axis,
        },
        "color": _names("curve", scale=colours, legend={"orient": "top"}),
        "tooltip": _tips("curve", "step ,", "loss .4g"),
    }
    points = len(rows) < 120 and {"size": 28, "filled": True}
    mark = {"type": "line", "point": points, "strokeWidth": 2}
    return _spec(rows, height=240, mark=mark, encoding=encoding)


def funnel(rows: list[Row]) -> Spec:
    """A bar for each step of the data, {"step", "rows"}."""
    y = _names("step", sort=None, axis={"labelLimit": 170})
    x = {"field": "rows", "type": "quantitative", "title": None, "axis": None}
    bar = {"type": "bar", "cornerRadiusEnd": 3, "color": PAIR[0], "height": {"band": 0.6}}
    text = {"type": "text", "align": "left", "dx": 6, "fontSize": 13}
    count = {"text": {"field": "rows", "format": ","}}
    layers = [{"mark": bar}, {"mark": text, "encoding": count}]
    return _spec(rows, 30, encoding={"y": y, "x": x}, layer=layers)


def tokens(rows: list[Row]) -> Spec:
    """A bar for each model: a row's tokens of prompt and answer, {"model", "part", "tokens"}."""
    axis = {"grid": True, "tickCount": 5, "format": ",d"}
    scale = {"domain": ["prompt", "answer"], "range": PAIR}
    encoding = {
        "y": _names("model", sort=list(_colours()), axis={"labelFontSize": 14}),
        "x": {"field": "tokens", "type": "quantitative", "title": "tokens a row", "axis": axis},
        "color": _names("part", scale=scale, sort=None, legend={"orient": "top"}),
        "order": {"field": "part", "sort": "descending"},
        "tooltip": _tips("model", "part", "tokens ,.0f"),
    }
    return _spec(rows, 34, mark={"type": "bar", "height": {"band": 0.6}}, encoding=encoding)
