"""One request to an OpenAI-compatible endpoint, in the form that this endpoint takes: what it
refuses is left out."""

import asyncio
import json
import re
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from potstill.core import project
from potstill.core.errors import UserError
from potstill.core.jsonl import Row, read_json, writable, write_json
from potstill.teacher import reply
from potstill.teacher.journal import MALFORMED
from potstill.teacher.limits import estimate

# What a request may do without, most wanted first, and what an endpoint's refusal calls it
CONCESSIONS = {
    "json_schema": r"json_?schema|response_?format|schema|structured|guided",
    "json_object": r"json_?object|response_?format|structured|guided",
    "max_completion_tokens": r"max_completion_tokens|max_tokens",
    "seed": r"\bseed\b",
    "temperature": r"\btemperature\b",
}
FORMATS = ("json_schema", "json_object")
_KEY = "check TEACHER_API_KEY"
_PLACE = "check teacher.model and TEACHER_BASE_URL, which usually ends in /v1"
FATAL = {401: _KEY, 403: _KEY, 404: _PLACE}
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


@dataclass(eq=False)
class Retry(Exception):
    """This try brought no answer, another may."""

    reason: str
    wait: float | None = None  # seconds, as the server asked
    limit: bool = False  # a 429, which costs no try
    overload: bool = False  # too much is under way
    billed: bool = False  # it may have been paid for, though nothing came
    kept: Row | None = None  # the journal's row of what came instead of an answer
    most: int | None = None  # further tries; None: teacher.retries


class Refused(Exception):
    """The server will never answer this request in this form."""


