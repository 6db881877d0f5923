"""What the stage sft adds to the bare `swift sft` with the same YAML: python -m bench.sft [ROUNDS]
in a task's folder.

Needs data/4-train.jsonl and 4-valid.jsonl (`dvc repro split`); everything is written to a temporary
folder. The two take turns. `start and end` is all that is not the trainer's own time (train_runtime
of ms-swift's log).
"""

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from bench.poisoned import TASK, link
from potstill.core import params, project
from potstill.training import model_folder, run, swift

DATA = ("data/4-train.jsonl", "data/4-valid.jsonl")


def main(rounds: int = 1) -> None:
    p = params.load(*params.declared("sft"))
    config = run.config(p, Path(DATA[0]), Path(DATA[1]))
    found: dict[str, list[tuple[float, float]]] = {"swift sft": [], "stages.sft": []}
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            found["swift sft"].append(bare(config, Path(folder)))
            found["stages.sft"].append(stage(Path(folder)))
    print(f"{'':12}{'all':>9}{'trainer':>9}{'start and end':>15}   seconds, median of {rounds}")
    for name, times in found.items():
        whole, trained = median(a for a, _ in times), median(b for _, b in times)
        print(f"{name:12}{whole:9.1f}{trained:9.1f}{whole - trained:15.1f}")
    (a, b), (c, d) = (tuple(map(median, zip(*times, strict=True))) for times in found.values())
    rest = f"{(c - d) - (a - b):+.1f} s to the rest"
    print(f"the stage adds {d / b - 1:+.1%} to the trainer's time, {rest}")


def bare(config: swift.Config, folder: Path) -> tuple[float, float]:
    """Seconds of the whole command and of its trainer."""
    yaml = folder / "sft.yaml"
    yaml.write_text(swift.render(config | {"output_dir": str(folder / "run")}), encoding="utf-8")
    env = os.environ | model_folder.environment(model_folder.at_hub(config["model"]))
    start = time.monotonic()
    command = [str(Path(sys.executable).with_name("swift")), "sft", str(yaml)]
    subprocess.run(command, env=env, check=True, capture_output=True)
    whole = time.monotonic() - start
    lines = map(json.loads, (folder / "run/logging.jsonl").read_text(encoding="utf-8").splitlines())
    return whole, next(line["train_runtime"] for line in lines if "train_runtime" in line)


def stage(folder: Path) -> tuple[float, float]:
    """The same of `python -m stages.sft`, in a copy of the task."""
    copy = folder / "task"
    link(copy, *TASK, *DATA)
    env = os.environ | {"DVC_ROOT": str(folder), "PYTHONPATH": str(project.ROOT)}
    start = time.monotonic()
    command = [sys.executable, "-m", "stages.sft"]
    done = subprocess.run(command, cwd=copy, env=env, check=True, capture_output=True, text=True)
    whole = time.monotonic() - start
    said = re.search(r"([0-9.]+) of them in the trainer", done.stdout)
    assert said, done.stdout
    return whole, float(said[1])


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
