"""potstill.teacher.local: a model that is here as the teacher, behind a stand-in for vLLM's server;
once behind the real one."""

import json
import os
import re
import signal
import time
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest

from potstill.core.errors import UserError
from potstill.core.jsonl import Row
from potstill.task import settings
from potstill.teacher import asking, local
from tests import fakes
from tests.conftest import ROOT, Project

# What the real one takes and does, in milliseconds; its child stands for vLLM's engine
SERVER = """
import json, os, subprocess, sys
from http.server import BaseHTTPRequestHandler, HTTPServer
given = dict(zip(sys.argv[1:], sys.argv[2:]))
if os.environ.get("FAKE_VLLM") == "fail":
    print("ValueError: no memory for that")
    print("a last remark")
    raise SystemExit(1)
engine = subprocess.Popen(["sleep", "60"])
open(os.environ["FAKE_PIDS"], "w").write(json.dumps([os.getpid(), engine.pid, sys.argv[1:]]))

class Handler(BaseHTTPRequestHandler):
    def reply(self, status, body):
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())
    def do_GET(self):
        self.reply(200, {})
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if self.headers["authorization"] != "Bearer " + os.environ["VLLM_API_KEY"]:
            return self.reply(401, {"error": {"message": "no key"}})
        assert body["model"] == given["--served-model-name"], body
        word = body["messages"][-1]["content"].split()[-1]
        message = {"role": "assistant", "content": json.dumps({"word": word, "length": len(word)})}
        choices = [{"index": 0, "message": message, "finish_reason": "stop"}]
        used = {"prompt_tokens": 7, "completion_tokens": 3}
        self.reply(200, {"object": "chat.completion", "choices": choices, "usage": used})
    def log_message(self, *_):
        pass

HTTPServer((given["--host"], int(given["--port"])), Handler).serve_forever()
"""


@pytest.fixture
def vllm(project: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A project with a model, and a stand-in for vLLM before the real one."""
    for folder in ("vllm", "vllm/entrypoints", "vllm/entrypoints/openai"):
        project.write(f"fake/{folder}/__init__.py", "")
    project.write("fake/vllm/entrypoints/openai/api_server.py", SERVER)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join((str(project.dir / "fake"), str(ROOT))))
    monkeypatch.setenv("FAKE_PIDS", str(project.dir / "pids"))
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")  # a proxy is not for loopback
    fakes.model("models/own")
    return project


def ask(params: SimpleNamespace, count: int = 3) -> list[Row]:
    inputs = [{"id": f"r{i}", "text": f"ends in word{i}"} for i in range(count)]
    return list(asking.answer_rows(settings.load(), inputs, params, 1))


def running(pid: int) -> bool:
    """Whether a process runs; one that only waits to be reaped does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def ended(pids: list[int]) -> bool:
    """Whether processes end within some seconds."""
    for _ in range(100):
        if not any(map(running, pids)):
            return True
        time.sleep(0.1)
    return False


def test_its_answers_are_in_the_journal_by_the_hash_of_its_weights(
    vllm: Project, teacher_params: SimpleNamespace, capfd: pytest.CaptureFixture[str]
) -> None:
    teacher_params.model = "local:models/own"
    first = ask(teacher_params)
    assert json.loads(first[2]["answer"]) == {"word": "word2", "length": 5}
    assert re.fullmatch(r"local-own-[0-9a-f]{12}", first[0]["model"])
    *pids, words = json.loads((vllm.dir / "pids").read_text())
    assert ended(pids)
    given = dict(pairwise(words))
    assert (given["--model"], given["--max-model-len"]) == ("models/own", "2048")
    (vllm.dir / "pids").unlink()
    capfd.readouterr()
    assert ask(teacher_params) == first
    assert "3 answers from the journal, none asked" in capfd.readouterr().err
    assert not (vllm.dir / "pids").exists()  # nothing was started
    vllm.write("models/own/README.md", "a text about the model is no part of it")
    assert local.model_name("local:models/own") == first[0]["model"]
    vllm.write("models/own/generation_config.json", "{}")
    assert local.model_name("local:models/own") != first[0]["model"]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_it_ends_with_the_stage_however_that_ends(vllm: Project, number: signal.Signals) -> None:
    hold = "import time; from potstill.teacher import local"
    hold += "\nwith local.serve('local:models/own', 64): print('up', flush=True); time.sleep(60)"
    vllm.write("hold.py", hold)
    stage = vllm.start("hold", PYTHONPATH=f".{os.pathsep}{os.environ['PYTHONPATH']}")
    assert stage.stdout
    while "up" not in (line := stage.stdout.readline()):
        assert line, "it did not start"
    *pids, _ = json.loads((vllm.dir / "pids").read_text())
    assert all(map(running, pids))
    stage.send_signal(number)
    stage.communicate(timeout=20)
    assert ended(pids)


def test_a_server_that_does_not_start(
    vllm: Project, teacher_params: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_VLLM", "fail")
    teacher_params.model = "local:models/own"
    said = r"^teacher local:models/own: vLLM did not start: ValueError: no memory for that \(the "
    with pytest.raises(UserError, match=said):
        ask(teacher_params)


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("local:w.gguf", r"expected local:w\.gguf@ and the SHA-256 of the file: `sha256sum w"),
        ("local:Qwen/Qwen3-0.6B", r"expected a model's folder, .* a name on the hub with @COMMIT"),
        ("local:models/none", r"or one of smollm2-135m$"),
        ("local:models/own", "^$"),
        ("local:smollm2-135m", "^$"),
        (f"local:w.gguf@{'a' * 64}", "^$"),
        (f"local:Qwen/Qwen3-0.6B@{'a' * 40}", "^$"),
    ],
)
def test_what_a_local_teacher_may_name(project: Project, model: str, expected: str) -> None:
    fakes.model("models/own")
    try:
        local.parse(model)
        said = ""
    except UserError as error:
        said = str(error)
    assert re.search(expected, said)
    assert said == "" or said.startswith(f"params.yaml: teacher.model is {model}, ")


@pytest.mark.slow
def test_the_real_server_answers(project: Project, teacher_params: SimpleNamespace) -> None:
    teacher_params.model = f"local:{ROOT / 'models/tiny-base'}"
    answers = ask(teacher_params)
    for answer in answers:  # a small model writes anything, but in the schema's form
        found = json.loads(answer["answer"]) if answer["finish_reason"] == "stop" else {}
        assert found.keys() in ({"word", "length"}, set())
    assert all(answer["prompt_tokens"] and answer["error"] is None for answer in answers)
