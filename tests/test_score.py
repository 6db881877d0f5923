"""Scoring: from predictions to metrics.json and the three lines."""

import json
from pathlib import Path
from typing import Any

import pytest

from potstill import rows, score, task
from potstill.errors import UserError
from tests.conftest import Project

EXPECTED = {"word": "大理 市", "place": "25号"}
SCHEMA = {"type": "object", "properties": {"word": {"type": "string"}}, "required": ["word", "place"]}


@pytest.fixture
def toy(project: Project) -> task.Task:
    """A task of two keys whose headline is slice a."""
    project.write("schemas/toy.json", json.dumps({**SCHEMA, "additionalProperties": {"type": "string"}}))
    project.write("tasks/toy/task.yaml", "headline_slice: a\nchecks: [json_schema]\n")
    return task.load("toy")


def question(id: str, slice: str = "a") -> rows.Row:
    return {"id": id, "text": "", "slice": slice, "expected": EXPECTED}


def answer(text: object, id: str = "0") -> rows.Row:
    """A prediction row."""
    text = text if isinstance(text, str) else json.dumps(text, ensure_ascii=False)
    return {"id": id, "answer": text, "finish_reason": "stop", "prompt_tokens": 10, "completion_tokens": 4}


@pytest.mark.parametrize(
    ("text", "right", "valid", "schema", "keys"),
    [
        ({"word": "大理市", "place": "25 号"}, True, True, True, [True, True]),
        ({"place": "25号", "word": " 大理市\n"}, True, True, True, [True, True]),
        ({"word": "大理", "place": "25号"}, False, True, True, [False, True]),
        ({"word": "大理市"}, False, True, False, [True, False]),
        ({"word": "大理市", "place": "25号", "more": ""}, False, True, True, [True, True]),
        ({"word": "大理市", "place": 25}, False, True, False, [True, False]),
        ([{"word": "大理市", "place": "25号"}], False, True, False, [False, False]),
        ('{"word": "大理市", "place": "25号"', False, False, False, [False, False]),
        ('```json\n{"word": "大理市", "place": "25号"}\n```', False, False, False, [False, False]),
        ("null", False, True, False, [False, False]),
        ("", False, False, False, [False, False]),
    ],
)
def test_marks(toy: task.Task, text: object, right: bool, valid: bool, schema: bool, keys: list[bool]) -> None:
    found = score.mark(toy, question("0"), answer(text))
    assert (found["right"], found["valid_json"], found["schema_valid"]) == (right, valid, schema)
    assert list(found["keys"].values()) == keys


def test_metrics_hold_the_headline_slice_and_the_others_inside(toy: task.Task) -> None:
    tests = [question("0"), question("1"), question("2", "b"), question("3")]
    good, bad = {"word": "大理市", "place": "25号"}, {"word": "大理市", "place": "26号"}
    answers = [answer(text, str(i)) for i, text in enumerate([good, bad, good, "oops"])]
    found = score.metrics(toy, tests, dict.fromkeys(score.MODELS, answers))
    assert list(found) == ["rows", "base", "sft", "teacher"]
    assert found["rows"] == 3
    assert found["sft"] == {
        "accuracy": 0.3333,
        "right": 1,
        "wrong": 2,
        "valid_json": 0.6667,
        "schema_valid": 0.6667,
        "keys": {"word": 0.6667, "place": 0.3333},
        "prompt_tokens": 10,
        "completion_tokens": 4,
        "b": {
            "rows": 1,
            "accuracy": 1.0,
            "right": 1,
            "wrong": 0,
            "valid_json": 1.0,
            "schema_valid": 1.0,
            "keys": {"word": 1.0, "place": 1.0},
            "prompt_tokens": 10,
            "completion_tokens": 4,
        },
    }


def test_without_a_headline_all_rows_count(toy: task.Task, project: Project) -> None:
    project.write("tasks/toy/task.yaml", "checks: [json_schema]\n")
    tests = [question("0"), question("1", "b")]
    answers = [answer("{}", "0"), answer("{}", "1")]
    found = score.metrics(task.load("toy"), tests, dict.fromkeys(score.MODELS, answers))
    assert (found["rows"], found["base"]["wrong"]) == (2, 2)


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        ([answer("{}", "0")], "5-predictions-sft.jsonl: 1 rows, expected one for each of the 2 test rows"),
        ([answer("{}", "1"), answer("{}", "0")], "5-predictions-sft.jsonl:1: id is 1, expected 0"),
    ],
)
def test_an_unaccounted_row_fails(toy: task.Task, answers: list[rows.Row], message: str) -> None:
    with pytest.raises(UserError, match=message):
        score.metrics(toy, [question("0"), question("1")], {"sft": answers})


