"""What dvc.lock says that a stage read is what it read."""

import json
import os
import re
import time
from collections.abc import Iterable
from pathlib import Path

import pytest

from potstill.core import params, record
from potstill.core.errors import UserError
from tests.conftest import ROOT, Project

PIPELINE = """
vars: [{root: .}]
stages:
  sft:
    cmd: python -m stages.sft
    deps: ["${root}/code", data/rows.jsonl, large]
    params: [lora_rank, predict.dtype, {task.yaml: [epochs]}]
  predict:
    foreach: {sft: {weights: models/sft, reads: [models, seed]}}
    do: {cmd: x, deps: ["${item.weights}"], params: ["${item.reads[1]}"]}
"""


@pytest.fixture
def before(project: Project, monkeypatch: pytest.MonkeyPatch) -> record.Read:
    project.write("dvc.yaml", PIPELINE)
    project.write("code/a.py", "a = 1\n")
    project.write("data/rows.jsonl", "{}\n")
    project.write("large", "x" * 100)
    project.write("task.yaml", "epochs: 3\n")
    monkeypatch.setattr(record, "HASHED", 99)
    return record.read("sft")


def changed(before: record.Read, start: float = 0.0, other: Iterable[str] = ()) -> str:
    """What verify says, or nothing. A program that began to load long ago saw no late edit."""
    try:
        record.verify("sft", before, start or time.time(), other)
    except UserError as error:
        return str(error)
    return ""


def test_variables_and_items_are_filled_in(project: Project) -> None:
    project.write("dvc.yaml", PIPELINE)
    assert record.spec("sft")["deps"] == ["./code", "data/rows.jsonl", "large"]
    assert record.spec("predict@sft") == {"cmd": "x", "deps": ["models/sft"], "params": ["seed"]}
    assert record.spec("none") == record.spec("") == {}


def test_every_stage_of_the_pipeline_is_understood(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    stages = params.parse(Path("dvc.yaml").read_text(), Path("dvc.yaml"))["stages"]
    names = [f"{name}@{key}" for name, one in stages.items() for key in one.get("foreach", {"": 0})]
    assert len(names) > 15
    for name in names:
        found = record.spec(name.removesuffix("@"))
        assert found["deps"]
        assert "${" not in str(found)


@pytest.mark.parametrize(
    ("path", "text", "says"),
    [
        ("code/a.py", "a = 2\n", "code/a.py has changed since sft began"),
        ("code/new.py", "", "code/new.py has changed since sft began"),
        ("data/rows.jsonl", None, "data/rows.jsonl has changed since sft began"),
        ("large", "y" * 100, "large has changed since sft began"),
        ("task.yaml", "epochs: 4\n", "task.yaml: epochs is 4, and was 3 when sft began"),
    ],
)
def test_an_edited_input_is_named(
    before: record.Read, path: str, text: str | None, says: str
) -> None:
    if text is None:
        Path(path).unlink()
    else:
        Path(path).write_text(text)
    assert changed(before).startswith(f"{says}: the result is not recorded")


def test_an_edited_parameter_is_named_and_one_that_is_not_read_is_not(
    project: Project, before: record.Read
) -> None:
    project.set(learning_rate=0.5, predict_max_tokens=7, gate_min_accuracy=0.5)
    assert changed(before) == ""
    project.set(lora_rank=16, predict_dtype="bfloat16")
    said = changed(before)
    assert re.match(r"params\.yaml: lora_rank is 16, and was \d+ when sft began, and 1 more:", said)


def test_what_is_written_again_as_it_was_is_no_edit(before: record.Read) -> None:
    Path("data/rows.jsonl").write_text("{}\n")
    Path("code/__pycache__").mkdir()
    Path("code/__pycache__/a.pyc").write_text("x")
    assert changed(before) == ""


def test_an_edit_while_the_program_was_loading_is_an_edit(before: record.Read) -> None:
    assert changed(before, start=time.time() - 60).startswith(
        "code/a.py has changed since sft began"
    )


def test_an_edit_by_renaming_an_older_file_is_an_edit_too(before: record.Read) -> None:
    """`mv` keeps the time at which the content was changed."""
    began = time.time() - 1
    old = Path("code/a.py")
    os.utime(old, (1, 1))
    old.rename("code/b.py")
    Path("code/b.py").rename(old)
    assert changed(record.read("sft"), start=began).startswith("code/a.py has changed since sft")


@pytest.mark.parametrize(
    ("path", "edited", "said"),
    [
        ("data/rows.jsonl", "[]\n", "data/rows.jsonl was edited and changed back since sft began"),
        ("data/rows.jsonl", "{}\n", ""),  # written again as it was
        ("params.yaml", "lora_rank: 16", "params.yaml was edited and changed back since sft began"),
        ("params.yaml", "seed: 7", ""),  # which it does not read
    ],
)
def test_what_is_read_while_it_is_edited_is_named(
    before: record.Read, path: str, edited: str, said: str
) -> None:
    other = record.watch("sft", before)
    text = Path(path).read_text()
    name = edited.partition(":")[0]
    after = re.sub(f"^{name}:.*", edited, text, flags=re.M) if path == "params.yaml" else edited
    Path(path).write_text(after)
    Path(path).read_text()
    Path(path).write_text(text)
    assert changed(before, other=other).startswith(said)
    assert bool(other) == bool(said)


def test_a_stage_notes_what_it_saw(before: record.Read) -> None:
    assert changed(before) == ""
    note = json.loads(record.note_of("sft").read_text())
    assert note["files"].keys() == {"code/a.py", "data/rows.jsonl", "large"}
    assert note["files"]["large"] == ""
    assert ["params.yaml", "lora_rank", 32] in note["values"]
