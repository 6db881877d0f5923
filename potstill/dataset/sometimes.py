"""The inputs that a reinforcement teaches something: those that the student gets right sometimes.
Where all its answers to an input are right, or none is, all have the same reward, and nothing can
be learnt from the difference."""

from typing import Any

from potstill.core.errors import UserError
from potstill.core.jsonl import Row
from potstill.dataset import frozen
from potstill.task.settings import Task


def rewarding(task: Task, held_out: str | None) -> Task:
    """The task with the checks that make up the reward: all but the one `held_out`. Raises
    UserError where there is no such check, no other, or where it is json_schema, by which an answer
    is read."""
    names = [next(iter(one)) if isinstance(one, dict) else one for one in task.config["checks"]]
    left = [one for one, name in zip(task.config["checks"], names, strict=True) if name != held_out]
    if held_out is not None and (held_out not in names or held_out == "json_schema" or not left):
        can = ", ".join(dict.fromkeys(name for name in names if name != "json_schema")) or "none"
        raise UserError(
            f"params.yaml: grpo.held_out is {held_out}, expected null or one of the checks of "
            f"task.yaml, with another left to reward: {can}"
        )
    return Task(task.name, task.config | {"checks": left})


def inputs(
    task: Task, lessons: list[Row], kept: list[Row], samples: list[Row]
) -> tuple[list[Row], dict[str, int]]:
    """The training rows that the checks of `task` find right in some of the student's `samples`
    (4-samples/samples.jsonl) and wrong in others: {"id", "messages" (the prompt), "row" (the input,
    with the kept answer as `expected`), "right", "of"}. And how many inputs were looked at, by what
    became of them: {"always", "never", "sometimes", "own" (a user's own messages, which have no
    input to judge by)}. An answer that was cut off is wrong."""
    by_id = {row["id"]: row for row in kept}
    drawn: dict[str, list[Row]] = {}
    for sample in samples:
        drawn.setdefault(sample["id"], []).append(sample)
    counts = {"always": 0, "never": 0, "sometimes": 0, "own": 0}
    found: list[Row] = []
    for lesson in lessons:
        id, answers = lesson["id"], drawn.get(lesson["id"], [])
        if not answers:
            continue
        if id not in by_id:
            counts["own"] += 1
            continue
        row = {name: by_id[id][name] for name in task.config["input"]}
        row["expected"] = by_id[id]["output"]
        right = sum(
            one["finish_reason"] == "stop" and frozen.right(task, row, one["answer"])
            for one in answers
        )
        kind = {0: "never", len(answers): "always"}.get(right, "sometimes")
        counts[kind] += 1
        if kind == "sometimes":
            prompt = lesson["messages"][:-1]
            more: dict[str, Any] = {"right": right, "of": len(answers)}
            found.append({"id": id, "messages": prompt, "row": row, **more})
    return found, counts


def said(counts: dict[str, int]) -> str:
    """The counts of `inputs` in words."""
    looked = sum(counts.values())
    parts = f"{counts['always']:,} always, {counts['never']:,} never"
    own = f", {counts['own']:,} are your own messages" if counts["own"] else ""
    return (
        f"of {looked:,} inputs the student has {counts['sometimes']:,} right sometimes "
        f"({parts}{own})"
    )
