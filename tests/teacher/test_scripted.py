"""potstill.teacher.scripted: a real OpenAI-compatible server in a process of its own, behind the
same client and journal."""

import json
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from potstill.core.errors import UserError
from potstill.core.jsonl import Row
from potstill.task import settings
from potstill.teacher import asking, scripted
from tests.conftest import ROOT, Project


def ask(count: int, params: SimpleNamespace, samples: int = 1) -> list[Row]:
    inputs = [{"id": f"r{i}", "text": f"ends in word{i}"} for i in range(count)]
    return list(asking.answer_rows(settings.load(), inputs, params, samples))


def test_the_scripted_teacher_speaks_the_protocol(
    project: Project, teacher_params: SimpleNamespace
) -> None:
    import openai

    rules = Path("teacher")
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    with scripted.serve(rules) as url, openai.OpenAI(base_url=url, api_key="none") as api:
        assert [model.id for model in api.models.list()] == [scripted.model_name(rules)]
        messages: list[Any] = [
            {"role": "system", "content": "中文 prompt"},
            {"role": "user", "content": "ends in word7"},
        ]
        reply = api.chat.completions.create(model="m", messages=messages, max_tokens=50)
        assert json.loads(str(reply.choices[0].message.content)) == {"length": 5, "word": "word7"}
        assert reply.choices[0].finish_reason == "stop"
        assert reply.usage
        assert (reply.usage.prompt_tokens, reply.usage.completion_tokens) == (2 + 2 + 1 + 1 + 2, 17)
        cut = api.chat.completions.create(model="m", messages=messages, max_tokens=3)
        assert (cut.choices[0].message.content, cut.choices[0].finish_reason) == (
            '{"leng',
            "length",
        )
        with pytest.raises(openai.BadRequestError, match="IndexError"):
            api.chat.completions.create(model="m", messages=[{"role": "user", "content": " "}])
    assert (
        resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before < 1.5
    )  # seconds; no pandas, no openai
    with (
        pytest.raises(openai.APIConnectionError),
        openai.OpenAI(base_url=url, api_key="none", max_retries=0) as api,
    ):
        api.models.list()


def test_the_scripted_teacher_goes_through_the_same_journal(
    project: Project,
    teacher_params: SimpleNamespace,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")  # a proxy is not for loopback
    teacher_params.model = "scripted"
    assert json.loads(ask(5, teacher_params)[4]["answer"]) == {"length": 5, "word": "word4"}
    ask(5, teacher_params)
    assert "5 answers from the journal, none asked" in capfd.readouterr().err
    project.write(
        "teacher/__init__.py", "def answer(messages, seed):\n    return seed\n"
    )  # other rules, another teacher
    seeds = [row["answer"] for row in ask(5, teacher_params, samples=2)]
    assert len(set(seeds)) == 10
    assert all(len(seed) == 64 for seed in seeds)


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        (
            None,
            r"teacher/__init__.py is missing: teacher.model scripted needs the task's own rules",
        ),
        ("import nosuchmodule\n", r"teacher: the scripted teacher did not start"),
    ],
)
def test_rules_that_do_not_load(
    project: Project, teacher_params: SimpleNamespace, rules: str | None, expected: str
) -> None:
    teacher_params.model = "scripted"
    if rules is None:
        Path("teacher/__init__.py").unlink()
    else:
        project.write("teacher/__init__.py", rules)
    with pytest.raises(UserError, match=expected):
        ask(1, teacher_params)


def test_the_scripted_teacher_dies_with_its_stage(project: Project) -> None:
    code = "import os, sys; from pathlib import Path; from potstill.teacher import scripted\n"
    code += "with scripted.serve(Path('teacher')) as url:\n"
    code += "    print(url, flush=True)\n    os.kill(os.getpid(), 9)\n"
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    stage = subprocess.run(
        [sys.executable, "-c", code],
        env=env,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert stage.returncode == -signal.SIGKILL
    port = int(stage.stdout.strip().rpartition(":")[2].removesuffix("/v1"))
    for _ in range(100):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)):
                return
        time.sleep(0.05)
    pytest.fail("the server still listens")
