"""Whether merging changes answers: python -m bench.flips, from the repository root, after a run with dpo among `models`.

The test rows of the active task are answered three times: twice by the merged dpo model, each with a start of its own, and once by
the sft model with the dpo adapter on it, in vLLM all. A flip is a row whose answer is not the same text, or not right in both.
"""

from potstill import engine, params, rows, score, task

Result = engine.Result


def adapted(base: str, adapter: str, rank: int, chats: list[engine.Chat], *settings: object) -> list[Result]:
    """Greedy answers of the model in the folder `base` with a LoRA adapter on it."""
    max_tokens, dtype, max_model_len = settings
    llm = engine._engine(base, str(dtype), int(str(max_model_len)), None, enable_lora=True, max_lora_rank=rank)
    from vllm import SamplingParams, TokensPrompt
    from vllm.lora.request import LoRARequest

    asked = [TokensPrompt(prompt_token_ids=engine._tokens(llm.get_tokenizer(), chat)) for chat in chats]
    how = SamplingParams(temperature=0.0, max_tokens=max_tokens)
    outputs = llm.generate(asked, how, use_tqdm=False, lora_request=LoRARequest("dpo", 1, adapter))
    return [engine._result(out, out.outputs[0]) for out in outputs]


def main() -> None:
    p = params.load("task", "lora_rank", "predict_max_tokens", "predict_dtype", "max_model_len")
    t = task.load(p.task)
    p = t.settled(p)
    tests = rows.read_jsonl(t.data / "4-test.jsonl", ("id", "expected"))
    chats = [t.messages("student", row) for row in tests]
    settings = p.predict_max_tokens, p.predict_dtype, p.max_model_len
    merged, again = (engine.predict(str(t.models / "dpo/merged"), [chats], *settings)[0] for _ in range(2))
    lora = adapted(str(t.models / "sft/merged"), str(t.models / "dpo/adapter"), p.lora_rank, chats, *settings)
    before = [score.mark(t, test, one)["right"] for test, one in zip(tests, merged, strict=True)]
    for name, found in (("merged, asked again", again), ("adapter on the sft model", lora)):
        texts = sum(a["answer"] != b["answer"] for a, b in zip(merged, found, strict=True))
        after = [score.mark(t, test, one)["right"] for test, one in zip(tests, found, strict=True)]
        flips = sum(a != b for a, b in zip(before, after, strict=True))
        print(f"{name:26}{len(tests):6,} rows{texts:6,} other texts{flips:6,} other verdicts", flush=True)


if __name__ == "__main__":
    main()
