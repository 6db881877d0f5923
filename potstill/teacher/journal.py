"""The journal of the teacher's answers: append-only JSON lines that outlive any stage, so no answer is bought twice.

A line is `{"sum":"<16 hex>","row":{…}}`, the sum taken over the row's bytes. Lines that are torn or damaged are counted
and left out, which means that they are asked for again. Several processes may append to one journal.
"""

import asyncio
import fcntl
import hashlib
import json
import os
from pathlib import Path

from potstill.rows import Row

GROUP = 64  # answers in one write and fsync, at most
DELAY = 0.05  # seconds that an answer waits for others to be written with
_HEAD, _MIDDLE, _TAIL = b'{"sum":"', b'","row":', b"}"


class Journal:
    """Answers by key. `answers` holds what is on disk, `damaged` counts the lines that were left out."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.answers: dict[str, Row] = {}
        self.damaged = 0
        self._pending: list[Row] = []
        self._timer: asyncio.Task[None] | None = None
        self._failed: OSError | None = None
        self._lock = asyncio.Lock()
        for line in path.read_bytes().split(b"\n") if path.exists() else ():
            if row := _decode(line):
                self._keep(row)
            elif line:
                self.damaged += 1

    def find(self, key: str, max_tokens: int) -> Row | None:
        """The answer kept under `key`; one cut off by fewer than `max_tokens` tokens does not count."""
        row = self.answers.get(key)
        return row if row and (row["finish_reason"] != "length" or row["max_tokens"] >= max_tokens) else None

    async def put(self, row: Row) -> None:
        """Hands over an answer. It is on disk within DELAY seconds; a full group is written before this returns.
        Raises OSError when the disk is full."""
        if self._failed:
            raise self._failed
        self._pending.append(row)
        if len(self._pending) >= GROUP:
            await self._commit()
        elif self._timer is None or self._timer.done():
            self._timer = asyncio.create_task(self._commit_later())

    async def close(self) -> None:
        """Writes what is still waiting. Raises OSError when that, or an earlier write, failed."""
        if self._timer:
            await self._timer
        if self._failed:
            raise self._failed
        while self._pending:
            await self._commit()

    async def _commit_later(self) -> None:
        await asyncio.sleep(DELAY)
        try:
            await self._commit()
        except OSError as error:
            self._failed = error

    async def _commit(self) -> None:
        async with self._lock:
            group = self._pending[:GROUP]
            if group:
                await asyncio.to_thread(self._append, group)
                del self._pending[: len(group)]
                for row in group:
                    self._keep(row)

    def _append(self, group: list[Row]) -> None:
        """One locked append and fsync; what a full disk tore off is taken back."""
        data = b"".join(_encode(row) for row in group)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        fd = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            end = os.fstat(fd).st_size
            if end and os.pread(fd, 1, end - 1) != b"\n":  # a torn tail of a run that was killed
                data = b"\n" + data
            try:
                while data:
                    data = data[os.write(fd, data) :]
                os.fsync(fd)
            except OSError as error:
                os.ftruncate(fd, end)
                error.filename = str(self.path)
                raise
        finally:
            os.close(fd)

    def _keep(self, row: Row) -> None:
        """Of two answers to one key the whole one counts, then the one that had more room, then the first."""
        old = self.answers.setdefault(row["key"], row)
        better = row["finish_reason"] != "length" or row["max_tokens"] > old["max_tokens"]
        if old["finish_reason"] == "length" and better:
            self.answers[row["key"]] = row


def _sum(raw: bytes) -> bytes:
    return hashlib.sha256(raw).hexdigest()[:16].encode()


def _encode(row: Row) -> bytes:
    raw = json.dumps(row, separators=(",", ":")).encode()  # ASCII: lone surrogates in an answer can be written, too
    return _HEAD + _sum(raw) + _MIDDLE + raw + _TAIL + b"\n"


def _decode(line: bytes) -> Row | None:
    """The row of an undamaged line, else None."""
    start = len(_HEAD) + 16 + len(_MIDDLE)
    raw = line[start : -len(_TAIL)]
    if line != _HEAD + _sum(raw) + _MIDDLE + raw + _TAIL:
        return None
    return dict(json.loads(raw))
