"""Whether a student stays the same model from training to serving: the same tokens, the same
answers."""

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from potstill.core.jsonl import Row
from potstill.inference import engine
from potstill.training import model_folder, swift

BATCH = 100  # chats at once at most: a batch goes on until its last answer ends
LOGITS = 1 << 28  # tokens of a batch's prompts, padding included, times vocabulary, at most: 1 GiB


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
        *asked, answer = lesson["messages"]
        prompt = engine.tokens(tokenizer, asked)
        ids = tokenizer(answer["content"], add_special_tokens=False)["input_ids"]
        wanted = [*ids, tokenizer.eos_token_id]
        # In its place: of earlier turns, and of Qwen3's empty thought, more may be learnt
        learnt = trained["labels"][len(prompt) : len(prompt) + len(wanted)]
        if trained["input_ids"][: len(prompt)] != prompt or learnt != wanted:
            yield lesson["id"]


def with_adapter(
    model: str,
    revision: str,
    adapter: Path,
    chats: list[engine.Chat],
    lengths: list[int],
    p: SimpleNamespace,
    grammars: list[str] | None = None,
) -> list[engine.Answer]:
    """What the base `model` with the adapter on it answers, greedily, by transformers and peft: the
    model as it was trained. In the order of the chats. `p` is the section `predict` of params.yaml;
    `lengths`, the tokens that each answer is expected to have, form the batches; `grammars` are as
    in `engine.predict`, of each chat."""
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
    vocabulary = base.get_output_embeddings().weight.shape[0]
    quoting = _quoting(tokenizer, vocabulary) if grammars else None
    answers: dict[int, engine.Answer] = {}
    for rows in batches(order, [len(prompt) for prompt in prompts], vocabulary):
        batch = tokenizer.pad({"input_ids": [prompts[row] for row in rows]}, return_tensors="pt")
        more = {}
        if quoting and grammars:
            more = {"logits_processor": [quoting([grammars[row] for row in rows])]}
        with torch.inference_mode():
            out = llm.generate(**batch.to(device), **how, **more)
        for row, ids in zip(rows, out[:, batch["input_ids"].shape[1] :].tolist(), strict=True):
            made = ids[: ids.index(end) + 1] if end in ids else ids
            text = tokenizer.decode(made, skip_special_tokens=True)
            reason = "stop" if end in ids else "length"
            answers[row] = engine.answer(prompts[row], text, reason, made)
    return [answers[row] for row in range(len(prompts))]


def batches(order: list[int], lengths: list[int], vocabulary: int) -> Iterator[list[int]]:
    """The rows in their order, in batches of at most BATCH. `lengths` are the tokens of the rows'
    prompts; a batch of more than one row computes at most LOGITS logits for them at once."""
    rows: list[int] = []
    longest = 0
    for row in order:
        longest = max(longest, lengths[row])
        if rows and (len(rows) == BATCH or (len(rows) + 1) * longest * vocabulary > LOGITS):
            yield rows
            rows, longest = [], lengths[row]
        rows.append(row)
    if rows:
        yield rows


def _quoting(tokenizer: Any, vocabulary: int) -> Callable[[list[str]], Any]:
    """Makes of the grammars of a batch what keeps transformers to them."""
    import llguidance.hf
    import llguidance.torch as masks
    import torch

    known = llguidance.hf.from_tokenizer(tokenizer, max(vocabulary, len(tokenizer)))

    def made(grammars: list[str]) -> Any:
        wanted = [llguidance.LLMatcher.grammar_from_lark(grammar) for grammar in grammars]
        matchers = [llguidance.LLMatcher(known, grammar) for grammar in wanted]
        mask = masks.allocate_token_bitmask(len(matchers), known.vocab_size)
        began = False

        def keep(ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
            nonlocal began
            for number, matcher in enumerate(matchers):
                if began and not matcher.is_stopped():
                    matcher.consume_token(int(ids[number, -1]))
                masks.fill_next_token_bitmask(matcher, mask, number)
            began = True
            kept = scores.clone()
            masks.apply_token_bitmask_inplace(kept, mask.to(kept.device))
            return kept

        return keep

    return made
