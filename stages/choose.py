"""5-predictions/{sft,dpo,grpo,gkd}/valid.jsonl → 6-choice.json: which model ships, by the
validation rows alone, but for those that have chosen a checkpoint (4-scoring); without an alignment
it is sft. models/student is a copy of it, for serving and quantising.

6-choice.json: {"ship": "dpo", "why": "dpo wins (…)", "valid": {"rows": 389, "sft": 300, "dpo": 340,
"p": 0.0001, …}}; valid: null without an alignment
"""

import shutil
from typing import Any

from potstill.core import jsonl, params, stage
from potstill.core.models import UNALIGNED, aligned
from potstill.evaluation import choose
from potstill.inference import predictions
from potstill.task import settings
from potstill.training import alignment, model_folder, run, scored


def main() -> None:
    p = params.load("models")
    t = settings.load()
    found: dict[str, Any] = {"ship": "sft", "why": UNALIGNED, "valid": None}
    name = aligned(p.models)
    if name and not alignment.learnt(t.models / name):
        found["why"] = alignment.nothing(name)
    elif name:
        valid = jsonl.read_jsonl(t.data / "4-valid.jsonl", ("id", "messages"))
        found_kept = t.inputs(t.data / "3-kept.jsonl", "output", empty=True)
        kept = {row["id"]: row for row in found_kept}
        own = sum(row["id"] not in kept for row in valid)
        # Your own rows have no input to judge by, and those that chose a checkpoint flatter it.
        chose = {row["id"] for row in jsonl.read_some(scored.FOLDER / "rows.jsonl", "id")}
        fresh = kept.keys() - chose
        places = [place for place, row in enumerate(valid) if row["id"] in fresh]
        rows = [kept[valid[place]["id"]] for place in places]
        judged = [row | {"expected": row["output"]} for row in rows]
        answers = {}
        for model in ("sft", name):
            path = predictions.folder(t, model) / "valid.jsonl"
            every = predictions.read(path, valid, f"run `dvc repro -f predict@{model}`")
            answers[model] = [every[place] for place in places]
        found["valid"] = choose.compare(t, judged, answers["sft"], answers[name], name)
        found["ship"], found["why"] = choose.verdict(found["valid"])
        used = len(valid) - len(judged) - own
        print(
            f"choose: {len(kept):,} kept, {len(valid):,} to validate on, {own:,} of them your own, "
            f"not judged" + (f", {used:,} have chosen a checkpoint" if used else "")
        )
    model = t.models / found["ship"] / "merged"
    model_folder.check_folder(model, "run `make repro` first")
    out = t.models / "student"
    shutil.rmtree(run.part(out), ignore_errors=True)
    shutil.copytree(model, run.part(out))
    run.replace(out)
    jsonl.write_json(t.data / "6-choice.json", found)
    print(f"choose {found['ship']}: {found['why']} → {out}")


if __name__ == "__main__":
    stage.run(main)
