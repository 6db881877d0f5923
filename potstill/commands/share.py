"""Send results to the team's DVC remote, or fetch them, task by task.

push [EXP …]   `make share`: what dvc.lock of each task names, or experiments with their commits
pull [EXP …]   `make pull`: fetches, checks each object's bytes, checks out, and fills the journal
               with the answers that came along; EXP experiments, for `dvc exp apply EXP`

A task that nobody has run or shared is a line; one of which a part is missing is an error.
"""

import contextlib
import errno
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from potstill.commands import fill
from potstill.core import lockfile, project
from potstill.core.errors import UserError
from potstill.core.stage import full
from potstill.task import settings


def push() -> None:
    """`make share`. Raises UserError when a part of a task is missing, or DVC cannot send it."""
    if sys.argv[1:]:
        return _experiments("push")
    parts = []
    with _repo() as (repo, remote, failures):
        by_task = _objects(repo)
        lost = _lost(repo, by_task)
        idle = _idle(by_task, lost)
        ran = {name: objects for name, objects in by_task.items() if name not in idle}
        here = {one for objects in ran.values() for one in objects if one not in lost}
        with _reaching(remote):
            done = _transfer(repo, repo.cache.local, remote, here)
        if done.failed:
            raise failures.reason("sent", by_task, done.failed, remote.path)
        for name, objects in ran.items():
            new = sum(one in done.transferred for one in objects)
            print(f"share: {name}: {len(objects):,} objects, {new:,} of them new")
            parts += _part(name, objects, lost)
        with _reaching(remote):
            repo.stage_cache.push(None)  # a colleague's stage with the same inputs need not run
    if idle:
        print(f"share: {', '.join(idle)}: not run here, nothing to send")
    if parts:
        raise UserError("; ".join(parts) + ": `make verify` says which and what mends it")
    homes = settings.tasks().values()
    kept = [project.ROOT / ".dvc/config"]
    made = ("dvc.lock", "data/dvc.lock", "reports")
    kept += [home / name for home in homes for name in made]
    if changed := project.git("status", "--porcelain", "--", *map(str, kept)):
        paths = [line[3:] for line in changed.splitlines()]
        more = f" and {len(paths) - 1} more" if paths[1:] else ""
        print(f"share: {paths[0]}{more} not committed: colleagues see only what git has")


def pull() -> None:
    """`make pull`. Raises UserError when the remote has only a part of a task, or damaged bytes,
    and when DVC cannot fetch what is there."""
    if sys.argv[1:]:
        return _experiments("pull")
    parts = []
    with _repo() as (repo, remote, failures):
        with contextlib.suppress(Exception):  # it saves work, and no HTTP remote has it
            repo.stage_cache.pull(None)
        new: set[Any] = set()
        for _ in range(2):  # which files a folder has is known when its list has come
            by_task = _objects(repo)
            asked = {one.value: one for one in _lost(repo, by_task)}
            with _reaching(remote):
                there = {asked[value] for value in (remote.oids_exist(asked) if asked else ())}
                torn = {one for one in there if one.isdir and not _is_list(remote, one)}
                failed = _transfer(repo, remote, repo.cache.local, there - torn).failed
            if failed:
                raise failures.reason("fetched", by_task, failed, repo.cache.local.path)
            new |= there
        by_task = _objects(repo)
        lost = _lost(repo, by_task)
        idle = _idle(by_task, lost)
        stages = _stages(repo)
        for name, objects in by_task.items():
            damaged = [one for one in objects if one in lost and one in new]
            if name in idle:
                continue
            if damaged:  # DVC took its bytes out again
                path = remote.oid_to_path(damaged[0].value)
                some = f"{len(damaged):,} of {len(objects):,} objects are damaged in the remote"
                parts.append(f"{name}: {some}, first delete {path} there")
            elif part := _part(name, objects, lost):
                parts += part
            else:
                repo.checkout([stage.addressing for stage in stages[name]])
                fetched = sum(one in new for one in objects)
                print(f"pull: {name}: {len(objects):,} objects, {fetched:,} of them new")
    if idle:
        it, who = ("it", idle[0]) if len(idle) == 1 else ("them", "NAME")
        print(
            f"pull: {', '.join(idle)}: nobody has shared {it}, `make repro TASK={who}` makes {it}"
        )
    for home in settings.tasks().values():
        with contextlib.chdir(home):
            fill.main()
    if parts:
        raise UserError("; ".join(parts) + ": whoever made them runs `make share`")


def _experiments(command: str) -> None:
    """Sends or fetches the experiments that the command line names."""
    remote = project.git("remote").partition("\n")[0] or "origin"
    project.dvc("exp", command, remote, *sys.argv[1:])


Objects = dict[str, list[Any]]  # DVC's HashInfo of each, by task


