"""The stage filter: in = out + dropped, each dropped answer with its reason, the best good sample
kept."""

import json
import os
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from potstill.core import jsonl
from potstill.core.errors import UserError
from potstill.core.jsonl import Row
from potstill.dataset import filtering, reviews
from stages import filter as stage
from tests.conftest import Project

GOOD = '{"length": 4, "word": "last"}'


def answer(
    id: str,
    text: str = GOOD,
    sample: int = 0,
    reason: str | None = "stop",
    error: str | None = None,
) -> Row:
    return {
        "id": id,
        "sample": sample,
        "key": "k",
        "answer": text,
        "finish_reason": reason,
        "error": error,
    }


def sift(
    inputs: dict[str, str], answers: list[Row], family: str | None = None
) -> tuple[list[Row], list[Row]]:
    """What the stage keeps and drops; each input is of a family of its own, or all are of one."""
    asked = ({"id": id, "text": text, "family": family or id} for id, text in inputs.items())
    jsonl.write_jsonl("data/1-inputs.jsonl", asked)
    jsonl.write_jsonl("data/2-answers.jsonl", answers)
    stage.main()
    dropped = Path("data/3-dropped.jsonl")
    return jsonl.read_jsonl("data/3-kept.jsonl"), jsonl.read_jsonl(
        dropped
    ) if dropped.stat().st_size else []


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (answer("b", "no JSON"), "json: Expecting value"),
        (answer("b", '{"word": "last"}'), "json_schema: answer: required"),
        (answer("b", '{"word": "first", "length": 5}'), "grounded: word"),
        (answer("b", '{"word": "first"}'), "json_schema: answer: required; grounded: word"),
        (answer("b", GOOD, reason="length"), "finish_reason: length"),
        (answer("b", "", reason="content_filter"), "finish_reason: content_filter"),
        (answer("b", "", reason=None, error="400: content policy"), "refused: 400: content policy"),
    ],
)
def test_every_fault_has_its_reason(
    project: Project, capsys: pytest.CaptureFixture[str], bad: Row, reason: str
) -> None:
    kept, dropped = sift({"a": "the last", "b": "and the last"}, [answer("a"), bad])
    output = {"word": "last", "length": 4}
    assert kept == [{"id": "a", "text": "the last", "family": "a", "sample": 0, "output": output}]
    assert list(kept[0]["output"]) == [
        "word",
        "length",
    ]  # the schema's order, whatever the teacher's
    assert dropped == [{"id": "b", "sample": 0, "reason": reason, "answer": bad["answer"]}]
    name = reason.split(":")[0]
    assert capsys.readouterr().out.splitlines() == [
        "filter: 2 answers = 1 kept + 1 dropped",
        f"  {name:20}          -1           1",
    ]
    funnel = json.loads(Path("data/3-funnel.json").read_text())
    assert funnel == {"stage": "filter", "inputs": 2, "in": 2, "kept": 1, "dropped": {name: 1}}


def test_of_equals_the_first_is_kept(project: Project) -> None:
    samples = ["broken", '{"word": "last", "length": 4}', '{"word": "last", "length": 5}', "broken"]
    kept, dropped = sift(
        {"a": "the last"}, [answer("a", text, i) for i, text in enumerate(samples)]
    )
    assert [row["output"]["length"] for row in kept] == [4]
    assert [(row["sample"], row["reason"].split(":")[0]) for row in dropped] == [
        (0, "json"),
        (2, "spare"),
        (3, "json"),
    ]


def test_an_input_that_comes_twice_is_kept_once(project: Project) -> None:
    inputs = {"a": "the last", "b": "the\tlast ", "c": "the\u3000last", "d": "The last"}
    kept, dropped = sift(inputs, [answer("a", "broken"), answer("b"), answer("c"), answer("d")])
    assert [row["id"] for row in kept] == [
        "d"
    ]  # not b: a twin of a dropped row would come and go with the teacher's luck
    assert [row["reason"] for row in dropped] == [
        "json: Expecting value",
        "duplicate: of a",
        "duplicate: of a",
    ]


# 31 characters: one of them changes three 3-grams of 29
LONG = "请写一段给老师的中秋节祝福，{}字左右，语气要温和一些，不要太长。"


@pytest.mark.parametrize(
    ("second", "family", "reason"),
    [
        (LONG.format(50).replace("温", "暖"), None, "near_duplicate: of a (0.82)"),
        (LONG.format(80), None, "near_duplicate: of a (0.82)"),
        (LONG.format(80), "seed", None),  # another length is another request
        (LONG.format(50).replace("温", "暖"), "seed", "near_duplicate: of a (0.82)"),
        (LONG.format(50).replace("，", ","), None, "near_duplicate: of a (1.00)"),
        ("请写一首关于端午节的小诗，押韵，不要超过八行，给孩子们朗读。", None, None),
    ],
)
def test_a_near_duplicate_goes(
    project: Project, second: str, family: str | None, reason: str | None
) -> None:
    project.write("task.yaml", "checks: []")
    inputs = {"a": LONG.format(50), "b": second}
    kept, dropped = sift(inputs, [answer("a", "好"), answer("b", "好")], family)
    assert [row["id"] for row in kept] == (["a"] if reason else ["a", "b"])
    assert [row["reason"] for row in dropped] == ([reason] if reason else [])
    project.set(near_duplicate=1.0)
    assert len(sift(inputs, [answer("a", "好"), answer("b", "好")], family)[0]) == (
        1 if reason and "1.00" in reason else 2
    )


