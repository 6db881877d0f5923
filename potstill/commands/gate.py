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
    share = score.headline(of)

    def has(percent: str) -> str:
        return f"{model} has {score.word_of(of)} {percent} ({score.interval(of)})"

    if least is not None and share < least:
        text, bar = statistics.percents(share, least)
        bar = f"{bar} (gate.min_accuracy in params.yaml) or more"
        raise UserError(f"{path}: {has(text)}, expected {bar}")
    for hop in compare.read_csv(read_text(hops), str(hops)):
        if hop["passed"] != "1":
            line = compare.hop_line(hop)
            raise UserError(f"{hops}: {line}: what is served is not what was trained")
    now = compare.read_csv(read_text(marks), str(marks))
    try:
        project.git("rev-parse", "--verify", f"{revision}^{{commit}}")
    except UserError:
        remedy = "give a commit, a branch or a tag, such as AGAINST=origin/main"
        raise UserError(f"git has no revision {revision!r}: {remedy}") from None
    table = project.committed(revision, marks)
    before = compare.read_csv(table.decode(), f"{marks} at {revision}") if table else []
    old = right(task, before, model) if before and model in before[0] else {}
    if not old:
        alone = has(statistics.percent(share))
        return f"gate: {alone}; {revision} has no result of {model} on such rows to compare with"
    p, how = difference(old, right(task, now, model))
    was = sum(old.values()) / len(old)
    text, earlier = statistics.percents(share, was)
    verdict = statistics.difference(p, share > was)
    said = f"{has(text)}; {revision} has {earlier}: {verdict} ({how}, p {statistics.p_text(p)})"
    if verdict == "worse":
        raise UserError(f"{path}: {said}, expected no worse")
    return f"gate: {said}"


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
    how = f"{statistics.count(fixed, 'row')} fixed, {broken:,} broken, exact McNemar"
    return statistics.exact(fixed, broken), how


def main() -> None:
    """`make gate`. Raises UserError when the student falls short."""
    parser = argparse.ArgumentParser(prog="potstill gate")
    parser.add_argument("--against", default="HEAD", help="the git revision to compare with")
    against = parser.parse_args().against
    print(judge(settings.load(), params.load("gate").gate.min_accuracy, against))
