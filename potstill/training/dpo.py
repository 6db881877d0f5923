"""The alignment of a trained student: DPO by `swift rlhf`, LoRA on the merged sft student, which is
the reference model, too."""

from pathlib import Path
from types import SimpleNamespace

from potstill.core.jsonl import Row, write_text
from potstill.training import run, swift

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


def write_curves(path: Path, log: list[Row]) -> None:
    """Writes the losses of an alignment's log as a CSV table (step, loss, margin, accuracy); for an
    empty log its head alone."""
    points = (row for row in log if "loss" in row)
    lines = [[row["step"], *(f"{row[name]:.6g}" for name in CURVES.values())] for row in points]
    write_text(path, "".join("{},{},{},{}\n".format(*line) for line in [["step", *CURVES], *lines]))
