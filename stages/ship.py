"""5-valid-sft.jsonl, 5-valid-dpo.jsonl → 6-ship.json, models/<task>/student: which model ships, by the validation rows alone; without dpo
it is sft. models/<task>/student is a copy of it, for serving and quantising (in DVC's cache its files are the same).

6-ship.json: {"ship": "dpo", "why": "dpo wins (…)", "valid": {"rows": 389, "sft": 300, "dpo": 340, "p": 0.0001, …}}; valid: null without dpo
"""

import shutil
from typing import Any

from potstill import errors, params, rows, ship, student, task, training


def main() -> None:
    p = params.load("task", "models")
    t = task.load(p.task)
    found: dict[str, Any] = {"ship": "sft", "why": "models has no dpo", "valid": None}
    if "dpo" in p.models:
        valid = rows.read_jsonl(t.data / "4-valid.jsonl", ("id", "messages"))
        kept = {row["id"]: row for row in t.inputs(t.data / "3-kept.jsonl", "output")}
        places = [
            place for place, row in enumerate(valid) if row["id"] in kept
        ]  # your own rows have no input to judge by
        judged = [{**kept[valid[place]["id"]], "expected": kept[valid[place]["id"]]["output"]} for place in places]
        answers = {}
        for model in ("sft", "dpo"):
            path = t.data / f"5-valid-{model}.jsonl"
            answers[model] = rows.read_jsonl(path, ("id", "answer"))
            if [row["id"] for row in answers[model]] != [row["id"] for row in valid]:
                raise errors.UserError(
                    f"{path}: not one row for each of 4-valid.jsonl: run `dvc repro -f predict-{model}`"
                )
        found["valid"] = ship.compare(
            t, judged, *([answers[model][place] for place in places] for model in ("sft", "dpo"))
        )
        found["ship"], found["why"] = ship.verdict(found["valid"])
        print(
            f"ship: {len(kept):,} kept, {len(valid):,} to validate on, {len(valid) - len(judged):,} of them your own, not judged"
        )
    model = t.models / found["ship"] / "merged"
    student.check_folder(model, "run `make repro` first")
    out = t.models / "student"
    shutil.rmtree(training.part(out), ignore_errors=True)
    shutil.copytree(model, training.part(out))
    training.replace(out)
    rows.write_json(t.data / "6-ship.json", found)
    print(f"ship {found['ship']}: {found['why']} → {out}")


if __name__ == "__main__":
    errors.run(main)
