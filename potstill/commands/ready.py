"""What must be so before a command starts: the repository is a git clone, and the inputs of the
task that git has are there."""

import os
import subprocess
from pathlib import Path

from potstill.core import lockfile, project, record
from potstill.core.errors import UserError
from potstill.training import swift

START = "git add -A && git commit -m start"
# What DVC and git do together: results of a commit, experiments, sharing.
GIT = "repro eval report exp sweep compare tour scale-curve gate check verify share pull release"
GIT += " track"
# What reads the inputs of a task, or says that they are as they were.
INPUTS = "repro eval report exp sweep scale-curve check"
# What may train
TRAINS = "repro exp sweep tour scale-curve"


def verify(command: str) -> None:
    """Raises UserError when a command needs git, a task's inputs or the package of a tracker, and
    these are not there."""
    if command in GIT.split():
        repository()
    if command in TRAINS.split():
        swift.trackers()
    if command in INPUTS.split():
        inputs()
        if command != "check":
            from potstill.commands import fresh  # its imports take 0.1 s, for these commands only

            fresh.complete()


def repository() -> None:
    """Raises UserError when the root is no git repository of its own with a commit."""
    root = project.ROOT
    try:
        command = ["git", "rev-parse", "--show-toplevel"]
        found = subprocess.run(command, cwd=root, capture_output=True, text=True)
    except FileNotFoundError:
        raise UserError("there is no git on this machine, and DVC needs it: install it") from None
    if found.returncode and (root / ".git").exists():  # such as a repository of somebody else
        raise UserError(f"git refuses {root}: {' '.join(found.stderr.split())}")
    if found.returncode or Path(found.stdout.rstrip("\n")).resolve() != root:
        raise UserError(
            f"{root}: no git repository, expected one (a zip download is none): "
            f"`git clone` it, or `git init && {START}` there"
        )
    if not _says("rev-parse", "-q", "--verify", "HEAD"):
        raise UserError(f"{root}: git has no commit here, expected one: `{START}`")


def inputs() -> None:
    """Raises UserError for the first input of this task's stages that is not here, though git has
    or had it: `dvc repro --pull` and `make check` take what is missing for unchanged."""
    ran, pipeline = lockfile.read(), lockfile.read_yaml(lockfile.PIPELINE)
    stages = pipeline.get("stages") if isinstance(pipeline, dict) else None
    read = {
        name: [Path(dep["path"]) for dep in entry.get("deps", [])] for name, entry in ran.items()
    }
    for name, given in (stages if isinstance(stages, dict) else {}).items():
        if name not in read and isinstance(given, dict):
            read[name] = _deps(name)
    made = {Path(path) for entry in ran.values() for path in lockfile.made(entry)}
    for name, paths in read.items():
        for path in paths:
            if path.exists() or made.intersection([path, *path.parents]) or path not in _deps(name):
                continue
            where = os.path.relpath(path, project.ROOT)
            if back := _back(where):
                raise UserError(f"{where} is missing, which {name} reads, and git has it: `{back}`")


def _deps(name: str) -> list[Path]:
    """What dvc.yaml says that a stage reads."""
    listed = record.spec(name).get("deps") or []
    return [Path(os.path.normpath(dep)) for dep in listed if isinstance(dep, str)]


def _back(where: str) -> str:
    """The command that brings back a file of the repository from git; "" where git never had it."""
    if _says("ls-files", where):
        return f"git checkout {where}"
    if _says("ls-tree", "HEAD", where):
        return f"git checkout HEAD -- {where}"
    removed = _says("log", "-1", "--format=%h", "--diff-filter=D", "--", where)
    return f"git checkout {removed}^ -- {where}" if removed else ""


def _says(*command: str) -> str:
    """What a git command prints at the root; "" where it fails."""
    done = subprocess.run(["git", *command], cwd=project.ROOT, capture_output=True, text=True)
    return "" if done.returncode else done.stdout.strip()
