"""The checks of task.yaml, written a second time from docs/data.md.

A check gets a `Case` and its options and says True (pass), False (fail) or None (nothing to judge
by).
"""

import csv
import importlib.util
import json
import re
import unicodedata
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import cache
from itertools import pairwise
from math import inf
from pathlib import Path
from typing import Any

import jsonschema

Row = dict[str, Any]
Options = dict[str, Any]
Verdict = bool | None
Verdicts = list[tuple[str, Verdict]]  # of each check, by its name
DIGITS = {char: value for value, char in enumerate("零一二三四五六七八九")} | {"〇": 0, "两": 2}
UNITS = {"十": 10, "百": 100, "千": 1000, "万": 10_000}
NUMERAL = "[零〇一二两三四五六七八九十百千万]+"
DIGITAL = r"(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?[百千万]?"


@dataclass
class Case:
    """An answer beside what it is judged by."""

    text: str  # what the check looks at: a field of the answer, or all of it
    answer: Any  # the parsed answer, or the text where it is plain
    inputs: list[str]  # the fields of the input that the check looks at
    row: Row
    schema: Row
    knowledge: list[Row]

    @property
    def request(self) -> str:
        return "\n".join(self.inputs)


def squeeze(text: str, also: str = "") -> str:
    """The text without white space and the characters of `also`."""
    return "".join(char for char in text if not char.isspace() and char not in also)


def plain(text: str) -> str:
    """The text without white space, case and width."""
    return squeeze(unicodedata.normalize("NFKC", text)).casefold()


def json_schema(case: Case, options: Options) -> Verdict:
    return bool(jsonschema.Draft202012Validator(case.schema).is_valid(case.answer))


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def same(found: Any, expected: Any, order: bool = True, tolerance: float = 0) -> bool:
    """Whether two values are equal: texts without white space, numbers by value."""
    if isinstance(expected, str) and isinstance(found, str):
        return squeeze(found) == squeeze(expected)
    if is_number(found) and is_number(expected):
        apart = abs(Decimal(repr(found)) - Decimal(repr(expected)))
        return found == expected or tolerance > 0 and apart <= Decimal(repr(tolerance))

    def equal(one: Any, other: Any) -> bool:
        return same(one, other, order, tolerance)

    if isinstance(expected, dict) and isinstance(found, dict):
        return found.keys() == expected.keys() and all(equal(found[k], expected[k]) for k in found)
    if isinstance(expected, list) and isinstance(found, list):
        if len(found) != len(expected):
            return False
        fits = [[equal(one, other) for other in expected] for one in found]
        return all(fits[i][i] for i in range(len(fits))) if order else one_each(fits, frozenset())
    return type(found) is type(expected) and bool(found == expected)


def one_each(fits: list[list[bool]], taken: frozenset[int]) -> bool:
    """Whether each row can have a column of its own in which it is true: tried one by one."""
    row = len(taken)
    free = [column for column in range(len(fits)) if column not in taken]
    return not free or any(one_each(fits, taken | {c}) for c in free if fits[row][c])


def of(value: Any, name: str) -> Any:
    """A field of an object; None where there is none."""
    return value.get(name) if isinstance(value, dict) else None


# ---- paths

NOTHING = object()  # stands where there is no value


def way(schema: Row, path: str) -> list[str]:
    """The steps of a path, "[]" to each entry of a list."""
    if path in schema.get("properties", {}):
        return [path]
    return [step for step in re.split(r"(\[\])|\.", path) if step]


def look(value: Any, steps: list[str]) -> Any:
    """What stands at a path: behind a list a list, behind null null."""
    for number, step in enumerate(steps):
        if value is None and number:
            return None
        if step == "[]" and isinstance(value, list):
            rest = steps[number + 1 :]
            return [None if one is None else look(one, rest) for one in value]
        if not isinstance(value, dict) or step not in value:
            return NOTHING
        value = value[step]
    return value


