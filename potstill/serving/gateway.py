"""The middleware inside vLLM's server: it checks key, path, size and speed of each request, and
fills in what a client may leave out.

vLLM's own key check leaves every path outside /v1 open. Here only GET /health answers without the
key, and no path outside ROUTES answers at all. A client sends the input alone, as the only user
message or as `input`; the prompt, schema and settings of the student's evaluation are added.
"""

import asyncio
import hmac
import json
import os
import signal
import time
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from potstill.checks import registry
from potstill.core import params
from potstill.core.errors import UserError
from potstill.core.jsonl import Row
from potstill.inference.quoting import Grammars
from potstill.serving import canary, metrics
from potstill.serving.canary import HEADER, Canary
from potstill.serving.capture import MOST_REPLY, Recorder, Served
from potstill.task import settings
from potstill.task.settings import Task

KEY = "SERVE_API_KEY"  # in the environment: vLLM makes a middleware without arguments
HEALTH, CHAT = "/health", "/v1/chat/completions"
ROUTES = dict.fromkeys((HEALTH, "/metrics", "/v1/models"), "GET")
ROUTES |= dict.fromkeys((CHAT, "/v1/completions"), "POST")
FORMATS = {"response_format", "structured_outputs", "tools"}  # of what the answer is, in a request
# What a request may have and still be the task's: another length, schema or number of answers is a
# question of the client's own.
OURS = {"input", "messages", "model", "user", "stream", "stream_options", "temperature", "top_p"}
OURS |= {"seed", "store", "metadata"}
MOST_HEAD = 64 << 10  # bytes of request line and headers
MOST_BODY = 256 << 10  # bytes; the longest prompt of a small student has far fewer
MOST_SENT = 32 << 20  # bytes of a body that are read, so that the client gets to see its 413
MOST_KEYS = 100  # in the outermost object of a request; OpenAI's chat has some 40
SECONDS = 10.0  # for a request to come in whole
DRAIN = 30  # seconds for the answers under way when the server is told to stop


