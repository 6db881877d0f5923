"""The templates of `dvc plots`: filled in by DVC's own renderer, and a page that loads nothing from
elsewhere."""

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
from dvc_render import VegaRenderer
from dvc_render.html import render_html

from potstill.core import params
from potstill.core.models import MODELS
from tests.conftest import ROOT

PLOTS = ROOT / ".dvc/plots"
SHARE = {
    "kind": "key",
    "name": "word",
    "model": "sft",
    "rows": "8",
    "right": "4",
    "share": "0.5",
    "low": "0.2",
    "high": "0.8",
}
POINTS = {"shares": [SHARE], "loss": [{"step": "1", "loss": "0.5"}, {"step": "2", "loss": "0.25"}]}


def renderer(name: str, **properties: str) -> Any:
    points = [{**point, "rev": rev} for rev in ("HEAD", "workspace") for point in POINTS[name]]
    return VegaRenderer(
        points, f"{name}.csv", template=name, template_dir=str(PLOTS), title="a title", **properties
    )


@pytest.mark.parametrize(
    ("name", "axes"),
    [("shares", {"x": "share", "y": "name"}), ("loss", {"x": "step", "y": "loss"})],
)
def test_a_template_is_filled_in_for_each_revision(name: str, axes: dict[str, str]) -> None:
    filled = renderer(name, **axes).get_filled_template()
    assert "DVC_METRIC" not in json.dumps(filled)
    assert [row["rev"] for row in filled["data"]["values"]] == ["HEAD"] * len(POINTS[name]) + [
        "workspace"
    ] * len(POINTS[name])
    assert "a title" in json.dumps(filled["title"])


def test_the_page_takes_vega_from_the_checkout(tmp_path: Path) -> None:
    out = tmp_path / "dvc_plots/index.html"
    render_html([renderer("loss", x="step", y="loss")], out, PLOTS / "page.html")
    page = out.read_text(encoding="utf-8")
    assert "vegaEmbed(" in page
    vega = ROOT / "potstill/report/vega.js"
    sources = re.findall(r'src="([^"]*)"', page)  # of the root's page, and of that of tasks/<name>
    pages = [ROOT / "dvc_plots", ROOT / "tasks/any/dvc_plots"]
    found = [Path(os.path.normpath(page / path)) for page, path in zip(pages, sources, strict=True)]
    assert found == [vega, vega] and vega.is_file()
    config = (ROOT / ".dvc/config").read_text(encoding="utf-8")
    assert "html_template = plots/page.html" in config


def test_the_pipeline_names_the_templates() -> None:
    pipeline = params.parse((ROOT / "dvc.yaml").read_text(encoding="utf-8"), ROOT / "dvc.yaml")
    plots = [options for plot in pipeline["plots"] for options in plot.values()]
    named = {options["template"] for options in plots if "template" in options}
    assert named == {path.stem for path in PLOTS.glob("*.json")}


def test_the_shares_are_in_the_order_of_the_models() -> None:
    """As score writes them, in the order of MODELS; the template names none."""
    text = (PLOTS / "shares.json").read_text(encoding="utf-8")
    assert [name for name in MODELS if f'"{name}"' in text] == []
    template = json.loads(text)
    assert template["transform"][-1] == {"window": [{"op": "row_number", "as": "place"}]}
    assert template["facet"]["column"]["sort"] == {"field": "place", "op": "min"}
