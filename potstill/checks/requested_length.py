"""The length that a request itself asks for: 80字, 50字以内, 不少于200字, 30到80字, 五十字左右.

A length counts every character that is not white space, punctuation included. Only what is said
plainly is read: 几百字, 两三百字, 每句7个字, 第50字 and 四字成语 ask for no length of the answer.
"""

import re
from decimal import Decimal
from functools import lru_cache
from typing import NamedTuple

from potstill.core.jsonl import squeeze


class Length(NamedTuple):
    """A length from `low` to `high` characters; None is no bound. `exact`: one number was named
    (80字, 约80字), not a bound."""

    low: int | None
    high: int | None
    exact: bool = False

    def off(self, count: int) -> int:
        """How many characters a text of `count` is away."""
        return max((self.low or 0) - count, 0 if self.high is None else count - self.high, 0)

    def __str__(self) -> str:
        if self.low is None or self.high is None:
            return f"at most {self.high}" if self.low is None else f"at least {self.low}"
        return str(self.low) if self.exact else f"{self.low} to {self.high}"


DIGITS = {c: i for i, c in enumerate("零一二三四五六七八九")} | {"〇": 0, "两": 2}
UNITS = {"十": 10, "百": 100, "千": 1000, "万": 10_000}
NUMERAL = "[零〇一二两三四五六七八九十百千万]+"
NUMBER = rf"\d{{1,3}}(?:,\d{{3}})+(?!\d)[百千万]?|\d+(?:\.\d+)?[百千万]|\d+|{NUMERAL}"
_ONE = "[一二两三四五六七八九]"
_SECTION = re.compile(
    rf"(?:({_ONE})千)?(?:(?<![十百千万])零?({_ONE})百|(?<=千)零?({_ONE})百)?(?:零?({_ONE})十)?(?:(零?)({_ONE}))?"
)
# 50字节日祝福 and 50字母亲节祝福 ask for 50 characters, 26个字母 and 64字节 for none
_UNIT = r"\s*个?\s*(?:汉字|中文字|字符|字)(?!节(?!日)|母(?![亲爱])|段(?!落)|号(?!召))"
_AFTER = (
    r"\s*(?:[(（][^()（）]{0,8}[)）]\s*)?(?:[或及])?(?:(?P<most>[以之]内|以下|为限|封顶|内(?![容涵心部]))"
    r"|(?P<least>[以之]上|起(?![名草来因源])|往上|打底|开外)|左右|上下|前后)?"
)
_MENTION = re.compile(
    rf"(?<!\d)(?P<a>{NUMBER})(?P<unit>{_UNIT})?"
    rf"(?:\s*(?:[-–—－~～〜]{{1,2}}|至|到|和(?=.{{1,9}}之间))\s*(?P<b>{NUMBER})(?P<unit_b>{_UNIT})?)?{_AFTER}"
)
_FILLER = r"(?:[要得需应该写用有为是达到在约了]|大约|大概|控制|保持){0,4}\s*$"
_BOUND = re.compile(
    r"(?:(?P<over>超过|超出|多于|大于|高于|多过)|(?P<under>少于|低于|小于|短于|不足|不到)|(?P<most>[最至顶]多|上限)"
    rf"|(?P<least>[最至]少|起码|下限)){_FILLER}"
)
_NOT = re.compile(r"(?:不|别|勿|莫|禁止|避免|切忌)[^，,。；;！!？?\s]{0,3}$")
_COUNT = re.compile(r"字数[^\d，,。；;！!？?\n]{0,8}$")
_AFTER_COUNT = re.compile(r"[，,。；;！!？?)）\s]|之间|左右|$")
# what is not the length of the answer: a place in a text, another text, a part of the answer
_OTHER = re.compile(
    r"(?:第|(?<![之目以])前|原文|[这那](?:一?[段篇封首条句则份个])?|各(?:自|段|句|条|行|篇|项|点|控制|在|约)*"
    r"|每[一个小]?(?:[句行段条首篇则联个点项章节封]|部分|标题)[^，,。；;！!？?\n]{0,6})\s*$"
)
_FIXED = re.compile(
    r"(?:的?(?:成语|词|诗|句|口诀|短语|联|真言)|路口|架|绣|军|街|文(?![章案字本])|令)"
)


