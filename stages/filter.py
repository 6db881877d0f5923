"""2-answers.jsonl → 3-kept.jsonl, 3-dropped.jsonl: the first answer to each input that passes the task's checks.

Kept:    {"id": "…", "text": "…", "output": {"province": "云南省", …}}
Dropped: {"id": "…", "sample": 0, "reason": "json_schema: phone: required", "answer": "…"}
"""

from collections import Counter

from potstill import checks, errors, params, rows, task


def main() -> None:
    t = task.load(params.load("task").task)
    inputs = t.inputs(t.data / "seeds.jsonl")
    answers = rows.read_jsonl(t.data / "2-answers.jsonl", ("id", "sample", "answer", "finish_reason", "error"))
    kept, dropped = sift(t, inputs, answers)
    if len(answers) != len(kept) + len(dropped):
        raise AssertionError(f"{len(answers)} answers, but {len(kept)} kept and {len(dropped)} dropped")
    if not kept:
        raise errors.UserError(f"{t.data}/2-answers.jsonl: no answer passes; the first fails by {dropped[0]['reason']}")
    rows.write_jsonl(t.data / "3-kept.jsonl", kept)
    rows.write_jsonl(t.data / "3-dropped.jsonl", dropped)
    reasons = Counter(row["reason"].split(":")[0] for row in dropped)
    why = ", ".join(f"{count} {reason}" for reason, count in reasons.most_common()) or "nothing"
    print(f"filter: {len(answers)} answers = {len(kept)} kept + {len(dropped)} dropped ({why})")


def sift(t: task.Task, inputs: list[rows.Row], answers: list[rows.Row]) -> tuple[list[rows.Row], list[rows.Row]]:
    """The kept and the dropped rows; every answer becomes one of the two."""
    by_id = {row["id"]: row for row in inputs}
    first = {t.fingerprint(row): row["id"] for row in reversed(inputs)}  # of the inputs with the same text
    kept: dict[str, rows.Row] = {}
    dropped = []
    for answer in answers:
        id, text = answer["id"], answer["answer"]
        if first[t.fingerprint(by_id[id])] != id:
            reasons = [f"duplicate: of {first[t.fingerprint(by_id[id])]}"]
        elif id in kept:
            reasons = ["spare: an earlier answer passed"]
        elif answer["error"]:
            reasons = [f"refused: {answer['error']}"]
        elif answer["finish_reason"] not in ("stop", None):
            reasons = [f"finish_reason: {answer['finish_reason']}"]
        else:
            reasons = checks.check(t, by_id[id], text)
        if reasons:
            dropped.append({"id": id, "sample": answer["sample"], "reason": "; ".join(reasons), "answer": text})
        else:
            parsed, _ = checks.parse(t, text)
            order = t.schema.get("properties", parsed)  # the student learns one order of the keys
            kept[id] = {**by_id[id], "output": {key: parsed[key] for key in order if key in parsed}}
    return list(kept.values()), dropped


if __name__ == "__main__":
    errors.run(main)
