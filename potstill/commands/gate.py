"""Fail where the student is worse than it must be, for CI: exit code 1.

gate [--against REV]     `make gate`: its share of right rows is below gate.min_accuracy, or below
                         what git has at REV (HEAD: the last commit) by more than noise; what is
                         served is not what was trained (hops.csv); or with the teacher behind it
                         more than gate.max_sent_on of the rows are sent on (cascade.csv)

Noise: exact McNemar on marks.csv where the test rows are the same, else Fisher's exact test. Where
students of several seeds are there, a difference must show in their means, too
(potstill/evaluation/seeds.py).
"""

import argparse
from statistics import fmean

from potstill.core import params, project
from potstill.core.errors import UserError
from potstill.core.jsonl import read_json
from potstill.core.params import read_text
from potstill.evaluation import compare, score, seeds, statistics
from potstill.task import settings
from potstill.task.settings import Task

Marks = list[dict[str, str]]  # the rows of marks.csv
Students = list[dict[str, bool]]  # of each seed, the one that ships first: what is right, by row id


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
    old = students(task, before, model) if before and model in before[0] else []
    if not old:
        alone = has(statistics.percent(share))
        return f"gate: {alone}; {revision} has no result of {model} on such rows to compare with"
    new = students(task, now, model)
    p, how = difference(old, new)
    was = sum(old[0].values()) / len(old[0])
    text, earlier = statistics.percents(share, was)
    verdict = statistics.difference(p, share > was)
    said = f"{has(text)}; {revision} has {earlier}: {verdict} ({how}, p {statistics.p_text(p)})"
    single = f"; {seeds.ONE}" if len(old) == len(new) == 1 else ""
    if verdict == "worse":
        raise UserError(f"{path}: {said}, expected no worse{single}")
    return f"gate: {said}{single}"


def cascaded(task: Task, most: float | None) -> None:
    """Raises UserError where the cascade sends on more than the share `most` of the test rows of
    the headline slice, and when the teacher has not answered them."""
    path = task.reports / "tables/cascade.csv"
    if most is None:
        return
    table = compare.read_csv(read_text(path), str(path)) if path.is_file() else []
    found = [row for row in table if row["who"] == "cascade"]
    if not found:
        raise UserError(
            f"{path}: no cascade, expected one (gate.max_sent_on in params.yaml): the teacher has "
            "no answers to the test rows, so set it to null"
        )
    row = found[0]  # the headline slice comes first
    if (share := int(row["sent"]) / int(row["rows"])) > most:
        text, bar = statistics.percents(share, most)
        raise UserError(
            f"{path}: the cascade sends on {text} of the test rows, expected {bar} "
            "(gate.max_sent_on in params.yaml) or fewer"
        )


def students(task: Task, marks: Marks, model: str) -> Students:
    """Which rows of the headline slice the model has right, and its students of further seeds."""
    name = task.config.get("headline_slice")
    columns = [column for column in marks[0] if column.partition("@")[0] == model]
    rows = [row for row in marks if name in (None, row["slice"])]
    return [{row["id"]: row[column] == "1" for row in rows} for column in columns]


def difference(old: Students, new: Students) -> tuple[float, str]:
    """The p-value of the difference of two results, and how it was found. Students of several seeds
    on either side must differ by both tests, and in one direction: the larger p is that of both."""
    before, after = old[0], new[0]
    same = before.keys() == after.keys()
    if same:
        fixed, broken = statistics.changed(before.values(), [after[id] for id in before])
        how = f"{statistics.count(fixed, 'row')} fixed, {broken:,} broken, exact McNemar"
        p = statistics.exact(fixed, broken)
    else:
        one, other = ((sum(rows.values()), len(rows)) for rows in (before, after))
        p, how = statistics.fisher(one, other), "other test rows, Fisher's exact"
    if len(old) == len(new) == 1:
        return p, how
    order = before if same else after
    now = [[one[id] for id in order] for one in new]
    mean, low, high, of_means = seeds.difference([[*one.values()] for one in old], now, same)
    first = fmean(after.values()) - fmean(before.values())
    points = [f"{100 * share:+.1f}" for share in (mean, low, high)]
    how += f"; mean of {statistics.count(len(new), 'seed')} less that of {len(old):,}: "
    how += "{} points ({} to {})".format(*points)
    return max(p, of_means) if mean * first > 0 else 1.0, how


def main() -> None:
    """`make gate`. Raises UserError when the student falls short."""
    parser = argparse.ArgumentParser(prog="potstill gate")
    parser.add_argument("--against", default="HEAD", help="the git revision to compare with")
    against = parser.parse_args().against
    task, p = settings.load(), params.load("gate").gate
    said = judge(task, p.min_accuracy, against)
    cascaded(task, p.max_sent_on)
    print(said)