def described(whole: Row, rule: Any) -> Iterable[Row]:
    """A rule of the schema, and those that it refers to or is put together from."""
    if isinstance(rule, dict):
        yield rule
        if rule.get("$ref", "").startswith("#/"):
            target: Any = whole
            for name in rule["$ref"][2:].split("/"):
                target = target[name]
            yield from described(whole, target)
        for key in ("allOf", "anyOf", "oneOf"):
            for inner in rule.get(key, []):
                yield from described(whole, inner)


def texts_at(whole: Row, rule: Any, value: Any, steps: list[str]) -> Iterable[Any]:
    """The values at a path; none where there is no text and the schema allows that."""
    if not steps:
        yield value
        return
    step, rest = steps[0], steps[1:]
    parts = list(described(whole, rule))
    if step == "[]" and isinstance(value, list):
        rules = [part["items"] for part in parts if "items" in part]
        inner = [(one, rules) for one in value]
    elif not isinstance(value, dict):
        yield NOTHING
        return
    else:
        rules = [part["properties"][step] for part in parts if step in part.get("properties", {})]
        required = [part["required"] for part in parts if "required" in part]
        if step not in value:
            if not rules or not required or any(step in names for names in required):
                yield NOTHING
            return
        inner = [(value[step], rules)]
    for one, rules in inner:
        rule = {"anyOf": rules} if rules else {}
        is_valid = jsonschema.Draft202012Validator(whole).evolve(schema=rule).is_valid
        if one is not None or not rules or not is_valid(None):
            yield from texts_at(whole, rule, one, rest)


def exact_match(case: Case, options: Options) -> Verdict:
    answer, expected = case.answer, case.row.get("expected")
    steps = way(case.schema, options["field"]) if "field" in options else []
    if expected is None or look(expected, steps) is NOTHING:
        return None
    return same(look(answer, steps), look(expected, steps), *how(options))


def how(options: Options) -> tuple[bool, float]:
    """How exact_match compares: by order or not, and the tolerance."""
    return options.get("order", True), options.get("tolerance", 0)


def max_chars(case: Case, options: Options) -> Verdict:
    return len(squeeze(case.text)) <= int(options["limit"])


def excludes_input(case: Case, options: Options) -> Verdict:
    return not any(plain(text) in plain(case.text) for text in case.inputs)


def applies(case: Case, options: Options) -> bool:
    return any(re.search(options.get("when", ""), text) for text in case.inputs)


def excludes(case: Case, options: Options) -> Verdict:
    text = plain(case.text)
    return not applies(case, options) or not any(plain(word) in text for word in options["words"])


def covers(case: Case, options: Options) -> Verdict:
    if not applies(case, options):
        return True
    pattern = re.compile(options["pattern"])
    matches = [match for text in case.inputs for match in pattern.finditer(text)]
    found = {plain(match[1 if pattern.groups else 0] or "") for match in matches} - {""}
    return all(part in plain(case.text) for part in found) if found else None


def ends_with(case: Case, options: Options) -> Verdict:
    texts = options["text"]
    return case.text.rstrip().endswith(tuple([texts] if isinstance(texts, str) else texts))


def one_sentence(case: Case, options: Options) -> Verdict:
    text = case.text.strip()
    closing = "”’」』）)】》\"'"
    if len(text.splitlines()) > 1 or not re.search(r"\w", text):
        return False
    for end in re.finditer(rf"(?:[。！？!?｡]+|\.(?=\s|$))([{closing}]*)(?=(.)?)", text, re.DOTALL):
        if end[2] and (not end[1] or end[2] in "“‘「『"):
            return False
    return True


def regex(case: Case, options: Options) -> Verdict:
    return bool(re.search(options["pattern"], case.text))


def foreign_words(text: str) -> Iterable[str]:
    """The words of letters that are not Chinese."""
    word = ""
    for char in text + " ":
        name = unicodedata.name(char, "")
        chinese = name.startswith(("CJK", "KANGXI", "IDEOGRAPHIC", "HANGZHOU"))
        if char.isalnum() and not char.isdecimal() and not chinese:
            word += char
        else:
            if any(map(str.isalpha, word)):
                yield word
            word = ""


