"""4-test.jsonl → 5-predictions-<model>.jsonl for one model: base, sft, dpo or teacher (`python -m stages.predict sft`); where models
has dpo also 4-valid.jsonl → 5-valid-sft.jsonl, 5-valid-dpo.jsonl, by which the stage `ship` chooses.

A row, in the order of the test rows: {"id": "…", "answer": "{\\"province\\":…}", "finish_reason": "stop", "prompt_tokens": 84,
"completion_tokens": 63}
"""

import sys
from types import SimpleNamespace

from potstill import engine, errors, params, rows, student, task, teacher

PAID = ("key", "model", "max_tokens", "error")  # what the journal needs to be filled again, for the teacher's answers
FIELDS = ("id", "answer", "finish_reason", "prompt_tokens", "completion_tokens")


def base() -> None:
    p = params.load("task", "model", "model_revision", "predict_max_tokens", "predict_dtype", "max_model_len")
    t, tests = _tests(p.task)
    p = t.settled(p)
    asked = [t.messages("teacher", row) for row in tests]
    settings = p.predict_max_tokens, p.predict_dtype, p.max_model_len, p.model_revision
    [found] = engine.predict(p.model, [asked], *settings, stop_loops=True)
    _write(t, "predictions-base", tests, found)


def sft() -> None:
    _student("sft", params.load("task", "models", "predict_max_tokens", "predict_dtype", "max_model_len"))


def dpo() -> None:
    _student("dpo", params.load("task", "models", "predict_max_tokens", "predict_dtype", "max_model_len"))


def ask_teacher() -> None:
    p = params.load("task", *teacher.PARAMS)
    t, tests = _tests(p.task)
    _write(t, "predictions-teacher", tests, list(teacher.answer_rows(t, tests, p, samples=1)))


def _student(model: str, p: SimpleNamespace) -> None:
    t, tests = _tests(p.task)
    p = t.settled(p)
    tests = tests if model in p.models else []
    valid = rows.read_jsonl(t.data / "4-valid.jsonl", ("id", "messages")) if "dpo" in p.models else []
    asked = [[t.messages("student", row) for row in tests], [row["messages"][:-1] for row in valid]]
    found: list[list[rows.Row]] = [[], []]
    if tests:
        merged = t.models / model / "merged"
        student.check_folder(merged, "run `make repro` first")
        found = engine.predict(str(merged), asked, p.predict_max_tokens, p.predict_dtype, p.max_model_len)
    _write(t, f"predictions-{model}", tests, found[0])
    _write(t, f"valid-{model}", valid, found[1])


def _tests(name: str) -> tuple[task.Task, list[rows.Row]]:
    t = task.load(name)
    tests = t.inputs(t.data / "4-test.jsonl", "slice")
    rows.check_ids(t.data / "4-test.jsonl", tests, t.config["input"])
    return t, tests


def _write(t: task.Task, name: str, asked: list[rows.Row], found: list[rows.Row]) -> None:
    ids = [row["id"] for row in asked]
    if [row.get("id", id) for row, id in zip(found, ids, strict=False)] != ids or len(found) != len(ids):
        raise AssertionError(f"{len(ids)} rows, but {len(found)} answers, or others than theirs")
    answers = [{**row, "id": id} for row, id in zip(found, ids, strict=True)]
    path = t.data / f"5-{name}.jsonl"
    fields = FIELDS + (PAID if name == "predictions-teacher" else ())
    rows.write_jsonl(path, ({field: row[field] for field in fields} for row in answers))
    cut = sum(row["finish_reason"] in ("length", "repetition") for row in answers)
    if answers:
        print(f"predict: {len(answers):,} rows, {cut:,} of them cut off, too long or going round → {path}")


def main() -> None:
    models = {"base": base, "sft": sft, "dpo": dpo, "teacher": ask_teacher}
    if len(sys.argv) != 2 or sys.argv[1] not in models:
        raise errors.UserError(f"usage: python -m stages.predict {'|'.join(models)}")
    models[sys.argv[1]]()


if __name__ == "__main__":
    errors.run(main)
