"""A user's own rows: every violation is said with line, rule and value; what is good passes."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from potstill.commands import validate
from potstill.core.errors import UserError
from potstill.dataset import own_rows
from tests.conftest import Project

U, A, S = ({"role": role, "content": role} for role in ("user", "assistant", "system"))
GOOD = {"messages": [U, A]}
PAIRS = "pairs of user and assistant, at least one: the last message is the assistant's"
FIRST = "the first message that is not the system's is the user's"
TURNS = "user and assistant take turns"
LAST = "the last message of a prompt is the user's"
EMPTY = "a text that is not empty"


def said(content: str | bytes, name: str = "f.jsonl") -> list[str]:
    """The problems of a file, without the file's name."""
    Path(name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return [problem.removeprefix(f"{name}:") for problem in own_rows.read(name).problems]


@pytest.mark.parametrize(
    ("messages", "expected"),
    [
        ([U, A], []),
        ([S, U, A, U, A], []),
        ([], ["messages: messages is an array that is not empty; found []"]),
        ("hi", ['messages: messages is an array that is not empty; found "hi"']),
        (None, ["messages: messages is an array that is not empty; found null"]),
        ([S], [f'messages[0].role: {PAIRS}; found "system"']),
        ([U], [f'messages[0].role: {PAIRS}; found "user"']),
        ([S, U], [f'messages[1].role: {PAIRS}; found "user"']),
        ([U, A, U], [f'messages[2].role: {PAIRS}; found "user"']),
        ([A], [f'messages[0].role: {FIRST}; found "assistant"']),
        ([S, A], [f'messages[1].role: {FIRST}; found "assistant"']),
        ([A, U, A], [f'messages[0].role: {FIRST}; found "assistant"']),
        ([U, U, A], [f'messages[1].role: {TURNS}; found "user"']),
        ([U, A, A], [f'messages[2].role: {TURNS}; found "assistant"']),
        ([U, S, A], ['messages[1].role: a system message only first; found "system"']),
        ([S, S, U, A], ['messages[1].role: a system message only first; found "system"']),
        (
            [U, S, U, A],
            [
                'messages[1].role: a system message only first; found "system"',
                f'messages[2].role: {TURNS}; found "user"',
            ],
        ),
        (
            [{"role": "tool", "content": "x"}, A],
            ['messages[0].role: role is one of system, user, assistant; found "tool"'],
        ),
        (
            [{"role": "user"}, A],
            [
                "messages[0]: each message is an object with role and content; "
                'found {"role": "user"}'
            ],
        ),
        ([{}, A], ["messages[0]: each message is an object with role and content; found {}"]),
        (["hi", A], ['messages[0]: each message is an object with role and content; found "hi"']),
        ([U | {"content": ""}, A], [f'messages[0].content: {EMPTY}; found ""']),
        ([U, A | {"content": "\u3000\n"}], [f'messages[1].content: {EMPTY}; found "\u3000\\n"']),
        ([U, A | {"content": [1]}], [f"messages[1].content: {EMPTY}; found [1]"]),
        (
            [U | {"content": None}, A | {"role": 7}],
            [
                f"messages[0].content: {EMPTY}; found null",
                "messages[1].role: role is one of system, user, assistant; found 7",
            ],
        ),
    ],
)
def test_the_rules_of_messages(project: Project, messages: Any, expected: list[str]) -> None:
    assert sorted(own_rows.violations("messages", {"messages": messages})) == sorted(expected)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, []),
        ({"prompt": [S, U]}, []),
        ({"prompt": [U, A, U], "id": "x"}, []),
        (
            {"prompt": " "},
            ['prompt: prompt is a text or an array of messages, not empty; found " "'],
        ),
        ({"prompt": []}, ["prompt: prompt is a text or an array of messages, not empty; found []"]),
        ({"prompt": 3}, ["prompt: prompt is a text or an array of messages, not empty; found 3"]),
        ({"prompt": [U, A]}, [f'prompt[1].role: {LAST}; found "assistant"']),
        ({"prompt": [A, U]}, [f'prompt[0].role: {FIRST}; found "assistant"']),
        ({"prompt": [U, U]}, [f'prompt[1].role: {TURNS}; found "user"']),
        (
            {"prompt": [U, S]},
            [
                'prompt[1].role: a system message only first; found "system"',
                f'prompt[1].role: {LAST}; found "system"',
            ],
        ),
        ({"chosen": ""}, [f'chosen: {EMPTY}; found ""']),
        ({"rejected": ["b"]}, [f'rejected: {EMPTY}; found ["b"]']),
        (
            {"rejected": " a\n"},
            ['rejected: chosen and rejected differ in more than white space; found " a\\n"'],
        ),
    ],
)
def test_the_rules_of_preferences(project: Project, change: Any, expected: list[str]) -> None:
    row = {"prompt": "q", "chosen": "a", "rejected": "b"} | change
    assert sorted(own_rows.violations("preferences", row)) == sorted(expected)
    assert said(json.dumps(row, ensure_ascii=False)) == [
        f"1: {one}" for one in own_rows.violations("preferences", row)
    ]


