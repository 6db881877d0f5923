"""The doctor's look before a stage that pays: once a run, and anew when anything that it looks at
has changed."""

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from potstill.core import jsonl, preflight
from potstill.core.errors import UserError
from tests.conftest import ROOT, Project

OPENED = """
import json, sys
from pathlib import Path
opened = set()
def hook(event, arguments):
    if event == "open" and isinstance(arguments[0], str):
        opened.add(str(Path(arguments[0]).resolve()))
sys.addaudithook(hook)
from potstill.commands import doctor
found = [one.text for one in doctor.findings(True)]
print(json.dumps([found, sorted(opened)]))
"""


@pytest.fixture
def looks(project: Project, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A project with a real teacher; an element for each look, the doctor's exit code."""
    project.seeds(2, alike=False)
    project.set(teacher_model="fake-235b", model="own")
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        project.write(f"own/{name}", "{}")
    monkeypatch.setenv("TEACHER_API_KEY", "one")
    done: list[int] = []

    def run(command: list[str], **how: Any) -> "subprocess.CompletedProcess[str]":
        done.append(Path("bad").exists())
        return subprocess.CompletedProcess(command, done[-1], "", "error: bad\n")

    monkeypatch.setattr(subprocess, "run", run)
    preflight.look("generate")
    assert done == [0]
    return done


def test_a_run_looks_once(project: Project, looks: list[int]) -> None:
    """What stages make changes nothing; a look that ended badly is no look."""
    project.write("data/2-answers.jsonl", "{}\n")
    project.write("bad", "")
    preflight.look("ask_teacher")
    assert looks == [0]
    project.write("data/gold.jsonl", "")
    for _ in range(2):
        with pytest.raises(UserError, match="^bad$"):
            preflight.look("pairs")
    assert looks == [0, 1, 1]


def rewrite(path: str) -> None:
    """Other bytes, as many, and the file's own time."""
    file = Path(path)
    times = file.stat()
    raw = file.read_bytes()
    file.write_bytes(raw[:-1] + b"~")
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))


@pytest.mark.parametrize(
    "change",
    [
        lambda patch: rewrite("data/seeds.jsonl"),
        lambda patch: rewrite("params.yaml"),
        lambda patch: rewrite("own/tokenizer.json"),
        lambda patch: Path("data/gold.jsonl").touch(),
        lambda patch: Path("prompts/student.md").unlink(),
        lambda patch: patch.setenv("TEACHER_API_KEY", "two"),
        lambda patch: patch.setenv("https_proxy", "proxy:3128"),
        lambda patch: patch.setattr(preflight, "MEMORY", Path("own/config.json")),
        lambda patch: patch.setattr(preflight, "room", lambda _: 1 << 60),
        lambda patch: os.utime(preflight.NOTE, (0, 0)),
    ],
)
def test_a_change_is_looked_at(
    looks: list[int], change: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    change(monkeypatch)
    preflight.look("generate")
    assert looks == [0, 0]


def test_all_that_the_doctor_opens_is_known(project: Project) -> None:
    project.seeds(3, alike=False)
    project.set(teacher_model="fake-235b")
    project.write("data/gold.jsonl", '{"text": "a b", "gold": null}\n')
    turns = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    jsonl.write_jsonl("data/own/messages.jsonl", [{"messages": turns}])
    env = {**os.environ, "PYTHONPATH": str(ROOT), "TEACHER_API_KEY": "k"}
    env |= {"TEACHER_BASE_URL": "http://127.0.0.1:9/v1", "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        ["python", "-c", OPENED], env=env, capture_output=True, text=True, check=True
    )
    found, opened = json.loads(done.stdout)
    assert not found, found
    known = {str(path.resolve()) for path in preflight.files("models/tiny-base")}
    here = [Path.cwd(), ROOT / "models", ROOT / "schemas", ROOT / "potstill"]
    own = {path for path in opened if any(Path(path).is_relative_to(one) for one in here)}
    own = {path for path in own if "__pycache__" not in path}
    assert len(own) > 10
    assert own <= known
