"""DVC records only what a stage has read: potstill.core.dvc, with the real DVC."""

import json
from pathlib import Path

import pytest

from potstill.core import lockfile
from tests import random_edits
from tests.conftest import ROOT, Project

pytestmark = pytest.mark.slow
# Makes a file of its rows and a parameter; as it ends, after its last look, somebody edits a file.
MAKE = """
import atexit, os
from pathlib import Path
from potstill.core import params, stage
def edit():
    path = Path(os.environ["EDITED"])
    path.write_text(path.read_text().replace(os.environ["OLD"], os.environ["NEW"]))
def main():
    if os.environ.get("EDITED"):
        atexit.register(edit)
    rows = Path("data/rows.jsonl").read_text()
    Path("data/1-made.jsonl").write_text(f"{params.load('lora_rank').lora_rank} {rows}")
if __name__ == "__main__":
    stage.run(main)
"""
PIPELINE = """
stages:
  make:
    cmd: PYTHONPATH=.:$CODE python -m stages.make
    deps: [stages/make.py, data/rows.jsonl, prompts]
    params: [lora_rank]
    outs: [data/1-made.jsonl]
"""


@pytest.fixture
def made(project: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(project.dir / "site"))
    monkeypatch.setenv("CODE", str(ROOT))
    project.write(".dvc/config", "[core]\n    no_scm = true\n")
    project.write("dvc.yaml", PIPELINE)
    project.write("stages/make.py", MAKE)
    project.write("data/rows.jsonl", '{"a": 1}\n')
    return project


@pytest.mark.parametrize(
    ("path", "old", "new", "named"),
    [
        ("params.yaml", "lora_rank: 32", "lora_rank: 16", "params.yaml: lora_rank"),
        ("data/rows.jsonl", "1", "2", "data/rows.jsonl"),
        ("stages/make.py", "import atexit", "import  atexit", "stages/make.py"),
        ("prompts/teacher.md", "JSON", "YAML", "prompts/teacher.md"),
        ("data/1-made.jsonl", "1", "2", "data/1-made.jsonl"),
    ],
)
def test_an_edit_between_the_stage_s_look_and_dvc_s_is_not_recorded(
    made: Project, path: str, old: str, new: str, named: str
) -> None:
    dvc = ("potstill.core.dvc", "repro")
    code, out = made.run(*dvc, EDITED=path, OLD=old, NEW=new)
    assert (
        code and f"error: {named} has changed since make ended: the result is not recorded" in out
    )
    assert not lockfile.LOCK.exists() and not list(Path(".dvc/cache").rglob("runs/*/*/*"))
    if path != "data/1-made.jsonl":
        made.write(path, Path(path).read_text().replace(new, old))
    assert made.run(*dvc)[0] == 0
    [entry] = lockfile.read().values()
    assert entry["params"] == {"params.yaml": {"lora_rank": 32}}
    assert Path("data/1-made.jsonl").read_text() == '32 {"a": 1}\n'
    # What the run-cache has is held against the inputs that it was looked up by, and taken.
    Path("data/1-made.jsonl").unlink()
    code, out = made.run(*dvc)
    assert code == 0 and "is cached - skipping run" in out
    assert "didn't change" in made.run(*dvc)[1]


def test_random_edits_are_recorded_as_read_or_not_at_all() -> None:
    found = random_edits.total(10, seed=1)
    assert found["WRONG"] == 0 and sum(found.values()) == 20, json.dumps(found)
