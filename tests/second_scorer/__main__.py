"""python -m tests.second_scorer [TASK]: is what `score` wrote so?

A second implementation of the score, which imports nothing of the product. It prints a line for
each model and one for each difference; its exit code is 1 where there is one. Without TASK it goes
through all tasks that have been run.
"""

import sys
from pathlib import Path

from tests.second_scorer.scores import Second


def folders(wanted: str | None) -> list[Path]:
    """The folders of the tasks that have been run, or of the one that is wanted."""
    every = [Path(), *sorted(path.parent for path in Path("tasks").glob("*/task.yaml"))]
    run = [folder for folder in every if (folder / "data/5-predictions/sft/test.jsonl").exists()]
    return [f for f in run if wanted in (None, f.name, Second(f).config["name"])]


def main() -> int:
    wanted = sys.argv[1] if len(sys.argv) > 1 else None
    found = folders(wanted)
    if not found:
        print(f"error: {wanted or 'every task'} lacks predictions here, run `make repro` first")
        return 1
    wrong = 0
    for folder in found:
        second = Second(folder)
        name, differences = second.config["name"], second.differences()
        for model, marks in second.marks.items():
            counts = (marks.count(True), marks.count(False), marks.count(None), len(marks))
            print(
                "{} {}: {} right + {} wrong + {} unscored = {} test rows".format(
                    name, model, *counts
                )
            )
        print(f"{name}: {len(differences)} differences", *differences, sep="\n  ")
        wrong += len(differences)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
