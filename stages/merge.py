"""models/<task>/sft/adapter + base → models/<task>/sft/merged: one model, by `swift export --merge_lora`."""

import os
import shutil
from pathlib import Path

from potstill import errors, params, student, swift, task, training


def main() -> None:
    p = params.load("task", "model", "model_revision")
    t = task.load(p.task)
    adapter, merged = t.models / "sft" / "adapter", t.models / "sft" / "merged"
    if not any(adapter.glob("*.safetensors")):
        raise errors.UserError(f"{adapter} is missing, expected the trained adapter: run `dvc repro sft`")
    part = training.part(merged)
    shutil.rmtree(part, ignore_errors=True)
    if (adapter / "adapter_config.json").is_file():
        merge(
            p.model, p.model_revision, adapter, part, Path(os.environ.get("DVC_ROOT", "."), ".cache", "merge", t.name)
        )
    else:  # tuner_type: full
        shutil.copytree(adapter, part, ignore=shutil.ignore_patterns("logging.jsonl"))
    student.check_folder(part, "see the log of `swift export`")
    training.replace(merged)
    print(f"merge: merged {p.model} and {adapter} → {merged}")


def merge(model: str, revision: str, adapter: Path, out: Path, work: Path) -> None:
    """Writes the merged model to the folder `out`; `work` keeps ms-swift's log."""
    config = swift.model_config(model, revision) | {
        "adapters": [str(adapter)],
        "merge_lora": True,
        "load_args": False,
        "output_dir": str(out),
        "exist_ok": True,
    }
    if not student.on_cuda():  # where predictions are made in float32, rounding the sum to bfloat16 would lose digits
        config["torch_dtype"] = "float32"
    swift.run("export", config, work)
    for name in training.ABOUT_THE_RUN:
        (out / name).unlink(missing_ok=True)


if __name__ == "__main__":
    errors.run(main)
