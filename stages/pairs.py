"""3-kept.jsonl, 4-train.jsonl → 4-rejected.jsonl, 4-pairs.jsonl: where the task has a prompts/rejected.md, the teacher answers some
training inputs badly on purpose; beside the good answer that is a preference. What the checks find as good as the chosen is dropped.

Rejected: a row of 2-answers.jsonl, by the other prompt
Pair:     {"id": "…", "prompt": [{"role": "system", …}, {"role": "user", …}], "chosen": "{…}", "rejected": "…"}
"""

from potstill import checks, errors, pairs, params, rows, task, teacher


def main() -> None:
    p = params.load("task", *teacher.PARAMS, "pairs")
    t = task.load(p.task)
    checks.validate(t)
    lessons = rows.read_jsonl(t.data / "4-train.jsonl", ("id", "messages"))
    kept = t.inputs(t.data / "3-kept.jsonl")
    asked = pairs.asked(t, lessons, kept, p.pairs)
    answers = list(teacher.answer_rows(t, asked, p, 1, kind=pairs.PROMPT)) if asked else []
    found, dropped = pairs.made(t, lessons, asked, answers)
    rows.write_jsonl(t.data / "4-rejected.jsonl", answers)
    rows.write_jsonl(t.data / "4-pairs.jsonl", found)
    if len(asked) != len(found) + dropped.total():
        raise AssertionError(f"{len(asked)} asked for, but {len(found)} pairs and {dropped}")
    why = ", ".join(f"{count:,} {reason}" for reason, count in dropped.most_common()) or "nothing"
    print(
        f"pairs: {len(kept):,} kept, {len(lessons):,} to train on; {len(asked):,} bad answers asked for = {len(found):,} pairs + "
        f"{dropped.total():,} dropped ({why})"
    )


if __name__ == "__main__":
    errors.run(main)
