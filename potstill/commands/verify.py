"""Say whether the results can be trusted.

check    `make check`: would a stage run again? Needs no data, so CI can ask it in a fresh clone
verify   `make verify`: hashes every output of every task and every object of DVC's cache again,
         looks for what a killed run left behind, and names the command that mends what is wrong
"""

import contextlib
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

from potstill.core import lockfile, project, stage
from potstill.core.errors import UserError
from potstill.task import settings
from potstill.teacher.journal import Journal

Finding = tuple[str, str]  # what is wrong, and the command that mends it
SHOWN = 3  # paths named where many are missing


def check() -> None:
    """Prints which stages of this task would run, by DVC's own rules. Raises UserError when any
    would."""
    print(check_task(settings.load().name))


def check_task(name: str) -> str:
    """What `check` says when all is well. Raises UserError when a stage would run."""
    from dvc.repo import Repo

    with Repo() as repo, repo.lock:
        stages = repo.stage.collect(str(lockfile.PIPELINE))
        stale = [one for one in stages if one.changed(allow_missing=True, upstream=stages)]
        ran = lockfile.read()
        for one in stale:
            reasons = ", ".join(_reasons(one)) if one.name in ran else "has not run yet"
            print(f"{one.name}: {reasons}")
    if stale:
        some = f"{len(stale)} stage{'s' if len(stale) > 1 else ''}"
        raise UserError(
            f"{lockfile.LOCK}: {some} of task {name} would run, see above: "
            f"`make repro TASK={name}`, then commit dvc.lock and reports"
        )
    return f"check: {name}: all {len(stages)} stages are up to date"


def _reasons(one: object) -> Iterator[str]:
    """What changed for a stage, such as `potstill/checks: modified`."""
    for entry in one.status().get(one.addressing, []):  # type: ignore[attr-defined]
        for kind, what in entry.items() if isinstance(entry, dict) else [(str(entry), {})]:
            if not what:
                yield kind
            for name, state in what.items() if isinstance(what, dict) else ():
                changes = state.items() if isinstance(state, dict) else [(name, state)]
                yield from (f"{key} {how}" for key, how in changes if how not in MISSING)


MISSING = ("deleted", "not in cache")  # in a checkout without data


def findings() -> Iterator[Finding]:
    """All that is wrong, each with what mends it."""
    yield from _leftovers()
    cache, users = _cache_folder(), dict[str, str]()
    for name, home in settings.tasks().items():
        with contextlib.chdir(home):
            yield from _task(name, cache, users)
    for file in sorted(path for path in cache.rglob("*") if path.is_file()):
        object_name = file.parent.name + file.name
        if not re.fullmatch(r"[0-9a-f]{32}(\.dir)?", object_name):
            name = os.path.relpath(file)
            yield f"{name}: half an object, left by a killed `dvc` or a full disk", f"rm {name}"
        elif lockfile.md5(file) != object_name.removesuffix(".dir"):
            user, name = users.get(object_name), os.path.relpath(file)
            yield (
                f"{name}: damaged, its bytes are not those of its name; it is "
                f"{user or 'of another commit or experiment'}",
                f"rm -rf {name} {user or ''}".rstrip()
                + " && make pull, or where no remote has it `make repro`",
            )
    for path in sorted((project.cache() / "teacher").glob("*.jsonl")):
        if damaged := Journal(path).damaged:
            what = f"{path}: {damaged} damaged lines, whose answers would be asked for again"
            yield what, "make pull fills in what the data have of them"


