"""Whether the choice holds: python -m bench.poisoned in a task's folder, after a run with dpo among
`models`.

Aligns the task's student on its own preferences with chosen and rejected swapped, in a folder that
is thrown away, and lets the stage `choose` decide. The aligned student is worse, so it must ship
sft.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from potstill.core import jsonl, project
from potstill.task import settings

TASK = ("task.yaml", "schema.json", "prompts", "params.yaml")


def main() -> None:
    t = settings.load()
    pairs = t.data / "4-pairs/pairs.jsonl"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = [t.data / f"{part}.jsonl" for part in ("3-kept", "4-train", "4-valid", "4-test")]
        link(folder, *TASK, *rows, t.models / "sft", t.data / "5-predictions/sft")
        found = jsonl.read_jsonl(pairs, ("chosen", "rejected"))
        swapped = ({**row, "chosen": row["rejected"], "rejected": row["chosen"]} for row in found)
        jsonl.write_jsonl(folder / pairs, swapped)
        env = os.environ | {"DVC_ROOT": name, "PYTHONPATH": str(project.ROOT)}
        for command in ("stages.align", "stages.predict dpo", "stages.choose"):
            arguments = [sys.executable, "-m", *command.split()]
            subprocess.run(arguments, cwd=folder, env=env, check=True)
        choice = jsonl.read_json(folder / t.data / "6-choice.json")
        print(json.dumps(choice, ensure_ascii=False))


def link(folder: Path, *paths: str | Path) -> None:
    """The same files and folders in `folder`, by their paths here."""
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).symlink_to(Path(path).resolve())


if __name__ == "__main__":
    main()
