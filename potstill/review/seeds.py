"""More lines for data/seeds.jsonl, which others may be writing to meanwhile."""

import fcntl
import json
import os
from collections.abc import Callable

from potstill.core import lockfile
from potstill.core.errors import UserError
from potstill.core.jsonl import Row
from potstill.dataset import expand_rules
from potstill.task.settings import Task


def mine(task: Task) -> None:
    """Raises UserError where a stage of data/dvc.yaml makes the file."""
    path = task.data / "seeds.jsonl"
    makes = lockfile.read_yaml(task.data / "dvc.yaml") or {}
    for name, entry in (makes.get("stages") or {}).items():
        if path.name in (entry.get("outs") or []):
            raise UserError(f"{path} is made by the stage {name} of {task.data}/dvc.yaml")


def has_categories(task: Task) -> bool:
    """Whether task.yaml wants a category of each seed."""
    return bool(task.config.get("expand", {}).get("categories"))


def append(task: Task, choose: Callable[[list[Row]], list[Row]]) -> tuple[int, list[Row]]:
    """Adds the seeds that `choose` makes of those that are there, all on disk or none when this
    returns; returns the line of the first, and them. Raises UserError as `mine` does, and when one
    fits no category of task.yaml."""
    mine(task)
    path = task.data / "seeds.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b", buffering=0) as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        seeds = task.seeds()
        new = choose(seeds)
        if new and has_categories(task):
            expand_rules.categories(task, [*seeds, *new])
        end = file.seek(0, os.SEEK_END)
        file.seek(max(end - 1, 0))
        lines = b"" if file.read(1) in (b"", b"\n") else b"\n"  # a last line typed by hand
        lines += b"".join(json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in new)
        try:
            if new and file.write(lines) != len(lines):
                raise OSError(f"{path}: the lines were not written whole")
            os.fsync(file.fileno())
        except BaseException:
            file.truncate(end)
            raise
    return len(seeds) + 1, new
