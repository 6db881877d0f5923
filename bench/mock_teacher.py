"""The teacher of bench.teacher: python -m bench.mock_teacher prints its base URL and serves until
standard input closes.

Any request to …/chat/completions gets the same small answer after the latency that was set.
`/start?latency=0.2` sets it and clears the ledger, `/calls` shows the ledger: calls, those of them
refused, the most under way at once, and the seconds from the first request to the last answer.
Further settings of `/start` refuse requests with 429 and `Retry-After: 1`: `refuse=0.15` that
share of them at random, `capacity=8` what is under way beyond, `rate=50` what a token bucket of so
many a second, which holds one second's, does not allow; `headers=1` tells its state by
`x-ratelimit-*`. Bare `web.Server`, no routes and no JSON: beside a client that is to be measured it
must cost next to nothing.
"""

import asyncio
import json
import math
import os
import random
import sys
import threading
import time
from dataclasses import asdict, dataclass

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


async def serve() -> None:
    ledger, reply = Ledger(), json.dumps(_REPLY).encode()

    async def handle(request: web.BaseRequest) -> web.Response:
        nonlocal ledger
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
    os._exit(0)


if __name__ == "__main__":
    threading.Thread(target=leave_with_the_parent, daemon=True).start()
    asyncio.run(serve())
