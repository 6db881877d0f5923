"""potstill.teacher against a fake endpoint: each answer asked once, faults survived or said in one sentence, no key shown."""

import asyncio
import json
import os
import signal
import socket
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from aiohttp import web

from potstill import rows, task, teacher
from potstill.errors import UserError
from potstill.teacher import client
from tests.conftest import KEY, Body, FakeTeacher, Project, completion

Behave = Callable[[int, Body, web.Request], Awaitable[web.StreamResponse | None]]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "FIRST_DELAY", 0.01)


def ask(count: int, params: SimpleNamespace, samples: int = 1) -> list[rows.Row]:
    inputs = [{"id": f"r{i}", "text": f"ends in word{i}"} for i in range(count)]
    return teacher.answer_rows(task.load("toy"), inputs, params, samples)


def journal_text() -> str:
    return Path(".cache/teacher/toy.jsonl").read_text()


def test_answers_come_in_order_and_are_asked_once(
    project: Project, fake: FakeTeacher, teacher_params: SimpleNamespace, capfd: pytest.CaptureFixture[str]
) -> None:
    first = ask(30, teacher_params, samples=2)
    assert [(row["id"], row["sample"]) for row in first] == [(f"r{i}", sample) for i in range(30) for sample in (0, 1)]
    assert first[6] == {
        "id": "r3",
        "sample": 0,
        "key": first[6]["key"],
        "answer": '{"word": "word3", "length": 5}',
        "finish_reason": "stop",
        "prompt_tokens": 7,
        "completion_tokens": 3,
        "error": None,
    }
    assert len(fake.calls) == 60
    messages = fake.calls[0].pop("messages")
    assert fake.calls[0] == {"model": "fake-235b", "temperature": 0.0, "max_tokens": 64, "seed": 0}
    assert messages[0] == {"role": "system", "content": "You find the last word. Answer with JSON only."}
    assert messages[1:] == [{"role": "user", "content": "ends in word0"}]
    said = capfd.readouterr().err
    assert "teacher fake-235b: 0 answers from the journal, 60 new in 60 requests (0 retries), 420 + 180 tokens" in said
    assert ask(30, teacher_params, samples=2) == first
    assert len(fake.calls) == 60
    assert "60 answers from the journal, none asked" in capfd.readouterr().err
    assert len(ask(31, teacher_params)) == 31
    assert len(fake.calls) == 61


@pytest.mark.parametrize(
    ("change", "calls"),
    [
        ({"teacher_concurrency": 1, "teacher_timeout": 9, "teacher_retries": 0}, 0),
        ({"teacher_max_tokens": 32}, 0),
        ({"teacher_max_tokens": 640}, 0),
        ({"teacher_temperature": 0}, 0),  # the same as 0.0
        ({"teacher_temperature": 0.7}, 4),
        ({"teacher_model": "another"}, 4),
    ],
)
def test_what_makes_a_question_new(
    project: Project, fake: FakeTeacher, teacher_params: SimpleNamespace, change: dict[str, object], calls: int
) -> None:
    ask(4, teacher_params)
    ask(4, SimpleNamespace(**{**vars(teacher_params), **change}))
    assert len(fake.calls) == 4 + calls


def test_an_edited_prompt_and_an_equal_input(
    project: Project, fake: FakeTeacher, teacher_params: SimpleNamespace
) -> None:
    t = task.load("toy")
    twins = [{"id": "a", "text": "x y"}, {"id": "b", "text": "x y"}]
    assert [row["answer"] for row in teacher.answer_rows(t, twins, teacher_params, 1)] == [
        '{"word": "y", "length": 1}'
    ] * 2
    assert len(fake.calls) == 1
    project.write("tasks/toy/prompts/teacher.md", "Another prompt.")
    teacher.answer_rows(task.load("toy"), twins, teacher_params, 1)
    assert len(fake.calls) == 2


