"""4-train.jsonl, 4-valid.jsonl → models/sft/adapter: LoRA by `swift sft`, with the training's log.

A line of adapter/logging.jsonl: {"step": 100, "epoch": 0.41, "loss": 0.0213}, of a validation
{"step": 100, "epoch": 0.41, "eval_loss": 0.0198}
"""

import time

from potstill.core import errors, jsonl, params, stage
from potstill.core.project import DATA, MODELS
from potstill.training import run


def main() -> None:
    p = params.load(*params.declared("sft"))
    start = time.monotonic()
    config = run.config(p, DATA / "4-train.jsonl", DATA / "4-valid.jsonl")
    train, valid = (
        jsonl.read_jsonl(DATA / f"4-{side}.jsonl", ("id", "messages"))
        for side in ("train", "valid")
    )
    if twice := {row["id"] for row in train} & {row["id"] for row in valid}:
        path = DATA / "4-train.jsonl"
        raise errors.UserError(
            f"{path}: id {min(twice)} is in 4-valid.jsonl, too: run `dvc repro split`"
        )
    with run.exclusive_folder("sft", config) as work:
        config, validated = run.validation(config, work)
        steps, trained = run.train(config, work, MODELS / "sft" / "adapter", base=p.model)
    seconds = time.monotonic() - start
    print(
        f"sft: {len(train):,} rows, {validated:,} to validate on, {steps:,} steps, "
        f"{seconds:.1f} s, {trained:.1f} of them in the trainer → {MODELS}/sft/adapter"
    )


if __name__ == "__main__":
    stage.run(main)
