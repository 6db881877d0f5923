"""potstill.core.jsonl: what is wrong is said with file and line; a file is written whole or not."""

import contextlib
import json
import re
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from potstill.core import jsonl
from potstill.core.errors import UserError


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (
            b'{"id": "a", "text": "x"}\n{"id": "b" "text"}\n',
            "f.jsonl:2: not JSON (Expecting ',' delimiter at character 12)",
        ),
        (b'{"id": "a", "text": "x"}\n{"id": "b", "te', "f.jsonl:2: not JSON (Unterminated string"),
        (
            b'{"id": "a", "text": "\xd6\xd0"}\n',
            "f.jsonl:1: byte 22 is not UTF-8: save the file as UTF-8",
        ),
        (b'{"id": "a", "text": "x"}\n\n{"id": "b", "text": "y"}\n', "f.jsonl:2: the line is blank"),
        (b'["a", "b"]\n', "f.jsonl:1: found a list, expected one JSON object a line"),
        (b'{"id": "a"}\n', "f.jsonl:1: key 'text' is missing, expected the keys id, text"),
        (
            b'{"id": "a", "text": "x"}\n{"id": "b", "text": "y"}\n{"id": "a", "text": "z"}\n',
            "f.jsonl:3: id a stands in line 1",
        ),
        (b'{"id": 7, "text": "x"}\n', "f.jsonl:1: id is 7, expected a text"),
        (b'{"id": "a", "text": "\\ud83d"}\n', "f.jsonl:1: half a surrogate pair"),
        (
            b'{"id": "a", "text": Infinity}\n',
            "f.jsonl:1: Infinity is not JSON, expected a number or null",
        ),
        (
            b'{"id": "a", "text": {"x": 1, "x": 2}}\n',
            "f.jsonl:1: key 'x' stands there twice, expected once",
        ),
        (b'{"id": ' + b"[" * 100_000, "f.jsonl:1: JSON nested too deep"),
        (b"", "f.jsonl is empty, expected one JSON object a line"),
    ],
)
def test_a_bad_file_is_one_sentence(tmp_path: Path, content: bytes, expected: str) -> None:
    path = tmp_path / "f.jsonl"
    path.write_bytes(content)
    with pytest.raises(UserError, match=re.escape(expected)) as error:
        jsonl.read_jsonl(path, ("id", "text"))
    assert "\n" not in str(error.value)


def test_a_missing_file_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere.jsonl is missing: run `dvc repro`"):
        jsonl.read_jsonl(tmp_path / "nowhere.jsonl")


def test_what_is_written_is_read_again_and_readable(tmp_path: Path) -> None:
    path = tmp_path / "new" / "f.jsonl"
    written = [{"id": "b", "text": "人民路25号\n\u2028 😀"}, {"id": "a", "text": 'tab\t"quoted"'}]
    jsonl.write_jsonl(path, written)
    assert jsonl.read_jsonl(path, ("id", "text")) == written
    assert "人民路25号" in path.read_text(encoding="utf-8")
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())  # as some editors save it
    assert jsonl.read_jsonl(path)[0]["id"] == "b"
    assert len(jsonl.read_jsonl(_samples(tmp_path))) == 2


def _samples(folder: Path) -> Path:
    jsonl.write_jsonl(folder / "s.jsonl", [{"id": "a", "sample": 0}, {"id": "a", "sample": 1}])
    return folder / "s.jsonl"


SEALED = [{"id": "a", "text": "中"}, {"id": "b", "text": "x"}]


def test_what_stages_write_is_sealed_and_nobody_sees_it(tmp_path: Path) -> None:
    path = tmp_path / "3-kept.jsonl"
    jsonl.write_jsonl(path, SEALED)
    assert jsonl.read_jsonl(path) == SEALED
    crc = f"{zlib.crc32(json.dumps(SEALED[0], ensure_ascii=False).encode()):08x}"
    assert json.loads(path.read_text(encoding="utf-8").splitlines()[0]) == SEALED[0] | {"crc": crc}
    jsonl.write_jsonl(tmp_path / "gold.jsonl", SEALED)  # a person's file
    assert '"crc"' not in (tmp_path / "gold.jsonl").read_text()
    path.write_text('{"id": "a"}\n')  # from before there were seals
    assert jsonl.read_jsonl(path) == [{"id": "a"}]


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_no_changed_byte_goes_through_a_seal(data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "3-kept.jsonl")
        jsonl.write_jsonl(path, SEALED)
        raw = bytearray(path.read_bytes())
        at = data.draw(st.integers(0, len(raw) - 1))
        raw[at] = data.draw(st.integers(0, 255).filter(lambda byte: byte != raw[at]))
        path.write_bytes(raw)
        with contextlib.suppress(UserError):
            assert (
                jsonl.read_jsonl(path) == SEALED
            )  # what is read is what was written: white space after the last row


