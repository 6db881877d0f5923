"""The statistics against published tables, against statsmodels on random ones, and against
definitions."""

import math
import random

import pytest

from potstill.evaluation import statistics


@pytest.mark.parametrize(
    ("only_one", "only_other", "both", "p"),
    [
        (0, 0, 5, 1.0),
        (5, 5, 3, 1.0),
        (0, 5, 0, 0.0625),
        (1, 9, 100, 0.021484375),
        (10, 25, 0, 0.0167),
    ],
)
def test_mcnemar(only_one: int, only_other: int, both: int, p: float) -> None:
    one = [True] * only_one + [False] * only_other + [True] * both
    other = [False] * only_one + [True] * only_other + [True] * both
    assert (
        statistics.mcnemar(one, other)
        == statistics.mcnemar(other, one)
        == pytest.approx(p, rel=1e-2)
    )


def test_mcnemar_is_a_share_of_coin_tosses() -> None:
    chance = random.Random(3)
    tosses = [sum(chance.random() < 0.5 for _ in range(18)) for _ in range(20_000)]
    extreme = sum(heads <= 5 or heads >= 13 for heads in tosses) / len(tosses)
    assert statistics.mcnemar(
        [True] * 5 + [False] * 13, [False] * 5 + [True] * 13
    ) == pytest.approx(extreme, abs=0.01)


@pytest.mark.parametrize(
    # Newcombe 1998, doi:10.1002/(SICI)1097-0258(19980430)17:8<857::AID-SIM777>3.0.CO;2-E, table I
    ("right", "rows", "low", "high"),
    [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_as_published(right: int, rows: int, low: float, high: float) -> None:
    assert statistics.wilson(right, rows) == pytest.approx((low, high), abs=5e-5)


def test_wilson_of_nothing_says_nothing() -> None:
    assert statistics.wilson(0, 0) == (0.0, 1.0)


@pytest.mark.parametrize(
    ("fixed", "broken", "p"),
    [
        (2, 9, 0.06543),  # Fay 2010, the vignette of R's exact2x2: 2 * (1 + 11 + 55) / 2**11
        # Agresti 1990, table 10.1, approval of a prime minister: (86 - 150)**2 / 236 = 17.4 there
        (86, 150, 3.7e-05),
        (5, 15, 0.04139),  # Siegel 1956, the sign test's table D: 5 of 20 is 0.021 on one side
    ],
)
def test_mcnemar_as_published(fixed: int, broken: int, p: float) -> None:
    assert statistics.exact(fixed, broken) == pytest.approx(p, rel=0.02)


def test_as_statsmodels_on_a_thousand_random_tables() -> None:
    from statsmodels.stats.contingency_tables import mcnemar
    from statsmodels.stats.proportion import proportion_confint

    chance = random.Random(7)
    for _ in range(1000):
        a, b, c, d = (chance.randrange(10 ** chance.randrange(1, 4)) for _ in range(4))
        found = mcnemar([[a, b], [c, d]], exact=True).pvalue
        assert statistics.exact(b, c) == pytest.approx(found, rel=1e-9, abs=1e-300)
        rows = a + b + c + d + 1
        assert statistics.wilson(a, rows) == pytest.approx(
            proportion_confint(a, rows, method="wilson"), abs=1e-9
        )


@pytest.mark.parametrize("differ", [0, 5, 6, 7, 20, 47, 381])
def test_the_smallest_difference_is_the_smallest(differ: int) -> None:
    found = statistics.smallest_difference(differ, 400)
    assert found is not None
    differ, net = max(differ, 6), round(found * 400)
    assert statistics.exact((differ + net) // 2, (differ - net) // 2) < statistics.ALPHA
    assert (
        net < 2
        or statistics.exact((differ + net) // 2 - 1, (differ - net) // 2 + 1) >= statistics.ALPHA
    )


def test_a_test_set_can_be_too_small() -> None:
    assert (statistics.smallest_difference(0, 5), statistics.smallest_difference(0, 6)) == (
        None,
        1.0,
    )
    assert math.comb(6, 0) * 2 / 2**6 < statistics.ALPHA <= 2 / 2**5
