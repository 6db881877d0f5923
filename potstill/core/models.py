"""The models that are compared, in the order of tables, charts and legends: one entry each.

Another model to compare is another entry here, and one in `predict` of dvc.yaml.
"""

from collections.abc import Container
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Model:
    """One model. `prompt` is the system prompt that it gets, prompts/<prompt>.md; `weights` is its
    folder, None for the base model of params.yaml. `few_shot`: with training rows as examples."""

    label: str  # on charts and pages
    says: str  # on the console, after its line
    light: str  # its colour on a light page
    dark: str  # its colour on a dark one
    prompt: str
    weights: Path | None = None
    few_shot: bool = False


SFT, DPO, GRPO, GKD = (Path(f"models/{name}/merged") for name in ("sft", "dpo", "grpo", "gkd"))
MODELS = {
    "base": Model("before", "before", "#9aa3ad", "#7d868f", "teacher"),
    "examples": Model(
        "before, examples", "before, with examples", "#b98a2f", "#e0b458", "teacher", few_shot=True
    ),
    "sft": Model("after", "after", "#2458a6", "#8ab4f8", "student", SFT),
    "dpo": Model("after, aligned", "after, aligned", "#7a3fa0", "#c79be8", "student", DPO),
    "grpo": Model("after, rewarded", "after, rewarded", "#2f7d5b", "#7fd1a8", "student", GRPO),
    "gkd": Model("after, corrected", "after, corrected", "#b03a6e", "#f29ac0", "student", GKD),
    "teacher": Model("teacher", "the teacher", "#c0562f", "#f08e62", "teacher"),
}
ALIGNED = ("dpo", "grpo", "gkd")  # what may come after sft, one of them
UNALIGNED = "models has no dpo, no grpo and no gkd"


def aligned(models: Container[str]) -> str | None:
    """The alignment among the `models` of params.yaml, or the models that have answers; None where
    there is none."""
    return next((name for name in ALIGNED if name in models), None)
