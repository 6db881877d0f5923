"""What docs/serve.md says of running the server elsewhere, and the dashboard, held against it."""

import configparser
import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from prometheus_client import REGISTRY

from potstill.serving import gateway, metrics
from tests.conftest import ROOT

GUIDE = (ROOT / "docs/serve.md").read_text(encoding="utf-8")
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
FOLDER = "/potstill/data/captured"
NAMES = {
    sample.name
    for family in REGISTRY.collect()
    if family.name.startswith("potstill_")
    for sample in [*family.samples]
} | {"potstill_failed_checks_total"}  # no series before a check fails


def blocks(kind: str, word: str) -> list[Any]:
    """The documents of the block of code of this kind that has the word."""
    [text] = [x for x in re.findall(rf"(?ms)^```{kind}\n(.*?)^```$", GUIDE) if word in x]
    return list(yaml.safe_load_all(text)) if kind == "yaml" else [text]


def seconds(text: str) -> int:
    return int(text.removesuffix("s"))


def expressions() -> Iterator[str]:
    board = json.loads((ROOT / "deploy/grafana.json").read_text(encoding="utf-8"))
    ids = [panel["id"] for panel in board["panels"]]
    assert len(set(ids)) == len(ids) > 5
    for panel in board["panels"]:
        assert panel["title"] and panel["datasource"]["uid"] == "${source}"
        for target in panel["targets"]:
            yield target["expr"]


def test_each_query_of_the_dashboard_names_a_metric_that_there_is() -> None:
    asked = [re.findall(r"[a-z_]*potstill_\w+", query) for query in expressions()]
    assert all(asked) and {name for found in asked for name in found} <= NAMES
    # every metric is on it, and labels are spelt as they are counted
    shown = " ".join(expressions())
    for metric in (
        metrics.REQUESTS,
        metrics.ANSWERED,
        metrics.JUDGED,
        metrics.FAILED,
        metrics.CANARY_UNAVAILABLE,
        metrics.UNAVAILABLE,
        metrics.COST,
        metrics.CAPTURED,
        metrics.DROPPED,
    ):
        name = next(iter(metric.describe())).name
        assert name in shown and name in GUIDE, name
        for label in metric._labelnames:
            assert re.search(rf"by \([^)]*\b{label}\b[^)]*\)", shown), label


def test_prometheus_sends_the_key() -> None:
    [[job]] = [one["scrape_configs"] for one in blocks("yaml", "scrape_configs")]
    assert job["authorization"]["credentials_file"] and job["static_configs"][0]["targets"]
    assert job.get("metrics_path", "/metrics") in gateway.ROUTES


def test_the_systemd_unit() -> None:
    [text] = blocks("ini", "[Service]")
    unit = configparser.ConfigParser(interpolation=None)
    unit.optionxform = str  # type: ignore[assignment, method-assign]
    unit.read_string(text)
    service = unit["Service"]
    words = service["ExecStart"].split()
    assert words[0].startswith(service["WorkingDirectory"]) and words[1:4] == [
        "-m",
        "potstill",
        "serve",
    ]
    assert int(service["TimeoutStopSec"]) > gateway.DRAIN
    assert gateway.KEY not in text and "EnvironmentFile" in service


def test_the_compose_file() -> None:
    [found] = blocks("yaml", "services:")
    [service] = found["services"].values()
    assert service["ports"] == ["127.0.0.1:8000:8000"] and "EXPOSE 8000" in DOCKERFILE
    assert seconds(service["stop_grace_period"]) > gateway.DRAIN
    assert service["volumes"][0].endswith(f":{FOLDER}") and "WORKDIR /potstill" in DOCKERFILE


def test_the_kubernetes_manifest() -> None:
    deployment, service = blocks("yaml", "kind: Deployment")
    pod = deployment["spec"]["template"]
    [container] = pod["spec"]["containers"]
    assert deployment["spec"]["selector"]["matchLabels"] == pod["metadata"]["labels"]
    assert service["spec"]["selector"] == pod["metadata"]["labels"]
    assert container["ports"][0]["containerPort"] == 8000
    assert service["spec"]["ports"][0]["targetPort"] == container["ports"][0]["name"]
    for name in ("startupProbe", "readinessProbe", "livenessProbe"):
        asked = container[name]["httpGet"]
        assert asked == {"path": gateway.HEALTH, "port": "http"}
    assert pod["spec"]["terminationGracePeriodSeconds"] > gateway.DRAIN
    assert f"USER {pod['spec']['securityContext']['runAsUser']}\n" in DOCKERFILE
    assert container["volumeMounts"][0]["mountPath"] == FOLDER
    assert {"requests", "limits"} == set(container["resources"])


@pytest.mark.parametrize(
    ("status", "says"), [(0, "left"), (200, "answered"), (413, "refused"), (503, "failed")]
)
def test_outcomes(status: int, says: str) -> None:
    assert metrics.outcome(status) == says
