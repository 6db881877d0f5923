"""The student and its quantised forms on the same rows: python -m bench.quantized in a task's
folder, after `make quantize FORMAT="…"`.

As `make quantize` compares them, on seeded rows and with the processor's time beside, since on a
busy machine the tokens a second say nothing. Where vLLM cannot serve 4-bit weights, gptq's are
written out as the floats that they stand for, which tells how right its answers are, and not how
fast.

→ a Markdown table.
"""

import argparse
import json
import random
import resource
import shutil
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from potstill.core import params, stage
from potstill.core.errors import UserError
from potstill.core.jsonl import Row
from potstill.serving import quantize, serve
from potstill.task import settings


def floats(folder: Path, out: Path) -> None:
    """Writes the model of 4-bit weights in `folder` as a model of float32 ones."""
    from compressed_tensors.compressors.pack_quantized.helpers import unpack_from_int32
    from safetensors.torch import load_file, save_file

    shutil.copytree(folder, out, ignore=shutil.ignore_patterns("*.safetensors"))
    config = json.loads((out / "config.json").read_text())
    del config["quantization_config"]
    (out / "config.json").write_text(json.dumps(config | {"dtype": "float32"}))
    tensors: dict[str, Any] = {}
    for path in folder.glob("*.safetensors"):
        tensors |= load_file(path)
    for name in [name for name in tensors if name.endswith("_packed")]:
        name = name.removesuffix("_packed")
        packed, scale, shape = (tensors.pop(f"{name}_{x}") for x in ("packed", "scale", "shape"))
        whole = unpack_from_int32(packed, 4, shape).float()
        scale = scale.float().repeat_interleave(whole.shape[1] // scale.shape[1], 1)
        tensors[name] = whole * scale
    save_file({name: tensor.float() for name, tensor in tensors.items()}, out / "model.safetensors")


def measured(model: Path, name: str, chats: list[quantize.Chat], p: SimpleNamespace) -> Row:
    """What quantize.answered gives of a model, its "size" in bytes, and "cpu", the processor's
    seconds for the answers: what all of them take, less what the first alone takes, which is mostly
    the start."""
    spent, dtype = [], serve.PRECISION.get(name, p.dtype)
    with tempfile.TemporaryDirectory() as work:
        asked = model
        try:
            serve.refuse(name)
        except UserError:
            asked, dtype = Path(work, name), p.dtype
            floats(model, asked)
        for part in (chats[:1], chats):
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            found = quantize.answered(asked, part, p, dtype)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            spent.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return {**found, "size": quantize.size(model), "cpu": spent[1] - spent[0]}


def main() -> None:
    p = params.load("predict").predict
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=150)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--made", type=Path)
    given = parser.parse_args()
    t = settings.load()
    model, made = given.model or serve.student_folder(t), given.made or t.models / "quantized"
    tests = t.inputs(t.data / "4-test.jsonl", "slice")
    tests = random.Random(given.seed).sample(tests, min(given.rows, len(tests)))
    chats = [t.messages("student", row) for row in tests]
    folders = {"first": model, "student": model}  # twice: what differs then is the floor
    folders |= {kind: made / kind for kind in quantize.FORMATS if (made / kind).is_dir()}
    found = {name: measured(folder, name, chats, p) for name, folder in folders.items()}
    before = found.pop("first")["answers"]
    print("| | MiB | peak MiB | tokens/s | processor, s | right | differ, flips |")
    print("|---|---|---|---|---|---|---|")
    for row in quantize.table(t, tests, before, found):
        rates = [row["size_mib"], row["memory_mib"], row["tokens_per_second"]]
        rates.append(round(found[row["model"]]["cpu"]))
        shares = f"{row['right']} ({100 * row['share']:.1f} %)"
        flips = f"{row['differ']}, {row['flips']} (p = {row['p']:.2g})"
        print("|", row["model"], *(f"| {rate:,}" for rate in rates), f"| {shares} | {flips} |")


if __name__ == "__main__":
    stage.run(main)