@pytest.mark.parametrize("cut", [1, 5, 20, 21, 25])
def test_a_row_without_its_seal_among_sealed_ones(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "3-kept.jsonl"
    jsonl.write_jsonl(path, SEALED)
    lines = path.read_bytes().splitlines()
    path.write_bytes(lines[0][:-20] + b"}\n" + lines[1])
    with pytest.raises(
        UserError, match="3-kept.jsonl:1: the row is not as it was written: run `dvc repro`"
    ):
        jsonl.read_jsonl(path)
    path.write_bytes(lines[0] + b"\n" + lines[1][:-cut])
    with pytest.raises(
        UserError, match="3-kept.jsonl:2: (not JSON|the row is not as it was written)"
    ):
        jsonl.read_jsonl(path)


def test_an_id_that_is_not_that_of_its_input(tmp_path: Path) -> None:
    good = {"id": "65d150f5c9d7847e", "text": "张三", "family": "f"}
    jsonl.check_ids("f.jsonl", [good], ["text"])
    with pytest.raises(
        UserError,
        match="f.jsonl:2: id is 65d150f5c9d7847e, but the id of this input is [0-9a-f]{16}:",
    ):
        jsonl.check_ids("f.jsonl", [good, good | {"text": "张四"}], ["text"])


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    def broken() -> Iterator[jsonl.Row]:
        yield {"id": "new"}
        raise RuntimeError("in the middle")

    jsonl.write_jsonl(tmp_path / "f.jsonl", [{"id": "old"}])
    with pytest.raises(RuntimeError):
        jsonl.write_jsonl(tmp_path / "f.jsonl", broken())
    assert jsonl.read_jsonl(tmp_path / "f.jsonl") == [{"id": "old"}]
    assert [path.name for path in tmp_path.iterdir()] == ["f.jsonl"]


def test_row_id_is_the_hash_of_the_canonical_input() -> None:
    assert jsonl.row_id({"text": "张三"}) == "65d150f5c9d7847e"
    assert (
        jsonl.row_id({"a": 1, "b": 2})
        == jsonl.row_id({"b": 2, "a": 1})
        != jsonl.row_id({"a": 1, "b": 3})
    )


def test_a_file_without_rows_is_not_written(tmp_path: Path) -> None:
    path = tmp_path / "4-pairs/pairs.jsonl"
    jsonl.write_some(path, [])
    assert not path.exists()
    assert jsonl.read_some(path) == []
    jsonl.write_some(path, SEALED)
    assert jsonl.read_some(path, "id") == SEALED
    with pytest.raises(UserError, match=r"pairs.jsonl:1: key 'chosen' is missing"):
        jsonl.read_some(path, "chosen")
    path.write_text("")
    assert jsonl.read_some(path) == []


def test_a_stage_s_folder_holds_only_what_this_run_writes(tmp_path: Path) -> None:
    folder = tmp_path / "data/5-judge"
    jsonl.write_json(jsonl.fresh_folder(folder) / "report.json", {"rows": 1})
    assert jsonl.read_json(folder / "report.json") == {"rows": 1}
    assert list(jsonl.fresh_folder(folder).iterdir()) == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, "f.json is missing: run `dvc repro`"),
        ("[1]", "f.json: found a list, expected one JSON object: run `dvc repro`"),
        ('{"a": 1', "f.json: not JSON (Expecting ',' delimiter at character 8): '{\"a\": 1'"),
        ('{"a": 1, "a": 2}', "f.json: key 'a' stands there twice, expected once"),
    ],
)
def test_a_bad_json_file_is_one_sentence(tmp_path: Path, text: str | None, expected: str) -> None:
    if text is not None:
        (tmp_path / "f.json").write_text(text)
    with pytest.raises(UserError, match=re.escape(expected)):
        jsonl.read_json(tmp_path / "f.json")
