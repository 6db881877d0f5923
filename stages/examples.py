"""The untrained model once more, in one start of vLLM: the prompts of predict-base again → 5-predictions-again.jsonl, of which score
counts what changed between two runs of the same (A/A), and with training rows as examples → 5-predictions-examples.jsonl.

A row is that of potstill/predictions.py. 5-predictions-examples.jsonl is empty where `examples` is 0, or not one example fits.
"""

import os

from potstill import engine, errors, examples, params, predictions, rows, student, task


def main() -> None:
    p = params.load(
        "task", "model", "model_revision", "predict_max_tokens", "predict_dtype", "max_model_len", "examples"
    )
    t = task.load(p.task)
    p, tests = t.settled(p), predictions.tests(t)
    known = rows.read_jsonl(t.data / "4-train.jsonl", ("id", "messages"))
    lessons = known[: p.examples]
    asked = [t.messages("teacher", row) for row in tests]
    hub = student.at_hub(p.model)
    os.environ.update(student.environment(hub))
    from transformers import AutoTokenizer

    pinned = {"revision": p.model_revision} if hub else {}
    tokenizer = AutoTokenizer.from_pretrained(p.model, trust_remote_code=False, **pinned)
    room = p.max_model_len - p.predict_max_tokens
    more = examples.shown(asked, lessons, room, lambda chat: len(engine._tokens(tokenizer, chat)))
    settings = p.predict_max_tokens, p.predict_dtype, p.max_model_len, p.model_revision
    batches = engine.predict(p.model, [asked, more], *settings, stop_loops=True)
    for name, results in zip(("again", "examples"), batches, strict=True):
        predictions.write(t, f"predictions-{name}", tests if results else [], results)
    said = (
        f"{(len(more[0]) - len(asked[0])) // 2} examples"
        if more
        else f"no example fits into {room:,} tokens"
        if lessons
        else "no examples"
    )
    print(
        f"examples: {len(tests):,} rows again, {said}, of {len(known):,} training rows → {t.data}/5-predictions-examples.jsonl"
    )


if __name__ == "__main__":
    errors.run(main)
