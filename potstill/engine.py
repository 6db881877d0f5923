"""vLLM: one start, all the rows, greedy."""

import os
import sys
import time
import warnings
from pathlib import Path
from typing import Any

from potstill.errors import UserError
from potstill.student import at_hub, check_folder, environment, on_cuda

KV_CACHE_ON_CPU = 2 << 30  # bytes


def predict(
    model: str,
    messages: list[list[dict[str, str]]],
    max_tokens: int,
    dtype: str,
    max_model_len: int,
    revision: str | None = None,
) -> list[dict[str, Any]]:
    """One answer to each list of messages, in their order, with the model's own chat template.

    `model` is a folder or a name on the hub. A result is {"answer", "finish_reason", "prompt_tokens",
    "completion_tokens"}; finish_reason is "length" where max_tokens or max_model_len (prompt and answer together) cut
    the answer off. Raises UserError for a prompt that leaves no room for an answer.
    """
    hub = at_hub(model)
    if not hub:
        limit = check_folder(Path(model), "make it whole").get("max_position_embeddings", max_model_len)
        if limit < max_model_len:
            raise UserError(f"params.yaml: max_model_len is {max_model_len}, but {model} reads at most {limit} tokens")
    start = time.monotonic()
    llm = _engine(model, dtype, max_model_len, revision if hub else None)
    from vllm import SamplingParams, TokensPrompt

    tokenizer = llm.get_tokenizer()
    prompts = [_tokens(tokenizer, chat) for chat in messages]
    for number, prompt in enumerate(prompts, 1):
        if len(prompt) >= max_model_len:
            raise UserError(
                f"params.yaml: max_model_len is {max_model_len}, but the prompt of test row {number} has {len(prompt)} "
                "tokens: raise it"
            )
    ready = time.monotonic()
    outputs = llm.generate(
        [TokensPrompt(prompt_token_ids=prompt) for prompt in prompts],
        SamplingParams(temperature=0.0, max_tokens=max_tokens),
        use_tqdm=sys.stderr.isatty(),
    )
    results = [
        {
            "answer": out.outputs[0].text,
            "finish_reason": out.outputs[0].finish_reason,
            "prompt_tokens": len(prompt),
            "completion_tokens": len(out.outputs[0].token_ids),
        }
        for out, prompt in zip(outputs, prompts, strict=True)
    ]
    made = sum(row["completion_tokens"] for row in results)
    seconds = time.monotonic() - ready
    print(
        f"vLLM: started in {ready - start:.1f} s, {len(results):,} rows, {made:,} tokens in {seconds:.1f} s",
        file=sys.stderr,
        flush=True,
    )
    return results


def _engine(model: str, dtype: str, max_model_len: int, revision: str | None) -> Any:
    """The engine, in this very process and without compilation: the start takes seconds, not half a minute."""
    settings = environment(hub=at_hub(model)) | {
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # its own binding leaves one compute thread on two cores
    }
    os.environ.update(settings)
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    warnings.simplefilter("ignore", FutureWarning)  # vLLM's own business
    cuda = on_cuda()
    from vllm import LLM

    return LLM(
        model=model,
        revision=revision,
        dtype=dtype,
        max_model_len=max_model_len,
        enforce_eager=True,
        generation_config="vllm",  # greedy: nothing from the model's own sampling settings
        disable_log_stats=True,
        use_tqdm_on_load=False,
        **({} if cuda else {"kv_cache_memory_bytes": KV_CACHE_ON_CPU}),
    )


def _tokens(tokenizer: Any, chat: list[dict[str, str]]) -> list[int]:
    # enable_thinking: what ms-swift trains Qwen3 on; templates that do not know it ignore it
    return list(
        tokenizer.apply_chat_template(chat, add_generation_prompt=True, enable_thinking=False, return_dict=False)
    )
