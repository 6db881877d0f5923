"""reviews.jsonl: the last word counts, what is appended stays, and what is wrong is said with file
and line."""

import json
import os
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from potstill.core.errors import UserError
from potstill.core.jsonl import Row, row_id
from potstill.dataset import reviews

A, B = reviews.answer_hash("one"), reviews.answer_hash("two")


def verdict(verdict: str, answer: str = A, **more: object) -> Row:
    return {"id": "r", "answer": answer, "verdict": verdict, "checks": True, **more}


def ranking(verdict: str, *answers: str) -> Row:
    return {"id": "r", "answers": list(answers), "verdict": verdict}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "reviews.jsonl"


def test_the_last_verdict_on_an_answer_counts(path: Path) -> None:
    assert row_id({"answer": "one"}) == A
    for row in (verdict("accept"), verdict("reject", B), verdict("edit", output="three")):
        reviews.append(path, row)
    found = reviews.load(path)
    assert found.verdict("r", "one") == verdict("edit", output="three")
    assert (found.verdict("r", "two") or {})["verdict"] == "reject"
    assert found.verdict("r", "three") is None
    assert found.verdict("s", "one") is None


@pytest.mark.parametrize(("said", "expected"), [("a", "b"), ("b", "a"), ("tie", "tie")])
def test_a_ranking_holds_whichever_answer_comes_first(path: Path, said: str, expected: str) -> None:
    reviews.append(path, ranking("a", A, B))
    reviews.append(path, ranking(said, B, A))
    found = reviews.load(path)
    assert (found.ranking("r", "one", "two"), found.ranking("r", "two", "one")) == (expected, said)
    assert found.ranking("r", "one", "three") is None


@pytest.mark.parametrize("content", [None, ""])
def test_nobody_has_said_anything_yet(path: Path, content: str | None) -> None:
    if content is not None:
        path.parent.mkdir()
        path.write_text(content)
    assert reviews.load(path) == reviews.Reviews()


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        (verdict("keep"), "verdict is 'keep', expected one of accept, reject, edit"),
        (verdict("edit"), "output is None, expected the text of the edit"),
        (verdict("edit", output={"a": 1}), "output is {'a': 1}, expected the text of the edit"),
        (verdict("accept", "one"), "answer is 'one', expected 16 hex digits"),
        ({"id": "r", "verdict": "accept"}, "answer is None, expected 16 hex digits"),
        ({**verdict("accept"), "id": 7}, "id is 7, expected a text"),
        (ranking("accept", A, B), "verdict is 'accept', expected one of a, b, tie"),
        (ranking("a", A), "expected two different ones"),
        (ranking("a", A, A), "expected two different ones"),
        (ranking("a", A, "x"), "expected 16 hex digits"),
        ({**verdict("accept"), "answers": A}, "expected 16 hex digits"),
    ],
)
def test_a_bad_line_is_one_sentence(path: Path, row: Row, fault: str) -> None:
    reviews.append(path, verdict("accept"))
    reviews.append(path, row)
    with pytest.raises(
        UserError, match=rf"reviews.jsonl:2: .*{re.escape(fault)}: mend or delete the line$"
    ):
        reviews.load(path)


@pytest.mark.parametrize("tail", [b'{"id": "r", "answ', b"<<<<<<< ours\n", b"\n\n"])
def test_a_line_that_is_none_is_said(path: Path, tail: bytes) -> None:
    line = reviews.append(path, verdict("accept"))
    path.write_bytes(line + tail)
    with pytest.raises(UserError, match=r"reviews.jsonl:2: "):
        reviews.load(path)


def test_a_last_line_without_its_end_stays_a_line_of_its_own(path: Path) -> None:
    path.parent.mkdir()
    path.write_text(json.dumps(verdict("accept")))
    reviews.append(path, verdict("reject", B))
    assert len(reviews.load(path).verdicts) == 2


def test_a_failed_write_leaves_the_file_as_it_was(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = reviews.append(path, verdict("accept"))
    with pytest.raises(UnicodeEncodeError):
        reviews.append(path, verdict("edit", output="\ud800"))

    def full(number: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        reviews.append(path, verdict("reject"))
    assert path.read_bytes() == before


def test_a_line_can_be_taken_back_wherever_it_stands(path: Path) -> None:
    said = [verdict("accept"), verdict("reject", B), verdict("reject"), verdict("accept", B)]
    lines = [reviews.append(path, row) for row in said]
    path.chmod(0o664)
    for gone in (1, 3, 0, 2):
        assert reviews.take_back(path, lines[gone])
        assert not reviews.take_back(path, lines[gone])
        lines[gone] = b""
        assert path.read_bytes() == b"".join(lines)
    assert path.stat().st_mode & 0o777 == 0o664
    assert [one.name for one in path.parent.iterdir()] == [path.name]


def test_what_changed_meanwhile_is_not_overwritten(path: Path) -> None:
    first, other = verdict("accept", by="Li"), verdict("reject", by="Wu")
    reviews.append(path, first, reviews.mark(None))
    with pytest.raises(UserError, match=r"^Li said 'accept' of this after this page had read it: "):
        reviews.append(path, other, reviews.mark(None))
    reviews.append(path, verdict("reject", B), reviews.mark(None))  # of another answer
    reviews.append(path, ranking("a", A, B), reviews.mark(None))
    line = reviews.append(path, other, reviews.mark(first))
    with pytest.raises(UserError, match="^Wu said 'reject' of this"):
        reviews.append(path, first, reviews.mark(first))
    with pytest.raises(UserError, match="^somebody said 'a' of this"):
        reviews.append(path, ranking("b", B, A), reviews.mark(None))
    before = path.read_bytes()
    assert line in before and len(before.splitlines()) == 4


def test_nothing_is_lost_where_many_write_and_take_back(path: Path) -> None:
    def session(who: int) -> None:
        for i in range(12):
            line = reviews.append(path, verdict("accept", by=who, at=i))
            if i % 3:
                assert reviews.take_back(path, line)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(session, range(4)))
    rows = [json.loads(line) for line in path.read_bytes().splitlines()]
    expected = {(who, i) for who in range(4) for i in range(0, 12, 3)}
    assert len(rows) == len(expected) and {(row["by"], row["at"]) for row in rows} == expected


@given(texts=st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=1, max_size=5))
def test_any_text_comes_back(tmp_path_factory: pytest.TempPathFactory, texts: list[str]) -> None:
    path = tmp_path_factory.mktemp("r") / "reviews.jsonl"
    for text in texts:
        reviews.append(path, verdict("edit", reviews.answer_hash(text), output=text))
    found = reviews.load(path)
    assert all((found.verdict("r", text) or {})["output"] == text for text in texts)
