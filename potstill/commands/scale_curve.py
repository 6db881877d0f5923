"""Train the task on more and more of its rows and score each student on the same test rows.

scale-curve 800 2000     `make scale-curve ROWS="800 2000"` → reports/scale_curve.csv, .json, .png

Only split.train_rows of params.yaml differs, and is as before at the end; the shorter training is
on the first rows of the longer. DVC keeps each, so a second run trains nothing.
"""

import sys
from itertools import pairwise
from math import inf

from potstill.commands import profile
from potstill.core import jsonl, params, project
from potstill.core.errors import UserError
from potstill.core.jsonl import Row
from potstill.evaluation import compare, loss_curves, score, statistics
from potstill.inference import predictions
from potstill.task import settings
from potstill.task.settings import Task

Measured = dict[str, list[bool]]  # by measure, a value for each test row


def measured(task: Task, model: str) -> Measured:
    """Whether each row of the headline slice is right, or within so many characters of a length."""
    tests = predictions.tests(task)
    answers = jsonl.read_jsonl(predictions.folder(task, model) / "test.jsonl")
    [every] = score.marked(task, tests, {model: answers}).values()
    marks = [every[i] for i in next(iter(score.by_slice(task, tests).values()))]
    if "off" not in marks[0]:
        return {"right": [mark["right"] for mark in marks]}
    off = [inf if mark["off"] is None else mark["off"] for mark in marks]
    return {f"within {most}": [value <= most for value in off] for most in score.WITHIN}


def report(found: dict[int, Measured]) -> Row:
    """Shares by training rows, and the paired test of each two neighbours; 0 rows are the base."""
    points = [
        {"train_rows": rows} | {name: round(sum(v) / len(v), 4) for name, v in found[rows].items()}
        for rows in sorted(found)
    ]
    tests = [
        {"from": low, "to": high}
        | {name: statistics.mcnemar(found[low][name], found[high][name]) for name in found[low]}
        for low, high in pairwise(sorted(found))
    ]
    return {"rows": len(next(iter(found[0].values()))), "points": points, "mcnemar_p": tests}


def write(task: Task, made: Row) -> None:
    """The report as scale_curve.json, .csv and .png."""
    path, points = task.reports / "scale_curve.csv", made["points"]
    jsonl.write_json(path.with_suffix(".json"), made)
    compare.write_csv(path, points)
    png, title = path.with_suffix(".png"), f"More training rows, {task.name}"
    labels = "training rows (0 = untrained, long prompt)", "share of test rows"
    with loss_curves.picture(png, title, *labels) as axes:
        measures = list(points[0])[1:]
        shares = [[point[name] for name in measures] for point in points]
        axes.plot([point["train_rows"] for point in points], shares, marker="o", label=measures)
        axes.set_ylim(0, 1)
        axes.legend(frameon=False)
    print(path.read_text(encoding="utf-8"), end="")
    for test in made["mcnemar_p"]:
        low, high = test["from"], test["to"]
        values = ", ".join(f"{name} p = {test[name]:.2g}" for name in measures)
        print(f"{low} → {high} rows, exact McNemar on {made['rows']} rows: {values}")
    print(f"scale-curve: {png}")


def main() -> None:
    """`make scale-curve`. Raises UserError when the pipeline fails, for counts that are no whole
    numbers above 0 and for more rows than there are."""
    given = sys.argv[1:] or ["800", "2000"]
    if not all(count.isdecimal() and int(count) for count in given):
        said = f"training rows are {' '.join(given)}"
        raise UserError(f"{said}, expected whole numbers above 0 such as 800 2000")
    task, before = settings.load(), params.load("split").split.train_rows
    found: dict[int, Measured] = {}
    try:
        for count in sorted(map(int, given)):
            profile.apply({"split.train_rows": count}, params.PATH)
            project.dvc("repro")
            rows = len(jsonl.read_jsonl(task.data / "4-train.jsonl"))
            if rows < count:
                there = f"there are {rows} rows to train on, give no more than that"
                raise UserError(f"split.train_rows {count}: {there}")
            found |= {count: measured(task, "sft"), 0: measured(task, "base")}
    finally:
        profile.apply({"split.train_rows": before}, params.PATH)
    project.dvc("repro")  # the task's own training again, from DVC's cache where it ran before
    write(task, report(found))
