"""`make import FILE=… [TASK=…]`: your own file becomes data/<task>/seeds.jsonl and messages.jsonl, once `make validate` has
nothing to say against it.

An instruction alone becomes an input, which the teacher answers; one with its output becomes a row to train on, with the prompt
that the student will see. A messages file keeps its messages. What stands there already is never overwritten.
"""

import sys

from potstill.core import errors, jsonl, params
from potstill.core.errors import UserError
from potstill.dataset import own_rows
from potstill.task import settings


def convert(t: settings.Task, found: own_rows.File) -> tuple[list[jsonl.Row], list[jsonl.Row]]:
    """Seeds and messages rows of a file without violations, each of them once. Raises UserError when the task cannot take
    instructions."""
    seeds: dict[str, jsonl.Row] = {}
    chats: dict[str, jsonl.Row] = {}
    if found.kind == own_rows.MESSAGES:
        for row in found.rows:
            chat: jsonl.Row = {key: row[key] for key in ("family", "messages") if key in row}
            id = row.get("id", jsonl.row_id({"messages": row["messages"]}))
            chats[id] = {"id": id, **chat}
        return [], list(chats.values())
    if found.kind != own_rows.INSTRUCTIONS or len(t.config["input"]) != 1:
        raise UserError(
            f"a file of {found.kind} cannot become rows of task {t.name}, whose input is {', '.join(t.config['input'])}: "
            "expected messages, or instructions for a task of one input field"
        )
    for row in found.rows:
        input = {t.config["input"][0]: row["instruction"]}
        if "output" in row:
            lesson = {
                "messages": [
                    *t.messages("student", input),
                    {"role": "assistant", "content": row["output"]},
                ]
            }
            chats[jsonl.row_id(lesson)] = {"id": jsonl.row_id(lesson), **lesson}
        else:
            seeds[jsonl.row_id(input)] = {"id": jsonl.row_id(input), **input}
    return list(seeds.values()), list(chats.values())


def main() -> None:
    match sys.argv[1:]:
        case [path, *names] if path and len(names) <= 1:
            t = settings.load(names[0] if names else params.load("task").task)
        case _:
            raise UserError("expected a file: make import FILE=inputs.json TASK=name")
    found = own_rows.read(path)
    if found.problems:
        raise UserError(
            f"{found.problems[0]}; {len(found.problems):,} violations in all: see `make validate FILE={path}`"
        )
    seeds, chats = convert(t, found)
    made = {t.data / "seeds.jsonl": seeds, t.data / "messages.jsonl": chats}
    for target, some in made.items():
        if some and target.is_file() and target.stat().st_size:
            raise UserError(
                f"{target} has rows already, which are not overwritten: move them away, or add yours by hand"
            )
    for target, some in made.items():
        if some:
            jsonl.write_jsonl(target, some)
    twice = len(found.rows) - len(seeds) - len(chats)
    print(
        f"import: {path}: {len(found.rows):,} rows = {len(seeds):,} in {t.data}/seeds.jsonl + {len(chats):,} in "
        f"{t.data}/messages.jsonl + {twice:,} that stood there twice"
    )


if __name__ == "__main__":
    errors.run(main)
