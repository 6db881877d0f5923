"""Whether a share of right answers, or a difference of two, is more than chance."""

from bisect import bisect_left
from collections.abc import Sequence

ALPHA = 0.05  # a p-value below this is called a difference; intervals cover 1 - ALPHA


def wilson(right: int, rows: int) -> tuple[float, float]:
    """The 95 % interval of a share, `right` of `rows` (Wilson 1927, doi:10.1080/01621459.1927.10502953): unlike the usual ±, it
    stays within 0 and 1 and holds near them. 0 to 1 for no rows."""
    from scipy.stats import binomtest

    if not rows:
        return 0.0, 1.0
    found = binomtest(right, rows).proportion_ci(1 - ALPHA, "wilson")
    return float(found.low), float(found.high)


def mcnemar(one: Sequence[bool], other: Sequence[bool]) -> float:
    """The two-sided p-value of the exact McNemar test for paired answers, right or wrong: how likely so lopsided a count of rows that
    only one of the two has right would be, were both as good (McNemar 1947, doi:10.1007/BF02295996; the binomial form)."""
    pairs = list(zip(one, other, strict=True))
    return exact(sum(b and not a for a, b in pairs), sum(a and not b for a, b in pairs))


def exact(fixed: int, broken: int) -> float:
    """The p-value of `mcnemar` from its two counts: rows that only the second has right, rows that only the first has."""
    from scipy.stats import binomtest

    return float(binomtest(fixed, fixed + broken).pvalue) if fixed + broken else 1.0


def smallest_difference(differ: int, rows: int) -> float | None:
    """The smallest difference of two shares that the exact McNemar test would call one, were the two models to differ on `differ`
    of the `rows`; as many as the test needs at least (6) where they differ on fewer. None for a test set that is too small."""
    differ = max(differ, next(count for count in range(1, 64) if exact(count, 0) < ALPHA))
    fixed = bisect_left(
        range(differ + 1),
        True,
        lo=differ // 2,
        key=lambda fixed: exact(fixed, differ - fixed) < ALPHA,
    )
    return (2 * fixed - differ) / rows if differ <= rows else None


def fisher(one: tuple[int, int], other: tuple[int, int]) -> float:
    """The two-sided p-value of Fisher's exact test for two shares of different rows, each (right, rows)."""
    from scipy.stats import fisher_exact

    return float(fisher_exact([[right, rows - right] for right, rows in (one, other)]).pvalue)
