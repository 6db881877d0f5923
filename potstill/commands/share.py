"""Results to and from the team's DVC remote, for every task: `dvc push` and `dvc pull` know the active one alone.

python -m potstill.commands.share push [EXP]   `make share`: all that dvc.lock names, or experiment EXP's; its commit goes to git's `origin`, too
python -m potstill.commands.share pull [EXP]   `make pull`: fetches, checks each object's bytes, checks out, fills the journal with the answers that
                                      came along; with EXP fetches the experiment, for `dvc exp apply EXP`
"""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from potstill.commands import experiments, fill
from potstill.core import errors, lockfile
from potstill.core.errors import UserError


def push(experiment: str | None) -> str:
    """Uploads outputs, and the entries of the run-cache that made them: a colleague's `dvc exp run` with the same parameters finds
    them. Raises UserError."""
    with _repo() as repo:
        remote = repo.cloud.get_remote_odb(command="share")
        wanted = _wanted(repo, experiment)
        objects = _objects(repo, wanted)
        lost = [one for one in objects if not repo.cache.local.exists(one.value)]
        if lost:
            raise UserError(
                f"{len(lost)} of {len(objects)} objects are not in DVC's cache, such as {lost[0].obj_name}: `make verify` says which and why"
            )
        done = repo.cloud.push(objects, odb=remote)
        if done.failed:
            raise UserError(
                f"{len(done.failed)} objects could not be sent to {remote.fs.unstrip_protocol(remote.path)}, see above"
            )
        _share_runs(repo, {one.value for one in objects})
        if experiment:
            _git_dvc("exp", "push", "--no-cache", "origin", experiment)
    said = f"share: {len(objects):,} objects of {len(wanted)} stages, {len(done.transferred):,} of them new to the remote"
    unsaved = (
        not experiment
        and subprocess.run(
            ["git", "status", "--porcelain", "dvc.lock", "reports"], capture_output=True
        ).stdout
    )
    return said + (
        "; dvc.lock or reports are not committed: colleagues see what git has" if unsaved else ""
    )


def pull(experiment: str | None) -> str:
    """Raises UserError."""
    if experiment:
        _git_dvc("exp", "pull", "--no-cache", "origin", experiment)
    with _repo() as repo:
        remote = repo.cloud.get_remote_odb(command="pull")
        remote.verify = True  # by default DVC believes the remote
        _fetch_runs(repo)
        wanted = _wanted(repo, experiment)
        lists = {out.hash_info for stage in wanted for out in stage.outs if out.hash_info.isdir}
        repo.cloud.pull(lists, odb=remote)
        objects = _objects(repo, wanted)
        done = repo.cloud.pull(objects, odb=remote)
        lost = [one for one in objects if not repo.cache.local.exists(one.value)]
        if lost or done.failed:
            raise UserError(
                f"{len(lost) or len(done.failed)} of {len(objects)} objects are not in the remote, or damaged there, such as "
                f"{lost[0].obj_name if lost else next(iter(done.failed)).value}: whoever made them runs `make share`"
            )
        if experiment:
            return f"pull: {len(objects):,} objects of experiment {experiment}: `dvc exp apply {experiment}`"
        with repo.lock:
            failed = [str(path) for stage in wanted for path in stage.checkout().get("failed", ())]
    if failed:
        raise UserError(
            f"{failed[0]} and {len(failed) - 1} more could not be checked out: `make verify` says why"
        )
    fill.main()
    return f"pull: {len(objects):,} objects of {len(wanted)} stages are here, {len(done.transferred):,} of them are new"


@contextmanager
def _repo() -> Iterator[Any]:
    """DVC's repository, its errors as one sentence."""
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    try:
        with Repo() as repo:
            yield repo
    except DvcException as error:
        raise UserError(" ".join(str(error).split()) + " (docs/team.md)") from None


def _wanted(repo: Any, experiment: str | None) -> list[Any]:
    """DVC's stages with what dvc.lock says of their cached outputs, for every task; and the releases."""
    from dvc.stage import PipelineStage, create_stage
    from dvc.stage.loader import StageLoader

    found = []
    for one in lockfile.stages(experiments.find(experiment) if experiment else None):
        if one.lock and one.outs:
            stage = create_stage(
                PipelineStage, repo=repo, path="dvc.yaml", cmd=one.cmd, outs=one.outs
            )
            StageLoader.fill_from_lock(
                stage, {"outs": [out for out in one.lock["outs"] if out["path"] in one.outs]}
            )
            found.append(stage)
    releases = [] if experiment else sorted(Path("releases").glob("*.dvc"))
    return found + [stage for path in releases for stage in repo.stage.load_file(str(path))]


def _objects(repo: Any, stages: list[Any]) -> list[Any]:
    """The objects that these stages made, folders with their files where the cache has the list of them (else DVC would ask)."""
    found = {}
    for out in (out for stage in stages for out in stage.outs):
        out.hash_info.obj_name = str(out)
        found[out.hash_info.value] = out.hash_info
        if out.hash_info.isdir and repo.cache.local.exists(out.hash_info.value):
            found |= {one.value: one for some in out.get_used_objs().values() for one in some}
    return list(found.values())


def _share_runs(repo: Any, shared: set[str]) -> None:
    """Sends those entries of the run-cache whose outputs the remote has now: any others would promise what is not there."""
    from dvc.fs import generic

    here, there = (
        repo.cache.legacy,
        repo.cloud.get_remote_odb(command="share", hash_name="md5-dos2unix"),
    )
    for path in Path(here.path, "runs").glob("*/*/*"):
        entry = yaml.load(path.read_bytes(), lockfile.Loader) if path.is_file() else None
        if entry and {out["md5"] for out in entry["outs"]} <= shared:
            target = there.fs.join(there.path, *path.relative_to(here.path).parts)
            if not there.fs.exists(target):
                generic.copy(here.fs, str(path), there.fs, target)


def _fetch_runs(repo: Any) -> None:
    from dvc.stage.cache import RunCacheNotSupported

    try:
        there = repo.cloud.get_remote_odb(command="pull", hash_name="md5-dos2unix")
        repo.stage_cache.transfer(there, repo.cache.legacy, force=False)
    except RunCacheNotSupported:
        return  # a remote behind HTTP; the run-cache saves work and proves nothing


def _git_dvc(*command: str) -> None:
    if subprocess.call([sys.executable, "-m", "dvc", *command]):
        raise UserError(f"`dvc {' '.join(command)}` failed, its own message stands above")


def main() -> None:
    match sys.argv[1:]:
        case ["push" | "pull" as way, *rest] if len(rest) <= 1:
            print((push if way == "push" else pull)(rest[0] if rest else None))
        case _:
            raise UserError("expected `python -m potstill.commands.share push|pull [EXPERIMENT]`")


if __name__ == "__main__":
    errors.run(main)
