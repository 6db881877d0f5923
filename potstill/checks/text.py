"""The checks of a text: the whole answer, or with the option `field` a field of it.

Each takes the text and its options. The option `input` holds the row's input fields, or only the
one that task.yaml names.
"""

import re
from collections.abc import Mapping
from itertools import pairwise
from typing import NewType

from potstill.checks import requested_length
from potstill.checks.rule import PASS, Finding, failed, plain

Source = Mapping[str, str]
Pattern = re.Pattern[str]
Times = NewType("Times", int)  # 2 or more
_ANY = re.compile("")


def max_chars(answer: str, *, limit: int) -> Finding:
    """Has no more than `limit` characters that are not white space."""
    over = requested_length.count(answer) - limit
    return failed(f"{limit + over} characters, at most {limit}", over) if over > 0 else PASS


def length_within(answer: str, *, tolerance: int = 0, input: Source) -> Finding:
    """Is as long as the input asks. `tolerance` is for a number that is named (80字, 约80字); a
    bound (50字以内, 30-80字) is kept to the character."""
    asked = requested_length.asked("\n".join(input.values()))
    if len(asked) != 1:
        return Finding(None, f"the request asks for {'several lengths' if asked else 'no length'}")
    count = requested_length.count(answer)
    off = asked[0].off(count)
    if off > (tolerance if asked[0].exact else 0):
        return failed(f"{count} characters, {asked[0]} asked for", off)
    return Finding(True, distance=float(off))


def excludes_input(answer: str, *, input: Source) -> Finding:
    """Contains no input field; white space, case and width ignored."""
    text = plain(answer)
    return next((failed(name) for name, value in input.items() if plain(value) in text), PASS)


def excludes(answer: str, *, words: list[str], when: Pattern = _ANY, input: Source) -> Finding:
    """Has none of the words; white space, case and width ignored. With the pattern `when`, only
    where that is found in the input: other answers pass."""
    if not any(map(when.search, input.values())):
        return PASS
    text = plain(answer)
    return next((failed(word) for word in words if plain(word) in text), PASS)


def covers(answer: str, *, pattern: Pattern, when: Pattern = _ANY, input: Source) -> Finding:
    """Has what the pattern finds in the input (its first group, or all that matches); white space,
    case and width ignored. With the pattern `when`, only where that is found in the input: other
    answers pass."""
    if not any(map(when.search, input.values())):
        return PASS
    group = min(pattern.groups, 1)
    parts = [match[group] for value in input.values() for match in pattern.finditer(value)]
    wanted = [part for part in parts if part and plain(part)]
    if not wanted:
        return Finding(None, "the input has nothing that the pattern finds")
    text = plain(answer)
    return next((failed(f"{part} is left out") for part in wanted if plain(part) not in text), PASS)


def ends_with(answer: str, *, text: str | list[str]) -> Finding:
    """Ends with `text`, or one of several; white space behind it ignored."""
    answer = answer.rstrip()
    ends = (text,) if isinstance(text, str) else tuple(text)
    return PASS if answer.endswith(ends) else failed(f"ends with {answer[-1:]!r}")


# An end of a sentence: not the point of 3.5 or a.com, not an ellipsis.
_CLOSING = "”’」』）)】》\"'"
_END = re.compile(rf"(?:[。！？!?｡]+|\.(?=\s|$))[{_CLOSING}]*")


def one_sentence(answer: str) -> Finding:
    """Is one sentence on one line. A quotation within it may hold sentences."""
    answer = answer.strip()
    if len(answer.splitlines()) > 1:
        return failed("several lines")
    inner = sum(
        match[0][-1] not in _CLOSING or answer[match.end()] in "“‘「『"
        for match in _END.finditer(answer)
        if match.end() < len(answer)
    )
    if inner:
        return failed(f"{inner + 1} sentences")
    return PASS if re.search(r"\w", answer) else failed("no word")


def regex(answer: str, *, pattern: Pattern) -> Finding:
    """The pattern (of Python's re) is found in the text; `^…$` for the whole of it."""
    return PASS if pattern.search(answer) else failed(f"no {pattern.pattern}")


_HAN = (
    "\u2e80-\u2fdf\u3005-\u3007\u3021-\u3029\u3038-\u303b"
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
)
_FOREIGN = re.compile(rf"[^\W\d_{_HAN}]+")


def language(
    answer: str, *, allow: list[str] | None = None, from_input: bool = False, input: Source
) -> Finding:
    """Is Chinese: no letters of another script (Latin, Cyrillic, kana, hangul, …) but for the words
    of `allow` and, with `from_input`, those of the input; case and width ignored."""
    words = _FOREIGN.findall(answer)
    if not words:
        return PASS
    sources = [*(allow or []), *(input.values() if from_input else [])]
    known = {plain(word) for source in sources for word in _FOREIGN.findall(source)}
    foreign = (word for word in words if plain(word) not in known and any(map(str.isalpha, word)))
    return next((failed(word) for word in foreign), PASS)


_MARKS = "[。，、；：！？,;:!?｡､…—.]"
_TWO_MARKS = re.compile(rf"{_MARKS}\s*{_MARKS}")  # a quick look, before _DOUBLED
_DOUBLED = re.compile(
    r"[。，、；：,;:！？!?｡､]\s*[。，、；：,;｡､]|！\s*！|？\s*？|!\s*!|\?\s*\?|…{3,}|\.{7,}|—{3,}"
)


def repetition(answer: str, *, characters: Times = Times(5), phrases: Times = Times(3)) -> Finding:
    """Has no two marks in a row (docs/data.md says of which; ！。 are two, ！？ one), no character
    `characters` times in a row (but digits), no phrase of two characters or more `phrases` times in
    a row, whatever punctuation stands between them."""
    if _TWO_MARKS.search(answer) and (match := _DOUBLED.search(answer)):
        return failed(match[0])
    for match in re.finditer(rf"(.)\1{{{characters - 1}}}", answer):
        if not match[1].isdigit() and not match[1].isspace() and match[1] not in ".…—-=_*#~":
            return failed(match[0])
    words = re.sub(r"[\W_]+", "", answer)
    pairs_again = len(words) - 1 - len(set(pairwise(words)))
    if pairs_again < 2 * phrases - 3:  # a phrase so often in a row has more: a quick look
        return PASS
    phrase = _repeated(words, phrases)
    return failed(f"{phrase} {phrases} times") if phrase else PASS


def _repeated(text: str, times: int) -> str | None:
    """The first phrase of two characters or more, not all digits, that stands `times` times in a
    row."""
    starts: dict[str, list[int]] = {}  # of each pair of characters
    for at in range(len(text) - 1):
        earlier = starts.setdefault(text[at : at + 2], [])
        for start in earlier:
            phrase = text[start:at]
            again = len(phrase) > 1 and text.startswith(phrase * (times - 1), at)
            if again and not phrase.isdigit():
                return phrase
        earlier.append(at)
    return None
