"""A user's file → its rows, by what is in it and not by its name: JSON (a list, or an object with
one), JSON Lines, CSV with any of four delimiters, Parquet, Excel.

Nothing is lost on the way: what is no row becomes a record with its fault, and where the rest of a
file cannot be read, `broken` says so.
"""

import csv
import importlib
import io
import json
import re
import zipfile
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, cast

from potstill.core.errors import UserError
from potstill.core.jsonl import Row, parse_row
from potstill.dataset.own_text import KNOWN, decoded

NO_ROWS = {  # how files begin that are often given, and what to do with them
    b"\x1f\x8b": "a gzip archive: unpack it",
    b"BZh": "a bzip2 archive: unpack it",
    b"\xfd7zXZ": "an xz archive: unpack it",
    b"\x28\xb5\x2f\xfd": "a zstd archive: unpack it",
    b"\xd0\xcf\x11\xe0": "an old Excel file (.xls): save it as CSV",
    b"ARROW1": "an Arrow file: save it as Parquet",
    b"SQLite": "an SQLite database: export the table as CSV",
    b"%PDF": "a PDF: give the rows as a table",
}
CHATS = ("messages", "conversations", "conversation", "history", "prompt", "completion")
SIGN = re.compile(r"[ \t\r\n]*(.?)[ \t\r\n]*", re.DOTALL)
SCANNER = json.JSONDecoder(parse_int=str, parse_float=str)  # finds ends; the values don't matter
DELIMITERS = {",": "CSV", "\t": "TSV", ";": "CSV, separated by ;", "|": "CSV, separated by |"}
ONE_COLUMN = "\x1f"  # a delimiter that no text has


class Record(NamedTuple):
    """A row of a file, or the fault for which it is none. `line` is where it begins; in Excel and
    Parquet the row's number, the header of Excel being 1."""

    line: int
    row: Row
    raw: str = ""  # its text; "" in Excel and Parquet
    fault: str = ""


class Found(NamedTuple):
    """What a file was taken for, its records, how many blank lines were passed over, and the
    sentence about the place from which on nothing can be read, if there is one."""

    what: str
    records: list[Record]
    blank: int = 0
    broken: str = ""
    marks: tuple[str, ...] = ()  # what is unusual and does no harm


class _Broken(Exception):
    """The rest of the file cannot be read."""


def read(path: Path) -> Found:
    """The records of a file. Raises UserError when there is no such file, or one of no known
    kind."""
    if path.is_dir():
        raise UserError(f"{path} is a folder, expected a file: give the path of one, FILE=…")
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        raise UserError(f"{path} is missing: give the path of your file, FILE=…") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    for start, what in NO_ROWS.items():
        if raw.startswith(start):
            raise UserError(f"{path}: found {what}; {KNOWN}")
    what, records, blank = "", list[Record](), [0]
    marks: tuple[str, ...] = ()
    try:
        if raw.startswith(b"PAR1"):
            what, source = "Parquet", _parquet(path, raw)
        elif raw.startswith(b"PK\x03\x04"):
            what, source = "Excel", _cells(path, _excel(path), blank)
        else:
            text, marks = decoded(path, raw)
            what, source = _text(path, text, blank)
        for record in source:
            records.append(record)  # those before a break are kept
    except _Broken as error:
        return Found(what, records, blank[0], str(error), marks)
    if not records:
        empty = f"{path}:1: the file is empty, expected at least one row"
        return Found(what, records, blank[0], empty, marks)
    return Found(what, records, blank[0], "", marks)


def _text(path: Path, text: str, blank: list[int]) -> tuple[str, Iterator[Record]]:
    """What a text is, and its records. `blank[0]` becomes the number of blank lines."""
    start = text.lstrip()[:1]
    if start not in ("[", "{"):
        delimiter, lines = _delimiter(list(io.StringIO(text, newline="")))
        what = DELIMITERS.get(delimiter, "CSV of one column")
        return what, _cells(path, _csv(path, lines, delimiter), blank)
    text = text.replace("\r\n", "\n").replace("\r", "\n")  # neither stands in a text of JSON
    lines = text.split("\n")
    filled = [line for line in lines if line.strip()]
    first = _end(filled[0].strip(), 0)
    alone = first is not None and first == len(filled[0].strip())
    like_lines = sum(line.lstrip()[:1] == "{" for line in filled) * 2 > len(filled)
    if len(filled) > 1 and (alone or (start == "{" and like_lines)):
        return "JSON Lines", _lines(path, lines, blank)
    if start == "[":
        return "a JSON list", _parsed(path, _elements(path, text, 0))
    lists = _lists(text, text.index("{"))
    if len(lists) == 1:
        (key, place), *_ = lists.items()
        return f"the JSON list under {key!r}", _parsed(path, _elements(path, text, place, False))
    if lists:
        names = ", ".join(map(repr, lists))
        wrong = f"the object has several lists ({names}), expected one: save the one you want"
        raise UserError(f"{path}:1: {wrong} as a file of its own")
    if len(filled) == 1:
        return "JSON Lines", _lines(path, lines, blank)
    return "JSON objects", _parsed(path, _values(path, text))


