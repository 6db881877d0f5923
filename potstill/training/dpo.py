"""The alignment of a trained student: DPO by `swift rlhf`, LoRA on the merged sft model, which is the reference, too."""

from pathlib import Path
from types import SimpleNamespace

from potstill.core.jsonl import Row, write_text
from potstill.training import run, swift

PARAMS = ("beta", "rpo_alpha", "dpo_learning_rate", "dpo_num_train_epochs")
OURS = ("models", "dpo_learning_rate", "dpo_num_train_epochs")
CURVES = {
    "loss": "loss",
    "margin": "rewards/margins",
    "accuracy": "rewards/accuracies",
}  # of curves.csv, in the log


def config(p: SimpleNamespace, pairs: Path, student: Path) -> swift.Config:
    """ms-swift's arguments for an alignment of the model in the folder `student` on preference rows. Raises UserError."""
    given = {
        name: value for name, value in vars(p).items() if name not in OURS and value is not None
    }
    given |= {"learning_rate": p.dpo_learning_rate, "num_train_epochs": p.dpo_num_train_epochs}
    given |= {"model": str(student), "model_revision": None, "quant_bits": p.quant_bits}
    return run.config(SimpleNamespace(**given), pairs) | {"rlhf_type": "dpo"}


def lesson(row: Row) -> Row:
    """A preference row as ms-swift reads it."""
    messages = [*row["prompt"], {"role": "assistant", "content": row["chosen"]}]
    return {"messages": messages, "rejected_response": row["rejected"]}


def write_curves(path: Path, log: list[Row]) -> None:
    """The table step, loss, margin, accuracy of an alignment's log; its head alone where there is none."""
    lines = [
        ",".join([str(row["step"]), *(f"{row[name]:.6g}" for name in CURVES.values())])
        for row in log
        if "loss" in row
    ]
    write_text(path, "\n".join([",".join(["step", *CURVES]), *lines]) + "\n")
