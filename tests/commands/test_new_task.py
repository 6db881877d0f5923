"""`make new-task`: a task of one's own runs at once, and nothing that is there is touched.
test_tutorial runs it for real. `make pipelines`: every task's dvc.yaml is the root's."""

import errno
import json
import re
import shutil
import sys
from pathlib import Path

import pytest
from aiohttp import web

from potstill.checks import registry
from potstill.commands import new_task, pipelines
from potstill.core import errors, jsonl, params
from potstill.core import project as core_project
from potstill.core import stage as frame
from potstill.task import settings
from stages import expand, filter, generate, split
from tasks._template.teacher import FLAWS, answer
from tests.conftest import ROOT, Body, FakeTeacher, Project, completion


@pytest.fixture
def repository(project: Project, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository whose root's task is `toy`: the working folder, with the template."""
    monkeypatch.setattr(core_project, "ROOT", project.dir)
    shutil.copy(ROOT / "dvc.yaml", project.dir)
    shutil.copytree(ROOT / "tasks/_template", "tasks/_template")
    return project.dir


@pytest.fixture
def made(repository: Path, project: Project, monkeypatch: pytest.MonkeyPatch) -> settings.Task:
    """The task `invoice`, just made: the working folder is its own, and the project's is that."""
    project.dir = repository / new_task.scaffold("invoice")
    monkeypatch.chdir(project.dir)
    return settings.load()


def files(folder: Path) -> list[str]:
    """The paths of all files in a folder but for Python's caches."""
    paths = (path for path in folder.rglob("*") if path.is_file() and path.suffix != ".pyc")
    return sorted(str(path.relative_to(folder)) for path in paths)


def test_a_task_is_made_whole(
    repository: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    project_before = files(repository)
    monkeypatch.setattr(sys, "argv", ["new_task", "invoice-2"])
    new_task.main()
    out = capsys.readouterr().out.splitlines()
    assert [line.split("#")[0].strip() for line in out[1:]] == [
        "make repro TASK=invoice-2",
        "make import FILE=rows.csv TASK=invoice-2",
        "make quote TASK=invoice-2",
        "git add tasks/invoice-2",
    ]
    assert len({line.index("#") for line in out[1:]}) == 1
    folder = repository / "tasks/invoice-2"
    assert files(folder) == [
        "data/gold.jsonl",
        "data/own/README.md",
        "data/seeds.jsonl",
        "dvc.yaml",
        "params.yaml",
        "prompts/student.md",
        "prompts/teacher.md",
        "schema.json",
        "task.yaml",
        "teacher/README.md",
        "teacher/__init__.py",
    ]
    others = [name for name in files(repository) if not name.startswith("tasks/invoice-2/")]
    assert others == project_before
    assert (folder / "params.yaml").read_bytes() == (ROOT / "params.yaml").read_bytes()
    template = [name for name in files(folder) if name not in ("dvc.yaml", "params.yaml")]
    assert not [name for name in template if "NAME" in (folder / name).read_text()]
    assert settings.tasks() == {"toy": repository, "invoice-2": folder}  # the template is none
    monkeypatch.chdir(folder)
    assert settings.load().name == "invoice-2"
    params.load("seed")


def test_a_pipeline_is_the_root_s_but_for_the_way_there(
    repository: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = repository / new_task.scaffold("invoice") / "dvc.yaml"
    pairs = zip((ROOT / "dvc.yaml").open(), path.open(), strict=True)
    assert [(old, new) for old, new in pairs if old != new] == [
        ("vars: [{root: .}]\n", "vars: [{root: ../..}]\n")
    ]
    before, root = path.read_text(), Path("dvc.yaml").read_text()
    path.write_text("stages: {}\n")
    pipelines.main()
    assert (path.read_text(), Path("dvc.yaml").read_text()) == (before, root)
    assert capsys.readouterr().out == "invoice: dvc.yaml is the root's\n"


@pytest.mark.parametrize("path", sorted(ROOT.glob("tasks/*/dvc.yaml")), ids=str)
def test_the_pipelines_there_are_are_the_root_s(path: Path) -> None:
    """`make pipelines` writes them anew after an edit of the root's."""
    root = (ROOT / "dvc.yaml").read_text()
    assert path.read_text() == root.replace("vars: [{root: .}]", "vars: [{root: ../..}]")


@pytest.mark.parametrize(
    "name", ["", "Invoice", "in voice", "../invoice", "-x", "_template", "发票", "a/b", "a\n"]
)
def test_a_bad_name_is_one_sentence_and_makes_nothing(repository: Path, name: str) -> None:
    before = set(repository.rglob("*"))
    expected = f"NAME is {name!r}, expected small letters"
    with pytest.raises(errors.UserError, match=f"^{re.escape(expected)}"):
        new_task.scaffold(name)
    assert set(repository.rglob("*")) == before


@pytest.mark.parametrize("name", ["toy", "folder", "other", "old"])
def test_what_is_there_is_not_touched(repository: Path, project: Project, name: str) -> None:
    """The root's task, a folder's name, a name in task.yaml, and what is left of a task."""
    project.write("tasks/folder/task.yaml", "name: other\n")
    project.write("tasks/old/reports/cost.json", "{}")
    before = set(repository.rglob("*"))
    expected = f"NAME is '{name}', but a task of that name is there already: choose another"
    with pytest.raises(errors.UserError, match=f"^{expected}$"):
        new_task.scaffold(name)
    assert set(repository.rglob("*")) == before


def test_a_copy_that_was_stopped_is_made_again(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = set(repository.rglob("*"))

    def no_space(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    for owner, name in ((new_task, "copy_pipeline"), (Path, "write_text"), (shutil, "copy")):
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, no_space)
            patch.setattr(sys, "argv", ["new_task", "invoice"])
            with pytest.raises(SystemExit, match="^error: no space left on device: free some and"):
                frame.run(new_task.main)
        assert set(repository.rglob("*")) == before
    assert (new_task.scaffold("invoice") / "dvc.yaml").is_file()


def test_the_example_goes_through_the_data_stages(project: Project, made: settings.Task) -> None:
    """Offline, with the scripted teacher's own server; what it spoils is dropped, and what is kept
    is right."""
    for stage in (expand, generate, filter, split):
        code, out = project.run(
            stage.__name__, TEACHER_BASE_URL="http://127.0.0.1:9/v1", TEACHER_API_KEY="unused"
        )
        assert code == 0, out
    seeds, gold = (jsonl.read_jsonl(made.data / f"{name}.jsonl") for name in ("seeds", "gold"))
    kept, dropped = (
        jsonl.read_jsonl(made.data / f"3-{name}.jsonl") for name in ("kept", "dropped")
    )
    assert (len(seeds), len(gold), len(kept) + len(dropped)) == (300, 60, 300)
    assert {row["reason"].split(":")[0] for row in dropped} == {"json", "json_schema", "grounded"}
    assert len(dropped) <= 2 * sum(FLAWS.values()) * len(seeds)
    assert len(jsonl.read_jsonl(made.data / "4-test.jsonl")) == len(gold)
    assert len({json.dumps(row["output"], ensure_ascii=False) for row in kept}) > 0.9 * len(kept)
    assert not {row["text"] for row in seeds} & {row["text"] for row in gold}


def test_the_labels_of_gold_are_what_the_prompt_asks_for(
    project: Project, made: settings.Task
) -> None:
    """gold.jsonl was made from records, the teacher reads the lines; where it is not spoilt, the
    two agree."""
    for row in jsonl.read_jsonl(made.data / "gold.jsonl"):
        test = {**row, "expected": row["gold"]}
        assert registry.check(made, test, json.dumps(row["gold"], ensure_ascii=False)) == []
        replies = [answer(made.messages("teacher", row), str(seed)) for seed in range(9)]
        assert any(registry.check(made, test, reply) == [] for reply in replies), row
    asked = made.messages("teacher", {"text": "没有商家的一行"})
    assert json.loads(answer(asked, "0")) == {"company": "", "date": "", "amount": ""}


async def bill(n: int, body: Body, request: web.Request) -> web.StreamResponse:
    """The example's own rules behind the fake endpoint."""
    return web.json_response(completion(answer(body["messages"], str(n))))


@pytest.mark.parametrize("left", ["README.md", None])
def test_a_task_for_a_real_teacher_needs_no_code(
    project: Project, made: settings.Task, fake: FakeTeacher, left: str | None
) -> None:
    """The folder is there for DVC alone (test_dvc); the stages themselves do not look."""
    shutil.rmtree("teacher")
    if left:
        project.write(f"teacher/{left}", "none")
    assert not list(Path().rglob("*.py"))
    jsonl.write_jsonl(made.data / "seeds.jsonl", jsonl.read_jsonl(made.data / "seeds.jsonl")[:40])
    project.set(teacher_model="fake-235b")
    fake.behave = bill
    for stage in (expand, generate, filter):
        stage.main()
    assert len(fake.calls) == 40
    assert all(
        call["response_format"]["json_schema"]["schema"] == made.schema for call in fake.calls
    )
    assert len(jsonl.read_jsonl(made.data / "3-kept.jsonl")) >= 30
    project.set(teacher_model="scripted")
    with pytest.raises(
        errors.UserError, match=r"teacher/__init__.py is missing: .*; name another teacher.model"
    ):
        generate.main()
