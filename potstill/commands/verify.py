"""Whether results can be believed.

python -m potstill.commands.verify --check   `make check`: is dvc.lock up to date with code and parameters? Reads no data: for CI
python -m potstill.commands.verify           `make verify`: hashes every output of every task and every object of DVC's cache again, looks for what
                                    a killed run left behind, and says of all that is wrong which command mends it
"""

import json
import os
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from potstill.core import errors, lockfile, stage
from potstill.core.errors import UserError
from potstill.core.lockfile import Stage

Found = tuple[str, str]  # what is wrong, and the command that mends it
SHOWN = 3  # paths named where many are missing


def check() -> str:
    """What `make check` says. Raises UserError when a stage of the active task would run; other tasks are mentioned only."""
    stages = lockfile.stages()
    active = lockfile.active()
    by_task: dict[str, list[str]] = defaultdict(list)
    for one in stages:
        made = {
            path: md5
            for other in stages
            if other.task == one.task
            for path, md5 in other.made().items()
        }
        by_task[one.task] += [
            f"{one.name}: {', '.join(why)}" for why in [lockfile.changes(one, made)] if why
        ]
    for task, stale in by_task.items():
        if stale and task != active:
            print(
                f"{task}: {_count(stale)} would run, from {stale[0].partition(':')[0]} on: `make repro TASK={task}`"
            )
    if stale := by_task[active]:
        print(*stale, sep="\n")
        raise UserError(
            f"dvc.lock: {_count(stale)} of task {active} would run, see above: `make repro`, then commit dvc.lock and reports"
        )
    return f"check: {active}: all {sum(one.task == active for one in stages)} stages are up to date"


def _count(stages: list[str]) -> str:
    return f"{len(stages)} stage{'s' if len(stages) > 1 else ''}"


def findings() -> Iterator[Found]:
    """All that is wrong, each with what mends it."""
    busy = [
        (path.name, who) for path in sorted(stage.LOCKS.glob("*")) if (who := stage.running(path))
    ]
    for name, who in busy:
        yield (
            f"stage {name} is running ({who}): what it makes is not there yet",
            "wait for its end, or end it",
        )
    yield from _leftovers(bool(busy))
    yield from _git()
    try:
        stages = lockfile.stages()
        there = {str(one) for one in stages if one.lock}
        lost = {str(one) for one in lockfile.stages("HEAD") if one.lock} - there
    except UserError as error:
        yield str(error).split(": `")[0], lockfile.AGAIN
        return
    if lost:
        yield (
            f"dvc.lock lacks {len(lost)} stages that the last commit has, such as {min(lost)}",
            lockfile.AGAIN,
        )
    for one in stages:
        if one.lock and (
            unlisted := [path for path in one.outs + one.kept if path not in one.made()]
        ):
            yield f"dvc.lock: {one} has no entry for {unlisted[0]}", lockfile.AGAIN
    stages += lockfile.releases()
    cache = cache_folder()
    users: dict[str, str] = {}  # what a cache object belongs to
    for one in stages:
        for path, md5 in one.made().items():
            if path in one.outs:
                users[md5] = path
                users |= {
                    sum: f"{path}/{name}"
                    for name, sum in lockfile.objects(cache, md5)
                    if name != "."
                }
    damaged = set()
    for file in sorted(path for path in cache.rglob("*") if path.is_file()):
        name = file.parent.name + file.name
        if not re.fullmatch(r"[0-9a-f]{32}(\.dir)?", name):
            yield (
                f"{file}: half an object, left by a `dvc` that was killed, or by a full disk",
                f"rm {file}",
            )
        elif lockfile.md5(file) != name.removesuffix(".dir"):
            damaged.add(name)
            whose = users.get(name)
            yield (
                f"{file}: damaged, its bytes are not those of its name; it is {whose or 'of another commit or experiment'}",
                f"rm -rf {file} {whose or ''}".rstrip()
                + " && make pull, or where no remote has it `make repro`",
            )
    for task in dict.fromkeys(one.task for one in stages):
        yield from _outputs([one for one in stages if one.task == task], cache, damaged)
    yield from _journals()


