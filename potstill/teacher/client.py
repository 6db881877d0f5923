"""Asks the teacher: one retry loop behind the limits, in front of an OpenAI-compatible endpoint."""

import asyncio
import math
import random
import signal
import sys
import time
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from itertools import count

from potstill.core.errors import UserError
from potstill.core.jsonl import Row
from potstill.teacher.endpoint import Endpoint, Request
from potstill.teacher.journal import LOST, MALFORMED, Journal, Used, tokens
from potstill.teacher.lease import Watch
from potstill.teacher.limits import Budget, Pace, Window
from potstill.teacher.progress import report
from potstill.teacher.refusal import Rates, Refused, Retry

# Seconds of back-off before the first and before any later retry
FIRST_DELAY, LONGEST_DELAY = 0.5, 30.0
LONGEST_WAIT = 60.0  # seconds of Retry-After to sit out; a longer one ends the stage
PATIENCE = 300.0  # seconds of nothing but 429, before the stage ends
FAILED_IN_A_ROW = 10  # requests given up with no answer between them, before the stage ends
REFUSED_IN_A_ROW = 100  # the same of rows that the endpoint refuses, once it has answered others
NEARLY_ALL = 0.9  # share of refused rows with which a run has failed
SHOWN = 30.0  # seconds for which the last refusal's reason stands in the progress
# Seconds between the first requests of two workers: what is sent in one burst is answered in one,
# for ever.
START = 0.001


class UsedUp(UserError):
    """The budget has no room for what comes next."""