def test_every_line_is_looked_at_and_every_rule(project: Project) -> None:
    bad = [
        '{"messages": []}',
        "",
        "[1]",
        '{"messages": [{"role": "bot", "content": " "}]}',
        "{}",
        '{"messa',
    ]
    found = said("\n".join([json.dumps(GOOD), *bad, json.dumps(GOOD)]))
    assert [one.split(":")[0] for one in found] == ["2", "3", "4", "5", "5", "6", "7"]
    assert found[-2] == "6: a row is an object with the key messages; found {}"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", ["1: the file is empty, expected at least one row"]),
        (b" \n", ["1: the file is empty, expected at least one row"]),
        (
            json.dumps(GOOD).encode("utf-16"),
            ["1: the file is UTF-16, expected UTF-8: save it as UTF-8"],
        ),
        (
            '{"messages": "中文"}\n{}'.encode("gbk"),
            [
                "1: byte 15 is not UTF-8: save the file as UTF-8",
                "2: a row is an object with the key messages; found {}",
            ],
        ),
        (b'{"messages": NaN}', ["1: NaN is not JSON, expected a number or null"]),
        (
            b'{"messages": [], "messages": [1]}',
            ["1: key 'messages' stands there twice, expected once: delete one of the two"],
        ),
        (
            b'{"messages": "\\ud83d"}',
            ["1: half a surrogate pair (\\ud800 to \\udfff alone), expected whole characters"],
        ),
        (
            b'{"messages": ' + b"[" * 100_000,
            [f"1: JSON nested too deep: '{{\"messages\": {'[' * 27}'"],
        ),
        (
            b'{"id": "a", "messages": 1}\n' * 2,
            [
                "1: messages: messages is an array that is not empty; found 1",
                "2: messages: messages is an array that is not empty; found 1",
                "2: id: no id stands there twice; found a, as in line 1",
            ],
        ),
    ],
)
def test_what_is_no_good_json(project: Project, content: bytes, expected: list[str]) -> None:
    assert said(content) == expected


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ('[{"instruction": "a"},\n {"instruction": "b", "output": "c", "input": ""}]', []),
        (
            '[\n{"instruction": ""},\n{"output": "c"}, 7\n]',
            [
                f'2: instruction: {EMPTY}; found ""',
                "3: found a int, expected one JSON object a line",
                '3: an element is an object with the key instruction; found {"output": "c"}',
            ],
        ),
        (
            '[{"instruction": "a", "input": "b"}]',
            [
                "1: input: input is empty or left out: what it says belongs into the instruction; "
                'found "b"'
            ],
        ),
        ("[\n{\"instruction\":\n 'a'}]", ["3: not JSON (Expecting value): \"'a'}]\""]),
        (
            '[{"instruction": "a"}\n {"instruction": "b"}]',
            ['2: not a JSON list: found \'{"instruction": "b"}\', expected , or ]'],
        ),
        ('[{"instruction": "a"},\n]', ["2: not JSON (Expecting value): ']'"]),
        (
            '[{"instruction": "a"}',
            ["1: not a JSON list: found the end of the file, expected , or ]"],
        ),
        ('[{"instruction": "a"}] []', ["1: not a JSON list: found more after its end: '[]'"]),
        (
            '{"instruction": "a"}',
            ['1: not a JSON list: found \'{"instruction": "a"}\', expected ['],
        ),
        (
            '[{"instruction": "a", "instruction": "b"}]',
            ["1: key 'instruction' stands there twice, expected once: delete one of the two"],
        ),
        ("[]", ["1: the file is empty, expected at least one row"]),
        ('\ufeff[{"instruction": "a"}]', []),
        (
            '[{"instruction": "中"}]'.encode("gbk"),
            ["1: byte 19 is not UTF-8: save the file as UTF-8"],
        ),
    ],
)
def test_a_list_of_instructions(
    project: Project, content: str | bytes, expected: list[str]
) -> None:
    assert sorted(said(content, "f.json")) == sorted(expected)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(["system", "user", "assistant"]), max_size=7))
