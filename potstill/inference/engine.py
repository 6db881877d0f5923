"""vLLM: one start, all the rows, greedy or drawn."""

import os
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from potstill.core.errors import UserError
from potstill.training import model_folder

KV_CACHE_ON_CPU = 2 << 30  # bytes
TIMED = 10  # chats asked alone to see how long one takes
# No warnings of the libraries, about which a user can do nothing; what the user sets counts
QUIET = {"TORCH_LOGS": "-all", "TORCH_CPP_LOG_LEVEL": "ERROR"}
QUIET |= {"TRANSFORMERS_VERBOSITY": "error", "VLLM_LOGGING_LEVEL": "ERROR"}
# vLLM without a process of its own, and without its binding: that leaves one thread on two cores
IN_PROCESS = {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}
# Without compilation the start takes seconds, not half a minute. generation_config: the sampling
# settings of the model itself do not count
OPTIONS = {"load_format": "safetensors", "enforce_eager": True, "generation_config": "vllm"}
OPTIONS |= {"disable_log_stats": True, "use_tqdm_on_load": False}
GUIDED: dict[str, Any] = {"structured_outputs_config": {"backend": "guidance"}}

Chat = list[dict[str, str]]
Answer = dict[str, Any]


def predict(
    model: str,
    batches: list[list[Chat]],
    p: SimpleNamespace,
    revision: str | None = None,
    stop_loops: bool = False,
    timed: list[float] | None = None,
    seed: int = 0,
    grammars: list[list[str] | None] | None = None,
    **sampling: Any,
) -> list[list[Answer]]:
    """For each batch an answer to each of its chats, in their order, with the model's own chat
    template. The batches are answered one after the other: a later one changes nothing.

    `p` is the section `predict` of params.yaml. `stop_loops` ends an answer in which up to 32
    tokens come 16 times in a row, as an untrained model may go on without end. Answers are greedy,
    unless `sampling` has vLLM's temperature and n (so many answers a chat, one after the other);
    what is drawn then depends on `seed`. `grammars` has for each batch the grammar of each of its
    answers, in llguidance's Lark, or None: nothing else is then answered, but where max_tokens cut
    the answer off. Into `timed` go the seconds of each of the first TIMED
    chats, asked once more and alone. Raises UserError as `start` does, and when a prompt leaves no
    room for an answer.
    """
    started = time.monotonic()
    # The seed is the engine's: seeded requests with a prompt read in parts end vLLM 0.32 on a CPU
    rules = grammars or [None] * len(batches)
    more = GUIDED if any(rules) else {}
    llm = start(model, p.dtype, p.max_model_len, revision, seed=seed, **more)
    from vllm import SamplingParams, TokensPrompt
    from vllm.sampling_params import RepetitionDetectionParams, StructuredOutputsParams

    tokenizer = llm.get_tokenizer()
    prompts = [[tokens(tokenizer, chat) for chat in batch] for batch in batches]
    longest = max((len(prompt) for batch in prompts for prompt in batch), default=0)
    if longest >= p.max_model_len:
        found = f"max_model_len is {p.max_model_len}, but the longest prompt has {longest} tokens"
        raise UserError(f"params.yaml: predict.{found}: raise it")
    ready = time.monotonic()
    loops = RepetitionDetectionParams(max_pattern_size=32, min_count=16) if stop_loops else None
    given = {"temperature": 0.0, **sampling}
    given |= {"max_tokens": p.max_tokens, "repetition_detection": loops}

    def guided(grammar: str) -> SamplingParams:
        return SamplingParams(**given, structured_outputs=StructuredOutputsParams(grammar=grammar))

    hows = [list(map(guided, rule)) if rule else SamplingParams(**given) for rule in rules]
    answers = []
    for batch, how in zip(prompts, hows, strict=True):
        asked = [TokensPrompt(prompt_token_ids=prompt) for prompt in batch]
        outputs = llm.generate(asked, how, use_tqdm=sys.stderr.isatty()) if asked else []
        pairs = [(o.prompt_token_ids, choice) for o in outputs for choice in o.outputs]
        answers.append([answer(ids, c.text, c.finish_reason, c.token_ids) for ids, c in pairs])
    seconds = time.monotonic() - ready
    if timed is not None:
        for number, prompt in enumerate(prompts[0][:TIMED]):
            one = hows[0][number] if isinstance(hows[0], list) else hows[0]
            llm.reset_prefix_cache()  # the rows were asked before: their prompts would cost nothing
            asked_at = time.monotonic()
            llm.generate(TokensPrompt(prompt_token_ids=prompt), one, use_tqdm=False)
            timed.append(time.monotonic() - asked_at)
    made = [row["completion_tokens"] for batch in answers for row in batch]
    done = f"{len(made):,} rows, {sum(made):,} tokens in {seconds:.1f} s"
    print(f"vLLM: started in {ready - started:.1f} s, {done}", file=sys.stderr)
    return answers


def answer(prompt: list[int], text: str, finish_reason: str, completion: list[int]) -> Answer:
    """An answer with the fields of predictions.FIELDS. finish_reason is "stop", "length" where
    max_tokens or max_model_len cut the answer off, or "repetition" where `stop_loops` did."""
    counts = {"prompt_tokens": len(prompt), "completion_tokens": len(completion)}
    return {"answer": text, "finish_reason": finish_reason, **counts}


def prepared(model: str, revision: str | None) -> tuple[str, dict[str, Any]]:
    """The name or folder by which vLLM and transformers load a model, and the further arguments
    for it; `revision` counts on the hub alone. Sets the libraries' environment: import them
    afterwards. Raises UserError when the model's folder is not whole."""
    hub = model_folder.at_hub(model)
    os.environ.update({**QUIET, **os.environ, **model_folder.environment(hub), **IN_PROCESS})
    name = model if hub else str(model_folder.local(model))
    return name, {"trust_remote_code": False, **({"revision": revision} if hub else {})}


def start(
    model: str, dtype: str, max_model_len: int, revision: str | None = None, **more: Any
) -> Any:
    """vLLM's engine, in this process. Raises UserError when the model reads fewer tokens than
    max_model_len, and when its folder is not whole."""
    name, loading = prepared(model, revision)
    config = {} if "revision" in loading else model_folder.check_folder(Path(name))
    limit = config.get("max_position_embeddings", max_model_len)
    if limit < max_model_len:
        found = f"max_model_len is {max_model_len}, but {model} reads at most {limit} tokens"
        raise UserError(f"params.yaml: predict.{found}: lower it")
    model_folder.keep_memory()
    warnings.simplefilter("ignore", FutureWarning)  # vLLM's own business
    more |= {} if model_folder.on_cuda() else {"kv_cache_memory_bytes": KV_CACHE_ON_CPU}
    more |= {"dtype": dtype, "max_model_len": max_model_len}
    from vllm import LLM

    return LLM(model=name, **loading, **OPTIONS, **more)


def tokens(tokenizer: Any, chat: Chat) -> list[int]:
    """The token ids of a chat's prompt, by the model's own template."""
    # enable_thinking: what ms-swift trains Qwen3 on; templates that do not know it ignore it
    options = {"add_generation_prompt": True, "enable_thinking": False, "return_dict": False}
    return list(tokenizer.apply_chat_template(chat, **options))


def token_counter(model: str, revision: str) -> Callable[[Chat], int]:
    """A function that counts the tokens of a chat's prompt. Raises UserError when the model's
    folder is not whole."""
    name, loading = prepared(model, revision)
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(name, **loading)
    return lambda chat: len(tokens(tokenizer, chat))
