"""One training by `swift sft` or `swift rlhf`: its configuration, its folder of checkpoints, and what is kept of it."""

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from potstill.core import project
from potstill.core.errors import UserError
from potstill.core.jsonl import write_json, write_jsonl
from potstill.training import swift
from potstill.training.model_folder import at_hub, check_folder, on_cuda, refuse_code

# The parameters of every training, then those of `swift sft` alone; the names are ms-swift's own.
PARAMS = (
    "seed",
    "tuner_type",
    "quant_bits",
    "torch_dtype",
    "per_device_train_batch_size",
    "lr_scheduler_type",
    "lora_rank",
    "lora_alpha",
    "lora_dropout",
    "target_modules",
    "gradient_accumulation_steps",
    "save_steps",
    "save_total_limit",
    "logging_steps",
    "max_length",
    "warmup_ratio",
    "weight_decay",
    "dataloader_num_workers",
)
SFT_PARAMS = (
    "num_train_epochs",
    "per_device_eval_batch_size",
    "learning_rate",
    "eval_steps",
    "swift_args",
    "group_by_length",
)
OURS = (
    "model",
    "model_revision",
    "quant_bits",
    "torch_dtype",
    "target_modules",
    "swift_args",
)  # parameters that are not passed on as they are
ONLY_TO_RESUME = (
    "optimizer.pt",
    "scheduler.pt",
    "rng_state*",
    "trainer_state.json",
    "training_args.bin",
)
ABOUT_THE_BASE = (
    "README.md",
    "training.json",
)  # no part of the model (.dvcignore leaves them out, too)
ABOUT_THE_RUN = (
    "args.json",
    "additional_config.json",
    "README.md",
)  # they name folders of this machine
LOGGED = (
    "step",
    "epoch",
    "loss",
    "eval_loss",
    "rewards/margins",
    "rewards/accuracies",
)  # of a trainer_state.json


def config(p: SimpleNamespace, train: Path, valid: Path | None = None) -> swift.Config:
    """ms-swift's arguments for the parameters `p`, whose names are ms-swift's own but for OURS. Raises UserError."""
    for path in filter(None, (train, valid)):
        if not path.is_file():
            raise UserError(f"{path} is missing: run `dvc repro split`")
    needs_gpu(p)
    own = {
        **swift.model_config(p.model, p.model_revision),
        "dataset": [str(train)],
        **({"val_dataset": [str(valid)]} if valid else {}),
        **{name: value for name, value in vars(p).items() if name not in OURS},
        "data_seed": p.seed,
        "target_modules": p.target_modules.split(),
        **swift.device_config(p.torch_dtype),
        **({"quant_method": "bnb", "quant_bits": p.quant_bits} if p.quant_bits else {}),
        "strict": True,  # the default drops malformed rows without a word
        "add_version": False,
        "check_model": False,  # asks the hub whether the model is the latest: up to 22 s of retries when offline
        "report_to": "none",
    }
    more = getattr(p, "swift_args", None) or {}  # of `swift sft` alone
    if taken := sorted({*own, "output_dir", "resume_from_checkpoint"}.intersection(more)):
        raise UserError(
            f"swift_args (params.yaml or task.yaml) has {taken[0]}, which Potstill sets itself: leave it out, and see params.yaml"
        )
    return own | more


def needs_gpu(p: SimpleNamespace) -> None:
    """Raises UserError for a training that only a GPU can do, where there is none."""
    asked = f"quant_bits is {p.quant_bits}" if p.quant_bits else ""
    if p.tuner_type == "full" and at_hub(p.model):
        asked = f"tuner_type is full for {p.model}"
    if asked and not on_cuda():
        raise UserError(
            f"params.yaml: {asked}, which needs an NVIDIA GPU, and there is none here: take one, or `git checkout params.yaml`"
        )


def key(config: swift.Config) -> str:
    """16 hex digits that change with whatever the trained weights depend on."""
    digest = hashlib.sha256(
        json.dumps([config, *map(version, ("ms-swift", "torch"))], sort_keys=True).encode()
    )
    paths = [Path(path) for path in config["dataset"] + config.get("val_dataset", [])]
    if not at_hub(config["model"]):
        there = (path for path in Path(config["model"]).iterdir() if path.is_file())
        paths += sorted(path for path in there if path.name not in ABOUT_THE_BASE)
    for path in paths:
        with path.open("rb") as file:
            digest.update(path.name.encode() + hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:16]


@contextmanager
def alone(stage: str, config: swift.Config) -> Iterator[Path]:
    """The folder of the checkpoints of this training, for one process at a time; gone when all went well. It stays where DVC was
    killed meanwhile, which will ask for the training again: then its last checkpoint is all of it. Raises UserError."""
    parent = os.getppid()
    work = project.cache() / stage / key(config)
    work.mkdir(parents=True, exist_ok=True)
    with (work / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f"{work}: another process trains the same: wait for it, or stop it"
            ) from None
        yield work
        if os.getppid() == parent:
            shutil.rmtree(work)


