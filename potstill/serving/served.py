"""Which student `make serve` serves, and a second one that is on trial beside it (`make canary`).

models/served/<first digits of its SHA-256>/  a student that stood in a trial; kept for good
models/served/now                             a link to the one that is served, when one was chosen
models/served/trial.json                      {"student": "3f9a…", "canary": "ab12…", "share": 0.1,
                                              "began": "2026-11-30T09:00:00Z", "ended": null}

A trial serves copies, so that a `make repro` meanwhile changes nothing of it. Its end moves the
link: nothing is overwritten or deleted.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from potstill.core import jsonl, weights
from potstill.core.jsonl import Row
from potstill.task.settings import Task
from potstill.training import model_folder

PROMOTED, BACK = "promoted", "rolled back"  # how a trial ends
DIGITS = 12  # of a SHA-256, which name a student


def home(t: Task) -> Path:
    """The folder of what is here."""
    return t.models / "served"


def trial_file(t: Task) -> Path:
    """The file of the trial that is on, or was the last."""
    return home(t) / "trial.json"


def default(t: Task) -> Path:
    """The folder that is served where no other is asked for: the one that was chosen last, or else
    models/student. Says so where the two differ. Raises UserError when there is no whole model."""
    student, now = t.models / "student", home(t) / "now"
    if not now.is_symlink():
        model_folder.check_folder(student, f"`make repro TASK={t.name}` trains it")
        return student
    model_folder.check_folder(now, f"`rm {now}` goes back to {student}")
    chosen = home(t) / now.readlink()
    if student.is_dir() and name(student) != chosen.name:
        other = f"{student} is another: `make serve CANARY={student}` tries it"
        print(f"serve: {chosen} was chosen by `make canary`; {other}", flush=True)
    return chosen


def given(folder: str, variable: str) -> Path:
    """A folder that was named on the command line, as seen from the task's folder or from where it
    was typed. Raises UserError when it has no whole model."""
    typed = Path(os.environ.get("POTSTILL_START", "."), folder)
    path = Path(folder) if Path(folder).exists() or not typed.exists() else typed
    model_folder.check_folder(path, f"name another folder as {variable}")
    return path


def name(folder: Path) -> str:
    """What a student is called: the first digits of the SHA-256 of its files."""
    return weights.folder_sha256(folder)[:DIGITS]


def keep(t: Task, folder: Path) -> Path:
    """The copy of a student in models/served, made where there is none."""
    kept = home(t) / name(folder)
    if not kept.is_dir():
        part = kept.with_name(f"{kept.name}.{os.getpid()}.part")
        try:
            shutil.copytree(folder, part)
            with suppress(OSError):  # another server has just made it
                part.rename(kept)
        finally:
            shutil.rmtree(part, ignore_errors=True)
    return kept


def trial(t: Task) -> Row | None:
    """The trial that is on, or was the last; None before the first."""
    path = trial_file(t)
    return jsonl.read_json(path) if path.is_file() else None


def begin(t: Task, student: Path, canary: Path, share: float) -> tuple[Path, Path] | None:
    """Begins a trial, or goes on with it; returns the copies of the two that are served. None where
    there is nothing to try: the canary is the student that is served, or was rolled back."""
    names = {"student": name(student), "canary": name(canary)}
    if names["student"] == names["canary"]:
        print(f"serve: {canary} is the student that is served: there is no canary", flush=True)
        return None
    last = trial(t)
    again = last is not None and all(last[who] == one for who, one in names.items())
    if again and last and last["ended"] == BACK:
        remedy = f"`rm {trial_file(t)}` lets it be tried again"
        print(f"serve: {canary} was rolled back, so the student answers alone; {remedy}")
        return None
    kept = keep(t, student), keep(t, canary)
    began = last["began"] if again and last and not last["ended"] else now()
    found = {**names, "share": share, "began": began, "ended": None}
    jsonl.write_json(trial_file(t), found)
    return kept


def end(t: Task, found: Row, how: str) -> Path:
    """Ends a trial by PROMOTED or BACK, also one that has ended the other way; a server that runs
    it knows within a second. Returns the folder that is served from now on. Raises UserError when
    that is not there any more."""
    chosen = home(t) / found["canary" if how == PROMOTED else "student"]
    model_folder.check_folder(chosen, "it was removed by hand; bring it back, or begin anew")
    link = home(t) / f".now.{os.getpid()}"
    link.unlink(missing_ok=True)
    link.symlink_to(chosen.name)
    try:
        jsonl.write_json(trial_file(t), {**found, "ended": how, "at": now()})
        link.replace(home(t) / "now")  # needs no room on the disk
    finally:
        link.unlink(missing_ok=True)
    return chosen


def now() -> str:
    """The time as captured rows have it."""
    return f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"


def of_trial(rows: list[Row], found: Row) -> Iterator[tuple[str, Row]]:
    """`student` or `canary` and a row, for each captured row of a trial. Those that the student
    answered for want of the canary are the canary's."""
    sides = {found["student"]: "student", found["canary"]: "canary"}
    for row in rows:
        if row["at"] < found["began"] or (found["ended"] and row["at"] > found["at"]):
            continue
        if side := sides.get(row.get("weights", "")):
            yield side, row
