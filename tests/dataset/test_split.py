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
from potstill.dataset import own_files, own_import, split
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
    found, twice, _ = split.chats(t, path, "all")
    asked = jsonl.row_id({"a": "1", "b": "2"})
    assert [one.family == asked for one in found] == [True, True, False, False, False]
    assert [one.texts for one in found[1:3]] == [
        ("2\x1f1",),
        ("say 1, then 2 and 3",),
    ]  # without the words around
    assert (found[4].family, found[4].texts, twice) == ("f", ("hi", "ok"), 0)


@pytest.mark.parametrize(
    ("several", "learnt", "reasons"),
    [
        ("first", ["a"], {4: "{1} has another answer to this question"}),
        ("all", ["a", "b"], {}),
        (
            "none",
            [],
            dict.fromkeys((1, 3, 4), "several answers to this question, the first in {1}"),
        ),
    ],
)
def test_of_several_answers_split_learns_what_import_takes(
    project: Project,
    capsys: pytest.CaptureFixture[str],
    several: str,
    learnt: list[str],
    reasons: dict[int, str],
) -> None:
    """By one rule; what is left out stands in 4-split.json with its reason."""
    own = [chat("the q", "a"), chat("r", "c"), chat("the  q", "a", id="x"), chat("the q", "b")]
    sides = run(project, kept(100), GOLD, own, split_several=several)
    split_learns = [
        row["messages"][-1]["content"]
        for row in sides["train"] + sides["valid"]
        if row["messages"][0]["role"] == "user"
    ]
    assert sorted(split_learns) == sorted([*learnt, "c"])
    path = Path("data/own/messages.jsonl")
    taken = own_import.take(settings.load(), own_files.read(path))
    own_import.settle(taken, "train", (), several)
    import_takes = [row["messages"][-1]["content"] for _, row in taken.rows["train"]]
    assert sorted(import_takes) == sorted(split_learns)
    report = json.loads(Path("data/4-split.json").read_text())
    assert report.get("own rows with another answer", 0) == len(report["dropped"]) == len(reasons)
    assert {row["where"]: row["reason"] for row in report["dropped"]} == {
        f"{path}:{line}": "several: " + why.replace("{1}", f"{path}:1")
        for line, why in reasons.items()
    }
    assert report["own"] == 4 and report["own rows that are there twice"] == (several != "none")
    assert ("(split.several of params.yaml)" in capsys.readouterr().out) == bool(reasons)


def test_an_own_row_that_contradicts_a_gold_row_is_not_learnt(project: Project) -> None:
    own = [chat(GOLD[0]["text"], "another"), chat("r", "c")]
    sides = run(project, kept(100), GOLD, own)
    assert "another" not in json.dumps(sides["train"] + sides["valid"])
    [dropped] = json.loads(Path("data/4-split.json").read_text())["dropped"]
    assert dropped["reason"] == (f"near_duplicate: of data/gold.jsonl:1, id {GOLD[0]['id']} (1.00)")


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


# Near-duplicates


