"""Loss curves: tables, pictures, verdicts."""

import json
import math
from pathlib import Path

import pytest

from potstill.core import jsonl
from potstill.core.errors import UserError
from potstill.evaluation import loss_curves

STEPS = range(10, 610, 10)


def curve(shape: str) -> loss_curves.Curve:
    """60 points of a loss that falls throughout, levels out, or rises again after step 200."""
    losses = {
        "falling": lambda step: 3 - step / 250,
        "flat": lambda step: 0.5 + 2 * math.exp(-step / 40),
        "rising": lambda step: 0.5 + 2 * math.exp(-step / 40) + max(0, step - 200) / 1000,
        "noisy flat": lambda step: (0.5 + 2 * math.exp(-step / 40)) * (1.03 if step % 20 else 0.97),
        "zero": lambda step: 0.0,
    }
    return [(step, losses[shape](step)) for step in STEPS]


@pytest.mark.parametrize(
    ("train", "valid", "verdict", "change"),
    [
        ("falling", "falling", "under-fitted", "more epochs or a higher rank"),
        ("falling", "rising", "over-fitted", "fewer epochs or a lower rank"),
        ("flat", "flat", "well fitted", "nothing to change"),
        ("noisy flat", "flat", "well fitted", "nothing to change"),
        ("falling", "flat", "well fitted", "nothing to change"),
        ("zero", "zero", "well fitted", "nothing to change"),
    ],
)
def test_verdicts(train: str, valid: str, verdict: str, change: str) -> None:
    found = loss_curves.fit(curve(train), curve(valid)[4::5])
    assert found["verdict"] == verdict
    assert found["advice"].endswith(change)


def test_a_validation_loss_that_rose_at_the_end_is_not_still_falling() -> None:
    valid = curve("falling")[4::5]
    last, before = valid[-1][0], valid[-2][1]
    for end in (before * 1.02, before * 0.995):
        found = loss_curves.fit(curve("falling"), [*valid[:-1], (last, end)])
        assert found["verdict"] == "well fitted"


@pytest.mark.parametrize(("train", "valid"), [(60, 2), (5, 12)])
def test_a_short_training_gets_no_verdict(train: int, valid: int) -> None:
    assert (
        loss_curves.fit(curve("flat")[:train], curve("flat")[:valid])["verdict"]
        == "too short to tell"
    )


def test_the_log_is_split_in_two() -> None:
    log = [
        {"step": 1, "epoch": 0.1, "loss": 2.0},
        {"step": 2, "eval_loss": 1.5},
        {"step": 2, "loss": 1.0},
    ]
    assert loss_curves.split(log) == ([(1, 2.0), (2, 1.0)], [(2, 1.5)])
    with pytest.raises(UserError, match="holds no losses"):
        loss_curves.split(log[:1])


def test_tables(tmp_path: Path) -> None:
    log: list[jsonl.Row] = [
        {"step": 10, "loss": 1.23456789},
        {"step": 20, "loss": 0.5},
        {"step": 20, "eval_loss": 2},
    ]
    found = loss_curves.write(tmp_path, "toy", log)
    assert (tmp_path / "train_loss.csv").read_text() == "step,loss\n10,1.23457\n20,0.5\n"
    assert (tmp_path / "eval_loss.csv").read_text() == "step,loss\n20,2\n"
    assert json.loads((tmp_path / "fit.json").read_text()) == found
    assert (tmp_path / "accuracy.csv").read_text() == "step,accuracy\n"
    assert not (tmp_path / "accuracy.png").exists()
    scored = [{"step": 10, "accuracy": 2 / 3}, {"step": 20, "accuracy": 0.5}]
    assert loss_curves.write(tmp_path, "toy", log + scored) == found
    assert (tmp_path / "accuracy.csv").read_text() == "step,accuracy\n10,0.666667\n20,0.5\n"
    assert (tmp_path / "accuracy.png").read_bytes().startswith(b"\x89PNG")


def test_a_picture_is_a_png_and_the_same_twice(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        loss_curves.draw(tmp_path / name, curve("flat"), "Training loss, toy")
    picture = (tmp_path / "a.png").read_bytes()
    assert picture.startswith(b"\x89PNG")
    assert int.from_bytes(picture[16:20], "big") == 840
    assert picture == (tmp_path / "b.png").read_bytes()
