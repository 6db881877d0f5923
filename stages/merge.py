"""models/sft/adapter + base → models/sft/merged: one model, by `swift export --merge_lora`."""

from potstill.core import errors, params, project, stage
from potstill.core.project import MODELS
from potstill.training import run


def main() -> None:
    p = params.load("model", "model_revision")
    adapter, merged = MODELS / "sft" / "adapter", MODELS / "sft" / "merged"
    if not any(adapter.glob("*.safetensors")):
        raise errors.UserError(
            f"{adapter} is missing, expected the trained adapter: run `dvc repro sft`"
        )
    work = project.cache() / "merge" / params.task_name()
    run.merge(p.model, p.model_revision, adapter, run.part(merged), work)
    run.replace(merged)
    print(f"merge: merged {p.model} and {adapter} → {merged}")


if __name__ == "__main__":
    stage.run(main)
