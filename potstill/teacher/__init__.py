"""The teacher: any OpenAI-compatible endpoint, or the task's own rules behind one; each answer is asked for once."""

import asyncio
import hashlib
import json
import os
import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

from potstill.errors import UserError
from potstill.rows import Row
from potstill.task import Task

if TYPE_CHECKING:
    from potstill.teacher.client import Endpoint

SCRIPTED = "scripted"
FIELDS = ("answer", "finish_reason", "prompt_tokens", "completion_tokens")


def answer_rows(task: Task, rows: list[Row], params: SimpleNamespace, samples: int) -> list[Row]:
    """The teacher's raw answers, `samples` for each row, in the order of the rows.

    `params` holds the teacher_… parameters. A result is {"id", "sample", "key", "answer", "finish_reason", "prompt_tokens",
    "completion_tokens", "error"}; a request that the endpoint refused has an empty answer and says why in `error`.
    What the journal holds is not asked again. Raises UserError when the endpoint cannot be used, KeyboardInterrupt after
    a signal.
    """
    from potstill.teacher.client import Client, Request
    from potstill.teacher.journal import Journal

    start = time.monotonic()
    model = _model(task, params)
    requests = {}
    wanted = []
    for row in rows:
        messages = task.messages("teacher", row)
        for sample in range(samples):
            key = _key(model, messages, params.teacher_temperature, sample)
            requests[key] = Request(key, messages, sample)
            wanted.append((row["id"], sample, key))
    journal = Journal(_folder() / f"{task.name}.jsonl")
    if journal.damaged:
        print(
            f"{journal.path}: {journal.damaged} damaged lines left out, their answers are asked for again",
            file=sys.stderr,
        )
    missing = [request for key, request in requests.items() if not journal.find(key, params.teacher_max_tokens)]
    failed: dict[str, str] = {}
    if missing:
        with _endpoint(task, params, model) as endpoint:
            client = Client(endpoint, params, journal, len(missing))
            try:
                asyncio.run(client.run(missing))
            finally:
                _say(model, len(requests) - len(missing), f"{client.summary()}, {time.monotonic() - start:.1f} s")
            failed = client.failed
    else:
        _say(model, len(requests), "none asked")
    return [
        _result(id, sample, key, journal.find(key, params.teacher_max_tokens), failed) for id, sample, key in wanted
    ]


def _say(model: str, kept: int, rest: str) -> None:
    print(f"teacher {model}: {kept:,} answers from the journal, {rest}", file=sys.stderr, flush=True)


def _result(id: str, sample: int, key: str, answer: Row | None, failed: dict[str, str]) -> Row:
    nothing = dict.fromkeys(FIELDS) | {"answer": ""}
    found = answer or nothing
    error = None if answer else failed[key]
    return {"id": id, "sample": sample, "key": key, **{name: found[name] for name in FIELDS}, "error": error}


def _key(model: str, messages: list[dict[str, str]], temperature: float, sample: int) -> str:
    """The journal's key: what decides an answer. Neither the endpoint's address nor the length allowed belongs to it."""
    asked = [model, messages, {"temperature": float(temperature)}, sample]
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:32]


def _folder() -> Path:
    """Where the journals are. DVC_ROOT is the user's own repository even when an experiment runs in a copy of it."""
    return Path(os.environ.get("DVC_ROOT", "."), ".cache", "teacher")


def _model(task: Task, params: SimpleNamespace) -> str:
    from potstill.teacher.scripted import model_name

    return model_name(task.dir / "teacher") if params.teacher_model == SCRIPTED else params.teacher_model


@contextmanager
def _endpoint(task: Task, params: SimpleNamespace, model: str) -> Iterator["Endpoint"]:
    """The endpoint to ask: the task's own rules, served for as long as this lasts, or the one that the environment names."""
    from potstill.teacher.client import Endpoint
    from potstill.teacher.scripted import serve

    if params.teacher_model == SCRIPTED:
        with serve(task.dir / "teacher") as url:
            yield Endpoint(url, model, api_key="none", local=True)
        return
    found = [os.environ.get(name, "").strip() for name in ("TEACHER_BASE_URL", "TEACHER_API_KEY")]
    if not all(found):
        raise UserError(
            f"teacher_model is {model}, which needs TEACHER_BASE_URL (such as https://host/v1) and TEACHER_API_KEY in the "
            f"environment; without them use teacher_model: {SCRIPTED}"
        )
    if not re.fullmatch(r"https?://[^\s@?]+", found[0]):
        raise UserError("TEACHER_BASE_URL is no address such as https://host/v1, without user, password or query")
    yield Endpoint(found[0], model, found[1])
