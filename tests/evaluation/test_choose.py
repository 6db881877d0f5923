"""Which student ships: dpo only when it wins significantly on the validation rows and no check gets
worse."""

import json
from pathlib import Path
from typing import Any

import pytest

from potstill.core import jsonl
from potstill.evaluation import choose, score
from potstill.task import settings
from tests import fakes
from tests.conftest import ROOT, Project

DPO = ["base", "sft", "dpo"]
TOKENS = {"finish_reason": "stop", "prompt_tokens": 9, "completion_tokens": 3}


@pytest.fixture
def toy(project: Project) -> settings.Task:
    """A task of plain Chinese of at most six characters."""
    project.write("task.yaml", "checks: [{max_chars: {limit: 6}}, language]\n")
    return settings.load()


def questions(count: int) -> list[jsonl.Row]:
    return [{"id": jsonl.row_id({"text": f"第{i}"}), "text": f"第{i}"} for i in range(count)]


def answers(asked: list[jsonl.Row], text: str) -> list[jsonl.Row]:
    """One answer to each row: r right, l too long, e not Chinese, - empty."""
    known = {"r": "好", "l": "太长太长太长太长", "e": "good", "-": ""}
    return [
        {"id": row["id"], "answer": known[one], **TOKENS}
        for row, one in zip(asked, text, strict=True)
    ]


@pytest.mark.parametrize(
    ("sft", "dpo", "ships", "why"),
    [
        (
            "r" * 4 + "l" * 6,
            "r" * 10,
            "dpo",
            "dpo wins (right 4 → 10 of 10 validation rows, p = 0.031), and no check",
        ),
        (
            "r" * 2 + "-" * 8,
            "r" * 9 + "l",
            "dpo",
            "dpo wins (right 2 → 9 of 10 validation rows, p = 0.016), and no check",
        ),
        (
            "r" * 5 + "l" * 5,
            "r" * 10,
            "sft",
            "dpo has more rows right, but within the noise (right 5 → 10 of 10 ",
        ),
        (
            "r" * 10,
            "r" * 10,
            "sft",
            "dpo has no more rows right (right 10 → 10 of 10 validation rows, p = 1)",
        ),
        ("r" * 10, "l" * 10, "sft", "dpo has no more rows right (right 10 → 0 of 10 "),
        (
            "r" * 2 + "l" * 8,
            "r" * 9 + "e",
            "sft",
            "dpo wins (right 2 → 9 of 10 validation rows, p = 0.016), but fails a check",
        ),
        (
            "r" * 2 + "l" * 8,
            "r" * 9 + "-",
            "sft",
            "dpo wins (right 2 → 9 of 10 validation rows, p = 0.016), but fails a check",
        ),
    ],
)
def test_the_verdict(toy: settings.Task, sft: str, dpo: str, ships: str, why: str) -> None:
    asked = questions(10)
    found = choose.verdict(choose.compare(toy, asked, answers(asked, sft), answers(asked, dpo)))
    assert found[0] == ships
    assert found[1].startswith(why)


def test_the_comparison_counts_each_row_and_each_check_once(toy: settings.Task) -> None:
    asked = questions(6)
    assert choose.compare(toy, asked, answers(asked, "rrll-e"), answers(asked, "rlrr-l")) == {
        "rows": 6,
        "sft": 2,
        "dpo": 3,
        "only_sft": 1,
        "only_dpo": 2,
        "p": 1.0,
        "checks": {"language": {"sft": 2, "dpo": 1}, "max_chars": {"sft": 3, "dpo": 3}},
        "phrase": {"text": "太长太长太长", "kept": 0, "sft": 0.3333, "dpo": 0.3333},
    }


