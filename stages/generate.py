"""seeds.jsonl → 2-answers.jsonl: the teacher answers each input `samples` times; raw text first, parsed later.

A row: {"id": "…", "sample": 0, "key": "…", "answer": "{\\"province\\": …}", "finish_reason": "stop", "prompt_tokens": 612,
"completion_tokens": 58, "error": null}
"""

from potstill import errors, params, rows, task, teacher


def main() -> None:
    p = params.load(
        "task",
        "teacher_model",
        "teacher_temperature",
        "teacher_max_tokens",
        "samples",
        "teacher_concurrency",
        "teacher_timeout",
        "teacher_retries",
    )
    t = task.load(p.task)
    seeds = t.inputs(t.data / "seeds.jsonl")
    answers = teacher.answer_rows(t, seeds, p, p.samples)
    if len(answers) != len(seeds) * p.samples:
        raise AssertionError(f"{len(seeds)} inputs, {p.samples} samples, but {len(answers)} answers")
    rows.write_jsonl(t.data / "2-answers.jsonl", answers)
    refused = sum(row["error"] is not None for row in answers)
    print(f"generate: {len(seeds):,} inputs, {len(answers):,} answers, {refused:,} of them refused by the teacher")


if __name__ == "__main__":
    errors.run(main)
