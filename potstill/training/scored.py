"""Which checkpoint of a training ships: the best by the task's checks, on validation rows."""

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from potstill.core import jsonl, project
from potstill.core.jsonl import Row

FOLDER = project.DATA / "4-scoring"
CALLBACK = "score_checkpoints"
PLUGIN = Path(__file__).parent / "plugins" / f"{CALLBACK}.py"
KEPT = 2  # checkpoints at least: the best, and the last, to go on from
TIMES = 10  # checkpoints of a training where save_steps is null: each scoring takes time


def settings() -> dict[str, Any]:
    """What `split` wrote about the rows that score the checkpoints: {"rows": 0}, or {"rows",
    "patience", "max_tokens", "checks"}. Raises UserError when the file is missing."""
    return jsonl.read_json(FOLDER / "report.json")


def files() -> list[Path]:
    """The files that a training reads to score its checkpoints."""
    return sorted(FOLDER.iterdir())


def config(p: SimpleNamespace, steps: int) -> dict[str, Any]:
    """ms-swift's arguments for a training of so many steps with the parameters `p`, whose
    checkpoints are scored."""
    return {
        "external_plugins": [os.path.relpath(PLUGIN)],
        "callbacks": [CALLBACK],
        "save_steps": p.save_steps or max(1, steps // TIMES),
        "save_total_limit": max(p.save_total_limit, KEPT),
    }


def points(log: list[Row]) -> list[Row]:
    """The rows of a training's log that have the accuracy of a checkpoint."""
    return [row for row in log if "accuracy" in row]


def best(log: list[Row]) -> Row | None:
    """The point of the best checkpoint: of equal ones the earliest. None where none was scored."""
    return max(points(log), key=lambda row: (row["accuracy"], -row["step"]), default=None)


def exhausted(log: list[Row], patience: int | None) -> bool:
    """Whether the last `patience` checkpoints were no better than an earlier one; never with
    None."""
    top = best(log)
    since = sum(row["step"] > top["step"] for row in points(log)) if top else 0
    return patience is not None and since >= patience


def said(log: list[Row], steps: int, of: int, rows: int) -> str:
    """What ships of a training that made `steps` of `of` steps and has scored checkpoints on `rows`
    rows, in one sentence."""
    *_, last = points(log)
    top = best(log) or last
    text = f"checkpoint {top['step']:,} ships: {top['accuracy']:.1%} of {rows:,} validation rows "
    text += "right"
    if last["step"] > top["step"]:
        text += f", the last (step {last['step']:,}) {last['accuracy']:.1%}"
    return text + (f"; stopped early, at step {steps:,} of {of:,}" if steps < of else "")
