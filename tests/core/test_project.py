"""potstill.core.project and lockfile: where caches are, and what git and DVC's cache hold."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from potstill.core import lockfile, params
from potstill.core import project as core_project
from potstill.core.errors import UserError
from tests.conftest import ROOT, Project


def test_an_experiment_uses_the_caches_of_the_user_s_own_copy(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert core_project.ROOT == ROOT
    assert core_project.root().resolve() == ROOT
    monkeypatch.delenv("DVC_ROOT")
    assert core_project.journals() == ROOT / ".cache/teacher"
    monkeypatch.setenv("DVC_ROOT", "/own")
    assert core_project.journals() == Path("/own/.cache/teacher")
    monkeypatch.setenv("TEACHER_JOURNAL", " /shared ")
    assert core_project.journals() == Path("/shared")


def test_a_file_as_git_has_it(project: Project) -> None:
    for command in (
        ["init", "-q"],
        ["add", "params.yaml"],
        ["-c", "user.name=n", "-c", "user.email=e", "commit", "-qm", "one"],
    ):
        subprocess.run(["git", *command], check=True)
    before = (project.dir / "params.yaml").read_bytes()
    project.set(seed=7)
    assert core_project.committed("HEAD", "params.yaml") == before
    assert core_project.committed("HEAD", "nowhere.yaml") is None
    assert core_project.git("log", "--format=%s") == "one"
    with pytest.raises(UserError, match=r"^`git log nowhere` failed: fatal: .*nowhere"):
        core_project.git("log", "nowhere")


def test_the_task_s_name_is_in_its_task_yaml_or_that_of_its_folder(project: Project) -> None:
    assert params.task_name() == "toy"
    project.write("tasks/mine/task.yaml", "checks: []\n")
    assert params.task_name(Path("tasks/mine")) == "mine"


def test_what_an_md5_stands_for(tmp_path: Path) -> None:
    file, folder = "a" * 32, "b" * 32 + ".dir"
    assert list(lockfile.objects(tmp_path, file)) == [(".", file)]
    assert list(lockfile.objects(tmp_path, folder)) == []
    path = tmp_path / folder[:2] / folder[2:]
    path.parent.mkdir()
    path.write_text(json.dumps([{"relpath": "x.jsonl", "md5": file}]))
    assert list(lockfile.objects(tmp_path, folder)) == [("x.jsonl", file)]
    path.write_text("[torn")
    assert list(lockfile.objects(tmp_path, folder)) == []


def test_a_lost_sigint_is_sent_again() -> None:
    first = "import signal, time; signal.signal(2, lambda *_: signal.signal(2, signal.SIG_DFL)); "
    command = [sys.executable, "-c", first + "print(flush=True); time.sleep(60)"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True) as child:
        assert child.stdout and child.stdout.readline() == b"\n"
        core_project.interrupt(child, again=0.1)
    assert child.returncode == -signal.SIGINT
