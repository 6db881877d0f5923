"""Fills this machine's journal with the teacher's answers that came with the data (a pull, a
colleague's copy), so that they are not bought again."""

import asyncio

from potstill.core.jsonl import read_some
from potstill.task import settings
from potstill.teacher import asking

FILES = [
    "1-expand/calls.jsonl",
    "2-answers.jsonl",
    "4-pairs/rejected.jsonl",
    "5-predictions/teacher/test.jsonl",
]
KEPT = ("key", *asking.FIELDS, *asking.SOME)


async def fill(task: settings.Task) -> None:
    """Adds to the journal the answers that it lacks and prints, by file, how many there were. Rows
    that say why there is no answer are left out. Raises UserError when a file lacks their keys."""
    journal = asking.open_journal(task)
    for path in (task.data / name for name in FILES):
        rows = read_some(path, "key", "error", *asking.FIELDS)
        answers = [row for row in rows if row["error"] is None]
        new = 0
        for row in answers:
            room = row["max_tokens"] if row["finish_reason"] == "length" else 0
            if not journal.has(row["key"], room):
                new += 1
                await journal.put({name: row[name] for name in KEPT if name in row})
        await journal.flush()
        if rows:
            print(f"{path}: {len(answers):,} answers, {new:,} of them new to {journal.path}")


def main() -> None:
    asyncio.run(fill(settings.load()))
