"""The journal of the teacher's answers: append-only JSON lines that outlive any stage, so no answer is bought twice.

A line is `{"sum":"<16 hex>","row":{…}}`, the sum taken over the row's bytes. Lines that are torn or damaged are counted
and left out, which means that they are asked for again. Several processes may append to one journal. Memory holds an
index of some 100 bytes an answer; the answers themselves stay on disk.
"""

import asyncio
import fcntl
import hashlib
import json
import math
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from potstill.core.jsonl import Row
from potstill.teacher.limits import estimate

GROUP = 64  # answers in one write and fsync, at most
DELAY = 0.05  # seconds that an answer waits for others to be written with
_HEAD, _MIDDLE, _TAIL = b'{"sum":"', b'","row":', b"}"
# The finish_reason of rows that are no answers: a reply that is no chat completion, kept to be looked at; and a try whose reply
# never came, or was of that kind, which may have been billed.
NO_ANSWER = MALFORMED, LOST = "malformed", "lost"


@dataclass
class Used:
    """What a model's answers took, those that a later one replaced and those on their way to the disk included."""

    answers: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    seconds: float = 0.0
    estimated: int = (
        0  # tokens that the prompts were guessed to have, to be compared with prompt_tokens
    )
    lost_in: int = (
        0  # tokens of tries that brought no answer and may have been billed, at their most
    )
    lost_out: int = 0


class Journal:
    """Answers by key (32 hex digits). `damaged` counts the lines left out, `used` the tokens by model."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.damaged = 0
        self.used: dict[str, Used] = {}
        self._index: dict[
            int, int
        ] = {}  # 60 bits of the key → place in the file, doubled; odd where the answer is cut off
        self._failed_keys: set[int] = set()  # 60 bits of each key whose reply was no answer
        self._end = 0  # bytes of the file that are indexed
        self._fd = -1
        self._pending: list[Row] = []
        self._timer: asyncio.Task[None] | None = None
        self._hurry = asyncio.Event()  # somebody waits for what is pending
        self._failed: OSError | None = None
        self._lock = asyncio.Lock()
        if path.exists():
            with path.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_SH)
                self._read(file.fileno())

    def __len__(self) -> int:
        return len(self._index)

    def has(self, key: str, max_tokens: int) -> bool:
        """Whether an answer is on disk or on its way there; reads the disk for answers that were cut off only."""
        if any(
            row["key"] == key and row["finish_reason"] not in NO_ANSWER for row in self._pending
        ):
            return True
        place = self._index.get(_short(key))
        return place is not None and (not place & 1 or self.find(key, max_tokens) is not None)

    def find(self, key: str, max_tokens: int) -> Row | None:
        """The answer on disk under `key`; one cut off by fewer than `max_tokens` tokens does not count."""
        place = self._index.get(_short(key))
        row = None if place is None else self._at(place >> 1)
        if row is None or row["key"] != key:
            return None
        return row if row["finish_reason"] != "length" or row["max_tokens"] >= max_tokens else None

    def failed(self, key: str) -> bool:
        """Whether a reply under `key` that is on disk was no answer."""
        return _short(key) in self._failed_keys

    async def put(self, row: Row) -> None:
        """Hands over an answer. It is on disk within DELAY seconds; a full group is written before this returns.
        Raises OSError when the disk is full."""
        if self._failed:
            raise self._failed
        self._pending.append(row)
        self._count(row)
        if len(self._pending) >= GROUP:
            await self._commit()
        elif self._timer is None or self._timer.done():
            self._timer = asyncio.create_task(self._commit_later())

    async def flush(self) -> None:
        """Writes what is still waiting, at once. Raises OSError when that, or an earlier write, failed."""
        if self._timer:
            self._hurry.set()
            await self._timer
            self._hurry.clear()
        if self._failed:
            raise self._failed
        while self._pending:
            await self._commit()

    async def _commit_later(self) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._hurry.wait(), DELAY)
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

    def _append(self, group: list[Row]) -> None:
        """One locked append and fsync; what a full disk tore off is taken back. What others appended is indexed, too."""
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
            self._read(fd, end)
        finally:
            os.close(fd)

    def _read(self, fd: int, mine: float = math.inf) -> None:
        """Indexes what the file, locked by the caller, has gained; from byte `mine` on it is our own and counted already."""
        with open(fd, "rb", closefd=False) as file:
            file.seek(self._end)
            for line in file:
                if row := _decode(line.rstrip(b"\n")):
                    self._keep(row, self._end)
                    if self._end < mine:
                        self._count(row)
                elif line != b"\n":
                    self.damaged += 1
                self._end += len(line)

    def _keep(self, row: Row, place: int) -> None:
        """Of two answers to one key the whole one counts, then the one that had more room, then the first."""
        if row["finish_reason"] in NO_ANSWER:
            if row["finish_reason"] == MALFORMED:
                self._failed_keys.add(_short(row["key"]))
            return
        short, cut = _short(row["key"]), row["finish_reason"] == "length"
        old = self._index.get(short)
        if old is not None and old & 1:
            before = self._at(old >> 1)
            if cut and before and before["max_tokens"] >= row["max_tokens"]:
                return
        elif old is not None:
            return
        self._index[short] = place << 1 | cut

    def _count(self, row: Row) -> None:
        used = self.used.setdefault(row.get("model", ""), Used())
        tokens_in, tokens_out = tokens(row)
        if row["finish_reason"] == LOST:
            used.lost_in += tokens_in
            used.lost_out += tokens_out
        elif row["finish_reason"] != MALFORMED:
            used.answers += 1
            used.prompt_tokens += tokens_in
            used.completion_tokens += tokens_out
            used.seconds += row.get("seconds") or 0.0
            used.estimated += row.get("estimated") or 0

    def _at(self, place: int) -> Row | None:
        """The row whose line starts at byte `place`; None when it is damaged by now."""
        if self._fd < 0:
            self._fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        size = 4096
        while (line := os.pread(self._fd, size, place)).find(b"\n") < 0 and len(line) == size:
            size *= 8
        return _decode(line.partition(b"\n")[0])

    def __del__(self) -> None:
        if getattr(self, "_fd", -1) >= 0:
            os.close(self._fd)


def tokens(row: Row) -> tuple[int, int]:
    """Tokens of a row's prompt and answer, guessed where the server did not say."""
    tokens_in, tokens_out = row.get("prompt_tokens"), row.get("completion_tokens")
    guessed = row.get("estimated") or 0 if tokens_in is None else tokens_in
    return guessed, estimate(row["answer"]) if tokens_out is None else tokens_out


def _short(key: str) -> int:
    return int(key[:15], 16)


def _sum(raw: bytes) -> bytes:
    return hashlib.sha256(raw).hexdigest()[:16].encode()


def _encode(row: Row) -> bytes:
    raw = json.dumps(row, ensure_ascii=False, separators=(",", ":")).encode(
        "utf-8", "surrogatepass"
    )
    return _HEAD + _sum(raw) + _MIDDLE + raw + _TAIL + b"\n"


def _decode(line: bytes) -> Row | None:
    """The row of an undamaged line, else None."""
    start = len(_HEAD) + 16 + len(_MIDDLE)
    raw = line[start : -len(_TAIL)]
    if line != _HEAD + _sum(raw) + _MIDDLE + raw + _TAIL:
        return None
    return dict(json.loads(raw))
