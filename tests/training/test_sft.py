"""Training: what `swift sft` is given, where it goes on after a kill, what is kept of it."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from potstill.commands import track
from potstill.core import jsonl, lockfile, params
from potstill.core.errors import UserError
from potstill.training import model_folder, run, swift
from tests import fakes, tracking
from tests.conftest import ROOT, Project

MESSAGES = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
SFT = ("stages.sft",)


@pytest.fixture
def ready(project: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    """The toy project with split data and a model, where `swift` is the stand-in."""
    monkeypatch.setenv("PYTHONPATH", fakes.install(project.dir / "fake"))
    fakes.model("models/tiny-base")
    for name in ("4-train", "4-valid"):
        jsonl.write_jsonl(project.dir / f"data/{name}.jsonl", [{"id": name, "messages": MESSAGES}])
    project.write("data/4-scoring/report.json", '{"rows": 0}')
    return project


def sft(project: Project, **env: str) -> tuple[int, str]:
    """Exit code and output of the stage."""
    return project.run(*SFT, **{"PYTHONPATH": os.environ["PYTHONPATH"], **env})


def config(more: swift.Config | None = None, **changes: Any) -> swift.Config:
    """ms-swift's arguments for the toy project."""
    listed = lockfile.read_yaml(ROOT / "dvc.yaml")["stages"]["sft"]["params"]
    names = [name for name in listed if isinstance(name, str)]
    p = SimpleNamespace(**vars(params.load(*names)) | changes)
    return run.config(p, Path("data/4-train.jsonl"), Path("data/4-valid.jsonl"), more)


def files(folder: str) -> set[str]:
    """The names of a folder's files."""
    return {path.name for path in Path(folder).iterdir()}


def test_further_arguments_of_swift_go_to_it_as_they_are_but_none_that_is_set_already(
    ready: Project,
) -> None:
    assert config(swift_args={"neftune_noise_alpha": 5}) == config() | {"neftune_noise_alpha": 5}
    assert config(swift_args={}) == config(swift_args=None) == config()
    for name in ("lora_rank", "dataset", "output_dir"):
        with pytest.raises(
            UserError, match=rf"^swift_args .* has {name}, which Potstill sets itself: leave it out"
        ):
            config(swift_args={name: 1})


def test_the_adapter_and_its_log_are_kept_and_nothing_else(ready: Project) -> None:
    code, out = sft(ready)
    assert code == 0, out
    said = r"sft: 1 rows, 1 to validate on, 4 steps, [0-9.]+ s, 3\.2 of them in the trainer"
    assert re.fullmatch(f"{said} → models/sft/adapter\n", out)
    assert files("models/sft/adapter") == {
        "adapter_config.json",
        "adapter_model.safetensors",
        "logging.jsonl",
    }
    adapter = json.loads(Path("models/sft/adapter/adapter_config.json").read_text())
    assert adapter == {
        "base_model_name_or_path": "models/tiny-base",
        "target_modules": ["down_proj", "up_proj"],
        "r": 4,
    }
    assert jsonl.read_jsonl("models/sft/adapter/logging.jsonl")[-2:] == [
        {"step": 4, "epoch": 1.0, "loss": 2.25},
        {"step": 4, "epoch": 1.0, "eval_loss": 2.0},
    ]
    assert files("models/sft") == {"adapter"}
    assert files(".cache/sft") == set()


def test_a_failure_leaves_the_checkpoints_and_no_adapter(ready: Project) -> None:
    code, out = sft(ready, FAKE_SWIFT="fail")
    assert (code, out.count("\n")) == (1, 1)
    assert out.startswith("error: swift sft failed: ValueError: no such thing (the whole log: ")
    assert not Path("models/sft").exists()


def test_a_training_that_ended_early_is_no_result(ready: Project) -> None:
    code, out = sft(ready, FAKE_SWIFT="short")
    assert code == 1
    assert out.startswith("error: swift sft ended early, at ")
    assert not Path("models/sft").exists()


def test_a_row_that_is_trained_and_validated_on_is_refused(ready: Project) -> None:
    jsonl.write_jsonl("data/4-valid.jsonl", [{"id": "4-train", "messages": MESSAGES}])
    said = "error: data/4-train.jsonl: id 4-train is in 4-valid.jsonl, too: run `dvc repro split`\n"
    assert sft(ready) == (1, said)


