"""What a student and its teacher answer to the same inputs, before the student learns."""

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from potstill.core.errors import UserError
from potstill.core.jsonl import Row
from potstill.dataset import gap
from potstill.dataset.gap import Pair
from potstill.inference import engine, sharded
from potstill.task.settings import Task
from potstill.training import model_folder


def answers(t: Task, p: SimpleNamespace, pairs: list[Pair], student: Path) -> list[Row]:
    """The greedy answers of the model in the folder `student` and of its teacher to the inputs of
    `pairs`, the rows of 4-samples/gap.jsonl. `p` has the section predict, and of gkd the teacher.
    Raises UserError as `check_vocabulary`, `gap.shown` and `engine.predict` do."""
    ids = [lesson["id"] for lesson, _ in pairs]
    chats = [lesson["messages"][:-1] for lesson, _ in pairs]
    if model := p.gkd.teacher:
        revision = p.gkd.teacher_revision
        check_vocabulary(student, model, revision)
        # In a process of its own, and first: an engine keeps its GPU until its process ends
        how: dict[str, Any] = {"stop_loops": True, "apart": True}
        [taught] = sharded.predict(
            "sample/teacher", [ids], model, [chats], p.predict, revision, **how
        )
        [own] = sharded.predict("sample", [ids], str(student), [chats], p.predict)
    else:
        turns = [{"role": "user", "content": gap.shown(t, pair)} for pair in pairs]
        shown = [[*chat[:-1], turn] for chat, turn in zip(chats, turns, strict=True)]
        both = [chats, shown]
        own, taught = sharded.predict("sample", [ids, ids], str(student), both, p.predict)
    keys = ("answer", "finish_reason")
    return [
        {"id": id, "student": {k: a[k] for k in keys}, "teacher": {k: b[k] for k in keys}}
        for id, a, b in zip(ids, own, taught, strict=True)
    ]


def check_vocabulary(student: Path, teacher: str, revision: str) -> None:
    """Raises UserError unless the model `teacher` of params.yaml has the tokens of the `student`,
    with the same numbers: a student learns what its teacher would say token by token."""
    theirs, own = vocabulary(teacher, revision), vocabulary(str(student), "")
    if theirs != own:
        shared = len(theirs.items() & own.items())
        raise UserError(
            f"params.yaml: gkd.teacher {teacher} has {len(theirs):,} tokens, {shared:,} of them "
            f"those of the student, expected the {len(own):,} tokens of {student} and no others: "
            "name a larger model of the same family, or null"
        )


def vocabulary(model: str, revision: str) -> dict[str, int]:
    """The number of each token of a model in a folder or on the hub. Raises UserError when there is
    no such model, or no tokenizer."""
    hub = model_folder.at_hub(model, "gkd.teacher")
    os.environ.update({**engine.QUIET, **os.environ})
    from transformers import AutoTokenizer

    name = model if hub else str(model_folder.local(model))
    more = {"revision": revision} if hub else {"local_files_only": True}
    try:
        loaded = AutoTokenizer.from_pretrained(name, trust_remote_code=False, **more)
    except (OSError, ValueError) as error:
        why = str(error).strip().partition("\n")[0]
        raise UserError(f"params.yaml: the tokenizer of gkd.teacher {name}: {why}") from None
    return dict(loaded.get_vocab())
