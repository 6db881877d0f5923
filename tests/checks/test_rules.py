"""potstill.rules and potstill.grounded: each check passes, fails with a reason, or has nothing to judge by."""

import json
import re
import string
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from potstill.checks import registry, rules
from potstill.core.errors import UserError
from potstill.core.jsonl import Row
from potstill.task.settings import Task
from tests.conftest import ROOT

HAN = st.text(st.characters(min_codepoint=0x4E00, max_codepoint=0x9FA5), min_size=1, max_size=40)
TEXTS = st.text(st.sampled_from("新年快乐龙马精神，。！？ \n3a5“”祝你…"), max_size=60)


def made(*listed: object, **config: Any) -> Task:
    """A task of plain text with these checks."""
    values = {"input": ["text"], "user": "{{ text }}", "checks": list(listed), **config}
    return Task("toy", values, Path("."), Path("data"), Path("models"), Path("reports"))


def judged(
    listed: object, text: str, row: Row | str = "写一段祝福", training: bool = False
) -> str | bool | None:
    """True for a pass, the reason for a fail, None for unscored."""
    row = {"text": row} if isinstance(row, str) else row
    (verdict,) = registry.verdicts(made(listed), row, text, training)
    assert (verdict.reason is None) == (verdict.passed is True)
    assert verdict.reason is None or verdict.reason.startswith((f"{verdict.name}: ", "text: empty"))
    assert registry.check(made(listed), row, text, training) == (
        [verdict.reason] if verdict.passed is False else []
    )
    return verdict.reason if verdict.passed is False else verdict.passed


# excludes, covers


@pytest.mark.parametrize(
    ("options", "text", "row", "expected"),
    [
        ({"words": ["震惊", "必看"]}, "一段平常的话", "x", True),
        ({"words": ["震惊", "必看"]}, "全网必 看", "x", "excludes: 必看"),
        ({"words": ["WiFi"]}, "免费ｗｉｆｉ", "x", "excludes: WiFi"),
        ({"words": ["哈哈"], "when": "车祸|去世"}, "哈哈", "春游", True),
        ({"words": ["哈哈"], "when": "车祸|去世"}, "哈哈", "一场车祸", "excludes: 哈哈"),
        ({"words": ["哈哈"], "when": "车祸|去世"}, "平安", "一场车祸", True),
    ],
)
def test_excludes(options: dict[str, Any], text: str, row: str, expected: object) -> None:
    assert judged({"excludes": options}, text, row) == expected


@pytest.mark.parametrize(
    ("pattern", "text", "expected"),
    [
        ("地点：(.+)", "在东湖 公园举行", True),
        ("(?:地点|时间)：(.+)", "五月在东湖公园举行", "covers: 5月3日 is left out"),
        ("东湖", "东湖", True),
        ("电话：(.+)", "东湖", None),
        ("人物：(.*)", "东湖", None),  # empty is nothing
    ],
)
def test_covers(pattern: str, text: str, expected: object) -> None:
    assert (
        judged({"covers": {"pattern": pattern}}, text, "地点：东湖公园\n时间：5月3日\n人物：")
        == expected
    )


@pytest.mark.parametrize(
    ("text", "input_", "expected"),
    [
        ("好", "写一段话", True),
        ("好", "提到“花”", "covers: 花 is left out"),
        ("花", "提到“花”", True),
        ("好", "提到“”", None),
    ],
)
def test_covers_only_where_it_is_asked_for(text: str, input_: str, expected: object) -> None:
    assert (
        judged({"covers": {"pattern": "提到“([^”]*)”", "when": "提到"}}, text, input_) == expected
    )


@pytest.mark.parametrize(
    ("listed", "says"),
    [
        ({"excludes": {"words": [" "]}}, "option words has ' ', expected words"),
        ({"excludes": {"words": ["a"], "when": "("}}, "is no regular expression"),
        ({"excludes": {}}, "option words is missing"),
        ({"covers": {"pattern": "("}}, "is no regular expression"),
        ({"covers": {"pattern": "a", "when": "("}}, "is no regular expression"),
        ({"covers": {"pattern": "a", "input": "body"}}, "option input is 'body'"),
    ],
)
def test_a_wrong_option_is_one_sentence(listed: object, says: str) -> None:
    with pytest.raises(UserError, match=re.escape(says)):
        registry.validate(made(listed))


# json_schema


