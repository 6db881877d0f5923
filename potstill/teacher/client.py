"""Asks the teacher: one retry loop behind the limits, in front of any OpenAI-compatible endpoint."""

import asyncio
import random
import signal
import sys
import time
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from types import SimpleNamespace

from potstill.core.errors import UserError
from potstill.core.jsonl import Row
from potstill.teacher.endpoint import Connection, Endpoint, Fatal, Refused, Request, Retry, connect
from potstill.teacher.journal import LOST, MALFORMED, Journal, Used, tokens
from potstill.teacher.limits import Budget, Pace, Window, estimate

FIRST_DELAY, LONGEST_DELAY = (
    0.5,
    30.0,
)  # seconds of back-off before the first and before any later retry
LONGEST_WAIT = (
    60.0  # seconds of Retry-After to sit out; beyond, the stage ends and a later run goes on
)
PATIENCE = 300.0  # seconds of nothing but 429, before the stage ends
FAILED_IN_A_ROW = 10  # requests given up with no answer between them, before the whole stage stops
# Seconds between the first requests of two workers: what is sent in one burst is answered in one, for ever.
START = 0.001
GO_ON = "the same command goes on from there"


class Client:
    """Asks every request once, keeps each answer in the journal; `failed` holds, by key, why a request has none."""

    def __init__(
        self, endpoint: Endpoint, params: SimpleNamespace, journal: Journal, total: int
    ) -> None:
        self.endpoint, self.params, self.journal, self.total = endpoint, params, journal, total
        self.failed: dict[str, str] = {}
        self.found = 0  # requests that the journal answered
        self.answered = self.retries = self.tokens_in = self.tokens_out = 0
        self.window = Window(params.concurrency)
        self.requests, self.tokens = Pace(params.rpm), Pace(params.tpm)
        self.budget = Budget(params.price_in, params.price_out, params.budget)
        self._taken: set[str] = set()  # keys of the requests under way
        self._given_up: list[str] = []  # reasons of the requests whose tries all failed
        self._in_a_row = 0
        self._all_taken = False  # every request is answered, under way or given up
        self._turn = asyncio.Lock()  # held by the request that waits for its turn by the rates
        self._open_at = 0.0  # nobody sends before: what a Retry-After asked for
        self._good_at = time.monotonic()  # when the last answer came
        self._stop = asyncio.Event()
        self._error: BaseException | None = None
        self._interrupted = False
        self._connection = Connection(endpoint, params)

    @asynccontextmanager
    async def session(self) -> AsyncIterator[None]:
        """A connection to ask through. What has arrived when it ends is in the journal. Raises KeyboardInterrupt after a
        signal, OSError when the journal cannot be written."""
        with self._signals():
            async with connect(self.endpoint) as self._connection.http:
                progress = asyncio.create_task(self._report())
                try:
                    yield
                finally:
                    progress.cancel()
                    with suppress(asyncio.CancelledError):
                        await progress
                    await self.journal.flush()

    async def ask(self, requests: Iterable[Request]) -> None:
        """Returns when every request has an answer in the journal or a reason in `failed`. No more requests are taken
        from `requests` than are under way.

        Raises UserError when the endpoint cannot be used, when the budget is used up or requests stay without an answer.
        """
        todo, self._all_taken = iter(requests), False
        workers: list[asyncio.Task[None]] = []
        try:
            while len(workers) < self.params.concurrency and not (
                self._all_taken or self._stop.is_set()
            ):
                workers.append(asyncio.create_task(self._work(todo)))
                await asyncio.sleep(START)
            await asyncio.gather(*workers)
        finally:
            for worker in workers:
                worker.cancel()
        await self.journal.flush()
        self._raise_what_happened()

    def holds(self, request: Request) -> bool:
        """Whether the request needs no asking: it has an answer, is under way, or has failed for good."""
        key = request.key
        return (
            self.journal.has(key, self.params.max_tokens)
            or key in self._taken
            or key in self.failed
        )

    async def _work(self, todo: Iterator[Request]) -> None:
        for request in todo:
            self._taken.add(request.key)
            try:
                row = await self._ask(request)
                if row is None:
                    return
                await self.journal.put(row)
                self.answered += 1
                self._in_a_row = 0
            except Refused as error:
                await self._put_failure(request, str(error), str(error))
            except Retry as error:
                if error.raw:  # paid for, perhaps
                    await self._put_failure(request, f"{MALFORMED}: {error}", error.raw)
                else:
                    self._given_up.append(str(error))
                    self._gave_up(str(error))
            except Fatal as error:
                self._end(UserError(str(error)))
            except (OSError, UserError) as error:
                self._end(error)
            finally:
                self._taken.discard(request.key)
            if self._stop.is_set():
                return
        self._all_taken = True

    async def _put_failure(self, request: Request, reason: str, raw: str) -> None:
        """Keeps a reply that is no answer, told apart from one. What failed in an earlier run, too, says nothing of the
        endpoint."""
        self.failed[request.key] = reason
        known = self.journal.failed(request.key)
        try:
            await self.journal.put(self._no_answer(request, MALFORMED, raw))
        except OSError as full:
            self._end(full)
        if not known:
            self._gave_up(reason)

    def _no_answer(
        self, request: Request, what: str, raw: str = "", tokens_in: int = 0, tokens_out: int = 0
    ) -> Row:
        """The journal's row for a try that brought no answer."""
        said = {
            "key": request.key,
            "model": self.endpoint.model,
            "max_tokens": self.params.max_tokens,
            "answer": raw,
        }
        return said | {
            "finish_reason": what,
            "prompt_tokens": tokens_in,
            "completion_tokens": tokens_out,
        }

    async def _ask(self, request: Request) -> Row | None:
        """The answer to one request, after as many tries as the parameters allow; None when the run is stopping."""
        guessed = sum(estimate(message["content"]) for message in request.messages)
        reserved = guessed + self.params.max_tokens
        most = self.budget.cost(guessed, self.params.max_tokens)
        tries = counted = 0
        while True:
            await self._pace(reserved)
            await self.window.enter()
            sent, used = 0.0, 0
            try:
                if not await self._may_go(most):
                    return None
                sent = time.monotonic()
                row = await self._connection.ask(request)
                row |= {"estimated": guessed, "seconds": round(time.monotonic() - sent, 3)}
                used = self._count(row)
                self.window.good()
                return row
            except Retry as error:
                if error.limit or error.overload:
                    self.window.bad(sent)
                if error.billed:
                    used = reserved
                    await self.journal.put(
                        self._no_answer(request, LOST, "", guessed, self.params.max_tokens)
                    )
                failure = error
            finally:
                self.window.leave()
                if sent:
                    self.budget.release(most)
                self.tokens.refund(reserved - used)
            counted += not failure.limit
            await self._before_the_next_try(failure, tries, counted)
            tries += 1

    async def _pace(self, tokens: int) -> None:
        """Waits until the rates allow a request. One waits at a time, so that tokens given back let it go earlier."""
        async with self._turn:
            while (wait := max(self.requests.due(), self.tokens.due())) and not self._stop.is_set():
                await self._sleep(min(wait, 0.1))
            self.requests.reserve()
            self.tokens.reserve(tokens)

    async def _may_go(self, most: float | None) -> bool:
        """Waits for the shared pause and reserves what the request may cost; False when the run is stopping."""
        while not self._stop.is_set():
            if (wait := self._open_at - time.monotonic()) > 0:
                await self._sleep(wait)
            elif fits := self.budget.fits(most, self._spent()):
                return True
            elif fits is None:
                await self._sleep(0.05)
            else:
                self._end(
                    UserError(
                        f"teacher.budget {self.budget.cap:g} is used up: {self._spent():.4g} spent, and the next request may cost "
                        f"{most:.2g}: raise teacher.budget"
                    )
                )
        return False

    async def _before_the_next_try(self, error: Retry, tries: int, counted: int) -> None:
        """Sleeps before a request is sent again; raises when it is not to be."""
        now = time.monotonic()
        if error.wait is not None:
            if error.wait > LONGEST_WAIT:
                raise Fatal(
                    f"{error} and asks to wait {error.wait:.0f} s: run again then"
                ) from None
            self._open_at = max(self._open_at, now + error.wait)
        if error.limit and now - self._good_at > PATIENCE:
            raise Fatal(
                f"{error}, and there was no answer for {PATIENCE:.0f} s: run again later"
            ) from None
        if counted > self.params.retries:
            raise error
        self.retries += 1
        ceiling = min(LONGEST_DELAY, FIRST_DELAY * 2**tries)
        await self._sleep(random.uniform(ceiling / 2, ceiling))

    def _count(self, row: Row) -> int:
        """The tokens that an answer took; a server that does not say is taken at our guess."""
        tokens_in, tokens_out = tokens(row)
        self.tokens_in += tokens_in
        self.tokens_out += tokens_out
        self._good_at = time.monotonic()
        return tokens_in + tokens_out

    def _spent(self) -> float:
        """What all answers of the model in the journal cost, those of earlier runs and of other processes included, and
        what may have been billed without an answer."""
        used = self.journal.used.get(self.endpoint.model, Used())
        return (
            self.budget.cost(
                used.prompt_tokens + used.lost_in, used.completion_tokens + used.lost_out
            )
            or 0.0
        )

    def summary(self) -> str:
        """What was asked and what it took, for the last line of a run."""
        sent, lost = self._connection.asked, self._connection.ambiguous
        twice = f", {lost:,} without a reply and possibly billed" if lost else ""
        cost = self.budget.cost(self.tokens_in, self.tokens_out)
        return (
            f"{self.answered:,} new in {sent:,} requests ({self.retries:,} retries{twice}), "
            f"{self.tokens_in:,} + {self.tokens_out:,} tokens"
            + ("" if cost is None else f", cost {cost:.4g}")
        )

    def _gave_up(self, reason: str) -> None:
        """Ends the run when the endpoint only fails; not for the last requests of one that answers, which use up their tries
        when the others are through."""
        self._in_a_row += 1
        if self._in_a_row >= FAILED_IN_A_ROW and not (self._all_taken and self.answered):
            self._end(
                UserError(f"{FAILED_IN_A_ROW} requests in a row failed, the last because {reason}")
            )

    def _end(self, error: BaseException) -> None:
        """Nothing more is sent; what is under way may still come in."""
        self._error = self._error or error
        self._stopping()

    def _stopping(self) -> None:
        self._stop.set()
        self._connection.stopping = True
        self.window.wake(self.window.ceiling)

    def _raise_what_happened(self) -> None:
        if isinstance(self._error, UserError):  # only now is known what was kept
            raise UserError(f"{self._error}; {self._kept()}")
        if self._error:
            raise self._error
        if self._interrupted:
            raise KeyboardInterrupt(self._kept())
        if self._given_up:
            raise UserError(
                f"{len(self._given_up)} of {self.total} requests got no answer in {self.params.retries + 1} tries "
                f"each, the last because {self._given_up[-1]}; {self._kept()}"
            )

    def _kept(self) -> str:
        return f"{self.answered:,} new answers are in the journal: {GO_ON}"

    async def _sleep(self, seconds: float) -> None:
        """Sleeps, but wakes when the run is stopping."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._stop.wait(), seconds)

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """SIGTERM and SIGINT stop the sending and let the answers under way come in; a second one ends at once."""
        loop, me = asyncio.get_running_loop(), asyncio.current_task()
        before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

        def stop() -> None:
            if self._interrupted and me:
                me.cancel()
            self._interrupted = True
            self._stopping()
            print(
                "stopping: waiting for the answers under way (once more to stop at once)",
                file=sys.stderr,
                flush=True,
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
                line = self._line(time.monotonic() - start)
                print(
                    f"\r{line}\x1b[K" if live else line,
                    end="" if live else "\n",
                    file=sys.stderr,
                    flush=True,
                )
        finally:
            if live:
                print("\r\x1b[K", end="", file=sys.stderr, flush=True)

    def _line(self, seconds: float) -> str:
        """The progress after so many seconds."""
        rate = self.answered / seconds
        left = (self.total - self.found - self.answered) / rate if rate else None
        cost = self.budget.cost(self.tokens_in, self.tokens_out)
        parts = [
            f"teacher: {self.found + self.answered:,} of {self.total:,} answers",
            f"{rate:,.1f}/s",
            f"{self.window.flying} under way",
            f"{self.retries:,} retries",
            f"{self.tokens_in + self.tokens_out:,} tokens",
            *([] if cost is None else [f"cost {cost:.4g}"]),
            "no answer yet" if left is None else f"{left:,.0f} s left",
        ]
        return ", ".join(parts)
