"""data/5-predictions/<model>/: what a model answers to the test rows, in their order.

test.jsonl: {"id": "…", "answer": "{\\"province\\":…}", "finish_reason": "stop",
    "prompt_tokens": 84, "completion_tokens": 63}
latency.json: {"requests": 10, "median": 0.21}, in seconds, one request at a time; no two runs take
    the same time
"""

from pathlib import Path
from statistics import median

from potstill.core import jsonl
from potstill.core.errors import UserError
from potstill.core.jsonl import Row
from potstill.task.settings import Task

FIELDS = ("id", "answer", "finish_reason", "prompt_tokens", "completion_tokens")
PAID = ("key", "model", "max_tokens", "error")  # of the teacher's: what fills the journal again


def folder(task: Task, model: str) -> Path:
    """The folder of a model's predictions."""
    return task.data / "5-predictions" / model


def tests(task: Task) -> list[Row]:
    """The test rows. Raises UserError for the first whose id is not that of its input."""
    path = task.data / "4-test.jsonl"
    rows = task.inputs(path, "slice")
    jsonl.check_ids(path, rows, task.config["input"])
    return rows


def read(path: Path, asked: list[Row], remedy: str) -> list[Row]:
    """The answers in a file of predictions. Raises UserError, ending in `remedy`, unless they are
    those to the rows `asked`, one each."""
    answers = jsonl.read_jsonl(path, FIELDS)
    if [row["id"] for row in answers] != [row["id"] for row in asked]:
        raise UserError(f"{path}: not one answer to each row that was asked: {remedy}")
    return answers


def write(path: Path, asked: list[Row], found: list[Row], more: tuple[str, ...] = ()) -> None:
    """Writes the answers `found` to the rows `asked`, one each, with the further fields `more`;
    no file where nothing was asked."""
    answers = [{"id": row["id"], **answer} for row, answer in zip(asked, found, strict=False)]
    if len(found) != len(asked) or [row["id"] for row in answers] != [row["id"] for row in asked]:
        raise AssertionError(f"{len(asked)} rows, but {len(found)} answers, or others than theirs")
    fields = FIELDS + more
    jsonl.write_some(path, [{field: row[field] for field in fields} for row in answers])
    cut = sum(row["finish_reason"] in ("length", "repetition") for row in answers)
    if answers:
        print(f"predict: {len(answers):,} rows, {cut:,} cut off as too long or repetitive → {path}")


def write_latency(task: Task, model: str, seconds: list[float]) -> None:
    """Writes latency.json for requests that took these seconds; its median is null for none."""
    middle = round(median(seconds), 3) if seconds else None
    path = folder(task, model) / "latency.json"
    jsonl.write_json(path, {"requests": len(seconds), "median": middle})
