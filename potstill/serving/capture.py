"""What was asked and answered, kept for `make harvest` and `make drift` where serve.capture is
above 0; and what the checks say of it, for the metrics.

data/captured/<start>-<process>-<number>.jsonl, a line each:
{"at": "2026-11-30T02:40:11Z", "id": "…", "input": {"text": "…"}, "by": "student", "answer": "…",
 "finish_reason": "stop", "failed": ["grounded"]}
`failed` names the checks that the student's answer fails; where `by` is the teacher, `student` is
what the student had said. With a canary (canary.py), `weights` names the student as whose answer
the row counts, and `canary` is `unavailable` where the student stood in for it. No header of a
request comes here, and of its body the input alone.

All of it happens in a thread beside the request path, which is allowed a share of one core. What
comes faster is left out and counted, so that capture never slows down the answers.
"""

import errno
import hashlib
import importlib.util
import json
import os
import queue
import re
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

from potstill.core import jsonl
from potstill.core.errors import UserError
from potstill.core.jsonl import Row
from potstill.evaluation.cascade import faults
from potstill.serving import metrics
from potstill.task.settings import Task

FOLDER = Path("captured")  # in the data folder
PARTS = 8  # files that share the room: one of them goes where a new one has none
QUEUE = 256  # answers that wait for the thread
IDLE = 8  # with more waiting, an answer that is not to be kept is not judged either
MOST_REPLY = 1 << 20  # bytes of a reply that are looked at
REST = 50  # times as long as a row took the thread rests: it has 1/51 of one core
MOST_REST = 5.0  # seconds; a virtual machine may count its own standstill as the thread's time
LAST = 10.0  # seconds for what waits when the server ends
DATE = re.compile(r"\d{4}-\d\d-\d\d(T\d\d:\d\d(:\d\dZ)?)?")

Hook = Callable[[Row], Row | None]


class Served(NamedTuple):
    """One answer: the input, vLLM's reply as it came, the teacher's text where that was sent in
    its place, and the names of the checks that the student's fails, None before they are asked.
    `by` is the student or the canary, `more` what the line has besides where there is a canary."""

    row: Row
    reply: bytes
    taught: Row | None = None  # answer, finish_reason
    failed: list[str] | None = None
    by: str = "student"
    more: Row | None = None


