"""Whether a student stays the same model from training to serving: the same tokens, the same
answers."""

import logging
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

from potstill.core.jsonl import Row
from potstill.inference import engine
from potstill.training import model_folder, swift

BATCH = (
    100  # chats at once, by the length of their answers: a batch goes on until its last one ends
)


def other_tokens(model: str, revision: str, served: Path, lessons: list[Row]) -> Iterator[str]:
    """The ids of the training rows whose tokens (of the prompt, by the chat template, of the answer
    and of its end) differ between ms-swift's training of `model` and the folder `served`."""
    engine.prepared(model, revision)
    from swift import get_processor, get_template
    from transformers import AutoTokenizer

    swift.forbid_code()
    # ms-swift warns that it trusts the model's code, which was just forbidden
    logging.getLogger("swift").setLevel(logging.ERROR)
    given = swift.model_config(model, revision)
    kind = {"model_type": given.get("model_type"), "revision": given.get("model_revision")}
    processor = get_processor(given["model"], **kind)
    template = get_template(processor, template_type=given.get("template"))
    template.set_mode("train")
    tokenizer = AutoTokenizer.from_pretrained(served)
    for lesson in lessons:
        trained = template.encode({"messages": lesson["messages"]})
        learnt = [token for token in trained["labels"] if token != -100]
        *asked, answer = lesson["messages"]
        prompt = engine.tokens(tokenizer, asked)
        ids = tokenizer(answer["content"], add_special_tokens=False)["input_ids"]
        wanted = [*ids, tokenizer.eos_token_id]
        if trained["input_ids"][: len(prompt)] != prompt or learnt[: len(wanted)] != wanted:
            yield lesson["id"]


def with_adapter(
    model: str,
    revision: str,
    adapter: Path,
    chats: list[engine.Chat],
    lengths: list[int],
    p: SimpleNamespace,
) -> list[engine.Answer]:
    """What the base `model` with the adapter on it answers, greedily, by transformers and peft: the
    model as it was trained. In the order of the chats. `p` is the section `predict` of params.yaml;
    `lengths`, the tokens that each answer is expected to have, form the batches."""
    name, loading = engine.prepared(model, revision)
    model_folder.keep_memory()
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    tokenizer = AutoTokenizer.from_pretrained(name, padding_side="left", **loading)
    loading |= {"dtype": p.dtype, "use_safetensors": True}
    base = AutoModelForCausalLM.from_pretrained(name, **loading)
    device = "cuda" if model_folder.on_cuda() else "cpu"
    llm = PeftModel.from_pretrained(base, str(adapter)).eval().to(device)
    how = {"max_new_tokens": p.max_tokens, "do_sample": False}
    how["pad_token_id"] = tokenizer.pad_token_id
    end = tokenizer.eos_token_id
    prompts = [engine.tokens(tokenizer, chat) for chat in chats]
    order = sorted(range(len(prompts)), key=lambda row: (lengths[row], len(prompts[row])))
    answers: dict[int, engine.Answer] = {}
    for start in range(0, len(order), BATCH):
        rows = order[start : start + BATCH]
        batch = tokenizer.pad({"input_ids": [prompts[row] for row in rows]}, return_tensors="pt")
        with torch.inference_mode():
            out = llm.generate(**batch.to(device), **how)
        for row, ids in zip(rows, out[:, batch["input_ids"].shape[1] :].tolist(), strict=True):
            made = ids[: ids.index(end) + 1] if end in ids else ids
            text = tokenizer.decode(made, skip_special_tokens=True)
            reason = "stop" if end in ids else "length"
            answers[row] = engine.answer(prompts[row], text, reason, made)
    return [answers[row] for row in range(len(prompts))]
