"""The side of each row (train, valid, test) by the hash of its family, and the refusal of data that
leak between sides."""

import hashlib
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from potstill.core import jsonl
from potstill.core.errors import UserError
from potstill.core.jsonl import Row
from potstill.dataset import near_duplicates
from potstill.task.settings import Task

OWN = Path("own/messages.jsonl")  # in the data folder: a user's own rows; may be missing
NAMED = 5  # leaking pairs that an error names; the others are counted


@dataclass(frozen=True)
class Item:
    """A row on its way to a side. `texts` are what it asks, a turn each: compared with those of the
    other sides."""

    where: str  # file:line
    id: str
    family: str
    texts: tuple[str, ...]
    row: Row


Sides = dict[str, list[Item]]


def place(name: str) -> float:
    """Where a row or a family stands between 0 and 1, by its name alone: the same however many
    others there are."""
    return int(hashlib.sha256(name.encode()).hexdigest()[:12], 16) / 16**12


def divide(
    kept: list[Item], own: list[Item], gold: list[Item], valid_share: float, test_share: float
) -> Sides:
    """The rows of each side: validation has the families of the lowest places; test is `gold` or,
    without it, the kept rows of the families of the highest. `aside` are the user's own rows of a
    family that is held out so: they are on no side.

    Learnt rows come in the order of their own places: the first N are of many families, and always
    the same. Raises UserError when an own row has the id of a kept one."""
    where = {item.id: item.where for item in kept}
    for item in own:
        if item.id in where:
            raise UserError(
                f"{item.where}: id {item.id} is that of {where[item.id]}, too: give this row "
                "another"
            )

    def by_place(items: list[Item]) -> list[Item]:
        return sorted(items, key=lambda item: place(item.id))

    test = gold or by_place([item for item in kept if place(item.family) >= 1 - test_share])
    held_out = set() if gold else {item.family for item in test}
    sides: Sides = {"train": [], "valid": [], "test": test, "aside": []}
    for item in by_place(kept + own):
        if item.family not in held_out:
            sides["valid" if place(item.family) < valid_share else "train"].append(item)
    sides["aside"] = [item for item in own if item.family in held_out]
    return sides


def inputs(t: Task, path: Path, *keys: str) -> list[Item]:
    """The rows of a file of inputs, which have the further `keys`. A row without a family is one of
    its own. Raises UserError for a row that is no input, has another id, or a family that is no
    text."""
    rows = t.inputs(path, *keys)
    jsonl.check_ids(path, rows, t.config["input"])
    items = []
    for number, row in enumerate(rows, 1):
        family = row.get("family", row["id"])
        if not isinstance(family, str) or not family:
            raise UserError(
                f"{path}:{number}: family is {family!r}, expected the id of the seed that the row "
                "grew from"
            )
        items.append(Item(f"{path}:{number}", row["id"], family, (t.fingerprint(row),), row))
    return items


def chats(t: Task, path: Path) -> tuple[list[Item], int]:
    """The rows of a user's messages file, which may be missing, and how many were left out as they
    stood there already. Without a family, a row is of that of the input which its first turn asks
    for. Raises UserError for what the rules of the file have against it."""
    if not path.is_file() or not path.stat().st_size:
        return [], 0
    from potstill.dataset import own_rows

    rows, ask = own_rows.messages_rows(path), _asks(t)
    items: dict[str, Item] = {}
    for number, row in enumerate(rows, 1):
        messages = row["messages"]  # each with role, content and perhaps loss
        asked = [ask(turn["content"]) for turn in messages if turn["role"] == "user"]
        id = row.get("id", jsonl.row_id({"messages": messages}))
        family = row.get("family", jsonl.row_id(asked[0][0]))
        texts, lesson = tuple(text for _, text in asked), {"id": id, "messages": messages}
        items.setdefault(id, Item(f"{path}:{number}", id, family, texts, lesson))
    return list(items.values()), len(rows) - len(items)


def _asks(t: Task) -> Callable[[str], tuple[Row, str]]:
    """What tells the input that a user's turn was filled in with, and its text to compare, without
    the words around; a turn that is no filled-in template is an input of its own."""
    marks = {name: f"\x00{name}\x00" for name in t.config["input"]}
    turn = re.escape(t.messages("student", {"id": "", **marks})[-1]["content"])
    for number, mark in enumerate(map(re.escape, marks.values())):
        turn = turn.replace(mark, f"(?P<f{number}>.*)", 1).replace(mark, f"(?P=f{number})")
    pattern = re.compile(turn, re.DOTALL)

    def ask(text: str) -> tuple[Row, str]:
        match = pattern.fullmatch(text) if pattern.groups == len(marks) else None
        if match is None:
            return {"turn": text}, text
        input = {name: match[f"f{i}"] for i, name in enumerate(marks)}
        return input, t.fingerprint(input)

    return ask


def lesson(task: Task, row: Row) -> Row:
    """A messages row: the student's short prompt, the input, the answer, an object as compact JSON;
    a user's own row is one already."""
    if "messages" in row:
        return row
    answer = row["output"]
    if not isinstance(answer, str):
        answer = json.dumps(answer, ensure_ascii=False, separators=(",", ":"))
    turn = {"role": "assistant", "content": answer}
    return {"id": row["id"], "messages": [*task.messages("student", row), turn]}


def test(task: Task, row: Row) -> Row:
    """A test row, from a gold row or a kept one that is held out. `expected` is None where the
    checks alone judge."""
    expected = row["gold"] if "gold" in row else row["output"]
    more = {"slice": row.get("slice", "held_out"), "expected": expected}
    return {key: row[key] for key in ("id", *task.config["input"])} | more


def leaks(sides: Sides, threshold: float) -> Iterator[tuple[Item, str, Item, str, float]]:
    """All pairs of rows on two sides whose texts are near-duplicates: row, side, row, side,
    similarity. A later turn (thanks; shorter, please) counts on the test side alone."""
    entries: dict[tuple[str, str, bool], Item] = {}
    for name in ("train", "valid", "test"):
        for item in sides.get(name, []):
            for turn, text in enumerate(item.texts):
                entries.setdefault((name, text, turn > 0), item)
    keys = list(entries)
    for i, j, similarity in near_duplicates.pairs([text for _, text, _ in keys], threshold):
        (one, _, late), (other, _, later) = keys[i], keys[j]
        if one != other and (not (late or later) or "test" in (one, other)):
            yield entries[keys[i]], one, entries[keys[j]], other, similarity


def refuse_leaks(sides: Sides, threshold: float) -> None:
    """Raises UserError when any near-duplicates are on two sides; it names the first pairs, and
    says how many there are."""
    pairs = [
        f"{a.where} (id {a.id}, {one}) and {b.where} (id {b.id}, {other}), "
        f"similarity {similarity:.2f}"
        for a, one, b, other, similarity in leaks(sides, threshold)
    ]
    if pairs:
        more = f"; and {len(pairs) - NAMED:,} more" if len(pairs) > NAMED else ""
        raise UserError(
            f"{len(pairs):,} pairs of near-duplicates (near_duplicate: {threshold:g}) stand on two "
            f"sides: {'; '.join(pairs[:NAMED])}{more}: of each pair delete the row of gold.jsonl "
            "or messages.jsonl, or in seeds.jsonl the seed that the other grew from"
        )
