"""potstill.new_task: a task of one's own runs at once, and nothing that is there is touched. test_tutorial runs it for real."""

import json
import re
import shutil
import sys
from pathlib import Path

import pytest
from aiohttp import web
from tasks._template.task.teacher import FLAWS, answer

from potstill.checks import registry
from potstill.commands import new_task
from potstill.core import errors, jsonl
from potstill.task import settings
from stages import expand, filter, generate, split
from tests.conftest import ROOT, Body, FakeTeacher, Project, completion


@pytest.fixture
def made(project: Project) -> settings.Task:
    """The task `invoice`, just made, which is the active one."""
    shutil.copytree(ROOT / new_task.TEMPLATE, new_task.TEMPLATE)
    new_task.scaffold("invoice")
    project.set(task="invoice")
    return settings.load("invoice")


def test_a_task_is_made_whole(
    project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(ROOT / new_task.TEMPLATE, new_task.TEMPLATE)
    monkeypatch.setattr(sys, "argv", ["new_task", "invoice-2"])
    new_task.main()
    out = capsys.readouterr().out.splitlines()
    assert [line.split("#")[0].strip() for line in out[1:]] == [
        "make repro TASK=invoice-2",
        "make import FILE=inputs.json TASK=invoice-2",
        "make quote",
    ]
    files = sorted(
        str(path)
        for path in Path().rglob("*")
        if "invoice-2" in path.parts or path.stem == "invoice-2"
    )
    assert [path for path in files if Path(path).is_file() and "__pycache__" not in path] == [
        "data/invoice-2/gold.jsonl",
        "data/invoice-2/knowledge.jsonl",
        "data/invoice-2/messages.jsonl",
        "data/invoice-2/reviews.jsonl",
        "data/invoice-2/seeds.jsonl",
        "schemas/invoice-2.json",
        "tasks/invoice-2/prompts/student.md",
        "tasks/invoice-2/prompts/teacher.md",
        "tasks/invoice-2/task.yaml",
        "tasks/invoice-2/teacher/README.md",
        "tasks/invoice-2/teacher/__init__.py",
    ]
    assert "data/invoice-2/seeds.jsonl" in Path("tasks/invoice-2/task.yaml").read_text()
    assert not [path for path in files if Path(path).is_file() and "NAME" in Path(path).read_text()]
    with pytest.raises(
        errors.UserError, match="tasks there are: invoice-2, toy$"
    ):  # the template is none
        settings.load("nosuch")


@pytest.mark.parametrize(
    "name", ["", "Invoice", "in voice", "../invoice", "-x", "_template", "发票", "a/b", "a\n"]
)
def test_a_bad_name_is_one_sentence_and_makes_nothing(project: Project, name: str) -> None:
    shutil.copytree(ROOT / new_task.TEMPLATE, new_task.TEMPLATE)
    before = set(project.dir.rglob("*"))
    with pytest.raises(
        errors.UserError, match=rf"^NAME is {re.escape(repr(name))}, expected small letters"
    ):
        new_task.scaffold(name)
    assert set(project.dir.rglob("*")) == before


@pytest.mark.parametrize(
    ("name", "there"),
    [
        ("toy", "data"),
        ("params", "schemas/params.json"),  # the schema of something else
        ("tiny-base", "models/tiny-base"),  # the offline student
        ("old", "reports/old"),  # what is left of a task
    ],
)
def test_what_is_there_is_not_touched(project: Project, name: str, there: str) -> None:
    shutil.copytree(ROOT / new_task.TEMPLATE, new_task.TEMPLATE)
    for folder in ("models/tiny-base", "reports/old"):
        Path(folder).mkdir(parents=True)
    before = set(project.dir.rglob("*"))
    with pytest.raises(
        errors.UserError, match=f"^{there} is there already: choose another NAME, or move it away"
    ):
        new_task.scaffold(name)
    assert set(project.dir.rglob("*")) == before


def test_the_example_goes_through_the_data_stages(project: Project, made: settings.Task) -> None:
    """Offline, with the scripted teacher's own server; what it spoils is dropped, and what is kept is right."""
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
    """gold.jsonl was made from records, the teacher reads the lines; where it is not spoilt, the two agree."""
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
    shutil.rmtree(made.dir / "teacher")
    if left:
        project.write(f"tasks/invoice/teacher/{left}", "none")
    assert not list(made.dir.rglob("*.py"))
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
        errors.UserError, match=r"teacher/__init__.py is missing: .*; name another teacher_model"
    ):
        generate.main()
