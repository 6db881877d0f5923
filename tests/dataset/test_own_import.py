"""A record of a user's file becomes a row of the task, or is refused with its reason."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis
from hypothesis import strategies as st

from potstill.core.errors import UserError
from potstill.core.jsonl import Row, row_id
from potstill.dataset import own_files, own_import, own_reader
from potstill.dataset.own_files import Found, Record
from potstill.dataset.own_import import Taken
from potstill.task import settings
from potstill.task.settings import Task
from tests.conftest import Project

S = {"role": "system", "content": "last word"}


def found(*rows: Row) -> Found:
    return Found("rows", [Record(number, row) for number, row in enumerate(rows, 1)])


def user(text: str) -> Row:
    return {"role": "user", "content": text}


def said(text: str, **more: object) -> Row:
    return {"role": "assistant", "content": text, **more}


@pytest.fixture
def plain(project: Project) -> Task:
    """A task whose answers are plain text."""
    project.write("task.yaml", 'name: toy\ninput: [text]\nuser: "say {{ text }}"\nchecks: []\n')
    return settings.load()


def learnt(taken: Taken) -> list[list[Row]]:
    return [row["messages"] for _, row in taken.rows.get("train", [])]


CHAT = [S, user("say q"), said("a")]
ASKED: Row = {"id": row_id({"text": "q"}), "text": "q"}


@pytest.mark.parametrize(
    ("row", "messages"),
    [
        ({"text": "q", "output": "a"}, CHAT),
        ({"text": "q", "label": " a\n"}, CHAT),
        ({"text": "q", "output": "a", "tools": "[]", "images": None, "weight": 1}, CHAT),
        ({"instruction": "q", "input": "", "output": "a", "history": [], "system": ""}, CHAT),
        ({"instruction": "q", "input": "more", "output": "a"}, [S, user("say q\nmore"), said("a")]),
        (
            {"instruction": "q", "output": "a", "system": "s", "history": [["x", "y "]]},
            [S | {"content": "s"}, user("x"), said("y"), user("say q"), said("a")],
        ),
        ({"prompt": "q", "completion": "a"}, CHAT),
        ({"prompt": [user("q")], "completion": "a"}, [user("q"), said("a")]),
        ({"prompt": [user("q")], "completion": [said("a")]}, [user("q"), said("a")]),
        ({"prompt": "q", "completion": [said("a")]}, [user("q"), said("a")]),
        (
            {"messages": [user("q"), said("a", weight=0), user("r"), said("b")]},
            [user("q"), said("a", loss=False), user("r"), said("b")],
        ),
        ({"messages": json.dumps([user("q"), said("a")])}, [user("q"), said("a")]),
        (
            {
                "conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}],
                "system": "s",
            },
            [S | {"content": "s"}, user("q"), said("a")],
        ),
        ({"text": 17, "output": 3.5}, [S, user("say 17"), said("3.5")]),
        ({"text": "q", "output": True}, [S, user("say q"), said("true")]),
        ({"text": "q", "output": {"b": [1, "é"]}}, [S, user("say q"), said('{"b":[1,"é"]}')]),
    ],
)
def test_a_row_with_an_answer_is_learnt(plain: Task, row: Row, messages: list[Row]) -> None:
    taken = own_import.take(plain, found(row))
    assert taken.refused == {}
    assert learnt(taken) == [messages]


@pytest.mark.parametrize(
    "row",
    [
        {"text": "q"},
        {"text": "q", "output": None},
        {"text": "q", "output": " "},
        {"instruction": "q"},
        {"prompt": "q"},
        {"prompt": [user("q")]},
        {"messages": [user("q")]},
        {"text": "q", "id": row_id({"text": "q"})},
        {"text": "q", "id": 17},
        {"text": "q", "id": "17"},
    ],
)
def test_a_row_without_an_answer_is_asked(plain: Task, row: Row) -> None:
    taken = own_import.take(plain, found(row))
    assert [one.row for one in taken.rows["inputs"]] == [ASKED]


@pytest.mark.parametrize(
    ("row", "gold"),
    [
        ({"text": "q", "expected": " a ", "slice": "hard"}, "a"),
        ({"prompt": "q", "completion": "a", "slice": "hard"}, "a"),
        ({"messages": [S, user("q"), said("a")], "slice": "hard"}, "a"),
        ({"text": "q", "slice": "hard"}, None),
    ],
)
def test_a_test_row_expects_the_answer(plain: Task, row: Row, gold: object) -> None:
    taken = own_import.take(plain, found(row), "gold")
    assert [one.row for one in taken.rows["gold"]] == [{**ASKED, "slice": "hard", "gold": gold}]


@pytest.mark.parametrize(
    ("target", "row", "says"),
    [
        ("", {}, "found nothing, expected text of the task, or instruction, prompt, messages"),
        ("", {"question": "q", "answer": "a"}, "found 'question', 'answer', expected text of the"),
        ("", {"text": ["q"]}, 'text: a text that is not empty; found ["q"]'),
        ("", {"text": " ", "output": "a"}, 'text: a text that is not empty; found " "'),
        ("", {"text": "q", "output": "a", "label": "b"}, "found output and label, expected one"),
        ("", {"text": "q", "output": "#N/A"}, "output: '#N/A' stands for a missing or broken"),
        ("", {"text": "q", "output": float("nan")}, "output: the value is missing (nan)"),
        ("", {"text": "q", "output": "a\x00"}, "output: found the control character U+0000"),
        ("", {"text": "q\ud83d"}, "text: found half a surrogate pair, U+D83D"),
        ("", {"text": "q", "output": b"a"}, "output: no text and no JSON"),
        ("", {"text": "q", "output": "a", "tools": [1]}, "tools: it changes what the row means"),
        ("", {"text": "q", "output": "a", "loss": 0}, "loss: 0 says not to learn the row"),
        ("", {"messages": [user("q"), said("a")], "label": False}, "label: false says not to"),
        ("", {"instruction": "q", "output": "a", "history": [["x"]]}, "history: expected pairs of"),
        ("", {"instruction": "q", "system": "s"}, "system: only a row to train on may have one"),
        ("", {"text": "q", "id": "mine"}, 'id is "mine", but the id of this input is '),
        ("", {"text": "q", "output": "a", "id": "0" * 16}, 'id is "0000000000000000", but the id'),
        ("", {"messages": "[{'role': 'user'}]"}, "not JSON (Expecting property name"),
        ("", {"prompt": {"a": 1}, "completion": "a"}, 'prompt is {"a": 1}, expected a text or'),
        ("", {"prompt": "q", "chosen": "a"}, "a row is an object with the keys prompt, chosen"),
        ("train", {"text": "q"}, "the answer (output) is missing, expected one in a row to train"),
        ("inputs", {"messages": [user("q"), said("a"), user("r"), said("b")]}, "a chat of 4 turns"),
        ("gold", {"messages": [user("q"), {"role": "tool", "content": "a"}]}, "a chat of 2 turns"),
    ],
)
def test_what_cannot_be_taken_has_its_reason(plain: Task, target: str, row: Row, says: str) -> None:
    taken = own_import.take(plain, found(row), target)
    assert not any(taken.rows.values())
    assert taken.refused[0].startswith(says)


def test_answers_that_are_json_come_from_a_cell_or_from_columns(project: Project) -> None:
    t = settings.load()
    rows: list[Row] = [
        {"text": "q b", "output": '{"word": "b", "length": 1}'},
        {"text": "q b", "word": "b ", "length": "1"},
        {"text": "q b", "output": {"word": "b", "length": 1}},
    ]
    assert (
        learnt(own_import.take(t, found(*rows)))
        == [[S, user("q b"), said('{"word":"b","length":1}')]] * 3
    )
    taken = own_import.take(t, found(*rows), "gold")
    assert [one.row["gold"] for one in taken.rows["gold"]] == [{"word": "b", "length": 1}] * 3
    taken = own_import.take(t, found({"text": "q b", "output": "b"}), "gold")
    assert taken.refused[0].startswith('gold: expected JSON as schema.json describes it, found "b"')
    taken = own_import.take(t, found({"text": "q b", "label": "b"}), "gold", {"word": "label"})
    assert taken.rows["gold"][0].row["gold"] == {"word": "b"}
    taken = own_import.take(t, found({"text": "q b", "output": "c"}))
    assert taken.notes == {"answer fails the check json (it is taken all the same)": 1}


def test_a_task_of_several_fields(project: Project) -> None:
    project.write("task.yaml", 'name: toy\ninput: [a, b]\nuser: "{{ a }}{{ b }}"\nchecks: []\n')
    t = settings.load()
    taken = own_import.take(t, found({"a": "1", "b": "2"}, {"a": "1"}, {"instruction": "q"}))
    assert [one.row for one in taken.rows["inputs"]] == [
        {"id": row_id({"a": "1", "b": "2"}), "a": "1", "b": "2"}
    ]
    assert taken.refused == {
        1: "b: a text that is not empty; found nothing",
        2: "one text cannot be the fields a, b of the task: name them by MAP",
    }
    taken = own_import.take(t, found({"instruction": "q"}))
    assert taken.refused[0].startswith("one text cannot be the fields a, b of the task")


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        ({"txt": "address"}, "MAP: unknown name 'txt': did you mean text"),
        ({"text": "adress"}, "MAP: the file has no column 'adress': did you mean address"),
    ],
)
def test_a_column_that_is_not_there(plain: Task, columns: dict[str, str], says: str) -> None:
    with pytest.raises(UserError, match=says):
        own_import.take(plain, found({"address": "q"}), "", columns)


def test_columns_are_named(plain: Task) -> None:
    rows = found({"id": "x1", "address": "q", "class": "a", "text": "old", "source": "crm"})
    taken = own_import.take(plain, rows, "", {"text": "address", "output": "class", "id": ""})
    assert learnt(taken) == [CHAT]
    assert taken.notes == {"key source is not used": 1}


def settled(
    t: Task, rows: Iterable[Row], several: str, there: Iterable[Row] = (), target: str = ""
) -> tuple[list[str], dict[int, str], int, int]:
    """The answers that are left, the refused, how many stood there already, and the conflicts."""
    taken = own_import.take(t, found(*rows), target)
    target = target or "train"
    conflicts = own_import.settle(taken, target, there, several)
    left = [one.row for one in taken.rows[target]]
    answers = [row["messages"][-1]["content"] if "messages" in row else row["gold"] for row in left]
    return answers, taken.refused, taken.twice, conflicts


def several(*answers: str) -> list[Row]:
    return [{"text": "q", "output": answer} for answer in answers]


@pytest.mark.parametrize("target", ["train", "gold"])
def test_of_several_answers_to_one_question_one_parameter_decides(plain: Task, target: str) -> None:
    rows = several("a", "b", "a ", "c")
    says = "line 1 has another answer to this question"
    assert settled(plain, rows, "first", (), target) == (["a"], {1: says, 3: says}, 1, 1)
    left, refused, twice, conflicts = settled(plain, rows, "none", (), target)
    assert (left, sorted(refused), twice, conflicts) == ([], [0, 1, 2, 3], 0, 1)
    if target == "train":
        assert settled(plain, rows, "all") == (["a", "b", "c"], {}, 1, 1)


def test_rows_of_the_task_count_too(plain: Task) -> None:
    there = [one.row for one in own_import.take(plain, found(*several("a"))).rows["train"]]
    answers, refused, twice, conflicts = settled(plain, several("a", "b"), "first", there)
    assert (answers, twice, conflicts) == ([], 1, 1)
    assert refused == {1: "the task has another answer to this question"}
    rows = [{"id": "x", "text": "q", "output": "a"}, {"id": "x", "text": "r", "output": "a"}]
    assert settled(plain, rows, "all")[1] == {1: "line 1 has the id x already, for another row"}


VALUE = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=4)
    | st.sampled_from(["q", "nan", "[]", '{"word": "q"}', "user", "\x00"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["role", "content", "from", "a"]), inner, max_size=3)
    ),
    max_leaves=5,
)
NAMES = ["text", "word", *own_reader.ANSWERS, *own_reader.OTHERS, *own_reader.CHATS]
NAMES += ["tools", "loss", "chosen", "rejected", "x"]
ROWS = st.lists(st.dictionaries(st.sampled_from(NAMES), VALUE, max_size=4), min_size=1, max_size=4)


@hypothesis(max_examples=100, deadline=None)
@given(ROWS, st.sampled_from(["", "train", "inputs", "gold"]), st.booleans())
def test_any_rows_are_taken_or_refused(
    tasks: list[Task], rows: list[Row], target: str, is_json: bool
) -> None:
    taken = own_import.take(tasks[is_json], found(*rows), target)
    for name in ("train", "inputs", "gold"):
        own_import.settle(taken, name, (), "first")
    left = [one for made in taken.rows.values() for one in made]
    assert len(left) + len(taken.refused) + taken.twice == len(rows)
    assert json.dumps([one.row for one in left], ensure_ascii=False, allow_nan=False).encode()


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Iterable[list[Task]]:
    """A task of plain text and one of JSON, which look alike but for that."""
    patch = pytest.MonkeyPatch()
    toy = Project(tmp_path_factory.mktemp("toy"))
    patch.chdir(toy.dir)
    is_json = settings.load()
    yield [Task("toy", is_json.config | {"checks": []}), is_json]
    patch.undo()


def test_what_stands_in_one_line_is_told_apart(plain: Task) -> None:
    Path("f.json").write_text(json.dumps([{"text": "q"}, {"text": ""}, {"text": "r"}]))
    taken = own_import.take(plain, own_files.read(Path("f.json")))
    assert [taken.where(number) for number in taken.refused] == ["1 (row 2)"]


def test_it_says_what_it_did_not_use(plain: Task) -> None:
    row: dict[str, Any] = {"messages": [S, user("q"), said("a", name="x")], "source": 1, "split": 2}
    notes = own_import.take(plain, found(row)).notes
    assert set(notes) == {
        "key source is not used",
        "key split is not used",
        "key name of a message is not used",
    }
    notes = own_import.take(plain, found(row), "inputs").notes
    assert "system text is not used: the student has its own prompt" in notes
    assert "answer is not used: the teacher gives one" in notes
