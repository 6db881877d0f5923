"""Merging: a model that exists is whole."""

import os
import subprocess
import time
from pathlib import Path

import pytest

from potstill.commands import verify
from potstill.core import jsonl, stage
from potstill.core import project as places
from potstill.training import run
from tests import fakes
from tests.conftest import Project

MERGED = Path("models/sft/merged")


@pytest.fixture
def ready(project: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    """The toy project with a base and an adapter, where `swift` is the stand-in."""
    monkeypatch.setenv("PYTHONPATH", fakes.install(project.dir / "fake"))
    fakes.model("models/tiny-base")
    run.keep(fakes.checkpoint("models/sft", 4, 4), Path("models/sft/adapter"), "models/tiny-base")
    run.replace(Path("models/sft/adapter"))
    return project


def merge(project: Project, **env: str) -> tuple[int, str]:
    """Exit code and output of the stage."""
    return project.run("stages.merge", **{"PYTHONPATH": os.environ["PYTHONPATH"], **env})


def test_the_merged_model_takes_the_place_of_an_old_one(ready: Project) -> None:
    for stale in (MERGED, Path("models/sft/merged.part")):
        fakes.weights(fakes.model(stale) / "stale.safetensors")
    code, out = merge(ready)
    assert (code, out) == (
        0,
        "merge: merged models/tiny-base and models/sft/adapter → models/sft/merged\n",
    )
    assert {path.name for path in MERGED.iterdir()} == {
        "config.json",
        "chat_template.jinja",
        "model.safetensors",
    }
    assert not Path("models/sft/merged.part").exists()


def test_a_merge_that_breaks_off_shows_no_model(ready: Project) -> None:
    code, out = merge(ready, FAKE_SWIFT="fail")
    assert code == 1
    assert out.startswith(
        "error: swift export failed: RuntimeError: no space left (the whole log: "
    )
    assert not MERGED.exists()


def test_a_merge_that_is_killed_shows_no_model_and_is_made_anew(
    ready: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fault 18."""
    fakes.model(MERGED)
    process = ready.start("stages.merge", PYTHONPATH=os.environ["PYTHONPATH"], FAKE_SWIFT="sleep")
    deadline = time.monotonic() + 60
    while not Path("models/sft/merged.part/pid").exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert not MERGED.exists() or (MERGED / "model.safetensors").is_file()
    process.kill()
    process.wait()
    while stage.running(Path(".cache/stages/merge")):  # the child notices that its parent is gone
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert {path.name for path in MERGED.iterdir()} == {
        "config.json",
        "chat_template.jinja",
        "model.safetensors",
    }
    subprocess.run(["git", "init", "-q"], check=True)
    ready.write(".dvc/config", "")
    monkeypatch.setattr(places, "ROOT", ready.dir)  # `verify` looks at all tasks of a repository
    part = "models/sft/merged.part"
    said = f"{part}: half-written, left by a run that was killed"
    assert dict(verify.findings())[said] == f"rm -rf {part}"
    assert merge(ready)[0] == 0
    assert not Path("models/sft/merged.part").exists()


def test_a_missing_adapter_says_what_to_run(ready: Project) -> None:
    Path("models/sft/adapter/adapter_model.safetensors").unlink()
    expected = (
        "error: models/sft/adapter is missing, expected the trained adapter: run `dvc repro sft`\n"
    )
    assert merge(ready) == (1, expected)


def test_a_full_training_needs_no_merging(ready: Project) -> None:
    adapter = Path("models/sft/adapter")
    (adapter / "adapter_config.json").unlink()
    fakes.model(adapter)
    jsonl.write_jsonl(adapter / "logging.jsonl", [{"step": 1}])
    assert merge(ready)[0] == 0
    assert (MERGED / "model.safetensors").is_file()
    assert not (MERGED / "logging.jsonl").exists()
