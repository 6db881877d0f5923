"""Data files as strangers have them, by seed: well-formed ones of every format and kind of row with
whatever values may come, and damaged ones. `python -m tests.dataset.data_files 5000` imports so
many, each into an empty task, and ends with what it counted; one that is not accounted for ends it.
"""

import csv
import importlib
import io
import json
import os
import random
import re
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from contextlib import redirect_stdout
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

from potstill.commands import import_rows
from potstill.core import params
from potstill.core.errors import UserError
from potstill.core.jsonl import row_id
from potstill.dataset import own_import
from potstill.task import settings
from tests.conftest import Project

Row = dict[str, Any]
TARGETS = ("data/seeds.jsonl", "data/own/messages.jsonl", "data/gold.jsonl")
TEXTS = [
    "Is it open?",
    "Until six.",
    "开门了吗？",
    "a, b; c\td|e",
    'say "hi"',
    "two\nlines",
    "x\r\ny",
]
TEXTS += ["🪑 chair", "e\u0301", "\u202eevil", "\ufeffmark", "tab\there", "1", "true", "-0", "null"]
TEXTS += [
    "None",
    "NA",
    "[]",
    '{"word": "b", "length": 1}',
    "[1, 2",
    "{{ text }}",
    "=1+1",
    "'",
    "\\",
]
ODD: list[Any] = ["", "  ", "nan", "#N/A", "\x00", "a\x07b", "\x0b", "\u3000", "\ud83d", "\ufffd"]
ODD += [None, True, False, 0, 17, -3.5, 1e300, 10**30, float("nan"), float("inf"), [], {}]
ODD += [["a"], [["a", "b"]], {"a": {"b": [1]}}, "x" * 5_000, "long " * 40_000]
KEYS = ["source", "lang", "", "tools", "images", "weight", "loss", "system", "history", "input"]
KEYS += ["label", "family", "slice", "category", "text", "messages", "chosen", "row", "line"]


class File(NamedTuple):
    """A file, and how many rows it has; None where it was damaged."""

    name: str
    content: bytes
    rows: int | None
    options: list[str]


def value(dice: random.Random, odd: float = 0.15) -> Any:
    """A text, mostly one that can be learnt."""
    return (
        dice.choice(ODD) if dice.random() < odd else f"{dice.choice(TEXTS)} {dice.randint(0, 99)}"
    )


def message(dice: random.Random, role: str) -> Any:
    content = value(dice)
    if dice.random() < 0.1:
        kind = dice.choice(["text", "text", "image_url"])
        content = [{"type": kind, "text": content}, {"type": "text", "text": "more"}]
    one: Row = {"role": role, "content": content}
    if dice.random() < 0.15:
        one[dice.choice(["loss", "weight", "name", "tool_calls", "refusal", "train"])] = value(
            dice, 1
        )
    return one if dice.random() < 0.98 else value(dice, 1)


def chat(dice: random.Random) -> list[Any]:
    roles = dice.choice(["ua", "ua", "ua", "sua", "uaua", "u", "au", "", "suaa", "uta", "x"])
    names = {"u": "user", "a": "assistant", "s": "system", "t": "tool", "x": "bot"}
    return [message(dice, names[role]) for role in roles]


def sharegpt(dice: random.Random) -> Row:
    roles = {"user": "human", "assistant": "gpt"}
    turns = [one for one in chat(dice) if isinstance(one, dict) and "role" in one]
    said = [{"from": roles.get(x["role"], x["role"]), "value": x["content"]} for x in turns]
    return {"conversations": said}


def identified(dice: random.Random, row: Row) -> Row:
    input = {"text": row.get("text")}
    return {**row, "id": dice.choice([row_id(input), "0" * 16, 17, "mine", "", None])}


