"""4-pairs.jsonl, models/<task>/sft/merged → models/<task>/dpo: where models has dpo, an alignment by `swift rlhf`. The folder has adapter/
(LoRA on the sft student, with the log), merged/ (one model) and curves.csv; without dpo only the head of curves.csv.

A line of curves.csv: step 10, loss 0.61, margin 0.18 (of the rewards, chosen less rejected), accuracy 0.71 (margins above 0)
"""

import shutil
import time

from potstill import align, errors, params, rows, student, task, training


def main() -> None:
    p = params.load(
        "task",
        "models",
        "seed",
        "tuner_type",
        "quant_bits",
        "torch_dtype",
        "per_device_train_batch_size",
        "lr_scheduler_type",
        "lora_rank",
        "lora_alpha",
        "lora_dropout",
        "target_modules",
        "gradient_accumulation_steps",
        "save_steps",
        "save_total_limit",
        "logging_steps",
        "max_length",
        "warmup_ratio",
        "weight_decay",
        "dataloader_num_workers",
        "beta",
        "rpo_alpha",
        "dpo_learning_rate",
        "dpo_num_train_epochs",
    )
    t = task.load(p.task)
    start, out = time.monotonic(), training.part(t.models / "dpo")
    shutil.rmtree(out, ignore_errors=True)
    says = "nothing to do, models has no dpo"
    log: list[rows.Row] = []
    if "dpo" in p.models:
        merged, path = t.models / "sft" / "merged", t.data / "4-pairs.jsonl"
        student.check_folder(merged, "run `dvc repro merge`")
        if not path.stat().st_size:
            raise errors.UserError(
                f"{path} is empty, expected preferences (models has dpo): raise pairs in params.yaml, or add "
                f"{t.dir}/prompts/rejected.md; {t.data}/4-pairs.json says what was dropped"
            )
        pairs = rows.read_jsonl(path, ("prompt", "chosen", "rejected"))
        config = align.config(p, path, merged)
        with training.alone("align", config) as work:
            rows.write_jsonl(work / "pairs.jsonl", map(align.lesson, pairs))
            config["dataset"] = [str(work / "pairs.jsonl")]
            steps, trained = training.train(config, work, out / "adapter", base=str(merged))
            training.merge(str(merged), "", out / "adapter", out / "merged", work)
        log = rows.read_jsonl(out / "adapter" / "logging.jsonl")
        seconds = f"{time.monotonic() - start:.1f} s, {trained:.1f} of them in the trainer"
        says = f"{len(pairs):,} pairs, {steps:,} steps, {seconds} → {t.models}/dpo"
    align.write_curves(out / "curves.csv", log)
    training.replace(t.models / "dpo")
    print(f"align: {says}")


if __name__ == "__main__":
    errors.run(main)
