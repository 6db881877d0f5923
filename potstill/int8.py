"""A model in INT8: python -m potstill.int8 MODEL ROWS OUT, in .venv-quantize, since llm-compressor's pins are not ours.

Weights a channel and activations a token, both symmetric (W8A8), rounded by GPTQ (arXiv:2210.17323) over training rows: the
compressed-tensors format, which vLLM serves on a CPU and on a GPU.
"""

import json
import sys
from pathlib import Path

LESSONS = 256  # training rows to calibrate on


def main(model: str, lessons: str, out: str) -> None:
    """Writes the folder `out`; `lessons` is a file of {"messages"}."""
    import torch
    from datasets import Dataset
    from llmcompressor import oneshot
    from llmcompressor.modifiers.quantization import GPTQModifier
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    with Path(lessons).open(encoding="utf-8") as lines:
        chats = [json.loads(line)["messages"] for line, _ in zip(lines, range(LESSONS), strict=False)]
    texts = [tokenizer.apply_chat_template(chat, tokenize=False, enable_thinking=False) for chat in chats]
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
    llm.to(torch.bfloat16)  # what is not INT8: the embeddings, the norms, the scales
    llm.save_pretrained(out, save_compressed=True)
    tokenizer.save_pretrained(out)


if __name__ == "__main__":
    main(*sys.argv[1:])
