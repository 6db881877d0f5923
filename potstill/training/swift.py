"""ms-swift as a child process: its YAML, its log, its progress, its checkpoints.

`python -m potstill.training.swift sft|rlhf|export FILE.yaml` is `swift sft|rlhf|export FILE.yaml`
without the launcher, which imports ms-swift only to start a second process that imports it again.
"""

import json
import math
import os
import re
import signal
import sys
import threading
import zipfile
from importlib.util import find_spec
from pathlib import Path
from subprocess import PIPE, STDOUT, Popen, TimeoutExpired
from types import SimpleNamespace
from typing import Any

from potstill.core.errors import UserError
from potstill.training import model_folder

Config = dict[str, Any]
EVERY = 10  # seconds between two lines of progress
TRACKERS = "tensorboard wandb swanlab mlflow".split()  # of the environment's REPORT_TO
# Of the environment: what ms-swift's own launcher hands to torchrun
TORCHRUN = "NPROC_PER_NODE NNODES NODE_RANK MASTER_ADDR MASTER_PORT".split()


def model_config(model: str, revision: str | None) -> Config:
    """ms-swift's arguments for a base model. A name on the hub tells ms-swift what kind of model it
    is, the name of a folder does not. Raises UserError when the folder has no whole model."""
    if model_folder.at_hub(model):
        return {"model": model, "model_revision": revision}
    folder = model_folder.local(model)
    config = {"model": str(folder)}
    config["model_type"] = model_folder.check_folder(folder)["model_type"]
    path = folder / "chat_template.jinja"
    template = path.read_text(encoding="utf-8") if path.is_file() else ""
    if template and "<think>" not in template:
        config["template"] = "chatml"  # ms-swift's template of qwen3 would add an empty thought
    elif "enable_thinking" in template:
        config["template"] = "qwen3"  # ms-swift has several for this kind of model, and takes none
    return config


def device_config(dtype: str) -> Config:
    """ms-swift's arguments for training in `dtype` on this machine."""
    if model_folder.on_cuda():
        own: Config = {"torch_dtype": dtype}
        return own | {"fp16": False, "bf16": False} if dtype == "float32" else own  # else float16
    # Measured on two cores: bfloat16 arithmetic over float32 weights is as fast as pure bfloat16
    # and more exact, and 20 times slower than float32 where the processor has none; eager attention
    # takes 2/3 of the time of sdpa; checkpointing saves memory that nobody lacks and costs a third.
    bfloat16 = dtype == "bfloat16" and model_folder.has_bfloat16()
    own = {"torch_dtype": "float32", "bf16": bfloat16, "fp16": False, "use_cpu": True}
    return own | {"attn_impl": "eager", "gradient_checkpointing": False}


def drawing(p: SimpleNamespace) -> Config:
    """ms-swift's arguments for an alignment in which the model answers itself; `p` has the sections
    pairs and predict. On a GPU vLLM answers in the trainer's process, on the same GPU."""
    own: Config = {"use_vllm": False}
    if model_folder.on_cuda():
        own = {"use_vllm": True, "vllm_mode": "colocate", "vllm_gpu_memory_utilization": 0.4}
    return own | {"temperature": p.pairs.temperature, "max_completion_length": p.predict.max_tokens}


def render(config: Config) -> str:
    """The YAML that ms-swift reads. Its values are JSON, which every version of YAML reads alike:
    "no" does not become false."""
    values = {key: json.dumps(value, ensure_ascii=False) for key, value in config.items()}
    return "".join(f"{key}: {value}\n" for key, value in values.items())


def torchrun() -> dict[str, str]:
    """The variables of TORCHRUN that are set, by name; none where one process trains. Raises
    UserError when a number of nodes or processes is none."""
    given = {name: os.environ[name] for name in TORCHRUN if os.environ.get(name)}
    for name in ("NPROC_PER_NODE", "NNODES"):
        if not re.fullmatch("[1-9][0-9]*", given.get(name, "1")):
            found = f"{name} in the environment is {given[name]!r}"
            raise UserError(f"{found}, expected a number from 1 up, as for torchrun")
    return given if given.keys() & {"NPROC_PER_NODE", "NNODES"} else {}


