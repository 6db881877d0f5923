"""`make trace`: one row's life, however far the pipeline has run; an id that is none or several is
one sentence."""

import json
import re
from pathlib import Path

import pytest

from potstill.commands import trace
from potstill.core import jsonl
from potstill.core.errors import UserError
from potstill.core.jsonl import Row
from potstill.dataset import reviews
from potstill.task import settings
from tests.conftest import Project

GOOD, BAD = '{"word": "word0", "length": 5}', '{"word": "no", "length": 2}'
DATA = Path("data")


def answer(id: str, text: str, sample: int = 0, **more: object) -> Row:
    paid = {
        "model": "m",
        "finish_reason": "stop",
        "prompt_tokens": 1700,
        "completion_tokens": 3,
        "error": None,
    }
    return {"id": id, "sample": sample, "answer": text, **paid, **more}


@pytest.fixture
def seeds(project: Project) -> list[Row]:
    """Six seeds and nothing else yet."""
    found = project.seeds(6)
    (DATA / "1-inputs.jsonl").unlink(missing_ok=True)
    return found


def told(prefix: str) -> list[str]:
    """The story in lines, each with one blank between its words."""
    story = "\n".join(trace.story(settings.load(), prefix))
    return [" ".join(line.split()) for line in story.split("\n")]


def test_a_seed_alone_has_a_story(seeds: list[Row]) -> None:
    id = seeds[2]["id"]
    assert told(id[:6]) == [
        f"row {id}, task toy",
        "seed data/seeds.jsonl:3",
        f"text {seeds[2]['text']}",
        "→ system You find the last word. Answer with JSON only.",
        f"→ user {seeds[2]['text']}",
        "answers none yet: run `dvc repro generate`",
    ]


def test_each_answer_has_its_checks_its_review_and_its_end(seeds: list[Row]) -> None:
    id = seeds[0]["id"]
    grown = {"id": "0" * 16, "text": "the word0", "category": "short", "family": id}
    jsonl.write_jsonl(DATA / "1-inputs.jsonl", [*seeds, grown])
    texts = [GOOD, BAD, "broken", ""]
    found = [answer(id, text, i) for i, text in enumerate([*texts, "late"])]
    found[3] |= {
        "error": "400: content policy",
        "finish_reason": None,
        "prompt_tokens": None,
        "completion_tokens": None,
    }
    jsonl.write_jsonl(DATA / "2-answers.jsonl", found)
    story = told(id)
    assert story.count("not filtered yet: run `dvc repro filter`") == 5
    jsonl.write_jsonl(
        DATA / "3-kept.jsonl",
        [{**seeds[0], "family": id, "sample": 1, "output": {"word": "word0"}}],
    )
    dropped = [
        (0, "spare: a person edited another"),
        (2, "json: Expecting value"),
        (3, "refused: 400: content policy"),
    ]
    ends = [
        {"id": id, "sample": sample, "reason": reason, "answer": ""} for sample, reason in dropped
    ]
    jsonl.write_jsonl(DATA / "3-dropped.jsonl", ends)
    said = {
        "id": id,
        "answer": reviews.answer_hash(BAD),
        "verdict": "edit",
        "output": GOOD,
        "by": "Li",
    }
    reviews.append(DATA / reviews.FILE, said)
    reviews.append(
        DATA / reviews.FILE,
        {"id": id, "answer": reviews.answer_hash("broken"), "verdict": "reject"},
    )
    story = told(id)
    assert story[story.index(f"answer 0 {GOOD}") :] == [
        f"answer 0 {GOOD}",
        "m, 1,700 + 3 tokens, finish reason stop",
        "check json_schema: passed",
        "check grounded: passed",
        "dropped: spare: a person edited another",
        f"answer 1 {BAD}",
        "m, 1,700 + 3 tokens, finish reason stop",
        "check json_schema: passed",
        "check grounded: failed (word)",
        f"review: edited by Li: {GOOD}",
        "kept",
        "answer 2 broken",
        "m, 1,700 + 3 tokens, finish reason stop",
        "check json_schema: failed (json: Expecting value)",
        "check grounded: failed (json: Expecting value)",
        "review: rejected",
        "dropped: json: Expecting value",
        "answer 3",
        "m, 0 + 0 tokens, finish reason None",
        "refused: 400: content policy",
        "dropped: refused: 400: content policy",
        "answer 4 late",  # since the last run of filter
        "m, 1,700 + 3 tokens, finish reason stop",
        "check json_schema: failed (json: Expecting value)",
        "check grounded: failed (json: Expecting value)",
        "not filtered yet: run `dvc repro filter`",
        "split on no side: not split yet (`dvc repro split`), "
        "or beyond split.train_rows of params.yaml",
    ]
    grown_story = told("0" * 16)
    assert {"input data/1-inputs.jsonl:7", f"family {id}", "category short"} < set(grown_story)
    assert not any(line.startswith("seed") for line in grown_story)


