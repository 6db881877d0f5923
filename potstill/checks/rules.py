"""The rules behind the checks: each is a function of the task and its options (keyword arguments, whose types are what
task.yaml may say) that is called once a task and gives a rule. The rule takes the input row, the parsed answer and its text, and
says pass, fail with a reason, or unscored where there is nothing to judge by.
"""

import re
from collections.abc import Callable
from itertools import pairwise
from typing import Any
from unicodedata import normalize

from potstill.checks import requested_length
from potstill.core.errors import UserError
from potstill.core.jsonl import Row, squeeze
from potstill.task.settings import Task

Finding = tuple[
    bool | None, str | None, float
]  # passed, or None for unscored; why not; distance, 0 is perfect
Rule = Callable[[Row, Any, str], Finding]
PASS: Finding = (True, None, 0.0)


def failed(why: str, distance: float = 1.0) -> Finding:
    """The check fails. The reason quotes no more than a line of a long answer."""
    return False, why[:200], float(distance)


def unscored(why: str) -> Finding:
    """The check has nothing to judge by."""
    return None, why, 0.0


def of(field: str | None, judge: Callable[[Row, str], Finding]) -> Rule:
    """The rule that judges a field of the answer, or with None its whole text."""
    if field is None:
        return lambda row, value, text: judge(row, text)

    def rule(row: Row, value: Any, text: str) -> Finding:
        found = value.get(field) if isinstance(value, dict) else None
        passed, why, distance = judge(row, found) if isinstance(found, str) else failed("no text")
        return PASS if passed and not distance else (passed, why and f"{field}: {why}", distance)

    return rule


def inputs(task: Task, name: str | None) -> list[str]:
    """The input fields that a check looks at: the one named, or all. Raises ValueError when the task has no such field."""
    fields: list[str] = task.config["input"]
    if name is not None and name not in fields:
        raise ValueError(
            f"option input is {name!r}, expected one of the task's input fields, {', '.join(fields)}"
        )
    return fields if name is None else [name]


def plain(text: str) -> str:
    """The text without white space, case and width."""
    return squeeze(normalize("NFKC", text)).casefold()


def compiled_pattern(pattern: str) -> re.Pattern[str]:
    """Raises ValueError when it is no regular expression."""
    try:
        return re.compile(pattern)
    except re.error as error:
        raise ValueError(f"{pattern!r} is no regular expression ({error})") from None


def json_schema(task: Task) -> Rule:
    """The answer obeys schemas/<task>.json, of draft 2020-12. `jsonschema` decides and gives the reasons; `jsonschema-rs`
    only passes good answers sooner, for schemas of keywords that both read alike."""
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import SchemaError, best_match

    try:
        Draft202012Validator.check_schema(task.schema, Draft202012Validator.FORMAT_CHECKER)
    except SchemaError as error:
        raise UserError(
            f"schema.json: {error.json_path}: {error.message[:200]}, expected a JSON schema of draft 2020-12"
        ) from None
    decide, quick = Draft202012Validator(task.schema), quick_validator(task.schema)

    def rule(row: Row, value: Any, text: str) -> Finding:
        if quick and quick(value):
            return PASS
        try:
            error = best_match(decide.iter_errors(value))
        except RecursionError:
            return failed("answer: nested too deep")
        if error is None:
            return PASS
        return failed(
            f"{error.json_path.removeprefix('$').removeprefix('.') or 'answer'}: {error.validator}"
        )

    return rule


# Keywords that both libraries read alike, beside those of `_alike_keyword`. Not among them: multipleOf (0.3 of 0.1), not, oneOf, if
# (they turn a difference elsewhere, such as half a surrogate pair, into a pass) and all that is rare.
_ALIKE = {
    "type",
    "required",
    "minLength",
    "maxLength",
    "minItems",
    "maxItems",
    "minProperties",
    "maxProperties",
}
_ALIKE |= {"pattern", "format"}
_ALIKE |= {"title", "description", "default", "examples"}
_DRAFT = "https://json-schema.org/draft/2020-12/schema"


