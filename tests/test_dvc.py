"""dvc.yaml: each stage declares what its script reads, no more and no less; every task has the same
pipeline; the data stages run under the real DVC."""

import ast
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from potstill.commands import fresh, repro, verify
from potstill.core import lockfile, models, params
from potstill.core.errors import UserError
from tests.conftest import ROOT, Project

PIPELINE = lockfile.read_yaml(ROOT / "dvc.yaml")
TASKS = sorted(path.parent for path in ROOT.glob("tasks/*/dvc.yaml"))
# These files of core/ decide nothing of what a stage writes, and so does potstill/__init__.py.
PLUMBING = "potstill/core"


class Loaded(Exception):
    """Stops a stage where it has loaded its parameters."""


def stages() -> dict[str, dict[str, Any]]:
    """The stages as DVC resolves them, with root `.`: name → cmd, deps, params, outs."""
    found: dict[str, dict[str, Any]] = {}
    for name, spec in PIPELINE["stages"].items():
        for key, item in spec.get("foreach", {"": {}}).items():
            text = str(spec.get("do", spec)).replace("${root}/", "").replace("${root}", ".")
            for field, value in {"key": key, **item}.items():
                for index, one in enumerate(value if isinstance(value, list) else ()):
                    text = text.replace(f"${{item.{field}[{index}]}}", one)
                text = text.replace(f"${{item.{field}}}", str(value).replace("${root}/", ""))
            found[f"{name}@{key}" if key else name] = ast.literal_eval(text.replace("${key}", key))
    return found


STAGES = stages()


def script(stage: str) -> str:
    """The path of a stage's script."""
    return f"stages/{stage.partition('@')[0]}.py"


def imported(path: str) -> set[str]:
    """The files of potstill/ that a file imports, directly or through others."""
    found: set[str] = set()
    waiting = [path]
    while waiting:
        tree = ast.parse((ROOT / waiting.pop()).read_text(encoding="utf-8"))
        nodes = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
        for name in [f"{node.module}.{name.name}" for node in nodes for name in node.names]:
            parts = name.split(".")
            for depth in (2, 3):
                file = "/".join(parts[:depth]) + ".py"
                if parts[0] == "potstill" and (ROOT / file).is_file() and file not in found:
                    found.add(file)
                    waiting.append(file)
    return found


def names(spec: dict[str, Any]) -> set[str]:
    """The parameters of params.yaml that a stage declares."""
    return {name for name in spec.get("params", ()) if isinstance(name, str)}


