"""Classification, as plain text or as a key of JSON: which answers are labels, which label is taken
for which (confusion.csv), and the macro-F1.

What is expected at one place, as the whole text or at a key, are labels where the rows have 2 to
MOST different values, texts of at most LONGEST characters in one line, numbers, true, false or
null; PER rows each on average; and at most a quarter of the values on a single row. So free text is
none, in however few rows.
"""

import json
from collections import Counter
from collections.abc import Iterator
from statistics import fmean
from typing import Any

from potstill.core.jsonl import Row, squeeze

MOST, LONGEST, PER = 30, 60, 3
TEXT = "answer"  # the place of an answer that is no object
NONE = ""  # an answer that is none of the labels
Marks = list[dict[str, Any]]  # of one model
Key = tuple[type, object]  # what makes two values one label, as in exact_match
Labels = dict[str, dict[Key, str]]  # at each place the labels' names, in the order of the rows
Counts = Counter[tuple[str, str]]  # rows by the label expected and the one answered, or NONE


def of(marks: Marks) -> Labels:
    """The places that have labels, by what the rows of `marks` expect; {} where none has."""
    found: dict[str, list[Any]] = {}
    for _, place, _, expected in _values(marks):
        found.setdefault(place, []).append(expected)
    return {place: names for place, values in found.items() if (names := _names(values))}


def _names(values: list[Any]) -> dict[Key, str]:
    """The labels that these expected values are; {} where they are none."""
    keys = [key for value in values if (key := _key(value)) is not None]
    count = Counter(keys)
    single = sum(rows == 1 for rows in count.values())
    few = 2 <= len(count) <= MOST and len(count) * PER <= len(values) and single * 4 <= len(count)
    if not few or len(keys) < len(values):
        return {}
    first = dict(zip(reversed(keys), reversed(values), strict=True))
    return {key: _name(first[key]) for key in count}


def _key(value: Any) -> Key | None:
    """None for what is no label: a list, an object, a missing value, a long text."""
    if isinstance(value, str):
        short = len(value.strip()) <= LONGEST and len(value.strip().splitlines()) <= 1
        return (str, squeeze(value)) if short else None
    kind = float if type(value) is int else type(value)
    return (kind, value) if kind in (float, bool, type(None)) else None


def _name(value: Any) -> str:
    return value.strip() or '""' if isinstance(value, str) else json.dumps(value)


def _values(marks: Marks) -> Iterator[tuple[int, str, Any, Any]]:
    """Number of the row, place, value of the answer and the value expected there."""
    for i, mark in enumerate(marks):
        for key, (said, expected) in mark.get("values", {}).items():
            yield i, key, said, expected


def rows(marks: Marks, labels: Labels) -> Iterator[tuple[str, list[int]]]:
    """Each label, with its key before it, and the numbers of the rows that expect it."""
    found: dict[tuple[str, Key | None], list[int]] = {}
    for i, place, _, expected in _values(marks):
        found.setdefault((place, _key(expected)), []).append(i)
    for place, names in labels.items():
        before = f"{place} " if any(place in mark.get("keys", ()) for mark in marks) else ""
        yield from ((before + name, found[place, key]) for key, name in names.items())


def counts(marks: Marks, labels: Labels) -> dict[str, Counts]:
    """At each place, what one model answers to each label."""
    found: dict[str, Counts] = {place: Counter() for place in labels}
    for _, place, said, expected in _values(marks):
        if names := labels.get(place):
            wanted = names[_key(expected)]  # type: ignore[index]
            key = _key(said)
            found[place][wanted, names.get(key, NONE) if key else NONE] += 1
    return found


def f1(count: Counts) -> dict[str, float]:
    """Each label's F1, 2 tp / (2 tp + fp + fn): an answer that is no label is false for the one
    that was expected, and for no other."""
    expected, said = Counter[str](), Counter[str]()
    for (label, answer), number in count.items():
        expected[label] += number
        said[answer] += number
    return {label: 2 * count[label, label] / (expected[label] + said[label]) for label in expected}


def macro_f1(count: Counts) -> float:
    """The mean F1 of the labels, each as much as the others; four decimals."""
    return round(fmean(f1(count).values()), 4)


def table(marks: dict[str, Marks], labels: Labels) -> list[Row]:
    """confusion.csv: how many rows of each label each model answers by each label; NONE is any
    other answer. What no row has is left out."""
    columns = ("key", "model", "expected", "answer", "rows")
    by_model = {model: counts(every, labels) for model, every in marks.items()}
    return [
        dict(zip(columns, (place, model, *pair, number), strict=True))
        for place, names in labels.items()
        for model, found in by_model.items()
        for label in names.values()
        for pair, number in sorted(found[place].items())
        if pair[0] == label
    ]
