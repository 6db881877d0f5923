"""The batch API of an OpenAI-compatible endpoint: a file of requests goes to /files, /batches has
it answered within a day, and further files bring the answers."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, TypeVar

from potstill.core.errors import UserError
from potstill.core.jsonl import Row
from potstill.teacher.endpoint import Endpoint
from potstill.teacher.refusal import Refused, Retry, retry_after

MARK = "potstill"  # the key of a batch's metadata under which its name stands
WINDOW, TARGET = "24h", "/v1/chat/completions"
FILES = ("output_file_id", "error_file_id")
DAY = 86_400.0
PATIENCE = 3600.0  # seconds of nothing but failures, before the stage ends
TRANSFER = 3600.0  # seconds for one file
LAG = 30.0  # seconds after which a batch that was made is in the endpoint's list
FIRST_DELAY, LONGEST_DELAY = 0.5, 60.0  # seconds before the first and any later retry
LONGEST_WAIT = 3600.0  # seconds of Retry-After to sit out
T = TypeVar("T")


class Stopped(Exception):
    """The run is stopping."""


class Broken(Exception):
    """A reply broke off."""


@dataclass
class State:
    """What the endpoint says of a batch. `files` are those of answers and of errors, `reason` says
    why it failed as a whole, `wait` is the seconds until the next look, as it asks."""

    status: str
    completed: int
    failed: int
    files: list[str]
    reason: str
    wait: float

    @property
    def ended(self) -> bool:
        """Whether nothing more comes of it."""
        return self.status in ("completed", "failed", "expired", "cancelled")


class BatchApi:
    """The calls; each is tried again for PATIENCE seconds. They raise Stopped when the run is
    stopping, Refused or UserError when the endpoint cannot do what is asked."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint

    async def upload(self, path: Path) -> str:
        """The id of a file of requests, of which no more than a piece is in memory."""

        async def send() -> Any:
            with path.open("rb") as file:
                return await self._http().post(
                    "/files",
                    cast_to=_response(),
                    body={"purpose": "batch"},
                    files={"file": ("requests.jsonl", file)},
                    options={"headers": {"Content-Type": "multipart/form-data"}},
                )

        return str((await self._json(send, TRANSFER))["id"])

    async def create(self, name: str, file: str) -> str:
        """The id of a new batch, made of a file. It is made once, also where the reply is lost."""
        body: Row = {"input_file_id": file, "endpoint": TARGET, "completion_window": WINDOW}
        body["metadata"] = {MARK: name}
        start = time.monotonic()
        for tries in count():
            sent = time.time()
            try:
                made = await self._json(
                    lambda: self._http().post("/batches", cast_to=_response(), body=body), once=True
                )
                return str(made["id"])
            except Retry as failure:
                if not failure.limit and (found := await self.find(name, sent)):
                    return found
                await self._rest(failure, tries, start)
        raise AssertionError

    async def find(self, name: str, since: float) -> str | None:
        """The id of the batch of that name, which may have been made at the time `since`; None
        where the endpoint has none."""
        while True:
            last: str | None = ""
            while last is not None:
                page = await self.listed(100, last)
                batches = [batch for batch in page.get("data") or [] if isinstance(batch, dict)]
                for batch in batches:
                    if (batch.get("metadata") or {}).get(MARK) == name:
                        return str(batch["id"])
                made = [float(batch.get("created_at") or since) for batch in batches]
                more = page.get("has_more") and made and max(made) > since - DAY
                last = str(batches[-1]["id"]) if more else None
            if time.time() - since > LAG:
                return None
            await self.pause(LAG / 10)

    async def listed(self, limit: int, after: str = "", once: bool = False) -> Row:
        """A page of the endpoint's batches, the newest first."""
        query = {"limit": limit} | ({"after": after} if after else {})
        return await self._json(self._getting("/batches", params=query), once=once)

    async def look(self, batch: str) -> State:
        """How far a batch is."""
        found = await self._json(self._getting(f"/batches/{batch}"))
        files = [str(found[name]) for name in FILES if found.get(name)]
        counts, errors = found.get("request_counts"), found.get("errors")
        done, failed = (
            number if isinstance(number := _at(counts, name), int) else 0
            for name in ("completed", "failed")
        )
        first = next(iter(_at(errors, "data") or []), None)
        line = f"line {_at(first, 'line')}: " if _at(first, "line") else ""
        said = (_at(first, name) for name in ("message", "code"))
        words = ", ".join(str(one) for one in said if one)
        reason = line + (self.endpoint.line(words) or "it does not say why")
        wait = min(found["wait"] or 0.0, LONGEST_WAIT)
        return State(str(found.get("status")).lower(), done, failed, files, reason, wait)

    async def fetch(self, file: str, path: Path) -> None:
        """Writes a file of the endpoint to `path`."""

        async def get() -> None:
            content = self._http().files.with_streaming_response.content(file)
            async with content as response:
                with path.open("wb") as out:
                    pieces = aiter(response.iter_bytes())
                    while True:
                        try:
                            piece = await anext(pieces)
                        except StopAsyncIteration:
                            return
                        except Exception as error:
                            raise Broken(str(error)) from error
                        out.write(piece)

        await self._call(get, TRANSFER)

    async def pause(self, seconds: float) -> None:
        """Sleeps. Raises Stopped when the run is stopping."""
        stopping = self.endpoint.stopping
        try:
            await asyncio.wait_for(stopping.wait(), seconds)
        except TimeoutError:
            return
        raise Stopped

    def _http(self) -> Any:
        return self.endpoint.http

    def _getting(self, path: str, **options: Any) -> Callable[[], Awaitable[Any]]:
        return lambda: self._http().get(path, cast_to=_response(), options=options)

    async def _json(
        self, send: Callable[[], Awaitable[Any]], limit: float | None = None, once: bool = False
    ) -> Row:
        """The object that a reply is, with `wait`, the seconds that its headers ask to wait."""

        async def read() -> Row:
            response = await send()
            return dict(response.json()) | {"wait": retry_after(response.headers)}

        return await self._call(read, limit or self.endpoint.params.timeout, once)

    async def _call(self, send: Callable[[], Awaitable[T]], limit: float, once: bool = False) -> T:
        """What `send` gives within `limit` seconds. Raises Retry where it is tried but `once`."""
        import openai

        start = time.monotonic()
        for tries in count():
            failure: Exception
            try:
                async with asyncio.timeout(limit):
                    found = await send()
                self.endpoint.answered = True
                return found
            except (TimeoutError, openai.APIError, Broken) as error:
                failure = self.endpoint.failure(error)
            except (ValueError, LookupError, TypeError):
                failure = Retry(f"{self.endpoint} sent no JSON object that can be used")
            if once or not isinstance(failure, Retry):
                raise failure
            await self._rest(failure, tries, start)
        raise AssertionError

    async def _rest(self, failure: Retry, tries: int, start: float) -> None:
        """Waits before another try. Raises UserError after PATIENCE seconds from `start` on."""
        if time.monotonic() - start > PATIENCE:
            raise UserError(f"{failure.reason}, for {PATIENCE / 60:.0f} minutes: run again later")
        ceiling = min(LONGEST_DELAY, FIRST_DELAY * 2**tries)
        asked = min(failure.wait or 0.0, LONGEST_WAIT)
        await self.pause(asked + random.uniform(ceiling / 2, ceiling))


async def check(endpoint: Endpoint) -> None:
    """Raises UserError where teacher.batch is true and an endpoint, which answers otherwise, has no
    batches; one call that is free shows it."""
    if not endpoint.params.batch:
        return
    endpoint.answered = True
    async with endpoint.connected():
        api = BatchApi(endpoint)
        try:
            await api.listed(1, once=True)
        except Refused as refusal:
            raise refused(endpoint, refusal) from None
        except Retry as failure:
            raise UserError(failure.reason) from None


def refused(endpoint: Endpoint, refusal: Refused) -> UserError:
    """What is said where an endpoint takes no batches."""
    return UserError(
        f"{endpoint} takes no batch ({refusal}): a batch needs /files and /batches there; where "
        "it has none, set teacher.batch: false"
    )


def _at(value: Any, name: str) -> Any:
    """What an object has under a name; None where it is no object, or has nothing there."""
    return value.get(name) if isinstance(value, dict) else None


def _response() -> Any:
    import httpx

    return httpx.Response
