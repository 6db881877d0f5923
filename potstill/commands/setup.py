"""Makes .venv from cuda.lock where nvidia-smi lists a GPU, else from cpu.lock.

`quantize` makes .venv-quantize instead, for llm-compressor, whose versions are not ours. Nothing is
installed yet when this runs: it needs the standard library alone, and starts on Python 3.6, to say
what is missing. uv installs three times faster than pip. It does not read pip's settings, so they
are handed to it; where it fails, pip installs. Both refuse a file whose hash the lock lacks.
"""

import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

from potstill.commands import uv

ROOT = Path(__file__).resolve().parents[2]
QUANTIZE = sys.argv[1:] == ["quantize"]
VENV, LOCKS = ROOT / (".venv-quantize" if QUANTIZE else ".venv"), ROOT / "requirements"
READY = VENV / "ready"  # written last, holds the locks' hash: an environment that has it is whole
PYTHONS, MACHINES, GLIBC = ("3.11", "3.12", "3.13"), ("x86_64", "aarch64"), [2, 34]
RUN = ("3.11", "x86_64")  # where the locks are not only resolved, but tested
GIGABYTES = {"cpu": 4, "cuda": 14, "quantize": 3}
UV, HASHED = str(VENV / "bin/uv"), ["--no-deps", "--require-hashes"]
PIP = [str(VENV / "bin/python"), "-m", "pip", "install", *HASHED, "--disable-pip-version-check"]
TORCH_CPU = "https://download.pytorch.org/whl/cpu"
FULL = "the disk is full: free some gigabytes"
CAUSES = {  # what venv, uv or pip prints → what is wrong, and what mends it; the first that fits
    "ensurepip is not|No module named '?venv": "Python has no venv: `apt install python3-venv`",
    r"No space left|os error 28\b": FULL,
    "[Hh]ash mismatch|NOT MATCH THE HASHES": "an index gave another file than the locked one, see "
    "`pip config list`",
    "dns error|[Cc]onnection (err|re)|timed out|error sending|from versions: none": "an index did "
    f"not answer, see the network and `pip config list`; torch is asked of {TORCH_CPU}, too",
}


def main() -> None:
    use_a_locked_python()
    build = "quantize" if QUANTIZE else "cuda" if has_gpu() else "cpu"
    locks = [LOCKS / f"{name}.lock" for name in ((build,) if QUANTIZE else (build, "dev"))]
    key = hashlib.sha256(b"".join(path.read_bytes() for path in locks)).hexdigest()
    if not os.access(str(VENV if VENV.exists() else ROOT), os.W_OK):
        sys.exit(f"error: {ROOT} is read-only, expected to make {VENV.name} in it: copy it first")
    if not (READY.is_file() and READY.read_text() == key):
        free, need = shutil.disk_usage(str(ROOT)).free / 1e9, GIGABYTES[build]
        if free < need and not (VENV / "bin").exists():
            sys.exit(f"error: {free:.1f} GB are free in {ROOT}, {VENV.name} needs {need} GB")
        start = time.monotonic()
        print(f"Setting up {VENV.name} from requirements/{build}.lock, once (two to five minutes)")
        here = ("{}.{}".format(*sys.version_info), platform.machine())
        if here != RUN:
            print("Resolved for Python {} on {}, but not yet run there".format(*here))
        sys.stdout.flush()
        make(build, locks)
        READY.write_text(key)
        print(f"{VENV.name} is ready: {time.monotonic() - start:.0f} s", flush=True)
    READY.touch()