def quick_validator(schema: Any) -> Callable[[Any], bool] | None:
    """A fast test that an answer obeys the schema, or None for a schema that `jsonschema-rs` may read otherwise; False
    says nothing. Patterns are those of Python's re, formats are not looked at, as in `jsonschema`."""
    if not _alike(schema):
        return None
    from jsonschema_rs import Draft202012Validator

    obeys = Draft202012Validator(
        schema, validate_formats=False, keywords={"pattern": _Pattern}
    ).is_valid

    def quick(value: Any) -> bool:
        try:
            return obeys(value)
        except ValueError:  # half a surrogate pair, nested too deep
            return False

    return quick


class _Pattern:
    """The keyword `pattern` for jsonschema-rs."""

    def __init__(self, schema: object, pattern: str, path: object) -> None:
        self.search = re.compile(pattern).search

    def validate(self, value: object) -> None:
        if isinstance(value, str) and not self.search(value):
            raise ValueError


def _alike(schema: Any) -> bool:
    if isinstance(schema, bool):
        return True
    items = schema.get("items")
    texts = (
        isinstance(items, dict) and items.get("type") == "string"
    )  # 2**63 and 2.0**63 are equal to jsonschema alone
    return all(
        texts if key == "uniqueItems" else _alike_keyword(key, value)
        for key, value in schema.items()
    )


def _alike_keyword(key: str, value: Any) -> bool:
    match key:
        case "properties" | "$defs":
            return all(map(_alike, value.values()))
        case "anyOf" | "allOf" | "prefixItems":
            return all(map(_alike, value))
        case "items" | "additionalProperties":
            return _alike(value)
        case "enum" | "const":
            return _exact(value)
        case "$ref":
            return bool(value.startswith("#/"))
        case "$schema":
            return bool(value == _DRAFT)
        case "minimum" | "maximum" | "exclusiveMinimum" | "exclusiveMaximum":
            return bool(abs(value) < 2**53)
    return key in _ALIKE


def _exact(value: Any) -> bool:
    """Whether both libraries compare the value alike: a whole number is one that a float holds."""
    if isinstance(value, dict | list):
        return all(map(_exact, value.values() if isinstance(value, dict) else value))
    return not isinstance(value, float) and (not isinstance(value, int) or abs(value) < 2**53)


def exact_match(task: Task, *, field: str | None = None) -> Rule:
    """The answer is the row's `expected`, white space ignored: an object has the same keys with the same values."""

    def rule(row: Row, value: Any, text: str) -> Finding:
        expected = row.get("expected")
        if field is not None:
            expected = expected.get(field) if isinstance(expected, dict) else None
            value = value.get(field) if isinstance(value, dict) else None
        if expected is None:
            return unscored("nothing is expected")
        return PASS if same(value, expected) else failed(field or "another answer is expected")

    return rule


def same(found: object, expected: object) -> bool:
    """Whether two JSON values are equal, white space in texts ignored; true is not 1."""
    if isinstance(expected, str):
        return isinstance(found, str) and squeeze(found) == squeeze(expected)
    if isinstance(expected, dict):
        return (
            isinstance(found, dict)
            and found.keys() == expected.keys()
            and all(same(found[key], value) for key, value in expected.items())
        )
    if isinstance(expected, list):
        return (
            isinstance(found, list)
            and len(found) == len(expected)
            and all(map(same, found, expected))
        )
    return isinstance(found, bool) == isinstance(expected, bool) and found == expected


def max_chars(task: Task, *, limit: int, field: str | None = None) -> Rule:
    """No more than `limit` characters that are not white space."""

    def judge(row: Row, text: str) -> Finding:
        count = requested_length.count(text)
        return (
            PASS
            if count <= limit
            else failed(f"{count} characters, at most {limit}", count - limit)
        )

    return of(field, judge)


