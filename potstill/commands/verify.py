"""Say whether the results can be trusted.

check    `make check`: would a stage run again? Needs no data, so CI can ask it in a fresh clone
verify   `make verify`: hashes every output of every task and every object of DVC's cache again,
         looks for what a killed run left behind, and names the command that mends what is wrong
"""

import contextlib
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from potstill.core import lockfile, params, project, stage
from potstill.core.errors import UserError
from potstill.task import settings
from potstill.teacher.journal import Journal

Finding = tuple[str, str]  # what is wrong, and the command that mends it
BEGINNING = 60  # seconds in which an experiment makes its copy, before it works there
SHOWN = 3  # paths named where many are missing
MISSING = ("deleted", "not in cache")  # what DVC says of a file in a checkout without data


def check() -> None:
    """Prints which stages of this task would run, by DVC's own rules. Raises UserError when any
    would."""
    print(check_task(settings.load().name))


def check_task(name: str) -> str:
    """What `check` says when all is well. Raises UserError when a stage would run, and for a
    parameter, a dvc.yaml or a dvc.lock, of another task too, that is not as it must be."""
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    params.check()
    ran = lockfile.read()
    made = {path: md5 for entry in ran.values() for path, md5 in lockfile.made(entry).items()}
    absent = {path: md5 for path, md5 in made.items() if not Path(path).exists()}
    try:
        with Repo() as repo, repo.lock:
            of_rows = project.DATA / lockfile.PIPELINE  # where a script makes rows
            files = [of_rows, lockfile.PIPELINE] if of_rows.is_file() else [lockfile.PIPELINE]
            stages = [one for file in files for one in repo.stage.collect(str(file))]
            for dep in (dep for one in stages for dep in one.deps if _as_locked(dep, absent)):
                dep.status = dict  # nothing changed
            stale = [one for one in stages if one.changed(allow_missing=True, upstream=stages)]
            for one in stale:
                reasons = ", ".join(_reasons(one)) if one.name in ran else "has not run yet"
                print(f"{one.name}: {reasons}")
    except DvcException as error:
        raise UserError(f"DVC cannot read the pipelines: {error}: mend it, or git has it") from None
    if stale:
        some = "1 stage" if len(stale) == 1 else f"{len(stale)} stages"
        raise UserError(
            f"{lockfile.LOCK}: {some} of task {name} would run, see above: "
            f"`make repro TASK={name}`, then commit dvc.lock and reports"
        )
    return f"check: {name}: all {len(stages)} stages are up to date"


def _as_locked(dep: Any, absent: dict[str, str]) -> bool:
    """Whether a folder that a stage reads is as dvc.lock has it but for `absent` files, path → MD5,
    which another stage makes (own/messages.jsonl of data/dvc.yaml)."""
    path = Path(str(dep))
    lacks = path.is_dir() and any(path in Path(file).parents for file in absent)
    return lacks and lockfile.md5(path, absent) == dep.hash_info.value


def _reasons(one: Any) -> Iterator[str]:
    """What changed for a stage of DVC's, such as `potstill/checks modified`."""
    for entry in one.status().get(one.addressing, []):
        if isinstance(entry, str):
            yield entry  # such as `changed command`
            continue
        for name, how in (item for changed in entry.values() for item in changed.items()):
            parts = how if isinstance(how, dict) else {name: how}  # of a file of parameters, each
            yield from (f"{part} {state}" for part, state in parts.items() if state not in MISSING)


def findings() -> Iterator[Finding]:
    """All that is wrong, each with what mends it."""
    from dvc.repo import Repo

    yield from _leftovers()
    yield from abandoned()
    with Repo() as repo:  # the cache may be shared with others (`dvc cache dir`)
        cache = Path(os.path.relpath(repo.cache.local.path)).resolve()
    users = dict[str, str]()
    for name, home in settings.tasks().items():
        with contextlib.chdir(home):
            yield from _task(name, cache, users)
    for file in sorted(path for path in cache.rglob("*") if path.is_file()):
        md5, path = file.parent.name + file.name, os.path.relpath(file)
        if not lockfile.MD5.fullmatch(md5):
            yield f"{path}: half an object, left by a killed `dvc` or a full disk", f"rm {path}"
        elif lockfile.md5(file) != md5.removesuffix(".dir"):
            user = users.get(md5, "")
            whose = user or "of another commit or experiment"
            remove = f"rm -rf {path} {user}".rstrip()
            yield (
                f"{path}: damaged, its bytes are not those of its name; it is {whose}",
                f"{remove} && make pull, or where no remote has it `make repro`",
            )
    for journal in sorted((project.cache() / "teacher").glob("*.jsonl")):
        if damaged := Journal(journal).damaged:
            what = f"{journal}: {damaged} damaged lines, whose answers would be asked for again"
            yield what, "make pull fills in what the data have of them"


