"""A user's own rows, read against the rules of schemas/; every violation with file, line and value.

.jsonl  {"messages": [{"role": "user", "content": "…"}, {"role": "assistant", "content": "…"}]}
.jsonl  {"prompt": "…", "chosen": "…", "rejected": "…"}
.json   [{"instruction": "…", "output": "…"}, {"instruction": "…"}]
"""

import codecs
import json
import re
from bisect import bisect_left
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple, cast

from potstill.core import params
from potstill.core.errors import UserError
from potstill.core.jsonl import Row, parse_row, squeeze
from potstill.core.project import ROOT

MESSAGES, PREFERENCES, INSTRUCTIONS = "messages", "preferences", "instructions"
LAST = {  # of each kind: the key of the chat, whose the last message is, and the rule
    MESSAGES: (
        "messages",
        "assistant",
        "pairs of user and assistant, at least one: the last message is the assistant's",
    ),
    PREFERENCES: ("prompt", "user", "the last message of a prompt is the user's"),
}
SIGN = re.compile(r"[ \t\r\n]*(.?)[ \t\r\n]*", re.DOTALL)


class File(NamedTuple):
    """A user's file: its kind, its rows (all of them where there are no problems), one sentence a
    problem."""

    kind: str
    rows: list[Row]
    problems: list[str]
    mark: bool  # whether it begins with a byte order mark
    crlf: bool  # whether lines end in CRLF


def read(path: str | Path) -> File:
    """A user's file, with every violation in it. Raises UserError when there is no such file, or
    its name ends otherwise."""
    path = Path(path)
    if path.suffix not in (".jsonl", ".json"):
        raise UserError(
            f"{path}: expected a name in .jsonl (messages, preferences) or .json (a list of "
            "instructions)"
        )
    if not path.is_file():
        raise UserError(f"{path} is missing: give the path of your file, FILE=…")
    raw = path.read_bytes()
    rows: list[tuple[int, Row]] = []  # each with its line
    problems: list[tuple[int, str]] = []
    try:
        for number, part in _parts(path, raw):
            try:
                rows.append((number, parse_row(part, f"{path}:{number}")))
            except UserError as error:
                problems.append((number, str(error)))
    except UserError as error:  # nothing after it can be read
        problems.append((len(raw), str(error)))
    kind = MESSAGES if path.suffix == ".jsonl" else INSTRUCTIONS
    first = rows[0][1].keys() if rows else set()
    if kind == MESSAGES and "messages" not in first and {"prompt", "chosen", "rejected"} & first:
        kind = PREFERENCES
    lines: dict[str, int] = {}  # by id
    for number, row in rows:
        faults, id = violations(kind, row), row.get("id")
        if isinstance(id, str) and (line := lines.setdefault(id, number)) != number:
            faults.append(f"id: no id stands there twice; found {id}, as in line {line}")
        problems += [(number, f"{path}:{number}: {fault}") for fault in faults]
    if not rows and not problems:
        problems.append((1, f"{path}:1: the file is empty, expected at least one row"))
    problems.sort(key=lambda problem: problem[0])
    said, mark = [text for _, text in problems], raw.startswith(codecs.BOM_UTF8)
    return File(kind, [row for _, row in rows], said, mark, b"\r\n" in raw)


def messages_rows(path: str | Path) -> list[Row]:
    """The rows of a user's messages file, row i from line i + 1. Raises UserError with the first
    violations and how many there are, and when it holds preferences."""
    kind, rows, problems, *_ = read(path)
    if problems:
        more = len(problems) - 3
        rest = f"; {more:,} more: see `make validate FILE={path}`" if more > 0 else ""
        raise UserError("; ".join(problems[:3]) + rest)
    if kind != MESSAGES:
        raise UserError(f"{path}:1: found a row of {kind}, expected the key messages")
    return rows


