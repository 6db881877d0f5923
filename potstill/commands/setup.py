"""Makes .venv from cuda.lock where nvidia-smi lists a GPU, else from cpu.lock.

`quantize` makes .venv-quantize instead, for llm-compressor, whose versions are not ours; `lock`
makes the lock files anew from requirements/*.in. Nothing is installed yet when this runs: it needs
the standard library alone. uv installs three times faster than pip. It does not read pip's
settings, so they are handed to it; where it fails, pip installs.
"""

from __future__ import annotations

import ast
import hashlib
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
QUANTIZE = sys.argv[1:] == ["quantize"]
VENV, LOCKS = ROOT / (".venv-quantize" if QUANTIZE else ".venv"), ROOT / "requirements"
READY = VENV / "ready"  # written last, holds the locks' hash: an environment that has it is whole
UV, NO_DEPS = str(VENV / "bin/uv"), "--no-deps"
PIP = [str(VENV / "bin/python"), "-m", "pip", "install", NO_DEPS, "--disable-pip-version-check"]
TORCH_CPU = "https://download.pytorch.org/whl/cpu"
OPTIONS = {name: f"--{name}" for name in ("index-url", "extra-index-url", "find-links")}
OPTIONS["trusted-host"] = "--allow-insecure-host"
VARIABLES = {"cert": "SSL_CERT_FILE", "proxy": "ALL_PROXY"}
VARIABLES["timeout"] = VARIABLES["default-timeout"] = "UV_HTTP_TIMEOUT"


def main() -> None:
    use_python_311()
    if sys.argv[1:] == ["lock"]:
        return lock()
    build = "quantize" if QUANTIZE else "cuda" if has_gpu() else "cpu"
    locks = [LOCKS / f"{name}.lock" for name in ((build,) if QUANTIZE else (build, "dev"))]
    key = hashlib.sha256(b"".join(path.read_bytes() for path in locks)).hexdigest()
    if not (READY.is_file() and READY.read_text() == key):
        start = time.monotonic()
        source = f"requirements/{build}.lock"
        print(f"Setting up {VENV.name} from {source}, once (two to five minutes)", flush=True)
        make(build, locks)
        READY.write_text(key)
        print(f"{VENV.name} is ready: {time.monotonic() - start:.0f} s", flush=True)
    READY.touch()


def use_python_311() -> None:
    """Starts this script again with a newer Python when this one is too old."""
    if sys.version_info >= (3, 11):  # noqa: UP036 - this file is what finds out
        return
    for name in ("python3.13", "python3.12", "python3.11"):
        if shutil.which(name) and not subprocess.call([name, "-V"]):
            os.execvp(name, [name, "-m", "potstill.commands.setup", *sys.argv[1:]])
    wrong = f"{sys.executable} is Python {sys.version.split()[0]}, expected 3.11 or later"
    sys.exit(f"error: {wrong}: install it, or `make PYTHON=…`")


def has_gpu() -> bool:
    """Whether nvidia-smi runs and lists a GPU."""
    command = ["nvidia-smi", "-L"]
    try:
        listed = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return False
    return "GPU" in listed.stdout


def make(build: str, locks: list[Path]) -> None:
    """Makes the environment: torch first, whose CPU build may be on an index of its own."""
    python = getattr(sys, "_base_executable", sys.executable)  # not that of .venv, which is cleared
    if subprocess.call([python, "-m", "venv", "--clear", str(VENV)]):
        package = "(on Debian and Ubuntu `apt install python3-venv`)"
        sys.exit(f"error: Python's venv module does not work: install it {package}")
    pins = [word for path in locks for word in path.read_text().split()]
    torch, uv = (next(pin for pin in pins if pin.startswith(name)) for name in ("torch==", "uv=="))
    subprocess.run([*PIP, "--quiet", uv], capture_output=True)  # without it pip installs the rest
    log = install(torch)
    if log and build != "cuda":
        again = install(torch, "--index-url", TORCH_CPU)
        if again:
            indexes = f"neither the configured package index nor {TORCH_CPU}"
            sys.exit(f"{log}{again}\nerror: {indexes} gives {torch}, see above")
        log = ""
    log = log or install(*(word for path in locks for word in ("-r", str(path))))
    if log:
        failed = "the environment could not be installed, see above; `make` tries again"
        sys.exit(f"{log}\nerror: {failed}")


def install(*what: str) -> str:
    """Installs by uv, else by pip; returns what they printed when both failed, else nothing."""
    options, variables = settings()
    uv = [UV, "pip", "install", NO_DEPS, "--compile-bytecode", "--python", str(VENV), *options]
    env = {"UV_SYSTEM_CERTS": "true", **variables, **os.environ}
    log = ""
    for command in (uv, PIP) if Path(UV).exists() else (PIP,):
        words = [*command, "--quiet", *what]
        done = subprocess.run(words, env=env, capture_output=True, text=True)
        if not done.returncode:
            return ""
        log += done.stdout + done.stderr
    return log


def settings() -> tuple[list[str], dict[str, str]]:
    """pip's settings, from its files and its environment, as options and as variables of uv."""
    listed = subprocess.run([*PIP[:3], "config", "list"], capture_output=True, text=True).stdout
    values = {}
    for section in ("global.", "install.", ":env:."):  # the last one wins, as in pip
        for line in listed.splitlines():
            if line.startswith(section) and "=" in line:
                name, _, value = line[len(section) :].partition("=")
                values[name] = str(ast.literal_eval(value))
    options = []
    for name, option in OPTIONS.items():
        for value in values.get(name, "").split():
            options += [option, value]
    if values.get("no-index", "").lower() in ("1", "true", "yes", "on"):
        options.append("--no-index")
    options += ["--index-strategy", "unsafe-best-match"]  # all indexes are equal, as in pip
    return options, {VARIABLES[name]: values[name] for name in VARIABLES if name in values}


def lock() -> None:
    """Resolves *.in anew; a version that still fits stays as it is in the lock."""
    options, variables = settings()
    platform = ["--python-version", "3.11", "--python-platform", "x86_64-manylinux_2_28"]
    env = {"UV_CUSTOM_COMPILE_COMMAND": "make lock", "UV_SYSTEM_CERTS": "true", **variables}
    for name in ("cpu", "cuda", "dev", "quantize"):
        excludes = ["--excludes", "cpu-left-out.txt"] if name == "cpu" else []
        files = [f"{name}.in", "-o", f"{name}.lock", "--quiet"]
        command = [UV, "pip", "compile", "--no-annotate", *platform, *options, *excludes, *files]
        subprocess.run(command, cwd=LOCKS, env={**env, **os.environ}, check=True)


if __name__ == "__main__":
    main()
