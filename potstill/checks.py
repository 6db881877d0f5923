"""The checks that task.yaml names: small declarative rules about one answer.

A check takes the task, the input row, the parsed answer and its raw text, and returns None (passes) or a reason that
starts with the check's name.
"""

import json
from collections.abc import Callable
from typing import Any, NamedTuple

from potstill.errors import UserError
from potstill.rows import Row, squeeze
from potstill.task import Task

Check = Callable[..., str | None]


class Verdict(NamedTuple):
    """What one check says of one answer. `passed` is None where the check has nothing to judge by: unscored, which never
    counts as passed. `distance` ranks answers: 0 is perfect, larger is worse."""

    name: str
    passed: bool | None
    reason: str | None
    distance: float


def parse(task: Task, text: str) -> tuple[Any, str | None]:
    """The answer as an object and None, or None and the reason. The whole answer must be JSON, nothing around it."""
    try:
        return json.loads(text, parse_constant=_no_constant), None
    except ValueError as error:
        return None, f"json: {error.msg if isinstance(error, json.JSONDecodeError) else error}"
    except RecursionError:
        return None, "json: nested too deep"


def check(task: Task, row: Row, text: str, training: bool = False) -> list[str]:
    """The reasons of all checks of the task that the answer `text` to `row` fails; [] when it passes. With `training`, what
    a check's option `train` holds stands in for its other options."""
    return [v.reason for v in verdicts(task, row, text, training) if v.passed is False and v.reason]


def verdicts(task: Task, row: Row, text: str, training: bool = False) -> list[Verdict]:
    """What each check of the task says of the answer `text` to `row`, in the order of task.yaml."""
    parsed, reason = parse(task, text)
    if reason:
        return [Verdict("json_schema", False, reason, 1.0)]
    found = []
    for name, options in _listed(task):
        reason = CHECKS[name](task, row, parsed, text, **options)
        found.append(Verdict(name, reason is None, reason, float(reason is not None)))
    return found


def exact_match(expected: dict[str, str], parsed: object) -> dict[str, bool]:
    """For each key of `expected`, whether the parsed answer has the same text there, white space ignored."""
    found = parsed if isinstance(parsed, dict) else {}
    return {
        key: isinstance(found.get(key), str) and squeeze(found[key]) == squeeze(value)
        for key, value in expected.items()
    }


def json_schema(task: Task, row: Row, parsed: object, text: str) -> str | None:
    """The answer obeys schemas/<task>.json."""
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import best_match

    error = best_match(Draft202012Validator(task.schema).iter_errors(parsed))
    if error is None:
        return None
    key = error.json_path.removeprefix("$").removeprefix(".") or "answer"
    return f"json_schema: {key}: {error.validator}"


def grounded(
    task: Task, row: Row, parsed: object, text: str, *, fields: dict[str, str], before_number: str = ""
) -> str | None:
    """Each of `fields` stands in the row's input. White space and the field's own ignored characters do not count; a
    number must stand there whole, but for digits `before_number` (a country code)."""
    source = "\n".join(row[name] for name in task.config["input"])
    for key, ignored in fields.items():
        value = parsed.get(key) if isinstance(parsed, dict) else None
        if not isinstance(value, str) or not _stands_in(value, source, ignored, before_number):
            return f"grounded: {key}"
    return None


CHECKS: dict[str, Check] = {"json_schema": json_schema, "grounded": grounded}


def _stands_in(value: str, source: str, ignored: str, before_number: str) -> bool:
    places = [i for i, c in enumerate(source) if not c.isspace() and c not in ignored]
    heap = "".join(source[i] for i in places)
    needle = "".join(c for c in value if not c.isspace() and c not in ignored)
    at = heap.find(needle) if needle else -1
    while at >= 0:
        before, after = source[: places[at]], source[places[at + len(needle) - 1] + 1 :]
        code = bool(before_number) and before.endswith(before_number)
        cut_before = needle[0].isdigit() and before[-1:].isdigit() and not code
        if not cut_before and not (needle[-1].isdigit() and after[:1].isdigit()):
            return True
        at = heap.find(needle, at + 1)
    return False


def _listed(task: Task) -> list[tuple[str, dict[str, Any]]]:
    """The task's checks as (name, options)."""
    listed = []
    for entry in task.config["checks"]:
        name, options = next(iter(entry.items())) if isinstance(entry, dict) else (entry, {})
        if name not in CHECKS:
            raise UserError(f"{task.dir}/task.yaml: unknown check {name!r}, known are {', '.join(CHECKS)}")
        listed.append((name, options))
    return listed


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")
