"""`make eval`: says what is missing, else runs the predicting and scoring stages only."""

import subprocess
import sys

import pytest

from potstill.commands import evaluate
from potstill.core import errors
from tests.conftest import Project


def test_without_a_model_it_says_so(project: Project) -> None:
    with pytest.raises(
        errors.UserError,
        match=r"^no trained model at models/sft/merged: run `make repro` first$",
    ):
        evaluate.main()


def test_it_predicts_and_scores_only(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    (project.dir / "models/sft/merged").mkdir(parents=True)
    asked: list[list[str]] = []

    def call(command: list[str]) -> int:
        asked.append(command)
        return 3

    monkeypatch.setattr(subprocess, "call", call)
    with pytest.raises(SystemExit) as stopped:
        evaluate.main()
    assert stopped.value.code == 3
    stages = [f"{stage}@toy" for stage in evaluate.STAGES]
    assert set(evaluate.STAGES) == {
        "predict-base",
        "examples",
        "predict-sft",
        "predict-dpo",
        "parity",
        "predict-teacher",
        "ship",
        "judge",
        "score",
        "report",
    }
    assert asked == [[sys.executable, "-m", "dvc", "repro", "--single-item", *stages]]
