"""Preferences: to one prompt an answer that passes the task's checks and one that does not."""

from collections import Counter

from potstill import checks
from potstill.rows import Row, squeeze
from potstill.task import Task

PROMPT = "rejected"  # prompts/rejected.md asks for the bad answers; a task without it has no pairs


def asked(task: Task, lessons: list[Row], kept: list[Row], count: int) -> list[Row]:
    """The inputs of the first `count` training rows that the teacher answered, in the order of 4-train.jsonl: families and
    inputs of all kinds, and the same ones when there are more rows. None where the task has no prompt for bad answers."""
    if not (task.dir / "prompts" / f"{PROMPT}.md").is_file():
        return []
    known = {row["id"]: row for row in kept}
    there = [known[row["id"]] for row in lessons if row["id"] in known]
    return [{name: row[name] for name in ("id", *task.config["input"])} | {"draw": 0} for row in there[:count]]


def made(task: Task, lessons: list[Row], asked: list[Row], answers: list[Row]) -> tuple[list[Row], Counter[str]]:
    """The preference rows, and why others were dropped. The prompt is the one that the student sees, never the bad one; chosen is
    what is trained on. `as good`: the bad answer passes every check, too."""
    chosen = {row["id"]: row["messages"] for row in lessons}
    found, dropped = [], Counter[str]()
    for row, answer in zip(asked, answers, strict=True):
        if row["id"] != answer["id"]:
            raise AssertionError(f"the answer to {row['id']} is one to {answer['id']}")
        *prompt, best = chosen[row["id"]]
        text = answer["answer"] or ""
        if answer["error"] is not None:
            dropped["refused"] += 1
        elif not squeeze(text):
            dropped["empty"] += 1
        elif squeeze(text) == squeeze(best["content"]) or not checks.check(task, row, text, training=True):
            dropped["as good"] += 1
        else:
            found.append({"id": row["id"], "prompt": prompt, "chosen": best["content"], "rejected": text})
    return found, dropped
