"""The middleware and the protocol of `make serve` around a stand-in for vLLM's app, which answers
with what it got."""

import asyncio
import json
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from starlette.types import Receive, Scope, Send

from potstill.core.errors import UserError
from potstill.inference.quoting import Grammars
from potstill.serving import gateway
from potstill.task import settings
from tests.conftest import TOY_SCHEMA, Project

KEY = "canary-key-5f3a-91bc"
AUTH = {"Authorization": f"Bearer {KEY}"}
CHAT = "/v1/chat/completions"
GOT = [{"role": "system", "content": "last word"}, {"role": "user", "content": "a line"}]


class Echo:
    """What vLLM would get is the answer; a body with "slow" is answered in pieces, without end."""

    def __init__(self) -> None:
        self.gone = threading.Event()
        self.calls = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        self.calls += 1
        body = b""
        if scope["method"] == "POST":
            message = await receive()
            body = message["body"]
            assert not message["more_body"]
            told = dict(scope["headers"])
            assert told[b"content-length"] == str(len(body)).encode()
            assert told[b"content-type"] == b"application/json"  # vLLM refuses curl's own
        headers = [(b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        if b"slow" in body:
            await send({"type": "http.response.body", "body": b"data: 1\n\n", "more_body": True})
            assert (await receive())["type"] == "http.disconnect"
            self.gone.set()
            return
        await send({"type": "http.response.body", "body": body or b"{}", "more_body": False})


@pytest.fixture
def echo(project: Project, monkeypatch: pytest.MonkeyPatch) -> Echo:
    monkeypatch.setenv(gateway.KEY, KEY)
    return Echo()


def ask(app: Any, method: str, path: str, **more: Any) -> httpx.Response:
    """One request to an app in this process."""

    async def one() -> httpx.Response:
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(app), base_url="http://here"
        ) as client:
            return await client.request(method, path, **more)

    return asyncio.run(one())


def passed(echo: Echo, body: Any) -> dict[str, Any]:
    """The chat request that reaches vLLM."""
    found = ask(gateway.Gateway(echo), "POST", CHAT, headers=AUTH, json=body)
    assert found.status_code == 200, found.text
    return found.json()


@pytest.mark.parametrize(
    "body",
    [
        {"input": "a line"},
        {"input": {"text": "a line"}},
        {"input": "a line", "messages": []},
        {"messages": [{"role": "user", "content": "a line"}], "model": None},
        {
            "messages": [
                {
                    "role": "user",
                    "content": [{"type": "text", "text": "a "}, {"type": "text", "text": "line"}],
                }
            ]
        },
    ],
)
def test_a_client_sends_the_input_alone(echo: Echo, body: Any) -> None:
    schema = {
        "type": "json_schema",
        "json_schema": {"name": "toy", "schema": TOY_SCHEMA, "strict": True},
    }
    expected = {"model": "toy", "messages": GOT, "temperature": 0.0, "response_format": schema}
    assert passed(echo, body) == expected | {"max_completion_tokens": 512}


def test_where_predict_grounded_is_true_an_input_gets_its_grammar(
    echo: Echo, project: Project
) -> None:
    project.set(predict_grounded=True)
    got = passed(echo, {"input": "a line"})
    expected = Grammars(settings.load()).of({"text": "a line"})
    assert got["structured_outputs"] == {"grammar": expected} and "response_format" not in got
    chat = [{"role": "system", "content": "mine"}, *GOT[1:]]
    assert passed(echo, {"messages": chat})["response_format"]["type"] == "json_schema"
    own = {"input": "a line", "response_format": {"type": "text"}}
    assert "structured_outputs" not in passed(echo, own)


def test_what_a_client_gives_stays(echo: Echo) -> None:
    body = {
        "model": "another",
        "messages": [{"role": "system", "content": "mine"}, {"role": "user", "content": "a line"}],
        "temperature": 0.5,
        "max_tokens": 7,
        "response_format": {"type": "text"},
        "stream": True,
    }
    assert passed(echo, body) == body
    turns = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b"},
        {"role": "user", "content": "c"},
    ]
    assert passed(echo, {"messages": turns})["messages"] == turns
    assert "response_format" not in passed(
        echo, {"input": "a", "structured_outputs": {"regex": "a"}}
    )
    body = {"model": "toy", "prompt": "as it is"}
    assert (
        ask(gateway.Gateway(echo), "POST", "/v1/completions", headers=AUTH, json=body).json()
        == body
    )


def test_a_task_with_several_inputs_and_plain_text(project: Project, echo: Echo) -> None:
    project.write("task.yaml", 'input: [a, b]\nuser: "{{ a }}/{{ b }}"\nchecks: [language]\n')
    for given in (
        {"input": {"a": "x", "b": "y"}},
        {"messages": [{"role": "user", "content": '{"a": "x", "b": "y"}'}]},
    ):
        found = passed(echo, given)
        assert found["messages"][-1]["content"] == "x/y"
        assert "response_format" not in found
    for wrong in (
        "x",
        {"a": "x"},
        {"a": "x", "b": " "},
        {"a": "x", "b": 1},
        {"a": "x", "b": "y", "c": "z"},
        3,
        ["x"],
    ):
        refused = ask(gateway.Gateway(echo), "POST", CHAT, headers=AUTH, json={"input": wrong})
        assert refused.status_code == 400
        assert "the input is not the task's" in refused.json()["error"]["message"]