class Client:
    """Asks every request once and keeps each answer in the journal; `failed` holds, by key, why a
    request has none. `run` names the run that has the journal's lease, where that is ours; `lent`:
    whether the budget is a part of it, lent to this process."""

    def __init__(
        self, endpoint: Endpoint, journal: Journal, total: int, run: str = "", lent: bool = False
    ) -> None:
        self.endpoint, self.journal, self.total = endpoint, journal, total
        self.params = params = endpoint.params
        endpoint.keep = journal.add
        self.failed: dict[str, str] = {}
        self.held = self.answered = self.retries = 0  # `held`: requests that needed no asking
        self.took = Used()  # what the new answers took
        self.window = Window(params.concurrency)
        self.requests, self.tokens = Pace(params.rpm), Pace(params.tpm)
        cached = getattr(params, "price_cached", None)
        self.budget = Budget(params.price_in, params.price_out, params.budget, cached)
        self.longest = params.max_tokens  # tokens of an answer; more where thinking is beyond it
        self.unseen = 0  # tokens of a prompt that an endpoint adds beyond what is guessed
        self.run, self.lent, self._look_at = run, lent, 0.0
        self._watch: Watch | None = None  # of the journal's lease, where there is a budget
        self._under_way: set[str] = set()  # keys
        self.given_up: list[str] = []  # reasons of the requests whose tries all failed
        self._in_a_row = 0
        self.refused = 0  # rows that the endpoint refused, and not in an earlier run already
        self._last: tuple[float, str] = (-math.inf, "")  # the last refusal, and when it came
        self._all_taken = False  # every request is answered, under way or given up
        self._turn = asyncio.Lock()  # held by the request that waits for its turn by the rates
        self._open_at = 0.0  # nobody sends before: what a full endpoint asked for
        self._good_at = time.monotonic()  # when the last answer came
        self._stop = endpoint.stopping
        endpoint.hear = self._hear
        endpoint.known = journal.used[endpoint.model].answers > 0
        self.error: BaseException | None = None
        self._interrupted = False
        # Of batches under way (potstill/teacher/batch.py): how many, what they may cost, what is
        # said of them while a run waits
        self.batches, self.in_batches, self.waiting = 0, 0.0, ""

    @asynccontextmanager
    async def session(self) -> AsyncIterator[None]:
        """A connection to ask through. What has arrived when it ends is in the journal. Raises
        KeyboardInterrupt after a signal, OSError when the journal cannot be written."""
        with self._signals():
            async with self.endpoint.connected():
                progress = asyncio.create_task(report(self._line))
                try:
                    yield
                finally:
                    progress.cancel()
                    with suppress(asyncio.CancelledError):
                        await progress
                    await self.journal.flush()

    async def ask(self, requests: Iterable[Request]) -> None:
        """Returns when every request has an answer in the journal or a reason in `failed`. No more
        requests are taken from `requests` than are under way. Raises UserError when the endpoint
        cannot be used, the budget is used up or requests stay without an answer."""
        todo, self._all_taken = iter(requests), False
        async with asyncio.TaskGroup() as workers:
            for _ in range(self.params.concurrency):
                if self._all_taken or self._stop.is_set():
                    break
                workers.create_task(self._work(todo))
                await asyncio.sleep(START)
        await self.conclude()

    async def conclude(self) -> None:
        """Writes what came in. Raises as `ask` does, for what befell the requests so far."""
        await self.journal.flush()
        if isinstance(self.error, UserError):  # only now is known what was kept
            raise type(self.error)(f"{self.error}; {self._kept()}")
        if self.error:
            raise self.error
        if self._interrupted:
            raise KeyboardInterrupt(self._kept())
        if self.given_up:
            raise UserError(
                f"{len(self.given_up)} of {self.total} requests got no answer in "
                f"{self.params.retries + 1} tries each, the last because {self.given_up[-1]}; "
                f"{self._kept()}"
            )
        settled = self.refused + self.answered + self.held
        if self.refused >= FAILED_IN_A_ROW and self.refused > NEARLY_ALL * settled:
            last = next(reversed(self.failed.values()))
            refused = f"{self.refused:,} of {settled:,} requests were refused"
            raise UserError(f"{refused}, the last because {last}; {self._kept()}")

    async def _work(self, todo: Iterator[Request]) -> None:
        for request in todo:
            key = request.key
            held = self.journal.has(key, self.params.max_tokens)
            if held or key in self._under_way or key in self.failed:
                self.held += 1
                continue
            self._under_way.add(key)
            try:
                await self._ask(request)
            except Exception as error:  # a bug, too: what is under way may still come in
                self.error = self.error or error
                self._stop.set()
            finally:
                self._under_way.discard(key)
            if self._stop.is_set():
                return
        self._all_taken = True

    async def _ask(self, request: Request) -> None:
        """Puts the answer to one request into the journal, or why there is none; neither when the
        run is stopping."""
        counted, known = 0, self.journal.failed(request.key)
        limited = math.inf  # when the first 429 came
        for tries in count():
            guessed, longest = request.guessed + self.unseen, self.longest
            most = self.budget.cost(guessed, longest)
            await self._pace(guessed + longest)
            await self._enter()
            sent, used, refused = 0.0, 0, False
            try:
                if not await self._may_go(most):
                    return
                sent, ticket = time.monotonic(), self.window.send()
                row = await self.endpoint.ask(request)
                self._good_at = time.monotonic()
                row |= {"estimated": request.guessed, "seconds": round(self._good_at - sent, 3)}
                self.journal.add(row)  # first: whatever befalls this worker, it was received
                used = self.learn(request.guessed, row)
                break
            except Refused as refusal:
                await self._refuse(request, refusal, known)
                return
            except Retry as error:
                refused = error.limit or error.overload
                if error.kept:
                    used = self.learn(request.guessed, error.kept)
                elif error.billed:
                    used = guessed + longest
                    lost = self.endpoint.row(request.key, "", LOST, guessed, longest)
                    await self.journal.put(lost)
                failure = error
            finally:
                self.window.leave()
                if sent:
                    self.window.done(ticket, refused)
                    self.budget.release(most)
                self.tokens.refund(guessed + longest - used)
            limited = min(limited, time.monotonic()) if failure.limit else math.inf
            if await self._limited_for_ever(request, failure, limited):
                return
            counted += not failure.limit
            most_tries = self.params.retries if failure.most is None else failure.most
            if counted > min(self.params.retries, most_tries):
                await self._give_up(request, failure.reason, failure.kept, known)
                return
            self.retries += 1
            ceiling = min(LONGEST_DELAY, FIRST_DELAY * 2**tries)
            await self.sleep(self._heed(failure) + random.uniform(ceiling / 2, ceiling))
        await self.journal.settle()
        self.answered += 1
        self._in_a_row = 0

    def learn(self, guessed: int, row: Row) -> int:
        """The tokens that a reply took, which later requests may take as well."""
        used_in, used_out = tokens(row)
        self.took.add(row)
        self.longest = max(self.longest, used_out)
        self.unseen = max(self.unseen, used_in - guessed)
        return used_in + used_out

    async def _give_up(self, request: Request, reason: str, kept: Row | None, known: bool) -> None:
        """Notes why a request has no answer; `kept` is the last reply without one, which is in the
        journal. Raises UserError when the endpoint only fails: not for what is `known` to have
        failed in an earlier run, nor for the last requests of one that answers, which use up their
        tries when the others are through."""
        if kept:
            self.failed[request.key] = reason
            await self.journal.settle()
            if known:
                return
        else:
            self.given_up.append(reason)
        self._fail_in_a_row(reason, FAILED_IN_A_ROW)

    async def _refuse(self, request: Request, refusal: Refused, known: bool) -> None:
        """Keeps why the endpoint refuses a row. Raises UserError when it refuses every row, but
        for what is `known` to have failed before: the sooner, the less it has answered."""
        self._last = time.monotonic(), str(refusal)
        await self._keep(request, str(refusal))
        if known:
            return
        self.refused += 1
        enough = REFUSED_IN_A_ROW if self.endpoint.answered else refusal.enough
        hint = f": {refusal.hint}" if refusal.hint else ""
        self._fail_in_a_row(f"{refusal}{hint}", enough)

    async def _keep(self, request: Request, reason: str) -> None:
        """Journals the reason why a request gets no answer."""
        self.failed[request.key] = reason
        await self.journal.put(self.endpoint.row(request.key, reason, MALFORMED, 0, 0))

    def _fail_in_a_row(self, reason: str, enough: int) -> None:
        self._in_a_row += 1
        if self._in_a_row >= enough and not (self._all_taken and self.answered):
            failed = f"{self._in_a_row} requests in a row failed"
            raise UserError(f"{failed}, the last because {reason}")

    async def _enter(self) -> None:
        """Waits for a place in the window, and until nobody is held back."""
        while True:
            while (wait := self._open_at - time.monotonic()) > 0 and not self._stop.is_set():
                await self.sleep(wait)
            await self.window.enter()
            if self._open_at <= time.monotonic() or self._stop.is_set():
                return
            self.window.leave()

    async def _pace(self, tokens: int) -> None:
        """Waits until the rates allow a request. One waits at a time, so that tokens given back let
        it go earlier."""
        async with self._turn:
            while (wait := max(self.requests.due(), self.tokens.due())) and not self._stop.is_set():
                await self.sleep(min(wait, 0.1))
            self.requests.reserve()
            self.tokens.reserve(tokens)

    async def _may_go(self, most: float | None) -> bool:
        """Reserves what the request may cost; False when the run is stopping."""
        while not self._stop.is_set():
            spent = self.spent()
            if fits := self.budget.fits(most, spent):
                return True
            if fits is None:
                await self.sleep(0.05)
            else:
                raise self.used_up(most or 0.0, "the next request")
        return False

    def spent(self) -> float:
        """What all answers of the model in the journal cost, and those of its batches may cost; of
        a budget that was lent, what this process's own cost. Raises UserError where another run
        has lent the budget to its shards."""
        if self.lent:
            return self.budget.cost(*self.journal.mine.billed()) or 0.0
        if self.budget.cap is not None and time.monotonic() >= self._look_at:
            self._look_at = time.monotonic() + 1
            self._watch = self._watch or Watch(self.journal.path)
            other = self._watch.holder()
            if other and other["run"] != self.run:
                who = f"process {other['pid']} on {other['host']}"
                raise UserError(
                    f"teacher.budget is lent to the shards of {who}: run again after their end"
                )
        used = self.journal.used[self.endpoint.model]
        return (self.budget.cost(*used.billed()) or 0.0) + self.in_batches

    def used_up(self, most: float, what: str) -> UsedUp:
        """What is said where `what` may cost `most` and does not fit."""
        held = f" (batches under way may cost {self.in_batches:.4g} of it)" * bool(self.batches)
        return UsedUp(
            f"teacher.budget {self.budget.cap:g} is used up: {self.spent():.4g} spent{held}, and "
            f"{what} may cost {most:.2g}: raise teacher.budget"
        )

    def _heed(self, error: Retry) -> float:
        """Seconds for which a refused row waits, as the server asks; everybody does when many are
        refused. Raises UserError when that is long."""
        now, wait = time.monotonic(), error.wait or 0.0
        self._last = now, error.reason
        if self.window.many:
            if wait > LONGEST_WAIT:
                raise UserError(f"{error.reason} and asks to wait {wait:.0f} s: run again then")
            self._open_at = max(self._open_at, now + wait)
        return min(wait, LONGEST_WAIT)

    async def _limited_for_ever(self, request: Request, error: Retry, since: float) -> bool:
        """Whether a row gets nothing but 429 while others were answered, and so is given up. Raises
        UserError when nobody is answered."""
        now = time.monotonic()
        if now - max(since, self._good_at) <= PATIENCE:
            return False
        if (self._all_taken and self.answered) or self.journal.failed(request.key):
            await self._keep(request, error.reason)
            return True
        without = f"there was no answer for {PATIENCE:.0f} s"
        raise UserError(f"{error.reason}, and {without}: run again later")

    def _hear(self, rates: Rates, answered: float | None) -> None:
        """Goes by what a reply says of the endpoint's limits; `answered` as in Pace.told."""
        each = {"requests": 1.0, "tokens": sum(self.took.billed()) / max(1, self.took.answers)}
        for unit, (left, seconds) in rates.items():
            pace = self.requests if unit == "requests" else self.tokens
            pace.told(left, seconds, each[unit] * self.params.concurrency, answered)

    def summary(self) -> str:
        """What was asked and what it took, for the last line of a run."""
        sent, lost = self.endpoint.asked, self.endpoint.ambiguous
        twice = f", {lost:,} without a reply and possibly billed" if lost else ""
        return (
            f"{self.answered:,} new in {sent:,} requests ({self.retries:,} retries{twice}), "
            f"{self.took.prompt_tokens:,} + {self.took.completion_tokens:,} tokens{self._cost()}"
        )

    def _cost(self) -> str:
        cost = self.budget.cost(*self.took.billed())
        return "" if cost is None else f", cost {cost:.4g}"

    def _kept(self) -> str:
        new = f"{self.answered:,} new answers are in the journal"
        if self.batches:
            many = "batches are" if self.batches > 1 else "batch is"
            new += f", {self.batches:,} {many} still at the endpoint"
        return f"{new}: the same command goes on from there"

    async def sleep(self, seconds: float) -> None:
        """Sleeps, but wakes when the run is stopping."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._stop.wait(), seconds)

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """SIGTERM and SIGINT stop the sending and let the answers under way come in; a second one
        ends at once."""
        loop, me = asyncio.get_running_loop(), asyncio.current_task()
        before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

        def stop() -> None:
            if self._interrupted and me:
                me.cancel()
            self._interrupted = True
            self._stop.set()
            said = "stopping: waiting for the answers under way (once more to stop at once)"
            print(said, file=sys.stderr, flush=True)

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

    def _line(self, seconds: float) -> str:
        """The progress after so many seconds."""
        if self.waiting:
            return self.waiting
        done, rate = self.held + self.answered, self.answered / seconds
        left = f"{(self.total - done) / rate:,.0f} s left" if rate else "no answer yet"
        used = self.took.prompt_tokens + self.took.completion_tokens
        return (
            f"teacher: {done:,} of {self.total:,} answers, {rate:,.1f}/s, "
            f"{self.window.flying} under way, {self.retries:,} retries, {used:,} tokens"
            f"{self._cost()}, {left}{self._refusal()}"
        )

    def _refusal(self) -> str:
        """Why a request was refused or failed in the last half minute."""
        at, reason = self._last
        return f", last refusal: {reason}" if time.monotonic() - at < SHOWN else ""
