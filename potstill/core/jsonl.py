"""JSON lines in and out; whatever is wrong is said with its file and line.

Files that stages make (2-answers.jsonl, 4-pairs/pairs.jsonl) are sealed: each line ends in the
CRC-32 of what stands before it, so that whoever reads a row finds that it was changed after it was
written. The seal is no key of the row.
"""

import hashlib
import json
import re
import shutil
import unicodedata
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

from potstill.core.errors import UserError

Row = dict[str, Any]
File = str | Path
SEAL = b', "crc": "'  # then eight hex digits and "}
_UNSEEN = ("Cc", "Cf", "Cs", "Zl", "Zp")
_BLANK = "\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0"  # of other categories
_UNWRITABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")


def row_id(input: Row) -> str:
    """The id of a row from seed to prediction: 16 hex digits, the hash of its canonical input."""
    canonical = json.dumps(input, ensure_ascii=False, sort_keys=True)
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def unwritable(text: str) -> str | None:
    """The first sign of a text that no row should hold: half a surrogate pair, which cannot be
    written, or a control character other than tab and line break. None where there is none."""
    if not (found := _UNWRITABLE.search(text)):
        return None
    kind = "half a surrogate pair" if found[0] >= "\ud800" else "a control character"
    return f"{kind} (U+{ord(found[0]):04X}) in the text"


def writable(text: str) -> str:
    """The text with U+FFFD for each such sign."""
    return _UNWRITABLE.sub("\ufffd", text)


def spelt(text: str) -> str:
    """The text with what would not be seen, or would reorder or hide what is, spelt out: control
    and format characters, line and paragraph separators, and letters that show nothing. Tabs and
    line breaks stay."""
    unseen = (c for c in set(text) - {"\n", "\t"} if unicodedata.category(c) in _UNSEEN)
    return text.translate({ord(c): ascii(c)[1:-1] for c in (*unseen, *_BLANK)})


def squeeze(text: str) -> str:
    """The text without any white space, for comparisons in which white space does not count."""
    return "".join(text.split())


def check_ids(path: File, rows: list[Row], fields: list[str]) -> None:
    """Raises UserError for the first row of a file whose id is not that of its input `fields`."""
    for number, row in enumerate(rows, 1):
        right = row_id({name: row[name] for name in fields})
        if row["id"] != right:
            wrong = f"id is {row['id']}, but the id of this input is {right}"
            raise UserError(f"{path}:{number}: {wrong}: one of the two was changed; put it right")


def read_jsonl(path: File, required: Sequence[str] = ()) -> list[Row]:
    """The rows of a file, row i from line i + 1. Raises UserError, with file and line, as
    `parse_lines` does, and for an id that is there twice with the same `sample`, or none."""
    lines = list(read_lines(path))
    rows = list(parse_lines(lines, path, is_sealed(path, lines), required))
    seen: dict[tuple[Any, Any], int] = {}
    for number, row in enumerate(rows, 1):
        first = seen.setdefault((row["id"], row.get("sample")), number) if "id" in row else number
        if first != number:
            twice = f"id {row['id']} stands in line {first} already"
            raise UserError(f"{path}:{number}: {twice}: delete one of the two")
    return rows


def read_some(path: File, *required: str) -> list[Row]:
    """The rows of a file, as `read_jsonl`; [] where it is missing or empty."""
    full = Path(path).is_file() and Path(path).stat().st_size
    return read_jsonl(path, required) if full else []


def read_lines(path: File) -> Iterator[bytes]:
    """The lines of a file, one after the other, without their ends. Raises UserError when the file
    is missing or empty."""
    if not Path(path).is_file():
        remedy = f"run `dvc repro`, or `git checkout {path}` when it belongs to git"
        raise UserError(f"{path} is missing: {remedy}")
    with Path(path).open("rb") as file:
        line = None
        for line in file:
            yield line.removesuffix(b"\n")
    if line is None:
        raise UserError(f"{path} is empty, expected one JSON object a line")


def is_sealed(path: File, lines: Iterable[bytes]) -> bool:
    """Whether each of these lines of a file must have a seal: one of them has it."""
    return _made_by_a_stage(path) and any(raw[-20:-10] == SEAL for raw in lines)


def parse_lines(
    lines: Iterable[bytes], path: File, sealed: bool, required: Sequence[str] = (), first: int = 1
) -> Iterator[Row]:
    """The rows of some lines of a file, the first of which has the number `first`. Raises UserError
    for a line that is no object, is not as it was sealed, or lacks a `required` key."""
    for number, raw in enumerate(lines, first):
        where = f"{path}:{number}"
        row = parse_row(_unseal(raw, where) if sealed else raw, where)
        for key in required:
            if key not in row:
                keys = ", ".join(required)
                raise UserError(f"{where}: key {key!r} is missing, expected the keys {keys}")
        if "id" in row and (not isinstance(row["id"], str) or not row["id"]):
            raise UserError(f"{where}: id is {row['id']!r}, expected a text")
        yield row


