"""`make fill`: the teacher's answers that came with the data (a pull, a colleague's copy) → the journal of this machine."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

from potstill.core import errors
from potstill.core.jsonl import Row, read_jsonl
from potstill.task import settings
from potstill.teacher import asking
from potstill.teacher.journal import Journal

FILES = ("1-calls.jsonl", "2-answers.jsonl", "4-rejected.jsonl", "5-predictions-teacher.jsonl")


def paid(path: Path) -> Iterator[Row]:
    """The rows of a file of answers as the journal keeps them. Failures have none."""
    for row in read_jsonl(path, ("key", "error", *asking.FIELDS)):
        if row["error"] is None:
            yield {name: row[name] for name in ("key", *asking.FIELDS, "reasoning") if name in row}


async def fill(journal: Journal, found: Iterator[Row]) -> tuple[int, int]:
    """Adds the answers that the journal lacks; how many there were and how many were new."""
    count = new = 0
    for row in found:
        count += 1
        room = row["max_tokens"] if row["finish_reason"] == "length" else 0
        if not journal.has(row["key"], room):
            new += 1
            await journal.put(row)
    await journal.flush()
    return count, new


def main() -> None:
    for folder in sorted(Path("data").iterdir()):
        for path in (folder / name for name in FILES):
            if path.exists() and path.stat().st_size:
                journal = asking.open_journal(settings.load(folder.name))
                count, new = asyncio.run(fill(journal, paid(path)))
                print(f"{path}: {count:,} answers, {new:,} of them new to {journal.path}")


if __name__ == "__main__":
    errors.run(main)
