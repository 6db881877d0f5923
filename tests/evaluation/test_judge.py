"""The judge: both orders, ties, failures unscored, through the teacher's client and journal; off
when offline."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from potstill.core import jsonl
from potstill.dataset import reviews
from potstill.evaluation import judge, score
from potstill.task import settings
from stages import judge as stage
from tests.conftest import FakeTeacher, Project, completion


@pytest.fixture
def toy(project: Project) -> settings.Task:
    """Six test rows; the base's answers are x, the student's yy, the teacher's zzz, but to the last
    row they are the same."""
    project.write("task.yaml", "checks: []\n")
    project.write("prompts/judge.md", "A: {{ a }}\nB: {{ b }}\nWhich is better?")
    tests = [
        {
            "id": jsonl.row_id({"text": f"line {i}"}),
            "text": f"line {i}",
            "slice": "a",
            "expected": None,
        }
        for i in range(6)
    ]
    jsonl.write_jsonl("data/4-test.jsonl", tests)
    for model, text in (("base", "x"), ("again", "x"), ("sft", "yy"), ("teacher", "zzz")):
        found = [
            {"id": test["id"], "answer": "same" if i == 5 else text} for i, test in enumerate(tests)
        ]
        jsonl.write_jsonl(
            f"data/5-predictions/{model}/test.jsonl",
            [{**row, "prompt_tokens": 1, "completion_tokens": 1} for row in found],
        )
    jsonl.write_jsonl(
        "data/1-inputs.jsonl", [{"id": test["id"], "text": test["text"]} for test in tests[:2]]
    )
    ranked = [
        {"id": test["id"], "sample": i, "answer": text}
        for test in tests[:2]
        for i, text in enumerate(("p", "qq"))
    ]
    jsonl.write_jsonl("data/2-answers.jsonl", ranked)
    for test, verdict in zip(tests[:2], "ba", strict=True):
        hashes = [reviews.answer_hash(text) for text in ("p", "qq")]
        reviews.append(
            "data/own/reviews.jsonl",
            {"id": test["id"], "answers": hashes, "verdict": verdict, "by": "Li", "at": "now"},
        )
    return settings.load()


def longer(body: dict[str, Any]) -> str:
    """The verdict of a judge who likes the longer answer."""
    a, b = (len(line[3:]) for line in body["messages"][0]["content"].splitlines()[:2])
    return json.dumps({"better": "a" if a > b else "b" if b > a else "tie"})


def run(monkeypatch: pytest.MonkeyPatch) -> list[jsonl.Row]:
    monkeypatch.setattr(sys, "argv", ["judge"])
    stage.main()
    return jsonl.read_some("data/5-judge/verdicts.jsonl")


def test_both_orders_are_asked_once_each_and_people_are_agreed_with(
    toy: settings.Task, project: Project, fake: FakeTeacher, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def behave(number: int, body: dict[str, Any], request: web.Request) -> web.StreamResponse:
        return web.json_response(completion(longer(body)))

    fake.behave = behave
    project.set(judge_model="fake-235b")
    found = run(monkeypatch)
    assert len(fake.calls) == 2 * (5 + 5 + 2)  # equal answers are no question
    assert {call["model"] for call in fake.calls} == {"fake-235b"}
    assert [row["verdict"] for row in found] == [1, -1] * 5 + [
        -1,
        -1,
    ]  # longer than base, shorter than the teacher; qq twice
    assert judge.table(toy) == [
        {
            "model": "sft",
            "against": "base",
            "rows": 5,
            "wins": 5,
            "losses": 0,
            "ties": 0,
            "unscored": 0,
        },
        {
            "model": "sft",
            "against": "teacher",
            "rows": 5,
            "wins": 0,
            "losses": 5,
            "ties": 0,
            "unscored": 0,
        },
        {
            "model": "human",
            "against": "human",
            "rows": 2,
            "wins": 1,
            "losses": 1,
            "ties": 0,
            "unscored": 0,
        },
    ]
    assert run(monkeypatch) == found
    assert len(fake.calls) == 24  # the journal has them


def test_a_judge_of_places_ties_and_a_babbler_is_unscored(
    toy: settings.Task, project: Project, fake: FakeTeacher, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def behave(number: int, body: dict[str, Any], request: web.Request) -> web.StreamResponse:
        against_teacher = "zzz" in body["messages"][0]["content"]
        return web.json_response(
            completion("I like both" if against_teacher else '{"better": "a"}')
        )

    fake.behave = behave
    project.set(judge_model="fake-235b")
    run(monkeypatch)
    base, teacher, human = judge.table(toy)
    assert (base["ties"], base["wins"], base["unscored"]) == (5, 0, 0)
    assert (teacher["ties"], teacher["rows"], teacher["unscored"]) == (0, 5, 5)
    assert (human["wins"], human["losses"]) == (0, 2)


@pytest.mark.parametrize("missing", ["model", "prompt"])
def test_it_is_off_without_a_model_or_a_prompt(
    toy: settings.Task,
    project: Project,
    fake: FakeTeacher,
    monkeypatch: pytest.MonkeyPatch,
    missing: str,
) -> None:
    if missing == "prompt":
        project.set(judge_model="fake-235b")
        Path("prompts/judge.md").unlink()
    assert run(monkeypatch) == []
    assert not fake.calls
    assert judge.table(toy) == []


@pytest.mark.parametrize(
    ("answer", "error", "verdict"),
    [
        ('{"better": "a"}', None, "a"),
        ('{"better": "tie"}', None, "tie"),
        ('{"better": "a"}', "400", None),
        ('{"better": "c"}', None, None),
        ("a", None, None),
        ("[]", None, None),
        ("", "refused", None),
        (None, None, None),
    ],
)
def test_a_reply_is_a_verdict_or_none(
    answer: str | None, error: str | None, verdict: str | None
) -> None:
    assert judge.better({"answer": answer, "error": error}) == verdict


def test_the_student_that_counts() -> None:
    assert score.student(dict.fromkeys(("base", "sft", "teacher"))) == "sft"
    assert score.student(dict.fromkeys(("base", "examples", "sft", "dpo", "teacher"))) == "dpo"
    assert score.student({"base": {}, "sft": {}, "dpo": {}, "ship": {"ship": "sft"}}) == "sft"
