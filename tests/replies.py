"""Generated replies of a teacher, of every kind that an endpoint may send, and a run through them
that is held against the fake teacher's own ledger.

    python -m tests.replies --replies 20000

prints how many were asked for, what became of the rows, and the faults: rows unaccounted for,
received replies that the journal lacks, money spent past the budget. It exits with 1 where there is
one. The tests run a small share of it.
"""

import argparse
import copy
import faulthandler
import gzip
import json
import os
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from aiohttp import web
from hypothesis import strategies as st

from potstill.checks import registry
from potstill.core import jsonl
from potstill.core.errors import UserError
from potstill.task import settings
from potstill.teacher import asking, client
from tests.conftest import Body, FakeTeacher, Project, serving

ANSWER = r"{\"word\": \"word3\", \"length\": 5}"
USAGE = '{"prompt_tokens": 20, "completion_tokens": 30, "total_tokens": 50}'


def _chat(message: str = "", usage: str = USAGE, finish: str = '"stop"', more: str = "") -> str:
    message = message or f'"content": "{ANSWER}"'
    choice = f'{{"index": 0, "message": {{"role": "assistant", {message}}}, '
    choice += f'"finish_reason": {finish}{more}}}'
    return f'{{"object": "chat.completion", "choices": [{choice}], "usage": {usage}}}'


# One reply of each dialect, with one answer: 20 tokens of prompt, 30 of answer and thinking.
DIALECTS: dict[str, str] = {
    "openai": _chat(
        f'"content": "{ANSWER}", "refusal": null, "annotations": []',
        USAGE[:-1] + ', "prompt_tokens_details": {"cached_tokens": 16, "audio_tokens": 0}, '
        '"completion_tokens_details": {"reasoning_tokens": 12}}',
        more=', "logprobs": null',
    ),
    "azure": _chat(more=', "content_filter_results": {"hate": {"filtered": false}}'),
    "anthropic-compatible": _chat(f'"content": [{{"type": "text", "text": "{ANSWER}"}}]'),
    "anthropic": f'{{"type": "message", "role": "assistant", "content": [{{"type": "thinking", '
    f'"thinking": "six letters"}}, {{"type": "text", "text": "{ANSWER}"}}], "stop_reason": '
    '"end_turn", "usage": {"input_tokens": 4, "cache_read_input_tokens": 16, "output_tokens": 30}}',
    "gemini-compatible": _chat(
        usage='{"prompt_tokens": 20, "completion_tokens": 12, "total_tokens": 50}', finish='"STOP"'
    ),
    "gemini": f'{{"candidates": [{{"content": {{"parts": [{{"text": "{ANSWER}"}}], "role": "model"'
    '}, "finishReason": "STOP"}], "usageMetadata": {"promptTokenCount": 20, "candidatesTokenCount":'
    ' 12, "thoughtsTokenCount": 18, "totalTokenCount": 50}}',
    "deepseek": _chat(
        f'"content": "{ANSWER}", "reasoning_content": "six letters"',
        USAGE[:-1] + ', "prompt_cache_hit_tokens": 16, "prompt_cache_miss_tokens": 4}',
    ),
    "qwen": _chat(f'"content": "{ANSWER}", "reasoning_content": ""'),
    "dashscope": f'{{"output": {{"choices": [{{"finish_reason": "stop", "message": {{"content": '
    f'"{ANSWER}"}}}}]}}, "usage": {{"input_tokens": 20, "output_tokens": 30}}, "request_id": "x"}}',
    "mistral": _chat(
        '"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "six letters"}]}, '
        f'{{"type": "text", "text": "{ANSWER}"}}], "tool_calls": null'
    ),
    "groq": _chat(f'"content": "{ANSWER}", "reasoning": "six letters"')[:-1] + ', "x_groq": {}}',
    "together": _chat(finish='"eos"', usage=USAGE[:-1] + ', "cached_tokens": 16}'),
    "openrouter": _chat(
        f'"content": "{ANSWER}", "reasoning": "six letters", "reasoning_details": [{{"type": '
        '"reasoning.text", "text": "six letters"}]',
        more=', "native_finish_reason": "completed"',
    ),
    "vllm": _chat(
        f'"content": "{ANSWER}", "reasoning_content": null, "tool_calls": []',
        USAGE[:-1] + ', "prompt_tokens_details": null}',
        more=', "stop_reason": 151645',
    ),
    "sglang": _chat(usage=USAGE[:-1] + ', "reasoning_tokens": 12}', more=', "matched_stop": 2'),
    "ollama": f'{{"message": {{"role": "assistant", "content": "{ANSWER}", "thinking": '
    '"six letters"}, "done": true, "done_reason": "stop", "prompt_eval_count": 20, '
    '"eval_count": 30}',
    "ollama-compatible": _chat(f'"content": "<think>six letters</think>\\n{ANSWER}"'),
    "llama.cpp": _chat()[:-1] + ', "timings": {"prompt_n": 4, "predicted_n": 30}}',
    "grok": _chat(
        usage='{"prompt_tokens": 20, "completion_tokens": 12, "total_tokens": 50, '
        '"completion_tokens_details": {"reasoning_tokens": 18}}'
    ),
    "completions": f'{{"choices": [{{"text": "{ANSWER}", "finish_reason": "eos_token"}}], '
    f'"usage": {USAGE}}}',
}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=8,
)
VALUES: list[Any] = [
    None, True, False, 0, -1, 12345, 1e30, 10**30, "", "12", "many", "\ud83d", "\x00", "word", [],
    {}, [None], [1, "a"], {"a": 1}, {"type": "text"}, [{"type": "text", "text": "x"}],
    [{"type": "image_url"}], {"message": "no"}, "<think>", "</think>", "x" * 5000, [[[[[]]]]],
]  # fmt: skip
ENDS = """stop eos eos_token end_turn STOP stop_sequence length max_tokens MAX_TOKENS SAFETY
content_filter tool_calls abort error unheard_of""".split()


