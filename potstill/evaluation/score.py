"""Answers against what is expected: the numbers of reports/<task>/metrics.json."""

import json
import math
from collections.abc import Collection, Iterable, Mapping
from statistics import fmean
from typing import Any

from potstill.checks import registry, rules, text_overlap
from potstill.core import jsonl
from potstill.core.errors import UserError
from potstill.core.jsonl import Row
from potstill.core.models import MODELS, UNTRAINED
from potstill.core.project import ROOT
from potstill.evaluation import statistics
from potstill.inference.predictions import folder
from potstill.task.settings import Task

ALWAYS = ("base", "sft", "teacher")  # the models that every task has
WORDS = ("accuracy", "agreement", "pass_rate")
BOUGHT = ("key", "error", "prompt_tokens", "completion_tokens")  # of an answer that was paid for
NEEDED = ("id", "answer", "prompt_tokens", "completion_tokens")
WITHIN = (
    2,
    5,
    10,
)  # characters off the length that is asked for, as the published case reports them


def predictions(task: Task) -> dict[str, list[Row]]:
    """The predictions of each model that there are any of. Raises UserError where those of the
    base, the sft student or the teacher are missing."""
    paths = {model: folder(task, model) / "test.jsonl" for model in MODELS}
    there = {name: path for name, path in paths.items() if name in ALWAYS or path.is_file()}
    return {name: jsonl.read_jsonl(path, NEEDED) for name, path in there.items()}


def repeated(task: Task) -> dict[str, list[Row]]:
    """What should not differ from the predictions: the base predicted `again`, and each `adapter`
    on its base. Raises UserError where the first is missing."""
    paths = {
        "again": folder(task, "examples") / "again.jsonl",
        "adapter": task.data / "5-parity/sft.jsonl",
        "adapter-dpo": task.data / "5-parity/dpo.jsonl",
    }
    there = {name: path for name, path in paths.items() if name == "again" or path.is_file()}
    return {name: jsonl.read_jsonl(path, NEEDED) for name, path in there.items()}


def word(tests: list[Row]) -> str:
    """What the share of right rows is: `accuracy` where the labels do not come from the teacher, `agreement` where they do (the
    test rows are held out of its answers), `pass_rate` where nothing is expected and the checks alone judge."""
    if any(row["slice"] == "held_out" for row in tests):
        return "agreement"
    return "accuracy" if any(row.get("expected") is not None for row in tests) else "pass_rate"


def student(found: Mapping[str, Any]) -> str:
    """The trained model whose numbers count, of those in metrics.json or the predictions: the one that ships, else the last one."""
    if "ship" in found:
        return str(found["ship"]["ship"])
    return [name for name in MODELS if name in found and name not in (*UNTRAINED, "teacher")][-1]


def headline(model: dict[str, Any]) -> float:
    """The share of right rows in one model's object of metrics.json, whatever it is called."""
    return float(next(model[name] for name in WORDS if name in model))


def marked(
    task: Task, tests: list[Row], predictions: dict[str, list[Row]]
) -> dict[str, list[dict[str, Any]]]:
    """Each model's marks, in the order of the test rows. Raises UserError when a model's predictions are not those of the test
    rows, one for each."""
    for model, answers in predictions.items():
        _same_rows(task, model, tests, answers)
    return {
        model: [mark(task, test, answer) for test, answer in zip(tests, answers, strict=True)]
        for model, answers in predictions.items()
    }


def by_slice(task: Task, tests: list[Row]) -> dict[str | None, list[int]]:
    """The numbers of the test rows in each slice; the first is the task's headline slice (None: all rows, when it names none).
    Raises UserError when no row is in it."""
    name = task.config.get("headline_slice")
    slices: dict[str | None, list[int]] = {name: []}
    for index, row in enumerate(tests):
        slices.setdefault(row["slice"] if name else None, []).append(index)
    if not slices[name]:
        raise UserError(
            f"task.yaml: headline_slice is {name!r}, but the test rows' slices are {', '.join(map(str, list(slices)[1:]))}"
        )
    return slices


