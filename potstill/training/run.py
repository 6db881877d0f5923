"""One training by `swift sft` or `swift rlhf`: its configuration, its folder of checkpoints, and
what is kept of it. And one merge by `swift export`."""

import fcntl
import json
import os
import random
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from potstill.core import lockfile, project
from potstill.core.errors import UserError
from potstill.core.jsonl import Row, row_id, write_json, write_jsonl, write_text
from potstill.training import model_folder, scored, swift

# Parameters that are not passed on as they are
OURS = "model model_revision models quant_bits torch_dtype target_modules swift_args".split()
OURS += "dpo_learning_rate dpo_num_train_epochs grpo gkd pairs predict".split()
# Files of a checkpoint that no adapter needs: to resume from it; with folders of this machine
ONLY_TO_RESUME = "optimizer.pt scheduler.pt rng_state* trainer_state.json training_args.bin".split()
ABOUT_THE_RUN = "args.json additional_config.json README.md".split()
# Files in a base's folder that are no part of the model; .dvcignore leaves them out, too
ABOUT_THE_BASE = "README.md training.json".split()
# Of validation. A row of it takes the forward pass alone: a third of a training row's time, or half
# with LoRA. Fewer rows than FEW say little; on a model of SMALL bytes all of them take seconds
SHARE, FORWARD, FEW, SMALL = 0.1, 1 / 3, 32, 50_000_000
# Fields of a trainer_state.json that are kept: no timings, so that equal trainings have equal logs
LOGGED = "step epoch loss eval_loss accuracy rewards/margins rewards/accuracies".split()
LOGGED += "reward frac_reward_zero_std completions/mean_length kl".split()


def config(
    p: SimpleNamespace, train: Path, valid: Path | None = None, more: swift.Config | None = None
) -> swift.Config:
    """ms-swift's arguments for a training with the parameters `p` on the rows of the file `train`,
    `more` among them.

    Raises UserError when a file is missing, when the training needs a GPU and there is none, when
    swift_args has an argument that is set here, and when there is no such model.
    """
    for path in filter(None, (train, valid)):
        if not path.is_file():
            raise UserError(f"{path} is missing: run `dvc repro split`")
    heavy = f"quant_bits is {p.quant_bits}" if p.quant_bits else ""
    if p.tuner_type == "full" and model_folder.at_hub(p.model):
        heavy = f"tuner_type is full for {p.model}"
    if heavy and not model_folder.on_cuda():
        raise UserError(
            f"params.yaml: {heavy}, which needs an NVIDIA GPU, and there is none here: take one, "
            "or `git checkout params.yaml`"
        )
    plain = {name: value for name, value in vars(p).items() if name not in OURS}
    own = {
        **swift.model_config(p.model, p.model_revision),
        "dataset": [str(train)],
        **({"val_dataset": [str(valid)]} if valid else {}),
        **intervals(p, train),
        **{name: value for name, value in plain.items() if value is not None},
        "data_seed": p.seed,
        "target_modules": p.target_modules.split(),
        **swift.device_config(p.torch_dtype),
        **({"quant_method": "bnb", "quant_bits": p.quant_bits} if p.quant_bits else {}),
        "strict": True,  # the default drops malformed rows without a word
        "add_version": False,
        "check_model": False,  # asks the hub for a later model: up to 22 s of retries when offline
        "report_to": "none",
        **(more or {}),
    }
    given = getattr(p, "swift_args", None) or {}
    if taken := sorted({*own, "output_dir", "resume_from_checkpoint"}.intersection(given)):
        raise UserError(
            f"swift_args (params.yaml or task.yaml) has {taken[0]}, which Potstill sets itself: "
            "leave it out, and see params.yaml"
        )
    return own | given


