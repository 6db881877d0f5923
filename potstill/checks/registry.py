"""The checks that task.yaml lists, the same for filter, ranking, pairs and metric."""

import inspect
import json
import math
import re
from collections.abc import Callable
from functools import lru_cache
from types import UnionType
from typing import Any, NamedTuple, get_args

from potstill.checks import paths, schema, text
from potstill.checks.facts import facts
from potstill.checks.grounded import grounded
from potstill.checks.rule import Rule, are_texts, compiled, on_text
from potstill.checks.wrapping import wrapped
from potstill.core.errors import UserError
from potstill.core.jsonl import Row, unwritable
from potstill.task.settings import PATH, Task

_TEXT = """max_chars length_within excludes_input excludes covers ends_with one_sentence regex
language repetition""".split()
CHECKS: dict[str, Callable[..., Any]] = {
    "json_schema": schema.json_schema,
    "exact_match": schema.exact_match,
    **{name: getattr(text, name) for name in _TEXT},
    "grounded": grounded,
    "facts": facts,
}


class Verdict(NamedTuple):
    """What one check says of one answer. `passed` is None where the check has nothing to judge by:
    unscored, which never counts as passed. `reason` begins with the check's name and is None in a
    pass. `distance` ranks answers: 0 is perfect, larger is worse."""

    name: str
    passed: bool | None
    reason: str | None
    distance: float


class Compared(NamedTuple):
    """A value of an answer (paths.ABSENT: it has none), the one expected, and whether both are the
    same."""

    said: Any
    expected: Any
    same: bool


def check(task: Task, row: Row, answer: str, training: bool = False) -> list[str]:
    """The reasons of all checks of the task that the answer to `row` fails; [] when it passes.
    With `training`, what a check's option `train` holds stands in for its other options."""
    parsed, problem = parse(task, answer)
    if problem:
        return [problem]
    findings = ((name, rule(row, parsed, answer)) for name, rule in _compiled(task).rules[training])
    return [f"{name}: {finding.reason}" for name, finding in findings if finding.passed is False]


def verdicts(task: Task, row: Row, answer: str, training: bool = False) -> list[Verdict]:
    """What each check of the task says of the answer to `row`, in the order of task.yaml. An answer
    that cannot be parsed fails them all."""
    parsed, problem = parse(task, answer)
    rules = _compiled(task).rules[training]
    if problem:
        return [Verdict(name, False, problem, 1.0) for name, _ in rules]
    findings = ((name, rule(row, parsed, answer)) for name, rule in rules)
    return [
        Verdict(name, passed, reason and f"{name}: {reason}", distance)
        for name, (passed, reason, distance) in findings
    ]


def parse(task: Task, answer: str) -> tuple[Any, str | None]:
    """The parsed answer and None, or None and the reason why it cannot be parsed. Where the task
    lists json_schema the whole answer must be JSON, nothing around it; elsewhere it is the text
    itself, which must not be empty. What is parsed is shared: it must not be changed."""
    if not _compiled(task).is_json:
        return (answer, None) if answer.strip() else (None, "text: empty")
    return _parsed(answer)


@lru_cache(8)  # an answer is unwrapped, judged and kept: each parses it
def _parsed(answer: str) -> tuple[Any, str | None]:
    try:
        parsed = _DECODER.decode(answer)
        problem = unfit(parsed, answer)
    except ValueError as error:
        return None, f"json: {error.msg if isinstance(error, json.JSONDecodeError) else error}"
    except RecursionError:
        return None, "json: nested too deep"
    if problem and "surrogate" in problem:
        return None, f"json: {problem}"
    return parsed, None


_ESCAPE = re.compile(r"\\[ubf]")  # may stand for a character that no row should hold


def unfit(value: Any, answer: str) -> str | None:
    """What a row should not hold in the texts of a parsed `answer`, written as an escape there:
    half a surrogate pair, a control character. None where there is nothing of it."""
    if not _ESCAPE.search(answer):
        return None
    texts, left = [], [value]
    while left:
        value = left.pop()
        if isinstance(value, str):
            texts.append(value)
        elif isinstance(value, dict | list):
            left += [*value, *value.values()] if isinstance(value, dict) else value
    return unwritable("\n".join(texts))


