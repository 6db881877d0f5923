"""The inputs that a reinforcement teaches something, and its reward."""

import json

import pytest

from potstill.core import jsonl
from potstill.core.errors import UserError
from potstill.dataset import frozen, sometimes
from potstill.task import settings
from tests.conftest import Project

CHECKS = "checks: [json_schema, exact_match, {grounded: {fields: {word: ''}}}]\n"


@pytest.fixture
def task(project: Project) -> settings.Task:
    text = (project.dir / "task.yaml").read_text()
    project.write("task.yaml", text[: text.index("checks:")] + CHECKS)
    return settings.load()


ROW = {"text": "a word", "expected": {"word": "word", "length": 4}}


@pytest.mark.parametrize(
    ("answer", "worth"),
    [
        ('{"word": "word", "length": 4}', 1.0),
        ('{"word": "word", "length": 5}', (1 + 0.5 + 1) / 3 / 2),  # half of the values are right
        ('{"word": "other", "length": 5}', (1 + 0 + 0) / 3 / 2),
        ('{"word": "word"}', (0 + 0.5 + 1) / 3 / 2),
        ("word", 0.0),
    ],
)
def test_half_of_the_reward_is_passing_every_check(
    task: settings.Task, answer: str, worth: float
) -> None:
    assert frozen.reward(task, ROW, answer) == pytest.approx(worth)


def test_what_cannot_be_judged_counts_for_nothing(task: settings.Task) -> None:
    answer = '{"word": "word", "length": 9}'
    assert frozen.reward(task, {"text": "a word"}, answer) == 1.0
    assert not frozen.right(task, {"text": "a word"}, answer)


def sample(id: str, answer: str, reason: str = "stop") -> jsonl.Row:
    return {"id": id, "answer": answer, "finish_reason": reason}


def test_an_input_is_learnt_where_some_answers_are_right_and_others_not(
    task: settings.Task,
) -> None:
    right, wrong = '{"word":"b","length":1}', '{"word":"b","length":2}'
    output = {"word": "b", "length": 1}
    turns = [{"role": "user", "content": "a b"}, {"role": "assistant", "content": right}]
    drawn = {
        "always": [right, right],
        "never": [wrong, "no"],
        "sometimes": [right, wrong],
        "own": [right, wrong],
    }
    lessons = [{"id": id, "messages": turns} for id in (*drawn, "not asked")]
    kept = [{"id": id, "text": "a b", "output": output} for id in drawn if id != "own"]
    samples = [sample(id, answer) for id, answers in drawn.items() for answer in answers]
    found, counts = sometimes.inputs(task, lessons, kept, samples)
    assert counts == {"always": 1, "never": 1, "sometimes": 1, "own": 1}
    row = {"text": "a b", "expected": output}
    assert found == [{"id": "sometimes", "messages": turns[:1], "row": row, "right": 1, "of": 2}]
    assert sometimes.said(counts) == (
        "of 4 inputs the student has 1 right sometimes (1 always, 1 never, 1 are your own messages)"
    )
    cut = [sample("always", right), sample("always", right, "length")]
    assert [row["id"] for row in sometimes.inputs(task, lessons, kept, cut)[0]] == ["always"]


def test_a_check_is_held_out_of_the_reward(task: settings.Task) -> None:
    answer = '{"word": "other", "length": 4}'
    row = {"text": "a word", "expected": {"word": "other", "length": 4}}
    without = sometimes.rewarding(task, "grounded")
    assert frozen.reward(task, row, answer) < frozen.reward(without, row, answer) == 1.0
    assert frozen.reward(sometimes.rewarding(task, None), row, answer) == frozen.reward(
        task, row, answer
    )
    for name in ("regex", "json_schema"):
        with pytest.raises(
            UserError, match=f"^params.yaml: grpo.held_out is {name}, expected null"
        ):
            sometimes.rewarding(task, name)


def test_pairs_writes_the_inputs_and_what_judges_them(
    project: Project, task: settings.Task
) -> None:
    output = {"word": "b", "length": 1}
    row = {"id": "x", "text": "a b"}
    turns = [{"role": "user", "content": "a b"}, {"role": "assistant", "content": "{}"}]
    jsonl.write_jsonl("data/4-train.jsonl", [{"id": "x", "messages": turns}])
    jsonl.write_jsonl("data/3-kept.jsonl", [row | {"output": output}])
    answers = [json.dumps(output), '{"word":"a","length":1}']
    samples = [sample("x", one) | {"sample": i} for i, one in enumerate(answers)]
    jsonl.write_jsonl("data/4-samples/samples.jsonl", samples)
    project.set(models=["base", "sft", "grpo"], grpo_held_out="grounded")
    code, said = project.run("stages.pairs")
    assert code == 0, said
    assert said.endswith(
        "grpo: of 1 inputs the student has 1 right sometimes (0 always, 0 never)\n"
    )
    [found] = project.read("4-pairs/inputs.jsonl")
    assert (found["right"], found["of"]) == (1, 2)
    judge = frozen.thaw(jsonl.read_json("data/4-pairs/checks.json"))
    assert [frozen.right(judge, found["row"], one) for one in answers] == [True, False]
    report = jsonl.read_json("data/4-pairs/report.json")
    assert report["grpo"] == {"always": 0, "never": 0, "sometimes": 1, "own": 0}
