"""`make tour`: `dvc repro` in each task's folder, then a table of them all."""

import json
from pathlib import Path

import pytest

from potstill.commands import tour
from potstill.core import project as core_project
from potstill.core.errors import UserError
from tests.conftest import Project


def test_every_task_runs_in_its_folder_and_a_failure_ends_it(
    project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(core_project, "ROOT", project.dir)
    project.write("tasks/other/task.yaml", "checks: []\n")
    model = {"accuracy": 0.5, "right": 200, "wrong": 200, "unscored": 0, "prompt_tokens": 553}
    ran: list[Path] = []

    def repro(*command: str) -> int:
        assert command == (*core_project.DVC, "repro")
        ran.append(Path.cwd())
        metrics = {"rows": 400} | dict.fromkeys(("base", "sft", "teacher"), model)
        project.write(f"{Path.cwd()}/reports/metrics.json", json.dumps(metrics))
        return 0 if len(ran) < 4 else 7

    monkeypatch.setattr(core_project, "call", repro)
    before = Path("params.yaml").read_bytes()
    tour.main()
    assert Path("params.yaml").read_bytes() == before
    folders = [project.dir, project.dir / "tasks/other"]
    assert ran == folders
    lines = capsys.readouterr().out.splitlines()
    assert lines[::2][:2] == ["tour: toy", "tour: other"]
    assert [line.split()[0] for line in lines[-3:]] == ["task", "toy", "other"]
    assert lines[-1].split() == ["other", "400", "50.0%", "50.0%", "50.0%", "553", "553"]
    with pytest.raises(UserError, match="^`dvc repro` in tasks/other/ ended with 7"):
        tour.main()
    assert ran == folders * 2


def test_a_task_that_has_not_run_is_said_to_be(tmp_path: Path) -> None:
    assert tour.line("toy", tmp_path) == f"{'toy':14}not yet run: make repro TASK=toy"
