"""`make serve`: its command line, and the real server on loopback with models/tiny-base as the
student."""

import asyncio
import itertools
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import openai
import pytest

from potstill.core.errors import UserError
from potstill.serving import canary, gateway, serve
from potstill.task import settings
from potstill.training import model_folder
from tests import fakes
from tests.conftest import ROOT, Project

KEY = "canary-key-5f3a-91bc"
CANARY = ["--canary", "models/next", "--share", "0.4"]
SCHEMA = {
    "type": "object",
    "properties": {
        "word": {"type": "string", "maxLength": 8, "pattern": "^\\S+$"},
        "length": {"enum": [4, 5, 6]},
    },
    "required": ["word", "length"],
    "additionalProperties": False,
}


def test_no_student_and_no_key_are_one_sentence(project: Project) -> None:
    code, out = project.run("potstill.serving.serve")
    assert (code, out.count("\n")) == (1, 1)
    assert out.startswith("error: SERVE_API_KEY is not set, expected")
    code, out = project.run("potstill.serving.serve", SERVE_API_KEY=KEY)
    assert code == 1
    missing = "is missing, expected a model"
    assert out == f"error: models/student {missing}: `make repro TASK=toy` trains it\n"
    code, out = project.run("potstill.serving.serve", "--format", "int8", SERVE_API_KEY=KEY)
    assert out == f"error: models/quantized/int8 {missing}: `make quantize FORMAT=int8`\n"
    code, out = project.run("potstill.serving.serve", "--format", "gguf", SERVE_API_KEY=KEY)
    assert out.startswith("error: FORMAT=gguf is not for vLLM, expected int8 or gptq; llama.cpp")


@pytest.mark.parametrize(
    ("cuda", "compiles", "eager"),
    [(True, False, False), (False, True, False), (False, False, True)],
)
@pytest.mark.parametrize("speculative", ["off", "ngram", "models/draft"])
def test_the_command_line(
    project: Project,
    monkeypatch: pytest.MonkeyPatch,
    cuda: bool,
    compiles: bool,
    eager: bool,
    speculative: str,
) -> None:
    monkeypatch.setattr(model_folder, "on_cuda", lambda: cuda)
    monkeypatch.setattr(serve, "compiles", lambda: compiles)
    fakes.model("models/draft")
    student = Path("models/student")
    words = serve.arguments(settings.load(), student, "auto", 2048, speculative)
    flags = dict(itertools.pairwise(words))
    assert flags["--middleware"] == "potstill.serving.gateway.Gateway"
    assert ("--enforce-eager" in words) is eager
    ahead = json.loads(flags.get("--speculative-config", "{}"))
    assert ahead.get("method", ahead.get("model", "off")) == speculative
    assert KEY not in " ".join(words)  # anybody on the machine can read a command line


def test_a_draft_model_may_be_one_of_the_repository(project: Project) -> None:
    words = serve.arguments(settings.load(), Path("a"), "auto", 2048, "models/tiny-base")
    draft = json.loads(dict(itertools.pairwise(words))["--speculative-config"])["model"]
    assert Path(draft).resolve() == ROOT / "models/tiny-base"


def test_kernels_are_built_where_a_compiler_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CXX", raising=False)
    compiler = tmp_path / "g++"
    compiler.write_text("#!/bin/sh\n")
    compiler.chmod(0o755)
    (tmp_path / "Python.h").touch()
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    assert serve.compiles()
    monkeypatch.setenv("CXX", "clang++")
    assert not serve.compiles()
    monkeypatch.delenv("CXX")
    (tmp_path / "Python.h").unlink()
    assert not serve.compiles()


def test_speculation_is_on_by_default_where_it_was_measured_to_win(project: Project) -> None:
    toy = settings.load()
    assert serve.speculation(toy, "auto") == "off"
    project.write("reports/serving.json", '{"speculative": "ngram"}')
    assert serve.speculation(toy, "auto") == "ngram"
    assert serve.speculation(toy, "off") == "off"


def test_the_model_is_the_student_that_ships(project: Project) -> None:
    toy = settings.load()
    with pytest.raises(UserError, match="models/student is missing"):
        serve.student_folder(toy)
    fakes.model("models/student")
    fakes.model("models/quantized/int8")
    assert serve.student_folder(toy) == Path("models/student")
    assert serve.student_folder(toy, "int8") == Path("models/quantized/int8")


