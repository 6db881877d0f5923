"""`make gate`: exit code 1 where the student is worse than it must be, for CI.

python -m potstill.commands.gate [--against REV]: below gate.min_accuracy of params.yaml, or below what the git revision REV (HEAD: the last commit)
has in reports/<task>/marks.csv by more than noise: exact McNemar where the test rows are the same, else Fisher's exact test.
"""

import argparse
import json
import subprocess
from pathlib import Path

from potstill.core import errors, params
from potstill.core.errors import UserError
from potstill.core.params import read_text
from potstill.evaluation import compare, score, statistics
from potstill.task import settings


def judge(t: settings.Task, least: float | None, revision: str) -> str:
    """What was compared, in one line. Raises UserError when the student falls short."""
    path = t.reports / "marks.csv"
    metrics = json.loads(read_text(t.reports / "metrics.json"))
    model = score.student(metrics)
    share, low, high = score.headline(metrics[model]), metrics[model]["low"], metrics[model]["high"]
    name = next(word for word in score.WORDS if word in metrics[model])
    said = f"{model} has {name} {share:.1%} ({low:.1%} to {high:.1%})"
    if least is not None and share < least:
        raise UserError(
            f"{t.reports}/metrics.json: {said}, expected {least:.1%} (gate.min_accuracy in params.yaml) or more"
        )
    hops = t.reports / "hops.csv"
    for hop in compare.read_csv(read_text(hops), str(hops)):
        if hop["passed"] != "1":
            raise UserError(
                f"{hops}: {hop['hop']}: {hop['flips']} of {hop['rows']} rows flip, expected no more than by chance: what is served "
                "is not what was trained"
            )
    now = compare.read_csv(read_text(path), str(path))
    committed = _committed(revision, path)
    if committed is None:
        return f"gate: {said}; {revision} has no result to compare with"
    before = compare.read_csv(committed, f"{path} at {revision}")
    if model not in before[0]:
        return f"gate: {said}; {revision} has no result of {model} to compare with"
    new, old = right(t, now, model), right(t, before, model)
    p, how = difference(old, new)
    was = sum(old.values()) / len(old)
    against = f"{revision} has {was:.1%} ({how} p = {p:.2g})"
    if share < was and p < statistics.ALPHA:
        raise UserError(
            f"{t.reports}/metrics.json: {said}, but {against}: it has become worse by more than noise"
        )
    return f"gate: {said}; {against}"


def right(t: settings.Task, marks: list[dict[str, str]], model: str) -> dict[str, bool]:
    """Whether the model has a row of the headline right, by id, from the rows of a marks.csv."""
    return {row["id"]: row[model] == "1" for row in marks if row["slice"] in _slices(t, marks)}


def difference(old: dict[str, bool], new: dict[str, bool]) -> tuple[float, str]:
    """The p-value of the difference of two results, and how it was found."""
    if new.keys() == old.keys():
        fixed, broken = (
            sum(new[id] is after and old[id] is not after for id in new) for after in (True, False)
        )
        return statistics.exact(
            fixed, broken
        ), f"{fixed:,} rows fixed, {broken:,} broken, exact McNemar"
    shares = ((sum(rows.values()), len(rows)) for rows in (old, new))
    return statistics.fisher(*shares), "other test rows, Fisher's exact"


def _slices(t: settings.Task, rows: list[dict[str, str]]) -> set[str]:
    """The slices that the headline speaks of."""
    name = t.config.get("headline_slice")
    return {name} if name else {row["slice"] for row in rows}


def _committed(revision: str, path: Path) -> str | None:
    """The text of a file as git has it at a revision; None where it has none there. Raises UserError for no revision of git's."""
    if subprocess.run(
        ["git", "rev-parse", "--verify", "--quiet", f"{revision}^{{commit}}"], capture_output=True
    ).returncode:
        raise UserError(
            f"git has no revision {revision!r}: give a commit, a branch or a tag, such as AGAINST=origin/main"
        )
    found = subprocess.run(
        ["git", "show", f"{revision}:./{path}"], capture_output=True, check=False
    )
    return None if found.returncode else found.stdout.decode()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m potstill.commands.gate", description=__doc__)
    parser.add_argument("--against", default="HEAD", help="the git revision to compare with")
    options = parser.parse_args()
    p = params.load("gate.min_accuracy")
    print(judge(settings.load(), p.gate.min_accuracy, options.against))


if __name__ == "__main__":
    errors.run(main)
