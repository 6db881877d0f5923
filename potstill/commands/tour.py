"""Runs `dvc repro` for every task, one after the other, then prints a table of them all."""

import contextlib
import time
from pathlib import Path

from potstill.core import jsonl, project
from potstill.evaluation import score
from potstill.evaluation.statistics import percent
from potstill.task import settings

COLUMNS = ("teacher", "before", "after", "prompt", "prompt")


def line(name: str, folder: Path) -> str:
    """A task's row of the table: its test rows, the headline share of each model, prompt tokens."""
    path = folder / "reports/metrics.json"
    if not path.is_file():
        return f"{name:14}not yet run: make repro TASK={name}"
    metrics = jsonl.read_json(path)
    models = ("teacher", "base", score.student(metrics))
    shares = "".join(
        f"{percent(score.headline(metrics[model])) if model in metrics else '':>10}"
        for model in models
    )
    tokens = "".join(f"{metrics[model]['prompt_tokens']:10,.0f}" for model in models[1:])
    return f"{name:14}{metrics['rows']:6,}{shares}{tokens}"


def main() -> None:
    tasks = settings.tasks()
    for name, folder in tasks.items():
        start = time.monotonic()
        print(f"tour: {name}", flush=True)
        with contextlib.chdir(folder):
            project.dvc("repro")
        print(f"tour: {name} took {time.monotonic() - start:.0f} s", flush=True)
    heads = "".join(f"{column:>10}" for column in COLUMNS)
    print(f"{'task':14}{'rows':>6}{heads}  tokens, before and after")
    print(*(line(name, folder) for name, folder in tasks.items()), sep="\n")
