"""The teacher: any OpenAI-compatible endpoint, or the task's own rules behind one; each answer is asked for once."""

import asyncio
import hashlib
import json
import os
import re
import sys
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from potstill.core import project
from potstill.core.errors import UserError
from potstill.core.jsonl import Row
from potstill.task.settings import Task

if TYPE_CHECKING:
    from potstill.teacher.client import Client
    from potstill.teacher.endpoint import Endpoint, Request
    from potstill.teacher.journal import Journal

SCRIPTED, AUTO = "scripted", "auto"
SMOKE = 16  # answers that are looked at before the rest is asked for
FIELDS = ("model", "max_tokens", "answer", "finish_reason", "prompt_tokens", "completion_tokens")
Check = Callable[[Row, str], list[str]]


class Questions:
    """All that is asked of the teacher in one go: `samples` answers to each row, by the prompt prompts/<kind>.md. An answer
    to the kind `teacher` obeys the task's schema, where the task checks it; to another kind `schema`, None for a free text.

    A row's `asked_as`, fields of the input, is asked in their place (expand has rewritten the request to fit the answer);
    a row of another kind than `teacher` is the draw that its `draw` says.

    Iterating gives (row, sample, Request), any number of times, without holding them. The key of a request is the hash of
    what decides an answer: model, messages, temperature, extra body, schema, sample and redraw. Neither the endpoint's
    URL nor the length allowed, the limits and retries belong to it.
    """

    def __init__(
        self,
        task: Task,
        rows: Collection[Row],
        params: SimpleNamespace,
        model: str,
        samples: int,
        kind: str = "teacher",
        schema: dict[str, Any] | None = None,
    ) -> None:
        self.task, self.rows, self.samples, self.kind = task, rows, samples, kind
        listed = [
            next(iter(entry)) if isinstance(entry, dict) else entry
            for entry in task.config["checks"]
        ]
        self.schema = (
            schema if kind != "teacher" else task.schema if "json_schema" in listed else None
        )
        settings = [model, float(params.temperature), params.extra_body, self.schema, params.redraw]
        self._start = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
        self._after = lru_cache(16)(
            self._hash_of_first
        )  # a system prompt of thousands of characters is hashed once

    def __len__(self) -> int:
        return len(self.rows) * self.samples

    def __iter__(self) -> Iterator[tuple[Row, int, "Request"]]:
        from potstill.teacher.endpoint import Request

        for row in self.rows:
            messages = self.task.messages(self.kind, row | row.get("asked_as", {}))
            asked = self._after(messages[0]["role"], messages[0]["content"]).copy()
            for message in messages[1:]:
                asked.update(_framed(message["role"], message["content"]))
            first = 0 if self.kind == "teacher" else row["draw"]
            for sample in range(first, first + self.samples):
                one = asked.copy()
                one.update(b"%d" % sample)
                yield row, sample, Request(one.hexdigest()[:32], messages, sample, self.schema)

    def _hash_of_first(self, role: str, content: str) -> "hashlib._Hash":
        one = self._start.copy()
        one.update(_framed(role, content))
        return one


def _framed(role: str, content: str) -> bytes:
    """A message as bytes that no other message has."""
    raw = content.encode("utf-8", "surrogatepass")
    return f"{role}:{len(raw)}:".encode() + raw


def answer_rows(
    task: Task,
    rows: Collection[Row],
    params: SimpleNamespace,
    samples: int,
    *,
    check: Check | None = None,
    good_share: float = 0.0,
    kind: str = "teacher",
    schema: dict[str, Any] | None = None,
) -> Iterator[Row]:
    """The teacher's raw answers, `samples` for each row, in the order of the rows; `kind` and `schema` as in Questions.

    `params` is the section teacher of params.yaml. A result is {"id", "sample", "key", "model", "max_tokens", "answer", "finish_reason",
    "prompt_tokens", "completion_tokens", "error"}, and "reasoning" where the model gave it; a request that got no answer
    has an empty one and says why in `error`.
    What the journal holds is not asked again. When `check` finds reasons against more than 1 - good_share of the first SMOKE
    answers, no more are asked for. Raises UserError when that is so or the endpoint cannot be used, KeyboardInterrupt
    after a signal.
    """
    from potstill.teacher.client import Client

    start = time.monotonic()
    if params.budget is not None and None in (params.price_in, params.price_out):
        raise UserError(
            f"teacher.budget is {params.budget:g}, but without teacher.price_in and teacher.price_out no cost is known: "
            "give both prices or no budget"
        )
    model = model_name(task, params)
    questions = Questions(task, rows, params, model, samples, kind, schema)
    journal = open_journal(task)
    if journal.damaged:
        print(
            f"{journal.path}: {journal.damaged} damaged lines left out; what they held is asked for again when it is needed",
            file=sys.stderr,
        )
    room = params.max_tokens
    failed: dict[str, str] | None = None  # once the teacher was asked: why a request has no answer
    for row, sample, request in questions:
        found = journal.find(request.key, room)
        if found is None and failed is None:
            with open_endpoint(task, params, model) as there:
                client = Client(there, params, journal, len(questions))
                try:
                    asyncio.run(_ask(client, questions, check, good_share))
                finally:
                    _say(
                        model, client.found, f"{client.summary()}, {time.monotonic() - start:.1f} s"
                    )
            failed, found = client.failed, journal.find(request.key, room)
        yield _result(row["id"], sample, request.key, found, failed or {})
    if failed is None:
        _say(model, len(questions), f"none asked, {time.monotonic() - start:.1f} s")


