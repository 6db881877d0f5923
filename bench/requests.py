"""What one request costs before the training and after it: python -m bench.requests [--json FILE], from the repository root.

Before is the model of params.yaml (or --model) with the teacher's long prompt, after the student with its short one, both asked about
the same test rows of the active task, one request at a time through vLLM in its own process, in blocks that take turns: before,
after, before, after. `system` is the tokens of the system prompt, `prompt` those of the whole request with the chat template,
`answer` what is generated, all by the model's own tokenizer, which the table names; `median` and `p95` are seconds a request,
without the first few of a block. The cost of a request is what its tokens cost at the prices that you give.

--words N prints a table of N test rows with the answers before and after, from 5-predictions/base/test.jsonl and -sft.jsonl, and
measures nothing.
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
from types import SimpleNamespace
from typing import Any

from potstill.core import errors, jsonl, params
from potstill.inference import engine
from potstill.task import settings
from potstill.training import model_folder

Found = dict[str, Any]
WARM = 3  # requests of a block that are not counted
SHOWN = 80  # characters of an answer in the table of --words


def ask(model: str, revision: str, chats: list[list[dict[str, str]]], settings: list[Any]) -> Found:
    """Asks one request after the other. Gives the seconds and tokens of each, and the tokens of the system prompt."""
    max_tokens, dtype, max_model_len = settings
    llm = engine._engine(
        model, dtype, max_model_len, revision if model_folder.at_hub(model) else None
    )
    from vllm import SamplingParams, TokensPrompt

    tokenizer, sampling = (
        llm.get_tokenizer(),
        SamplingParams(temperature=0.0, max_tokens=max_tokens),
    )
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
            raise errors.UserError(
                f"{job['model']} did not answer:\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
            )
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
            f"| {name} | {one['system_tokens']:,.0f} | {one['prompt_tokens']:,.0f} | {one['completion_tokens']:,.0f} | "
            f"{one['latency_median']:.3f} | {one['latency_p95']:.3f} | {money} |"
        )
    lines += [
        f"{name}: {found[name]['model']}, tokens by its own tokenizer"
        for name in ("before", "after")
    ]
    prices = found["prices"]
    lines.append(
        "cost: no prices given (--price-in, --price-out)"
        if found["after"]["cost"] is None
        else f"cost: at your prices of {prices['in']:g} and {prices['out']:g} a million tokens, the same for both"
    )
    return "\n".join(lines)


def words(t: settings.Task, count: int) -> str:
    """A Markdown table of the first test rows with the answers before and after."""
    tests = jsonl.read_jsonl(t.data / "4-test.jsonl")[:count]
    answers = [
        {
            row["id"]: row["answer"]
            for row in jsonl.read_jsonl(t.data / f"5-predictions-{model}.jsonl")
        }
        for model in ("base", "sft")
    ]
    fields = t.config["input"]
    lines = [f"| {', '.join(fields)} | before | after |", "|---|---|---|"]
    for test in tests:
        asked = "; ".join(str(test[name]) for name in fields)
        lines.append(
            "| " + " | ".join(map(cell, (asked, *(found[test["id"]] for found in answers)))) + " |"
        )
    return "\n".join(lines)


def cell(text: str) -> str:
    """The text in one cell of a Markdown table: one line, cut off where it is long."""
    line = " ".join((text or "").split())
    return (line[:SHOWN] + "…" if len(line) > SHOWN else line).replace("|", "\\|")


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m bench.requests", description="See the head of bench/requests.py."
    )
    parser.add_argument(
        "--model", help="the model before; that of params.yaml where this is left out"
    )
    parser.add_argument(
        "--rows", type=int, default=50, help="test rows asked about, the first; 0 = all"
    )
    parser.add_argument("--rounds", type=int, default=2, help="blocks of each model")
    parser.add_argument("--price-in", type=float, help="your price of a million prompt tokens")
    parser.add_argument("--price-out", type=float, help="your price of a million answer tokens")
    parser.add_argument(
        "--words",
        type=int,
        metavar="N",
        help="a table of N rows with their answers, and nothing else",
    )
    parser.add_argument("--json", type=Path, help="a file for all figures")
    parser.add_argument(
        "--job", nargs=2, type=Path, help=argparse.SUPPRESS
    )  # what a block's own process is told
    options = parser.parse_args()
    if options.job:
        source, target = options.job
        target.write_text(
            json.dumps(ask(**json.loads(source.read_text(encoding="utf-8")))), encoding="utf-8"
        )
        return
    p = SimpleNamespace(**params.parse(params.read_text(params.PATH), params.PATH))
    t = settings.load()
    if options.words:
        print(words(t, options.words))
        return
    tests = t.inputs(t.data / "4-test.jsonl")[: options.rows or None]
    models = {
        "before": (options.model or p.model, "teacher"),
        "after": (str(t.models / "sft" / "merged"), "student"),
    }
    settings = [t.settled(p).predict.max_tokens, p.predict.dtype, p.predict.max_model_len]
    blocks: dict[str, list[Found]] = {name: [] for name in models}
    for number in range(1, options.rounds + 1):
        for name, (model, kind) in models.items():
            chats = [t.messages(kind, row) for row in tests]
            job = {
                "model": model,
                "revision": p.model_revision,
                "chats": chats,
                "settings": settings,
            }
            blocks[name].append(block(job))
            print(
                f"round {number}: {name}, {sum(blocks[name][-1]['seconds']):.1f} s",
                file=sys.stderr,
                flush=True,
            )
    found: Found = {
        "machine": {
            "python": platform.python_version(),
            "cores": os.cpu_count(),
            "system": platform.platform(),
        },
        "task": t.name,
        "rows": len(tests),
        "rounds": options.rounds,
        "prices": {"in": options.price_in, "out": options.price_out},
    }
    for name, (model, _) in models.items():
        found[name] = summary(blocks[name], model, options.price_in, options.price_out)
    print(table(found))
    if options.json:
        options.json.write_text(
            json.dumps(found, ensure_ascii=False, indent=2) + "\n", encoding="utf-8"
        )


if __name__ == "__main__":
    errors.run(main)