TEXT_TASK = "checks: [length_within: {tolerance: 10, train: {tolerance: 2}}, ends_with: {text: 。}]"


def said(answer: str, verdict: str, **more: str) -> None:
    reviews.append(
        "data/own/reviews.jsonl",
        {"id": "a", "answer": reviews.answer_hash(answer), "verdict": verdict, **more},
    )


@pytest.mark.parametrize(
    ("lengths", "best"),
    [
        ([12, 11, 9], 1),  # the nearest, and of two the first
        ([13, 12], 1),  # 13 would do for the metric, not for training
        ([10, 10], 0),
    ],
)
def test_the_best_sample_is_kept(project: Project, lengths: list[int], best: int) -> None:
    project.write("task.yaml", TEXT_TASK)
    texts = ["字" * (length - 1) + "。" for length in lengths]
    kept, dropped = sift(
        {"a": "写10字的话"}, [answer("a", text, i) for i, text in enumerate(texts)]
    )
    assert [(row["sample"], row["output"]) for row in kept] == [(best, texts[best])]
    assert [row["sample"] for row in dropped] == [i for i in range(len(texts)) if i != best]


def test_training_rows_are_held_to_the_stricter_tolerance(project: Project) -> None:
    project.write("task.yaml", TEXT_TASK)
    with pytest.raises(UserError, match="no answer passes; the first fails by length_within"):
        sift({"a": "写10字的话"}, [answer("a", "字" * 12 + "。")])


OVERLONG, EXACT = "字" * 30, "字" * 9 + "。"


@pytest.mark.parametrize(
    ("verdicts", "kept", "reasons"),
    [
        ([], EXACT, ["length_within", "finish_reason"]),
        (
            [(OVERLONG, "accept")],
            OVERLONG,
            ["finish_reason", "spare"],
        ),  # the person wins, over checks and over distance
        (
            [(OVERLONG, "accept"), (OVERLONG, "reject")],
            EXACT,
            ["review", "finish_reason"],
        ),  # the last verdict counts
        ([("cut", "accept")], "cut", ["length_within", "spare"]),
        ([(OVERLONG, "edit", "改过的")], "改过的", ["finish_reason", "spare"]),
        ([(OVERLONG, "edit", " ")], EXACT, ["review: edit: text: empty", "finish_reason"]),
        ([(EXACT, "reject"), ("other", "accept")], None, None),
    ],
)
def test_a_person_counts_before_the_checks(
    project: Project, verdicts: list[tuple[str, ...]], kept: str | None, reasons: list[str] | None
) -> None:
    project.write("task.yaml", TEXT_TASK)
    for text, verdict, *output in verdicts:
        said(text, verdict, **({"output": output[0]} if output else {}))
    answers = [answer("a", OVERLONG, 0), answer("a", "cut", 1, "length"), answer("a", EXACT, 2)]
    if kept is None:
        with pytest.raises(UserError, match="no answer passes"):
            sift({"a": "写10字的话"}, answers)
        return
    found, dropped = sift({"a": "写10字的话"}, answers)
    assert [row["output"] for row in found] == [kept]
    assert all(
        row["reason"].startswith(reason) for row, reason in zip(dropped, reasons or [], strict=True)
    )


def ranked(better: str, worse: str, verdict: str = "a") -> None:
    two = [reviews.answer_hash(text) for text in (better, worse)]
    reviews.append("data/own/reviews.jsonl", {"id": "a", "answers": two, "verdict": verdict})


FAR, NEAR = "字" * 7 + "。", "字" * 8 + "。"  # 2 and 1 off; EXACT is none off


@pytest.mark.parametrize(
    ("rankings", "accepted", "kept"),
    [
        ([(NEAR, EXACT)], [], NEAR),
        ([(NEAR, EXACT), (FAR, NEAR)], [], FAR),
        ([(FAR, NEAR)], [], EXACT),  # nobody said anything of the nearest
        ([(NEAR, EXACT, "tie")], [], EXACT),
        ([(NEAR, EXACT), (EXACT, NEAR)], [], EXACT),  # the last verdict counts
        ([(OVERLONG, EXACT)], [], EXACT),  # what fails a check is not kept for its rank
        ([(NEAR, EXACT), (EXACT, FAR), (FAR, NEAR)], [], EXACT),  # in a circle
        ([(NEAR, EXACT)], [EXACT], EXACT),  # what is accepted comes first
        ([(NEAR, EXACT)], [EXACT, NEAR], NEAR),
    ],
)
def test_a_ranking_counts_where_both_answers_pass(
    project: Project, rankings: list[tuple[str, ...]], accepted: list[str], kept: str
) -> None:
    project.write("task.yaml", TEXT_TASK)
    for ranking in rankings:
        ranked(*ranking)
    for text in accepted:
        said(text, "accept")
    answers = [answer("a", text, i) for i, text in enumerate((EXACT, NEAR, FAR, OVERLONG))]
    found, dropped = sift({"a": "写10字的话"}, answers)
    assert [row["output"] for row in found] == [kept]
    assert [row["reason"].split(":")[0] for row in dropped] == ["spare", "spare", "length_within"]


