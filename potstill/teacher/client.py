"""Asks the teacher: bounded concurrency and one retry loop in front of any OpenAI-compatible endpoint."""

import asyncio
import json
import random
import signal
import sys
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NoReturn

from potstill.errors import UserError
from potstill.rows import Row
from potstill.teacher.journal import Journal

if TYPE_CHECKING:
    import openai

FIRST_DELAY, LONGEST_DELAY = 0.5, 30.0  # seconds of back-off before the first and before any later retry
LONGEST_WAIT = 60.0  # seconds of Retry-After to sit out; beyond, the stage ends and a later run goes on
FAILED_IN_A_ROW = 10  # requests given up with no answer between them, before the whole stage stops
GO_ON = "the same command goes on from there"


@dataclass(frozen=True)
class Endpoint:
    """Where the teacher is and what it is called there. The key is never shown."""

    base_url: str
    model: str
    api_key: str = field(repr=False)
    local: bool = False  # on this machine: no proxy


@dataclass(frozen=True)
class Request:
    """One question: the journal's key, the messages and the index of the sample."""

    key: str
    messages: list[dict[str, str]]
    sample: int


class Retry(Exception):
    """This try brought no answer, another may; `wait` is what the server asked for, in seconds."""

    def __init__(self, reason: str, wait: float | None = None) -> None:
        super().__init__(reason)
        self.wait = wait


class Refused(Exception):
    """The server will never answer this request."""


class Fatal(Exception):
    """No request to this endpoint can succeed."""