def test_a_cut_off_answer_is_asked_again_with_more_room(
    project: Project, fake: FakeTeacher, teacher_params: SimpleNamespace
) -> None:
    async def cut(n: int, body: Body, request: web.Request) -> web.StreamResponse | None:
        return web.json_response(completion('{"wo', "length")) if body["max_tokens"] < 100 else None

    fake.behave = cut
    assert ask(3, teacher_params)[0]["finish_reason"] == "length"
    assert ask(3, teacher_params)[0]["finish_reason"] == "length"
    assert len(fake.calls) == 3
    teacher_params.teacher_max_tokens = 200
    assert ask(3, teacher_params)[0]["finish_reason"] == "stop"
    teacher_params.teacher_max_tokens = 64
    assert ask(3, teacher_params)[0]["finish_reason"] == "stop"
    assert len(fake.calls) == 6


def status(code: int, **headers: str) -> Behave:
    async def behave(n: int, body: Body, request: web.Request) -> web.StreamResponse | None:
        if n % 3 == 1:
            return web.json_response({"error": {"message": "busy"}}, status=code, headers=headers)
        return None

    return behave


async def reset(n: int, body: Body, request: web.Request) -> web.StreamResponse | None:
    if n % 3 == 1 and request.transport:
        request.transport.close()
    return None


async def torn_body(n: int, body: Body, request: web.Request) -> web.StreamResponse | None:
    if n % 3 != 1:
        return None
    reply = web.StreamResponse(headers={"Content-Type": "application/json"})
    reply.enable_chunked_encoding()
    await reply.prepare(request)
    await reply.write(json.dumps(completion("{}")).encode()[:30])
    assert request.transport
    request.transport.close()
    return reply


async def html(n: int, body: Body, request: web.Request) -> web.StreamResponse | None:
    return web.Response(text="<html>welcome</html>", content_type="text/html") if n % 3 == 1 else None


async def no_choices(n: int, body: Body, request: web.Request) -> web.StreamResponse | None:
    return web.json_response({"object": "chat.completion", "choices": []}) if n % 3 == 1 else None


async def never(n: int, body: Body, request: web.Request) -> web.StreamResponse | None:
    await asyncio.sleep(30 if n == 1 else 0)
    return None


@pytest.mark.parametrize(
    "behave",
    [
        status(500),
        status(503),
        status(429),
        status(429, **{"Retry-After": "0"}),
        reset,
        torn_body,
        html,
        no_choices,
    ],
)
def test_faults_that_pass_are_retried(
    project: Project, fake: FakeTeacher, teacher_params: SimpleNamespace, behave: Behave
) -> None:
    fake.behave = behave
    teacher_params.teacher_retries = 8
    found = ask(30, teacher_params)
    assert [row["answer"] for row in found] == [
        json.dumps({"word": f"word{i}", "length": len(f"word{i}")}) for i in range(30)
    ]
    assert [row["error"] for row in found] == [None] * 30
    assert len(fake.calls) == 30 + sum(n % 3 == 1 for n in range(len(fake.calls)))  # each fault costs one call, no more


def test_a_reply_that_does_not_come_is_asked_again_and_reported(
    project: Project, fake: FakeTeacher, teacher_params: SimpleNamespace, capfd: pytest.CaptureFixture[str]
) -> None:
    fake.behave, teacher_params.teacher_timeout = never, 1.5
    assert all(row["answer"] for row in ask(6, teacher_params))
    assert len(fake.calls) == 7
    assert "6 new in 7 requests (1 retries, 1 without a reply and possibly billed)" in capfd.readouterr().err


