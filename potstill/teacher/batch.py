"""Asks by the batch API: files of requests that are answered within a day, at half the price.

A batch's record, <journal>.batches/NAME.json, is on disk before its file is uploaded and until
its answers are in the journal. It says which requests are in it, so that no other run asks for
them; the name stands in the batch's metadata as well, by which a run finds a batch that was made
just before an earlier one was killed. All is done by what is on disk: a run goes on where another
ended, and two at once take turns.

record: {"id": "batch_…" or null, "at": "https://…", "model": "…", "max_tokens": 1024,
         "without": [], "most": [tokens in, tokens out], "reading": false, "keys": {"<key>": 612}}
"""

import fcntl
import json
import os
import secrets
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from potstill.core.errors import UserError
from potstill.core.jsonl import Row, read_json
from potstill.teacher import batch_api
from potstill.teacher.batch_api import BatchApi, State, Stopped, refused
from potstill.teacher.batch_lines import Lines
from potstill.teacher.client import Client
from potstill.teacher.endpoint import Request
from potstill.teacher.limits import BATCH
from potstill.teacher.refusal import Refused

ROWS, BYTES = 50_000, 200_000_000  # of a file of requests, at most
GROUP = 2048  # lines of an answer's file that are journaled at once
FEW = 16  # requests that are not worth a batch: they are asked for directly
FIRST_LOOK, LAST_LOOK = 1.0, 60.0  # seconds between two looks at the batches
FULL = ("token_limit_exceeded", "enqueued", "rate_limit")  # in words: too much is waiting
Asked = Iterable[tuple[Row, Request]]


@dataclass(eq=False)
class Sent:
    """A batch that is not read yet."""

    path: Path  # of its record
    id: str | None
    keys: frozenset[int]
    most: float  # what it may cost
    mine: bool = False  # made by this run
    needed: bool = False  # by what is asked for now
    done: int = 0
    failed: int = 0