async def _ask(
    client: "Client", questions: Questions, check: Check | None, good_share: float
) -> None:
    """Asks what the journal does not hold: the first SMOKE questions and, when their answers are good, the rest."""

    def missing(some: Iterable[tuple[Row, int, "Request"]]) -> Iterator["Request"]:
        for _, _, request in some:
            if client.holds(request):
                client.found += 1
            else:
                yield request

    async with client.session():
        todo = iter(questions)
        if check and good_share:
            first = list(islice(todo, SMOKE))
            await client.ask(missing(first))
            _smoke(client, questions.task, first, check, good_share)
        await client.ask(missing(todo))


def _smoke(
    client: "Client",
    task: Task,
    first: list[tuple[Row, int, "Request"]],
    check: Check,
    good_share: float,
) -> None:
    """Raises UserError when too few of the first answers pass the task's checks."""
    reasons = []
    for row, _, request in first:
        found = client.journal.find(request.key, client.params.max_tokens)
        if found is None:
            reasons.append(client.failed[request.key])
        elif found["finish_reason"] not in ("stop", None):
            reasons.append(f"finish_reason: {found['finish_reason']}")
        else:
            reasons += check(row, found["answer"])[:1]
    if len(first) - len(reasons) < good_share * len(first):
        raise UserError(
            f"teacher {client.endpoint.model}: only {len(first) - len(reasons)} of the first {len(first)} answers pass the checks of "
            f"task.yaml ({reasons[0]}), expected a share of {good_share:g} (generate.good_share): mend "
            f"prompts/teacher.md before the rest is paid for; these answers are in the journal"
        )


def _say(model: str, kept: int, rest: str) -> None:
    print(
        f"teacher {model}: {kept:,} answers from the journal, {rest}", file=sys.stderr, flush=True
    )


def _result(id: str, sample: int, key: str, answer: Row | None, failed: dict[str, str]) -> Row:
    found = answer or {**dict.fromkeys(FIELDS), "answer": ""}
    error = None if answer else failed.get(key, "the journal lost it: run again")
    thought = {"reasoning": found["reasoning"]} if "reasoning" in found else {}
    return {
        "id": id,
        "sample": sample,
        "key": key,
        **{name: found[name] for name in FIELDS},
        **thought,
        "error": error,
    }


def open_journal(task: Task) -> "Journal":
    """The task's journal, one for all stages."""
    from potstill.teacher.journal import Journal

    return Journal(project.journals() / f"{task.name}.jsonl")


def model_name(task: Task, params: SimpleNamespace) -> str:
    """The teacher's name, which is part of every key: what teacher.model says, the hash of the task's own rules for
    `scripted`, the one model that the endpoint lists for `auto`."""
    from potstill.teacher import endpoint, scripted

    if params.model == SCRIPTED:
        return scripted.model_name(Path("teacher"))
    if params.model != AUTO:
        return str(params.model)
    there = endpoint.Endpoint(*_url_and_key(AUTO), model=AUTO)
    names = asyncio.run(endpoint.model_names(there, params.timeout))
    if len(names) != 1:
        listed = ", ".join(names[:8]) or "none"
        raise UserError(
            f"teacher.model is auto, but the endpoint has {len(names)} models ({listed}): name one"
        )
    return names[0]


@contextmanager
def open_endpoint(task: Task, params: SimpleNamespace, model: str) -> Iterator["Endpoint"]:
    """The endpoint to ask: the task's own rules, served for as long as this lasts, or the one that the environment names."""
    from potstill.teacher.endpoint import Endpoint
    from potstill.teacher.scripted import serve

    if params.model == SCRIPTED:
        with serve(Path("teacher")) as url:
            yield Endpoint(url, "none", model, local=True)
        return
    yield Endpoint(*_url_and_key(model), model, memory=project.journals() / "endpoints.json")


def _url_and_key(model: str) -> tuple[str, str]:
    """Base URL and key from the environment."""
    found = [os.environ.get(name, "").strip() for name in ("TEACHER_BASE_URL", "TEACHER_API_KEY")]
    if not all(found):
        raise UserError(
            f"teacher.model is {model}, which needs TEACHER_BASE_URL (such as https://host/v1) and TEACHER_API_KEY in the "
            f"environment; without them use teacher.model: {SCRIPTED}"
        )
    if not re.fullmatch(r"https?://[^\s@?]+", found[0]):
        raise UserError(
            "TEACHER_BASE_URL is no URL such as https://host/v1, without user, password or query"
        )
    return found[0], found[1]
