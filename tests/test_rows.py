"""potstill.rows: what is wrong with a file is said with file and line; what is written is all there or not at all."""

import errno
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from potstill import errors, rows
from potstill.errors import UserError


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (
            b'{"id": "a", "text": "x"}\n{"id": "b" "text"}\n',
            "f.jsonl:2: not JSON (Expecting ',' delimiter at character 12)",
        ),
        (b'{"id": "a", "text": "x"}\n{"id": "b", "te', "f.jsonl:2: not JSON (Unterminated string"),
        (b'{"id": "a", "text": "\xd6\xd0"}\n', "f.jsonl:1: byte 22 is not UTF-8: save the file as UTF-8"),
        (b'{"id": "a", "text": "x"}\n\n{"id": "b", "text": "y"}\n', "f.jsonl:2: the line is blank"),
        (b'["a", "b"]\n', "f.jsonl:1: found a list, expected one JSON object a line"),
        (b'{"id": "a"}\n', "f.jsonl:1: key 'text' is missing, expected the keys id, text"),
        (
            b'{"id": "a", "text": "x"}\n{"id": "b", "text": "y"}\n{"id": "a", "text": "z"}\n',
            "f.jsonl:3: id a stands in line 1",
        ),
        (b'{"id": 7, "text": "x"}\n', "f.jsonl:1: id is 7, expected a text"),
        (b'{"id": "a", "text": "\\ud83d"}\n', "f.jsonl:1: half a surrogate pair"),
        (b"", "f.jsonl is empty, expected one JSON object a line"),
    ],
)
def test_a_bad_file_is_one_sentence(tmp_path: Path, content: bytes, expected: str) -> None:
    path = tmp_path / "f.jsonl"
    path.write_bytes(content)
    with pytest.raises(UserError, match=re.escape(expected)) as error:
        rows.read_jsonl(path, ("id", "text"))
    assert "\n" not in str(error.value)


def test_a_missing_file_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere.jsonl is missing: run `dvc repro`"):
        rows.read_jsonl(tmp_path / "nowhere.jsonl")


def test_what_is_written_is_read_again_and_readable(tmp_path: Path) -> None:
    path = tmp_path / "new" / "f.jsonl"
    written = [{"id": "b", "text": "人民路25号\n\u2028 😀"}, {"id": "a", "text": 'tab\t"quoted"'}]
    rows.write_jsonl(path, written)
    assert rows.read_jsonl(path, ("id", "text")) == written
    assert "人民路25号" in path.read_text(encoding="utf-8")
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())  # as some editors save it
    assert rows.read_jsonl(path)[0]["id"] == "b"
    assert len(rows.read_jsonl(_samples(tmp_path))) == 2


def _samples(folder: Path) -> Path:
    rows.write_jsonl(folder / "s.jsonl", [{"id": "a", "sample": 0}, {"id": "a", "sample": 1}])
    return folder / "s.jsonl"


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    def broken() -> Iterator[rows.Row]:
        yield {"id": "new"}
        raise RuntimeError("in the middle")

    rows.write_jsonl(tmp_path / "f.jsonl", [{"id": "old"}])
    with pytest.raises(RuntimeError):
        rows.write_jsonl(tmp_path / "f.jsonl", broken())
    assert rows.read_jsonl(tmp_path / "f.jsonl") == [{"id": "old"}]
    assert [path.name for path in tmp_path.iterdir()] == ["f.jsonl"]


def test_row_id_is_the_hash_of_the_canonical_input() -> None:
    assert rows.row_id({"text": "张三"}) == "65d150f5c9d7847e"
    assert rows.row_id({"a": 1, "b": 2}) == rows.row_id({"b": 2, "a": 1}) != rows.row_id({"a": 1, "b": 3})


@pytest.mark.parametrize(
    ("raised", "code", "said"),
    [
        (UserError("seeds.jsonl:3: not JSON"), "error: seeds.jsonl:3: not JSON", ""),
        (
            OSError(errno.ENOSPC, "No space", "f.jsonl"),
            "error: no space left on device (writing f.jsonl): free some",
            "",
        ),
        (KeyboardInterrupt(), 130, "stopped: what was finished is kept"),
        (KeyboardInterrupt("3 answers kept"), 130, "stopped: 3 answers kept"),
    ],
)
def test_how_a_stage_ends(raised: BaseException, code: object, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    def main() -> None:
        raise raised

    with pytest.raises(SystemExit) as stop:
        errors.run(main)
    assert str(stop.value.code).startswith(str(code))
    assert capsys.readouterr().err.startswith(said)


def test_a_bug_keeps_its_traceback() -> None:
    with pytest.raises(ZeroDivisionError):
        errors.run(lambda: print(1 / 0))
