"""The checks of a whole JSON answer: `json_schema` and `exact_match`."""

from decimal import Decimal
from typing import Any

from potstill.checks import paths
from potstill.checks.rule import PASS, Finding, Rule, failed
from potstill.core.errors import UserError
from potstill.core.jsonl import Row, squeeze
from potstill.task.settings import ANSWER, Task


def validate(task: Task) -> None:
    """Raises UserError when schema.json is no schema of draft 2020-12, or refers to a part of
    itself that it does not have."""
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import SchemaError
    from referencing import Registry
    from referencing.jsonschema import DRAFT202012

    try:
        Draft202012Validator.check_schema(task.schema, Draft202012Validator.FORMAT_CHECKER)
    except SchemaError as error:
        problem = f"{error.json_path}: {error.message[:200]}"
        raise UserError(f"{ANSWER}: {problem}, expected a JSON schema of draft 2020-12") from None
    whole = DRAFT202012.create_resource(task.schema)
    _follow_references(whole, Registry().resolver_with_root(whole))


def json_schema(task: Task) -> Rule:
    """The answer obeys schema.json, of draft 2020-12."""
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import best_match

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


def exact_match(
    task: Task, *, field: str | None = None, order: bool = True, tolerance: float | None = None
) -> Rule:
    """The answer is the row's `expected` (`same`). With `field` what stands at that path alone is
    compared, where `expected` has it; null equals null."""
    path = () if field is None else paths.find(task, field).steps

    def rule(row: Row, answer: Any, text: str) -> Finding:
        whole = row.get("expected")
        expected = paths.pick(whole, path)
        if whole is None or expected is paths.ABSENT:
            return Finding(None, "nothing is expected")
        equal = same(paths.pick(answer, path), expected, order, tolerance)
        return PASS if equal else failed(field or "another answer is expected")

    return rule


def same(
    answer: object, expected: object, order: bool = True, tolerance: float | None = None
) -> bool:
    """Whether two JSON values are equal: texts but for white space; numbers by value, or at most
    `tolerance` apart; true is not 1. Without `order` the entries of lists may stand in any."""
    if isinstance(expected, str) and isinstance(answer, str):
        return squeeze(answer) == squeeze(expected)
    if isinstance(expected, dict) and isinstance(answer, dict):
        equal = answer.keys() == expected.keys()
        return equal and all(same(answer[key], expected[key], order, tolerance) for key in answer)
    if isinstance(expected, list) and isinstance(answer, list):
        if len(answer) != len(expected):
            return False
        if order or not answer:
            return all(same(*two, order, tolerance) for two in zip(answer, expected, strict=True))
        return _matched([[same(a, e, order, tolerance) for e in expected] for a in answer])
    numbers = {type(answer), type(expected)} <= {int, float}
    if numbers and tolerance is not None and answer != expected:
        apart = Decimal(str(answer)) - Decimal(str(expected))  # so that 1.1 - 1.0 is 0.1
        return abs(apart) <= Decimal(str(tolerance))
    return (numbers or type(answer) is type(expected)) and answer == expected


def _matched(fits: list[list[bool]]) -> bool:
    """Whether each entry of a list has one of the other to itself that fits. With a tolerance it
    may fit several, so the first that fits need not do."""
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import maximum_bipartite_matching

    return bool((maximum_bipartite_matching(csr_array(fits)) >= 0).all())