class Gateway:
    """ASGI middleware for the task of the working folder; the key is SERVE_API_KEY."""

    def __init__(self, app: ASGIApp) -> None:
        self.app, self.task = app, settings.load()
        self.key = api_key().encode()
        given = params.load("predict", "serve")
        p = given.predict
        self.recorder = Recorder(self.task, given.serve)
        self.canary = Canary(app, canary.chosen) if canary.chosen else None
        self.max_tokens = p.max_tokens
        self.format = response_format(self.task)
        self.grammars = Grammars(self.task) if p.grounded else None
        self.under_way = 0
        self.ending: asyncio.Task[None] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":  # comes after vLLM has set its own handlers
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, self.end)
            return await self.app(scope, receive, self._until_end(send))
        if scope["type"] != "http":
            return await send({"type": "websocket.close", "code": 1008})
        self.under_way += 1
        start, status, headers = time.perf_counter(), 0, Headers()

        async def told(message: Message) -> None:
            nonlocal status, headers
            if message["type"] == "http.response.start":
                status, headers = message["status"], Headers(raw=message["headers"])
            await send(message)

        try:
            await self._answer(scope, receive, told)
        finally:
            self.under_way -= 1
            if scope["method"] == "POST":  # the others are of probes and of Prometheus
                metrics.REQUESTS.labels(metrics.outcome(status)).inc()
                if status == 200:
                    seconds = time.perf_counter() - start
                    metrics.ANSWERED.labels(headers.get(HEADER, "student")).observe(seconds)

    def _until_end(self, send: Send) -> Send:
        """Sends on what the app says of its life; before its last word, what waits is kept."""

        async def told(message: Message) -> None:
            if message["type"] == "lifespan.shutdown.complete":
                await asyncio.to_thread(self.recorder.close)
                if self.canary:
                    await self.canary.remote.close()
            await send(message)

        return told

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            self._admit(scope)
            if scope["method"] != "POST":
                return await self.app(scope, receive, send)
            given = self._request(await _body(Request(scope, receive)))
            body = self.dumped(self.filled(given) if scope["path"] == CHAT else given)
            return await self.forward(given, *with_body(scope, receive, body), send)
        except ClientDisconnect:
            return None
        except HTTPException as refused:
            code, message = refused.status_code, refused.detail
            kind = "server_error" if code >= 500 else "invalid_request_error"
            error = {"message": message, "type": kind, "param": None, "code": code}
            # A connection that is kept would go on reading a body that nobody wants.
            headers = {"connection": "close", **(refused.headers or {})}
            response = JSONResponse({"error": error}, code, headers)
            return await response(scope, receive, send)

    async def forward(
        self, given: dict[str, Any], scope: Scope, receive: Receive, send: Send
    ) -> None:
        """Answers a request that was let in; `given` is what the client sent."""
        row = self.ours(given) if scope["path"] == CHAT else None
        send = send if row is None else self.heard(row, send)
        await self.student(row, scope, receive, canary.named(send) if self.canary else send)

    async def student(self, row: Row | None, scope: Scope, receive: Receive, send: Send) -> None:
        """Has the student answer, or the one on trial; `row` is None for a question of the client's
        own."""
        if self.canary:
            return await self.canary.answer(row, scope, receive, send)
        await self.app(scope, receive, send)

    def ours(self, given: dict[str, Any]) -> dict[str, str] | None:
        """The input of a chat request; None for a question of the client's own."""
        own = {name for name, value in given.items() if value is not None} - OURS
        return None if own else self.row(given)

    def heard(self, row: Row, send: Send) -> Send:
        """Sends on what the app sends, and hands it to the recorder when it was sent whole."""
        parts: list[bytes] = []
        size, good, headers = 0, False, Headers()

        async def told(message: Message) -> None:
            nonlocal size, good, headers
            await send(message)
            if message["type"] == "http.response.start":
                good, headers = message["status"] == 200, Headers(raw=message["headers"])
            elif message["type"] == "http.response.body" and good:
                size += len(message.get("body", b""))
                good = size <= MOST_REPLY
                parts.append(message.get("body", b""))
                if good and not message.get("more_body"):
                    self.recorder.put(self.served(row, b"".join(parts), headers))

        return told

    def served(self, row: Row, reply: bytes, headers: Headers) -> Served:
        """A student's reply, and of which student."""
        more = self.canary.says(headers) if self.canary else None
        return Served(row, reply, by=headers.get(HEADER, "student"), more=more)

    def end(self) -> None:
        """Stops the server, as SIGTERM asks: answers under way get DRAIN seconds, new requests are
        refused. Only then vLLM is told, as by Ctrl-C: told at once it would answer new requests
        with an empty text and status 200."""
        self.ending = self.ending or asyncio.ensure_future(self._drained())

    async def _drained(self) -> None:
        for _ in range(DRAIN * 20):
            if not self.under_way:
                break
            await asyncio.sleep(0.05)
        signal.raise_signal(signal.SIGINT)

    def _admit(self, scope: Scope) -> None:
        path, method = scope["path"], scope["method"]
        kind, _, given = Headers(scope=scope).get("authorization", "").partition(" ")
        right = hmac.compare_digest(given.strip().encode(), self.key) and kind.lower() == "bearer"
        if not right and (path, method) != (HEALTH, "GET"):
            expected = "expected the header `Authorization: Bearer <key>`"
            raise HTTPException(401, f"wrong or missing key: {expected}")
        if path not in ROUTES:
            raise HTTPException(404, f"no such path: expected one of {', '.join(ROUTES)}")
        if method != ROUTES[path]:
            raise HTTPException(405, f"{path} takes {ROUTES[path]}", {"allow": ROUTES[path]})
        if self.ending and path != "/metrics":
            raise HTTPException(
                503, "the server is shutting down: ask another, or again in a while"
            )

    def _request(self, body: bytes) -> dict[str, Any]:
        """The body of a request. Raises HTTPException for one that is none."""
        try:
            given = json.loads(body)
        except (ValueError, RecursionError):
            raise HTTPException(400, "the body is not JSON") from None
        if not isinstance(given, dict) or len(given) > MOST_KEYS:
            expected = f"expected a JSON object with at most {MOST_KEYS} keys"
            raise HTTPException(400, f"the body is not a request: {expected}")
        return given

    def dumped(self, given: dict[str, Any]) -> bytes:
        """The body that vLLM gets. Raises HTTPException for what no JSON can carry."""
        try:
            return json.dumps(given, ensure_ascii=False, allow_nan=False).encode()
        except (ValueError, RecursionError):  # half a character, NaN, too many brackets
            message = "the body has a text or a number that JSON cannot carry"
            raise HTTPException(400, message) from None

    def filled(self, body: dict[str, Any]) -> dict[str, Any]:
        """The chat request that vLLM gets. What the client gives stays: a chat with a system
        message or several messages, a response_format, a temperature, a length. Raises
        HTTPException for an input that is not the task's."""
        given = {name: value for name, value in body.items() if value is not None}
        wanted = given.keys() & FORMATS
        if (row := self.row(given)) is not None:
            try:
                given["messages"] = self.task.messages("student", row)
            except UserError as error:
                raise HTTPException(400, str(error)) from None
            if self.grammars and not wanted:
                given["structured_outputs"] = {"grammar": self.grammars.of(row)}
        given.pop("input", None)
        given = {"model": self.task.name, "temperature": 0.0} | given
        if "max_tokens" not in given:
            given.setdefault("max_completion_tokens", self.max_tokens)
        if self.format and not given.keys() & FORMATS:
            given["response_format"] = self.format
        return given

    def row(self, body: dict[str, Any]) -> dict[str, str] | None:
        """The input of a chat request; None for a chat of the client's own. Raises HTTPException
        for an input that is not the task's."""
        row = body.get("input")
        match row, body.get("messages"):
            case None, [{"role": "user", "content": content}]:
                row = _text(content)
        return None if row is None else self._row(row)

    def _row(self, given: object) -> dict[str, str]:
        """A row of the task's inputs from `input`: an object, its JSON, or the text alone where the
        task has one input. Raises HTTPException for anything else."""
        names = self.task.config["input"]
        if isinstance(given, str):
            try:
                given = json.loads(given) if len(names) > 1 else {names[0]: given}
            except (ValueError, RecursionError):
                given = None
        if not isinstance(given, dict) or given.keys() != set(names):
            expected = json.dumps(dict.fromkeys(names, "…"))
        elif not all(isinstance(text, str) and text.strip() for text in given.values()):
            expected = f"texts that are not empty for {', '.join(names)}"
        else:
            return given
        raise HTTPException(400, f"the input is not the task's: expected {expected}")


