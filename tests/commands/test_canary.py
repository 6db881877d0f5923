"""`make canary`: what the test says of two students' kept answers, and what is done about it."""

import sys
from pathlib import Path

import pytest

from potstill.commands import canary
from potstill.core import jsonl
from potstill.core.errors import UserError
from potstill.serving import served
from potstill.task import settings
from tests import fakes
from tests.conftest import Project

DAY = "2026-11-30T10:00"


@pytest.fixture
def trial(project: Project) -> jsonl.Row:
    """A trial that began at nine."""
    fakes.model("models/student", 4)
    fakes.model("models/next", 8)
    task = settings.load()
    assert served.begin(task, Path("models/student"), Path("models/next"), 0.5)
    found = {**(served.trial(task) or {}), "began": "2026-11-30T09:00:00Z"}
    jsonl.write_json(served.trial_file(task), found)
    return found


def kept(trial: jsonl.Row, **sides: tuple[int, int]) -> list[jsonl.Row]:
    """Captured rows on disk: of each side so many inputs, of which so many fail."""
    rows = [
        {
            "at": f"{DAY}:{number % 60:02}Z",
            "input": {"text": f"{side} {number}"},
            "by": side,
            "failed": ["grounded"] if number < failed else [],
            "weights": trial[side],
        }
        for side, (number_of, failed) in sides.items()
        for number in range(number_of)
    ]
    Path("data/captured").mkdir(parents=True, exist_ok=True)
    jsonl.write_jsonl("data/captured/1.jsonl", rows)
    return rows


def said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: str) -> str:
    monkeypatch.setattr(sys, "argv", ["potstill canary", *words])
    capsys.readouterr()
    canary.main()
    return capsys.readouterr().out


@pytest.mark.parametrize(
    ("student", "second", "says", "ends"),
    [
        ((200, 40), (200, 10), "the canary is better", served.PROMOTED),
        ((200, 10), (200, 40), "the canary is worse", served.BACK),
        ((200, 10), (200, 14), "the canary is within the noise", None),
        ((200, 40), (29, 0), "too few to say: expected 30 different inputs of each", None),
    ],
)
def test_the_exact_test_decides(
    trial: jsonl.Row,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    student: tuple[int, int],
    second: tuple[int, int],
    says: str,
    ends: str | None,
) -> None:
    kept(trial, student=student, canary=second)
    task = settings.load()
    looked = said(monkeypatch, capsys)
    assert says in looked and "make canary DO=promote" in looked
    assert served.trial(task) == trial and served.default(task) == Path("models/student")
    done = said(monkeypatch, capsys, "--do", "auto")
    found = served.trial(task)
    assert found and found["ended"] == ends
    if ends:
        side = "canary" if ends == served.PROMOTED else "student"
        chosen = Path("models/served", trial[side])
        assert f"canary: {ends}; {chosen} is served now" in done
        assert served.default(task) == chosen
        assert "the trial has ended" in said(monkeypatch, capsys, "--do", "auto")
    else:
        assert "nothing was changed" in done


def test_each_input_counts_once_by_its_latest_answer_and_no_answer_fails(
    trial: jsonl.Row, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = kept(trial, student=(40, 0), canary=(40, 0))
    again = [{**row, "at": f"{DAY}:59Z", "failed": ["grounded"]} for row in rows[:1] * 50]
    before = [{**row, "at": "2026-11-30T08:00:00Z", "failed": ["facts"]} for row in rows]
    other = [{**row, "weights": "0" * 12, "failed": ["facts"]} for row in rows]
    without = [{key: row[key] for key in row if key != "weights"} for row in rows]
    none = [{**row, "by": "student", "canary": "unavailable"} for row in rows[-3:]]
    jsonl.write_jsonl("data/captured/2.jsonl", [*before, *other, *without, *again, *none])
    out = said(monkeypatch, capsys)
    assert "80 different inputs" in out and "facts" not in out
    assert "fails grounded: student 1, canary 0" in out
    assert "fails no answer: student 0, canary 3" in out


def test_a_person_may_decide_either_way_and_change_it(
    trial: jsonl.Row, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    task = settings.load()
    with pytest.raises(UserError, match="data/captured has no rows since 2026-11-30T09"):
        said(monkeypatch, capsys)
    for word, side in (("promote", "canary"), ("rollback", "student"), ("promote", "canary")):
        assert canary.WAYS[word] in said(monkeypatch, capsys, "--do", word)
        assert served.default(task) == Path("models/served", trial[side])
    served.trial_file(task).unlink()
    with pytest.raises(UserError, match="there is no trial: `make serve CANARY="):
        said(monkeypatch, capsys)
