"""vLLM: one start, all the rows, greedy or drawn."""

import os
import sys
import time
import warnings
from collections.abc import Callable
from typing import Any

from potstill.core.errors import UserError
from potstill.training.model_folder import (
    at_hub,
    check_folder,
    environment,
    keep_memory,
    local,
    on_cuda,
)

KV_CACHE_ON_CPU = 2 << 30  # bytes
TIMED = 10  # chats asked alone to see how long one takes

Chat = list[dict[str, str]]
Result = dict[str, Any]


def predict(
    model: str,
    batches: list[list[Chat]],
    max_tokens: int,
    dtype: str,
    max_model_len: int,
    revision: str | None = None,
    stop_loops: bool = False,
    timed: list[float] | None = None,
    seed: int = 0,
    **sampling: Any,
) -> list[list[Result]]:
    """For each batch an answer to each of its chats, in their order, with the model's own chat template. Batches are answered one
    after the other: what comes later changes nothing.

    `model` is a folder or a name on the hub. A result is {"answer", "finish_reason", "prompt_tokens",
    "completion_tokens"}; finish_reason is "length" where max_tokens or max_model_len (prompt and answer together) cut
    the answer off, and "repetition" where `stop_loops` did, since up to 32 tokens had come 16 times in a row, as an untrained model
    goes on to the end. Greedy, unless `sampling` has vLLM's temperature and n (so many results a chat, one after the other); what is drawn then depends
    on `seed`, of the engine: seeded requests whose prompts are read in parts end vLLM 0.32 on a CPU.
    Into `timed` go the seconds of each of the first TIMED chats asked once more, alone. Raises UserError for a prompt that leaves no
    room for an answer.
    """
    hub = at_hub(model)
    if not hub:
        limit = check_folder(local(model), "make it whole").get(
            "max_position_embeddings", max_model_len
        )
        if limit < max_model_len:
            raise UserError(
                f"params.yaml: max_model_len is {max_model_len}, but {model} reads at most {limit} tokens"
            )
    start = time.monotonic()
    model = model if hub else str(local(model))
    llm = _engine(model, dtype, max_model_len, revision if hub else None, seed=seed)
    from vllm import SamplingParams, TokensPrompt
    from vllm.sampling_params import RepetitionDetectionParams

    tokenizer = llm.get_tokenizer()
    prompts = [[tokens(tokenizer, chat) for chat in batch] for batch in batches]
    for batch in prompts:
        for number, prompt in enumerate(batch, 1):
            if len(prompt) >= max_model_len:
                raise UserError(
                    f"params.yaml: max_model_len is {max_model_len}, but the prompt of row {number} has {len(prompt)} "
                    "tokens: raise it"
                )
    ready = time.monotonic()
    loops = RepetitionDetectionParams(max_pattern_size=32, min_count=16) if stop_loops else None
    how = SamplingParams(
        **{"temperature": 0.0, **sampling}, max_tokens=max_tokens, repetition_detection=loops
    )
    found = []
    for batch in prompts:
        asked = [TokensPrompt(prompt_token_ids=prompt) for prompt in batch]
        outputs = llm.generate(asked, how, use_tqdm=sys.stderr.isatty()) if asked else []
        found.append([_result(out, one) for out in outputs for one in out.outputs])
    seconds, taken = time.monotonic() - ready, [] if timed is None else timed
    for prompt in [] if timed is None else prompts[0][:TIMED]:
        llm.reset_prefix_cache()  # the rows were asked before: their prompts would cost nothing
        asked_at = time.monotonic()
        llm.generate(TokensPrompt(prompt_token_ids=prompt), how, use_tqdm=False)
        taken.append(time.monotonic() - asked_at)
    made = [row["completion_tokens"] for results in found for row in results]
    print(
        f"vLLM: started in {ready - start:.1f} s, {len(made):,} rows, {sum(made):,} tokens in {seconds:.1f} s",
        file=sys.stderr,
        flush=True,
    )
    return found


def _result(request: Any, one: Any) -> Result:
    return {
        "answer": one.text,
        "finish_reason": one.finish_reason,
        "prompt_tokens": len(request.prompt_token_ids),
        "completion_tokens": len(one.token_ids),
    }


def _engine(model: str, dtype: str, max_model_len: int, revision: str | None, **more: Any) -> Any:
    """The engine, in this very process and without compilation: the start takes seconds, not half a minute."""
    settings = (
        environment(hub=at_hub(model))
        | {
            "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
            "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # its own binding leaves one compute thread on two cores
        }
    )
    os.environ.update(settings)
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    keep_memory()
    warnings.simplefilter("ignore", FutureWarning)  # vLLM's own business
    cuda = on_cuda()
    from vllm import LLM

    return LLM(
        model=model,
        revision=revision,
        load_format="safetensors",
        dtype=dtype,
        max_model_len=max_model_len,
        enforce_eager=True,
        generation_config="vllm",  # greedy: nothing from the model's own sampling settings
        disable_log_stats=True,
        use_tqdm_on_load=False,
        **({} if cuda else {"kv_cache_memory_bytes": KV_CACHE_ON_CPU}),
        **more,
    )


def tokens(tokenizer: Any, chat: Chat) -> list[int]:
    # enable_thinking: what ms-swift trains Qwen3 on; templates that do not know it ignore it
    return list(
        tokenizer.apply_chat_template(
            chat, add_generation_prompt=True, enable_thinking=False, return_dict=False
        )
    )


def token_counter(model: str, revision: str) -> Callable[[Chat], int]:
    """What counts the tokens of a chat's prompt for a model: a folder, or a name on the hub."""
    hub = at_hub(model)
    os.environ.update(environment(hub))
    from transformers import AutoTokenizer

    name, pinned = (model, {"revision": revision}) if hub else (str(local(model)), {})
    tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=False, **pinned)
    return lambda chat: len(tokens(tokenizer, chat))
