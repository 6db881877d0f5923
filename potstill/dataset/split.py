"""The side of each row (train, valid, test) by the hash of its family. Rows that are nearly the
same are one family, and none is learnt that is nearly a test row."""

import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

from potstill.core import jsonl
from potstill.core.errors import UserError
from potstill.core.jsonl import Row
from potstill.dataset import near_duplicates
from potstill.task.settings import Task

OWN = Path("own/messages.jsonl")  # in the data folder: a user's own rows; may be missing
# What a slice of gold.jsonl may not be called: these names have a meaning in metrics.json
RESERVED = set(
    """held_out ship rows low high right wrong unscored accuracy agreement pass_rate valid_json
    schema_valid within overlap keys macro_f1 prompt_tokens completion_tokens""".split()
)
SLICE = "own"  # of test rows that are rows of a user's own, held out


@dataclass(frozen=True)
class Item:
    """A row on its way to a side. `texts` are what it asks, a turn each: compared with those of the
    other sides. `test` is the test row that a user's own row can be, None where it cannot."""

    where: str  # file:line
    id: str
    family: str
    texts: tuple[str, ...]
    row: Row
    test: Row | None = None


Sides = dict[str, list[Item]]


def place(name: str) -> float:
    """Where a row or a family stands between 0 and 1, by its name alone: the same however many
    others there are."""
    return int(hashlib.sha256(name.encode()).hexdigest()[:12], 16) / 16**12


