"""Where the student's weights are: a folder, or a name on the hub."""

import ctypes
import json
import os
from pathlib import Path
from typing import Any

from potstill.core.errors import UserError
from potstill.core.project import root

CODE = (
    ".py",
    ".bin",
    ".pt",
    ".pth",
    ".ckpt",
    ".pkl",
    ".pickle",
)  # loading one may run what it holds
MALLOPT = (
    (-3, 2**30),
    (-1, 2**30),
    (-8, 1),
)  # M_MMAP_THRESHOLD and M_TRIM_THRESHOLD in bytes, M_ARENA_MAX, of glibc's malloc.h


def at_hub(model: str) -> bool:
    """Whether `model` is a name on the hub such as Qwen/Qwen3-0.6B. Raises UserError for a folder
    without a model."""
    folder = local(model)
    if not folder.exists():
        if model.count("/") == 1 and not model.startswith(("models/", ".", "/", "~")):
            return True
        raise UserError(
            f"params.yaml: model is {model!r}, and there is no such folder: `git checkout {model}`, or `make base`"
        )
    check_folder(folder, "`git checkout` it, or `make base`")
    return False


def local(model: str) -> Path:
    """The folder of a model that is not on the hub: of this task (models/sft/merged), or else, as
    `model` of params.yaml names it, of the repository."""
    return Path(model) if Path(model).exists() else root() / model


def check_folder(folder: Path, remedy: str) -> dict[str, Any]:
    """The config.json of a model's folder. Raises UserError, ending in `remedy`, when the folder has no whole model, or more than
    safetensors and texts."""
    refuse_code(folder, remedy)
    if not (folder / "config.json").is_file() or not any(folder.glob("*.safetensors")):
        lacks = (
            "has no config.json with *.safetensors beside it" if folder.is_dir() else "is missing"
        )
        raise UserError(f"{folder} {lacks}, expected a model: {remedy}")
    try:
        return dict(json.loads((folder / "config.json").read_text(encoding="utf-8")))
    except ValueError as error:
        raise UserError(f"{folder}/config.json: not JSON ({error}): {remedy}") from None


def refuse_code(folder: Path, remedy: str) -> None:
    """Raises UserError, ending in `remedy`, for a model's folder that holds code, pickled weights, or a JSON that names code (auto_map)."""
    for path in sorted(folder.rglob("*")):
        if path.suffix in CODE:
            raise UserError(
                f"{path}: {path.suffix} may run code when it is loaded, expected safetensors and texts alone: {remedy}"
            )
        if path.suffix == ".json" and b'"auto_map"' in path.read_bytes():
            raise UserError(
                f"{path}: auto_map names code to run when the model is loaded, expected none: {remedy}"
            )


def environment(hub: bool) -> dict[str, str]:
    """What ms-swift and vLLM need in their environment: no telemetry, and no look-ups on a hub that is not asked for."""
    common = {
        "USE_HF": "1",  # one hub for training and prediction; ms-swift's own default is another
        "VLLM_PLUGINS": "",  # ms-swift registers a plug-in that needs torchvision
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
    return common if hub else common | {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}


def keep_memory() -> None:
    """Makes this process keep the memory that it frees, up to a gigabyte, where the processor does the work. Without this glibc gives
    the memory of every large tensor back, and the kernel clears it anew for the next one: a quarter of a training step. Nothing
    where the C library is another."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt") and not on_cuda():
        for setting, value in MALLOPT:
            libc.mallopt(setting, value)


def on_cuda() -> bool:
    """Whether torch sees a GPU. A CPU build of torch is told by its version alone, without importing it (2 s)."""
    from importlib.metadata import version

    if version("torch").endswith("+cpu") or os.environ.get("CUDA_VISIBLE_DEVICES") == "":
        return False
    import torch

    return torch.cuda.is_available()


def has_bfloat16() -> bool:
    """Whether this processor computes in bfloat16 by instructions of its own (AVX-512, AMX)."""
    import torch

    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
