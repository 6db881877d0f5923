"""Intervals over rows and seeds: where they must be Wilson's, how often they hold the truth, and
that a difference is real only beyond both noises."""

import math
import random
from collections.abc import Sequence
from pathlib import Path

import pytest

from potstill.core import jsonl
from potstill.core.errors import UserError
from potstill.evaluation import seeds, statistics
from potstill.task import settings
from tests.conftest import Project
from tests.second_scorer.statistics import over_seeds

Side = list[list[bool]]


def drawn(dice: random.Random, rows: Sequence[float], count: int, spread: float) -> Side:
    """What `count` students have right of rows with these log-odds, each student's own log-odds
    about 0 by `spread`."""
    own = [dice.gauss(0, spread) for _ in range(count)]
    return [[dice.random() < 1 / (1 + math.exp(-row - one)) for row in rows] for one in own]


def rows(dice: random.Random, number: int = 150) -> list[float]:
    return [dice.gauss(2, 2) for _ in range(number)]


@pytest.mark.parametrize("right", [0, 1, 57, 60])
def test_students_that_are_all_the_same_have_the_interval_of_one(right: int) -> None:
    one = [i < right for i in range(60)]
    for students in ([one], [one] * 3):
        share, *ends = seeds.interval(students)
        assert (share, *ends) == pytest.approx((right / 60, *statistics.wilson(right, 60)))


def test_the_interval_is_that_of_the_second_scorer() -> None:
    dice = random.Random(1)
    for number in range(30):
        few = rows(dice, dice.choice([7, 40, 200]))
        students = drawn(dice, few, 2 + number % 4, dice.choice([0, 0.3, 2]))
        found = tuple(round(one, 4) for one in seeds.interval(students))
        assert found == over_seeds(students)


@pytest.mark.parametrize(("spread", "least"), [(0.0, 0.94), (0.3, 0.92), (0.8, 0.88)])
def test_how_often_it_holds_the_share_that_all_rows_and_seeds_would_have(
    spread: float, least: float
) -> None:
    """Three seeds; without a look at them the interval of the first holds it far less often."""
    dice, times, many = random.Random(2), 200, random.Random(3)
    of_all = (1 / (1 + math.exp(-many.gauss(2, math.hypot(2, spread)))) for _ in range(100_000))
    truth, held, alone = sum(of_all) / 100_000, 0, 0
    for _ in range(times):
        students = drawn(dice, rows(dice), 3, spread)
        _, low, high = seeds.interval(students)
        held += low <= truth <= high
        low, high = statistics.wilson(sum(students[0]), 150)
        alone += low <= truth <= high
    assert held / times >= least, (held, alone)
    assert held - alone >= times * spread / 8, (held, alone)


def test_a_difference_of_seeds_alone_is_none() -> None:
    """Students of one kind on both sides: the exact McNemar test of the first two finds a
    difference far too often, that of the means does not."""
    dice, times = random.Random(4), 150
    of_rows = of_both = 0
    for _ in range(times):
        few = rows(dice)
        before, after = (drawn(dice, few, 3, 0.5) for _ in "ab")
        found, low, high, p = seeds.difference(before, after)
        assert (p < statistics.ALPHA) == (not low <= 0 <= high)
        back = seeds.difference(after, before)
        assert back == pytest.approx((-found, -high, -low, p))
        real = statistics.mcnemar(before[0], after[0]) < statistics.ALPHA
        of_rows += real
        of_both += real and p < statistics.ALPHA
    assert of_rows > 0.15 * times and of_both < 0.05 * times, (of_rows, of_both)


def test_a_difference_that_is_there_is_found() -> None:
    dice = random.Random(5)
    few = rows(dice)
    before, after = drawn(dice, [row - 2 for row in few], 3, 0.1), drawn(dice, few, 3, 0.1)
    for paired in (True, False):
        found, low, _, p = seeds.difference(before, after, paired)
        assert 0 < low < found and p < 0.01
    assert seeds.difference(before, before)[3] == 1


def test_a_side_of_one_student_is_taken_to_vary_as_the_other() -> None:
    dice = random.Random(6)
    few = rows(dice)
    several, [one] = drawn(dice, few, 3, 0.5), drawn(dice, few, 1, 0.5)
    shares = [sum(right) / len(few) for right in several]
    middle = sum(shares) / 3
    spread = sum((share - middle) ** 2 for share in shares) / 2
    means = [sum(column) / 3 - own for *column, own in zip(*several, one, strict=True)]
    mean = sum(means) / len(few)
    of_rows = sum((value - mean) ** 2 for value in means) / len(few) ** 2
    found, low, high, p = seeds.difference([one], several)
    assert (found, (low + high) / 2) == pytest.approx((mean, mean))
    total, of_seeds = of_rows + spread * (1 + 1 / 3), spread * (1 + 1 / 3)
    from scipy.stats import t

    times = t.ppf(0.975, 2 * (total / of_seeds) ** 2)
    assert high - low == pytest.approx(2 * times * math.sqrt(total))
    assert seeds.difference(several, [one])[3] == pytest.approx(p)


def test_each_student_is_marked_by_its_own_answers(project: Project) -> None:
    task, test = settings.load(), {"id": "a", "text": "x"}
    right = [{"right": True}]
    jsonl.write_json("data/5-seeds/report.json", {"seeds": [42]})
    assert seeds.students(task, [test], right) == {}
    jsonl.write_json("data/5-seeds/report.json", {"seeds": [42, 43]})
    answer: jsonl.Row = {"id": "a", "answer": "{}", "finish_reason": "stop"}
    answer |= {"prompt_tokens": 1, "completion_tokens": 1}
    jsonl.write_jsonl("data/5-seeds/43.jsonl", [answer])
    found = seeds.students(task, [test], right)
    assert list(found) == [42, 43] and found[42] is right and not found[43][0]["right"]
    assert list(seeds.columns(found)) == ["sft@43"]
    table = seeds.table(task, [test | {"slice": "a"}], found)
    assert [(row["seed"], row["right"], row["share"]) for row in table] == [
        (42, 1, 1.0),
        (43, 0, 0.0),
        ("mean", 0.5, 0.5),
    ]
    ends = f"{table[2]['low']:.1%} to {table[2]['high']:.1%} over rows and seeds"
    assert seeds.said(table) == f"2 seeds (42: 100.0%, 43: 0.0%): 50.0% on average, {ends}"
    jsonl.write_jsonl("data/5-seeds/43.jsonl", [answer | {"id": "b"}])
    again = "^data/5-seeds/43.jsonl: not one answer to each row .* `dvc repro predict_seeds`$"
    with pytest.raises(UserError, match=again):
        seeds.students(task, [test], right)


def test_one_seed_is_said_to_be_one_seed(tmp_path: Path) -> None:
    model = {"accuracy": 1, "right": 1, "wrong": 0, "unscored": 0}
    several = {"count": 3, "mean": 0.5, "low": 0.4, "high": 0.6}
    found = {"base": model, "sft": model, "seeds": several}
    assert seeds.of(found) == several
    shipped = {"ship": {"ship": "dpo"}, "dpo": model, **found}  # it was trained once
    assert seeds.of(shipped) is seeds.of({"base": model, "sft": model}) is None
    assert seeds.sentence(shipped, tmp_path) == seeds.ONE
