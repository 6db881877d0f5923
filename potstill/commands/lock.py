"""Resolves requirements/*.in into the lock files, for Linux on two machines and three Pythons.

A version that still fits stays as it is. A package has one version everywhere, and of its files
those with a hash that one of the six targets installs: a wheel each, or the source where there is
no wheel. The names of these files stand below their hashes, in the same order.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
import tomllib
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from packaging.markers import Marker
from packaging.tags import Tag, compatible_tags, cpython_tags
from packaging.utils import parse_wheel_filename

from potstill.commands import setup, uv
from potstill.core.errors import UserError

TARGETS = [(python, machine) for machine in setup.MACHINES for python in setup.PYTHONS]
UNIVERSAL = ["--universal", "--python-version", setup.PYTHONS[0], "--quiet"]
OLDER = {"x86_64": ("2014", "2010", "1"), "aarch64": ("2014",)}  # names of manylinux, newest first


def main() -> None:
    """Writes every lock file anew. Ends with a UserError when uv or a target finds no version."""
    former: dict[str, dict[str, str]] = {}
    for name in ("cpu", "cuda", "dev", "quantize", "ray", "mlflow"):  # these hold to those before
        path = setup.LOCKS / f"{name}.lock"
        former |= read(path) if path.is_file() else {}
        text = "".join(entry(found, former, name) for found in resolve(name))
        head = "# Made by `make lock` from the .in file: versions, and hashes of the files named.\n"
        path.write_text(head + text, encoding="utf-8")


def read(path: Path) -> dict[str, dict[str, str]]:
    """Package==version → file → its SHA-256 of a lock file that `main` wrote."""
    found: dict[str, dict[str, str]] = {}
    for block in re.findall(r"(?m)^[a-z].*\n(?:    .*\n)*", path.read_text(encoding="utf-8")):
        hashes = re.findall(r"--hash=sha256:(\w+)", block)
        files = re.findall(r"(?m)^    # (\S+)$", block)
        found[block.split()[0]] = dict(zip(files, hashes, strict=False))
    return found


def resolve(name: str) -> list[dict[str, Any]]:
    """The packages of an .in file with all their files, as pylock.toml has them. What the former
    lock holds is preferred. Raises UserError when uv finds no solution."""
    excludes = ["--excludes", "cpu-left-out.txt"] if name == "cpu" else []
    with tempfile.TemporaryDirectory() as folder:
        lock, pylock = Path(folder, f"{name}.lock"), Path(folder, "pylock.toml")
        if (setup.LOCKS / lock.name).is_file():
            shutil.copy(setup.LOCKS / lock.name, lock)
        fewest = ["--fork-strategy", "fewest", *excludes]  # one version for all Pythons
        compile_(name, f"{name}.in", *fewest, "-o", str(lock))
        compile_(name, str(lock), "--no-deps", "--format", "pylock.toml", "-o", str(pylock))
        return tomllib.loads(pylock.read_text(encoding="utf-8"))["packages"]


def compile_(name: str, *words: str) -> None:
    """Runs uv pip compile in requirements/. The CPU build of torch is looked for where pip's
    find-links point, else at PyTorch's own page; for cuda.lock nowhere, or uv would mix the two."""
    options, env = uv.settings(setup.PIP[0])
    if name == "cuda":
        while "--find-links" in options:
            at = options.index("--find-links")
            del options[at : at + 2]
    elif "--find-links" not in options:
        options += ["--find-links", f"{setup.TORCH_CPU}/torch/"]
    command = [setup.UV, "pip", "compile", "--no-annotate", *UNIVERSAL, *options, *words]
    if subprocess.run(command, cwd=setup.LOCKS, env=env).returncode:
        raise UserError(f"uv could not resolve {name}.in, see above; {name}.lock is as it was")


def entry(package: dict[str, Any], former: dict[str, dict[str, str]], lock: str) -> str:
    """The lines of a package: its version, hashes and files; nothing when no target needs it.
    Files that only the former lock knows still count, since an index may not list them here.
    Raises UserError when a target that needs the package has no file of it."""
    pin = f"{package['name']}=={package['version']}"
    files = dict(former.get(pin, {}))
    for found in package.get("wheels", []):
        files[file_of(found)] = found["hashes"]["sha256"]
    marker = Marker(str(package["marker"])) if "marker" in package else None
    needed = [target for target in TARGETS if not marker or marker.evaluate(environment(*target))]
    taken = {target: best(target, files) for target in needed}
    lacks = [
        f"Python {python} on {machine}" for (python, machine), file in taken.items() if not file
    ]
    if lacks and package.get("sdist") and len(lacks) == len(needed):  # a source that is pure Python
        source = package["sdist"]
        files[name := file_of(source)] = source["hashes"]["sha256"]
        taken = dict.fromkeys(needed, name)
    elif lacks:
        raise UserError(
            f"{lock}.lock: {pin} has no wheel for {', '.join(lacks)}, expected one for each: "
            "constrain its version in the .in file, or ask an index that lists them all"
        )
    if not needed:
        return ""
    some = f" ; {marker}" if len(needed) < len(TARGETS) else ""
    names = sorted(set(filter(None, taken.values())))
    hashes = "".join(f" \\\n    --hash=sha256:{files[file]}" for file in names)
    return f"{pin}{some}{hashes}\n" + "".join(f"    # {file}\n" for file in names)


def file_of(found: dict[str, Any]) -> str:
    """The name of a file that pylock.toml gives an address of."""
    return unquote(found["url"].rsplit("/", 1)[-1])


def environment(python: str, machine: str) -> dict[str, str]:
    """What a marker asks of a target."""
    system = {"sys_platform": "linux", "platform_system": "Linux", "os_name": "posix"}
    versions = {"python_version": python, "python_full_version": f"{python}.0"}
    return {**system, **versions, "platform_machine": machine, "implementation_name": "cpython"}


def best(target: tuple[str, str], files: Iterable[str]) -> str | None:
    """The wheel that pip takes on a target; None when there is none."""
    order, found = tags(*target), []
    for file in files:
        if file.endswith(".whl"):
            found += [(order[tag], file) for tag in parse_wheel_filename(file)[3] if tag in order]
    return min(found)[1] if found else None


@cache
def tags(python: str, machine: str) -> dict[Tag, int]:
    """The wheel tags of a target with the oldest glibc, each with its place, the best one first."""
    version = tuple(map(int, python.split(".")))
    platforms = [f"manylinux_2_{minor}_{machine}" for minor in range(setup.GLIBC[1], 4, -1)]
    platforms += [f"manylinux{name}_{machine}" for name in OLDER[machine]] + [f"linux_{machine}"]
    abi = f"cp{version[0]}{version[1]}"
    own = [*cpython_tags(version, [abi], platforms), *compatible_tags(version, abi, platforms)]
    return {tag: place for place, tag in reversed(list(enumerate(own)))}
