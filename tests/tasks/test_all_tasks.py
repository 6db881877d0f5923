"""Every worked task of tasks/: its folder is whole, its profiles fit, its scripted teacher composes, and no test row is known."""

import hashlib
import importlib
import json
from functools import cache
from pathlib import Path

import pytest

from potstill.checks import registry
from potstill.core import jsonl, params
from potstill.task import settings
from tests.conftest import ROOT

TASKS = sorted(
    path.parent.name for path in ROOT.glob("tasks/*/task.yaml") if path.parent.name != "_template"
)
PROFILES = sorted(
    p.relative_to(ROOT) for at in ("", "tasks/*/") for p in ROOT.glob(f"{at}profiles/*.yaml")
)
ASKED = 500  # seeds that the teacher is asked about; where they grow, all there are


@pytest.fixture(autouse=True)
def at_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


@cache
def answers(name: str, file: str) -> list[tuple[jsonl.Row, str]]:
    """Rows of seeds.jsonl or gold.jsonl with the scripted teacher's answers, as its server would give them."""
    t = settings.load(name)
    answer = importlib.import_module(f"tasks.{name}.teacher").answer
    found = []
    for row in t.inputs(t.data / file)[:ASKED]:
        messages = t.messages("teacher", row)
        seed = hashlib.sha256(json.dumps([messages, None]).encode()).hexdigest()
        found.append((row, answer(messages, seed)))
    return found


@pytest.mark.parametrize("name", TASKS)
def test_the_folder_is_whole(name: str) -> None:
    t = settings.load(name)
    registry.validate(t)
    for file in ("messages", "reviews", "knowledge"):
        assert (t.data / f"{file}.jsonl").is_file()
    for file in ("seeds.jsonl", "gold.jsonl"):
        jsonl.check_ids(t.data / file, t.inputs(t.data / file), t.config["input"])
    row = t.inputs(t.data / "gold.jsonl")[0]
    teacher, student = (t.messages(kind, row) for kind in ("teacher", "student"))
    assert teacher[-1] == student[-1]  # the same turn of the user
    assert len(student[0]["content"]) * 3 < len(teacher[0]["content"])
    assert (t.dir / "profiles/published.yaml").is_file()
    assert Path(f"schemas/{name}.json").is_file()  # DVC wants one of plain text, too
    python = {path.parent.name for path in t.dir.rglob("*.py")}
    assert python <= {name, "teacher"}
    code = [
        path.read_text(encoding="utf-8")
        for folder in ("stages", "potstill")
        for path in Path(folder).rglob("*.py")
    ]
    assert not any(f'"{name}"' in text or f"'{name}'" in text for text in code)


@pytest.mark.parametrize("path", PROFILES, ids=str)
def test_a_profile_fits_the_parameters(path: Path) -> None:
    committed = params.parse(Path("params.yaml").read_text(encoding="utf-8"), Path("params.yaml"))
    profile = params.parse(path.read_text(encoding="utf-8"), path)
    params.validate({**committed, **profile}, path)
    assert "task" not in profile


@pytest.mark.parametrize("name", TASKS)
def test_the_scripted_teacher_composes(name: str) -> None:
    """Nine answers in ten differ, none to a test row is one to a seed, most pass the checks and some do not."""
    t = settings.load(name)
    seeds, gold = answers(name, "seeds.jsonl"), answers(name, "gold.jsonl")
    for found in (seeds, gold):
        assert len({text for _, text in found}) >= 0.9 * len(found)
    right = [
        (row, text) for row, text in seeds + gold if not registry.check(t, row, text, training=True)
    ]
    assert 0.5 < len(right) / len(seeds + gold) < 1
    learnt = {text for row, text in seeds if not registry.check(t, row, text, training=True)}
    assert not learnt & {text for _, text in gold}


@pytest.mark.parametrize("name", TASKS)
def test_the_teacher_reads_the_input(name: str) -> None:
    """The same dice and another input: another answer."""
    t = settings.load(name)
    answer = importlib.import_module(f"tasks.{name}.teacher").answer
    asked = t.inputs(t.data / "gold.jsonl")[:60]
    said = {answer(t.messages("teacher", row), "the same dice") for row in asked}
    assert len(said) > 0.9 * len(asked)


@pytest.mark.parametrize("name", TASKS)
def test_no_test_row_is_a_seed(name: str) -> None:
    t = settings.load(name)
    seeds, gold = (
        {t.fingerprint(row) for row in t.inputs(t.data / f"{file}.jsonl")}
        for file in ("seeds", "gold")
    )
    assert not seeds & gold
    assert len(gold) == len(t.inputs(t.data / "gold.jsonl"))
