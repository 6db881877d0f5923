"""The teacher behind a server that runs: one answer at a time, by the client, limits, budget and
journal of the stages. So what was asked for once is never paid for again, by whomever it is asked.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from types import SimpleNamespace

from potstill.core.errors import UserError
from potstill.core.jsonl import Row
from potstill.task.settings import Task
from potstill.teacher import asking, form
from potstill.teacher.client import Client
from potstill.teacher.endpoint import Endpoint, Request


class Unavailable(Exception):
    """The teacher gives no answer to this row now; the text says why, in one line."""


class Standby(Client):
    """The client of the stages without their progress and signals. `connected` comes first."""

    def __init__(self, task: Task, endpoint: Endpoint) -> None:
        super().__init__(endpoint, asking.open_journal(task), 1)
        self.task = task
        self._asked: dict[str, asyncio.Task[str | None]] = {}  # under way, by key

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[None]:
        """A connection to ask through. At its end nothing new is sent, and what is under way still
        reaches the journal."""
        async with self.endpoint.connected():
            try:
                yield
            finally:
                self._stop.set()
                await asyncio.gather(*self._asked.values(), return_exceptions=True)
                await self.journal.flush()

    def request(self, row: Row) -> Request:
        """The request for a row: the one that ask_teacher would send."""
        asked = asking.Questions(self.task, [row], self.params, self.endpoint.model, 1)
        return next(request for _, request in asked)

    def paid(self, row: Row) -> Row | None:
        """The answer to a row that the journal holds, with the fields of asking.FIELDS."""
        return self.journal.find(self.request(row).key, self.params.max_tokens)

    async def answer(self, row: Row) -> Row:
        """The journal's row for the teacher's answer, asked for where the journal has none; it is
        on disk then. Raises Unavailable when there is no answer within teacher.timeout, the budget
        is used up, the endpoint fails, the teacher refuses, or the prompt needs more than the row
        has. An answer that comes later goes to the journal all the same, since it is paid for."""
        try:
            request = self.request(row)
        except UserError as error:  # a prompt that needs more than the input
            raise Unavailable(str(error)) from None
        if found := self.journal.find(request.key, self.params.max_tokens):
            return _given(found)
        if request.key not in self._asked:
            task = asyncio.create_task(self._one(request))
            self._asked[request.key] = task
            task.add_done_callback(lambda _: self._asked.pop(request.key, None))
        patience = self.params.timeout
        try:
            reason = await asyncio.wait_for(asyncio.shield(self._asked[request.key]), patience)
        except TimeoutError:
            raise Unavailable(f"{self.endpoint} gave no answer within {patience:g} s") from None
        found = self.journal.find(request.key, self.params.max_tokens)
        if found is None:
            raise Unavailable(reason or "the teacher gave no answer")
        return _given(found)

    async def _one(self, request: Request) -> str | None:
        """Asks for one answer; returns why there is none, None where it is in the journal."""
        try:
            await self._ask(request)
            await self.journal.flush()
        except (UserError, OSError) as error:  # such as a budget that is used up, a full disk
            return str(error)
        finally:
            given_up, self.given_up = self.given_up, []
        return self.failed.pop(request.key, given_up[-1] if given_up else None)


def _given(found: Row) -> Row:
    """The row. Raises Unavailable where it is a refusal."""
    if "refusal" in found:
        raise Unavailable(f"the teacher refused: {found['refusal']}")
    return found


@contextmanager
def opened(task: Task, params: SimpleNamespace) -> Iterator[Standby]:
    """The teacher of the section `teacher` of params.yaml; its own rules or a local model are
    served for as long as this lasts. Blocks until they are. Raises UserError when there is no such
    teacher, and for a budget without prices, which would hold nothing back."""
    if params.budget is not None and None in (params.price_in, params.price_out):
        raise UserError(
            f"teacher.budget is {params.budget:g}, but without teacher.price_in and "
            "teacher.price_out no cost is known: give both prices or no budget"
        )
    form.check(params)
    model = asking.model_name(params)
    with asking.open_endpoint(params, model) as endpoint:
        yield Standby(task, endpoint)
