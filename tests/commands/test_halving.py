"""`make sweep ROWS=…`: successive halving, with a stand-in for the experiments."""

import json
import sys
from pathlib import Path

import pytest

from potstill.commands import doctor, experiments, halving, verify
from potstill.core import jsonl
from potstill.core import project as core_project
from potstill.core.errors import UserError
from tests.conftest import Project

LOSS = {4: 0.4, 8: 0.1, 16: 0.2, 32: 0.3, 64: 0.05}


@pytest.fixture
def ran(project: Project, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """The rank and the rows of each experiment that ran; one with rank 64 fails. More rows make the
    loss smaller, by the share of all 1,000."""
    started: list[tuple[str, str]] = []
    commits: dict[str, str] = {}

    def call(*command: str) -> int:
        sets = dict(word.split("=") for word in command if "=" in word)
        started.append((sets["lora_rank"], sets.get("split.train_rows", "all")))
        assert command[3:6] == ("exp", "run", "--temp")
        if sets["lora_rank"] != "64":
            commits[f"exp{len(started)}"] = str(len(started))
        return int(sets["lora_rank"] == "64")

    def blobs(names: list[str]) -> list[bytes]:
        number = int(names[0].partition(":")[0])
        assert names == [
            f"{number}:here/reports/{file}" for file in ("tables/eval_loss.csv", "metrics.json")
        ]
        rank, rows = started[number - 1]
        loss = LOSS[int(rank)] + (0 if rows == "all" else 1 / int(rows))
        metrics = {"rows": 100, "sft": {"accuracy": 0.5, "right": 50, "wrong": 50, "unscored": 0}}
        return [f"step,loss\n1,9\n2,{loss}\n".encode(), json.dumps(metrics).encode()]

    monkeypatch.setattr(core_project, "call", call)
    monkeypatch.setattr(core_project, "experiments", lambda: dict(commits))
    monkeypatch.setattr(core_project, "blobs", blobs)
    monkeypatch.setattr(core_project, "git", lambda *_: "here/")
    monkeypatch.setattr(doctor, "untracked", lambda: "")
    monkeypatch.setattr(verify, "abandoned", list)
    counts = {"train": 900, "beyond split.train_rows": 100}
    jsonl.write_json(Path("data/4-split.json"), counts)
    return started


def sweep(monkeypatch: pytest.MonkeyPatch, *words: str) -> None:
    monkeypatch.setattr(sys, "argv", ["sweep", *words])
    experiments.sweep()


def test_the_better_half_goes_on_and_the_last_two_see_all_rows(
    ran: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UserError, match="^1 of 10 experiments failed: lora_rank=64 split"):
        sweep(monkeypatch, "--rows", "100", "1", "lora_rank=4,8,16,32,64")
    assert ran == [
        *((rank, "100") for rank in ("4", "8", "16", "32", "64")),
        *((rank, "200") for rank in ("8", "16", "32")),
        *((rank, "all") for rank in ("8", "16")),
    ]
    out = capsys.readouterr().out.splitlines()
    assert out[-1] == "best by its loss: lora_rank=8: `dvc exp apply exp9`"
    assert out[-2].split() == ["all", "lora_rank=16", "0.2", "50.0%", "0", "exp10"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--rows", "0", "1", "lora_rank=4,8"], "ROWS from 1 up, and no JOBS"),
        (["--rows", "100", "2", "lora_rank=4,8"], "ROWS from 1 up, and no JOBS"),
        (["--rows", "100", "1", "split.train_rows=4,8"], "^S has split.train_rows, which ROWS"),
        (["--rows", "100", "1", "near_duplicate=0.8,0.9"], "^S has near_duplicate, which"),
    ],
)
def test_what_cannot_be_halved(
    ran: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch, words: list[str], said: str
) -> None:
    with pytest.raises(UserError, match=said):
        sweep(monkeypatch, *words)
    assert ran == []


def test_a_round_with_all_rows_is_the_last(ran: list[tuple[str, str]]) -> None:
    each = [[f"lora_rank={rank}"] for rank in (4, 8, 16)]
    trials = halving.run(
        each, 5000, lambda values: core_project.call("", "", "", "exp", "run", "--temp", *values)
    )
    assert [one.rows for one in trials] == [0, 0, 0]
    assert halving.lines(trials)[-1].startswith("best by its loss: lora_rank=8")