def taught(task: Task, answer: Row) -> str:
    """The text of a teacher's answer (a row of 2-answers.jsonl) as it is learnt: without white
    space around it and, where the task wants JSON, out of what is wrapped around it: one fence of
    Markdown, or text round one object. No other answer is mended, a student's never. The flaws of a
    scripted teacher stay: they are there to be dropped."""
    text = str(answer["answer"] or "")
    if not _compiled(task).is_json:
        return text.strip()
    if str(answer.get("model") or "").startswith("scripted-") or not parse(task, text)[1]:
        return text
    return next((inner for inner in wrapped(text) if not parse(task, inner)[1]), text)


def check_taught(task: Task, row: Row, answer: str) -> list[str]:
    """As `check`, of a teacher's answer to `row` as it is learnt, if it may be."""
    text = taught(task, {"answer": answer})
    parsed, _ = parse(task, text)
    problem = unfit(parsed, text) if parsed is not text else None
    return [f"json: {problem}"] if problem else check(task, row, text)


def _finite(number: str) -> float:
    """The number. Raises ValueError for 1e999, and for NaN and Infinity."""
    if not math.isfinite(value := float(number)):
        raise ValueError(f"{number} is {'too large' if number[-1].isdigit() else 'not JSON'}")
    return value


_DECODER = json.JSONDecoder(parse_constant=_finite, parse_float=_finite)


def is_json(task: Task) -> bool:
    """Whether the task's answers are JSON: its checks have json_schema."""
    return any("json_schema" in entry for entry in task.config["checks"])  # a name, or a mapping


def validate(task: Task) -> None:
    """Raises UserError when task.yaml names an unknown check or gives a check a wrong option: a
    stage that asks the teacher calls this first."""
    _compiled(task)


def keys(task: Task, answer: Any, expected: Row) -> dict[str, Compared]:
    """An answer beside what is expected: at each key of that, and at each path in it that an
    exact_match names, by the options of that exact_match."""
    named, found = _compiled(task).compared, {}
    for name in dict.fromkeys([*expected, *filter(None, named)]):
        path = (name,) if name in expected else named[name][0]
        said, wanted = paths.pick(answer, path), paths.pick(expected, path)
        if wanted is not paths.ABSENT:
            options = (named.get(name) or named.get(None) or ((), {}))[1]
            found[name] = Compared(said, wanted, schema.same(said, wanted, **options))
    return found


class _Ready(NamedTuple):
    """The checks of a task, compiled. `rules[training]` are (name, rule); `compared` has the path
    and the options of each exact_match by its field, None for the whole answer."""

    task: Task  # kept alive: it is known by its id
    listed: list[Any]
    is_json: bool
    rules: tuple[list[tuple[str, Rule]], list[tuple[str, Rule]]]
    compared: dict[str | None, tuple[paths.Steps, dict[str, Any]]]


_READY: dict[int, _Ready] = {}  # by id of the task


def _compiled(task: Task) -> _Ready:
    """The task's checks. Raises UserError for what is wrong with them in task.yaml, or with
    schema.json where answers are JSON."""
    listed = task.config["checks"]
    if id(task) in _READY and _READY[id(task)].listed is listed:
        return _READY[id(task)]
    if is_json(task):
        schema.validate(task)
    ready = _Ready(task, listed, is_json(task), ([], []), {})
    for entry in listed:
        name, options = next(iter(entry.items())) if isinstance(entry, dict) else (entry, {})
        if name not in CHECKS:
            raise UserError(f"{PATH}: unknown check {name!r}, known are {', '.join(CHECKS)}")
        try:
            if not isinstance(options, dict):
                expected = "expected a mapping such as {field: title}"
                raise ValueError(f"options are {options!r}, {expected}")
            given = dict(options)
            train = given.pop("train", {})
            if not isinstance(train, dict):
                raise ValueError(f"option train is {train!r}, expected a mapping of options")
            rule = _rule(task, name, given)
            ready.rules[False].append((name, rule))
            ready.rules[True].append((name, _rule(task, name, given | train) if train else rule))
            if name == "exact_match":
                field = given.pop("field", None)
                path = () if field is None else paths.find(task, field).steps
                ready.compared[field] = path, given
        except ValueError as error:
            raise UserError(f"{PATH}: {name}: {error}") from None
    _READY[id(task)] = ready
    return ready


