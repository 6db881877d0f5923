"""Send the metrics of the finished run to MLflow: `make track`, to MLFLOW_TRACKING_URI.

A run of MLflow stands for a dvc.lock: its parameters are those that dvc.lock recorded, its metrics
the numbers of reports/metrics.json and cost.json, its curves the losses. A second `make track` of
the same dvc.lock sends nothing. The environment's MLFLOW_TRACKING_TOKEN, or _USERNAME and
_PASSWORD, are used as MLflow's own client uses them.
"""

import os
import re
import time
from collections.abc import Iterator
from typing import Any

from potstill.core import lockfile, params, project
from potstill.core.errors import UserError
from potstill.core.jsonl import Row, read_json
from potstill.evaluation import compare
from potstill.task import settings
from potstill.task.settings import Task

API = "/api/2.0/mlflow"  # https://mlflow.org/docs/latest/api_reference/rest-api.html
PART = {"metrics": 1000, "params": 100}  # as many as one request of log-batch may have
LONGEST = 6000  # characters of a parameter's value
LOCK = "potstill.dvc_lock"  # the tag with the MD5 of the dvc.lock that a run stands for


class Server:
    """MLflow's REST API at `uri`."""

    def __init__(self, uri: str) -> None:
        import httpx

        name, password = (os.environ.get(f"MLFLOW_TRACKING_{x}") for x in ("USERNAME", "PASSWORD"))
        token = os.environ.get("MLFLOW_TRACKING_TOKEN")
        self.uri = uri.rstrip("/")
        self.http = httpx.Client(
            base_url=self.uri + API,
            auth=(name, password or "") if name else None,
            headers={"Authorization": f"Bearer {token}"} if token else None,
            timeout=60,
        )

    def __call__(self, path: str, **body: Any) -> Row:
        """What the server answers to `body`. Raises UserError where it is not there, refuses, or is
        no MLflow."""
        import httpx

        try:
            response = self.http.post(path, json=body)
            found = response.json() if response.content else {}
        except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
            raise UserError(
                f"MLFLOW_TRACKING_URI is {self.uri}: {error or type(error).__name__}, expected an "
                "MLflow server: start it (`mlflow server`), or mend the address"
            ) from None
        if response.is_error and found.get("error_code") != "RESOURCE_ALREADY_EXISTS":
            said = found.get("message") or f"HTTP {response.status_code}"
            raise UserError(f"{self.uri}{API}{path}: {said}")
        return dict(found)

    def experiment(self, name: str) -> str:
        """The id of the experiment `name`, which is made where there is none."""
        self("/experiments/create", name=name)  # refused where there is one
        found = self("/experiments/search", filter=f"name = '{name}'", max_results=1)
        return str(found["experiments"][0]["experiment_id"])


def numbers(document: Any, name: str = "") -> Iterator[tuple[str, float]]:
    """The numbers of a JSON document, each by its path, such as sft/unit/accuracy."""
    if isinstance(document, dict):
        for key, value in document.items():
            yield from numbers(value, f"{name}/{key}" if name else key)
    elif isinstance(document, int | float) and not isinstance(document, bool):
        yield re.sub(r"[^\w./: -]", "_", name), float(document)  # the signs that MLflow allows


def metrics(t: Task) -> list[Row]:
    """What is sent as metrics: {"key", "value", "step"}. Raises UserError without a score."""
    if not (t.reports / "metrics.json").is_file():
        raise UserError(f"{t.reports}/metrics.json is missing: `make repro` makes it")
    found = [*numbers(read_json(t.reports / "metrics.json"))]
    found += numbers({"cost": read_json(t.reports / "cost.json")})
    rows = [{"key": name, "value": value, "step": 0} for name, value in found]
    for name in ("train_loss", "eval_loss"):
        path = t.reports / f"tables/{name}.csv"
        curve = compare.read_csv(params.read_text(path), str(path))
        steps = [(float(row["loss"]), int(row["step"])) for row in curve]
        rows += [{"key": name, "value": value, "step": step} for value, step in steps]
    return rows


def recorded() -> list[Row]:
    """The parameters that dvc.lock has of all stages: {"key", "value"}."""
    found: Row = {}
    for entry in lockfile.read().values():
        for name, value in entry.get("params", {}).get(str(params.PATH), {}).items():
            section, _, inner = name.partition(".")
            more = {inner: value} if inner else value
            found[section] = found.get(section, {}) | more if isinstance(more, dict) else value
    named = params.flat(found).items()
    return [{"key": name, "value": str(value)[:LONGEST]} for name, value in sorted(named)]


def push(t: Task, uri: str) -> str:
    """Where the run can be seen, and whether it is new. Raises UserError as above."""
    if not lockfile.LOCK.is_file():
        raise UserError(f"{lockfile.LOCK} is missing: `make repro` makes it")
    lock, sent = lockfile.md5(lockfile.LOCK), {"metrics": metrics(t), "params": recorded()}
    server = Server(uri)
    home = server.experiment(f"potstill/{t.name}")
    wanted = f"tags.`{LOCK}` = '{lock}' and attributes.status = 'FINISHED'"
    there = server("/runs/search", experiment_ids=[home], filter=wanted, max_results=1).get("runs")
    if there:
        return f"{_page(server, home, there[0])} has this dvc.lock already: nothing was sent"
    now = time.time_ns() // 1_000_000
    commit = project.git("rev-parse", "HEAD")
    tags = {LOCK: lock, "mlflow.source.git.commit": commit, "mlflow.source.name": "potstill"}
    run = server(
        "/runs/create",
        experiment_id=home,
        run_name=f"{t.name} {lock[:8]}",
        start_time=now,
        tags=[{"key": key, "value": value} for key, value in tags.items()],
    )["run"]
    for kind, rows in sent.items():
        for start in range(0, len(rows), PART[kind]):
            part = rows[start : start + PART[kind]]
            if kind == "metrics":
                part = [row | {"timestamp": now} for row in part]
            server("/runs/log-batch", run_id=run["info"]["run_id"], **{kind: part})
    ended = {"status": "FINISHED", "end_time": time.time_ns() // 1_000_000}
    server("/runs/update", run_id=run["info"]["run_id"], **ended)
    counted = f"{len(sent['metrics']):,} metrics, {len(sent['params']):,} parameters"
    return f"{_page(server, home, run)}: {counted}"


def _page(server: Server, experiment: str, run: Row) -> str:
    return f"{server.uri}/#/experiments/{experiment}/runs/{run['info']['run_id']}"


def main() -> None:
    """`make track`. Raises UserError without an address, a result or a server."""
    uri = os.environ.get("MLFLOW_TRACKING_URI", "").strip()
    if not uri.startswith(("http://", "https://")):
        raise UserError(
            f"MLFLOW_TRACKING_URI is {uri!r}, expected the address of an MLflow server: "
            "`export MLFLOW_TRACKING_URI=http://127.0.0.1:5000`"
        )
    print("track:", push(settings.load(), uri))
