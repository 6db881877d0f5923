"""One request to an OpenAI-compatible endpoint, in the form that this endpoint takes: what it refuses is left out."""

import asyncio
import json
import re
import sys
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NoReturn

from potstill.core.errors import UserError
from potstill.core.jsonl import Row, write_json

if TYPE_CHECKING:
    import openai

# What a request may do without, most wanted first, and what an endpoint's refusal calls it. Each is one step of `without`.
CONCESSIONS = (
    ("json_schema", r"json_?schema|response_?format|schema|structured|guided"),
    ("json_object", r"json_?object|response_?format|structured|guided"),
    ("max_completion_tokens", r"max_completion_tokens|max_tokens"),
    ("seed", r"\bseed\b"),
    ("temperature", r"\btemperature\b"),
)
_THINKING = re.compile(r"\s*<think>(.*?)</think>\s*", re.DOTALL)


@dataclass
class Endpoint:
    """Where the teacher is and what it is called there; `without` is what it turned out not to accept. The key is
    never shown."""

    base_url: str
    api_key: str = field(repr=False)
    model: str
    local: bool = False  # on this machine: no proxy stands between
    memory: Path | None = None  # the file that remembers `without` from run to run
    without: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        if self.memory:
            self.without = frozenset(
                _remembered(self.memory).get(f"{self.base_url} {self.model}", ())
            )

    def learn(self, without: frozenset[str]) -> None:
        """Remembers what to leave out."""
        self.without |= without
        if self.memory:
            known = _remembered(self.memory) | {
                f"{self.base_url} {self.model}": sorted(self.without)
            }
            write_json(self.memory, known)


def _remembered(path: Path) -> dict[str, list[str]]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return {}


@dataclass(frozen=True)
class Request:
    """One question: the journal's key, the messages, the index of the sample, the schema that the answer must obey."""

    key: str
    messages: list[dict[str, str]]
    sample: int
    schema: dict[str, Any] | None = None


class Retry(Exception):
    """This try brought no answer, another may. `wait`: what the server asked for, in seconds; `limit`: a 429, which costs
    no try; `overload`: too much is under way; `billed`: it may have been paid for; `raw`: what came instead."""

    def __init__(
        self,
        reason: str,
        wait: float | None = None,
        *,
        limit: bool = False,
        overload: bool = False,
        billed: bool = False,
        raw: str = "",
    ) -> None:
        super().__init__(reason)
        self.wait, self.limit, self.overload, self.billed, self.raw = (
            wait,
            limit,
            overload,
            billed,
            raw,
        )


class Refused(Exception):
    """The server will never answer this request in this form."""


class Fatal(Exception):
    """No request to this endpoint can succeed."""


@asynccontextmanager
async def connect(endpoint: Endpoint) -> AsyncIterator["openai.AsyncOpenAI"]:
    """The `openai` client on aiohttp, whose own retries are off."""
    import openai

    transport = openai.DefaultAioHttpClient(trust_env=not endpoint.local, timeout=None)
    async with openai.AsyncOpenAI(
        base_url=endpoint.base_url, api_key=endpoint.api_key, http_client=transport, max_retries=0
    ) as connection:
        yield connection


async def model_names(endpoint: Endpoint, timeout: float) -> list[str]:
    """The models that the endpoint lists. Raises UserError when it does not within `timeout` seconds."""
    import openai

    try:
        async with asyncio.timeout(timeout), connect(endpoint) as connection:
            listed = json.loads(await connection.get("/models", cast_to=str))
        return [str(model["id"]) for model in listed["data"]]
    except (openai.APIError, TimeoutError, ValueError, LookupError, TypeError) as error:
        said = " ".join(str(error).replace(endpoint.api_key, "***").split())[:200]
        raise UserError(
            f"teacher.model is auto, but {endpoint.base_url}/models gives no list of models ({said}): name the model"
        ) from None


