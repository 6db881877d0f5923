"""4-train.jsonl, 3-dropped.jsonl, 4-samples/, own/reviews.jsonl → 4-pairs/: preferences from four
sources (potstill/dataset/preferences.py). Where the task has prompts/rejected.md, the teacher
answers some training inputs badly on purpose. A file with no rows is not written.

rejected.jsonl: a row of 2-answers.jsonl, by the other prompt
pairs.jsonl:    {"id": "…", "sample": 0, "source": "prompt", "prompt": [{"role": "system", …}, …],
                 "chosen": "{…}", "rejected": "…"}
report.json:    {"stage": "pairs", "pairs": 1900, "sources": {"prompt": {"in": 1200, …}, …}, …}
Where models has grpo also the inputs that the student gets right sometimes, how many there are
("grpo" in report.json), and the checks that make the reward (potstill/dataset/sometimes.py):
inputs.jsonl:   {"id": "…", "messages": [{"role": "system", …}, …], "row": {…}, "right": 1, "of": 4}
Where it has gkd, how many inputs the student and its teacher have right ("gkd" in report.json), and
where the teacher is better, the inputs (potstill/evaluation/gap.py):
inputs.jsonl:   {"id": "…", "messages": [{"role": "system", …}, …], "teacher_prompt": "…"}
"""

from pathlib import Path

from potstill.checks import registry
from potstill.core import jsonl, params, stage
from potstill.dataset import frozen, gap, preferences, reviews, sometimes
from potstill.evaluation import gap as measured
from potstill.task import settings
from potstill.teacher import asking


def main() -> None:
    p = params.load("teacher", "pairs.rows", "models", "grpo.held_out", "gkd.teacher")
    t = settings.load()
    registry.validate(t)
    rewarding = sometimes.rewarding(t, p.grpo.held_out) if "grpo" in p.models else None
    lessons = jsonl.read_jsonl(t.data / "4-train.jsonl", ("id", "messages"))
    kept = t.inputs(t.data / "3-kept.jsonl", "output", empty=True)
    prompt = Path("prompts", f"{preferences.PROMPT}.md")
    wanted = preferences.asked(t, lessons, kept, p.pairs.rows) if prompt.is_file() else []
    kind = preferences.PROMPT
    answers = list(asking.answer_rows(t, wanted, p.teacher, 1, kind=kind)) if wanted else []
    dropped = jsonl.read_some(t.data / "3-dropped.jsonl", "id", "reason", "answer")
    samples = jsonl.read_some(t.data / "4-samples/samples.jsonl", "id", "answer", "finish_reason")
    ranked = jsonl.read_some(t.data / "2-answers.jsonl", "id", "answer")
    said = reviews.load(t.data / reviews.FILE)
    sources = {
        "prompt": preferences.from_prompt(answers),
        "teacher": preferences.from_teacher(dropped),
        "student": preferences.from_student(samples),
        "person": preferences.from_person(said, ranked),
    }
    found, report = preferences.made(t, lessons, kept, sources)
    folder = jsonl.fresh_folder(t.data / "4-pairs")
    jsonl.write_some(folder / "rejected.jsonl", answers)
    jsonl.write_some(folder / "pairs.jsonl", found)
    if rewarding:
        learnt, report["grpo"] = sometimes.inputs(rewarding, lessons, kept, samples)
        jsonl.write_some(folder / "inputs.jsonl", learnt)
        jsonl.write_json(folder / "checks.json", frozen.freeze(rewarding))
    if "gkd" in p.models:
        asked, own = gap.asked(lessons, kept, p.pairs.rows)
        both = jsonl.read_some(t.data / "4-samples/gap.jsonl", "id", "student", "teacher")
        report["gkd"] = measured.counts(t, asked, both, own)
        if measured.better(report["gkd"]):
            learnt = gap.inputs(t, asked, p.gkd.teacher is None)
            jsonl.write_some(folder / "inputs.jsonl", learnt)
    jsonl.write_json(folder / "report.json", report)
    print(
        f"pairs: {len(found):,} preferences, of {len(ranked):,} answers ({len(kept):,} kept, "
        f"{len(dropped):,} dropped), {len(lessons):,} training rows, {len(samples):,} answers of "
        f"the student and {len(answers):,} bad ones"
    )
    print(*preferences.table(report), sep="\n")
    if rewarding:
        print(f"grpo: {sometimes.said(report['grpo'])}")
    if "gkd" in p.models:
        print(f"gkd: {measured.said(report['gkd'])}")


if __name__ == "__main__":
    stage.run(main)