class _Failures(logging.Handler):
    """What DVC logs of objects that it cannot transfer: it prints a line of each, and goes on."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[BaseException] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info and record.exc_info[1]:
            self.found.append(record.exc_info[1])

    def full(self) -> bool:
        """Whether a disk was full."""
        return any(isinstance(error, OSError) and full(error) for error in self.found)

    def reason(self, verb: str, by_task: Objects, lost: set[Any], place: str) -> Exception:
        """The error to raise when the objects `lost` could not be `verb`, to `place`."""
        if self.full():
            return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), place)
        name, objects = next(item for item in by_task.items() if lost.intersection(item[1]))
        one = next(one for one in objects if one in lost)
        some = f"{name}: {len(lost):,} objects could not be {verb}, such as {one.obj_name}"
        return UserError(f"{some}: {_text(self.found[0])}" if self.found else some)


def _text(error: BaseException) -> str:
    """An error's own words, in one line."""
    return " ".join(str(error).split()) or type(error).__name__


@contextmanager
def _repo() -> Iterator[tuple[Any, Any, _Failures]]:
    """DVC's repository, its remote, and what will have failed; DVC's errors as one sentence."""
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    for home in settings.tasks().values():
        with contextlib.chdir(home):
            try:
                lockfile.read()
            except UserError as error:
                raise UserError(project.prefix() + str(error)) from None
    failures = _Failures()
    for name in ("dvc", "dvc_data", "dvc_objects"):
        logging.getLogger(name).handlers = [failures]
        logging.getLogger(name).setLevel(logging.ERROR)
    logging.getLogger("dvc.repo.checkout").setLevel(logging.DEBUG)  # where it says why
    try:
        with Repo() as repo:
            yield repo, repo.cloud.get_remote_odb(command="share"), failures
    except DvcException as error:
        if failures.full():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(project.ROOT)) from None
        raise UserError(f"{_text(error)} (docs/team.md)") from None


@contextmanager
def _reaching(remote: Any) -> Iterator[None]:
    """The errors of whatever library talks to the remote as one sentence."""
    try:
        yield
    except OSError as error:
        if full(error):
            raise
        raise _unreached(remote, error) from None
    except Exception as error:  # botocore's and asyncssh's
        raise _unreached(remote, error) from None


def _unreached(remote: Any, error: Exception) -> UserError:
    where = remote.fs.unstrip_protocol(remote.path)
    return UserError(f"{where}: the remote cannot be used: {_text(error)} (docs/team.md)")


def _transfer(repo: Any, source: Any, target: Any, objects: set[Any]) -> Any:
    """Copies the objects that `target` lacks, and looks at the bytes that come into the cache. DVC
    itself asks for a folder's list only, and takes its files for there."""
    from dvc.fs.callbacks import TqdmCallback

    cache = repo.cache.local
    with TqdmCallback(desc=target.fs.unstrip_protocol(target.path), unit="file") as shown:
        options = {"verify": target is cache, "cache_odb": cache, "callback": shown}
        return repo.cloud.transfer(source, target, objects, **options)


def _is_list(remote: Any, one: Any) -> bool:
    """Whether what a remote has of a folder is a list of its files: DVC takes it for granted."""
    from dvc_data.hashfile.tree import Tree
    from dvc_objects.errors import ObjectFormatError

    try:
        return bool(Tree.load(remote, one))
    except ObjectFormatError:
        return False


def _stages(repo: Any) -> dict[str, list[Any]]:
    """The stages with outputs that DVC caches and knows, by task; a release and the rows that a
    script makes (data/dvc.yaml) are their task's."""
    tasks = settings.tasks()
    names = {str(tasks[name] / part): name for name in tasks for part in ("", "data")}
    by_task: dict[str, list[Any]] = {}
    for stage in sorted(repo.index.stages, key=lambda stage: stage.path):
        if any(out.use_cache and out.hash_info for out in stage.outs):
            home = str(Path(stage.path).resolve().parent)
            by_task.setdefault(names.get(home, home), []).append(stage)
    return by_task


def _objects(repo: Any) -> Objects:
    """The objects that each task's stages made, with a folder's files where the cache has their
    list."""
    by_task = {}
    for name, stages in _stages(repo).items():
        objects = {}
        outs = [out for stage in stages for out in stage.outs if out.use_cache and out.hash_info]
        for out in outs:
            out.hash_info.obj_name = str(out)
            objects[out.hash_info.value] = out.hash_info
            if out.hash_info.isdir and repo.cache.local.exists(out.hash_info.value):
                objects |= {one.value: one for used in out.get_used_objs().values() for one in used}
        by_task[name] = list(objects.values())
    return by_task


def _lost(repo: Any, by_task: Objects) -> set[Any]:
    """The objects that the cache lacks."""
    every = {one for objects in by_task.values() for one in objects}
    return {one for one in every if not repo.cache.local.exists(one.value)}


def _idle(by_task: Objects, lost: set[Any]) -> list[str]:
    """The tasks that have not run, and those of which all own objects are lost. What two tasks have
    alike, such as a short report, says nothing of either."""
    found = []
    for name, objects in by_task.items():
        others = {one for other in by_task if other != name for one in by_task[other]}
        if lost.intersection(objects) and lost.issuperset(set(objects) - others):
            found.append(name)
    return found + [name for name in settings.tasks() if name not in by_task]


def _part(name: str, objects: list[Any], lost: set[Any]) -> list[str]:
    """What to say of a task of which some objects are lost; nothing where none is."""
    missing = [one for one in objects if one in lost]
    some = f"{len(missing):,} of {len(objects):,} objects are missing"
    return [f"{name}: {some}, such as {missing[0].obj_name}"] if missing else []
