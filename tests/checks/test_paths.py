"""potstill.checks.paths: where a path leads in an answer and in schema.json."""

import json
import re
from typing import Any

import pytest

from potstill.checks import paths, registry
from potstill.core.errors import UserError
from potstill.core.jsonl import Row
from potstill.task.settings import Task
from tests.checks.judging import made

INVOICE = {
    "type": "object",
    "properties": {
        "vendor": {
            "type": "object",
            "properties": {"name": {"type": "string"}, "city": {"type": ["string", "null"]}},
            "required": ["name"],
        },
        "items": {"type": "array", "items": {"$ref": "#/$defs/item"}},
        "tags": {"anyOf": [{"type": "array", "items": {"type": "string"}}, {"type": "null"}]},
        "total": {"type": "number"},
        "note": {},
        "date": {"enum": ["today", None]},
        "a.b": {"type": "string"},
        "mixed": {"type": ["string", "integer"]},
    },
    "required": ["vendor", "items", "date"],
    "$defs": {
        "item": {
            "allOf": [
                {"properties": {"name": {"type": "string"}, "price": {"type": "integer"}}},
                {"required": ["price"]},
            ]
        }
    },
}
GOOD: Row = {
    "vendor": {"name": "Acme", "city": None},
    "items": [{"name": "pen", "price": 3}, {"price": 4}],
    "tags": None,
    "date": None,
}


def invoice(*checks: object) -> Task:
    """A task of invoices with these checks."""
    task = made("json_schema", *checks)
    task.schema = INVOICE
    return task


@pytest.mark.parametrize(
    ("path", "found", "texts"),
    [
        ("vendor", GOOD["vendor"], None),
        ("vendor.name", "Acme", [("vendor.name", "Acme")]),
        ("vendor.city", None, []),
        ("items[].name", ["pen", paths.ABSENT], [("items[0].name", "pen")]),
        ("items[].price", [3, 4], None),
        ("tags[]", None, []),
        ("total", paths.ABSENT, None),
        ("note", paths.ABSENT, []),
        ("date", None, []),
        ("a.b", paths.ABSENT, []),
    ],
)
def test_what_stands_at_a_path(path: str, found: Any, texts: list[Any] | None) -> None:
    field = paths.find(invoice(), path)
    assert paths.pick(GOOD, field.steps) == found
    if texts is not None:
        assert list(field.values(GOOD)) == texts
        assert paths.text(invoice(), path) == field


@pytest.mark.parametrize(
    ("answer", "path", "expected"),
    [
        ({}, "vendor.name", [("vendor", paths.ABSENT)]),
        ({"vendor": None}, "vendor.name", [("vendor.name", paths.ABSENT)]),
        ({"vendor": {"city": 7}}, "vendor.city", [("vendor.city", 7)]),
        ({"items": {}}, "items[].name", [("items[]", paths.ABSENT)]),
        ({"items": []}, "items[].name", []),
        ([], "note", [("note", paths.ABSENT)]),
        (None, "note", [("note", paths.ABSENT)]),
    ],
)
def test_where_a_text_should_be(answer: Any, path: str, expected: list[Any]) -> None:
    assert list(paths.find(invoice(), path).values(answer)) == expected


@pytest.mark.parametrize(
    ("check", "says"),
    [
        (
            {"max_chars": {"field": "items", "limit": 9}},
            "max_chars: option field is 'items', which is a list by schema.json, expected a text: "
            "items[].name",
        ),
        (
            {"regex": {"field": "vendor", "pattern": "x"}},
            "regex: option field is 'vendor', which is an object by schema.json, expected a text: "
            "vendor.name, vendor.city",
        ),
        (
            {"grounded": {"fields": {"total": ""}}},
            "grounded: option fields is 'total', which is a number by schema.json, expected a text",
        ),
        ({"language": {"field": "items[].price"}}, "'items[].price', which is a number by"),
        ({"excludes": {"field": "mixed", "words": ["x"]}}, "which is a text or a number by"),
        ({"facts": {"label": "tags[]"}}, "option label is 'tags[]', expected one text, not a list"),
        ({"repetition": {"field": "items.name"}}, "'items.name', expected a property of schema"),
        ({"repetition": {"field": "vendor[]"}}, "'vendor[]', expected a property of schema.json"),
        (
            {"exact_match": {"field": "vendor.nme"}},
            "exact_match: option field is 'vendor.nme', expected a property of schema.json: "
            "vendor, vendor.name, vendor.city, items, items[], items[].name, items[].price",
        ),
        ({"exact_match": {"tolerance": -1}}, "option tolerance is -1, expected a number, 0 or"),
        ({"exact_match": {"order": "no"}}, "option order is 'no', expected true or false"),
    ],
)
def test_a_check_that_could_never_pass_is_one_sentence(check: object, says: str) -> None:
    with pytest.raises(UserError, match=re.escape(says)) as error:
        registry.validate(invoice(check))
    assert str(error.value).startswith("task.yaml: ")


