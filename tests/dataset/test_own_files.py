"""A user's file is taken for what is in it; each of its rows is a record, or a record's fault."""

import bz2
import csv
import gzip
import importlib
import io
import json
import re
import zipfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from potstill.core.errors import UserError
from potstill.dataset import own_files
from potstill.dataset.own_files import Found

ROWS = [{"a": "1", "b": "x"}, {"a": "2", "b": "y"}]


def read(content: str | bytes, name: str = "f") -> Found:
    Path(name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return own_files.read(Path(name))


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


LINES = "".join(json.dumps(row) + "\n" for row in ROWS)
INDENTED = json.dumps({"n": 1, "rows": ROWS}, indent=1)


@pytest.mark.parametrize(
    ("content", "what", "lines"),
    [
        ("a,b\n1,x\n2,y\n", "CSV", [2, 3]),
        ("a,b\r\n1,x\r\n2,y", "CSV", [2, 3]),
        ("\n a , b,,\n1,x\n,,,\n\n2,y,,\n", "CSV", [3, 6]),
        ("a;b\n1;x\n2;y\n", "CSV, separated by ;", [2, 3]),
        ("sep=;\na;b\n1;x\n2;y\n", "CSV, separated by ;", [3, 4]),
        ("a|b\n1|x\n2|y\n", "CSV, separated by |", [2, 3]),
        ("a\tb\n1\tx\n2\ty\n", "TSV", [2, 3]),
        ("a,b\n1,x\n2,y\n".encode("utf-16"), "CSV", [2, 3]),
        ("\ufeffa,b\n1,x\n2,y\n", "CSV", [2, 3]),
        (json.dumps(ROWS), "a JSON list", [1, 1]),
        (json.dumps(ROWS, indent=1), "a JSON list", [2, 6]),
        (json.dumps(ROWS).encode("utf-32"), "a JSON list", [1, 1]),
        (INDENTED, "the JSON list under 'rows'", [4, 8]),
        (json.dumps({"rows": ROWS, "k": {"x": "]"}}), "the JSON list under 'rows'", [1, 1]),
        (LINES, "JSON Lines", [1, 2]),
        ("\ufeff" + LINES.replace("\n", "\r\n"), "JSON Lines", [1, 2]),
        (LINES.replace("\n", "\n\n"), "JSON Lines", [1, 3]),
        (LINES.replace("\n", "\r"), "JSON Lines", [1, 2]),
        ("\n".join(json.dumps(row, indent=1) for row in ROWS), "JSON objects", [1, 5]),
        (
            "".join(json.dumps({"line": 7, "reason": "r", "row": row}) + "\n" for row in ROWS),
            "JSON Lines",
            [1, 2],
        ),
    ],
)
def test_a_file_is_taken_for_what_is_in_it(content: Any, what: str, lines: list[int]) -> None:
    found = read(content)
    assert (found.what, found.broken) == (what, "")
    assert [one.row for one in found.records] == ROWS
    assert [one.line for one in found.records] == lines


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
@pytest.mark.parametrize(
    "text",
    [
        "a,b\n1,x\n",
        "文本,标签\n一一一一一一一一一一一一,退货\n耳机坏了\u3000\u3000怎么办,售后\n",  # 一: U+4E00
        "🪑 chair;é\r\nß;¥\r\n",
        json.dumps({"text": "一" * 4, "output": "好"}, ensure_ascii=False),
    ],
)
def test_a_byte_order_mark_may_be_missing(text: str, encoding: str) -> None:
    marked, bare = read(text.encode(encoding[:6])), read(text.encode(encoding))
    assert bare.records == marked.records and not any(one.fault for one in bare.records)
    assert bare.marks[0] == f"it is {encoding.upper()}"


@pytest.mark.parametrize("at", [6, 7])
def test_a_stray_nul_byte_makes_no_utf_16(at: int) -> None:
    raw = b"a,b\n1,x" + b"\n2,yy" * 11
    found = read(raw[:at] + b"\0" + raw[at + 1 :])
    assert found.marks == () and len(found.records) in (11, 12)


def test_parquet_keeps_numbers_dates_and_lists() -> None:
    pyarrow, parquet = map(importlib.import_module, ("pyarrow", "pyarrow.parquet"))
    table = pyarrow.table({"n": [1, None], "t": ["a", "b"], "l": [[{"x": 1}], None]})
    parquet.write_table(table, "f.csv")
    found = own_files.read(Path("f.csv"))
    assert found.what == "Parquet"
    assert [(one.line, one.row) for one in found.records] == [
        (1, {"n": 1, "t": "a", "l": [{"x": 1}]}),
        (2, {"n": None, "t": "b", "l": None}),
    ]


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ("a,b\n1,x\n1,2,3\n", "3: found 3 cells, expected 2, one for each column"),
        ("a,b\n1,x\n1\n", "3: found 1 cells, expected 2, one for each column"),
        ('a,b\n1,x\n"1"2,3\n', "3: the quotation marks of the row do not match"),
        ('a,b\n1,x\n1,"x\n', "3: the quotation marks of the row do not match"),
        (b"a,b\n1,x\n\xff,2\n", "3: the row is not UTF-8: save the file as UTF-8"),
        (LINES.encode() + b'{"a": "\xff"}', "3: byte 8 is not UTF-8: save the file as UTF-8"),
        (LINES + "[1]", "3: found a list, expected one JSON object a line"),
        (LINES + '{"a": NaN}', "3: NaN is not JSON, expected a number or null"),
        (LINES + '{"a": 1, "a": 2}', "3: key 'a' stands there twice"),
        (LINES + '{"a": "\\ud83d"}', "3: half a surrogate pair"),
        (LINES + '{"a": "\x00"}', "3: not JSON (Invalid control character"),
        (LINES + '{"a": ' + "1" * 5000 + "}", "3: Exceeds the limit"),
        (LINES + '{"a": ' + "[" * 100_000, "3: JSON nested too deep"),
        (json.dumps([*ROWS, 7]), "1: found a int, expected one JSON object a line"),
        (json.dumps(ROWS)[:-1] + ', {"a": ' + "1" * 5000 + "}]", "1: Exceeds the limit"),
    ],
)
def test_what_is_no_row_is_a_record_with_its_fault(content: str | bytes, fault: str) -> None:
    found = read(content)
    assert found.broken == ""
    faults = [f"{one.line}: {one.fault}" for one in found.records if one.fault]
    assert len(faults) == 1
    assert faults[0].startswith(fault)
    assert len(found.records) in (2, 3)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "f:1: the file is empty"),
        (" \n\n", "f:1: the file is empty"),
        ("a,b\n", "f:1: the file is empty"),
        ("[]", "f:1: the file is empty"),
        ('a,b\n1,x\n1,"x\ny\n', "f:3: the row goes on to line 4, where the quotation marks"),
        ("[\n{\"a\":\n 'a'}]", "f:3: not JSON (Expecting value): \"'a'}]\""),
        ('[{"a": 1}\n {"b": 2}]', "f:2: not a JSON list: found '{\"b\": 2}]', expected , or ]"),
        ('[{"a": 1},\n]', "f:2: not JSON (Expecting value): ']'"),
        ('[{"a": 1}', "f:1: not a JSON list: found the end of the file, expected , or ]"),
        ('[{"a": 1}] []', "f:1: not a JSON list: found more after its end: '[]'"),
        ('{\n"a": 1\n}\n{\n"a": 2,\n}', "f:4: not JSON"),
        ("[" * 100_000, "f:1: JSON nested too deep"),
        (b"a\xff,b\n1,x\n", "f:1: the row is not UTF-8"),
    ],
)
def test_where_the_rest_cannot_be_read(content: str | bytes, says: str) -> None:
    assert read(content).broken.startswith(says)


