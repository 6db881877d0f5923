"""The checks that task.yaml names: small declarative rules about one answer, the same for filter, ranking, pairs, metric and
reward. A check says pass, fail with a reason that starts with its name, or unscored.
"""

import inspect
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from types import UnionType
from typing import Any, NamedTuple, get_args

from potstill.checks import rules
from potstill.checks.facts import facts
from potstill.checks.grounded import grounded
from potstill.core.errors import UserError
from potstill.core.jsonl import Row
from potstill.task.settings import Task

CHECKS: dict[str, Callable[..., rules.Rule]] = {
    rule.__name__: rule
    for rule in (
        rules.json_schema,
        rules.exact_match,
        rules.max_chars,
        rules.length_within,
        rules.excludes_input,
        rules.excludes,
        rules.covers,
        rules.ends_with,
        rules.one_sentence,
        rules.regex,
        rules.language,
        rules.repetition,
        grounded,
        facts,
    )
}


class Verdict(NamedTuple):
    """What one check says of one answer. `passed` is None where the check has nothing to judge by: unscored, which never
    counts as passed. `distance` ranks answers: 0 is perfect, larger is worse."""

    name: str
    passed: bool | None
    reason: str | None
    distance: float


def check(task: Task, row: Row, text: str, training: bool = False) -> list[str]:
    """The reasons of all checks of the task that the answer `text` to `row` fails; [] when it passes. With `training`, what
    a check's option `train` holds stands in for its other options."""
    parsed, reason = parse(task, text)
    if reason:
        return [reason]
    found = ((name, rule(row, parsed, text)) for name, rule in _compiled(task).rules[training])
    return [f"{name}: {why}" for name, (passed, why, _) in found if passed is False]


def verdicts(task: Task, row: Row, text: str, training: bool = False) -> list[Verdict]:
    """What each check of the task says of the answer `text` to `row`, in the order of task.yaml. An answer that cannot be
    parsed fails them all."""
    parsed, reason = parse(task, text)
    rules = _compiled(task).rules[training]
    if reason:
        return [Verdict(name, False, reason, 1.0) for name, _ in rules]
    found = ((name, rule(row, parsed, text)) for name, rule in rules)
    return [
        Verdict(name, passed, why and f"{name}: {why}", off) for name, (passed, why, off) in found
    ]


def parse(task: Task, text: str) -> tuple[Any, str | None]:
    """The answer and None, or None and the reason. Where the task lists json_schema the whole answer must be JSON, nothing
    around it; elsewhere it is the text itself, which must not be empty."""
    if not _compiled(task).json:
        return (text, None) if text and not text.isspace() else (None, "text: empty")
    try:
        return json.loads(text, parse_constant=_no_constant, parse_float=_finite), None
    except ValueError as error:
        return None, f"json: {error.msg if isinstance(error, json.JSONDecodeError) else error}"
    except RecursionError:
        return None, "json: nested too deep"


def validate(task: Task) -> None:
    """Raises UserError when task.yaml names an unknown check, or gives one an option that it does not take: a stage that
    asks the teacher calls this first."""
    _compiled(task)


@dataclass
class _Compiled:
    """A task's checks, ready to judge; `rules[training]` are (name, rule)."""

    task: Task
    listed: Any
    json: bool
    rules: tuple[list[tuple[str, rules.Rule]], list[tuple[str, rules.Rule]]]


_READY: dict[int, _Compiled] = {}  # by id of the task, which the entry keeps alive


def _compiled(task: Task) -> _Compiled:
    """The task's checks, made once. Raises UserError with what is wrong in task.yaml."""
    ready = _READY.get(id(task))
    if ready is None or ready.listed is not task.config["checks"]:
        ready = _READY[id(task)] = _compile(task)
    return ready