def use_a_locked_python() -> None:
    """Ends where the locks have no wheels. Starts this again with a Python that they are for."""
    try:
        libc = os.confstr("CS_GNU_LIBC_VERSION") or "no glibc"
    except (AttributeError, OSError, ValueError):
        libc = "no glibc"
    system, machine, version = platform.system(), platform.machine(), re.findall(r"\d+", libc)
    if system != "Linux" or machine not in MACHINES or [int(part) for part in version] < GLIBC:
        expected = "the wheels are for Linux on x86_64 or aarch64 with glibc 2.34 or later"
        use = "use the container, or WSL on Windows (README.md)"
        sys.exit(f"error: this is {system} on {machine}, {libc}; {expected}: {use}")
    if "{}.{}".format(*sys.version_info) in PYTHONS:
        return
    for name in (f"python{version}" for version in PYTHONS):
        if shutil.which(name) and not subprocess.call([name, "-c", ""], stderr=subprocess.DEVNULL):
            os.execvp(name, [name, "-m", "potstill.commands.setup", *sys.argv[1:]])
    found = f"{sys.executable} is Python {sys.version.split()[0]}"
    sys.exit(f"error: {found}, expected 3.11, 3.12 or 3.13: install one, or `make PYTHON=…`")


def has_gpu() -> bool:
    """Whether nvidia-smi runs and lists a GPU."""
    command = ["nvidia-smi", "-L"]
    try:
        return b"GPU" in subprocess.check_output(command, stderr=subprocess.DEVNULL, timeout=30)
    except (OSError, subprocess.SubprocessError):
        return False


def make(build: str, locks: "list[Path]") -> None:
    """Makes the environment: torch first, whose CPU build may be on an index of its own."""
    python = getattr(sys, "_base_executable", sys.executable)  # not that of .venv, which is cleared
    command = [python, "-m", "venv", "--clear", str(VENV)]
    made = subprocess.run(command, capture_output=True, text=True)
    if made.returncode:
        fail(made.stdout + made.stderr)
    pins = re.findall(r"(?m)^\S+==[^#]*", "\n".join(path.read_text() for path in locks))
    for name in ("uv", "torch"):
        (VENV / f"{name}.txt").write_text(next(pin for pin in pins if pin.startswith(f"{name}==")))
    if subprocess.run([*PIP, "-r", str(VENV / "uv.txt")], capture_output=True).returncode:
        Path(UV).unlink(missing_ok=True)  # what is half there; pip installs the rest
    torch = ("-r", str(VENV / "torch.txt"))
    log = install(*torch)
    if log and build != "cuda":
        again = install(*torch, "--index-url", TORCH_CPU)
        log = again and log + again
    log = log or install(*(word for path in locks for word in ("-r", str(path))))
    if log:
        fail(log)
    find_itself(VENV)


def find_itself(folder: Path) -> None:
    """Has the environment's Python start other programs with its own bin first in PATH. A stage's
    command is `python -m …`: `.venv/bin/python -m dvc repro` then runs it with this Python, without
    `activate`, and not with another after the stage's outputs were removed."""
    first = "os.environ.get('PATH', os.defpath).split(os.pathsep)"
    line = f"os.environ['PATH'] = os.pathsep.join(dict.fromkeys([sys.prefix + '/bin', *{first}]))"
    for packages in folder.glob("lib/python3*/site-packages"):
        (packages / "potstill.pth").write_text(f"import os, sys; {line}\n")


def fail(log: str) -> None:
    """Ends with one sentence for what an installer printed; all of it only when none fits."""
    full = shutil.disk_usage(str(ROOT)).free < 1e8
    for cause in [FULL] * full + [why for what, why in CAUSES.items() if re.search(what, log)]:
        sys.exit(f"error: {cause}; `make` tries again")
    sys.exit(f"{log}\nerror: {VENV.name} could not be made, see above; `make` tries again")


def install(*what: str) -> str:
    """Installs by uv, else by pip; returns what they printed when both failed, else nothing."""
    options, env = uv.settings(PIP[0])
    fast = [UV, "pip", "install", *HASHED, "--compile-bytecode", "--python", str(VENV), *options]
    log = ""
    for command in (fast, PIP) if Path(UV).exists() else (PIP,):
        words = [*command, "--quiet", *what]
        done = subprocess.run(words, env=env, capture_output=True, text=True)
        if not done.returncode:
            return ""
        log += done.stdout + done.stderr
    return log


if __name__ == "__main__":
    main()