def _task(name: str, cache: Path, users: dict[str, str]) -> Iterator[Finding]:
    """What is wrong with a task; adds to `users` what each object of the cache belongs to."""
    home = os.path.relpath(Path.cwd(), project.ROOT)
    where, cd = ("", "") if home == "." else (f"{home}/", f"cd {home} && ")
    try:
        entries, before = lockfile.read(), lockfile.read("HEAD")
    except UserError as error:
        yield where + str(error).partition(": `")[0], cd + lockfile.AGAIN
        return
    if (release := Path("release.dvc")).is_file():
        md5 = lockfile.read_yaml(release)["outs"][0]["md5"]
        entries = entries | {"release": {"outs": [{"path": "release", "md5": md5}]}}
    if lost := before.keys() - entries:
        what = f"{where}dvc.lock lacks {len(lost)} stages that the last commit has, as {min(lost)}"
        yield what, cd + lockfile.AGAIN
    running = {path.name: stage.running(path) for path in sorted(stage.LOCKS.glob("*"))}
    for stage_name, who in running.items():
        if who:
            yield f"{where}stage {stage_name} is running ({who})", "wait for its end, or end it"
    if not any(running.values()):
        for top in ("data", "models", "reports"):
            for part in sorted(Path(top).rglob("*.part")):
                what = f"{where}{part}: half-written, left by a run that was killed"
                yield what, f"rm -rf {where}{part}"
    gone, uncached, cached = [], [], 0
    for entry in entries.values():
        for path, md5 in lockfile.made(entry).items():
            in_git = path.startswith("reports/") and not path.endswith(".html")
            parts = dict(lockfile.objects(cache, md5))
            names = {f"{where}{path}/{part}".removesuffix("/."): sum for part, sum in parts.items()}
            users |= {sum: full for full, sum in names.items()} | {md5: where + path}
            cached += not in_git
            if not Path(path).exists():
                gone += [path] * (not in_git)
            elif lockfile.md5(Path(path)) != md5:
                mends = f"rm -rf {where}{path} && make pull"
                if in_git:
                    mends = f"git checkout {where}{path}"
                yield (
                    f"{where}{path}: not as it was made, its bytes are others",
                    f"{mends}, or `make repro TASK={name}`, which makes it anew",
                )
            objects = [cache / sum[:2] / sum[2:] for sum in {md5, *parts.values()}]
            if not in_git and not all(path.is_file() for path in objects):
                uncached.append(path)
    if len(gone) < cached:  # else the task has not run here, which is nothing wrong
        for paths, lack in ((gone, "not here"), (uncached, "not in DVC's cache")):
            if paths:
                more = f" and {len(paths) - SHOWN} more" if len(paths) > SHOWN else ""
                yield (
                    f"task {name}: {', '.join(paths[:SHOWN])}{more}: {lack}",
                    f"make pull, or where no remote has them `make repro TASK={name}`",
                )


def _leftovers() -> Iterator[Finding]:
    """What a killed dvc, git or `dvc exp run` leaves behind."""
    holders = project.root() / ".dvc/tmp/rwlock"
    try:
        listed = json.loads(holders.read_text() or "{}") if holders.is_file() else {}
        locks = [held for paths in listed.values() for held in paths.values()]
        entries = [one for held in locks for one in (held if isinstance(held, list) else [held])]
        pids = {int(entry["pid"]) for entry in entries}
    except (ValueError, TypeError, KeyError, AttributeError):
        yield f"{holders}: not whole", f"rm {holders}"
        return
    if Path("/proc/self").exists():
        for pid in sorted(pid for pid in pids if not Path(f"/proc/{pid}").exists())[:1]:
            yield f"{holders}: held by process {pid}, which is gone", f"rm {holders}"
    index = Path(project.git("rev-parse", "--git-path", "index.lock"))
    if index.exists():
        yield f"{index}: git runs, or was killed", f"rm {index} when no git runs"
    running = project.git("for-each-ref", "--format=%(refname)", "refs/exps/exec")
    if running and project.git("rev-parse", "--abbrev-ref", "HEAD") == "HEAD":
        branch = "BRANCH"
        with contextlib.suppress(UserError):
            branch = project.git("rev-parse", "--abbrev-ref", "@{-1}")
        yield (
            "HEAD is detached: a `dvc exp run` was killed (or runs)",
            f"git checkout {branch}; `git diff params.yaml` shows what the experiment had set",
        )


def _cache_folder() -> Path:
    """DVC's cache of files, which may be shared with others (`dvc cache dir`)."""
    from dvc.repo import Repo

    with Repo() as repo:
        return Path(os.path.relpath(repo.cache.local.path)).resolve()


def main() -> None:
    """Prints what is wrong. Raises UserError when anything is."""
    found = list(findings())
    for what, remedy in found:
        print(f"{what}\n  mend it: {remedy}")
    if found:
        some = "1 thing is" if len(found) == 1 else f"{len(found)} things are"
        raise UserError(f"{some} wrong, see above")
    print("verify: every output of every task and every object of DVC's cache is as it was made")
