"""Preferences: four sources, each counted, what does not differ in quality dropped, lengths
balanced; the stages sample and pairs."""

import json
import sys
from typing import Any

import pytest
from aiohttp import web

from potstill.core import jsonl
from potstill.dataset import own_rows, preferences, reviews
from potstill.dataset.preferences import Candidate
from potstill.inference import engine
from potstill.task import settings
from stages import sample
from tests import fakes
from tests.conftest import FakeTeacher, Project, completion

BAD = {
    "0": '{"word": "wrong", "length": 1}',
    "1": "no JSON at all",
    "2": "   ",
    "3": "good",
    "4": "good",
}


@pytest.fixture
def bad(project: Project, fake: FakeTeacher) -> Project:
    """A split project whose teacher answers the bad prompt by the last digit of the word: badly,
    with nothing, or well."""

    async def behave(
        number: int, body: dict[str, object], request: web.Request
    ) -> web.StreamResponse | None:
        messages = body["messages"]
        assert isinstance(messages, list)
        if "wrong word" not in messages[0]["content"]:
            return None
        assert "response_format" not in body  # a bad answer need not be JSON
        answer = BAD[str(int(messages[-1]["content"][-1]) % 5)]
        return None if answer == "good" else web.json_response(completion(answer))

    project.write("prompts/rejected.md", "You find a wrong word.\n")
    project.set(teacher_model="fake-235b")
    project.write("data/gold.jsonl", "")
    project.seeds(120, alike=False)
    for stage in ("generate", "filter", "split"):
        code, said = project.run(f"stages.{stage}", **fake.env())
        assert code == 0, said
    fake.behave = behave
    return project


def test_the_stage_asks_for_bad_answers_and_accounts_for_each(
    bad: Project, fake: FakeTeacher
) -> None:
    bad.set(pairs_rows=40)
    code, said = bad.run("stages.pairs", **fake.env())
    assert code == 0, said
    found = {row["id"]: row for row in bad.read("4-pairs/pairs.jsonl")}
    lessons = bad.read("4-train.jsonl")
    assert len(bad.read("4-pairs/rejected.jsonl")) == 40
    report = json.loads((bad.dir / "data/4-pairs/report.json").read_text())
    possible = 0
    for lesson in lessons[:40]:
        *prompt, best = lesson["messages"]
        answer = BAD[str(int(prompt[-1]["content"][-1]) % 5)]
        if answer == "good" or not answer.strip():
            assert lesson["id"] not in found
            continue
        possible += 1
        if pair := found.get(lesson["id"]):
            form = answer.replace(" ", "") if answer.startswith("{") else answer
            assert (pair["prompt"], pair["chosen"], pair["rejected"]) == (
                prompt,
                best["content"],
                form,
            )
            assert pair["prompt"][0]["content"] == "last word"
    source = report["sources"]["prompt"]
    assert source["dropped"]["as good"] > 5
    assert source["dropped"].get("empty", 0) + source["dropped"].get("refused", 0) > 2
    assert len(found) == source["pairs"] == possible - source["dropped"].get("length", 0) > 5
    assert source["in"] == 40 == source["pairs"] + sum(source["dropped"].values())
    assert (
        f"pairs: {len(found)} preferences, of 120 answers (120 kept, 0 dropped), "
        f"{len(lessons)} training rows, " in said
    )
    assert own_rows.violations("preferences", next(iter(found.values()))) == []


def test_a_task_without_the_prompt_asks_for_nothing(bad: Project, fake: FakeTeacher) -> None:
    (bad.dir / "prompts/rejected.md").unlink()
    before = len(fake.calls)
    code, said = bad.run("stages.pairs", **fake.env())
    assert (code, len(fake.calls)) == (0, before)
    assert "pairs: 0 preferences, of " in said
    assert sorted(path.name for path in (bad.dir / "data/4-pairs").iterdir()) == ["report.json"]


@pytest.fixture
def toy(project: Project) -> settings.Task:
    """A task of plain words: a good answer has at most six characters, none of them Latin."""
    project.write("task.yaml", "checks: [exact_match, {max_chars: {limit: 6}}, language]\n")
    return settings.load()


def lessons(*ids: str) -> tuple[list[jsonl.Row], list[jsonl.Row]]:
    """Rows of 4-train.jsonl and 3-kept.jsonl; the answer to each is 春夏秋冬."""
    turns = [{"role": "user", "content": "写"}, {"role": "assistant", "content": "春夏秋冬"}]
    kept = [{"id": id, "text": "写", "output": "春夏秋冬"} for id in ids]
    return [{"id": id, "messages": turns} for id in ids], kept


