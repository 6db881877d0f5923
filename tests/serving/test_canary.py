"""`make serve CANARY=…`: who answers, what a reply and a kept row say of it, and what is left of a
trial. The canary's server is one of aiohttp on a real Unix socket, the student's a stand-in for
vLLM's app."""

import asyncio
import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest
from aiohttp import web

from potstill.core import jsonl, weights
from potstill.core.errors import UserError
from potstill.serving import canary, cascade, gateway, serve, served, standby
from potstill.serving.capture import read
from potstill.task import settings
from tests import fakes
from tests.conftest import ROOT, FakeTeacher, Project, completion
from tests.serving.test_capture import count, streamed
from tests.serving.test_cascade import BAD, CHAT, GOOD, KEY, Ask, Student

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
SHARE = 0.3
LINES = [f"a line {number} that ends in word1" for number in range(40)]
MINE = [line for line in LINES if canary.drawn({"text": line}, SHARE)]


@pytest.fixture(autouse=True)
def trial(project: Project, monkeypatch: pytest.MonkeyPatch) -> jsonl.Row:
    """A trial of two students that begins."""
    monkeypatch.setenv(gateway.KEY, KEY)
    project.set(serve_capture=1)
    for folder, size in (("models/student", 4), ("models/next", 8)):
        fakes.model(folder, size)
    kept = served.begin(settings.load(), Path("models/student"), Path("models/next"), SHARE)
    assert kept
    chosen = canary.Settings(kept[0].name, kept[1].name, SHARE, Path("s"), served_file())
    monkeypatch.setattr(canary, "chosen", chosen)
    monkeypatch.setattr(canary, "LOOK", -1.0)
    found = served.trial(settings.load())
    assert found
    return found


def served_file() -> Path:
    return served.trial_file(settings.load()).absolute()


async def answers(request: web.Request) -> web.StreamResponse:
    """The canary's right answer, whole or as a stream in odd pieces."""
    body = await request.json()
    if not body.get("stream"):
        return web.json_response(completion(GOOD))
    reply = web.StreamResponse(headers={"content-type": "text/event-stream"})
    await reply.prepare(request)
    raw = streamed(GOOD[:5], GOOD[5:])
    for start in range(0, len(raw), 7):
        await reply.write(raw[start : start + 7])
        await asyncio.sleep(0)
    return reply


def with_canary(app: gateway.Gateway, act: Ask, handler: Handler | None = answers) -> None:
    """Runs `act` with a client of the server, beside the canary's; None: there is none."""

    async def main() -> None:
        behind = web.Application()
        if handler:
            behind.router.add_post("/{path:.*}", handler)
        runner = web.AppRunner(behind, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        if handler:
            await web.UnixSite(runner, "s").start()
        headers = {"Authorization": f"Bearer {KEY}"}
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(app), base_url="http://here", headers=headers
        ) as client:
            await act(client)
        assert app.canary
        await app.canary.remote.close()
        await runner.cleanup()

    asyncio.run(main())
    app.recorder.close()


