"""Send results to the team's DVC remote, or fetch them, task by task.

push [EXP …]   `make share`: what dvc.lock of each task names, or experiments with their commits
pull [EXP …]   `make pull`: fetches, checks each object's bytes, checks out, and fills the journal
               with the answers that came along; EXP experiments, for `dvc exp apply EXP`

A task that nobody has run or shared is a line; one of which a part is missing is an error.
"""

import contextlib
import logging
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
    if sys.argv[1:]:
        return _experiments("push")
    parts = []
    with _repo() as repo:
        remote = repo.cloud.get_remote_odb(command="share")
        by_task = _objects(repo)
        for name, objects in by_task.items():
            lost = _lost(repo, objects)
            if _nothing_of(name, by_task, lost):
                print(f"share: {name}: has not run here, nothing to send")
                continue
            done = repo.cloud.push([one for one in objects if one not in lost], odb=remote)
            if done.failed:
                raise UserError(f"{name}: {len(done.failed)} objects could not be sent, see above")
            print(f"share: {name}: {len(objects):,} objects, {len(done.transferred):,} of them new")
            parts += _part(name, objects, lost)
        repo.stage_cache.push(None)  # a colleague's stage with the same inputs need not run
    if parts:
        raise UserError("; ".join(parts) + ": `make verify` says which and what mends it")
    homes = settings.tasks().values()
    made_by_repro = [home / name for home in homes for name in ("dvc.lock", "reports")]
    if project.git("status", "--porcelain", "--", *map(str, made_by_repro)):
        print("share: dvc.lock or reports are not committed: colleagues see only what git has")


def pull() -> None:
    """`make pull`. Raises UserError when the remote has only a part of a task, or damaged bytes."""
    if sys.argv[1:]:
        return _experiments("pull")
    parts = []
    with _repo() as repo:
        remote = repo.cloud.get_remote_odb(command="pull")
        remote.verify = True  # by default DVC trusts the remote
        with contextlib.suppress(Exception):  # it saves work, and no HTTP remote has it
            repo.stage_cache.pull(None)
        new: set[str] = set()
        for _ in range(2):  # which files a folder has is known when its list has come
            by_task = _objects(repo)
            for objects in by_task.values():
                there = [one for one in _lost(repo, objects) if remote.exists(one.value)]
                new |= {one.value for one in there}
                if there:
                    repo.cloud.pull(there, odb=remote)
        for name, objects in by_task.items():
            lost = _lost(repo, objects)
            if _nothing_of(name, by_task, lost):
                print(f"pull: {name}: nobody has shared it, `make repro TASK={name}` makes it")
            elif lost:
                parts += _part(name, objects, lost)
            else:
                repo.checkout([stage.addressing for stage in _stages(repo)[name]])
                fetched = sum(one.value in new for one in objects)
                print(f"pull: {name}: {len(objects):,} objects, {fetched:,} of them new")
    for home in settings.tasks().values():
        with contextlib.chdir(home):
            fill.main()
    if parts:
        raise UserError("; ".join(parts) + ": whoever made them runs `make share`")


def _experiments(command: str) -> None:
    """Sends or fetches the experiments that the command line names."""
    remote = project.git("remote").partition("\n")[0] or "origin"
    project.dvc("exp", command, remote, *sys.argv[1:])


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
    """The stages with outputs that DVC caches and knows, by task; a release is its task's."""
    names = {str(home): name for name, home in settings.tasks().items()}
    by_task: dict[str, list[Any]] = {}
    for stage in sorted(repo.index.stages, key=lambda stage: stage.path):
        if any(out.use_cache and out.hash_info for out in stage.outs):
            home = str(Path(stage.path).resolve().parent)
            by_task.setdefault(names.get(home, home), []).append(stage)
    return by_task


def _objects(repo: Any) -> dict[str, list[Any]]:
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


def _lost(repo: Any, objects: list[Any]) -> list[Any]:
    """Those of the objects that the cache lacks."""
    return [one for one in objects if not repo.cache.local.exists(one.value)]


def _nothing_of(name: str, by_task: dict[str, list[Any]], lost: list[Any]) -> bool:
    """Whether all of a task's own objects are lost. What two tasks have alike, such as a short
    report, says nothing of either."""
    others = {one.value for other in by_task if other != name for one in by_task[other]}
    own = {one.value for one in by_task[name]} - others
    return bool(lost) and own <= {one.value for one in lost}


def _part(name: str, objects: list[Any], lost: list[Any]) -> list[str]:
    """What to say of a task of which some objects are lost; nothing where none is."""
    some = f"{len(lost):,} of {len(objects):,} objects are missing"
    return [f"{name}: {some}, such as {lost[0].obj_name}"] if lost else []
