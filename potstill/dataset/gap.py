"""The inputs by which a student is held against its teacher before it learns from it, and how the
student is its own teacher: it is shown the kept answer."""

from potstill.core.jsonl import Row
from potstill.task.settings import Task

Pair = tuple[Row, Row]  # a row of 4-train.jsonl, and that of 3-kept.jsonl with its input


def asked(lessons: list[Row], kept: list[Row], count: int) -> tuple[list[Pair], int]:
    """The first `count` training rows that have a kept answer; and how many of those before the
    last of them have none: a user's own messages, which have no input to judge by."""
    by_id = {row["id"]: row for row in kept}
    places = [i for i, lesson in enumerate(lessons) if lesson["id"] in by_id][:count]
    pairs = [(lessons[i], by_id[lessons[i]["id"]]) for i in places]
    return pairs, max(places, default=-1) + 1 - len(places)


def shown(task: Task, pair: Pair) -> str:
    """The user's turn of a student that is its own teacher: the long prompt of the task, the input
    and the kept answer. Raises UserError as Task.messages does."""
    lesson, row = pair
    turns = [*task.messages("teacher", row), lesson["messages"][-1]]
    return "\n\n".join(turn["content"] for turn in turns)


def inputs(task: Task, pairs: list[Pair], itself: bool) -> list[Row]:
    """The rows of 4-pairs/inputs.jsonl: {"id", "messages" (the prompt and the kept answer)}, and
    where the student is its own teacher `itself`, its user's turn as "teacher_prompt"."""
    return [
        {"id": pair[0]["id"], "messages": pair[0]["messages"]}
        | ({"teacher_prompt": shown(task, pair)} if itself else {})
        for pair in pairs
    ]
