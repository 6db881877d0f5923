"""What predict.grounded brings and costs: python -m bench.grounded [--rows 500] [--alone 100]
[--model FOLDER] in a task's folder.

Needs data/4-test.jsonl and models/sft/merged (`dvc repro merge`). One engine of vLLM answers the
same rows without grammars and with them: all at once for what is right, then some alone, without
and with in turn, for the latency. "outside": answers that are JSON with a value that is not in the
input. Compile is llguidance's own time for a grammar; vLLM does it while the prompt is read.
"""

import argparse
import random
import time
from statistics import median
from typing import Any

from potstill.checks import registry
from potstill.core import jsonl, params
from potstill.evaluation.statistics import exact, percent, wilson
from potstill.inference import engine, quoting
from potstill.task import settings


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=500)
    parser.add_argument("--alone", type=int, default=100)
    parser.add_argument("--model", default="models/sft/merged")
    given = parser.parse_args()
    t, p = settings.load(), params.load("predict").predict
    tests = jsonl.read_jsonl(t.data / "4-test.jsonl")
    tests = random.Random(0).sample(tests, min(given.rows, len(tests)))
    grammars = list(map(quoting.Grammars(t).of, tests))
    llm = engine.start(given.model, p.dtype, p.max_model_len, **engine.GUIDED)
    from vllm import SamplingParams, TokensPrompt
    from vllm.sampling_params import StructuredOutputsParams

    tokenizer = llm.get_tokenizer()
    chats = [t.messages("student", row) for row in tests]
    asked = [TokensPrompt(prompt_token_ids=engine.tokens(tokenizer, chat)) for chat in chats]
    plain = SamplingParams(temperature=0.0, max_tokens=p.max_tokens)

    def guided(grammar: str) -> SamplingParams:
        one = StructuredOutputsParams(grammar=grammar)
        return SamplingParams(temperature=0.0, max_tokens=p.max_tokens, structured_outputs=one)

    hows = {"without": [plain] * len(tests), "with": list(map(guided, grammars))}
    marks: dict[str, list[bool]] = {}
    for name, how in hows.items():
        outputs = llm.generate(asked, how, use_tqdm=False)
        marks[name] = report(t, name, tests, [one.outputs[0].text for one in outputs])
    pairs = list(zip(*marks.values(), strict=True))
    fixed, broken = pairs.count((False, True)), pairs.count((True, False))
    print(f"{fixed} mended, {broken} broken, p {exact(fixed, broken):.2g} (exact McNemar)")
    seconds: dict[str, list[float]] = {name: [] for name in hows}
    for number, prompt in enumerate(asked[: given.alone]):
        for name in sorted(hows, reverse=bool(number % 2)):
            llm.reset_prefix_cache()
            begun = time.monotonic()
            llm.generate(prompt, hows[name][number], use_tqdm=False)
            seconds[name].append(time.monotonic() - begun)
    for name, took in seconds.items():
        print(f"{name:8} one at a time: {spread(took)} of {len(took)} requests")
    print(f"compile: {spread(compiled(tokenizer, grammars))} of {len(grammars)} grammars")


def report(t: Any, name: str, tests: list[jsonl.Row], answers: list[str]) -> list[bool]:
    """Prints a line of the answers, and gives whether each is right."""
    reasons = [registry.check(t, row, said) for row, said in zip(tests, answers, strict=True)]
    right = [not one for one in reasons]
    none = sum(registry.parse(t, said)[1] is not None for said in answers)
    outside = sum(any(why.startswith("grounded") for why in one) for one in reasons)
    low, high = wilson(sum(right), len(right))
    share = f"{percent(sum(right) / len(right))} ({percent(low)} to {percent(high)})"
    counts = f"{outside} outside, {none} no JSON"
    print(f"{name:8} {sum(right)} of {len(right)} right: {share}; {counts}")
    return right


def compiled(tokenizer: Any, grammars: list[str]) -> list[float]:
    """The seconds that each grammar takes to compile."""
    import llguidance.hf

    known, took = llguidance.hf.from_tokenizer(tokenizer), []
    for grammar in grammars:
        begun = time.monotonic()
        llguidance.LLMatcher(known, llguidance.LLMatcher.grammar_from_lark(grammar))
        took.append(time.monotonic() - begun)
    return took


def spread(seconds: list[float]) -> str:
    """The median and the 95th percentile, in milliseconds."""
    last = sorted(seconds)[int(0.95 * (len(seconds) - 1))]
    return f"p50 {1000 * median(seconds):.1f} ms, p95 {1000 * last:.1f} ms"


if __name__ == "__main__":
    main()
