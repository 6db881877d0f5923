"""Fail where the student is worse than it must be, for CI: exit code 1.

gate [--against REV]     `make gate`: its share of right rows is below gate.min_accuracy, or below
                         what git has at REV (HEAD: the last commit) by more than noise; or what is
                         served is not what was trained (hops.csv)

Noise: exact McNemar on marks.csv where the test rows are the same, else Fisher's exact test.
"""

import argparse

from potstill.core import params, project
from potstill.core.errors import UserError
from potstill.core.jsonl import read_json
from potstill.core.params import read_text
from potstill.evaluation import compare, score, statistics
from potstill.task import settings
from potstill.task.settings import Task

Marks = list[dict[str, str]]  # the rows of marks.csv


def judge(task: Task, least: float | None, revision: str) -> str:
    """What was compared, in one line. Raises UserError when the student falls short, or when git
    has no such revision."""
    hops, marks = (task.reports / "tables" / name for name in ("hops.csv", "marks.csv"))
    path = task.reports / "metrics.json"
    found = read_json(path)
    model = score.student(found)
    of = found[model]
    share, interval = score.headline(of), f"{of['low']:.1%} to {of['high']:.1%}"
    said = f"{model} has {score.word_of(of)} {share:.1%} ({interval})"
    if least is not None and share < least:
        bar = f"{least:.1%} (gate.min_accuracy in params.yaml)"
        raise UserError(f"{path}: {said}, expected {bar} or more")
    for hop in compare.read_csv(read_text(hops), str(hops)):
        if hop["passed"] != "1":
            flips = f"{hop['flips']} of {hop['rows']} rows flip, expected no more than by chance"
            raise UserError(
                f"{hops}: {hop['hop']}: {flips}: what is served is not what was trained"
            )
    now = compare.read_csv(read_text(marks), str(marks))
    try:
        project.git("rev-parse", "--verify", f"{revision}^{{commit}}")
    except UserError:
        remedy = "give a commit, a branch or a tag, such as AGAINST=origin/main"
        raise UserError(f"git has no revision {revision!r}: {remedy}") from None
    text = project.committed(revision, marks)
    if text is None:
        return f"gate: {said}; {revision} has no result to compare with"
    before = compare.read_csv(text.decode(), f"{marks} at {revision}")
    if model not in before[0]:
        return f"gate: {said}; {revision} has no result of {model} to compare with"
    old, new = right(task, before, model), right(task, now, model)
    p, how = difference(old, new)
    was = sum(old.values()) / len(old)
    against = f"{revision} has {was:.1%} ({how} p = {p:.2g})"
    if share < was and p < statistics.ALPHA:
        raise UserError(f"{path}: {said}, but {against}: it has become worse by more than noise")
    return f"gate: {said}; {against}"


def right(task: Task, marks: Marks, model: str) -> dict[str, bool]:
    """Whether the model has a row of the headline slice right, by id."""
    name = task.config.get("headline_slice")
    return {row["id"]: row[model] == "1" for row in marks if name in (None, row["slice"])}


def difference(old: dict[str, bool], new: dict[str, bool]) -> tuple[float, str]:
    """The p-value of the difference of two results, and how it was found."""
    if new.keys() != old.keys():
        one, other = ((sum(rows.values()), len(rows)) for rows in (old, new))
        return statistics.fisher(one, other), "other test rows, Fisher's exact"
    fixed, broken = statistics.changed(old.values(), [new[id] for id in old])
    how = f"{fixed:,} rows fixed, {broken:,} broken, exact McNemar"
    return statistics.exact(fixed, broken), how


def main() -> None:
    """`make gate`. Raises UserError when the student falls short."""
    parser = argparse.ArgumentParser(prog="potstill gate")
    parser.add_argument("--against", default="HEAD", help="the git revision to compare with")
    against = parser.parse_args().against
    print(judge(settings.load(), params.load("gate").gate.min_accuracy, against))