def archive() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as file:
        file.writestr("a.csv", "a,b\n1,x\n")
    return out.getvalue()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (gzip.compress(b"a", mtime=0), "found a gzip archive: unpack it"),
        (bz2.compress(b"a"), "found a bzip2 archive: unpack it"),
        (archive(), "found a ZIP archive: unpack it"),
        (b"%PDF-1.7", "found a PDF"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an old Excel file (.xls): save it as CSV"),
        (b"PAR1 and nothing more", "not readable as Parquet"),
        (bytes(2000), "NUL bytes"),
        ("a,b\n1,x\n".encode("utf-16-le") + b"\0", "NUL bytes, as of no text, or of UTF-16 that"),
        (("a,b\n1,x\n" + "\0" * 9).encode("utf-16-le"), "NUL bytes, as of no text, or of UTF-16"),
        ("a,b\n".encode("utf-16")[:-1], "is not UTF-16: save the file as UTF-8"),
        ("a,a\n1,2\n", "f:1: column 'a' stands there twice: rename one of the two"),
        (json.dumps({"train": ROWS, "test": ROWS}), "several lists ('train', 'test')"),
    ],
)
def test_what_is_no_file_of_rows_is_named(content: str | bytes, says: str) -> None:
    with pytest.raises(UserError, match=re.escape(says)):
        read(content)


