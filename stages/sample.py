"""4-train.jsonl → 4-samples.jsonl: where models has dpo, what the sft student itself answers to the first `pairs` training inputs,
`pair_samples` times each. What it gets wrong is worth more to an alignment than what others do.

A row: {"id": "…", "sample": 0, "answer": "{…}", "finish_reason": "stop"}
"""

from potstill import engine, errors, pairs, params, rows, student, task


def main() -> None:
    p = params.load(
        "task",
        "models",
        "seed",
        "pairs",
        "pair_samples",
        "pair_temperature",
        "predict_max_tokens",
        "predict_dtype",
        "max_model_len",
    )
    t = task.load(p.task)
    found: list[rows.Row] = []
    if "dpo" in p.models and p.pairs:
        lessons = rows.read_jsonl(t.data / "4-train.jsonl", ("id", "messages"))
        asked = pairs.asked(t, lessons, t.inputs(t.data / "3-kept.jsonl"), p.pairs)
        merged = t.models / "sft" / "merged"
        student.check_folder(merged, "run `make repro` first")
        [answers] = engine.predict(
            str(merged),
            [[t.messages("student", row) for row in asked]],
            p.predict_max_tokens,
            p.predict_dtype,
            p.max_model_len,
            n=p.pair_samples,
            temperature=p.pair_temperature,
            seed=p.seed,
        )
        which = [(row["id"], sample) for row in asked for sample in range(p.pair_samples)]
        found = [
            {"id": id, "sample": sample, "answer": one["answer"], "finish_reason": one["finish_reason"]}
            for (id, sample), one in zip(which, answers, strict=True)
        ]
    rows.write_jsonl(t.data / "4-samples.jsonl", found)
    print(f"sample: {len(found):,} answers of the student" if found else "sample: nothing to do, models has no dpo")


if __name__ == "__main__":
    errors.run(main)
