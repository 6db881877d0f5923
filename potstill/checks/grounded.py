"""The check `grounded`: what an answer names stands in its input."""

import re
from functools import cache
from typing import Any

from potstill.checks import requested_length
from potstill.checks.rules import PASS, Finding, Rule, compiled_pattern, failed, inputs, of, plain
from potstill.core.jsonl import Row
from potstill.task.settings import Task

# what of a free text must stand in its input; numbers are compared by value, titles and quotations by what is inside
KINDS = {
    "number": rf"\d{{1,3}}(?:,\d{{3}})+(?!\d)(?:\.\d+)?|\d+(?:\.\d+)?[百千万]?|{requested_length.NUMERAL}",
    "latin": "[A-Za-zＡ-Ｚａ-ｚ]+",
    "title": "《([^《》]+)》",
    "quote": "“([^“”]+)”|「([^「」]+)」|『([^『』]+)』",
    "place": "",
}
# a Chinese numeral is a number when it counts: 三十元, but 二十四节气 and 十全十美 are words
_COUNTED = re.compile(
    r"\s*[元块角岁年月日号斤克米里人名个位件条句字次倍天周点分秒折吨亩层楼室栋届届%％]"
)


def grounded(
    task: Task,
    *,
    fields: dict[str, str] | None = None,
    before_number: str = "",
    kinds: list[str] | None = None,
    patterns: list[str] | None = None,
    field: str | None = None,
) -> Rule:
    """Names, numbers and places stand in the row's input. Each of `fields` of an object does, white space and the field's
    own ignored characters left out; a number must stand there whole, but for digits `before_number` (a country code). In
    free text, so does all that is of the `kinds` number, latin (letters), title, quote and place, or matches one of `patterns`."""
    names = inputs(task, None)
    if fields is None and kinds is None and patterns is None:
        raise ValueError("one of the options fields, kinds and patterns is missing")
    if unknown := set(kinds or []) - set(KINDS):
        raise ValueError(f"option kinds has {sorted(unknown)[0]!r}, known are {', '.join(KINDS)}")
    compiled = [(kind, re.compile(KINDS[kind])) for kind in kinds or [] if kind != "place"]
    compiled += [("", compiled_pattern(pattern)) for pattern in patterns or []]

    def judge(row: Row, text: str) -> Finding:
        source = "\n".join(row[name] for name in names)
        for kind, pattern in compiled:
            if absent := missing(kind, pattern, text, source):
                return failed(absent)
        if kinds and "place" in kinds and (absent := _missing_place(text, source)):
            return failed(absent)
        return PASS

    free = of(field, judge)

    def rule(row: Row, value: Any, text: str) -> Finding:
        source = "\n".join(row[name] for name in names)
        for key, ignored in (fields or {}).items():
            found = value.get(key) if isinstance(value, dict) else None
            if not isinstance(found, str) or not _stands_in(found, source, ignored, before_number):
                return failed(key)
        return free(row, value, text) if kinds or patterns else PASS

    return rule


def missing(kind: str, pattern: re.Pattern[str], text: str, source: str) -> str | None:
    """The first match in the text that the source has not."""
    if kind == "number":
        there = {
            requested_length.number(found)
            for found in [*pattern.findall(source), *re.findall(r"\d+", source)]
        }
        for match in pattern.finditer(text):
            counts = match[0][0].isdigit() or (
                len(match[0]) > 1 and _COUNTED.match(text, match.end())
            )
            if (
                counts
                and (value := requested_length.number(match[0])) is not None
                and value not in there
            ):
                return match[0]
        return None
    words = {plain(word) for word in pattern.findall(source)} if kind == "latin" else plain(source)
    for match in pattern.finditer(text):
        found = next((group for group in match.groups() if group), match[0])
        if plain(found) not in words:
            return found
    return None


@cache
def _places() -> dict[str, list[str]]:
    """The names of provinces, cities and counties by their first two characters, from the gazetteer of cpca."""
    import csv
    from importlib.metadata import distribution
    from pathlib import Path

    table = Path(
        str(distribution("cpca").locate_file("cpca/resources/adcodes.csv"))
    )  # import cpca would load pandas
    found: dict[str, list[str]] = {}
    with table.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            name, province = row["name"], row["adcode"][2:6] == "0000"
            for known in {name, _stem(name)} if province else {name}:
                if len(known) > 2 or province:  # 城区 and 郊区 are words
                    found.setdefault(known[:2], []).append(known)
    return found


def _stem(name: str) -> str:
    return re.sub(
        "(?<=..)(?:特别行政区|(?:壮族|回族|维吾尔)?自治区|[^区县市]{1,6}族自治[州县]|地区|[省市区县])$",
        "",
        name,
    )


def _missing_place(text: str, source: str) -> str | None:
    known = _places()
    for at in range(len(text) - 1):
        for name in known.get(text[at : at + 2], ()):
            if text.startswith(name, at) and _stem(name) not in source:
                return name
    return None


def _stands_in(value: str, source: str, ignored: str, before_number: str) -> bool:
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