def divide(
    kept: list[Item], own: list[Item], gold: list[Item], valid_share: float, test_share: float
) -> Sides:
    """The rows of each side: validation has the families of the lowest places; test is `gold` or,
    without it, the rows of the families of the highest: kept rows, or where there are none a user's
    own. `aside` are the user's own rows of a family that is held out so: they are on no side.

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

    held = [item for item in kept or own if place(item.family) >= 1 - test_share]
    held_out = set() if gold else {item.family for item in held}
    asked = {item.test["id"]: item for item in reversed(held) if item.test}  # of one input one
    test = gold or by_place(held if kept else list(asked.values()))
    on_test = {item.id for item in test}
    sides: Sides = {"train": [], "valid": [], "test": test, "aside": []}
    for item in by_place(kept + own):
        if item.family not in held_out:
            sides["valid" if place(item.family) < valid_share else "train"].append(item)
    sides["aside"] = [item for item in own if item.family in held_out and item.id not in on_test]
    return sides


def joined(kept: list[Item], own: list[Item], threshold: float) -> tuple[list[Item], list[Item]]:
    """The rows with the near-duplicates among them, by their first turns, as one family: that of
    the first of them. `kept` rows are none of each other; a user's own may be, and then stand on
    one side. A later turn (thanks; shorter, please) joins nothing."""
    if not own:
        return kept, own
    every = kept + own
    parent = list(range(len(every)))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = i = parent[parent[i]]
        return i

    def join(i: int, j: int) -> None:
        one, other = sorted((root(i), root(j)))
        parent[other] = one

    families: dict[str, int] = {}
    texts: dict[str, int] = {}  # by text the first row that asks it
    for i, item in enumerate(every):
        join(families.setdefault(item.family, i), i)
        join(texts.setdefault(item.texts[0], i), i)
    rows = list(texts.values())

    def wanted(i: int, j: int) -> bool:
        return rows[j] >= len(kept) and root(rows[i]) != root(rows[j])

    for i, j, _ in near_duplicates.pairs(list(texts), threshold, wanted):
        join(rows[i], rows[j])
    found = [replace(item, family=every[root(i)].family) for i, item in enumerate(every)]
    return found[: len(kept)], found[len(kept) :]


def like_tests(learnt: list[Item], tests: list[Item], threshold: float) -> dict[str, str]:
    """Why rows cannot be learnt, by their ids: a turn of theirs is nearly that of a test row."""
    found: dict[str, str] = {}
    if not tests:
        return found
    asked, learn = (
        [(text, item) for item in part for text in dict.fromkeys(item.texts)]
        for part in (tests, learnt)
    )
    every = asked + learn

    def wanted(i: int, j: int) -> bool:
        return every[j][1].id not in found

    texts = [text for text, _ in every]
    for i, j, similarity in near_duplicates.pairs(texts, threshold, wanted, len(asked)):
        test = every[i][1]
        found[every[j][1].id] = f"near_duplicate: of {test.where}, id {test.id} ({similarity:.2f})"
    return found


def without(sides: Sides, reasons: dict[str, str]) -> tuple[Sides, list[Row]]:
    """The sides without the learnt rows that `reasons` names, and these, {"where", "id",
    "reason"}."""
    every = [*sides["train"], *sides["valid"]]
    dropped = [
        {"where": item.where, "id": item.id, "reason": reasons[item.id]}
        for item in every
        if item.id in reasons
    ]
    left = {
        name: [one for one in sides[name] if one.id not in reasons] for name in ("train", "valid")
    }
    return {**sides, **left}, dropped


def refuse_empty(
    sides: Sides, kept: list[Item], own: list[Item], like: int, left_out: int, p: SimpleNamespace
) -> None:
    """Raises UserError when a side of the `kept` and the `own` rows has none. `like` rows are like
    a test row, `left_out` have another answer to a known question, `p` is the section split of
    params.yaml."""
    for name, found in sides.items():
        if not found and name != "aside":
            families = len({one.family for one in kept + own})
            less = f" in {families:,} families (near-duplicates are one)" if own else ""
            less += f", {like:,} of them like a test row," if like else ""
            less += f", {left_out:,} more left out for another answer," if left_out else ""
            raise UserError(
                f"params.yaml: split.valid_share {p.valid_share} and split.test_share "
                f"{p.test_share} of {len(kept) + len(own)} rows{less} leave none for {name}: "
                "give more rows or other shares"
            )


def inputs(t: Task, path: Path, *keys: str) -> list[Item]:
    """The rows of a file of inputs, which may be empty and have the further `keys`. A row without a
    family is one of its own. Raises UserError for a row that is no input, has another id, or a
    family that is no text."""
    rows = t.inputs(path, *keys, empty=True)
    jsonl.check_ids(path, rows, t.config["input"])
    return items(t, path, rows)


def items(t: Task, path: Path, rows: list[Row]) -> list[Item]:
    """The rows of a file of inputs as items. Raises UserError for a family that is no text."""
    found = []
    for number, row in enumerate(rows, 1):
        family = row.get("family", row["id"])
        if not isinstance(family, str) or not family:
            raise UserError(
                f"{path}:{number}: family is {family!r}, expected the id of the seed that the row "
                "grew from"
            )
        found.append(Item(f"{path}:{number}", row["id"], family, (t.fingerprint(row),), row))
    return found


class Own(NamedTuple):
    """A user's own rows, how many more stood there already, and those that are left out since their
    question has another answer, {"where", "id", "reason"}."""

    items: list[Item]
    twice: int = 0
    left_out: tuple[Row, ...] = ()


def chats(t: Task, path: Path, several: str) -> Own:
    """The rows of a user's messages file, which may be missing; `several` as in own_rows.settle.
    Without a family, a row is of that of the input which its first turn asks for. Raises UserError
    for what the rules of the file have against it."""
    if not path.is_file() or not path.stat().st_size:
        return Own([])
    from potstill.dataset import own_rows

    rows, ask = own_rows.messages_rows(path), _asks(t)
    asked = [own_rows.asked(f"{path}:{number}", row) for number, row in enumerate(rows, 1)]
    again, reasons, _ = own_rows.settle(asked, several)
    found: list[Item] = []
    for number, (row, (where, id, *_)) in enumerate(zip(rows, asked, strict=True)):
        if number in again or number in reasons:
            continue
        messages = row["messages"]  # each with role, content and perhaps loss
        turns = [ask(turn["content"]) for turn in messages if turn["role"] == "user"]
        family = row.get("family", jsonl.row_id(turns[0][0]))
        texts, lesson = tuple(text for _, text in turns), {"id": id, "messages": messages}
        test = _as_test(t, turns[0][0], messages[-1]["content"]) if len(turns) == 1 else None
        found.append(Item(where, id, family, texts, lesson, test))
    left_out = [
        {"where": asked[number].where, "id": asked[number].id, "reason": f"several: {why}"}
        for number, why in reasons.items()
    ]
    return Own(found, len(again), tuple(left_out))


def _as_test(t: Task, input: Row, answer: str) -> Row | None:
    """The test row that one question with its answer is; None where the question is not the task's,
    or the answer no JSON where the task wants that."""
    if list(input) != t.config["input"] or not all(text.strip() for text in input.values()):
        return None
    expected: object = answer
    if any("json_schema" in entry for entry in t.config["checks"]):
        try:
            expected = json.loads(answer)
        except ValueError:
            return None
    return {"id": jsonl.row_id(input), **input, "slice": SLICE, "expected": expected}


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


def refuse_reserved(name: str, where: str) -> None:
    """Raises UserError for the name of a slice that says something else in metrics.json."""
    if name in RESERVED:
        raise UserError(f"{where}: slice is {name!r}, a name that the metrics have: take another")


def test(task: Task, item: Item) -> Row:
    """A test row, from a gold row, a kept one that is held out, or a user's own. `expected` is None
    where the checks alone judge."""
    if item.test:
        return item.test
    row = item.row
    if "gold" in row:
        refuse_reserved(row.get("slice", ""), item.where)
    expected = row["gold"] if "gold" in row else row["output"]
    more = {"slice": row.get("slice", "held_out"), "expected": expected}
    return {key: row[key] for key in ("id", *task.config["input"])} | more
