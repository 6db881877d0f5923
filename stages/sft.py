"""4-train.jsonl, 4-valid.jsonl → models/sft/adapter: LoRA by `swift sft`, with the training's log.

A line of adapter/logging.jsonl: {"step": 100, "epoch": 0.41, "loss": 0.0213}, of a validation
{"step": 100, "epoch": 0.41, "eval_loss": 0.0198}, and where best_checkpoint.rows is above 0, of a
checkpoint {"step": 100, "epoch": 0.41, "accuracy": 0.83}; then the best checkpoint is the adapter.
"""

import time

from potstill.core import errors, jsonl, params, stage
from potstill.core.project import DATA, MODELS
from potstill.training import run, scored


def main() -> None:
    p = params.load(*params.declared("sft"))
    start = time.monotonic()
    scoring, paths = scored.settings(), (DATA / "4-train.jsonl", DATA / "4-valid.jsonl")
    own = scored.config(p, run.step_count(vars(p), paths[0])) if scoring["rows"] else {}
    config = run.config(p, *paths, own)
    train, valid = (jsonl.read_jsonl(path, ("id", "messages")) for path in paths)
    if twice := {row["id"] for row in train} & {row["id"] for row in valid}:
        raise errors.UserError(
            f"{paths[0]}: id {min(twice)} is in 4-valid.jsonl, too: run `dvc repro split`"
        )
    adapter, more = MODELS / "sft" / "adapter", scored.files() if scoring["rows"] else []
    with run.exclusive_folder("sft", config, more) as work:
        config, validated = run.validation(config, work)
        patience = scoring.get("patience")
        steps, trained = run.train(config, work, adapter, base=p.model, patience=patience)
    seconds = time.monotonic() - start
    print(
        f"sft: {len(train):,} rows, {validated:,} to validate on, {steps:,} steps, "
        f"{seconds:.1f} s, {trained:.1f} of them in the trainer → {adapter}"
    )
    if scoring["rows"]:
        log, of = jsonl.read_jsonl(adapter / "logging.jsonl"), run.step_count(config, paths[0])
        print(f"sft: {scored.said(log, steps, of, scoring['rows'])}")


if __name__ == "__main__":
    stage.run(main)
