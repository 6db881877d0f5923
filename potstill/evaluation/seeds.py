"""The noise of training: students that differ in the seed of their training alone, and intervals
that hold this noise and that of the rows.

A share varies with the test rows, which all students answer, and with the training of each. The two
variances are added, each with what rows and seeds do together in it, so that their sum is rather
too large than too small (Cameron, Gelbach & Miller 2011, doi:10.1198/jbes.2010.07136, without their
third term). Few seeds tell their variance badly: a quantile of Student's t takes the place of 1.96,
with Satterthwaite's degrees of freedom (1946, doi:10.2307/3002019), those of the rows being without
end. The interval of a share is Wilson's on as many rows as would have that variance, as in surveys
(Kish 1965): with one seed it is Wilson's own.

A bootstrap over rows and seeds (Owen 2007, doi:10.1214/07-AOAS122) would not do. It cannot reach
beyond the worst and the best of its seeds, which of three enclose the true mean in three cases of
four where the seeds alone count.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, pvariance, variance
from typing import Any

from potstill.core.jsonl import Row, read_json
from potstill.evaluation import compare, score, statistics
from potstill.evaluation.statistics import percents
from potstill.inference import predictions
from potstill.task.settings import Task

Marks = list[dict[str, Any]]  # of one student, in the order of the test rows
Students = Sequence[Sequence[bool]]  # what each has right, of the same rows in the same order
Terms = list[tuple[float, int]]  # variances by the seeds, with their degrees of freedom
ONE = "one seed: the noise of training is not in this interval"
STUDENT = "sft"  # the model that is trained again by the further seeds


def students(task: Task, tests: list[Row], first: Marks) -> dict[int, Marks]:
    """The marks of each student by its seed, where there are several: `first` are those of the one
    that ships; else {}. Raises UserError where answers are not those to the test rows."""
    folder = task.data / "5-seeds"
    found: dict[int, Marks] = {}
    for seed in read_json(folder / "report.json")["seeds"]:
        found[seed] = first
        if len(found) > 1:
            path, remedy = folder / f"{seed}.jsonl", "run `dvc repro predict_seeds`"
            pairs = zip(tests, predictions.read(path, tests, remedy), strict=True)
            found[seed] = [score.mark(task, test, answer) for test, answer in pairs]
    return found if len(found) > 1 else {}


def columns(found: dict[int, Marks]) -> dict[str, Marks]:
    """The marks of the further `students` by what they are called in marks.csv, such as sft@43."""
    return {f"{STUDENT}@{seed}": marks for seed, marks in list(found.items())[1:]}


def interval(students: Students) -> tuple[float, float, float]:
    """The mean share of right rows of the students, and the low and high end of its 95 % interval
    over rows and seeds."""
    rows, share = len(students[0]), _share(students)
    terms = _terms(students)
    total = _by_rows(students) + sum(term for term, _ in terms)
    if not total:  # every answer right, or every one wrong: as with one student
        return share, *statistics.wilson(round(share * rows), rows)
    as_many, t = share * (1 - share) / total, _quantile(total, terms)
    middle = (share + t**2 / (2 * as_many)) / (1 + t**2 / as_many)
    half = t / (1 + t**2 / as_many) * math.sqrt(total + (t / (2 * as_many)) ** 2)
    return share, max(middle - half, 0.0), min(middle + half, 1.0)


def difference(
    before: Students, after: Students, paired: bool = True
) -> tuple[float, float, float, float]:
    """By how much the mean share of the students `after` is above that of those `before`, the low
    and high end of its 95 % interval over rows and seeds, and the two-sided p-value. `paired`: all
    have the same rows. A side with one student is taken to vary as the other does."""
    from scipy.stats import t

    found = _share(after) - _share(before)
    terms = _terms(before) + _terms(after)
    if len(before) > 1 and len(after) == 1 or len(before) == 1 and len(after) > 1:
        [(term, freedom)] = terms  # the variance of one of them, divided by their number
        terms = [(term * (freedom + 2), freedom)]
    if paired:
        apart = zip(_row_means(before), _row_means(after), strict=True)
        by_rows = pvariance(now - was for was, now in apart) / len(before[0])
    else:
        by_rows = _by_rows(before) + _by_rows(after)
    total = by_rows + sum(term for term, _ in terms)
    if not total:  # no row tells them apart, or each does
        return found, found, found, float(not found)
    half = _quantile(total, terms) * math.sqrt(total)
    p = 2 * float(t.sf(abs(found) / math.sqrt(total), _freedom(total, terms)))
    return found, found - half, found + half, p


def _share(students: Students) -> float:
    return sum(map(sum, students)) / (len(students) * len(students[0]))


def _row_means(students: Students) -> list[float]:
    return [fmean(right) for right in zip(*students, strict=True)]


def _by_rows(students: Students) -> float:
    """The variance of the mean share by the rows."""
    return pvariance(_row_means(students)) / len(students[0])


def _terms(students: Students) -> Terms:
    """The variance of the mean share by the seeds; [] for one, which does not tell it."""
    several = len(students)
    return [(variance(map(fmean, students)) / several, several - 1)] if several > 1 else []


def _freedom(total: float, terms: Terms) -> float:
    """The degrees of freedom of a variance `total`, of which the `terms` are known badly."""
    uncertain = sum(term**2 / freedom for term, freedom in terms)
    return total**2 / uncertain if uncertain else math.inf


def _quantile(total: float, terms: Terms) -> float:
    """How many standard deviations the 95 % interval reaches to each side."""
    from scipy.stats import t

    return float(t.ppf(1 - statistics.ALPHA / 2, _freedom(total, terms)))


def table(task: Task, tests: list[Row], found: dict[int, Marks]) -> list[Row]:
    """seeds.csv, of the headline slice: what each of the `students` has right, with Wilson's
    interval over the rows alone, and their mean with the one over rows and seeds."""
    headline, right = next(iter(score.by_slice(task, tests).values())), []
    rows = []
    for seed, marks in found.items():
        right.append([bool(marks[i]["right"]) for i in headline])
        count = sum(right[-1])
        ends = statistics.wilson(count, len(headline))
        rows.append(_line(seed, len(headline), count, count / len(headline), *ends))
    mean = round(fmean(map(sum, right)), 4)
    return [*rows, _line("mean", len(headline), mean, *interval(right))]


def _line(seed: int | str, rows: int, right: float, *shares: float) -> Row:
    named = zip(("share", "low", "high"), shares, strict=True)
    line = {"seed": seed, "rows": rows, "right": right}
    return line | {name: round(share, 4) for name, share in named}


def metrics(rows: list[Row]) -> Row:
    """What metrics.json has of seeds.csv."""
    mean = {"mean": rows[-1]["share"], "low": rows[-1]["low"], "high": rows[-1]["high"]}
    return {"count": len(rows) - 1, **mean}


def of(found: Mapping[str, Any]) -> Row | None:
    """What metrics.json, `found`, has of the seeds of the student that ships; None for one seed."""
    return found.get("seeds") if score.student(found) == STUDENT else None


def number(found: Mapping[str, Any]) -> str:
    """Of how many seeds a result is, beside its interval, by metrics.json."""
    several = of(found)
    return f"one of {several['count']} seeds" if several else "one seed"


def sentence(found: Mapping[str, Any], reports: Path) -> str:
    """What is known of the noise of the training that ships, by metrics.json and seeds.csv."""
    if not of(found):
        return ONE
    path = reports / "tables/seeds.csv"
    return said(compare.read_csv(path.read_text(encoding="utf-8"), str(path)))


def said(rows: Sequence[Row]) -> str:
    """seeds.csv in a sentence."""
    *each, mean = rows
    shares = percents(*(float(row["share"]) for row in rows))
    spread = ", ".join(f"{row['seed']}: {share}" for row, share in zip(each, shares, strict=False))
    ends = f"{float(mean['low']):.1%} to {float(mean['high']):.1%}"
    return f"{len(each)} seeds ({spread}): {shares[-1]} on average, {ends} over rows and seeds"