@dataclass
class Endpoint:
    """Where the teacher is and what it is called there. The key is never shown."""

    base_url: str
    api_key: str = field(repr=False)
    model: str
    params: SimpleNamespace
    local: bool = False  # on this machine: no proxy stands between
    asked: int = 0  # requests sent
    ambiguous: int = 0  # those of them that may have been billed without a reply
    answered: bool = False
    stopping: asyncio.Event = field(default_factory=asyncio.Event)  # send nothing more
    keep: Callable[[Row], None] = field(default=lambda row: None, repr=False)  # of the journal

    def __str__(self) -> str:
        return f"the teacher at {self.base_url}"

    @cached_property
    def without(self) -> frozenset[str]:
        """What the endpoint turned out not to accept, in earlier runs, too."""
        return frozenset(_remembered().get(f"{self.base_url} {self.model}", ()))

    def _learn(self, without: frozenset[str]) -> None:
        said = f"asked without {', '.join(sorted(without - self.without))}, which it refuses"
        print(f"teacher {self.model}: {said}", file=sys.stderr)
        self.without = without
        mine = {f"{self.base_url} {self.model}": sorted(without)}
        write_json(_memory(), _remembered() | mine)

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[Any]:
        """The `openai` client on aiohttp, whose own retries are off; the other methods need it."""
        import openai

        http = openai.DefaultAioHttpClient(trust_env=not self.local, timeout=None)
        async with openai.AsyncOpenAI(
            base_url=self.base_url, api_key=self.api_key, http_client=http, max_retries=0
        ) as self._http:
            yield self._http

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
                f"({self._line(str(error))}): name the model"
            ) from None

    async def ask(self, request: Request) -> Row:
        """The journal's row for the answer, asked for with all that the endpoint takes; what it
        refuses is left out and remembered once an answer came without. Raises Retry, Refused, or
        UserError when no request to this endpoint can succeed."""
        without = self.without
        while True:
            try:
                row = await self._try(request, without)
                break
            except Refused as error:
                more = self._concede(request, without, str(error))
                if more is None or self.stopping.is_set():
                    raise
                without |= {more}
        if without - self.without:
            self._learn(without | self.without)
        self.answered = True
        return row

    def _concede(self, request: Request, without: frozenset[str], refusal: str) -> str | None:
        """What to leave out next: what the refusal names, or the answer's format while the endpoint
        has answered nothing."""
        formats = [name for name in FORMATS if request.schema and name not in without][:1]
        for name, pattern in CONCESSIONS.items():
            possible = name in formats if name in FORMATS else name not in without
            if possible and re.search(pattern, refusal, re.IGNORECASE):
                return name
        return formats[0] if formats and not self.answered else None

    async def _try(self, request: Request, without: frozenset[str]) -> Row:
        import openai

        self.asked += 1
        url = f"{self.base_url.rstrip('/')}/chat/completions"  # whole: the client joins it slowly
        try:
            async with asyncio.timeout(self.params.timeout):  # a dripping body included
                # Not `chat.completions.create`, whose walk over types takes longer than the rest
                body = self._body(request, without)
                raw = await self._http.post(url, cast_to=bytes, body=body)
        except (TimeoutError, openai.APIStatusError, openai.APIConnectionError) as error:
            raise self._failure(error) from None
        try:
            found = reply.read(raw, request.guessed)
        except reply.NoAnswer as error:
            raise self._no_answer(request, error, raw) from None
        tokens = found.prompt_tokens, found.completion_tokens
        row = self.row(request, found.answer, found.finish_reason, *tokens) | found.fields()
        return row | {"without": sorted(without)} if without else row

    def _body(self, request: Request, without: frozenset[str]) -> dict[str, Any]:
        room = "max_completion_tokens" if "max_completion_tokens" not in without else "max_tokens"
        body: dict[str, Any] = {
            "model": self.model,
            "messages": request.messages,
            "temperature": self.params.temperature,
            room: self.params.max_tokens,
            "seed": request.sample,
            **self.params.extra_body,
        }
        body = {name: value for name, value in body.items() if name not in without}
        if request.schema and "json_schema" not in without:
            schema = {"name": "answer", "schema": request.schema, "strict": True}
            body["response_format"] = {"type": "json_schema", "json_schema": schema}
        elif request.schema and "json_object" not in without:
            body["response_format"] = {"type": "json_object"}
        return body

    def _failure(self, error: BaseException) -> Exception:
        """What it means that no reply came, or one with a status of 400 or more."""
        import aiohttp
        import openai

        if isinstance(error, TimeoutError):
            self.ambiguous += 1
            reason = f"{self} gave no answer within {self.params.timeout:g} s"
            return Retry(reason, overload=True, billed=True)
        if isinstance(error, openai.APIStatusError):
            status, message = error.status_code, self._line(error.message)
            reason = f"{self} answered {status} ({message})"
            if status in FATAL:
                return UserError(f"{reason}: {FATAL[status]}")
            if status not in (408, 409, 425, 429) and status < 500:
                return Refused(f"{status}: {message}")
            overload = status in (502, 503, 504, 529)
            wait = _retry_after(error.response.headers)
            return Retry(reason, wait=wait, limit=status == 429, overload=overload)
        causes = [error]
        while cause := causes[-1].__cause__:
            causes.append(cause)
        reason = self._line(str(causes[-1]) or type(causes[-1]).__name__)
        # Not by the client's own classes, which take a refused connection for a time-out
        reached = not any(isinstance(cause, aiohttp.ClientConnectorError) for cause in causes)
        self.ambiguous += reached
        if not reached and not self.answered:  # nor ever was
            check = "check that it runs and TEACHER_BASE_URL"
            return UserError(f"{self} cannot be reached ({reason}): {check}")
        reason = f"the connection to {self} broke ({reason})"
        return Retry(reason, overload=not reached, billed=reached)

    def _no_answer(self, request: Request, error: reply.NoAnswer, raw: bytes) -> Exception:
        """What it means that a reply with a good status has no answer; it is in the journal then.
        An error that names a status is one of that status; any other is given one more try, since
        it says what it is."""
        import httpx2
        import openai

        text = writable(raw[:KEPT].decode("utf-8", "replace")).replace(self.api_key, "***")
        tokens = error.tokens or (request.guessed, self.params.max_tokens)  # else: at the most
        kept = self.row(request, text, MALFORMED, *tokens)
        self.keep(kept)  # before anything is made of it
        most = None if error.tokens is None else int(error.again)
        reason = f"{self} sent {self._line(error.reason)}"
        if error.status is None:
            what = reason if error.reason.startswith("an error") else f"{MALFORMED}: {reason}"
            return Retry(what, kept=kept, most=most)
        response = httpx2.Response(error.status, request=httpx2.Request("POST", self.base_url))
        failure = self._failure(openai.APIStatusError(error.reason, response=response, body=None))
        if isinstance(failure, Retry):
            failure.kept, failure.most = kept, most
        return failure

    def row(
        self, request: Request, answer: str, reason: str | None, tokens_in: Any, tokens_out: Any
    ) -> Row:
        """A row of the journal: what came of a request."""
        return {
            "key": request.key,
            "model": self.model,
            "max_tokens": self.params.max_tokens,
            "answer": answer,
            "finish_reason": reason,
            "prompt_tokens": tokens_in,
            "completion_tokens": tokens_out,
        }

    def _line(self, text: str) -> str:
        """One short line of what the server said."""
        return " ".join(text.replace(self.api_key, "***").split())[:200]


def _memory() -> Path:
    return project.journals() / "endpoints.json"


def _remembered() -> Row:
    """What each endpoint does not accept, from run to run."""
    with suppress(UserError):
        return read_json(_memory())
    return {}


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait by a reply's Retry-After, a number or a date; None without one."""
    value = headers.get("retry-after", "")
    try:
        if value.isdigit():
            return float(value)
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return None
