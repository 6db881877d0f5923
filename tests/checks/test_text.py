"""potstill.checks.text: each check passes, fails with a reason, or has nothing to judge by."""

import json
import re
import string
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from potstill.checks import registry
from potstill.core.errors import UserError
from tests.checks.judging import HAN, TEXTS, judged, made


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
        ({"excludes": {"words": [" "]}}, "option words is [' '], expected a list of texts"),
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


@given(TEXTS)
def test_white_space_alone_is_no_answer(text: str) -> None:
    assert (judged("repetition", text) == "text: empty") == (not text.strip())


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
        ("新年快乐！。", "repetition: ！。"),
        ("新年快乐：，", "repetition: ：，"),
        ("新年快乐！？", True),
        ("新年快乐!！", True),
        ("新年快乐。！", True),
        ("说“新年快乐！”。", True),
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
