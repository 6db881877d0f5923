"""potstill.checks.requested_length: what length a request asks for, and what only looks so."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from potstill.checks import requested_length
from potstill.checks.requested_length import Length, asked

DIGITS = "零一二三四五六七八九"


def chinese(n: int) -> str:
    """A number from 1 to 9,999 as it is written: 105 is 一百零五, 15 is 十五."""
    out, units = "", ("", "十", "百", "千")
    for place in range(3, -1, -1):
        digit = n // 10**place % 10
        if digit:
            out += DIGITS[digit] + units[place]
        elif out and not out.endswith("零") and n % 10**place:
            out += "零"
    return out[1:] if out.startswith("一十") else out


def exactly(n: int) -> Length:
    return Length(n, n, exact=True)


@pytest.mark.parametrize(
    ("request_", "length"),
    [
        ("写一段80字的新年祝福", exactly(80)),
        ("写300个字", exactly(300)),
        ("写 300 个 字", exactly(300)),
        ("300字左右", exactly(300)),
        ("约300字", exactly(300)),
        ("写一段五十字的祝福", exactly(50)),
        ("写一段５０字的祝福", exactly(50)),
        ("写一篇一千五百字的作文", exactly(1500)),
        ("一百零五字", exactly(105)),
        ("一百二字", exactly(120)),
        ("二〇〇字", exactly(200)),
        ("两百字", exactly(200)),
        ("一篇百字祝福", exactly(100)),
        ("1,200字的文章", exactly(1200)),
        ("1.5万字", exactly(15000)),
        ("2千字", exactly(2000)),
        ("50字符合节日气氛的话", exactly(50)),
        ("50字节日祝福", exactly(50)),
        ("50字母亲节祝福", exactly(50)),
        ("50字内容", exactly(50)),
        ("2026年1月1日写80字", exactly(80)),
        ("为每位同事写一段50字的祝福", exactly(50)),
        ("字数：300", exactly(300)),
        ("写80字，至少3句", exactly(80)),
        ("50字以内", Length(None, 50)),
        ("五十字之内", Length(None, 50)),
        ("50字（含标点）以内", Length(None, 50)),
        ("50字内", Length(None, 50)),
        ("100字及以下", Length(None, 100)),
        ("不超过50字", Length(None, 50)),
        ("不多于五十个字", Length(None, 50)),
        ("不得超过 100 字", Length(None, 100)),
        ("不允许超过50字", Length(None, 50)),
        ("请不要超过50字", Length(None, 50)),
        ("最多写50字", Length(None, 50)),
        ("最多不超过50字", Length(None, 50)),
        ("至多八字", Length(None, 8)),
        ("写十字以内", Length(None, 10)),
        ("字数控制在50以内", Length(None, 50)),
        ("要求：1.50字以内；2.有新意", Length(None, 50)),
        ("少于50字", Length(None, 49)),
        ("不到五十字", Length(None, 49)),
        ("不少于200字", Length(200, None)),
        ("不能少于一百二十字", Length(120, None)),
        ("不低于300字", Length(300, None)),
        ("至少200字", Length(200, None)),
        ("至少要写200字", Length(200, None)),
        ("200字以上", Length(200, None)),
        ("200字及以上", Length(200, None)),
        ("超过200字", Length(201, None)),
        ("30-80字", Length(30, 80)),
        ("30到80字", Length(30, 80)),
        ("30~80字", Length(30, 80)),
        ("30～80个字", Length(30, 80)),
        ("30——80字", Length(30, 80)),
        ("３０－８０字", Length(30, 80)),
        ("30字至80字", Length(30, 80)),
        ("八十到五十字", Length(50, 80)),
        ("介于30和80字之间", Length(30, 80)),
        ("字数在30到80之间", Length(30, 80)),
        ("200字以上，300字以内", Length(200, 300)),
        ("字数不少于200，不超过300字", Length(200, 300)),
        ("不超过300字，不少于200字，记住不超过300字", Length(200, 300)),
    ],
)
def test_a_length_is_read(request_: str, length: Length) -> None:
    assert asked(request_) == (length,)


@pytest.mark.parametrize(
    "request_",
    [
        "写一段新年祝福",
        "",
        "字",
        "用一个四字成语开头",
        "三字经",
        "写一首五字诗",
        "千字文",
        "在十字路口",
        "一个字也不要多",
        "第50字是什么",
        "取前50字",
        "几百字",
        "两三百字",
        "200多字",
        "上百字",
        "数十字",
        "每句7个字",
        "每句不超过10个字",
        "每条祝福语不超过50字",
        "各50字",
        "这50个字",
        "原文500字",
        "26个字母",
        "64字节",
        "写80个词",
        "字数要求：3段",
        "写3条，2026年用",
        "9" * 60 + "字",
    ],
)
def test_what_is_vague_or_of_something_else_is_no_length(request_: str) -> None:
    assert asked(request_) == ()


@pytest.mark.parametrize(
    "request_",
    [
        "标题10字以内，正文30字以内",
        "先写200字以上，再用100字以内总结，共150字",
        "80字或者100字",
        "不少于300字，不超过200字",
        "不少于200字，不超过300字，标题10字以内",
    ],
)
def test_several_lengths_are_not_mixed(request_: str) -> None:
    assert len(asked(request_)) > 1


FORMS = [
    ("不超过{}字", lambda n: Length(None, n)),
    ("{}字以内的祝福", lambda n: Length(None, n)),
    ("不少于{}个字", lambda n: Length(n, None)),
    ("至少{}字", lambda n: Length(n, None)),
    ("写{}字以上", lambda n: Length(n, None)),
    ("写一篇{}字的祝福", exactly),
    ("{}个字左右", exactly),
]


@given(
    st.integers(11, 9999), st.sampled_from(FORMS), st.sampled_from(["digits", "wide", "chinese"])
)
def test_a_number_is_read_in_each_form_and_script(
    n: int, form: tuple[str, object], script: str
) -> None:
    text, length = form
    wide = str(n).translate(str.maketrans("0123456789", "０１２３４５６７８９"))
    written = {"digits": str(n), "wide": wide, "chinese": chinese(n)}[script]
    assert callable(length)
    assert asked(text.format(written)) == (length(n),)


@given(st.integers(1, 9999), st.integers(1, 9999), st.sampled_from("-~～—到至"), st.booleans())
def test_a_range_is_read_in_either_script(a: int, b: int, between: str, words: bool) -> None:
    low, high = (chinese(a), chinese(b)) if words else (str(a), str(b))
    assert asked(f"写{low}{between}{high}字") == (Length(min(a, b), max(a, b)),)


@given(st.integers(1, 99_999_999))
def test_a_chinese_numeral_has_the_value_that_it_says(n: int) -> None:
    high, low = divmod(n, 10_000)
    zero = "零" if high and 0 < low < 1000 else ""
    rest = chinese(low)
    if high and rest.startswith("十"):
        rest = "一" + rest
    assert requested_length.number((chinese(high) + "万" if high else "") + zero + rest) == n


@pytest.mark.parametrize(
    "text", ["两三百", "三五", "千百", "零", "一二三", "百万千", "十十", "万一", "五百百"]
)
def test_what_is_no_number_has_no_value(text: str) -> None:
    assert requested_length.number(text) is None


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *(("1,200", "1200"), ("1.5万", "15000"), ("1,200万", "12000000"), ("３", "3"), ("两", "2")),
        *(("二〇二六", "2026"), ("一百二", "120"), ("两万二", "22000"), ("一万零二", "10002")),
    ],
)
def test_numbers(text: str, value: str) -> None:
    assert requested_length.number(text) == Decimal(value)


@given(st.text())
def test_any_text_is_read(text: str) -> None:
    assert all(
        (x.low or 0) <= (x.high or 10**9)
        for x in asked(text)
        if x.high is None or x.low is None or x.exact
    )
    assert requested_length.count(text) == sum(not c.isspace() for c in text)


@given(st.integers(0, 400), st.integers(1, 200), st.integers(0, 200))
def test_the_distance_is_how_many_characters_must_change(count: int, low: int, more: int) -> None:
    length = Length(low, low + more)
    assert length.off(count) == min(abs(count - wanted) for wanted in range(low, low + more + 1))
    assert (Length(low, None).off(count), Length(None, low).off(count)) == (
        max(low - count, 0),
        max(count - low, 0),
    )
