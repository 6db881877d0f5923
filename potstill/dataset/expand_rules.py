"""What a task says of its expansion, the mapping `expand` of task.yaml, read before anything is asked; and what a reply must
be. The form of the mapping is in schemas/task.json."""

import json
import random
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from potstill.core.errors import UserError
from potstill.core.jsonl import Row
from potstill.task.settings import PATH, Task


@dataclass(frozen=True)
class Vary:
    """The number that stands in a request, the first that `pattern` finds (digits, nothing else), and what it may become."""

    pattern: re.Pattern[str]
    values: Sequence[int]
    times: int
    rewrite: bool

    def others(self, fields: Row, used: Counter[int | None], chance: random.Random) -> list[int]:
        """Up to `times` values that are not the one there, the least used ones, by chance among equals; none where no number is found."""
        number = self.number(fields)
        values = [value for value in self.values if number is not None and value != number]
        return sorted(values, key=lambda value: (used[value], chance.random()))[: self.times]

    def number(self, fields: Row) -> int | None:
        """The number that stands there, or None."""
        found = self._find(fields)
        return int(found[1][0]) if found else None

    def put(self, fields: Row, value: int) -> Row:
        """The fields with another number; as they are where none is found."""
        if not (found := self._find(fields)):
            return dict(fields)
        name, match = found
        return {
            **fields,
            name: match.string[: match.start()] + str(value) + match.string[match.end() :],
        }

    def _find(self, fields: Row) -> tuple[str, re.Match[str]] | None:
        return next(
            (
                (name, match)
                for name, text in fields.items()
                if (match := self.pattern.search(text))
            ),
            None,
        )


@dataclass(frozen=True)
class Category:
    """One kind of input. `match`: what its texts must show; `material`: the prompt that writes what the input is about."""

    name: str
    share: float
    match: re.Pattern[str] | None
    vary: Vary | None
    material: str


def categories(task: Task, seeds: list[Row]) -> tuple[list[Category], int]:
    """The categories of task.yaml and the longest input. A task without any has one, whose name is empty.

    Raises UserError for a mapping that is none, a seed of no category, a category without seeds.
    """
    path, data = PATH, task.data / "seeds.jsonl"
    if "expand" not in task.config:
        raise UserError(
            f"{path}: expand is missing, but expand.rows is not 0: add expand (see docs/data.md), or set it to 0"
        )
    settings = task.config["expand"]
    found = [
        _category(path, name, one) for name, one in settings.get("categories", {"": {}}).items()
    ]
    if any(one.vary and one.vary.rewrite for one in found) and "json_schema" in map(
        _name, task.config["checks"]
    ):
        raise UserError(
            f"{path}: rewrite counts the characters of a whole answer, but json_schema says it is JSON: remove one"
        )
    names = {one.name: one for one in found}
    for number, row in enumerate(seeds, 1):
        name = row.get("category", "")
        if not isinstance(name, str) or name not in names:
            there = ", ".join(filter(None, names)) or "none (task.yaml names no categories)"
            raise UserError(
                f"{data}:{number}: category is {name!r}, expected one of task.yaml's: {there}"
            )
        one, text = names[name], "\n".join(row[field] for field in task.config["input"])
        if one.match and not one.match.search(text):
            raise UserError(
                f"{data}:{number}: {text[:40]!r} has nothing that `match` of category {name!r} in {path} finds: mend one of the two"
            )
    for one in found:
        if all(row.get("category", "") != one.name for row in seeds):
            raise UserError(
                f"{data}: no seed of category {one.name!r}, which {path} names: add one, or remove the category"
            )
    return found, settings.get("max_chars", 2000)


def schema(task: Task) -> Row:
    """The schema of a reply: {"inputs": […]}, a text each where the task's input is one field, else an object."""
    names = task.config["input"]
    item: dict[str, Any] = {"type": "string"}
    if len(names) > 1:
        properties = dict.fromkeys(names, item)
        item = {
            "type": "object",
            "properties": properties,
            "required": names,
            "additionalProperties": False,
        }
    inputs = {"inputs": {"type": "array", "items": item}}
    return {
        "type": "object",
        "properties": inputs,
        "required": ["inputs"],
        "additionalProperties": False,
    }


def unusable(answer: Row) -> str | None:
    """Why there is nothing to look at in an answer, None when there is."""
    if answer["error"] is not None:
        return "no answer"
    if answer["finish_reason"] not in ("stop", None):
        return "cut off"
    if not writable(answer["answer"]):
        return "half a surrogate pair"
    return None if answer["answer"].strip() else "empty answer"


def reply_items(answer: Row) -> tuple[list[object], str | None]:
    """The inputs in a reply, {"inputs": […]} or the list alone, or none and the reason. A fence of Markdown is no matter."""
    if reason := unusable(answer):
        return [], reason
    text = answer["answer"].strip()
    if text.startswith("```") and text.endswith("```") and "\n" in text:
        text = text.partition("\n")[2][:-3]
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return [], "no JSON"
    if isinstance(found, dict) and set(found) == {"inputs"}:
        found = found["inputs"]
    return (found, None) if isinstance(found, list) else ([], "wrong shape")


def writable(text: str) -> bool:
    return not re.search("[\ud800-\udfff]", text)


def _category(path: object, name: str, one: dict[str, Any]) -> Category:
    def pattern(text: str | None) -> re.Pattern[str] | None:
        try:
            return None if text is None else re.compile(text)
        except re.error as error:
            raise UserError(
                f"{path}: expand.categories.{name}: {text!r} is no regular expression: {error}"
            ) from None

    vary, match = None, pattern(one.get("match"))
    if (options := one.get("vary")) and (number := pattern(options["pattern"])):
        values = options["values"]
        if isinstance(values, str):
            low, high = map(int, values.split("-"))
            if low > high:
                raise UserError(
                    f"{path}: expand.categories.{name}.vary: values is {values}, expected the lower number first"
                )
            values = range(low, high + 1)
        vary = Vary(number, values, options.get("times", 2), options.get("rewrite", False))
    return Category(name, one.get("share", 1), match, vary, one.get("material", ""))


def _name(check: object) -> object:
    return next(iter(check)) if isinstance(check, dict) else check
