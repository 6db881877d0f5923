"""`make drift`: is what the server was asked (serve.capture) like what the student learnt from?

--since DATE  only what was kept since then, such as 2026-11-30

Each property of an input (its length, its share of digits, …) is compared with the training rows by
the two-sample Kolmogorov-Smirnov test (Smirnov 1939; D is the largest difference of the two shares
below any value), and how often each check fails with the student's answers to the test rows by
Fisher's exact test. All tests together are wrong in at most 5 % of the cases where nothing has
changed (Holm 1979, Scand. J. Statist. 6:65-70), and a difference that is real but small is none.

Exit code 0: no change is seen, or too few inputs to say. 1: what is asked has changed (or an error,
whose line begins with `error:`).
"""

import argparse
import sys
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean

from potstill.core import jsonl, stage
from potstill.core.jsonl import Row
from potstill.dataset import near_duplicates
from potstill.evaluation import statistics
from potstill.evaluation.cascade import faults
from potstill.evaluation.statistics import ALPHA, count
from potstill.inference import predictions
from potstill.serving import capture, confidence
from potstill.task import settings
from potstill.task.settings import Task

FEWEST = 30  # different inputs; with fewer nothing is said
MOST = 5000  # texts of each side that are looked at, drawn by their hashes
# The smallest difference that counts: D, or of two shares. With thousands of rows any is real.
LEAST_D, LEAST_SHARE = 0.1, 0.05
KINDS = {"digits": "N", "marks": "PS", "white space": "ZC"}  # first letters of Unicode's categories
NEW, CHANGED = "new 3-grams", "drift: what is asked has changed"


@dataclass
class Test:
    """One comparison: the mean of what is asked and of what was trained on, how far both are
    apart, and the p-value, which Holm's correction makes larger."""

    name: str
    asked: float
    trained: float
    apart: float
    least: float
    p: float

    @property
    def changed(self) -> bool:
        return self.p < ALPHA and self.apart >= self.least

    def line(self) -> str:
        form = ".1f" if self.name in ("characters", "words") else ".1%"
        cells = [f"{self.asked:{form}}", f"{self.trained:{form}}", f"{self.apart:.2f}"]
        cells.append(statistics.p_text(self.p).removeprefix("= "))
        text = "".join(f"{cell:>10}" for cell in cells)
        return f"  {self.name:22}{text}" + ("  changed" if self.changed else "")


def properties(text: str) -> dict[str, float]:
    """What is compared of a text by itself."""
    kinds = [unicodedata.category(letter)[0] for letter in text]
    latin = sum(letter.isascii() and letter.isalpha() for letter in text)
    size = len(text) or 1
    found = {"characters": float(len(text)), "words": float(len(text.split()))}
    found |= {name: sum(k in those for k in kinds) / size for name, those in KINDS.items()}
    return found | {"Latin letters": latin / size}


def inputs(asked: Sequence[str], trained: dict[str, list[str]]) -> list[Test]:
    """The tests of the texts that were asked and those trained on, by family. The families of one
    half say which 3-grams are known; the other half shows how many new ones are usual."""
    families = sorted(trained, key=lambda family: capture.order("drift", {"family": family}))
    half = len(families) // 2
    parts = families[:half], families[half:]
    before, usual = ([text for family in part for text in trained[family]] for part in parts)
    sides = [[properties(text) for text in texts] for texts in (asked, [*before, *usual])]
    tests = [
        _ks(name, [one[name] for one in sides[0]], [one[name] for one in sides[1]])
        for name in sides[0][0]
    ]
    known = set[str]().union(*map(_grams, before))
    return [*tests, _ks(NEW, _new(asked, known), _new(usual, known), "less")]


def _grams(text: str) -> set[str]:
    return near_duplicates.shingles(near_duplicates.normal(text), 3)


def _new(texts: Iterable[str], known: set[str]) -> list[float]:
    """The share of each text's 3-grams that are not known."""
    return [len(grams - known) / len(grams) for grams in map(_grams, texts)]


def _ks(name: str, asked: list[float], trained: list[float], way: str = "two-sided") -> Test:
    """`way` less: only where what is asked has more of it."""
    from scipy.stats import ks_2samp

    found = ks_2samp(asked, trained, alternative=way, method="asymp")
    apart, p = float(found.statistic), float(found.pvalue)
    return Test(name, fmean(asked), fmean(trained), apart, LEAST_D, p)