@pytest.mark.parametrize(
    ("says", "kept", "ships"), [(0, 0, "dpo"), (5, 0, "dpo"), (6, 0, "sft"), (9, 4, "dpo")]
)
def test_a_student_that_says_the_same_of_everything_stays(
    project: Project, says: int, kept: int, ships: str
) -> None:
    """No check of one answer sees it. What many of the kept answers say is no phrase of its own."""
    project.write("task.yaml", "checks: [json_schema]\n")
    schema = {"type": "object", "properties": {"word": {"type": "string"}}, "required": ["word"]}
    project.write("schema.json", json.dumps(schema))
    stock = json.dumps({"word": "一路 平安！万事如意。"}, ensure_ascii=False)

    def said(number: int, count: int) -> str:
        return stock if number < count else json.dumps({"word": f"{number:09}"})

    asked = questions(20)
    rows = [row | {"expected": json.loads(said(i, kept))} for i, row in enumerate(asked)]
    good = [{"id": row["id"], "answer": said(i, says), **TOKENS} for i, row in enumerate(asked)]
    bad = [{"id": row["id"], "answer": "{}", **TOKENS} for row in asked]
    found = choose.compare(settings.load(), rows, bad, good)
    if says:
        shares = {"kept": kept / 20, "sft": 0, "dpo": says / 20}
        assert found["phrase"] == {"text": "一路平安！万", **shares}
    verdict = choose.verdict(found)
    assert verdict[0] == ships
    if ships == "sft":
        assert verdict[1].endswith(
            "has taken to a phrase: 30.0% of its answers have “一路平安！万”, 0.0% of sft's and "
            "0.0% of the kept ones"
        )


def test_answers_to_other_rows_are_no_comparison(toy: settings.Task) -> None:
    asked = questions(2)
    with pytest.raises(AssertionError, match="the answers of dpo are not those to the rows"):
        choose.compare(toy, asked, answers(asked, "rr"), answers(asked[::-1], "rr"))


@pytest.fixture
def ready(project: Project, toy: settings.Task) -> Project:
    """Ten validation rows and a row of the user's own; both students are there."""
    asked = questions(10)
    turns = [{"role": "user", "content": "写"}, {"role": "assistant", "content": "好"}]
    jsonl.write_jsonl("data/3-kept.jsonl", [{**row, "output": "好"} for row in asked])
    jsonl.write_jsonl(
        "data/4-valid.jsonl",
        [{"id": id, "messages": turns} for id in [*(r["id"] for r in asked), "own"]],
    )
    for model, text in (("sft", "r" * 4 + "l" * 6), ("dpo", "r" * 10)):
        fakes.model(f"models/{model}/merged").joinpath("which").write_text(model)
        own = {"id": "own", "answer": "not judged", **TOKENS}
        jsonl.write_jsonl(f"data/5-predictions/{model}/valid.jsonl", [*answers(asked, text), own])
    project.set(models=DPO)
    return project


def shipped() -> tuple[dict[str, Any], str]:
    """6-choice.json, and which model models/student is."""
    return json.loads(Path("data/6-choice.json").read_text()), Path(
        "models/student/which"
    ).read_text()


def test_the_stage_ships_what_wins(ready: Project) -> None:
    code, out = ready.run("stages.choose")
    assert code == 0, out
    assert out.startswith(
        "choose: 10 kept, 11 to validate on, 1 of them your own, not judged\n"
        "choose dpo: dpo wins (right 4 → 10 of 10 validation rows, p = 0.031), and no check fails"
    )
    found, model = shipped()
    assert (found["ship"], model, found["valid"]["rows"]) == ("dpo", "dpo", 10)
    poisoned = [Path(f"data/5-predictions/{model}/valid.jsonl") for model in ("sft", "dpo")]
    texts = [path.read_text() for path in poisoned]
    for path, text in zip(poisoned, reversed(texts), strict=True):
        path.write_text(text)
    assert "\nchoose sft: dpo has no more rows right" in ready.run("stages.choose")[1]
    assert shipped()[1] == "sft"


def test_grpo_is_judged_alike_and_ships_only_where_it_has_learnt(ready: Project) -> None:
    """Longer answers have more of what was rewarded here, and fail the check that was not."""
    ready.set(models=["base", "sft", "grpo"])
    Path("models/dpo").rename("models/grpo")
    Path("data/5-predictions/dpo").rename("data/5-predictions/grpo")
    jsonl.write_json("models/grpo/report.json", {"rows": 9})
    code, out = ready.run("stages.choose")
    assert code == 0 and "choose grpo: grpo wins (right 4 → 10 of 10" in out, out
    found = shipped()[0]
    assert (found["ship"], found["valid"]["grpo"], found["valid"]["only_grpo"]) == ("grpo", 10, 6)
    longer = answers(questions(10), "r" * 9 + "e")
    own = {"id": "own", "answer": "", **TOKENS}
    jsonl.write_jsonl("data/5-predictions/grpo/valid.jsonl", [*longer, own])
    jsonl.write_jsonl(
        "data/5-predictions/sft/valid.jsonl", [*answers(questions(10), "r" * 2 + "l" * 8), own]
    )
    out = ready.run("stages.choose")[1]
    assert "choose sft: grpo wins (" in out and "fails a check on more rows: language 0 → 1" in out
    jsonl.write_json("models/grpo/report.json", {"rows": 0})
    says = "choose sft: grpo has learnt nothing: no input was right sometimes → models/student\n"
    assert ready.run("stages.choose") == (0, says)


