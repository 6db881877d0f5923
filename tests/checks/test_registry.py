"""potstill.checks.registry, by the address task: what passes, what is dropped and why."""

import json
import re

import pytest

from potstill.checks import registry
from potstill.core.errors import UserError
from potstill.task import settings
from tests.conftest import ROOT, Project

TEXT = (
    "电话:+86 138-0013 8000:大理市大理市人民路25号 大理古城国际酒店 3号楼:收件者:段丽娟\t"
    "座机 0872-2123456转801"
)
GOOD = {
    "province": "云南省",
    "city": "大理市",
    "district": "大理市",
    "specific_location": "人民路25号 大理古城国际酒店 3号楼",
    "name": "段丽娟",
    "phone": "13800138000",
}


@pytest.fixture
def address(monkeypatch: pytest.MonkeyPatch) -> settings.Task:
    monkeypatch.chdir(ROOT)
    return settings.load()


@pytest.mark.parametrize(
    ("change", "reasons"),
    [
        ({}, []),
        ({"specific_location": "人民路25号大理古城国际酒店3号楼"}, []),
        ({"phone": "0872-2123456转801"}, []),
        ({"phone": "0872-2123456"}, []),
        ({"phone": "1380013800"}, ["json_schema: phone: pattern", "grounded: phone"]),
        ({"phone": "13800138001"}, ["grounded: phone"]),
        ({"phone": "0872-212345"}, ["json_schema: phone: pattern", "grounded: phone"]),
        ({"phone": "+8613800138000"}, ["json_schema: phone: pattern"]),
        ({"name": "段丽"}, []),  # a shorter name cannot be told from a wrong one
        ({"name": "段丽华"}, ["grounded: name"]),
        ({"name": ""}, ["json_schema: name: pattern", "grounded: name"]),
        ({"name": None}, ["json_schema: name: type", "grounded: name"]),
        (
            {"specific_location": "人民路25号 大理古城国际酒店 3号楼 东门"},
            ["grounded: specific_location"],
        ),
        ({"specific_location": "人民路2"}, ["grounded: specific_location"]),  # a number cut in two
        ({"specific_location": "5号 大理古城"}, ["grounded: specific_location"]),
        ({"province": "云南"}, ["json_schema: province: enum"]),
        ({"city": "大理"}, ["json_schema: city: pattern"]),
        ({"district": ""}, ["json_schema: district: pattern"]),
        ({"postcode": "671000"}, ["json_schema: answer: additionalProperties"]),
    ],
)
def test_an_answer_is_judged(
    address: settings.Task, change: dict[str, object], reasons: list[str]
) -> None:
    assert (
        registry.check(address, {"text": TEXT}, json.dumps({**GOOD, **change}, ensure_ascii=False))
        == reasons
    )


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "json: Expecting value"),
        ("好的：\n```json\n{}\n```", "json: Expecting value"),
        ('{"province": "云南省", "ci', "json: Unterminated string starting at"),
        ('{"province": "云南省"} 以上', "json: Extra data"),
        ('{"province": NaN}', "json: NaN is not JSON"),
        ("[" * 100_000, "json: nested too deep"),
        ("[]", "json_schema: answer: type"),
        ("{}", "json_schema: answer: required"),
    ],
)
def test_an_answer_that_is_no_object_is_dropped(
    address: settings.Task, text: str, reason: str
) -> None:
    assert registry.check(address, {"text": TEXT}, text)[0] == reason


def test_parse_gives_the_object_or_the_reason(address: settings.Task) -> None:
    assert registry.parse(address, ' {"a": 1}\n') == ({"a": 1}, None)
    assert registry.parse(address, "{") == (
        None,
        "json: Expecting property name enclosed in double quotes",
    )


def test_every_gold_label_passes_the_checks(address: settings.Task) -> None:
    failed = [
        (row["text"], reasons)
        for row in address.inputs("data/gold.jsonl", "gold")
        if (reasons := registry.check(address, row, json.dumps(row["gold"], ensure_ascii=False)))
    ]
    assert failed == []


def test_an_answer_that_cannot_be_parsed_fails_every_check(address: settings.Task) -> None:
    row = {"text": TEXT, "expected": GOOD}
    found = registry.verdicts(address, row, "{")
    assert [(v.name, v.passed, v.distance) for v in found] == [
        ("json_schema", False, 1.0),
        ("exact_match", False, 1.0),
        ("grounded", False, 1.0),
    ]
    assert registry.check(address, row, "{") == [
        "json: Expecting property name enclosed in double quotes"
    ]


