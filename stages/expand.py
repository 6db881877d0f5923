"""seeds.jsonl → 1-inputs.jsonl: the seeds and, up to expand_rows, new inputs that the teacher writes like them.

A row: {"id": "…", "text": "写一段50字的…", "category": "short", "family": "<id of the seed it was grown from>"}; beside it
1-calls.jsonl, the raw replies that they were taken from, and 1-expand.json, what came of them by category.
"""

from functools import partial

from potstill import checks, errors, expand, params, rows, task, teacher


def main() -> None:
    p = params.load("task", *teacher.PARAMS, *expand.PARAMS, "samples", "teacher_good_share")
    t = task.load(p.task)
    p = t.settled(p)
    if p.expand_hard:
        checks.validate(t)
    seeds, gold = expand.read(t, p)
    rows.check_ids(t.data / "seeds.jsonl", seeds, t.config["input"])
    calls: list[rows.Row] = []

    def ask(kind: str, asked: list[rows.Row]) -> list[rows.Row]:
        if kind == "teacher":
            share = 0.0 if calls else p.teacher_good_share
            check = partial(checks.check, t)
            return list(teacher.answer_rows(t, asked, p, p.samples, check=check, good_share=share))
        asker, own, schema = expand.asking(t, p, kind)
        replies = list(teacher.answer_rows(asker, asked, own, 1, kind=kind, schema=schema))
        calls.extend(replies)
        return replies

    found, report = expand.grow(t, seeds, gold, p, ask)
    rows.write_jsonl(t.data / "1-inputs.jsonl", found)
    rows.write_jsonl(t.data / "1-calls.jsonl", calls)
    rows.write_json(t.data / "1-expand.json", report)
    print(
        f"expand: {len(seeds):,} seeds + {len(found) - len(seeds):,} new = {len(found):,} inputs, {report['calls']:,} calls"
    )
    if report["categories"]:
        print(*expand.table(report), sep="\n")


if __name__ == "__main__":
    errors.run(main)
