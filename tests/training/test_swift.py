"""ms-swift as a child process. The real one runs in the tests marked slow."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from ruamel.yaml import YAML

from potstill.commands import ready
from potstill.core import jsonl, lockfile, weights
from potstill.core.errors import UserError
from potstill.training import dpo, gkd, grpo, model_folder, run, swift
from tests import fakes
from tests.conftest import ROOT

STAGES = lockfile.read_yaml(ROOT / "dvc.yaml")["stages"]
STAGE_PARAMS: list[str] = [name for name in STAGES["sft"]["params"] if isinstance(name, str)]
CONFIG: dict[str, Any] = {"model": "base", "output_dir": "work/run"}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a model, where `swift` is the stand-in."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", fakes.install(tmp_path / "fake"))
    fakes.model("base")
    return tmp_path


@pytest.mark.parametrize(
    "value",
    [1e-05, 0.002, 3, True, "no", "1e-5", "a: b # c", "路径/é\n'\"", ["q_proj", "off"], None],
)
def test_rendered_yaml_means_the_same_in_yaml_1_1_and_1_2(value: object) -> None:
    text = swift.render({"key": value})
    assert YAML(typ="safe", pure=True).load(text) == {"key": value}
    found = yaml.safe_load(text)["key"]  # ms-swift's reader; it passes every value on as str(value)
    assert found == value or str(found) == str(value)


def test_a_folder_without_thinking_in_its_template_is_plain_chatml(folder: Path) -> None:
    assert swift.model_config("base", "main") == {
        "model": "base",
        "model_type": "qwen3",
        "template": "chatml",
    }
    (folder / "base/chat_template.jinja").write_text("…<think>\n\n</think>…")
    assert swift.model_config("base", "main") == {"model": "base", "model_type": "qwen3"}
    (folder / "base/chat_template.jinja").write_text("…enable_thinking…<think>\n\n</think>…")
    assert swift.model_config("base", "main")["template"] == "qwen3"


def test_a_name_on_the_hub_goes_with_its_revision() -> None:
    assert swift.model_config("Qwen/Qwen3-0.6B", "abc") == {
        "model": "Qwen/Qwen3-0.6B",
        "model_revision": "abc",
    }


@pytest.mark.parametrize(
    ("cuda", "instructions", "dtype", "expected"),
    [
        (False, True, "bfloat16", {"torch_dtype": "float32", "bf16": True, "fp16": False}),
        (False, False, "bfloat16", {"torch_dtype": "float32", "bf16": False, "fp16": False}),
        (False, True, "float32", {"torch_dtype": "float32", "bf16": False, "fp16": False}),
        (True, False, "bfloat16", {"torch_dtype": "bfloat16"}),
        (True, False, "float32", {"torch_dtype": "float32", "bf16": False, "fp16": False}),
    ],
)
def test_precision_on_this_machine(
    monkeypatch: pytest.MonkeyPatch,
    cuda: bool,
    instructions: bool,
    dtype: str,
    expected: dict[str, object],
) -> None:
    monkeypatch.setattr(model_folder, "on_cuda", lambda: cuda)
    monkeypatch.setattr(model_folder, "has_bfloat16", lambda: instructions)
    given = swift.device_config(dtype)
    assert {name: given.get(name) for name in expected} == expected
    assert set(given) >= {"bf16", "fp16"} or (cuda and given == expected)
    assert given.get("use_cpu", False) is not cuda


def test_run_passes_the_yaml_and_an_offline_environment(folder: Path) -> None:
    swift.run("sft", CONFIG, folder / "work")
    assert json.loads((folder / "work/sft.log").read_text().splitlines()[1]) == CONFIG
    assert (folder / "work/run/checkpoint-4").is_dir()


def test_the_curves_go_where_the_environment_says_and_nothing_else_changes(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REPORT_TO", "tensorboard")
    given = dict(CONFIG)
    swift.run("sft", given, folder / ".cache/sft/0123")
    told = json.loads((folder / ".cache/sft/0123/sft.log").read_text().splitlines()[1])
    assert told == CONFIG | {"report_to": ["tensorboard"]} and given == CONFIG
    swift.run("export", CONFIG, folder / "merge")
    assert "report_to" not in yaml.safe_load((folder / "merge/export.yaml").read_text())


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("", []),
        ("tensorboard", ["tensorboard"]),
        ("tensorboard, wandb", "REPORT_TO names wandb, and that package is not installed: `/.* -m"),
        ("tensorbord", "REPORT_TO names 'tensorbord', expected some of tensorboard, wandb, swan"),
    ],
)
def test_a_tracker_that_is_not_there_is_said_first(
    monkeypatch: pytest.MonkeyPatch, given: str, expected: list[str] | str
) -> None:
    monkeypatch.setenv("REPORT_TO", given)
    monkeypatch.setattr(swift, "find_spec", lambda name: name == "tensorboard" or None)
    if isinstance(expected, list):
        assert swift.trackers() == expected
        return
    for call in (swift.trackers, lambda: ready.verify("tour")):
        with pytest.raises(UserError, match=expected):
            call()


def test_a_failed_run_names_the_exception_and_the_log(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_SWIFT", "fail")
    with pytest.raises(
        UserError,
        match=r"^swift sft failed: ValueError: no such thing \(the whole log: .*sft[.]log\)$",
    ):
        swift.run("sft", CONFIG, folder / "work")


def test_progress_is_said_once_a_change(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FAKE_SWIFT", "sleep")
    monkeypatch.setattr(swift, "EVERY", 0.05)
    lines = iter(["one", "one", "two"])

    def progress(command: str, log: Path) -> str:
        assert (command, str(log)) == ("sft", "work/run/logging.jsonl")
        try:
            return next(lines)
        except StopIteration:
            raise KeyboardInterrupt from None

    monkeypatch.setattr(swift, "progress", progress)
    with pytest.raises(KeyboardInterrupt):
        swift.run("sft", CONFIG, folder / "work")
    assert capsys.readouterr().err == "one\ntwo\n"


@pytest.mark.parametrize(
    ("nodes", "each", "rows", "times", "expected"),
    [
        ("", "", 8, 1, (8, 1)),
        ("", "1", 8, 1, (8, 1)),
        ("", "2", 8, 1, (4, 1)),
        ("2", "4", 8, 3, (1, 3)),
        ("2", "8", 8, 4, (1, 2)),
        ("", "6", 4, 3, (2, 1)),
        ("3", "", 8, 3, (8, 1)),
    ],
)
def test_a_step_has_the_same_rows_on_any_number_of_devices(
    monkeypatch: pytest.MonkeyPatch,
    nodes: str,
    each: str,
    rows: int,
    times: int,
    expected: tuple[int, int],
) -> None:
    monkeypatch.setenv("NNODES", nodes)
    monkeypatch.setenv("NPROC_PER_NODE", each)
    given = {"per_device_train_batch_size": rows, "gradient_accumulation_steps": times, "a": "b"}
    found = swift.shared(given)
    assert found.pop("save_on_each_node", False) == (nodes > "1")
    expected_config = given | dict(zip(given, expected, strict=False))
    assert swift.render(found) == swift.render(expected_config)


@pytest.mark.parametrize(
    ("env", "said"),
    [
        (
            {"NPROC_PER_NODE": "3"},
            "params.yaml: per_device_train_batch_size × gradient_accumulation_steps is 8 rows a "
            "step, which 3 processes (NNODES × NPROC_PER_NODE) cannot share: make it a multiple of "
            "3",
        ),
        (
            {"NNODES": "1:4"},
            "NNODES in the environment is '1:4', expected a number from 1 up, as for torchrun",
        ),
    ],
)
def test_processes_that_cannot_share_a_step_are_refused(
    env: dict[str, str], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=f"^{re.escape(said)}$"):
        swift.shared({"per_device_train_batch_size": 8, "gradient_accumulation_steps": 1})


def test_torchrun_gets_what_ms_swifts_own_launcher_hands_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "fake/torch").mkdir()
    for name in ("__init__", "distributed/__init__", "distributed/run"):
        path = folder / f"fake/torch/{name}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text("import sys\nif __name__ == '__main__': print(sys.argv[1:])\n")
    monkeypatch.setattr(model_folder, "keep_memory", lambda: None)
    env = {"NNODES": "2", "NPROC_PER_NODE": "4", "NODE_RANK": "1", "MASTER_ADDR": "10.0.0.1"}
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    swift.run("sft", CONFIG, folder / "work")
    said = ["--nproc_per_node", "4", "--nnodes", "2", "--node_rank", "1", "--master_addr"]
    said += ["10.0.0.1", "-m", "potstill.training.swift", "sft", str(folder / "work/sft.yaml")]
    assert (folder / "work/sft.log").read_text() == f"{said}\n"
    from swift.cli.main import get_torchrun_args

    assert said[:8] == get_torchrun_args()
    swift.run("export", CONFIG, folder / "work")  # a merge is one process
    assert "potstill" not in (folder / "work/export.log").read_text()


def test_progress_is_one_short_line(tmp_path: Path) -> None:
    log = tmp_path / "logging.jsonl"
    assert swift.progress("sft", log) is None
    line = {"loss": 0.01234, "global_step/max_steps": "120/570", "remaining_time": "3m 2s"}
    jsonl.write_jsonl(log, [line, {"eval_loss": 1}])
    assert swift.progress("sft", log) == "sft: step 120/570, loss 0.0123, about 3m 2s left"


def test_the_child_ends_when_its_parent_is_killed(folder: Path) -> None:
    code = (
        "from potstill.training import swift; from pathlib import Path\n"
        f"swift.run('sft', {CONFIG}, Path('work'))"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", code], env={**os.environ, "FAKE_SWIFT": "sleep"}
    )
    pid = folder / "work/pid"
    _until(lambda: pid.exists() and pid.read_text() != "")
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    _until(lambda: not _alive(int(pid.read_text())))


def _until(true: Any) -> None:
    deadline = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize(
    ("log", "code", "expected"),
    [
        ("a\nValueError: bad\nb\n", 1, "ValueError: bad"),
        ("torch.OutOfMemoryError: x\n", 1, "torch.OutOfMemoryError: x"),
        ("usage: sft\nsft: error: unknown\n\n", 2, "sft: error: unknown"),
        ("step 1\n", -9, "ended by signal 9, perhaps for want of memory"),
        ("", 1, "exit code 1"),
    ],
)
def test_telling_line(tmp_path: Path, log: str, code: int, expected: str) -> None:
    (tmp_path / "log").write_text(log)
    assert swift.telling_line(tmp_path / "log", code) == expected


@pytest.mark.parametrize(
    "name", ["adapter_model.safetensors", "trainer_state.json", "optimizer.pt", "rng_state.pth"]
)
@pytest.mark.parametrize("damage", ["cut", "gone"])
def test_the_last_complete_checkpoint_is_found(tmp_path: Path, name: str, damage: str) -> None:
    good = fakes.checkpoint(tmp_path, 9, 20)
    torn = fakes.checkpoint(tmp_path, 10, 20)
    assert swift.last_checkpoint(tmp_path) == torn
    path = torn / name
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-5])
    assert swift.last_checkpoint(tmp_path) == good
    assert swift.last_checkpoint(tmp_path / "nothing") is None


@pytest.mark.slow
def test_ms_swift_accepts_every_argument_of_every_profile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_folder, "on_cuda", lambda: True)
    load = YAML(typ="safe", pure=True).load
    train = [tmp_path / "train.jsonl", tmp_path / "valid.jsonl"]
    for path in train:
        path.touch()
    recipes = {}
    for profile in sorted([*ROOT.glob("profiles/*.yaml"), *ROOT.glob("tasks/*/profiles/*.yaml")]):
        home = profile.parents[1]
        recipe = load(home / "params.yaml") | load(profile)
        recipe["num_train_epochs"] = recipe["num_train_epochs"] or 3  # null is as task.yaml says
        recipe["swift_args"] = load(home / "task.yaml")["swift_args"]
        if weights.find(recipe["model"], recipe["model_revision"]):  # is not on this machine
            recipe["model"] = "models/tiny-base"
        path = tmp_path / f"{home.name}-{profile.stem}.yaml"
        p = SimpleNamespace(**{name: recipe[name] for name in STAGE_PARAMS})
        path.write_text(swift.render(run.config(p, train[0], train[1])))
        recipes[str(path)] = recipe
        sections = {
            name: SimpleNamespace(**recipe[name]) for name in ("grpo", "gkd", "pairs", "predict")
        }
        plain = [
            name for name in STAGES["align"]["params"] if name.partition(".")[0] not in sections
        ]
        p = SimpleNamespace(**{name: recipe[name] for name in plain}, **sections)
        path = path.with_suffix(".dpo.yaml")
        path.write_text(swift.render(dpo.config(p, train[0], ROOT / "models/tiny-base")))
        own = ("learning_rate", "num_train_epochs")
        aligned = {name: recipe[f"dpo_{name}"] for name in own}
        recipes[str(path)] = recipe | {"model": "tiny-base"} | aligned
        path = path.with_suffix("").with_suffix(".grpo.yaml")
        p.predict.max_tokens = 64  # as task.yaml says
        path.write_text(swift.render(grpo.config(p, 9, train[0], ROOT / "models/tiny-base")))
        aligned = {name: recipe["grpo"][name] for name in own}
        recipes[str(path)] = recipe | {"model": "tiny-base"} | aligned
        path = path.with_suffix("").with_suffix(".gkd.yaml")
        path.write_text(swift.render(gkd.config(p, train[0], ROOT / "models/tiny-base")))
        aligned = {name: recipe["gkd"][name] for name in own}
        recipes[str(path)] = recipe | {"model": "tiny-base"} | aligned
    code = (  # the classes' own parser, without their __post_init__, which would fetch the model
        "import argparse, json, sys; from swift.cli.main import parse_yaml_args\n"
        "from swift.arguments import RLHFArguments, SftArguments\n"
        "from transformers import HfArgumentParser\n"
        "parsers = [HfArgumentParser([one]) for one in (SftArguments, RLHFArguments)]\n"
        "for path in sys.argv[1:]:\n"
        "    parser = parsers[path.endswith(('.dpo.yaml', '.grpo.yaml', '.gkd.yaml'))]\n"
        "    argv = [path]; parse_yaml_args(argv)\n"
        "    found, rest = argparse.ArgumentParser.parse_known_args(parser, argv)\n"
        "    print(json.dumps([path, rest, vars(found)], default=str))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *recipes], capture_output=True, text=True, check=True
    )
    parsed = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('["/')]
    assert len(parsed) == len(recipes) > 4
    for path, rest, found in parsed:
        assert rest == []
        for name in (
            "model",
            "tuner_type",
            "quant_bits",
            "lora_rank",
            "learning_rate",
            "num_train_epochs",
            "max_length",
        ):
            if name != "model" or "/" in recipes[path][name]:
                assert found[name] == recipes[path][name], (path, name)