def _task(name: str, cache: Path, users: dict[str, str]) -> Iterator[Finding]:
    """What is wrong with a task; adds to `users` what each object of the cache belongs to."""
    where, repro = project.prefix(), f"`make repro TASK={name}`"
    restore = f"`git checkout {where}{lockfile.LOCK}`, then {repro}"
    try:
        entries, before = lockfile.read(), lockfile.read("HEAD")
    except UserError as error:
        what, _, remedy = str(error).partition(": `")
        if "--theirs" in remedy:  # in the middle of a merge, where git refuses the other
            restore = "`" + remedy.replace(str(lockfile.LOCK), f"{where}{lockfile.LOCK}")
        yield where + what, restore
        return
    if lost := before.keys() - entries:
        what = f"lacks {len(lost)} stages that the last commit has, such as {min(lost)}"
        yield f"{where}{lockfile.LOCK} {what}", restore
    running = {path.name: stage.running(path) for path in sorted(stage.LOCKS.glob("*"))}
    for stage_name, who in running.items():
        if who:
            yield f"{where}stage {stage_name} is running ({who})", "wait for its end, or end it"
    if not any(running.values()):
        for top in (project.DATA, project.MODELS, project.REPORTS):
            for part in sorted(top.rglob("*.part")):
                what = f"{where}{part}: half-written, left by a run that was killed"
                yield what, f"rm -rf {where}{part}"
    made = {path: md5 for entry in entries.values() for path, md5 in lockfile.made(entry).items()}
    made |= lockfile.made(lockfile.read_yaml(Path("release.dvc")) or {"outs": []})
    has_run, missing = False, []
    for path, md5 in made.items():
        parts, there = dict(lockfile.objects(cache, md5)), Path(path).exists()
        users |= {sum: f"{where}{path}/{part}".removesuffix("/.") for part, sum in parts.items()}
        users[md5] = where + path
        in_git = path.startswith("reports/") and not path.endswith(".html")
        if there and lockfile.md5(Path(path)) != md5:
            back = f"git checkout {where}{path}"
            if not in_git:
                back = f"rm -rf {where}{path} && make pull"
            yield (
                f"{where}{path}: not as it was made, its bytes are others",
                f"{back}, or {repro}, which makes it anew",
            )
        if not in_git:
            has_run |= there
            objects = [cache / sum[:2] / sum[2:] for sum in {md5, *parts.values()}]
            if not there or not all(path.is_file() for path in objects):
                missing.append(path)
    if has_run and missing:
        more = f" and {len(missing) - SHOWN} more" if len(missing) > SHOWN else ""
        yield (
            f"task {name}: {', '.join(missing[:SHOWN])}{more}: not here, or not in DVC's cache",
            f"make pull, or where no remote has them {repro}",
        )


def _leftovers() -> Iterator[Finding]:
    """What a killed dvc, git or `dvc exp run` leaves behind. DVC itself releases the locks of a
    process that is gone."""
    locks = project.root() / ".dvc/tmp/rwlock"
    try:
        json.loads(locks.read_bytes() or "{}" if locks.is_file() else "{}")
    except ValueError:
        yield f"{locks}: not whole", f"rm {locks}"
    index = Path(project.git("rev-parse", "--git-path", "index.lock"))
    if index.exists():
        yield f"{index}: git runs, or was killed", f"rm {index} when no git runs"
    running = project.git("for-each-ref", "--format=%(refname)", "refs/exps/exec")
    if running and project.git("rev-parse", "--abbrev-ref", "HEAD") == "HEAD":
        yield (
            "HEAD is detached: a `dvc exp run` was killed (or runs)",
            "git checkout -; `git diff params.yaml` shows what the experiment had set",
        )


def abandoned() -> Iterator[Finding]:
    """Copies of the repository in which an experiment was killed: no process works there."""
    folders = sorted((project.ROOT / ".dvc/tmp/exps/standalone").glob("tmp*"))
    busy = set[Path]()
    for link in Path("/proc").glob("[0-9]*/cwd"):
        with contextlib.suppress(OSError):  # it has ended, or is another user's
            place = link.readlink()
            busy |= {place, *place.parents}
    for folder in folders:
        if folder not in busy and time.time() - folder.stat().st_mtime > BEGINNING:
            path = os.path.relpath(folder)
            yield f"{path}: left by an experiment that was killed", f"rm -rf {path}"


def main() -> None:
    """Prints what is wrong. Raises UserError when anything is."""
    found = list(findings())
    for what, remedy in found:
        print(f"{what}\n  mend it: {remedy}")
    if found:
        some = "1 thing is" if len(found) == 1 else f"{len(found)} things are"
        raise UserError(f"{some} wrong, see above")
    print("verify: every output of every task and every object of DVC's cache is as it was made")
