"""The middleware inside vLLM's server: who is let in, how much and how slowly they may send, and what a client may leave out.

vLLM's own key check leaves every path outside /v1 open. Here nothing but GET /health answers without the key and nothing outside ROUTES
answers at all. A client of the task sends the input alone, as the only user message or as `input`; the short prompt, the schema and
the settings that the student was evaluated with are added.
"""

import asyncio
import hmac
import json
import os
import signal
from typing import Any

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from potstill.core import params
from potstill.core.errors import UserError
from potstill.task import settings
from potstill.task.settings import Task

KEY, TASK = (
    "SERVE_API_KEY",
    "SERVE_TASK",
)  # in the environment, since vLLM makes a middleware without arguments
HEALTH = "/health"
ROUTES = {
    HEALTH: "GET",
    "/metrics": "GET",
    "/v1/models": "GET",
    "/v1/chat/completions": "POST",
    "/v1/completions": "POST",
}
MOST_HEAD = 64 << 10  # bytes of request line and headers
MOST_BODY = 256 << 10  # bytes; the longest prompt of a small student has far fewer
MOST_SENT = (
    32 << 20
)  # bytes; a body up to that is read and thrown away, so that the client gets to read its 413
MOST_KEYS = 100  # in the outermost object of a request; OpenAI's chat has some 40
SECONDS = 10.0  # for a request to come in whole
DRAIN = 30  # seconds for the answers under way when the server is told to stop


class Refused(Exception):
    """A request that is not passed on: status and one sentence."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Gateway:
    """ASGI middleware for the active task or SERVE_TASK; the key is SERVE_API_KEY."""

    def __init__(self, app: ASGIApp) -> None:
        p = params.load("predict.max_tokens")
        self.app, self.task = app, settings.load(os.environ.get(TASK) or p.task)
        self.key = api_key().encode()
        self.max_tokens = self.task.settled(p).predict.max_tokens
        self.format = response_format(self.task)
        self.under_way = 0
        self.ending: asyncio.Task[None] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":  # comes after vLLM has set its own handlers
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, self.end)
            return await self.app(scope, receive, send)
        if scope["type"] != "http":
            return await send({"type": "websocket.close", "code": 1008})
        self.under_way += 1
        try:
            await self._answer(scope, receive, send)
        finally:
            self.under_way -= 1

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            self._admit(scope)
            if scope["method"] == "POST":
                body = await _body(scope, receive)
                if body is None:
                    return None  # the client is gone
                given = _object(body)
                body = _json(
                    self.filled(given) if scope["path"] == "/v1/chat/completions" else given
                )
                scope, receive = _with_body(scope, receive, body)
        except Refused as refused:
            kind = "server_error" if refused.status >= 500 else "invalid_request_error"
            error = {"message": str(refused), "type": kind, "param": None, "code": refused.status}
            # A connection that is kept would go on reading a body that nobody wants.
            headers = {"connection": "close"}
            if refused.status == 405:
                headers["allow"] = ROUTES[scope["path"]]
            return await JSONResponse({"error": error}, refused.status, headers)(
                scope, receive, send
            )
        await self.app(scope, receive, send)

    def end(self) -> None:
        """What SIGTERM does: what is under way is answered, for DRAIN seconds, and nothing new is taken. Only then vLLM is told, as by
        Ctrl-C: by itself it answers newcomers with an empty text and status 200."""
        self.ending = self.ending or asyncio.ensure_future(self._drained())

    async def _drained(self) -> None:
        for _ in range(DRAIN * 20):
            if not self.under_way:
                break
            await asyncio.sleep(0.05)
        signal.raise_signal(signal.SIGINT)

    def _admit(self, scope: Scope) -> None:
        path, method = scope["path"], scope["method"]
        ending = Refused(503, "the server is shutting down: ask another one, or again in a while")
        if (path, method) == (HEALTH, "GET"):
            if self.ending:
                raise ending
            return
        kind, _, given = Headers(scope=scope).get("authorization", "").partition(" ")
        if kind.lower() != "bearer" or not hmac.compare_digest(given.strip().encode(), self.key):
            raise Refused(
                401, "wrong or missing key: expected the header `Authorization: Bearer <key>`"
            )
        if path not in ROUTES:
            raise Refused(404, f"no such path: expected one of {', '.join(ROUTES)}")
        if method != ROUTES[path]:
            raise Refused(405, f"{path} takes {ROUTES[path]}")
        if self.ending and path != "/metrics":
            raise ending

    def filled(self, body: dict[str, Any]) -> dict[str, Any]:
        """The chat request that vLLM gets. Whatever the client gives stays: messages of its own (with a system prompt, or
        several), another response_format, temperature or length. Raises Refused for an input that is not the task's."""
        given = {name: value for name, value in body.items() if value is not None}
        row, messages = given.pop("input", None), given.get("messages")
        if row is None and isinstance(messages, list) and len(messages) == 1:
            first = messages[0] if isinstance(messages[0], dict) else {}
            row = _text(first.get("content")) if first.get("role") == "user" else None
        if row is not None:
            try:
                given["messages"] = self.task.messages("student", self._row(row))
            except UserError as error:
                raise Refused(400, str(error)) from None
        given = {"model": self.task.name, "temperature": 0.0} | given
        if "max_tokens" not in given:
            given.setdefault("max_completion_tokens", self.max_tokens)
        if self.format and not given.keys() & {"structured_outputs", "tools"}:
            given.setdefault("response_format", self.format)
        return given

    def _row(self, given: object) -> dict[str, str]:
        """A row of the task's inputs from `input`: an object, or the text alone where the task has one input."""
        names = self.task.config["input"]
        if isinstance(given, str) and len(names) > 1:
            try:
                given = json.loads(given)
            except (ValueError, RecursionError):
                given = None
        row = {names[0]: given} if isinstance(given, str) else given
        texts = row.values() if isinstance(row, dict) else ()
        if not isinstance(row, dict) or row.keys() != set(names):
            raise Refused(
                400,
                f"the input is not the task's: expected {json.dumps(dict.fromkeys(names, '…'))}",
            )
        if not all(isinstance(text, str) and text.strip() for text in texts):
            raise Refused(
                400,
                f"the input is not the task's: expected texts that are not empty for {', '.join(names)}",
            )
        return row


