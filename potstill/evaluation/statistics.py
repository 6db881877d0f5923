"""Whether a share of right answers, or a difference of two, is more than chance; and how numbers
read in a sentence."""

from collections import Counter
from collections.abc import Iterable
from functools import cache

ALPHA = 0.05  # a p-value below this is called a difference; intervals cover 1 - ALPHA
NOISE = "within the noise"  # a difference with any other


def wilson(right: int, rows: int) -> tuple[float, float]:
    """The 95 % interval of a share, `right` of `rows`; 0 to 1 for no rows. Unlike the usual ± it
    stays within 0 and 1 and holds near them (Wilson 1927, doi:10.1080/01621459.1927.10502953)."""
    from scipy.stats import binomtest

    if not rows:
        return 0.0, 1.0
    interval = binomtest(right, rows).proportion_ci(1 - ALPHA, "wilson")
    return float(interval.low), float(interval.high)


def changed(before: Iterable[bool], after: Iterable[bool]) -> tuple[int, int]:
    """How many rows are fixed (right only after) and how many broken (right only before)."""
    counts = Counter(zip(before, after, strict=True))
    return counts[False, True], counts[True, False]


def mcnemar(before: Iterable[bool], after: Iterable[bool]) -> float:
    """The two-sided p-value of the exact McNemar test for paired answers, right or wrong: how
    likely such a lopsided count of fixed and broken rows would be, were both models as good
    (McNemar 1947, doi:10.1007/BF02295996; the binomial form)."""
    return exact(*changed(before, after))


@cache
def exact(fixed: int, broken: int) -> float:
    """The p-value of `mcnemar` from the two counts of `changed`."""
    from scipy.stats import binomtest

    return float(binomtest(fixed, fixed + broken).pvalue) if fixed + broken else 1.0


def smallest_difference(differ: int, rows: int) -> float | None:
    """The smallest difference of two shares that the exact McNemar test would call one, were the
    two models to differ on `differ` of the `rows`; where they differ on fewer rows than the test
    needs at least (6), on that many. None for a test set that is too small."""
    differ = max(differ, next(count for count in range(1, 64) if exact(count, 0) < ALPHA))
    halves = (
        ((differ + net) // 2, (differ - net) // 2) for net in range(differ % 2, differ + 1, 2)
    )
    fixed, broken = next(half for half in halves if exact(*half) < ALPHA)
    return (fixed - broken) / rows if differ <= rows else None


def fisher(one: tuple[int, int], other: tuple[int, int]) -> float:
    """The two-sided p-value of Fisher's exact test for two shares of different rows, each (right,
    rows)."""
    from scipy.stats import fisher_exact

    return float(fisher_exact([[right, rows - right] for right, rows in (one, other)]).pvalue)


def difference(p: float, more: bool) -> str:
    """What a test says of a model that has `more` rows right than another, or not. One that shows
    nothing does not show that there is no difference."""
    if p >= ALPHA:
        return NOISE
    return "better" if more else "worse"


def p_text(p: float) -> str:
    """A p-value as `= 0.04`, with as many digits as tell on which side of ALPHA it is; `< 0.001`
    for a smaller one."""
    if p < 0.001:
        return "< 0.001"
    texts = (f"{p:.{digits}g}" for digits in range(2, 18))
    return "= " + next(text for text in texts if (float(text) < ALPHA) == (p < ALPHA))


def percents(*shares: float) -> list[str]:
    """Shares as 96.5%, all with as many digits as tell apart those that differ, and each from none
    and all of the rows."""
    every = {0.0, 1.0, *shares}
    for digits in range(1, 10):
        texts = {share: f"{share:.{digits}%}" for share in every}
        if len(set(texts.values())) == len(every):
            break
    return [texts[share] for share in shares]


def percent(share: float) -> str:
    """One share as `percents` gives it."""
    return percents(share)[0]


def count(number: int, what: str) -> str:
    """`1 row`, `2 rows`, `1,234 rows`."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"
