"""`make import`: a user's file becomes rows of the task; nothing is lost, overwritten or silent."""

import errno
import json
from pathlib import Path

import pytest

from potstill.commands import import_rows
from potstill.core.errors import UserError
from potstill.core.jsonl import Row, row_id
from potstill.dataset import own_rows
from potstill.task import settings
from tests.conftest import Project

LESSON = [
    {"role": "system", "content": "last word"},
    {"role": "user", "content": "b"},
    {"role": "assistant", "content": "c"},
]
LEARNT = {"id": row_id({"messages": LESSON}), "messages": LESSON}
MIXED: list[Row] = [
    {"instruction": "a"},
    {"instruction": "b", "output": " c "},
    {"instruction": "a"},
    {"instruction": ""},
]


@pytest.fixture
def plain(project: Project) -> Project:
    project.write("task.yaml", "name: toy\nchecks: []\n")
    return project


def run(monkeypatch: pytest.MonkeyPatch, content: object, *options: str) -> None:
    text = content if isinstance(content, str) else json.dumps(content)
    Path("in").write_text(text, encoding="utf-8")
    monkeypatch.setattr("sys.argv", ["import", "in", *options])
    import_rows.main()


def test_rows_with_answers_are_learnt_and_others_are_inputs(
    plain: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run(monkeypatch, MIXED)
    assert plain.read("seeds.jsonl") == [{"id": row_id({"text": "a"}), "text": "a"}]
    assert plain.read("own/messages.jsonl") == [LEARNT]
    assert own_rows.messages_rows("data/own/messages.jsonl") == [LEARNT]
    beside = [json.loads(line) for line in Path("in.rejected.jsonl").read_text().splitlines()]
    reason = 'instruction: a text that is not empty; found ""'
    assert beside == [{"line": 1, "reason": reason, "row": {"instruction": ""}}]
    assert capsys.readouterr().out == (
        "import: in: a JSON list, 4 rows: 3 of instruction (alpaca)\n"
        "data/seeds.jsonl, row 1 of 1 new:\n"
        "  system     last word\n"
        "  user       a\n"
        "data/own/messages.jsonl, row 1 of 1 new:\n"
        "  system     last word\n"
        "  user       b\n"
        "  assistant  c\n"
        f"in:1 (row 4): {reason}\n"
        "import: in: 4 rows = 1 in data/seeds.jsonl + 1 in data/own/messages.jsonl + 0 in "
        "data/gold.jsonl + 1 that stood there already + 1 refused, with their reasons in "
        "in.rejected.jsonl\n"
    )


def test_test_rows(plain: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    run(monkeypatch, "q;class\na;b\n", "--AS=gold", "--MAP=text=q,output=class")
    assert plain.read("gold.jsonl") == [{"id": row_id({"text": "a"}), "text": "a", "gold": "b"}]
    assert not Path("in.rejected.jsonl").exists()


def test_a_trial_changes_nothing(
    plain: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(Path().rglob("*"))
    run(monkeypatch, MIXED, "--DRY=1")
    assert sorted(Path().rglob("*")) == sorted([*before, Path("in")])
    assert "+ 1 refused; DRY=1: nothing was changed" in capsys.readouterr().out


def test_rows_are_added_to_those_that_are_there(
    plain: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    there = {"seeds.jsonl": '{"text":  "a"}', "own/messages.jsonl": json.dumps(LEARNT) + "\r\n"}
    for name, text in there.items():
        Path("data", name).write_bytes(text.encode())
    rows = [*MIXED[:3], {"instruction": "b", "output": "d"}, {"instruction": "z"}]
    run(monkeypatch, rows)
    seeds, own = (Path("data", name).read_bytes().decode() for name in there)
    assert own == there["own/messages.jsonl"]
    assert seeds.startswith(there["seeds.jsonl"] + "\n")
    assert [row["text"] for row in plain.read("seeds.jsonl")] == ["a", "z"]
    out = capsys.readouterr().out
    assert "1 questions have several answers: `make import` takes first (SEVERAL=" in out
    assert "in:1 (row 4): the task has another answer to this question" in out
    assert "+ 3 that stood there already + 1 refused" in out
    before = Path("data/seeds.jsonl").read_bytes()
    run(monkeypatch, rows)
    assert Path("data/seeds.jsonl").read_bytes() == before


def test_rejected_rows_are_imported_when_they_are_mended(
    plain: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(monkeypatch, MIXED)
    lines = Path("in.rejected.jsonl").read_text()
    run(monkeypatch, lines.replace('"instruction": ""', '"instruction": "mended"'))
    assert [row["text"] for row in plain.read("seeds.jsonl")] == ["a", "mended"]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ([{"instruction": ""}, {}], r"in:1 \(row 1\): instruction: .*; no row of in could be tak"),
        ([{"prompt": "a", "chosen": "b", "rejected": "c"}], r"in:1: a preference .* is nothing to"),
        ('[{"instruction": "a"}', "in:1: not a JSON list: .*; nothing of the file was taken"),
        ('a,b\n1,"2\n3', "in:2: the row goes on to line 3.*; nothing of the file was taken"),
        ("question,answer\n1,2\n", "in:2: found 'question', 'answer', expected text of the task"),
    ],
)
def test_what_cannot_be_taken_in(
    plain: Project, monkeypatch: pytest.MonkeyPatch, content: object, expected: str
) -> None:
    with pytest.raises(UserError, match=expected):
        run(monkeypatch, content)
    assert not Path("data/seeds.jsonl").exists()


def test_a_folder_that_cannot_be_written(plain: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    def add(path: Path, rows: list[Row]) -> None:
        raise OSError(errno.EROFS, "Read-only file system", str(path))

    monkeypatch.setattr(import_rows, "add", add)
    says = "data/seeds.jsonl cannot be written: Read-only file system"
    with pytest.raises(UserError, match=says):
        run(monkeypatch, [{"instruction": "a"}])


def test_a_row_that_is_too_long_is_refused_with_its_length(
    plain: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plain.set(max_length=64)
    long = "开门了吗" * 30
    run(monkeypatch, [{"text": "a", "output": long}, {"text": "a", "output": "b" * 80}])
    assert settings.load().data.joinpath("own/messages.jsonl").read_text().count("\n") == 1
    row = json.loads(Path("in.rejected.jsonl").read_text())
    assert (
        "tokens, max_length is 64: shorten the row, or raise max_length in params.yaml"
        in (row["reason"])
    )
    assert "in:1 (row 1): id " in capsys.readouterr().out


def test_what_is_shown_fits_a_line_and_hides_nothing() -> None:
    assert import_rows.shown("a\nb\x1b[0m\u202ec\u200b") == "a\\nb\\u001b[0m\\u202ec\\u200b"
    assert len(import_rows.shown("x" * 1000)) == import_rows.WIDTH