def length_within(
    task: Task, *, tolerance: int = 0, input: str | None = None, field: str | None = None
) -> Rule:
    """As long as the request asks (the field `input` of the row, or all input fields). `tolerance` is for a number that is
    named (80字, 约80字); a bound (50字以内, 30-80字) is kept to the character."""
    fields = inputs(task, input)

    def judge(row: Row, text: str) -> Finding:
        asked = requested_length.asked("\n".join(row[name] for name in fields))
        if len(asked) != 1:
            return unscored(f"the request asks for {'several lengths' if asked else 'no length'}")
        count = requested_length.count(text)
        off = asked[0].off(count)
        if off <= (tolerance if asked[0].exact else 0):
            return (True, None, float(off)) if off else PASS
        return failed(f"{count} characters, {asked[0]} asked for", off)

    return of(field, judge)


def excludes(
    task: Task,
    *,
    words: list[str],
    when: str | None = None,
    input: str | None = None,
    field: str | None = None,
) -> Rule:
    """None of the words stands in it; white space, case and width ignored. With the pattern `when`, only where that is found in
    the input (the field `input`, or any of them)."""
    fields, pattern = inputs(task, input), compiled_pattern(when or "")
    banned = [(word, plain(word)) for word in words]
    if empty := next((word for word, bare in banned if not bare), None):
        raise ValueError(f"option words has {empty!r}, expected words")

    def judge(row: Row, text: str) -> Finding:
        if not any(pattern.search(row[name]) for name in fields):
            return PASS
        found = plain(text)
        return next((failed(word) for word, bare in banned if bare in found), PASS)

    return of(field, judge)


def covers(
    task: Task,
    *,
    pattern: str,
    when: str | None = None,
    input: str | None = None,
    field: str | None = None,
) -> Rule:
    """What the pattern finds in the input (its first group, or all that matches) stands in the answer, white space, case and width
    ignored. With the pattern `when`, only where that is found in the input: the others pass."""
    fields, compiled, asked = (
        inputs(task, input),
        compiled_pattern(pattern),
        compiled_pattern(when or ""),
    )

    def judge(row: Row, text: str) -> Finding:
        if not any(asked.search(row[name]) for name in fields):
            return PASS
        wanted = [
            match[1] if compiled.groups else match[0]
            for name in fields
            for match in compiled.finditer(row[name])
        ]
        wanted = [one for one in wanted if one and plain(one)]
        if not wanted:
            return unscored("the input has nothing that the pattern finds")
        found = plain(text)
        return next(
            (failed(f"{one} is left out") for one in wanted if plain(one) not in found), PASS
        )

    return of(field, judge)


def excludes_input(task: Task, *, input: str | None = None, field: str | None = None) -> Rule:
    """Does not contain the input (the field `input`, or any of them); white space, case and width ignored."""
    fields = inputs(task, input)

    def judge(row: Row, text: str) -> Finding:
        found = plain(text)
        return next((failed(name) for name in fields if plain(row[name]) in found), PASS)

    return of(field, judge)


def ends_with(task: Task, *, text: str | list[str], field: str | None = None) -> Rule:
    """Ends with `text`, or one of several; white space behind it ignored."""
    ends = tuple([text] if isinstance(text, str) else text)

    def judge(row: Row, text: str) -> Finding:
        text = text.rstrip()
        return PASS if text.endswith(ends) else failed(f"ends with {text[-1:]!r}")

    return of(field, judge)


# an end of a sentence: not the point of 3.5 or of a.com, not an ellipsis, not one inside quotation marks that goes on
_END = re.compile(r"""(?:[。！？!?｡]+|\.(?=\s|$))[”’」』）)】》"']*""")


