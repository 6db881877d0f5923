"""4-test.jsonl → 5-predictions-<model>.jsonl for one model: base, sft or teacher (`python -m stages.predict sft`).

A row, in the order of the test rows: {"id": "…", "answer": "{\\"province\\":…}", "finish_reason": "stop", "prompt_tokens": 84,
"completion_tokens": 63}
"""

import sys

from potstill import engine, errors, params, rows, student, task, teacher

PAID = ("key", "model", "max_tokens", "error")  # what the journal needs to be filled again, for the teacher's answers
FIELDS = ("id", "answer", "finish_reason", "prompt_tokens", "completion_tokens")


def base() -> None:
    p = params.load("task", "model", "model_revision", "predict_max_tokens", "predict_dtype", "max_model_len")
    t, tests = _tests(p.task)
    asked = [t.messages("teacher", row) for row in tests]
    found = engine.predict(p.model, asked, p.predict_max_tokens, p.predict_dtype, p.max_model_len, p.model_revision)
    _write(t, "base", tests, found)


def sft() -> None:
    p = params.load("task", "predict_max_tokens", "predict_dtype", "max_model_len")
    t, tests = _tests(p.task)
    merged = t.models / "sft" / "merged"
    student.check_folder(merged, "run `make repro` first")
    asked = [t.messages("student", row) for row in tests]
    found = engine.predict(str(merged), asked, p.predict_max_tokens, p.predict_dtype, p.max_model_len)
    _write(t, "sft", tests, found)


def ask_teacher() -> None:
    p = params.load("task", *teacher.PARAMS)
    t, tests = _tests(p.task)
    _write(t, "teacher", tests, list(teacher.answer_rows(t, tests, p, samples=1)))


def _tests(name: str) -> tuple[task.Task, list[rows.Row]]:
    t = task.load(name)
    tests = t.inputs(t.data / "4-test.jsonl", "slice")
    rows.check_ids(t.data / "4-test.jsonl", tests, t.config["input"])
    return t, tests


def _write(t: task.Task, model: str, tests: list[rows.Row], found: list[rows.Row]) -> None:
    ids = [test["id"] for test in tests]
    if [row.get("id", id) for row, id in zip(found, ids, strict=False)] != ids or len(found) != len(ids):
        raise AssertionError(f"{len(ids)} test rows, but {len(found)} answers, or others than theirs")
    answers = [{**row, "id": id} for row, id in zip(found, ids, strict=True)]
    path = t.data / f"5-predictions-{model}.jsonl"
    fields = FIELDS + (PAID if model == "teacher" else ())
    rows.write_jsonl(path, ({field: row[field] for field in fields} for row in answers))
    cut = sum(row["finish_reason"] == "length" for row in answers)
    print(f"predict {model}: {len(answers):,} rows, {cut:,} of them cut off by their length → {path}")


def main() -> None:
    models = {"base": base, "sft": sft, "teacher": ask_teacher}
    if len(sys.argv) != 2 or sys.argv[1] not in models:
        raise errors.UserError(f"usage: python -m stages.predict {'|'.join(models)}")
    models[sys.argv[1]]()


if __name__ == "__main__":
    errors.run(main)
