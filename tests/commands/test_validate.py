"""`make validate`: all violations of a user's file, or what it was taken for."""

import json
import re
from pathlib import Path

import pytest

from potstill.commands import validate
from potstill.core.errors import UserError
from tests.conftest import Project

CHAT = {"messages": [{"role": role, "content": role} for role in ("system", "user", "assistant")]}


def run(project: Project, content: str, *options: str) -> tuple[int, str]:
    project.write("f", content)
    return project.run("potstill", "validate", "f", *options)


def test_a_good_file_is_said_in_short(project: Project) -> None:
    content = "\ufeff" + "".join(json.dumps({**CHAT, "source": 1}) + "\r\n" for _ in range(2))
    before = sorted(Path().rglob("*"))
    assert run(project, content) == (
        0,
        "validate: f: JSON Lines, 2 rows: 2 of messages\n"
        "validate: f: it begins with a byte order mark, which does no harm\n"
        "validate: f: its lines end in CRLF, which does no harm\n"
        "validate: f: key source is not used: 2 rows\n",
    )
    assert sorted(Path().rglob("*")) == sorted([*before, Path("f")])


def test_all_violations_and_exit_code_1(project: Project) -> None:
    code, out = run(project, '{"messages": []}\n' * 60)
    lines = out.splitlines()
    assert code == 1
    last = "error: f: 60 violations, the first 50 are above: mend them and validate again"
    assert lines[-1] == last
    assert lines[49] == "f:50: messages: messages is an array that is not empty; found []"
    assert len(lines) == 51


def test_preferences_are_looked_at(
    project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    row = {"prompt": "q", "chosen": "a", "rejected": "b"}
    project.write("f", json.dumps(row))
    monkeypatch.setattr("sys.argv", ["validate", "f"])
    validate.main()
    assert capsys.readouterr().out == "validate: f: JSON Lines, 1 rows: 1 of preferences\n"
    project.write("f", json.dumps({**row, "rejected": "a"}))
    with pytest.raises(UserError, match="f: 1 violations: mend them"):
        validate.main()


@pytest.mark.parametrize(("rule", "taken"), [("first", "first"), ("all", "all")])
def test_several_answers_are_no_violation_but_said(
    project: Project,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    rule: str,
    taken: str,
) -> None:
    project.set(split_several=rule)
    project.write("f", "".join(json.dumps({"text": "q", "output": one}) + "\n" for one in "ab"))
    monkeypatch.setattr("sys.argv", ["validate", "f"])
    validate.main()
    assert (
        f"1 questions have several answers: `make import` takes {taken} (SEVERAL=first, all or "
        f"none); split, by split.several of params.yaml, {rule}"
    ) in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], "expected a file: make validate FILE="),
        ([""], "expected a file: make validate FILE="),
        (["none.jsonl"], "none.jsonl is missing: give the path"),
        (["data"], "data is a folder, expected a file"),
        (["f", "--AS=test"], "AS is 'test', expected train, inputs, gold"),
        (["f", "--DRY=yes"], "DRY is 'yes', expected 0, 1"),
        (["f", "--SEVERAL=last"], "SEVERAL is 'last', expected first, all, none"),
        (["f", "--AS=gold", "--SEVERAL=all"], "SEVERAL=all: a test row has one expected answer"),
        (["f", "--MAP=text"], "MAP has 'text', expected name=column"),
    ],
)
def test_what_is_no_command_line(
    project: Project, monkeypatch: pytest.MonkeyPatch, arguments: list[str], expected: str
) -> None:
    monkeypatch.setattr("sys.argv", ["validate", *arguments])
    with pytest.raises(UserError, match=re.escape(expected)):
        validate.main()


def test_the_path_is_as_seen_from_where_the_command_was_started(
    project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    project.write("elsewhere/f.jsonl", json.dumps(CHAT))
    monkeypatch.setenv("POTSTILL_START", str(project.dir / "elsewhere"))
    monkeypatch.setattr("sys.argv", ["validate", "f.jsonl"])
    validate.main()
    assert "validate: f.jsonl: JSON Lines, 1 rows: 1 of messages" in capsys.readouterr().out
