"""JSON lines in and out, with the file and line of whatever is wrong."""

import hashlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from potstill.errors import UserError

Row = dict[str, Any]


def row_id(input: Row) -> str:
    """The id that a row keeps from seed to prediction: 16 hex digits, the hash of its canonical input."""
    canonical = json.dumps(input, ensure_ascii=False, sort_keys=True)
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def squeeze(text: str) -> str:
    """The text without any white space: what is compared when white space does not count."""
    return "".join(text.split())


def read_jsonl(path: str | Path, required: Iterable[str] = ()) -> list[Row]:
    """Rows of a JSON lines file, row i from line i + 1; every row must have the `required` keys.

    An `id` may occur once, or once for each `sample`. Raises UserError with file and line.
    """
    path, required = Path(path), tuple(required)
    try:
        lines = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        raise UserError(
            f"{path} is missing: run `dvc repro`, or `git checkout {path}` when it belongs to git"
        ) from None
    if not lines[-1]:
        lines.pop()
    if not lines:
        raise UserError(f"{path} is empty, expected one JSON object a line")
    rows: list[Row] = []
    seen: dict[tuple[Any, Any], int] = {}
    for number, raw in enumerate(lines, 1):
        row = parse_row(raw, f"{path}:{number}")
        for key in required:
            if key not in row:
                raise UserError(f"{path}:{number}: key {key!r} is missing, expected the keys {', '.join(required)}")
        if "id" in row:
            if not isinstance(row["id"], str) or not row["id"]:
                raise UserError(f"{path}:{number}: id is {row['id']!r}, expected a text")
            first = seen.setdefault((row["id"], row.get("sample")), number)
            if first != number:
                raise UserError(
                    f"{path}:{number}: id {row['id']} stands in line {first} already: delete one of the two"
                )
        rows.append(row)
    return rows


def parse_row(raw: bytes, where: str) -> Row:
    """One line as an object. Raises UserError that begins with `where`."""
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{where}: byte {error.start + 1} is not UTF-8: save the file as UTF-8") from None
    if not text.strip():
        raise UserError(f"{where}: the line is blank, expected one JSON object: delete the line")
    try:
        row = json.loads(text)
        if "\\u" in text:  # a lone half of a surrogate pair is JSON, but no text that can be written again
            json.dumps(row, ensure_ascii=False).encode()
    except json.JSONDecodeError as error:
        raise UserError(f"{where}: not JSON ({error.msg} at character {error.pos + 1}): {text[:40]!r}") from None
    except UnicodeEncodeError:
        raise UserError(
            f"{where}: half a surrogate pair (\\ud800 to \\udfff alone), expected whole characters"
        ) from None
    if not isinstance(row, dict):
        raise UserError(f"{where}: found a {type(row).__name__}, expected one JSON object a line")
    return row


def write_text(path: str | Path, text: str) -> None:
    """Writes to a temporary name and renames last: a file that exists is complete."""
    _write(Path(path), [text])


def write_jsonl(path: str | Path, rows: Iterable[Row]) -> int:
    """Writes one JSON object a line, in the order given, all or nothing; returns how many."""
    count = 0

    def lines() -> Iterator[str]:
        nonlocal count
        for row in rows:
            count += 1
            yield json.dumps(row, ensure_ascii=False) + "\n"

    _write(Path(path), lines())
    return count


def _write(path: Path, parts: Iterable[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    try:
        with part.open("w", encoding="utf-8", newline="\n") as file:
            file.writelines(parts)
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def write_json(path: str | Path, obj: object) -> None:
    """Writes one indented JSON document, all or nothing."""
    write_text(path, json.dumps(obj, ensure_ascii=False, indent=2) + "\n")