def test_messages_pass_exactly_when_their_roles_are_right(roles: list[str]) -> None:
    right = re.fullmatch("s?(ua)+", "".join(role[0] for role in roles)) is not None
    found = own_rows.violations(
        "messages", {"messages": [{"role": role, "content": "x"} for role in roles]}
    )
    assert (found == []) == right


def run(project: Project, content: str, name: str = "f.jsonl") -> tuple[int, str]:
    project.write(name, content)
    return project.run("potstill", "validate", name)


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        (
            "f.jsonl",
            json.dumps({"messages": [S, U, A]}) + "\n" + json.dumps({**GOOD, "source": 1}),
            "2 rows of messages, 32 characters, 1 system, 2 user, 2 assistant, "
            "key source in 1 rows is not used",
        ),
        (
            "f.jsonl",
            "\ufeff" + json.dumps(GOOD) + "\r\n",
            "1 rows of messages, 13 characters, 1 user, 1 assistant, it begins with a byte order "
            "mark, which does no harm here, its lines end in CRLF, which does no harm here",
        ),
        (
            "f.jsonl",
            json.dumps({"prompt": [U], "chosen": "a", "rejected": "b"}),
            "1 rows of preferences, 6 characters, 1 user",
        ),
        (
            "f.json",
            '[{"instruction": "a"}, {"instruction": "b", "output": "c"}]',
            "2 rows of instructions, 3 characters, 1 with an output",
        ),
    ],
)
def test_a_good_file_is_one_line(project: Project, name: str, content: str, expected: str) -> None:
    assert run(project, content, name) == (0, f"validate: {name}: {expected}\n")


def test_a_bad_file_is_all_its_violations_and_exit_code_1(project: Project) -> None:
    code, out = run(project, '{"messages": []}\n' * 60)
    lines = out.splitlines()
    assert code == 1
    assert (
        lines[-1]
        == "error: f.jsonl: 60 violations, the first 50 are above: mend them and validate again"
    )
    assert lines[49] == "f.jsonl:50: messages: messages is an array that is not empty; found []"
    assert len(lines) == 51


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], "expected a file: make validate FILE="),
        ([""], "expected a file: make validate FILE="),
        (["none.jsonl"], "none.jsonl is missing: give the path"),
        (["params.yaml"], "params.yaml: expected a name in .jsonl"),
    ],
)
def test_no_such_file(
    project: Project, monkeypatch: pytest.MonkeyPatch, arguments: list[str], expected: str
) -> None:
    monkeypatch.setattr("sys.argv", ["validate", *arguments])
    with pytest.raises(UserError, match=re.escape(expected)):
        validate.main()


def test_the_path_is_as_seen_from_where_the_command_was_started(
    project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    project.write("elsewhere/f.jsonl", json.dumps(GOOD))
    monkeypatch.setenv("POTSTILL_START", str(project.dir / "elsewhere"))
    monkeypatch.setattr("sys.argv", ["validate", "f.jsonl"])
    validate.main()
    assert "validate: f.jsonl: 1 rows of messages" in capsys.readouterr().out
