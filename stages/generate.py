"""1-inputs.jsonl → 2-answers.jsonl: the teacher answers each input `samples` times; raw text first, parsed later.

A row: {"id": "…", "sample": 0, "key": "…", "model": "…", "max_tokens": 1024, "answer": "{\\"province\\": …}", "finish_reason":
"stop", "prompt_tokens": 612, "completion_tokens": 58, "error": null}; whoever has them can fill a journal (make fill).
"""

from collections.abc import Iterable, Iterator
from functools import partial

from potstill import checks, errors, params, rows, task, teacher


def main() -> None:
    p = params.load("task", *teacher.PARAMS, "samples", "teacher_good_share")
    t = task.load(p.task)
    p = t.settled(p)
    checks.validate(t)
    inputs = t.inputs(t.data / "1-inputs.jsonl")
    rows.check_ids(t.data / "1-inputs.jsonl", inputs, t.config["input"])
    ids = {row["id"] for row in inputs}
    for number, row in enumerate(inputs, 1):
        if row.get("family", row["id"]) not in ids:
            raise errors.UserError(
                f"{t.data}/1-inputs.jsonl:{number}: family is {row['family']!r}, expected the id of a row: run `dvc repro`"
            )
    refused = 0

    def counted(answers: Iterable[rows.Row]) -> Iterator[rows.Row]:
        nonlocal refused
        for row in answers:
            refused += row["error"] is not None
            yield row

    answers = teacher.answer_rows(
        t, inputs, p, p.samples, check=partial(checks.check, t), good_share=p.teacher_good_share
    )
    written = rows.write_jsonl(t.data / "2-answers.jsonl", counted(answers))
    if written != len(inputs) * p.samples:
        raise AssertionError(f"{len(inputs)} inputs, {p.samples} samples, but {written} answers")
    print(f"generate: {len(inputs):,} inputs, {written:,} answers, {refused:,} of them refused by the teacher")


if __name__ == "__main__":
    errors.run(main)