def _outputs(stages: list[Stage], cache: Path, damaged: set[str]) -> Iterator[Found]:
    """What is wrong with the outputs of one task."""
    gone, not_cached = [], []
    for one in stages:
        for path, md5 in one.made().items():
            if not Path(path).exists():
                gone.append(path)
            elif lockfile.md5(Path(path)) != md5:
                mends = (
                    f"git checkout {path}" if path in one.kept else f"rm -rf {path} && make pull"
                )
                yield (
                    f"{path}: not as it was made, its bytes are others",
                    f"{mends}, or `make repro`, which makes it anew",
                )
            names = {md5} | {sum for _, sum in lockfile.objects(cache, md5)}
            if path in one.outs and not all(
                (cache / name[:2] / name[2:]).is_file() for name in names - damaged
            ):
                not_cached.append(path)
    for paths, where in ((gone, "not here"), (not_cached, "not in DVC's cache")):
        if paths:
            more = f" and {len(paths) - SHOWN} more" if len(paths) > SHOWN else ""
            yield (
                f"task {stages[0].task}: {', '.join(paths[:SHOWN])}{more}: {where}",
                f"make pull, or where no remote has them `make repro TASK={stages[0].task}`",
            )


def _leftovers(busy: bool) -> Iterator[Found]:
    """Half-written files and locks of processes that are gone."""
    parts = [
        path for top in ("data", "models", "reports") for path in sorted(Path(top).rglob("*.part"))
    ]
    for path in [] if busy else parts:
        yield f"{path}: half-written, left by a run that was killed", f"rm -rf {path}"
    holders = Path(".dvc/tmp/rwlock")
    try:
        listed = json.loads(holders.read_text() or "{}") if holders.is_file() else {}
        entries = [
            entry
            for paths in listed.values()
            for held in paths.values()
            for entry in (held if isinstance(held, list) else [held])
        ]
        pids = {int(entry["pid"]) for entry in entries}
    except (ValueError, TypeError, KeyError, AttributeError):
        yield f"{holders}: not whole", f"rm {holders}"
        return
    dead = (
        sorted(pid for pid in pids if not Path(f"/proc/{pid}").exists())
        if Path("/proc/self").exists()
        else []
    )
    if dead:
        yield f"{holders}: held by process {dead[0]}, which is gone", f"rm {holders}"


def _git() -> Iterator[Found]:
    """What a killed git or `dvc exp run` leaves behind."""
    index = Path(_ask_git("rev-parse", "--git-path", "index.lock"))
    if index.exists():
        yield f"{index}: git runs, or was killed", f"rm {index} when no git runs"
    refs = _ask_git("for-each-ref", "--format=%(refname)", "refs/exps/exec").split()
    if refs and not _ask_git("symbolic-ref", "--quiet", "HEAD"):
        branch = _ask_git("rev-parse", "--abbrev-ref", "@{-1}") or "BRANCH"
        yield (
            "HEAD is detached: a `dvc exp run` was killed (or runs)",
            f"git checkout {branch}; `git diff params.yaml` shows what the experiment had set",
        )


def _ask_git(*command: str) -> str:
    return subprocess.run(["git", *command], capture_output=True, text=True).stdout.strip()


def _journals() -> Iterator[Found]:
    from potstill.teacher.journal import Journal

    for path in sorted(Path(".cache/teacher").glob("*.jsonl")):
        if damaged := Journal(path).damaged:
            yield (
                f"{path}: {damaged} damaged lines, whose answers would be asked for again",
                "make pull fills in what the data have of them",
            )


def cache_folder() -> Path:
    """DVC's cache of files, which may be shared with others (`dvc cache dir`)."""
    from dvc.repo import Repo

    with Repo() as repo:
        return Path(os.path.relpath(repo.cache.local.path))


def main() -> None:
    if sys.argv[1:] == ["--check"]:
        print(check())
        return
    found = list(findings())
    for what, remedy in found:
        print(f"{what}\n  mend it: {remedy}")
    if found:
        raise UserError(
            f"{len(found)} {'things are' if len(found) > 1 else 'thing is'} wrong, see above"
        )
    print("verify: every output of every task and every object of DVC's cache is as it was made")


if __name__ == "__main__":
    errors.run(main)
