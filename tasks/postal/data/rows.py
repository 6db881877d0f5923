"""Make the rows of the postal task: `python -m tasks.postal.data.rows` writes data/gold.jsonl and
data/own/messages.jsonl. data/dvc.yaml runs it before the pipeline. The gold rows are lines that
people labelled (labels.py); the own rows are the others, those that recombine.py makes of them, and
some of a county's register.

A gold row: {"id": "…", "text": "9 Elm St Apt 2, Avon IL 61415", "slice": "unit",
             "gold": {"recipient": null, "number": "9", "street": "Elm St", "unit": "Apt 2", …}}
An own row: {"id": "…", "family": "…", "messages": [the student's prompt, the line, the answer]},
             the answer's values with the space before them (`spaced`)
"""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from potstill.core import stage
from potstill.core.jsonl import row_id, write_jsonl
from potstill.task import settings
from tasks.postal.data import fetch, labels, recombine
from tasks.postal.data.labels import Row

DATA = Path(__file__).resolve().parent
REGISTERED = 600  # lines of the register
EACH = 4  # new lines at most to each that people labelled


def spaced(value: str | None) -> str | None:
    """A value as it is taught: with the space before it, unless it begins with a digit. So its
    tokens are those of the line: " Supply" is one token, "Supply" two others, which the student
    would have to spell anew. The checks ignore white space."""
    return value if value is None or value[0].isdigit() else f" {value}"


def files(made: list[Row]) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Each file of data/ with its rows."""
    with contextlib.chdir(DATA.parent):
        task = settings.load()
        gold: list[dict[str, Any]] = []
        own: list[dict[str, Any]] = []
        for row in made:
            input = {"text": row.line.text}
            id = row_id(input)
            if row.gold:
                gold.append({"id": id, **input, "slice": row.slice, "gold": row.answer})
                continue
            taught = {field: spaced(value) for field, value in row.answer.items()}
            said = json.dumps(taught, ensure_ascii=False, separators=(",", ":"))
            chat = [*task.messages("student", input), {"role": "assistant", "content": said}]
            own.append({"id": id, "family": row.family, "messages": chat})
    yield "gold.jsonl", gold
    yield "own/messages.jsonl", own


def added(archive: Path, made: list[Row]) -> list[Row]:
    """What is learnt beside the lines that people labelled: some of a register, and new ones."""
    lines = labels.read(archive, [labels.REGISTER])
    register = labels.registered(lines, made, REGISTERED)
    return register + list(recombine.recombined(made, register, EACH))


def main() -> None:
    archive = fetch.sdist(labels.SDIST, labels.SHA256)
    lines = labels.read(archive)
    made, left = labels.rows(lines)
    more = added(archive, made)
    for name, written in files(made + more):
        write_jsonl(DATA / name, written)
    gold = sum(row.gold for row in made)
    counts = [f"{gold:,} in data/gold.jsonl", f"{len(made) - gold:,} in data/own/messages.jsonl"]
    counts += [f"{number:,} left out, {reason}" for reason, number in left.items()]
    print(f"rows: {len(lines):,} labelled lines = {' + '.join(counts)}")
    print(f"rows: {len(more):,} more in data/own/messages.jsonl, of a register and recombined")


if __name__ == "__main__":
    stage.run(main)
