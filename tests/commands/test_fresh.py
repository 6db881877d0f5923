"""The example of `make new-task` gives way to rows of one's own, and to nothing else."""

import json
import shutil
from pathlib import Path

import pytest

from potstill.commands import fresh, import_rows, new_task, profile, quote
from potstill.core import jsonl, params
from potstill.core import project as core_project
from potstill.task import settings
from stages import expand, filter, generate, pairs, split
from tests.conftest import ROOT, Project

ALL = ["task.yaml", "prompts/teacher.md", "prompts/student.md", "schema.json"]
ALL += ["data/seeds.jsonl", "data/gold.jsonl", "teacher/__init__.py"]


@pytest.fixture
def made(project: Project, monkeypatch: pytest.MonkeyPatch) -> settings.Task:
    """The task `cities`, just made: the working folder is its own."""
    monkeypatch.setattr(core_project, "ROOT", project.dir)
    shutil.copytree(ROOT / "tasks/_template", "tasks/_template")
    for name in ("models", "profiles", "schemas"):
        shutil.copytree(ROOT / name, name)
    monkeypatch.chdir(new_task.scaffold("cities"))
    return settings.load()


@pytest.mark.parametrize(
    ("answers", "prompt", "checks", "properties"),
    [
        (["Dunmore", "Eastwick"] * 5, "Answer with one of: Dunmore, Eastwick.", 1, None),
        ([f"city {i}" for i in range(40)], "Answer.", 1, None),
        (['{"a": 1}', "no JSON"], "Answer.", 1, None),
        (
            ['{"city": "x", "zip": 1}', '{"city": null, "zip": 1.5}', '{"city": "y"}'],
            "Answer with a JSON object: city, zip.",
            2,
            {"city": {"type": ["null", "string"]}, "zip": {"type": "number"}},
        ),
    ],
)
def test_a_task_that_fits_the_answers(
    made: settings.Task,
    answers: list[str],
    prompt: str,
    checks: int,
    properties: dict[str, object] | None,
) -> None:
    assert fresh.settle(made, answers) == ALL
    t = settings.load()
    assert t.name == "cities" and len(t.config["checks"]) == checks
    assert Path("prompts/student.md").read_text() == prompt + "\n"
    assert t.schema.get("properties") == properties
    assert not Path("teacher/__init__.py").exists() and Path("teacher/README.md").exists()
    assert fresh.settle(t, answers) == []  # a second file changes nothing


def test_what_somebody_wrote_stays(made: settings.Task) -> None:
    kept = {"prompts/student.md": "mine\n", "data/gold.jsonl": '{"text": "a", "gold": "b"}\n'}
    for name, text in kept.items():
        Path(name).write_text(text)
    assert fresh.settle(made, ["x"]) == [name for name in ALL if name not in kept]
    assert {name: Path(name).read_text() for name in kept} == kept


def test_inputs_alone_replace_the_seeds_alone(made: settings.Task) -> None:
    before = Path("data/gold.jsonl").read_bytes()
    assert fresh.settle(made, []) == ["data/seeds.jsonl"]
    assert Path("data/seeds.jsonl").read_bytes() == b""
    assert Path("data/gold.jsonl").read_bytes() == before


def test_the_data_stages_need_no_teacher(made: settings.Task) -> None:
    """Nothing is asked, and the rows reach the sides with their own labels."""
    fresh.settle(made, ["Dunmore"] * 5)
    t = settings.load()
    rows = []
    for i in range(60):
        turn = {"role": "user", "content": f"{jsonl.row_id({'line': i})} Dunmore"}
        answer = {"role": "assistant", "content": "Dunmore"}
        rows.append({"messages": [*t.messages("student", {"text": ""})[:1], turn, answer]})
    jsonl.write_jsonl("data/own/messages.jsonl", rows)
    for stage in (expand, generate, filter, split, pairs):
        stage.main()
    p = params.load("near_duplicate", "expand", "generate", "teacher")
    assert quote.quote(t, p).endswith(
        "60 rows of your own and no inputs for a teacher: 0 requests, cost 0"
    )
    report = json.loads(Path("data/4-split.json").read_text())
    assert report["train"] + report["valid"] + report["held out"] == 60
    assert {row["expected"] for row in jsonl.read_jsonl("data/4-test.jsonl")} == {"Dunmore"}


SEEDS = ROOT / "tasks/_template/data/seeds.jsonl"
TICKETS = (ROOT / "docs/tickets.csv").read_text()
JAPANESE = "設定画面を開くとアプリがクラッシュします。"


@pytest.mark.parametrize(
    ("texts", "share", "foreign"),
    [
        (TICKETS.splitlines()[1:], 0.6, False),
        ([row["text"] for row in jsonl.read_jsonl(SEEDS)], 0.0, True),
        (["app 崩溃", "打开设置页面时应用程序会崩溃"], 0.0, True),
        ([JAPANESE], 0.8, True),
        (["12.50", ""], 0.0, False),
    ],
)
def test_what_the_tiny_base_can_read(texts: list[str], share: float, foreign: bool) -> None:
    found, none_of_ascii = fresh.pieces(texts)
    assert found == pytest.approx(share, abs=0.06)
    assert none_of_ascii is foreign


def test_the_tiny_base_gives_way_to_a_model_that_reads_the_rows_and_stays_where_it_is_chosen(
    made: settings.Task, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = params.PATH.read_text()
    assert fresh.fit("cities", [row["text"] for row in made.seeds()]) == []
    [says] = fresh.fit("cities", [JAPANESE])
    assert says.endswith("set model of params.yaml to one that knows their language")
    assert params.PATH.read_text() == before
    monkeypatch.setattr("sys.argv", ["import", "rows.csv", "--MAP=text=ticket,output=label"])
    for rows, model in (
        (TICKETS.splitlines()[:41], "smollm2-135m"),
        (TICKETS.splitlines()[:1] + TICKETS.splitlines()[41:], "models/tiny-base"),
    ):
        Path("rows.csv").write_text("\n".join(rows))
        import_rows.main()
        assert params.student() == (model, "main")
        path = Path("../../profiles/cpu.yaml")
        profile.apply(params.parse(path.read_text(), path), path)  # the user's choice
        assert params.PATH.read_text() == before
    out = capsys.readouterr().out
    assert out.count("models/tiny-base cannot read these rows: it leaves 6") == 1
    assert 'import: model: "models/tiny-base" → "smollm2-135m"' in out
    assert "`make profile NAME=cpu TASK=cities` takes the old one back" in out
