"""Every worked task: its folder is whole, its profiles fit, its scripted teacher composes, and no
test row is known."""

import hashlib
import importlib
import json
import subprocess
import urllib.request
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from potstill.checks import registry
from potstill.core import jsonl, lockfile, params
from potstill.task import settings
from potstill.teacher import scripted
from tests.conftest import ROOT

FOLDERS = settings.tasks()
# Their rows are made by a script when the pipeline runs, and people labelled them: no teacher
MADE = [name for name, folder in FOLDERS.items() if (folder / "data/dvc.yaml").is_file()]
PROFILES = sorted(
    p.relative_to(ROOT) for at in ("", "tasks/*/") for p in ROOT.glob(f"{at}profiles/*.yaml")
)
ASKED = 500  # seeds that the teacher is asked about; where they grow, all there are


@pytest.fixture(params=[name for name in FOLDERS if name not in MADE])
def t(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> settings.Task:
    """Each task with rows in git in turn; its folder is the working folder of the test."""
    monkeypatch.chdir(FOLDERS[request.param])
    return settings.load()


def teacher_of(t: settings.Task) -> ModuleType:
    """The package of a task's scripted teacher."""
    parts = FOLDERS[t.name].relative_to(ROOT).parts
    return importlib.import_module(".".join((*parts, "teacher")))


def seed_of(messages: list[dict[str, str]]) -> str:
    """What the teacher's server makes of a request without a seed."""
    return hashlib.sha256(json.dumps([messages, None]).encode()).hexdigest()


@cache
def replies(name: str, file: str) -> list[tuple[jsonl.Row, str]]:
    """Rows of seeds.jsonl or gold.jsonl with the scripted teacher's answers, as its server would
    give them. The task's folder is the working folder."""
    t = settings.load()
    assert t.name == name
    found = []
    for row in t.inputs(t.data / file)[:ASKED]:
        messages = t.messages("teacher", row)
        found.append((row, teacher_of(t).answer(messages, seed_of(messages))))
    return found


def test_the_root_s_task_is_the_first_and_the_template_is_none() -> None:
    first, *others = FOLDERS.values()
    assert first == ROOT
    assert {folder.parent for folder in others} == {ROOT / "tasks"}
    assert len(others) >= 5 and "_template" not in {folder.name for folder in others}


def test_the_folder_is_whole(t: settings.Task) -> None:
    folder = FOLDERS[t.name]
    assert folder == ROOT or folder.name == t.name
    registry.validate(t)
    for file in ("seeds.jsonl", "gold.jsonl"):
        jsonl.check_ids(t.data / file, t.inputs(t.data / file), t.config["input"])
    row = t.inputs(t.data / "gold.jsonl")[0]
    teacher, student = (t.messages(kind, row) for kind in ("teacher", "student"))
    assert teacher[-1] == student[-1]  # the same turn of the user
    assert len(student[0]["content"]) * 3 < len(teacher[0]["content"])
    # DVC wants a schema of plain text, too, and a folder for own rows that git keeps
    for file in ("schema.json", "dvc.yaml", "profiles/published.yaml", "data/own/README.md"):
        assert Path(file).is_file(), file
    own = [Path("data"), Path("teacher")]
    code_of_task = [path for folder in own for path in folder.rglob("*.py")]
    assert {path.parent for path in code_of_task} == set(own)
    if folder != ROOT:
        assert sorted(Path().rglob("*.py")) == sorted(code_of_task)
    code = [
        path.read_text(encoding="utf-8")
        for package in ("stages", "potstill")
        for path in (ROOT / package).rglob("*.py")
    ]
    assert len(code) > 50
    assert not any(f'"{t.name}"' in text or f"'{t.name}'" in text for text in code)


@pytest.mark.parametrize("name", MADE)
def test_a_task_whose_rows_are_made(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """git has none of the files that data/dvc.yaml makes, and nothing is asked of a teacher."""
    monkeypatch.chdir(FOLDERS[name])
    registry.validate(settings.load())
    (stage,) = lockfile.read_yaml(Path("data/dvc.yaml"))["stages"].values()
    for made in stage["outs"]:
        assert not subprocess.run(["git", "check-ignore", "-q", f"data/{made}"]).returncode
    assert all(Path("data", dep).is_file() for dep in stage["deps"])
    assert not Path("data/seeds.jsonl").stat().st_size


def merged(committed: dict[str, Any], profile: dict[str, Any]) -> dict[str, Any]:
    """The parameters with a profile's in their place; a profile may hold a part of a section."""
    sections = {name for name, rule in params.schema().items() if "properties" in rule}
    inner = {name: committed[name] | profile[name] for name in sections & set(profile)}
    return {**committed, **profile, **inner}


@pytest.mark.parametrize("path", PROFILES, ids=str)
def test_a_profile_fits_the_parameters(path: Path) -> None:
    committed = params.parse((ROOT / "params.yaml").read_text(encoding="utf-8"), params.PATH)
    profile = params.parse((ROOT / path).read_text(encoding="utf-8"), path)
    params.validate(merged(committed, profile), path)
    assert "task" not in profile


@pytest.mark.parametrize("name", FOLDERS)
def test_the_cpu_profile_is_what_is_committed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In every task's folder: its own, or the root's."""
    monkeypatch.chdir(FOLDERS[name])
    own = Path("profiles/cpu.yaml")
    path = own if own.is_file() else ROOT / own
    cpu = params.parse(path.read_text(encoding="utf-8"), params.PATH)
    committed = params.parse(params.PATH.read_text(encoding="utf-8"), params.PATH)
    assert merged(committed, cpu) == committed


def test_the_scripted_teacher_composes(t: settings.Task) -> None:
    """Nine answers in ten differ, none to a test row is one to a seed, most pass the checks and
    some do not."""
    seeds, gold = replies(t.name, "seeds.jsonl"), replies(t.name, "gold.jsonl")
    for found in (seeds, gold):
        assert len({text for _, text in found}) >= 0.9 * len(found)
    right = [
        (row, text) for row, text in seeds + gold if not registry.check(t, row, text, training=True)
    ]
    assert 0.5 < len(right) / len(seeds + gold) < 1
    learnt = {text for row, text in seeds if not registry.check(t, row, text, training=True)}
    assert not learnt & {text for _, text in gold}


def test_the_teacher_reads_the_input(t: settings.Task) -> None:
    """The same dice and another input: another answer."""
    asked = t.inputs(t.data / "gold.jsonl")[:60]
    answer = teacher_of(t).answer
    said = {answer(t.messages("teacher", row), "the same dice") for row in asked}
    assert len(said) > 0.9 * len(asked)


def test_its_server_gives_the_same_answer(t: settings.Task) -> None:
    """The server imports the package `teacher` of the working folder; the root's is of that name,
    too."""
    messages = t.messages("teacher", t.inputs(t.data / "gold.jsonl")[0])
    body = json.dumps({"messages": messages}).encode()
    with scripted.serve(Path("teacher")) as url:
        request = urllib.request.Request(
            f"{url}/chat/completions", body, {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=30) as response:
            reply = json.load(response)["choices"][0]["message"]["content"]
    assert reply == teacher_of(t).answer(messages, seed_of(messages))


def test_no_test_row_is_a_seed(t: settings.Task) -> None:
    seeds, gold = (
        {t.fingerprint(row) for row in t.inputs(t.data / f"{file}.jsonl")}
        for file in ("seeds", "gold")
    )
    assert not seeds & gold
    assert len(gold) == len(t.inputs(t.data / "gold.jsonl"))