SMALL = st.integers(0, 3) | st.just(2.0)
NUMBERS = st.one_of(
    st.integers(-3, 3),
    st.sampled_from([0.5, 1.0, -0.0, 2**53, 2**53 + 1, 2**63, 2**64, 10**30, 1e23, 10**23, 1e300]),
)
STRINGS = st.one_of(
    st.text("ab3３\n😀 é٣", max_size=4),
    st.sampled_from(["\ud800", "a\u0000b", "人民路25号", "2026-01-01"]),
)
SCALARS = st.one_of(st.none(), st.booleans(), NUMBERS, STRINGS)
KEYS = st.sampled_from(["a", "b", "pattern", "名"])
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=6,
)
TYPES = st.sampled_from(["null", "boolean", "integer", "number", "string", "array", "object"])
PATTERNS = st.sampled_from(
    [
        r"^\S+(市|县)$",
        r"\d",
        r"^\d$",
        r"a$",
        r"^[ab]*$",
        r"\w\b",
        r"(?=.*a).*b",
        r"\s",
        r"^.$",
        r"(.)\1",
    ]
)


def plain_text(value: object) -> bool:
    """Whether there is no half of a surrogate pair in the value."""
    return "\\ud800" not in json.dumps(value)


def keywords(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    lists = st.lists(inner, min_size=1, max_size=2)
    return st.fixed_dictionaries(
        {},
        optional={
            "type": TYPES | st.lists(TYPES, min_size=1, max_size=2, unique=True),
            "enum": st.lists(VALUES.filter(plain_text), min_size=1, max_size=3),
            "const": VALUES.filter(plain_text),
            "properties": st.dictionaries(KEYS, inner, max_size=2),
            "required": st.lists(KEYS, max_size=2, unique=True),
            "additionalProperties": inner,
            "items": inner | st.just({"type": "string"}),
            "prefixItems": lists,
            "minItems": SMALL,
            "maxItems": SMALL,
            "uniqueItems": st.booleans(),
            "minLength": SMALL,
            "maxLength": SMALL,
            "minProperties": SMALL,
            "maxProperties": SMALL,
            "minimum": NUMBERS,
            "maximum": NUMBERS,
            "exclusiveMinimum": NUMBERS,
            "exclusiveMaximum": NUMBERS,
            "pattern": PATTERNS,
            "format": st.sampled_from(["date", "email", "regex", "ipv4"]),
            "anyOf": lists,
            "allOf": lists,
            "title": st.just("x"),
        },
    )


PIECES = st.recursive(st.booleans() | keywords(st.booleans()), keywords, max_leaves=4)
SCHEMAS = st.one_of(
    keywords(PIECES),
    PIECES.map(
        lambda piece: {
            "$defs": {"x": piece},
            "properties": {"a": {"$ref": "#/$defs/x"}},
            "items": {"$ref": "#/$defs/x"},
        }
    ),
)


@settings(max_examples=600, deadline=None)
@given(SCHEMAS, st.lists(VALUES, min_size=1, max_size=6))
def test_the_quick_validator_passes_only_what_jsonschema_passes(
    schema: Any, values: list[Any]
) -> None:
    quick = rules.quick_validator(schema)
    slow = Draft202012Validator(schema)
    for value in values:
        assert not quick or not quick(value) or slow.is_valid(value), (schema, value)


@settings(max_examples=300, deadline=None)
@given(keywords(st.booleans()), VALUES.filter(plain_text))
def test_the_quick_validator_passes_all_that_jsonschema_passes(schema: Any, value: Any) -> None:
    quick = rules.quick_validator(schema)
    assert not quick or quick(value) == Draft202012Validator(schema).is_valid(value)


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
    quick = rules.quick_validator({"pattern": pattern})
    assert quick and quick(text) is (re.search(pattern, text) is not None)


def test_good_answers_do_not_wait_for_jsonschema(monkeypatch: pytest.MonkeyPatch) -> None:
    t = made("json_schema")
    t.schema = {"type": "object", "properties": {"a": {"type": "string", "pattern": "^祝"}}}
    registry.validate(t)

    def slow(self: object, value: object) -> None:
        raise AssertionError("asked")

    monkeypatch.setattr(Draft202012Validator, "iter_errors", slow)
    assert registry.check(t, {"text": "x"}, '{"a": "祝"}') == []
    with pytest.raises(AssertionError, match="asked"):
        registry.check(t, {"text": "x"}, '{"a": "好"}')


@pytest.mark.parametrize(
    "schema",
    [
        {"multipleOf": 0.1},
        {"not": {"type": "number"}},
        {"oneOf": [True]},
        {"if": True},
        {"patternProperties": {"a": True}},
        {"const": 0.5},
        {"enum": [2**53]},
        {"uniqueItems": True},  # of 2**63 and 2.0**63
        {"minimum": 1e30},  # 10**30 is less than that float
        {"properties": {"a": {"items": {"$ref": "https://example.org/x"}}}},
        {"$schema": "http://json-schema.org/draft-07/schema#"},
        {"$id": "x"},
    ],
)
def test_a_schema_of_other_keywords_is_left_to_jsonschema(schema: Any) -> None:
    assert rules.quick_validator(schema) is None


@pytest.mark.parametrize(
    "schema",
    [
        json.loads((ROOT / "schemas/address.json").read_text(encoding="utf-8")),
        {"type": "array", "items": {"type": "string"}, "uniqueItems": True, "minItems": 1},
        {"$defs": {"x": {"enum": ["a", 1, None]}}, "properties": {"not": {"$ref": "#/$defs/x"}}},
    ],
)
def test_the_schemas_of_our_kind_are_read_quickly(schema: Any) -> None:
    assert rules.quick_validator(schema)


# texts


@given(TEXTS)
def test_white_space_alone_is_no_answer(text: str) -> None:
    assert (judged("repetition", text) == "text: empty") == (not text.strip())


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
    assert rules.same(found, expected) is right


@given(TEXTS.filter(str.strip), TEXTS.filter(str.strip))
def test_exact_match_is_equality_without_white_space(text: str, expected: str) -> None:
    row = {"text": "x", "expected": expected}
    assert (judged("exact_match", text, row) is True) == (
        "".join(text.split()) == "".join(expected.split())
    )
    assert judged("exact_match", " ".join(expected), row) is True
    assert judged("exact_match", text) is None


@given(TEXTS.filter(str.strip), st.integers(0, 60))
def test_max_chars_counts_what_is_not_white_space(text: str, limit: int) -> None:
    count = sum(not c.isspace() for c in text)
    (verdict,) = registry.verdicts(made({"max_chars": {"limit": limit}}), {"text": ""}, text)
    assert (verdict.passed, verdict.distance) == (count <= limit, max(count - limit, 0))


@given(st.integers(11, 300), st.integers(1, 330), st.integers(0, 12), st.booleans())
def test_length_within_measures_the_distance(
    asked: int, count: int, tolerance: int, strict: bool
) -> None:
    listed = {"length_within": {"tolerance": tolerance, "train": {"tolerance": tolerance // 2}}}
    for request, off, slack in (
        (f"写一段{asked}字的祝福", abs(count - asked), tolerance // 2 if strict else tolerance),
        (f"写一段{asked}字以内的祝福", max(count - asked, 0), 0),
        (f"写一段不少于{asked}字的祝福", max(asked - count, 0), 0),
    ):
        (verdict,) = registry.verdicts(
            made(listed), {"text": request}, "，\n 祝" * (count // 2) + "福" * (count % 2), strict
        )
        assert (verdict.passed, verdict.distance) == (off <= slack, off)


@pytest.mark.parametrize(
    ("request_", "text", "expected"),
    [
        ("写一段祝福", "好", None),
        ("标题5字以内，正文30字以内", "好", None),
        ("写一段10字以内的祝福", "新年快乐，万事如意！", True),
        ("写一段10字以内的祝福", "新年快乐， 万事如意！\n", True),
        (
            "写一段10字以内的祝福",
            "新年快乐，万事都如意！",
            "length_within: 11 characters, at most 10 asked for",
        ),
        ("写一段30-80字的祝福", "好", "length_within: 1 characters, 30 to 80 asked for"),
    ],
)
def test_length_within(request_: str, text: str, expected: object) -> None:
    assert judged("length_within", text, request_) == expected


def test_the_length_is_read_from_the_input_field_that_is_named() -> None:
    row = {"letter": "我写了300字", "request": "写成10字"}
    t = made({"length_within": {"input": "request"}}, input=["letter", "request"])
    assert registry.check(t, row, "零一二三四五六七八九") == []
    t = made("length_within", input=["letter", "request"])
    assert [v.passed for v in registry.verdicts(t, row, "零一二三四五六七八九")] == [None]


@given(HAN, HAN, HAN)
def test_excludes_input(word: str, before: str, after: str) -> None:
    assert judged("excludes_input", before + " ".join(word) + after, word) == "excludes_input: text"
    assert (judged("excludes_input", before, word) is True) == (word not in before)


@pytest.mark.parametrize(
    ("word", "text", "right"),
    [("KPI", "ｋｐｉ是爱", False), ("加 班", "加\n班", False), ("加班", "加个班", True)],
)
def test_excludes_input_whatever_its_case_and_width(word: str, text: str, right: bool) -> None:
    assert (judged("excludes_input", text, word) is True) == right


@given(TEXTS.filter(str.strip), st.lists(st.sampled_from("。！？~"), min_size=1, max_size=3))
def test_ends_with(text: str, ends: list[str]) -> None:
    assert (judged({"ends_with": {"text": ends}}, text) is True) == (text.strip()[-1] in ends)
    assert judged({"ends_with": {"text": ends[0]}}, text + ends[0] + " \n") is True


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("生活给了我一拳，我还给它一个微笑。", True),
        ("生活给了我一拳", True),
        (" 生活给了我一拳！？\n", True),
        ("他说：“好！”然后走了。", True),
        ("她想……算了。", True),
        ("只要3.5元，就在a.com。", True),
        ("“好。”", True),
        ("好。好。", "one_sentence: 2 sentences"),
        ("好。好", "one_sentence: 2 sentences"),
        ("真的？是！对。", "one_sentence: 3 sentences"),
        ("“好。”“走。”", "one_sentence: 2 sentences"),
        ("It is. So it is.", "one_sentence: 2 sentences"),
        ("上联\n下联", "one_sentence: several lines"),
        ("。", "one_sentence: no word"),
    ],
)
def test_one_sentence(text: str, expected: object) -> None:
    assert judged("one_sentence", text) == expected


@given(
    st.lists(HAN, min_size=1, max_size=5), st.sampled_from("。！？!?"), st.sampled_from("，、；…")
)
def test_one_sentence_counts_the_ends(parts: list[str], end: str, pause: str) -> None:
    found = judged("one_sentence", "".join(part + end for part in parts))
    assert found == (True if len(parts) == 1 else f"one_sentence: {len(parts)} sentences")
    assert judged("one_sentence", pause.join(parts) + end) is True


@given(TEXTS.filter(str.strip))
def test_regex(text: str) -> None:
    assert (judged({"regex": {"pattern": "^[^“”]*$"}}, text) is True) == (not set("“”") & set(text))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("新年快乐，2026！～①℃㎡〇々", True),
        ("祝您Happy每一天", "language: Happy"),
        ("Ｈａｐｐｙ", "language: Ｈａｐｐｙ"),
        ("祝您счастья", "language: счастья"),
        ("新年おめでとう", "language: おめでとう"),
        ("新年ハッピー", "language: ハッピー"),
        ("新年새해", "language: 새해"),
        ("α计划", "language: α"),
        ("打开app，连上 wifi", True),
        ("打开apps", "language: apps"),
        ("𠮷野家", True),
    ],
)
def test_language(text: str, expected: object) -> None:
    assert judged({"language": {"allow": ["APP", "ＷｉＦｉ"]}}, text) == expected


def test_language_of_the_input() -> None:
    assert judged({"language": {"from_input": True}}, "iphone很好", "写写iPhone 15") is True
    assert (
        judged({"language": {"from_input": True}}, "ipad很好", "写写iPhone 15") == "language: ipad"
    )


FOREIGN = string.ascii_letters + "éñßЖяωあンー한글กع"


@given(HAN, st.text(st.sampled_from(FOREIGN), min_size=1, max_size=6), HAN)
def test_language_finds_any_foreign_run(before: str, word: str, after: str) -> None:
    assert judged("language", before + after) is True
    assert judged("language", before + word + after) == f"language: {word}"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("新年快乐！", True),
        ("真的吗？！", True),
        ("他走了……再没回来——真的。", True),
        ("他走了......", True),
        ("恭喜恭喜，快快乐乐，年年有余，岁岁平安", True),
        ("哈哈哈哈", True),
        ("138888888，10000000元", True),
        ("1212121212", True),
        ("第1条第2条第3条", True),
        ("“好。”，她说", True),
        ("新年快乐。。", "repetition: 。。"),
        ("新年快乐，。", "repetition: ，。"),
        ("新年快乐。 。", "repetition: 。 。"),
        ("新年快乐！！", "repetition: ！！"),
        ("真的??", "repetition: ??"),
        ("走了………", "repetition: ………"),
        ("哈哈哈哈哈", "repetition: 哈哈哈哈哈"),
        ("🎉🎉🎉🎉🎉", "repetition: 🎉🎉🎉🎉🎉"),
        ("好运来好运来好运来", "repetition: 好运来 3 times"),
        ("愿你：新年快乐，新年快乐，新年快乐。", "repetition: 新年快乐 3 times"),
        ("新年快乐\n新年快乐\n新年快乐", "repetition: 新年快乐 3 times"),
        ("新年快乐，新年快乐。", True),
    ],
)
def test_repetition(text: str, expected: object) -> None:
    assert judged("repetition", text) == expected