def _lines(path: Path, lines: list[str], blank: list[int]) -> Iterator[Record]:
    """The records of JSON Lines."""
    while lines and not lines[-1].strip():
        lines.pop()
    for number, line in enumerate(lines, 1):
        if not line.strip():
            blank[0] += 1
        else:
            yield from _parsed(path, [(number, line)])


def _parsed(path: Path, parts: Iterable[tuple[int, str]]) -> Iterator[Record]:
    """The records of texts that are to be JSON objects, each with its line."""
    for number, text in parts:
        where = f"{path}:{number}"
        try:
            row = parse_row(text.encode("utf-8", "surrogatepass"), where)
            if row.keys() == {"line", "reason", "row"} and isinstance(row["row"], dict):
                row = row["row"]  # a line of a file of rejected rows, mended
            yield Record(number, row, text)
        except UserError as error:
            yield Record(number, {}, text, str(error).removeprefix(f"{where}: "))


def _end(text: str, at: int) -> int | None:
    """Where the JSON value that begins at `at` ends; None where there is none."""
    try:
        return SCANNER.raw_decode(text, at)[1]
    except (ValueError, RecursionError):
        return None


def _lists(text: str, at: int) -> dict[str, int]:
    """Of one JSON object, which begins at `at`: the keys that hold a list of objects, each with the
    place where that begins; none where the object is a row itself, or is broken."""
    try:
        whole, end = SCANNER.raw_decode(text, at)
    except (ValueError, RecursionError):
        return {}
    keys = [key for key, value in whole.items() if _is_list_of_objects(value)]
    if text[end:].strip() or not keys or any(key in whole for key in CHATS):
        return {}
    found: dict[str, int] = {}
    at += 1
    for _ in range(len(whole)):  # fewer where a key stands there twice
        key, at = SCANNER.raw_decode(text, _skip(text, at))
        at = _skip(text, _skip(text, at) + 1)  # behind the colon
        if key in keys:
            found[key] = at
        at = _skip(text, SCANNER.raw_decode(text, at)[1]) + 1  # behind the comma
    return found


def _is_list_of_objects(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(one, dict) for one in value)


def _skip(text: str, at: int) -> int:
    return cast(re.Match[str], SIGN.match(text, at)).start(1)


def _places(text: str) -> list[int]:
    return [match.start() for match in re.finditer("\n", text)]


def _values(path: Path, text: str) -> Iterator[tuple[int, str]]:
    """JSON values one after the other, each with the number of its line. Raises _Broken where one
    is no JSON."""
    breaks, at = _places(text), _skip(text, 0)
    while at < len(text):
        end, line = _end(text, at), bisect_left(breaks, at) + 1
        if end is None:
            raise _Broken(f"{path}:{line}: not JSON: {text[at : at + 40]!r}")
        yield line, text[at:end]
        at = _skip(text, end)


def _elements(path: Path, text: str, at: int, whole: bool = True) -> Iterator[tuple[int, str]]:
    """The elements of the JSON list at `at`, each with the number of its line. Raises _Broken where
    the list itself is broken, and with `whole` where anything stands behind it."""
    breaks = _places(text)

    def fault(at: int, says: str) -> _Broken:
        return _Broken(f"{path}:{bisect_left(breaks, at) + 1}: {says}")

    expected = ["["]
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
                _, stop = SCANNER.raw_decode(text, at)
            except json.JSONDecodeError as error:
                found = repr(text[error.pos : error.pos + 40])
                raise fault(error.pos, f"not JSON ({error.msg}): {found}") from None
            except RecursionError:
                raise fault(at, f"JSON nested too deep: {text[at : at + 40]!r}") from None
            yield bisect_left(breaks, at) + 1, text[at:stop]
            at, expected = stop, [",", "]"]
    if whole and (rest := text[at:].strip()):
        raise fault(start, f"not a JSON list: found more after its end: {rest[:20]!r}")


Cells = tuple[int, list[Any], str, str]  # line, cells, text, fault


