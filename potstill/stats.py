"""Whether one model is better than another on the same rows."""

from math import comb


def mcnemar(one: list[bool], other: list[bool]) -> float:
    """The two-sided p-value of the exact McNemar test for paired answers, right or wrong: how likely so lopsided a count of rows that
    only one of the two has right would be, were both as good (McNemar 1947, doi:10.1007/BF02295996; the binomial form)."""
    pairs = list(zip(one, other, strict=True))
    only_one, only_other = sum(a and not b for a, b in pairs), sum(b and not a for a, b in pairs)
    differ = only_one + only_other
    tail = sum(comb(differ, i) for i in range(min(only_one, only_other) + 1))
    return min(1.0, 2 * tail / 2**differ)
