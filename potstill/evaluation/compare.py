"""Models against each other on the same test rows: the tables slices.csv, pairs.csv and marks.csv of reports/<task>."""

import csv
import io
from collections.abc import Iterable
from itertools import combinations
from pathlib import Path
from typing import Any

from potstill.core import jsonl
from potstill.core.errors import UserError
from potstill.core.jsonl import Row
from potstill.core.models import UNTRAINED
from potstill.evaluation import score, statistics
from potstill.task.settings import Task

Marks = dict[str, list[dict[str, Any]]]  # of score.marked
LABELS = 20  # an expected key with more values than this is no label: its values are not looked at one by one
HOPS = {  # the floor comes first
    "base, predicted twice": ("base", "again"),
    "adapter on its base to merged": ("sft", "adapter"),
    "dpo's adapter on sft to merged": ("dpo", "adapter-dpo"),
}


def slices(task: Task, tests: list[Row], marks: Marks) -> list[Row]:
    """A row for each model and each part of the test rows, {"kind", "name", "model", "rows", "right", "share", "low", "high"}:
    all rows of the headline slice; these by key, by label and by the length of the input; the task's slices. low to high is the 95 %
    interval of the share. A key's `right` counts the rows that have it right, whatever else is wrong in them."""
    by_slice = score.by_slice(task, tests)
    first, headline = next(iter(by_slice.items()))
    parts = [("all", "all" if first is None else first, headline)]
    parts += [("label", name, indices) for name, indices in _labels(tests, headline)]
    parts += [("length", name, indices) for name, indices in _lengths(task, tests, headline)]
    parts += [
        ("slice", str(name), indices) for name, indices in by_slice.items() if len(by_slice) > 1
    ]
    found = [
        _share(kind, name, model, [one[i]["right"] for i in indices])
        for kind, name, indices in parts
        for model, one in marks.items()
    ]
    keys = dict.fromkeys(
        key for one in marks.values() for i in headline for key in one[i].get("keys", ())
    )
    return found + [
        _share(
            "key",
            key,
            model,
            [one[i]["keys"][key] for i in headline if key in one[i].get("keys", ())],
        )
        for key in keys
        for model, one in marks.items()
    ]


def _share(kind: str, name: str, model: str, right: list[bool]) -> Row:
    low, high = statistics.wilson(sum(right), len(right))
    shares = {"share": sum(right) / len(right), "low": low, "high": high}
    found = {"kind": kind, "name": name, "model": model, "rows": len(right), "right": sum(right)}
    return found | {key: round(value, 4) for key, value in shares.items()}


def _labels(tests: list[Row], indices: list[int]) -> Iterable[tuple[str, list[int]]]:
    """The rows of each value of an expected key that has few, such as an intent."""
    found: dict[str, dict[str, list[int]]] = {}
    for i in indices:
        expected = tests[i].get("expected")
        for key, value in expected.items() if isinstance(expected, dict) else ():
            found.setdefault(key, {}).setdefault(str(value), []).append(i)
    for key, values in found.items():
        if 1 < len(values) <= LABELS:
            yield from ((f"{key} {value}", some) for value, some in values.items())


