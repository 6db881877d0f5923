"""`make validate FILE=…`: a file of your own rows against the rules, every violation with file,
line and value. It is read as `make import` reads it (AS, MAP), and nothing is written."""

import argparse
import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from potstill.core import params, weights
from potstill.core.errors import UserError
from potstill.dataset import own_files, own_import, split
from potstill.dataset.own_import import Taken
from potstill.dataset.own_reader import GOLD, INPUTS, TRAIN
from potstill.dataset.own_rows import ALL, FIRST, NONE
from potstill.task import settings

SHOWN = 50  # violations that are printed; the others are counted


def given(command: str) -> SimpleNamespace:
    """The command line: `file` as seen from the folder `start`, where the command was started;
    `to`, `columns`, `several`, `dry`; `alone`: the rows of the task don't matter. Raises UserError
    when there is no file, or an option has a value that it cannot have."""
    parser = argparse.ArgumentParser(prog=f"potstill {command}")
    parser.add_argument("file", nargs="*")
    for option in ("AS", "MAP", "SEVERAL", "DRY"):  # as in the Makefile
        parser.add_argument(f"--{option}", default="")
    said = parser.parse_args()
    if len(said.file) != 1 or not said.file[0]:
        raise UserError(f"expected a file: make {command} FILE=rows.csv")
    to, alone = said.AS, command == "validate"
    several = said.SEVERAL
    for name, value, known in (
        ("AS", to, ("", TRAIN, INPUTS, GOLD)),
        ("SEVERAL", several, ("", FIRST, ALL, NONE)),
        ("DRY", said.DRY, ("", "0", "1")),
    ):
        if value not in known:
            raise UserError(f"{name} is {value!r}, expected {', '.join(filter(None, known))}")
    if to == GOLD and several == ALL:
        raise UserError("SEVERAL=all: a test row has one expected answer: expected first or none")
    columns: dict[str, str] = {}
    for part in filter(None, said.MAP.split(",")):
        name, sign, column = (word.strip() for word in part.partition("="))
        if not sign or not name or name in columns:
            raise UserError(f'MAP has {part!r}, expected name=column, as in "text=address"')
        columns[name] = column
    way = SimpleNamespace(file=said.file[0], start=os.environ.get("POTSTILL_START", "."))
    way.to, way.columns, way.several = to, columns, several
    way.dry, way.alone = said.DRY == "1", alone
    return way


def read(t: settings.Task, way: SimpleNamespace) -> Taken:
    """What the file gives for the task. Rows that are too long for the student, and those whose
    question has another answer already, are among the refused."""
    with contextlib.chdir(way.start):
        found = own_files.read(Path(way.file))
    taken = own_import.take(t, found, way.to, way.columns)
    taken.refuse(dict(too_long(t, taken)))
    rule = params.load("split.several").split.several
    for target, path in targets(t).items():
        alone = way.alone or not taken.rows.get(target)
        there = [] if alone else own_import.existing(t, target, path)
        # A test row has one expected answer; who only looks is told, and nothing is refused
        chosen = way.several or (FIRST if target == GOLD and rule == ALL else rule)
        taking = ALL if way.alone and not way.several and way.to != GOLD else chosen
        if conflicts := own_import.settle(taken, target, there, taking):
            says = f"{conflicts:,} questions have several answers: `make import` takes {chosen}"
            also = f"; split, by split.several of params.yaml, {rule}" if target == TRAIN else ""
            taken.notes[f"{says} (SEVERAL=first, all or none){also}"] = 0
    return taken


def targets(t: settings.Task) -> dict[str, Path]:
    """Where rows go."""
    return {INPUTS: t.data / "seeds.jsonl", TRAIN: t.data / split.OWN, GOLD: t.data / "gold.jsonl"}


def too_long(t: settings.Task, taken: Taken) -> Iterator[tuple[int, str]]:
    """The numbers of rows that are longer than the student may read, by its own tokens, each with
    the reason. Where the student's tokenizer is not here, only a note says so."""
    p = params.load("model", "model_revision", "max_length", "predict.max_model_len")
    limits = {TRAIN: ("max_length", p.max_length), INPUTS: ("max_length", p.max_length)}
    limits[GOLD] = ("predict.max_model_len", p.predict.max_model_len)
    tokenizer: Any = None
    for target, (name, limit) in limits.items():
        for number, row in taken.rows.get(target, []):
            chat = row["messages"] if target == TRAIN else t.messages("student", row)
            # No token is shorter than a byte; a template adds some words
            if sum(len(one["content"].encode()) + 16 for one in chat) + 100 <= limit:
                continue
            tokenizer = tokenizer or _tokenizer(p.model, p.model_revision)
            if tokenizer is None:
                says = f"row may be longer than {name} ({limit}): the student is not here to count"
                taken.notes[says] += 1
                continue
            asks = {"tokenize": True, "return_dict": False, "enable_thinking": False}
            asks["add_generation_prompt"] = target != TRAIN
            if (length := len(tokenizer.apply_chat_template(chat, **asks))) > limit:
                yield (
                    number,
                    f"id {row['id']} has {length:,} tokens, {name} is {limit:,}: shorten the row, "
                    f"or raise {name} in params.yaml",
                )


def _tokenizer(model: str, revision: str) -> Any:
    """The student's tokenizer; None where it is not on this machine, or not converted yet."""
    from potstill.training import model_folder

    if Path(model).parent == weights.CACHE and not model_folder.local(model).exists():
        return None
    hub = model_folder.at_hub(model)
    os.environ |= model_folder.environment(False)  # what is not here is not fetched
    from transformers import AutoTokenizer

    where = {"revision": revision} if hub else {}
    try:
        return AutoTokenizer.from_pretrained(model if hub else model_folder.local(model), **where)
    except OSError:
        return None


def summary(taken: Taken) -> Iterator[str]:
    """What the file was taken for, and what is to be said of it, a line each."""
    found, rows = taken.found, len(taken.found.records)
    kinds = [f"{count:,} of {kind}" for kind, count in taken.kinds.items()]
    blank = f", {found.blank:,} blank lines" if found.blank else ""
    yield f"{found.what}, {rows:,} rows{blank}: {', '.join(kinds) or 'none that can be taken'}"
    yield from (f"{mark}, which does no harm" for mark in found.marks)
    for note, count in taken.notes.items():
        yield f"{note}: {count:,} rows" if count else note


def problems(way: SimpleNamespace, taken: Taken) -> list[str]:
    """All violations in the order of the file, each with its line."""
    listed = [
        f"{way.file}:{taken.where(number)}: {reason}"
        for number, reason in sorted(taken.refused.items())
    ]
    return [*listed, taken.found.broken] if taken.found.broken else listed


def main() -> None:
    way, t = given("validate"), settings.load()
    taken = read(t, way)
    found = problems(way, taken)
    print(
        *(found[:SHOWN] or [f"validate: {way.file}: {line}" for line in summary(taken)]), sep="\n"
    )
    if found:
        more = f", the first {SHOWN} are above" if len(found) > SHOWN else ""
        raise UserError(
            f"{way.file}: {len(found):,} violations{more}: mend them and validate again"
        )