class Recorder:
    """Judges and keeps what was answered. `serve` is the section of params.yaml."""

    def __init__(self, task: Task, serve: SimpleNamespace) -> None:
        """Raises UserError as `hook` does."""
        self.task, self.share = task, serve.capture
        self.redact = hook(serve.redact)
        self.files = Files(task.data / FOLDER, int(serve.capture_mb * 2**20))
        self._queue: queue.Queue[tuple[Served, bool] | None] = queue.Queue(QUEUE)
        self._ending = threading.Event()
        self._thread: threading.Thread | None = None
        self._said = ""

    def put(self, served: Served) -> None:
        """Takes an answer in, at once: it is judged and kept later, or left out."""
        try:
            keep = self.share > 0 and chosen(served.row, self.share)
        except UnicodeEncodeError:  # half a character, in an input that the prompt does not show
            return
        if not keep and (served.failed is not None or self._queue.qsize() > IDLE):
            return
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="capture", daemon=True)
            self._thread.start()
        try:
            self._queue.put_nowait((served, keep))
        except queue.Full:
            if keep:
                metrics.DROPPED.labels("busy").inc()

    def close(self) -> None:
        """Keeps what still waits, for LAST seconds at most. Call it when nothing is answered any
        more."""
        if self._thread is None:
            return
        self._ending.set()
        with suppress(queue.Full):
            self._queue.put(None, timeout=LAST)
        self._thread.join(LAST)
        self.files.close()

    def _run(self) -> None:
        while (item := self._queue.get()) is not None:
            start = time.thread_time()
            self._do(*item)
            self._ending.wait(min(REST * (time.thread_time() - start), MOST_REST))

    def _do(self, served: Served, keep: bool) -> None:
        """One answer. Whatever goes wrong with it is counted, said once, and no more."""
        why = "error"
        try:
            said = reply(served.reply)
            if said is None:  # cut short by a client that left
                return None
            failed = served.failed
            if failed is None:
                failed = names(faults(self.task, served.row, *said))
                metrics.judged(failed, served.by)
            if not keep:
                return None
            texts: Row = {"input": served.row, "answer": said[0]}
            sent = {"by": served.by, "finish_reason": said[1]}
            if served.taught:
                texts |= {"answer": served.taught["answer"], "student": said[0]}
                sent = {"by": "teacher", "finish_reason": served.taught["finish_reason"]}
            why = "redact_error"
            if (kept := _redacted(self.redact, texts)) is None:
                return metrics.DROPPED.labels("redacted").inc()
            why = "disk"
            row: Row = {"at": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"}
            row |= {"id": jsonl.row_id(kept["input"]), **kept, **sent, "failed": failed}
            row |= served.more or {}
            line = json.dumps(row, ensure_ascii=False).encode()
            if not self.files.add(line + b"\n"):
                return metrics.DROPPED.labels("large").inc()
            metrics.CAPTURED.inc()
            self._said = ""
        except Exception as error:  # of the hook, the disk, or a bug: the server goes on
            text = f"{type(error).__name__}: {error}"
            if keep:
                metrics.DROPPED.labels(why).inc()
                if text != self._said:
                    print(f"serve: a row is not kept ({why}): {text}", file=sys.stderr, flush=True)
                self._said = text


class Files:
    """The files that this process writes in a folder, where all together have `room` bytes."""

    def __init__(self, folder: Path, room: int) -> None:
        self.folder, self.room = folder.absolute(), room
        self._fd: int | None = None
        self._size = self._number = 0
        self._start = f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{os.getpid()}"

    def add(self, line: bytes) -> bool:
        """Adds a line, whole or not at all; False where it is larger than a file may be. Raises
        OSError when it cannot be written."""
        if len(line) > self.room // PARTS:
            return False
        full = self._size + len(line) > self.room // PARTS
        if self._fd is None or full or not os.fstat(self._fd).st_nlink:  # somebody deleted it
            self._next()
        assert self._fd is not None
        try:
            if os.write(self._fd, line) != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.folder))
        except OSError:
            with suppress(OSError):
                os.ftruncate(self._fd, self._size)
            raise
        self._size += len(line)
        return True

    def close(self) -> None:
        """Ends the file that is open."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def _next(self) -> None:
        """Begins a file, which only its owner may read, when the oldest have made room for it."""
        self.close()
        self.folder.mkdir(parents=True, exist_ok=True)
        sizes = [(path, path.stat().st_size) for path in sorted(self.folder.glob("*.jsonl"))]
        left = sum(size for _, size in sizes) - (self.room - self.room // PARTS)
        for path, size in sizes:
            if left <= 0:
                break
            path.unlink(missing_ok=True)
            left -= size
        while self._fd is None:
            self._number += 1
            path = self.folder / f"{self._start}-{self._number:05}.jsonl"
            with suppress(FileExistsError):  # of another container whose process has this number
                flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND
                self._fd = os.open(path, flags, 0o600)
        self._size = 0


def check(task: Task, serve: SimpleNamespace) -> None:
    """Looks, before a server starts, at what capture needs, and says what it will keep. Raises
    UserError for a hook that cannot be had and a folder that cannot be written."""
    hook(serve.redact)
    if not serve.capture:
        return
    folder = task.data / FOLDER
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (probe := folder / ".probe").write_bytes(b"")
        probe.unlink()
    except OSError as error:
        remedy = "get the right to it, or set serve.capture to 0"
        raise UserError(f"{folder} cannot be written: {error.strerror}: {remedy}") from None
    how = f"through {serve.redact}" if serve.redact else "as they are (serve.redact is null)"
    said = f"{serve.capture:.4g} of the inputs, with their answers, {how}"
    print(f"serve: keeps {said} in {folder}, {serve.capture_mb:g} MiB at most", flush=True)


def hook(given: str | None) -> Hook | None:
    """The function that serve.redact names, FILE.py:FUNCTION. Raises UserError when there is no
    such file or function, and when the file cannot be imported."""
    if given is None:
        return None
    file, _, name = given.partition(":")
    if not Path(file).is_file():
        raise UserError(f"serve.redact is {given}, but {file} is missing in the task's folder")
    spec = importlib.util.spec_from_file_location("redact", file)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # whatever a user's file may do
        raise UserError(f"{file} cannot be imported: {type(error).__name__}: {error}") from None
    found = getattr(module, name, None)
    if not callable(found):
        raise UserError(f"serve.redact is {given}, but {file} has no function {name}")
    return found


def _redacted(redact: Hook | None, texts: Row) -> Row | None:
    """What the hook leaves of a row; None where it says that nothing may be kept. Raises ValueError
    for a row of another shape, since what that holds is not known."""
    if redact is None:
        return texts
    found = redact({**texts, "input": dict(texts["input"])})
    if found is None:
        return None
    if not isinstance(found, dict) or found.keys() != texts.keys():
        raise ValueError(f"serve.redact gave no row with the keys {', '.join(texts)}")
    given = found["input"]
    if not isinstance(given, dict) or given.keys() != texts["input"].keys():
        raise ValueError("serve.redact gave another input than the task's")
    values = [*given.values(), *(value for name, value in found.items() if name != "input")]
    if not all(isinstance(value, str) for value in values):
        raise ValueError("serve.redact gave what is no text")
    return found


def chosen(row: Row, share: float) -> bool:
    """Whether an input is of the share that is kept: by its own hash, so always or never."""
    return int.from_bytes(order("capture", row)[:8], "big") < share * 2**64


def order(purpose: str, row: Row) -> bytes:
    """A sort key that shuffles inputs: by their hash, another for each purpose."""
    return hashlib.sha256(f"{purpose}\x1f{jsonl.row_id(row)}".encode()).digest()


def names(reasons: list[str]) -> list[str]:
    """The names of the checks that give these reasons, which themselves may quote the texts."""
    return list(dict.fromkeys(reason.partition(":")[0] for reason in reasons))


def reply(raw: bytes) -> tuple[str, str] | None:
    """Text and finish reason of vLLM's reply, a chat.completion or the events of its stream; None
    for one that is not whole."""
    if raw.startswith(b"data:"):
        text, reason = "", None
        for line in raw.decode().splitlines():
            data = line.removeprefix("data:").strip()
            for choice in json.loads(data).get("choices", []) if data not in ("", "[DONE]") else []:
                text += choice["delta"].get("content") or ""
                reason = choice.get("finish_reason") or reason
        return (text, reason) if reason else None
    whole: Any = json.loads(raw)
    if not whole:  # vLLM's null is for a client that has left
        return None
    choice = whole["choices"][0]
    return choice["message"]["content"] or "", choice["finish_reason"] or "stop"


def read(task: Task, since: str = "") -> list[Row]:
    """The rows kept from the time `since` on, the oldest first. What a killed server left of its
    last line is left out. Raises UserError when there are none, for a line that is no such row,
    and for a `since` that is no date."""
    if since and not DATE.fullmatch(since):
        raise UserError(f"SINCE is {since!r}, expected a date such as 2026-11-30")
    folder, fields = task.data / FOLDER, set(task.config["input"])
    rows = []
    for path in sorted(folder.glob("*.jsonl")):
        *lines, _torn = path.read_bytes().split(b"\n")
        for number, line in enumerate(lines, 1):
            row = jsonl.parse_row(line, f"{path}:{number}")
            given = row.get("input")
            if not isinstance(given, dict) or given.keys() != fields or "failed" not in row:
                expected = f"expected what `make serve` keeps, with the input {', '.join(fields)}"
                raise UserError(f"{path}:{number}: {expected}: delete the file")
            if row["at"] >= since:
                rows.append(row)
    if not rows:
        none = f"{folder} has no rows" + (f" since {since}" if since else "")
        raise UserError(f"{none}: set serve.capture in params.yaml, and serve")
    return sorted(rows, key=lambda row: str(row["at"]))
