"""What is a label, and what is none."""

from typing import Any

import pytest

from potstill.evaluation import labels


def marks(*expected: Any, key: str = "k", said: Any = "a") -> list[dict[str, Any]]:
    return [{"values": {key: (said, one)}, "keys": {key: said == one}} for one in expected]


@pytest.mark.parametrize(
    ("expected", "names"),
    [
        (["a"] * 3 + ["b"] * 3, ["a", "b"]),
        (["a b", "ab", " a b\n"] + ["b"] * 3, ["a b", "b"]),
        ([True] * 4 + [None] * 3, ["true", "null"]),
        ([3, 3.0, 3] + [4] * 3, ["3", "4"]),
        (["", "", "", "x", "x", "x"], ['""', "x"]),
        (["a"] * 11 + ["b"] * 8 + ["c"] * 12 + ["d"], ["a", "b", "c", "d"]),  # a rare one
        ([f"label {i % 30}" for i in range(90)], [f"label {i}" for i in range(30)]),
        ([f"label {i % 31}" for i in range(93)], []),  # too many
        (["a"] * 9, []),  # one alone
        (["a"] * 3 + ["b"] * 2, []),  # too few rows
        ([f"a free text {i}" for i in range(20)], []),
        ([f"a free text {i % 10}" for i in range(20)], []),  # each twice
        (["none"] * 15 + [f"a free text {i}" for i in range(5)], []),  # nearly always the same
        (["a"] * 8 + ["b" * 61] * 8, []),  # long
        (["a"] * 8 + ["two\nlines"] * 8, []),
        ([["a"]] * 8 + [["b"]] * 8, []),
        ([{"a": 1}] * 8 + [{"a": 2}] * 8, []),
    ],
)
def test_few_values_each_on_several_rows_are_labels(expected: list[Any], names: list[str]) -> None:
    found = labels.of(marks(*expected))
    assert [list(of.values()) for of in found.values()] == ([names] if names else [])


def test_an_answer_that_is_no_label_is_a_miss_and_nothing_else() -> None:
    one = marks("a", "a", "a", said="a") + marks("b", "b", said="a") + marks("b", said=["b"])
    known = labels.of(one)
    [count] = labels.counts(one, known).values()
    assert count == {("a", "a"): 3, ("b", "a"): 2, ("b", ""): 1}
    assert labels.f1(count) == {"a": 6 / 8, "b": 0.0}
    assert labels.macro_f1(count) == 0.375
    assert dict(labels.rows(one, known)) == {"k a": [0, 1, 2], "k b": [3, 4, 5]}
    assert labels.of([{}] * 9) == {}
