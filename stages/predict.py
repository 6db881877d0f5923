"""4-test.jsonl → 5-predictions-<model>.jsonl for one model: base, sft, dpo or teacher (`python -m stages.predict sft`); where models
has dpo also 4-valid.jsonl → 5-valid-sft.jsonl, 5-valid-dpo.jsonl, by which the stage `ship` chooses; 5-latency-<model>.json. Rows: potstill/predictions.py
"""

import sys

from potstill import engine, errors, params, predictions, rows, student, task, teacher

ENGINE = ("predict_max_tokens", "predict_dtype", "max_model_len")


def base() -> None:
    p = params.load("task", "model", "model_revision", *ENGINE)
    t = task.load(p.task)
    p, tests = t.settled(p), predictions.tests(t)
    asked = [t.messages("teacher", row) for row in tests]
    settings = p.predict_max_tokens, p.predict_dtype, p.max_model_len, p.model_revision
    seconds: list[float] = []
    [found] = engine.predict(p.model, [asked], *settings, stop_loops=True, timed=seconds)
    predictions.write(t, "predictions-base", tests, found)
    predictions.write_latency(t, "base", seconds)


def trained(model: str) -> None:
    p = params.load("task", "models", *ENGINE)
    t = task.load(p.task)
    p = t.settled(p)
    tests = predictions.tests(t) if model in p.models else []
    valid = rows.read_jsonl(t.data / "4-valid.jsonl", ("id", "messages")) if "dpo" in p.models else []
    asked = [[t.messages("student", row) for row in tests], [row["messages"][:-1] for row in valid]]
    found: list[list[rows.Row]] = [[], []]
    seconds: list[float] = []
    if tests:
        merged = t.models / model / "merged"
        student.check_folder(merged, "run `make repro` first")
        settings = p.predict_max_tokens, p.predict_dtype, p.max_model_len
        found = engine.predict(str(merged), asked, *settings, timed=seconds)
    predictions.write(t, f"predictions-{model}", tests, found[0])
    predictions.write(t, f"valid-{model}", valid, found[1])
    predictions.write_latency(t, model, seconds)


def ask_teacher() -> None:
    p = params.load("task", *teacher.PARAMS)
    t = task.load(p.task)
    tests = predictions.tests(t)
    answers = list(teacher.answer_rows(t, tests, p, samples=1))
    predictions.write(t, "predictions-teacher", tests, answers, predictions.PAID)


def main() -> None:
    models = {"base": base, "sft": lambda: trained("sft"), "dpo": lambda: trained("dpo"), "teacher": ask_teacher}
    if len(sys.argv) != 2 or sys.argv[1] not in models:
        raise errors.UserError(f"usage: python -m stages.predict {'|'.join(models)}")
    models[sys.argv[1]]()


if __name__ == "__main__":
    errors.run(main)