def _delimiter(lines: list[str]) -> tuple[str, list[str]]:
    """The delimiter of a table and its lines: the one that cuts most rows into as many cells as the
    header, which has two at least; or what Excel's first line says (sep=;)."""
    if lines and (said := re.fullmatch(r"(?i)sep=(.)\s*", lines[0])):
        return said[1], ["\n", *lines[1:]]
    best, chosen = (0.0, 0), ONE_COLUMN
    for delimiter in DELIMITERS:
        rows = csv.reader(lines[:200], delimiter=delimiter)
        try:
            counts = [len(cells) for cells in islice(rows, 50) if any(map(str.strip, cells))]
        except csv.Error:
            continue
        if counts and counts[0] > 1:
            best, chosen = max(
                (best, chosen), ((counts.count(counts[0]) / len(counts), counts[0]), delimiter)
            )
    return chosen, lines


def _csv(path: Path, lines: list[str], delimiter: str) -> Iterator[Cells]:
    """The rows of a table in text. Raises _Broken where a quotation mark swallows further lines."""
    csv.field_size_limit(2**31 - 1)
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    while True:
        first = reader.line_num + 1
        cells, fault = [], ""
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            fault = f"the quotation marks of the row do not match ({error}): double those inside"
            if reader.line_num > first:
                where = f"{path}:{first}: the row goes on to line {reader.line_num}"
                raise _Broken(f"{where}, where {fault}") from None
        text = "".join(lines[first - 1 : reader.line_num])
        if re.search("[\ud800-\udfff]", text):
            fault = "the row is not UTF-8: save the file as UTF-8 (in Excel: CSV UTF-8)"
        yield first, cells, text, fault


def _excel(path: Path) -> Iterator[Cells]:
    """The rows of a workbook's only sheet that has any."""
    try:
        names = zipfile.ZipFile(path).namelist()
    except zipfile.BadZipFile:
        names = []
    if "xl/workbook.xml" not in names:
        raise UserError(f"{path}: found a ZIP archive: unpack it; {KNOWN}")
    openpyxl = importlib.import_module("openpyxl")
    try:
        book = openpyxl.load_workbook(path, read_only=True, data_only=True)
        found = [list(sheet.iter_rows(values_only=True)) for sheet in book.worksheets]
    except Exception as error:  # whatever a workbook can be: openpyxl has no exception of its own
        raise UserError(f"{path}: not readable as Excel ({error}): save it as CSV") from None
    sheets = [sheet for sheet in found if any(cell is not None for row in sheet for cell in row)]
    if len(sheets) > 1:
        raise UserError(f"{path}: {len(sheets)} sheets have rows, expected one: save it as CSV")
    for number, row in enumerate(sheets[0] if sheets else [], 1):
        yield number, [_plain(cell) for cell in row], "", ""


def _parquet(path: Path, raw: bytes) -> Iterator[Record]:
    """The rows of a Parquet file."""
    parquet = importlib.import_module("pyarrow.parquet")
    try:
        table = parquet.read_table(io.BytesIO(raw))
        names, rows = table.column_names, table.to_pylist()
    except Exception as error:  # pyarrow's own, OSError, what Python's types cannot hold
        says = str(error).strip().partition("\n")[0][:120]
        raise UserError(f"{path}: not readable as Parquet ({says}): save it as CSV") from None
    _refuse_twice(path, names)
    for number, row in enumerate(rows, 1):
        yield Record(number, {key: _plain(value) for key, value in row.items()})


def _plain(value: Any) -> Any:
    """A cell as JSON can hold it: a date or a decimal number is a text."""
    if value is None or isinstance(value, str | bool | int | float | bytes):
        return value  # bytes are no JSON, and are refused where they are used
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, dict):
        return {str(key): _plain(one) for key, one in value.items()}
    return value.isoformat() if hasattr(value, "isoformat") else str(value)


def _refuse_twice(path: Path, names: list[str]) -> None:
    for number, name in enumerate(names):
        if name in names[:number]:
            raise UserError(f"{path}:1: column {name!r} stands there twice: rename one of the two")


def _cells(path: Path, rows: Iterable[Cells], blank: list[int]) -> Iterator[Record]:
    """The records of a table: the first row that is not blank names the columns, and an empty cell
    is no value."""
    names: list[str] = []
    for line, cells, text, fault in rows:
        filled = [cell is not None and bool(str(cell).strip()) for cell in cells]
        if not fault and not any(filled):
            blank[0] += bool(names)
        elif not names:
            if fault:
                raise _Broken(f"{path}:{line}: {fault}")
            names = [
                str(cell or "").strip() for cell in cells[: len(filled) - filled[::-1].index(True)]
            ]
            _refuse_twice(path, [name for name in names if name])
            names = [name or f"column {number}" for number, name in enumerate(names, 1)]
        else:
            if not fault and (len(cells) < len(names) or any(filled[len(names) :])):
                fault = f"found {len(cells)} cells, expected {len(names)}, one for each column"
            row = {n: c for n, c, full in zip(names, cells, filled, strict=False) if full}
            yield Record(line, {} if fault else row, text, fault)