def mutated(value: Any, new: Any, chance: random.Random) -> Any:
    """The value with `new` at one of its places, or with one of its keys gone."""
    value = copy.deepcopy(value)
    places: list[tuple[Any, Any]] = []
    left = [value]
    while left:
        one = left.pop()
        keys = list(one) if isinstance(one, dict) else range(len(one) if type(one) is list else 0)
        places += [(one, key) for key in keys]
        left += [one[key] for key in keys]
    if not places or chance.random() < 0.02:
        return new
    holder, key = chance.choice(places)
    if isinstance(holder, dict) and chance.random() < 0.2:
        del holder[key]
    else:
        holder[key] = new
    return value


class Made:
    """A generated reply: status, headers and body, and what it truly cost in tokens."""

    def __init__(self, chance: random.Random, word: str) -> None:
        self.status, self.headers = 200, {"Content-Type": "application/json"}
        self.billed = (7, 3)
        kinds: dict[Callable[[random.Random, str], bytes], int] = {
            self.dialect: 40, self.thinking: 8, self.wrapped: 8, self.usage: 10, self.json: 16,
            self.error: 8, self.garbled: 5, self.refused: 5,
        }  # fmt: skip
        [make] = chance.choices([*kinds], [*kinds.values()])
        self.body = make(chance, word)

    def _reply(self, text: str, **more: Any) -> Body:
        message = {"role": "assistant", "content": text}
        choice = {"index": 0, "message": message, "finish_reason": "stop"} | more
        used = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
        return {"choices": [choice], "usage": used}

    def dialect(self, chance: random.Random, word: str) -> bytes:
        text = DIALECTS[chance.choice([*DIALECTS])].replace("word3", word)
        self.billed = (20, 30)
        return text.replace('"stop"', json.dumps(chance.choice([*ENDS, *["stop"] * 20]))).encode()

    def thinking(self, chance: random.Random, word: str) -> bytes:
        marks = "<think> </think>,<thinking> </thinking>,◁think▷ ◁/think▷,[THINK] [/THINK]"
        first, last = chance.choice(marks.split(",")).split()
        text = json.dumps({"word": word, "length": len(word)})
        form = chance.choice(["{}hm{}{}", "hm{1}{2}", "{0}hm", "{0}a{0}b{1}{2}", "{0}a{1}{2}{0}"])
        return json.dumps(self._reply(form.format(first, last, text))).encode()

    def wrapped(self, chance: random.Random, word: str) -> bytes:
        text = json.dumps({"word": word, "length": len(word)})
        forms = ["```json\n%s\n```", "```\n%s\n```", "Here: %s.", " %s\n", "%s,", "[%s]", "%s%s"]
        form = chance.choice(forms)
        return json.dumps(self._reply(form % ((text,) * form.count("%s")))).encode()

    def usage(self, chance: random.Random, word: str) -> bytes:
        """What the counts say is less than the truth only where reasoning shows in the total."""
        body = self._reply(json.dumps({"word": word, "length": len(word)}))
        hidden = chance.randrange(60)
        used: Any = chance.choice(
            [None, "none", [], {}, {"prompt_tokens": None}, {"completion_tokens": "3"}]
        )
        if chance.random() < 0.5:
            used = {"prompt_tokens": 7, "completion_tokens": "3", "total_tokens": 10 + hidden}
            self.billed = (7, 3 + hidden)
        elif chance.random() < 0.5:
            used = body["usage"] | {chance.choice([*body["usage"]]): chance.choice(VALUES)}
        return json.dumps(body | {"usage": used}).encode()

    def json(self, chance: random.Random, word: str) -> bytes:
        body = self._reply(json.dumps({"word": word, "length": len(word)}))
        used = body["usage"]
        body = mutated(body, chance.choice(VALUES), chance)
        if not isinstance(body, dict) or body.get("usage") != used:
            self.billed = (0, 0)
        return json.dumps(body).encode()

    def error(self, chance: random.Random, word: str) -> bytes:
        error: Any = {"message": f"no {word}", "type": chance.choice(["server_error", "x", None])}
        error["code"] = chance.choice([None, 400, 502, "503", 422, "content_filter", "odd"])
        self.billed = (0, 0)
        bodies = [{"error": error}, [{"error": error}], {"error": f"no {word}"}, {"choices": []}]
        body = chance.choice([*bodies, {"detail": "no"}, error, {"choices": None}, {}, None, "no"])
        if isinstance(body, dict) and chance.random() < 0.3:
            self.billed, body = (7, 0), body | {"usage": {"prompt_tokens": 7}}
        return json.dumps(body).encode()

    def garbled(self, chance: random.Random, word: str) -> bytes:
        whole = json.dumps(self._reply(word)).encode()
        odd = [whole[: len(whole) // 2], b"", b"<html>no</html>", chance.randbytes(50), whole * 2]
        odd += [whole.decode().encode("utf-16"), b"\xff" + whole, b"data: " + whole, b"[" * 9999]
        if chance.random() < 0.2:
            name, value = chance.choice(["gzip", "deflate", "br", "x"]), b"no gzip"
            self.headers["Content-Encoding"] = name
            return gzip.compress(whole) if name == "gzip" and chance.random() < 0.5 else value
        self.headers["Content-Type"] = chance.choice(["text/html", "text/event-stream", "x", ""])
        return chance.choice(odd)

    def refused(self, chance: random.Random, word: str) -> bytes:
        self.status = chance.choice([400, 408, 413, 422, 429, 451, 500, 502, 503, 504, 529])
        self.billed = (0, 0)
        if chance.random() < 0.5:
            self.headers["Retry-After"] = chance.choice(["0", "0.01", "soon", "", "-1"])
        return chance.choice(
            [b"", b"no", b"\xff", json.dumps({"error": {"message": word}}).encode()]
        )


class Ledger:
    """What the fake teacher sent and what it cost, in its own books."""

    prices = (10.0, 30.0)

    def __init__(self, fake: FakeTeacher, seed: str) -> None:
        self.seed, self.sent = seed, 0
        self.tries: Counter[str] = Counter()
        self.received: Counter[str] = Counter()  # by row: replies with a good status
        self.spent = 0.0
        fake.behave = self.behave

    async def behave(self, n: int, body: Body, request: web.Request) -> web.StreamResponse:
        word = body["messages"][-1]["content"].split()[-1]
        self.tries[word] += 1
        self.sent += 1
        made = Made(random.Random(f"{self.seed} {word} {self.tries[word]}"), word)
        self.spent += sum(a * b for a, b in zip(made.billed, self.prices, strict=True)) / 1e6
        encoded = "Content-Encoding" in made.headers
        self.received[word] += made.status < 400 and not encoded
        return web.Response(status=made.status, body=made.body, headers=made.headers)


def run(fake: FakeTeacher, rows: int, seed: str, budget: float | None) -> Counter[str]:
    """Asks for the answers to so many rows until all are accounted for, the first time with a
    budget. Returns what became of them, and each fault that there was."""
    ledger, found = Ledger(fake, seed), Counter[str]()
    values: dict[str, Any] = {"model": f"fake-{seed}", "temperature": 0.0, "max_tokens": 64}
    values |= {"concurrency": 16, "timeout": 20, "retries": 3, "redraw": 0, "extra_body": {}}
    values |= {"batch": False, "rpm": None, "tpm": None, "budget": budget, "price_cached": None}
    values |= {"shards": 1} | dict(zip(("price_in", "price_out"), ledger.prices, strict=True))
    params, task = SimpleNamespace(**values), settings.load()
    inputs = [{"id": f"r{i}", "text": f"ends in word{i}"} for i in range(rows)]
    answers: list[jsonl.Row] = []
    for found["runs"] in range(1, 61):
        try:
            answers = list(asking.answer_rows(task, inputs, params, 1))
            break
        except UserError as error:
            found[f"ended: {str(error).split(',')[0].split(' is used')[0][:24]}"] += 1
            if params.budget is not None and "is used up" in str(error):
                found["FAULT: spent past the budget"] += ledger.spent > params.budget
                found["budgets used up"] += 1
                params.budget = None
    found["FAULT: rows unaccounted for"] += rows - len(answers)
    journal = Counter[str]()
    for line in asking.open_journal(task).path.read_bytes().splitlines():
        row = json.loads(line)["row"]
        journal[row["key"]] += row["model"] == params.model
    for row, answer in zip(inputs, answers, strict=False):
        received = ledger.received[row["text"].split()[-1]]
        found["FAULT: received and not in the journal"] += journal[answer["key"]] < received
        text = registry.taught(task, answer)
        if answer["error"]:
            kind = "malformed" if "malformed: " in answer["error"] else "refused"
        else:
            good = answer["finish_reason"] == "stop" and not registry.check(task, row, text)
            kind = "answered" if good else "dropped by its checks"
        found[kind] += 1
    jsonl.write_jsonl("data/2-answers.jsonl", answers)
    found["FAULT: rows lost on the disk"] += len(jsonl.read_jsonl("data/2-answers.jsonl")) - rows
    found["replies"] = ledger.sent
    return found


def total(replies: int, seed: int = 0, rows: int = 400) -> Counter[str]:
    """Runs until so many replies were sent, every other one with a budget for a third of it."""
    found = Counter[str]()
    with serving() as fake:
        os.environ |= fake.env()
        while found["replies"] < replies:
            budget = rows * 3e-4 / 3 if found["batches"] % 2 else None
            found += run(fake, rows, f"{seed}-{found['batches']}", budget)
            found["batches"] += 1
    return found


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.replies")
    parser.add_argument("--replies", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    faulthandler.dump_traceback_later(3600, exit=True)
    client.FIRST_DELAY, start = 0.01, time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        os.environ["DVC_ROOT"] = "."
        Project(Path(folder))
        sys.stderr = (Path(folder) / "said").open("w")  # a line a run, and a run a batch
        found = total(options.replies, options.seed)
        said = (Path(folder) / "said").read_text()
    found["FAULT: tracebacks"] = said.count("Traceback")
    for name, count in sorted(found.items()):
        print(f"{count:8,}  {name}")
    print(f"{time.monotonic() - start:8.0f}  seconds")
    sys.exit(any(count for name, count in found.items() if name.startswith("FAULT")))


if __name__ == "__main__":
    main()
