"""What the tests share: a small project to run in, and a fake OpenAI-compatible teacher that keeps
a ledger of its calls."""

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from aiohttp import web

from potstill.commands import uv
from potstill.core import jsonl
from tests.fake_batches import FakeBatches, right
from tests.fake_batches import completion as completion

ROOT = Path(__file__).resolve().parents[1]
Body = dict[str, Any]
KEY = "canary-key-5f3a"

TOY_TASK = """
name: toy
input: [text]
user: "{{ text }}"
num_train_epochs: 3
swift_args: {}
checks: [json_schema, {grounded: {fields: {word: ""}}}]
"""
TOY_SCHEMA = {
    "type": "object",
    "properties": {"word": {"type": "string"}, "length": {"type": "integer"}},
    "required": ["word", "length"],
    "additionalProperties": False,
}
TOY_TEACHER = """
import json
def answer(messages, seed):
    word = messages[-1]["content"].split()[-1]
    return json.dumps({"length": len(word), "word": word}, ensure_ascii=False)
"""


def install(lock: str, folder: Path) -> None:
    """The packages of requirements/LOCK.lock, which are no part of the environment, in a folder."""
    options, env = uv.settings(sys.executable)
    command = [sys.executable, "-m", "uv", "pip", "install", "--quiet", "--no-deps", *options]
    command += ["--require-hashes", "-r", str(ROOT / f"requirements/{lock}.lock")]
    subprocess.run([*command, "--target", str(folder)], env=env, check=True)


class Project:
    """The folder of one small task, `toy`: the last word of a line and its length."""

    def __init__(self, folder: Path) -> None:
        self.dir = folder
        self.before: list[str] = []  # words that stand before each command
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / "params.yaml", folder)
        shutil.copy(ROOT / "dvc.yaml", folder)
        self.write("task.yaml", TOY_TASK)
        self.write("teacher/__init__.py", TOY_TEACHER)
        self.write("prompts/teacher.md", "You find the last word. Answer with JSON only.\n")
        self.write("prompts/student.md", "last word\n")
        self.write("schema.json", json.dumps(TOY_SCHEMA))
        self.write("data/own/README.md", "Your own rows.\n")

    def write(self, path: str, text: str) -> Path:
        target = self.dir / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
        return target

    def commit(self) -> None:
        """Makes the project a git repository with one commit of all that is there."""
        who = ["-c", "user.name=n", "-c", "user.email=e"]
        for command in (["init", "-q"], ["add", "-A"], [*who, "commit", "-qm", "state"]):
            subprocess.run(["git", *command], cwd=self.dir, check=True)

    def set(self, **params: object) -> None:
        """Sets parameters in params.yaml: `lora_rank`, or `teacher_model` for model of teacher."""
        path = self.dir / "params.yaml"
        lines = path.read_text(encoding="utf-8").splitlines()
        for name, value in params.items():
            number = _line(lines, name)
            head, _, rest = lines[number].partition(":")
            comment = rest.partition("#")[2]
            text = value if isinstance(value, str) and value else json.dumps(value)
            lines[number] = f"{head}: {text}" + (f" #{comment}" if comment else "")
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")

    def seeds(self, count: int, alike: bool = True) -> list[jsonl.Row]:
        """`count` seeds on disk, and the inputs that expand makes of them as they are. They are
        near-duplicates of each other where they are `alike`."""
        texts = [
            f"line {i} {'' if alike else jsonl.row_id({'line': i})} ends in word{i}"
            for i in range(count)
        ]
        texts = [" ".join(text.split()) for text in texts]
        found = [{"id": jsonl.row_id({"text": text}), "text": text} for text in texts]
        jsonl.write_jsonl(self.dir / "data/seeds.jsonl", found)
        jsonl.write_jsonl(
            self.dir / "data/1-inputs.jsonl", ({**row, "family": row["id"]} for row in found)
        )
        return found

    def read(self, name: str) -> list[jsonl.Row]:
        """A data file of the toy task; [] when it is empty."""
        path = self.dir / "data" / name
        return jsonl.read_jsonl(path) if path.stat().st_size else []

    def start(self, *command: str, **env: str) -> "subprocess.Popen[str]":
        """Starts `python -m …` in the project."""
        own = {"PYTHONUNBUFFERED": "", "DVC_ROOT": "."}  # its output is buffered, as a user's is
        return subprocess.Popen(
            [*self.before, sys.executable, "-m", *command],
            cwd=self.dir,
            env={**os.environ, "PYTHONPATH": str(ROOT), **own, **env},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            # The signal is ignored where the tests run in the background
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )

    def run(self, *command: str, **env: str) -> tuple[int, str]:
        """Exit code and output of `python -m …` in the project."""
        process = self.start(*command, **env)
        out, _ = process.communicate(timeout=300)  # a real training, on a busy machine
        return process.returncode, out


