"""Send results to the team's DVC remote, or fetch them, task by task.

push [EXP]   `make share`: what dvc.lock of each task names, or an experiment with its commit
pull [EXP]   `make pull`: fetches, checks each object's bytes, checks out, and fills the journal
             with the answers that came along; EXP an experiment, for `dvc exp apply EXP`

A task that nobody has run or shared is a line; one of which a part is missing is an error.
"""

import contextlib
import logging
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from potstill.commands import fill
from potstill.core import project
from potstill.core.errors import UserError
from potstill.task import settings


def push() -> None:
    """`make share`. Raises UserError when a part of a task is missing, or DVC cannot send it."""
    if experiment := _experiment():
        return _dvc("exp", "push", project.git("remote").partition("\n")[0] or "origin", experiment)
    parts = []
    with _repo() as repo:
        remote = repo.cloud.get_remote_odb(command="share")
        for name, stages in _by_task(repo):
            objects = _objects(repo, stages)
            lost = [one for one in objects if not repo.cache.local.exists(one.value)]
            if len(lost) == len(objects):
                print(f"share: {name}: has not run here, nothing to send")
                continue
            done = repo.cloud.push([one for one in objects if one not in lost], odb=remote)
            if done.failed:
                raise UserError(f"{name}: {len(done.failed)} objects could not be sent, see above")
            print(f"share: {name}: {len(objects):,} objects, {len(done.transferred):,} of them new")
            parts += [_part(name, lost, objects)] if lost else []
        repo.stage_cache.push(None)  # a colleague's stage with the same inputs need not run
    if parts:
        raise UserError("; ".join(parts) + ": `make verify` says which and what mends it")
    if any(project.git("status", "--porcelain", home) for home in map(str, _records())):
        print("share: dvc.lock or reports are not committed: colleagues see what git has")


def pull() -> None:
    """`make pull`. Raises UserError when the remote has only a part of a task, or damaged bytes."""
    if experiment := _experiment():
        return _dvc("exp", "pull", project.git("remote").partition("\n")[0] or "origin", experiment)
    parts = []
    with _repo() as repo:
        remote = repo.cloud.get_remote_odb(command="pull")
        remote.verify = True  # by default DVC trusts the remote
        with contextlib.suppress(
            Exception
        ):  # a remote behind HTTP; it saves work, it proves nothing
            repo.stage_cache.pull(None)
        for name, stages in _by_task(repo):
            folders = {
                out.hash_info for stage in stages for out in stage.outs if out.hash_info.isdir
            }
            _fetch(repo, remote, folders)
            objects = _objects(repo, stages)
            new = sum(not repo.cache.local.exists(one.value) for one in objects)
            _fetch(repo, remote, set(objects))
            lost = [one for one in objects if not repo.cache.local.exists(one.value)]
            if len(lost) == len(objects):
                print(f"pull: {name}: nobody has shared it, `make repro TASK={name}` makes it")
                continue
            if lost:
                parts.append(_part(name, lost, objects))
                continue
            with repo.lock:
                failed = [str(path) for one in stages for path in one.checkout().get("failed", ())]
            if failed:
                raise UserError(f"{failed[0]} could not be checked out: `make verify` says why")
            print(f"pull: {name}: {len(objects):,} objects, {new:,} of them new")
    for home in settings.tasks().values():
        with contextlib.chdir(home):
            fill.main()
    if parts:
        raise UserError("; ".join(parts) + ": whoever made them runs `make share`")


def _experiment() -> str | None:
    """The experiment that the command line names."""
    if len(sys.argv) > 2:
        raise UserError("expected at most one experiment: `make share EXP=name`")
    return sys.argv[1] if sys.argv[1:] else None


def _dvc(*command: str) -> None:
    if subprocess.call([sys.executable, "-m", "dvc", *command]):
        raise UserError(f"`dvc {' '.join(command)}` failed, its own message stands above")


def _records() -> Iterator[Path]:
    """What `make repro` leaves in git, of every task."""
    for home in settings.tasks().values():
        yield from (path for path in (home / "dvc.lock", home / "reports") if path.exists())


@contextmanager
def _repo() -> Iterator[Any]:
    """DVC's repository, its errors as one sentence."""
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    logging.getLogger("dvc").setLevel(logging.ERROR)  # it lists every object that is missing
    try:
        with Repo() as repo:
            yield repo
    except DvcException as error:
        raise UserError(" ".join(str(error).split()) + " (docs/team.md)") from None


def _by_task(repo: Any) -> Iterator[tuple[str, list[Any]]]:
    """The stages that have run, with outputs in DVC's cache, by task; a release is its task's."""
    names = {str(home): name for name, home in settings.tasks().items()}
    by_task: dict[str, list[Any]] = {}
    for stage in repo.index.stages:
        stage.outs = [out for out in stage.outs if out.use_cache and out.hash_info]
        if stage.outs:
            home = str(Path(stage.path).resolve().parent)
            by_task.setdefault(names.get(home, home), []).append(stage)
    yield from sorted(by_task.items())


def _objects(repo: Any, stages: list[Any]) -> list[Any]:
    """The objects that the stages made, with a folder's files where the cache has their list."""
    found = {}
    for out in (out for stage in stages for out in stage.outs):
        out.hash_info.obj_name = str(out)
        found[out.hash_info.value] = out.hash_info
        if out.hash_info.isdir and repo.cache.local.exists(out.hash_info.value):
            found |= {one.value: one for some in out.get_used_objs().values() for one in some}
    return list(found.values())


def _fetch(repo: Any, remote: Any, objects: set[Any]) -> None:
    """Fetches the objects that the remote has; what it lacks is told by the cache afterwards."""
    here = {one for one in objects if repo.cache.local.exists(one.value)}
    there = {one for one in objects - here if remote.exists(one.value)}
    if there:
        repo.cloud.pull(there, odb=remote)


def _part(name: str, lost: list[Any], objects: list[Any]) -> str:
    return (
        f"{name}: {len(lost):,} of {len(objects):,} objects are missing, such as {lost[0].obj_name}"
    )