@pytest.mark.parametrize(
    "path",
    [*gateway.ROUTES, "/", "/docs", "/ping", "/invocations", "/metricsx", "/v1/load_lora_adapter"],
)
@pytest.mark.parametrize(
    "key",
    [None, "", "Bearer", "Bearer wrong-key", f"Basic {KEY}", f"Bearer {KEY[:-1]}", "Bearer \x80"],
)
def test_nothing_answers_without_the_key_but_health(echo: Echo, path: str, key: str | None) -> None:
    headers = [] if key is None else [(b"authorization", key.encode("latin-1"))]
    for method in ("GET", "POST", "OPTIONS", "HEAD", "DELETE"):
        found = ask(gateway.Gateway(echo), method, path, headers=headers)
        if (path, method) == (gateway.HEALTH, "GET"):
            assert found.status_code == 200
        else:
            assert found.status_code == 401
            assert KEY not in found.text
    assert echo.calls == (path == gateway.HEALTH)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/metrics", 200),
        ("GET", "/v1/models", 200),
        ("GET", CHAT, 405),
        ("POST", "/v1/models", 405),
        ("GET", "/metrics/", 404),
        ("GET", "/metricsx", 404),
        ("POST", "//v1/chat/completions", 404),
        ("POST", f"{CHAT}/render", 404),
        ("POST", "/v1/load_lora_adapter", 404),
        ("POST", "/invocations", 404),
        ("GET", "/docs", 404),
    ],
)
def test_only_the_listed_paths_answer_with_the_key(
    echo: Echo, method: str, path: str, status: int
) -> None:
    assert ask(gateway.Gateway(echo), method, path, headers=AUTH).status_code == status


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"{", 400),
        (b"[1]", 400),
        (b'"text"', 400),
        (b"\xff\xfe", 400),
        (b"[" * 100_000, 400),
        (b'{"n": ' + b"9" * 5000 + b"}", 400),
        (b'{"temperature": NaN, "input": "a"}', 400),
        (b'{"input": "\\ud800"}', 400),
        (json.dumps({f"key{i}": i for i in range(10_000)}).encode(), 400),
        (b" " * (10 << 20), 413),
        (b'{"input": "' + b"a" * gateway.MOST_BODY + b'"}', 413),
        (b'{"input": "' + b"a" * (gateway.MOST_BODY - 100) + b'"}', 200),
    ],
)
def test_bad_bodies_are_refused_with_a_sentence(echo: Echo, body: bytes, status: int) -> None:
    found = ask(gateway.Gateway(echo), "POST", CHAT, headers=AUTH, content=body)
    assert found.status_code == status
    assert echo.calls == (status == 200)
    if status != 200:
        assert found.json()["error"]["code"] == status
        assert found.headers["connection"] == "close"


@pytest.mark.parametrize("key", ["", "short", "with spaces in the key", "schlüssel-mit-umlaut"])
def test_a_bad_key_in_the_environment_is_one_sentence(
    project: Project, monkeypatch: Any, key: str
) -> None:
    monkeypatch.setenv(gateway.KEY, key)
    with pytest.raises(
        UserError, match="SERVE_API_KEY (is not set|is too short or has spaces), expected"
    ):
        gateway.api_key()


def test_the_task_is_that_of_the_working_folder(
    echo: Echo, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.write("tasks/other/task.yaml", "input: [text]\n")
    project.write("tasks/other/prompts/student.md", "another prompt\n")
    project.write("tasks/other/params.yaml", Path("params.yaml").read_text(encoding="utf-8"))
    monkeypatch.chdir("tasks/other")
    found = passed(echo, {"input": "a"})
    assert found["messages"][0]["content"] == "another prompt"
    assert found["model"] == "other"
    assert gateway.response_format(settings.load()) is None


def test_sigterm_answers_what_is_under_way_and_refuses_the_rest(
    echo: Echo, monkeypatch: pytest.MonkeyPatch
) -> None:
    raised: list[int] = []
    monkeypatch.setattr(signal, "raise_signal", raised.append)
    go = asyncio.Event()

    async def waiting(scope: Scope, receive: Receive, send: Send) -> None:
        await go.wait()
        await echo(scope, receive, send)

    async def story() -> list[int]:
        app = gateway.Gateway(waiting)
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(app), base_url="http://here", headers=AUTH
        ) as client:
            first = asyncio.create_task(client.post(CHAT, json={"input": "a"}))
            while not app.under_way:
                await asyncio.sleep(0)
            app.end()
            app.end()  # a second signal changes nothing
            later = [
                await client.post(CHAT, json={"input": "b"}),
                await client.get("/health", headers={"Authorization": ""}),
            ]
            await asyncio.sleep(0.1)
            assert raised == []
            go.set()
            assert app.ending
            answered = await first
            await app.ending
            return [answered.status_code, *(one.status_code for one in later)]

    assert asyncio.run(story()) == [200, 503, 503]
    assert raised == [signal.SIGINT]


