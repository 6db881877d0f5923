"""The right to have a journal's questions asked by shards, and to lend them its budget: one stage
at a time has it.

<journal>.writers/lease.3 says who has it, and is touched every BEAT seconds as long as that process
lives. Whoever finds it given back, or left, makes lease.4, which one process alone can, on a
network file system, too: no lock is needed. The newest file is never deleted, or two who saw
different ones might each make their own. Shards look at it as well, and send nothing more once it
is not their stage's: they do so long before anybody else takes it.
"""

import json
import os
import secrets
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from potstill.core.jsonl import Row

BEAT = 2.0  # seconds between two signs of life
ORPHANED = 20.0  # seconds of none, after which a shard sends nothing more
POLL = 0.2  # seconds between two looks of one that waits
MORE = 10.0  # seconds beyond that and the longest request, after which a lease is left


class Watch:
    """Looks at the lease of a journal. It counts until there was no sign of life for as long as it
    says, or for `patience` seconds; both by this process's own clock."""

    def __init__(self, journal: Path, patience: float | None = None) -> None:
        self.folder, self.patience = journal.with_suffix(".writers"), patience
        self._seen: tuple[str, int] | None = None  # the last sign
        self._since = 0.0
        self.signs = 0  # of life, that were seen

    def holder(self) -> Row | None:
        """Who has the lease: {"run", "host", "pid", …}; None where nobody has."""
        return self.look(self.newest())

    def look(self, path: Path | None) -> Row | None:
        """Who has the lease by this file."""
        try:
            if path is None:
                return None
            with path.open("rb") as file:  # opened anew, or a network file system shows old times
                text, sign = file.read(), (path.name, os.fstat(file.fileno()).st_mtime_ns)
        except FileNotFoundError:  # there is a newer one
            return self.holder()
        now = time.clock_gettime(time.CLOCK_BOOTTIME)  # goes on while the machine sleeps
        if sign != self._seen:
            self._seen, self._since, self.signs = sign, now, self.signs + 1
        who: Row = {"run": "", "host": "unknown", "pid": 0, "ends": False, "silent": ORPHANED}
        with suppress(ValueError):  # made a moment ago
            who |= json.loads(text)
        is_left = now - self._since > (self.patience or who["silent"])
        return None if "over" in who or is_left or _is_gone(who) else who

    def newest(self) -> Path | None:
        """The file that counts."""
        return max(self.folder.glob("lease.*"), key=number, default=None)


def number(path: Path) -> int:
    """The number of a lease's file."""
    return int(path.suffix[1:])


@contextmanager
def taken(journal: Path, ends: bool, timeout: float) -> Iterator[str]:
    """Waits for the lease of a journal and has it for as long as this lasts; gives the name under
    which this run has it. `ends`: whether the shards end with this process; where they do not, a
    lease that was not given back counts until the last request of a shard, of at most `timeout`
    seconds, has come in."""
    watch, run, waits = Watch(journal), secrets.token_hex(8), False
    who = {"run": run, "host": socket.gethostname(), "here": _here(), "pid": os.getpid()}
    who |= {"born": _born(os.getpid()), "ends": ends, "silent": ORPHANED + timeout + MORE}
    watch.folder.mkdir(parents=True, exist_ok=True)
    while (mine := _make(watch, who)) is None:
        if not waits and (other := watch.holder()):
            said = f"waits for the shards of process {other['pid']} on {other['host']}"
            print(f"teacher: {said}, which ask by the same journal", file=sys.stderr, flush=True)
            waits = True
        time.sleep(POLL)
    over = threading.Event()

    def live() -> None:
        while not over.wait(BEAT):
            with suppress(OSError):
                os.utime(mine)

    heart = threading.Thread(target=live, daemon=True)
    heart.start()
    well = False
    try:
        yield run
        well = True
    finally:
        over.set()
        heart.join()
        if well or ends:
            with suppress(FileNotFoundError), mine.open("r+") as file:  # else another has it
                file.truncate()
                file.write(json.dumps({"over": True}))


def _make(watch: Watch, who: Row) -> Path | None:
    """The file of a lease that is free; None where it is not, or another process was faster."""
    newest = watch.newest()
    if watch.look(newest):
        return None
    path = watch.folder / f"lease.{number(newest) + 1 if newest else 1}"
    try:
        with path.open("x") as file:
            file.write(json.dumps(who))
    except FileExistsError:
        return None
    if watch.newest() != path:
        path.unlink(missing_ok=True)
        return None
    for older in watch.folder.glob("lease.*"):
        if number(older) < number(path):
            older.unlink(missing_ok=True)
    return path


def _is_gone(who: Row) -> bool:
    """Whether a process, and its shards with it, is known to have ended: it was of this machine."""
    return bool(who["ends"] and who.get("here") == _here() and who["born"] != _born(who["pid"]))


def _here() -> str:
    """This machine since its start, or this container's processes."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return f"{boot} {Path('/proc/self/ns/pid').readlink()}"


def _born(pid: int) -> str | None:
    """When a process began; None where there is none, or what is left of one that was killed."""
    try:
        found = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if found[0] == "Z" else found[19]