class Server:
    """A running `make serve` of the toy task, with a canary that has the same weights."""

    def __init__(self, folder: Path) -> None:
        self.project = Project(folder)
        self.project.write("schema.json", json.dumps(SCHEMA))
        self.project.set(predict_max_model_len=1024, predict_max_tokens=64, serve_capture=1)
        for name in ("student", "next"):
            shutil.copytree(ROOT / "models/tiny-base", folder / "models" / name)
        self.project.write("models/next/note.txt", "another name")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = folder / "serve.log"
        env = {"PYTHONPATH": str(ROOT), gateway.KEY: KEY}
        with self.log.open("wb") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "potstill.serving.serve", "--port", str(self.port), *CANARY],
                cwd=folder,
                env=os.environ | env,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def wait(self) -> None:
        deadline = time.monotonic() + 600
        while True:
            assert self.process.poll() is None, self.log.read_text()[-3000:]
            assert time.monotonic() < deadline, self.log.read_text()[-3000:]
            with suppress(httpx.HTTPError):
                if httpx.get(f"{self.url}/health", timeout=5).status_code == 200:
                    return
            time.sleep(0.5)

    def client(self) -> httpx.Client:
        headers = {"Authorization": f"Bearer {KEY}"}
        return httpx.Client(base_url=self.url, headers=headers, timeout=120)

    def family(self) -> list[int]:
        """The server's processes and the canary's: those that work in its folder."""
        found = []
        for place in Path("/proc").glob("[0-9]*/cwd"):
            with suppress(OSError):
                if place.readlink() == self.project.dir:
                    found.append(int(place.parent.name))
        return found


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    found = Server(tmp_path_factory.mktemp("serve"))
    try:
        found.wait()
        yield found
    finally:
        for process in found.family():
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        found.process.wait()