class Batches:
    """The batches of a journal. `new`: whether what is in none of them goes into a new one, else it
    is asked for directly."""

    def __init__(self, client: Client, new: bool) -> None:
        self.client, self.new = client, new
        self.endpoint, self.journal = client.endpoint, client.journal
        self.api = BatchApi(client.endpoint)
        self.folder = self.journal.path.with_suffix(".batches")
        self.open: dict[str, Sent] = {}  # by name
        self._rows = ROWS  # of a file; fewer where the endpoint has no room for so many
        self._full = False  # the endpoint takes no more before another batch has ended
        self._tries: Counter[str] = Counter()  # by key, those that brought no answer
        self._over: set[str] = set()  # keys that are not asked for again in this run
        self._again = False  # whether a further pass through the questions is needed
        self._counted = False  # whether client.held is
        self._few: list[Request] = []
        self._spare: list[Request] = []  # the next ones of the pass, which found no room
        self._load()

    def holds(self, key: str) -> bool:
        """Whether a batch under way has the request."""
        return any(_short(key) in sent.keys for sent in self.open.values())

    async def ask(self, questions: Asked) -> None:
        """Returns when every request has an answer in the journal or a reason in client.failed.
        No more requests are in memory than go into one file. Raises as Client.ask does."""
        try:
            while await self._pass(questions):
                pass
        except Stopped:
            pass
        except UserError as error:
            self.client.error = self.client.error or error
        self.client.waiting = ""
        if self.client.error or self.endpoint.stopping.is_set():
            await self.client.conclude()
        await self.client.ask(self._few if self.new else self._missing(questions))

    async def _pass(self, questions: Asked) -> bool:
        """Sees to one answer or reason to each request; True where some need another try."""
        missing = self._missing(questions)
        todo: Iterator[Request] | None = missing
        self._again, self._few, wait = False, [], FIRST_LOOK
        if not self.new:
            for _ in missing:  # marks the batches that are needed
                pass
            todo = None
        while True:
            async with self._locked():
                await self.journal.flush()
                self._load()
                asked = await self._collect()
                if todo and await self._send(todo):
                    todo = None
            if self.client.error:
                return False
            if todo is None and not any(sent.needed for sent in self.open.values()):
                return self._again and self.new
            self.client.waiting = self._line()
            await self.api.pause(max(wait, asked))
            wait = min(LAST_LOOK, 1.5 * wait)

    def _missing(self, questions: Asked) -> Iterator[Request]:
        """The requests that have no answer and are in no batch."""
        counted, self._counted = self._counted, True
        for _, request in questions:
            key, short = request.key, _short(request.key)
            if self.journal.has(key, self.client.params.max_tokens) or key in self.client.failed:
                self.client.held += not counted
                continue
            holders = [sent for sent in self.open.values() if short in sent.keys]
            for sent in holders:
                sent.needed = True
                self.client.held += sent.mine and not counted  # a twin of another request
            if not holders and key not in self._over:
                yield request

    # ---- what goes into a batch

    async def _send(self, todo: Iterator[Request]) -> bool:
        """Puts requests into batches while there is room for them; True when all are taken."""
        while not self._full and not self.client.error:
            if self.endpoint.stopping.is_set():
                raise Stopped
            name = secrets.token_hex(8)
            path, file = self.folder / f"{name}.json", self.folder / f"{name}.requests"
            keys, tokens_in, done = self._fill(file, todo)
            if not keys:
                file.unlink()
                return done
            record: Row = {"id": None, "at": self.endpoint.base_url, "model": self.endpoint.model}
            record["max_tokens"] = self.client.params.max_tokens
            record["without"] = sorted(self.endpoint.form.without)
            record["most"] = [tokens_in, len(keys) * self.client.longest]
            record |= {"reading": False, "keys": keys}
            _save(path, record)
            try:
                uploaded = await self.api.upload(file)
                os.utime(path)  # from now on the batch may be there
                record["id"] = await self.api.create(name, uploaded)
            except Refused as refusal:
                path.unlink()
                raise refused(self.endpoint, refusal) from None
            _save(path, record)
            file.unlink()
            sent = self._add(name, record)
            sent.needed = sent.mine = True
            said = f"batch {record['id']} has {len(keys):,} requests"
            print(f"teacher {self.endpoint.model}: {said}", file=sys.stderr, flush=True)
            if done:
                return True
        return False

    def _fill(self, path: Path, todo: Iterator[Request]) -> tuple[dict[str, int], int, bool]:
        """Writes a file of requests: the tokens that each may have, by key, and all together, and
        whether there are no more. The last ones may be too few for a batch. Raises UserError when
        the budget has no room for a single one, and no batch under way will leave any."""
        client, form = self.client, self.endpoint.form
        room = None if client.budget.cap is None else client.budget.cap - client.spent()
        keys: dict[str, int] = {}
        tokens_in = size = cost = 0.0
        first: list[Request] = []
        with path.open("wb") as file:
            while request := self._spare.pop(0) if self._spare else next(todo, None):
                if request.key in keys:
                    client.held += 1
                    continue
                guessed = request.guessed + client.unseen
                cost += BATCH * (client.budget.cost(guessed, client.longest) or 0.0)
                body = form.body(request, form.without)
                line = {"custom_id": request.key, "method": "POST", "url": batch_api.TARGET}
                raw = json.dumps(line | {"body": body}, separators=(",", ":")).encode() + b"\n"
                size += len(raw)
                tight = room is not None and cost > room
                if tight or (keys and (len(keys) >= self._rows or size > BYTES)):
                    self._spare.insert(0, request)
                    break
                file.write(raw)
                keys[request.key], tokens_in = request.guessed, tokens_in + guessed
                if len(first) <= FEW:
                    first.append(request)
        if not self._spare and len(keys) <= FEW:
            self._few, keys = [*self._few, *first], {}
        elif len(keys) <= FEW and not self.open:
            raise client.used_up(cost, f"the next {len(keys) + 1} requests")
        elif len(keys) <= FEW:  # until a batch has come in for less than it might cost
            self._spare, keys = [*first, *self._spare], {}
        return keys, int(tokens_in), not self._spare

    # ---- what comes of one

    async def _collect(self) -> float:
        """Reads the batches that have ended; the seconds that the endpoint asks to wait."""
        wait = 0.0
        for name, sent in list(self.open.items()):
            try:
                if sent.id is None and not await self._find(name, sent):
                    continue
                assert sent.id
                state = await self.api.look(sent.id)
            except Refused as refusal:
                if sent.needed:
                    what = f"{self.endpoint} does not know the batch {sent.id} ({refusal})"
                    raise UserError(
                        f"{sent.path}: {what}: ask it where it is, with the key that it was made "
                        "with, or delete this file to ask and pay for its requests again"
                    ) from None
                continue
            wait = max(wait, state.wait)
            sent.done, sent.failed = state.completed, state.failed
            if state.ended:
                await self._read(name, sent, state)
        return wait

    async def _find(self, name: str, sent: Sent) -> bool:
        """Whether the endpoint has a batch of which a run that was killed left no id."""
        sent.id = await self.api.find(name, sent.path.stat().st_mtime)
        if sent.id is None:
            self._forget(name)
            self._again = True
            return False
        _save(sent.path, read_json(sent.path) | {"id": sent.id})
        return True

    async def _read(self, name: str, sent: Sent, state: State) -> None:
        """Journals what a batch brought, however it ended; what has no answer goes into another
        one."""
        record = read_json(sent.path)
        known = self._journaled(name) if record["reading"] else set()
        _save(sent.path, record | {"reading": True})
        before = self.client.answered
        lines = Lines(self.client, name, record, known, self._retry)
        await self._take(state.files, lines)
        if lines.answers < state.completed:  # cut short, as it seems
            await self._take(state.files, lines)
        if state.status != "failed":
            lines.rest(state)
        self._again |= state.status == "failed" or bool(known)
        await self.journal.flush()
        self._forget(name)
        brought = self.client.answered - before
        if state.status != "completed" or brought < len(sent.keys):
            said = f"batch {sent.id} {state.status}: {brought:,} of {len(sent.keys):,} answered"
            print(f"teacher {self.endpoint.model}: {said}", file=sys.stderr, flush=True)
        if state.status != "failed":
            self._full = False
        elif self.open and any(word in state.reason.lower() for word in FULL):
            self._full = True
        elif len(sent.keys) > FEW + 1 and any(word in state.reason.lower() for word in FULL):
            self._rows = max(FEW + 1, len(sent.keys) // 2)
        elif sent.needed:
            raise UserError(f"{self.endpoint} failed the batch {sent.id}: {state.reason}")

    async def _take(self, files: list[str], lines: Lines) -> None:
        """Fetches files and has their lines read."""
        path = self.folder / "answers.part"
        for file in files:
            await self.api.fetch(file, path)
            with path.open("rb") as fetched:
                while group := list(islice(fetched, GROUP)):
                    for line in group:
                        lines.take(line)
                    await self.journal.flush()
            path.unlink()

    def _journaled(self, name: str) -> set[str]:
        """The keys that a run which was killed had journaled from a batch."""
        mark, found = f'"batch":"{name}"'.encode(), set[str]()
        for path in self.journal.paths():
            with path.open("rb") as lines:
                found |= {json.loads(line)["row"]["key"] for line in lines if mark in line}
        return found

    def _retry(self, key: str, most: int | None) -> bool:
        """Whether a request that brought no answer goes into another batch: it does so at most
        teacher.retries times, or `most`."""
        self._tries[key] += 1
        retries = self.client.params.retries
        if self._tries[key] > (retries if most is None else min(most, retries)):
            self._over.add(key)
            return False
        self.client.retries += 1
        self._again = True
        return True

    # ---- what is on disk

    @asynccontextmanager
    async def _locked(self) -> AsyncIterator[None]:
        """One run at a time looks at the batches of a journal and makes new ones."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "lock").open("w") as lock:
            while True:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    await self.api.pause(0.5)
            for path in (*self.folder.glob("*.requests"), *self.folder.glob("*.part")):
                path.unlink()  # of a run that was killed
            yield

    def _load(self) -> None:
        """Notes the model's batches that other runs have made, and forgets those that they read."""
        names = {path.stem: path for path in self.folder.glob("*.json")}
        self.journal.refresh()
        for name in [name for name in self.open if name not in names]:
            self._forget(name)
            self._again = True
        for name in names.keys() - self.open.keys():
            record = read_json(names[name])
            if record["model"] == self.endpoint.model:
                self._add(name, record)

    def _add(self, name: str, record: Row) -> Sent:
        most = BATCH * (self.client.budget.cost(*record["most"]) or 0.0)
        keys = frozenset(map(_short, record["keys"]))
        sent = Sent(self.folder / f"{name}.json", record["id"], keys, most)
        self.open[name] = sent
        self._hold()
        return sent

    def _forget(self, name: str) -> None:
        self.open.pop(name).path.unlink(missing_ok=True)
        self._hold()

    def _hold(self) -> None:
        self.client.batches = len(self.open)
        self.client.in_batches = sum(sent.most for sent in self.open.values())

    def _line(self) -> str:
        """What is said while a run waits."""
        client, waits = self.client, [sent for sent in self.open.values() if sent.needed]
        done = client.held + client.answered + sum(sent.done for sent in waits)
        failed = sum(sent.failed for sent in waits)
        said = f", {failed:,} failed" if failed else ""
        batches = "1 batch" if len(waits) == 1 else f"{len(waits):,} batches"
        return f"teacher: {done:,} of {client.total:,} answers{said}, {batches} under way"


def _short(key: str) -> int:
    return int(key[:15], 16)


def _save(path: Path, record: Any) -> None:
    """Writes a record, which is on disk when this returns."""
    part = path.with_suffix(".part")
    with part.open("w", encoding="utf-8") as file:
        json.dump(record, file)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
