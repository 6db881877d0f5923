"""The teacher's client against a real server: vLLM's OpenAI-compatible one, on loopback, which
serves models/tiny-base."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import jsonschema
import pytest

from potstill.training import model_folder
from tests.conftest import KEY, ROOT, Project

pytestmark = pytest.mark.slow
SCHEMA = {
    "type": "object",
    "properties": {"word": {"type": "string", "maxLength": 8}, "length": {"enum": [4, 5, 6]}},
    "required": ["word", "length"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A running server's base URL."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = tmp_path_factory.mktemp("vllm") / "server.log"
    settings = {
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "VLLM_LOGGING_LEVEL": "WARNING",
    }
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--api-key", KEY]
    command += ["--model", str(ROOT / "models/tiny-base"), "--served-model-name", "tiny"]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    command += ["--enforce-eager", "--dtype", "float32", "--max-model-len", "1024"]
    # On a CPU vLLM 0.32 dies of a seeded request whose prompt it reads in parts.
    command += ["--max-num-batched-tokens", "8192"]
    # Else a small model pads without end
    structured = {"backend": "xgrammar", "disable_any_whitespace": True}
    command += ["--structured-outputs-config", json.dumps(structured)]
    with log.open("wb") as out:
        process = subprocess.Popen(
            command,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env=os.environ | model_folder.environment(hub=False) | settings,
        )
    try:
        deadline = time.monotonic() + 240
        while not _answers(f"http://127.0.0.1:{port}/health"):
            assert process.poll() is None, log.read_text()[-3000:]
            assert time.monotonic() < deadline, log.read_text()[-3000:]
            time.sleep(0.5)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5):
            return True
    except OSError:
        return False


def test_structured_output_from_a_real_server(project: Project, server: str) -> None:
    """The model has never seen the task: that every whole answer obeys the schema is the server's
    structured output."""
    project.seeds(24)
    project.write("schema.json", json.dumps(SCHEMA))
    project.set(teacher_model="auto", teacher_max_tokens=96, teacher_temperature=0.7)
    project.set(generate_good_share=0.0, generate_samples=2)
    env = {"TEACHER_BASE_URL": server, "TEACHER_API_KEY": KEY}
    code, out = project.run("stages.generate", **env)
    assert code == 0, out
    assert "teacher tiny: 0 answers from the journal, 48 new in 48 requests (0 retries)" in out
    found = project.read("2-answers.jsonl")
    whole = [json.loads(row["answer"]) for row in found if row["finish_reason"] == "stop"]
    assert len(whole) >= 40
    for answer in whole:
        jsonschema.validate(answer, SCHEMA)
    assert all(row["prompt_tokens"] > 0 and row["completion_tokens"] > 0 for row in found)
    assert all(row["model"] == "tiny" and row["error"] is None for row in found)
    journal = Path(".cache/teacher/toy.jsonl").read_bytes()
    code, again = project.run("stages.generate", **env)
    assert (
        code,
        project.read("2-answers.jsonl"),
        Path(".cache/teacher/toy.jsonl").read_bytes(),
    ) == (0, found, journal)
    assert "48 answers from the journal, none asked" in again
    code, refused = project.run(
        "stages.generate", **(env | {"TEACHER_API_KEY": "wrong-key"}), TEACHER_JOURNAL="elsewhere"
    )
    assert code == 1
    assert "check TEACHER_API_KEY" in refused or "no list of models" in refused
    assert "wrong-key" not in refused
