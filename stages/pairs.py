"""4-train.jsonl, 3-dropped.jsonl, 4-samples.jsonl, reviews.jsonl → 4-rejected.jsonl, 4-pairs.jsonl, 4-pairs.json: preferences from
four sources (potstill/pairs.py). Where the task has a prompts/rejected.md, the teacher answers some training inputs badly on purpose.

Rejected: a row of 2-answers.jsonl, by the other prompt
Pair:     {"id": "…", "sample": 0, "source": "prompt", "prompt": [{"role": "system", …}, {"role": "user", …}], "chosen": "{…}", "rejected": "…"}
Report:   {"stage": "pairs", "pairs": 1900, "sources": {"prompt": {"in": 1200, "pairs": 1000, "dropped": {"as good": 200}}, …}, "chars": {…}}
"""

from pathlib import Path

from potstill import checks, errors, pairs, params, reviews, rows, task, teacher


def main() -> None:
    p = params.load("task", *teacher.PARAMS, "pairs")
    t = task.load(p.task)
    checks.validate(t)
    lessons = rows.read_jsonl(t.data / "4-train.jsonl", ("id", "messages"))
    kept = t.inputs(t.data / "3-kept.jsonl", "output")
    wanted = pairs.asked(t, lessons, kept, p.pairs) if (t.dir / "prompts" / f"{pairs.PROMPT}.md").is_file() else []
    answers = list(teacher.answer_rows(t, wanted, p, 1, kind=pairs.PROMPT)) if wanted else []
    dropped = _read(t.data / "3-dropped.jsonl", "id", "reason", "answer")
    samples = _read(t.data / "4-samples.jsonl", "id", "answer", "finish_reason")
    ranked = rows.read_jsonl(t.data / "2-answers.jsonl", ("id", "answer"))
    sources = {
        "prompt": pairs.from_prompt(answers),
        "teacher": pairs.from_teacher(dropped),
        "student": pairs.from_student(samples),
        "person": pairs.from_person(reviews.load(t.data / "reviews.jsonl"), ranked),
    }
    found, report = pairs.made(t, lessons, kept, sources)
    rows.write_jsonl(t.data / "4-rejected.jsonl", answers)
    rows.write_jsonl(t.data / "4-pairs.jsonl", found)
    rows.write_json(t.data / "4-pairs.json", report)
    print(
        f"pairs: {len(found):,} preferences, of {len(ranked):,} answers ({len(kept):,} kept, {len(dropped):,} dropped), {len(lessons):,} "
        f"training rows, {len(samples):,} answers of the student and {len(answers):,} bad ones"
    )
    print(*pairs.table(report), sep="\n")


def _read(path: Path, *needed: str) -> list[rows.Row]:
    """The rows of a file that may be empty."""
    return rows.read_jsonl(path, needed) if path.stat().st_size else []


if __name__ == "__main__":
    errors.run(main)
