"""`make tour`: `dvc repro` for every task of tasks/, one after the other, then the before and after of them all."""

import json
import subprocess
import sys
import time
from pathlib import Path

from potstill.commands import profile
from potstill.core import errors, params
from potstill.evaluation import score
from potstill.task import settings


def tasks() -> list[str]:
    """The tasks there are, by name."""
    return sorted(
        path.parent.name
        for path in Path("tasks").glob("*/task.yaml")
        if not path.parent.name.startswith("_")
    )


def line(name: str) -> str:
    """A task's row of the table: the headline share of each model, its test rows and prompt tokens."""
    path = settings.load(name).reports / "metrics.json"
    if not path.is_file():
        return f"{name:14}not yet run: make repro TASK={name}"
    found = json.loads(path.read_text(encoding="utf-8"))
    shares = "".join(
        f"{score.headline(found[model]):10.1%}" for model in ("teacher", "base", "sft")
    )
    tokens = "".join(f"{found[model]['prompt_tokens']:10,.0f}" for model in ("base", "sft"))
    return f"{name:14}{found['rows']:6,}{shares}{tokens}"


def main() -> None:
    before = params.load("task").task
    try:
        for name in tasks():
            start = time.monotonic()
            profile.apply({"task": name}, settings.load(name).dir / "task.yaml")
            print(f"tour: {name}", flush=True)
            if code := subprocess.call([sys.executable, "-m", "dvc", "repro"]):
                raise errors.UserError(
                    f"{name}: `dvc repro` ended with {code}; its own message stands above"
                )
            print(f"tour: {name} took {time.monotonic() - start:.0f} s", flush=True)
    finally:
        profile.apply({"task": before}, params.PATH)
    print(
        f"{'task':14}{'rows':>6}{'teacher':>10}{'before':>10}{'after':>10}{'prompt':>10}{'prompt':>10}  tokens, before and after"
    )
    print(*map(line, tasks()), sep="\n")


if __name__ == "__main__":
    errors.run(main)
