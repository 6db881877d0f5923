"""One request to an OpenAI-compatible endpoint, in the form that this endpoint takes."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from potstill.core.errors import UserError
from potstill.core.jsonl import Row, writable
from potstill.teacher import reply
from potstill.teacher.form import Form
from potstill.teacher.journal import MALFORMED
from potstill.teacher.limits import estimate
from potstill.teacher.place import is_loopback
from potstill.teacher.refusal import Rates, Refused, Retry, rates
from potstill.teacher.refusal import judge as meaning

KEPT = 1_000_000  # bytes that are kept of a reply without an answer


@dataclass(frozen=True)
class Request:
    """One question: the journal's key, the messages, the index of the sample, the schema that the
    answer must obey."""

    key: str
    messages: list[dict[str, str]]
    sample: int
    schema: dict[str, Any] | None

    @property
    def guessed(self) -> int:
        """Tokens that the messages may have, rather too many."""
        return sum(estimate(message["content"]) for message in self.messages)


@dataclass
class Endpoint:
    """Where the teacher is and what it is called there. The key is never shown."""

    base_url: str
    api_key: str = field(repr=False)
    model: str
    params: SimpleNamespace
    asked: int = 0  # requests sent
    ambiguous: int = 0  # those of them that may have been billed without a reply
    answered: bool = False
    known: bool = False  # this model was answered in an earlier run
    stopping: asyncio.Event = field(default_factory=asyncio.Event)  # send nothing more
    keep: Callable[[Row], None] = field(default=lambda row: None, repr=False)  # of the journal

    def __str__(self) -> str:
        return f"the teacher at {self.base_url}"

    def __post_init__(self) -> None:
        self.form = Form(self.base_url, self.model, self.params)
        # Called with what a reply's headers say of the limits, and when an answer to was asked for
        self.hear: Callable[[Rates, float | None], None] = lambda rates, sent: None

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[Any]:
        """The `openai` client on aiohttp, whose own retries are off; the other methods need it."""
        import openai

        http = openai.DefaultAioHttpClient(trust_env=not is_loopback(self.base_url), timeout=None)
        async with openai.AsyncOpenAI(
            base_url=self.base_url, api_key=self.api_key, http_client=http, max_retries=0
        ) as self.http:
            yield self.http

    async def models(self) -> list[str]:
        """The models that the endpoint lists. Raises UserError when it lists none in time."""
        import openai

        try:
            async with asyncio.timeout(self.params.timeout), self.connected() as connection:
                listed = json.loads(await connection.get("/models", cast_to=str))
            return [str(model["id"]) for model in listed["data"]]
        except (openai.APIError, TimeoutError, ValueError, LookupError, TypeError) as error:
            raise UserError(
                f"teacher.model is auto, but {self.base_url}/models gives no list of models "
                f"({self.line(str(error))}): name the model"
            ) from None

    async def ask(self, request: Request) -> Row:
        """The journal's row for the answer, asked for with all that the endpoint takes (see Form).
        Raises Retry, Refused, or UserError when no request to this endpoint can succeed."""
        form, without = self.form, self.form.without
        try:
            row = await self._try(request, without)
        except Refused as refusal:
            if not refusal.form:
                raise
            if form.proven(request, without):
                return await self._search(request, without, refusal)
            known = form.changes
            form.refused(request, without, refusal)
            async with form.searching:
                if form.changes == known:
                    return await self._search(request, without, refusal)
                without = form.without  # another row has found something out
                try:
                    row = await self._try(request, without)
                except Refused as again:
                    return await self._search(request, without, again)
        form.answered(request, without, without)
        return row

    async def _search(self, request: Request, base: frozenset[str], refusal: Refused) -> Row:
        """The row for a request that was refused without `base`, asked for in other forms. Raises
        as `ask`."""
        form, start = self.form, base
        named = form.refused(request, base, refusal)
        guesses = form.guesses(request, base, named) if refusal.form else []
        while guesses and not self.stopping.is_set():
            without = guesses.pop(0)
            try:
                row = await self._try(request, without)
            except Refused as more:
                if not more.form:
                    raise
                still = form.refused(request, without, more)
                if still != named and without != base:  # it helped: something else is in the way
                    base, refusal, named = without, more, still
                    guesses = form.guesses(request, base, named)
            else:
                form.answered(request, start, without)
                return row
        form.in_vain(request, start)
        raise refusal

    async def _try(self, request: Request, without: frozenset[str]) -> Row:
        import httpx
        import openai

        self.asked += 1
        url = f"{self.base_url.rstrip('/')}/chat/completions"  # whole: the client joins it slowly
        sent = time.monotonic()
        try:
            async with asyncio.timeout(self.params.timeout):  # a dripping body included
                # Not `chat.completions.create`, whose walk over types takes longer than the rest
                body = self.form.body(request, without)
                response = await self.http.post(url, cast_to=httpx.Response, body=body)
        except (TimeoutError, openai.APIStatusError, openai.APIConnectionError) as error:
            failure = self.failure(error)
            self.ambiguous += isinstance(failure, Retry) and failure.billed
            raise failure from None
        if said := rates(response.headers):
            self.hear(said, sent)
        row = self.read(request.key, request.guessed, response.content)
        return row | {"without": sorted(without)} if without else row

    def read(self, key: str, guessed: int, raw: bytes) -> Row:
        """The journal's row for the reply `raw` to the request `key`, whose prompt was guessed to
        have so many tokens. Raises as `ask`, where it is no answer; it is kept then."""
        try:
            found = reply.read(raw, guessed)
        except reply.NoAnswer as error:
            failure = error
            # Without the key before anything is cut short, or half of it would be left. An answer
            # stays as it is: a key such as EMPTY may be a word of it.
            raw = raw.replace(self.api_key.encode(), b"***")
            try:
                reply.read(raw, guessed)
            except reply.NoAnswer as hidden:
                failure = hidden
            raise self._no_answer(key, guessed, failure, raw) from None
        self.answered = True
        tokens = found.prompt_tokens, found.completion_tokens
        return self.row(key, found.answer, found.finish_reason, *tokens) | found.fields()

    def failure(self, error: BaseException) -> Exception:
        """What it means that no reply came, or one with a status of 400 or more."""
        import aiohttp
        import openai

        if isinstance(error, TimeoutError):
            reason = f"{self} gave no answer within {self.params.timeout:g} s"
            return Retry(reason, overload=True, billed=True)
        if isinstance(error, openai.APIStatusError):
            if said := rates(error.response.headers):
                self.hear(said, None)
            return self.judge(error.status_code, error.response.text, error.response.headers)
        causes = [error]
        while cause := causes[-1].__cause__:
            causes.append(cause)
        reason = self.line(str(causes[-1]) or type(causes[-1]).__name__)
        # Not by the client's own classes, which take a refused connection for a time-out
        reached = not any(isinstance(cause, aiohttp.ClientConnectorError) for cause in causes)
        if not reached and not self.answered:  # nor ever was
            check = "check that it runs and TEACHER_BASE_URL"
            return UserError(f"{self} cannot be reached ({reason}): {check}")
        reason = f"the connection to {self} broke ({reason})"
        return Retry(reason, overload=not reached, billed=reached)

    def judge(self, status: int, text: str, headers: Mapping[str, str]) -> Exception:
        """What a status and its words mean, as refusal.judge says."""
        known = self.answered or self.known
        return meaning(str(self), status, headers, text.replace(self.api_key, "***"), known)

    def _no_answer(self, key: str, guessed: int, error: reply.NoAnswer, raw: bytes) -> Exception:
        """What it means that a reply with a good status has no answer; it is in the journal then.
        An error that names a status is one of that status; any other is given one more try, since
        it says what it is."""
        text = writable(raw[:KEPT].decode("utf-8", "replace")).replace(self.api_key, "***")
        tokens = error.tokens or (guessed, self.params.max_tokens)  # else: at the most
        kept = self.row(key, text, MALFORMED, *tokens)
        self.keep(kept)  # before anything is made of it
        most = None if error.tokens is None else int(error.again)
        reason = f"{self} sent {self.line(error.reason)}"
        if error.status is None:
            what = reason if error.reason.startswith("an error") else f"{MALFORMED}: {reason}"
            return Retry(what, kept=kept, most=most)
        failure = self.judge(error.status, error.reason, {})
        if isinstance(failure, Retry):
            failure.kept, failure.most = kept, most
        return failure

    def row(
        self, key: str, answer: str, reason: str | None, tokens_in: Any, tokens_out: Any
    ) -> Row:
        """A row of the journal: what came of a request."""
        return {
            "key": key,
            "model": self.model,
            "max_tokens": self.params.max_tokens,
            "answer": answer,
            "finish_reason": reason,
            "prompt_tokens": tokens_in,
            "completion_tokens": tokens_out,
        }

    def line(self, text: str) -> str:
        """One short line of what the server said."""
        return " ".join(text.replace(self.api_key, "***").split())[:200]
