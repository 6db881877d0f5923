"""`make scale-curve`: dvc is called as told, params.yaml is as before at the end, and what is
reported is right."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from potstill.commands import scale_curve
from potstill.core import jsonl, params
from potstill.core import project as core_project
from potstill.core.errors import UserError
from tests.conftest import Project

TASK = "checks: [length_within: {tolerance: 10}]\nheadline_slice: a\n"


def predictions(off: int) -> None:
    """Test rows of two slices that ask for 20 characters, and answers that are so many characters
    off; the base's are 30 off."""
    tests = [
        {
            "id": jsonl.row_id({"text": f"写20字 {i}"}),
            "text": f"写20字 {i}",
            "slice": "ab"[i % 2],
            "expected": None,
        }
        for i in range(40)
    ]
    jsonl.write_jsonl("data/4-test.jsonl", tests)
    for model, count in (("base", 50), ("sft", 20 + off)):
        found = [
            {"id": test["id"], "answer": "字" * count, "prompt_tokens": 1, "completion_tokens": 1}
            for test in tests
        ]
        jsonl.write_jsonl(f"data/5-predictions/{model}/test.jsonl", found)


def test_the_curve(
    project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    project.write("task.yaml", TASK)
    ran: list[int] = []

    def repro(*command: str) -> int:
        assert command == (*core_project.DVC, "repro")
        ran.append(params.load("split").split.train_rows)
        jsonl.write_jsonl("data/4-train.jsonl", [{"id": str(i)} for i in range(ran[-1])])
        predictions(7 if ran[-1] == 800 else 1)
        return 0

    monkeypatch.setattr(core_project, "call", repro)
    monkeypatch.setattr(sys, "argv", ["scale_curve", "2000", "800"])
    before = Path("params.yaml").read_text(encoding="utf-8")
    scale_curve.main()
    assert ran == [800, 2000, 0]
    assert Path("params.yaml").read_text(encoding="utf-8") == before
    made: dict[str, Any] = json.loads(Path("reports/scale_curve.json").read_text(encoding="utf-8"))
    assert made["rows"] == 20  # of the headline slice
    assert made["points"] == [
        {"train_rows": 0, "within 2": 0, "within 5": 0, "within 10": 0},
        {"train_rows": 800, "within 2": 0, "within 5": 0, "within 10": 1},
        {"train_rows": 2000, "within 2": 1, "within 5": 1, "within 10": 1},
    ]
    last = made["mcnemar_p"][1]
    assert (last["from"], last["to"], last["within 10"]) == (800, 2000, 1.0)
    assert last["within 2"] == 2 / 2**20
    assert Path("reports/scale_curve.png").stat().st_size > 10_000
    assert Path("reports/scale_curve.csv").read_text(encoding="utf-8").splitlines()[1:] == [
        "0,0.0,0.0,0.0",
        "800,0.0,0.0,1.0",
        "2000,1.0,1.0,1.0",
    ]
    assert (
        "800 → 2000 rows, exact McNemar on 20 rows: within 2 p = 1.9e-06" in capsys.readouterr().out
    )


@pytest.mark.parametrize(
    ("arguments", "code", "there", "says"),
    [
        (["800x"], 0, 0, "training rows are 800x, expected whole numbers"),
        (["0"], 0, 0, "training rows are 0, expected whole numbers"),
        (["800"], 0, 700, "split.train_rows 800: there are 700 rows to train on"),
        (["800"], 1, 800, "^`dvc repro` .*ended with 1; its own message stands above"),
    ],
)
def test_what_cannot_be_done_leaves_the_parameters(
    project: Project,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    code: int,
    there: int,
    says: str,
) -> None:
    project.write("task.yaml", TASK)
    jsonl.write_jsonl("data/4-train.jsonl", [{"id": str(i)} for i in range(there)])
    monkeypatch.setattr(core_project, "call", lambda *_: code)
    monkeypatch.setattr(sys, "argv", ["scale_curve", *arguments])
    before = Path("params.yaml").read_text(encoding="utf-8")
    with pytest.raises(UserError, match=says):
        scale_curve.main()
    assert Path("params.yaml").read_text(encoding="utf-8") == before
