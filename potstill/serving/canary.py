"""`make serve CANARY=FOLDER SHARE=0.1`: a second student answers a share of the inputs.

It is vLLM's server in a process of its own, on a Unix socket that only this user may open; the
gateway stands before both. An input goes to one of the two by its hash, so always to the same one:
a client that asks again is told the same, each different input is drawn once, and what draws it has
nothing to do with when or how often it is asked, which Fisher's exact test needs.

A reply says who answered, in the header `x-answered-by` and the field `answered_by`. Where the
canary gives no answer the student does, with the header `x-canary: unavailable`; it counts against
the canary. `make canary` ends a trial (served.py), and a server that runs it knows within a second.
"""

import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from potstill.core.errors import UserError
from potstill.core.jsonl import Row
from potstill.serving import metrics, served
from potstill.serving.capture import order

HEADER, FIELD = "x-answered-by", "answered_by"
FLAG = "x-canary"
LOOK = 1.0  # seconds between two looks at the file of the trial
WAIT = 600  # seconds for the canary's server to start
END = 40  # seconds for it to end, when it has answers under way


@dataclass
class Settings:
    """The names of the two students, the share of the inputs that the canary gets, its socket, and
    the file that says how the trial ended."""

    student: str
    canary: str
    share: float
    socket: Path
    trial: Path


# vLLM makes a middleware without arguments: `make serve` leaves them here
chosen: Settings | None = None


class Canary:
    """Who answers: the app `student` of this process, or the canary's server."""

    def __init__(self, student: ASGIApp, settings: Settings) -> None:
        self.student, self.settings = student, settings
        self.remote = Remote(settings.socket)
        self._ended: str | None = None
        self._looked = 0.0
        self._said = False

    def ended(self) -> str | None:
        """How the trial ended; None while it is on, and where its file cannot be read."""
        if (now := time.monotonic()) - self._looked > LOOK:
            self._looked = now
            try:
                self._ended = json.loads(self.settings.trial.read_bytes())["ended"]
            except (OSError, ValueError, KeyError):
                self._ended = None
        return self._ended

    def picks(self, row: Row | None) -> bool:
        """Whether the canary answers; of a client's own question only when it was promoted."""
        if ended := self.ended():
            return ended == served.PROMOTED
        try:
            return row is not None and drawn(row, self.settings.share)
        except UnicodeEncodeError:  # half a character: it is refused later
            return False

    async def answer(self, row: Row | None, scope: Scope, receive: Receive, send: Send) -> None:
        """Has the input answered by one of the two; the reply's header says by which. Raises
        ConnectionError where the canary ends in the middle of a stream, so that the client sees
        that its answer is torn."""
        if not self.picks(row):
            return await self.student(scope, receive, headed(send, {HEADER: "student"}))
        body = (await receive()).get("body", b"")
        try:
            await self.remote(scope, replayed(body, receive), headed(send, {HEADER: "canary"}))
        except Gone as error:
            metrics.CANARY_UNAVAILABLE.inc()
            if not self._said:
                print(f"serve: no answer of the canary: {error}", file=sys.stderr, flush=True)
            self._said = True
            headers = {HEADER: "student", FLAG: "unavailable"}
            await self.student(scope, replayed(body, receive), headed(send, headers))
        else:
            self._said = False

    def says(self, headers: Headers) -> Row:
        """What a kept row says of a reply with these headers: the student as which it counts."""
        if FLAG in headers:
            return {"weights": self.settings.canary, "canary": headers[FLAG]}
        canary = headers.get(HEADER) == "canary"
        return {"weights": self.settings.canary if canary else self.settings.student}


class Gone(Exception):
    """The canary's server gives no answer, and nothing was sent to the client yet."""


