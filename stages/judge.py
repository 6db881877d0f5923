"""5-predictions-*.jsonl → 5-judge.jsonl: which of two models' answers a language model calls better, where the task has
prompts/judge.md and judge_model names the judge; empty elsewhere. What people ranked (`make review`) is judged, too.

{"row": "…", "model": "sft", "against": "teacher", "a": "…", "b": "…", "verdict": 1}: 1 for `model`, -1, 0 for a tie, null unscored
"""

from types import SimpleNamespace

from potstill import errors, judge, params, rows, score, task, teacher


def main() -> None:
    p = params.load("task", "judge_model", *teacher.PARAMS)
    t = task.load(p.task)
    path = t.data / "5-judge.jsonl"
    if p.judge_model is None or not (t.dir / "prompts" / f"{judge.PROMPT}.md").is_file():
        rows.write_jsonl(path, [])
        print("judge: off (judge_model is null, or the task has no prompts/judge.md)")
        return
    tests = t.inputs(t.data / "4-test.jsonl")
    predictions = score.predictions(t, [model for model in score.MODELS if model != "examples"])
    texts = {model: {row["id"]: row["answer"] or "" for row in some} for model, some in predictions.items()}
    student = score.student(predictions)
    pairs = {
        (student, other): {id: (text, texts[other][id]) for id, text in texts[student].items()}
        for other in ("base", "teacher")
    }
    people = judge.ranked(t, rows.read_jsonl(t.data / "2-answers.jsonl", ("id", "answer")))
    asked = judge.questions(t, tests, pairs)
    if people:
        asked += judge.questions(t, t.inputs(t.data / "1-inputs.jsonl"), {(judge.HUMAN, judge.HUMAN): people})
    own = SimpleNamespace(**vars(p) | {"teacher_model": p.judge_model, "teacher_temperature": 0.0})
    answers = list(teacher.answer_rows(t, asked, own, samples=1, kind=judge.PROMPT, schema=judge.SCHEMA))
    found = judge.verdicts(asked, answers)
    rows.write_jsonl(path, found)
    lost = sum(row["verdict"] is None for row in found)
    print(f"judge {p.judge_model}: {len(found):,} pairs in both orders, {lost:,} unscored → {path}")


if __name__ == "__main__":
    errors.run(main)