def _lengths(task: Task, tests: list[Row], indices: list[int]) -> Iterable[tuple[str, list[int]]]:
    """The shortest, the middle and the longest third of the inputs; equal lengths stay together."""
    length = {i: sum(len(tests[i][name]) for name in task.config["input"]) for i in indices}
    ordered = sorted(length.values())
    short, long = ordered[(len(ordered) - 1) // 3], ordered[(len(ordered) - 1) * 2 // 3]
    for low, high in ((ordered[0], short), (short + 1, long), (long + 1, ordered[-1])):
        if some := [i for i in indices if low <= length[i] <= high]:
            yield (
                f"{low} character{'s' * (low > 1)}"
                if low == high
                else f"{low} to {high} characters",
                some,
            )


def pairs(task: Task, tests: list[Row], marks: Marks) -> list[Row]:
    """A row for each two models, {"model", "against", "rows", "fixed", "broken", "both", "neither", "p", "smallest_difference"}, on
    the headline slice: `fixed` counts the rows that `against` has wrong and `model` right, `broken` the contrary, and p is that of the
    exact McNemar test. The smallest difference is the one that the test could have shown where so many rows differ."""
    headline = next(iter(score.by_slice(task, tests).values()))
    right = {model: [one[i]["right"] for i in headline] for model, one in marks.items()}
    order = sorted(right, key="teacher".__ne__)  # the teacher is what others are held against
    return [
        pair(against, model, right[against], right[model])
        for against, model in combinations(order, 2)
    ]


def pair(against: str, model: str, before: list[bool], after: list[bool]) -> Row:
    """A row of `pairs`, from what each of the two models has right."""
    both = list(zip(before, after, strict=True))
    fixed, broken = sum(b and not a for a, b in both), sum(a and not b for a, b in both)
    return {
        "model": model,
        "against": against,
        "rows": len(both),
        "fixed": fixed,
        "broken": broken,
        "both": sum(a and b for a, b in both),
        "neither": sum(not a and not b for a, b in both),
        "p": float(f"{statistics.exact(fixed, broken):.3g}"),
        "smallest_difference": statistics.smallest_difference(fixed + broken, len(both)),
    }


def hops(
    task: Task, tests: list[Row], marks: Marks, predictions: dict[str, list[Row]], parity: Row
) -> list[Row]:
    """A row for each step on which a model should stay the same, {"hop", "rows", "differ", "flips", "p", "passed"}: the base predicted
    twice (A/A), which is the floor, each merged model against the adapter on its base, and the tokens of training rows (5-parity.json).
    `differ` counts other texts, `flips` other verdicts; a hop passes unless Fisher's exact test finds more flips than on the floor."""
    found: list[Row] = []
    for hop, (one, other) in HOPS.items():
        if other not in predictions:
            continue
        again = score.marked(task, tests, {other: predictions[other]})[other]
        flips = sum(a["right"] is not b["right"] for a, b in zip(marks[one], again, strict=True))
        differ = sum(
            a["answer"] != b["answer"]
            for a, b in zip(predictions[one], predictions[other], strict=True)
        )
        floor = found[0]["flips"] if found else flips
        p = statistics.fisher((flips, len(tests)), (floor, len(tests)))
        found.append(
            _hop(hop, len(tests), differ, flips, p, flips <= floor or p >= statistics.ALPHA)
        )
    others = len(parity["other_tokens"])
    return [
        *found,
        _hop(
            "training rows: other tokens where served",
            parity["lessons"],
            others,
            others,
            1.0,
            not others,
        ),
    ]


def _hop(hop: str, rows: int, differ: int, flips: int, p: float, passed: bool) -> Row:
    return {
        "hop": hop,
        "rows": rows,
        "differ": differ,
        "flips": flips,
        "p": float(f"{p:.3g}"),
        "passed": int(passed),
    }


def lines(table: list[Row]) -> str:
    """The rows of `pairs` as sentences, but for the untrained models against the teacher."""
    return "\n".join(
        f"{one['model']} against {one['against']}: {one['fixed']:,} rows fixed, {one['broken']:,} broken, p = {one['p']:.2g}"
        f" (exact McNemar): {_said(one)}"
        for one in table
        if one["against"] != "teacher" or one["model"] not in UNTRAINED
    )


def _said(one: Row) -> str:
    if one["p"] >= statistics.ALPHA:
        return "no difference that this test set can show"
    return "better" if one["fixed"] > one["broken"] else "worse"


def hop_lines(table: list[Row]) -> str:
    """The rows of `hops` as sentences."""
    return "\n".join(
        f"{one['hop']}: {one['differ']:,} of {one['rows']:,} rows differ, {one['flips']:,} flips"
        f"{'' if one['passed'] else ': not the same model any more'}"
        for one in table
    )


def states(tests: list[Row], marks: Marks) -> list[Row]:
    """Each test row with what each model's answer is worth, {"id", "slice", <model>: 1 right, 0 wrong, "" unscored, …}."""
    return [
        {"id": test["id"], "slice": test["slice"]}
        | {
            model: "" if one[i]["unscored"] else int(one[i]["right"])
            for model, one in marks.items()
        }
        for i, test in enumerate(tests)
    ]


def write_csv(path: Path, table: list[Row]) -> None:
    """A table whose columns are the keys of its rows."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(table[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(table)
    jsonl.write_text(path, text.getvalue())


def read_csv(text: str, where: str) -> list[dict[str, str]]:
    """The rows of a table that `write_csv` wrote. Raises UserError that begins with `where`."""
    found = list(csv.DictReader(io.StringIO(text)))
    if not found or any(None in row or None in row.values() for row in found):
        raise UserError(
            f"{where}: found no whole table, expected a header and rows: run `dvc repro score`"
        )
    return found
