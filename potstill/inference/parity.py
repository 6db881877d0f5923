"""Whether a student is the same model on every hop of its way from training to serving: the same tokens, the same answers."""

import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from potstill.core.jsonl import Row
from potstill.inference import engine
from potstill.training import swift
from potstill.training.model_folder import at_hub, environment, keep_memory, local, on_cuda

Chat = list[dict[str, str]]
BATCH = 100  # chats at once; those with the longest answers together, since a batch goes on until its last one ends


def other_tokens(model: str, revision: str, served: Path, lessons: list[Row]) -> Iterator[str]:
    """The ids of the training rows for which the tokens that ms-swift trains `model` on are not those that the model in the folder
    `served` is asked with and should answer: prompt by its own chat template, answer, end."""
    os.environ.update(environment(at_hub(model)))
    from swift import get_processor, get_template
    from transformers import AutoTokenizer

    swift.forbid_code()
    logging.getLogger("swift").setLevel(
        logging.ERROR
    )  # it warns of the trust in code that was just taken back
    given = swift.model_config(model, revision)
    kind = {"model_type": given["model_type"]} if "model_type" in given else {"revision": revision}
    template = get_template(
        get_processor(given["model"], **kind), template_type=given.get("template")
    )
    template.set_mode("train")
    tokenizer = AutoTokenizer.from_pretrained(served)
    for lesson in lessons:
        trained = template.encode({"messages": lesson["messages"]})
        learnt = [token for token in trained["labels"] if token != -100]
        *asked, answer = lesson["messages"]
        prompt = engine.tokens(tokenizer, asked)
        wanted = [
            *tokenizer(answer["content"], add_special_tokens=False)["input_ids"],
            tokenizer.eos_token_id,
        ]
        if trained["input_ids"][: len(prompt)] != prompt or learnt[: len(wanted)] != wanted:
            yield lesson["id"]


def with_adapter(
    model: str,
    revision: str,
    adapter: Path,
    chats: list[Chat],
    lengths: list[int],
    max_tokens: int,
    dtype: str,
) -> list[Row]:
    """What the base `model` with the adapter on it answers, greedily and by transformers and peft, as it was trained: results as those
    of engine.predict, in the order of the chats. `lengths`: the tokens that each answer is expected to have; they decide the
    batches alone."""
    os.environ.update(environment(at_hub(model)))
    keep_memory()
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    pinned = {"revision": revision} if at_hub(model) else {}
    more: dict[str, Any] = {"trust_remote_code": False, **pinned}
    name = model if pinned else str(local(model))
    tokenizer = AutoTokenizer.from_pretrained(name, padding_side="left", **more)
    base = AutoModelForCausalLM.from_pretrained(name, dtype=dtype, use_safetensors=True, **more)
    llm = PeftModel.from_pretrained(base, str(adapter)).eval().to("cuda" if on_cuda() else "cpu")
    prompts = [engine.tokens(tokenizer, chat) for chat in chats]
    order = sorted(range(len(prompts)), key=lambda i: (lengths[i], len(prompts[i])))
    found: dict[int, Row] = {}
    for start in range(0, len(order), BATCH):
        some = order[start : start + BATCH]
        batch = tokenizer.pad({"input_ids": [prompts[i] for i in some]}, return_tensors="pt").to(
            llm.device
        )
        with torch.inference_mode():
            out = llm.generate(
                **batch,
                max_new_tokens=max_tokens,
                do_sample=False,
                pad_token_id=tokenizer.pad_token_id,
            )
        for i, tokens in zip(some, out[:, batch["input_ids"].shape[1] :].tolist(), strict=True):
            found[i] = _result(tokenizer, prompts[i], tokens)
    return [found[i] for i in range(len(prompts))]


def _result(tokenizer: Any, prompt: list[int], tokens: list[int]) -> Row:
    end = tokens.index(tokenizer.eos_token_id) + 1 if tokenizer.eos_token_id in tokens else None
    return {
        "answer": tokenizer.decode(tokens[:end], skip_special_tokens=True),
        "finish_reason": "stop" if end else "length",
        "prompt_tokens": len(prompt),
        "completion_tokens": len(tokens[:end]),
    }