KINDS: list[Callable[[random.Random], Row]] = [
    lambda dice: {"instruction": value(dice), "output": value(dice)},
    lambda dice: {"instruction": value(dice)},
    lambda dice: {"instruction": value(dice), "input": value(dice), "output": value(dice)},
    lambda dice: {"text": value(dice), "output": value(dice)},
    lambda dice: {"text": value(dice)},
    lambda dice: identified(dice, {"text": value(dice, 0), "output": value(dice)}),
    lambda dice: {"text": value(dice), "word": value(dice), "length": value(dice, 1)},
    lambda dice: {"prompt": value(dice), "completion": value(dice)},
    lambda dice: {"prompt": chat(dice), "completion": chat(dice)[-1:]},
    lambda dice: {"messages": chat(dice)},
    sharegpt,
    lambda dice: {"question": value(dice), "answer": value(dice)},
]


def rows_of(dice: random.Random, table: bool) -> list[Row]:
    """Rows of one kind, or (in JSON) perhaps of several; some with further keys, some twice."""
    flat = [*KINDS[:8], KINDS[-1]]
    some = [dice.choice(flat if table else KINDS)]
    some = KINDS if not table and dice.random() < 0.2 else some
    rows = [dice.choice(some)(dice) for _ in range(dice.choice([1, 1, 2, 5, 20]))]
    extra = dice.sample(KEYS, dice.choice([0, 0, 1, 2]))
    for row in rows:
        row.update({key: value(dice, 0.5) for key in extra if table or dice.random() < 0.5})
    return rows + dice.sample(rows, dice.choice([0, 0, 1]))


def encoded(dice: random.Random, text: str) -> bytes:
    text = text.replace("\n", dice.choice(["\n", "\n", "\r\n"]))
    how = dice.choice(["utf-8", "utf-8", "utf-8", "utf-8-sig", "utf-16", "utf-32"])
    return text.encode(how, "surrogatepass")


def as_json(dice: random.Random) -> tuple[bytes, int]:
    rows = rows_of(dice, False)
    escaped = dice.random() < 0.5

    def dump(what: Any, indent: int | None = None) -> str:
        return json.dumps(what, ensure_ascii=escaped, indent=indent)

    text = dice.choice(
        [
            lambda: dump(rows),
            lambda: dump(rows, 1),
            lambda: "[\n" + ",\n".join(map(dump, rows)) + "\n]\n",
            lambda: dump({"data": rows, "version": 1}, dice.choice([None, 2])),
            lambda: "".join(dump(row) + "\n" for row in rows),
            lambda: "\n".join(map(dump, rows)),
            lambda: "\n".join(dump(row, 2) for row in rows),
        ]
    )()
    return encoded(dice, text), len(rows)


def cell(one: Any) -> str:
    text = one if isinstance(one, str) else "" if one is None else json.dumps(one)
    return text.encode("utf-8", "replace").decode()


def as_table(dice: random.Random) -> tuple[bytes, int]:
    rows = rows_of(dice, True)
    names = list(dict.fromkeys(key for row in rows for key in row))
    out = io.StringIO()
    table = csv.writer(
        out,
        delimiter=dice.choice(",,\t;|"),
        quoting=csv.QUOTE_ALL if dice.random() < 0.5 else csv.QUOTE_MINIMAL,
        lineterminator="\n",
    )
    table.writerow([*names, "", ""] if dice.random() < 0.1 else names)
    for row in rows:
        table.writerow([cell(row.get(name)) for name in names])
    return encoded(dice, out.getvalue()), len(rows)


def as_parquet(dice: random.Random) -> tuple[bytes, int]:
    pyarrow, parquet = map(importlib.import_module, ("pyarrow", "pyarrow.parquet"))
    rows = [{k: cell(v) for k, v in row.items()} for row in rows_of(dice, True)]
    odd: dict[str, list[Any]] = {
        "number": [17, None],
        "share": [0.5, float("nan")],
        "raw": [b"\xff", None],
        "chats": [[{"role": "user", "content": "q"}], None],
    }
    key = dice.choice(list(odd))
    for row in rows:
        row[dice.choice(["text", "output", "extra"]) if key != "chats" else "messages"] = ""
    names = list(dict.fromkeys(key for row in rows for key in row))
    columns = {name: [row.get(name) for row in rows] for name in names}
    columns[dice.choice(names)] = [dice.choice(odd[key]) for _ in rows]
    out = io.BytesIO()
    parquet.write_table(pyarrow.table(columns), out)
    return out.getvalue(), len(rows)


