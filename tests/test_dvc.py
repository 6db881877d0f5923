"""dvc.yaml: each stage declares what its script reads, no more and no less; the data stages run under the real DVC."""

import ast
import importlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from potstill.core import params
from potstill.core.errors import UserError
from tests.conftest import ROOT, Project

STAGES: dict[str, dict[str, Any]] = params.parse(
    (ROOT / "dvc.yaml").read_text(encoding="utf-8"), ROOT / "dvc.yaml"
)["stages"]
PLUMBING = {
    f"potstill/{name}.py" for name in ("__init__", "errors", "lockfile", "params", "rows", "stage")
}


class Loaded(Exception):
    """Stops a stage where it has loaded its parameters."""


def script(stage: str) -> str:
    """The path of a stage's script."""
    return str(STAGES[stage]["cmd"].split()[2]).replace(".", "/") + ".py"


def imported(path: str) -> set[str]:
    """The files of potstill/ that a file imports, directly or through others."""
    found: set[str] = set()
    waiting = [path]
    while waiting:
        tree = ast.parse((ROOT / waiting.pop()).read_text(encoding="utf-8"))
        names = [
            f"{node.module}.{name.name}"
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom)
            for name in node.names
        ]
        for name in names:
            parts = name.split(".")
            for depth in (2, 3):
                base = "/".join(parts[:depth])
                file = next(
                    (f for f in (f"{base}.py", f"{base}/__init__.py") if (ROOT / f).is_file()), None
                )
                if parts[0] == "potstill" and file and file not in found:
                    found.add(file)
                    waiting.append(file)
    return found


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_declares_exactly_the_parameters_that_its_script_loads(
    stage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    loads: list[tuple[str, ...]] = []

    def load(*names: str) -> SimpleNamespace:
        loads.append(names)
        raise Loaded

    monkeypatch.setattr(params, "load", load)
    monkeypatch.setattr(sys, "argv", STAGES[stage]["cmd"].split()[2:])
    with pytest.raises(Loaded):
        importlib.import_module(STAGES[stage]["cmd"].split()[2]).main()
    assert list(loads[0]) == [
        name for name in STAGES[stage]["params"] if isinstance(name, str)
    ]  # else task.yaml's


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_looks_at_the_ranges_before_it_works(
    stage: str, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Any parameter out of its range stops any stage, and nothing is asked or written."""
    project.seeds(3)
    project.set(lora_alpha=129)
    before = set(project.dir.rglob("*"))
    monkeypatch.setattr(sys, "argv", STAGES[stage]["cmd"].split()[2:])
    with pytest.raises(
        UserError,
        match=r"^params\.yaml:\d+: lora_alpha is 129, expected a whole number from 1 to 128$",
    ):
        importlib.import_module(STAGES[stage]["cmd"].split()[2]).main()
    assert set(project.dir.rglob("*")) == before


@pytest.mark.parametrize("path", sorted({script(stage) for stage in STAGES}))
def test_a_stage_declares_the_code_that_decides_its_output(path: str) -> None:
    users = [stage for stage in STAGES if script(stage) == path]
    declared = {
        dep
        for stage in users
        for dep in STAGES[stage]["deps"]
        if re.fullmatch(r"potstill/.*\.py", dep)
    }
    assert declared == imported(path) - PLUMBING
    assert all(path in STAGES[stage]["deps"] for stage in users)
    assert (
        1 <= (ROOT / path).read_text().count("params.load(") <= len(users)
    )  # a list each, or one for several


def test_the_stages_are_in_the_order_of_the_data() -> None:
    made: set[str] = set()
    git_keeps = (
        "seeds.jsonl",
        "reviews.jsonl",
        "gold.jsonl",
        "messages.jsonl",
        "knowledge.jsonl",
        "models/tiny-base",
    )
    for spec in STAGES.values():
        assert spec["matrix"] == {"task": ["${task}"]}
        for dep in spec["deps"]:
            if dep.startswith(("data/", "models/", "reports/")) and not dep.endswith(git_keeps):
                assert any(dep == out or dep.startswith(out + "/") for out in made), dep
            elif "${" not in dep and not dep.startswith(("data/", "models/")):
                assert (ROOT / dep).is_file(), dep
        made |= set(outs(spec))


def outs(spec: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """A stage's outputs with their options."""
    listed = spec.get("outs", []) + spec.get("metrics", []) + spec.get("plots", [])
    return {
        key: value
        for out in listed
        for key, value in (out.items() if isinstance(out, dict) else [(out, {})])
    }


def test_outputs_are_all_cached_or_all_kept_in_git() -> None:
    for stage, spec in STAGES.items():
        uncached = {options.get("cache") is False for options in outs(spec).values()}
        assert uncached == {stage == "score"}, stage


def test_an_experiment_with_the_rank_leaves_the_base_alone() -> None:
    assert [stage for stage, spec in STAGES.items() if "lora_rank" in spec["params"]] == [
        "sft",
        "align",
    ]
    trained = "models/${item.task}/"
    assert not any(
        trained in dep
        for stage in ("predict-base", "predict-teacher")
        for dep in STAGES[stage]["deps"]
    )


def dvc(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "dvc", *arguments],
        cwd=folder,
        env={
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        },
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_the_data_stages_under_the_real_dvc(project: Project) -> None:
    for name in ("dvc.yaml", ".gitignore", ".dvcignore"):
        shutil.copy(ROOT / name, project.dir)
    for name in ("potstill", "stages", ".dvc"):
        shutil.copytree(
            ROOT / name,
            project.dir / name,
            ignore=shutil.ignore_patterns("__pycache__", "cache", "tmp"),
        )
    subprocess.run(["git", "init", "-q", "."], cwd=project.dir, check=True)
    seeds = project.seeds(60, alike=False)
    project.write("data/gold.jsonl", "")
    project.set(valid_share=0.2)
    data = [f"{stage}@toy" for stage in ("expand", "generate", "filter", "split")]
    out = dvc(project.dir, "repro", *data)
    assert "split: 60 kept + 0 own rows" in out
    sides = [project.read(f"4-{name}.jsonl") for name in ("train", "valid", "test")]
    assert sorted(row["id"] for side in sides for row in side) == sorted(
        seed["id"] for seed in seeds
    )
    lock = (project.dir / "dvc.lock").read_text()
    again = dvc(project.dir, "repro", *data)
    assert again.count("didn't change, skipping") == 4
    assert (project.dir / "dvc.lock").read_text() == lock
    status = subprocess.run(
        ["git", "status", "--porcelain"],
        cwd=project.dir,
        capture_output=True,
        text=True,
        check=True,
    )
    assert not [
        line
        for line in status.stdout.splitlines()
        if "data/.gitignore" in line or ".cache" in line
    ]
    assert list((project.dir / ".cache/teacher").iterdir()) == [
        project.dir / ".cache/teacher/toy.jsonl"
    ]
