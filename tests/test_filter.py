"""stages.filter: in = out + dropped, each dropped answer with its reason, the first good sample kept."""

from pathlib import Path

import pytest

from potstill import rows
from potstill.errors import UserError
from potstill.rows import Row
from stages import filter as stage
from tests.conftest import Project

GOOD = '{"length": 4, "word": "last"}'


def answer(id: str, text: str = GOOD, sample: int = 0, reason: str | None = "stop", error: str | None = None) -> Row:
    return {"id": id, "sample": sample, "key": "k", "answer": text, "finish_reason": reason, "error": error}


def sift(inputs: dict[str, str], answers: list[Row]) -> tuple[list[Row], list[Row]]:
    rows.write_jsonl("data/toy/seeds.jsonl", ({"id": id, "text": text} for id, text in inputs.items()))
    rows.write_jsonl("data/toy/2-answers.jsonl", answers)
    stage.main()
    dropped = Path("data/toy/3-dropped.jsonl")
    return rows.read_jsonl("data/toy/3-kept.jsonl"), rows.read_jsonl(dropped) if dropped.stat().st_size else []


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
    assert kept == [{"id": "a", "text": "the last", "output": {"word": "last", "length": 4}}]
    assert list(kept[0]["output"]) == ["word", "length"]  # the schema's order, whatever the teacher's
    assert dropped == [{"id": "b", "sample": 0, "reason": reason, "answer": bad["answer"]}]
    assert capsys.readouterr().out == f"filter: 2 answers = 1 kept + 1 dropped (1 {reason.split(':')[0]})\n"


def test_the_first_sample_that_passes_is_kept(project: Project) -> None:
    samples = ["broken", '{"word": "last", "length": 4}', '{"word": "last", "length": 5}', "broken"]
    kept, dropped = sift({"a": "the last"}, [answer("a", text, i) for i, text in enumerate(samples)])
    assert [row["output"]["length"] for row in kept] == [4]
    assert [(row["sample"], row["reason"].split(":")[0]) for row in dropped] == [
        (0, "json"),
        (2, "spare"),
        (3, "spare"),
    ]


def test_an_input_that_comes_twice_is_kept_once(project: Project) -> None:
    inputs = {"a": "the last", "b": "the\tlast ", "c": "the\u3000last", "d": "The last"}
    kept, dropped = sift(inputs, [answer("a", "broken"), answer("b"), answer("c"), answer("d")])
    assert [row["id"] for row in kept] == [
        "d"
    ]  # not b: a twin of a dropped row would come and go with the teacher's luck
    assert [row["reason"] for row in dropped] == ["json: Expecting value", "duplicate: of a", "duplicate: of a"]


def test_when_nothing_passes_the_stage_fails_and_writes_nothing(project: Project) -> None:
    with pytest.raises(UserError, match=r"2-answers.jsonl: no answer passes; the first fails by json: Expecting value"):
        sift({"a": "the last"}, [answer("a", "broken")])
    assert not (project.dir / "data/toy/3-kept.jsonl").exists()
