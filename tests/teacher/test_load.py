"""potstill.teacher.client against endpoints that answer 429, in a time of its own: a client's
minutes take a second here, however busy the machine is."""

import asyncio
import random
import selectors
import time
from collections import defaultdict
from collections.abc import Callable, Coroutine, Iterator
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest

from potstill.core.errors import UserError
from potstill.core.jsonl import Row
from potstill.teacher.client import PATIENCE, Client
from potstill.teacher.endpoint import Request
from potstill.teacher.journal import Used
from potstill.teacher.refusal import Retry, judge, rates

LATENCY, CONCURRENCY = 0.05, 64
Runs = Callable[[Coroutine[Any, Any, None]], float]


class Clock(selectors.DefaultSelector):
    """Never waits: the time that would have passed is added to `now`."""

    now = 1000.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self.now += timeout or 0.0
        return super().select(0)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Iterator[Runs]:
    """Runs a coroutine in the clock's time; gives the seconds that it took there."""
    clock = Clock()
    loop = asyncio.SelectorEventLoop(clock)
    monkeypatch.setattr(loop, "time", lambda: clock.now)
    monkeypatch.setattr(time, "monotonic", lambda: clock.now)
    random.seed(1)

    def runs(main: Coroutine[Any, Any, None]) -> float:
        start = clock.now
        loop.run_until_complete(main)
        return clock.now - start

    yield runs
    loop.close()


class Memory:
    """A journal that keeps its rows in memory."""

    def __init__(self) -> None:
        self.used: defaultdict[str, Used] = defaultdict(Used)
        self.rows: list[Row] = []

    def has(self, key: str, room: int) -> bool:
        return False

    def failed(self, key: str) -> bool:
        return False

    def add(self, row: Row) -> None:
        self.rows.append(row)

    async def settle(self) -> None:
        pass

    async def put(self, row: Row) -> None:
        self.add(row)

    async def flush(self) -> None:
        pass


class Fake:
    """An endpoint that answers after LATENCY, or refuses sooner with 429 and the headers that
    `refuses` gives; `state` is what it says of its limits, `best` what it can answer a second."""

    best = CONCURRENCY / LATENCY

    def __init__(self, params: SimpleNamespace) -> None:
        self.params, self.model = params, "fake"
        self.stopping = asyncio.Event()
        self.answered, self.asked, self.ambiguous = False, 0, 0
        self.flying = self.refused = self.most = 0
        self.sent: list[tuple[float, str]] = []  # when, and which row
        self.flying_at: list[int] = []  # how many were under way then
        self.hear: Callable[[Any, float | None], None] = lambda rates, sent: None

    def refuses(self, key: str) -> dict[str, str] | None:
        return None

    def state(self) -> dict[str, str]:
        return {}

    async def ask(self, request: Request) -> Row:
        sent = time.monotonic()
        self.asked += 1
        self.sent.append((sent, request.key))
        self.flying += 1
        self.flying_at.append(self.flying)
        self.most = max(self.most, self.flying)
        await asyncio.sleep(LATENCY * random.uniform(0.05, 0.15))
        try:
            if (headers := self.refuses(request.key)) is not None:
                self.refused += 1
                self.hear(rates(headers | self.state()), None)
                failure = judge("it", 429, headers, '{"error": {"message": "busy"}}', True)
                assert isinstance(failure, Retry)
                raise failure
            await asyncio.sleep(LATENCY * random.uniform(0.8, 1.0))
        finally:
            self.flying -= 1
        self.hear(rates(self.state()), sent)
        self.answered = True
        return self.row(request.key, "yes", "stop", 7, 3)

    def row(self, key: str, answer: str, reason: str, *counts: int) -> Row:
        named = zip(("prompt_tokens", "completion_tokens"), counts, strict=True)
        return {"key": key, "answer": answer, "finish_reason": reason, **dict(named)}


class AtRandom(Fake):
    """Refuses a share of all requests, whatever the load."""

    share, wait = 0.15, "1"

    def refuses(self, key: str) -> dict[str, str] | None:
        return {"retry-after": self.wait} if random.random() < self.share else None


class Bucket(Fake):
    """Takes 50 requests a second, 50 at once after a second's rest; says when to come again."""

    rate = best = 50.0
    wait: ClassVar = {"retry-after": "1"}
    tokens, at = 50.0, 0.0

    def refuses(self, key: str) -> dict[str, str] | None:
        now = time.monotonic()
        self.tokens, self.at = min(self.rate, self.tokens + (now - self.at) * self.rate), now
        if self.tokens < 1:
            return self.wait
        self.tokens -= 1
        return None


class ToldBucket(Bucket):
    """Says in its headers what is left."""

    def state(self) -> dict[str, str]:
        reset = (self.rate - self.tokens) / self.rate
        left = {"x-ratelimit-remaining-requests": f"{self.tokens:.0f}"}
        return left | {"x-ratelimit-reset-requests": f"{1000 * reset:.0f}ms"}


class SilentBucket(Bucket):
    wait: ClassVar = {}