def metrics(task: Task, tests: list[Row], marks: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """One object a model: the rows of the task's headline slice (all rows when it names none), other slices inside it."""
    slices, name = by_slice(task, tests), word(tests)
    first = next(iter(slices))
    found: dict[str, Any] = {"rows": len(slices[first])}
    for model, every in marks.items():
        total = {key: summary([every[i] for i in indices], name) for key, indices in slices.items()}
        if sum(one["rows"] for one in total.values()) != len(tests):
            raise AssertionError(f"{model}: of {len(tests)} test rows some are not scored")
        found[model] = total.pop(first) | {str(key): one for key, one in total.items()}
        del found[model]["rows"]
    _validate(found)
    return found


def _same_rows(task: Task, model: str, tests: list[Row], answers: list[Row]) -> None:
    """Scored + unscored = test rows: nothing is scored unless each test row has its answer."""
    path = folder(task, model) / "test.jsonl"
    if len(answers) != len(tests):
        raise UserError(
            f"{path}: {len(answers)} rows, expected one for each of the {len(tests)} test rows: run `dvc repro -f predict@{model}`"
        )
    for number, (test, answer) in enumerate(zip(tests, answers, strict=True), 1):
        if test["id"] != answer["id"]:
            raise UserError(
                f"{path}:{number}: id is {answer['id']}, expected {test['id']}: run `dvc repro -f predict@{model}`"
            )


def mark(task: Task, test: Row, answer: Row) -> dict[str, Any]:
    """One answer's marks. `right`: it passes every check of the task. `unscored`: it fails none, but one has nothing to
    judge by. A task of JSON answers has more: whether the answer is JSON and obeys the schema, and each expected key."""
    text = answer["answer"] or ""
    parsed, reason = registry.parse(task, text)
    found = registry.verdicts(task, test, text)
    failed = reason is not None or any(verdict.passed is False for verdict in found)
    unscored = not failed and any(verdict.passed is None for verdict in found)
    marks: dict[str, Any] = {"right": not failed and not unscored, "unscored": unscored}
    if schema := next((verdict for verdict in found if verdict.name == "json_schema"), None):
        marks |= {"valid_json": reason is None, "schema_valid": bool(schema.passed)}
    if isinstance(expected := test.get("expected"), dict):
        there = parsed if isinstance(parsed, dict) else {}
        marks["keys"] = {
            key: key in there and rules.same(there[key], value) for key, value in expected.items()
        }
    if length := next((verdict for verdict in found if verdict.name == "length_within"), None):
        judged = reason is None and length.passed is not None
        marks["off"] = length.distance if judged else None
    if isinstance(test.get("expected"), str):
        marks["texts"] = (text, test["expected"])
    return marks | {name: answer[name] or 0 for name in ("prompt_tokens", "completion_tokens")}


def summary(marks: list[dict[str, Any]], name: str = "accuracy") -> dict[str, Any]:
    """Counts, shares and means over rows: right + wrong + unscored = rows; `name` is the share of right rows, low to high its
    95 % interval; tokens are means a row."""
    right, unscored = (sum(one[name] for one in marks) for name in ("right", "unscored"))
    found: dict[str, Any] = {
        "rows": len(marks),
        name: _mean([one["right"] for one in marks]),
        **dict(
            zip(
                ("low", "high"),
                (round(end, 4) for end in statistics.wilson(right, len(marks))),
                strict=True,
            )
        ),
        "right": right,
        "wrong": len(marks) - right - unscored,
        "unscored": unscored,
    }
    for name in ("valid_json", "schema_valid"):
        if name in marks[0]:
            found[name] = _mean([one[name] for one in marks])
    if "off" in marks[0]:
        off = [math.inf if one["off"] is None else one["off"] for one in marks]
        found["within"] = {str(most): _mean([one <= most for one in off]) for most in WITHIN}
    if texts := [one["texts"] for one in marks if "texts" in one]:
        found["overlap"] = text_overlap.overlap(*map(list, zip(*texts, strict=True)))
    by_key: dict[str, list[float]] = {}
    for one in marks:
        for key, right in one.get("keys", {}).items():
            by_key.setdefault(key, []).append(right)
    if by_key:
        found["keys"] = {key: _mean(values) for key, values in by_key.items()}
    return found | {
        name: _mean([one[name] for one in marks]) for name in ("prompt_tokens", "completion_tokens")
    }


def bought(task: Task) -> list[Row]:
    """Every answer that the teacher was asked for: to the inputs, by expand and by pairs, which may have needed none."""
    found = jsonl.read_jsonl(task.data / "2-answers.jsonl", BOUGHT)
    for path in ("1-expand/calls.jsonl", "4-pairs/rejected.jsonl"):
        found += jsonl.read_some(task.data / path, *BOUGHT)
    return found


def cost(
    answers: list[Row], tests: list[Row], kept: int, price_in: float | None, price_out: float | None
) -> dict[str, Any]:
    """What the teacher's answers took: those that wrote inputs, those to the inputs and those to the test rows, each request once. Money is in the
    unit of the prices (of a million tokens) and null while they are unknown.

    `break_even_requests`: with so many requests to the teacher, each as dear as one to a test row, the answers bought for
    the distillation are paid back; machines are not counted.
    """
    bought = {row["key"]: row for row in [*answers, *tests] if row["error"] is None}

    def total(some: Iterable[Row], name: str) -> int:
        return sum(row[name] or 0 for row in some)

    def price(some: Collection[Row]) -> float | None:
        unknown = any(None in (row["prompt_tokens"], row["completion_tokens"]) for row in some)
        if price_in is None or price_out is None or unknown:
            return None
        return (
            total(some, "prompt_tokens") * price_in + total(some, "completion_tokens") * price_out
        ) / 1e6

    asked = [row for row in tests if row["error"] is None] or list(bought.values())
    spent = price(bought.values())
    one = None if spent is None or not asked else (price(asked) or 0.0) / len(asked)
    money = {
        "spent": spent,
        "per_kept_row": None if spent is None else spent / kept,
        "per_request": one,
    }
    return {
        "answers": len(bought),
        "kept_rows": kept,
        "prompt_tokens": total(bought.values(), "prompt_tokens"),
        "completion_tokens": total(bought.values(), "completion_tokens"),
        **{name: None if value is None else float(f"{value:.4g}") for name, value in money.items()},
        "break_even_requests": math.ceil(spent / one) if spent and one else None,
    }


def cost_line(found: dict[str, Any]) -> str:
    """The cost in one line."""
    tokens = f"{found['prompt_tokens']:,} + {found['completion_tokens']:,} tokens"
    if found["spent"] is None:
        return f"cost: {found['answers']:,} answers of the teacher, {tokens}, prices unknown (teacher.price_in, teacher.price_out)"
    even = (
        ""
        if found["break_even_requests"] is None
        else f"; paid back after {found['break_even_requests']:,} requests"
    )
    return f"cost: {found['spent']:g} for {found['answers']:,} answers of the teacher ({tokens}), {found['per_kept_row']:g} a kept row{even}"


def _mean(values: list[float]) -> float:
    return round(fmean(values), 4)


def _validate(found: dict[str, Any]) -> None:
    from jsonschema import Draft202012Validator

    Draft202012Validator(
        json.loads((ROOT / "schemas/metrics.json").read_text(encoding="utf-8"))
    ).validate(found)


def table(found: dict[str, Any]) -> str:
    """A line a model: the teacher, then before and after."""
    count, models = (
        found["rows"],
        [model for model in sorted(MODELS, key="teacher".__ne__) if model in found],
    )
    return "\n".join(
        f"{model:<8}{count:6,} rows {found[model]['right']:6,} right {found[model]['wrong']:6,} wrong"
        f" {headline(found[model]):7.1%} ({found[model]['low']:.1%} to {found[model]['high']:.1%})"
        f"  {MODELS[model].says}{_unscored(found[model]['unscored'])}"
        for model in models
    )


def _unscored(count: int) -> str:
    return f", {count:,} rows unscored" if count else ""