def test_an_answer_of_text_is_judged_as_a_training_row_is(project: Project) -> None:
    project.write("task.yaml", "checks: [{max_chars: {limit: 9, train: {limit: 2}}}]\n")
    seeds = project.seeds(1)
    jsonl.write_jsonl(DATA / "2-answers.jsonl", [answer(seeds[0]["id"], "三个字")])
    assert "check max_chars: failed (3 characters, at most 2)" in told(seeds[0]["id"])


@pytest.mark.parametrize("side", ["train", "valid"])
def test_a_learnt_row_names_its_side_and_its_lesson(seeds: list[Row], side: str) -> None:
    chat = [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]
    jsonl.write_jsonl(
        DATA / f"4-{side}.jsonl",
        [{"id": "own1", "messages": chat}, {"id": seeds[0]["id"], "messages": chat}],
    )
    assert told(seeds[0]["id"])[-3:] == [
        f"split {side}, data/4-{side}.jsonl:2",
        "user x",
        "assistant y",
    ]
    assert told("own1") == [
        "row own1, task toy",
        f"split {side}, data/4-{side}.jsonl:1",
        "user x",
        "assistant y",
    ]


def test_a_test_row_has_what_each_model_said(seeds: list[Row]) -> None:
    gold = {"id": "ab" * 8, "text": "the word0", "slice": "s", "gold": json.loads(GOOD)}
    jsonl.write_jsonl(DATA / "gold.jsonl", [gold])
    jsonl.write_jsonl(
        DATA / "4-test.jsonl",
        [{"id": "ab" * 8, "text": "the word0", "slice": "s", "expected": gold["gold"]}],
    )
    assert told("ab")[-1] == "models no predictions yet: run `dvc repro`"
    for model, text in (("base", ""), ("sft", GOOD), ("teacher", BAD)):
        jsonl.write_jsonl(DATA / f"5-predictions/{model}/test.jsonl", [answer("ab" * 8, text)])
    story = told("ab")
    assert story[:2] == [f"row {'ab' * 8}, task toy", "gold data/gold.jsonl:1"]
    assert story[story.index("split test, data/4-test.jsonl:1") :] == [
        "split test, data/4-test.jsonl:1",
        f"expected {GOOD}",
        "base wrong; json: Expecting value",
        "(no answer)",
        "sft right",
        GOOD,
        "teacher wrong; grounded: word",
        BAD,
    ]


@pytest.mark.parametrize(
    ("prefix", "message"),
    [
        (
            "",
            "^ID is '', expected a row's id or how it begins, such as `make trace ID=[0-9a-f]{8}`$",
        ),
        ("zz", r"^no row of task toy has an id that begins with 'zz': ids stand in data/\*.jsonl$"),
        ("twin", r"^2 ids begin with 'twin', such as twin1 and twin2: give more of it$"),
    ],
)
def test_an_id_that_is_none_or_several(seeds: list[Row], prefix: str, message: str) -> None:
    jsonl.write_jsonl(
        DATA / "gold.jsonl",
        [{"id": id, "text": id, "slice": "s", "gold": {}} for id in ("twin1", "twin2")],
    )
    with pytest.raises(UserError, match=message):
        told(prefix)


def test_a_whole_id_wins_over_a_longer_one(seeds: list[Row]) -> None:
    jsonl.write_jsonl(DATA / "seeds.jsonl", [{"id": id, "text": id} for id in ("a", "ab")])
    assert told("a")[0] == "row a, task toy"


def test_files_that_are_empty_or_missing(project: Project) -> None:
    for name in trace.FILES:
        project.write(f"data/{name}.jsonl", "")
    with pytest.raises(UserError, match=r"ID is 'a', .* begins: data has no rows yet$"):
        told("a")


def test_the_teacher_cannot_write_to_the_terminal(seeds: list[Row]) -> None:
    jsonl.write_jsonl(
        DATA / "2-answers.jsonl",
        [answer(seeds[0]["id"], "\x1b[2Jgone\u202e\r\t中\u2028\u3164\nnext")],
    )
    out = "\n".join(trace.story(settings.load(), seeds[0]["id"]))
    assert "\\x1b[2Jgone\\u202e\\r\t中\\u2028\\u3164\n          next" in out
    assert not re.findall("[\x00-\x08\x0b-\x1f\u202e\u2028\u3164]", out)


def test_the_command(seeds: list[Row], project: Project) -> None:
    code, out = project.run("potstill", "trace", seeds[0]["id"][:8])
    assert (code, out.splitlines()[0]) == (0, f"row       {seeds[0]['id']}, task toy")
    code, out = project.run("potstill", "trace", "zz")
    assert (code, out[:26]) == (1, "error: no row of task toy ")
