"""Where a model's weights are, a folder or a name on the hub, and what this machine can compute."""

import ctypes
import json
import os
from importlib.metadata import version
from pathlib import Path
from typing import Any

from potstill.core.errors import UserError
from potstill.core.params import HUB
from potstill.core.project import root

# Loading a file of one of these kinds may run code that it holds
CODE = (".py", ".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
# M_MMAP_THRESHOLD and M_TRIM_THRESHOLD in bytes, M_ARENA_MAX: of glibc's malloc.h
MALLOPT = ((-3, 2**30), (-1, 2**30), (-8, 1))
# The environment of ms-swift and vLLM
SETTINGS = {
    "USE_HF": "1",  # one hub for training and prediction; ms-swift's own default is another
    "VLLM_PLUGINS": "",  # ms-swift registers a plug-in that needs torchvision
    "TOKENIZERS_PARALLELISM": "false",
    **dict.fromkeys(("VLLM_NO_USAGE_STATS", "DO_NOT_TRACK", "HF_HUB_DISABLE_TELEMETRY"), "1"),
}


def at_hub(model: str, name: str = "model") -> bool:
    """Whether `model`, the parameter `name` of params.yaml, is a name on the hub, such as
    Qwen/Qwen3-0.6B. Raises UserError when it is neither such a name nor a folder with a whole
    model."""
    if local(model).exists():
        check_folder(local(model))
        return False
    if HUB.fullmatch(model):
        return True
    raise UserError(
        f"params.yaml: {name} is {model!r}, and there is no such folder: `git checkout {model}`, "
        "or `make base`"
    )


def local(model: str) -> Path:
    """The folder of a model that is not on the hub: of this task (models/sft/merged), or else of
    the repository, as `model` of params.yaml names it (models/tiny-base)."""
    return Path(model) if Path(model).exists() else root() / model


def weights_size(model: str) -> float:
    """The bytes of a model's weights; infinite for one on the hub, which may not be here yet."""
    if at_hub(model):
        return float("inf")
    return sum(path.stat().st_size for path in local(model).glob("*.safetensors"))


def check_folder(folder: Path, remedy: str = "`git checkout` it, or `make base`") -> dict[str, Any]:
    """The config.json of a model's folder. Raises UserError, ending in `remedy`, when the folder
    has no whole model, or more than safetensors and texts."""
    refuse_code(folder, remedy)
    config = folder / "config.json"
    if not config.is_file() or not any(folder.glob("*.safetensors")):
        lacks = "has no config.json with *.safetensors beside it"
        found = lacks if folder.is_dir() else "is missing"
        raise UserError(f"{folder} {found}, expected a model: {remedy}")
    try:
        return dict(json.loads(config.read_text(encoding="utf-8")))
    except ValueError as error:
        raise UserError(f"{config}: not JSON ({error}): {remedy}") from None


def refuse_code(folder: Path, remedy: str) -> None:
    """Raises UserError, ending in `remedy`, when a model's folder holds code, pickled weights, or a
    JSON file that names code (auto_map)."""
    for path in sorted(folder.rglob("*")):
        wrong = ""
        if path.suffix in CODE:
            wrong = f"{path.suffix} may run code when it is loaded, expected safetensors and texts"
        elif path.suffix == ".json" and b'"auto_map"' in path.read_bytes():
            wrong = "auto_map names code to run when the model is loaded, expected none"
        if wrong:
            raise UserError(f"{path}: {wrong}: {remedy}")


def environment(hub: bool) -> dict[str, str]:
    """The environment variables that ms-swift and vLLM need: no telemetry, and where the model is
    not on the hub, no look-ups there."""
    return SETTINGS if hub else SETTINGS | {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}


def keep_memory() -> None:
    """Makes this process keep the memory that it frees, up to a gigabyte, where there is no GPU.
    Otherwise glibc gives the memory of every large tensor back, and the kernel clears it anew for
    the next one: a quarter of a training step. Does nothing under another C library."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt") and not on_cuda():
        for setting, value in MALLOPT:
            libc.mallopt(setting, value)


def on_cuda() -> bool:
    """Whether torch sees a GPU. A CPU build of torch is known by its version, without the 2 s that
    its import takes."""
    if version("torch").endswith("+cpu") or os.environ.get("CUDA_VISIBLE_DEVICES") == "":
        return False
    import torch

    return torch.cuda.is_available()


def has_bfloat16() -> bool:
    """Whether this processor has instructions for bfloat16 (AVX-512, AMX)."""
    import torch

    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