def api_key() -> str:
    """The key that clients must send. Raises UserError when SERVE_API_KEY is not set, is shorter
    than 16 characters or has other characters than printable ASCII ones."""
    key = os.environ.get(KEY, "")
    if len(key) < 16 or not key.isascii() or not key.isprintable() or " " in key:
        found = "is too short or has spaces" if key else "is not set"
        raise UserError(
            f"{KEY} {found}, expected the key that clients must send, 16 characters or more: "
            f"`export {KEY}=$(openssl rand -hex 24)`"
        )
    return key


def response_format(t: Task) -> dict[str, Any] | None:
    """OpenAI's response_format with the task's schema; None where answers are plain text."""
    if not registry.is_json(t):
        return None
    schema = {"name": t.name, "schema": t.schema, "strict": True}
    return {"type": "json_schema", "json_schema": schema}


def _text(content: object) -> str | None:
    """The text of a message: a text, or OpenAI's list of text parts."""
    if isinstance(content, list) and all(
        isinstance(part, dict) and part.get("type") == "text" for part in content
    ):
        content = "".join(str(part.get("text", "")) for part in content)
    return content if isinstance(content, str) else None


async def _body(request: Request) -> bytes:
    """The whole body. Raises HTTPException when it is too large, ClientDisconnect when the client
    leaves before its end."""
    too_large = HTTPException(413, f"the body is too large: expected at most {MOST_BODY:,} bytes")
    headers, body, size = request.headers, bytearray(), 0
    if "expect" in headers and int(headers.get("content-length") or 0) > MOST_BODY:
        raise too_large  # to a client that asks before it sends
    async for part in request.stream():
        size += len(part)
        if size <= MOST_BODY:
            body += part
    if size > MOST_BODY:
        raise too_large
    return bytes(body)


def with_body(scope: Scope, receive: Receive, body: bytes) -> tuple[Scope, Receive]:
    """The request with `body` as its own. After the body the app waits for the client to leave, as
    it would without the gateway."""
    headers = MutableHeaders(raw=list(scope["headers"]))
    headers.update({"content-length": str(len(body)), "content-type": "application/json"})
    del headers["transfer-encoding"]
    waiting: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        return waiting.pop() if waiting else await receive()

    return {**scope, "headers": headers.raw}, replay


class Protocol(HttpToolsProtocol):
    """uvicorn's protocol with a deadline for a request to come in whole and limits to its head and
    body; they hold whatever the app has answered meanwhile. uvicorn's own clock runs between two
    requests only."""

    _clock: Any = None
    _sent = 0  # bytes of the request
    _in_head = True

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._start()

    def data_received(self, data: bytes) -> None:
        self._start()
        self._sent += len(data)
        super().data_received(data)
        if self._in_head and self._sent > MOST_HEAD:
            self._end(b"431 Request Header Fields Too Large")
        elif self._sent > MOST_SENT:
            self._end(b"413 Content Too Large")

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._start()

    def on_headers_complete(self) -> None:
        self._in_head = False
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._sent, self._in_head = 0, True
        self._stop()
        super().on_message_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop()
        super().connection_lost(exc)

    def _start(self) -> None:
        if self._clock is None:
            self._clock = self.loop.call_later(SECONDS, self._end, b"408 Request Timeout")

    def _stop(self) -> None:
        if self._clock is not None:
            self._clock.cancel()
            self._clock = None

    def _end(self, status: bytes) -> None:
        if self.transport.is_closing():
            return
        if self.cycle is None or self.cycle.response_complete or not self.cycle.response_started:
            head = b"HTTP/1.1 %b\r\nconnection: close\r\ncontent-length: 0\r\n\r\n" % status
            self.transport.write(head)
        self.transport.close()