def test_what_is_not_expected_is_unscored_and_no_reason_to_drop(address: settings.Task) -> None:
    text = json.dumps(GOOD, ensure_ascii=False)
    found = registry.verdicts(address, {"text": TEXT}, text)
    assert [v.passed for v in found] == [True, None, True]
    assert found[1] == ("exact_match", None, "exact_match: nothing is expected", 0.0)
    assert registry.check(address, {"text": TEXT}, text) == []
    wrong = {"text": TEXT, "expected": {**GOOD, "name": "段丽"}}
    assert registry.check(address, wrong, text) == ["exact_match: another answer is expected"]


NULLS = """
checks:
  - json_schema
  - exact_match: {field: date}
  - grounded: {fields: {date: ""}}
  - max_chars: {field: date, limit: 10}
"""


@pytest.mark.parametrize(
    ("answer", "expected", "passed"),
    [
        ({"date": None}, {"date": None}, [True, True, True, True]),
        ({"date": "May"}, {"date": None}, [True, False, True, True]),
        ({"date": None}, {"date": "May"}, [True, False, True, True]),
        ({"date": "June"}, {"date": "May"}, [True, False, False, True]),
        ({}, {"date": None}, [False, False, False, False]),
        ({"date": None}, {"other": 1}, [True, None, True, True]),
        ({"date": None}, None, [True, None, True, True]),
    ],
)
@pytest.mark.parametrize("rules", [{"type": ["string", "null"]}, {"$ref": "#/$defs/day"}])
def test_null_is_an_answer_where_the_schema_allows_it(
    project: Project, rules: object, answer: object, expected: object, passed: list[bool | None]
) -> None:
    day = {"anyOf": [{"type": "string"}, {"type": "null"}]}
    listed = {"properties": {"date": rules}, "required": ["date"], "$defs": {"day": day}}
    project.write("schema.json", json.dumps(listed))
    project.write("task.yaml", NULLS)
    row = {"text": "in May", "expected": expected}
    found = registry.verdicts(settings.load(), row, json.dumps(answer))
    assert [verdict.passed for verdict in found] == passed


def test_null_fails_a_text_check_where_the_schema_does_not_allow_it(project: Project) -> None:
    project.write("schema.json", json.dumps({"properties": {"date": {"type": "string"}}}))
    project.write("task.yaml", "checks: [json_schema, {max_chars: {field: date, limit: 10}}]\n")
    found = registry.check(settings.load(), {"text": "x"}, '{"date": null}')
    assert found == ["json_schema: date: type", "max_chars: date: no text"]


def plain(project: Project, listed: str) -> settings.Task:
    """The toy task with these checks."""
    project.write("task.yaml", f"checks: {listed}\n")
    return settings.load()


def test_an_answer_is_the_text_itself_where_no_schema_is_listed(project: Project) -> None:
    t = plain(project, "[{max_chars: {limit: 3}}]")
    (project.dir / "schema.json").unlink()
    assert registry.parse(t, ' {"a": \n') == (' {"a": \n', None)
    assert registry.parse(t, " \n") == (None, "text: empty")
    assert registry.check(t, {"text": "x"}, "一二三四") == ["max_chars: 4 characters, at most 3"]
    assert registry.check(t, {"text": "x"}, "") == ["text: empty"]


def test_training_rows_may_have_stricter_options(project: Project) -> None:
    t = plain(project, "[{length_within: {tolerance: 10, train: {tolerance: 2}}}, repetition]")
    row, text = {"text": "写10字"}, "零一二三四五六七八九零一二三"
    assert (registry.check(t, row, text), registry.verdicts(t, row, text)[0].distance) == ([], 4.0)
    assert registry.check(t, row, text, training=True) == [
        "length_within: 14 characters, 10 asked for"
    ]
    assert registry.verdicts(t, row, text, training=True)[0].passed is False


def test_the_options_that_train_does_not_name_stay(project: Project) -> None:
    t = plain(project, "[{repetition: {characters: 3, train: {phrases: 2}}}]")
    for text, metric, training in (
        ("好好好", False, False),
        ("好运好运", True, False),
        ("好运", True, True),
    ):
        row = {"text": "x"}
        assert (
            registry.check(t, row, text) == [],
            registry.check(t, row, text, training=True) == [],
        ) == (metric, training)


def test_a_check_may_be_listed_twice(project: Project) -> None:
    t = plain(project, '[{regex: {pattern: "^祝"}}, {regex: {pattern: "。$"}}]')
    assert registry.check(t, {"text": "x"}, "好") == ["regex: no ^祝", "regex: no 。$"]


def test_another_list_of_checks_is_another_judgement(project: Project) -> None:
    t = plain(project, "[language]")
    assert registry.check(t, {"text": "x"}, "ok") == ["language: ok"]
    t.config["checks"] = ["repetition"]
    assert registry.check(t, {"text": "x"}, "ok") == []


