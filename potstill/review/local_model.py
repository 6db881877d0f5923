"""A small model on this machine that answers token by token: the page of `make try` shows an answer
as it grows. By transformers, which starts in a few seconds; vLLM, which the stages use, takes half
a minute for two models. The prompt, the length and the greedy choice are those of `predict`; the
arithmetic may round otherwise in the last digit (docs/evaluation.md, parity)."""

import asyncio
import os
import threading
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from potstill.core.errors import UserError
from potstill.core.jsonl import Row
from potstill.inference import engine
from potstill.inference.quoting import Grammars
from potstill.task.settings import Task
from potstill.training import model_folder

LOADING = threading.Lock()  # transformers loads one model at a time: it makes settings for all
LONGEST, TIMES = 32, 16  # tokens of a loop, and how often they come before it is one


@dataclass
class LocalModel:
    """The model `name` of params.yaml or a folder, asked by the prompt prompts/<kind>.md. `p` is
    the section predict. It computes in a thread of its own, so that two models answer at once.
    `loops`: an answer that goes round in circles is ended, as that of an untrained model is."""

    name: str
    kind: str
    p: SimpleNamespace
    revision: str | None = None
    loops: bool = False
    thread: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1))
    loaded: tuple[Any, Any] | None = None  # tokenizer and model

    def load(self) -> None:
        """Loads the model, which takes seconds. Raises UserError when its folder is not whole."""
        with LOADING:
            if not self.loaded:
                self._load()

    def _load(self) -> None:
        cores = len(os.sched_getaffinity(0))
        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, cores // 2)))  # there are two models
        name, loading = engine.prepared(self.name, self.revision)
        if "revision" not in loading:
            model_folder.check_folder(model_folder.local(self.name))
        from transformers import AutoModelForCausalLM, AutoTokenizer
        from transformers.utils.logging import disable_progress_bar

        disable_progress_bar()
        tokenizer = AutoTokenizer.from_pretrained(name, **loading)
        loading |= {"dtype": self.p.dtype, "use_safetensors": True}
        model = AutoModelForCausalLM.from_pretrained(name, **loading).eval()
        self.loaded = tokenizer, model.to("cuda" if model_folder.on_cuda() else "cpu")

    async def answer(self, task: Task, row: Row) -> AsyncGenerator[Row, None]:
        """What comes of asking: {"text": …} each time that the answer has grown, and at the end
        {"answer", "finish_reason", "prompt_tokens", "completion_tokens", "ms"}. Raises UserError
        when the model cannot be loaded, or the prompt leaves no room for an answer."""
        run = asyncio.get_running_loop().run_in_executor
        await run(self.thread, self.load)
        rule = Grammars(task).of(row) if self.p.grounded else None
        parts = self._parts(task.messages(self.kind, row), rule)
        while (part := await run(self.thread, next, parts, None)) is not None:
            yield part

    def _parts(self, chat: engine.Chat, rule: str | None = None) -> Iterator[Row]:
        import torch

        assert self.loaded
        (tokenizer, model), start = self.loaded, time.monotonic()
        prompt, made, text, past = engine.tokens(tokenizer, chat), list[int](), "", None
        room = self.p.max_model_len - len(prompt)
        if room <= 0:
            found = f"max_model_len is {self.p.max_model_len}, but the prompt has {len(prompt)}"
            raise UserError(f"params.yaml: predict.{found} tokens: shorten the input, or raise it")
        asked, reason = prompt, "length"
        choose = chooser(tokenizer, model.config.vocab_size, rule)
        while len(made) < min(self.p.max_tokens, room):
            with torch.inference_mode():
                ids = torch.tensor([asked], device=model.device)
                out = model(ids, past_key_values=past, use_cache=True, logits_to_keep=1)
                past, token = out.past_key_values, choose(out.logits[0, -1])
            asked = [token]
            made.append(token)
            if token == tokenizer.eos_token_id:
                reason = "stop"
                break
            grown = tokenizer.decode(made, skip_special_tokens=True)
            if grown != text and not grown.endswith("\ufffd"):  # half a character
                text = grown
                yield {"text": text}
            if self.loops and looping(made):
                reason = "repetition"
                break
        whole = tokenizer.decode(made, skip_special_tokens=True)
        milliseconds = round((time.monotonic() - start) * 1000)
        yield engine.answer(prompt, whole, reason, made) | {"ms": milliseconds}


def chooser(tokenizer: Any, vocabulary: int, rule: str | None) -> Callable[[Any], int]:
    """What picks the likeliest token by the logits (vocabulary) of an answer's next one, of those
    that the grammar `rule` allows where there is one."""
    if not rule:
        return lambda logits: int(logits.argmax())
    import llguidance.hf
    import numpy

    known = llguidance.hf.from_tokenizer(tokenizer, max(vocabulary, len(tokenizer)))
    matcher = llguidance.LLMatcher(known, llguidance.grammar_from("grammar", rule))

    def allowed(logits: Any) -> int:
        bits = numpy.frombuffer(matcher.compute_bitmask(), numpy.uint8)
        mask = numpy.unpackbits(bits, bitorder="little")[:vocabulary].astype(bool)
        token = int(numpy.where(mask, logits.float().cpu().numpy(), -numpy.inf).argmax())
        matcher.consume_token(token)
        return token

    return allowed


def looping(made: list[int]) -> bool:
    """Whether up to LONGEST tokens have come TIMES times in a row, at the end."""
    return any(
        len(made) >= size * TIMES and made[-size * TIMES :] == made[-size:] * TIMES
        for size in range(1, LONGEST + 1)
    )
