"""5-predictions-<name>.jsonl: what a model answers to the test rows, in their order.

A row: {"id": "…", "answer": "{\\"province\\":…}", "finish_reason": "stop", "prompt_tokens": 84, "completion_tokens": 63}
5-latency-<name>.json: {"requests": 10, "median": 0.21}, in seconds, one request at a time; no two runs take the same time
"""

from statistics import median

from potstill import rows, task

FIELDS = ("id", "answer", "finish_reason", "prompt_tokens", "completion_tokens")
PAID = ("key", "model", "max_tokens", "error")  # of the teacher's: what the journal needs to be filled again


def tests(t: task.Task) -> list[rows.Row]:
    """The test rows. Raises UserError for one whose id is not that of its input."""
    path = t.data / "4-test.jsonl"
    found = t.inputs(path, "slice")
    rows.check_ids(path, found, t.config["input"])
    return found


def write(t: task.Task, name: str, asked: list[rows.Row], found: list[rows.Row], more: tuple[str, ...] = ()) -> None:
    """Writes 5-`name`.jsonl: the answers `found` to the rows `asked`, one each, with the fields `more`."""
    ids = [row["id"] for row in asked]
    if [row.get("id", id) for row, id in zip(found, ids, strict=False)] != ids or len(found) != len(ids):
        raise AssertionError(f"{len(ids)} rows, but {len(found)} answers, or others than theirs")
    path = t.data / f"5-{name}.jsonl"
    answers = [{**row, "id": id} for row, id in zip(found, ids, strict=True)]
    rows.write_jsonl(path, ({field: row[field] for field in FIELDS + more} for row in answers))
    cut = sum(row["finish_reason"] in ("length", "repetition") for row in answers)
    if answers:
        print(f"predict: {len(answers):,} rows, {cut:,} of them cut off, too long or going round → {path}")


def write_latency(t: task.Task, model: str, seconds: list[float]) -> None:
    """Writes 5-latency-`model`.json for requests that took so many seconds each; median null where there were none."""
    found = {"requests": len(seconds), "median": round(median(seconds), 3) if seconds else None}
    rows.write_json(t.data / f"5-latency-{model}.json", found)