def train(config: swift.Config, work: Path, adapter: Path, base: str) -> tuple[int, float]:
    """Trains in `work`, from its last complete checkpoint when it has one, and puts the result into `adapter`.

    Returns the steps of the whole training and the seconds that the trainer took for those of this run. `base` is the base model's name to write into the adapter. Raises UserError.
    """
    run, command = work / "run", "rlhf" if "rlhf_type" in config else "sft"
    resumed = swift.last_checkpoint(run)
    for checkpoint in run.glob("checkpoint-*"):
        if resumed is None or step(checkpoint) > step(resumed):
            shutil.rmtree(checkpoint)  # torn
    if resumed:
        print(f"{command}: goes on from {resumed}", flush=True)
        config = config | {"resume_from_checkpoint": str(resumed)}
    swift.run(
        command,
        config | {"output_dir": str(run)},
        work,
        lambda: progress(run / "logging.jsonl", command),
    )
    last = swift.last_checkpoint(run)
    state = json.loads((last / "trainer_state.json").read_text(encoding="utf-8")) if last else {}
    if last is None or state["global_step"] != state["max_steps"]:
        raise UserError(
            f"swift {command} ended early, at {last or 'no checkpoint'}: see {work}/{command}.log"
        )
    keep(last, adapter, base)
    write_jsonl(part(adapter) / "logging.jsonl", history(state))
    replace(adapter)
    lines = (run / "logging.jsonl").read_text(encoding="utf-8").splitlines()
    seconds = next(
        (
            row["train_runtime"]
            for row in map(json.loads, reversed(lines))
            if "train_runtime" in row
        ),
        0.0,
    )
    return int(state["max_steps"]), float(seconds)


def step(checkpoint: Path) -> int:
    """The N of checkpoint-N."""
    return int(checkpoint.name.split("-")[1])


def progress(log: Path, command: str) -> str | None:
    """A line about a training under way, from ms-swift's logging.jsonl."""
    try:
        lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()[-20:]]
    except (OSError, ValueError):
        return None
    last = next((line for line in reversed(lines) if "loss" in line), None)
    return last and (
        f"{command}: step {last['global_step/max_steps']}, loss {last['loss']:.4f}, about {last['remaining_time']} left"
    )


def history(state: dict[str, Any]) -> list[dict[str, Any]]:
    """The losses of a trainer_state.json, without its timings: equal trainings have equal logs, resumed or not."""
    return [
        {name: row[name] for name in LOGGED if name in row}
        for row in state["log_history"]
        if "loss" in row or "eval_loss" in row
    ]


def part(folder: Path) -> Path:
    """Where `folder` is put together before it gets its name."""
    return folder.with_name(folder.name + ".part")


def keep(checkpoint: Path, folder: Path, base: str) -> None:
    """Copies what a model or adapter needs from `checkpoint` to `part(folder)`."""
    shutil.rmtree(part(folder), ignore_errors=True)
    shutil.copytree(
        checkpoint, part(folder), ignore=shutil.ignore_patterns(*ONLY_TO_RESUME, *ABOUT_THE_RUN)
    )
    path = part(folder) / "adapter_config.json"
    if path.is_file():
        adapter = json.loads(path.read_text(encoding="utf-8"))
        modules = adapter["target_modules"]  # a set: its order changes from run to run
        ordered = modules if isinstance(modules, str) else sorted(modules)
        write_json(path, adapter | {"base_model_name_or_path": base, "target_modules": ordered})


def replace(folder: Path) -> None:
    """Gives the finished `part(folder)` its name: a folder that exists is complete."""
    shutil.rmtree(folder, ignore_errors=True)
    part(folder).rename(folder)


def merge(model: str, revision: str, adapter: Path, out: Path, work: Path) -> None:
    """Writes base and `adapter` as one model to the folder `out`; `work` keeps ms-swift's log. Raises UserError."""
    shutil.rmtree(out, ignore_errors=True)  # ms-swift would leave stale weights
    refuse_code(adapter, "run `dvc repro -f sft`")
    if (adapter / "adapter_config.json").is_file():
        config = swift.model_config(model, revision) | {
            "adapters": [str(adapter)],
            "merge_lora": True,
            "load_args": False,
            "output_dir": str(out),
            "exist_ok": True,
        }
        if (
            not on_cuda()
        ):  # where predictions are made in float32, rounding the sum to bfloat16 would lose digits
            config["torch_dtype"] = "float32"
        swift.run("export", config, work)
        for name in ABOUT_THE_RUN:
            (out / name).unlink(missing_ok=True)
    else:  # tuner_type: full
        shutil.copytree(adapter, out, ignore=shutil.ignore_patterns("logging.jsonl"))
    check_folder(out, "see the log of `swift export`")
