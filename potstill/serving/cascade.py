"""`make serve CASCADE=1`: the student answers first; what fails the checks goes to the teacher.

Only checks of the input and the answer are asked (evaluation/cascade.py), and how sure the student
is (confidence.py): the server knows no right answer. A reply says who answered, in the header
`x-answered-by` and the field `answered_by`. Where a fault is known of the answer that is sent,
`failed_checks` has it.
"""

import json
import sys
from dataclasses import dataclass
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from potstill.checks import registry
from potstill.core.jsonl import Row
from potstill.evaluation.cascade import faults
from potstill.serving import canary, confidence, metrics
from potstill.serving.canary import FIELD, HEADER
from potstill.serving.capture import names
from potstill.serving.gateway import CHAT, Gateway, with_body
from potstill.serving.standby import Standby, Unavailable

FLAG = "x-teacher"
STREAMS, DOWN = ("buffered", "student"), ("student", "503")


@dataclass
class Settings:
    """`stream`: streamed requests are `buffered` until the answer is checked, or for the `student`
    alone. `down`: a bad answer is the `student`'s, with a flag, where the teacher gives none, or
    the reply is a `503`. `confidence`: an answer with a less probable token than that goes to the
    teacher, too; None: none does."""

    teacher: Standby
    stream: str = "buffered"
    down: str = "student"
    confidence: float | None = None


# vLLM makes a middleware without arguments: `make serve` leaves them here
chosen: Settings | None = None


class Cascade(Gateway):
    """The gateway with the teacher behind the student."""

    def __init__(self, app: ASGIApp) -> None:
        super().__init__(app)
        assert chosen
        self.settings = chosen
        self.said = ""  # why the teacher gave no answer last
        self.counted = 0.0  # of what the teacher cost

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            async with self.settings.teacher.connected():
                return await super().__call__(scope, receive, send)
        return await super().__call__(scope, receive, send)

    async def forward(self, given: Row, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] != CHAT:
            return await super().forward(given, scope, receive, send)
        row = self.ours(given)
        streamed = bool(given.get("stream"))
        if row is None or (streamed and self.settings.stream == "student"):
            send = canary.headed(send, {HEADER: "student"})
            return await super().forward(given, scope, receive, send)
        asked = {k: v for k, v in self.filled(given).items() if not k.startswith("stream")}
        if (bar := self.settings.confidence) is not None:
            asked["logprobs"] = True
        scope, receive = with_body(scope, receive, self.dumped(asked))
        start, raw = await self._student(row, scope, receive)
        if start is None:  # the client has left
            return None
        reply = json.loads(raw) if start["status"] == 200 else None
        if reply is None:  # vLLM's refusal; its null is for a client that has left
            return await _send(send, start, raw, "application/json", {})
        choice = reply["choices"][0]
        failed = faults(self.task, row, choice["message"]["content"] or "", choice["finish_reason"])
        if bar is not None:
            if (sure := confidence.of_reply(choice)) < bar:
                failed.append(f"{confidence.NAME}: {sure:.2g}")
            raw = json.dumps(reply, ensure_ascii=False).encode()
        served = self.served(row, raw, Headers(raw=start["headers"]))
        served = served._replace(failed=names(failed))
        metrics.judged(names(failed), served.by)
        headers, more = {HEADER: served.by}, Row({FIELD: served.by})
        if failed:
            try:
                found = await self.settings.teacher.answer(row)
            except Unavailable as error:
                self._tell(str(error))
                metrics.UNAVAILABLE.inc()
                if self.settings.down == "503":
                    self.recorder.put(served)
                    why = "the student's answer fails the checks, and the teacher gives none"
                    raise HTTPException(503, f"{why}: ask again in a while") from None
                headers[FLAG], more["failed_checks"] = "unavailable", failed
            else:
                headers[HEADER] = more[FIELD] = "teacher"
                reply |= self._taught(reply, found)
                choice = reply["choices"][0]
                text = choice["message"]["content"]
                taught = {"answer": text, "finish_reason": choice["finish_reason"]}
                served = served._replace(taught=taught)
                if failed := faults(self.task, row, text, choice["finish_reason"]):
                    more["failed_checks"] = failed
            self._count()
        self.recorder.put(served)
        if streamed:
            usage = bool((given.get("stream_options") or {}).get("include_usage"))
            return await _send(send, start, _events(reply | more, usage), EVENTS, headers)
        if headers[HEADER] == "teacher":
            raw = json.dumps(reply, ensure_ascii=False).encode()
        first = json.dumps(more, ensure_ascii=False).encode()  # the rest stays as vLLM wrote it
        return await _send(send, start, first[:-1] + b"," + raw[1:], "application/json", headers)

    async def _student(
        self, row: Row, scope: Scope, receive: Receive
    ) -> tuple[Message | None, bytes]:
        """A student's reply: its start, None where it sent none, and its whole body."""
        start: Message | None = None
        body = bytearray()

        async def hold(message: Message) -> None:
            nonlocal start
            if message["type"] == "http.response.start":
                start = message
            elif message["type"] == "http.response.body":
                body.extend(message.get("body", b""))

        await self.student(row, scope, receive, hold)
        return start, bytes(body)

    def _taught(self, reply: Row, found: Row) -> Row:
        """What of a chat.completion is other where the teacher answers: its text is as it would be
        learnt, and what it took is counted."""
        message = {"role": "assistant", "content": registry.taught(self.task, found)}
        reason = found["finish_reason"] or "stop"
        used = {name: found[name] or 0 for name in ("prompt_tokens", "completion_tokens")}
        choice = reply["choices"][0] | {"message": message, "finish_reason": reason}
        total = {"total_tokens": sum(used.values())}
        return {"model": found["model"], "choices": [choice], "usage": used | total}

    def _count(self) -> None:
        """Counts what the teacher's new answers have cost since the last time."""
        teacher = self.settings.teacher
        cost = teacher.budget.cost(*teacher.took.billed()) or 0.0
        metrics.COST.inc(max(0.0, cost - self.counted))
        self.counted = max(cost, self.counted)

    def _tell(self, why: str) -> None:
        """Says once why the teacher gives no answer, until the reason changes."""
        if why != self.said:
            print(f"serve: no answer of the teacher: {why}", file=sys.stderr, flush=True)
        self.said = why


EVENTS = "text/event-stream; charset=utf-8"


def _events(reply: Row, usage: bool) -> bytes:
    """A whole answer as the events of a stream, with its `usage` where that was asked for."""
    [choice] = reply["choices"]
    kept = ("id", "created", "model", FIELD, "failed_checks")
    head = {name: reply[name] for name in kept if name in reply}
    head["object"] = "chat.completion.chunk"
    told = {"role": "assistant", "content": choice["message"]["content"]}
    parts: list[Any] = [
        head | {"choices": [{"index": 0, "delta": told, "finish_reason": None}]},
        head | {"choices": [{"index": 0, "delta": {}, "finish_reason": choice["finish_reason"]}]},
    ]
    if usage:
        parts.append(head | {"choices": [], "usage": reply["usage"]})
    lines = [*(json.dumps(part, ensure_ascii=False) for part in parts), "[DONE]"]
    return "".join(f"data: {line}\n\n" for line in lines).encode()


async def _send(
    send: Send, start: Message, body: bytes, kind: str, headers: dict[str, str]
) -> None:
    """Sends a whole reply that begins with `start`."""
    own = MutableHeaders(raw=list(start["headers"]))
    own.update({"content-length": str(len(body)), "content-type": kind, **headers})
    await send({**start, "headers": own.raw})
    await send({"type": "http.response.body", "body": body, "more_body": False})
