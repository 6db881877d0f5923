"""dvc.yaml and dvc.lock of every task: what each stage must read and make, and what it read and made, by its MD5.

DVC itself sees the active task's stages alone. Read with PyYAML's C loader: ruamel takes four seconds for dvc.lock.
"""

import hashlib
import json
import re
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from potstill.errors import UserError

PIPELINE, LOCK = Path("dvc.yaml"), Path("dvc.lock")
AGAIN = f"`git checkout {LOCK}`, then `make repro`: what is in the journal and in DVC's cache is not made again"


class Loader(yaml.CSafeLoader):
    """YAML 1.2 where DVC writes it: 1e-05 is a number."""


Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
)


@dataclass(frozen=True)
class Stage:
    """A stage of dvc.yaml for one task. `outs` are in DVC's cache, `kept` (cache: false) in git; `params` are names by file; `lock` is
    its entry of dvc.lock, None where it has not run yet."""

    name: str
    task: str
    cmd: str
    deps: list[str]
    params: dict[str, list[str]]
    outs: list[str]
    kept: list[str]
    lock: dict[str, Any] | None

    def made(self) -> dict[str, str]:
        """MD5 (a folder's ends in .dir) by path of what the stage made, as dvc.lock has it."""
        return {out["path"]: out["md5"] for out in (self.lock or {}).get("outs", [])}

    def __str__(self) -> str:
        return f"{self.name}@{self.task}"


def stages(revision: str | None = None) -> list[Stage]:
    """The stages of every task that has run, in the order of dvc.yaml, those of the active task in any case; of the workspace or
    of a git revision. Raises UserError for a dvc.lock that is not whole."""
    specs = _load(PIPELINE, _text(PIPELINE, revision), "`git checkout dvc.yaml`") or {}
    text = _text(LOCK, revision)
    locked = (_load(LOCK, text, AGAIN).get("stages") if text else None) or {}
    for name, entry in locked.items():
        if not isinstance(entry, dict) or not all(entry.get(key) for key in ("cmd", "deps", "outs")):
            raise UserError(f"{LOCK}: the entry of {name} is not whole, expected cmd, deps and outs: {AGAIN}")
        for item in entry["deps"] + entry["outs"]:
            if not isinstance(item, dict) or not re.fullmatch(r"[0-9a-f]{32}(\.dir)?", str(item.get("md5"))):
                raise UserError(f"{LOCK}: the entry of {name} is not whole, expected the MD5 of each file: {AGAIN}")
    tasks = sorted({active(revision)} | {name.partition("@")[2] for name in locked})
    return [
        _stage(name, spec, task, locked.get(f"{name}@{task}"))
        for task in tasks
        for name, spec in specs.get("stages", {}).items()
    ]


def releases() -> list[Stage]:
    """What `make release` put into DVC's cache (releases/<task>.dvc), as if a stage had made it."""
    found = []
    for file in sorted(Path("releases").glob("*.dvc")):
        path = str(file.with_suffix(""))
        made = {"outs": [{"path": path, "md5": read_yaml(file)["outs"][0]["md5"]}]}
        found.append(Stage("release", file.stem, "", [], {}, [path], [], made))
    return found


def active(revision: str | None = None) -> str:
    """The active task."""
    return str((_load(Path("params.yaml"), _text(Path("params.yaml"), revision), "mend the line") or {}).get("task"))


def _stage(name: str, spec: dict[str, Any], task: str, lock: dict[str, Any] | None) -> Stage:
    spec = json.loads(json.dumps(spec).replace("${item.task}", task))
    params: dict[str, list[str]] = {}
    for one in spec.get("params", []):
        for file, names in (one if isinstance(one, dict) else {"params.yaml": [one]}).items():
            params.setdefault(file, []).extend(names)
    listed = [out for key in ("outs", "metrics", "plots") for out in spec.get(key, [])]
    outs = {path: options for out in listed for path, options in (out if isinstance(out, dict) else {out: {}}).items()}
    kept = [path for path, options in outs.items() if options.get("cache") is False]
    return Stage(name, task, spec["cmd"], spec["deps"], params, [path for path in outs if path not in kept], kept, lock)


