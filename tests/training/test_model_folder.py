"""Where a model is, and what this machine can compute."""

import ctypes
import subprocess
import sys
from pathlib import Path

import pytest

from potstill.core import project as places
from potstill.core.errors import UserError
from potstill.training import model_folder, swift
from tests import fakes
from tests.conftest import ROOT


@pytest.fixture
def task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a task, which is the working folder, in a repository that has a base model."""
    monkeypatch.setattr(places, "ROOT", tmp_path)
    fakes.model(tmp_path / "models/tiny-base")
    folder = tmp_path / "tasks/toy"
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder)
    return folder


@pytest.mark.parametrize(
    ("model", "hub"),
    [("Qwen/Qwen3-0.6B", True), ("models/tiny-base", False), ("./models/tiny-base", False)],
)
def test_a_folder_or_a_name_on_the_hub(task: Path, model: str, hub: bool) -> None:
    assert model_folder.at_hub(model) == hub
    assert ("HF_HUB_OFFLINE" in model_folder.environment(hub)) != hub


@pytest.mark.parametrize("model", ["models/none", "none", "a/b/c", "/none/x"])
def test_a_model_that_is_nowhere(task: Path, model: str) -> None:
    said = f"^params.yaml: model is '{model}', and there is no such folder: `git checkout {model}`"
    with pytest.raises(UserError, match=said):
        model_folder.at_hub(model)


def test_a_folder_is_the_tasks_own_or_else_the_repositorys(task: Path) -> None:
    assert model_folder.local("models/tiny-base") == Path("../../models/tiny-base")
    assert swift.model_config("models/tiny-base", None) == {
        "model": "../../models/tiny-base",
        "model_type": "qwen3",
        "template": "chatml",
    }
    for model in ("models/sft/merged", "models/tiny-base"):
        fakes.model(model)
        assert model_folder.local(model) == Path(model)
    assert model_folder.local(str(task / "models/none")) == task / "models/none"


def test_a_model_that_is_not_whole_is_refused_with_its_remedy(task: Path) -> None:
    (task.parents[1] / "models/tiny-base/model.safetensors").unlink()
    said = r"tiny-base has no config\.json with .*: `git checkout` it, or `make base`$"
    with pytest.raises(UserError, match=said):
        model_folder.at_hub("models/tiny-base")
    fakes.model("own").joinpath("config.json").write_text("{")
    with pytest.raises(UserError, match=r"^own/config\.json: not JSON \(.*\): mend it$"):
        model_folder.check_folder(Path("own"), "mend it")


@pytest.mark.skipif(
    not hasattr(ctypes.CDLL(None), "mallopt"), reason="another C library than glibc"
)
@pytest.mark.parametrize("cuda", [False, True])
def test_freed_memory_is_kept_where_the_processor_does_the_work(cuda: bool) -> None:
    code = f"""
from pathlib import Path
from potstill.training import model_folder
model_folder.on_cuda = lambda: {cuda}
model_folder.keep_memory()
def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096
before = resident()
large = bytearray(b"x" * 2**27)
del large
print(resident() - before)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert (int(done.stdout) > 2**26) is not cuda


def test_bfloat16_is_that_of_the_processors_flags() -> None:
    """Without instructions for it a processor computes bfloat16 20 to 70 times slower."""
    cpuinfo = Path("/proc/cpuinfo")
    flags = set(cpuinfo.read_text().split()) if cpuinfo.is_file() else set()
    if "flags" not in flags:
        pytest.skip("no Linux on an x86 processor")
    if "avx512_bf16" in flags:
        assert model_folder.has_bfloat16()
    if not any(flag.startswith(("avx512", "amx")) for flag in flags):
        assert not model_folder.has_bfloat16()
