"""The side of each row (train, valid, test) by the hash of its family, and the refusal of data that leak between sides."""

import hashlib
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from potstill.core import jsonl
from potstill.core.errors import UserError
from potstill.core.jsonl import Row
from potstill.dataset import near_duplicates, own_rows
from potstill.task.settings import Task

OWN = Path("own/messages.jsonl")  # in the data folder: a user's own rows; may be missing
NAMED = 5  # leaking pairs that an error names; the others are counted


@dataclass(frozen=True)
class Item:
    """A row on its way to a side. `texts` are what it asks, a turn each: compared with those of the other sides."""

    where: str  # file:line
    id: str
    family: str
    texts: tuple[str, ...]
    row: Row


def place(name: str) -> float:
    """Where a row or a family stands between 0 and 1, by its name alone: the same however many others there are."""
    return int(hashlib.sha256(name.encode()).hexdigest()[:12], 16) / 16**12


def divide(
    kept: list[Item], own: list[Item], gold: list[Item], valid_share: float, test_share: float
) -> dict[str, list[Item]]:
    """The rows of each side: validation has the families of the lowest places; test is `gold` or, without it, the kept rows
    of the families of the highest. `aside` are the user's own rows of a family that is held out so: nobody sees them.

    Learnt rows come in the order of their own places: the first N are of many families, and always the same. Raises UserError for an id that is there twice."""
    ids = {item.id: item.where for item in kept}
    for item in own:
        if item.id in ids:
            raise UserError(
                f"{item.where}: id {item.id} is that of {ids[item.id]}, too: give this row another"
            )
    test = gold or sorted(
        (item for item in kept if place(item.family) >= 1 - test_share), key=_order
    )
    held_out = set() if gold else {item.family for item in test}
    sides: dict[str, list[Item]] = {"train": [], "valid": [], "test": test, "aside": []}
    for item in sorted(kept + own, key=_order):
        if item.family not in held_out:
            sides["valid" if place(item.family) < valid_share else "train"].append(item)
    sides["aside"] = [item for item in own if item.family in held_out]
    return sides


def _order(item: Item) -> float:
    return place(item.id)


def inputs(t: Task, path: Path, *keys: str) -> list[Item]:
    """The rows of a file of inputs, which have the further `keys`. A row without a family is one of its own. Raises UserError."""
    found = t.inputs(path, *keys)
    jsonl.check_ids(path, found, t.config["input"])
    items = []
    for number, row in enumerate(found, 1):
        family = row.get("family", row["id"])
        if not isinstance(family, str) or not family:
            raise UserError(
                f"{path}:{number}: family is {family!r}, expected the id of the seed that the row grew from"
            )
        items.append(Item(f"{path}:{number}", row["id"], family, (t.fingerprint(row),), row))
    return items


def chats(t: Task, path: Path) -> tuple[list[Item], int]:
    """The rows of a user's messages file, and how many were left out as they stood there already. Without a family, a row
    is of that of the input which its first turn asks for. Raises UserError."""
    found = own_rows.messages_rows(path)
    if not found:
        return [], 0
    ask, items = _asks(t), dict[str, Item]()
    for number, row in enumerate(found, 1):
        messages = [{"role": one["role"], "content": one["content"]} for one in row["messages"]]
        asked = [ask(one["content"]) for one in messages if one["role"] == "user"]
        id = row.get("id", jsonl.row_id({"messages": messages}))
        family = row.get("family", jsonl.row_id(asked[0][0]))
        lesson = {"id": id, "messages": messages}
        items.setdefault(
            id, Item(f"{path}:{number}", id, family, tuple(text for _, text in asked), lesson)
        )
    return list(items.values()), len(found) - len(items)


def _asks(t: Task) -> Callable[[str], tuple[Row, str]]:
    """What tells the input that a user's turn was filled in with, and its text to compare, without the words around; a turn
    that is no filled-in template is an input of its own."""
    marks = {name: f"\x00{name}\x00" for name in t.config["input"]}
    turn = re.escape(t.messages("student", {"id": "", **marks})[-1]["content"])
    for number, mark in enumerate(map(re.escape, marks.values())):
        turn = turn.replace(mark, f"(?P<f{number}>.*)", 1).replace(mark, f"(?P=f{number})")
    pattern = re.compile(turn, re.DOTALL)

    def ask(text: str) -> tuple[Row, str]:
        match = pattern.fullmatch(text) if pattern.groups == len(marks) else None
        input = {name: match[f"f{i}"] for i, name in enumerate(marks)} if match else {"turn": text}
        return input, t.fingerprint(input) if match else text

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


def leaks(
    sides: dict[str, list[Item]], threshold: float
) -> Iterator[tuple[Item, str, Item, str, float]]:
    """All pairs of rows on two sides whose texts are near-duplicates: row, side, row, side, similarity. A later turn (thanks;
    shorter, please) counts on the test side alone."""
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


def refuse_leaks(sides: dict[str, list[Item]], threshold: float) -> None:
    """Raises UserError that names the first pairs of near-duplicates on two sides, and says how many there are."""
    found = [
        f"{a.where} (id {a.id}, {one}) and {b.where} (id {b.id}, {other}), similarity {similarity:.2f}"
        for a, one, b, other, similarity in leaks(sides, threshold)
    ]
    if found:
        more = f"; and {len(found) - NAMED:,} more" if len(found) > NAMED else ""
        raise UserError(
            f"{len(found):,} pairs of near-duplicates (near_duplicate: {threshold:g}) stand on two sides: "
            f"{'; '.join(found[:NAMED])}{more}: of each pair delete the row of gold.jsonl or messages.jsonl, or in seeds.jsonl "
            "the seed that the other grew from"
        )