def test_missing_data_and_a_missing_model_are_named(ready: Project) -> None:
    Path("data/4-valid.jsonl").unlink()
    assert sft(ready) == (1, "error: data/4-valid.jsonl is missing: run `dvc repro split`\n")
    ready.set(model="models/none")
    jsonl.write_jsonl("data/4-valid.jsonl", [{"id": "1", "messages": MESSAGES}])
    code, out = sft(ready)
    assert code == 1
    assert "model is 'models/none', and there is no such folder" in out


def test_a_second_training_of_the_same_waits_for_nobody(ready: Project) -> None:
    first = ready.start(*SFT, PYTHONPATH=os.environ["PYTHONPATH"], FAKE_SWIFT="sleep")
    deadline = time.monotonic() + 60
    while not [path for path in Path(".cache").glob("sft/*/pid") if path.read_text()]:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    [trainer] = Path(".cache").glob("sft/*/pid")
    opened = {path.resolve() for path in Path(f"/proc/{trainer.read_text()}/fd").glob("*")}
    locks = {trainer.with_name("lock").resolve(), Path(".cache/stages/sft").resolve()}
    assert locks <= opened  # the trainer holds both, should it outlive its stage
    code, out = sft(ready)
    first.send_signal(signal.SIGTERM)
    assert first.wait(20) == 130
    assert code == 1
    assert "error: sft runs here already (process " in out
    with run.exclusive_folder("sft", {"dataset": [], "model": "models/tiny-base"}) as work:
        assert work.is_dir()
        with (
            pytest.raises(UserError, match="another process trains the same"),
            run.exclusive_folder("sft", {"dataset": [], "model": "models/tiny-base"}),
        ):
            pass  # from another checkout that shares .cache
    assert not work.exists()


