"""Whether the gate holds: python -m bench.poisoned, from the repository root, after a run with dpo among `models`.

Aligns the active task's student on its own preferences with chosen and rejected swapped, in a folder that is thrown away, and lets the stage
`ship` choose. The aligned student is worse, so the verdict must be "ship sft".
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from potstill.core import jsonl, params
from potstill.task import settings


def main() -> None:
    t = settings.load()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for part in (
            "potstill",
            "stages",
            "schemas",
            "tasks",
            "params.yaml",
            str(t.models / "sft"),
        ):
            link(folder, Path(part))
        for path in t.data.glob("*.jsonl"):
            if not path.stem.endswith("-dpo"):
                link(folder, path)
        found = jsonl.read_jsonl(t.data / "4-pairs/pairs.jsonl", ("chosen", "rejected"))
        swapped = ({**row, "chosen": row["rejected"], "rejected": row["chosen"]} for row in found)
        jsonl.write_jsonl(folder / t.data / "4-pairs/pairs.jsonl", swapped)  # in place of the link
        env = {name: value for name, value in os.environ.items() if name != "DVC_ROOT"}
        for command in (["stages.align"], ["stages.predict", "dpo"], ["stages.ship"]):
            subprocess.run(
                [sys.executable, "-m", *command],
                cwd=folder,
                env=env | {"PYTHONPATH": name},
                check=True,
            )
        print(
            json.dumps(
                json.loads((folder / t.data / "6-choice.json").read_text(encoding="utf-8")),
                ensure_ascii=False,
            )
        )


def link(folder: Path, path: Path) -> None:
    """The same file or folder there, by its path here."""
    (folder / path).parent.mkdir(parents=True, exist_ok=True)
    (folder / path).symlink_to(path.resolve())


if __name__ == "__main__":
    main()
