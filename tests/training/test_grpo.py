"""The reinforcement by the checks: what `swift rlhf` is given, what is kept of it."""

import json
import os
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from potstill.core import jsonl, lockfile, params
from potstill.dataset import frozen
from potstill.task import settings
from potstill.training import alignment, dpo, grpo, model_folder, swift
from tests import fakes
from tests.conftest import ROOT, Project

GRPO = ["base", "sft", "grpo"]
DECLARED = lockfile.read_yaml(ROOT / "dvc.yaml")["stages"]["align"]["params"]


def question(number: int) -> jsonl.Row:
    prompt = [{"role": "user", "content": f"第{number}号"}]
    row = {"text": f"第{number}号", "expected": "好"}
    return {"id": str(number), "messages": prompt, "row": row, "right": 1, "of": 2}


@pytest.fixture
def ready(project: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A task of plain text with a trained student and two inputs, where `swift` is the stand-in."""
    monkeypatch.setenv("PYTHONPATH", fakes.install(project.dir / "fake"))
    project.write("task.yaml", "checks: [{max_chars: {limit: 4}}, {regex: {pattern: 好}}]\n")
    fakes.model("models/sft/merged")
    pairs(2)
    project.set(models=GRPO)
    return project


def pairs(count: int) -> None:
    folder = jsonl.fresh_folder(Path("data/4-pairs"))
    jsonl.write_some(folder / "inputs.jsonl", [question(i) for i in range(count)])
    jsonl.write_json(folder / "checks.json", frozen.freeze(settings.load()))
    jsonl.write_json(folder / "report.json", {"grpo": {}})
    jsonl.write_json("data/4-scoring/report.json", {"rows": 0})


def config(rows: int = 99, **changes: Any) -> swift.Config:
    """ms-swift's arguments for the project."""
    given = vars(params.load(*DECLARED)) | changes
    return grpo.config(
        SimpleNamespace(**given), rows, Path("data/4-pairs/inputs.jsonl"), Path("models/sft/merged")
    )


def run(project: Project, **env: str) -> tuple[int, str]:
    return project.run("stages.align", **{"PYTHONPATH": os.environ["PYTHONPATH"], **env})


def files(folder: str) -> set[str]:
    return {str(path.relative_to(folder)) for path in Path(folder).rglob("*") if path.is_file()}


def test_models_and_curves_are_kept(ready: Project) -> None:
    code, out = run(ready)
    assert code == 0, out
    assert out.startswith("align: 2 inputs, 4 steps, ")
    found = files("models/grpo")
    assert {"adapter/adapter_model.safetensors", "merged/model.safetensors"} < found
    assert files("models/dpo") == {"curves.csv"}
    lines = Path("models/grpo/curves.csv").read_text().splitlines()
    assert lines[:2] == ["step,reward,no_variance,length,kl", "1,0.5,0.25,8,"] and len(lines) == 5
    assert json.loads(Path("models/grpo/report.json").read_text()) == {"rows": 2}


def test_without_an_input_to_learn_from_nothing_is_trained(ready: Project) -> None:
    pairs(0)
    code, out = run(ready, FAKE_SWIFT="fail")
    assert (code, out) == (
        0,
        "align: grpo has learnt nothing: no input was right sometimes; the sft student ships\n",
    )
    assert files("models/grpo") == {"curves.csv", "report.json"}
    assert not alignment.learnt(Path("models/grpo")) and alignment.learnt(Path("models/dpo"))


def test_ms_swift_gets_the_checks_as_reward(
    ready: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    ready.set(grpo_answers=4, grpo_inputs=6, grpo_learning_rate=0.03, grpo_num_train_epochs=2)
    ready.set(grpo_beta=0.5, pairs_temperature=0.7, predict_max_tokens=33, beta=0.3)
    given = config()
    plugin = given["external_plugins"]
    assert (ready.dir / plugin[0]).resolve() == grpo.PLUGIN and grpo.PLUGIN.is_file()
    own = {"rlhf_type": "grpo", "reward_funcs": ["checks"], "num_generations": 4}
    own |= {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 6, "beta": 0.5}
    own |= {"learning_rate": 0.03, "num_train_epochs": 2, "temperature": 0.7, "use_vllm": False}
    own |= {"dataset_shuffle": False, "max_completion_length": 33, "model": "models/sft/merged"}
    assert {name: given[name] for name in own} == own
    assert not {"rpo_alpha", "grpo", "pairs", "predict", "models"} & set(given)
    assert config(rows=3)["gradient_accumulation_steps"] == 3  # a step has whole groups
    Path("data/4-pairs/inputs.jsonl").write_text("{}\n" * 1200)
    assert (config()["save_steps"], config()["logging_steps"]) == (20, 4)  # of 400 steps
    found = dpo.config(
        SimpleNamespace(**vars(params.load(*DECLARED))),
        Path("data/4-pairs/inputs.jsonl"),
        Path("models/sft/merged"),
    )
    assert found["beta"] == 0.3 and not {"grpo", "external_plugins", "temperature"} & set(found)
    lesson = grpo.lesson(question(1))
    assert lesson["messages"] == question(1)["messages"]
    assert json.loads(lesson["judged"]) == question(1)["row"]
    monkeypatch.setattr(model_folder, "on_cuda", lambda: True)
    assert (config()["use_vllm"], config()["vllm_mode"]) == (True, "colocate")


def test_a_step_has_answers_of_about_one_length() -> None:
    rows = [question(i) for i in range(14)]
    for i, row in enumerate(rows):
        row["row"]["expected"] = "x" * (i % 7 * 10)
    found = grpo.in_steps(rows, 4, seed=42)
    assert len(found) == 12 and all(row in rows for row in found)
    lengths = [len(row["row"]["expected"]) for row in found]
    steps = [lengths[i : i + 4] for i in range(0, 12, 4)]
    assert all(max(step) - min(step) <= 30 for step in steps)
    assert lengths != sorted(lengths) and found == grpo.in_steps(rows, 4, seed=42)
    assert found != grpo.in_steps(rows, 4, seed=1)
    assert len(grpo.in_steps(rows[:3], 4, seed=42)) == 3


@pytest.mark.slow
def test_grpo_for_real_raises_the_reward(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """The real ms-swift on the tiny base, which is rewarded for short answers: the mean reward
    rises from the first steps to the last, and the curves have all their points."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    shutil.copytree(ROOT / "models/tiny-base", "models/sft/merged")
    limits = ", ".join(f"{{max_chars: {{limit: {limit}}}}}" for limit in (1, 2, 4, 6, 8, 12))
    project.write("task.yaml", f"checks: [{limits}]\n")
    pairs(16)
    project.set(models=GRPO, lora_rank=8, max_length=64, warmup_ratio=0.0, predict_max_tokens=12)
    project.set(pairs_temperature=1.6)  # the groups differ from the first step on
    project.set(grpo_answers=8, grpo_inputs=4, grpo_learning_rate=0.002, grpo_num_train_epochs=2)
    code, out = project.run("stages.align")
    assert code == 0, out
    lines = Path("models/grpo/curves.csv").read_text().splitlines()[1:]
    curves = [[float(value) for value in line.split(",")] for line in lines]
    assert [point[0] for point in curves] == list(range(1, 9))
    rewards = [point[1] for point in curves]
    assert sum(rewards[-3:]) > sum(rewards[:3])
    assert sum(point[3] for point in curves[-3:]) < sum(point[3] for point in curves[:3])
    assert (Path("models/grpo/merged") / "model.safetensors").is_file()
