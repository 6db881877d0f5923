"""A model in INT8: python -m potstill.serving.int8 MODEL ROWS OUT, in .venv-quantize, since llm-compressor's pins are not ours.

Weights a channel and activations a token, both symmetric (W8A8), rounded by GPTQ (arXiv:2210.17323) over training rows: the
compressed-tensors format, which vLLM serves on a CPU and on a GPU.
"""

import json
import sys
from pathlib import Path
from typing import Any

LESSONS = 256  # training rows to calibrate on


def main(model: str, lessons: str, out: str) -> None:
    """Writes the folder `out`; `lessons` is a file of {"messages"}."""
    from datasets import Dataset
    from llmcompressor import oneshot
    from llmcompressor.modifiers.quantization import GPTQModifier
    from safetensors.torch import load_file, save_file
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    with Path(lessons).open(encoding="utf-8") as lines:
        chats = [
            json.loads(line)["messages"] for line, _ in zip(lines, range(LESSONS), strict=False)
        ]
    texts = [
        tokenizer.apply_chat_template(chat, tokenize=False, enable_thinking=False) for chat in chats
    ]
    tokens = [dict(tokenizer(text, add_special_tokens=False)) for text in texts]
    llm = AutoModelForCausalLM.from_pretrained(model, dtype="float32")
    recipe = GPTQModifier(targets="Linear", scheme="W8A8", ignore=["lm_head"])
    longest = max(len(one["input_ids"]) for one in tokens)
    oneshot(
        model=llm,
        processor=tokenizer,
        dataset=Dataset.from_list(tokens),
        recipe=recipe,
        max_seq_length=longest,
        num_calibration_samples=len(tokens),
    )
    llm.save_pretrained(out, save_compressed=True)
    tokenizer.save_pretrained(out)
    for path in Path(out).glob(
        "*.safetensors"
    ):  # what is not INT8, above all the embeddings; the scales stay exact
        tensors = load_file(path)
        save_file(
            {name: _rounded(name, one) for name, one in tensors.items()}, path, {"format": "pt"}
        )
    config = Path(out, "config.json")
    config.write_text(
        json.dumps(json.loads(config.read_text()) | {"dtype": "bfloat16"}, indent=2) + "\n"
    )


def _rounded(name: str, tensor: Any) -> Any:
    """A copy: what load_file gives may be the very file that is written over."""
    return (
        tensor.bfloat16()
        if tensor.is_floating_point() and not name.endswith("_scale")
        else tensor.clone()
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
