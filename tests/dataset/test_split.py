"""The stage split: families keep their side when the data grow, nothing leaks between sides,
nothing is lost."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from potstill.core import jsonl
from potstill.core.errors import UserError
from potstill.core.jsonl import Row
from potstill.dataset import split
from potstill.task import settings
from stages import split as stage
from tests.conftest import ROOT, Project


def text(i: int) -> str:
    """An input like no other."""
    return f"{jsonl.row_id({'line': i})} ends in word{i}"


def row(text: str, **more: object) -> Row:
    return {"id": jsonl.row_id({"text": text}), "text": text, **more}


def kept(count: int, start: int = 0, **more: object) -> list[Row]:
    return [
        row(text(i), output={"word": f"word{i}", "length": 5}, **more)
        for i in range(start, start + count)
    ]


def gold(*texts: str) -> list[Row]:
    return [row(text, slice="like", gold={"word": text.split()[-1], "length": 1}) for text in texts]


GOLD = gold("the first", "a second one", "number three", "nr 4")


def chat(*turns: str, **more: object) -> Row:
    roles = ("user", "assistant") * len(turns)
    return {
        "messages": [
            {"role": role, "content": turn} for role, turn in zip(roles, turns, strict=False)
        ],
        **more,
    }


def run(
    project: Project,
    found: list[Row],
    gold: list[Row] | None = None,
    own: list[Row] | None = None,
    **params: object,
) -> dict[str, list[Row]]:
    project.set(**params)
    jsonl.write_jsonl("data/3-kept.jsonl", found)
    jsonl.write_jsonl("data/gold.jsonl", gold or [])
    jsonl.write_jsonl("data/own/messages.jsonl", own or [])
    stage.main()
    return {name: project.read(f"4-{name}.jsonl") for name in ("train", "valid", "test")}


def ids(found: list[Row]) -> set[str]:
    return {row["id"] for row in found}


def item(id: str, family: str, *texts: str) -> split.Item:
    return split.Item(f"f:{id}", id, family, texts, {"id": id})


def test_every_row_is_on_one_side_and_stays_there(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    few, many = run(project, kept(300), GOLD, split_valid_share=0.1), run(project, kept(900), GOLD)
    assert ids(few["train"]) | ids(few["valid"]) == ids(kept(300))
    assert not ids(few["train"]) & ids(few["valid"])
    assert ids(few["train"]) < ids(many["train"])
    assert ids(few["valid"]) < ids(many["valid"])
    assert 60 < len(many["valid"]) < 120
    assert ids(many["valid"]) < ids(run(project, kept(900), GOLD, split_valid_share=0.2)["valid"])
    assert "split: 300 kept + 0 own rows = " in capsys.readouterr().out


@hypothesis_settings(max_examples=25, deadline=None)
@given(
    few=st.lists(st.tuples(st.uuids(), st.integers(0, 40)), max_size=60),
    more=st.lists(st.tuples(st.uuids(), st.integers(0, 60)), max_size=60),
    labelled=st.booleans(),
    shares=st.tuples(st.floats(0.01, 0.5), st.floats(0.01, 0.5)),
)
def test_no_family_straddles_and_no_row_moves(
    few: list[Any], more: list[Any], labelled: bool, shares: tuple[float, float]
) -> None:
    answers = [item("g", "g")] if labelled else []

    def sides(found: list[Any]) -> dict[str, str]:
        items = [item(str(id), f"family {family}") for id, family in found]
        own = [item("own" + str(id), f"family {family}") for id, family in found]
        divided = split.divide(items, own, answers, *shares)
        assert sum(map(len, divided.values())) == 2 * len(found) + labelled
        families: dict[str, set[str]] = {}
        for name, some in divided.items():
            for one in some:
                families.setdefault(one.family, set()).add("test" if name == "aside" else name)
        assert all(len(names) == 1 for names in families.values())
        return {one.id: name for name, some in divided.items() for one in some}

    before, after = sides(few), sides(few + more)
    assert {id: after[id] for id in before} == before


def test_a_thousand_more_inputs_move_none_of_three_thousand(project: Project) -> None:
    family = [{"family": f"seed {i % 56}"} for i in range(4000)]
    found = [one | more for one, more in zip(kept(4000), family, strict=True)]
    few, many = (split.divide(items(project, found[:n]), [], [], 0.1, 0.1) for n in (3000, 4000))
    assert sum(map(len, few.values())) == 3000
    for name in ("train", "valid", "test"):
        assert {one.id for one in few[name]} < {one.id for one in many[name]}


def items(project: Project, found: list[Row]) -> list[split.Item]:
    jsonl.write_jsonl("data/3-kept.jsonl", found)
    return split.inputs(settings.load(), Path("data/3-kept.jsonl"), "output")


def test_rows_look_as_agreed(project: Project) -> None:
    sides = run(project, kept(100), GOLD)
    schema = Draft202012Validator(json.loads((ROOT / "schemas/messages.json").read_text()))
    assert [list(schema.iter_errors(row)) for row in sides["train"] + sides["valid"]] == [[]] * 100
    row = sides["train"][0]
    source = next(one for one in kept(100) if one["id"] == row["id"])
    assert row["messages"] == [
        {"role": "system", "content": "last word"},
        {"role": "user", "content": source["text"]},
        {"role": "assistant", "content": f'{{"word":"{source["output"]["word"]}","length":5}}'},
    ]
    assert sides["test"][0] == {
        "id": jsonl.row_id({"text": "the first"}),
        "text": "the first",
        "slice": "like",
        "expected": {"word": "first", "length": 1},
    }


def test_an_answer_that_is_a_text_is_taught_as_it_is(project: Project) -> None:
    sides = run(
        project, [one | {"output": "祝你\n「好」"} for one in kept(100)], [GOLD[0] | {"gold": None}]
    )
    assert sides["train"][0]["messages"][-1] == {"role": "assistant", "content": "祝你\n「好」"}
    assert sides["test"][0]["expected"] is None


def test_train_rows_takes_the_same_first_rows_whatever_the_number(project: Project) -> None:
    everything = run(project, kept(200), GOLD)["train"]
    for count in (1, 10, 50):
        some = run(project, kept(200), GOLD, split_train_rows=count)
        assert some["train"] == everything[:count]
        assert len(some["valid"]) == 200 - len(everything)


def test_the_first_rows_are_of_many_families(project: Project) -> None:
    found = [one | {"family": f"seed {i % 40}"} for i, one in enumerate(kept(400))]
    family = {one["id"]: one["family"] for one in found}
    assert (
        len({family[one["id"]] for one in run(project, found, GOLD, split_train_rows=40)["train"]})
        > 15
    )


def test_without_gold_test_rows_are_held_out(project: Project) -> None:
    few, many = (
        run(project, kept(300), split_valid_share=0.1, split_test_share=0.2),
        run(project, kept(900)),
    )
    assert (
        len(ids(few["train"]) | ids(few["valid"]) | ids(few["test"]))
        == sum(map(len, few.values()))
        == 300
    )
    assert 30 < len(few["test"]) < 90
    assert ids(few["test"]) < ids(many["test"])
    assert {row["slice"] for row in few["test"]} == {"held_out"}
    assert few["test"][0]["expected"]["length"] == 5
    assert ids(run(project, kept(300), split_valid_share=0.3)["test"]) == ids(few["test"])


# A user's own rows


def test_own_rows_join_both_sides(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    own = [chat(text(i), f"answer {i}") for i in range(1000, 1100)] + [
        chat(text(1000), "answer 1000")
    ]
    sides = run(project, kept(100), GOLD, own)
    there = {one["messages"][-1]["content"] for one in sides["train"] + sides["valid"]}
    assert {f"answer {i}" for i in range(1000, 1100)} < there
    assert any(one["messages"][-1]["content"].startswith("answer") for one in sides["valid"])
    found = re.search(
        r"100 kept \+ 101 own rows = (\d+) train .* (\d+) valid .* 1 own rows that are there twice",
        capsys.readouterr().out,
    )
    assert found
    assert int(found[1]) + int(found[2]) == 200
    rest = ids(run(project, kept(100), GOLD)["train"])
    assert rest < ids(sides["train"])


def test_own_rows_are_written_without_what_the_trainer_does_not_know(project: Project) -> None:
    own = [
        {
            "id": "mine",
            "source": "crm",
            "messages": [
                {"role": "user", "content": "q", "name": "x"},
                {"role": "assistant", "content": "a"},
            ],
        }
    ]
    sides = run(project, kept(100), GOLD, own)
    mine = next(one for one in sides["train"] + sides["valid"] if one["id"] == "mine")
    assert mine == {"id": "mine", **chat("q", "a")}


def test_own_rows_with_one_question_are_one_family(project: Project) -> None:
    project.write(
        "task.yaml", 'input: [b, a]\nuser: "say {{ a }}, then {{ b }} and {{ a }}"\nchecks: []\n'
    )
    t, path = settings.load(), Path("data/own/messages.jsonl")
    turns = ["say 1, then 2 and 1", "say 1, then 2 and 1", "say 1, then 2 and 3", "hello"]
    jsonl.write_jsonl(
        path,
        [chat(turn, str(i)) for i, turn in enumerate(turns)]
        + [chat("hi", "x", "ok", "y", family="f")],
    )
    found, twice = split.chats(t, path)
    asked = jsonl.row_id({"a": "1", "b": "2"})
    assert [one.family == asked for one in found] == [True, True, False, False, False]
    assert [one.texts for one in found[1:3]] == [
        ("2\x1f1",),
        ("say 1, then 2 and 3",),
    ]  # without the words around
    assert (found[4].family, found[4].texts, twice) == ("f", ("hi", "ok"), 0)


def test_own_rows_of_a_family_held_out_stand_aside(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    held_out = run(project, kept(100))["test"][0]
    sides = run(project, kept(100), own=[chat(held_out["text"], "mine")])
    assert all(one["messages"][-1]["content"] != "mine" for one in sides["train"] + sides["valid"])
    assert "1 own rows of a family held out" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("own", "expected"),
    [
        ([chat("q")], r"messages.jsonl:1: messages\[0\].role: pairs of user and assistant"),
        (
            [{"prompt": "q", "chosen": "a", "rejected": "b"}],
            "messages.jsonl:1: found a row of preferences",
        ),
        (
            [chat("q", "a", id=kept(1)[0]["id"])],
            r"messages.jsonl:1: id [0-9a-f]{16} is that of .*3-kept.jsonl:1, too",
        ),
    ],
)
def test_bad_own_rows_are_one_sentence(project: Project, own: list[Row], expected: str) -> None:
    with pytest.raises(UserError, match=expected):
        run(project, kept(50), GOLD, own)


# Leaks


def test_a_gold_input_that_is_learnt_fails_the_stage(project: Project) -> None:
    leaks = gold(text(7).replace(" ", "\u3000 "), text(9) + "!", text(11))
    where = [f"data/3-kept.jsonl:{i + 1} (id {kept(12)[i]['id']}" for i in (7, 9, 11)]
    with pytest.raises(
        UserError, match=r"^3 pairs of near-duplicates \(near_duplicate: 0.8\) stand on two sides"
    ) as error:
        run(project, kept(100), [*GOLD, *leaks], split_train_rows=1)
    said = str(error.value)
    assert all(one in said for one in where)
    assert f"and data/gold.jsonl:6 (id {leaks[1]['id']}, test), similarity 0.9" in said
    assert "similarity 1.00" in said
    assert not (project.dir / "data/4-train.jsonl").exists()


def test_the_first_pairs_are_named_and_the_others_counted(project: Project) -> None:
    with pytest.raises(UserError, match=r"^40 pairs .*; and 35 more: of each pair delete") as error:
        run(project, kept(100), gold(*map(text, range(40))))
    assert str(error.value).count("similarity") == split.NAMED


@pytest.mark.parametrize(
    ("train", "valid", "test", "found"),
    [
        (["春节快乐万事如意"], ["春节快乐万事如意"], [], ["1.00"]),
        (["恭喜发财"], ["恭喜发福"], ["恭贺发财"], []),  # four characters, one of them another
        (
            ["写一段50字的新年祝福，语气要亲切，送给老师"],
            ["写一段80字的新年祝福，语气要亲切，送给老师"],
            [],
            [],
        ),
        (
            ["写一段50字的新年祝福，语气要亲切自然，送给我的小学数学老师"],
            [],
            ["写一段80字的新年祝福，语气要亲切自然，送给我的小学数学老师"],
            ["0.81"],
        ),
        (["Ａ股大涨，投资者笑逐颜开"], [], ["A股大涨，投资者笑逐颜开"], ["1.00"]),  # NFKC
        (
            ["请把这两行差不多一样的文字改写一遍吧", "请把这两行差不多一样的文字改写一遍吧。"],
            ["另外一件事情"],
            [],
            [],
        ),  # a pair on one side is no leak
    ],
)
def test_what_is_a_leak(
    train: list[str], valid: list[str], test: list[str], found: list[str]
) -> None:
    sides = {
        name: [item(f"{name}{i}", name, text) for i, text in enumerate(texts)]
        for name, texts in (("train", train), ("valid", valid), ("test", test), ("aside", train))
    }
    sides["aside"] = [item("aside", "aside", *train, *test)]
    assert [f"{one[-1]:.2f}" for one in split.leaks(sides, 0.8)] == found


def test_a_later_turn_leaks_from_the_test_rows_alone() -> None:
    dialogue = item("d", "d", "我想买一双跑鞋", "再便宜一点可以吗")
    other = item("e", "e", "请问什么时候发货", "再便宜一点可以吗")
    assert not list(split.leaks({"train": [dialogue], "valid": [other]}, 0.8))
    assert list(
        split.leaks({"train": [dialogue], "test": [item("t", "t", "再便宜一点可以吗")]}, 0.8)
    )


def test_the_address_data_do_not_leak(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rows of the worked example: gold rows and seeds are far from being near-duplicates."""
    monkeypatch.chdir(ROOT)
    t = settings.load()
    sides = {
        "train": split.inputs(t, t.data / "seeds.jsonl")[:800],
        "test": split.inputs(t, t.data / "gold.jsonl", "gold")[:200],
    }
    assert not list(split.leaks(sides, 0.4))


