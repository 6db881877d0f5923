"""What a task says of its expansion, the mapping `expand` of task.yaml, read before anything is
asked; and what a reply must be. The form of the mapping is in schemas/task.json."""

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
    by_name = {
        name: _category(name, given) for name, given in settings.get("categories", {"": {}}).items()
    }
    checks = [next(iter(one)) if isinstance(one, dict) else one for one in task.config["checks"]]
    rewrite = any(category.vary and category.vary.rewrite for category in by_name.values())
    if rewrite and "json_schema" in checks:
        raise UserError(
            f"{PATH}: rewrite counts the characters of a whole answer, but json_schema says it is "
            "JSON: remove one"
        )
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
    with_seeds = {row.get("category", "") for row in seeds}
    for name in (name for name in by_name if name not in with_seeds):
        raise UserError(
            f"{data}: no seed of category {name!r}, which {PATH} names: add one, or remove the "
            "category"
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
    if not writable(answer["answer"]):
        return "half a surrogate pair"
    return None if answer["answer"].strip() else "empty answer"


def reply_items(answer: Row) -> tuple[list[object], str | None]:
    """The inputs in a reply, {"inputs": […]} or the list alone, or none and the reason. A fence of
    Markdown is no matter."""
    if reason := unusable(answer):
        return [], reason
    text = answer["answer"].strip()
    if text.startswith("```") and text.endswith("```") and "\n" in text:
        text = text.partition("\n")[2][:-3]
    try:
        reply = json.loads(text)
    except (ValueError, RecursionError):
        return [], "no JSON"
    items = reply["inputs"] if isinstance(reply, dict) and set(reply) == {"inputs"} else reply
    return (items, None) if isinstance(items, list) else ([], "wrong shape")


def writable(text: str) -> bool:
    """Whether the text can be written as UTF-8: half a surrogate pair cannot."""
    return not re.search("[\ud800-\udfff]", text)


def _category(name: str, given: dict[str, Any]) -> Category:
    where = f"{PATH}: expand.categories.{name}"

    def compiled(pattern: str) -> re.Pattern[str]:
        try:
            return re.compile(pattern)
        except re.error as error:
            raise UserError(f"{where}: {pattern!r} is no regular expression: {error}") from None

    match, vary, options = given.get("match"), None, given.get("vary")
    if options:
        values = options["values"]
        if isinstance(values, str):
            low, high = map(int, values.split("-"))
            if low > high:
                raise UserError(
                    f"{where}.vary: values is {values}, expected the lower number first"
                )
            values = range(low, high + 1)
        pattern, times = compiled(options["pattern"]), options.get("times", 2)
        vary = Vary(pattern, values, times, options.get("rewrite", False))
    share, material = given.get("share", 1), given.get("material", "")
    return Category(name, share, compiled(match) if match else None, vary, material)
