"""`make import FILE=…`: your own file becomes rows of the task, in whatever format it is.

A row with an answer is trained on (data/own/messages.jsonl), one without is asked of the teacher
(data/seeds.jsonl); AS=train, inputs or gold says it for all. MAP="text=address,output=label" names
the columns. DRY=1 shows what would be done, and changes nothing. Rows are added to those that are
there; what could not be taken is written to a file beside yours, with its reasons.
"""

import errno
import json
from collections.abc import Iterator
from pathlib import Path

from potstill.commands import fresh, validate
from potstill.core import jsonl
from potstill.core.errors import UserError
from potstill.core.jsonl import Row
from potstill.dataset.own_import import Taken
from potstill.dataset.own_reader import GOLD, TRAIN
from potstill.dataset.own_rows import PREFERENCES
from potstill.task import settings

PREFERENCE = (
    "a preference (chosen, rejected) is nothing to train on, ask or test with: to learn its better "
    'answer, MAP="output=chosen"'
)
EXAMPLES, WIDTH = 3, 160  # rows that are shown, and characters of a text


def shown(text: str) -> str:
    """A text in one line of the terminal: cut, and without characters that would not be seen."""
    text = text if len(text) <= WIDTH else f"{text[: WIDTH - 1]}…"
    return "".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in text)


def examples(t: settings.Task, taken: Taken) -> Iterator[str]:
    """The first rows as they will be learnt, asked or tested."""
    for target, path in validate.targets(t).items():
        rows = [row for _, row in taken.rows.get(target, [])[:EXAMPLES]]
        for number, row in enumerate(rows, 1):
            yield f"{path}, row {number} of {len(taken.rows[target]):,} new:"
            chat = row["messages"] if target == TRAIN else t.messages("student", row)
            for one in chat:
                name = one["role"] + (" (not learnt)" if "loss" in one else "")
                yield f"  {name:10} {shown(one['content'])}"
            if target == GOLD:
                yield f"  {'expected':10} {shown(json.dumps(row['gold'], ensure_ascii=False))}"


def rejected(taken: Taken) -> Iterator[Row]:
    """The rows that were refused, for the file beside the user's."""
    for number, reason in sorted(taken.refused.items()):
        record = taken.found.records[number]
        row = record.row or record.raw
        try:
            json.dumps(row, ensure_ascii=False).encode()
        except (TypeError, ValueError):  # bytes of Parquet, half a surrogate pair
            row = json.dumps(record.row, default=repr) if record.row else ascii(record.raw)[1:-1]
        yield {"line": record.line, "reason": reason, "row": row}


def add(path: Path, rows: list[Row]) -> None:
    """Adds rows to a file; those that are there stay byte for byte."""
    there = path.read_bytes().decode() if path.is_file() else ""
    there += "\n" if there and not there.endswith("\n") else ""
    jsonl.write_parts(path, [there, *jsonl.dump_lines(rows, path)])


def give_way(t: settings.Task, taken: Taken) -> list[str]:
    """What of the example of `make new-task` gave way to the rows."""
    if taken.found.broken:
        return []
    answers = [row["messages"][-1]["content"] for _, row in taken.rows.get(TRAIN, [])]
    paths = [str(path) for target, path in validate.targets(t).items() if taken.rows.get(target)]
    return fresh.settle(t, answers, paths)


def texts(t: settings.Task, taken: Taken) -> Iterator[str]:
    """What the rows say, without the task's own prompt."""
    for target in validate.targets(t):
        for _, row in taken.rows.get(target, []):
            chat = row["messages"] if target == TRAIN else t.messages("student", row)
            yield "\n".join(one["content"] for one in chat if one["role"] != "system")


def main() -> None:
    way, t = validate.given("import"), settings.load()
    taken = validate.read(t, way)
    if not way.dry and (replaced := give_way(t, taken)):
        print(f"import: what was still the example's is replaced: {', '.join(replaced)}")
        t = settings.load()
        for line in fresh.fit(t.name, list(texts(t, taken))):
            print(f"import: {line}")
        taken = validate.read(t, way)
    taken.refuse({number: PREFERENCE for number, _ in taken.rows.get(PREFERENCES, [])})
    problems = validate.problems(way, taken)
    if taken.found.broken:
        raise UserError(f"{problems[-1]}; nothing of the file was taken")
    for line in [*validate.summary(taken), *examples(t, taken)]:
        print(line if line.startswith((" ", "data/")) else f"import: {way.file}: {line}")
    print(*(problems[:EXAMPLES]), sep="\n", end="\n" if problems else "")
    beside = way.file + ".rejected.jsonl"
    counts = [
        f"{len(taken.rows.get(target, [])):,} in {path}"
        for target, path in validate.targets(t).items()
    ]
    total = (
        f"{len(taken.found.records):,} rows = {' + '.join(counts)} + {taken.twice:,} that stood "
        f"there already + {len(problems):,} refused"
    )
    if way.dry:
        print(f"import: {way.file}: {total}; DRY=1: nothing was changed")
        return
    try:
        if problems:
            jsonl.write_jsonl(Path(way.start, beside), rejected(taken))
            total += f", with their reasons in {beside}"
        for target, path in validate.targets(t).items():
            if made := taken.rows.get(target):
                add(path, [row for _, row in made])
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise
        raise UserError(f"{error.filename} cannot be written: {error.strerror}") from None
    print(f"import: {way.file}: {total}")
    if len(problems) == len(taken.found.records):
        raise UserError(f"{problems[0]}; no row of {way.file} could be taken")