@pytest.mark.parametrize(
    ("gold", "expected"),
    [
        ('{"id": "g", "text": "x", "slice": "a"}\n', "gold.jsonl:1: key 'gold' is missing"),
        (
            '{"id": "g", "text": "x", "slice": "a", "gold": {}}\n{"id": "g"',
            "gold.jsonl:2: not JSON",
        ),
        (
            '{"id": "g", "text": "x", "slice": "a", "gold": {}}\n',
            f"gold.jsonl:1: id is g, but the id of this input is {jsonl.row_id({'text': 'x'})}",
        ),
        (None, "gold.jsonl is missing"),
    ],
)
def test_a_bad_gold_file_is_one_sentence(project: Project, gold: str | None, expected: str) -> None:
    jsonl.write_jsonl("data/3-kept.jsonl", kept(50))
    if gold:
        project.write("data/gold.jsonl", gold)
    with pytest.raises(UserError, match=re.escape(f"data/{expected}")):
        stage.main()


def test_a_bad_family_is_one_sentence(project: Project) -> None:
    with pytest.raises(UserError, match="3-kept.jsonl:1: family is 7, expected the id of the seed"):
        run(project, kept(50, family=7), GOLD)


def test_too_few_rows_are_one_sentence(project: Project) -> None:
    with pytest.raises(
        UserError,
        match=r"split.valid_share 0.1 and split.test_share 0.2 of 2 rows leave none for valid",
    ):
        run(project, kept(2), GOLD)
