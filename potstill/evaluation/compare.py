"""Models against each other on the same test rows: slices.csv, pairs.csv, marks.csv and hops.csv of
reports/tables."""

import csv
import io
from collections.abc import Iterator
from itertools import chain, combinations
from pathlib import Path

from potstill.core import jsonl
from potstill.core.errors import UserError
from potstill.core.jsonl import Row
from potstill.core.models import MODELS
from potstill.evaluation import labels, score, statistics
from potstill.evaluation.score import Marks
from potstill.evaluation.statistics import count, p_text
from potstill.task.settings import Task

Part = tuple[str, str, list[int]]  # kind, name, and the numbers of its test rows
HOPS = {  # the floor comes first
    "base, predicted twice": ("base", "again"),
    "adapter on its base to merged": ("sft", "adapter"),
    "dpo's adapter on sft to merged": ("dpo", "adapter-dpo"),
    "grpo's adapter on sft to merged": ("grpo", "adapter-grpo"),
    "gkd's adapter on sft to merged": ("gkd", "adapter-gkd"),
}
SERVED = "training rows: other tokens where served"


def slices(task: Task, tests: list[Row], marks: Marks) -> list[Row]:
    """slices.csv: a row for each model and each part of the test rows, with the share of right rows
    and its 95 % interval. The parts are the headline slice; its rows by label, by the length of the
    input and by key (right is the key, whatever else is wrong in the answer); the task's slices."""
    by_slice = score.by_slice(task, tests)
    first, headline = next(iter(by_slice.items()))
    parts = [("all", first or "all", headline)]
    parts += [*_labels(marks, headline), *_lengths(task, tests, headline)]
    if len(by_slice) > 1:
        parts += [("slice", str(name), indices) for name, indices in by_slice.items()]
    rows = [
        _share(kind, name, model, [every[i]["right"] for i in indices])
        for kind, name, indices in parts
        for model, every in marks.items()
    ]
    keys = {model: score.by_key([every[i] for i in headline]) for model, every in marks.items()}
    for key in dict.fromkeys(chain.from_iterable(keys.values())):
        rows += [_share("key", key, model, right[key]) for model, right in keys.items()]
    return rows


def _share(kind: str, name: str, model: str, right: list[bool]) -> Row:
    low, high = statistics.wilson(sum(right), len(right))
    row = {"kind": kind, "name": name, "model": model, "rows": len(right), "right": sum(right)}
    shares = {"share": sum(right) / len(right), "low": low, "high": high}
    return row | {name: round(share, 4) for name, share in shares.items()}


def _labels(marks: Marks, indices: list[int]) -> Iterator[Part]:
    """The rows that expect each label, such as an intent."""
    of_one = [next(iter(marks.values()))[i] for i in indices]  # all models' rows expect the same
    for name, part in labels.rows(of_one, labels.of(of_one)):
        yield "label", name, [indices[i] for i in part]


def confusion(task: Task, tests: list[Row], marks: Marks) -> list[Row]:
    """confusion.csv, of the headline slice; [] where no answer is a label."""
    headline = next(iter(score.by_slice(task, tests).values()))
    of = {model: [every[i] for i in headline] for model, every in marks.items()}
    return labels.table(of, labels.of(next(iter(of.values()))))


