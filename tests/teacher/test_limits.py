"""potstill.teacher.limits: the window, the pace and the budget, without an endpoint."""

import asyncio
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from potstill.teacher.limits import Budget, Pace, Window, estimate


async def rounds(window: Window, count: int, places: int, chance: float = 0.0) -> list[float]:
    """The window's sizes after each of `count` round trips to an endpoint that takes so many at
    once and refuses the rest, and a share of all by chance."""
    sizes, draw = [], random.Random(1)
    for _ in range(count):
        for _ in range(int(window.size)):
            await window.enter()
        sent = [window.send() for _ in range(window.flying)]
        for number, one in enumerate(sent):
            window.done(one, refused=number >= places or draw.random() < chance)
        for _ in sent:
            window.leave()
        sizes.append(window.size)
    return sizes


@pytest.mark.parametrize("places", [1, 8, 40])
def test_the_window_becomes_as_wide_as_the_endpoint(places: int) -> None:
    sizes = asyncio.run(rounds(Window(64), 400, places))[100:]
    assert places - 1 <= sum(map(int, sizes)) / len(sizes) <= places + 1


def test_the_window_stays_open_where_a_smaller_one_changes_nothing() -> None:
    window = Window(64)
    sizes = asyncio.run(rounds(window, 400, 64, chance=0.15))
    assert sum(sizes) / len(sizes) > 50
    assert window.floor == pytest.approx(0.15, abs=0.05)


def test_the_window_opens_again_after_an_outage() -> None:
    window = Window(64)
    assert asyncio.run(rounds(window, 20, 0))[-1] == 1
    assert window.many
    assert asyncio.run(rounds(window, 400, 64))[-1] == 64
    assert not window.many


def test_no_more_enter_than_the_window_is_wide() -> None:
    async def main() -> None:
        window, most = Window(8), 0
        window.size = 4.0

        async def one() -> None:
            nonlocal most
            await window.enter()
            most = max(most, window.flying)
            await asyncio.sleep(0)
            window.leave()

        await asyncio.gather(*(one() for _ in range(100)))
        assert (most, window.flying) == (4, 0)

    asyncio.run(main())


def test_the_pace_spreads_and_takes_back_what_was_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("potstill.teacher.limits.time.monotonic", lambda: now)
    assert [Pace(None).reserve(1e9) for _ in range(3)] == [0, 0, 0]
    pace = Pace(600)  # ten a second, a second's worth at once
    waits = [round(pace.reserve(), 6) for _ in range(30)]
    assert waits[:11] == [0] * 11
    assert waits[11:14] == [0.1, 0.2, 0.3]
    pace.refund(10)
    assert round(pace.reserve(), 6) == round(waits[-1] + 0.1 - 1, 6)
    now = 200.0
    assert pace.reserve() == 0


@given(st.lists(st.tuples(st.floats(0.01, 3), st.floats(0, 1)), min_size=1, max_size=60))
def test_the_budget_is_never_exceeded(requests: list[tuple[float, float]]) -> None:
    budget, gone = Budget(1.0, 1.0, 5.0), 0.0
    under_way: list[tuple[float, float]] = []
    for most, share in requests:
        while (fits := budget.fits(most, gone)) is None:
            before, spent = under_way.pop()
            budget.release(before)
            gone += spent
        if fits is False:
            assert not under_way
            assert gone + most > 5
            break
        under_way.append((most, most * share))
    assert gone + sum(spent for _, spent in under_way) <= 5 + 1e-9


def test_an_unknown_price_makes_an_unknown_cost() -> None:
    assert Budget(None, 2.0, None).cost(1e6, 1e6) is None
    assert Budget(1.5, 2.0, None).cost(1e6, 2e6) == 5.5
    assert Budget(None, None, 1.0).fits(None, 0.0) is True


@pytest.mark.parametrize(
    ("text", "least"),
    [("", 0), ("hello world, how are you", 5), ("电话是一三八", 6), ("\ud83d", 1)],
)
def test_the_estimate_is_rather_too_many(text: str, least: int) -> None:
    assert least <= estimate(text) <= 2 * least + 4