def test_an_input_is_always_with_the_same_one_and_the_reply_says_which(trial: jsonl.Row) -> None:
    assert 6 < len(MINE) < 20
    before = [count("judged_total", by=who) for who in ("student", "canary")]
    failed = count("failed_checks_total", check="grounded", by="student")

    async def act(client: httpx.AsyncClient) -> None:
        for stream in (False, True):
            for line in LINES:
                found = await client.post(CHAT, json={"input": line, "stream": stream})
                who = "canary" if line in MINE else "student"
                assert (found.status_code, found.headers["x-answered-by"]) == (200, who)
                if stream and who == "canary":
                    *events, done = [x[6:] for x in found.text.split("\n\n") if x]
                    assert done == "[DONE]"
                    assert {json.loads(one)["answered_by"] for one in events} == {"canary"}
                    deltas = [json.loads(one)["choices"] for one in events]
                    said = "".join(x[0]["delta"].get("content", "") for x in deltas if x)
                else:
                    assert found.json()["answered_by"] == who
                    assert int(found.headers["content-length"]) == len(found.content)
                    said = found.json()["choices"][0]["message"]["content"]
                assert said == (GOOD if who == "canary" else BAD)
        own = await client.post(CHAT, json={"input": MINE[0], "n": 1})
        assert own.headers["x-answered-by"] == "student"

    with_canary(gateway.Gateway(Student(BAD)), act)
    rows = read(settings.load())
    assert len(rows) == 2 * len(LINES)
    for row in rows:
        who = "canary" if row["input"]["text"] in MINE else "student"
        assert (row["by"], row["weights"]) == (who, trial[who])
        assert row["failed"] == ([] if who == "canary" else ["grounded"])
    after = [count("judged_total", by=who) for who in ("student", "canary")]
    judged = [b - a for a, b in zip(before, after, strict=True)]
    assert judged == [2 * (len(LINES) - len(MINE)), 2 * len(MINE)]
    assert count("failed_checks_total", check="grounded", by="student") == failed + judged[0]


@pytest.mark.parametrize("why", ["none", "500", "cut"])
def test_without_the_canary_the_student_answers_and_it_counts_against_it(
    trial: jsonl.Row, why: str, capfd: pytest.CaptureFixture[str]
) -> None:
    async def fails(request: web.Request) -> web.StreamResponse:
        if why == "cut":
            assert request.transport
            request.transport.close()
        return web.json_response({}, status=500)

    async def act(client: httpx.AsyncClient) -> None:
        for _ in range(2):
            found = await client.post(CHAT, json={"input": MINE[0]})
            assert (found.status_code, found.headers["x-answered-by"]) == (200, "student")
            assert found.headers["x-canary"] == "unavailable"
            assert found.json()["choices"][0]["message"]["content"] == BAD

    before = count("canary_unavailable_total")
    with_canary(gateway.Gateway(Student(BAD)), act, None if why == "none" else fails)
    assert count("canary_unavailable_total") == before + 2
    for row in read(settings.load()):
        assert (row["by"], row["canary"], row["weights"]) == (
            "student",
            "unavailable",
            trial["canary"],
        )
    assert capfd.readouterr().err.count("serve: no answer of the canary: ") == 1


def test_a_canary_that_dies_in_a_stream_tears_it_for_the_client_to_see() -> None:
    async def dies(request: web.Request) -> web.StreamResponse:
        reply = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await reply.prepare(request)
        await reply.write(b'data: {"choices": [{"delta": {"content": "half"}}]}\n\n')
        assert request.transport
        request.transport.close()
        return reply

    async def act(client: httpx.AsyncClient) -> None:
        with pytest.raises(ConnectionError, match="in the middle of a stream"):
            await client.post(CHAT, json={"input": MINE[0], "stream": True})

    with_canary(gateway.Gateway(Student(GOOD)), act, dies)
    with pytest.raises(UserError, match="has no rows"):
        read(settings.load())


def test_a_refusal_of_the_canary_passes_and_a_client_that_leaves_stops_it() -> None:
    stopped = asyncio.Event()

    async def slow(request: web.Request) -> web.StreamResponse:
        if (await request.json())["temperature"] == 2:
            return web.json_response({"error": {"message": "too long"}}, status=400)
        try:
            await asyncio.sleep(60)
        finally:
            stopped.set()
        return web.json_response({})

    async def act(client: httpx.AsyncClient) -> None:
        found = await client.post(CHAT, json={"input": MINE[0], "temperature": 2})
        assert (found.status_code, found.headers["x-answered-by"]) == (400, "canary")
        assert found.json() == {"error": {"message": "too long"}}
        body = json.dumps({"temperature": 0}).encode()
        waiting: list[dict[str, object]] = [{"type": "http.request", "body": body}]
        leave = asyncio.Event()

        async def receive() -> dict[str, object]:
            if waiting:
                return waiting.pop()
            await leave.wait()
            return {"type": "http.disconnect"}

        async def send(message: object) -> None:
            raise AssertionError(message)

        assert app.canary
        asked = asyncio.create_task(app.canary.remote({"path": CHAT}, receive, send))
        await asyncio.sleep(0.2)
        leave.set()
        await asyncio.wait_for(asked, 5)

    app = gateway.Gateway(Student(GOOD))
    with_canary(app, act, slow)