def test_nothing_is_sent_before_retry_after_is_over(
    project: Project, fake: FakeTeacher, teacher_params: SimpleNamespace
) -> None:
    times: list[float] = []

    async def once(n: int, body: Body, request: web.Request) -> web.StreamResponse | None:
        times.append(time.monotonic())
        return web.json_response({}, status=429, headers={"Retry-After": "1"}) if n == 0 else None

    fake.behave, teacher_params.teacher_concurrency = once, 1
    ask(5, teacher_params)
    assert len(times) == 6
    assert times[1] - times[0] >= 1


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "3"}, 3),
        ({"retry-after": "Thu, 01 Jan 1970 00:00:00 GMT"}, 0),
        ({"retry-after": "soon"}, None),
        ({}, None),
    ],
)
def test_retry_after(headers: dict[str, str], seconds: float | None) -> None:
    assert client._retry_after(headers) == seconds


@pytest.mark.parametrize(
    ("code", "headers", "expected"),
    [
        (
            401,
            {},
            r"answered 401 \(.*Incorrect API key: \*\*\*.*\): check TEACHER_API_KEY; 0 new answers are in the journal",
        ),
        (403, {}, r"answered 403 .*check TEACHER_API_KEY"),
        (404, {}, r"answered 404 .*check teacher_model and TEACHER_BASE_URL, which usually ends in /v1"),
        (429, {"Retry-After": "600"}, r"answered 429 .* asks to wait 600 s: run again then; 0 new answers"),
    ],
)
def test_what_no_retry_can_mend_stops_at_once(
    project: Project,
    fake: FakeTeacher,
    teacher_params: SimpleNamespace,
    capfd: pytest.CaptureFixture[str],
    code: int,
    headers: dict[str, str],
    expected: str,
) -> None:
    async def refuse(n: int, body: Body, request: web.Request) -> web.StreamResponse:
        return web.json_response({"error": {"message": f"Incorrect API key: {KEY}"}}, status=code, headers=headers)

    fake.behave = refuse
    with pytest.raises(UserError, match=expected) as error:
        ask(200, teacher_params)
    assert len(fake.calls) <= teacher_params.teacher_concurrency
    assert "\n" not in str(error.value)
    assert KEY not in str(error.value) + "".join(capfd.readouterr())


def test_rows_that_the_endpoint_refuses_are_told_apart(
    project: Project, fake: FakeTeacher, teacher_params: SimpleNamespace
) -> None:
    async def refuse(n: int, body: Body, request: web.Request) -> web.StreamResponse | None:
        bad = body["messages"][-1]["content"].endswith("word3")
        return web.json_response({"error": {"message": "content policy"}}, status=400) if bad else None

    fake.behave = refuse
    found = ask(6, teacher_params)
    assert [bool(row["error"]) for row in found] == [False, False, False, True, False, False]
    assert (found[3]["answer"], found[3]["finish_reason"]) == ("", None)
    assert found[3]["error"].startswith("400: ")
    assert "content policy" in found[3]["error"]
    assert len(fake.calls) == 6


@pytest.mark.parametrize(
    ("code", "count", "expected"),
    [
        (400, 50, r"^10 requests in a row failed, the last because 400: .*0 new answers"),
        (
            500,
            4,
            r"^4 of 4 requests got no answer in 2 tries each, the last because the teacher at http.* answered 500",
        ),
    ],
)
def test_an_endpoint_that_only_fails_ends_the_stage(
    project: Project, fake: FakeTeacher, teacher_params: SimpleNamespace, code: int, count: int, expected: str
) -> None:
    async def fail(n: int, body: Body, request: web.Request) -> web.StreamResponse:
        return web.json_response({"error": {"message": "no"}}, status=code)

    fake.behave, teacher_params.teacher_retries = fail, 1
    with pytest.raises(UserError, match=expected):
        ask(count, teacher_params)
    assert len(fake.calls) <= 2 * 16