def _rule(task: Task, name: str, given: dict[str, Any]) -> Rule:
    """The rule of a check with the options given. Raises ValueError for an option that is wrong,
    unknown or missing."""
    make = CHECKS[name]
    parameters = inspect.signature(make).parameters.values()
    kinds = {p.name: p.annotation for p in parameters if p.kind is p.KEYWORD_ONLY}
    kinds |= {"field": str} if name in _TEXT else {}
    if unknown := [option for option in given if option not in kinds]:
        known = ", ".join([*kinds, "train"])
        raise ValueError(f"unknown option {unknown[0]!r}, known are {known}")
    options = {option: _value(option, value, kinds[option]) for option, value in given.items()}
    _check_names(task, name, options)
    needed = {p.name for p in parameters if p.name in kinds and p.default is p.empty}
    if missing := needed - {*given, "input"}:
        raise ValueError(f"option {min(missing)} is missing")
    if name not in _TEXT:
        return make(task, **options)
    path, fields = options.pop("field", None), task.config["input"]
    field = None if path is None else paths.find(task, path)
    if "input" not in kinds:
        return on_text(field, lambda row, answer: make(answer, **options))
    fields = [options.pop("input")] if "input" in options else fields
    return on_text(
        field, lambda row, answer: make(answer, input={f: row[f] for f in fields}, **options)
    )


# What task.yaml may say, by the type of an option.
_TYPES: dict[Any, tuple[str, Callable[[Any], bool]]] = {
    int: ("a whole number, 0 or more", lambda x: type(x) is int and x >= 0),
    text.Times: ("a whole number, 2 or more", lambda x: type(x) is int and x >= 2),
    float: ("a number, 0 or more", lambda x: type(x) in (int, float) and 0 <= x < math.inf),
    bool: ("true or false", lambda x: type(x) is bool),
    str: ("a text", lambda x: type(x) is str),
    text.Source: ("a text", lambda x: type(x) is str),  # the name of an input field
    re.Pattern[str]: ("a text", lambda x: type(x) is str),
    list[str]: ("a list of texts that are not empty", lambda x: x != [] and are_texts(x)),
    dict[str, str]: (
        "a mapping of texts to texts",
        lambda x: isinstance(x, dict) and {type(y) for y in (*x, *x.values())} == {str},
    ),
}


def _value(option: str, value: Any, kind: Any) -> Any:
    """An option's value, a pattern compiled. Raises ValueError when it is of another type."""
    kinds = get_args(kind) if isinstance(kind, UnionType) else (kind,)
    types = [_TYPES[kind] for kind in kinds if kind in _TYPES]
    if not any(fits(value) for _, fits in types):
        expected = " or ".join(says for says, _ in types)
        raise ValueError(f"option {option} is {value!r}, expected {expected}")
    return compiled(value) if kind == re.Pattern[str] else value


def _check_names(task: Task, check: str, options: dict[str, Any]) -> None:
    """Raises ValueError for an option that names a field which the rows or the answers lack, or
    which is no text by schema.json where the check looks at texts."""
    if "input" in options and options["input"] not in task.config["input"]:
        listed = ", ".join(task.config["input"])
        found = f"option input is {options['input']!r}"
        raise ValueError(f"{found}, expected one of the task's input fields: {listed}")
    for option in [name for name in ("field", "fields", "label") if name in options]:
        if not is_json(task):
            remedy = "the answers are plain text: list json_schema among the checks"
            raise ValueError(f"option {option} is given, but {remedy}")
        for path in options[option] if option == "fields" else [options[option]]:
            look = paths.find if check == "exact_match" else paths.text
            try:
                field = look(task, path)
            except ValueError as error:
                raise ValueError(f"option {option} is {error}") from None
            if option == "label" and paths.EACH in field.steps:
                raise ValueError(f"option label is {path!r}, expected one text, not a list of them")