def _lengths(task: Task, tests: list[Row], indices: list[int]) -> Iterator[Part]:
    """The shortest, the middle and the longest third of the inputs; equal lengths stay together."""
    length = {i: sum(len(tests[i][name]) for name in task.config["input"]) for i in indices}
    ordered = sorted(length.values())
    short, long = ordered[(len(ordered) - 1) // 3], ordered[(len(ordered) - 1) * 2 // 3]
    for low, high in ((ordered[0], short), (short + 1, long), (long + 1, ordered[-1])):
        if part := [i for i in indices if low <= length[i] <= high]:
            span = f"{low} to {high}" if low < high else str(low)
            yield "length", f"{span} character{'s' * (high > 1)}", part


def pairs(task: Task, tests: list[Row], marks: Marks) -> list[Row]:
    """pairs.csv: a row of `pair` for each two models, on the headline slice; the teacher is what
    the others are held against."""
    headline = next(iter(score.by_slice(task, tests).values()))
    right = {model: [every[i]["right"] for i in headline] for model, every in marks.items()}
    order = sorted(right, key="teacher".__ne__)
    return [pair(*names, *(right[name] for name in names)) for names in combinations(order, 2)]


def pair(against: str, model: str, before: list[bool], after: list[bool]) -> Row:
    """Two models by what each has right: `fixed` counts the rows that `against` has wrong and
    `model` right, `broken` the contrary; p is that of the exact McNemar test, and the smallest
    difference the one that the test could have shown where so many rows differ."""
    rows, (fixed, broken) = len(after), statistics.changed(before, after)
    both, differ = sum(after) - fixed, fixed + broken
    counts = {"rows": rows, "fixed": fixed, "broken": broken, "both": both}
    counts["neither"] = rows - both - differ
    p, smallest = statistics.exact(fixed, broken), statistics.smallest_difference(differ, rows)
    tests = {"p": float(f"{p:.3g}"), "smallest_difference": smallest}
    return {"model": model, "against": against, **counts, **tests}


def hops(
    task: Task, tests: list[Row], marks: Marks, predictions: dict[str, list[Row]], parity: Row
) -> list[Row]:
    """hops.csv: a row for each step on which a model should stay the same: the base predicted twice
    (A/A), which is the floor, each merged model against the adapter on its base, and the tokens of
    training rows (`parity` is 5-parity/report.json). `differ` counts other texts, `flips` other
    verdicts; a hop passes unless Fisher's exact test finds more flips than on the floor."""
    columns, rows, total = ("hop", "rows", "differ", "flips", "p", "passed"), [], len(tests)
    floor: int | None = None
    for hop, (before, after) in HOPS.items():
        if after not in predictions:
            continue
        [again] = score.marked(task, tests, {after: predictions[after]}).values()
        flips = sum(a["right"] is not b["right"] for a, b in zip(marks[before], again, strict=True))
        texts = zip(predictions[before], predictions[after], strict=True)
        differ = sum(a["answer"] != b["answer"] for a, b in texts)
        floor = flips if floor is None else floor
        p = statistics.fisher((flips, total), (floor, total))
        passed = int(flips <= floor or p >= statistics.ALPHA)
        rows.append((hop, total, differ, flips, float(f"{p:.3g}"), passed))
    others, lessons = len(parity["other_tokens"]), parity["lessons"]
    rows.append((SERVED, lessons, others, others, 1.0, int(not others)))
    return [dict(zip(columns, row, strict=True)) for row in rows]


def lines(table: list[Row]) -> str:
    """The rows of `pairs` as sentences, but for the untrained models against the teacher."""
    return "\n".join(
        f"{row['model']} against {row['against']}: {count(row['fixed'], 'row')} fixed, "
        f"{row['broken']:,} broken, p {p_text(row['p'])} (exact McNemar): "
        f"{statistics.difference(row['p'], row['fixed'] > row['broken'])}"
        for row in table
        if row["against"] != "teacher" or MODELS[row["model"]].weights
    )


def hop_line(row: Row) -> str:
    """A row of `hops`, or of hops.csv, as a sentence."""
    rows, differ, flips, passed = (int(row[key]) for key in ("rows", "differ", "flips", "passed"))
    of = f"{differ:,} of {count(rows, 'row')}"
    if row["hop"] == SERVED:
        return f"{row['hop']}: {of}{'' if passed else ', expected 0'}"
    more = "" if passed else ", more than chance explains"
    return f"{row['hop']}: another text in {of}, another verdict in {flips:,}{more}"


def states(tests: list[Row], marks: Marks) -> list[Row]:
    """marks.csv: what each model's answer to a test row is worth: 1 right, 0 wrong, "" unscored."""
    rows = [{"id": test["id"], "slice": test["slice"]} for test in tests]
    for i, row in enumerate(rows):
        for model, every in marks.items():
            row[model] = "" if every[i]["unscored"] else int(every[i]["right"])
    return rows


def write_csv(path: Path, table: list[Row]) -> None:
    """A table whose columns are the keys of its rows."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(table[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(table)
    jsonl.write_text(path, text.getvalue())


def read_csv(text: str, where: str) -> list[dict[str, str]]:
    """The rows of a table that `write_csv` wrote. Raises UserError that begins with `where` for a
    table without rows, or with a row that has too many or too few values."""
    rows = list(csv.DictReader(io.StringIO(text)))
    if not rows or any(None in row or None in row.values() for row in rows):
        raise UserError(
            f"{where}: found no whole table, expected a header and rows: run `dvc repro score`"
        )
    return rows