class Remote:
    """The app of another server, on a Unix socket."""

    def __init__(self, socket: Path) -> None:
        self.socket = socket
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        """Ends its connections."""
        if self._session:
            await self._session.close()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers as the other server does, and stops it when the client leaves. Raises Gone where
        it gives no whole answer before anything was sent, and ConnectionError after that."""
        body = (await receive()).get("body", b"")
        work = asyncio.ensure_future(self._pass(scope, body, send))
        left = asyncio.ensure_future(_left(receive))
        try:
            await asyncio.wait({work, left}, return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                await work
        finally:
            for one in (work, left):
                one.cancel()
            await asyncio.gather(work, left, return_exceptions=True)

    async def _pass(self, scope: Scope, body: bytes, send: Send) -> None:
        if self._session is None:
            connector = aiohttp.UnixConnector(str(self.socket), limit=0)
            never = aiohttp.ClientTimeout(total=None, sock_connect=5)
            self._session = aiohttp.ClientSession(
                "http://canary", connector=connector, timeout=never, trust_env=False
            )
        headers = {"content-type": "application/json", "accept-encoding": "identity"}
        begun = False
        try:
            async with self._session.post(scope["path"], data=body, headers=headers) as reply:
                if reply.status >= 500:
                    raise Gone(f"it says {reply.status}")
                kept = [
                    (name.lower().encode(), value.encode())
                    for name, value in reply.headers.items()
                    if name.lower() in ("content-type", "content-length")
                ]
                start = {"type": "http.response.start", "status": reply.status, "headers": kept}
                stream = reply.content_type == "text/event-stream"
                part = b"" if stream else await reply.read()
                begun = True
                await send(start)
                if stream:
                    async for some in reply.content.iter_any():
                        await send({"type": "http.response.body", "body": some, "more_body": True})
                await send({"type": "http.response.body", "body": part, "more_body": False})
        except (aiohttp.ClientError, OSError) as error:
            if begun:
                raise ConnectionError("the canary ended in the middle of a stream") from None
            raise Gone(f"{type(error).__name__}: {error}") from None


async def _left(receive: Receive) -> None:
    """Waits for the client to leave."""
    while (await receive())["type"] != "http.disconnect":
        pass


def drawn(row: Row, share: float) -> bool:
    """Whether an input is the canary's: by its own hash, which has nothing to do with the one that
    decides what is kept."""
    return int.from_bytes(order("canary", row)[:8], "big") < share * 2**64


def replayed(body: bytes, receive: Receive) -> Receive:
    """The whole body first, then what `receive` says."""
    waiting: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        return waiting.pop() if waiting else await receive()

    return replay


def headed(send: Send, headers: dict[str, str]) -> Send:
    """Sends on what the app sends, with the headers that it has not itself."""

    async def told(message: Message) -> None:
        if message["type"] == "http.response.start":
            own = MutableHeaders(raw=list(message["headers"]))
            for name, value in headers.items():
                own.setdefault(name, value)
            message = {**message, "headers": own.raw}
        await send(message)

    return told


def named(send: Send) -> Send:
    """Sends on what the app sends; a whole reply and each event of a stream get the field that says
    who answered, as the header does."""
    start: Message | None = None
    rest, name, stream = b"", b"", False

    async def told(message: Message) -> None:
        nonlocal start, rest, name, stream
        if message["type"] == "http.response.start":
            headers = Headers(raw=message["headers"])
            name = json.dumps({FIELD: headers.get(HEADER, "student")}).encode()[:-1] + b", "
            stream = headers.get("content-type", "").startswith("text/event-stream")
            if message["status"] == 200 and not stream:
                start = message
            else:
                await send(message)
            return
        body = message.get("body", b"")
        if start:  # vLLM sends a whole reply in one piece
            if body[:1] == b"{":
                body = name + body[1:]
                own = MutableHeaders(raw=list(start["headers"]))
                if "content-length" in own:
                    size = int(own["content-length"]) + len(name) - 1
                    own["content-length"] = str(size)
                start = {**start, "headers": own.raw}
            await send(start)
            start = None
        elif stream:
            *events, rest = (rest + body).split(b"\n\n")
            body = b"".join(_named(event, name) + b"\n\n" for event in events)
            if not message.get("more_body"):
                body += rest
            elif not body:
                return
        await send({**message, "body": body})

    return told


def _named(event: bytes, name: bytes) -> bytes:
    head, brace, data = event.partition(b"{")
    return head + name + data if head == b"data: " and brace else event


@contextmanager
def started(command: list[str], settings: Settings) -> Iterator[None]:
    """Runs the canary's server, whose `command` gets the socket; it can be asked when this begins.
    Raises UserError when it ends before that, or takes longer than WAIT seconds."""
    env = {k: v for k, v in os.environ.items() if k not in ("SERVE_API_KEY", "TEACHER_API_KEY")}
    # A session of its own: Ctrl-C in the terminal is for the gateway, which has answers under way.
    process = subprocess.Popen(
        [*command, str(settings.socket)], stdin=subprocess.PIPE, env=env, start_new_session=True
    )
    try:
        deadline = time.monotonic() + WAIT
        while not _there(settings.socket):
            if process.poll() is not None:
                raise UserError(f"the canary {settings.canary} does not start: see above")
            if time.monotonic() > deadline:
                raise UserError(f"the canary {settings.canary} did not start within {WAIT} s")
            time.sleep(0.2)
        yield
    finally:
        assert process.stdin
        process.stdin.close()  # tells it to end, as this process's own end does (`ends_with`)
        try:
            process.wait(END)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _there(socket: Path) -> bool:
    import httpx

    if not socket.exists():
        return False
    try:
        with httpx.Client(transport=httpx.HTTPTransport(uds=str(socket)), timeout=5) as client:
            return client.get("http://canary/health").status_code == 200
    except httpx.HTTPError:
        return False


def ends_with_parent() -> None:
    """Ends this process as Ctrl-C does when its standard input is closed: however the process ends
    that has started it, no server without a gateway stays behind."""

    def wait() -> None:
        sys.stdin.buffer.read()
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(END - 5)
        os.killpg(0, signal.SIGKILL)

    threading.Thread(target=wait, daemon=True).start()


@contextmanager
def room() -> Iterator[Path]:
    """The path of a socket in a folder that only this user may enter."""
    with tempfile.TemporaryDirectory(prefix="potstill-") as folder:
        yield Path(folder, "canary")