def damaged(dice: random.Random, content: bytes) -> bytes:
    at = dice.randrange(len(content))
    junk = dice.choice([b"", b"\x00", b"\xff", b'"', b"\n", b"{", b"]", b",", b"\xed\xa0\xbd"])
    return content[:at] + junk + content[at + dice.choice([0, 1, 50]) :]


def make(seed: int) -> File:
    """The file of a seed."""
    dice = random.Random(seed)
    content, rows = dice.choices([as_json, as_table, as_parquet], [5, 4, 1])[0](dice)
    count: int | None = rows
    if dice.random() < 0.25:
        content, count = damaged(dice, content), None
    name = "rows" + dice.choice([".json", ".jsonl", ".csv", ".tsv", ".parquet", ".txt", ""])
    options = dice.choice([[], [], ["--AS=train"], ["--AS=inputs"], ["--AS=gold"]])
    options += dice.choice([[], [], ["--SEVERAL=none"]])
    return File(name, content, count, options)


def imported(file: File) -> str:
    """Imports a file into the task of the working folder, which has no rows; returns "taken",
    "refused" or "refused as a whole". Raises AssertionError where a row is not accounted for."""
    for path in (*TARGETS, file.name + ".rejected.jsonl"):
        Path(path).unlink(missing_ok=True)
    Path(file.name).write_bytes(file.content)
    sys.argv = ["import", file.name, *file.options]
    out, error = io.StringIO(), ""
    try:
        with redirect_stdout(out):
            import_rows.main()
    except UserError as said:
        error = str(said)
        assert error and "\n" not in error, error
    found = re.search(r": ([\d,]+) rows = (.*) refused", out.getvalue())
    if not found:
        assert error and not any(Path(path).exists() for path in TARGETS), error
        return "refused as a whole"
    total, *parts = (int(n.replace(",", "")) for n in re.findall(r"[\d,]*\d(?= )", found[0]))
    blank = re.search(r"([\d,]+) blank lines", out.getvalue())
    inputs, lessons, gold, _, refused = parts
    assert sum(parts) == total, found[0]
    in_file = total + (int(blank[1].replace(",", "")) if blank else 0)
    assert file.rows in (None, in_file), f"{file.rows} rows in the file: {out.getvalue()}"
    t = settings.load()
    for target, path, count in zip(
        ("inputs", "train", "gold"), TARGETS, (inputs, lessons, gold), strict=True
    ):
        assert len(own_import.existing(t, target, Path(path))) == count
    beside = Path(file.name + ".rejected.jsonl")
    lines = beside.read_bytes().splitlines() if beside.exists() else []
    assert len([json.loads(line)["reason"] for line in lines]) == refused
    return "taken" if inputs + lessons + gold else "refused"


def check(seeds: range) -> Counter[str]:
    """What became of the files of these seeds, each imported into a task of plain text or one of
    JSON, below the working folder. Raises what an import raises but UserError."""
    counts = Counter[str]()
    home = Path.cwd()
    for name in ("json", "text"):
        toy = Project(home / name)
        if name == "text":
            toy.write("task.yaml", 'name: toy\ninput: [text]\nuser: "{{ text }}"\nchecks: []\n')
        os.chdir(toy.dir)
        with patch.object(params, "load", cache(params.load)):  # slow, and always the same
            task = settings.load()
            with patch.object(settings, "load", lambda task=task: task):
                for seed in seeds[name == "text" :: 2]:
                    try:
                        counts[imported(make(seed))] += 1
                    except BaseException as error:
                        error.add_note(f"seed {seed}, {toy.dir}")
                        raise
    os.chdir(home)
    return counts


def main() -> None:
    count = int(sys.argv[1])
    os.chdir(tempfile.mkdtemp())
    said = ", ".join(f"{n:,} {what}" for what, n in check(range(count)).most_common())
    print(f"{count:,} files: {said}")


if __name__ == "__main__":
    main()
