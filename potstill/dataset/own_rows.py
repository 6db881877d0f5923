"""`make validate FILE=…`: a file of your own rows against the rules of schemas/, every violation with file, line and value.

.jsonl  {"messages": [{"role": "user", "content": "…"}, {"role": "assistant", "content": "…"}]}      rows to train on
.jsonl  {"prompt": "…", "chosen": "…", "rejected": "…"}                                              preferences
.json   [{"instruction": "…", "output": "…"}, {"instruction": "…"}]                                  `make import` takes it in
"""

import codecs
import json
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from potstill.core import errors, params
from potstill.core.errors import UserError
from potstill.core.jsonl import Row, parse_row, squeeze
from potstill.core.project import ROOT

MESSAGES, PREFERENCES, INSTRUCTIONS = (
    "messages",
    "preferences",
    "instructions",
)  # schemas/<kind>.json
KEYS = {
    MESSAGES: {"id", "family", "messages", "role", "content"},
    PREFERENCES: {"id", "family", "prompt", "chosen", "rejected", "role", "content"},
    INSTRUCTIONS: {"instruction", "output", "input"},
}
TEXTS = ("prompt", "chosen", "rejected", "instruction", "output")
SPACE = re.compile(r"[ \t\r\n]*")
SHOWN = 50  # violations that are printed; the others are counted


class File(NamedTuple):
    """What stands in a user's file: its kind, its rows (all of them where there are no problems), one sentence a problem."""

    kind: str
    rows: list[Row]
    problems: list[str]


def read(path: str | Path) -> File:
    """A user's file, with every violation in it. Raises UserError when there is no such file."""
    path = Path(path)
    if path.suffix not in (".jsonl", ".json"):
        raise UserError(
            f"{path}: expected a name in .jsonl (messages, preferences) or .json (a list of instructions)"
        )
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        raise UserError(f"{path} is missing: give the path of your file, FILE=…") from None
    kind = MESSAGES if path.suffix == ".jsonl" else INSTRUCTIONS
    rows: dict[int, list[Row]] = {}
    problems: list[tuple[int, str]] = []

    def take(number: int, part: bytes) -> None:
        try:
            rows.setdefault(number, []).append(parse_row(part, f"{path}:{number}"))
        except UserError as error:
            problems.append((number, str(error)))

    try:
        for number, part in _parts(path, raw):
            take(number, part)
    except UserError as error:  # nothing after it can be read
        problems.append((len(raw), str(error)))
    found = [(number, row) for number, some in rows.items() for row in some]
    if (
        kind == MESSAGES
        and found
        and "messages" not in found[0][1]
        and {"prompt", "chosen", "rejected"} & set(found[0][1])
    ):
        kind = PREFERENCES
    ids: dict[Any, int] = {}
    for number, row in found:
        problems += [(number, f"{path}:{number}: {problem}") for problem in violations(kind, row)]
        if (
            isinstance(row.get("id"), str)
            and (first := ids.setdefault(row["id"], number)) != number
        ):
            problems.append(
                (
                    number,
                    f"{path}:{number}: id: no id stands there twice; found {row['id']}, as in line {first}",
                )
            )
    if not found and not problems:
        problems.append((1, f"{path}:1: the file is empty, expected at least one row"))
    return File(
        kind,
        [row for _, row in found],
        [said for _, said in sorted(problems, key=lambda one: one[0])],
    )


def messages_rows(path: str | Path) -> list[Row]:
    """The rows of a user's messages file, row i from line i + 1; [] when it is empty. Raises UserError with the first
    violations and how many there are."""
    if not Path(path).is_file() or not Path(path).stat().st_size:
        return []
    kind, rows, problems = read(path)
    if problems:
        more = (
            f"; {len(problems) - 3:,} more: see `make validate FILE={path}`"
            if len(problems) > 3
            else ""
        )
        raise UserError("; ".join(problems[:3]) + more)
    if kind != MESSAGES:
        raise UserError(f"{path}:1: found a row of {kind}, expected the key messages")
    return rows


def _parts(path: Path, raw: bytes) -> Iterator[tuple[int, bytes]]:
    """The lines of a .jsonl file, or the elements of a .json list, each with the number of the line it begins in."""
    if raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise UserError(f"{path}:1: the file is UTF-16, expected UTF-8: save it as UTF-8")
    if not raw.removeprefix(codecs.BOM_UTF8).strip():
        return
    if path.suffix == ".jsonl":
        lines = raw.split(b"\n")
        yield from enumerate(lines if lines[-1] else lines[:-1], 1)
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
    """The elements of a JSON list, each with the number of its line. Raises UserError where the list itself is broken."""
    at, line = 0, 1

    def sign(expected: str) -> str:
        nonlocal at, line
        start = SPACE.match(text, at).end()  # type: ignore[union-attr]  # it matches everywhere
        line, at = line + text.count("\n", at, start), start
        found = text[at : at + 1]
        if expected and (not found or found not in expected):
            there = repr(text[at : at + 20]) if found else "the end of the file"
            raise UserError(
                f"{path}:{line}: not a JSON list: found {there}, expected {' or '.join(expected)}"
            )
        return found

    end = sign("[")
    while end != "]":
        at += 1
        if sign("") == "]" and end == "[":
            break
        try:
            _, stop = json.JSONDecoder().raw_decode(text, at)
        except json.JSONDecodeError as error:
            raise UserError(
                f"{path}:{error.lineno}: not JSON ({error.msg}): {text[error.pos : error.pos + 40]!r}"
            ) from None
        except RecursionError:
            raise UserError(
                f"{path}:{line}: JSON nested too deep: {text[at : at + 40]!r}"
            ) from None
        yield line, text[at:stop].encode()
        line, at = line + text.count("\n", at, stop), stop
        end = sign(",]")
    if rest := text[at + 1 :].strip():
        raise UserError(f"{path}:{line}: not a JSON list: found more after its end: {rest[:20]!r}")


