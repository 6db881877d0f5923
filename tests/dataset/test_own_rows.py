"""A user's own rows: every violation is said with line, rule and value; what is good passes."""

import json
import re
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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
    assert [one.split(":")[0] for one in found] == [
        "2",
        "4",
        "5",
        "5",
        "6",
        "7",
        " 1 lines are blank",
    ]
    assert found[-1] == " 1 lines are blank: delete them"
    assert found[-3] == "6: a row is an object with the key messages; found {}"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", ["1: the file is empty, expected at least one row"]),
        (b" \n", ["1: the file is empty, expected at least one row"]),
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


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(["system", "user", "assistant"]), max_size=7))
def test_messages_pass_exactly_when_their_roles_are_right(roles: list[str]) -> None:
    right = re.fullmatch("s?(ua)+", "".join(role[0] for role in roles)) is not None
    found = own_rows.violations(
        "messages", {"messages": [{"role": role, "content": "x"} for role in roles]}
    )
    assert (found == []) == right


def answered(**more: object) -> list[dict[str, object]]:
    return [dict(U), {**A, **more}]


def honoured(messages: list[dict[str, object]]) -> list[dict[str, object]]:
    """A chat as it is trained on, of which nothing is wrong."""
    assert own_rows.violations("messages", {"messages": messages}) == []
    return list(own_rows.chat(messages).messages)


PARTS = [{"type": "text", "text": "assi"}, {"text": "stant"}]


@pytest.mark.parametrize(
    ("messages", "expected"),
    [
        (answered(content=PARTS), [U, A]),
        (answered(content=" \n assistant\u3000\n"), [U, A]),
        ([{"from": "human", "value": "user"}, {"from": "gpt", "value": "assistant"}], [U, A]),
        ([{"role": "developer", "content": "system"}, U, A], [S, U, A]),
        (answered(name="x", tool_calls=None, weight=1, loss=True, refusal="", images=[]), [U, A]),
        ([*answered(loss=False), U, A], [U, {**A, "loss": False}, U, A]),
        ([*answered(weight=0), U, A], [U, {**A, "loss": False}, U, A]),
        ([*answered(loss=True, weight=0.0), U, A], [U, {**A, "loss": False}, U, A]),
        ([{**U, "loss": False}, A], [U, A]),
    ],
)
def test_what_a_message_says_is_honoured(messages: Any, expected: Any) -> None:
    assert honoured(messages) == expected
    assert honoured(expected) == expected


CHANGES = "it changes what the row means: delete the key, or leave the row out"


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"messages": answered(tool_calls=[{"id": "c"}])}, f"messages[1].tool_calls: {CHANGES}"),
        ({"messages": answered(reasoning_content="hm")}, "messages[1].reasoning_content: it"),
        ({"messages": answered(loss="no")}, "messages[1].loss: 0, 1, false or true; found"),
        ({"messages": answered(weight=0.5)}, "messages[1].weight: 0, 1, false or true; found 0.5"),
        ({"messages": answered(loss=False)}, "messages: at least one turn of the assistant is"),
        ({"messages": [{**U, "loss": 1}, A]}, "messages[0].loss: only the assistant's turns are"),
        (
            {"messages": answered(content=[{"type": "image_url", "image_url": {}}])},
            "messages[1].content[0]: a part of a content is a text; found",
        ),
        ({"messages": [U, A], "tools": '[{"name": "find"}]'}, f"tools: {CHANGES}; found"),
        ({"messages": [U, A], "images": ["a.jpg"]}, f"images: {CHANGES}; found"),
        ({"messages": [U, A], "rejected_response": "no"}, f"rejected_response: {CHANGES}"),
    ],
)
def test_a_key_that_cannot_be_honoured_is_named(
    project: Project, row: dict[str, Any], says: str
) -> None:
    faults = own_rows.violations("messages", row)
    assert len(faults) == 1
    assert faults[0].startswith(says)
    assert said(json.dumps(row)) == [f"1: {faults[0]}"]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=6,
)
KEYS = st.sampled_from(["role", "content", "from", "value", "loss", "weight", "tool_calls", "x"])
MESSAGE = st.dictionaries(KEYS, JSON | st.sampled_from(["user", "assistant", "hi"]), max_size=4)


@settings(max_examples=100, deadline=None)
@given(JSON | st.lists(MESSAGE | JSON, max_size=4))
def test_any_value_for_messages_is_refused_or_can_be_trained_on(value: Any) -> None:
    if not own_rows.violations("messages", {"messages": value}):
        for one in own_rows.chat(value).messages:
            assert set(one) <= {"role", "content", "loss"}
            assert isinstance(one["content"], str)


@pytest.mark.parametrize("content", [json.dumps([GOOD]), json.dumps(GOOD).encode("utf-16")])
def test_only_json_lines_may_lie_in_the_task(project: Project, content: str | bytes) -> None:
    with pytest.raises(UserError, match=r"f.jsonl: found .*, expected JSON Lines in UTF-8"):
        said(content)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.fixed_dictionaries(
            {"content": st.sampled_from(["a", "{}", "", " ", "\ufeff", "\x85", "\u3000b", 7])},
            optional={"role": st.sampled_from(["system", "user", "assistant", "tool", 7])},
        ),
        max_size=4,
    )
)
def test_the_short_way_through_the_schema_finds_the_same(messages: list[Any]) -> None:
    row = {"messages": messages}
    found = own_rows.violations("messages", row)
    with patch.object(own_rows, "_roles", lambda _: None):
        assert own_rows.violations("messages", row) == found
