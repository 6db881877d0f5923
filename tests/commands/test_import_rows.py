"""`make import`: a user's file becomes seeds and messages rows, whole, and overwrites nothing."""

import json
from pathlib import Path

import pytest

from potstill.commands import import_rows
from potstill.core import jsonl
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


def run(monkeypatch: pytest.MonkeyPatch, content: object, name: str = "in.json") -> None:
    lines = content if name.endswith("l") and isinstance(content, list) else [content]
    Path(name).write_text(
        "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8"
    )
    monkeypatch.setattr("sys.argv", ["import", name])
    import_rows.main()


def test_instructions_become_seeds_and_lessons(
    project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found: list[Row] = [
        {"instruction": "a"},
        {"instruction": "b", "output": "c"},
        {"instruction": "a"},
    ]
    run(monkeypatch, found)
    assert project.read("seeds.jsonl") == [{"id": row_id({"text": "a"}), "text": "a"}]
    assert project.read("own/messages.jsonl") == [
        {"id": row_id({"messages": LESSON}), "messages": LESSON}
    ]
    jsonl.check_ids("seeds.jsonl", settings.load().inputs("data/seeds.jsonl"), ["text"])
    assert own_rows.read("data/own/messages.jsonl").problems == []
    assert capsys.readouterr().out == (
        "import: in.json: 3 rows = 1 in data/seeds.jsonl + 1 in data/own/messages.jsonl "
        "+ 1 that stood there twice\n"
    )


def test_messages_are_kept(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[Row] = [
        {"messages": LESSON, "family": "f", "source": "crm"},
        {"messages": LESSON[1:], "id": "mine"},
    ]
    run(monkeypatch, found, "in.jsonl")
    assert project.read("own/messages.jsonl") == [
        {"id": row_id({"messages": LESSON}), "family": "f", "messages": LESSON},
        {"id": "mine", "messages": LESSON[1:]},
    ]
    assert not Path("data/seeds.jsonl").exists()


@pytest.mark.parametrize("there", ["seeds.jsonl", "own/messages.jsonl"])
def test_nothing_is_overwritten(
    project: Project, monkeypatch: pytest.MonkeyPatch, there: str
) -> None:
    project.write(f"data/{there}", "mine\n")
    with pytest.raises(UserError, match=f"data/{there} has rows already"):
        run(monkeypatch, [{"instruction": "a"}, {"instruction": "b", "output": "c"}])
    assert Path("data", there).read_text() == "mine\n"
    other = Path("data", "own/messages.jsonl" if there == "seeds.jsonl" else "seeds.jsonl")
    assert not other.exists() or not other.stat().st_size


@pytest.mark.parametrize(
    ("content", "name", "expected"),
    [
        (
            [{"instruction": ""}, {}],
            "in.json",
            r"in.json:1: instruction: .*; 2 violations in all: see `make validate FILE=in",
        ),
        (
            [{"prompt": "a", "chosen": "b", "rejected": "c"}],
            "in.jsonl",
            "a file of preferences cannot become rows of task toy",
        ),
    ],
)
def test_what_cannot_be_taken_in(
    project: Project, monkeypatch: pytest.MonkeyPatch, content: object, name: str, expected: str
) -> None:
    with pytest.raises(UserError, match=expected):
        run(monkeypatch, content, name)
    assert not Path("data/seeds.jsonl").exists()


def test_a_task_of_two_fields_takes_no_instructions(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.write("task.yaml", 'name: toy\ninput: [a, b]\nuser: "{{ a }}{{ b }}"\nchecks: []\n')
    with pytest.raises(UserError, match="task toy, whose input is a, b: expected messages"):
        run(monkeypatch, [{"instruction": "a"}])
