"""A task's dvc.lock: what each stage read and made, by its MD5."""

import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from potstill.core.errors import UserError
from potstill.core.project import committed

PIPELINE, LOCK = Path("dvc.yaml"), Path("dvc.lock")
AGAIN = f"`git checkout {LOCK}`, then `make repro`: the journal and DVC's cache keep what was made"
MERGING = re.compile("^<<<<<<< ", re.M)
MD5 = re.compile(r"[0-9a-f]{32}(\.dir)?")
Entry = dict[str, Any]


class Loader(yaml.CSafeLoader):
    """YAML 1.2 where DVC writes it: 1e-05 is a number. ruamel takes 20 times as long for a lock."""


Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
)


def read(revision: str | None = None) -> dict[str, Entry]:
    """The entries of dvc.lock by stage, of the working folder or of a git revision; {} where there
    is none. Raises UserError for a dvc.lock that is not whole."""
    if revision is not None:
        text = (committed(revision, LOCK) or b"").decode()
    else:
        text = LOCK.read_text(encoding="utf-8") if LOCK.is_file() else ""
    if MERGING.search(text):
        remedy = f"`git checkout --theirs {LOCK}`, or --ours, then `make repro` and commit"
        raise UserError(f"{LOCK}: two runs that git cannot merge, expected one: {remedy}")
    entries = (load(LOCK, text, AGAIN) or {}).get("stages") or {} if text else {}
    for name, entry in entries.items():
        wrong = f"{LOCK}: the entry of {name} is not whole"
        if not isinstance(entry, dict) or not entry.get("cmd") or not entry.get("outs"):
            raise UserError(f"{wrong}, expected cmd and outs: {AGAIN}")
        for item in entry.get("deps", []) + entry["outs"]:
            if not isinstance(item, dict) or not MD5.fullmatch(str(item.get("md5"))):
                raise UserError(f"{wrong}, expected the MD5 of each file: {AGAIN}")
    return dict(entries)


def made(entry: Entry) -> dict[str, str]:
    """The MD5 by path of what a stage made; a folder's ends in .dir."""
    return {out["path"]: out["md5"] for out in entry["outs"]}


def read_yaml(path: Path) -> Any:
    """A YAML file's content, None where there is no such file. Raises UserError for no YAML."""
    if not path.is_file():
        return None
    return load(path, path.read_text(encoding="utf-8"), f"`git checkout {path}`")


def load(path: Path, text: str, remedy: str) -> Any:
    """The YAML `text` of `path`. Raises UserError, ending in `remedy`, when it is none."""
    try:
        return yaml.load(text, Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        raise UserError(f"{path}:{mark.line + 1 if mark else 1}: not YAML: {remedy}") from None


def md5(path: Path) -> str:
    """The MD5 that DVC has for a file or, ending in .dir, for a folder: that of the list of its
    files. Nothing is left out of a folder: for what stages make, where .dvcignore names nothing."""
    if path.is_file():
        with path.open("rb") as file:
            return hashlib.file_digest(file, "md5").hexdigest()
    files = (file for file in path.rglob("*") if file.is_file())
    listed = sorted((file.relative_to(path).as_posix(), md5(file)) for file in files)
    text = json.dumps([{"md5": sum, "relpath": name} for name, sum in listed])
    return hashlib.md5(text.encode()).hexdigest() + ".dir"


def objects(cache: Path, name: str) -> Iterator[tuple[str, str]]:
    """The files that the MD5 `name` stands for, (relative path, MD5): of one file (".", name), of a
    folder what its list in the cache says, nothing where the cache lacks it."""
    if not name.endswith(".dir"):
        yield ".", name
        return
    path = cache / name[:2] / name[2:]
    if path.is_file():
        try:
            yield from ((file["relpath"], file["md5"]) for file in json.loads(path.read_bytes()))
        except (ValueError, KeyError, TypeError):
            return  # damaged: who hashes it says so
