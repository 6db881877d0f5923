"""Whether a teacher has anything to teach its student: both judged on the same training inputs."""

from typing import Any

from potstill.core.errors import UserError
from potstill.core.jsonl import Row
from potstill.dataset import frozen
from potstill.dataset.gap import Pair
from potstill.evaluation import statistics
from potstill.evaluation.statistics import count, p_text
from potstill.task.settings import Task


def counts(task: Task, pairs: list[Pair], answers: list[Row], own: int) -> dict[str, Any]:
    """How many `answers` (4-samples/gap.jsonl) of each pass every check of the task, the kept
    answer being what is expected: {"rows", "student", "teacher", "only_student", "only_teacher",
    "p" (exact McNemar), "own"}. An answer that was cut off is wrong. Raises UserError where the
    answers are not those to the inputs of `pairs`."""
    if [row["id"] for row in answers] != [lesson["id"] for lesson, _ in pairs]:
        path = task.data / "4-samples/gap.jsonl"
        raise UserError(f"{path}: not the answers to the inputs: run `dvc repro -f sample`")
    right: dict[str, list[bool]] = {"student": [], "teacher": []}
    for (_, kept), row in zip(pairs, answers, strict=True):
        judged = {name: kept[name] for name in task.config["input"]} | {"expected": kept["output"]}
        for who, marks in right.items():
            text, whole = row[who]["answer"], row[who]["finish_reason"] == "stop"
            marks.append(whole and frozen.right(task, judged, text))
    fixed, broken = statistics.changed(right["student"], right["teacher"])
    counts = {who: sum(marks) for who, marks in right.items()}
    alone = {"only_student": broken, "only_teacher": fixed}
    p = float(f"{statistics.exact(fixed, broken):.3g}")
    return {"rows": len(pairs), **counts, **alone, "p": p, "own": own}


def better(found: dict[str, Any]) -> bool:
    """Whether the teacher is better than its student, by its `counts`."""
    return bool(found["teacher"] > found["student"] and found["p"] < statistics.ALPHA)


def said(found: dict[str, Any]) -> str:
    """The `counts` in a sentence."""
    own = f"; {found['own']:,} more are your own messages" if found["own"] else ""
    does = "the student learns from it" if better(found) else "no better, so nothing is trained"
    return (
        f"of {count(found['rows'], 'input')} the student has {found['student']:,} right and its "
        f"teacher {found['teacher']:,} (p {p_text(found['p'])}){own}: {does}"
    )
