"""`make serve CASCADE=1`: who answers, what it costs, and what the table says of it beforehand. The
middleware stands around a stand-in for vLLM's app, whose answers the test decides."""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from aiohttp import web
from starlette.types import Message, Receive, Scope, Send

from potstill.serving import cascade, gateway, serve, standby
from potstill.task import settings
from tests.conftest import Body, FakeTeacher, Project, completion

KEY = "canary-key-5f3a-91bc"
CHAT = "/v1/chat/completions"
LINE = "a line that ends in word1"
GOOD, BAD = '{"word": "word1", "length": 5}', '{"word": "no", "length": 2}'
Ask = Callable[[httpx.AsyncClient], Awaitable[None]]


class Student:
    """vLLM's app with one answer; `bodies` are the requests that reached it."""

    def __init__(self, answer: str, reason: str = "stop", status: int = 200) -> None:
        self.answer, self.reason, self.status = answer, reason, status
        self.bodies: list[Body] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            assert (await receive())["type"] == "lifespan.startup"
            await send({"type": "lifespan.startup.complete"})
            assert (await receive())["type"] == "lifespan.shutdown"
            return await send({"type": "lifespan.shutdown.complete"})
        self.bodies.append(json.loads((await receive()).get("body") or b"{}"))
        said = completion(self.answer, self.reason) | {"id": "chatcmpl-1", "created": 7}
        gone = self.reason == "gone"  # vLLM sends null to a client that has left
        body = b"null" if gone else json.dumps(said | {"model": "toy"}).encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        await send({"type": "http.response.body", "body": body, "more_body": False})