class Minute(Fake):
    """Takes 600 requests in each minute of the clock."""

    best, minute, taken = 10, 0, 0

    def refuses(self, key: str) -> dict[str, str] | None:
        minute, into = divmod(time.monotonic(), 60)
        self.minute, self.taken = int(minute), self.taken if minute == self.minute else 0
        self.taken += 1
        return {"retry-after": f"{60 - into:.0f}"} if self.taken > 600 else None


class Places(Fake):
    """Has places for 8 requests at once."""

    places, best = 8, 8 / LATENCY

    def refuses(self, key: str) -> dict[str, str] | None:
        return {"retry-after": "1"} if self.flying > self.places else None


class Outage(Fake):
    """Refuses all between its 2nd and its 12th second."""

    def refuses(self, key: str) -> dict[str, str] | None:
        return {"retry-after": "1"} if 1002 < time.monotonic() < 1012 else None


def asked(
    run: Runs, params: SimpleNamespace, kind: type[Fake], count: int = 4000
) -> tuple[Client, Any, float]:
    """The client and the endpoint after so many requests, and the seconds that they took."""
    params.concurrency, params.retries = CONCURRENCY, 0  # a 429 costs no try
    endpoint, journal = kind(params), Memory()
    client = Client(endpoint, journal, count)  # type: ignore[arg-type]
    requests = (
        Request(f"{i:032x}", [{"role": "user", "content": "?"}], 0, None) for i in range(count)
    )
    taken = run(client.ask(requests))
    assert len({row["key"] for row in journal.rows}) == len(journal.rows) == count
    return client, endpoint, taken


@pytest.mark.parametrize(
    ("share", "wait", "rate"), [(0.05, "1", 300), (0.15, "1", 120), (0.3, "1", 30)]
)
def test_refusals_at_random_hold_back_only_their_rows(
    run: Runs, teacher_params: SimpleNamespace, share: float, wait: str, rate: float
) -> None:
    """The client by which everybody paused, and the window halved, came to 8 a second."""
    kind = type("Some", (AtRandom,), {"share": share, "wait": wait})
    client, endpoint, taken = asked(run, teacher_params, kind)
    assert 4000 / taken >= rate
    last: dict[str, float] = {}
    for at, key in endpoint.sent:  # no row before its own pause is over
        assert at - last.get(key, 0.0) >= float(wait)
        last[key] = at
    assert endpoint.asked == 4000 + endpoint.refused == 4000 + client.retries


@pytest.mark.parametrize(
    ("kind", "share", "used"),
    [
        (Bucket, 0.1, 0.75),
        (ToldBucket, 0.02, 0.9),
        (SilentBucket, 0.1, 0.75),
        (Minute, 0.1, 0.9),
        (Places, 0.05, 0.75),
    ],
)
def test_a_full_endpoint_is_not_hammered_and_not_idle(
    run: Runs, teacher_params: SimpleNamespace, kind: type[Fake], share: float, used: float
) -> None:
    """At most that share of what is sent is refused, and at least that share of what the endpoint
    could answer is asked for."""
    _, endpoint, taken = asked(run, teacher_params, kind)
    assert endpoint.refused / endpoint.asked <= share
    assert 4000 / taken >= used * kind.best


def test_an_outage_is_waited_for_and_the_window_opens_again(
    run: Runs, teacher_params: SimpleNamespace
) -> None:
    _, endpoint, _ = asked(run, teacher_params, Outage, 10_000)
    assert endpoint.refused <= CONCURRENCY + 10 * 8  # what was under way, and a few each second
    assert max(endpoint.flying_at[-1000:]) > 0.7 * CONCURRENCY


def test_without_refusals_all_places_are_used(run: Runs, teacher_params: SimpleNamespace) -> None:
    _, endpoint, taken = asked(run, teacher_params, Fake)
    assert endpoint.most == CONCURRENCY
    assert 4000 / taken > 0.9 * CONCURRENCY / LATENCY


class Zeros(Fake):
    """Answers everything, and always says that nothing is left."""

    def state(self) -> dict[str, str]:
        return {"x-ratelimit-remaining": "0", "x-ratelimit-reset": "30"}


def test_headers_that_lie_are_not_believed_for_long(
    run: Runs, teacher_params: SimpleNamespace
) -> None:
    _, _, taken = asked(run, teacher_params, Zeros, 2000)
    assert taken < 30


class OneRow(Fake):
    """Answers all but one row."""

    def refuses(self, key: str) -> dict[str, str] | None:
        return {} if key.endswith("7f") else None


def test_a_row_that_gets_nothing_but_429_does_not_end_the_run(
    run: Runs, teacher_params: SimpleNamespace
) -> None:
    client, _, taken = asked(run, teacher_params, OneRow, 200)
    assert [key[-2:] for key in client.failed] == ["7f"]
    assert taken < 2 * PATIENCE


class Never(Fake):
    def refuses(self, key: str) -> dict[str, str] | None:
        return {"retry-after": "1"}


def test_nothing_but_429_ends_the_run(run: Runs, teacher_params: SimpleNamespace) -> None:
    with pytest.raises(
        UserError, match=r"answered 429 \(busy\), and there was no answer for 300 s"
    ):
        asked(run, teacher_params, Never, 200)