@pytest.mark.slow
def test_vllm_understands_the_command_line(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = (
        "import json, sys; from vllm.entrypoints.launchers.cli_args import make_arg_parser\n"
        "from vllm.utils.argparse_utils import FlexibleArgumentParser\n"
        "for words in json.loads(sys.argv[1]):\n"
        "    print(make_arg_parser(FlexibleArgumentParser()).parse_args(words).port)\n"
    )
    lines = []
    for cuda, speculative in itertools.product((True, False), ("off", "ngram", "models/draft")):
        monkeypatch.setattr(model_folder, "on_cuda", lambda cuda=cuda: cuda)
        words = serve.arguments(settings.load(), Path("a"), "auto", 2048, speculative)
        lines.append([*words, "--port", "8123"])
    env = os.environ | model_folder.environment(hub=False)
    done = subprocess.run(
        [sys.executable, "-c", code, json.dumps(lines)], capture_output=True, text=True, env=env
    )
    assert done.stdout.split() == ["8123"] * 6, done.stderr[-2000:]


@pytest.mark.slow
def test_the_input_alone_gets_an_answer_of_the_schema(server: Server) -> None:
    """The model has never seen the task: the server's default makes each answer obey the schema."""
    lines = [f"a line that ends in word{i}" for i in range(8)]
    drawn = ["canary" if canary.drawn({"text": line}, 0.4) else "student" for line in lines]
    assert set(drawn) == {"canary", "student"}
    with server.client() as client:
        for line, who in zip(lines, drawn, strict=True):
            found = client.post("/v1/chat/completions", json={"input": line})
            assert found.status_code == 200, found.text
            assert (found.headers["x-answered-by"], found.json()["answered_by"]) == (who, who)
            choice = found.json()["choices"][0]
            assert choice["finish_reason"] == "stop"
            jsonschema.validate(json.loads(choice["message"]["content"]), SCHEMA)
    ours = openai.OpenAI(base_url=f"{server.url}/v1", api_key=KEY)
    first = lines[drawn.index("canary")]
    chat: Any = [{"role": "user", "content": first}]
    whole = ours.chat.completions.create(model="toy", messages=chat)
    stream: Any = ours.chat.completions.create(model="toy", messages=chat, stream=True)
    assert (
        "".join(part.choices[0].delta.content or "" for part in stream)
        == whole.choices[0].message.content
    )
    assert whole.usage and whole.usage.prompt_tokens < 40  # the short prompt
    assert [model.id for model in ours.models.list()] == ["toy"]
    folder, deadline = server.project.dir / "data/captured", time.monotonic() + 120
    while len(kept := [x for path in folder.iterdir() for x in path.open()]) < 10:
        assert time.monotonic() < deadline, (kept, server.log.read_text()[-3000:])
        time.sleep(0.1)
    row, streamed = (json.loads(kept[i]) for i in (8, 9))
    assert (row["answer"], row["by"]) == (whole.choices[0].message.content, "canary")
    assert streamed["input"] == {"text": first}
    assert (streamed["answer"], streamed["failed"]) == (row["answer"], row["failed"])
    with server.client() as client:
        assert "\npotstill_captured_total 10.0\n" in client.get("/metrics").text


@pytest.mark.slow
def test_only_the_listed_paths_answer(server: Server) -> None:
    with server.client() as client:
        assert "vllm:" in client.get("/metrics").text
        for path in (
            "/docs",
            "/openapi.json",
            "/version",
            "/load",
            "/ping",
            "/invocations",
            "/tokenize",
            "/metricsx",
        ):
            assert client.get(path).status_code == 404
            assert client.post(path, json={}).status_code == 404
            assert httpx.post(server.url + path, json={}).status_code == 401
        assert httpx.get(f"{server.url}/metrics").status_code == 401
        assert client.post("/v1/chat/completions", content=b" " * (10 << 20)).status_code == 413
        assert (
            client.post(
                "/v1/chat/completions", json={f"k{i}": i for i in range(10_000)}
            ).status_code
            == 400
        )
        wrong = {"input": "a", "temperature": "hot", "max_tokens": -1}
        assert client.post("/v1/chat/completions", json=wrong).status_code == 400
        assert (
            client.post("/v1/chat/completions", json={"input": "word " * 5000}).status_code == 400
        )
        seeded = {"input": "a line", "temperature": 1.0, "seed": 1, "max_tokens": 8}
        for _ in range(3):  # also once the prompt is cached
            assert client.post("/v1/chat/completions", json=seeded).status_code == 200
    assert KEY not in server.log.read_text()


@pytest.mark.slow
def test_a_thousand_queued_requests_and_clients_that_go_away(server: Server) -> None:
    async def flood() -> list[int]:
        limits = httpx.Limits(max_connections=1000)
        auth = {"Authorization": f"Bearer {KEY}"}
        async with httpx.AsyncClient(
            base_url=server.url, headers=auth, limits=limits, timeout=540
        ) as client:
            body = {"input": "a line", "max_tokens": 4, "response_format": {"type": "text"}}
            asked = [client.post("/v1/chat/completions", json=body) for _ in range(1000)]
            return [one.status_code for one in await asyncio.gather(*asked)]

    assert set(asyncio.run(flood())) == {200}
    with server.client() as client:
        for _ in range(5):
            with client.stream("POST", "/v1/chat/completions", json=endless()) as stream:
                next(stream.iter_lines())
        deadline = time.monotonic() + 60
        while running := sum(
            float(line.split()[-1])
            for line in client.get("/metrics").text.splitlines()
            if line.startswith(("vllm:num_requests_running{", "vllm:num_requests_waiting{"))
        ):
            assert time.monotonic() < deadline, running
            time.sleep(0.2)
        assert client.get("/health").status_code == 200


def endless() -> dict[str, object]:
    """A request whose answer takes seconds."""
    messages = [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]
    more = {
        "ignore_eos": True,
        "max_tokens": 900,
        "response_format": {"type": "text"},
        "stream": True,
    }
    return {"messages": messages, **more}


@pytest.mark.slow
@pytest.mark.parametrize("language", ["", "python"])
def test_the_example_clients_of_the_docs(server: Server, language: str) -> None:
    """Each block of docs/serve.md that asks the server runs as it stands, but for port and task."""
    text = (
        (ROOT / "docs/serve.md")
        .read_text(encoding="utf-8")
        .partition("## Asking")[2]
        .partition("\n## ")[0]
    )
    blocks = re.findall(r"^```(.*)\n((?:.*\n)*?)```$", text, re.MULTILINE)
    found = [block for kind, block in blocks if kind == language]
    assert found
    for block in found:
        code = block.replace("127.0.0.1:8000", f"127.0.0.1:{server.port}").replace(
            '"address"', '"toy"'
        )
        assert code.count(str(server.port)) == 1 + (
            not language
        )  # the plain one and, by curl, the streamed one
        command = [sys.executable, "-c", code] if language else ["bash", "-ec", code]
        env = os.environ | {gateway.KEY: KEY}
        done = subprocess.run(
            command, env=env, capture_output=True, text=True, check=False, timeout=300
        )
        assert done.returncode == 0, done.stderr
        if language:
            whole, streamed = done.stdout.splitlines()
            jsonschema.validate(json.loads(whole), SCHEMA)
        else:
            whole, *chunks = [line for line in done.stdout.splitlines() if line]
            whole = json.loads(whole)["choices"][0]["message"]["content"]
            assert chunks.pop() == "data: [DONE]"
            parts = [
                json.loads(chunk.removeprefix("data: "))["choices"][0]["delta"] for chunk in chunks
            ]
            streamed = "".join(part.get("content") or "" for part in parts)
        assert streamed == whole


@pytest.mark.slow
def test_sigterm_lets_the_answers_under_way_end(server: Server) -> None:
    """The last test: the server is gone after it, with all its processes."""
    family = server.family()
    assert len(family) > 1
    with (
        server.client() as client,
        client.stream("POST", "/v1/chat/completions", json=endless()) as stream,
    ):
        lines = stream.iter_lines()
        next(lines)
        server.process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + 60
        while client.post("/v1/chat/completions", json={"input": "too late"}).status_code != 503:
            assert time.monotonic() < deadline
        rest = [line for line in lines if line]
    assert rest[-1] == "data: [DONE]"
    assert json.loads(rest[-2].removeprefix("data: "))["choices"][0]["finish_reason"] == "length"
    assert server.process.wait(60) == 0, server.log.read_text()[-3000:]
    deadline = time.monotonic() + 60
    while server.family():
        assert time.monotonic() < deadline, server.family()
        time.sleep(0.2)
