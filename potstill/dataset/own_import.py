"""A user's file → the rows that a task learns from, asks or is tested with: each record of the file
is taken, there already, or refused with its reason."""

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from potstill.core import jsonl, params
from potstill.core.errors import UserError
from potstill.core.jsonl import Row, row_id
from potstill.dataset import own_rows
from potstill.dataset.own_files import Found
from potstill.dataset.own_reader import TRAIN, Reader, Refused, names
from potstill.dataset.own_rows import Asked
from potstill.task.settings import Task


class Made(NamedTuple):
    """A row that was taken, and the number of the record that it was made of, from 0."""

    number: int
    row: Row


@dataclass
class Taken:
    """What a file gives: rows by target (and preferences, which are looked at only), the reasons of
    the records that were refused by their numbers, and what is to be said."""

    found: Found
    rows: dict[str, list[Made]] = field(default_factory=dict)
    refused: dict[int, str] = field(default_factory=dict)
    twice: int = 0  # rows that stand there already, in the file or in the task
    kinds: Counter[str] = field(default_factory=Counter)
    notes: Counter[str] = field(default_factory=Counter)

    def refuse(self, reasons: dict[int, str]) -> None:
        """Moves rows, by the numbers of their records, to those that were refused."""
        self.refused |= reasons
        for target, made in self.rows.items():
            self.rows[target] = [one for one in made if one.number not in reasons]

    def where(self, number: int) -> str:
        """The line of a record, and its number where several stand in that line."""
        records = self.found.records
        line = records[number].line
        near = records[max(0, number - 1) : number] + records[number + 1 : number + 2]
        return f"{line} (row {number + 1})" if any(one.line == line for one in near) else f"{line}"


def take(t: Task, found: Found, target: str = "", columns: dict[str, str] | None = None) -> Taken:
    """The rows of a file for a task; `target` and `columns` as in own_reader.Reader. Raises
    UserError when a column that is named is not there."""
    columns = columns or {}
    there = dict.fromkeys(key for record in found.records for key in record.row)
    for name, column in columns.items():
        if name not in (known := names(t)):
            raise UserError(f"MAP: unknown name {name!r}: {params.near(name, known)}")
        if column and column not in there:
            raise UserError(f"MAP: the file has no column {column!r}: {params.near(column, there)}")
    kept = there.keys() - set(columns.values())
    reader = Reader(t, target, columns, there={*kept, *columns})
    taken = Taken(found, kinds=reader.kinds, notes=reader.notes)
    for number, record in enumerate(found.records):
        try:
            if record.fault:
                raise Refused(record.fault)
            to, row = reader.row(record.row)
            taken.rows.setdefault(to, []).append(Made(number, row))
        except (Refused, UserError) as error:  # UserError: of a template, or a check
            taken.refused[number] = str(error)
    return taken


def settle(taken: Taken, target: str, there: Iterable[Row], several: str) -> int:
    """Leaves of the rows of a target those that are new beside those that are `there` in the task,
    each once. Of several answers to one question the first is taken, all are, or none; returns how
    many questions that is about."""
    before = [_asked("the task", target, row) for row in there]
    made = taken.rows.get(target, [])
    new = [_asked(f"line {taken.where(one.number)}", target, one.row) for one in made]
    again, reasons, conflicts = own_rows.settle([*before, *new], several)
    number = {len(before) + i: one.number for i, one in enumerate(made)}
    taken.refuse({number[i]: why for i, why in reasons.items() if i in number})
    gone = {number[i] for i in again if i in number}
    taken.rows[target] = [one for one in taken.rows.get(target, []) if one.number not in gone]
    taken.twice += len(gone)
    return sum(any(i in number for i in rivals) for rivals in conflicts.values())


def existing(t: Task, target: str, path: Path) -> list[Row]:
    """The rows that a file of the task has, which may be missing, each with its id. Raises
    UserError for a row that is none."""
    if not path.is_file() or not path.stat().st_size:
        return []
    if target == TRAIN:
        return own_rows.messages_rows(path)
    fields = t.config["input"]
    rows = jsonl.read_jsonl(path, fields)
    return [row | {"id": row_id({name: row[name] for name in fields})} for row in rows]


def _asked(where: str, target: str, row: Row) -> Asked:
    """A row as the rule for several answers sees it."""
    if target == TRAIN:
        return own_rows.asked(where, row)
    return Asked(where, row["id"], row["id"], json.dumps(row.get("gold"), sort_keys=True))