def read_yaml(path: Path) -> Any:
    """A YAML file's content, None where there is no such file. Raises UserError when it is not YAML."""
    return _load(path, _text(path, None), f"`git checkout {path}`") if path.is_file() else None


def _text(path: Path, revision: str | None) -> str:
    if revision is None:
        return path.read_text(encoding="utf-8") if path.is_file() else ""
    return subprocess.run(["git", "show", f"{revision}:./{path}"], capture_output=True).stdout.decode()


def _load(path: Path, text: str, remedy: str) -> Any:
    try:
        return yaml.load(text, Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        raise UserError(f"{path}:{mark.line + 1 if mark else 1}: not YAML: {remedy}") from None


def md5(path: Path) -> str:
    """The MD5 that DVC has for a file or, ending in .dir, for a folder: that of the list of its files. Nothing is left out of a
    folder: for what stages make, where .dvcignore names nothing."""
    if path.is_file():
        with path.open("rb") as file:
            return hashlib.file_digest(file, "md5").hexdigest()
    return tree(path, (one for one in path.rglob("*") if one.is_file()))


def tree(folder: Path, files: Iterable[Path]) -> str:
    """The MD5 that DVC has for a folder with these files."""
    listed = sorted((one.relative_to(folder).as_posix(), md5(one)) for one in files)
    text = json.dumps([{"md5": sum, "relpath": name} for name, sum in listed])
    return hashlib.md5(text.encode()).hexdigest() + ".dir"


def objects(cache: Path, name: str) -> Iterator[tuple[str, str]]:
    """The files that the MD5 `name` stands for, (relative path, MD5): of one file (".", name), of a folder what its list in the cache
    says, nothing where the cache lacks it."""
    if not name.endswith(".dir"):
        yield ".", name
        return
    path = cache / name[:2] / name[2:]
    if path.is_file():
        try:
            yield from ((one["relpath"], one["md5"]) for one in json.loads(path.read_bytes()))
        except (ValueError, KeyError, TypeError):
            return  # damaged: who hashes it says so


def changes(one: Stage, made: dict[str, str]) -> list[str]:
    """Why a stage would run again, nothing where it would not: what changed since dvc.lock was written. `made` has the MD5 of what
    stages of this task made, which need not be there."""
    if one.lock is None:
        return ["has not run yet"]
    found = [] if one.lock["cmd"] == one.cmd else ["its command changed"]
    for file, names in one.params.items():
        now = (read_yaml(Path(file)) or {}) | ({"task": one.task} if file == "params.yaml" else {})
        then = one.lock.get("params", {}).get(file, {})
        found += [
            f"{name} changed"
            for name in sorted({*names, *then})
            if (now.get(name), name in names) != (then.get(name), name in then)
        ]
    was = {dep["path"]: dep["md5"] for dep in one.lock["deps"]}
    found += [f"{path} is no input any more" for path in was if path not in one.deps]
    for path in one.deps:
        if not Path(path).exists() and any(str(folder) in made for folder in Path(path).parents):
            continue  # a file of a folder that is not here: whoever made the folder says whether it is new
        is_now = made.get(path) or (_md5_in_git(Path(path)) if Path(path).exists() else "")
        if is_now != was.get(path):
            found.append(f"{path} {'changed' if is_now else 'is missing'}")
    outs = one.made()
    found += [f"{path} is new" for path in one.outs + one.kept if path not in outs]
    found += [f"{path} is not as it was made" for path in one.kept if path in outs and not _same(path, outs[path])]
    return found


def _same(path: str, was: str) -> bool:
    return Path(path).exists() and md5(Path(path)) == was


def _md5_in_git(path: Path) -> str:
    """The MD5 of an input that no stage makes; of a folder without what .dvcignore names."""
    if path.is_file():
        return md5(path)
    from dvc.fs import localfs
    from dvc.ignore import DvcIgnoreFilter

    return tree(path.resolve(), map(Path, DvcIgnoreFilter(localfs, str(Path.cwd())).find(localfs, str(path.resolve()))))