def violations(kind: str, row: Row) -> list[str]:
    """What is wrong with a row of a file of this kind: place, rule and value found of each violation."""
    passes, authority = _validators(kind)
    found: dict[tuple[str, str], object] = {}
    if not passes(row):
        for error in authority.iter_errors(row):
            place = error.json_path.removeprefix("$").removeprefix(".")
            found[place, str(error.schema["description"])] = error.instance
    if kind != INSTRUCTIONS:
        found |= {(place, rule): value for place, rule, value in _unsaid(kind, row)}
    return [
        f"{place}: {rule}; found {_shown(value)}".removeprefix(": ")
        for (place, rule), value in found.items()
    ]


@cache
def _validators(kind: str) -> tuple[Callable[[Row], bool], Any]:
    """jsonschema-rs, which passes good rows quickly, and jsonschema, which says what is wrong with the others."""
    import jsonschema_rs
    from jsonschema import Draft202012Validator

    schema = json.loads(params.read_text(ROOT / "schemas" / f"{kind}.json"))
    return jsonschema_rs.validator_for(schema).is_valid, Draft202012Validator(schema)


def _unsaid(kind: str, row: Row) -> Iterator[tuple[str, str, object]]:
    """The rules that a schema cannot say: user and assistant take turns, and the two answers of a preference differ."""
    name, last, rule = (
        (
            "messages",
            "assistant",
            "pairs of user and assistant, at least one: the last message is the assistant's",
        )
        if kind == MESSAGES
        else ("prompt", "user", "the last message of a prompt is the user's")
    )
    messages = row.get(name)
    if isinstance(messages, list) and messages:
        roles = [one.get("role") if isinstance(one, dict) else None for one in messages]
        turns = [(i, role) for i, role in enumerate(roles) if role != "system"]
        for (_, before), (i, role) in pairwise(turns):
            if role == before and role in ("user", "assistant"):
                yield f"{name}[{i}].role", "user and assistant take turns", role
        if roles[-1] != last and roles[-1] in ("system", "user", "assistant"):
            yield f"{name}[{len(roles) - 1}].role", rule, roles[-1]
    two = [row.get("chosen"), row.get("rejected")]
    if (
        kind == PREFERENCES
        and isinstance(two[0], str)
        and isinstance(two[1], str)
        and squeeze(two[0]) == squeeze(two[1])
    ):
        yield "rejected", "chosen and rejected differ in more than white space", two[1]


def _shown(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."


def summary(path: str | Path, found: File) -> str:
    """A file without violations in one line: rows, characters, roles, and what is not used."""
    texts, roles, ignored = 0, Counter[str](), Counter[str]()
    for row in found.rows:
        chat: list[Row] = next(
            (row[key] for key in ("messages", "prompt") if isinstance(row.get(key), list)), []
        )
        roles.update(one["role"] for one in chat)
        values = [one["content"] for one in chat] + [
            row[key] for key in TEXTS if isinstance(row.get(key), str)
        ]
        texts += sum(map(len, values))
        ignored.update({key for part in (row, *chat) for key in part} - KEYS[found.kind])
    parts = [f"{len(found.rows):,} rows of {found.kind}", f"{texts:,} characters"]
    parts += [f"{count:,} {role}" for role, count in roles.items()]
    if found.kind == INSTRUCTIONS:
        parts.append(f"{sum('output' in row for row in found.rows):,} with an output")
    parts += [f"key {key} in {count:,} rows is not used" for key, count in ignored.items()]
    raw = Path(path).read_bytes()
    parts += ["it begins with a byte order mark, which does no harm here"] * raw.startswith(
        codecs.BOM_UTF8
    )
    parts += ["its lines end in CRLF, which does no harm here"] * (b"\r\n" in raw)
    return f"validate: {path}: " + ", ".join(parts)


def main() -> None:
    if len(sys.argv) != 2 or not sys.argv[1]:
        raise UserError("expected a file: make validate FILE=data/TASK/messages.jsonl")
    path = sys.argv[1]
    found = read(path)
    print(*found.problems[:SHOWN], sep="\n") if found.problems else print(summary(path, found))
    if found.problems:
        more = f", the first {SHOWN} are above" if len(found.problems) > SHOWN else ""
        raise UserError(
            f"{path}: {len(found.problems):,} violations{more}: mend them and validate again"
        )


if __name__ == "__main__":
    errors.run(main)
