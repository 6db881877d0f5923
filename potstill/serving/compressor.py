"""A model with fewer bits a weight, by llm-compressor: python -m potstill.serving.compressor KIND
MODEL ROWS OUT, in .venv-quantize, since it needs other versions of transformers and
compressed-tensors than the rest.

int8  W8A8: weights by channel and activations by token, both symmetric
gptq  W4A16: weights by groups of inputs, symmetric; activations stay as they are

Both are rounded by GPTQ (arXiv:2210.17323) over training rows, on a CPU or a GPU, and written in
the compressed-tensors format, which vLLM serves on both.
"""

import itertools
import json
import sys
from pathlib import Path
from typing import Any

LESSONS = 256  # training rows to calibrate on
GROUPS = (128, 64, 32)  # inputs that share a scale, the usual number first


def main(kind: str, model: str, lessons: str, out: str) -> None:
    """Writes the folder `out`; `lessons` is a file of rows with "messages"."""
    from datasets import Dataset
    from llmcompressor import oneshot
    from llmcompressor.modifiers.quantization import GPTQModifier
    from safetensors.torch import load_file, save_file
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    tokens = []
    with Path(lessons).open(encoding="utf-8") as lines:
        for line in itertools.islice(lines, LESSONS):
            chat = json.loads(line)["messages"]
            text = tokenizer.apply_chat_template(chat, tokenize=False, enable_thinking=False)
            tokens.append(dict(tokenizer(text, add_special_tokens=False)))
    llm = AutoModelForCausalLM.from_pretrained(model, dtype="float32")
    how: dict[str, Any] = {"targets": "Linear", "scheme": "W8A8"}
    if kind == "gptq":
        weights = {"num_bits": 4, "strategy": "group", "group_size": group_size(llm)}
        how = {"config_groups": {"group_0": {"targets": ["Linear"], "weights": weights}}}
    oneshot(
        model=llm,
        processor=tokenizer,
        dataset=Dataset.from_list(tokens),
        recipe=GPTQModifier(**how, ignore=["lm_head"]),
        max_seq_length=max(len(row["input_ids"]) for row in tokens),
        num_calibration_samples=len(tokens),
    )
    llm.save_pretrained(out, save_compressed=True)
    tokenizer.save_pretrained(out)
    for path in Path(out).glob("*.safetensors"):
        tensors = {name: _rounded(kind, name, tensor) for name, tensor in load_file(path).items()}
        save_file(tensors, path, {"format": "pt"})
    path = Path(out, "config.json")
    config = json.loads(path.read_text()) | {"dtype": "bfloat16"}
    path.write_text(json.dumps(config, indent=2) + "\n")


def group_size(llm: Any) -> int:
    """The largest of GROUPS that divides the inputs of every layer that is quantised. Raises
    SystemExit where none does."""
    kinds = {name: layer.in_features for name, layer in llm.named_modules() if _linear(layer)}
    inputs = {size for name, size in kinds.items() if not name.endswith("lm_head")}
    for group in GROUPS:
        if not any(size % group for size in inputs):
            return group
    sys.exit(f"ValueError: layers of {sorted(inputs)} inputs, expected multiples of {GROUPS[-1]}")


def _linear(layer: Any) -> bool:
    return type(layer).__name__ == "Linear"


def _rounded(kind: str, name: str, tensor: Any) -> Any:
    """What is not quantised, above all the embeddings, in bfloat16; the scales of INT8 stay exact.
    Always a copy: what load_file gives may be a view of the very file that is written over."""
    exact = kind == "int8" and name.endswith("_scale")
    return tensor.bfloat16() if tensor.is_floating_point() and not exact else tensor.clone()


if __name__ == "__main__":
    main(*sys.argv[1:])
