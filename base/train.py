"""Makes models/tiny-base: a Qwen3-architecture model of some 4 M parameters, pretrained from
scratch on generated text.

`make base` runs it; seeded; on two CPU cores about an hour and a half. What it learns is in
base/text.py; the loss counts the answers only.
"""

from __future__ import annotations

import argparse
import copy
import json
import random
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from base import details
from base.pools import SIGNS
from base.text import KINDS, example
from potstill.training.model_folder import keep_memory

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerFast, Qwen3ForCausalLM

OUT = Path("models/tiny-base")
VOCABULARY, HIDDEN, LAYERS, HEADS = 9600, 192, 6, 6
# A character's distance from the mean of all, at least; frequent ones have 1.3 on average.
NEAREST = 0.8
MORE_STEPS = 1000  # after the rare characters were moved
TOKENS_A_STEP, WIDTHS = 4096, (32, 48, 64, 96, 128, 192, 256, 384, 512)
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>"]
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{m['role']}}\n{{m['content']}}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def make_tokenizer(seed: int, examples: int = 40_000) -> PreTrainedTokenizerFast:
    """A byte-level BPE whose digits and signs outside ASCII stay apart; every character of GB 2312
    is a token."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    rng = random.Random(seed)
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.Split(Regex(r"[^\x00-\x7f]"), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    texts = ["\n".join(example(rng)) for _ in range(examples)] + [
        "".join(details.characters()) + SIGNS
    ] * 300
    core.train_from_iterator(texts, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, eos_token="<|im_end|>", pad_token="<|endoftext|>"
    )
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def make_model(tokenizer: PreTrainedTokenizerFast, seed: int) -> Qwen3ForCausalLM:
    """A fresh model with tied embeddings."""
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(seed)
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=HIDDEN,
        intermediate_size=3 * HIDDEN,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=HEADS // 2,
        head_dim=32,
        max_position_embeddings=4096,
        tie_word_embeddings=True,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
    )
    model = Qwen3ForCausalLM(config)
    # Four times the usual spread, so that a character which training rarely meets is as long a
    # vector as others. A guess: its effect was not measured alone.
    torch.nn.init.normal_(model.model.embed_tokens.weight, std=0.08)
    model.set_attn_implementation("eager")  # faster than the fused kernel at these lengths on a CPU
    return model


def encode(
    tokenizer: PreTrainedTokenizerFast, parts: tuple[str, str, str]
) -> tuple[list[int], int]:
    """Token ids of one example in the chat template's form, and how many of them are the prompt."""
    system, user, answer = parts
    prompt = f"<|im_start|>system\n{system}<|im_end|>\n" if system else ""
    prompt += f"<|im_start|>user\n{user}<|im_end|>\n" if user else ""
    head = tokenizer._tokenizer.encode(prompt + "<|im_start|>assistant\n").ids
    return head + tokenizer._tokenizer.encode(answer + "<|im_end|>\n").ids, len(head)


def lengthen(model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerFast) -> int:
    """Moves each character's vector away from the mean of all characters until it is NEAREST from
    it; returns how many moved.

    Three in four characters are rare in the text, and training leaves them about half as far from
    the mean as the others. They are copied all the same, but by so small a margin that a student's
    training on other characters loses them (docs/benchmarks.md).
    """
    import torch

    ids = torch.tensor(
        tokenizer.convert_tokens_to_ids(tokenizer.tokenize("".join(details.characters())))
    )
    with torch.no_grad():
        vectors = model.get_input_embeddings().weight
        mean = vectors[ids].mean(0)
        apart = vectors[ids] - mean
        near = apart.norm(dim=1) < NEAREST
        vectors[ids[near]] = mean + NEAREST * torch.nn.functional.normalize(apart[near])
    return int(near.sum())