def test_the_end_of_a_trial_counts_at_once(trial: jsonl.Row) -> None:
    task = settings.load()
    own = {"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]}

    async def act(client: httpx.AsyncClient) -> None:
        async def who(body: object) -> str:
            return (await client.post(CHAT, json=body)).headers["x-answered-by"]

        other = next(line for line in LINES if line not in MINE)
        asked = [{"input": MINE[0]}, {"input": other}, own]
        for how, expected in (
            (None, ["canary", "student", "student"]),
            (served.PROMOTED, ["canary"] * 3),
            (served.BACK, ["student"] * 3),
        ):
            if how:
                served.end(task, trial, how)
            assert [await who(body) for body in asked] == expected

    with_canary(gateway.Gateway(Student(GOOD)), act)


def test_in_the_cascade_the_canarys_bad_answer_goes_to_the_teacher(
    trial: jsonl.Row,
    fake: FakeTeacher,
    teacher_params: SimpleNamespace,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def bad(request: web.Request) -> web.StreamResponse:
        return web.json_response(completion(BAD if "3" in await request.text() else GOOD))

    bads = [line for line in MINE if "3" in line]
    assert 0 < len(bads) < len(MINE)

    async def act(client: httpx.AsyncClient) -> None:
        async with teacher.connected():
            for line in MINE:
                found = await client.post(CHAT, json={"input": line})
                who = "teacher" if line in bads else "canary"
                assert (found.headers["x-answered-by"], found.json()["answered_by"]) == (who, who)
                said = found.json()["choices"][0]["message"]["content"]
                assert json.loads(said) == json.loads(GOOD)

    with standby.opened(settings.load(), teacher_params) as teacher:
        monkeypatch.setattr(cascade, "chosen", cascade.Settings(teacher))
        with_canary(cascade.Cascade(Student(GOOD)), act, bad)
    for row in read(settings.load()):
        assert row["weights"] == trial["canary"]
        assert row["by"] == ("teacher" if row["input"]["text"] in bads else "canary")


def test_a_trial_serves_copies_and_its_end_loses_nothing(
    trial: jsonl.Row, capsys: pytest.CaptureFixture[str]
) -> None:
    task = settings.load()
    student, second, home = Path("models/student"), Path("models/next"), Path("models/served")
    assert served.default(task) == student
    fakes.model("models/next", 16)  # as `make repro` would
    assert weights.folder_sha256(home / trial["canary"])[:12] == trial["canary"]
    assert served.end(task, trial, served.PROMOTED) == home / trial["canary"]
    assert served.default(task) == home / trial["canary"]
    says = f"{student} is another: `make serve CANARY={student}` tries it"
    assert says in capsys.readouterr().out
    assert served.end(task, trial, served.BACK) == home / trial["student"]
    assert served.default(task) == home / trial["student"]
    assert capsys.readouterr().out == ""  # models/student is the same
    # what was rolled back is not tried again by a restart, what was promoted is the student
    assert served.begin(task, student, home / trial["canary"], SHARE) is None
    assert "was rolled back, so the student answers alone; `rm " in capsys.readouterr().out
    assert served.begin(task, student, home / trial["student"], SHARE) is None
    assert "there is no canary" in capsys.readouterr().out
    assert served.begin(task, student, second, SHARE)  # another one is
    began = served.trial(task)
    assert began and (began["ended"], began["canary"]) == (None, served.name(second))
    jsonl.write_json(served_file(), began | {"began": "2026-01-01T00:00:00Z"})
    assert served.begin(task, student, second, 0.5)
    assert (again := served.trial(task)) and again["began"] == "2026-01-01T00:00:00Z"
    assert sorted(path.name for path in home.iterdir()) == sorted(
        [trial["student"], trial["canary"], again["canary"], "now", "trial.json"]
    )


@pytest.mark.parametrize(
    ("words", "capture", "error"),
    [
        (["--canary", "models/none"], 1, "models/none is missing, expected a model: name another"),
        (["--canary", "models/next"], 0, "serve.capture is 0, but `make canary` compares by what"),
        (["--canary", "models/next", "--share", "1"], 1, "SHARE is 1, expected a share between"),
        (["--student", "models/none"], 1, "models/none is missing, expected a model: name another"),
    ],
)
def test_what_cannot_be_tried_is_one_sentence(
    project: Project, monkeypatch: pytest.MonkeyPatch, words: list[str], capture: int, error: str
) -> None:
    project.set(serve_capture=capture)
    monkeypatch.setattr(sys, "argv", ["potstill serve", *words])
    with pytest.raises(UserError, match=error):
        serve.main()


@pytest.mark.parametrize("where", ["copy", "trial"])
def test_a_full_disk_leaves_the_trial_as_it_was(
    trial: jsonl.Row, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    def full(*args: object, **options: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    task, home = settings.load(), Path("models/served")
    before = sorted(home.iterdir()), served_file().read_bytes()
    fakes.model("models/next", 16)
    acts: dict[str, Callable[[], object]] = {
        "copy": lambda: served.begin(task, Path("models/student"), Path("models/next"), SHARE),
        "trial": lambda: served.end(task, trial, served.PROMOTED),
    }
    with monkeypatch.context() as patch:
        patch.setattr(*((shutil, "copyfile") if where == "copy" else (jsonl, "write_parts")), full)
        with pytest.raises(OSError, match="No space"):
            acts[where]()
    assert (sorted(home.iterdir()), served_file().read_bytes()) == before
    assert acts["trial"]() == served.default(task)  # the next try is whole


BEHIND = """
import sys
from aiohttp import web
from potstill.serving import canary
canary.ends_with_parent()
app = web.Application()
async def health(request):
    import os
    assert "SERVE_API_KEY" not in os.environ
    return web.Response()
app.router.add_get("/health", health)
try:
    web.run_app(app, path=sys.argv[1], print=None)
finally:
    open(sys.argv[1] + ".ended", "w").write("1")
"""
PARENT = f"""
import os, sys, time
from pathlib import Path
from potstill.serving import canary
chosen = canary.Settings("a", "b", 0.1, Path(sys.argv[1]), Path("t"))
with canary.started([sys.executable, "-c", {BEHIND!r}], chosen):
    print("started", flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize("end", ["quits", "killed"])
def test_the_canarys_server_ends_with_the_gateways(project: Project, end: str) -> None:
    with canary.room() as socket:
        assert socket.parent.stat().st_mode & 0o777 == 0o700
        parent = subprocess.Popen(
            [sys.executable, "-c", PARENT, str(socket)],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert parent.stdout and parent.stdin
        assert parent.stdout.readline() == b"started\n"
        if end == "killed":
            parent.send_signal(signal.SIGKILL)
        parent.stdin.close()
        assert parent.wait(30) == (0 if end == "quits" else -signal.SIGKILL)
        deadline = time.monotonic() + 60
        while not Path(f"{socket}.ended").exists():
            assert time.monotonic() < deadline
            time.sleep(0.05)


def test_a_canary_that_does_not_start_is_one_sentence(project: Project) -> None:
    chosen = canary.Settings("a", "b", 0.1, Path("s"), Path("t"))
    with (
        pytest.raises(UserError, match="the canary b does not start: see above"),
        canary.started([sys.executable, "-c", "raise SystemExit(1)"], chosen),
    ):
        raise AssertionError