def _line(lines: list[str], name: str) -> int:
    """Where a parameter stands; the underscore after the name of a section is its dot."""
    section = ""
    for number, line in enumerate(lines):
        key = line.partition(":")[0]
        if line[:1] not in ("", " ", "#"):
            section = key
        if key.strip() and name in (key, f"{section}_{key.strip()}" if key[:1] == " " else key):
            return number
    raise AssertionError(f"params.yaml has no {name}")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A small project, which is the working folder of the test."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DVC_ROOT", ".")  # its cache is its own, not the repository's
    for name in ("TEACHER_BASE_URL", "TEACHER_API_KEY", "TEACHER_JOURNAL"):
        monkeypatch.delenv(name, raising=False)
    return Project(tmp_path)


@dataclass
class FakeTeacher:
    """An OpenAI-compatible endpoint on loopback. `calls` is the ledger: every request body, in
    order; `batches` has one of its own. `behave` may answer the n-th call (from 0) with a reply of
    its own; where it gives None the answer is right. `models` is what it lists."""

    calls: list[Body] = field(default_factory=list)
    models: list[str] = field(default_factory=lambda: ["fake-235b"])
    behave: Callable[[int, Body, web.Request], Awaitable[web.StreamResponse | None]] | None = None
    batches: FakeBatches = field(default_factory=FakeBatches)
    url: str = ""

    async def chat(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.calls.append(body)
        reply = await self.behave(len(self.calls) - 1, body, request) if self.behave else None
        if reply is not None:
            return reply
        return web.json_response(right(body))

    async def list_models(self, request: web.Request) -> web.StreamResponse:
        return web.json_response(
            {"object": "list", "data": [{"id": name, "object": "model"} for name in self.models]}
        )

    def env(self) -> dict[str, str]:
        """The environment that points at this teacher."""
        return {"TEACHER_BASE_URL": self.url, "TEACHER_API_KEY": KEY}


@contextmanager
def serving() -> Iterator[FakeTeacher]:
    """A running fake teacher."""
    teacher, loop = FakeTeacher(), asyncio.new_event_loop()
    application = web.Application()
    application.add_routes(
        [web.post("/v1/chat/completions", teacher.chat), web.get("/v1/models", teacher.list_models)]
    )
    application.add_routes(teacher.batches.routes())
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)

    async def start() -> None:
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        teacher.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"

    loop.run_until_complete(start())
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        yield teacher
    finally:
        asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(5)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(5)
        loop.close()


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeTeacher]:
    """A running fake teacher, named in the environment."""
    with serving() as teacher:
        for name, value in teacher.env().items():
            monkeypatch.setenv(name, value)
        yield teacher


@pytest.fixture
def teacher_params() -> SimpleNamespace:
    """The teacher's parameters for a fake endpoint."""
    return SimpleNamespace(
        model="fake-235b",
        temperature=0.0,
        max_tokens=64,
        concurrency=16,
        timeout=5,
        retries=3,
        redraw=0,
        extra_body={},
        batch=False,
        shards=1,
        rpm=None,
        tpm=None,
        price_in=None,
        price_out=None,
        price_cached=None,
        budget=None,
    )


@pytest.fixture
def chromium() -> str:
    """The path of a Chromium. Without one the test is skipped, or fails where it must run (CI)."""
    names = ("chromium", "chromium-browser", "google-chrome")
    found = next(filter(None, map(shutil.which, names)), None)
    if found is None:
        missing = f"none of {', '.join(names)} is installed: on Debian, `apt-get install chromium`"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(missing)
    return str(found)


@pytest.fixture
def browser(chromium: str) -> Iterator[Any]:
    """A running Chromium, of Playwright."""
    from playwright.sync_api import expect, sync_playwright

    expect.set_options(timeout=60_000)  # on a machine that is busy, too
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(
            executable_path=chromium, args=["--no-sandbox", "--disable-gpu"]
        )
        yield started
        started.close()
