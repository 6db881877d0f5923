"""The teacher: an OpenAI-compatible endpoint, or the task's own rules or a local model behind one;
each answer is asked for once."""

import asyncio
import hashlib
import json
import sys
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from potstill.core import launch, project
from potstill.core.errors import UserError
from potstill.core.jsonl import Row
from potstill.task.settings import Task
from potstill.teacher import form, lease, local, place, scripted, sharded
from potstill.teacher.batch import Batches
from potstill.teacher.client import Client
from potstill.teacher.endpoint import Endpoint, Request
from potstill.teacher.journal import Journal

RULES = Path("teacher")  # the task's own
SMOKE = 16  # answers that are looked at before the rest is asked for
FIELDS = ("model", "max_tokens", "answer", "finish_reason", "prompt_tokens", "completion_tokens")
SOME = ("reasoning", "refusal", "cached_tokens", "price_share")  # where there are any
Check = Callable[[Row, str], list[str]]
Say = Callable[[int, str], None]


@dataclass
class Questions:
    """All that is asked of the teacher in one go: `samples` answers to each row, by the prompt
    prompts/<kind>.md. To the kind `teacher` they obey the task's schema, where the task checks it,
    to another kind `schema` (None: free text); the samples of such a row begin at its `draw`. Where
    expand has rewritten a row to fit the answer, its `asked_as` is asked in the input's place.

    Iterating gives (row, Request), any number of times, without holding them. The key of a request
    is the hash of what decides an answer: model, messages, temperature, extra body, schema, sample
    and redraw; not the endpoint's URL, the length allowed, the limits and retries.
    """

    task: Task
    rows: Collection[Row]
    params: SimpleNamespace
    model: str
    samples: int
    kind: str = "teacher"
    schema: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        if self.kind == "teacher":
            checks = self.task.config["checks"]  # names, or names with options
            listed = any(entry == "json_schema" or "json_schema" in [*entry] for entry in checks)
            self.schema = self.task.schema if listed else None

    def __len__(self) -> int:
        return len(self.rows) * self.samples

    def __iter__(self) -> Iterator[tuple[Row, Request]]:
        p = self.params
        settings = [self.model, float(p.temperature), p.extra_body, self.schema, p.redraw]
        start = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
        first: dict[str, str] = {}
        for row in self.rows:
            messages = self.task.messages(self.kind, row | row.get("asked_as", {}))
            if messages[0] != first:  # mostly the same: thousands of characters, hashed once
                first, after_first = messages[0], _continued(start, messages[:1])
            asked = _continued(after_first, messages[1:])
            draw = 0 if self.kind == "teacher" else row["draw"]
            for sample in range(draw, draw + self.samples):
                key = asked.copy()
                key.update(b"%d" % sample)
                yield row, Request(key.hexdigest()[:32], messages, sample, self.schema)


def _continued(start: "hashlib._Hash", messages: list[dict[str, str]]) -> "hashlib._Hash":
    """A hash with some messages, each as bytes that no other message has."""
    asked = start.copy()
    for message in messages:
        raw = message["content"].encode("utf-8", "surrogatepass")
        asked.update(f"{message['role']}:{len(raw)}:".encode() + raw)
    return asked


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
    """The teacher's raw answers, `samples` for each row, in the order of the rows; `kind` and
    `schema` as in Questions, `params` is the section teacher of params.yaml.

    A result is {"id", "sample", "key", "model", "max_tokens", "answer", "finish_reason",
    "prompt_tokens", "completion_tokens", "error"}, and those of SOME that there are: `refusal` is
    what the model said instead of an answer. A request that got no answer has an empty one and says
    why in `error`; one line names the first. What the journal holds is not asked again. When
    `check` finds reasons against more than 1 - good_share of the first SMOKE answers, no more are
    asked for. Raises UserError when that is so or the endpoint cannot be used, KeyboardInterrupt
    after a signal. Also where an answer that was given is not to be seen in the journal.
    """
    start = time.monotonic()
    if params.budget is not None and None in (params.price_in, params.price_out):
        raise UserError(
            f"teacher.budget is {params.budget:g}, but without teacher.price_in and "
            "teacher.price_out no cost is known: give both prices or no budget"
        )
    form.check(params)
    model = model_name(params)
    questions = Questions(task, rows, params, model, samples, kind, schema)
    journal = open_journal(task)
    if journal.damaged:
        said = "damaged lines left out; what they held is asked for again when it is needed"
        print(f"{journal.path}: {journal.damaged} {said}", file=sys.stderr)

    def say(held: int, rest: str) -> None:
        seconds = time.monotonic() - start
        said = f"teacher {model}: {held:,} answers from the journal, {rest}, {seconds:.1f} s"
        print(said, file=sys.stderr, flush=True)

    lost: list[str] = []
    failed: dict[str, str] | None = None  # once the teacher was asked: why a request has no answer
    for row, request in questions:
        answer = journal.find(request.key, params.max_tokens)
        if answer is None and failed is None:
            if why := form.copies(params, samples):
                print(f"teacher {model}: {why}", file=sys.stderr)
            how = questions, journal, say, check, good_share
            failed = _in_shards(*how) if params.shards > 1 else _directly(*how)
            answer = journal.find(request.key, params.max_tokens)
        reason = None if answer else (failed or {}).get(request.key)
        if answer is None and reason is None:  # such as a network file system with an old listing
            wrong = f"no answer to row {row['id']}, which the teacher gave, is to be seen"
            raise UserError(f"{journal.path}: {wrong}: run the same command again")
        kept = answer or {**dict.fromkeys(FIELDS), "answer": ""}
        result = {"id": row["id"], "sample": request.sample, "key": request.key}
        result |= {name: kept[name] for name in (*FIELDS, *SOME) if name in kept}
        lost += [] if answer else [f"row {row['id']}: {reason}"]
        yield result | {"error": reason}
    if lost:
        said = f"{len(lost):,} without an answer, the first {lost[0]}"
        print(f"teacher {model}: {said}", file=sys.stderr)
    if failed is None:
        say(len(questions), "none asked")


