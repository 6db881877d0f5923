"""What a task says of its expansion, the mapping `expand` of task.yaml, read before anything is
asked; and what a reply must be. The form of the mapping is in schemas/task.json."""

import json
import random
import re
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from potstill.checks import registry
from potstill.checks.rule import compiled
from potstill.checks.wrapping import wrapped
from potstill.core.errors import UserError
from potstill.core.jsonl import Row, unwritable
from potstill.task.settings import PATH, Task


@dataclass(frozen=True)
class Vary:
    """The number in a request, the first that `pattern` finds (digits, nothing else), and what it
    may become."""

    pattern: re.Pattern[str]
    values: Sequence[int]
    times: int
    rewrite: bool

    def others(self, fields: Row, used: Counter[int | None], chance: random.Random) -> list[int]:
        """Up to `times` values other than the present one, the least used ones, by chance among
        equals; none where no number is found."""
        number = self.number(fields)
        values = [value for value in self.values if number is not None and value != number]
        return sorted(values, key=lambda value: (used[value], chance.random()))[: self.times]

    def number(self, fields: Row) -> int | None:
        """The number that stands there, or None."""
        for text in fields.values():
            if match := self.pattern.search(text):
                return int(match[0])
        return None

    def put(self, fields: Row, value: int) -> Row:
        """The fields with another number; as they are where none is found."""
        for name, text in fields.items():
            if match := self.pattern.search(text):
                return {**fields, name: text[: match.start()] + str(value) + text[match.end() :]}
        return dict(fields)


@dataclass(frozen=True)
class Category:
    """One kind of input. `match`: what its texts must show; `material`: the prompt that writes
    what the input is about."""

    name: str
    share: float
    match: re.Pattern[str] | None
    vary: Vary | None
    material: str


def categories(task: Task, seeds: list[Row]) -> tuple[list[Category], int]:
    """The categories of task.yaml and the most characters of an input. A task without any has one,
    whose name is empty.

    Raises UserError for a missing `expand`, a pattern that is no regular expression, a range whose
    lower number is not first, `rewrite` beside json_schema, a seed of no category or without its
    `match`, and a category without seeds.
    """
    if "expand" not in task.config:
        raise UserError(
            f"{PATH}: expand is missing, but expand.rows is not 0: add expand (see docs/data.md), "
            "or set it to 0"
        )
    settings, data = task.config["expand"], task.data / "seeds.jsonl"
    listed = settings.get("categories", {"": {}})
    by_name = {name: _category(name, given) for name, given in listed.items()}
    rewrite = any(category.vary and category.vary.rewrite for category in by_name.values())
    if rewrite and registry.is_json(task):
        counts = "rewrite counts the characters of a whole answer"
        raise UserError(f"{PATH}: {counts}, but json_schema says it is JSON: remove one")
    for number, row in enumerate(seeds, 1):
        name = row.get("category", "")
        if not isinstance(name, str) or name not in by_name:
            known = ", ".join(filter(None, by_name)) or "none (task.yaml names no categories)"
            raise UserError(
                f"{data}:{number}: category is {name!r}, expected one of task.yaml's: {known}"
            )
        match, text = by_name[name].match, "\n".join(row[field] for field in task.config["input"])
        if match and not match.search(text):
            raise UserError(
                f"{data}:{number}: {text[:40]!r} has nothing that `match` of category {name!r} in "
                f"{PATH} finds: mend one of the two"
            )
    if unused := by_name.keys() - {row.get("category", "") for row in seeds}:
        remedy = "add one, or remove the category"
        raise UserError(
            f"{data}: no seed of category {min(unused)!r}, which {PATH} names: {remedy}"
        )
    return list(by_name.values()), settings.get("max_chars", 2000)


def schema(task: Task) -> Row:
    """The schema of a reply: {"inputs": […]}, a text each where the task's input is one field,
    else an object."""
    names, text = task.config["input"], {"type": "string"}
    item = text if len(names) == 1 else _object(dict.fromkeys(names, text))
    return _object({"inputs": {"type": "array", "items": item}})


def _object(properties: Row) -> Row:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def unusable(answer: Row) -> str | None:
    """Why nothing can be taken from an answer, None when something can."""
    if answer["error"] is not None:
        return "no answer"
    if answer["finish_reason"] not in ("stop", None):
        return "cut off"
    if "surrogate" in (unwritable(answer["answer"]) or ""):
        return "half a surrogate pair"
    return None if answer["answer"].strip() else "empty answer"


def reply_items(answer: Row) -> tuple[list[object], str | None]:
    """The inputs in a reply, {"inputs": […]} or the list alone, or none and the reason. What is
    wrapped around the JSON is no matter."""
    if reason := unusable(answer):
        return [], reason
    text = answer["answer"].strip()
    reply = None
    for inner in (text, *wrapped(text)):
        with suppress(ValueError, RecursionError):
            reply = json.loads(inner)
            break
    else:
        return [], "no JSON"
    items = reply["inputs"] if isinstance(reply, dict) and set(reply) == {"inputs"} else reply
    return (items, None) if isinstance(items, list) else ([], "wrong shape")


def _category(name: str, given: dict[str, Any]) -> Category:
    try:
        match = compiled(given["match"]) if "match" in given else None
        vary = _vary(given["vary"]) if "vary" in given else None
    except ValueError as error:
        raise UserError(f"{PATH}: expand.categories.{name}: {error}") from None
    return Category(name, given.get("share", 1), match, vary, given.get("material", ""))


def _vary(given: dict[str, Any]) -> Vary:
    values = given["values"]
    if isinstance(values, str):
        low, high = map(int, values.split("-"))
        if low > high:
            raise ValueError(f"values is {values}, expected the lower number first")
        values = range(low, high + 1)
    times, rewrite = given.get("times", 2), given.get("rewrite", False)
    return Vary(compiled(given["pattern"]), values, times, rewrite)
