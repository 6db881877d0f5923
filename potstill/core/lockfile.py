"""A task's dvc.lock: what each stage read and made, by its MD5."""

import hashlib
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from potstill.core.errors import UserError
from potstill.core.project import DATA, committed

PIPELINE, LOCK = Path("dvc.yaml"), Path("dvc.lock")
AGAIN = f"`git checkout {LOCK}`, then `make repro`: the journal and DVC's cache keep what was made"
MERGING = re.compile("^<<<<<<< ", re.M)
MD5 = re.compile(r"[0-9a-f]{32}(\.dir)?")
Entry = dict[str, Any]
# The scalars of which YAML 1.1 has others: what they look like, and how they begin
SCALARS = {
    "bool": ("(true|True|TRUE|false|False|FALSE)$", "tTfF"),
    "float": (
        r"([-+]?\d[\d_]*\.[\d_]*([eE][-+]?\d+)?|[-+]?\d[\d_]*[eE][-+]?\d+"
        r"|[-+]?\.[\d_]+([eE][-+]\d+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN))$",
        "-+.0123456789",
    ),
    "int": (r"[-+]?(0b[01_]+|0o?[0-7_]+|[\d_]+|0x[\da-fA-F_]+)$", "-+0123456789"),
}


class Loader(yaml.CSafeLoader):
    """YAML 1.2 as DVC reads and writes it, by ruamel, which takes 20 times as long for a lock: `no`
    is a text, 1e-05 is a number, and so is 0042, of which YAML 1.1 makes 34."""

    def number(self, node: yaml.ScalarNode) -> int:
        """A whole number: 42, 0042, 0x2a, 0o52 or 0b101010."""
        text = str(node.value).replace("_", "")
        return int(text, 0 if text.lstrip("+-")[:2] in ("0x", "0o", "0b") else 10)


Loader.yaml_implicit_resolvers = {
    first: [(tag, form) for tag, form in forms if tag.rpartition(":")[2] not in SCALARS]
    for first, forms in yaml.CSafeLoader.yaml_implicit_resolvers.items()
}
for _kind, (_form, _first) in SCALARS.items():
    Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_kind}", re.compile(_form), list(_first))
Loader.add_constructor("tag:yaml.org,2002:int", Loader.number)


def read(revision: str | None = None) -> dict[str, Entry]:
    """The entries of dvc.lock by stage, of the working folder or of a git revision, behind those of
    data/dvc.lock (the rows that a script makes), their paths as seen from here; {} where there is
    neither. Raises UserError for one that is not whole."""
    found: dict[str, Entry] = {}
    for path in (DATA / LOCK, LOCK):
        for name, entry in _entries(path, revision).items():
            found[name] = entry | {
                key: [
                    {**item, "path": os.path.normpath(path.parent / item["path"])}
                    for item in entry[key]
                ]
                for key in ("deps", "outs")
                if key in entry
            }
    return found


def _entries(path: Path, revision: str | None) -> dict[str, Entry]:
    if revision is not None:
        text = (committed(revision, path) or b"").decode()
    else:
        text = read_text(path) if path.is_file() else ""
    if MERGING.search(text):
        remedy = f"`git checkout --theirs {path}`, or --ours, then `make repro` and commit"
        raise UserError(f"{path}: two runs that git cannot merge, expected one: {remedy}")
    again = AGAIN.replace(str(LOCK), str(path))
    entries = (load(path, text, again) or {}).get("stages") or {} if text else {}
    for name, entry in entries.items():
        wrong = f"{path}: the entry of {name} is not whole"
        if not isinstance(entry, dict) or not entry.get("cmd") or not entry.get("outs"):
            raise UserError(f"{wrong}, expected cmd and outs: {again}")
        for item in entry.get("deps", []) + entry["outs"]:
            if not isinstance(item, dict) or not MD5.fullmatch(str(item.get("md5"))):
                raise UserError(f"{wrong}, expected the MD5 of each file: {again}")
    return dict(entries)


def made(entry: Entry) -> dict[str, str]:
    """The MD5 by path of what a stage made; a folder's ends in .dir."""
    return {out["path"]: out["md5"] for out in entry["outs"]}


def read_yaml(path: Path) -> Any:
    """A YAML file's content, None where there is no such file. Raises UserError for one that is no
    YAML or no UTF-8."""
    if not path.is_file():
        return None
    return load(path, read_text(path), f"`git checkout {path}`")


def read_text(path: Path) -> str:
    """The text of a file. Raises UserError when it is missing or not UTF-8."""
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"{path} is missing: `git checkout {path}` brings it back") from None
    except UnicodeDecodeError as error:
        where = f"{path}: byte {error.start + 1}"
        raise UserError(f"{where} is not UTF-8: save the file as UTF-8") from None


def load(path: Path, text: str, remedy: str) -> Any:
    """The YAML `text` of `path`. Raises UserError, ending in `remedy`, when it is none."""
    try:
        return yaml.load(text, Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        raise UserError(f"{path}:{mark.line + 1 if mark else 1}: not YAML: {remedy}") from None


def md5(path: Path, more: dict[str, str] | None = None) -> str:
    """The MD5 that DVC has for a file or, ending in .dir, for a folder: that of the list of its
    files, as if it also had those of `more`, path → MD5. Nothing is left out of a folder: for what
    stages make, where .dvcignore names nothing."""
    if path.is_file():
        with path.open("rb") as file:
            return hashlib.file_digest(file, "md5").hexdigest()
    sums = {str(file): md5(file) for file in path.rglob("*") if file.is_file()} | (more or {})
    inside = {Path(file): sum for file, sum in sums.items() if path in Path(file).parents}
    listed = sorted((file.relative_to(path).as_posix(), sum) for file, sum in inside.items())
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