def one_sentence(task: Task, *, field: str | None = None) -> Rule:
    """One sentence on one line."""

    def judge(row: Row, text: str) -> Finding:
        text = text.strip()
        if len(text.splitlines()) > 1:
            return failed("several lines")
        ends = [match for match in _END.finditer(text) if match.end() < len(text)]
        inner = sum(
            match[0][-1] not in "”’」』）)】》\"'" or text[match.end()] in "“‘「『"
            for match in ends
        )
        if inner:
            return failed(f"{inner + 1} sentences")
        return PASS if re.search(r"\w", text) else failed("no word")

    return of(field, judge)


def regex(task: Task, *, pattern: str, field: str | None = None) -> Rule:
    """The pattern (of Python's re) is found in the text; `^…$` for the whole of it."""
    search = compiled_pattern(pattern).search
    return of(field, lambda row, text: PASS if search(text) else failed(f"no {pattern}"))


HAN = "\u2e80-\u2fdf\u3005-\u3007\u3021-\u3029\u3038-\u303b\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_FOREIGN = re.compile(rf"[^\W\d_{HAN}]+")


def language(
    task: Task,
    *,
    allow: list[str] | None = None,
    from_input: bool = False,
    field: str | None = None,
) -> Rule:
    """Chinese: no letters of another script (Latin, Cyrillic, kana, hangul, …) but for the words of `allow` and, with
    `from_input`, those of the input; case and width ignored."""
    allowed = {plain(word) for entry in allow or [] for word in _FOREIGN.findall(entry)}
    fields = inputs(task, None) if from_input else ()

    def judge(row: Row, text: str) -> Finding:
        if not _FOREIGN.search(text):
            return PASS
        known = allowed.union(
            *({plain(word) for word in _FOREIGN.findall(row[name])} for name in fields)
        )
        for word in _FOREIGN.findall(text):
            if plain(word) not in known and any(c.isalpha() for c in word):
                return failed(word)
        return PASS

    return of(field, judge)


_MARKS = "[。，、；：！？,;:!?｡､…—.]"
_TWO_MARKS = re.compile(rf"{_MARKS}\s*{_MARKS}")  # a quick look, before _DOUBLED
_DOUBLED = re.compile(
    r"[。，、；：,;:！？!?｡､]\s*[。，、；：,;｡､]|！\s*！|？\s*？|!\s*!|\?\s*\?|…{3,}|\.{7,}|—{3,}"
)
_WORDS = re.compile(r"[\W_]+")


def repetition(
    task: Task, *, characters: int = 5, phrases: int = 3, field: str | None = None
) -> Rule:
    """No punctuation twice, no character `characters` times in a row (but digits), no phrase of two characters or more
    `phrases` times in a row, whatever punctuation stands between them."""
    if min(characters, phrases) < 2:
        raise ValueError("characters and phrases are 2 or more")
    run = re.compile("(.)" + r"\1" * (characters - 1))

    def judge(row: Row, text: str) -> Finding:
        if _TWO_MARKS.search(text) and (match := _DOUBLED.search(text)):
            return failed(match[0])
        for match in run.finditer(text):
            if not match[1].isdigit() and not match[1].isspace() and match[1] not in ".…—-=_*#~":
                return failed(match[0])
        words = _WORDS.sub("", text)
        spare = len(words) - 1 - len(set(pairwise(words)))
        if (
            spare < 2 * phrases - 3
        ):  # a text that repeats a phrase has at least so many pairs of characters twice
            return PASS
        phrase = _repeated(words, phrases)
        return failed(f"{phrase} {phrases} times") if phrase else PASS

    return of(field, judge)


def _repeated(text: str, times: int) -> str | None:
    """The first phrase of two characters or more, not all digits, that stands `times` times in a row."""
    seen: dict[str, list[int]] = {}
    for at in range(len(text) - 1):
        before = seen.setdefault(text[at : at + 2], [])
        for start in before:
            phrase = text[start:at]
            if (
                at - start > 1
                and text.startswith(phrase * (times - 1), at)
                and not phrase.isdigit()
            ):
                return phrase
        before.append(at)
    return None
