"""4-train.jsonl → 4-samples.jsonl: where models has dpo, what the sft student itself answers to the first `pairs` training rows,
`pair_samples` times each. What it gets wrong is worth more to an alignment than what others do.

A row: {"id": "…", "sample": 0, "answer": "{…}", "finish_reason": "stop"}
"""

from potstill import engine, errors, params, rows, student, task


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
    p = t.settled(p)
    found: list[rows.Row] = []
    says = "nothing to do, models has no dpo"
    if "dpo" in p.models:
        lessons = rows.read_jsonl(t.data / "4-train.jsonl", ("id", "messages"))
        asked = lessons[: p.pairs]
        merged = t.models / "sft" / "merged"
        student.check_folder(merged, "run `make repro` first")
        [answers] = engine.predict(
            str(merged),
            [[row["messages"][:-1] for row in asked]],
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
        says = f"{len(found):,} answers of the student to {len(asked):,} of {len(lessons):,} training rows"
    rows.write_jsonl(t.data / "4-samples.jsonl", found)
    print(f"sample: {says}")


if __name__ == "__main__":
    errors.run(main)
