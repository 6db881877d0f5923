"""The tables of models against each other account for every row."""

from pathlib import Path
from typing import Any

import pytest

from potstill.core import jsonl
from potstill.core.errors import UserError
from potstill.evaluation import compare
from potstill.task import settings
from tests.conftest import Project

MODELS = ("base", "sft", "teacher")


def mark(right: bool, unscored: bool = False, **keys: bool) -> dict[str, Any]:
    return {"right": right, "unscored": unscored} | ({"keys": keys} if keys else {})


@pytest.fixture
def toy(project: Project) -> settings.Task:
    project.write("task.yaml", "headline_slice: a\nchecks: []\n")
    return settings.load()


def questions(count: int, **more: object) -> list[jsonl.Row]:
    """Test rows of slice a, the last of slice b, whose inputs grow by a character each."""
    return [
        {"id": str(i), "text": "字" * (i + 1), "slice": "b" if i == count - 1 else "a", **more}
        for i in range(count)
    ]


def test_pairs_count_every_row_of_the_headline_once(toy: settings.Task) -> None:
    tests = questions(8)
    right = {"base": "00011000", "sft": "11101000", "teacher": "11111110"}
    marks = {model: [mark(one == "1") for one in text] for model, text in right.items()}
    found = {(one["model"], one["against"]): one for one in compare.pairs(toy, tests, marks)}
    assert list(found) == [("base", "teacher"), ("sft", "teacher"), ("sft", "base")]
    one = found["sft", "base"]
    assert {key: one[key] for key in ("rows", "fixed", "broken", "both", "neither")} == {
        "rows": 7,
        "fixed": 3,
        "broken": 1,
        "both": 1,
        "neither": 2,
    }
    assert (one["p"], one["smallest_difference"]) == (0.625, 6 / 7)
    assert all(
        one["fixed"] + one["broken"] + one["both"] + one["neither"] == 7 for one in found.values()
    )


def test_slices_cover_the_rows_by_key_label_length_and_slice(toy: settings.Task) -> None:
    tests = questions(10)
    for i, test in enumerate(tests):
        test["expected"] = {"intent": "ab"[i % 2], "name": str(i)} if i % 3 else None
    marks = {"sft": [mark(i % 2 == 0, intent=True, name=i < 3) for i in range(10)]}
    for one, test in zip(marks["sft"], tests, strict=True):
        one["values"] = {key: ("a", value) for key, value in (test["expected"] or {}).items()}
    found = compare.slices(toy, tests, marks)
    assert {(one["kind"], one["name"]): (one["rows"], one["right"]) for one in found} == {
        ("all", "a"): (9, 5),
        ("label", "intent a"): (3, 3),
        ("label", "intent b"): (3, 0),
        ("length", "1 to 3 characters"): (3, 2),
        ("length", "4 to 6 characters"): (3, 1),
        ("length", "7 to 9 characters"): (3, 2),
        ("slice", "a"): (9, 5),
        ("slice", "b"): (1, 0),
        ("key", "intent"): (9, 9),
        ("key", "name"): (9, 3),
    }  # and no label for each name
    assert all(one["low"] <= one["share"] <= one["high"] for one in found)
    assert all(
        sum(one["rows"] for one in found if one["kind"] == kind) == 9 for kind in ("all", "length")
    )


def test_equal_lengths_are_one_part(toy: settings.Task) -> None:
    tests = [{"id": str(i), "text": "字", "slice": "a"} for i in range(5)]
    found = compare.slices(toy, tests, {"sft": [mark(True)] * 5})
    assert [one["name"] for one in found if one["kind"] == "length"] == ["1 character"]


def test_a_table_is_read_as_it_was_written(tmp_path: Path) -> None:
    tests = questions(2)
    marks = {"base": [mark(False), mark(True)], "sft": [mark(False, unscored=True), mark(True)]}
    table = compare.states(tests, marks)
    compare.write_csv(tmp_path / "marks.csv", table)
    text = (tmp_path / "marks.csv").read_text(encoding="utf-8")
    assert text == "id,slice,base,sft\n0,a,0,\n1,b,1,1\n"
    assert compare.read_csv(text, "here")[0] == {"id": "0", "slice": "a", "base": "0", "sft": ""}


@pytest.mark.parametrize("text", ["", "id,slice\n", "id,slice\n0,a,1\n", "id,slice,sft\n0,a\n"])
def test_a_broken_table_is_refused(text: str) -> None:
    with pytest.raises(
        UserError,
        match="^here: found no whole table, expected a header and rows: run `dvc repro score`$",
    ):
        compare.read_csv(text, "here")


def test_a_hop_passes_where_no_more_flips_than_between_two_runs_of_the_same(
    toy: settings.Task,
) -> None:
    tests = [{"id": str(i), "text": "字", "slice": "a"} for i in range(40)]

    def answers(*empty: int, text: str = "好") -> list[jsonl.Row]:
        """Answers to all rows, those numbered are empty: wrong."""
        return [
            {
                "id": str(i),
                "answer": "" if i in empty else text,
                "prompt_tokens": 1,
                "completion_tokens": 1,
            }
            for i in range(40)
        ]

    def hops(
        again: list[jsonl.Row],
        adapter: list[jsonl.Row] | None,
        others: int = 0,
        dpo: list[jsonl.Row] | None = None,
    ) -> list[tuple[int, int, int]]:
        found = {"base": answers(), "sft": answers(), "again": again} | (
            {"adapter": adapter} if adapter else {}
        )
        found |= {"dpo": answers(), "adapter-dpo": dpo} if dpo else {}
        marks = {model: [mark(True)] * 40 for model in (*MODELS, "dpo")}
        table = compare.hops(
            toy, tests, marks, found, {"lessons": 9, "other_tokens": ["0"] * others}
        )
        return [(one["differ"], one["flips"], one["passed"]) for one in table]

    assert hops(answers(), answers()) == [(0, 0, 1), (0, 0, 1), (0, 0, 1)]
    assert hops(answers(), answers(text="很好")) == [(0, 0, 1), (40, 0, 1), (0, 0, 1)]
    assert hops(answers(), answers(*range(5)))[1] == (5, 5, 1)  # of 40: p = 0.055
    assert hops(answers(), answers(*range(6)))[1] == (6, 6, 0)
    assert hops(answers(1, 2), answers(*range(6)))[:2] == [
        (2, 2, 1),
        (6, 6, 1),
    ]  # two flips come by themselves
    assert hops(answers(), None, others=2) == [(0, 0, 1), (2, 2, 0)]  # no adapter: tuner_type full
    assert hops(answers(), answers(), dpo=answers(*range(6))) == [
        (0, 0, 1),
        (0, 0, 1),
        (6, 6, 0),
        (0, 0, 1),
    ]


@pytest.mark.parametrize(
    ("fixed", "broken", "says"), [(9, 1, "better"), (2, 12, "worse"), (5, 5, "within the noise")]
)
def test_a_pair_is_said_in_one_sentence(fixed: int, broken: int, says: str) -> None:
    one = compare.pair(
        "base", "sft", [False] * fixed + [True] * broken, [True] * fixed + [False] * broken
    )
    p = {9: "0.021", 2: "0.013", 5: "1"}[fixed]
    assert (
        compare.lines([one])
        == f"sft against base: {fixed} rows fixed, {broken} broken, p = {p} (exact McNemar): {says}"
    )
    assert compare.lines([{**one, "against": "teacher", "model": "base"}]) == ""
