"""What dvc.lock says that a stage read is what it read.

DVC hashes a stage's inputs and reads its parameters after the stage has run, so that an edit
meanwhile is recorded with a result that was made without it, and the run-cache hands that on. The
frame of a stage looks at them when it starts and when it ends, and fails where they differ: then
DVC records nothing. What it saw at its end it notes; potstill.core.dvc holds DVC's record against
the note.
"""

import contextlib
import json
import os
import re
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from potstill.core import jsonl, lockfile, params
from potstill.core.errors import UserError

NOTES = Path(".cache/read")  # of the working folder: what each stage saw at its end
HASHED = 64 << 20  # bytes: of a larger file size and time of change must do
VARIABLE = re.compile(r"\$\{([^}]+)\}")


Mark = tuple[int, int, int]  # of a file: its inode, size and time of change, in nanoseconds
Values = dict[tuple[str, str], Any]  # of parameters, by file and name


class Seen(NamedTuple):
    """A file as it was: its mark, when its content or name was last changed, in nanoseconds (`mv`
    and `cp -p` change it, too), and its MD5, if it is not large."""

    mark: Mark
    renamed: int
    md5: str


class Read(NamedTuple):
    """What a stage reads: its files, and its parameters with the marks of their files."""

    files: dict[Path, Seen]
    values: Values
    marks: dict[Path, Mark]


def spec(name: str) -> dict[str, Any]:
    """A stage of dvc.yaml, such as predict@sft, with its variables filled in; {} where there is
    none. A variable that dvc.yaml does not set itself stays as it is."""
    pipeline = lockfile.read_yaml(lockfile.PIPELINE) or {}
    stage, _, key = name.partition("@")
    given = (pipeline.get("stages") or {}).get(stage) or {}
    known: dict[str, Any] = {"key": key, "item": {}}
    for more in pipeline.get("vars") or []:
        known |= more if isinstance(more, dict) else {}
    if isinstance(items := given.get("foreach"), dict):
        known["item"] = items.get(key, {})

    def fill(match: re.Match[str]) -> str:
        value: Any = known
        for part in re.findall(r"\w+", match[1]):
            try:
                value = value[int(part) if isinstance(value, list) else part]
            except (LookupError, ValueError, TypeError):
                return match[0]
        return json.dumps(str(value))[1:-1]

    text = VARIABLE.sub(fill, json.dumps(given.get("do", given)))
    return dict(json.loads(VARIABLE.sub(fill, text)))  # an item may name a variable, too


def read(name: str) -> Read:
    """What the stage `name` of dvc.yaml reads, as it is now."""
    given = spec(name)
    marks = {path: _mark(path) for path in {Path(path) for path, _ in _parameters(given)}}
    return Read(_look(given, "deps"), _values(given), marks)


def watch(name: str, before: Read) -> set[str]:
    """The set, which fills from now on, of the files that this process opens and that are not as
    they were `before`: what is changed and then changed back may have been read."""
    given, other = spec(name), set[str]()
    known = {_absolute(path): mark for path, mark in before.marks.items()}
    sums = {_absolute(path): seen.md5 for path, seen in before.files.items()}
    known |= {_absolute(path): seen.mark for path, seen in before.files.items()}
    names = {path.rpartition("/")[2] for path in known}

    def look(event: str, arguments: tuple[Any, ...]) -> None:
        opened = arguments[0] if event == "open" else None
        if not isinstance(opened, str) or opened.rpartition("/")[2] not in names:
            return
        path = _absolute(opened)
        if (mark := _mark(Path(path))) == known.get(path, mark):
            return
        known[path] = mark  # first: what follows opens the file, too
        if path in sums:
            same = sums[path] != "" and mark[0] and lockfile.md5(Path(path)) == sums[path]
        else:
            same = _values(given) == before.values
        if not same:
            other.add(os.path.relpath(path))

    sys.addaudithook(look)
    return other


