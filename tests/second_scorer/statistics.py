"""The statistics of docs/evaluation.md by their formulas."""

from collections.abc import Sequence
from math import sqrt
from statistics import NormalDist

from scipy.stats import binom, hypergeom

ALPHA = 0.05
LEAST = 6  # rows that must differ, all in one direction, before the McNemar test gives p < ALPHA


def wilson(right: int, rows: int) -> tuple[float, float]:
    """The 95 % interval of a share, four decimals."""
    z, share = NormalDist().inv_cdf(1 - ALPHA / 2), right / rows
    centre = share + z * z / (2 * rows)
    half = z * sqrt(share * (1 - share) / rows + z * z / (4 * rows * rows))
    ends = ((centre - half) / (1 + z * z / rows), (centre + half) / (1 + z * z / rows))
    return round(max(ends[0], 0.0), 4), round(min(ends[1], 1.0), 4)


def mcnemar(fixed: int, broken: int) -> float:
    """The two-sided p-value of the exact test."""
    return min(1.0, 2 * float(binom.cdf(min(fixed, broken), fixed + broken, 0.5)))


def smallest_difference(differ: int, rows: int) -> float | None:
    """The least difference of two shares for which the test gives p < ALPHA where `differ` rows
    differ; None for fewer than LEAST rows."""
    differ = max(differ, LEAST)
    nets = range(differ % 2, differ + 1, 2)
    net = next(net for net in nets if mcnemar((differ + net) // 2, (differ - net) // 2) < ALPHA)
    return net / rows if rows >= differ else None


def fisher(one: int, other: int, rows: int) -> float:
    """The two-sided p-value of Fisher's exact test for two counts of as many rows."""
    chance = hypergeom(2 * rows, one + other, rows)
    seen = float(chance.pmf(one))
    every = (float(chance.pmf(count)) for count in range(one + other + 1))
    return min(1.0, sum(p for p in every if p <= seen * (1 + 1e-7)))


def subsequence(one: Sequence[str], other: Sequence[str]) -> int:
    """The length of the longest common subsequence."""
    best = [0] * (len(other) + 1)
    for char in one:
        diagonal = 0
        for at, candidate in enumerate(other, 1):
            above = best[at]
            best[at] = diagonal + 1 if char == candidate else max(above, best[at - 1])
            diagonal = above
    return best[-1]


def rouge_l(answer: str, expected: str) -> float:
    """The F-measure of the longest common subsequence of characters."""
    length = len(answer) + len(expected)
    return 2 * subsequence(answer, expected) / length if length else 1.0