def parse_row(raw: bytes, where: str) -> Row:
    """One line as an object. Raises UserError, beginning with `where`, when it is none."""
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        byte = error.start + 1
        raise UserError(f"{where}: byte {byte} is not UTF-8: save the file as UTF-8") from None
    if not text.strip():
        raise UserError(f"{where}: the line is blank, expected one JSON object: delete the line")
    row = _parse_json(text, where)
    if not isinstance(row, dict):
        raise UserError(f"{where}: found a {type(row).__name__}, expected one JSON object a line")
    return row


def read_json(path: File) -> Row:
    """The object of a JSON file that a stage wrote. Raises UserError when the file is missing or
    holds none."""
    if not Path(path).is_file():
        raise UserError(f"{path} is missing: run `dvc repro`")
    document = _parse_json(Path(path).read_text(encoding="utf-8"), str(path))
    if not isinstance(document, dict):
        found = f"found a {type(document).__name__}"
        raise UserError(f"{path}: {found}, expected one JSON object: run `dvc repro`")
    return document


def _parse_json(text: str, where: str) -> Any:
    """A JSON document of which nothing would be lost: no key twice, no NaN, no half characters.
    Raises UserError, beginning with `where`, for any other."""
    try:
        document = DECODER.decode(text)
        if "\\u" in text:  # half a surrogate pair is JSON, but no text that can be written again
            json.dumps(document, ensure_ascii=False).encode()
        return document
    except json.JSONDecodeError as error:
        wrong = f"not JSON ({error.msg} at character {error.pos + 1}): {text[:40]!r}"
    except UnicodeEncodeError:
        wrong = "half a surrogate pair (\\ud800 to \\udfff alone), expected whole characters"
    except ValueError as error:
        wrong = str(error)
    except RecursionError:
        wrong = f"JSON nested too deep: {text[:40]!r}"
    raise UserError(f"{where}: {wrong}")


def _once(pairs: list[tuple[str, Any]]) -> Row:
    row = dict(pairs)
    if len(row) != len(pairs):
        keys = [key for key, _ in pairs]
        twice = ascii(next(key for key in keys if keys.count(key) > 1))[1:-1]
        raise ValueError(f"key {twice!r} stands there twice, expected once: delete one of the two")
    return row


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON, expected a number or null")


DECODER = json.JSONDecoder(object_pairs_hook=_once, parse_constant=_no_constant)


def _seal(line: str) -> str:
    return f'{line[:-1]}{SEAL.decode()}{zlib.crc32(line.encode()):08x}"}}'


def _unseal(raw: bytes, where: str) -> bytes:
    """The line without its seal. Raises UserError when that is missing or not the line's own."""
    body = raw[:-20] + b"}"
    if raw[-20:-10] == SEAL and raw[-10:] == b'%08x"}' % zlib.crc32(body):
        return body
    parse_row(raw, where)  # a torn line says so itself
    remedy = "run `dvc repro`, which makes the file anew"
    raise UserError(f"{where}: the row is not as it was written: {remedy}")


def _made_by_a_stage(path: File) -> bool:
    """Whether a .jsonl file, or one of the two folders that it is in, has a number."""
    parts = Path(path).parts[-3:]
    return Path(path).suffix == ".jsonl" and any(re.match(r"[1-9]-.", part) for part in parts)


def dump_lines(rows: Iterable[Row], path: File) -> Iterator[str]:
    """The lines that these rows are in the file `path`."""
    sealed = _made_by_a_stage(path)
    for row in rows:
        line = json.dumps(row, ensure_ascii=False)
        yield (_seal(line) if sealed else line) + "\n"


def write_jsonl(path: File, rows: Iterable[Row]) -> int:
    """Writes one JSON object a line, in the order given, all or nothing; returns how many."""
    return write_parts(path, dump_lines(rows, path))


def write_some(path: File, rows: list[Row]) -> None:
    """Writes the rows, as `write_jsonl`; no file where there are none."""
    if rows:
        write_jsonl(path, rows)


def write_json(path: File, document: object) -> None:
    """Writes one indented JSON document, all or nothing."""
    write_text(path, json.dumps(document, ensure_ascii=False, indent=2) + "\n")


def write_text(path: File, text: str) -> None:
    """Writes a text, all or nothing."""
    write_parts(path, [text])


def write_parts(path: File, parts: Iterable[str]) -> int:
    """Writes text to a temporary name and renames it last: a file that exists is complete. Returns
    how many parts it has."""
    path, count = Path(path), 0
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    try:
        with part.open("w", encoding="utf-8", newline="\n") as file:
            for count, text in enumerate(parts, 1):  # noqa: B007
                file.write(text)
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    return count


def fresh_folder(path: Path) -> Path:
    """The folder, made empty: a stage's output folder holds what this run of it writes."""
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
    return path
