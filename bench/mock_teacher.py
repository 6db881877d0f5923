"""The teacher of bench.teacher: python -m bench.mock_teacher prints its base URL and serves until
standard input closes.

Any request to …/chat/completions gets the same small answer after the latency that was set.
`/start?latency=0.2` sets it and clears the ledger, `/calls` shows the ledger: calls, those of them
refused, the most under way at once, and the seconds from the first request to the last answer.
Further settings of `/start` refuse requests with 429 and `Retry-After: 1`: `refuse=0.15` that
share of them at random, `capacity=8` what is under way beyond, `rate=50` what a token bucket of so
many a second, which holds one second's, does not allow; `headers=1` tells its state by
`x-ratelimit-*`. …/files and …/batches answer whole files of requests by the second look, and their
calls are in the ledger, too, `twice` those of a request that had been answered already.
Bare `web.Server`, no routes and no JSON: beside a client that is to be measured it
must cost next to nothing.
"""

import asyncio
import json
import math
import os
import random
import signal
import sys
import tempfile
import threading
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from aiohttp import web

ANSWER = '{"word": "Kunming", "length": 7}'
_MESSAGE = {"role": "assistant", "content": ANSWER}
_REPLY = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 0,
    "model": "mock",
    "choices": [{"index": 0, "message": _MESSAGE, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 42, "completion_tokens": 11, "total_tokens": 53},
}


@dataclass
class Ledger:
    """What was asked since the last /start."""

    latency: float = 0.0
    refuse: float = 0.0
    capacity: float = math.inf
    rate: float = math.inf
    headers: float = 0.0
    calls: int = 0
    twice: int = 0
    refused: int = 0
    flying: int = 0
    most: int = 0
    first: float = 0.0
    last: float = 0.0
    filled: float = 0.0  # when the bucket's tokens were counted
    tokens: float = math.inf

    def refuses(self) -> bool:
        """Whether the request that came now is refused."""
        now, self.filled = time.monotonic() - self.filled, time.monotonic()
        if self.rate < math.inf:
            self.tokens = min(self.rate, self.tokens + now * self.rate)
        bad = self.flying > self.capacity or self.tokens < 1 or random.random() < self.refuse
        self.refused += bad
        self.tokens -= not bad
        return bad

    def state(self) -> dict[str, str]:
        """What the headers of a reply say of the bucket."""
        if not self.headers:
            return {}
        reset = (self.rate - self.tokens) / self.rate
        left = {"x-ratelimit-remaining-requests": str(int(self.tokens))}
        return left | {"x-ratelimit-reset-requests": f"{1000 * reset:.0f}ms"}


class Batches:
    """/files and /batches, whose files lie in a folder."""

    HEAD, KEY = b'{"custom_id":"', 32  # how a line of requests begins, and how long a key is

    def __init__(self, folder: Path) -> None:
        self.folder, self.files = folder, 0
        self.batches: dict[str, dict[str, Any]] = {}
        self.answered: set[bytes] = set()

    async def handle(self, request: web.BaseRequest, now: Ledger) -> web.StreamResponse:
        """The reply to a request under …/files or …/batches."""
        name = request.path.split("/")[3:]
        if request.path.endswith("/files"):
            path = self.path()
            with path.open("wb") as file:  # with the marks of multipart/form-data
                async for piece in request.content.iter_chunked(1 << 16):
                    file.write(piece)
            return web.json_response({"id": path.name})
        if request.path.endswith("/content"):
            response = web.StreamResponse()
            await response.prepare(request)
            with (self.folder / name[0]).open("rb") as file:
                while piece := file.read(1 << 16):
                    await response.write(piece)
            return response
        if request.method == "POST":
            batch = await request.json() | {"id": f"batch_{len(self.batches)}"}
            self.batches[batch["id"]] = batch | {"status": "validating"}
        elif not name:
            return web.json_response({"data": [], "has_more": False})
        else:
            batch = self.batches[name[0]]
            if batch["status"] == "in_progress":
                self.answer(batch, now)
            elif batch["status"] == "validating":
                batch["status"] = "in_progress"
        return web.json_response(batch)

    def path(self) -> Path:
        self.files += 1
        return self.folder / f"file-{self.files}"

    def answer(self, batch: dict[str, Any], now: Ledger) -> None:
        """Completes a batch."""
        rest = json.dumps({"response": {"status_code": 200, "body": _REPLY}, "error": None})
        end, start, path = rest[1:].encode() + b"\n", len(self.HEAD), self.path()
        count, now.first = 0, now.first or time.monotonic()
        with (self.folder / batch["input_file_id"]).open("rb") as asked, path.open("wb") as out:
            for line in asked:
                if line.startswith(self.HEAD):
                    key = line[start : start + self.KEY]
                    now.twice += key in self.answered
                    self.answered.add(key)
                    out.write(self.HEAD + key + b'",' + end)
                    count += 1
        now.calls += count
        now.last = time.monotonic()
        batch |= {"status": "completed", "output_file_id": path.name}
        batch["request_counts"] = {"total": count, "completed": count, "failed": 0}


async def serve(folder: Path) -> None:
    ledger, reply, batches = Ledger(), json.dumps(_REPLY).encode(), Batches(folder)

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        nonlocal ledger
        if request.path.split("/")[2:3] in (["files"], ["batches"]):
            return await batches.handle(request, ledger)
        if request.path == "/start":
            ledger = Ledger()
            for name, value in request.query.items():
                setattr(ledger, name, float(value))
        if not request.path.endswith("/chat/completions"):
            return web.json_response(asdict(ledger) | {"seconds": ledger.last - ledger.first})
        now = ledger
        now.first = now.first or time.monotonic()
        now.calls += 1
        now.flying += 1
        now.most = max(now.most, now.flying)
        await request.read()
        if now.refuses():
            now.flying -= 1
            wait = now.state() | {"Retry-After": "1"}
            return web.Response(status=429, body=b'{"error": {"message": "busy"}}', headers=wait)
        await asyncio.sleep(now.latency)
        now.flying -= 1
        now.last = time.monotonic()
        headers = now.state()
        return web.Response(body=reply, content_type="application/json", headers=headers)

    runner = web.ServerRunner(web.Server(handle, access_log=None))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, backlog=4096).start()  # 512 connect at once
    print(f"http://127.0.0.1:{runner.addresses[0][1]}/v1", flush=True)
    await asyncio.Event().wait()


def leave_with_the_parent() -> None:
    sys.stdin.buffer.read()
    os.kill(os.getpid(), signal.SIGINT)  # its files go with it


if __name__ == "__main__":
    threading.Thread(target=leave_with_the_parent, daemon=True).start()
    with tempfile.TemporaryDirectory() as name, suppress(KeyboardInterrupt):
        asyncio.run(serve(Path(name)))
