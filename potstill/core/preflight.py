"""Before a stage that may pay a teacher: `make doctor` without its call. What was found good holds
for an hour, as long as nothing that it looks at changes, so that a run looks once."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from potstill.core import jsonl, lockfile, params, project, weights
from potstill.core.errors import UserError

PAID = ("expand", "generate", "pairs", "ask_teacher", "judge")  # stages that may ask a real teacher
NOTE, HOLDS = Path(".cache/doctor"), 3600  # of the working folder; seconds
WRITTEN = "task.yaml params.yaml dvc.yaml schema.json prompts teacher data".split()  # by people
MADE = re.compile(r"[1-9]-.*|__pycache__|.*\.part")  # by stages and by Python
ENVIRONMENT = re.compile(r"TEACHER_.*|HF_.*|CUDA_.*|PYTHON.*|SSL_.*|.*_PROXY", re.IGNORECASE)
MEMORY = Path("/sys/fs/cgroup/memory.max")  # the limit of the container, in bytes
LEAST_DISK = 500 << 20  # bytes that a run needs beside the model's copies
COPIES = 5  # of the model on disk: merged, student, checkpoints, and DVC's cache of both


def look(stage: str) -> None:
    """Runs the doctor, in a process of its own, so that the stage depends on none of what it looks
    at. Raises UserError when a finding is fatal, with all findings printed before it."""
    given = lockfile.read_yaml(params.PATH) if stage in PAID and params.PATH.is_file() else {}
    models = [(given.get(key) or {}).get("model") for key in ("teacher", "judge")]
    if models[0] in (None, "scripted") or (stage == "judge" and not models[1]):
        return
    model = weights.folder(str(given.get("model")), str(given.get("model_revision")))
    state = digest(model)
    if _holds(state) and shutil.disk_usage(".").free >= room(model):
        return
    known = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    paths = os.pathsep.join(filter(None, [str(project.ROOT), *known]))
    command = [sys.executable, "-m", "potstill", "doctor", "--paid"]
    done = subprocess.run(
        command, env=os.environ | {"PYTHONPATH": paths}, capture_output=True, text=True
    )
    print(done.stdout, end="", flush=True)
    if done.returncode:
        last = done.stderr.strip().splitlines() or [f"doctor ended with {done.returncode}"]
        raise UserError(last[-1].removeprefix("error: "))
    if digest(model) == state:
        jsonl.write_text(NOTE, state)


def _holds(state: str) -> bool:
    """Whether the doctor has found this state good within the hour."""
    if not NOTE.is_file() or NOTE.read_text(encoding="utf-8") != state:
        return False
    return 0 <= time.time() - NOTE.stat().st_mtime < HOLDS


def room(model: str) -> int:
    """Bytes of disk that a run needs; `model` is a folder, or a name on the hub."""
    return LEAST_DISK + COPIES * sum(
        path.stat().st_size for path in _folder(model).glob("*.safetensors")
    )


def digest(model: str) -> str:
    """A hash of all that the doctor looks at but for free disk space: of each file its size, inode
    and times (who writes a file cannot keep its ctime), the environment, the machine's memory."""
    state: list[object] = [sys.version, os.sysconf("SC_PHYS_PAGES")]
    state.append(MEMORY.read_text() if MEMORY.is_file() else "")
    state += sorted(pair for pair in os.environ.items() if ENVIRONMENT.fullmatch(pair[0]))
    for path in sorted(files(model)):
        found = path.stat()
        times = [found.st_mtime_ns, found.st_ctime_ns]
        state.append([str(path), found.st_size, found.st_ino, *times])
    return hashlib.sha256(json.dumps(state).encode()).hexdigest()


def files(model: str) -> Iterator[Path]:
    """The files that the doctor looks at: those that people write, the model's, and the code."""
    roots = [*map(Path, WRITTEN), _folder(model)]
    roots += [project.ROOT / "potstill", project.ROOT / "schemas", weights.CATALOGUE]
    for root in roots:
        for path in [root] if root.is_file() else root.rglob("*"):
            if path.is_file() and not any(map(MADE.fullmatch, path.relative_to(root).parts)):
                yield path


def _folder(model: str) -> Path:
    return Path(model) if Path(model).exists() else project.root() / model
