"""`make import FILE=…`: your own file becomes the task's data/seeds.jsonl and
data/own/messages.jsonl, once `make validate` has nothing to say against it.

An instruction alone becomes an input, which the teacher answers; one with its output becomes a row
to train on, with the prompt that the student will see. A messages file keeps its messages. What
stands there already is never overwritten.
"""

from potstill.commands import validate
from potstill.core import jsonl
from potstill.core.errors import UserError
from potstill.core.jsonl import Row
from potstill.dataset import own_rows, split
from potstill.task import settings


def convert(t: settings.Task, file: own_rows.File) -> tuple[list[Row], list[Row]]:
    """Seeds and messages rows of a file without violations, each of them once. Raises UserError
    when the task cannot take rows of this kind."""
    seeds: dict[str, Row] = {}
    lessons: dict[str, Row] = {}
    fields = t.config["input"]
    instructions = file.kind == own_rows.INSTRUCTIONS
    if file.kind != own_rows.MESSAGES and not (instructions and len(fields) == 1):
        raise UserError(
            f"a file of {file.kind} cannot become rows of task {t.name}, whose input is "
            f"{', '.join(fields)}: expected messages, or instructions for a task of one input field"
        )
    for row in file.rows:
        if instructions:
            input = {fields[0]: row["instruction"]}
            if "output" not in row:
                id = jsonl.row_id(input)
                seeds[id] = {"id": id, **input}
                continue
            answer = {"role": "assistant", "content": row["output"]}
            row = {"messages": [*t.messages("student", input), answer]}
        id = row.get("id", jsonl.row_id({"messages": row["messages"]}))
        lessons[id] = {"id": id} | {key: row[key] for key in ("family", "messages") if key in row}
    return list(seeds.values()), list(lessons.values())


def main() -> None:
    path, file = validate.given("import")
    if problems := file.problems:
        raise UserError(
            f"{problems[0]}; {len(problems):,} violations in all: see `make validate FILE={path}`"
        )
    t = settings.load()
    seeds, lessons = convert(t, file)
    made = {t.data / "seeds.jsonl": seeds, t.data / split.OWN: lessons}
    for target, rows in made.items():
        if rows and target.is_file() and target.stat().st_size:
            raise UserError(
                f"{target} has rows already, which are not overwritten: move them away, or add "
                "yours by hand"
            )
    for target, rows in made.items():
        jsonl.write_some(target, rows)
    counts = [f"{len(rows):,} in {target}" for target, rows in made.items()]
    twice = len(file.rows) - len(seeds) - len(lessons)
    print(
        f"import: {path}: {len(file.rows):,} rows = {' + '.join(counts)} + {twice:,} that stood "
        "there twice"
    )
