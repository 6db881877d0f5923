"""The checks of a task as a document. A training that judges answers depends on it, and not on the
checks themselves: an edit of these trains anew only what uses them."""

from pathlib import Path
from statistics import fmean
from typing import Any

from potstill.checks import registry
from potstill.core import lockfile
from potstill.core.jsonl import row_id
from potstill.task.settings import Task

CONFIG = ("input", "checks")  # of task.yaml


def freeze(task: Task) -> dict[str, Any]:
    """What the checks of `task` depend on, to be written as JSON: {"name", "config", "schema",
    "knowledge", "code"}; `code` changes with the program of the checks. Raises UserError for what
    is wrong with the checks."""
    registry.validate(task)
    files = sorted(Path(registry.__file__).parent.glob("*.py"))
    code = [(path.name, lockfile.md5(path)) for path in files]
    return {
        "name": task.name,
        "config": {name: task.config[name] for name in CONFIG},
        "schema": task.schema if registry.is_json(task) else None,
        "knowledge": task.knowledge,
        "code": row_id({"files": code}),
    }


def thaw(found: dict[str, Any]) -> Task:
    """A task whose checks are those of `freeze`; it has no prompts."""
    task = Task(found["name"], found["config"])
    # What would be read from the working folder, which may have been edited meanwhile
    task.__dict__ |= {"schema": found["schema"], "knowledge": found["knowledge"]}
    return task


def right(task: Task, row: dict[str, Any], answer: str) -> bool:
    """Whether the answer to `row` passes every check; one that has nothing to judge by is not
    passed."""
    _, problem = registry.parse(task, answer)
    passed = (verdict.passed for verdict in registry.verdicts(task, row, answer))
    return not problem and all(passed)


def reward(task: Task, row: dict[str, Any], answer: str) -> float:
    """What an answer is worth, 0 to 1: half of it is passing every check, the other half the share
    of the checks that it passes. Of an exact_match with an expected object the share of its values
    counts. A check with nothing to judge by counts for nothing, and an answer that cannot be read
    is worth nothing."""
    parsed, problem = registry.parse(task, answer)
    judged = [one for one in registry.verdicts(task, row, answer) if one.passed is not None]
    if problem or not judged:
        return 0.0
    shares = [float(bool(one.passed)) for one in judged]
    every = all(one.passed for one in judged)
    if isinstance(row.get("expected"), dict):
        compared = registry.keys(task, parsed, row["expected"]).values()
        values = fmean(one.same for one in compared) if compared else 0.0
        shares = [
            max(share, values) if one.name == "exact_match" else share
            for one, share in zip(judged, shares, strict=True)
        ]
    return (fmean(shares) + every) / 2