def _compile(task: Task) -> _Compiled:
    where, listed = "task.yaml", task.config["checks"]
    entries = [_entry(where, entry) for entry in listed]
    is_json = any(name == "json_schema" for name, _ in entries)
    metric, training = [], []
    for name, options in entries:
        train = options.pop("train", {})
        for given in (options, train):
            if not isinstance(given, dict):
                raise UserError(
                    f"{where}: {name}: option train is {given!r}, expected a mapping of options"
                )
            _check_options(task, f"{where}: {name}", CHECKS[name], given, is_json)
        metric.append((name, _rule(task, f"{where}: {name}", CHECKS[name], options)))
        same = (
            metric[-1]
            if not train
            else (name, _rule(task, f"{where}: {name}", CHECKS[name], {**options, **train}))
        )
        training.append(same)
    return _Compiled(task, listed, is_json, (metric, training))


def _entry(where: str, entry: str | dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """A check's name and options."""
    name, options = next(iter(entry.items())) if isinstance(entry, dict) else (entry, {})
    if name not in CHECKS:
        raise UserError(f"{where}: unknown check {name!r}, known are {', '.join(CHECKS)}")
    if not isinstance(options, dict):
        raise UserError(
            f"{where}: {name}: options are {options!r}, expected a mapping such as {{field: title}}"
        )
    return str(name), dict(options)


# what task.yaml may say, by the type of the option
_TYPES: dict[Any, tuple[str, Callable[[Any], bool]]] = {
    int: (
        "a whole number, 0 or more",
        lambda x: isinstance(x, int) and not isinstance(x, bool) and x >= 0,
    ),
    bool: ("true or false", lambda x: isinstance(x, bool)),
    str: ("a text", lambda x: isinstance(x, str)),
    list[str]: (
        "a list of texts",
        lambda x: isinstance(x, list) and x != [] and all(isinstance(y, str) for y in x),
    ),
    dict[str, str]: (
        "a mapping of texts to texts",
        lambda x: (
            isinstance(x, dict) and x != {} and all(isinstance(y, str) for y in (*x, *x.values()))
        ),
    ),
}


def _check_options(
    task: Task, where: str, check: Callable[..., rules.Rule], given: dict[str, Any], is_json: bool
) -> None:
    known = _options(check)
    for name, value in given.items():
        if name not in known:
            raise UserError(
                f"{where}: unknown option {name!r}, known are {', '.join([*known, 'train'])}"
            )
        wanted = known[name].annotation
        types = [
            _TYPES[x]
            for x in (get_args(wanted) if isinstance(wanted, UnionType) else [wanted])
            if x in _TYPES
        ]
        if not any(fits(value) for _, fits in types):
            raise UserError(
                f"{where}: option {name} is {value!r}, expected {' or '.join(says for says, _ in types)}"
            )
        if name in ("field", "fields", "label"):
            _check_fields(
                task,
                f"{where}: option {name}",
                list(value) if name == "fields" else [value],
                is_json,
            )


def _check_fields(task: Task, where: str, fields: list[str], is_json: bool) -> None:
    if not is_json:
        raise UserError(
            f"{where} is given, but the answers are plain text: list json_schema among the checks"
        )
    known = task.schema.get("properties", {})
    for field in fields:
        if known and field not in known:
            raise UserError(
                f"{where} is {field!r}, expected a property of schema.json: {', '.join(known)}"
            )


def _options(check: Callable[..., rules.Rule]) -> dict[str, inspect.Parameter]:
    """A check's options: its keyword arguments."""
    found = inspect.signature(check).parameters
    return {name: option for name, option in found.items() if option.kind is option.KEYWORD_ONLY}


def _rule(
    task: Task, where: str, check: Callable[..., rules.Rule], options: dict[str, Any]
) -> rules.Rule:
    for name, option in _options(check).items():
        if option.default is option.empty and name not in options:
            raise UserError(f"{where}: option {name} is missing")
    try:
        return check(task, **options)
    except ValueError as error:
        raise UserError(f"{where}: {error}") from None


def _finite(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError(f"{text} is too large")
    return value


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")