def count(text: str) -> int:
    """Characters that are not white space."""
    return len(squeeze(text))


def number(text: str) -> Decimal | int | None:
    """The value of 80, 1,200, 1.5万, 五十, 一百零五, 一千五, 一万二 or 二〇〇; None for no number
    or a vague one (两三百)."""
    if text[:1].isdigit():
        value = Decimal(text.rstrip("百千万").replace(",", ""))
        return value * UNITS.get(text[-1], 1)
    if text[:1] not in "零〇" and set(text) & set("零〇") and set(text) <= DIGITS.keys():
        return int("".join(str(DIGITS[c]) for c in text))
    none = DIGITS.keys() if text[:1] == "万" else {"零", "〇"}  # 万一 says "in case"
    text = "一" + text if text[:1] in UNITS else text
    if "万" not in text:
        return _section(text)
    high, _, low = text.partition("万")
    myriads, rest = _section(high), _section(low.removeprefix("零")) if low else 0
    if myriads is None or rest is None or low in none:
        return None
    return myriads * 10_000 + rest * (1000 if low in DIGITS else 1)


def _section(text: str) -> int | None:
    """The value of a Chinese numeral under 10,000."""
    match = _SECTION.fullmatch(text)
    if not text or match is None:
        return None
    thousand, hundred, late_hundred, ten, zero, one = match.groups(default="")
    hundred = hundred or late_hundred
    value = sum(DIGITS[d] * unit for d, unit in ((thousand, 1000), (hundred, 100), (ten, 10)) if d)
    short = 1 if ten or zero or not value else 10 if hundred else 100  # 一百二: 120, 一百零二: 102
    return value + DIGITS.get(one, 0) * short


@lru_cache(4096)
def asked(request: str) -> tuple[Length, ...]:
    """The length that a request asks for: () when it asks for none, several when they cannot all be
    the answer's. A lower and an upper bound are joined."""
    lengths = [_length(request, match) for match in _MENTION.finditer(request)]
    found = list(dict.fromkeys(length for length in lengths if length))
    lows = [length.low for length in found if length.high is None]
    highs = [length.high for length in found if length.low is None]
    if len(found) == 2 and lows and highs and (lows[0] or 0) <= (highs[0] or 0):
        return (Length(lows[0], highs[0]),)
    return tuple(found)


def _length(text: str, match: re.Match[str]) -> Length | None:
    start, end = match.span()
    before = text[max(0, start - 16) : start]
    counted = _COUNT.search(before)
    ended = match["most"] or match["least"] or _AFTER_COUNT.match(text, end)
    if not match["unit_b" if match["b"] else "unit"] and not (counted and ended):
        return None
    if match["a"][0] in UNITS and before[-1:] in tuple("几数上好近成") and not counted:
        return None
    a, b = number(match["a"]), number(match["b"] or match["a"])
    if a is None or b is None or max(a, b) > 10**8 or a % 1 or b % 1:
        return None
    bound = _BOUND.search(before)
    lead = before[: bound.start()] if bound else before
    if _OTHER.search(lead):
        return None
    low, high = int(min(a, b)), int(max(a, b))
    if match["b"]:
        return Length(low, high)
    says = bound.lastgroup if bound else None
    if says in ("over", "under"):
        negated = _NOT.search(lead)
        if says == "over":
            return Length(None, high) if negated else Length(low + 1, None)
        return Length(low, None) if negated else Length(None, high - 1)
    if match["most"] or says == "most":
        return Length(None, high)
    if match["least"] or says == "least":
        return Length(low, None)
    small = low < 2 or low < 10 and not match["a"].isdigit()  # 一个字也不多, 三字经
    if not counted and (small or (low <= 10 or match["a"] in UNITS) and _FIXED.match(text, end)):
        return None
    return Length(low, high, exact=True)
