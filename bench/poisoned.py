"""Whether the choice holds: python -m bench.poisoned in a task's folder, after a run with dpo,
grpo or gkd among `models`.

Aligns the task's student with what harms it, in a folder that is thrown away, and lets the stage
`choose` decide: for dpo its own preferences with chosen and rejected swapped, for grpo a
reward that grows with the length of an answer and with nothing else, for gkd with the student as
its own teacher what that is shown of another input. The aligned student is worse, so it must ship
sft.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from potstill.core import jsonl, params, project
from potstill.core.models import aligned
from potstill.task import settings
from potstill.training import dpo, gkd, grpo

# Each check asks for four characters more than the one before it, of any kind
LONGER = {
    "schema": None,
    "config": {
        "input": [],
        "checks": [{"regex": {"pattern": f"(?s).{{{count},}}"}} for count in range(4, 240, 4)],
    },
}
TASK = ("dvc.yaml", "params.yaml", "task.yaml", "schema.json", "prompts")


def main() -> None:
    t = settings.load()
    name = str(aligned(params.load("models").models))
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        rows = [t.data / f"{part}.jsonl" for part in ("3-kept", "4-train", "4-valid", "4-test")]
        link(folder, *TASK, *rows, t.models / "sft", t.data / "5-predictions/sft")
        link(folder, t.data / "4-scoring", t.data / "4-pairs/report.json")
        if name == "dpo":
            found = jsonl.read_jsonl(dpo.PAIRS, ("chosen", "rejected"))
            jsonl.write_jsonl(folder / dpo.PAIRS, map(swapped, found))
        elif name == "gkd":
            found = jsonl.read_jsonl(gkd.INPUTS, ("id", "messages", "teacher_prompt"))
            shown = [row["teacher_prompt"] for row in found[1:] + found[:1]]
            mixed = zip(found, shown, strict=True)
            rows_of = ({**row, "teacher_prompt": other} for row, other in mixed)
            jsonl.write_jsonl(folder / gkd.INPUTS, rows_of)
        else:
            link(folder, grpo.INPUTS)
            jsonl.write_json(folder / grpo.CHECKS, jsonl.read_json(grpo.CHECKS) | LONGER)
        env = os.environ | {"DVC_ROOT": place, "PYTHONPATH": str(project.ROOT)}
        for command in ("stages.align", f"stages.predict {name}", "stages.choose"):
            arguments = [sys.executable, "-m", *command.split()]
            subprocess.run(arguments, cwd=folder, env=env, check=True)
        curves = (folder / t.models / name / "curves.csv").read_text().splitlines()
        print(curves[0], curves[1], curves[-1], sep="\n")
        choice = jsonl.read_json(folder / t.data / "6-choice.json")
        print(json.dumps(choice, ensure_ascii=False))


def swapped(pair: jsonl.Row) -> jsonl.Row:
    """A preference for the worse answer."""
    return {**pair, "chosen": pair["rejected"], "rejected": pair["chosen"]}


def link(folder: Path, *paths: str | Path) -> None:
    """The same files and folders in `folder`, by their paths here."""
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).symlink_to(Path(path).resolve())


if __name__ == "__main__":
    main()