@pytest.mark.parametrize(
    ("listed", "message"),
    [
        (
            "[json_shema]",
            "unknown check 'json_shema', known are json_schema, exact_match, max_chars, ",
        ),
        ("[{3: {}}]", "unknown check 3, known are json_schema"),
        (
            "[{max_chars: 10}]",
            "max_chars: options are 10, expected a mapping such as {field: title}",
        ),
        ("[max_chars]", "max_chars: option limit is missing"),
        (
            "[{max_chars: {limt: 10}}]",
            "max_chars: unknown option 'limt', known are limit, field, train",
        ),
        (
            "[{max_chars: {limit: ten}}]",
            "max_chars: option limit is 'ten', expected a whole number, 0 or more",
        ),
        (
            "[{max_chars: {limit: -1}}]",
            "max_chars: option limit is -1, expected a whole number, 0 or more",
        ),
        (
            "[{max_chars: {limit: true}}]",
            "max_chars: option limit is True, expected a whole number, 0 or more",
        ),
        (
            "[{max_chars: {limit: 9, train: 2}}]",
            "max_chars: option train is 2, expected a mapping of options",
        ),
        (
            "[{max_chars: {limit: 9, train: {limt: 2}}}]",
            "max_chars: unknown option 'limt', known are limit, field, train",
        ),
        (
            "[{ends_with: {text: 3}}]",
            "ends_with: option text is 3, expected a text or a list of texts",
        ),
        (
            "[{ends_with: {text: []}}]",
            "ends_with: option text is [], expected a text or a list of texts",
        ),
        ("[{language: {allow: APP}}]", "language: option allow is 'APP', expected a list of texts"),
        (
            "[{language: {from_input: 1}}]",
            "language: option from_input is 1, expected true or false",
        ),
        (
            "[{repetition: {phrases: 1}}]",
            "repetition: option phrases is 1, expected a whole number, 2 or more",
        ),
        (
            '[{regex: {pattern: "("}}]',
            "regex: '(' is no regular expression (missing ), unterminated subpattern",
        ),
        (
            "[{length_within: {input: txt}}]",
            "length_within: option input is 'txt', expected one of the task's input fields: text",
        ),
        ("[grounded]", "grounded: one of the options fields, kinds and patterns is missing"),
        (
            "[{grounded: {kinds: [nmber]}}]",
            "grounded: option kinds has 'nmber', known are number, latin, title, quote, place",
        ),
        (
            "[{grounded: {fields: {word: 3}}}]",
            "grounded: option fields is {'word': 3}, expected a mapping of texts to texts",
        ),
        (
            "[{grounded: {fields: {word: x}}}]",
            "option fields is given, but the answers are plain text: list json_schema among",
        ),
        (
            "[{language: {field: word}}]",
            "option field is given, but the answers are plain text: list json_schema among",
        ),
        (
            "[json_schema, {language: {field: wrd}}]",
            "option field is 'wrd', expected a property of schema.json: word, length",
        ),
        ("[{json_schema: {field: word}}]", "json_schema: unknown option 'field', known are train"),
    ],
)
def test_a_mistake_in_the_list_of_checks_is_one_sentence(
    project: Project, listed: str, message: str
) -> None:
    t = plain(project, listed)
    for use in (
        registry.validate,
        lambda t: registry.parse(t, "x"),
        lambda t: registry.check(t, {"text": "x"}, "x"),
    ):
        with pytest.raises(UserError, match=re.escape(message)) as caught:
            use(t)
        assert str(caught.value).startswith("task.yaml: ")


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        (
            {"type": "objekt"},
            "schema.json: $.type: 'objekt' is not valid under any of the given schemas, expected ",
        ),
        (
            {"pattern": "("},
            "schema.json: $.pattern: '(' is not a 'regex', expected a JSON schema of draft 2020-12",
        ),
        ({"$ref": "#/$defs/x"}, "schema.json: $ref '#/$defs/x' leads to no part of the schema"),
    ],
)
def test_a_broken_schema_is_one_sentence(project: Project, schema: object, message: str) -> None:
    project.write("schema.json", json.dumps(schema))
    with pytest.raises(UserError, match=re.escape(message)):
        registry.validate(plain(project, "[json_schema]"))


def test_the_teacher_is_asked_nothing_while_a_check_is_mistyped(project: Project) -> None:
    project.seeds(3)
    plain(project, "[{max_chars: {limt: 3}}]")
    code, out = project.run("stages.generate")
    assert (code, out) == (
        1,
        "error: task.yaml: max_chars: unknown option 'limt', known are limit, field, train\n",
    )
    assert not (project.dir / ".cache/teacher").exists()


@pytest.mark.parametrize("number", ["1e400", "-1e999"])
def test_a_number_too_large_is_not_json(address: settings.Task, number: str) -> None:
    assert registry.parse(address, number) == (None, f"json: {number} is too large")
    assert registry.parse(address, "1.5e3") == (1500.0, None)
