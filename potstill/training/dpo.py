"""The alignment of a trained student: DPO by `swift rlhf`, LoRA on the merged sft student, which is
the reference model, too."""

from pathlib import Path
from types import SimpleNamespace

from potstill.core import project
from potstill.core.jsonl import Row
from potstill.training import run, swift

PAIRS = project.DATA / "4-pairs/pairs.jsonl"  # what it learns from
# The columns of curves.csv, each with its name in the log
CURVES = {"loss": "loss", "margin": "rewards/margins", "accuracy": "rewards/accuracies"}


def config(p: SimpleNamespace, pairs: Path, student: Path) -> swift.Config:
    """ms-swift's arguments for the alignment of the model in the folder `student` on the preference
    rows of the file `pairs`. Raises UserError as run.config does."""
    own = {"learning_rate": p.dpo_learning_rate, "num_train_epochs": p.dpo_num_train_epochs}
    given = {**vars(p), **own, "model": str(student), "model_revision": None}
    return run.config(SimpleNamespace(**given), pairs) | {"rlhf_type": "dpo"}


def lesson(row: Row) -> Row:
    """A preference row as ms-swift reads it."""
    messages = [*row["prompt"], {"role": "assistant", "content": row["chosen"]}]
    return {"messages": messages, "rejected_response": row["rejected"]}
