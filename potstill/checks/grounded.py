"""The check `grounded`: what an answer names stands in its input."""

import re
from collections.abc import Callable
from functools import cache
from typing import Any

from potstill.checks import paths
from potstill.checks.requested_length import NUMERAL, number
from potstill.checks.rule import PASS, Finding, Rule, compiled, failed, on_text, plain
from potstill.core.jsonl import Row
from potstill.task.settings import Task

Missing = Callable[[str, str], str | None]  # the first thing in a text that its source has not


def grounded(
    task: Task,
    *,
    fields: dict[str, str] | None = None,
    before_number: str = "",
    kinds: list[str] | None = None,
    patterns: list[str] | None = None,
    field: str | None = None,
) -> Rule:
    """Names, numbers and places stand in the row's input. Each of `fields` of an object does, white
    space and the field's own ignored characters left out; a number must stand there whole, but for
    digits `before_number` (a country code). In free text, so does all that is of the `kinds`
    number, latin (letters), title, quote and place, or matches one of `patterns`."""
    kinds, patterns, fields = kinds or [], patterns or [], fields or {}
    if not kinds and not patterns and not fields:
        raise ValueError("one of the options fields, kinds and patterns is missing")
    if unknown := sorted(set(kinds) - set(KINDS)):
        raise ValueError(f"option kinds has {unknown[0]!r}, known are {', '.join(KINDS)}")
    named = [(paths.find(task, path), ignored) for path, ignored in fields.items()]
    about = paths.find(task, field) if field is not None else None
    parts = [*(KINDS[kind] for kind in kinds), *map(_missing_match, patterns)]
    parts.sort(key=lambda part: part is _missing_place)  # last, since it takes longest

    def judged(text: str, source: str) -> Finding:
        return next((failed(said) for part in parts if (said := part(text, source))), PASS)

    def rule(row: Row, answer: Any, text: str) -> Finding:
        source = "\n".join(row[name] for name in task.config["input"])
        for one, ignored in named:
            for place, value in one.values(answer):
                found = isinstance(value, str) and _stands_in(value, source, ignored, before_number)
                if not found:
                    return failed(place)
        if not parts:
            return PASS
        return on_text(about, lambda _, text: judged(text, source))(row, answer, text)

    return rule


_NUMBER = re.compile(rf"(?:\d{{1,3}}(?:,\d{{3}})+(?!\d)|\d+)(?:\.\d+)?[百千万]?|{NUMERAL}")
# A Chinese numeral is a number when it counts: 三十元, but 二十四节气 and 十全十美 are words.
_COUNTED = re.compile(
    r"\s*[元块角岁年月日号斤克米里人名个位件条句字次倍天周点分秒折吨亩层楼室栋届%％]"
)


def missing_number(text: str, source: str) -> str | None:
    """The first number of the text that the source has not, compared by value."""
    values = {None, *map(number, _NUMBER.findall(source) + re.findall(r"\d+", source))}
    for match in _NUMBER.finditer(text):
        word = match[0]
        counts = word[0].isdigit() or len(word) > 1 and _COUNTED.match(text, match.end())
        if counts and number(word) not in values:
            return word
    return None


def _missing_match(pattern: str, whole: bool = False) -> Missing:
    """Looks for what the pattern finds: its first group that is not empty, or else all of it. With
    `whole` the source must have it as a match, too, and not only somewhere."""
    find = compiled(pattern)

    def missing(text: str, source: str) -> str | None:
        known = set(map(plain, find.findall(source))) if whole else plain(source)
        parts = (next(filter(None, match.groups()), match[0]) for match in find.finditer(text))
        return next((part for part in parts if plain(part) not in known), None)

    return missing


@cache
def _places() -> dict[str, list[str]]:
    """The names of provinces, cities and counties by their first two characters, from the gazetteer
    of cpca, whose import would load pandas."""
    import csv
    from importlib.metadata import distribution
    from pathlib import Path

    table = Path(str(distribution("cpca").locate_file("cpca/resources/adcodes.csv")))
    places: dict[str, list[str]] = {}
    for row in csv.DictReader(table.read_text(encoding="utf-8").splitlines()):
        name, province = row["name"], row["adcode"][2:6] == "0000"
        for known in {name, _SUFFIX.sub("", name)} if province else {name}:
            if len(known) > 2 or province:  # 城区 and 郊区 are words
                places.setdefault(known[:2], []).append(known)
    return places


_SUFFIX = re.compile(  # of a place's name
    "(?<=..)(?:特别行政区|(?:壮族|回族|维吾尔)?自治区|[^区县市]{1,6}族自治[州县]|地区|[省市区县])$"
)


def _missing_place(text: str, source: str) -> str | None:
    known = _places()
    for at in range(len(text) - 1):
        for name in known.get(text[at : at + 2], ()):
            if text.startswith(name, at) and _SUFFIX.sub("", name) not in source:
                return name
    return None


KINDS: dict[str, Missing] = {
    "number": missing_number,
    "latin": _missing_match("[A-Za-zＡ-Ｚａ-ｚ]+", whole=True),
    "title": _missing_match("《([^《》]+)》"),
    "quote": _missing_match("“([^“”]+)”|「([^「」]+)」|『([^『』]+)』"),
    "place": _missing_place,
}


def _stands_in(value: str, source: str, ignored: str, before_number: str) -> bool:
    """Whether the value stands in the source, white space and ignored characters left out, and cuts
    no number in two."""
    places = [i for i, c in enumerate(source) if not c.isspace() and c not in ignored]
    heap = "".join(source[i] for i in places)
    needle = "".join(c for c in value if not c.isspace() and c not in ignored)
    at = heap.find(needle) if needle else -1
    while at >= 0:
        before, after = source[: places[at]], source[places[at + len(needle) - 1] + 1 :]
        code = bool(before_number) and before.endswith(before_number)
        cut_before = needle[0].isdigit() and before[-1:].isdigit() and not code
        if not cut_before and not (needle[-1].isdigit() and after[:1].isdigit()):
            return True
        at = heap.find(needle, at + 1)
    return False
