"""Training and serving held against each other: the base with the adapter on it answers the test rows → 5-predictions-adapter.jsonl,
for score to compare with those of the merged model; 5-parity.json counts training rows whose token ids are not the served ones.

5-parity.json: {"lessons": 100, "other_tokens": []}
"""

from potstill import errors, params, parity, predictions, rows, student, task

LESSONS = 100  # training rows whose tokens are compared


def main() -> None:
    p = params.load("task", "model", "model_revision", "predict_max_tokens", "predict_dtype")
    t = task.load(p.task)
    p, tests = t.settled(p), predictions.tests(t)
    lessons = rows.read_jsonl(t.data / "4-train.jsonl", ("id", "messages"))[:LESSONS]
    adapter, merged = t.models / "sft" / "adapter", t.models / "sft" / "merged"
    student.check_folder(merged, "run `dvc repro merge`")
    found: list[rows.Row] = []
    if (adapter / "adapter_config.json").is_file():  # tuner_type full has none: what is served is what was trained
        asked = [t.messages("student", row) for row in tests]
        found = parity.with_adapter(p.model, p.model_revision, adapter, asked, p.predict_max_tokens, p.predict_dtype)
    predictions.write(t, "predictions-adapter", tests if found else [], found)
    others = list(parity.other_tokens(p.model, p.model_revision, merged, lessons))
    rows.write_json(t.data / "5-parity.json", {"lessons": len(lessons), "other_tokens": others})
    print(
        f"parity: {len(found):,} rows by the adapter on its base; {len(others):,} of {len(lessons):,} training rows have other "
        "tokens where they are served"
    )


if __name__ == "__main__":
    errors.run(main)
