"""The statistics of docs/evaluation.md by their formulas."""

from collections.abc import Sequence
from math import inf, sqrt
from statistics import NormalDist

from scipy.special import stdtrit
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


def over_seeds(students: list[list[bool]]) -> tuple[float, float, float]:
    """The mean share of several students and its 95 % interval over rows and seeds, four decimals:
    where (share - x)² = t² x (1 - x) / n."""
    seeds, rows = len(students), len(students[0])
    shares = [sum(right) / rows for right in students]
    share = sum(map(sum, students)) / (seeds * rows)
    per_row = [sum(right[i] for right in students) / seeds for i in range(rows)]
    by_row = sum((one - share) ** 2 for one in per_row) / rows / rows
    by_seed = sum((one - share) ** 2 for one in shares) / (seeds - 1) / seeds
    whole = by_row + by_seed
    if whole < 1e-15:
        return round(share, 4), *wilson(round(share * rows), rows)
    freedom = (whole / by_seed) ** 2 * (seeds - 1) if by_seed > 1e-18 else inf
    z = NormalDist().inv_cdf(1 - ALPHA / 2)
    t = z if freedom == inf else float(stdtrit(freedom, 1 - ALPHA / 2))
    over = t * t * whole / (share * (1 - share))  # t² / n
    a, b, c = 1 + over, 2 * share + over, share**2
    low, high = ((b + sign * sqrt(b * b - 4 * a * c)) / (2 * a) for sign in (-1, 1))
    return round(share, 4), round(max(low, 0.0), 4), round(min(high, 1.0), 4)


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