def api_key() -> str:
    """The key that clients must send. Raises UserError when the environment has none, or none worth the name."""
    key = os.environ.get(KEY, "")
    if len(key) < 16 or not key.isascii() or not key.isprintable() or " " in key:
        found = "is not set" if not key else "is too short or has spaces"
        raise UserError(
            f"{KEY} {found}, expected the key that clients must send, 16 characters or more: `export {KEY}=$(openssl rand -hex 24)`"
        )
    return key


def response_format(t: Task) -> dict[str, Any] | None:
    """OpenAI's response_format with the task's schema; None where answers are plain text."""
    listed = [
        next(iter(entry)) if isinstance(entry, dict) else entry for entry in t.config["checks"]
    ]
    if "json_schema" not in listed:
        return None
    return {
        "type": "json_schema",
        "json_schema": {"name": t.name, "schema": t.schema, "strict": True},
    }


def _text(content: object) -> str | None:
    """The text of a message: a text, or OpenAI's list of text parts."""
    if isinstance(content, list) and all(
        isinstance(part, dict) and part.get("type") == "text" for part in content
    ):
        content = "".join(str(part.get("text", "")) for part in content)
    return content if isinstance(content, str) else None


async def _body(scope: Scope, receive: Receive) -> bytes | None:
    """The whole body; None when the client went away before. Raises Refused when it is too large."""
    too_large = Refused(413, f"the body is too large: expected at most {MOST_BODY:,} bytes")
    headers, found, size = Headers(scope=scope), bytearray(), 0
    if "expect" in headers and int(headers.get("content-length") or 0) > MOST_BODY:
        raise too_large  # to a client that asks before it sends
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        part = message.get("body", b"")
        size += len(part)
        found = found + part if size <= MOST_BODY else bytearray()
        if not message.get("more_body"):
            break
    if size > MOST_BODY:
        raise too_large
    return bytes(found)


def _object(body: bytes) -> dict[str, Any]:
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        raise Refused(400, "the body is not JSON") from None
    if not isinstance(found, dict) or len(found) > MOST_KEYS:
        raise Refused(
            400, f"the body is not a request: expected a JSON object with at most {MOST_KEYS} keys"
        )
    return found


def _json(body: dict[str, Any]) -> bytes:
    try:
        return json.dumps(body, ensure_ascii=False, allow_nan=False).encode()
    except (ValueError, RecursionError):  # halves of characters, no numbers, too many brackets
        raise Refused(400, "the body has a text or a number that JSON cannot carry") from None


def _with_body(scope: Scope, receive: Receive, body: bytes) -> tuple[Scope, Receive]:
    """The request with `body` for its own; after it the app waits for the client's going away, as without us."""
    told = (b"content-length", b"content-type", b"transfer-encoding")
    headers = [(name, value) for name, value in scope["headers"] if name not in told]
    headers += [
        (b"content-length", str(len(body)).encode()),
        (b"content-type", b"application/json"),
    ]
    waiting = [body]

    async def replay() -> Message:
        if waiting:
            return {"type": "http.request", "body": waiting.pop(), "more_body": False}
        return await receive()

    return {**scope, "headers": headers}, replay


class Protocol(HttpToolsProtocol):
    """uvicorn's protocol, whose only clock runs between two requests, with a deadline for a request to come in whole and a limit
    to its head; both hold whatever the app has answered meanwhile."""

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
        if self._sent > (MOST_HEAD if self._in_head else MOST_SENT):
            self._end(
                b"431 Request Header Fields Too Large"
                if self._in_head
                else b"413 Content Too Large"
            )

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
            self.transport.write(
                b"HTTP/1.1 %b\r\nconnection: close\r\ncontent-length: 0\r\n\r\n" % status
            )
        self.transport.close()