class Connection:
    """Sends requests through `http`, each once, and counts them: `asked`, and `ambiguous` for those that may have been
    billed without a reply. `stopping` ends the search for a form that the endpoint takes."""

    http: "openai.AsyncOpenAI"  # while a session lasts

    def __init__(self, endpoint: Endpoint, params: SimpleNamespace) -> None:
        self.endpoint, self.params = endpoint, params
        self.asked = self.ambiguous = 0
        self.answered = self.stopping = False
        self._url = f"{endpoint.base_url.rstrip('/')}/chat/completions"  # whole, since joining it costs at each request

    async def ask(self, request: Request) -> Row:
        """The answer, asked for with all that the endpoint takes; what it refuses is left out and remembered once an
        answer came without. Raises Retry, Refused or Fatal."""
        without = self.endpoint.without
        while True:
            try:
                row = await self._try(request, without)
            except Refused as error:
                more = self._concede(request, without, str(error))
                if more is None or self.stopping:
                    raise
                without |= {more}
                continue
            if learned := without - self.endpoint.without:
                self.endpoint.learn(learned)
                print(
                    f"teacher {self.endpoint.model}: asked without {', '.join(sorted(learned))}, which it refuses",
                    file=sys.stderr,
                )
            self.answered = True
            return row

    def _concede(self, request: Request, without: frozenset[str], refusal: str) -> str | None:
        """What to leave out next: what the refusal names, or the answer's format while the endpoint has answered nothing."""
        formats = ("json_schema", "json_object") if request.schema else ()
        next_format = next((name for name in formats if name not in without), None)
        for name, pattern in CONCESSIONS:
            there = name == next_format if name.startswith("json") else name not in without
            if there and re.search(pattern, refusal, re.IGNORECASE):
                return name
        return None if self.answered else next_format

    async def _try(self, request: Request, without: frozenset[str]) -> Row:
        import openai

        where = f"the teacher at {self.endpoint.base_url}"
        try:
            self.asked += 1
            async with asyncio.timeout(
                self.params.timeout
            ):  # the whole request, a dripping body included
                # Not `chat.completions.create`, whose walk over types takes longer than the rest of the call.
                reply = await self.http.post(
                    self._url, cast_to=str, body=self._body(request, without)
                )
        except TimeoutError:
            self.ambiguous += 1
            reason = f"{where} gave no answer within {self.params.timeout:g} s"
            raise Retry(reason, overload=True, billed=True) from None
        except openai.APIStatusError as error:
            status = error.status_code
            said = f"{where} answered {status} ({self._clean(error.message)})"
            if status in (401, 403):
                raise Fatal(f"{said}: check TEACHER_API_KEY") from None
            if status == 404:
                raise Fatal(
                    f"{said}: check teacher.model and TEACHER_BASE_URL, which usually ends in /v1"
                ) from None
            if status in (408, 409, 425, 429) or status >= 500:
                wait = _retry_after(error.response.headers)
                raise Retry(
                    said, wait, limit=status == 429, overload=status in (502, 503, 504, 529)
                ) from None
            raise Refused(f"{status}: {self._clean(error.message)}") from None
        except openai.APIConnectionError as error:
            self._raise_connection(error, where)
        return self._row(request, reply, where, without)

    def _body(self, request: Request, without: frozenset[str]) -> dict[str, Any]:
        room = "max_completion_tokens" if "max_completion_tokens" not in without else "max_tokens"
        body: dict[str, Any] = {
            "model": self.endpoint.model,
            "messages": request.messages,
            "temperature": self.params.temperature,
            room: self.params.max_tokens,
            "seed": request.sample,
            **self.params.extra_body,
        }
        for name in ("seed", "temperature"):
            if name in without:
                del body[name]
        if request.schema and "json_schema" not in without:
            schema = {"name": "answer", "schema": request.schema, "strict": True}
            body["response_format"] = {"type": "json_schema", "json_schema": schema}
        elif request.schema and "json_object" not in without:
            body["response_format"] = {"type": "json_object"}
        return body

    def _raise_connection(self, error: Exception, where: str) -> NoReturn:
        """Raises Fatal when the server cannot be reached at all, else Retry."""
        import aiohttp

        chain: list[BaseException] = [error]
        while chain[-1].__cause__ is not None:
            chain.append(chain[-1].__cause__)
        reason = self._clean(str(chain[-1]) or type(chain[-1]).__name__)
        # Not the client's own classes, which take a refused connection for a time-out.
        reached = not any(isinstance(one, aiohttp.ClientConnectorError) for one in chain)
        if reached:
            self.ambiguous += 1
        elif not self.answered:
            raise Fatal(
                f"{where} cannot be reached ({reason}): check that it runs and TEACHER_BASE_URL"
            ) from None
        raise Retry(
            f"the connection to {where} broke ({reason})", overload=not reached, billed=reached
        ) from None

    def _row(self, request: Request, text: str, where: str, without: frozenset[str]) -> Row:
        """The journal's row for a reply; raises Retry when the reply is no chat completion."""
        try:
            reply = json.loads(text)
            choice = reply["choices"][0]
            message = choice["message"]
            answer = str(message.get("content") or "")
            thought = message.get("reasoning_content") or message.get("reasoning")
            if not thought and (found := _THINKING.match(answer)):
                thought, answer = found[1], answer[found.end() :]
            used = reply.get("usage") or {}
            row = {
                "key": request.key,
                "model": self.endpoint.model,
                "max_tokens": self.params.max_tokens,
                "answer": answer,
                "finish_reason": choice.get("finish_reason"),
                "prompt_tokens": used.get("prompt_tokens"),
                "completion_tokens": used.get("completion_tokens"),
            }
        except (ValueError, LookupError, TypeError, AttributeError):
            reason = f"{where} sent no chat completion but {self._clean(text)[:80]!r}"
            raise Retry(reason, billed=True, raw=self._hide(text)[:100_000]) from None
        if thought:
            row["reasoning"] = str(thought)
        if without:
            row["without"] = sorted(without)
        return row

    def _clean(self, text: str) -> str:
        """One short line of what the server said, without our key."""
        return " ".join(self._hide(text).split())[:200]

    def _hide(self, text: str) -> str:
        return text.replace(self.endpoint.api_key, "***")


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait by a reply's Retry-After, a number or a date; None without one."""
    from email.utils import parsedate_to_datetime

    value = headers.get("retry-after", "")
    try:
        return (
            float(value)
            if value.isdigit()
            else max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
        )
    except ValueError:
        return None
