"""JSON lines in and out, with the file and line of whatever is wrong.

Files that stages make (2-answers.jsonl, 4-pairs/pairs.jsonl) are sealed: each line ends in the
CRC-32 of what stands before it, so that a row which was changed after it was written is found by
whoever reads it next. The seal is no key of the row.
"""

import hashlib
import json
import re
import shutil
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NoReturn

from potstill.core.errors import UserError

Row = dict[str, Any]
SEAL = b', "crc": "'  # then eight hex digits and "}


def row_id(input: Row) -> str:
    """The id that a row keeps from seed to prediction: 16 hex digits, the hash of its canonical input."""
    canonical = json.dumps(input, ensure_ascii=False, sort_keys=True)
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def squeeze(text: str) -> str:
    """The text without any white space: what is compared when white space does not count."""
    return "".join(text.split())


def check_ids(path: str | Path, rows: list[Row], fields: Iterable[str]) -> None:
    """Raises UserError for the first of a file's rows whose id is not that of its input, the `fields`."""
    fields = tuple(fields)
    for number, row in enumerate(rows, 1):
        right = row_id({name: row[name] for name in fields})
        if row["id"] != right:
            raise UserError(
                f"{path}:{number}: id is {row['id']}, but the id of this input is {right}: one of the two was changed; "
                "put it right"
            )


def read_jsonl(path: str | Path, required: Iterable[str] = ()) -> list[Row]:
    """Rows of a JSON lines file, row i from line i + 1; every row must have the `required` keys.

    An `id` may occur once, or once for each `sample`. In a sealed file no line may lack its seal. Raises UserError with
    file and line.
    """
    lines = list(read_lines(path))
    rows: list[Row] = []
    seen: dict[tuple[Any, Any], int] = {}
    for number, row in enumerate(parse_lines(lines, path, is_sealed(path, lines), required), 1):
        if "id" in row:
            first = seen.setdefault((row["id"], row.get("sample")), number)
            if first != number:
                raise UserError(
                    f"{path}:{number}: id {row['id']} stands in line {first} already: delete one of the two"
                )
        rows.append(row)
    return rows


def read_lines(path: str | Path) -> Iterator[bytes]:
    """The lines of a file, one after the other, without their ends. Raises UserError when it is missing or empty."""
    try:
        file = Path(path).open("rb")  # noqa: SIM115  closed below
    except FileNotFoundError:
        raise UserError(
            f"{path} is missing: run `dvc repro`, or `git checkout {path}` when it belongs to git"
        ) from None
    with file:
        line = None
        for line in file:
            yield line.removesuffix(b"\n")
        if line is None:
            raise UserError(f"{path} is empty, expected one JSON object a line")


def is_sealed(path: str | Path, lines: Iterable[bytes]) -> bool:
    """Whether the lines of this file must have seals: any has one."""
    return _made_by_a_stage(path) and any(raw[-20:-10] == SEAL for raw in lines)


def parse_lines(
    lines: Iterable[bytes],
    path: str | Path,
    sealed: bool,
    required: Iterable[str] = (),
    first: int = 1,
) -> Iterator[Row]:
    """The rows of some lines of a file, the first of which has the number `first`. Raises UserError with file and line."""
    required = tuple(required)
    for number, raw in enumerate(lines, first):
        row = parse_row(_unseal(raw, f"{path}:{number}") if sealed else raw, f"{path}:{number}")
        for key in required:
            if key not in row:
                raise UserError(
                    f"{path}:{number}: key {key!r} is missing, expected the keys {', '.join(required)}"
                )
        if "id" in row and (not isinstance(row["id"], str) or not row["id"]):
            raise UserError(f"{path}:{number}: id is {row['id']!r}, expected a text")
        yield row


def parse_row(raw: bytes, where: str) -> Row:
    """One line as an object. Raises UserError that begins with `where`."""
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(
            f"{where}: byte {error.start + 1} is not UTF-8: save the file as UTF-8"
        ) from None
    if not text.strip():
        raise UserError(f"{where}: the line is blank, expected one JSON object: delete the line")
    row = parse_json(text, where)
    if not isinstance(row, dict):
        raise UserError(f"{where}: found a {type(row).__name__}, expected one JSON object a line")
    return row


