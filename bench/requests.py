"""What one request costs before the training and after it: python -m bench.requests, in the task's
folder.

Before is the model of params.yaml (or --model) with the teacher's long prompt, after the student
with its short one. Both are asked about the same test rows, one request at a time through vLLM in
its own process, in blocks that take turns: before, after, before, after. `system` is the tokens of
the system prompt, `prompt` those of the whole request with the chat template, `answer` what is
generated, all by the model's own tokenizer, which the table names; `median` and `p95` are seconds a
request, without the first few of a block. The cost of a request is what its tokens cost at the
prices that you give.

--words N prints a table of N test rows with the answers before and after, from data/5-predictions,
and measures nothing.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import fmean, median, quantiles
from typing import Any

from potstill.core import errors, jsonl, params, stage
from potstill.inference import engine, predictions
from potstill.task import settings

Found = dict[str, Any]
WARM = 3  # requests of a block that are not counted
SHOWN = 80  # characters of an answer in the table of --words


def ask(model: str, revision: str, chats: list[list[dict[str, str]]], settings: list[Any]) -> Found:
    """Asks one request after the other. Gives the seconds and tokens of each, and the tokens of the
    system prompt."""
    max_tokens, dtype, max_model_len = settings
    llm = engine.start(model, dtype, max_model_len, revision)
    from vllm import SamplingParams, TokensPrompt

    tokenizer = llm.get_tokenizer()
    sampling = SamplingParams(temperature=0.0, max_tokens=max_tokens)
    found: Found = {"seconds": [], "prompt": [], "answer": []}
    for chat in [*chats[:WARM], *chats]:
        start = time.perf_counter()
        prompt = engine.tokens(tokenizer, chat)
        [out] = llm.generate([TokensPrompt(prompt_token_ids=prompt)], sampling, use_tqdm=False)
        found["seconds"].append(time.perf_counter() - start)
        found["prompt"].append(len(prompt))
        found["answer"].append(len(out.outputs[0].token_ids))
    system = [chat[0]["content"] for chat in chats if chat[0]["role"] == "system"]
    tokens = [len(tokenizer.encode(text, add_special_tokens=False)) for text in system]
    return {name: values[WARM:] for name, values in found.items()} | {"system": tokens or [0]}


def block(job: Found) -> Found:
    """`ask` in a process of its own: two engines in one share its threads and memory."""
    with tempfile.TemporaryDirectory() as name:
        source, target = Path(name) / "job.json", Path(name) / "found.json"
        source.write_text(json.dumps(job), encoding="utf-8")
        done = subprocess.run(
            [sys.executable, "-m", "bench.requests", "--job", str(source), str(target)],
            env=os.environ | {"VLLM_LOGGING_LEVEL": "ERROR"},
            capture_output=True,
            text=True,
        )
        if done.returncode:
            said = done.stdout[-2000:] + done.stderr[-2000:]
            raise errors.UserError(f"{job['model']} did not answer:\n{said}")
        return dict(json.loads(target.read_text(encoding="utf-8")))


def summary(
    blocks: list[Found], model: str, price_in: float | None, price_out: float | None
) -> Found:
    """A model's figures over all its blocks; the cost is null without prices."""
    every = {name: [value for one in blocks for value in one[name]] for name in blocks[0]}
    prompt, answer = fmean(every["prompt"]), fmean(every["answer"])
    known = price_in is not None and price_out is not None
    return {
        "model": model,
        "tokenizer": model,
        "requests": len(every["seconds"]),
        "system_tokens": round(fmean(every["system"]), 1),
        "prompt_tokens": round(prompt, 1),
        "completion_tokens": round(answer, 1),
        "latency_median": median(every["seconds"]),
        "latency_p95": quantiles(every["seconds"], n=20, method="inclusive")[-1],
        "cost": (prompt * (price_in or 0) + answer * (price_out or 0)) / 1e6 if known else None,
    }