def test_a_headline_that_no_row_has(toy: task.Task) -> None:
    with pytest.raises(UserError, match="headline_slice is 'a', but the test rows' slices are b"):
        score.metrics(toy, [question("0", "b")], {"sft": [answer("{}")]})


def test_a_refused_answer_is_a_wrong_one(toy: task.Task) -> None:
    refused: dict[str, Any] = {"id": "0", "answer": "", "finish_reason": None, "prompt_tokens": None}
    found = score.mark(toy, question("0"), {**refused, "completion_tokens": None})
    assert (found["right"], found["prompt_tokens"]) == (False, 0)


def test_the_stage_prints_three_lines_the_cost_and_the_fit(toy: task.Task, project: Project) -> None:
    ids = [rows.row_id({"text": text}) for text in "ab"]
    tests = [question(id) | {"text": text} for id, text in zip(ids, "ab", strict=True)]
    rows.write_jsonl("data/toy/4-test.jsonl", tests)
    paid = {"key": "", "error": None}
    for model in score.MODELS:
        found = [answer("{}", ids[0]) | paid | {"key": "0"}, answer(EXPECTED, ids[1]) | paid | {"key": "1"}]
        rows.write_jsonl(f"data/toy/5-predictions-{model}.jsonl", found)
    rows.write_jsonl("data/toy/2-answers.jsonl", [answer("{}", "2") | paid | {"key": "2"}])
    rows.write_jsonl("data/toy/3-kept.jsonl", [{"id": "2"}])
    log = [{"step": i, "loss": 1 / (i + 1)} for i in range(8)] + [
        {"step": i, "eval_loss": 1 / (i + 1)} for i in range(8)
    ]
    rows.write_jsonl("models/toy/sft/adapter/logging.jsonl", log)
    code, out = project.run("stages.score")
    assert code == 0, out
    assert out.splitlines() == [
        "score: 1 answers of the teacher, 1 kept rows, 2 test rows",
        "teacher      2 rows      1 right      1 wrong   50.0%  the teacher",
        "base         2 rows      1 right      1 wrong   50.0%  before",
        "sft          2 rows      1 right      1 wrong   50.0%  after",
        "cost: 3 answers of the teacher, 30 + 12 tokens, prices unknown (teacher_price_in, teacher_price_out)",
        "fit: under-fitted; both losses were still falling: more epochs or a higher rank (advice only: the score decides)",
    ]
    reports = Path("reports/toy")
    names = {
        "metrics.json",
        "cost.json",
        "fit.json",
        "train_loss.csv",
        "eval_loss.csv",
        "train_loss.png",
        "eval_loss.png",
    }
    assert {path.name for path in reports.iterdir()} == names
    before = {path.name: path.read_bytes() for path in reports.iterdir()}
    assert project.run("stages.score")[0] == 0
    assert {path.name: path.read_bytes() for path in reports.iterdir()} == before


def test_the_cost_counts_each_request_once_and_no_failure() -> None:
    def paid(key: str, error: str | None = None) -> rows.Row:
        return answer("{}") | {"key": key, "error": error}

    answers = [paid("a"), paid("a"), paid("b"), paid("c", "400")]
    found = score.cost(answers, [paid("t")], 2, 1000.0, 5000.0)  # 10 and 4 tokens a request: 0.03 each
    assert found == {
        "answers": 3,
        "kept_rows": 2,
        "prompt_tokens": 30,
        "completion_tokens": 12,
        "spent": 0.09,
        "per_kept_row": 0.045,
        "per_request": 0.03,
        "break_even_requests": 3,
    }
    assert score.cost_line(found) == (
        "cost: 0.09 for 3 answers of the teacher (30 + 12 tokens), 0.045 a kept row; paid back after 3 requests"
    )


@pytest.mark.parametrize("prices", [(None, None), (1.0, None), (None, 1.0)])
def test_an_unknown_price_is_null_and_never_0(prices: tuple[float | None, float | None]) -> None:
    found = score.cost([answer("{}") | {"key": "a", "error": None}], [], 1, *prices)
    assert [found[name] for name in ("spent", "per_kept_row", "per_request", "break_even_requests")] == [None] * 4
    assert "prices unknown" in score.cost_line(found)