def _parts(path: Path, raw: bytes) -> Iterator[tuple[int, bytes]]:
    """The lines of a .jsonl file, or the elements of a .json list, each with the number of the
    line it begins in."""
    if raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise UserError(f"{path}:1: the file is UTF-16, expected UTF-8: save it as UTF-8")
    if not raw.removeprefix(codecs.BOM_UTF8).strip():
        return
    if path.suffix == ".jsonl":
        yield from enumerate(raw.removesuffix(b"\n").split(b"\n"), 1)
        return
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise UserError(
            f"{path}:{line}: byte {error.start + 1} is not UTF-8: save the file as UTF-8"
        ) from None
    yield from _elements(path, text)


def _elements(path: Path, text: str) -> Iterator[tuple[int, bytes]]:
    """The elements of a JSON list, each with the number of its line. Raises UserError where the
    list itself is broken."""
    breaks = [match.start() for match in re.finditer("\n", text)]

    def fault(at: int, says: str) -> UserError:
        return UserError(f"{path}:{bisect_left(breaks, at) + 1}: {says}")

    at, expected = 0, ["["]
    while expected:
        sign = cast(re.Match[str], SIGN.match(text, at))
        start, at = sign.start(1), sign.end()
        if sign[1] not in expected:
            found = repr(text[start : start + 20]) if sign[1] else "the end of the file"
            options = " or ".join(expected)
            raise fault(start, f"not a JSON list: found {found}, expected {options}")
        if sign[1] == "]":
            expected = []
        elif sign[1] == "[" and text.startswith("]", at):
            expected = ["]"]
        else:
            try:
                _, stop = json.JSONDecoder().raw_decode(text, at)
            except json.JSONDecodeError as error:
                found = repr(text[error.pos : error.pos + 40])
                raise fault(error.pos, f"not JSON ({error.msg}): {found}") from None
            except RecursionError:
                raise fault(at, f"JSON nested too deep: {text[at : at + 40]!r}") from None
            yield bisect_left(breaks, at) + 1, text[at:stop].encode()
            at, expected = stop, [",", "]"]
    if rest := text[at:].strip():
        raise fault(start, f"not a JSON list: found more after its end: {rest[:20]!r}")


def violations(kind: str, row: Row) -> list[str]:
    """What is wrong with a row of a file of this kind: place, rule and value found of each
    violation."""
    faults: dict[tuple[str, str], object] = {}
    for error in _validator(kind).iter_errors(row):
        place = error.json_path.removeprefix("$").removeprefix(".")
        faults[place, str(error.schema["description"])] = error.instance
    if kind != INSTRUCTIONS:
        faults |= {(place, rule): value for place, rule, value in _unsaid(kind, row)}
    return [
        f"{place}: {rule}; found {params.found_text(value)}".removeprefix(": ")
        for (place, rule), value in faults.items()
    ]


@cache
def _validator(kind: str) -> Any:
    from jsonschema import Draft202012Validator

    return Draft202012Validator(json.loads(params.read_text(ROOT / "schemas" / f"{kind}.json")))


def _unsaid(kind: str, row: Row) -> Iterator[tuple[str, str, object]]:
    """The rules that a schema cannot say: user and assistant take turns, and the two answers of a
    preference differ."""
    name, last, rule = LAST[kind]
    messages = row.get(name)
    if isinstance(messages, list) and messages:
        roles = [one.get("role") if isinstance(one, dict) else None for one in messages]
        turns = [(i, role) for i, role in enumerate(roles) if role != "system"]
        for (_, before), (i, role) in pairwise(turns):
            if role == before and role in ("user", "assistant"):
                yield f"{name}[{i}].role", "user and assistant take turns", role
        if roles[-1] != last and roles[-1] in ("system", "user", "assistant"):
            yield f"{name}[{len(roles) - 1}].role", rule, roles[-1]
    if kind == PREFERENCES:
        match row.get("chosen"), row.get("rejected"):
            case str(chosen), str(rejected) if squeeze(chosen) == squeeze(rejected):
                yield "rejected", "chosen and rejected differ in more than white space", rejected
