"""stages.split: rows keep their side when the data grow, gold is never learnt, nothing is lost."""

import json
import re

import pytest
from jsonschema import Draft202012Validator

from potstill import rows
from potstill.errors import UserError
from potstill.rows import Row
from stages import split
from tests.conftest import ROOT, Project


def kept(count: int) -> list[Row]:
    texts = [f"line {i} ends in word{i}" for i in range(count)]
    return [
        {"id": rows.row_id({"text": text}), "text": text, "output": {"word": text.split()[-1], "length": 5}}
        for text in texts
    ]


def run(project: Project, count: int, gold: list[Row] | None = None, **params: object) -> dict[str, list[Row]]:
    project.set(**params)
    rows.write_jsonl("data/toy/3-kept.jsonl", kept(count))
    rows.write_jsonl("data/toy/gold.jsonl", gold or [])
    split.main()
    return {name: project.read(f"4-{name}.jsonl") for name in ("train", "valid", "test")}


def ids(found: list[Row]) -> set[str]:
    return {row["id"] for row in found}


GOLD = [{"id": f"g{i}", "text": f"gold {i}", "slice": "like", "gold": {"word": str(i), "length": 1}} for i in range(4)]


def test_every_row_is_on_one_side_and_stays_there(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    few, many = run(project, 300, GOLD, valid_share=0.1), run(project, 900, GOLD)
    assert ids(few["train"]) | ids(few["valid"]) == ids(kept(300))
    assert not ids(few["train"]) & ids(few["valid"])
    assert ids(few["train"]) < ids(many["train"])
    assert ids(few["valid"]) < ids(many["valid"])
    assert 60 < len(many["valid"]) < 120
    assert ids(many["valid"]) < ids(run(project, 900, GOLD, valid_share=0.2)["valid"])
    assert "split: 300 rows = " in capsys.readouterr().out


def test_rows_look_as_agreed(project: Project) -> None:
    sides = run(project, 100, GOLD)
    schema = Draft202012Validator(json.loads((ROOT / "schemas/messages.json").read_text()))
    assert [list(schema.iter_errors(row)) for row in sides["train"] + sides["valid"]] == [[]] * 100
    row = sides["train"][0]
    source = next(one for one in kept(100) if one["id"] == row["id"])
    assert row["messages"] == [
        {"role": "system", "content": "last word"},
        {"role": "user", "content": source["text"]},
        {"role": "assistant", "content": f'{{"word":"{source["output"]["word"]}","length":5}}'},
    ]
    assert sides["test"] == [{"id": f"g{i}", "text": f"gold {i}", "slice": "like", "expected": {"word": str(i), "length": 1}} for i in range(4)]  # fmt: skip


def test_train_rows_takes_the_same_first_rows_whatever_the_number(project: Project) -> None:
    everything = run(project, 200, GOLD)["train"]
    for count in (1, 10, 50):
        some = run(project, 200, GOLD, train_rows=count)
        assert some["train"] == everything[:count]
        assert len(some["valid"]) == 200 - len(everything)


def test_without_gold_test_rows_are_held_out(project: Project) -> None:
    few, many = run(project, 300, valid_share=0.1), run(project, 900)
    assert len(ids(few["train"]) | ids(few["valid"]) | ids(few["test"])) == sum(map(len, few.values())) == 300
    assert ids(few["test"]) < ids(many["test"])
    assert {row["slice"] for row in few["test"]} == {"held_out"}
    assert few["test"][0]["expected"]["length"] == 5


def test_a_gold_input_that_is_learnt_fails_the_stage(project: Project) -> None:
    leak = {"id": "g9", "text": "line 7  ends in\u3000word7", "slice": "like", "gold": {}}
    seed = kept(8)[7]["id"]
    with pytest.raises(
        UserError, match=rf"data/toy/gold.jsonl:5: the input of g9 is also row {seed} of data/toy/seeds.jsonl"
    ):
        run(project, 100, [*GOLD, leak], train_rows=1)
    assert not (project.dir / "data/toy/4-train.jsonl").exists()


@pytest.mark.parametrize(
    ("gold", "expected"),
    [
        ('{"id": "g", "text": "x", "slice": "a"}\n', "gold.jsonl:1: key 'gold' is missing"),
        ('{"id": "g", "text": "x", "slice": "a", "gold": {}}\n{"id": "g"', "gold.jsonl:2: not JSON"),
        (None, "gold.jsonl is missing"),
    ],
)
def test_a_bad_gold_file_is_one_sentence(project: Project, gold: str | None, expected: str) -> None:
    rows.write_jsonl("data/toy/3-kept.jsonl", kept(50))
    if gold:
        project.write("data/toy/gold.jsonl", gold)
    with pytest.raises(UserError, match=re.escape(f"data/toy/{expected}")):
        split.main()


def test_too_few_rows_are_one_sentence(project: Project) -> None:
    with pytest.raises(
        UserError, match=r"valid_share 0.05 of the 2 rows of data/toy/3-kept.jsonl leaves none for valid"
    ):
        run(project, 2, GOLD)
