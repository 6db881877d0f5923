"""What dvc.lock says that a stage read is what it read.

DVC hashes a stage's inputs and reads its parameters after the stage has run, so that an edit
meanwhile is recorded with a result that was made without it, and the run-cache hands that on. The
frame of a stage looks at them when it starts and when it ends, and fails where they differ: then
DVC records nothing.
"""

import json
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from potstill.core import lockfile, params
from potstill.core.errors import UserError

HASHED = 64 << 20  # bytes: of a larger file size and time of change must do
VARIABLE = re.compile(r"\$\{([^}]+)\}")


class Seen(NamedTuple):
    """A file as it was: its size and time of change, in nanoseconds, and its MD5, if not large."""

    size: int
    changed: int
    md5: str


class Read(NamedTuple):
    """What a stage reads: its files, and its parameters by file and name."""

    files: dict[Path, Seen]
    values: dict[tuple[str, str], Any]


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
    values: dict[tuple[str, str], Any] = {}
    for entry in given.get("params") or []:
        listed = entry if isinstance(entry, dict) else {str(params.PATH): [entry]}
        for path, names in listed.items():
            content = lockfile.read_yaml(Path(path)) or {}
            for each in names or content:
                values[path, each] = _value(content, each)
    deps = (Path(dep) for dep in given.get("deps") or [] if isinstance(dep, str))
    return Read({path: _seen(path) for dep in deps for path in _files(dep)}, values)


def verify(name: str, before: Read, start: float) -> None:
    """Raises UserError when what the stage reads is not as it was `before`, or when a file of it
    was changed between `start`, in seconds since 1970, when the program began to load, and then."""
    now = read(name)
    changed = [
        f"{path}: {each} is {params.found_text(value)}, and was "
        f"{params.found_text(before.values.get((path, each)))} when {name} began"
        for (path, each), value in now.values.items()
        if value != before.values.get((path, each))
    ]
    for path in sorted(now.files.keys() | before.files.keys()):
        was, found = before.files.get(path), now.files.get(path)
        late = was and was.changed > start * 1e9 and was.changed <= time.time_ns()
        same = was and found and (was.md5 == found.md5 if was.md5 else was == found)
        if late or not same:
            changed.append(f"{path} has changed since {name} began")
    if changed:
        more = f", and {len(changed) - 1} more" if len(changed) > 1 else ""
        raise UserError(
            f"{changed[0]}{more}: the result is not recorded, since it was not made from this; run "
            "the same command again, or undo the edit first"
        )


def _files(dep: Path) -> Iterator[Path]:
    """The files of a dependency; bytecode is none."""
    if dep.is_dir():
        for folder, folders, names in os.walk(dep):
            folders[:] = [each for each in folders if each != "__pycache__"]
            yield from (Path(folder, each) for each in names)
    elif dep.exists():
        yield dep


def _seen(path: Path) -> Seen:
    found = path.stat()
    small = found.st_size <= HASHED
    return Seen(found.st_size, found.st_mtime_ns, lockfile.md5(path) if small else "")


def _value(content: Any, name: str) -> Any:
    """The value of a parameter, `predict.dtype` one of a section; None where there is none."""
    for part in name.split("."):
        content = content.get(part) if isinstance(content, dict) else None
    return content