def test_a_review_cannot_let_a_broken_form_through(project: Project) -> None:
    said('{"word": 1}', "accept")
    said("x", "edit", output='{"word": "last"}')
    answers = [answer("a", '{"word": 1}', 0), answer("a", "x", 1), answer("a", GOOD, 2)]
    kept, dropped = sift({"a": "the last"}, answers)
    assert [row["sample"] for row in kept] == [2]
    assert dropped[0]["reason"].startswith("json_schema:")
    assert dropped[1]["reason"].startswith("review: edit: json_schema:")


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        ("a", "2-answers.jsonl has 1 answers to 2 inputs, expected as many to each"),
        ("ba", "2-answers.jsonl:1: id is b, expected the text of an answer to a"),
        ("ac", "2-answers.jsonl:2: id is c, expected the text of an answer to b"),
        ("aab", "2-answers.jsonl has 3 answers to 2 inputs, expected as many to each"),
    ],
)
def test_answers_that_are_not_those_of_the_inputs(
    project: Project, ids: str, expected: str
) -> None:
    with pytest.raises(UserError, match=expected):
        sift({"a": "the last", "b": "at last"}, [answer(id) for id in ids])
    assert not Path("data/3-kept.jsonl").exists()


def test_many_answers_in_processes_give_the_same_files(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = {f"{i:03}": f"{i * 7919:x} comes {i} last" for i in range(100)}
    answers = [
        answer(id, GOOD if int(id) % 3 else "broken", sample)
        for id in inputs
        for sample in range(2)
    ]
    alone = sift(inputs, answers)
    made: list[int] = []

    class Counted(ProcessPoolExecutor):
        def __init__(self, count: int, *rest: Any, **more: Any) -> None:
            made.append(count)
            super().__init__(count, *rest, **more)

    monkeypatch.setattr(filtering, "ProcessPoolExecutor", Counted)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    monkeypatch.setattr(filtering, "PARALLEL", 1)
    monkeypatch.setattr(filtering, "INPUTS", 7)
    assert sift(inputs, answers) == alone
    assert made == [2] and len(alone[0]) == 66
    with pytest.raises(
        UserError, match=r"2-answers.jsonl:151: id is 000, expected the text of an answer to 075"
    ):
        sift(inputs, [*answers[:150], answers[0] | {"sample": 9}, *answers[151:]])


def test_when_nothing_passes_the_stage_fails_and_writes_nothing(project: Project) -> None:
    with pytest.raises(
        UserError,
        match=r"2-answers.jsonl: no answer passes; the first fails by json: Expecting value",
    ):
        sift({"a": "the last"}, [answer("a", "broken")])
    assert not (project.dir / "data/3-kept.jsonl").exists()


def test_rows_of_one_s_own_go_on_where_no_answer_passes(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    turns = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    jsonl.write_jsonl("data/own/messages.jsonl", [{"messages": turns}] * 2)
    jsonl.write_jsonl("data/1-inputs.jsonl", [{"id": "a", "text": "the last", "family": "a"}])
    jsonl.write_jsonl("data/2-answers.jsonl", [answer("a", "broken")])
    stage.main()
    assert project.read("3-kept.jsonl") == [] and len(project.read("3-dropped.jsonl")) == 1
    assert "no answer passes; the first fails by json" in capsys.readouterr().out
    for name in ("1-inputs.jsonl", "2-answers.jsonl"):
        project.write(f"data/{name}", "")
    stage.main()
    assert json.loads(Path("data/3-funnel.json").read_text())["inputs"] == 0
    project.write("data/own/messages.jsonl", "")
    with pytest.raises(
        UserError, match="have no rows: give inputs for the teacher or rows of your own"
    ):
        stage.main()


def test_a_check_with_nothing_to_judge_by_drops_nothing(project: Project) -> None:
    project.write("task.yaml", "checks: [exact_match]")
    kept, dropped = sift({"a": "the last"}, [answer("a", "好")])
    assert [row["output"] for row in kept] == ["好"] and not dropped


def test_keys_that_the_schema_does_not_name_stay(project: Project) -> None:
    project.write("schema.json", '{"type": "object", "properties": {"b": {}, "a": {}}}')
    project.write("task.yaml", "checks: [json_schema]")
    kept, _ = sift({"a": "the last"}, [answer("a", '{"c": 1, "a": 2, "b": 3}')])
    assert list(kept[0]["output"].items()) == [("b", 3), ("a", 2), ("c", 1)]