def made(
    t: settings.Task, ids: str, **sources: list[Candidate]
) -> tuple[list[jsonl.Row], dict[str, Any]]:
    train, kept = lessons(*ids)
    return preferences.made(
        t, train, [*(row for row in kept if row["id"] != "o"), *lessons("v")[1]], sources
    )


@pytest.mark.parametrize(
    ("candidate", "reason"),
    [
        (Candidate("1", "abcd"), None),
        (
            Candidate("1", "春夏秋秋"),
            None,
        ),  # passes but for exact_match, to which the kept answer is what is expected
        (Candidate("1", "春夏 秋冬"), "as good"),
        (Candidate("1", " "), "empty"),
        (Candidate("v", "abcd"), "not trained on"),  # a validation row
        (Candidate("2", "abcd"), "not trained on"),  # no answer was kept
        (Candidate("o", "abcd"), "own row"),  # of messages.jsonl: no input to judge by
        (Candidate("1", "abcd", fault="cut off"), "cut off"),
        (
            Candidate("1", "春天", "夏天", ranked=True),
            None,
        ),  # a person says which is better; no check need fail
        (Candidate("1", "春天", "summer", ranked=True), "chosen fails"),
        (Candidate("1", "春夏", "春夏 ", ranked=True), "as good"),
    ],
)
def test_a_pair_is_a_good_answer_and_a_worse_one(
    toy: settings.Task, candidate: Candidate, reason: str | None
) -> None:
    found, report = made(toy, "1o", student=[candidate])
    assert len(found) == (reason is None)
    assert report["sources"]["student"] == {
        "in": 1,
        "pairs": len(found),
        "dropped": {reason: 1} if reason else {},
    }


def test_the_worse_answer_has_the_form_of_what_is_trained_on(project: Project) -> None:
    """An object of the teacher has spaces, what is trained on has none: that must not tell one from
    the other."""
    t = settings.load()
    lesson = {
        "id": "1",
        "messages": [
            {"role": "user", "content": "a b"},
            {"role": "assistant", "content": '{"word":"b"}'},
        ],
    }
    kept = {"id": "1", "text": "a b", "output": {"word": "b", "length": 1}}
    given = [Candidate("1", '{"word": "é", "length":  1}', '{"word": "b", "length": 1}')]
    [found], _ = preferences.made(t, [lesson], [kept], {"person": given})
    assert (found["chosen"], found["rejected"]) == (
        '{"word":"b","length":1}',
        '{"word":"é","length":1}',
    )


def test_of_one_input_a_source_gives_one_pair_and_no_text_comes_twice(toy: settings.Task) -> None:
    found, report = made(
        toy,
        "12",
        teacher=[Candidate("1", "abcd"), Candidate("1", "efgh")],
        student=[Candidate("1", "ab cd"), Candidate("1", "ijkl"), Candidate("2", "abcd")],
    )
    assert [(row["id"], row["sample"], row["source"], row["rejected"]) for row in found] == [
        ("1", 0, "teacher", "abcd"),
        ("1", 1, "student", "ijkl"),
        ("2", 0, "student", "abcd"),
    ]
    assert report["sources"] == {
        "teacher": {"in": 2, "pairs": 1, "dropped": {"spare": 1}},
        "student": {"in": 3, "pairs": 2, "dropped": {"twice": 1}},
    }
    assert all(row["chosen"] == "春夏秋冬" and len(row["prompt"]) == 1 for row in found)


def pair(chosen: int, rejected: int) -> jsonl.Row:
    return {"chosen": "好" * chosen, "rejected": "坏" * rejected}


@pytest.mark.parametrize(
    ("given", "left"),
    [
        ([(10, 10), (10, 12), (10, 8)], [0, 1, 2]),  # even already
        ([(10, 10), (10, 40), (10, 11), (10, 20)], [0, 2]),  # the longest rejected go first
        ([(40, 10), (10, 10), (10, 9)], [1, 2]),  # and the longest chosen
        ([(10, 30)], []),
        ([], []),
    ],
)
def test_lengths_are_balanced_by_leaving_out_what_differs_most(
    given: list[tuple[int, int]], left: list[int]
) -> None:
    some = [pair(*one) for one in given]
    assert preferences.balanced(some) == [some[place] for place in left]


