"""`make doctor` and the preflight of the stages that pay: all findings at once, each with its place
and what to do, and nothing is asked where one is fatal."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from potstill.commands import doctor, experiments
from potstill.core import jsonl, weights
from potstill.core import project as core_project
from potstill.core.errors import UserError
from potstill.dataset import lengths
from tests.conftest import KEY, ROOT, FakeTeacher, Project

CASES = [
    ({"text": f"Order {1000 + 7 * i}: the driver left the parcel at the neighbour's door, please "
      f"tell us in one kind sentence that we will collect it on day {i}."})
    for i in range(1, 61)
]  # fmt: skip


def said(paid: bool = True) -> tuple[list[str], list[str]]:
    """The fatal findings and the notes."""
    found = list(doctor.findings(paid))
    return [one.text for one in found if one.fatal], [one.text for one in found if not one.fatal]


def test_nothing_stands_in_the_way(
    project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    project.seeds(3, alike=False)
    monkeypatch.setattr("sys.argv", ["doctor"])
    doctor.main()
    assert "doctor: nothing stands in the way (" in capsys.readouterr().out


def test_every_mistake_is_said_at_once(project: Project) -> None:
    """In seeds, gold rows, own rows, reviews, the schema, a prompt, lengths, and the model."""
    jsonl.write_jsonl(
        "data/seeds.jsonl",
        [{"text": "one fine row"}, {"text": ""}, {"id": "0" * 16, "text": "x y"}, {"txt": "z"}],
    )
    project.write("data/gold.jsonl", '{"text": "a b"}\n{"text": "c d", "gold": 1, "slice": ""}\n')
    project.write("data/own/messages.jsonl", '{"messages": []}\n{"messages": 7}\n')
    project.write("data/own/reviews.jsonl", '{"id": 7}\n')
    project.write("prompts/teacher.md", "{% for x in %}")
    project.set(predict_max_model_len=9999, lora_rank=8)
    fatal, _ = said()
    for expected in (
        r"data/seeds.jsonl:2: text is \"\", expected a text",
        "data/seeds.jsonl:3: id is 0000000000000000, but the id of this input is",
        "data/seeds.jsonl:4: key 'text' is missing",
        "data/gold.jsonl:1: key 'gold' is missing",
        'data/gold.jsonl:2: slice is "", expected a text',
        "data/own/messages.jsonl:1: ",
        "data/own/messages.jsonl:2: ",
        "data/own/reviews.jsonl:1: ",
        "predict.max_model_len is 9999, but models/tiny-base reads at most",
    ):
        assert [text for text in fatal if re.search(expected, text)], (expected, fatal)
    project.seeds(2, alike=False)
    assert [text for text in said()[0] if "prompts/teacher.md:1: not a Jinja2 template" in text]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"schema.json": '{"type": 7}'}, r"schema.json: .* expected a JSON schema"),
        ({"task.yaml": "checks: [jsn]"}, "unknown check 'jsn'"),
        ({"prompts/student.md": "{{ nothing }}"}, "data/seeds.jsonl:1: prompts/student.md: cannot"),
        ({"data/seeds.jsonl": ""}, "have no rows: give inputs for the teacher or rows of your own"),
        (
            {"data/seeds.jsonl": json.dumps({"text": "word " * 1500})},
            r"data/seeds.jsonl:1: its prompt \(prompts/student.md\) has [\d,]+ tokens of "
            r"models/tiny-base, expected fewer than max_length 1,024 of params.yaml",
        ),
        (
            {"prompts/teacher.md": "语" * 3000},
            r"its prompt \(prompts/teacher.md\) has [\d,]+ tokens .* predict.max_model_len 2,048",
        ),
        ({"teacher/__init__.py": None}, "teacher/__init__.py is missing"),
    ],
)
def test_a_fatal_finding(project: Project, change: dict[str, str | None], expected: str) -> None:
    project.seeds(2, alike=False)
    for path, text in change.items():
        project.write(path, text or "")
        if text is None:
            Path(path).unlink()
    fatal, _ = said()
    assert len(fatal) >= 1 and re.search(expected, "\n".join(fatal)), fatal


def test_a_model_that_does_not_fit_is_said(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.seeds(2, alike=False)
    monkeypatch.setattr(doctor, "memory", lambda cuda: 2 << 30)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(9, 8, 1 << 20))
    fatal, _ = said()
    assert "models/tiny-base has 5 M parameters and needs some" in fatal[0]
    assert "0.0 GB free, and a run needs some 0.5" in fatal[1]
    project.set(model="models/none")
    assert [text for text in said()[0] if "models/none" in text]


def test_a_teacher_of_gkd_with_other_tokens_is_said_before_anything_is_trained(
    project: Project,
) -> None:
    project.seeds(2, alike=False)
    folder = Path(shutil.copytree(ROOT / "models/tiny-base", "models/larger"))
    given = {"models": ["base", "sft", "gkd"], "gkd_teacher": str(folder)}
    project.set(gkd_teacher_revision=weights.folder_sha256(folder), **given)
    assert said()[0] == []
    words = json.loads((folder / "tokenizer.json").read_text())
    words["model"]["vocab"]["and another word"] = len(words["model"]["vocab"])
    (folder / "tokenizer.json").write_text(json.dumps(words))
    project.set(gkd_teacher_revision=weights.folder_sha256(folder))
    [found] = said()[0]
    assert found.startswith("params.yaml: gkd.teacher models/larger has ")
    assert "expected the" in found and found.endswith("of the same family, or null")


def test_near_duplicates_are_said_and_priced_before_anything_is_paid(
    project: Project, fake: FakeTeacher
) -> None:
    """60 inputs from one template: one is asked, and `make quote` says so."""
    jsonl.write_jsonl("data/seeds.jsonl", CASES)
    project.write("data/gold.jsonl", "")
    project.set(teacher_model="fake-235b")
    _, notes = said()
    assert notes == [
        "data/seeds.jsonl: 59 of 60 inputs are left out, and not asked: 59 near-duplicates "
        "(near_duplicate 0.8); give inputs that differ more, or raise near_duplicate of params.yaml"
    ]
    code, out = project.run("potstill", "quote", **fake.env())
    assert code == 0, out
    assert re.search(r"(?m)^generate +1 +0 +1 ", out)
    assert "left out, and not asked: 59 near-duplicates (near_duplicate 0.8)" in out
    for stage in ("expand", "generate"):
        code, out = project.run(f"stages.{stage}", **fake.env())
        assert code == 0, out
    assert len(fake.calls) == 1
    reasons = {row["reason"][:15] for row in project.read("1-expand/dropped.jsonl")}
    assert reasons == {"near_duplicate:"} and len(project.read("1-expand/dropped.jsonl")) == 59
    project.run("stages.filter")
    funnel = json.loads(Path("data/3-funnel.json").read_text())
    assert funnel["not_asked"] == {"near_duplicate": 59}


def test_a_stage_pays_nothing_where_a_finding_is_fatal(project: Project, fake: FakeTeacher) -> None:
    project.seeds(4, alike=False)
    project.write("data/gold.jsonl", '{"text": "a"}\n{"text": ""}\n')
    project.write("data/own/messages.jsonl", '{"messages": []}\n')
    project.set(teacher_model="fake-235b")
    code, out = project.run("stages.generate", **fake.env())
    assert code == 1 and not fake.calls
    for place in ("gold.jsonl:1: key 'gold'", "gold.jsonl:2: text is", "own/messages.jsonl:1"):
        assert f"fatal: data/{place}" in out
    assert re.search(r"error: \d findings are fatal, see above: nothing was asked or paid for", out)
    project.set(teacher_model="scripted")  # which is free
    assert project.run("stages.generate")[0] == 0


def test_rows_of_one_s_own_alone_need_no_teacher(project: Project) -> None:
    project.write("data/seeds.jsonl", "")
    shutil.rmtree("teacher")
    turns = [{"role": "user", "content": "a b"}, {"role": "assistant", "content": "{}"}]
    jsonl.write_jsonl("data/own/messages.jsonl", [{"messages": turns}] * 3)
    assert said() == ([], [])
    code, out = project.run("potstill", "quote")
    assert (code, out.strip()) == (
        0,
        "task toy: 3 rows of your own and no inputs for a teacher: 0 requests, cost 0",
    )


def test_own_rows_with_several_answers_are_said(project: Project) -> None:
    project.write("data/seeds.jsonl", "")
    turns = [[("user", "a b"), ("assistant", answer)] for answer in ("x", "y", "z")]
    chats = [[{"role": role, "content": text} for role, text in chat] for chat in turns]
    jsonl.write_jsonl("data/own/messages.jsonl", [{"messages": chat} for chat in chats])
    says = (
        "data/own/messages.jsonl:2: several: data/own/messages.jsonl:1 has another answer to this "
        "question: 2 rows of your own are not learnt; split.several of params.yaml decides"
    )
    assert said() == ([], [says])
    project.set(split_several="none")
    assert "3 rows of your own are not learnt" in said()[0][0]
    project.set(split_several="all")
    assert said() == ([], [])


def test_the_endpoint_is_asked_for_its_models_alone(project: Project, fake: FakeTeacher) -> None:
    project.seeds(2, alike=False)
    project.set(teacher_model="fake-235b")
    assert said(paid=False)[0] == [] and not fake.calls
    fake.models = ["another"]
    assert "which the endpoint does not list; it has: another" in said(paid=False)[1][0]
    project.set(teacher_batch=True)
    assert said(paid=False)[0] == []
    fake.batches.reply = lambda call, done: web.json_response({}, status=404)
    assert "takes no batch (404" in said(paid=False)[0][0] and not fake.calls


@pytest.mark.parametrize(
    ("env", "expected"),
    [
        ({"TEACHER_API_KEY": ""}, "needs TEACHER_BASE_URL"),
        ({"TEACHER_BASE_URL": "http://127.0.0.1:9/v1"}, "cannot be reached"),
        ({"HTTPS_PROXY": "proxy:3128"}, "HTTPS_PROXY is no URL such as"),
    ],
)
def test_key_endpoint_and_proxy(
    project: Project,
    fake: FakeTeacher,
    monkeypatch: pytest.MonkeyPatch,
    env: dict[str, str],
    expected: str,
) -> None:
    project.seeds(2, alike=False)
    project.set(teacher_model="fake-235b", teacher_timeout=2)
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    assert expected in "\n".join(said(paid=False)[0])
    assert KEY not in "\n".join(said(paid=False)[0])


def test_a_sweep_of_a_task_that_git_does_not_know_is_refused(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Said first, with the command that mends it; nothing is started."""

    def git(*words: str) -> None:
        identity = ("-c", "user.name=x", "-c", "user.email=x@x")
        subprocess.run(["git", *identity, *words], check=True, capture_output=True)

    git("init", "-q")
    git("add", "task.yaml")
    started: list[Any] = []
    monkeypatch.setattr(core_project, "call", started.append)
    monkeypatch.setattr(core_project, "ROOT", project.dir)
    monkeypatch.setattr("sys.argv", ["sweep", "1", "lora_rank=4,8"])
    with pytest.raises(UserError, match=r"git does not know \d+ files of this task.*: git add "):
        experiments.sweep()
    assert not started
    git("add", "-A")
    assert doctor.untracked() == ""


def test_tokens_are_those_of_transformers() -> None:
    from transformers import AutoTokenizer

    folder = lengths.folder("models/tiny-base")
    tokenizer = AutoTokenizer.from_pretrained(str(folder))
    chats = [
        [{"role": "system", "content": "提取"}, {"role": "user", "content": "a b，c"}],
        [{"role": "user", "content": "多" * 40 + "\n"}],
    ]
    expected = [
        len(tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=False))
        for chat in chats
    ]
    count = lengths.Counter("models/tiny-base", "main")
    assert count(chats, answering=True) == expected
    assert list(count.longer(chats, expected[1] - 1, answering=True)) == [(1, expected[1])]
    assert all(lengths.at_most(chat) >= n for chat, n in zip(chats, expected, strict=True))
