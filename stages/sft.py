"""4-train.jsonl, 4-valid.jsonl → models/<task>/sft/adapter: LoRA by `swift sft`, with the training's log.

A line of adapter/logging.jsonl: {"step": 100, "epoch": 0.41, "loss": 0.0213} or {"step": 100, "epoch": 0.41, "eval_loss": 0.0198}
"""

import time

from potstill import errors, params, rows, task, training


def main() -> None:
    p = params.load(
        "task",
        "model",
        "model_revision",
        "seed",
        "tuner_type",
        "quant_bits",
        "torch_dtype",
        "num_train_epochs",
        "per_device_train_batch_size",
        "per_device_eval_batch_size",
        "learning_rate",
        "lr_scheduler_type",
        "lora_rank",
        "lora_alpha",
        "lora_dropout",
        "target_modules",
        "gradient_accumulation_steps",
        "save_steps",
        "save_total_limit",
        "eval_steps",
        "logging_steps",
        "max_length",
        "warmup_ratio",
        "weight_decay",
        "swift_args",
        "group_by_length",
        "dataloader_num_workers",
    )
    t = task.load(p.task)
    p = t.settled(p)
    start = time.monotonic()
    config = training.config(p, t.data / "4-train.jsonl", t.data / "4-valid.jsonl")
    train, valid = (rows.read_jsonl(t.data / f"4-{side}.jsonl", ("id", "messages")) for side in ("train", "valid"))
    if twice := {row["id"] for row in train} & {row["id"] for row in valid}:
        raise errors.UserError(
            f"{t.data}/4-train.jsonl: id {min(twice)} is in 4-valid.jsonl, too: run `dvc repro split`"
        )
    with training.alone("sft", config) as work:
        steps, trained = training.train(config, work, t.models / "sft" / "adapter", base=p.model)
    seconds = time.monotonic() - start
    print(
        f"sft: {len(train):,} rows, {len(valid):,} to validate on, {steps:,} steps, {seconds:.1f} s, {trained:.1f} of them in "
        f"the trainer → {t.models}/sft/adapter"
    )


if __name__ == "__main__":
    errors.run(main)