def test_a_teacher_that_is_down_is_one_sentence(
    project: Project, teacher_params: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    monkeypatch.setenv("TEACHER_BASE_URL", f"http://127.0.0.1:{port}/v1")
    monkeypatch.setenv("TEACHER_API_KEY", KEY)
    with pytest.raises(UserError, match=rf"teacher at http://127.0.0.1:{port}/v1 cannot be reached"):
        ask(20, teacher_params)


@pytest.mark.parametrize(
    "url", ["nowhere/v1", "ftp://nowhere/v1", "https://user:hidden@nowhere/v1", "http://no where/v1"]
)
def test_an_address_that_is_none_is_not_repeated(
    project: Project, fake: FakeTeacher, teacher_params: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    monkeypatch.setenv("TEACHER_BASE_URL", url)
    with pytest.raises(UserError, match=r"TEACHER_BASE_URL is no address such as https://host/v1") as error:
        ask(1, teacher_params)
    assert url not in str(error.value)


@pytest.mark.parametrize("missing", ["TEACHER_BASE_URL", "TEACHER_API_KEY"])
def test_a_real_teacher_needs_the_environment(
    project: Project, fake: FakeTeacher, teacher_params: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    monkeypatch.delenv(missing)
    with pytest.raises(
        UserError, match=r"teacher_model is fake-235b, which needs TEACHER_BASE_URL .* and TEACHER_API_KEY"
    ):
        ask(1, teacher_params)


def test_the_key_is_kept_nowhere(
    project: Project, fake: FakeTeacher, teacher_params: SimpleNamespace, capfd: pytest.CaptureFixture[str]
) -> None:
    fake.behave = status(500)
    ask(10, teacher_params)
    assert KEY not in "".join(capfd.readouterr()) + journal_text() + repr(client.Endpoint(fake.url, "m", KEY))


def test_a_full_disk_stops_the_sending(
    project: Project, fake: FakeTeacher, teacher_params: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, room = os.write, [100, 0]

    def full(fd: int, data: bytes) -> int:
        left = room.pop(0) if room else 0
        if not left:
            raise OSError(28, "No space left on device")
        return real(fd, data[:left])

    with monkeypatch.context() as patch:
        patch.setattr("potstill.teacher.journal.os.write", full)
        with pytest.raises(OSError, match="No space left") as error:
            ask(400, teacher_params)
        assert error.value.filename == ".cache/teacher/toy.jsonl"
        assert len(fake.calls) < 200
    assert len(ask(400, teacher_params)) == 400


def test_a_signal_lets_the_answers_under_way_come_in(project: Project, fake: FakeTeacher) -> None:
    async def slow(n: int, body: Body, request: web.Request) -> web.StreamResponse | None:
        await asyncio.sleep(0.3)
        return None

    fake.behave = slow
    project.seeds(60)
    project.set(teacher_model="fake-235b", teacher_concurrency=8)
    stage = project.start("stages.generate")
    while len(fake.calls) < 12:
        assert stage.poll() is None
        time.sleep(0.02)
    stage.send_signal(signal.SIGTERM)
    out, _ = stage.communicate(timeout=20)
    assert stage.returncode == 130
    assert f"stopped: {len(fake.calls)} new answers are in the journal: the same command goes on from there" in out
    assert "Traceback" not in out
    assert not Path("data/toy/2-answers.jsonl").exists()
    before = len(fake.calls)
    assert before < 60
    fake.behave = None
    code, out = project.run("stages.generate")
    assert (code, len(fake.calls)) == (0, 60), out
    assert f"{before} answers from the journal" in out


def test_a_killed_stage_asks_again_for_little(
    project: Project, fake: FakeTeacher, teacher_params: SimpleNamespace
) -> None:
    seeds = project.seeds(300)
    project.set(teacher_model="fake-235b", teacher_concurrency=16)
    stage = project.start("stages.generate")
    while len(fake.calls) < 150:
        assert stage.poll() is None
        time.sleep(0.001)
    stage.kill()
    stage.communicate()
    code, out = project.run("stages.generate")
    assert code == 0, out
    assert len(fake.calls) <= 300 + 16 + 64
    killed = project.read("2-answers.jsonl")
    Path(".cache/teacher/toy.jsonl").unlink()
    teacher_params.teacher_max_tokens = 1024
    assert teacher.answer_rows(task.load("toy"), seeds, teacher_params, 1) == killed  # as an undisturbed run
