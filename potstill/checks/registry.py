"""The checks that task.yaml lists, the same for filter, ranking, pairs and metric."""

import inspect
import json
import math
import re
from collections.abc import Callable
from types import UnionType
from typing import Any, NamedTuple, get_args

from potstill.checks import schema, text
from potstill.checks.facts import facts
from potstill.checks.grounded import grounded
from potstill.checks.rule import Rule, are_texts, compiled, on_text
from potstill.checks.wrapping import wrapped
from potstill.core.errors import UserError
from potstill.core.jsonl import Row, unwritable
from potstill.task.settings import ANSWER, PATH, Task

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


def check(task: Task, row: Row, answer: str, training: bool = False) -> list[str]:
    """The reasons of all checks of the task that the answer to `row` fails; [] when it passes.
    With `training`, what a check's option `train` holds stands in for its other options."""
    parsed, problem = parse(task, answer)
    if problem:
        return [problem]
    findings = ((name, rule(row, parsed, answer)) for name, rule in _compiled(task)[1][training])
    return [f"{name}: {finding.reason}" for name, finding in findings if finding.passed is False]


def verdicts(task: Task, row: Row, answer: str, training: bool = False) -> list[Verdict]:
    """What each check of the task says of the answer to `row`, in the order of task.yaml. An answer
    that cannot be parsed fails them all."""
    parsed, problem = parse(task, answer)
    rules = _compiled(task)[1][training]
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
    itself, which must not be empty."""
    if not _compiled(task)[0]:
        return (answer, None) if answer.strip() else (None, "text: empty")
    try:
        parsed = json.loads(answer, parse_constant=_finite, parse_float=_finite)
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
    texts, left = [], [value] if _ESCAPE.search(answer) else []
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
    text, is_json = str(answer["answer"] or ""), _compiled(task)[0]
    if not is_json:
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


def is_json(task: Task) -> bool:
    """Whether the task's answers are JSON: its checks have json_schema."""
    return any("json_schema" in entry for entry in task.config["checks"])  # a name, or a mapping


def validate(task: Task) -> None:
    """Raises UserError when task.yaml names an unknown check or gives a check a wrong option: a
    stage that asks the teacher calls this first."""
    _compiled(task)


_Rules = tuple[list[tuple[str, Rule]], list[tuple[str, Rule]]]
_READY: dict[int, tuple[Task, Any, bool, _Rules]] = {}  # by id of the task, which it keeps alive


def _compiled(task: Task) -> tuple[bool, _Rules]:
    """Whether answers are JSON, and the task's rules: `rules[training]` are (name, rule). Raises
    UserError for what is wrong with the checks in task.yaml."""
    listed = task.config["checks"]
    if id(task) in _READY and _READY[id(task)][1] is listed:
        return _READY[id(task)][2:]
    rules: _Rules = [], []
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
            rules[False].append((name, rule))
            rules[True].append((name, _rule(task, name, given | train) if train else rule))
        except ValueError as error:
            raise UserError(f"{PATH}: {name}: {error}") from None
    _READY[id(task)] = task, listed, is_json(task), rules
    return is_json(task), rules


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
    _check_names(task, options)
    needed = {p.name for p in parameters if p.name in kinds and p.default is p.empty}
    if missing := needed - {*given, "input"}:
        raise ValueError(f"option {min(missing)} is missing")
    if name not in _TEXT:
        return make(task, **options)
    field, fields = options.pop("field", None), task.config["input"]
    nullable = field is not None and schema.allows_null(task, field)
    if "input" not in kinds:
        return on_text(field, lambda row, answer: make(answer, **options), nullable)
    fields = [options.pop("input")] if "input" in options else fields
    return on_text(
        field,
        lambda row, answer: make(answer, input={f: row[f] for f in fields}, **options),
        nullable,
    )


# What task.yaml may say, by the type of an option.
_TYPES: dict[Any, tuple[str, Callable[[Any], bool]]] = {
    int: ("a whole number, 0 or more", lambda x: type(x) is int and x >= 0),
    text.Times: ("a whole number, 2 or more", lambda x: type(x) is int and x >= 2),
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


def _check_names(task: Task, options: dict[str, Any]) -> None:
    """Raises ValueError for an option that names a field which the rows or the answers lack."""
    for option in {"input", "field", "fields", "label"} & options.keys():
        if option == "input":
            known, what = task.config["input"], "one of the task's input fields"
        elif is_json(task):
            known, what = task.schema.get("properties", {}), f"a property of {ANSWER}"
        else:
            remedy = "the answers are plain text: list json_schema among the checks"
            raise ValueError(f"option {option} is given, but {remedy}")
        for name in options[option] if option == "fields" else [options[option]]:
            if known and name not in known:
                listed = ", ".join(known)
                raise ValueError(f"option {option} is {name!r}, expected {what}: {listed}")
