"""models/<task>/sft/adapter + base → models/<task>/sft/merged: one model, by `swift export --merge_lora`."""

import os
from pathlib import Path

from potstill import errors, params, task, training


def main() -> None:
    p = params.load("task", "model", "model_revision")
    t = task.load(p.task)
    adapter, merged = t.models / "sft" / "adapter", t.models / "sft" / "merged"
    if not any(adapter.glob("*.safetensors")):
        raise errors.UserError(f"{adapter} is missing, expected the trained adapter: run `dvc repro sft`")
    work = Path(os.environ.get("DVC_ROOT", "."), ".cache", "merge", t.name)
    training.merge(p.model, p.model_revision, adapter, training.part(merged), work)
    training.replace(merged)
    print(f"merge: merged {p.model} and {adapter} → {merged}")


if __name__ == "__main__":
    errors.run(main)
