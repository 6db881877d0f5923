"""potstill.stats: the exact McNemar test against values known and against its definition."""

import random

import pytest

from potstill import stats


@pytest.mark.parametrize(
    ("only_one", "only_other", "both", "p"),
    [(0, 0, 5, 1.0), (5, 5, 3, 1.0), (0, 5, 0, 0.0625), (1, 9, 100, 0.021484375), (10, 25, 0, 0.0167)],
)
def test_mcnemar(only_one: int, only_other: int, both: int, p: float) -> None:
    one = [True] * only_one + [False] * only_other + [True] * both
    other = [False] * only_one + [True] * only_other + [True] * both
    assert stats.mcnemar(one, other) == stats.mcnemar(other, one) == pytest.approx(p, rel=1e-2)


def test_mcnemar_is_a_share_of_coin_tosses() -> None:
    chance = random.Random(3)
    tosses = [sum(chance.random() < 0.5 for _ in range(18)) for _ in range(20_000)]
    extreme = sum(heads <= 5 or heads >= 13 for heads in tosses) / len(tosses)
    assert stats.mcnemar([True] * 5 + [False] * 13, [False] * 5 + [True] * 13) == pytest.approx(extreme, abs=0.01)
