"""potstill.checks.schema: which answers obey a schema, and which match what is expected."""

import json
import re
from typing import Any

import pytest
from hypothesis import given

from potstill.checks import registry, schema
from potstill.core.errors import UserError
from potstill.task.settings import Task
from tests.checks.judging import TEXTS, judged, made


def obeying(answers: Any) -> Task:
    """A task whose answers obey this schema."""
    task = made("json_schema")
    task.schema = answers
    return task


def reasons(answers: Any, answer: object) -> list[str]:
    """Why an answer does not obey the schema; [] when it does."""
    return registry.check(obeying(answers), {"text": "x"}, json.dumps(answer))


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        (r"^\D$", "３"),
        (r"^\d$", "３"),
        ("a$", "a\n"),
        (r"^\s$", "\x1c"),
        (r"(?i:É)", "é"),
        (r"^\S+市$", "大理市"),
    ],
)
def test_a_pattern_is_read_as_python_reads_it(pattern: str, text: str) -> None:
    obeys = reasons({"pattern": pattern}, text) == []
    assert obeys is (re.search(pattern, text) is not None)


def test_a_format_is_a_remark_and_no_rule() -> None:
    assert reasons({"format": "date"}, "2026-99-99") == []


LIST = {"$defs": {"list": {"type": "array", "items": {"$ref": "#/$defs/list"}}}}


@pytest.mark.parametrize(
    ("depth", "expected"), [(3, []), (400, ["json_schema: answer: nested too deep"])]
)
def test_an_answer_nested_too_deep_fails(depth: int, expected: list[str]) -> None:
    task = obeying({**LIST, "$ref": "#/$defs/list"})
    assert registry.check(task, {"text": "x"}, "[" * depth + "]" * depth) == expected


@pytest.mark.parametrize(
    "answers",
    [
        {"$ref": "#/$defs/x"},
        {"properties": {"a": {"anyOf": [{"type": "null"}, {"items": {"$ref": "#/$defs/x"}}]}}},
        {"$defs": {"x": {"$ref": "#anchor"}}},
    ],
)
def test_a_reference_that_leads_nowhere_is_found_before_any_answer(answers: Any) -> None:
    with pytest.raises(
        UserError, match=r"schema\.json: \$ref '#.+' leads to no part of the schema"
    ):
        registry.validate(obeying(answers))


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ({**LIST, "properties": {"a": {"$ref": "#/$defs/list"}}}, ["json_schema: a: type"]),
        (
            {"$defs": {"x": {"$anchor": "text", "type": "string"}}, "$ref": "#text"},
            ["json_schema: answer: type"],
        ),
        ({"properties": {"$ref": {"type": "string"}}}, []),  # a field of that name
        (
            {
                "$id": "https://example.org/answer",
                "$defs": {"x": {"$id": "x", "$defs": {"y": True}, "$ref": "#/$defs/y"}},
            },
            [],
        ),
    ],
)
def test_a_reference_is_followed(answers: Any, expected: list[str]) -> None:
    assert reasons(answers, {"a": 1}) == expected


@pytest.mark.parametrize(
    ("expected", "found", "right"),
    [
        ("大理 市", "大理市\n", True),
        ("大理市", "大理", False),
        ({"a": "1 2", "b": 1}, {"b": 1, "a": "12"}, True),
        ({"a": "12"}, {"a": "12", "b": 1}, False),
        ({"a": "12", "b": None}, {"a": "12"}, False),
        ({"a": ["x", {"y": "z "}]}, {"a": ["x", {"y": "z"}]}, True),
        ([1], [1, 1], False),
        (1, True, False),
        (True, 1, False),
        (False, False, True),
        (1, 1.0, True),
        ("1", 1, False),
        ({}, [], False),
        (None, None, True),
    ],
)
def test_same(expected: object, found: object, right: bool) -> None:
    assert schema.same(found, expected) is right


@given(TEXTS.filter(str.strip), TEXTS.filter(str.strip))
def test_exact_match_is_equality_without_white_space(text: str, expected: str) -> None:
    row = {"text": "x", "expected": expected}
    assert (judged("exact_match", text, row) is True) == (
        "".join(text.split()) == "".join(expected.split())
    )
    assert judged("exact_match", " ".join(expected), row) is True
    assert judged("exact_match", text) is None
