"""The journal of the teacher's answers: append-only JSON lines that outlive any stage, so that no
answer is bought twice.

A line is `{"sum":"<16 hex>","row":{…}}`, the sum taken over the row's bytes. Torn and damaged lines
are counted and left out, so they are asked for again. Several processes of one machine may append
to the file. Whoever cannot share it, on a network file system or as one of many shards, appends to
a file of its own, <journal>.writers/NAME.jsonl; what all of these files hold is the journal. Memory
holds an index of some 100 bytes an answer; the answers themselves stay on disk.
"""

import asyncio
import fcntl
import hashlib
import json
import math
import os
import re
import secrets
import socket
import time
import weakref
from collections import defaultdict
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from potstill.core.jsonl import Row, unwritable
from potstill.core.project import on_network
from potstill.teacher import reply
from potstill.teacher.limits import estimate

GROUP = 64  # answers in one write and fsync, at most
DELAY = 0.05  # seconds that an answer waits for others to be written with
# The finish_reason of rows that are no answers: a reply without one, kept as it came; and a try
# whose reply never came. Both may have been billed.
NO_ANSWER = MALFORMED, LOST = "malformed", "lost"
ENDS = {*NO_ANSWER, *reply.FINISHED, reply.THOUGHT, None}
OPEN = 128  # files that are held open to read answers from, at most
SHARE = 0.05  # of its time that a writer spends on looking for what others have written, at most
_PLACE = 40  # bits of a place in a file; above them stands the file's number
_SUSPECT = re.compile(rb"\xed[\xa0-\xbf]|\\u00|\x7f|\xc2[\x80-\x9f]")  # may be unwritable
# A line as nearly all are, whose answer holds nothing suspect: it is indexed without being parsed
_USUAL = re.compile(
    rb'\{"sum":"([0-9a-f]{16})","row":(\{"key":"([0-9a-f]{15})[0-9a-f]{17}","model":"([^"\\]*)",'
    rb'"max_tokens":\d+,"answer":"[^"\\\x7f\xc2\xed]*(?:\\[^u][^"\\\x7f\xc2\xed]*)*",'
    rb'"finish_reason":"stop","prompt_tokens":(\d+),"completion_tokens":(\d+),'
    rb'"estimated":(\d+),"seconds":(\d+\.\d+)\})\}\n'
)


@dataclass
class Used:
    """What a model's answers took, those included that a later one replaced or that are on their
    way to the disk."""

    answers: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    seconds: float = 0.0
    estimated: int = 0  # tokens that the prompts were guessed to have
    lost_in: int = 0  # tokens, at their most, of tries that may have been billed without an answer
    lost_out: int = 0
    cached_tokens: int = 0  # of prompt_tokens
    free_in: float = 0.0  # tokens, lost ones too, that a batch's lower price leaves unpaid
    free_out: float = 0.0
    free_cached: float = 0.0

    def add(self, row: Row) -> None:
        """Counts a row of the journal."""
        tokens_in, tokens_out = tokens(row)
        free = 1 - row.get("price_share", 1)
        if free:
            self.free_in += free * tokens_in
            self.free_out += free * tokens_out
            self.free_cached += free * (row.get("cached_tokens") or 0)
        if row["finish_reason"] in NO_ANSWER:
            self.lost_in += tokens_in
            self.lost_out += tokens_out
        else:
            self.answers += 1
            self.prompt_tokens += tokens_in
            self.completion_tokens += tokens_out
            self.cached_tokens += row.get("cached_tokens") or 0
            self.seconds += row.get("seconds") or 0.0
            self.estimated += row.get("estimated") or 0

    def add_usual(self, tokens_in: bytes, tokens_out: bytes, guessed: bytes, took: bytes) -> None:
        """As `add`, for the figures of a usual answer."""
        self.answers += 1
        self.prompt_tokens += int(tokens_in)
        self.completion_tokens += int(tokens_out)
        self.estimated += int(guessed)
        self.seconds += float(took)

    def billed(self) -> tuple[float, float, float]:
        """Tokens of prompts and answers that may have been paid for, and those cached of the
        prompts', in tokens of the full price."""
        tokens_in, tokens_out = self.prompt_tokens + self.lost_in, self.completion_tokens
        cached = self.cached_tokens - self.free_cached
        return tokens_in - self.free_in, tokens_out + self.lost_out - self.free_out, cached


