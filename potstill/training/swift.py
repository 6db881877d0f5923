"""ms-swift as a child process: its YAML, its log, its progress, its checkpoints.

`python -m potstill.training.swift sft|rlhf|export FILE.yaml` is `swift sft|rlhf|export FILE.yaml` without the launcher, which imports
ms-swift once more only to start the same thing in a second process.
"""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from potstill.core.errors import UserError
from potstill.training.model_folder import (
    at_hub,
    check_folder,
    environment,
    has_bfloat16,
    keep_memory,
    local,
    on_cuda,
)

Config = dict[str, Any]
EVERY = 10  # seconds between two lines of progress


def model_config(model: str, revision: str) -> Config:
    """ms-swift's arguments for the base model. A folder's name tells ms-swift nothing, so its files do."""
    if at_hub(model):
        return {"model": model, "model_revision": revision}
    folder = local(model)
    found: Config = {
        "model": str(folder),
        "model_type": check_folder(folder, "make it whole")["model_type"],
    }
    template = folder / "chat_template.jinja"
    if template.is_file() and "<think>" not in template.read_text(encoding="utf-8"):
        found["template"] = (
            "chatml"  # as the model's own template says; that of qwen3 adds an empty thought
        )
    return found


def device_config(dtype: str) -> Config:
    """ms-swift's arguments for this machine, for training in `dtype`."""
    if on_cuda():
        precision = (
            {"fp16": False, "bf16": False} if dtype == "float32" else {}
        )  # else ms-swift takes float16
        return {"torch_dtype": dtype, **precision}
    # Measured on two cores: bfloat16 arithmetic over float32 weights is as fast as pure bfloat16
    # and more exact, and 20 times slower than float32 where the processor has none; eager attention
    # takes 2/3 of the time of sdpa; checkpointing saves memory that nobody lacks and costs a third.
    return {
        "torch_dtype": "float32",
        "bf16": dtype == "bfloat16" and has_bfloat16(),
        "fp16": False,
        "use_cpu": True,
        "attn_impl": "eager",
        "gradient_checkpointing": False,
    }


def render(config: Config) -> str:
    """The YAML that ms-swift reads. JSON values are YAML of every version: no `no` becomes false on the way."""
    return "".join(
        f"{key}: {json.dumps(value, ensure_ascii=False)}\n" for key, value in config.items()
    )


def run(
    command: str, config: Config, folder: Path, progress: Callable[[], str | None] | None = None
) -> None:
    """Runs `swift COMMAND` with `config`; `folder` keeps COMMAND.yaml and COMMAND.log.

    `progress` makes a line for every ten seconds, or None. The child ends with this process, however that ends. Raises
    UserError with the log's last telling line when ms-swift fails.
    """
    folder.mkdir(parents=True, exist_ok=True)
    yaml, log = folder / f"{command}.yaml", folder / f"{command}.log"
    yaml.write_text(render(config), encoding="utf-8")
    env = (
        os.environ
        | environment(at_hub(config["model"]))
        | {"PYTHONHASHSEED": "0", "PYTHONUNBUFFERED": "1"}
    )
    with log.open("wb") as out:
        child = subprocess.Popen(
            [sys.executable, "-m", "potstill.training.swift", command, str(yaml)],
            stdin=subprocess.PIPE,
            stdout=out,
            stderr=subprocess.STDOUT,
            process_group=0,
            close_fds=False,  # the stage's lock is the child's, too (potstill/stage.py); no other file is inheritable
            env=env | {"HF_DATASETS_CACHE": str(folder.resolve() / "datasets")},
        )
    said = None
    try:
        while child.poll() is None:
            try:
                child.wait(EVERY)
            except subprocess.TimeoutExpired:
                line = progress and progress()
                if line and line != said:
                    print(line, file=sys.stderr, flush=True)
                said = line
    finally:
        if child.poll() is None:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()
    if child.returncode:
        raise UserError(
            f"swift {command} failed: {telling_line(log, child.returncode)} (the whole log: {log})"
        )


def telling_line(log: Path, code: int) -> str:
    """The line of a failed run's log that says most: the last exception, else the last line."""
    lines = [
        line.strip()
        for line in log.read_text(encoding="utf-8", errors="replace").splitlines()
        if line.strip()
    ]
    raised = [line for line in lines if re.match(r"[\w.]*(Error|Exception|Interrupt)\b", line)]
    if code < 0 and not raised:
        return f"ended by signal {-code}" + (", perhaps for want of memory" if code == -9 else "")
    return (raised or lines or [f"exit code {code}"])[-1][:300]


def last_checkpoint(folder: Path) -> Path | None:
    """The last complete checkpoint-N in `folder`; a training may have been killed while it wrote one."""
    found = sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    return next((path for path in reversed(found) if is_complete(path)), None)


def is_complete(checkpoint: Path) -> bool:
    """Whether weights, optimizer, scheduler, random state and trainer_state.json are all there and whole."""
    from safetensors import SafetensorError, safe_open

    weights = list(checkpoint.glob("*.safetensors"))
    states = [
        checkpoint / "optimizer.pt",
        checkpoint / "scheduler.pt",
        *checkpoint.glob("rng_state*.pth"),
    ]
    try:
        json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
        for path in weights:
            with safe_open(path, "np") as opened:
                opened.keys()
    except (OSError, ValueError, SafetensorError):
        return False
    return bool(weights) and len(states) > 2 and all(zipfile.is_zipfile(path) for path in states)


def forbid_code() -> None:
    """Makes transformers refuse a model's own code, and pickled weights, in this process: ms-swift loads with trust_remote_code=True,
    and has no argument against either."""
    from transformers import dynamic_module_utils, modeling_utils

    def refuse(name: str, *_: Any, **__: Any) -> None:
        raise ValueError(f"{name}: the model brings code of its own, which is never run")

    def safetensors_only() -> None:
        raise ValueError("the model's weights are pickled, expected safetensors")

    dynamic_module_utils.get_class_in_module = refuse
    modeling_utils.check_torch_load_is_safe = (
        safetensors_only  # what it asks before it unpickles weights; not of optimizers
    )


def main(argv: list[str]) -> None:
    """The child: ms-swift's own entry, which ends when the parent's end of stdin closes."""

    def watch() -> None:
        os.read(0, 1)  # not sys.stdin: its lock would be held in every process that ms-swift forks
        os.killpg(0, signal.SIGKILL)  # with its loaders

    keep_memory()
    threading.Thread(target=watch, daemon=True).start()
    from swift.cli.main import parse_yaml_args

    command, *rest = argv
    parse_yaml_args(rest)
    from swift import pipelines  # lazy: the one that is asked for is imported

    pipeline = getattr(pipelines, f"{command}_main")
    if "transformers" in sys.modules:  # always, but for the tests' stand-in for ms-swift
        forbid_code()
    pipeline(rest)
    sys.stdout.flush()
    os._exit(
        0
    )  # no orderly end of a process that holds two gigabytes of libraries: it takes a second


if __name__ == "__main__":
    main(sys.argv[1:])