def test_a_row_that_is_like_a_gold_row_is_not_learnt(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is dropped, counted and written down; the sides of the others stay."""
    leaks = gold(text(7).replace(" ", "\u3000 "), text(9) + "!", text(11))
    own = [chat(text(500), "kept"), chat("the firsts", "like gold"), chat("hi", "x", text(9), "y")]
    plain = run(project, kept(100), GOLD, own[:1])
    sides = run(project, kept(100), [*GOLD, *leaks], own)
    gone = {kept(12)[i]["id"] for i in (7, 9, 11)}
    for name in ("train", "valid"):
        assert ids(sides[name]) == ids(plain[name]) - gone
    report = json.loads(Path("data/4-split.json").read_text())
    assert report["like a test row"] == len(report["dropped"]) == 5
    reasons = {row["where"]: row["reason"] for row in report["dropped"]}
    assert reasons["data/3-kept.jsonl:8"] == (
        f"near_duplicate: of data/gold.jsonl:5, id {leaks[0]['id']} (1.00)"
    )
    assert reasons["data/own/messages.jsonl:2"].startswith("near_duplicate: of data/gold.jsonl:1")
    assert "data/own/messages.jsonl:3" in reasons  # a later turn that asks a test row's question
    assert "+ 5 like a test row; 7 test rows (gold)" in capsys.readouterr().out


def test_when_every_row_is_like_a_gold_row_the_stage_says_so(project: Project) -> None:
    with pytest.raises(UserError, match="of 40 rows, 40 of them like a test row, leave none for"):
        run(project, kept(40), gold(*map(text, range(40))))
    assert not Path("data/4-train.jsonl").exists()


LONG = "please deliver the parcel for number {} to the neighbour's door, thank you"


@pytest.mark.parametrize(
    ("kept_texts", "own_texts", "families"),
    [
        ([], ["春节快乐万事如意", "春节快乐万事如意。", "恭喜发财"], [0, 0, 2]),
        ([], ["恭喜发财", "恭喜发福"], [0, 1]),  # four characters, one of them another
        # A chain: the first and the last are not alike
        (
            [],
            ["abcdefghijklmnopqrstuv", "abcdefghijklmnopqrstuvwxy", "defghijklmnopqrstuvwxy"],
            [0, 0, 0],
        ),
        ([LONG.format(1), "something else"], [LONG.format(2), LONG.format(3)], [0, 1, 0, 0]),
        # One of a user's own joins two that are not alike
        (
            ["abcdefghijklmnopqrstuv", "defghijklmnopqrstuvwxy"],
            ["abcdefghijklmnopqrstuvwxy"],
            [0, 0, 0],
        ),
    ],
)
def test_near_duplicates_are_one_family(
    kept_texts: list[str], own_texts: list[str], families: list[int]
) -> None:
    found = [item(f"k{i}", f"k{i}", text) for i, text in enumerate(kept_texts)]
    own = [item(f"o{i}", f"o{i}", text) for i, text in enumerate(own_texts)]
    names = [one.family for one in found + own]
    every = [one.family for part in split.joined(found, own, 0.8) for one in part]
    assert every == [names[i] for i in families]


def test_a_later_turn_joins_nothing_but_is_held_against_test_rows() -> None:
    dialogue = item("d", "d", "我想买一双跑鞋", "再便宜一点可以吗")
    other = item("e", "e", "请问什么时候发货", "再便宜一点可以吗")
    assert [one.family for one in split.joined([], [dialogue, other], 0.8)[1]] == ["d", "e"]
    assert not split.like_tests([dialogue], [item("t", "t", "请问今天发货吗")], 0.8)
    assert list(split.like_tests([dialogue, other], [item("t", "t", "再便宜一点可以吗")], 0.8)) == [
        "d",
        "e",
    ]


def test_six_pairs_among_own_rows_stand_on_one_side(project: Project) -> None:
    own = [chat(text(i), f"a{i}") for i in range(60)]
    own += [chat(text(i) + "!", f"b{i}") for i in range(6)]
    sides = run(project, [], GOLD, own, split_valid_share=0.5)
    side = {
        row["messages"][-1]["content"]: name for name in ("train", "valid") for row in sides[name]
    }
    assert len(side) == 66 and {side[f"a{i}"] for i in range(6)} == {"train", "valid"}
    assert all(side[f"a{i}"] == side[f"b{i}"] for i in range(6))


def test_own_rows_alone_are_held_out_with_their_labels(project: Project) -> None:
    own = [chat(text(i), json.dumps({"word": f"w{i}", "length": i})) for i in range(300)]
    own += [chat(text(0), "no JSON"), chat("hi there", "x", "and then", "y")]
    sides = run(project, [], [], own, split_several="all")
    test = sides["test"]
    assert 30 < len(test) < 90
    assert {row["slice"] for row in test} == {split.SLICE}
    first = test[0]
    assert first["id"] == jsonl.row_id({"text": first["text"]})
    number = int(first["expected"]["word"][1:])
    assert first["text"] == text(number) and first["expected"]["length"] == number
    report = json.loads(Path("data/4-split.json").read_text())
    assert (
        report["own"]
        == 302
        == sum(map(len, sides.values())) + report["own rows of a family held out"]
    )
    asked = {row["messages"][0]["content"] for row in sides["train"] + sides["valid"]}
    assert not asked & {row["text"] for row in test}


@pytest.mark.parametrize("side", ["kept", "own"])
def test_a_row_beyond_max_length_stops_the_stage(project: Project, side: str) -> None:
    """Which row, how long in the student's own tokens, and what to do; nothing is written."""
    long = "词语" * 700
    found, own = kept(50), [chat(text(900), "fine")]
    if side == "kept":
        found[3] = row(text(3), output={"word": long, "length": 1})
        where = rf"data/3-kept.jsonl:4 \(id {found[3]['id']}\)"
    else:
        own = [*own, chat(text(901), long)]
        where = r"data/own/messages.jsonl:2 \(id [0-9a-f]{16}\)"
    with pytest.raises(
        UserError,
        match=rf"^{where} has [\d,]+: tokens of models/tiny-base, expected at most max_length "
        r"1,024 of params.yaml: shorten or leave out these rows, or set max_length to \d+",
    ):
        run(project, found, GOLD, own)
    assert not Path("data/4-train.jsonl").exists()
    run(project, found, GOLD, own, max_length=4096)


@pytest.mark.parametrize(
    ("gold", "expected"),
    [
        ('{"id": "g", "text": "x", "slice": "a"}\n', ["1: key 'gold' is missing"]),
        (
            '{"text": "x", "slice": "a", "gold": {}}\n{"id": "g"\n{"text": " ", "gold": 1}\n'
            '{"gold": 1}\n{"text": "x", "gold": 2}\n{"text": "z", "gold": 2, "slice": 7}\n',
            [
                "2: not JSON",
                '3: text is " ", expected a text',
                "4: key 'text' is missing",
                "5: its input stands in line 1 already",
                "6: slice is 7, expected a text",
            ],
        ),
        (
            '{"id": "g", "text": "x", "slice": "a", "gold": {}}\n',
            [f"1: id is g, but the id of this input is {jsonl.row_id({'text': 'x'})}"],
        ),
    ],
)
def test_a_bad_gold_file_is_said_whole(project: Project, gold: str, expected: list[str]) -> None:
    jsonl.write_jsonl("data/3-kept.jsonl", kept(50))
    project.write("data/gold.jsonl", gold)
    with pytest.raises(UserError) as error:
        stage.main()
    assert all(f"data/gold.jsonl:{one}" in str(error.value) for one in expected)


def test_a_gold_row_needs_no_id_and_no_slice(project: Project) -> None:
    bare = [{key: one[key] for key in ("text", "gold")} for one in GOLD]
    sides = run(project, kept(50), bare)
    assert [row["slice"] for row in sides["test"]] == [settings.SLICE] * 4
    assert [row["id"] for row in sides["test"]] == [row["id"] for row in GOLD]


def test_a_bad_family_is_one_sentence(project: Project) -> None:
    with pytest.raises(UserError, match="3-kept.jsonl:1: family is 7, expected the id of the seed"):
        run(project, kept(50, family=7), GOLD)


def test_too_few_rows_are_one_sentence(project: Project) -> None:
    with pytest.raises(
        UserError,
        match=r"split.valid_share 0.1 and split.test_share 0.2 of 2 rows leave none for valid",
    ):
        run(project, kept(2), GOLD)


@pytest.mark.parametrize("name", ["held_out", "low", "accuracy", "keys"])
def test_a_slice_that_is_called_as_a_metric_is_refused(project: Project, name: str) -> None:
    taken = [*GOLD, {**row("the fifth"), "slice": name, "gold": None}]
    with pytest.raises(UserError, match=rf"^data/gold\.jsonl:5: slice is '{name}', a name that"):
        run(project, kept(30), taken)
