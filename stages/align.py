"""4-pairs/, models/sft/merged → models/dpo, models/grpo, models/gkd: where models has one of them,
an alignment by `swift rlhf`. Its folder has adapter/ (LoRA on the sft student, with the log),
merged/ (one model) and curves.csv; the others' only the head of curves.csv.

A line of dpo/curves.csv: step 10, loss 0.61, margin 0.18 (of the rewards, chosen less rejected),
accuracy 0.71 (share of the margins above 0); of grpo/curves.csv: step 10, reward 0.71 (mean of the
answers), no_variance 0.25 (share of inputs whose answers have one reward), length 61.2 (tokens of
an answer), kl 0.003; of gkd/curves.csv: step 10, loss 0.05 (the divergence from the teacher).
report.json of grpo and gkd: {"rows": 120}, or 0 where there is nothing to learn from. Where
best_checkpoint.rows is above 0, the best checkpoint is the adapter, as in stages/sft.py.
"""

import shutil

from potstill.core import params, stage
from potstill.core.jsonl import Row
from potstill.core.models import ALIGNED, UNALIGNED, aligned
from potstill.core.project import MODELS
from potstill.training import alignment, run


def main() -> None:
    p = params.load(*params.declared("align"))
    says = f"nothing to do, {UNALIGNED}"
    for name in ALIGNED:
        out = run.part(MODELS / name)
        shutil.rmtree(out, ignore_errors=True)
        log: list[Row] = []
        if name == aligned(p.models):
            log, says = alignment.train(name, p, out)
        run.write_curves(out / "curves.csv", log, alignment.CURVES[name])
        run.replace(MODELS / name)
    print(f"align: {says}")


if __name__ == "__main__":
    stage.run(main)