def trackers() -> list[str]:
    """Where a training's curves go while it runs, by REPORT_TO of the environment; [] where that
    is not set. Raises UserError for a name that is none of TRACKERS, and when the package of one
    is not installed."""
    names = [name for name in re.split("[, ]+", os.environ.get("REPORT_TO", "")) if name]
    for name in names:
        if name not in TRACKERS:
            raise UserError(f"REPORT_TO names {name!r}, expected some of {', '.join(TRACKERS)}")
        if find_spec(name) is None:
            remedy = f"`{sys.executable} -m pip install {name}`, or leave REPORT_TO out"
            raise UserError(f"REPORT_TO names {name}, and that package is not installed: {remedy}")
    return names


def shared(config: Config) -> Config:
    """A training's `config` for each of the processes that torchrun starts. What one device would
    take in a step, per_device_train_batch_size times gradient_accumulation_steps rows, is shared
    out, so that a step is the same on any number of devices. Raises UserError when it cannot be."""
    given, own = torchrun(), dict(config)
    nodes, each = (int(given.get(name, 1)) for name in ("NNODES", "NPROC_PER_NODE"))
    world, names = nodes * each, ("per_device_train_batch_size", "gradient_accumulation_steps")
    rows, times = (config[name] for name in names)
    if rows * times % world:
        raise UserError(
            f"params.yaml: {' × '.join(names)} is {rows * times} rows a step, which {world} "
            f"processes (NNODES × NPROC_PER_NODE) cannot share: make it a multiple of {world}"
        )
    part = math.gcd(rows, world)  # first the rows: then a step has the very same ones
    own |= dict(zip(names, (rows // part, times * part // world), strict=True))
    return own | ({"save_on_each_node": True} if nodes > 1 else {})  # each keeps its own folder


def run(command: str, config: Config, folder: Path) -> None:
    """Runs `swift COMMAND` with `config`; `folder` keeps COMMAND.yaml and COMMAND.log. A training's
    progress goes to stderr, every ten seconds where it has changed. The child ends with this
    process, however that ends. Raises UserError with the log's most telling line when ms-swift
    fails, and as `trackers` does."""
    folder.mkdir(parents=True, exist_ok=True)
    yaml, log = folder / f"{command}.yaml", folder / f"{command}.log"
    # No part of what is trained, so neither of its key nor of a record: here, and not in `config`
    named = [] if command == "export" else trackers()
    told = config | ({"report_to": named} if named else {})
    yaml.write_text(render(told), encoding="utf-8")
    ranks = {} if command == "export" else torchrun()
    flags = [word for name, value in ranks.items() for word in (f"--{name.lower()}", value)]
    launcher = ["-m", "torch.distributed.run", *flags] if flags else []
    module = ["-m", "potstill.training.swift", command, str(yaml)]
    arguments = [sys.executable, *launcher, *module]
    models = [config[name] for name in ("model", "teacher_model") if name in config]
    env = os.environ | model_folder.environment(any(map(model_folder.at_hub, models)))
    env |= {"PYTHONHASHSEED": "0", "PYTHONUNBUFFERED": "1"}
    env["HF_DATASETS_CACHE"] = str(folder.resolve() / "datasets")
    if "tensorboard" in named:  # beside the folder, which goes when all is well
        curves = folder.resolve().parent.parent / "runs" / f"{command}-{folder.name}"
        env.setdefault("TENSORBOARD_LOGGING_DIR", str(curves))
        print(f"{command}: its curves: `tensorboard --logdir {curves.parent}`", flush=True)
    with log.open("wb") as out:
        streams: dict[str, Any] = {"stdin": PIPE, "stdout": out, "stderr": STDOUT}
        # The child inherits the locks of its stage and of its folder, too
        child = Popen(arguments, **streams, env=env, process_group=0, close_fds=False)
    said = None
    try:
        while child.poll() is None:
            try:
                child.wait(EVERY)
            except TimeoutExpired:
                line = progress(command, Path(config["output_dir"]) / "logging.jsonl")
                if line and line != said:
                    print(line, file=sys.stderr, flush=True)
                said = line
    finally:
        if child.poll() is None:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()
    if child.returncode:
        line = telling_line(log, child.returncode)
        raise UserError(f"swift {command} failed: {line} (the whole log: {log})")


def progress(command: str, log: Path) -> str | None:
    """A line about a training under way, from ms-swift's logging.jsonl; None where that has no loss
    yet, or a line that is half written."""
    try:
        lines = map(json.loads, log.read_bytes().splitlines())
        last = [line for line in lines if "loss" in line][-1]
    except (OSError, ValueError, IndexError):
        return None
    step, left = last["global_step/max_steps"], last["remaining_time"]
    return f"{command}: step {step}, loss {last['loss']:.4f}, about {left} left"


def telling_line(log: Path, code: int) -> str:
    """The line of a failed run's log that says most, up to 300 characters: the last exception, else
    the signal that ended the run, else the last line. `code` is the exit code of subprocess."""
    text = log.read_text(encoding="utf-8", errors="replace")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    raised = [line for line in lines if re.match(r"[\w.]*(Error|Exception|Interrupt)\b", line)]
    if code < 0 and not raised:
        return f"ended by signal {-code}" + (", perhaps for want of memory" if code == -9 else "")
    return (raised or lines or [f"exit code {code}"])[-1][:300]


def last_checkpoint(folder: Path) -> Path | None:
    """The last complete checkpoint-N in `folder`; None without one."""
    complete = filter(is_complete, folder.glob("checkpoint-*"))
    return max(complete, key=lambda path: int(path.name.split("-")[1]), default=None)


def is_complete(checkpoint: Path) -> bool:
    """Whether a checkpoint has its weights, optimizer, scheduler, random state and
    trainer_state.json, each of them whole; not when the training was killed as it wrote them."""
    from safetensors import SafetensorError, safe_open

    weights = list(checkpoint.glob("*.safetensors"))
    random_states = list(checkpoint.glob("rng_state*.pth"))
    states = [checkpoint / "optimizer.pt", checkpoint / "scheduler.pt", *random_states]
    try:
        json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
        for path in weights:
            with safe_open(path, "np"):
                pass
    except (OSError, ValueError, SafetensorError):
        return False
    return bool(weights and random_states) and all(map(zipfile.is_zipfile, states))


def forbid_code() -> None:
    """Makes transformers refuse a model's own code, and pickled weights, in this process: ms-swift
    loads with trust_remote_code=True and has no argument against either."""
    from transformers import dynamic_module_utils, modeling_utils

    def refuse(name: str, *_: Any, **__: Any) -> None:
        raise ValueError(f"{name}: the model brings code of its own, which is never run")

    def safetensors_only() -> None:
        raise ValueError("the model's weights are pickled, expected safetensors")

    dynamic_module_utils.get_class_in_module = refuse
    # transformers calls it before it unpickles weights, but not optimizers
    modeling_utils.check_torch_load_is_safe = safetensors_only


def main(argv: list[str]) -> None:
    """The child: runs ms-swift's own entry, and ends when the parent's end of stdin closes."""

    def end_with_parent() -> None:
        os.read(0, 1)  # not sys.stdin: its lock would be held in every process that ms-swift forks
        os.killpg(0, signal.SIGKILL)  # the loaders, too

    model_folder.keep_memory()
    threading.Thread(target=end_with_parent, daemon=True).start()
    from swift.cli.main import parse_yaml_args

    command, *rest = argv
    parse_yaml_args(rest)
    from swift import pipelines  # lazy: it imports only the pipeline that is asked for

    pipeline = getattr(pipelines, f"{command}_main")
    if "transformers" in sys.modules:  # always, but for the tests' stand-in for ms-swift
        forbid_code()
    pipeline(rest)
    sys.stdout.flush()
    os._exit(0)  # an orderly end takes a second in a process with 2 GB of libraries


if __name__ == "__main__":
    main(sys.argv[1:])