# A real socket: what only the protocol sees.


@pytest.fixture
def port(echo: Echo) -> Iterator[int]:
    """uvicorn with our protocol and the middleware around the stand-in."""
    app = gateway.Gateway(echo)
    config = uvicorn.Config(
        app, port=0, http=gateway.Protocol, ws="none", log_level="critical", lifespan="off"
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield server.servers[0].sockets[0].getsockname()[1]
    connections = server.server_state.connections
    deadline = time.monotonic() + 30
    while connections and time.monotonic() < deadline:
        time.sleep(0.05)
    left = len(connections)
    server.should_exit = True
    thread.join(10)
    assert left == 0  # nothing leaks
    assert not thread.is_alive()


def talk(port: int, *parts: bytes, pause: float = 0.0) -> bytes:
    """Sends the parts and gives all that comes back until the server closes; no more is sent once
    it has."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        try:
            for part in parts:
                connection.sendall(part)
                time.sleep(pause)
        except OSError:
            pass
        found = b""
        try:
            while some := connection.recv(65536):
                found += some
        except OSError:
            pass
        return found


def head(path: str = CHAT, *more: str) -> bytes:
    return "\r\n".join(
        [f"POST {path} HTTP/1.1", "Host: here", f"Authorization: Bearer {KEY}", *more, "", ""]
    ).encode()


SLOW = {
    "nothing at all": [],
    "half a head": [b"GET /health HTTP/1.1\r\nX: "],
    "a head, byte by byte": [
        bytes([byte]) for byte in b"GET /health HTTP/1.1\r\n" + b"X: " + b"a" * 40
    ],
    "empty lines": [b"\r\n"] * 40,
    "half a body": [head(CHAT, "Content-Length: 100"), b"{"],
    "a body, byte by byte": [head(CHAT, "Content-Length: 100"), *[b" "] * 40],
    "a chunked body without end": [head(CHAT, "Transfer-Encoding: chunked"), *[b"1\r\n \r\n"] * 40],
}


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """A request may take half a second to come in."""
    monkeypatch.setattr(gateway, "SECONDS", 0.5)


@pytest.mark.usefixtures("soon")
@pytest.mark.parametrize("name", SLOW)
def test_slow_clients_are_cut_off(port: int, name: str) -> None:
    start = time.monotonic()
    assert talk(port, *SLOW[name], pause=0.05).startswith(b"HTTP/1.1 408 ")
    assert time.monotonic() - start < 5


@pytest.mark.usefixtures("soon")
def test_a_body_that_nobody_waits_for_keeps_no_connection(port: int) -> None:
    """A wrong key is answered at once and /health before its body is there: neither may hold the
    connection open."""
    wrong = b"POST /v1/completions HTTP/1.1\r\nHost: here\r\nContent-Length: 100000\r\n\r\n"
    assert talk(port, wrong, *[b" "] * 40, pause=0.05).startswith(b"HTTP/1.1 401 ")
    health = b"GET /health HTTP/1.1\r\nHost: here\r\nContent-Length: 100000\r\n\r\n"
    assert talk(port, health, *[b" "] * 40, pause=0.05).startswith(b"HTTP/1.1 200 ")


def test_large_heads_and_bodies_are_cut_off(port: int) -> None:
    assert talk(port, head(CHAT, "X: " + "a" * (1 << 20))).startswith(b"HTTP/1.1 431 ")
    many = [f"X{i}: {'a' * 1000}" for i in range(1000)]
    assert b"HTTP/1.1 431 " in talk(port, head(CHAT, *many))
    ten = head(CHAT, f"Content-Length: {10 << 20}") + b" " * (10 << 20)
    assert talk(port, ten).startswith(b"HTTP/1.1 413 ")
    asking = head(CHAT, f"Content-Length: {10 << 20}", "Expect: 100-continue")
    assert talk(port, asking).startswith(b"HTTP/1.1 413 ")
    found = talk(
        port,
        head(CHAT, "Transfer-Encoding: chunked"),
        *[b"100000\r\n" + b" " * (1 << 20) + b"\r\n"] * 60,
    )
    assert not found or found.startswith(
        b"HTTP/1.1 413 "
    )  # a client that never stops sending may not see it


@pytest.mark.usefixtures("soon")
def test_a_client_that_goes_away_mid_stream_stops_the_answer(port: int, echo: Echo) -> None:
    body = json.dumps({"input": "slow", "stream": True}).encode()
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(head(CHAT, f"Content-Length: {len(body)}") + body)
        while b"data: 1" not in connection.recv(65536):
            pass
        time.sleep(0.7)  # longer than a request may take to come in: an answer may take its time
        assert not echo.gone.is_set()
    assert echo.gone.wait(5)


def test_a_kept_connection_serves_many_requests(port: int) -> None:
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=AUTH) as client:
        for i in range(20):
            found = client.post(CHAT, json={"input": f"line {i}"}).json()
            assert found["messages"][-1]["content"] == f"line {i}"
        assert client.get("/health").status_code == 200
