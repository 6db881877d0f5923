"""4-pairs/, models/sft/merged → models/dpo: where models has dpo, an alignment by `swift rlhf`. The
folder has adapter/ (LoRA on the sft student, with the log), merged/ (one model) and curves.csv;
without dpo only the head of curves.csv.

A line of curves.csv: step 10, loss 0.61, margin 0.18 (of the rewards, chosen less rejected),
accuracy 0.71 (share of the margins above 0)
"""

import shutil
import time

from potstill.core import errors, jsonl, params, stage
from potstill.core.jsonl import Row
from potstill.core.project import DATA, MODELS
from potstill.training import dpo, model_folder, run


def main() -> None:
    p = params.load(*params.declared("align"))
    start, out = time.monotonic(), run.part(MODELS / "dpo")
    shutil.rmtree(out, ignore_errors=True)
    says = "nothing to do, models has no dpo"
    log: list[Row] = []
    if "dpo" in p.models:
        merged, path = MODELS / "sft" / "merged", DATA / "4-pairs/pairs.jsonl"
        model_folder.check_folder(merged, "run `dvc repro merge`")
        if not path.is_file():
            raise errors.UserError(
                f"{path} is missing, expected preferences (models has dpo): raise pairs.rows in "
                f"params.yaml, or add prompts/rejected.md; {path.parent}/report.json says what "
                "was dropped"
            )
        pairs = jsonl.read_jsonl(path, ("prompt", "chosen", "rejected"))
        config = dpo.config(p, path, merged)
        with run.exclusive_folder("align", config) as work:
            jsonl.write_jsonl(work / "pairs.jsonl", map(dpo.lesson, pairs))
            config["dataset"] = [str(work / "pairs.jsonl")]
            steps, trained = run.train(config, work, out / "adapter", base=str(merged))
            run.merge(str(merged), "", out / "adapter", out / "merged", work)
        log = jsonl.read_jsonl(out / "adapter" / "logging.jsonl")
        seconds = f"{time.monotonic() - start:.1f} s, {trained:.1f} of them in the trainer"
        says = f"{len(pairs):,} pairs, {steps:,} steps, {seconds} → {MODELS}/dpo"
    dpo.write_curves(out / "curves.csv", log)
    run.replace(MODELS / "dpo")
    print(f"align: {says}")


if __name__ == "__main__":
    stage.run(main)