def test_a_training_whose_dvc_was_killed_keeps_its_checkpoints(
    ready: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DVC will ask for it again: it knows nothing of what its stage finished without it."""
    parents = iter([4711, 1])
    monkeypatch.setattr(os, "getppid", lambda: next(parents))
    with run.exclusive_folder("sft", {"dataset": [], "model": "models/tiny-base"}) as work:
        pass
    assert work.exists()


def test_parameters_reach_ms_swift_under_their_own_names(ready: Project) -> None:
    found = config(lora_rank=7, target_modules="q_proj v_proj", seed=5)
    assert found["lora_rank"] == 7
    assert found["target_modules"] == ["q_proj", "v_proj"]
    assert (found["seed"], found["data_seed"]) == (5, 5)
    assert (found["strict"], found["add_version"], found["check_model"]) == (True, False, False)
    assert "task" not in found


def test_the_folder_of_checkpoints_is_that_of_the_same_parameters_data_and_base(
    ready: Project,
) -> None:
    key = run.key(config())
    assert key == run.key(config())
    assert key != run.key(config(lora_rank=7))
    for path in ("data/4-train.jsonl", "data/4-valid.jsonl", "models/tiny-base/model.safetensors"):
        before = Path(path).read_bytes()
        Path(path).write_bytes(before + b"\n")
        assert run.key(config()) != key, path
        Path(path).write_bytes(before)
    Path("models/tiny-base/README.md").write_text("what is said about the base is no part of it")
    assert run.key(config()) == key


def test_validation_takes_at_most_a_tenth_of_the_time_of_a_training(
    ready: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    valid, work = Path("data/4-valid.jsonl"), Path("work")
    work.mkdir()
    Path("data/4-train.jsonl").write_text("{}\n" * 800)
    rows = [f'{{"id": "{i}"}}\n' for i in range(90)]
    valid.write_text("".join(rows))
    given = config(num_train_epochs=2)
    assert given["eval_steps"] == 25  # of 200: eight times
    assert run.validation(given, work) == (given, 90)  # the base is small
    monkeypatch.setattr(run, "SMALL", 0)
    most = 60  # 8 × 60 forward passes, each a third of one of the 1,600 rows
    sampled, count = run.validation(given, work)
    assert count == most and sampled == given | {"val_dataset": ["work/4-valid.jsonl"]}
    drawn = (work / "4-valid.jsonl").read_text()
    lines = drawn.splitlines(keepends=True)
    assert len(lines) == most and lines == [row for row in rows if row in set(lines)]
    run.validation(given | {"seed": 1}, work)
    assert (work / "4-valid.jsonl").read_text() != drawn
    run.validation(given, work)
    assert (work / "4-valid.jsonl").read_text() == drawn
    assert run.validation(given | {"eval_steps": 1}, work)[1] == run.FEW
    valid.write_text("".join(rows[:most]))
    assert run.validation(given, work) == (given, most)


@pytest.mark.parametrize(("steps", "expected"), [([1, 2], 2), ([], None)])
def test_training_goes_on_from_the_last_complete_checkpoint(
    ready: Project, monkeypatch: pytest.MonkeyPatch, steps: list[int], expected: int | None
) -> None:
    work = Path("work")
    for step in steps:
        fakes.checkpoint(work / "run", step, 4)
    torn = fakes.checkpoint(work / "run", 3, 4)
    (torn / "trainer_state.json").write_text('{"global_')
    given: list[swift.Config] = []

    def trained(command: str, config: swift.Config, folder: Path) -> None:
        given.append(config)
        assert not torn.exists()
        fakes.checkpoint(work / "run", 4, 4)

    monkeypatch.setattr(swift, "run", trained)
    assert run.train(config(), work, Path("models/sft/adapter"), "models/tiny-base") == (4, 3.21)
    assert given[0].get("resume_from_checkpoint") == (
        expected and f"work/run/checkpoint-{expected}"
    )


@pytest.fixture
def real(project: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    """The toy project with the real ms-swift and base, and 64 lessons."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    shutil.copytree(ROOT / "models/tiny-base", "models/tiny-base")
    found = [
        {
            "id": str(i),
            "messages": [
                {"role": "user", "content": f"{i} {i * i}"},
                {"role": "assistant", "content": f"{i}"},
            ],
        }
        for i in range(64)
    ]
    for name, part in (("4-train", found[:56]), ("4-valid", found[56:])):
        jsonl.write_jsonl(project.dir / f"data/{name}.jsonl", part)
    project.write("data/4-scoring/report.json", '{"rows": 0}')
    project.set(num_train_epochs=3, save_steps=4, eval_steps=8, logging_steps=2)
    project.set(max_length=64, lora_rank=4, lora_dropout=0.1)
    # As quip has: another optimizer, and noise
    project.set(swift_args={"lorap_lr_ratio": 4, "neftune_noise_alpha": 5})
    return project


def checkpoint_8(run: Path) -> bool:
    return (run / "checkpoint-8").exists()


def step_18(run: Path) -> bool:
    """Two steps after a checkpoint, two before the next."""
    return (run / "logging.jsonl").exists() and '"18/21"' in (run / "logging.jsonl").read_text()


def train_for_real(
    project: Project, kill_at: Callable[[Path], bool] | None = None
) -> dict[str, bytes]:
    """Runs the stage; kills it (SIGKILL) as soon as `kill_at` holds of its folder. Gives the files
    of the adapter."""
    process = subprocess.Popen(
        [sys.executable, "-m", *SFT], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    if kill_at:
        while not any(map(kill_at, Path(".cache").glob("sft/*/run"))):
            assert process.poll() is None, process.communicate()[0]
            time.sleep(0.01)
        process.kill()
    out = process.communicate()[0]
    assert kill_at or process.returncode == 0, out
    assert kill_at or ("goes on from" in out) == bool(project.dir.joinpath("killed").exists())
    return {path.name: path.read_bytes() for path in Path("models/sft/adapter").glob("*")}


@pytest.mark.slow
def test_equal_trainings_are_equal_and_a_killed_one_ends_where_an_undisturbed_one_does(
    real: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fault 17: killed while it writes a checkpoint, then between two: the same weights and losses,
    to the last bit."""
    first = train_for_real(real)
    assert set(first) == {"adapter_config.json", "adapter_model.safetensors", "logging.jsonl"}
    shutil.rmtree("models")
    assert train_for_real(real, kill_at=checkpoint_8) == {}
    Path("killed").touch()
    assert train_for_real(real, kill_at=step_18) == {}
    resumed = train_for_real(real)
    Path("killed").unlink()
    assert resumed["logging.jsonl"] == first["logging.jsonl"]
    shutil.rmtree("models")
    monkeypatch.setenv("REPORT_TO", "tensorboard")  # changes nothing of what is trained
    assert train_for_real(real) == first
    assert resumed == first
    [events] = Path(".cache/runs").glob("sft-*/events.out.tfevents.*")
    assert b"train/loss" in events.read_bytes()


@pytest.mark.slow
def test_the_curves_go_to_a_real_mlflow_while_it_trains(
    real: Project, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with tracking.served(tmp_path_factory.mktemp("mlflow")) as (uri, path):
        monkeypatch.setenv("PYTHONPATH", path)
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        monkeypatch.setenv("REPORT_TO", "mlflow")
        losses = [
            row["loss"]
            for row in map(json.loads, train_for_real(real)["logging.jsonl"].splitlines())
            if "loss" in row
        ]
        [sent] = track.Server(uri)("/runs/search", experiment_ids=["0"])["runs"]
        given = {"run_id": sent["info"]["run_id"], "metric_key": "loss"}
        query = urllib.parse.urlencode(given | {"max_results": 1000})
        with urllib.request.urlopen(f"{uri}/api/2.0/mlflow/metrics/get-history?{query}") as reply:
            curve = [point["value"] for point in json.load(reply)["metrics"]]
    assert sent["info"]["status"] == "FINISHED"
    assert len(losses) > 5 and curve == pytest.approx(losses)


@pytest.mark.slow
def test_two_processes_learn_as_one_does(real: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """By torchrun and gloo: a step has the same rows, half of them in each process. Without noise
    and dropout, whose numbers each process draws for itself; in float32, since the sums of
    bfloat16, where the processor has it, differ by more than the processes do."""
    real.set(lora_dropout=0.0, swift_args={"lorap_lr_ratio": 4}, num_train_epochs=1)
    real.set(torch_dtype="float32")
    one = train_for_real(real)
    shutil.rmtree("models/sft")
    monkeypatch.setenv("NPROC_PER_NODE", "2")
    monkeypatch.setenv("MASTER_PORT", str(29500 + os.getpid() % 1000))
    two = train_for_real(real)
    assert set(two) == set(one)
    curves = [
        [
            (row["step"], row.get("loss", row.get("eval_loss")))
            for row in map(json.loads, found["logging.jsonl"].splitlines())
        ]
        for found in (one, two)
    ]
    assert [step for step, _ in curves[0]] == [step for step, _ in curves[1]]
    losses = [[loss for _, loss in curve] for curve in curves]
    assert losses[1] == pytest.approx(losses[0], rel=2e-3)


def test_a_refused_parameter_is_one_sentence(ready: Project) -> None:
    ready.set(lora_rank=65)
    code, out = sft(ready)
    assert code == 1
    assert "lora_rank" in out
    assert not Path(".cache/sft").exists()


def test_fixed_settings_do_not_hide_a_parameter(ready: Project) -> None:
    declared = set(params.parse(params.PATH.read_text(), params.PATH))
    given = config(num_train_epochs=3)  # what task.yaml says
    plain = {name for name in declared & set(given) if name not in run.OURS}
    assert {*params.declared("sft")} - {*run.OURS} <= plain
    changed = config(None, **dict.fromkeys(plain, 77))
    assert {name for name in plain if changed[name] != 77} == set()
    with pytest.raises(UserError):
        config(model="models/none")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"quant_bits": 4}, "quant_bits is 4"),
        (
            {"tuner_type": "full", "model": "Qwen/Qwen3-0.6B", "model_revision": 40 * "a"},
            "tuner_type is full for Qwen/Qwen3-0.6B",
        ),
    ],
)
def test_what_needs_a_gpu_is_refused_without_one(
    ready: Project, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], says: str
) -> None:
    ready.set(**changes)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    code, said = sft(ready)
    assert code == 1
    assert said.strip().endswith(
        f"error: params.yaml: {says}, which needs an NVIDIA GPU, and there is none here: take one, "
        "or `git checkout params.yaml`"
    )
    assert not (ready.dir / ".cache/sft").exists()


def test_quant_bits_is_bitsandbytes(ready: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_folder, "on_cuda", lambda: True)
    for bits, expected in ((None, (None, None)), (4, ("bnb", 4))):
        ready.set(quant_bits=bits)
        given = config()
        assert (given.get("quant_method"), given.get("quant_bits")) == expected


def test_steps_between_losses_validations_and_checkpoints_follow_from_the_length(
    ready: Project,
) -> None:
    names = ("logging_steps", "eval_steps", "save_steps")
    ready.set(**dict.fromkeys(names), per_device_train_batch_size=8, num_train_epochs=3)
    for rows, expected in ((632, [2, 29, 11]), (8, [1, 1, 1])):
        Path("data/4-train.jsonl").write_text("{}\n" * rows)
        given = config()
        assert [given[name] for name in names] == expected
    ready.set(eval_steps=7)
    assert config()["eval_steps"] == 7