def intervals(p: SimpleNamespace, train: Path) -> swift.Config:
    """Steps between two points of the curves and two checkpoints, for those of `p` that are null:
    about 100 losses, 8 validations and 20 checkpoints in a training of any length."""
    steps = step_count(vars(p), train)
    wanted = {"logging_steps": 100, "eval_steps": 8, "save_steps": 20}
    return {
        name: max(1, steps // times)
        for name, times in wanted.items()
        if getattr(p, name, 0) is None
    }


def step_count(p: dict[str, Any], train: Path) -> int:
    """The steps of a training with the parameters `p` on the rows of the file `train`."""
    with train.open("rb") as lines:
        rows = sum(1 for _ in lines)
    batch = p["per_device_train_batch_size"] * p["gradient_accumulation_steps"]
    batch //= p.get("num_generations", 1)  # grpo counts answers, of which a row has several
    return int(-(-rows // batch) * p["num_train_epochs"])


def validation(config: swift.Config, work: Path) -> tuple[swift.Config, int]:
    """`config` with the rows to validate on, and how many these are: all, or where validating on
    all would take more than a tenth of the training's time, a sample by the seed, written to the
    folder `work`."""
    [train], [valid] = config["dataset"], config["val_dataset"]
    lines = Path(valid).read_bytes().splitlines(keepends=True)
    steps = step_count(config, Path(train))
    times = -(-steps // config["eval_steps"])
    trained = steps * config["per_device_train_batch_size"] * config["gradient_accumulation_steps"]
    most = max(FEW, int(SHARE * trained / FORWARD / times))
    if len(lines) <= most or model_folder.weights_size(config["model"]) < SMALL:
        return config, len(lines)
    drawn = sorted(random.Random(config["seed"]).sample(range(len(lines)), most))
    sample = work / Path(valid).name
    sample.write_bytes(b"".join(lines[i] for i in drawn))
    return config | {"val_dataset": [str(sample)]}, most


def key(config: swift.Config, more: Iterable[Path] = ()) -> str:
    """16 hex digits that change with whatever the trained weights depend on: `config`, and the
    files that it names or `more`."""
    files = [Path(path) for path in config["dataset"] + config.get("val_dataset", [])]
    files += more
    if not model_folder.at_hub(config["model"]):
        base = (path for path in sorted(Path(config["model"]).iterdir()) if path.is_file())
        files += [path for path in base if path.name not in ABOUT_THE_BASE]
    hashes = [(path.name, lockfile.md5(path)) for path in files]
    versions = {name: version(name) for name in ("ms-swift", "torch")}
    return row_id({"config": config, "files": hashes, "versions": versions})


@contextmanager
def exclusive_folder(stage: str, config: swift.Config, more: Iterable[Path] = ()) -> Iterator[Path]:
    """The folder of the checkpoints of this training, which reads `more` files, for one process at
    a time: an experiment's copy of the repository uses the same .cache. The folder is deleted when
    all went well, unless `dvc` was killed meanwhile: it will ask for the training again, whose last
    checkpoint is then all of it. Raises UserError when another process has the folder."""
    parent = os.getppid()
    work = project.cache() / stage / key(config, more)
    work.mkdir(parents=True, exist_ok=True)
    with (work / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            found = "another process trains the same: wait for it, or stop it"
            raise UserError(f"{work}: {found}") from None
        os.set_inheritable(lock.fileno(), True)  # the trainer holds it until it has ended, too
        yield work
        if os.getppid() == parent:
            shutil.rmtree(work)


def train(
    config: swift.Config, work: Path, adapter: Path, base: str, patience: int | None = None
) -> tuple[int, float]:
    """Trains in the folder `work`, from its last complete checkpoint where it has one, and puts the
    result into the folder `adapter`, with `base` as the name of its base model. The result is the
    last checkpoint or, where checkpoints are scored, the best.

    Returns the steps of the whole training, and the seconds that the trainer took for those of this
    run. Raises UserError when ms-swift fails, or ends before the last step, unless `patience` (as
    in scored.exhausted) is.
    """
    run, command = work / "run", "rlhf" if "rlhf_type" in config else "sft"
    config = swift.shared(config)
    for checkpoint in run.glob("checkpoint-*"):
        if not swift.is_complete(checkpoint):
            shutil.rmtree(checkpoint)
    if resumed := swift.last_checkpoint(run):
        print(f"{command}: goes on from {resumed}", flush=True)
        config = config | {"resume_from_checkpoint": str(resumed)}
    if not (resumed and scored.exhausted(read_state(resumed)["log_history"], patience)):
        swift.run(command, config | {"output_dir": str(run)}, work)
    last = swift.last_checkpoint(run)
    state = read_state(last) if last else {}
    log = state.get("log_history", [])
    whole = last and state["global_step"] == state["max_steps"]
    if last is None or not (whole or scored.exhausted(log, patience)):
        where = last or "no checkpoint"
        raise UserError(f"swift {command} ended early, at {where}: see {work}/{command}.log")
    top = scored.best(log)
    chosen = run / f"checkpoint-{top['step']}" if top else last
    if not chosen.is_dir():
        remedy = f"delete {work} and run the same command again"
        raise UserError(f"{chosen}, the best checkpoint, is damaged or gone: {remedy}")
    keep(chosen, adapter, base)
    points = [row for row in log if {"loss", "eval_loss", "accuracy"} & row.keys()]
    rows = ({name: row[name] for name in LOGGED if name in row} for row in points)
    write_jsonl(part(adapter) / "logging.jsonl", rows)
    replace(adapter)
    timed = run / "logging.jsonl"  # of the first node alone
    lines = map(json.loads, timed.read_bytes().splitlines() if timed.is_file() else [])
    seconds = [line["train_runtime"] for line in lines if "train_runtime" in line]
    return int(state["global_step"]), float((seconds or [0])[-1])


def write_curves(path: Path, log: list[Row], columns: dict[str, str]) -> None:
    """Writes the points of an alignment's log as a CSV table of `step` and `columns`, each with its
    name in the log; for an empty log its head alone."""
    points = (row for row in log if "loss" in row)
    lines = [  # a value that was not logged, as the KL where nothing holds to it, stays empty
        [row["step"], *(f"{row[name]:.6g}" if name in row else "" for name in columns.values())]
        for row in points
    ]
    text = "".join(",".join(map(str, line)) + "\n" for line in [["step", *columns], *lines])
    write_text(path, text)


def read_state(checkpoint: Path) -> dict[str, Any]:
    """The trainer's state in a complete checkpoint: its steps and its log."""
    return dict(json.loads((checkpoint / "trainer_state.json").read_bytes()))


def part(folder: Path) -> Path:
    """Where `folder` is put together before it gets its name."""
    return folder.with_name(folder.name + ".part")


def keep(checkpoint: Path, folder: Path, base: str) -> None:
    """Copies what a model or adapter needs from `checkpoint` to `part(folder)`."""
    needless = shutil.ignore_patterns(*ONLY_TO_RESUME, *ABOUT_THE_RUN)
    shutil.rmtree(part(folder), ignore_errors=True)
    shutil.copytree(checkpoint, part(folder), ignore=needless)
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
    """Writes the base `model` and `adapter` as one model to the folder `out`, or copies an adapter
    that is a whole model (tuner_type full). The folder `work` keeps ms-swift's log. Raises
    UserError when ms-swift fails, and when the adapter's folder holds code or pickled weights."""
    shutil.rmtree(out, ignore_errors=True)  # ms-swift would leave stale weights
    model_folder.refuse_code(adapter, "run `dvc repro -f sft`")
    if (adapter / "adapter_config.json").is_file():
        config = swift.model_config(model, revision)
        config |= {"adapters": [str(adapter)], "merge_lora": True, "load_args": False}
        config |= {"output_dir": str(out), "exist_ok": True}
        if not model_folder.on_cuda():  # there predictions are made in float32: no digit gets lost
            config["torch_dtype"] = "float32"
        swift.run("export", config, work)
        for name in ABOUT_THE_RUN:
            (out / name).unlink(missing_ok=True)
    else:
        shutil.copytree(adapter, out, ignore=shutil.ignore_patterns("logging.jsonl"))
    model_folder.check_folder(out, "see the log of `swift export`")
