"""`make drift`: no alarm where nothing has changed, one where the layout has, and what it says."""

import json
import random
import sys

import pytest

from potstill.commands import drift
from potstill.core import jsonl
from potstill.core.errors import UserError
from potstill.task import settings
from tests.conftest import Project

WORDS = "amber basil cedar delta ember fjord grove haven inlet jetty knoll larch meadow".split()


def line(chance: random.Random) -> str:
    """A text of the layout that was trained on."""
    words = " ".join(chance.choices(WORDS, k=chance.randint(3, 7)))
    return f"{words}, {chance.randint(1, 999)}, {chance.choice(WORDS)}"


def shifted(chance: random.Random) -> str:
    """The same in another layout: the number first, and slashes between the words."""
    *words, last = line(chance).replace(",", "").split()
    return f"{last}/{'/'.join(reversed(words))}"


def families(texts: list[str]) -> dict[str, list[str]]:
    return {str(number): [text] for number, text in enumerate(texts)}


def test_there_is_no_alarm_where_nothing_has_changed() -> None:
    """100 draws of both sides from one source: by the tests alone, and with the smallest
    differences that count."""
    chance, by_p, alarms = random.Random(7), 0, 0
    for _ in range(100):
        texts = [line(chance) for _ in range(200)]
        tests = drift.inputs(texts[:60], families(texts[60:]))
        failed = [["grounded"] if chance.random() < 0.1 else [] for _ in texts]
        tests = drift.corrected([*tests, *drift.checks(failed[:60], failed[60:])])
        by_p += any(test.p < 0.05 for test in tests)
        alarms += any(test.changed for test in tests)
    assert by_p <= 5 and alarms <= 5, (by_p, alarms)


def test_another_layout_is_seen_in_fifty_inputs() -> None:
    chance = random.Random(7)
    for _ in range(10):
        texts = families([line(chance) for _ in range(300)])
        tests = drift.corrected(drift.inputs([shifted(chance) for _ in range(50)], texts))
        assert {"marks", "white space"} <= {test.name for test in tests if test.changed}


def test_a_check_that_fails_more_often_is_seen_and_one_that_fails_less_is_none() -> None:
    often, seldom = [["facts"]] * 30 + [[]] * 70, [["facts"]] * 5 + [[]] * 95
    [more], [less] = drift.checks(often, seldom), drift.checks(seldom, often)
    assert (more.changed, less.changed, more.name) == (True, False, "fails facts")
    assert more.p == pytest.approx(less.p) and more.apart == pytest.approx(0.25)


def test_a_small_difference_is_none_however_many_rows_there_are() -> None:
    side = [["facts"]] * 300 + [[]] * 9700
    [test] = drift.checks([["facts"]] * 500 + [[]] * 9500, side)
    assert test.p < 0.001 and not test.changed


def test_holms_correction() -> None:
    """As in statsmodels' multipletests, which the project's own tools have."""
    from statsmodels.stats.multitest import multipletests

    given = [0.01, 0.04, 0.03, 0.005, 0.9]
    tests = [drift.Test(str(p), 0.0, 0.0, 1.0, 0.1, p) for p in given]
    expected = multipletests(given, method="holm")[1]
    assert [test.p for test in drift.corrected(tests)] == pytest.approx(list(expected))


def captured(texts: list[str], failed: list[str]) -> None:
    rows = [
        {"at": "2026-11-30T00:00:00Z", "id": jsonl.row_id({"text": text}), "input": {"text": text}}
        for text in texts
    ]
    said = {"by": "student", "answer": "a", "finish_reason": "stop", "failed": failed}
    jsonl.write_jsonl("data/captured/1.jsonl", [row | said for row in rows])


def ran(monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(sys, "argv", ["potstill drift"])
    try:
        drift.main()
    except SystemExit as end:
        return int(str(end.code))
    return 0


def test_the_verdict_and_the_exit_code(
    project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    captured(["a line"], [])
    with pytest.raises(UserError, match=r"data/4-train.jsonl is missing: run .dvc repro."):
        ran(monkeypatch)
    chance = random.Random(1)
    rows = []
    for text in (line(chance) for _ in range(80)):
        turns = [{"role": "user", "content": text}, {"role": "assistant", "content": "a"}]
        rows.append({"id": jsonl.row_id({"text": text}), "messages": turns})
    jsonl.write_jsonl("data/4-train.jsonl", rows)
    assert ran(monkeypatch) == 0
    says = "drift: too few to say: 1 different input beside 80 training rows, expected 30 of each"
    assert capsys.readouterr().out == says + "\n"
    captured([line(chance) for _ in range(60)] * 2, [])
    assert ran(monkeypatch) == 0
    out = capsys.readouterr().out
    assert out.startswith("drift: 60 different inputs beside 80 training rows\n")
    assert out.endswith("like what was trained on, as far as 7 tests see\n")
    tests = [{"id": jsonl.row_id({"text": f"t{i}"}), "text": f"t{i}"} for i in range(40)]
    jsonl.write_jsonl("data/4-test.jsonl", [row | {"slice": "gold"} for row in tests])
    good = json.dumps({"word": "t", "length": 1})
    used = {"finish_reason": "stop", "prompt_tokens": 1, "completion_tokens": 1}
    answers = [{"id": row["id"], "answer": good, **used} for row in tests]
    jsonl.write_jsonl("data/5-predictions/sft/test.jsonl", answers)
    jsonl.write_json("data/6-choice.json", {"ship": "sft"})
    assert drift.tested(settings.load()) == [[]] * 40
    captured([shifted(chance) for _ in range(60)], ["grounded"])
    assert ran(monkeypatch) == 1
    out = capsys.readouterr().out
    assert "; checks beside the student's 40 test rows\n" in out
    last = out.splitlines()[-1]
    assert last.startswith("drift: what is asked has changed: ") and "fails grounded" in last