@dataclass(eq=False)
class _File:
    """A file of the journal."""

    path: Path
    first: int = 0  # the place of its byte 0: its number above the bits of a place
    end: int = 0  # bytes that are indexed
    fd: int = -1  # to read answers from; -1 where it is not open


class Journal:
    """Answers by key (32 hex digits). `own`: whether this process appends to a file of its own,
    which is made with its first answer; it does so on a network file system, too. `part` is in the
    name of that file. `damaged` counts the lines left out, `used` is what the answers took by
    model, `mine` what those took that this process added, or an earlier one for the same part."""

    def __init__(self, path: Path, own: bool = False, part: str = "") -> None:
        self.path, self.folder = path, path.with_suffix(".writers")
        self.own, self.part = own or on_network(path), part
        self.damaged = 0
        self.used: defaultdict[str, Used] = defaultdict(Used)
        self.mine = Used()
        # 60 bits of the key → place, doubled; odd where the answer is cut off
        self._index: dict[int, int] = {}
        self._failed_keys: set[int] = set()  # 60 bits of each key whose reply was no answer
        self._files = [_File(path)]  # by their numbers, this one before all others
        self._known: dict[str, _File] = {}  # those of the folder, by their names
        self._writer: _File | None = None  # this process's own
        self._open: list[_File] = []
        weakref.finalize(self, _close, self._open)
        self._look_at = 0.0  # when others' files are looked at again
        self._pending: list[Row] = []
        self._timer: asyncio.Task[None] | None = None
        self._failed: OSError | None = None
        self._lock = asyncio.Lock()
        self.refresh()

    def refresh(self, names: Iterable[str] = ()) -> None:
        """Reads what others have appended, also to files of these names that a network file system
        does not list yet."""
        for name in names:
            self._file(name)
        if self.path.exists():
            with self.path.open("rb") as file:
                with suppress(OSError):  # a file system without locks, where nobody appends to it
                    fcntl.flock(file, fcntl.LOCK_SH)
                self._read(file.fileno(), self._files[0])
        self._look()

    def written(self) -> list[str]:
        """The names of the files that this part of a run has, its own among them."""
        return [name for name in self._known if Path(name).stem.endswith(self.part)]

    def paths(self) -> list[Path]:
        """The files that there are."""
        found = [file.path for file in self._files]
        return [path for path in found if path.exists()]

    def __len__(self) -> int:
        return len(self._index)

    def has(self, key: str, max_tokens: int) -> bool:
        """Whether an answer is on disk or on its way there. Reads the disk only for answers that
        were cut off."""
        if any(r["key"] == key and r["finish_reason"] not in NO_ANSWER for r in self._pending):
            return True
        place = self._index.get(_short(key))
        return place is not None and (not place & 1 or self.find(key, max_tokens) is not None)

    def find(self, key: str, max_tokens: int) -> Row | None:
        """The answer on disk under `key`; one cut off by fewer than `max_tokens` does not count."""
        place = self._index.get(_short(key))
        row = None if place is None else self._at(place >> 1)
        if row is None or row["key"] != key:
            return None
        return row if row["finish_reason"] != "length" or row["max_tokens"] >= max_tokens else None

    def failed(self, key: str) -> bool:
        """Whether a reply under `key` that is on disk was no answer."""
        return _short(key) in self._failed_keys

    def add(self, row: Row) -> None:
        """Hands over an answer, which the next `settle` or `flush` sees to."""
        self._pending.append(row)
        self.used[row.get("model", "")].add(row)
        self.mine.add(row)

    async def put(self, row: Row) -> None:
        """Hands over an answer; the rest as `settle`."""
        self.add(row)
        await self.settle()

    async def settle(self) -> None:
        """What was handed over is on disk within DELAY seconds; a full group is written before this
        returns. Raises OSError when this or an earlier write failed: the disk is full."""
        if self._failed:
            raise self._failed
        if len(self._pending) >= GROUP:
            await self._commit()
        elif self._timer is None or self._timer.done():
            self._timer = asyncio.create_task(self._commit_later())

    async def flush(self) -> None:
        """Writes what is still waiting, at once. Raises OSError when that, or an earlier write,
        failed."""
        while self._pending:
            await self._commit(len(self._pending))
        if self._failed:
            raise self._failed

    async def _commit_later(self) -> None:
        try:
            while self._pending:
                await asyncio.sleep(DELAY)
                await self._commit()
        except OSError as error:
            self._failed = error

    async def _commit(self, most: int = GROUP) -> None:
        async with self._lock:
            if group := self._pending[:most]:
                await asyncio.to_thread(self._append, group)
                del self._pending[: len(group)]

    def _append(self, group: list[Row]) -> None:
        """One append and fsync, locked where others append to the same file; what a full disk tore
        off is taken back. What others appended is indexed, too."""
        data = b"".join(_encode(row) for row in group)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        target = self._own_file() if self.own else self._files[0]
        with target.path.open("ab+", buffering=0) as file:
            fd = file.fileno()
            if not self.own:
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
                error.filename = str(target.path)
                raise
            self._read(fd, target, end)
        if time.monotonic() >= self._look_at:
            start = time.monotonic()
            if self.own:
                self.refresh()
            else:
                self._look()
            now = time.monotonic()
            self._look_at = now + (now - start) / SHARE

    def _own_file(self) -> _File:
        """The file of this process, which no other one writes to. Its name begins with the time, so
        that of two answers to one key the older file's counts."""
        if self._writer is None:
            self.folder.mkdir(parents=True, exist_ok=True)
            self.path.touch()  # by which others see that there is a journal
            who = f"{re.sub('[^A-Za-z0-9-]', '-', socket.gethostname())}-{os.getpid()}"
            name = f"{time.time_ns() // 10**6:x}-{who}-{secrets.token_hex(4)}{self.part}.jsonl"
            self._writer = self._file(name)
            self._writer.path.touch(exist_ok=False)
        return self._writer

    def _file(self, name: str) -> _File:
        """The file of that name in the folder of writers."""
        if name not in self._known:
            self._known[name] = _File(self.folder / name, len(self._files) << _PLACE)
            self._files.append(self._known[name])
        return self._known[name]

    def _look(self) -> None:
        """Indexes what the files in the folder of writers have gained."""
        names = {path.name for path in self.folder.glob("*.jsonl")}
        for file in map(self._file, sorted(names | set(self._known))):
            if file is not self._writer:
                # Opened, since a network file system may give an old size of what is not
                with suppress(FileNotFoundError), file.path.open("rb") as there:
                    if os.fstat(there.fileno()).st_size > file.end:
                        self._read(there.fileno(), file)

    def _read(self, fd: int, target: _File, mine: float = math.inf) -> None:
        """Indexes what a file has gained; what stands from byte `mine` on is our own and counted
        already. In others' files a line that has no end yet is left for later."""
        ours = bool(self.part) and target.path.stem.endswith(self.part)
        with open(fd, "rb", closefd=False) as file:
            file.seek(target.end)
            index, last, used = self._index, None, Used()  # each microsecond here is one a row
            for line in file:
                place = target.first + target.end
                usual = None if ours else _USUAL.fullmatch(line)
                if usual and _sum(usual[2]) == usual[1]:
                    _, _, short, model, *took = usual.groups()
                    if index.setdefault(number := int(short, 16), place << 1) != place << 1:
                        self._put(number, place)
                    if target.end < mine:
                        if model != last:
                            last, used = model, self.used[model.decode()]
                        used.add_usual(*took)
                elif row := _decode(line.rstrip(b"\n")):
                    self._keep(row, place)
                    if target.end < mine:
                        self.used[row.get("model", "")].add(row)
                        if ours:
                            self.mine.add(row)
                elif target.first and line[-1:] != b"\n":
                    return
                elif line != b"\n":
                    self.damaged += 1
                target.end += len(line)

    def _keep(self, row: Row, place: int) -> None:
        """Indexes a row."""
        if row["finish_reason"] == MALFORMED:
            self._failed_keys.add(_short(row["key"]))
        if row["finish_reason"] not in NO_ANSWER:
            cut = row["finish_reason"] == "length"
            self._put(_short(row["key"]), place, cut, row["max_tokens"])

    def _put(self, short: int, place: int, cut: bool = False, room: int = 0) -> None:
        """Indexes an answer. Of two to one key the whole one counts, then the one with more room,
        then that of the older file, then the first."""
        old = self._index.get(short)
        if old is not None and not old & 1:
            if cut or not self._older(place, old >> 1):
                return
        elif old is not None and cut:
            before = self._at(old >> 1)
            if before and before["max_tokens"] >= room:
                return
        self._index[short] = place << 1 | cut

    def _older(self, place: int, other: int) -> bool:
        """Whether a place is in an older file than another one."""
        one, two = self._files[place >> _PLACE], self._files[other >> _PLACE]
        return bool(two.first) and (not one.first or one.path.name < two.path.name)

    def _at(self, place: int) -> Row | None:
        """The row of a place; None when it is damaged by now."""
        file, start = self._files[place >> _PLACE], place & (1 << _PLACE) - 1
        if file.fd < 0:
            if len(self._open) == OPEN:
                _close([self._open.pop(0)])
            file.fd = os.open(file.path, os.O_RDONLY | os.O_CLOEXEC)
            self._open.append(file)
        size = 4096
        while (line := os.pread(file.fd, size, start)).find(b"\n") < 0 and len(line) == size:
            size *= 8
        return _decode(line.partition(b"\n")[0])