class Client:
    """Asks every request once, keeps each answer in the journal; `failed` holds, by key, why a request was refused."""

    def __init__(self, endpoint: Endpoint, params: SimpleNamespace, journal: Journal, total: int) -> None:
        self.endpoint, self.params, self.journal, self.total = endpoint, params, journal, total
        self.failed: dict[str, str] = {}
        self.asked = self.answered = self.retries = self.ambiguous = self.tokens_in = self.tokens_out = 0
        self._given_up: list[str] = []  # reasons of the requests whose tries all failed
        self._in_a_row = 0
        self._open_at = 0.0  # nobody sends before: what a Retry-After asked for
        self._stop = asyncio.Event()
        self._error: BaseException | None = None
        self._interrupted = False

    async def run(self, requests: list[Request]) -> None:
        """Returns when every request has an answer in the journal or a reason in `failed`.

        Raises UserError when the endpoint cannot be used or requests stay without an answer, KeyboardInterrupt after a
        signal, OSError when the journal cannot be written. What has arrived by then is in the journal.
        """
        todo = iter(requests)
        with self._signals():
            async with self._connection() as connection:
                progress = asyncio.create_task(self._report())
                try:
                    width = min(self.params.teacher_concurrency, len(requests))
                    await asyncio.gather(*(self._work(connection, todo) for _ in range(width)))
                finally:
                    progress.cancel()
                    await self.journal.close()
        self._raise_what_happened()

    async def _work(self, connection: "openai.AsyncOpenAI", todo: Iterator[Request]) -> None:
        for request in todo:
            try:
                row = await self._ask(connection, request)
                if row is None:
                    return
                await self.journal.put(row)
                self.answered += 1
                self._in_a_row = 0
            except Refused as error:
                self.failed[request.key] = str(error)
                self._gave_up(str(error))
            except Retry as error:
                self._given_up.append(str(error))
                self._gave_up(str(error))
            except Fatal as error:
                self._end(UserError(f"{error}; {self._kept()}"))
            except OSError as error:
                self._end(error)
            if self._stop.is_set():
                return

    async def _ask(self, connection: "openai.AsyncOpenAI", request: Request) -> Row | None:
        """The answer to one request, after as many tries as the parameters allow; None when the run is stopping."""
        for attempt in range(self.params.teacher_retries + 1):
            while (wait := self._open_at - time.monotonic()) > 0 and not self._stop.is_set():
                await self._sleep(wait)
            if self._stop.is_set():
                return None
            try:
                self.asked += 1
                return await self._try(connection, request)
            except Retry as error:
                if error.wait is not None:
                    if error.wait > LONGEST_WAIT:
                        raise Fatal(f"{error} and asks to wait {error.wait:.0f} s: run again then") from None
                    self._open_at = max(self._open_at, time.monotonic() + error.wait)
                if attempt == self.params.teacher_retries:
                    raise
                self.retries += 1
                ceiling = min(LONGEST_DELAY, FIRST_DELAY * 2**attempt)
                await self._sleep(random.uniform(ceiling / 2, ceiling))
        raise AssertionError("unreachable")

    async def _try(self, connection: "openai.AsyncOpenAI", request: Request) -> Row:
        import openai

        where = f"the teacher at {self.endpoint.base_url}"
        try:
            async with asyncio.timeout(self.params.teacher_timeout):  # the whole request, a dripping body included
                # Not `chat.completions.create`, whose walk over types takes longer than the rest of the call.
                reply = await connection.post("/chat/completions", cast_to=str, body=self._body(request))
        except TimeoutError:
            self.ambiguous += 1
            raise Retry(f"{where} gave no answer within {self.params.teacher_timeout:g} s") from None
        except openai.APIStatusError as error:
            said = f"{where} answered {error.status_code} ({self._clean(error.message)})"
            if error.status_code in (401, 403):
                raise Fatal(f"{said}: check TEACHER_API_KEY") from None
            if error.status_code == 404:
                raise Fatal(f"{said}: check teacher_model and TEACHER_BASE_URL, which usually ends in /v1") from None
            if error.status_code in (408, 409, 425, 429) or error.status_code >= 500:
                raise Retry(said, _retry_after(error.response.headers)) from None
            raise Refused(f"{error.status_code}: {self._clean(error.message)}") from None
        except openai.APIConnectionError as error:
            self._raise_connection(error, where)
        return self._row(request, reply, where)

    def _body(self, request: Request) -> dict[str, Any]:
        return {
            "model": self.endpoint.model,
            "messages": request.messages,
            "temperature": self.params.teacher_temperature,
            "max_tokens": self.params.teacher_max_tokens,
            "seed": request.sample,
        }

    def _raise_connection(self, error: Exception, where: str) -> NoReturn:
        """Raises Fatal when the server cannot be reached at all, else Retry."""
        import aiohttp

        chain: list[BaseException] = [error]
        while chain[-1].__cause__ is not None:
            chain.append(chain[-1].__cause__)
        reason = self._clean(str(chain[-1]) or type(chain[-1]).__name__)
        # Not the client's own classes, which take a refused connection for a time-out.
        if not any(isinstance(one, aiohttp.ClientConnectorError) for one in chain):
            self.ambiguous += 1
        elif not self.answered:
            raise Fatal(f"{where} cannot be reached ({reason}): check that it runs and TEACHER_BASE_URL") from None
        raise Retry(f"the connection to {where} broke ({reason})") from None

    def _row(self, request: Request, text: str, where: str) -> Row:
        """The journal's row for a reply; raises Retry when the reply is no chat completion."""
        try:
            reply = json.loads(text)
            choice = reply["choices"][0]
            answer = choice["message"].get("content") or ""
            used = reply.get("usage") or {}
            row = {
                "key": request.key,
                "model": self.endpoint.model,
                "max_tokens": self.params.teacher_max_tokens,
                "answer": str(answer),
                "finish_reason": choice.get("finish_reason"),
                "prompt_tokens": used.get("prompt_tokens"),
                "completion_tokens": used.get("completion_tokens"),
            }
        except (ValueError, LookupError, TypeError, AttributeError):
            raise Retry(f"{where} sent no chat completion but {self._clean(text[:80])!r}") from None
        self.tokens_in += row["prompt_tokens"] or 0
        self.tokens_out += row["completion_tokens"] or 0
        return row

    def summary(self) -> str:
        """What was asked and what it took, for the last line of a run."""
        twice = f", {self.ambiguous:,} without a reply and possibly billed" if self.ambiguous else ""
        return (
            f"{self.answered:,} new in {self.asked:,} requests ({self.retries:,} retries{twice}), "
            f"{self.tokens_in:,} + {self.tokens_out:,} tokens"
        )

    def _gave_up(self, reason: str) -> None:
        self._in_a_row += 1
        if self._in_a_row >= FAILED_IN_A_ROW:
            self._end(
                UserError(f"{FAILED_IN_A_ROW} requests in a row failed, the last because {reason}; {self._kept()}")
            )

    def _end(self, error: BaseException) -> None:
        """Nothing more is sent; what is under way may still come in."""
        self._error = self._error or error
        self._stop.set()

    def _raise_what_happened(self) -> None:
        if self._error:
            raise self._error
        if self._interrupted:
            raise KeyboardInterrupt(self._kept())
        if self._given_up:
            raise UserError(
                f"{len(self._given_up)} of {self.total} requests got no answer in {self.params.teacher_retries + 1} tries "
                f"each, the last because {self._given_up[-1]}; {self._kept()}"
            )

    def _kept(self) -> str:
        return f"{self.answered:,} new answers are in the journal: {GO_ON}"

    def _clean(self, text: str) -> str:
        """One short line of what the server said, without our key."""
        return " ".join(text.replace(self.endpoint.api_key, "***").split())[:200]

    async def _sleep(self, seconds: float) -> None:
        """Sleeps, but wakes when the run is stopping."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._stop.wait(), seconds)

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator["openai.AsyncOpenAI"]:
        import openai

        transport = openai.DefaultAioHttpClient(trust_env=not self.endpoint.local, timeout=None)
        async with openai.AsyncOpenAI(
            base_url=self.endpoint.base_url, api_key=self.endpoint.api_key, http_client=transport, max_retries=0
        ) as connection:
            yield connection

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """SIGTERM and SIGINT stop the sending and let the answers under way come in; a second one ends at once."""
        loop, me = asyncio.get_running_loop(), asyncio.current_task()
        before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

        def stop() -> None:
            if self._interrupted and me:
                me.cancel()
            self._interrupted = True
            self._stop.set()
            print(
                "stopping: waiting for the answers under way (once more to stop at once)", file=sys.stderr, flush=True
            )

        for number in before:
            loop.add_signal_handler(number, stop)
        try:
            yield
        except asyncio.CancelledError:
            raise KeyboardInterrupt(self._kept()) from None
        finally:
            for number, handler in before.items():
                loop.remove_signal_handler(number)
                signal.signal(number, handler)

    async def _report(self) -> None:
        """One line every ten seconds in a log, a live line on a terminal."""
        live = sys.stderr.isatty()
        start = time.monotonic()
        try:
            while True:
                await asyncio.sleep(0.5 if live else 10)
                seconds = time.monotonic() - start
                rate = self.answered / seconds
                left = f"{(self.total - self.answered) / rate:,.0f} s left" if rate else "no answer yet"
                line = f"teacher: {self.answered:,} of {self.total:,} answers, {rate:,.1f}/s, {self.retries:,} retries, {left}"
                print(f"\r{line}\x1b[K" if live else line, end="" if live else "\n", file=sys.stderr, flush=True)
        finally:
            if live:
                print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait by a reply's Retry-After, a number or a date; None without one."""
    from email.utils import parsedate_to_datetime

    value = headers.get("retry-after", "")
    try:
        return float(value) if value.isdigit() else max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return None
