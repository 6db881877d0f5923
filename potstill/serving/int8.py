"""A model in INT8: python -m potstill.serving.int8 MODEL ROWS OUT, in .venv-quantize, since
llm-compressor needs other versions of transformers and compressed-tensors than the rest.

W8A8: weights by channel and activations by token, both symmetric, rounded by GPTQ
(arXiv:2210.17323) over training rows, in the compressed-tensors format, which vLLM serves on a CPU
and on a GPU.
"""

import itertools
import json
import sys
from pathlib import Path
from typing import Any

LESSONS = 256  # training rows to calibrate on


def main(model: str, lessons: str, out: str) -> None:
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
    oneshot(
        model=llm,
        processor=tokenizer,
        dataset=Dataset.from_list(tokens),
        recipe=GPTQModifier(targets="Linear", scheme="W8A8", ignore=["lm_head"]),
        max_seq_length=max(len(row["input_ids"]) for row in tokens),
        num_calibration_samples=len(tokens),
    )
    llm.save_pretrained(out, save_compressed=True)
    tokenizer.save_pretrained(out)
    for path in Path(out).glob("*.safetensors"):
        tensors = {name: _rounded(name, tensor) for name, tensor in load_file(path).items()}
        save_file(tensors, path, {"format": "pt"})
    path = Path(out, "config.json")
    config = json.loads(path.read_text()) | {"dtype": "bfloat16"}
    path.write_text(json.dumps(config, indent=2) + "\n")


def _rounded(name: str, tensor: Any) -> Any:
    """What is not INT8, above all the embeddings, in bfloat16; the scales stay exact. Always a
    copy: what load_file gives may be a view of the very file that is written over."""
    if tensor.is_floating_point() and not name.endswith("_scale"):
        return tensor.bfloat16()
    return tensor.clone()


if __name__ == "__main__":
    main(*sys.argv[1:])