def _directly(
    questions: Questions,
    journal: Journal,
    say: Say,
    check: Check | None,
    share: float,
    run: str = "",
    failed: dict[str, str] | None = None,
) -> dict[str, str]:
    """Has what the journal lacks asked by this process; gives, by key, why a request has no answer.
    Those that `failed` has are not asked."""
    with open_endpoint(questions.params, questions.model) as endpoint:
        client = Client(endpoint, journal, len(questions), run)
        client.failed |= failed or {}
        try:
            asyncio.run(_ask(client, questions, check, share))
        finally:
            say(client.held, client.summary())
    return client.failed


def _in_shards(
    questions: Questions, journal: Journal, say: Say, check: Check | None, share: float
) -> dict[str, str]:
    """As _directly, by shards: but for the first SMOKE questions, what is in batches, and what is
    left over where a shard's part of the budget is used up."""
    p = questions.params
    if in_batches(p):  # the endpoint spreads them itself
        return _directly(questions, journal, say, check, share)
    journal.own = True
    with lease.taken(journal.path, launch.is_here(), p.timeout) as run:
        journal.refresh()
        with open_endpoint(p, questions.model) as endpoint:
            client = Client(endpoint, journal, len(questions), run)
            left = False
            try:
                if asyncio.run(_ask(client, questions, check, share, shards=True)):
                    requests = (request for _, request in questions)
                    left = sharded.ask(client, requests, p, questions.schema)
            finally:
                say(client.held, client.summary())
        if left:
            return _directly(questions, journal, say, None, 0.0, run, client.failed)
    return client.failed


async def _ask(
    client: Client, questions: Questions, check: Check | None, share: float, shards: bool = False
) -> bool:
    """Asks what the journal lacks: of the first SMOKE questions and, when their answers are good,
    of the rest, in batches where teacher.batch says so. With `shards` True when the rest is left to
    them. Raises UserError when too few of the first pass the task's checks."""
    new = in_batches(client.params)
    async with client.session():
        batches = Batches(client, new)
        shards &= not batches.open
        todo = (asked for asked in questions if not batches.holds(asked[1].key))
        if (check and share) or new or shards:  # alone: the fewest that show that the form is right
            first = list(islice(todo, SMOKE))
            await client.ask(request for _, request in first)
        if check and share:
            reasons = list(filter(None, (_against(client, check, *asked) for asked in first)))
            good = len(first) - len(reasons)
            if good < share * len(first):
                raise UserError(
                    f"teacher {client.endpoint.model}: only {good} of the first {len(first)} "
                    f"answers pass the checks of task.yaml ({reasons[0]}), expected a share of "
                    f"{share:g} (generate.good_share): mend prompts/teacher.md before the "
                    "rest is paid for; these answers are in the journal"
                )
        if shards:
            return True
        if new or batches.open:
            client.held = -client.answered - len(client.failed)  # all are passed again
            await batches.ask(questions)
        else:
            await client.ask(request for _, request in todo)
    return False


def _against(client: Client, check: Check, row: Row, request: Request) -> str | None:
    """The first reason against an answer; None for a good one."""
    answer = client.journal.find(request.key, client.params.max_tokens)
    if answer is None:
        return client.failed[request.key]
    if "refusal" in answer:
        return f"refused: {answer['refusal']}"
    if answer["finish_reason"] not in ("stop", None):
        return f"finish_reason: {answer['finish_reason']}"
    return next(iter(check(row, answer["answer"])), None)


def in_batches(params: SimpleNamespace) -> bool:
    """Whether the teacher is asked by the batch API, which one that costs nothing has not."""
    return params.batch and params.model != "scripted" and not local.is_local(params.model)


def open_journal(task: Task) -> Journal:
    """The task's journal, one for all stages."""
    return Journal(project.journals() / f"{task.name}.jsonl")


def model_name(params: SimpleNamespace) -> str:
    """The teacher's name, which is part of every key: what teacher.model says, the hash of the
    task's own rules for `scripted`, that of the weights for `local:…`, the one model that the
    endpoint lists for `auto`. Raises UserError when there are no rules, no weights, or not one
    model."""
    if params.model == "scripted":
        return scripted.model_name(RULES)
    if local.is_local(params.model):
        return local.model_name(params.model)
    if params.model != "auto":
        return str(params.model)
    with open_endpoint(params, "auto") as endpoint:
        names = asyncio.run(endpoint.models())
    if len(names) != 1:
        listed = ", ".join(names[:8]) or "none"
        raise UserError(
            f"teacher.model is auto, but the endpoint has {len(names)} models ({listed}): name one"
        )
    return names[0]


@contextmanager
def open_endpoint(params: SimpleNamespace, model: str) -> Iterator[Endpoint]:
    """The endpoint to ask: the task's own rules or a local model, served for as long as this lasts,
    or the one that the environment names. Raises UserError when it names none, and when the model
    cannot be served."""
    if params.model == "scripted":
        with scripted.serve(RULES) as url:
            yield Endpoint(url, "none", model, params)
        return
    if local.is_local(params.model):
        patient = SimpleNamespace(**vars(params) | {"timeout": local.PATIENCE})
        with local.serve(params.model, params.max_tokens) as (url, key):
            yield Endpoint(url, key, model, patient)
        return
    url, key = place.from_environment(model)
    yield Endpoint(url, key, model, params)