def checks(asked: list[list[str]], tested: list[list[str]]) -> list[Test]:
    """The tests of the checks that answers fail, by the names of those for each answer. Only a
    check that fails more often than it did is a change."""
    found = []
    for name in dict.fromkeys(name for failed in [*tested, *asked] for name in failed):
        counts = [sum(name in failed for failed in side) for side in (asked, tested)]
        p = statistics.fisher((counts[0], len(asked)), (counts[1], len(tested)))
        now, before = counts[0] / len(asked), counts[1] / len(tested)
        found.append(Test(f"fails {name}", now, before, now - before, LEAST_SHARE, p))
    return found


def corrected(tests: list[Test]) -> list[Test]:
    """The tests with Holm's p-values: below ALPHA for any of them by chance in that share of cases
    at most, where nothing has changed."""
    most = 0.0
    for place, test in enumerate(sorted(tests, key=lambda test: test.p)):
        test.p = most = max(most, min(1.0, test.p * (len(tests) - place)))
    return tests


def trained(t: Task) -> dict[str, list[str]]:
    """What the training rows ask, by family; MOST of them. Raises UserError where there are none
    yet."""
    kept = {row["id"]: row["family"] for row in jsonl.read_some(t.data / "3-kept.jsonl", "family")}
    rows = jsonl.read_jsonl(t.data / "4-train.jsonl", ("id", "messages"))
    rows.sort(key=lambda row: capture.order("drift", {"id": row["id"]}))
    found: dict[str, list[str]] = {}
    for row in rows[:MOST]:
        turn = next(one["content"] for one in row["messages"] if one["role"] == "user")
        family = kept.get(row["id"]) or str(row["id"])
        found.setdefault(family, []).append(turn)
    return found


def tested(t: Task) -> list[list[str]]:
    """The checks that the student's answers to the test rows fail, by name: of those in the
    headline slice, which are like the training rows; none before `predict` and `choose` ran."""
    if not (t.data / "6-choice.json").is_file():
        return []
    student = jsonl.read_json(t.data / "6-choice.json")["ship"]
    path, rows = predictions.folder(t, student) / "test.jsonl", predictions.tests(t)
    answers = predictions.read(path, rows, "run `dvc repro`")
    headline = t.config.get("headline_slice")
    return [
        capture.names(faults(t, row, one["answer"] or "", one["finish_reason"]))
        for row, one in zip(rows, answers, strict=True)
        if headline in (None, row["slice"])
    ]


def compare(t: Task, rows: list[Row]) -> Iterator[str]:
    """The tests of captured rows as lines, and the verdict last, which begins with CHANGED where
    there is a change. Raises UserError where there are no training rows yet."""
    latest = {t.fingerprint(row["input"]): row for row in rows}  # an input counts once
    asked = sorted(latest.values(), key=lambda row: capture.order("drift", row["input"]))[:MOST]
    families, of_tests = trained(t), tested(t)
    size = sum(map(len, families.values()))
    told = f"{count(len(latest), 'different input')} beside {count(size, 'training row')}"
    if min(len(asked), size) < FEWEST:
        yield f"drift: too few to say: {told}, expected {FEWEST} of each"
        return
    texts = [t.messages("student", row["input"])[-1]["content"] for row in asked]
    tests = inputs(texts, families)
    if of_tests:
        failed = [[name for name in row["failed"] if name != confidence.NAME] for row in asked]
        tests += checks(failed, of_tests)
        told += f"; checks beside the student's {count(len(of_tests), 'test row')}"
    yield f"drift: {told}"
    heads = "".join(f"{head:>10}" for head in ("asked", "trained", "apart", "p"))
    yield f"  {'':22}{heads}"
    yield from (test.line() for test in corrected(tests))
    if changed := [test.name for test in tests if test.changed]:
        yield f"{CHANGED}: {', '.join(changed)}"
    else:
        yield f"drift: what is asked is like what was trained on, as far as {len(tests)} tests see"


def main() -> None:
    """`make drift`. Exits with 1 where what is asked has changed."""
    parser = argparse.ArgumentParser(prog="potstill drift")
    parser.add_argument("--since", default="")
    t = settings.load()
    lines = list(compare(t, capture.read(t, parser.parse_args().since)))
    print(*lines, sep="\n")
    if lines[-1].startswith(CHANGED):
        sys.exit(1)


if __name__ == "__main__":
    stage.run(main)
