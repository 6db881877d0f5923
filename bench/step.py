"""Where the time of a training step goes: python -m bench.step [STEPS] in a task's folder.

Needs data/4-train.jsonl (`dvc repro split`). Trains the task's base for STEPS batches (16) of its
rows with torch alone, all weights, in the arithmetic that ms-swift is given, with rows of about the
same length in a batch as `group_by_length` makes them. Prints what the parts of a step take, the
padding, and the share of the machine's own rate of matrix products that the step reaches (MFU:
PaLM, 2022, arXiv:2204.02311, appendix B): 6 operations for each weight and token, padding left out,
and 12 for each layer, width and pair of tokens in the attention. Nothing else may run.
"""

import random
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import mean, median
from typing import Any

from potstill.core import jsonl, params
from potstill.training import model_folder, run

SIZE = 2048  # of the matrices that are multiplied
IGNORED = -100  # the label of a token that is not learnt


def rate(dtype: Any) -> float:
    """The machine's operations a second by products of square matrices, the best of ten."""
    import torch

    a, b = torch.randn(2, SIZE, SIZE).to(dtype)
    times = []
    for _ in range(10):
        start = time.perf_counter()
        a @ b
        times.append(time.perf_counter() - start)
    return float(2 * SIZE**3 / min(times))


def batches(rows: list[tuple[list[int], int]], size: int, count: int) -> list[Any]:
    """`count` batches of rows, each the tokens and how many of them are the prompt, of about the
    same length: tokens, mask and labels, each of shape (rows, tokens)."""
    import torch

    draw = random.Random(42)
    pool = sorted(draw.sample(rows, min(len(rows), 50 * size)), key=lambda row: len(row[0]))
    groups = [pool[i : i + size] for i in range(0, len(pool) - size + 1, size)]
    made = []
    for group in draw.sample(groups, min(count, len(groups))):
        longest = max(len(tokens) for tokens, _ in group)
        ids = torch.zeros(len(group), longest, dtype=torch.long)
        mask, labels = torch.zeros_like(ids), torch.full_like(ids, IGNORED)
        for place, (tokens, prompt) in enumerate(group):
            ids[place, : len(tokens)] = torch.tensor(tokens)
            mask[place, : len(tokens)] = 1
            labels[place, prompt : len(tokens)] = ids[place, prompt : len(tokens)]
        made.append((ids, mask, labels))
    return made


def tokenized(folder: str, path: Path) -> list[tuple[list[int], int]]:
    """The rows' tokens by the model's chat template, and how many come before the answer."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    found = []
    for row in jsonl.read_jsonl(path, ("messages",)):
        chat = row["messages"]
        whole = tokenizer.apply_chat_template(chat, return_dict=False)
        prompt = tokenizer.apply_chat_template(
            chat[:-1], add_generation_prompt=True, return_dict=False
        )
        found.append((list(whole), len(prompt)))
    return found


def main(steps: int = 16) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    model_folder.keep_memory()
    p = params.load(*params.declared("sft"))
    train, valid = Path("data/4-train.jsonl"), Path("data/4-valid.jsonl")
    config = run.config(p, train, valid)
    dtype = torch.bfloat16 if config["bf16"] else torch.float32
    folder = str(config["model"])
    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation=config["attn_impl"]
    )
    # As in the trainer; a low rate, so that no weight runs away
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6, fused=True)
    rows = tokenized(folder, train)
    size = p.per_device_train_batch_size
    spent: dict[str, list[float]] = {}

    @contextmanager
    def timed(part: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        spent.setdefault(part, []).append(time.perf_counter() - start)

    def loss(hidden: Any, labels: Any) -> Any:
        logits = model.get_output_embeddings()(hidden[:, :-1]).float()
        return torch.nn.functional.cross_entropy(
            logits.flatten(0, 1), labels[:, 1:].flatten(), ignore_index=IGNORED
        )

    c, real, padded, work = model.config, 0, 0, 0.0
    # An untied embedding is looked up, not multiplied
    looked = 0 if c.tie_word_embeddings else model.get_input_embeddings().weight.numel()
    weights = sum(one.numel() for one in model.parameters()) - looked
    done = batches(rows, size, steps + 2)
    for number, (ids, mask, labels) in enumerate(done):
        if number == 2:  # the first ones make the kernels
            spent.clear()
            real, padded, work = 0, 0, 0.0
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
            with timed("layers, forward"):
                out = model.base_model(input_ids=ids, attention_mask=mask)
            with timed("logits and loss"):
                lost = loss(out.last_hidden_state, labels)
        with timed("backward"):
            lost.backward()
        with timed("optimizer"):
            optimizer.step()
            optimizer.zero_grad()
        lengths = mask.sum(dim=1).tolist()
        real, padded = real + sum(lengths), padded + ids.numel()
        attention = 12 * c.num_hidden_layers * c.hidden_size * sum(n * n for n in lengths)
        work += 6 * weights * sum(lengths) + attention
    total = sum(map(sum, spent.values()))
    best = {name: rate(kind) for name, kind in (("bf16", torch.bfloat16), ("f32", torch.float32))}
    used = best["bf16" if dtype == torch.bfloat16 else "f32"]
    each = mean(map(sum, zip(*spent.values(), strict=True)))
    print(f"{folder}: {weights / 1e6:.1f} M weights in products, batches of {size}, {dtype}")
    print(f"{each:.2f} s a step, {real / total:.0f} tokens/s, {1 - real / padded:.1%} padding")
    for part, times in spent.items():
        print(f"  {part:16} {sum(times) / total:6.1%}   {median(times):.3f} s")
    print(f"products: {best['bf16'] / 1e9:.0f} GFLOPS bf16, {best['f32'] / 1e9:.0f} float32")
    print(f"MFU {work / total / used:.1%}: {work / total / 1e9:.0f} GFLOPS")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
