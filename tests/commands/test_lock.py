"""The lock files: for every package and each of the six targets a file with its hash; how they are
made anew from what the index lists."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from potstill.commands import lock, setup
from potstill.core.errors import UserError
from tests.conftest import ROOT

LOCKS = ROOT / "requirements"
NAMES = ("cpu", "cuda", "dev", "quantize", "ray")
# Published as source only. All are pure Python; crcmod does without its C part when it must.
SOURCES = {"antlr4-python3-runtime", "crcmod", "oss2", "transformers-stream-generator"}


@pytest.mark.parametrize("name", NAMES)
def test_a_lock_has_a_hashed_file_for_every_machine_and_python(name: str) -> None:
    text = (LOCKS / f"{name}.lock").read_text(encoding="utf-8")
    found = lock.read(LOCKS / f"{name}.lock")
    assert len(found) == len(re.findall(r"(?m)^[^\s#]", text)) > 10
    assert sum(map(len, found.values())) == text.count("--hash=") == text.count("\n    # ")
    assert len({pin.split("==")[0] for pin in found}) == len(found)  # a version each
    for pin, files in found.items():
        project, version = pin.split("==")
        assert all(re.fullmatch(r"[0-9a-f]{64}", digest) for digest in files.values()), pin
        stem = re.sub(r"[-._]+", "_", f"{project}-{version}")
        assert all(re.sub(r"[-._]+", "_", file).startswith(stem) for file in files), pin
        if project in SOURCES:
            assert [file.endswith(".tar.gz") for file in files] == [True]
            continue
        taken = {lock.best(target, files) for target in lock.TARGETS}
        assert taken == set(files), pin  # none lacks, and none is there in vain


PURE = "a-1-py3-none-any.whl"
SOURCE = {"url": "https://example.org/a-1.tar.gz", "hashes": {"sha256": "0"}}


def package(*wheels: str, **more: Any) -> dict[str, Any]:
    files = [
        {"url": f"https://example.org/{file}", "hashes": {"sha256": file[-5:]}} for file in wheels
    ]
    return {"name": "a", "version": "1", "wheels": files, **more}


@pytest.mark.parametrize(
    ("found", "files"),
    [
        (
            package(PURE, "a-1-cp311-cp311-win_amd64.whl", "a-1-cp314-cp314-linux_x86_64.whl"),
            [PURE],
        ),
        (package(PURE, marker="sys_platform == 'win32'"), None),
        (package(PURE, marker="platform_machine == 's390x'"), None),
        (package(sdist=SOURCE), ["a-1.tar.gz"]),
    ],
)
def test_only_the_files_that_a_target_installs_are_locked(
    found: dict[str, Any], files: list[str] | None, tmp_path: Path
) -> None:
    text = lock.entry(found, {}, "cpu")
    (tmp_path / "a.lock").write_text(f"# head\n{text}")
    read = lock.read(tmp_path / "a.lock")
    assert list(read.get("a==1", {})) == (files or [])
    assert bool(text) is bool(files)


def test_a_package_that_one_machine_needs_keeps_its_marker() -> None:
    found = package(PURE, marker="platform_machine == 'aarch64'")
    assert lock.entry(found, {}, "cpu").startswith('a==1 ; platform_machine == "aarch64" \\\n')


def test_a_target_without_a_wheel_is_named_and_a_file_of_the_former_lock_counts() -> None:
    found = package("a-1-cp39-abi3-manylinux_2_28_x86_64.whl", sdist=SOURCE)
    lacks = ", ".join(f"Python {python} on aarch64" for python in setup.PYTHONS)
    line = f"cuda.lock: a==1 has no wheel for {lacks}, expected one for each: "
    with pytest.raises(UserError, match=f"^{re.escape(line)}"):
        lock.entry(found, {}, "cuda")
    former = {"a==1": {"a-1-cp39-abi3-manylinux_2_35_aarch64.whl": "f" * 64}}
    with pytest.raises(UserError, match=r"on aarch64"):  # glibc 2.35 is newer than what we ask for
        lock.entry(found, former, "cuda")
    former["a==1"]["a-1-cp39-abi3-manylinux_2_34_aarch64.whl"] = "f" * 64
    assert lock.entry(found, former, "cuda").count("--hash") == 2


@pytest.mark.slow
def test_the_locks_are_what_the_index_resolves_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """uv solves *.in for all machines and Pythons at once; then, for each, every package but torch
    is found on the index (its CPU build is on another one). Nothing is downloaded or installed."""
    uv = str(Path(sys.executable).with_name("uv"))
    monkeypatch.setattr(setup, "UV", uv)
    monkeypatch.setattr(setup, "PIP", [sys.executable, *setup.PIP[1:]])
    monkeypatch.setattr(setup, "LOCKS", tmp_path)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)  # an index there may list some files only
    for path in LOCKS.iterdir():
        shutil.copy(path, tmp_path)
    lock.main()
    for name in NAMES:
        assert (tmp_path / f"{name}.lock").read_text() == (LOCKS / f"{name}.lock").read_text()
    cpu = tmp_path / "cpu.lock"
    cpu.write_text(re.sub(r"(?m)^torch==\S+ \\\n(    .*\n)+", "", cpu.read_text()))
    sources = [word for name in sorted(SOURCES) for word in ("--no-binary", name)]
    for python, machine in lock.TARGETS:
        target = ["--python-version", python, "--python-platform", f"{machine}-manylinux_2_34"]
        command = [uv, "pip", "install", "--dry-run", *setup.HASHED, "--only-binary", ":all:"]
        command += [*sources, *target, "--target", str(tmp_path / "none")]
        command += ["-r", str(cpu), "-r", str(LOCKS / "dev.lock")]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert re.search(r"Would install \d{3} packages", done.stderr)