def verify(name: str, before: Read, start: float, other: Iterable[str] = ()) -> None:
    """Raises UserError when what the stage reads is not as it was `before`, when its code was
    changed between `start`, in seconds since 1970, when the program began to load, and then, or
    when it has read `other` files meanwhile. Notes what it saw."""
    opened = set(other)  # what is opened from here on is this look's own
    now = read(name)
    changed = [
        f"{path}: {each} is {params.found_text(value)}, and was "
        f"{params.found_text(before.values.get((path, each)))} when {name} began"
        for (path, each), value in now.values.items()
        if value != before.values.get((path, each))
    ]
    for path in sorted(now.files.keys() | before.files.keys()):
        was, found = before.files.get(path), now.files.get(path)
        # Before the first look the program has read its code, and nothing else.
        code = path.suffix == ".py"
        late = code and was and start * 1e9 < was.renamed <= time.time_ns()
        same = was and found and (was.md5 == found.md5 if was.md5 else was.mark == found.mark)
        if late or not same:
            changed.append(f"{path} has changed since {name} began")
    changed += [
        f"{path} was edited and changed back since {name} began"
        for path in sorted(opened)
        if not any(text.startswith((f"{path} ", f"{path}: ")) for text in changed)
    ]
    if changed:
        raise UserError(not_recorded(changed[0], changed))
    if given := spec(name):
        seen = now.files | _look(given, "outs", "metrics", "plots")
        values = [[*key, value] for key, value in now.values.items()]
        files = {str(path): one.md5 for path, one in seen.items()}
        note = {"files": files, "values": values}
        jsonl.write_text(note_of(name), json.dumps(note, default=str))


def not_recorded(first: str, changed: list[str]) -> str:
    """The sentence that says why DVC must not record a stage: the first change, and how many."""
    more = f", and {len(changed) - 1} more" if len(changed) > 1 else ""
    return (
        f"{first}{more}: the result is not recorded, since it was not made from this; run the same "
        "command again, or undo the edit first"
    )


def note_of(name: str) -> Path:
    """Where a stage notes what it saw when it ended, {"files": {path: MD5, "" of a large one},
    "values": [[file, name, value]]}."""
    return NOTES / f"{name}.json"


def _look(given: dict[str, Any], *kinds: str) -> dict[Path, Seen]:
    """The files that a stage's entry in dvc.yaml names, as they are now."""
    named = [one for kind in kinds for one in given.get(kind) or []]
    paths = [Path(one if isinstance(one, str) else next(iter(one))) for one in named]
    return {path: _seen(path) for top in paths for path in _files(top)}


def _files(dep: Path) -> Iterator[Path]:
    """The files of a dependency; bytecode is none."""
    if dep.is_dir():
        for folder, folders, names in os.walk(dep):
            folders[:] = [each for each in folders if each != "__pycache__"]
            yield from (Path(folder, each) for each in names)
    elif dep.exists():
        yield dep


def _seen(path: Path) -> Seen:
    mark, found = _mark(path), path.stat()
    return Seen(mark, found.st_ctime_ns, lockfile.md5(path) if mark[1] <= HASHED else "")


def _absolute(path: str | Path) -> str:
    return os.path.abspath(path)  # noqa: PTH100 (resolve() follows links)


def _mark(path: Path) -> Mark:
    """The mark of a file; (0, 0, 0) of one that is not there."""
    with contextlib.suppress(OSError):
        found = path.stat()
        return found.st_ino, found.st_size, found.st_mtime_ns
    return 0, 0, 0


def _parameters(given: dict[str, Any]) -> Iterator[tuple[str, list[str]]]:
    """The files of parameters that a stage's entry in dvc.yaml names, each with the names; none
    stand for all."""
    for entry in given.get("params") or []:
        listed = entry if isinstance(entry, dict) else {str(params.PATH): [entry]}
        yield from ((path, names or []) for path, names in listed.items())


def _values(given: dict[str, Any]) -> Values:
    """The parameters that a stage's entry in dvc.yaml names, as they are now."""
    values: Values = {}
    contents: dict[str, Any] = {}
    for path, names in _parameters(given):
        if path not in contents:
            contents[path] = lockfile.read_yaml(Path(path)) or {}
        for name in names or contents[path]:
            values[path, name] = _value(contents[path], name)
    return values


def _value(content: Any, name: str) -> Any:
    """The value of a parameter, `predict.dtype` one of a section; None where there is none."""
    for part in name.split("."):
        content = content.get(part) if isinstance(content, dict) else None
    return content