def repeats(text: str, times: int) -> bool:
    """Whether a phrase of two characters or more stands `times` times in a row, by trying all."""
    return any(
        text.startswith(text[i : i + n] * times, i) and not text[i : i + n].isdigit()
        for n in range(2, len(text) // times + 1)
        for i in range(len(text) - n * times + 1)
    )


@settings(max_examples=300)
@given(st.text(st.sampled_from("新年快1"), min_size=1, max_size=24), st.integers(2, 4))
def test_repetition_finds_every_phrase(text: str, times: int) -> None:
    listed = {"repetition": {"phrases": times, "characters": 99}}
    assert (judged(listed, text) is not True) == repeats(text, times)


def test_a_reason_is_no_longer_than_a_line() -> None:
    assert judged("language", "a" * 5000) == "language: " + "a" * 200


# grounded


@pytest.mark.parametrize(
    ("kind", "text", "expected"),
    [
        ("number", "售价1299元，打9折", True),
        ("number", "售价1,299.00元", True),
        ("number", "售价１２９９元", True),
        ("number", "一千二百九十九元", True),
        ("number", "十全十美，百年好合，二十四节气", True),
        ("number", "三斤苹果，3斤梨", True),
        ("number", "共5万人，50000人", True),
        ("number", "2025年1月2日", True),
        ("number", "售价129元", "grounded: 129"),
        ("number", "售价三百元", "grounded: 三百"),
        ("number", "打8折", "grounded: 8"),
        ("latin", "iPHONE好用", True),
        ("latin", "Phone好用", "grounded: Phone"),
        ("title", "读《红楼梦》", True),
        ("title", "读《水浒传》", "grounded: 水浒传"),
        ("quote", "他说“早点 来”", True),
        ("quote", "他说「晚点来」", "grounded: 晚点来"),
        ("place", "在大理市，云南省", True),
        ("place", "在昆明市", "grounded: 昆明市"),
        ("place", "去北京", "grounded: 北京"),
    ],
)
def test_grounded_kinds(kind: str, text: str, expected: object) -> None:
    source = "云南大理的iPhone 15，1299元，9折，三斤，5万人，2025.1.2，《红楼梦》，早点来"
    assert judged({"grounded": {"kinds": [kind]}}, text, source) == expected


@given(st.integers(0, 10**6), st.integers(0, 10**6), HAN)
def test_grounded_compares_numbers_by_value(there: int, said: int, around: str) -> None:
    around = "".join(c for c in around if c not in "零一二两三四五六七八九十百千万〇")
    found = judged(
        {"grounded": {"kinds": ["number"]}}, f"{around}：{said:,}元", f"{around}{there}元"
    )
    assert found == (True if there == said else f"grounded: {said:,}")


def test_grounded_patterns() -> None:
    listed = {"grounded": {"patterns": ["(王|李).(?=先生)"]}}
    assert judged(listed, "王明先生好", "找王明") is True
    assert judged(listed, "李明先生好", "找王明") == "grounded: 李"


# every rule


TEXT_RULES = [
    {"max_chars": {"limit": 5}},
    "length_within",
    "excludes_input",
    {"ends_with": {"text": "。"}},
    "one_sentence",
    {"regex": {"pattern": "^祝"}},
    "language",
    "repetition",
    {"grounded": {"kinds": ["number", "latin", "title", "quote", "place"]}},
]


@pytest.mark.parametrize("listed", TEXT_RULES)
@given(text=st.text(min_size=1, max_size=50), row=st.text(min_size=1, max_size=30))
def test_any_text_gets_a_verdict_and_the_field_of_an_object_the_same(
    listed: object, text: str, row: str
) -> None:
    whole = made(listed)
    (verdict,) = registry.verdicts(whole, {"text": row}, text)
    assert verdict.distance >= 0
    name, options = next(iter(listed.items())) if isinstance(listed, dict) else (listed, {})
    t = made("json_schema", {str(name): {**options, "field": "body"}})
    t.schema = {"properties": {"body": {}}}
    of_field = registry.verdicts(t, {"text": row}, json.dumps({"body": text}))[1]
    if text.strip():
        assert (of_field.passed, of_field.distance) == (verdict.passed, verdict.distance)
    assert registry.verdicts(t, {"text": row}, '{"body": 3}')[1].reason == f"{name}: body: no text"