def test_gkd_ships_where_it_wins_and_not_where_its_teacher_was_no_better(ready: Project) -> None:
    ready.set(models=["base", "sft", "gkd"])
    Path("models/dpo").rename("models/gkd")
    Path("data/5-predictions/dpo").rename("data/5-predictions/gkd")
    jsonl.write_json("models/gkd/report.json", {"rows": 9})
    code, out = ready.run("stages.choose")
    assert code == 0 and "choose gkd: gkd wins (right 4 → 10 of 10" in out, out
    assert shipped()[0]["valid"]["only_gkd"] == 6 and shipped()[1] == "dpo"
    jsonl.write_json("models/gkd/report.json", {"rows": 0})
    why = "gkd has learnt nothing: its teacher is no better than the student"
    assert ready.run("stages.choose") == (0, f"choose sft: {why} → models/student\n")
    assert shipped() == ({"ship": "sft", "why": why, "valid": None}, "sft")


def test_rows_that_have_chosen_a_checkpoint_do_not_choose_the_student(ready: Project) -> None:
    """Without the last five, which only dpo has right, it does not win."""
    jsonl.write_jsonl("data/4-scoring/rows.jsonl", questions(10)[5:])
    code, out = ready.run("stages.choose")
    assert code == 0, out
    assert "11 to validate on, 1 of them your own, not judged, 5 have chosen a checkpoint\n" in out
    assert "choose sft: dpo has more rows right, but within the noise (right 4 → 5 of 5 " in out


def test_without_dpo_the_sft_student_ships(ready: Project) -> None:
    ready.set(models=["base", "sft"])
    for path in ("data/5-predictions/sft/valid.jsonl", "data/5-predictions/dpo/valid.jsonl"):
        Path(path).unlink()
    assert ready.run("stages.choose") == (
        0,
        "choose sft: models has no dpo, no grpo and no gkd → models/student\n",
    )
    assert shipped() == (
        {"ship": "sft", "why": "models has no dpo, no grpo and no gkd", "valid": None},
        "sft",
    )


def test_predictions_of_other_rows_are_refused(ready: Project) -> None:
    path = Path("data/5-predictions/dpo/valid.jsonl")
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
    code, out = ready.run("stages.choose")
    assert code == 1
    assert out == (
        f"error: {path}: not one answer to each row that was asked: "
        "run `dvc repro -f predict@dpo`\n"
    )
    assert not Path("models/student").exists()


def test_the_verdict_and_the_test_rows_stand_in_the_metrics(toy: settings.Task) -> None:
    asked = [{**row, "slice": "a", "expected": None} for row in questions(10)]
    given = {model: answers(asked, "r" * 4 + "l" * 6) for model in ("base", "sft", "teacher")}
    given["dpo"] = answers(asked, "r" * 10)
    found = score.metrics(toy, asked, score.marked(toy, asked, given))
    assert (found["sft"]["right"], found["dpo"]["right"]) == (4, 10)
    assert [line.split()[0] for line in score.table(found).splitlines()] == [
        "teacher",
        "base",
        "sft",
        "dpo",
    ]
    both = choose.compare(toy, asked, given["sft"], given["dpo"])
    schema = json.loads((ROOT / "schemas/metrics.json").read_text())
    from jsonschema import Draft202012Validator

    other = choose.compare(toy, asked, given["sft"], given["dpo"], "grpo")
    third = choose.compare(toy, asked, given["sft"], given["dpo"], "gkd")
    for name, comparison in (("dpo", both), ("grpo", other), ("gkd", third)):
        found["ship"] = {"ship": name, "why": "…", "valid": comparison, "test": comparison}
        assert list(Draft202012Validator(schema).iter_errors(found)) == []
