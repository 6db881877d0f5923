"""`make validate FILE=…`: a file of your own rows against the rules, every violation with file,
line and value; a file without any in one line."""

import contextlib
import os
import sys
from collections import Counter

from potstill.core.errors import UserError
from potstill.core.jsonl import Row
from potstill.dataset import own_rows

KEYS = {
    "messages": {"id", "family", "messages", "role", "content"},
    "preferences": {"id", "family", "prompt", "chosen", "rejected", "role", "content"},
    "instructions": {"instruction", "output", "input"},
}
TEXTS = ("prompt", "chosen", "rejected", "instruction", "output")
SHOWN = 50  # violations that are printed; the others are counted


def summary(path: str, file: own_rows.File) -> str:
    """A file without violations in one line: rows, characters, roles, and what is not used."""
    characters, roles, ignored = 0, Counter[str](), Counter[str]()
    for row in file.rows:
        chats = [row[key] for key in ("messages", "prompt") if isinstance(row.get(key), list)]
        chat: list[Row] = chats[0] if chats else []
        roles.update(message["role"] for message in chat)
        texts = [row[key] for key in TEXTS if isinstance(row.get(key), str)]
        characters += sum(map(len, [*texts, *(message["content"] for message in chat)]))
        ignored.update({key for part in (row, *chat) for key in part} - KEYS[file.kind])
    parts = [f"{len(file.rows):,} rows of {file.kind}", f"{characters:,} characters"]
    parts += [f"{count:,} {role}" for role, count in roles.items()]
    if file.kind == own_rows.INSTRUCTIONS:
        parts.append(f"{sum('output' in row for row in file.rows):,} with an output")
    parts += [f"key {key} in {count:,} rows is not used" for key, count in ignored.items()]
    harmless = {"it begins with a byte order mark": file.mark, "its lines end in CRLF": file.crlf}
    parts += [f"{what}, which does no harm here" for what, is_so in harmless.items() if is_so]
    return f"validate: {path}: " + ", ".join(parts)


def given(command: str) -> tuple[str, own_rows.File]:
    """The path on the command line, which is relative to the folder that the command was started
    in, and the file. Raises UserError when there is no path, or no such file."""
    match sys.argv[1:]:
        case [path] if path:
            with contextlib.chdir(os.environ.get("POTSTILL_START", ".")):
                return path, own_rows.read(path)
    raise UserError(f"expected a file: make {command} FILE=rows.jsonl")


def main() -> None:
    path, file = given("validate")
    problems = file.problems
    print(*(problems[:SHOWN] or [summary(path, file)]), sep="\n")
    if problems:
        more = f", the first {SHOWN} are above" if len(problems) > SHOWN else ""
        raise UserError(f"{path}: {len(problems):,} violations{more}: mend them and validate again")
