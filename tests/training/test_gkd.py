"""The correction by a teacher: what `swift rlhf` is given, what is kept of it."""

import json
import os
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from potstill.core import jsonl, lockfile, params, weights
from potstill.core.errors import UserError
from potstill.dataset import frozen
from potstill.task import settings
from potstill.training import alignment, gkd, model_folder, scored, swift
from tests import fakes
from tests.conftest import ROOT, Project

GKD = ["base", "sft", "gkd"]
DECLARED = lockfile.read_yaml(ROOT / "dvc.yaml")["stages"]["align"]["params"]
INPUTS, STUDENT = Path("data/4-pairs/inputs.jsonl"), Path("models/sft/merged")


def question(number: int, **more: str) -> jsonl.Row:
    turns = [
        {"role": "system", "content": "写"},
        {"role": "user", "content": f"第{number}号"},
        {"role": "assistant", "content": "好"},
    ]
    return {"id": str(number), "messages": turns, **more}


def pairs(count: int, **more: str) -> None:
    folder = jsonl.fresh_folder(Path("data/4-pairs"))
    jsonl.write_some(folder / "inputs.jsonl", [question(i, **more) for i in range(count)])
    jsonl.write_json(folder / "report.json", {"gkd": {}})
    jsonl.write_json("data/4-scoring/report.json", {"rows": 0})


