"""Training and serving held against each other: the base with the adapter on it answers the test rows → 5-predictions-adapter.jsonl,
for score to compare with those of the merged model; where models has dpo, the sft student with the adapter of the alignment, too →
5-predictions-adapter-dpo.jsonl, else empty. 5-parity.json counts training rows whose token ids are not the served ones.

5-parity.json: {"lessons": 100, "other_tokens": []}
"""

from potstill import errors, params, parity, predictions, rows, student, task

LESSONS = 100  # training rows whose tokens are compared


def main() -> None:
    p = params.load("task", "model", "model_revision", "predict_max_tokens", "predict_dtype")
    t = task.load(p.task)
    p, tests = t.settled(p), predictions.tests(t)
    merged = t.models / "sft" / "merged"
    student.check_folder(merged, "run `dvc repro merge`")
    asked = [t.messages("student", row) for row in tests]
    for name, model, base, revision in (
        ("adapter", "sft", p.model, p.model_revision),
        ("adapter-dpo", "dpo", str(merged), ""),
    ):
        adapter, found = t.models / model / "adapter", list[rows.Row]()
        if (adapter / "adapter_config.json").is_file():  # tuner_type full has none: what is served is what was trained
            path = t.data / f"5-predictions-{model}.jsonl"
            before = rows.read_jsonl(path, predictions.FIELDS)
            if [row["id"] for row in before] != [row["id"] for row in tests]:
                raise errors.UserError(f"{path}: not one row for each test row: run `dvc repro -f predict-{model}`")
            lengths = [row["completion_tokens"] for row in before]
            found = parity.with_adapter(base, revision, adapter, asked, lengths, p.predict_max_tokens, p.predict_dtype)
        predictions.write(t, f"predictions-{name}", tests if found else [], found)
    lessons = rows.read_jsonl(t.data / "4-train.jsonl", ("id", "messages"))[:LESSONS]
    others = list(parity.other_tokens(p.model, p.model_revision, merged, lessons))
    rows.write_json(t.data / "5-parity.json", {"lessons": len(lessons), "other_tokens": others})
    print(f"parity: {len(others):,} of {len(lessons):,} training rows have other tokens where they are served")


if __name__ == "__main__":
    errors.run(main)
