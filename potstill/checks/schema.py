"""The checks of a whole JSON answer: `json_schema` and `exact_match`."""

from typing import Any

from potstill.checks.rule import PASS, Finding, Rule, failed, value_of
from potstill.core.errors import UserError
from potstill.core.jsonl import Row, squeeze
from potstill.task.settings import ANSWER, Task


def json_schema(task: Task) -> Rule:
    """The answer obeys schema.json, of draft 2020-12. Raises UserError when that is no such schema,
    or refers to a part of itself that it does not have."""
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import SchemaError, best_match
    from referencing import Registry
    from referencing.jsonschema import DRAFT202012

    try:
        Draft202012Validator.check_schema(task.schema, Draft202012Validator.FORMAT_CHECKER)
    except SchemaError as error:
        problem = f"{error.json_path}: {error.message[:200]}"
        raise UserError(f"{ANSWER}: {problem}, expected a JSON schema of draft 2020-12") from None
    whole = DRAFT202012.create_resource(task.schema)
    _follow_references(whole, Registry().resolver_with_root(whole))
    validator = Draft202012Validator(task.schema)

    def rule(row: Row, answer: Any, text: str) -> Finding:
        try:
            error = best_match(validator.iter_errors(answer))
        except RecursionError:
            return failed("answer: nested too deep")
        if error is None:
            return PASS
        place = error.json_path.removeprefix("$").removeprefix(".") or "answer"
        return failed(f"{place}: {error.validator}")

    return rule


def allows_null(task: Task, field: str) -> bool:
    """Whether the answers are JSON and schema.json lets this field of them be null."""
    if not any("json_schema" in entry for entry in task.config["checks"]):
        return False
    from jsonschema import Draft202012Validator

    rules = task.schema.get("properties", {}).get(field)
    whole = Draft202012Validator(task.schema)
    return rules is not None and whole.evolve(schema=rules).is_valid(None)


def _follow_references(part: Any, resolver: Any) -> None:
    """Raises UserError for a $ref into the schema that leads nowhere: jsonschema would find out
    only when an answer gets there."""
    from referencing.exceptions import Unresolvable

    reference = part.contents.get("$ref", "") if isinstance(part.contents, dict) else ""
    try:
        if reference.startswith("#"):
            resolver.lookup(reference)
    except Unresolvable:
        raise UserError(f"{ANSWER}: $ref {reference!r} leads to no part of the schema") from None
    for inner in part.subresources():
        _follow_references(inner, resolver.in_subresource(inner))


def exact_match(task: Task, *, field: str | None = None) -> Rule:
    """The answer is the row's `expected`, white space ignored: an object has the same keys with
    the same values. With `field` that key alone is compared, where `expected` has it; null equals
    null."""

    def rule(row: Row, answer: Any, text: str) -> Finding:
        expected = row.get("expected")
        if expected is None or (field and isinstance(expected, dict) and field not in expected):
            return Finding(None, "nothing is expected")
        if field is not None:  # a null that is expected is matched by null, not by a missing key
            if not isinstance(answer, dict) or field not in answer:
                return failed(field)
            expected, answer = value_of(expected, field), answer[field]
        return PASS if same(answer, expected) else failed(field or "another answer is expected")

    return rule


def same(answer: object, expected: object) -> bool:
    """Whether two JSON values are equal, white space in texts ignored; true is not 1."""
    return _comparable(answer) == _comparable(expected)


def _comparable(value: object) -> object:
    if isinstance(value, str):
        return squeeze(value)
    if isinstance(value, bool):
        return (value,)
    if isinstance(value, dict):
        return {key: _comparable(inner) for key, inner in value.items()}
    return list(map(_comparable, value)) if isinstance(value, list) else value