def read_json(path: str | Path) -> Row:
    """The object of a JSON file that a stage wrote. Raises UserError when it is missing, or no JSON object."""
    try:
        found = parse_json(Path(path).read_text(encoding="utf-8"), str(path))
    except FileNotFoundError:
        raise UserError(f"{path} is missing: run `dvc repro`") from None
    if not isinstance(found, dict):
        raise UserError(
            f"{path}: found a {type(found).__name__}, expected one JSON object: run `dvc repro`"
        )
    return found


def parse_json(text: str, where: str) -> Any:
    """A JSON document of which no part would be lost: no key twice, no NaN, no half characters. Raises UserError that begins
    with `where`."""
    try:
        document = DECODER.decode(text)
        if (
            "\\u" in text
        ):  # a lone half of a surrogate pair is JSON, but no text that can be written again
            json.dumps(document, ensure_ascii=False).encode()
    except json.JSONDecodeError as error:
        raise UserError(
            f"{where}: not JSON ({error.msg} at character {error.pos + 1}): {text[:40]!r}"
        ) from None
    except UnicodeEncodeError:
        raise UserError(
            f"{where}: half a surrogate pair (\\ud800 to \\udfff alone), expected whole characters"
        ) from None
    except ValueError as error:
        raise UserError(f"{where}: {error}") from None
    except RecursionError:
        raise UserError(f"{where}: JSON nested too deep: {text[:40]!r}") from None
    return document


def _once(pairs: list[tuple[str, Any]]) -> Row:
    row = dict(pairs)
    if len(row) != len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(
            f"key {ascii(twice)[1:-1]!r} stands there twice, expected once: delete one of the two"
        )
    return row


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON, expected a number or null")


DECODER = json.JSONDecoder(object_pairs_hook=_once, parse_constant=_no_constant)


def _seal(line: str) -> str:
    return f'{line[:-1]}{SEAL.decode()}{zlib.crc32(line.encode()):08x}"}}'


def _unseal(raw: bytes, where: str) -> bytes:
    """The line without its seal. Raises UserError when it has none though it ends as rows do, or another."""
    body = raw[:-20] + b"}"
    if raw[-20:-10] == SEAL and raw[-10:] == b'%08x"}' % zlib.crc32(body):
        return body
    parse_row(raw, where)  # a torn line says so itself
    raise UserError(
        f"{where}: the row is not as it was written: run `dvc repro`, which makes the file anew"
    )


def _made_by_a_stage(path: str | Path) -> bool:
    """Whether a .jsonl file, or one of the two folders that it is in, has a number."""
    parts = Path(path).parts[-3:]
    return Path(path).suffix == ".jsonl" and any(re.match(r"[1-9]-.", part) for part in parts)


def write_text(path: str | Path, text: str) -> None:
    """Writes to a temporary name and renames last: a file that exists is complete."""
    write_parts(path, [text])


def write_jsonl(path: str | Path, rows: Iterable[Row]) -> int:
    """Writes one JSON object a line, in the order given, all or nothing; returns how many."""
    count = 0

    def lines() -> Iterator[str]:
        nonlocal count
        for line in dump_lines(rows, path):
            count += 1
            yield line

    write_parts(path, lines())
    return count


def dump_lines(rows: Iterable[Row], path: str | Path) -> Iterator[str]:
    """The lines that these rows are in the file `path`."""
    sealed = _made_by_a_stage(path)
    for row in rows:
        line = json.dumps(row, ensure_ascii=False)
        yield (_seal(line) if sealed else line) + "\n"


def write_parts(path: str | Path, parts: Iterable[str]) -> None:
    """Writes text that comes in parts, all or nothing."""
    path = Path(path)
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


def write_some(path: str | Path, rows: list[Row]) -> None:
    """Writes the rows, as `write_jsonl`; no file where there are none."""
    if rows:
        write_jsonl(path, rows)


def read_some(path: str | Path, *required: str) -> list[Row]:
    """The rows of a file, as `read_jsonl`; [] where it is missing or empty."""
    there = Path(path).is_file() and Path(path).stat().st_size
    return read_jsonl(path, required) if there else []


def fresh_folder(path: Path) -> Path:
    """The folder, made empty: a stage's output folder holds what this run of it writes."""
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
    return path
