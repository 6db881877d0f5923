"""prompts/knowledge.jsonl, what an answer must know and cannot find in its input: a company's products, prices and rules.

A row is one rule: {"label": "return", "when": "耳机|音箱", "text": "Earphones can be sent back …", "states": ["7天", ["未拆封", "没有拆封"]],
"never": ["15天"]}. Only label and text are needed. Prompts get all of them as `knowledge`; the check `facts` judges by them.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from potstill.checks.grounded import KINDS, missing
from potstill.checks.rules import PASS, Finding, Rule, compiled_pattern, failed, inputs, of, plain
from potstill.core.errors import UserError
from potstill.core.jsonl import Row
from potstill.task import settings
from potstill.task.settings import Task

_NUMBER = re.compile(KINDS["number"])


@dataclass(frozen=True)
class _Known:
    """One row, ready to judge by."""

    label: str
    when: re.Pattern[str]
    states: list[list[str]]  # of each list one stands in the answer
    never: list[str]
    text: str  # with the states: numbers may come from here


def facts(task: Task, *, label: str, field: str | None = None) -> Rule:
    """States what the rules of prompts/knowledge.jsonl require and nothing against them. Those apply whose label is the answer's
    field `label` and whose `when` is found in the input; an answer that none applies to fails. All their `states` stand there,
    nothing of their `never`, and each number stands in one of them or in the input."""
    names = inputs(task, None)
    known = [
        _known(settings.KNOWLEDGE, number, row) for number, row in enumerate(task.knowledge, 1)
    ]
    if not known:
        raise ValueError(f"{settings.KNOWLEDGE} has no rows, expected the rules to judge by")

    def judged(rules: list[_Known], source: str, text: str) -> Finding:
        found = plain(text)
        for rule in rules:
            for any_of in rule.states:
                if not any(plain(one) in found for one in any_of):
                    return failed(f"{any_of[0]} is left out")
            if wrong := next((one for one in rule.never if plain(one) in found), None):
                return failed(wrong)
        number = missing(
            "number", _NUMBER, text, "\n".join([source, *(rule.text for rule in rules)])
        )
        return failed(number) if number else PASS

    def rule(row: Row, value: Any, text: str) -> Finding:
        said = value.get(label) if isinstance(value, dict) else None
        source = "\n".join(row[name] for name in names)
        rules = [one for one in known if one.label == said and one.when.search(source)]
        if not rules:
            return failed(f"no rule for {label} {said!r}")
        return of(field, lambda _, text: judged(rules, source, text))(row, value, text)

    return rule


def _known(path: Path, number: int, row: Row) -> _Known:
    where = f"{path}:{number}"
    states = [[one] if isinstance(one, str) else one for one in _texts(where, row, "states", True)]
    never = _texts(where, row, "never", False)
    label, when, text = row["label"], row.get("when", ""), row["text"]
    for name, value in (("label", label), ("when", when), ("text", text)):
        if not isinstance(value, str):
            raise UserError(f"{where}: {name} is {value!r}, expected a text")
    try:
        pattern = compiled_pattern(when)
    except ValueError as error:
        raise UserError(f"{where}: when: {error}") from None
    return _Known(
        label, pattern, states, never, "\n".join([text, *(one for some in states for one in some)])
    )


def _texts(where: str, row: Row, name: str, nested: bool) -> list[Any]:
    """A list of texts that are not empty, or of lists of them."""

    def fits(value: object) -> bool:
        if nested and isinstance(value, list) and value:
            return all(isinstance(one, str) and plain(one) for one in value)
        return isinstance(value, str) and bool(plain(value))

    found = row.get(name, [])
    if not isinstance(found, list) or not all(map(fits, found)):
        raise UserError(
            f"{where}: {name} is {found!r}, expected a list of texts that are not empty"
        )
    return found
