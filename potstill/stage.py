"""What holds for every stage: it runs once at a time in a folder, and it believes no input that is not as dvc.lock says it was made.

DVC gives no such promise: a stage outlives a `dvc` that was killed, and a damaged object of the cache is checked out without a word.
"""

import fcntl
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from potstill import lockfile
from potstill.errors import UserError

LOCKS = Path(".cache/stages")


@contextmanager
def alone() -> Iterator[None]:
    """Around the main() of `python -m stages.<name>`; does nothing for other modules. Raises UserError."""
    spec = sys.modules["__main__"].__spec__
    if spec is None or not spec.name.startswith("stages."):
        yield
        return
    name = " ".join([spec.name.removeprefix("stages."), *sys.argv[1:]])
    path = LOCKS / name.replace("/", "_")
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as lock:
        deadline = time.monotonic() + 1  # who looks whether a stage runs holds its lock for a moment
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    who = running(path) or "a process"
                    raise UserError(
                        f"{name} runs here already ({who}): wait for its end, or end it, then run this again"
                    ) from None
                time.sleep(0.05)
        os.set_inheritable(lock.fileno(), True)  # a training that lives on without its stage holds the lock, too
        lock.truncate(0)
        print(f"process {os.getpid()}, since {time.strftime('%H:%M:%S')}", file=lock, flush=True)
        believe(f"python -m stages.{name}")
        yield


def running(path: Path) -> str | None:
    """Who holds a stage's lock, such as "process 4711, since 18:03:07"; None where nobody does."""
    with path.open() as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return lock.read().strip()
    return None


def believe(cmd: str) -> None:
    """Of the active task's stage with this command: raises UserError for the first input that another stage made and that has other
    bytes now (DVC makes anew what was edited, so it is damage), and for a result that was paid for, but not fetched."""
    if not (lockfile.PIPELINE.is_file() and lockfile.LOCK.is_file()):
        return
    task = lockfile.active()
    stages = [one for one in lockfile.stages() if one.task == task]
    made = {path: (one, md5) for one in stages for path, md5 in one.made().items()}
    for mine in (one for one in stages if one.cmd == cmd):
        for path in mine.deps:
            if path in made and Path(path).exists() and lockfile.md5(Path(path)) != made[path][1]:
                raise UserError(
                    f"{path}: not as {made[path][0]} made it (dvc.lock has another MD5): `make verify` finds the damage and says what mends it"
                )
        journals = os.environ.get("TEACHER_JOURNAL", "").strip() or Path(
            os.environ.get("DVC_ROOT", "."), ".cache/teacher"
        )
        paid = (
            "teacher_model" in mine.params.get("params.yaml", ())
            and lockfile.read_yaml(Path("params.yaml"))["teacher_model"] != "scripted"
        )
        if (
            paid
            and not Path(journals, f"{task}.jsonl").exists()
            and not lockfile.changes(mine, {path: md5 for path, (_, md5) in made.items()})
        ):
            raise UserError(
                f"{mine}: dvc.lock has its result, which was paid for and is not here: `make pull` fetches it (to pay again, delete the entry "
                f"of {mine} from dvc.lock)"
            )