def batches(
    tokenizer: PreTrainedTokenizerFast, rng: random.Random
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Endless (input ids, labels), TOKENS_A_STEP in a few fixed shapes; labels are -100 but for the
    answers.

    Every example starts at position 0, as it will in use. Few shapes, since oneDNN compiles kernels
    for each new one.
    """
    import torch

    waiting: dict[int, list[tuple[list[int], int]]] = {width: [] for width in WIDTHS}
    while True:
        ids, head = encode(tokenizer, example(rng))
        if head >= WIDTHS[-1]:
            continue
        ids = ids[: WIDTHS[-1]]
        width = next(w for w in WIDTHS if w >= len(ids))
        waiting[width].append((ids, head))
        if len(waiting[width]) < TOKENS_A_STEP // width:
            continue
        inputs = torch.full((len(waiting[width]), width), tokenizer.pad_token_id)
        labels = torch.full_like(inputs, -100)
        for i, (ids, head) in enumerate(waiting[width]):
            inputs[i, : len(ids)] = torch.tensor(ids)
            labels[i, head : len(ids)] = torch.tensor(ids[head:])
        waiting[width] = []
        yield inputs, labels


def last_hidden(model: Qwen3ForCausalLM) -> Callable[[torch.Tensor], torch.Tensor]:
    """Token ids (rows, width) to the last layer's states (rows, width, HIDDEN); compiled, a third
    faster, where g++ is found."""
    import torch

    def states(inputs: torch.Tensor) -> torch.Tensor:
        return model.model(input_ids=inputs, use_cache=False).last_hidden_state

    if not shutil.which("g++"):
        return states
    torch._dynamo.config.recompile_limit = 2 * len(WIDTHS)  # once for each width, some 40 s each
    return torch.compile(states, dynamic=False)


def answer_loss(
    model: Qwen3ForCausalLM,
    states: Callable[[torch.Tensor], torch.Tensor],
    inputs: torch.Tensor,
    labels: torch.Tensor,
) -> torch.Tensor:
    """Mean cross-entropy of the answers' tokens; the vocabulary is only projected where an answer
    is predicted."""
    import torch

    hidden = states(inputs)[:, :-1].flatten(0, 1)
    target = labels[:, 1:].flatten()
    wanted = (target != -100).nonzero()[:, 0]
    # few shapes here, too: position 0 is never an answer
    wanted = torch.cat([wanted, wanted.new_zeros(-len(wanted) % 256)])
    return torch.nn.functional.cross_entropy(model.lm_head(hidden[wanted]).float(), target[wanted])


def held_out(
    model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerFast, seed: int, rows: int = 100
) -> dict[str, float]:
    """Share of fresh examples of each kind whose whole answer the model predicts (given the right
    tokens before)."""
    import torch

    rng = random.Random(seed)
    shares = {}
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        for make, _ in KINDS:
            right = 0
            for _ in range(rows):
                ids, head = encode(tokenizer, make(rng))
                ids = ids[: WIDTHS[-1]]
                guess = model(input_ids=torch.tensor([ids])).logits[0, head - 1 : -1].argmax(-1)
                right += guess.tolist() == ids[head:]
            shares[make.__name__] = right / rows
    return shares


def train(
    model: Qwen3ForCausalLM,
    stream: Iterator[tuple[torch.Tensor, torch.Tensor]],
    steps: int,
    rate: Callable[[int], float],
) -> int:
    """Trains for `steps` at rate(step) of the peak learning rates; prints the loss every hundred
    steps; returns the tokens seen."""
    import torch

    matrices = [p for n, p in model.named_parameters() if p.ndim == 2 and "embed" not in n]
    others = [p for n, p in model.named_parameters() if p.ndim != 2 or "embed" in n]
    muon = torch.optim.Muon(matrices, lr=5e-3, weight_decay=0.05, adjust_lr_fn="match_rms_adamw")
    # This eps is above the gradients (some 1e-6) of characters that a batch does not hold, which
    # Adam would else move all the same way at every step. A guess, too: rare characters still look
    # alike afterwards (a mean cosine of 0.55), hence lengthen.
    adam = torch.optim.AdamW(others, lr=3e-3, betas=(0.9, 0.95), eps=5e-6, weight_decay=0.01)
    peaks = [(muon, 5e-3), (adam, 3e-3)]
    states = last_hidden(model)
    start, smooth, seen = time.time(), None, 0
    for step in range(steps):
        for optimizer, peak in peaks:
            for group in optimizer.param_groups:
                group["lr"] = peak * rate(step)
        inputs, labels = next(stream)
        with torch.autocast("cpu", torch.bfloat16):
            loss = answer_loss(model, states, inputs, labels)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer, _ in peaks:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        seen += inputs.numel()
        smooth = loss.item() if smooth is None else 0.98 * smooth + 0.02 * loss.item()
        if step % 100 == 99:
            spent = time.time() - start
            print(
                (
                    f"{step + 1}/{steps}  {spent:.0f} s  loss {smooth:.4f}  {seen / spent:.0f} "
                    f"tokens/s"
                ),
                flush=True,
            )
    return seen


def main() -> None:
    """Both parts, or the second alone; each ends with the model saved and its held-out shares
    printed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=10800, help="of the first part")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument(
        "--second-part", action="store_true", help="go on from a first part that lies in OUT"
    )
    args = parser.parse_args()
    import torch
    from transformers import PreTrainedTokenizerFast, Qwen3ForCausalLM

    torch.set_num_threads(2)
    keep_memory()
    record: dict[str, Any] = {"seed": args.seed}

    def part(
        name: str, model: Qwen3ForCausalLM, seed: int, steps: int, rate: Callable[[int], float]
    ) -> None:
        start = time.time()
        tokens = train(model, batches(tokenizer, random.Random(seed)), steps, rate)
        copy.deepcopy(model).to(torch.bfloat16).save_pretrained(args.out)
        record[name] = {"steps": steps, "tokens": tokens, "seconds": round(time.time() - start)}
        record["held_out"] = held_out(model, tokenizer, args.seed + 2)
        print(record, flush=True)
        (args.out / "training.json").write_text(json.dumps(record, indent=2) + "\n")

    if args.second_part:
        tokenizer = PreTrainedTokenizerFast.from_pretrained(args.out)
        record = json.loads((args.out / "training.json").read_text())
        if "second_part" in record:
            parser.error(
                f"{args.out}/training.json says that the second part is done, expected a first "
                f"part alone"
            )
    else:
        tokenizer = make_tokenizer(args.seed + 1)
        tokenizer.save_pretrained(args.out)
        model = make_model(tokenizer, args.seed)
        print(
            (
                f"{sum(p.numel() for p in model.parameters()):,} parameters, vocabulary "
                f"{len(tokenizer)}"
            ),
            flush=True,
        )
        # Constant, then linear to zero over the second half.
        part(
            "first_part",
            model,
            args.seed,
            args.steps,
            lambda step: warm(step) * min(1.0, 2 * (1 - step / args.steps)),
        )
    model = Qwen3ForCausalLM.from_pretrained(
        args.out, dtype=torch.float32, attn_implementation="eager"
    )
    print(f"{lengthen(model, tokenizer):,} characters moved away from the mean", flush=True)
    part(
        "second_part",
        model,
        args.seed + 3,
        MORE_STEPS,
        lambda step: 0.2 * warm(step) * (1 - step / MORE_STEPS),
    )


def warm(step: int) -> float:
    """The share of the learning rate in the first hundred steps, in which it rises."""
    return min(1.0, (step + 1) / 100)


if __name__ == "__main__":
    main()
