"""What bench/serve.py makes of its figures; the servers themselves are tried in test_serve.py."""

from typing import Any

import pytest

from bench import serve as bench
from potstill import task
from tests.conftest import Project


def test_percentiles_and_rates_are_those_of_all_passes_together() -> None:
    passes = [
        bench.Load([i / 1000 for i in range(1, 51)], 300, 2.0, ["a"] * 50),
        bench.Load([i / 1000 for i in range(51, 101)], 100, 3.0, [*["a"] * 50, None]),
    ]
    found = bench.figures(8, passes)
    assert found == {
        "users": 8,
        "p50_ms": 51.0,
        "p95_ms": 96.0,
        "p99_ms": 100.0,
        "requests_per_second": 20.0,
        "tokens_per_second": 80.0,
        "errors": 1,
    }


@pytest.mark.parametrize("most", [0, 1, 2, 7, 8, 9, 31, 40, 127, 128, 300])
@pytest.mark.parametrize("known", [(), (1, 8, 32, 128)])
def test_the_most_users_are_found_to_an_eighth(monkeypatch: pytest.MonkeyPatch, most: int, known: Any) -> None:
    def load(url: str, bodies: list[Any], users: int) -> bench.Load:
        assert len(bodies) >= 64
        return bench.Load([0.4 if users <= most else 0.6] * len(bodies), 0, 1.0, ["a"] * len(bodies))

    monkeypatch.setattr(bench, "load", load)
    before = [bench.figures(users, [load("", [{}] * 64, users)]) for users in known]
    found = bench.most_users("", [{}] * 3, before)
    assert most - max(1, most // 8) < found <= most or found == most


def test_a_hop_is_held_against_what_two_equal_runs_differ_by(project: Project) -> None:
    toy = task.load("toy")
    tests = [{**row, "slice": "a"} for row in project.seeds(40)]
    right: list[str | None] = [f'{{"word":"word{i}","length":{len(f"word{i}")}}}' for i in range(40)]

    def wrong(count: int) -> list[str | None]:
        return [None] * count + right[count:]

    found = bench.same(toy, tests, right, wrong(8), (right, right))
    assert (found["differ"], found["flips"], found["right"], found["floor"], found["passed"]) == (8, 8, 32, 0, 0)
    found = bench.same(toy, tests, right, wrong(8), (right, wrong(6)))
    assert (found["flips"], found["floor"], found["passed"]) == (8, 6, 1)


def test_answers_that_break_the_schema_are_counted(project: Project) -> None:
    answers = ['{"word":"a","length":1}', '{"word":"a"}', "{", None]
    assert bench.invalid(task.load("toy"), answers) == 3