def test_lengths_are_reported_before_and_after(toy: settings.Task) -> None:
    candidates = [Candidate(id, "abcd" * (9 if id == "3" else 1)) for id in "123"]
    _, report = made(toy, "123", prompt=candidates)
    assert report["chars"] == {
        "before": {"pairs": 3, "chosen": 4.0, "rejected": 14.7},
        "after": {"pairs": 2, "chosen": 4.0, "rejected": 4.0},
    }
    assert report["sources"]["prompt"] == {"in": 3, "pairs": 2, "dropped": {"length": 1}}
    assert preferences.table(report) == [
        "source          in   pairs  dropped",
        "prompt           3       2  1 length",
        "characters, chosen to rejected: 4.0 to 14.7; balanced: 4.0 to 4.0",
    ]


def test_what_the_teacher_failed_is_a_candidate_and_what_was_not_judged_is_none() -> None:
    reasons = [
        "language: Latin",
        "json: no",
        "review: rejected",
        "spare: sample 1 is kept",
        "near_duplicate: of 1",
    ]
    dropped = [
        {"id": str(i), "sample": 0, "reason": reason, "answer": "a"}
        for i, reason in enumerate(reasons)
    ]
    found = preferences.from_teacher(
        [*dropped, {"id": "9", "sample": 0, "reason": "finish_reason: length", "answer": "a"}]
    )
    assert found == [Candidate("0", "a"), Candidate("1", "a"), Candidate("2", "a", ranked=True)]


def test_rankings_of_a_person_become_candidates() -> None:
    said = reviews.Reviews()
    texts = ("好", "更好", "坏")
    hashes = [reviews.answer_hash(text) for text in texts]
    said.add({"id": "1", "answers": [hashes[0], hashes[1]], "verdict": "b"})
    said.add({"id": "2", "answers": [hashes[0], hashes[2]], "verdict": "a"})
    said.add({"id": "3", "answers": [hashes[0], hashes[2]], "verdict": "tie"})
    said.add({"id": "4", "answers": [hashes[0], hashes[2]], "verdict": "b"})
    answers = [{"id": id, "answer": text} for id in "123" for text in texts] + [
        {"id": "4", "answer": "好"}
    ]
    found = preferences.from_person(said, answers)
    assert [(one.id, one.chosen, one.rejected, one.fault) for one in found if not one.fault] == [
        ("1", "更好", "好", None),
        ("2", "好", "坏", None),
    ]
    assert {one.id: one.fault for one in found if one.fault} == {"3": "tie", "4": "no longer there"}
    assert all(one.ranked for one in found)


def test_the_student_answers_its_training_inputs_only_where_there_is_a_dpo(
    bad: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[Any] = []

    def draw(
        model: str, batches: list[list[Any]], *rest: Any, **sampling: Any
    ) -> list[list[jsonl.Row]]:
        asked.append((model, len(batches[0]), batches[0][0], sampling))
        return [
            [
                {"answer": f"a{i}", "finish_reason": "stop"}
                for i in range(len(batches[0]) * sampling["n"])
            ]
        ]

    monkeypatch.setattr(engine, "predict", draw)
    monkeypatch.setattr(sys, "argv", ["sample"])
    sample.main()
    files = [path.name for path in (bad.dir / "data/4-samples").iterdir()]
    assert (files, asked) == (["report.json"], [])
    assert (
        capsys.readouterr().out == "sample: nothing to do, models has no dpo, no grpo and no gkd\n"
    )
    fakes.model("models/sft/merged")
    bad.set(models=["base", "sft", "dpo"], pairs_rows=3, pairs_samples=2, pairs_temperature=0.7)
    sample.main()
    train = bad.read("4-train.jsonl")
    found = bad.read("4-samples/samples.jsonl")
    assert asked == [
        (
            "models/sft/merged",
            3,
            train[0]["messages"][:-1],
            {"n": 2, "temperature": 0.7, "seed": 42},
        )
    ]
    assert [(row["id"], row["sample"], row["answer"]) for row in found] == [
        (train[i]["id"], k, f"a{2 * i + k}") for i in range(3) for k in range(2)
    ]
    assert preferences.from_student([{**found[0], "finish_reason": "length"}, found[1]]) == [
        Candidate(train[0]["id"], "a0", fault="cut off"),
        Candidate(train[0]["id"], "a1"),
    ]
