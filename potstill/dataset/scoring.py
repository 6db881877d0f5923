"""The validation rows by whose answers a training scores its checkpoints."""

from types import SimpleNamespace
from typing import Any

from potstill.core import jsonl
from potstill.core.errors import UserError
from potstill.core.jsonl import Row
from potstill.dataset import frozen, split
from potstill.dataset.split import Item
from potstill.task.settings import Task


def write(task: Task, valid: list[Item], p: SimpleNamespace) -> None:
    """Writes 4-scoring; `p` has the sections best_checkpoint and predict of params.yaml. Raises
    UserError as `rows` does."""
    found = rows(task, valid, p.best_checkpoint.rows)
    folder = jsonl.fresh_folder(task.data / "4-scoring")
    jsonl.write_some(folder / "rows.jsonl", found)
    jsonl.write_json(folder / "report.json", {**settings(task, p), "rows": len(found)})


def rows(task: Task, valid: list[Item], most: int) -> list[Row]:
    """The first `most` of the validation rows that the checks can judge: {"id", "messages" (the
    prompt), "answer" (as it is learnt), "row" (the input, with the right answer as `expected`)}.
    The order of validation rows is that of a hash of their ids, so that this is a sample, the same
    in every run. Raises UserError where there is none, but some are wanted."""
    found: list[Row] = []
    for item in valid if most else []:
        row = item.test or ({**item.row, "expected": item.row["output"]} if is_kept(item) else None)
        if row:
            asked = {name: row[name] for name in (*task.config["input"], "expected")}
            *prompt, answer = split.lesson(task, item.row)["messages"]
            texts = {"messages": prompt, "answer": answer["content"]}
            found.append({"id": item.id, **texts, "row": asked})
        if len(found) == most:
            break
    if most and not found:
        raise UserError(
            f"params.yaml: best_checkpoint.rows is {most}, but none of the {len(valid)} validation "
            "rows asks what task.yaml's `user` asks, so that the checks can judge its answer: set "
            "it to 0"
        )
    return found


def is_kept(item: Item) -> bool:
    """Whether a row has an input and the teacher's answer, rather than a user's own messages."""
    return "output" in item.row


def settings(task: Task, p: SimpleNamespace) -> dict[str, Any]:
    """What a training needs beside the rows: {"rows", "patience", "max_tokens", "checks"}, of the
    sections best_checkpoint and predict of params.yaml; {"rows": 0} where no checkpoint is
    scored, whatever else is set."""
    if not p.best_checkpoint.rows:
        return {"rows": 0}
    limits = {"max_tokens": p.predict.max_tokens, "checks": frozen.freeze(task)}
    return {**vars(p.best_checkpoint), **limits}