@pytest.fixture
def ready(project: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    """The toy project with a trained student and two inputs, where `swift` is the stand-in."""
    monkeypatch.setenv("PYTHONPATH", fakes.install(project.dir / "fake"))
    fakes.model(STUDENT)
    pairs(2)
    project.set(models=GKD)
    return project


def run(project: Project, **env: str) -> tuple[int, str]:
    return project.run("stages.align", **{"PYTHONPATH": os.environ["PYTHONPATH"], **env})


def given(**changes: Any) -> SimpleNamespace:
    """The parameters of the project."""
    return SimpleNamespace(**vars(params.load(*DECLARED)) | changes)


def config(**changes: Any) -> swift.Config:
    """ms-swift's arguments for the project."""
    return gkd.config(given(**changes), INPUTS, STUDENT)


def files(folder: str) -> set[str]:
    return {str(path.relative_to(folder)) for path in Path(folder).rglob("*") if path.is_file()}


def test_models_and_curves_are_kept(ready: Project) -> None:
    code, out = run(ready)
    assert code == 0, out
    assert out.startswith("align: 2 inputs, 4 steps, ") and out.endswith("→ models/gkd\n")
    found = files("models/gkd")
    assert {"adapter/adapter_model.safetensors", "merged/model.safetensors"} < found
    assert files("models/dpo") == files("models/grpo") == {"curves.csv"}
    lines = Path("models/gkd/curves.csv").read_text().splitlines()
    assert lines == ["step,loss", "1,9", "2,4.5", "3,3", "4,2.25"]
    assert json.loads(Path("models/gkd/report.json").read_text()) == {"rows": 2}
    assert alignment.learnt(Path("models/gkd"))


def test_without_an_input_to_learn_from_nothing_is_trained(ready: Project) -> None:
    pairs(0)
    said = "align: gkd has learnt nothing: its teacher is no better than the student; the sft "
    assert run(ready, FAKE_SWIFT="fail") == (0, f"{said}student ships\n")
    assert files("models/gkd") == {"curves.csv", "report.json"}
    assert Path("models/gkd/curves.csv").read_text() == "step,loss\n"
    assert not alignment.learnt(Path("models/gkd"))


def test_what_was_not_measured_is_not_trained_on(ready: Project) -> None:
    jsonl.write_json("data/4-pairs/report.json", {"grpo": {}})
    remedy = "says nothing of gkd: run `dvc repro pairs`"
    assert run(ready) == (1, f"error: data/4-pairs/report.json {remedy}\n")


def test_ms_swift_gets_the_student_as_its_own_teacher(
    ready: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    ready.set(gkd_learning_rate=0.03, gkd_num_train_epochs=2, gkd_beta=1, gkd_lmbda=0.25)
    ready.set(pairs_temperature=0.7, predict_max_tokens=33, beta=0.3)
    found = config()
    own = {"rlhf_type": "gkd", "model": str(STUDENT), "teacher_model": str(STUDENT), "beta": 1}
    own |= {"learning_rate": 0.03, "num_train_epochs": 2, "lmbda": 0.25, "temperature": 0.7}
    own |= {"max_completion_length": 33, "use_vllm": False}
    assert {name: found[name] for name in own} == own
    assert not {"rpo_alpha", "grpo", "gkd", "pairs", "predict", "models"} & set(found)
    assert gkd.files(given()) == []
    assert gkd.lesson(question(1, teacher_prompt="长")) == {
        "messages": question(1)["messages"],
        "teacher_prompt": "长",
    }
    assert "teacher_prompt" not in gkd.lesson(question(1))
    monkeypatch.setattr(model_folder, "on_cuda", lambda: True)
    assert (config()["use_vllm"], config()["vllm_mode"]) == (True, "colocate")


def test_ms_swift_gets_an_open_teacher(ready: Project) -> None:
    folder = fakes.model("larger")
    ready.set(gkd_teacher="larger", gkd_teacher_revision=weights.folder_sha256(folder))
    found = config()
    assert (found["teacher_model"], found["teacher_model_type"]) == ("larger", "qwen3")
    assert {path.name for path in gkd.files(given())} == {path.name for path in folder.iterdir()}
    ready.set(gkd_teacher="Qwen/Qwen3-4B", gkd_teacher_revision="a" * 40)
    found = config()
    assert (found["teacher_model"], found["teacher_model_revision"]) == ("Qwen/Qwen3-4B", "a" * 40)
    assert gkd.files(given()) == []
    ready.set(gkd_teacher="models/none")
    with pytest.raises(UserError, match="^params.yaml: gkd.teacher is 'models/none', and there is"):
        config()


@pytest.mark.parametrize(
    ("teacher", "revision", "said"),
    [
        ("larger", "main", "gkd.teacher_revision is main, expected the SHA-256 of the files of"),
        ("Qwen/Qwen3-4B", "main", "gkd.teacher_revision is main, expected the commit of Qwen/"),
        ("none.gguf", "main", "gkd.teacher is none.gguf, and there is no such file"),
        ("none", "main", "gkd.teacher is none, expected a folder, a GGUF file, a name on the hub"),
    ],
)
def test_a_teacher_is_named_as_a_model_is(
    ready: Project, teacher: str, revision: str, said: str
) -> None:
    fakes.model("larger")
    ready.set(gkd_teacher=teacher, gkd_teacher_revision=revision)
    with pytest.raises(UserError, match=rf"^params.yaml:\d+: {said}"):
        params.load("gkd")


def test_a_teacher_of_the_catalogue_is_the_folder_that_it_is_converted_to(ready: Project) -> None:
    assert params.open_teacher() is None
    ready.set(gkd_teacher="smollm2-135m")
    assert params.open_teacher() == ("smollm2-135m", "main")
    assert params.load("gkd.teacher").gkd.teacher == weights.folder("smollm2-135m", "main")
    ready.set(models=["base", "sft"])
    assert params.open_teacher() is None


@pytest.mark.parametrize("name", ["gkd_beta", "gkd_lmbda"])
def test_shares_are_at_most_one(ready: Project, name: str) -> None:
    ready.set(**{name: 1.1})
    with pytest.raises(UserError, match=f"{name.replace('_', '.')} is 1.1, expected a number fr"):
        params.load("gkd")


def test_checkpoints_are_scored_where_best_checkpoint_says_so(
    ready: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    jsonl.write_json("data/4-scoring/report.json", {"rows": 9, "patience": 1})
    asked: dict[str, Any] = {}

    def train(config: swift.Config, work: Path, adapter: Path, **more: Any) -> tuple[int, float]:
        asked.update(config, **more)
        log = [{"step": 1, "loss": 2.0}, {"step": 1, "accuracy": 0.5}, {"step": 2, "accuracy": 0.4}]
        jsonl.write_jsonl(adapter / "logging.jsonl", log)
        return 2, 1.0

    monkeypatch.setattr("potstill.training.run.train", train)
    monkeypatch.setattr("potstill.training.run.merge", lambda *_: None)
    for name, steps in (("gkd", 6), ("grpo", 5)):  # grpo leaves out what fills no step
        jsonl.write_json("data/4-pairs/report.json", {name: {}})
        jsonl.write_json("data/4-pairs/checks.json", {})
        rows = [question(i) | {"row": {"text": "a", "expected": "b"}} for i in range(44)]
        jsonl.write_jsonl(INPUTS, rows)
        _, says = alignment.train(name, given(), Path(f"models/{name}.part"))
        assert (asked["callbacks"], asked["patience"]) == ([scored.CALLBACK], 1)
        assert (asked["save_steps"], asked["save_total_limit"]) == (1, 2)
        assert len(asked["external_plugins"]) == (2 if name == "grpo" else 1)
        assert says.endswith(
            "checkpoint 1 ships: 50.0% of 9 validation rows right, the last (step 2) 40.0%; "
            f"stopped early, at step 2 of {steps}"
        )


def scored_by(count: int) -> None:
    """So many rows score the checkpoints."""
    row = {"text": "第1号", "expected": "好"}
    asked = {"messages": question(1)["messages"][:-1], "answer": "好", "row": row}
    jsonl.write_jsonl("data/4-scoring/rows.jsonl", [{"id": str(i)} | asked for i in range(count)])
    limits = {"rows": count, "patience": None, "max_tokens": 12}
    checks = frozen.freeze(settings.load())
    jsonl.write_json("data/4-scoring/report.json", limits | {"checks": checks})


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["itself", "open"])
def test_gkd_for_real_draws_the_student_to_its_teacher(
    project: Project, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """The real ms-swift on the tiny base. Its teacher is a model with other weights, or the student
    itself, shown the kept answer, where the checkpoints are scored, too: the divergence falls."""
    import torch
    from safetensors.torch import load_file, save_file

    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    shutil.copytree(ROOT / "models/tiny-base", STUDENT)
    project.set(models=GKD, lora_rank=8, max_length=64, warmup_ratio=0.0, predict_max_tokens=12)
    project.set(gkd_learning_rate=0.002, gkd_num_train_epochs=4, logging_steps=1)
    if kind == "open":
        shutil.copytree(STUDENT, "larger")
        found = load_file("larger/model.safetensors")
        noise = torch.Generator().manual_seed(42)
        for name, tensor in found.items():
            if "layers.1." in name and tensor.ndim == 2:
                spread = torch.randn(tensor.shape, generator=noise).to(tensor.dtype)
                found[name] = tensor + 0.5 * tensor.std() * spread
        save_file(found, "larger/model.safetensors", {"format": "pt"})
        sha = weights.folder_sha256(Path("larger"))
        project.set(gkd_teacher="larger", gkd_teacher_revision=sha)
        pairs(16)
    else:
        pairs(16, teacher_prompt="写一句好话。\n\n第1号\n\n好")
        scored_by(4)
    code, out = project.run("stages.align")
    assert code == 0, out
    log = jsonl.read_jsonl("models/gkd/adapter/logging.jsonl")
    points = [row["accuracy"] for row in log if "accuracy" in row]
    assert len(points) == (8 if kind == "itself" else 0)
    assert ("; checkpoint " in out) == (kind == "itself")
    lines = Path("models/gkd/curves.csv").read_text().splitlines()[1:]
    losses = [float(line.split(",")[1]) for line in lines]
    assert len(losses) == 8
    assert sum(losses[-3:]) < 0.8 * sum(losses[:3])
    before, after = (
        load_file(f"{folder}/model.safetensors") for folder in (STUDENT, "models/gkd/merged")
    )
    assert any(not torch.equal(before[name].float(), after[name].float()) for name in after)