def table(found: Found) -> str:
    """The figures of both models, in Markdown, and what they are counted by."""
    lines = [
        "| | system | prompt | answer | median s | p95 s | a million requests |",
        "|---|---|---|---|---|---|---|",
    ]
    for name in ("before", "after"):
        one = found[name]
        money = "" if one["cost"] is None else f"{one['cost'] * 1e6:,.2f}"
        lines.append(
            f"| {name} | {one['system_tokens']:,.0f} | {one['prompt_tokens']:,.0f} | "
            f"{one['completion_tokens']:,.0f} | {one['latency_median']:.3f} | "
            f"{one['latency_p95']:.3f} | {money} |"
        )
    lines += [
        f"{name}: {found[name]['model']}, tokens by its own tokenizer"
        for name in ("before", "after")
    ]
    cost = "no prices given (--price-in, --price-out)"
    if found["after"]["cost"] is not None:
        prices = "your prices of {in:g} and {out:g} a million tokens".format(**found["prices"])
        cost = f"at {prices}, the same for both"
    return "\n".join([*lines, f"cost: {cost}"])


def words(t: settings.Task, count: int) -> str:
    """A Markdown table of the first test rows with the answers before and after."""
    tests = jsonl.read_jsonl(t.data / "4-test.jsonl")[:count]
    files = [predictions.folder(t, model) / "test.jsonl" for model in ("base", "sft")]
    answers = [{row["id"]: row["answer"] for row in jsonl.read_jsonl(file)} for file in files]
    fields = t.config["input"]
    lines = [f"| {', '.join(fields)} | before | after |", "|---|---|---|"]
    for test in tests:
        asked = "; ".join(str(test[name]) for name in fields)
        cells = [asked, *(by_id[test["id"]] for by_id in answers)]
        lines.append(f"| {' | '.join(map(cell, cells))} |")
    return "\n".join(lines)


def cell(text: str) -> str:
    """The text in one cell of a Markdown table: one line, cut off where it is long."""
    line = " ".join((text or "").split())
    return (line[:SHOWN] + "…" if len(line) > SHOWN else line).replace("|", "\\|")


def main() -> None:
    parser = argparse.ArgumentParser(description="See the head of bench/requests.py.")
    parser.add_argument("--model", help="the model before; left out, that of params.yaml")
    parser.add_argument("--rows", type=int, default=50, help="test rows, from the first; 0 = all")
    parser.add_argument("--rounds", type=int, default=2, help="blocks of each model")
    parser.add_argument("--price-in", type=float, help="your price of a million prompt tokens")
    parser.add_argument("--price-out", type=float, help="your price of a million answer tokens")
    parser.add_argument("--words", type=int, metavar="N", help="N rows with their answers, no more")
    parser.add_argument("--json", type=Path, help="a file for all figures")
    # What a block's own process is told.
    parser.add_argument("--job", nargs=2, type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.job:
        source, target = options.job
        found = ask(**jsonl.read_json(source))
        target.write_text(json.dumps(found), encoding="utf-8")
        return
    t = settings.load()
    p = params.load("model", "model_revision", "predict")
    if options.words:
        print(words(t, options.words))
        return
    tests = t.inputs(t.data / "4-test.jsonl")[: options.rows or None]
    models = {
        "before": (options.model or p.model, "teacher"),
        "after": (str(t.models / "sft" / "merged"), "student"),
    }
    how = [p.predict.max_tokens, p.predict.dtype, p.predict.max_model_len]
    blocks: dict[str, list[Found]] = {name: [] for name in models}
    for number in range(1, options.rounds + 1):
        for name, (model, kind) in models.items():
            chats = [t.messages(kind, row) for row in tests]
            job = {"model": model, "revision": p.model_revision, "chats": chats, "settings": how}
            blocks[name].append(block(job))
            seconds = sum(blocks[name][-1]["seconds"])
            print(f"round {number}: {name}, {seconds:.1f} s", file=sys.stderr, flush=True)
    machine = {"python": platform.python_version(), "cores": os.cpu_count()}
    found = {
        "machine": machine | {"system": platform.platform()},
        "task": t.name,
        "rows": len(tests),
        "rounds": options.rounds,
        "prices": {"in": options.price_in, "out": options.price_out},
    }
    for name, (model, _) in models.items():
        found[name] = summary(blocks[name], model, options.price_in, options.price_out)
    print(table(found))
    if options.json:
        jsonl.write_json(options.json, found)


if __name__ == "__main__":
    stage.run(main)
