"""The gap between a student and its teacher: both asked by `sample`, both judged by `pairs`."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from potstill.core import jsonl, weights
from potstill.core.errors import UserError
from potstill.evaluation import gap as measured
from potstill.inference import gap
from potstill.task import settings
from tests import fakes
from tests.conftest import ROOT, Project

STUDENT = Path("models/sft/merged")
GKD = ["base", "sft", "gkd"]


def kept(number: int) -> str:
    """The right answer to the input of that number."""
    return json.dumps({"word": f"w{number}", "length": 2}, separators=(",", ":"))


@pytest.fixture
def ready(project: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    """Ten training rows with a kept answer, the third place being a user's own message."""
    monkeypatch.setenv("PYTHONPATH", fakes.vllm(project.dir / "fake"))
    for name in ("LAUNCHER", "WORKERS", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.delenv(name, raising=False)
    text = (project.dir / "task.yaml").read_text()
    checks = "checks: [json_schema, exact_match]\n"
    project.write("task.yaml", text[: text.index("checks:")] + checks)
    fakes.model(STUDENT)
    lessons, found = [], []
    for i in range(10):
        turns = [
            {"role": "system", "content": "last word"},
            {"role": "user", "content": f"a w{i}"},
            {"role": "assistant", "content": kept(i)},
        ]
        lessons.append({"id": str(i), "messages": turns})
        found.append({"id": str(i), "text": f"a w{i}", "output": json.loads(kept(i))})
    lessons.insert(2, {"id": "own", "messages": lessons[0]["messages"]})
    jsonl.write_jsonl("data/4-train.jsonl", lessons)
    jsonl.write_jsonl("data/3-kept.jsonl", found)
    project.set(models=GKD, pairs_rows=9)
    return project


def run(project: Project, stage: str) -> tuple[int, str]:
    return project.run(f"stages.{stage}", PYTHONPATH=os.environ["PYTHONPATH"])


def answered(student: str, teacher: str) -> None:
    """gap.jsonl, where each has a sign an input: r right, w wrong, c right but cut off."""

    def one(number: int, sign: str) -> jsonl.Row:
        answer = kept(number + (sign == "w"))
        return {"answer": answer, "finish_reason": "length" if sign == "c" else "stop"}

    rows = [
        {"id": str(i), "student": one(i, a), "teacher": one(i, b)}
        for i, (a, b) in enumerate(zip(student, teacher, strict=True))
    ]
    jsonl.write_jsonl("data/4-samples/gap.jsonl", rows)


def test_the_student_is_asked_as_itself_and_as_its_own_teacher(ready: Project) -> None:
    code, out = run(ready, "sample")
    said = "sample: 18 answers of the student and its teacher to 9 training rows\n"
    assert code == 0 and out.endswith(said), out
    found = ready.read("4-samples/gap.jsonl")
    assert [row["id"] for row in found] == list("012345678")
    assert found[2]["student"] == {"answer": "a w2|0|9|0", "finish_reason": "stop"}
    shown = f"You find the last word. Answer with JSON only.\n\na w2\n\n{kept(2)}"
    assert found[2]["teacher"] == {"answer": f"{shown}|0|9|0", "finish_reason": "stop"}
    assert not Path("data/4-samples/samples.jsonl").exists()
    report = jsonl.read_json("data/4-samples/report.json")
    assert report == {"stage": "sample", "inputs": 9, "answers": 18}


def test_an_open_teacher_is_asked_what_the_student_is_in_a_process_of_its_own(
    ready: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = fakes.model("larger")
    for model in (STUDENT, folder):
        for name in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copy(ROOT / "models/tiny-base" / name, model)
    ready.set(gkd_teacher="larger", gkd_teacher_revision=weights.folder_sha256(folder))
    code, out = run(ready, "sample")
    assert code == 0, out
    assert out.splitlines()[0] == "sample/teacher: 1 shards, logs in .cache/shards/sample/teacher"
    assert all(row["student"] == row["teacher"] for row in ready.read("4-samples/gap.jsonl"))
    assert not Path(".cache/shards/sample").exists()


def test_a_teacher_with_another_vocabulary_is_refused(ready: Project) -> None:
    folder = fakes.model("other")
    for model in (STUDENT, folder):
        for name in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copy(ROOT / "models/tiny-base" / name, model)
    path = folder / "tokenizer.json"
    found = json.loads(path.read_text())
    words = found["model"]["vocab"]
    first, second = list(words)[300:302]
    words[first], words[second] = words[second], words[first]
    path.write_text(json.dumps(found))
    expected = (
        r"^params.yaml: gkd.teacher other has ([\d,]+) tokens, [\d,]+ of them those of the "
        r"student, expected the \1 tokens of models/sft/merged and no others: name a larger model"
    )
    with pytest.raises(UserError, match=expected):
        gap.check_vocabulary(STUDENT, "other", "")


def test_a_teacher_that_the_hub_does_not_give_is_one_sentence(
    ready: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **given: Any) -> None:
        assert given == {"trust_remote_code": False, "revision": "a" * 40}
        raise OSError("no such model\nsee the hub")

    monkeypatch.setattr("transformers.AutoTokenizer.from_pretrained", refuse)
    expected = "^params.yaml: the tokenizer of gkd.teacher Qwen/Qwen3-4B: no such model$"
    with pytest.raises(UserError, match=expected):
        gap.check_vocabulary(STUDENT, "Qwen/Qwen3-4B", "a" * 40)


@pytest.mark.parametrize(
    ("student", "teacher", "counts", "better"),
    [
        ("rrwwwwwww", "rrrrrrrrr", (2, 9, 0, 7, 0.0156), True),
        ("rrrrrrwww", "rrrrrrrrr", (6, 9, 0, 3, 0.25), False),  # more, within the noise
        ("rrrrrrrrr", "wwwwwwwrr", (9, 2, 7, 0, 0.0156), False),  # significantly worse
        ("rrccccccc", "rrrrrrrrr", (2, 9, 0, 7, 0.0156), True),  # an answer cut off is wrong
    ],
)
def test_the_gap_is_judged_before_anything_is_trained(
    ready: Project, student: str, teacher: str, counts: tuple[Any, ...], better: bool
) -> None:
    answered(student, teacher)
    code, out = run(ready, "pairs")
    assert code == 0, out
    names = ("student", "teacher", "only_student", "only_teacher", "p")
    report = jsonl.read_json("data/4-pairs/report.json")["gkd"]
    assert report == {"rows": 9, **dict(zip(names, counts, strict=True)), "own": 1}
    does = "the student learns from it" if better else "no better, so nothing is trained"
    p = f"{report['p']:.2g}"
    said = f"has {counts[0]} right and its teacher {counts[1]} (p = {p}); 1 more are your own mess"
    assert out.endswith(f"{does}\n") and f"gkd: of 9 inputs the student {said}" in out, out
    assert Path("data/4-pairs/inputs.jsonl").exists() == better


def test_what_is_learnt_has_the_kept_answer_and_what_the_teacher_sees(ready: Project) -> None:
    answered("w" * 9, "r" * 9)
    code, out = run(ready, "pairs")
    assert code == 0, out
    rows, lessons = ready.read("4-pairs/inputs.jsonl"), ready.read("4-train.jsonl")
    shown = f"You find the last word. Answer with JSON only.\n\na w0\n\n{kept(0)}"
    assert rows[0] == lessons[0] | {"teacher_prompt": shown} and len(rows) == 9
    fakes.model("larger")
    sha = weights.folder_sha256(Path("larger"))
    ready.set(gkd_teacher="larger", gkd_teacher_revision=sha)
    assert run(ready, "pairs")[0] == 0
    assert ready.read("4-pairs/inputs.jsonl")[0] == lessons[0]


def test_answers_to_other_inputs_are_refused(ready: Project) -> None:
    answered("r" * 8, "r" * 8)
    why = "not the answers to the inputs: run `dvc repro -f sample`"
    assert run(ready, "pairs") == (1, f"error: data/4-samples/gap.jsonl: {why}\n")


def test_no_inputs_are_no_gap(ready: Project) -> None:
    ready.set(pairs_rows=0)
    found = measured.counts(settings.load(), [], [], 0)
    assert (found["rows"], found["p"], measured.better(found)) == (0, 1.0, False)
    code, out = run(ready, "sample")
    assert code == 0, out
    code, out = run(ready, "pairs")
    assert code == 0 and "gkd: of 0 inputs the student has 0 right" in out, out
