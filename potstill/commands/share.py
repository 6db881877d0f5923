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
from collections import Counter
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
        by_task = _by_task(repo)
        for name, lost in _missing(repo, by_task).items():
            objects = by_task[name]
            if lost is None:
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
        new: Counter[str] = Counter()
        for folders in (True, False):  # first the lists of the folders' files
            by_task = _by_task(repo)
            for name, objects in by_task.items():
                wanted = [one for one in objects if one.isdir or not folders]
                new[name] += _fetch(repo, remote, wanted)
        for name, lost in _missing(repo, by_task).items():
            objects = by_task[name]
            if lost is None:
                print(f"pull: {name}: nobody has shared it, `make repro TASK={name}` makes it")
            elif lost:
                parts.append(_part(name, lost, objects))
            else:
                with repo.lock:
                    done = [stage.checkout() for stage in _stages(repo)[name]]
                if failed := [str(path) for one in done for path in one.get("failed", ())]:
                    raise UserError(f"{failed[0]} could not be checked out: see `make verify`")
                print(f"pull: {name}: {len(objects):,} objects, {new[name]:,} of them new")
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


def _stages(repo: Any) -> dict[str, list[Any]]:
    """The stages that have run, with their outputs in DVC's cache, by task; a release is its
    task's."""
    names = {str(home): name for name, home in settings.tasks().items()}
    by_task: dict[str, list[Any]] = {}
    for stage in repo.index.stages:
        stage.outs = [out for out in stage.outs if out.use_cache and out.hash_info]
        if stage.outs:
            home = str(Path(stage.path).resolve().parent)
            by_task.setdefault(names.get(home, home), []).append(stage)
    return dict(sorted(by_task.items()))


def _by_task(repo: Any) -> dict[str, list[Any]]:
    """The objects that each task's stages made, with a folder's files where the cache has their
    list."""
    by_task = {}
    for name, stages in _stages(repo).items():
        objects = {}
        for out in (out for stage in stages for out in stage.outs):
            out.hash_info.obj_name = str(out)
            objects[out.hash_info.value] = out.hash_info
            if out.hash_info.isdir and repo.cache.local.exists(out.hash_info.value):
                objects |= {one.value: one for used in out.get_used_objs().values() for one in used}
        by_task[name] = list(objects.values())
    return by_task


def _missing(repo: Any, by_task: dict[str, list[Any]]) -> dict[str, list[Any] | None]:
    """For each task the objects that the cache lacks; None where it has none of the task's own.
    What two tasks have alike, such as a short report, says nothing of either."""
    counts = Counter(one.value for objects in by_task.values() for one in objects)
    missing: dict[str, list[Any] | None] = {}
    for name, objects in by_task.items():
        lost = [one for one in objects if not repo.cache.local.exists(one.value)]
        own = {one.value for one in objects if counts[one.value] == 1}
        nothing_here = own <= {one.value for one in lost} and lost
        missing[name] = None if nothing_here else lost
    return missing


def _fetch(repo: Any, remote: Any, objects: list[Any]) -> int:
    """Fetches the objects that the remote has and the cache lacks; how many."""
    lost = [one for one in objects if not repo.cache.local.exists(one.value)]
    there = {one for one in lost if remote.exists(one.value)}
    if there:
        repo.cloud.pull(there, odb=remote)
    return len(there)


def _part(name: str, lost: list[Any], objects: list[Any]) -> str:
    return (
        f"{name}: {len(lost):,} of {len(objects):,} objects are missing, such as {lost[0].obj_name}"
    )
