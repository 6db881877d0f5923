"""4-pairs/, models/sft/merged → models/dpo, models/grpo: where models has one of them, an
alignment by `swift rlhf`. Its folder has adapter/ (LoRA on the sft student, with the log), merged/
(one model) and curves.csv; the other's only the head of curves.csv.

A line of dpo/curves.csv: step 10, loss 0.61, margin 0.18 (of the rewards, chosen less rejected),
accuracy 0.71 (share of the margins above 0); of grpo/curves.csv: step 10, reward 0.71 (mean of the
answers), no_variance 0.25 (share of inputs whose answers have one reward), length 61.2 (tokens of
an answer), kl 0.003. grpo/report.json: {"rows": 120}, or 0 where there is nothing to learn from.
"""

import shutil
import time
from pathlib import Path
from types import SimpleNamespace

from potstill.core import errors, jsonl, params, stage
from potstill.core.jsonl import Row
from potstill.core.models import ALIGNED, aligned
from potstill.core.project import DATA, MODELS
from potstill.training import dpo, grpo, model_folder, run

CURVES = {"dpo": dpo.CURVES, "grpo": grpo.CURVES}


def main() -> None:
    p = params.load(*params.declared("align"))
    says = "nothing to do, models has no dpo and no grpo"
    for name in ALIGNED:
        out = run.part(MODELS / name)
        shutil.rmtree(out, ignore_errors=True)
        log: list[Row] = []
        if name == aligned(p.models):
            log, says = align(name, p, out)
        run.write_curves(out / "curves.csv", log, CURVES[name])
        run.replace(MODELS / name)
    print(f"align: {says}")


def align(name: str, p: SimpleNamespace, out: Path) -> tuple[list[Row], str]:
    """The log of the alignment `name`, whose models go to the folder `out`, and what is to be said
    of it."""
    start, merged = time.monotonic(), MODELS / "sft" / "merged"
    model_folder.check_folder(merged, "run `dvc repro merge`")
    rows = preferences() if name == "dpo" else inputs(out)
    if not rows:
        why = "no input whose answers are right in part, so that there is nothing to learn from"
        return [], f"{DATA}/4-pairs has {why}: the sft student ships"
    path = dpo.PAIRS if name == "dpo" else grpo.INPUTS
    config = dpo.config(p, path, merged)
    lesson, more, what = dpo.lesson, [], "pairs"
    if name == "grpo":
        config = grpo.config(p, len(rows), path, merged)
        lesson, more, what = grpo.lesson, [grpo.CHECKS], "inputs"
    with run.exclusive_folder("align", config, more) as work:
        jsonl.write_jsonl(work / path.name, map(lesson, rows))
        config["dataset"] = [str(work / path.name)]
        steps, trained = run.train(config, work, out / "adapter", base=str(merged))
        run.merge(str(merged), "", out / "adapter", out / "merged", work)
    seconds = f"{time.monotonic() - start:.1f} s, {trained:.1f} of them in the trainer"
    log = jsonl.read_jsonl(out / "adapter" / "logging.jsonl")
    return log, f"{len(rows):,} {what}, {steps:,} steps, {seconds} → {MODELS}/{name}"


def preferences() -> list[Row]:
    """The rows that dpo learns from. Raises UserError where there are none."""
    if not dpo.PAIRS.is_file():
        raise errors.UserError(
            f"{dpo.PAIRS} is missing, expected preferences (models has dpo): raise pairs.rows in "
            f"params.yaml, or add prompts/rejected.md; {dpo.PAIRS.parent}/report.json says what "
            "was dropped"
        )
    return jsonl.read_jsonl(dpo.PAIRS, ("prompt", "chosen", "rejected"))


def inputs(out: Path) -> list[Row]:
    """The rows that grpo learns from, which may be none; `out` keeps how many there are."""
    if not grpo.CHECKS.is_file():
        raise errors.UserError(f"{grpo.CHECKS} is missing: run `dvc repro pairs`")
    rows = jsonl.read_some(grpo.INPUTS, "id", "messages", "row")
    jsonl.write_json(out / grpo.REPORT, {"rows": len(rows)})
    return rows


if __name__ == "__main__":
    stage.run(main)