@pytest.fixture
def key(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(gateway.KEY, KEY)


def serving(
    student: Student, act: Ask, params: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, **how: Any
) -> None:
    """Runs `act` with a client of a server whose lifespan is on, as under uvicorn."""
    with standby.opened(settings.load(), params) as teacher:
        monkeypatch.setattr(cascade, "chosen", cascade.Settings(teacher, **how))
        app = cascade.Cascade(student)

        async def main() -> None:
            told: asyncio.Queue[Message] = asyncio.Queue()
            said: asyncio.Queue[Message] = asyncio.Queue()
            life = asyncio.create_task(app({"type": "lifespan"}, told.get, said.put))
            await told.put({"type": "lifespan.startup"})
            assert (await said.get())["type"] == "lifespan.startup.complete"
            headers = {"Authorization": f"Bearer {KEY}"}
            transport = httpx.ASGITransport(app)
            async with httpx.AsyncClient(
                transport=transport, base_url="http://here", headers=headers
            ) as client:
                await act(client)
            await told.put({"type": "lifespan.shutdown"})
            await life

        asyncio.run(main())


@pytest.mark.parametrize(
    ("answer", "reason", "who"),
    [
        (GOOD, "stop", "student"),
        (GOOD, "length", "teacher"),  # cut off
        (BAD, "stop", "teacher"),  # not in the input
        ('{"word": "word1"', "stop", "teacher"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_what_fails_a_check_goes_to_the_teacher_once(
    key: None,
    fake: FakeTeacher,
    teacher_params: SimpleNamespace,
    monkeypatch: pytest.MonkeyPatch,
    answer: str,
    reason: str,
    who: str,
    stream: bool,
) -> None:
    student = Student(answer, reason)

    async def act(client: httpx.AsyncClient) -> None:
        options = {"stream": True, "stream_options": {"include_usage": True}} if stream else {}
        for _ in range(2):
            found = await client.post(CHAT, json={"input": LINE, **options})
            assert (found.status_code, found.headers["x-answered-by"]) == (200, who)
            if stream:
                assert found.headers["content-type"].startswith("text/event-stream")
                *parts, done = [x.removeprefix("data: ") for x in found.text.split("\n\n") if x]
                text, end, usage = map(json.loads, parts)
                assert (done, text["object"]) == ("[DONE]", "chat.completion.chunk")
                assert json.loads(text["choices"][0]["delta"]["content"]) == json.loads(GOOD)
                assert (end["choices"][0]["finish_reason"], usage["choices"]) == ("stop", [])
                assert {one["answered_by"] for one in (text, end, usage)} == {who}
            else:
                reply = found.json()
                assert json.loads(reply["choices"][0]["message"]["content"]) == json.loads(GOOD)
                assert (reply["answered_by"], "failed_checks" in reply) == (who, False)
                assert reply["model"] == {"student": "toy", "teacher": "fake-235b"}[who]
        assert len(fake.calls) == (who == "teacher")  # then the journal has it
        assert not {"stream", "stream_options"} & student.bodies[0].keys()

    serving(student, act, teacher_params, monkeypatch)
    if who == "teacher":
        assert [one["content"] for one in fake.calls[0]["messages"]] == [
            "You find the last word. Answer with JSON only.",
            LINE,
        ]


@pytest.mark.parametrize(
    "body",
    [
        {"input": LINE, "max_tokens": 1},
        {"input": LINE, "n": 2},
        {"input": LINE, "response_format": {"type": "text"}},
        {"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]},
    ],
)
def test_a_question_of_the_clients_own_is_the_students_alone(
    key: None,
    fake: FakeTeacher,
    teacher_params: SimpleNamespace,
    monkeypatch: pytest.MonkeyPatch,
    body: Body,
) -> None:
    async def act(client: httpx.AsyncClient) -> None:
        found = await client.post(CHAT, json=body)
        assert found.headers["x-answered-by"] == "student"
        assert found.json()["choices"][0]["message"]["content"] == BAD
        assert "answered_by" not in found.json()
        assert "x-answered-by" not in (await client.get("/metrics")).headers
        wrong = await client.post(CHAT, json={"input": " "})
        assert wrong.status_code == 400

    serving(Student(BAD), act, teacher_params, monkeypatch)
    assert not fake.calls


def test_streams_may_be_the_students_alone_and_its_errors_pass(
    key: None, fake: FakeTeacher, teacher_params: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def streamed(client: httpx.AsyncClient) -> None:
        found = await client.post(CHAT, json={"input": LINE, "stream": True})
        assert found.headers["x-answered-by"] == "student"

    student = Student(BAD)
    serving(student, streamed, teacher_params, monkeypatch, stream="student")
    assert student.bodies[0]["stream"] is True

    async def failed(client: httpx.AsyncClient) -> None:
        found = await client.post(CHAT, json={"input": LINE})
        assert (found.status_code, "answered_by" in found.json()) == (400, False)

    serving(Student(BAD, status=400), failed, teacher_params, monkeypatch)

    async def left(client: httpx.AsyncClient) -> None:
        assert (await client.post(CHAT, json={"input": LINE})).text == "null"

    serving(Student(BAD, "gone"), left, teacher_params, monkeypatch)
    assert not fake.calls


@pytest.mark.parametrize("down", cascade.DOWN)
@pytest.mark.parametrize("why", ["budget", "status", "late", "refusal", "gone", "prompt"])
def test_a_teacher_that_gives_no_answer_is_a_flag_or_503(
    project: Project,
    key: None,
    fake: FakeTeacher,
    teacher_params: SimpleNamespace,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    down: str,
    why: str,
) -> None:
    async def behave(n: int, body: Body, request: web.Request) -> web.StreamResponse | None:
        if why == "late":
            await asyncio.sleep(0.6)
        if why == "status":
            return web.json_response({"error": {"message": "no such key"}}, status=401)
        if why == "refusal":
            reply = completion("")
            reply["choices"][0]["message"]["refusal"] = "I will not"
            return web.json_response(reply)
        return None

    fake.behave = behave
    teacher_params.retries = 0
    if why == "budget":
        vars(teacher_params).update(price_in=1.0, price_out=1.0, budget=1e-9)
    if why == "late":
        teacher_params.timeout = 0.3
    if why == "prompt":
        project.write("prompts/teacher.md", "{{ category }}")
    if why == "gone":
        monkeypatch.setenv("TEACHER_BASE_URL", "http://127.0.0.1:9/v1")

    async def act(client: httpx.AsyncClient) -> None:
        for _ in range(2):
            found = await client.post(CHAT, json={"input": LINE})
            if down == "503":
                assert found.status_code == 503
                assert found.json()["error"]["message"].startswith("the student's answer fails")
                continue
            assert (found.status_code, found.headers["x-answered-by"]) == (200, "student")
            assert found.headers["x-teacher"] == "unavailable"
            reply = found.json()
            assert reply["choices"][0]["message"]["content"] == BAD
            assert (reply["answered_by"], reply["failed_checks"]) == ("student", ["grounded: word"])

    serving(Student(BAD), act, teacher_params, monkeypatch, down=down)
    assert capfd.readouterr().err.count("serve: no answer of the teacher: ") >= 1
    if why in ("budget", "prompt"):
        assert not fake.calls


def test_a_bad_answer_of_the_teacher_says_so(
    key: None, fake: FakeTeacher, teacher_params: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def behave(n: int, body: Body, request: web.Request) -> web.StreamResponse:
        return web.json_response(completion(f"```json\n{GOOD}\n```" if n else BAD))

    fake.behave = behave

    async def act(client: httpx.AsyncClient) -> None:
        bad = (await client.post(CHAT, json={"input": LINE})).json()
        assert bad["answered_by"] == "teacher" and len(bad["failed_checks"]) == 1
        wrapped = (await client.post(CHAT, json={"input": f"again {LINE}"})).json()
        assert wrapped["choices"][0]["message"]["content"].strip() == GOOD  # as it would be learnt
        assert "failed_checks" not in wrapped

    serving(Student(BAD), act, teacher_params, monkeypatch)


def test_equal_questions_at_once_are_asked_once(
    key: None, fake: FakeTeacher, teacher_params: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def act(client: httpx.AsyncClient) -> None:
        asked = [client.post(CHAT, json={"input": f"{n % 4} {LINE}"}) for n in range(40)]
        found = await asyncio.gather(*asked)
        assert {one.headers["x-answered-by"] for one in found} == {"teacher"}
        assert len(fake.calls) == 4

    serving(Student(BAD), act, teacher_params, monkeypatch)


def test_an_answer_that_passes_takes_no_time(
    key: None, fake: FakeTeacher, teacher_params: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole way through gateway, cascade and the test's own client takes less than 10 ms, p95,
    of this process's time, which no other program on the machine lengthens."""

    async def act(client: httpx.AsyncClient) -> None:
        took = []
        for _ in range(100):
            start = time.process_time()
            await client.post(CHAT, json={"input": LINE})
            took.append(time.process_time() - start)
        assert sorted(took)[95] < 0.01

    serving(Student(GOOD), act, teacher_params, monkeypatch)


def test_the_command_line_says_what_it_is_worth_before_it_starts(
    project: Project, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    toy = settings.load()
    with serve.with_teacher(toy, "student", "503"):
        assert cascade.chosen and (cascade.chosen.stream, cascade.chosen.down) == ("student", "503")
    assert "cascade.csv is missing, which says what the cascade is worth: `make eval`" in (
        capsys.readouterr().out
    )
    project.set(teacher_model="big", teacher_budget=None)
    monkeypatch.setenv("TEACHER_BASE_URL", "http://127.0.0.1:9/v1")
    monkeypatch.setenv("TEACHER_API_KEY", KEY)
    with serve.with_teacher(toy, "buffered", "student"):
        assert "teacher.budget is null: nothing caps" in capsys.readouterr().out
    module, _, name = serve.CASCADE.rpartition(".")
    assert module == cascade.__name__ and getattr(cascade, name) is cascade.Cascade
