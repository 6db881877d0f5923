"""The correction of a trained student: GKD (generalised knowledge distillation) by `swift rlhf`,
LoRA on the merged sft student. The student answers itself, and learns at each token of its answer
what the teacher would say there: the sft student, which is shown the kept answer, or a larger model
with the same vocabulary."""

from pathlib import Path
from types import SimpleNamespace

from potstill.core import project
from potstill.core.jsonl import Row
from potstill.training import model_folder, run, swift

INPUTS = project.DATA / "4-pairs/inputs.jsonl"  # what the student and its teacher were held by
CURVES = {"loss": "loss"}  # the columns of curves.csv, each with its name in the log


def config(p: SimpleNamespace, path: Path, student: Path) -> swift.Config:
    """ms-swift's arguments for the correction of the model in the folder `student` on the inputs of
    the file `path`. Raises UserError as run.config does, and for a teacher that is no model."""
    own = {
        "learning_rate": p.gkd.learning_rate,
        "num_train_epochs": p.gkd.num_train_epochs,
        "beta": p.gkd.beta,
        "rpo_alpha": None,
    }
    given = {**vars(p), **own, "model": str(student), "model_revision": None}
    return run.config(SimpleNamespace(**given), path) | {
        "rlhf_type": "gkd",
        **teacher(p, student),
        "lmbda": p.gkd.lmbda,
        **swift.drawing(p),
    }


def teacher(p: SimpleNamespace, student: Path) -> swift.Config:
    """ms-swift's arguments for the teacher. For the student's own folder with LoRA it loads no
    second model: it switches the adapter off."""
    if p.gkd.teacher is None:
        return {"teacher_model": str(student)}
    model_folder.at_hub(p.gkd.teacher, "gkd.teacher")
    found = swift.model_config(p.gkd.teacher, p.gkd.teacher_revision)
    names = ("model", "model_revision", "model_type")
    return {f"teacher_{name}": found[name] for name in names if name in found}


def files(p: SimpleNamespace) -> list[Path]:
    """The files of a teacher in a folder of its own, which the trained weights depend on."""
    if p.gkd.teacher is None or model_folder.at_hub(p.gkd.teacher, "gkd.teacher"):
        return []
    folder = model_folder.local(p.gkd.teacher)
    return [path for path in sorted(folder.iterdir()) if path.is_file()]


def lesson(row: Row) -> Row:
    """A row of INPUTS as ms-swift reads it: the prompt and the kept answer; `teacher_prompt` is the
    user's turn that the teacher sees in place of the student's."""
    return {name: row[name] for name in ("messages", "teacher_prompt") if name in row}
