"""The frame that every stage and command runs in. A stage runs once at a time in a folder, and it
refuses an input that is not as dvc.lock says it was made.

DVC gives no such promise: a stage outlives a `dvc` that was killed, and a damaged object of the
cache is checked out without a word.
"""

import contextlib
import errno
import fcntl
import io
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from potstill.core import lockfile, params, preflight, project, record, weights
from potstill.core.errors import UserError

LOCKS = Path(".cache/stages")  # of the working folder: an experiment in a copy has its own
PARTS = Path(".cache/shards")  # of a stage that works in shards, by its name with "-" for " "
FORBIDDEN = (errno.EROFS, errno.EACCES, errno.EPERM)


def run(main: Callable[[], None]) -> None:
    """Runs a stage or a command. A user's mistake ends in one line and exit code 1, a stop by a
    signal in one line and 130; a bug keeps its traceback."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # raises KeyboardInterrupt
    if isinstance(sys.stdout, io.TextIOWrapper):  # a terminal or pipe may be ASCII only
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        with running_once():
            try:
                main()
            finally:  # what was printed stands above the error, in a pipe or a file, too
                with contextlib.suppress(BrokenPipeError):
                    sys.stdout.flush()
    except UserError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt as stop:
        reason = str(stop) or "what was finished is kept; run the same command again"
        print(f"stopped: {reason}", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:  # who read what is printed, such as `head`, has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except OSError as error:
        if error.errno in FORBIDDEN and error.filename:
            remedy = "get the right to it, or work in a checkout of your own"
            sys.exit(f"error: {error.filename}: {str(error.strerror).lower()}: {remedy}")
        if not full(error):
            raise
        where = f" (writing {error.filename})" if error.filename else ""
        remedy = "free some and run the same command again; nothing made is lost"
        sys.exit(f"error: no space left on device{where}: {remedy}")


def full(error: OSError) -> bool:
    """Whether a disk, or a user's share of it, is full. shutil.copytree has no number, but all
    errors' texts."""
    numbers = (errno.ENOSPC, errno.EDQUOT)
    texts = str(error) if isinstance(error, shutil.Error) else ""
    return error.errno in numbers or any(os.strerror(number) in texts for number in numbers)


@contextmanager
def running_once() -> Iterator[None]:
    """Around the main() of `python -m stages.<name>`; does nothing for other modules. Raises
    UserError when the stage runs here already, or when verify_inputs() does, and at its end when
    what it read has changed meanwhile."""
    spec = sys.modules["__main__"].__spec__
    if spec is None or not spec.name.startswith("stages."):
        yield
        return
    name, parent = " ".join([spec.name.removeprefix("stages."), *sys.argv[1:]]), os.getppid()
    path = LOCKS / name.replace("/", "_")
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as lock:
        for _ in range(20):  # `running` holds the lock for a moment, too
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            time.sleep(0.05)
        else:
            who, remedy = running(path) or "a process", "wait for its end, or end it"
            raise UserError(f"{name} runs here already ({who}): {remedy}, then run this again")
        os.set_inheritable(lock.fileno(), True)  # a training that outlives its stage holds it, too
        lock.truncate(0)
        print(f"process {os.getpid()}, since {time.strftime('%H:%M:%S')}", file=lock, flush=True)
        verify_inputs(f"-m stages.{name}")
        preflight.look(name)
        recorded = os.environ.get("DVC_STAGE", "").rpartition(":")[2]  # no name without DVC
        before = record.read(recorded)
        named = record.spec(name.replace(" ", "@")).get("params") or []
        if "model" in named:
            weights.prepare_student(*params.student())
        if ("gkd" in named or "gkd.teacher" in named) and (teacher := params.open_teacher()):
            weights.prepare(*teacher)
        other = record.watch(recorded, before)
        yield
        record.verify(recorded, before, started(), other)
        if os.getppid() == parent:  # else `dvc` was killed, and will ask for the same again
            shutil.rmtree(PARTS / name.replace(" ", "-"), ignore_errors=True)


def started() -> float:
    """When this process began, in seconds since 1970."""
    ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
    age = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    return time.time() - age


def running(path: Path) -> str | None:
    """Who holds a stage's lock, such as "process 4711, since 18:03:07"; None where nobody does."""
    with path.open() as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return lock.read().strip()
    return None


def verify_inputs(command: str) -> None:
    """Of the stage whose command ends in `command`: raises UserError for the first input that
    another stage made and that has other bytes now (DVC makes anew what was edited, so it is
    damage), and for a result that was paid for, but not fetched."""
    entries = lockfile.read()
    for name, mine in entries.items():
        if not mine["cmd"].endswith(command):
            continue
        needed = [Path(dep["path"]) for dep in mine.get("deps", [])]
        for maker, entry in entries.items():
            for made, md5 in lockfile.made(entry).items():
                path = Path(made)
                inside = any(dep in (path, *path.parents) for dep in needed)
                if inside and path.exists() and lockfile.md5(path) != md5:
                    wrong = f"{path}: not as {maker} made it (dvc.lock has another MD5)"
                    remedy = "`make verify` finds the damage and says what mends it"
                    raise UserError(f"{wrong}: {remedy}")
        if _was_paid(mine) and unchanged(name):
            wrong = f"{name}: dvc.lock has its result, which was paid for and is not here"
            again = f"to pay again, delete the entry of {name} from dvc.lock"
            raise UserError(f"{wrong}: `make pull` fetches it ({again})")


def _was_paid(entry: lockfile.Entry) -> bool:
    """Whether a real teacher was asked, whose answers are not in the task's journal."""
    asked = entry.get("params", {}).get("params.yaml", {}).get("teacher")
    journal = project.journals() / f"{params.task_name()}.jsonl"
    return bool(asked) and asked["model"] != "scripted" and not journal.exists()


def unchanged(name: str) -> bool:
    """Whether DVC finds a stage's parameters, and the inputs that are here, as they were when the
    stage ran."""
    from dvc.repo import Repo

    with Repo() as repo:
        deps = repo.stage.load_one(name=name).deps
        return not any(dep.exists and dep.status() for dep in deps)
