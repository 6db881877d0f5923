"""Where things are: the repository, the task's folder (the working folder) and its cache."""

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from potstill.core.errors import UserError

DVC = [sys.executable, "-m", "potstill.core.dvc"]
DATA, MODELS, REPORTS = Path("data"), Path("models"), Path("reports")  # of a task
MOUNTS = Path("/proc/self/mountinfo")
NETWORK = set(
    "nfs nfs4 cifs smb3 lustre gpfs beegfs ceph afs wekafs fuse.glusterfs fuse.sshfs "
    "fuse.juicefs fuse.ceph-fuse fuse.s3fs".split()
)
ROOT = Path(__file__).resolve().parents[2]  # of the code that runs: an experiment has its own


def root() -> Path:
    """The repository's root as seen from the working folder, such as `../..`: short in messages."""
    return Path(os.path.relpath(ROOT))


def prefix() -> str:
    """The working folder as seen from the root, such as `tasks/NAME/`; at the root nothing."""
    home = os.path.relpath(Path.cwd(), ROOT)
    return "" if home == "." else f"{home}/"


def cache() -> Path:
    """The folder of journals and checkpoints. An experiment in a copy of the repository uses that
    of the user's own, which DVC names in DVC_ROOT."""
    return Path(os.environ.get("DVC_ROOT") or ROOT) / ".cache"


def journals() -> Path:
    """The folder of the journals of paid answers: $TEACHER_JOURNAL, which may be shared, or
    .cache/teacher."""
    shared = os.environ.get("TEACHER_JOURNAL", "").strip()
    return Path(shared) if shared else cache() / "teacher"


def on_network(path: Path) -> bool:
    """Whether a path, which need not exist, is on a file system of other machines, too."""
    place, found = path.resolve(), ("", "")
    with contextlib.suppress(OSError):
        for line in MOUNTS.read_text(encoding="utf-8").splitlines():
            before, _, after = line.partition(" - ")
            point = before.split()[4].replace("\\040", " ")
            if place.is_relative_to(point) and len(point) >= len(found[0]):
                found = point, after.split()[0]
    return found[1] in NETWORK


def git(*command: str) -> str:
    """What a git command prints. Raises UserError, with git's own words, when it fails."""
    done = subprocess.run(["git", *command], capture_output=True, text=True)
    if done.returncode:
        raise UserError(f"`git {' '.join(command)}` failed: {done.stderr.strip()}")
    return done.stdout.rstrip()


def experiments() -> dict[str, str]:
    """The commit of each of DVC's experiments (refs/exps/<baseline>/<name>), by name."""
    listed = git("for-each-ref", "--format=%(refname) %(objectname)", "refs/exps")
    pairs = [line.split() for line in listed.splitlines()]
    experiments = [(ref.split("/"), sha) for ref, sha in pairs if ref.count("/") == 4]
    return {parts[4]: sha for parts, sha in experiments if len(parts[2]) == 2}


def blobs(names: list[str]) -> list[bytes | None]:
    """The contents of `<commit>:<path>` each, paths from the root of git's tree, None where there
    is none: one process for all."""
    asked = "".join(f"{name}\n" for name in names).encode()
    out = subprocess.run(
        ["git", "cat-file", "--batch"], input=asked, capture_output=True, check=True
    ).stdout
    found: list[bytes | None] = []
    for _ in names:
        head, _, out = out.partition(b"\n")
        if head.endswith(b" missing"):
            found.append(None)
        else:
            size = int(head.split()[-1])
            found.append(out[:size])
            out = out[size + 1 :]
    return found


def call(*command: str) -> int:
    """Runs a command and returns its exit code. A stop is passed on and waited for: DVC removes
    what it had half done."""
    # As in a terminal, where nohup ignores the signal
    own = {"start_new_session": True, "preexec_fn": restore_sigint}
    with subprocess.Popen(command, **own) as child:  # type: ignore[call-overload]
        try:
            return int(child.wait())
        except BaseException:
            interrupt(child)
            raise


def interrupt(child: subprocess.Popen[Any], again: float = 20) -> None:
    """Stops a child that leads a session, and waits for its end. A SIGINT is lost where it meets
    Python at an import (its lock is freed in a callback, where an exception is only printed): it is
    sent again when the child has not ended after `again` seconds."""
    while child.poll() is None:
        os.killpg(child.pid, signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(again)


def restore_sigint() -> None:
    """In a child, before it starts: it heeds SIGINT, which nohup has it ignore."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def dvc(*command: str) -> None:
    """Runs a command of DVC in the working folder. Raises UserError when it fails."""
    if code := call(*DVC, *command):
        where = f" in {prefix()}" if prefix() else ""
        said = f"`dvc {' '.join(command)}`{where} ended with {code}"
        raise UserError(f"{said}; its own message stands above")


def committed(revision: str, path: str | Path) -> bytes | None:
    """A file of the working folder as git has it at a revision; None where it has none there."""
    done = subprocess.run(["git", "show", f"{revision}:./{path}"], capture_output=True)
    return None if done.returncode else done.stdout