@pytest.mark.parametrize(
    "rules",
    [
        {},
        {"properties": {"x": True}},
        {"$ref": "#/$defs/x", "$defs": {"x": {"properties": {"x": {"$ref": "#"}}}}},
    ],
)
def test_a_schema_that_does_not_say_what_a_field_is_allows_any_check(rules: Row) -> None:
    task = made("json_schema", {"max_chars": {"field": "x", "limit": 3}})
    task.schema = rules
    registry.validate(task)
    reasons = [registry.check(task, {"text": ""}, json.dumps({"x": x})) for x in ("abcd", 7)]
    assert reasons == [["max_chars: x: 4 characters, at most 3"], ["max_chars: x: no text"]]
    assert registry.check(task, {"text": ""}, "{}") == ["max_chars: x: no text"]


def test_each_text_at_a_path_must_pass() -> None:
    task = invoice(
        {"max_chars": {"field": "items[].name", "limit": 3}},
        {"grounded": {"fields": {"items[].name": "", "vendor.city": ""}}},
    )
    items = [{"name": name, "price": 1} for name in ("pen", "ink", "paper", "inkwell")]
    reasons = registry.check(task, {"text": "pen and ink"}, json.dumps({**GOOD, "items": items}))
    assert reasons == [
        "max_chars: items[2].name: 5 characters, at most 3",
        "grounded: items[2].name",
    ]
    distance = registry.verdicts(task, {"text": ""}, json.dumps({**GOOD, "items": items}))[1][3]
    assert distance == 6.0
    assert registry.check(task, {"text": "pen"}, json.dumps(GOOD)) == []


@pytest.mark.parametrize(
    ("options", "said", "expected", "passed"),
    [
        ({}, {"items": [2, 1]}, {"items": [1, 2]}, False),
        ({"order": False}, {"items": [2, 1]}, {"items": [1, 2.0]}, True),
        ({"order": False}, {"items": [2, 2]}, {"items": [1, 2]}, False),
        ({"order": False}, {"items": [2, 1, 1]}, {"items": [1, 2, 2]}, False),
        ({"order": False}, {"items": [[2, 1], []]}, {"items": [[], [1, 2]]}, True),
        ({"order": False, "tolerance": 1}, {"items": [2, 1]}, {"items": [2, 3]}, True),
        ({"order": False, "tolerance": 1}, {"items": [2, 2, 4]}, {"items": [1, 3, 2]}, True),
        ({"order": False, "tolerance": 1}, {"items": [2, 2, 5]}, {"items": [1, 3, 2]}, False),
        ({"order": False}, {"items": [1] * 2000}, {"items": [1] * 2000}, True),
        ({"tolerance": 0.1}, {"total": 1.1}, {"total": 1.0}, True),
        ({"tolerance": 0.1}, {"total": 1.1}, {"total": 0.99}, False),
        ({"tolerance": 1}, {"total": True}, {"total": 1}, False),
        ({"tolerance": 1}, {"total": "1"}, {"total": 1}, False),
        ({"field": "items[].price"}, GOOD, {"items": [{"price": 3.0}, {"price": 4}]}, True),
        ({"field": "items[].price"}, GOOD, {"items": [{"price": 4}, {"price": 3}]}, False),
        (
            {"field": "items[].price", "order": False},
            GOOD,
            {"items": [{"price": 4}, {"price": 3}]},
            True,
        ),
        ({"field": "items[].price"}, GOOD, {"vendor": {}}, None),
        ({"field": "items[].price"}, {}, {"items": []}, False),
        ({"field": "vendor.name"}, GOOD, {"vendor": {"name": "Ac me"}}, True),
        ({"field": "vendor.name"}, {"vendor": None}, {"vendor": None}, True),
        ({"field": "vendor.name"}, GOOD, {"vendor": None}, False),
        ({"field": "vendor.name"}, {"vendor": {}}, {"vendor": {"name": None}}, False),
        ({"field": "vendor.name"}, None, {"vendor": None}, False),
        ({"field": "vendor.name"}, GOOD, {"vendor": {}}, None),
        ({"field": "vendor.name"}, GOOD, "a text", None),
    ],
)
def test_exact_match(options: Row, said: Any, expected: Any, passed: bool | None) -> None:
    task = made("json_schema", {"exact_match": options})
    task.schema = {key: value for key, value in INVOICE.items() if key not in ("type", "required")}
    task.schema |= {"properties": {"items": {}, "total": {}, "vendor": {}}}
    verdicts = registry.verdicts(task, {"text": "", "expected": expected}, json.dumps(said))
    assert verdicts[1].passed is passed