def test_excel() -> None:
    openpyxl = importlib.import_module("openpyxl")
    book = openpyxl.Workbook()  # whose first sheet stays empty
    sheet = book.create_sheet()
    for row in ((None,), ("a", "b"), (1, "x"), (None, None), ("2", True)):
        sheet.append(row)
    book.save("f.xlsx")
    found = own_files.read(Path("f.xlsx"))
    assert [(one.line, one.row) for one in found.records] == [
        (3, {"a": 1, "b": "x"}),
        (5, {"a": "2", "b": True}),
    ]
    assert found.blank == 1
    book.create_sheet().append(("c",))
    book.save("f.xlsx")
    with pytest.raises(UserError, match="2 sheets have rows, expected one"):
        own_files.read(Path("f.xlsx"))


def test_a_broken_workbook_is_one_sentence() -> None:
    with zipfile.ZipFile("f.xlsx", "w") as file:
        file.writestr("xl/workbook.xml", "<workbook/>")
    with pytest.raises(UserError, match=r"^f\.xlsx: not readable as Excel .*: save it as CSV$"):
        own_files.read(Path("f.xlsx"))


@pytest.mark.parametrize("path", ["none.csv", "."])
def test_no_such_file(path: str) -> None:
    with pytest.raises(UserError, match="give the path of"):
        own_files.read(Path(path))


TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=12)
NAME = st.text("abcxyz", min_size=1, max_size=5)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(NAME, min_size=2, max_size=4, unique=True).flatmap(
        lambda names: st.tuples(
            st.just(names), st.lists(st.tuples(*[TEXT] * len(names)), min_size=1, max_size=5)
        )
    ),
    st.sampled_from(",;\t|"),
    st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
    st.sampled_from(["\n", "\r\n"]),
)
def test_what_a_csv_writer_wrote_is_read_as_it_was(
    tmp_path_factory: pytest.TempPathFactory,
    table: tuple[list[str], list[tuple[str, ...]]],
    delimiter: str,
    encoding: str,
    end: str,
) -> None:
    names, rows = table
    out = io.StringIO(newline="")
    csv.writer(out, delimiter=delimiter, quoting=csv.QUOTE_ALL, lineterminator=end).writerows(
        [names, *rows]
    )
    path = tmp_path_factory.getbasetemp() / "table"
    path.write_bytes(out.getvalue().encode(encoding))
    found = own_files.read(path)
    wanted = [{n: c for n, c in zip(names, row, strict=True) if c.strip()} for row in rows]
    assert [one.row for one in found.records] == [row for row in wanted if row]
    assert found.blank == sum(not row for row in wanted)
