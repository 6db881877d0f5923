"""4-train.jsonl → 4-samples/: where models has dpo or grpo, what the sft student itself answers to
the first pairs.rows training rows, pairs.samples times each. What it gets wrong teaches an
alignment more than what others do. Where models has gkd, what it and its teacher answer greedily to
the first pairs.rows with a kept answer. A file with no rows is not written.

samples.jsonl: {"id": "…", "sample": 0, "answer": "{…}", "finish_reason": "stop"}
gap.jsonl:     {"id": "…", "student": {"answer": "{…}", "finish_reason": "stop"}, "teacher": {…}}
report.json:   {"stage": "sample", "inputs": 1200, "answers": 4800}
"""

from types import SimpleNamespace

from potstill.core import jsonl, params, stage
from potstill.core.jsonl import Row
from potstill.core.models import UNALIGNED, aligned
from potstill.dataset import gap as inputs
from potstill.inference import gap, sharded
from potstill.task import settings
from potstill.training import model_folder


def main() -> None:
    own = ("gkd.teacher", "gkd.teacher_revision")
    p = params.load("models", "seed", "pairs", "predict", *own)
    t = settings.load()
    name = aligned(p.models)
    found: list[Row] = []
    asked, answers, file, who = 0, 0, "samples.jsonl", "the student"
    if name:
        lessons = jsonl.read_jsonl(t.data / "4-train.jsonl", ("id", "messages"))
        student = t.models / "sft" / "merged"
        model_folder.check_folder(student, "run `make repro` first")
    if name == "gkd":
        kept = t.inputs(t.data / "3-kept.jsonl", "output", empty=True)
        pairs, _ = inputs.asked(lessons, kept, p.pairs.rows)
        found = gap.answers(t, p, pairs, student)
        asked, answers, file = len(found), 2 * len(found), "gap.jsonl"
        who = "the student and its teacher"
    elif name:
        asked = len(lessons := lessons[: p.pairs.rows])
        found = drawn(p, lessons, str(student))
        answers = len(found)
    folder = jsonl.fresh_folder(t.data / "4-samples")
    jsonl.write_some(folder / file, found)
    report = {"stage": "sample", "inputs": asked, "answers": answers}
    jsonl.write_json(folder / "report.json", report)
    done = f"{answers:,} answers of {who} to {asked:,} training rows"
    print(f"sample: {done if name else f'nothing to do, {UNALIGNED}'}")


def drawn(p: SimpleNamespace, lessons: list[Row], student: str) -> list[Row]:
    """What the student draws to the training rows: the rows of samples.jsonl."""
    chats = [row["messages"][:-1] for row in lessons]
    how = [[row["id"] for row in lessons]], student, [chats], p.predict
    more = {"n": p.pairs.samples, "temperature": p.pairs.temperature}
    [answers] = sharded.predict("sample", *how, seed=p.seed, **more)
    which = [(row["id"], sample) for row in lessons for sample in range(p.pairs.samples)]
    return [
        {"id": id, "sample": sample} | {key: one[key] for key in ("answer", "finish_reason")}
        for (id, sample), one in zip(which, answers, strict=True)
    ]


if __name__ == "__main__":
    stage.run(main)