def outs(spec: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """A stage's outputs with their options."""
    listed = spec.get("outs", []) + spec.get("metrics", [])
    pairs = [out.items() if isinstance(out, dict) else [(out, {})] for out in listed]
    return {key: value for some in pairs for key, value in some}


def run_main(stage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls the main() of a stage's script with the arguments of its command."""
    words = STAGES[stage]["cmd"].split()
    monkeypatch.setattr(sys, "argv", words[words.index("-m") + 1 :])
    module = __import__(words[words.index("-m") + 1], fromlist=["main"])
    module.main()


@pytest.mark.parametrize("stage", [name for name in STAGES if name != "report"])
def test_a_stage_declares_exactly_the_parameters_that_its_script_loads(
    stage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    loads: list[tuple[str, ...]] = []

    def load(*names: str) -> SimpleNamespace:
        loads.append(names)
        raise Loaded

    monkeypatch.setattr(params, "load", load)
    with pytest.raises(Loaded):
        run_main(stage, monkeypatch)
    assert set(loads[0]) == names(STAGES[stage])
    assert (ROOT / script(stage)).read_text().count("params.load(") <= 2


@pytest.mark.parametrize("stage", [name for name in STAGES if name != "report"])
def test_a_stage_looks_at_the_ranges_before_it_works(
    stage: str, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Any parameter out of its range stops any stage, and nothing is asked or written."""
    project.seeds(3)
    project.set(lora_alpha=129)
    before = set(project.dir.rglob("*"))
    expected = r"^params\.yaml:\d+: lora_alpha is 129, expected a whole number from 1 to 128$"
    with pytest.raises(UserError, match=expected):
        run_main(stage, monkeypatch)
    assert set(project.dir.rglob("*")) == before


@pytest.mark.parametrize("stage", STAGES)
def test_the_folders_declared_are_the_folders_imported(stage: str) -> None:
    declared = {dep for dep in STAGES[stage]["deps"] if dep.startswith("potstill/")}
    folders = {file.rpartition("/")[0] for file in imported(script(stage))}
    assert declared == folders - {PLUMBING}
    assert script(stage) in STAGES[stage]["deps"]
    assert STAGES[stage]["cmd"].startswith(
        f"PYTHONPATH=. python -m {script(stage)[:-3]}".replace("/", ".")
    )


def test_the_stages_are_in_the_order_of_the_data() -> None:
    made: set[str] = set()
    in_git = ("seeds.jsonl", "gold.jsonl", "data/own", "models/tiny-base")
    for name, spec in STAGES.items():
        for dep in spec["deps"]:
            if dep.startswith(("data/", "models/", "reports/")) and not dep.endswith(in_git):
                related = {out for out in made if dep == out or dep.startswith(f"{out}/")}
                assert related or any(out.startswith(f"{dep}/") for out in made), (name, dep)
            elif not dep.startswith(("data/", "models/")):
                assert (ROOT / dep).exists(), dep
        made |= set(outs(spec))
    assert list(repro.stage_names()) == list(STAGES)


def test_dvc_yaml_is_short_and_every_task_has_the_same() -> None:
    text = (ROOT / "dvc.yaml").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 220
    assert len(TASKS) == 6
    for task in TASKS:
        own = (task / "dvc.yaml").read_text(encoding="utf-8")
        assert own == text.replace("vars: [{root: .}]", "vars: [{root: ../..}]"), task


def test_outputs_are_all_cached_or_all_kept_in_git() -> None:
    for stage, spec in STAGES.items():
        uncached = {options.get("cache") is False for options in outs(spec).values()}
        assert uncached == {stage == "score"}, stage


def test_an_experiment_with_the_rank_leaves_the_base_and_the_teacher_alone() -> None:
    trained = [name for name, spec in STAGES.items() if "lora_rank" in names(spec)]
    assert trained == ["sft", "sft_seeds", "align"]
    for name in ("predict@base", "ask_teacher"):
        assert not any(dep.startswith(("models/sft", "models/dpo")) for dep in STAGES[name]["deps"])


def test_inference_is_no_input_of_a_training() -> None:
    for name in ("sft", "merge", "sft_seeds", "align"):
        assert "potstill/inference" not in STAGES[name]["deps"]


def test_a_further_seed_is_trained_by_all_that_sft_reads() -> None:
    further, first = STAGES["sft_seeds"], STAGES["sft"]
    assert names(further) ^ names(first) == {"seeds", "seed"}
    assert further["params"][-1] == first["params"][-1]
    assert further["deps"][1:] == first["deps"][1:]


def test_every_model_that_is_compared_has_its_predictions() -> None:
    predicted = {name.partition("@")[2] for name in STAGES if name.startswith("predict@")}
    assert predicted == set(models.MODELS) - {"teacher"}
    for name, model in models.MODELS.items():
        if model.weights:
            deps = STAGES[f"predict@{name}"]["deps"]
            assert {str(model.weights), str(model.weights.parent)} & set(deps)


def dvc(folder: Path, *arguments: str) -> str:
    """The output of a dvc command, which must end well."""
    done = subprocess.run(
        [sys.executable, "-m", "dvc", *arguments],
        cwd=folder,
        env={
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        },
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def repository(project: Project) -> None:
    """Makes the project a git repository with code and pipeline of its own."""
    for name in ("dvc.yaml", ".gitignore", ".dvcignore"):
        shutil.copy(ROOT / name, project.dir)
    for name in ("potstill", "stages", "schemas", ".dvc"):
        ignored = shutil.ignore_patterns("__pycache__", "cache", "tmp", "vega.js")
        shutil.copytree(ROOT / name, project.dir / name, ignore=ignored)
    subprocess.run(["git", "init", "-q", "."], cwd=project.dir, check=True)


def test_the_data_stages_under_the_real_dvc(project: Project) -> None:
    repository(project)
    seeds = project.seeds(60, alike=False)
    project.write("data/gold.jsonl", "")
    project.set(split_valid_share=0.2)
    out = dvc(project.dir, "repro", "split")
    assert "split: 60 kept + 0 own rows" in out
    sides = [project.read(f"4-{name}.jsonl") for name in ("train", "valid", "test")]
    assert sorted(row["id"] for side in sides for row in side) == sorted(row["id"] for row in seeds)
    lock = (project.dir / "dvc.lock").read_text()
    again = dvc(project.dir, "repro", "split")
    assert again.count("didn't change, skipping") == 4
    assert (project.dir / "dvc.lock").read_text() == lock
    status = subprocess.run(
        ["git", "status", "--porcelain"],
        cwd=project.dir,
        capture_output=True,
        text=True,
        check=True,
    )
    listed = status.stdout.splitlines()
    assert not [line for line in listed if "data/.gitignore" in line or ".cache" in line]
    assert (project.dir / ".cache/teacher/toy.jsonl").is_file()


MADE = """
import json, pathlib
def line(i):
    word = f"word{i}"
    return f"line {i} of {i * 7919} ends in {word}", {"word": word, "length": len(word)}
gold, own = [], []
for text, answer in map(line, range(90)):
    gold.append({"text": text, "gold": answer})
    turns = [("user", text), ("assistant", json.dumps(answer))]
    own.append({"messages": [{"role": role, "content": said} for role, said in turns]})
for path, rows in (("gold.jsonl", gold[:30]), ("own/messages.jsonl", own[30:])):
    pathlib.Path(path).write_text("".join(json.dumps(row) + "\\n" for row in rows))
"""
MAKES = """
stages:
  rows:
    cmd: python rows.py
    deps: [rows.py]
    outs: [gold.jsonl, own/messages.jsonl]
"""


def test_rows_that_a_script_makes(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    """data/dvc.yaml is all that it takes: the pipeline makes the rows first, `make check` needs
    none of them, and an edit of the script makes them anew."""
    repository(project)
    project.write("data/rows.py", MADE)
    project.write("data/dvc.yaml", MAKES)
    project.write("data/seeds.jsonl", "")
    assert "60 own rows" in dvc(project.dir, "repro", "split")
    ignored = [(project.dir / f"data/{at}.gitignore").read_text() for at in ("", "own/")]
    assert ignored == ["/gold.jsonl\n", "/messages.jsonl\n"]
    assert lockfile.read()["rows"]["outs"][1]["path"] == "data/own/messages.jsonl"
    for path in ("data/gold.jsonl", "data/own/messages.jsonl"):
        Path(path).unlink()
    fresh.complete()
    assert not Path("data/gold.jsonl").exists()
    with pytest.raises(UserError, match="19 stages of task toy would run"):
        verify.check_task("toy")
    said = capsys.readouterr().out
    assert "sft: has not run yet" in said and not re.search("(rows|filter|split|generate):", said)
    project.write("data/rows.py", MADE.replace("[30:]", "[40:]"))
    with pytest.raises(UserError):
        verify.check_task("toy")
    assert "rows: data/rows.py modified" in capsys.readouterr().out
    assert "50 own rows" in dvc(project.dir, "repro", "split")