def language(case: Case, options: Options) -> Verdict:
    sources = options.get("allow", []) + (case.inputs if options.get("from_input") else [])
    known = {plain(word) for source in sources for word in foreign_words(source)}
    return all(plain(word) in known for word in foreign_words(case.text))


def repetition(case: Case, options: Options) -> Verdict:
    characters, phrases = options.get("characters", 5), options.get("phrases", 3)
    stops = "。，、；：,;｡､"
    marks = re.sub(r"\s", "", case.text)
    for one, two in pairwise(marks):
        if two in stops and one in stops + ":！？!?" or one == two and one in "！？!?":
            return False
    if any(mark in case.text for mark in ("………", "———", "." * 7)):
        return False
    for match in re.finditer(r"(.)\1*", case.text):
        free = match[1].isdigit() or match[1].isspace() or match[1] in ".…—-=_*#~"
        if len(match[0]) >= characters and not free:
            return False
    words = re.sub(r"[\W_]", "", case.text)
    for size in range(2, len(words) // phrases + 1):
        for at in range(len(words) - size * phrases + 1):
            phrase = words[at : at + size]
            if not phrase.isdigit() and words.startswith(phrase * phrases, at):
                return False
    return True


# ---- numbers


def chinese_value(text: str) -> Decimal | None:
    """What a Chinese numeral says: 一千二百九十九 is 1299, 二〇〇 is 200, 一百二 is 120; None for
    what is no number, or a vague one such as 两三百."""
    if all(char in DIGITS for char in text) and len(text) > 1:
        if text[0] in "零〇" or not set(text) & set("零〇"):
            return None
        return Decimal("".join(str(DIGITS[char]) for char in text))
    total = part = 0
    digit: int | None = None
    last, zero = 10**9, False
    for char in text:
        if char in DIGITS:
            if digit is not None:
                return None
            zero, digit = (True, None) if char in "零〇" else (zero, DIGITS[char])
        elif char == "万":
            total, part, digit, last, zero = (part + (digit or 0)) * 10**4, 0, None, 10**4, False
        elif UNITS[char] >= last or digit is None and total + part:
            return None
        else:
            last, zero = UNITS[char], False
            part, digit = part + (1 if digit is None else digit) * last, None
    if zero and digit is None or text[0] == "万" and text[1:] in DIGITS:  # 万一: in case
        return None
    short = last // 10 if digit and not zero and 10 < last < 10**9 else 1
    return Decimal(total + part + (digit or 0) * short)


def value(text: str) -> Decimal | None:
    """The value of 80, 1,200, 1.5万 or 五十."""
    if not text[0].isdigit():
        return chinese_value(text)
    unit = UNITS.get(text[-1], 1)
    return Decimal(text.rstrip("百千万").replace(",", "")) * unit


COUNTED = "元块角岁年月日号斤克米里人名个位件条句字次倍天周点分秒折吨亩层楼室栋届%％"


def numbers_stand_in(text: str, source: str) -> bool:
    """Whether each number of a text is one of the source's, by value."""
    find = re.compile(f"{DIGITAL}|{NUMERAL}")
    known = {value(number) for number in find.findall(source) + re.findall(r"\d+", source)}
    for match in find.finditer(text):
        number, behind = match[0], text[match.end() :].lstrip()[:1]
        counts = number[0].isdigit() or len(number) > 1 and behind and behind in COUNTED
        if counts and value(number) not in known | {None}:
            return False
    return True


# ---- length_within


@dataclass(frozen=True)
class Asked:
    """A length that a request asks for; `named` where it names a number."""

    low: float
    high: float
    named: bool = False


NUMBER = f"(?:{DIGITAL}|{NUMERAL})"
UNIT = r"\s*个?\s*(?:汉字|中文字|字符|字)(?!节(?!日)|母(?![亲爱])|段(?!落)|号(?!召))"
WORDS = "(?:[要得需应该写用有为是达到在约了]|大约|大概|控制|保持)*"
NOT = "(?:不|别|勿|莫|禁止|避免|切忌)[^，,。；;！!？?\\s]{0,3}?"
MORE, LESS = "(?:超过|超出|多于|大于|高于|多过)", "(?:少于|低于|小于|短于|不足|不到)"
BEFORE = [  # what stands before a number, and the bounds of a length of N
    (f"{NOT}{MORE}", lambda n: Asked(0, n)),
    (f"{NOT}{LESS}", lambda n: Asked(n, inf)),
    (MORE, lambda n: Asked(n + 1, inf)),
    (LESS, lambda n: Asked(0, n - 1)),
    ("[最至顶]多|上限", lambda n: Asked(0, n)),
    ("[最至]少|起码|下限", lambda n: Asked(n, inf)),
]
BEHIND = [
    ("[以之]内|以下|为限|封顶|内(?![容涵心部])", lambda n: Asked(0, n)),
    ("[以之]上|起(?![名草来因源])|往上|打底|开外", lambda n: Asked(n, inf)),
]
OTHER = (  # not the answer's length: a place in a text, another text, a part of the answer
    r"(?:第|(?<![之目以])前|原文|[这那](?:一?[段篇封首条句则份个])?|各(?:自|[段句条行篇项点在约]|控制)*"
    r"|每[一个小]?(?:[句行段条首篇则联个点项章节封]|部分|标题)[^，,。；;！!？?\n]{0,6})\s*"
)
WORD = r"的?(?:成语|词|诗|句|口诀|短语|联|真言)|路口|架|绣|军|街|文(?![章案字本])|令"


def asked_lengths(text: str) -> set[Asked]:
    """All lengths that a request asks for."""
    found = set()
    two = rf"(?P<a>{NUMBER})(?:{UNIT})?\s*(?:[-–—－~～〜]{{1,2}}|至|到|和(?=.{{1,9}}之间))\s*"
    for match in re.finditer(rf"(?<!\d)(?:{two})?(?P<b>{NUMBER})(?P<unit>{UNIT})?", text):
        before, behind = text[: match.start()], text[match.end() :]
        counted = bool(re.search(r"字数[^\d，,。；;！!？?\n]{0,8}$", before))
        behind = re.sub(r"^\s*(?:[(（][^()（）]{0,8}[)）]\s*)?[或及]?", "", behind)
        after = next((make for words, make in BEHIND if re.match(words, behind)), None)
        ended = after or re.match(r"[，,。；;！!？?)）\s]|之间|左右|$", text[match.end() :])
        if not match["unit"] and not (counted and ended):
            continue
        first = match["a"] or match["b"]
        if first[0] in UNITS and before[-1:] in tuple("几数上好近成") and not counted:
            continue
        low, high = value(first), value(match["b"])
        if low is None or high is None or low % 1 or high % 1:
            continue
        ahead = next(
            (
                (bound, make)
                for words, make in BEFORE
                if (bound := re.search(rf"(?:{words}){WORDS}\s*$", before))
            ),
            None,
        )
        if re.search(f"{OTHER}$", before[: ahead[0].start()] if ahead else before):
            continue
        if match["a"]:
            found.add(Asked(float(min(low, high)), float(max(low, high))))
        elif make := ahead[1] if ahead else after:
            found.add(make(float(low)))
        else:
            small = low < 2 or low < 10 and not first.isdigit()
            word = (low <= 10 or first in UNITS) and re.match(WORD, text[match.end() :])
            if counted or not (small or word):
                found.add(Asked(float(low), float(low), True))
    return found


def asked_length(request: str) -> Asked | None:
    """The length that a request asks for; None where it asks for none, or for several."""
    found = asked_lengths(request)
    if len(found) == 2:
        least, most = sorted(found, key=lambda asked: -asked.low)
        if most.low == 0 and least.high == inf and least.low <= most.high:
            return Asked(least.low, most.high)
    return found.pop() if len(found) == 1 else None


def distance(text: str, request: str) -> float | None:
    """How many characters a text is off the length asked for."""
    asked, count = asked_length(request), len(squeeze(text))
    return max(asked.low - count, count - asked.high, 0) if asked else None


def length_within(case: Case, options: Options) -> Verdict:
    asked = asked_length(case.request)
    off = distance(case.text, case.request)
    if asked is None or off is None:
        return None
    return off <= (options.get("tolerance", 0) if asked.named else 0)


# ---- grounded and facts

ENDING = (
    "(?<=..)(?:特别行政区|(?:壮族|回族|维吾尔)?自治区|[^区县市]{1,6}族自治[州县]|地区|[省市区县])$"
)


@cache
def places() -> dict[str, set[str]]:
    """The names of provinces, cities and counties, each with the names that the input may have for
    it; by the gazetteer of the package cpca."""
    spec = importlib.util.find_spec("cpca")
    assert spec and spec.origin, "the package cpca is not installed"
    with (Path(spec.origin).parent / "resources/adcodes.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    provinces = {row["name"] for row in rows if row["adcode"].endswith("0" * 10)}
    names = {row["name"] for row in rows if len(row["name"]) > 2} | provinces
    names |= {re.sub(ENDING, "", name) for name in provinces}
    return {name: {name, re.sub(ENDING, "", name)} for name in names}


def field_stands_in(answer: str, source: str, ignored: str, code: str) -> bool:
    """Whether a field of the answer stands in the source and cuts no number in two."""
    wanted = squeeze(answer, ignored)
    if not wanted:
        return False
    between = rf"[\s{re.escape(ignored)}]*"
    for match in re.finditer(f"(?={between.join(map(re.escape, wanted))})", source):
        start, end = match.start(), match.start()
        for char in wanted:
            end = source.index(char, end) + 1
        before, behind = source[:start], source[end:]
        cut = wanted[0].isdigit() and before[-1:].isdigit()
        cut = cut and not (code and before.endswith(code))
        if not cut and not (wanted[-1].isdigit() and behind[:1].isdigit()):
            return True
    return False


def named(text: str, kinds: list[str], patterns: list[str]) -> Iterable[set[str]]:
    """What a text names, but for numbers and Latin words: of each thing the names that will do."""
    if "place" in kinds:
        yield from (names for place, names in places().items() if place in text)
    quotes = ["“([^“”]+)”", "「([^「」]+)」", "『([^『』]+)』"] if "quote" in kinds else []
    for pattern in patterns + quotes + (["《([^《》]+)》"] if "title" in kinds else []):
        for match in re.finditer(pattern, text):
            yield {next((group for group in match.groups() if group), match[0])}


def fields_stand_in(case: Case, options: Options) -> bool:
    """Whether the `fields` of grounded stand in the input."""
    code = options.get("before_number", "")
    return all(
        isinstance(found, str) and field_stands_in(found, case.request, ignored, code)
        for path, ignored in options.get("fields", {}).items()
        for found in texts_at(case.schema, case.schema, case.answer, way(case.schema, path))
    )


def grounded(case: Case, options: Options) -> Verdict:
    kinds, patterns = options.get("kinds", []), options.get("patterns", [])
    if "number" in kinds and not numbers_stand_in(case.text, case.request):
        return False
    if "latin" in kinds:
        words, known = ({plain(w) for w in LATIN.findall(t)} for t in (case.text, case.request))
        if words - known:
            return False
    request = plain(case.request)
    return all(
        any(plain(n) in request for n in names) for names in named(case.text, kinds, patterns)
    )


LATIN = re.compile("[A-Za-zＡ-Ｚａ-ｚ]+")


def applying(case: Case, options: Options) -> list[Row]:
    """The rules that apply."""
    label = look(case.answer, way(case.schema, options["label"]))
    rules = [rule for rule in case.knowledge if rule["label"] == label]
    return [rule for rule in rules if re.search(rule.get("when", ""), case.request)]


def facts(case: Case, options: Options) -> Verdict:
    text, known = plain(case.text), case.request
    for rule in applying(case, options):
        states = [[s] if isinstance(s, str) else s for s in rule.get("states", [])]
        if not all(any(plain(s) in text for s in one_of) for one_of in states):
            return False
        if any(plain(word) in text for word in rule.get("never", [])):
            return False
        known = "\n".join([known, rule["text"], *(s for one_of in states for s in one_of)])
    return numbers_stand_in(case.text, known)


CHECKS: dict[str, Callable[[Case, Options], Verdict]] = {
    check.__name__: check
    for check in (
        json_schema,
        exact_match,
        max_chars,
        length_within,
        excludes_input,
        excludes,
        covers,
        ends_with,
        one_sentence,
        regex,
        language,
        repetition,
        grounded,
        facts,
    )
}


def no_json(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


class Task:
    """What a task's folder says of an answer."""

    def __init__(self, folder: Path, settings: Row) -> None:
        self.input: list[str] = settings["input"]
        self.checks = [
            (name, dict(options))
            for check in settings["checks"]
            for name, options in ([(check, {})] if isinstance(check, str) else check.items())
        ]
        self.json = any(name == "json_schema" for name, _ in self.checks)
        self.schema: Row = json.loads((folder / "schema.json").read_text("utf-8"))
        given = [options for name, options in self.checks if name == "exact_match"]
        self.compared = {options.get("field", ""): options for options in given}
        rules = folder / "prompts/knowledge.jsonl"
        lines = rules.read_text("utf-8").splitlines() if rules.exists() else []
        self.knowledge: list[Row] = [json.loads(line) for line in lines if line.strip()]

    def parse(self, text: str | None) -> tuple[bool, Any]:
        """Whether an answer can be read, and what it says."""
        if text is None or not text.strip():
            return False, None
        if not self.json:
            return True, text
        try:
            return True, json.loads(text, parse_constant=no_json)
        except ValueError:
            return False, None

    def verdicts(self, row: Row, text: str | None, train: bool = False) -> Verdicts:
        """Each check's name with its verdict; all fail where the answer cannot be read."""
        readable, answer = self.parse(text)
        if not readable or text is None:
            return [(name, False) for name, _ in self.checks] or [("text", False)]
        found: Verdicts = []
        for name, options in self.checks:
            if train:
                options = options | options.get("train", {})
            inputs = [options["input"]] if "input" in options else self.input
            texts = [row[field] for field in inputs]
            case = Case(text, answer, texts, row, self.schema, self.knowledge)
            one: list[Verdict] = [True]  # the verdicts on each text
            if name == "grounded":
                one.append(fields_stand_in(case, options))
            if name == "facts":
                one.append(bool(applying(case, options)))
            whole = name == "exact_match" or "field" not in options
            for about in [text] if whole else self.texts(answer, options["field"]):
                is_text = isinstance(about, str)
                one.append(is_text and CHECKS[name](replace(case, text=about), options))
            found.append((name, verdict(one)))
        return found

    def way(self, path: str) -> list[str]:
        """The steps of a path."""
        return way(self.schema, path)

    def texts(self, answer: Any, field: str) -> list[Any]:
        """What a check of a field looks at."""
        return list(texts_at(self.schema, self.schema, answer, way(self.schema, field)))


def verdict(found: list[Verdict]) -> Verdict:
    """True: all pass; False: one fails; None: none fails, and one cannot say."""
    return False if False in found else None if None in found else True


def right(verdicts: Verdicts) -> Verdict:
    """What the checks of a row say together."""
    return verdict([passed for _, passed in verdicts])


def bare(task: Task, text: str | None) -> str | None:
    """The JSON of an answer that is none as a whole, but has it in one fence of Markdown, or one
    object with text round it. None for any other answer."""
    if text is None or not text.strip() or task.parse(text)[0]:
        return None
    lines, inside = text.strip().split("\n"), []
    marks = re.match("`{3,}|~{3,}", lines[0])
    if marks and lines[-1].endswith(marks[0]) and marks[0][0] not in lines[0][marks.end() :]:
        inside.append("\n".join([*lines[1:-1], lines[-1][: -len(marks[0])]]))
    start, end = text.find("{"), text.rfind("}")
    if 0 <= start < end:
        before, after = text[:start].rstrip(), text[end + 1 :].lstrip()
        if not before.endswith("[") and not after.startswith(("]", ",")):  # no part of a list
            inside.append(text[start : end + 1])
    return next((one for one in inside if task.parse(one)[0]), None)
