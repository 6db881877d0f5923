"""Makes .venv from the lock files. Runs before anything is installed, so only the standard library.

python3 -m potstill.commands.setup            .venv from cuda.lock where nvidia-smi lists a GPU, from cpu.lock elsewhere
python3 -m potstill.commands.setup quantize   .venv-quantize from quantize.lock: llm-compressor, whose pins are not ours
python3 -m potstill.commands.setup lock       resolves requirements/*.in into the lock files again

uv installs three times faster than pip. It does not read pip's settings, so they are handed to it; where it fails, pip
does it.
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
TORCH_CPU = "https://download.pytorch.org/whl/cpu"
OPTIONS = {
    "index-url": "--index-url",
    "extra-index-url": "--extra-index-url",
    "find-links": "--find-links",
    "trusted-host": "--allow-insecure-host",
}
VARIABLES = {
    "cert": "SSL_CERT_FILE",
    "proxy": "ALL_PROXY",
    "timeout": "UV_HTTP_TIMEOUT",
    "default-timeout": "UV_HTTP_TIMEOUT",
}


def main() -> None:
    use_python_311()
    if sys.argv[1:] == ["lock"]:
        return lock()
    build = "quantize" if QUANTIZE else "cuda" if has_gpu() else "cpu"
    locks = [LOCKS / f"{name}.lock" for name in ((build,) if QUANTIZE else (build, "dev"))]
    key = hashlib.sha256(b"".join(path.read_bytes() for path in locks)).hexdigest()
    if not (READY.is_file() and READY.read_text() == key):
        start = time.monotonic()
        print(
            f"Setting up {VENV.name} from requirements/{build}.lock, once (two to five minutes)",
            flush=True,
        )
        make(build, locks)
        READY.write_text(key)
        print(f"{VENV.name} is ready: {time.monotonic() - start:.0f} s", flush=True)
    READY.touch()


def use_python_311() -> None:
    """Starts this script again with a newer Python when this one is too old."""
    if sys.version_info >= (3, 11):  # noqa: UP036 - this file is what finds out
        return
    names = ("python3.13", "python3.12", "python3.11")
    found = next(
        (name for name in names if shutil.which(name) and not subprocess.call([name, "-V"])), None
    )
    if not found:
        sys.exit(
            f"error: {sys.executable} is Python {sys.version.split()[0]}, expected 3.11 or later: install it, or `make PYTHON=…`"
        )
    os.execvp(found, [found, "-m", "potstill.commands.setup", *sys.argv[1:]])


def has_gpu() -> bool:
    """Whether nvidia-smi runs and lists a GPU."""
    try:
        return (
            "GPU"
            in subprocess.run(
                ["nvidia-smi", "-L"], capture_output=True, text=True, timeout=30, check=True
            ).stdout
        )
    except (OSError, subprocess.SubprocessError):
        return False


def make(build: str, locks: list[Path]) -> None:
    """A new .venv with all that the locks name. Torch comes first: its CPU build may stand on an index of its own."""
    python = getattr(sys, "_base_executable", sys.executable)  # not that of .venv, which is cleared
    if subprocess.call([python, "-m", "venv", "--clear", str(VENV)]):
        sys.exit(
            "error: Python's venv module does not work: install it (on Debian and Ubuntu `apt install python3-venv`)"
        )
    torch, uv = (
        next(
            line
            for path in locks
            for line in path.read_text().split()
            if line.startswith(f"{name}==")
        )
        for name in ("torch", "uv")
    )
    subprocess.run([*PIP, "--quiet", uv], capture_output=True)  # without it pip installs the rest
    said = install(torch)
    if said and build != "cuda":
        again = install(torch, "--index-url", TORCH_CPU)
        said = again and said + again
        if said:
            sys.exit(
                f"{said}\nerror: neither the configured package index nor {TORCH_CPU} gives {torch}, see above"
            )
    if said or (said := install(*(word for path in locks for word in ("-r", str(path))))):
        sys.exit(
            f"{said}\nerror: the environment could not be installed, see above; `make` tries again"
        )


PIP = [str(VENV / "bin/python"), "-m", "pip", "install", "--no-deps", "--disable-pip-version-check"]


def install(*what: str) -> str:
    """Installs by uv or, when that fails, by pip. Gives what they said when both failed, else nothing."""
    options, variables = settings()
    uv = [
        str(VENV / "bin/uv"),
        "pip",
        "install",
        "--no-deps",
        "--compile-bytecode",
        "--python",
        str(VENV),
        *options,
    ]
    env = {"UV_SYSTEM_CERTS": "true", **variables, **os.environ}
    said = ""
    for command in (uv, PIP) if Path(uv[0]).exists() else (PIP,):
        done = subprocess.run(
            [*command, "--quiet", *what],
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        if not done.returncode:
            return ""
        said += done.stdout
    return said


def settings() -> tuple[list[str], dict[str, str]]:
    """pip's settings, from its files and its environment, as options and as variables of uv."""
    listed = subprocess.run([*PIP[:3], "config", "list"], capture_output=True, text=True).stdout
    found = {}
    for section in ("global.", "install.", ":env:."):  # the last one wins, as in pip
        for line in listed.splitlines():
            if line.startswith(section) and "=" in line:
                name, _, value = line[len(section) :].partition("=")
                found[name] = str(ast.literal_eval(value))
    options = [
        word
        for name, option in OPTIONS.items()
        for value in found.get(name, "").split()
        for word in (option, value)
    ]
    if found.get("no-index", "").lower() in ("1", "true", "yes", "on"):
        options.append("--no-index")
    options += ["--index-strategy", "unsafe-best-match"]  # all indexes are equal, as in pip
    return options, {variable: found[name] for name, variable in VARIABLES.items() if name in found}


def lock() -> None:
    """Resolves *.in anew; a version that still fits stays as it is in the lock."""
    uv = [
        str(VENV / "bin/uv"),
        "pip",
        "compile",
        "--no-annotate",
        "--python-version",
        "3.11",
        "--python-platform",
        "x86_64-manylinux_2_28",
    ]
    options, variables = settings()
    env = {
        "UV_CUSTOM_COMPILE_COMMAND": "make lock",
        "UV_SYSTEM_CERTS": "true",
        **variables,
        **os.environ,
    }
    for name, more in (
        ("cpu", ["--excludes", "cpu-left-out.txt"]),
        ("cuda", []),
        ("dev", []),
        ("quantize", []),
    ):
        subprocess.run(
            [*uv, *options, *more, f"{name}.in", "-o", f"{name}.lock", "--quiet"],
            cwd=LOCKS,
            env=env,
            check=True,
        )


if __name__ == "__main__":
    main()