def _close(files: list[_File]) -> None:
    for file in files:
        os.close(file.fd)
        file.fd = -1


def tokens(row: Row) -> tuple[int, int]:
    """Tokens of a row's prompt and answer, guessed where the server did not say."""
    tokens_in, tokens_out = row.get("prompt_tokens"), row.get("completion_tokens")
    guessed = row.get("estimated") or 0 if tokens_in is None else tokens_in
    if tokens_out is None:
        texts = (row["answer"], row.get("reasoning"), row.get("refusal"))
        tokens_out = estimate("".join(filter(None, texts)))
    return guessed, tokens_out


def _short(key: str) -> int:
    return int(key[:15], 16)


def _encode(row: Row) -> bytes:
    text = json.dumps(row, ensure_ascii=False, separators=(",", ":"))
    return _line(text.encode("utf-8", "surrogatepass")) + b"\n"


def _line(raw: bytes) -> bytes:
    """A row's bytes with their sum."""
    return b'{"sum":"%s","row":%s}' % (_sum(raw), raw)


def _sum(raw: bytes) -> bytes:
    return hashlib.sha256(raw).hexdigest()[:16].encode()


def _decode(line: bytes) -> Row | None:
    """The row of an undamaged line, else None. What an earlier release took for an answer, though
    it cannot be written, is none; how it ended is said as `reply` says it."""
    raw = line.partition(b',"row":')[2][:-1]
    if line != _line(raw):
        return None
    row = dict(json.loads(raw))
    reason = row.get("finish_reason")
    if reason not in ENDS:
        row["finish_reason"] = reply.finish(reason) if isinstance(reason, str) else MALFORMED
    texts = (row.get("answer"), row.get("reasoning")) if _SUSPECT.search(raw) else ()
    if any(isinstance(text, str) and unwritable(text) for text in texts):
        row["finish_reason"] = MALFORMED
    return row
