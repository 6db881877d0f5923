"""`make track`: a run's record to MLflow, once, by its REST API."""

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from potstill.commands import track
from potstill.core.errors import UserError
from potstill.core.jsonl import write_json
from potstill.task import settings
from tests import tracking
from tests.conftest import Project

LOCK = """schema: '2.0'
stages:
  sft:
    cmd: python -m stages.sft
    params:
      params.yaml:
        lora_rank: 16
        model: tiny
        swift_args:
          neftune_noise_alpha: 5
        pairs.rows: 12
    outs: [{path: models, md5: 0123456789abcdef0123456789abcdef.dir}]
  predict@sft:
    cmd: python -m stages.predict sft
    params:
      params.yaml:
        pairs.samples: 4
        predict: {dtype: float32, max_tokens: null}
    outs: [{path: data/p, md5: 0123456789abcdef0123456789abcdef.dir}]
"""


class Fake(ThreadingHTTPServer):
    """As much of MLflow's tracking server as is asked, with its own words of refusal."""

    def __init__(self) -> None:
        self.experiments: dict[str, str] = {}
        self.runs: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        super().__init__(("127.0.0.1", 0), Handler)
        self.uri = f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    server: Fake

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.keys.append(self.headers["Authorization"])
        path = self.path.removeprefix("/api/2.0/mlflow/")
        code, found = 200, dict[str, Any]()
        known, runs = self.server.experiments, self.server.runs
        if path == "experiments/create" and body["name"] in known:
            code, found = 400, {"error_code": "RESOURCE_ALREADY_EXISTS", "message": "there"}
        elif path == "experiments/create":
            known[body["name"]] = str(len(known) + 1)
        elif path == "experiments/search":
            name = body["filter"].split("'")[1]
            found = {"experiments": [{"experiment_id": known[name]}]}
        elif path == "runs/create":
            tags = {tag["key"]: tag["value"] for tag in body["tags"]}
            runs.append({"info": {"run_id": f"r{len(runs)}"}, "tags": tags, "sent": []})
            found = {"run": runs[-1]}
        elif path == "runs/search":
            ended = [run for run in runs if run.get("status") == "FINISHED"]
            found = {"runs": [run for run in ended if run["tags"][track.LOCK] in body["filter"]]}
        elif path == "runs/log-batch" and len(body.get("params", [])) > 100:
            code, found = 400, {"error_code": "INVALID_PARAMETER_VALUE", "message": "too many"}
        elif path == "runs/log-batch":
            runs[int(body["run_id"][1:])]["sent"].append(body)
        elif path == "runs/update":
            runs[int(body["run_id"][1:])]["status"] = body["status"]
        else:
            code, found = 404, {}
        text = json.dumps(found).encode()
        self.send_response(code)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_: object) -> None:
        """Prints nothing."""


@pytest.fixture
def fake_server() -> Iterator[Fake]:
    with Fake() as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def scored(project: Project) -> settings.Task:
    """A task with a result."""
    project.write("dvc.lock", LOCK)
    model = {"accuracy": 0.9, "right": 9, "in one's own": {"rows": 3}, "ship": {"why": "it wins"}}
    write_json("reports/metrics.json", {"rows": 10, "sft": model})
    write_json("reports/cost.json", {"answers": 4, "spent": None})
    for name in ("train_loss", "eval_loss"):
        project.write(f"reports/tables/{name}.csv", "step,loss\n1,0.5\n9,0.25\n")
    project.commit()
    return settings.load()


def test_a_run_is_sent_once(
    scored: settings.Task, fake_server: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "t0ken")
    first = track.push(scored, fake_server.uri)
    [run] = fake_server.runs
    sent = {
        kind: [row for body in run["sent"] for row in body.get(kind, [])] for kind in track.PART
    }
    values = {(row["key"], row["step"]): row["value"] for row in sent["metrics"]}
    assert values == {
        ("rows", 0): 10,
        ("sft/accuracy", 0): 0.9,
        ("sft/right", 0): 9,
        ("sft/in one_s own/rows", 0): 3,
        ("cost/answers", 0): 4,
        **{(name, 1): 0.5 for name in ("train_loss", "eval_loss")},
        **{(name, 9): 0.25 for name in ("train_loss", "eval_loss")},
    }
    assert {row["key"]: row["value"] for row in sent["params"]} == {
        "lora_rank": "16",
        "model": "tiny",
        "swift_args": "{'neftune_noise_alpha': 5}",
        "pairs.rows": "12",
        "pairs.samples": "4",
        "predict.dtype": "float32",
        "predict.max_tokens": "None",
    }
    assert first.endswith("runs/r0: 9 metrics, 7 parameters")
    assert set(fake_server.keys) == {"Bearer t0ken"}
    assert track.push(scored, fake_server.uri).endswith(
        "has this dvc.lock already: nothing was sent"
    )
    Path("dvc.lock").write_text(LOCK.replace("16", "8"), encoding="utf-8")
    assert track.push(scored, fake_server.uri).endswith("runs/r1: 9 metrics, 7 parameters")


def test_a_run_that_was_cut_off_is_sent_again(
    scored: settings.Task, fake_server: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(track.PART, "params", 101)
    monkeypatch.setattr(
        track, "recorded", lambda: [{"key": f"{i}", "value": ""} for i in range(101)]
    )
    with pytest.raises(UserError, match="/runs/log-batch: too many"):
        track.push(scored, fake_server.uri)
    monkeypatch.setitem(track.PART, "params", 100)
    assert track.push(scored, fake_server.uri).endswith("9 metrics, 101 parameters")


@pytest.mark.parametrize(
    ("uri", "says"),
    [
        ("", "MLFLOW_TRACKING_URI is '', expected the address of an MLflow server: `export"),
        ("file:///x", "MLFLOW_TRACKING_URI is 'file:///x', expected the address"),
        ("http://127.0.0.1:9", "MLFLOW_TRACKING_URI is http://127.0.0.1:9: .*mlflow server"),
    ],
)
def test_no_server_is_one_sentence(
    scored: settings.Task, monkeypatch: pytest.MonkeyPatch, uri: str, says: str
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    with pytest.raises(UserError, match=says):
        track.main()


@pytest.mark.slow
def test_a_real_server(scored: settings.Task, tmp_path: Path) -> None:
    with tracking.served(tmp_path) as (uri, _):
        assert track.push(scored, uri).endswith(": 9 metrics, 7 parameters")
        assert track.push(scored, uri).endswith("has this dvc.lock already: nothing was sent")
        found = track.Server(uri)("/runs/search", experiment_ids=["1"])["runs"]
    assert len(found) == 1
    data = {row["key"]: row["value"] for row in found[0]["data"]["metrics"]}
    assert data["sft/accuracy"] == 0.9
    assert data["train_loss"] == 0.25  # the last of the curve
    assert {"key": "lora_rank", "value": "16"} in found[0]["data"]["params"]
