"""The student's server under load: python -m bench.serve in a task's folder (`make bench-serve`).

First ours without and with speculation, which tells `make serve` whether speculation pays. Then
three servers: ours as `make serve` now starts it, bare vLLM with the same settings, and vLLM with
its defaults, each of the two with its own key check. A closed loop of users on loopback asks for
the test rows; vLLM gets the requests that ours makes of the inputs, so the difference is the
gateway's. The servers take turns, so that whatever else the machine does hits all.

→ reports/serving.json. Where TEACHER_BASE_URL is set, the teacher's latency stands beside.
"""

import argparse
import asyncio
import itertools
import json
import os
import statistics
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import aiohttp
import httpx
import jsonschema
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from potstill.core import jsonl, params, stage
from potstill.core.jsonl import Row
from potstill.serving import gateway, quantize, serve
from potstill.task import settings
from potstill.task.settings import Task
from potstill.training import model_folder

USERS = (1, 8, 32, 128)
TARGET = 0.5  # seconds, for the 95th percentile
KEY = "bench-key-of-no-secret"
# Of our settings, those that change what is answered, or are needed to start.
USUAL = "model served-model-name dtype max-model-len kv-cache-memory-bytes".split()
USUAL += ["default-chat-template-kwargs", "structured-outputs-config"]
WORDS = "users p50_ms p95_ms p99_ms requests_per_second tokens_per_second errors".split()
OURS, VLLM = ["potstill.serving.serve", "--speculative"], "vllm.entrypoints.openai.api_server"
Body = dict[str, Any]


def server(command: list[str], settings: dict[str, str]) -> AbstractContextManager[str]:
    """The URL of a server `python -m command`, healthy until the end of the block, with `settings`
    in its environment."""
    own = {"VLLM_LOGGING_LEVEL": "ERROR", gateway.KEY: KEY, "VLLM_API_KEY": KEY}
    env = model_folder.environment(hub=False) | settings | own
    return quantize.server([sys.executable, "-m", *command, "--host", "127.0.0.1"], env)


@dataclass
class Load:
    """What came of one pass: seconds of each answer, completion tokens, seconds of it all, and the
    answers in the order of the bodies ("" for an error)."""

    took: list[float]
    tokens: int
    seconds: float
    answers: list[str]


def load(url: str, bodies: list[Body], users: int, key: str = KEY) -> Load:
    """All bodies once, by so many users at once, each of whom waits for an answer before the next
    question."""
    done = Load([], 0, 0.0, [""] * len(bodies))

    async def user(session: aiohttp.ClientSession, waiting: Iterator[tuple[int, Body]]) -> None:
        for i, body in waiting:
            begun = time.monotonic()
            try:
                async with session.post(f"{url}/v1/chat/completions", json=body) as reply:
                    found = await reply.json() if reply.status == 200 else None
            except (aiohttp.ClientError, TimeoutError):
                found = None
            if found:
                done.took.append(time.monotonic() - begun)
                done.answers[i] = found["choices"][0]["message"]["content"]
                done.tokens += found["usage"]["completion_tokens"]

    async def all_users() -> None:
        waiting = iter(enumerate(bodies))
        auth = {"Authorization": f"Bearer {key}"}
        limits, end = aiohttp.TCPConnector(limit=0), aiohttp.ClientTimeout(600)
        async with aiohttp.ClientSession(headers=auth, connector=limits, timeout=end) as session:
            await asyncio.gather(*(user(session, waiting) for _ in range(users)))

    start = time.monotonic()
    asyncio.run(all_users())
    done.seconds = time.monotonic() - start
    return done


def figures(users: int, loads: list[Load]) -> Row:
    """The latency's percentiles in ms, requests and tokens a second, and errors, of some passes
    together."""
    took = sorted(seconds for part in loads for seconds in part.took) or [float("nan")]
    seconds = sum(part.seconds for part in loads)
    answered = sum(len(part.took) for part in loads)
    tokens = sum(part.tokens for part in loads)
    at = [took[min(len(took) - 1, len(took) * q // 100)] for q in (50, 95, 99)]
    rates = [round(count / seconds, 1) for count in (answered, tokens)]
    errors = sum(len(part.answers) for part in loads) - answered
    values = [users, *(round(1000 * value, 1) for value in at), *rates, errors]
    return dict(zip(WORDS, values, strict=True))


def turns(servers: dict[str, tuple[str, list[Body]]], users: int, count: int) -> list[Row]:
    """The figures of servers under the same load, in the order A B B A, so that what else the
    machine does hits both. A fifth of `count` is asked for, and a fiftieth more for each user."""
    count = max(2, count // 10 + users * count // 100)
    loads = []
    for name in [*servers, *reversed(servers)]:
        url, bodies = servers[name]
        asked = list(itertools.islice(itertools.cycle(bodies), count))
        loads.append((name, load(url, asked, users)))
    rows = []
    for name in servers:
        row = figures(users, [part for other, part in loads if other == name])
        print("|", name, *(f"| {value:,}" for value in row.values()), "|", flush=True)
        rows.append({"server": name} | row)
    return rows


def gateway_ms(inputs: list[Body]) -> float:
    """The gateway's own milliseconds, the median over the inputs, around an app that answers at
    once: two equal servers differ by more (measured: 4 to 8 ms of a median of 185), so a difference
    between servers can't show it."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await Request(scope, receive).json()
        await JSONResponse({})(scope, receive, send)

    async def took(one: ASGIApp) -> list[float]:
        found, auth = [], {"Authorization": f"Bearer {KEY}"}
        transport = httpx.ASGITransport(one)
        async with httpx.AsyncClient(
            transport=transport, base_url="http://here", headers=auth
        ) as client:
            for body in inputs:
                begun = time.perf_counter()
                (await client.post("/v1/chat/completions", json=body)).raise_for_status()
                found.append(1000 * (time.perf_counter() - begun))
        return found

    without, around = asyncio.run(took(app)), asyncio.run(took(gateway.Gateway(app)))
    return round(statistics.median(b - a for a, b in zip(without, around, strict=True)), 2)


def counters(url: str) -> tuple[float, float]:
    """Tokens that speculation has guessed so far, and how many of them were right."""
    request = urllib.request.Request(f"{url}/metrics", headers={"Authorization": f"Bearer {KEY}"})
    with urllib.request.urlopen(request) as reply:
        lines = reply.read().decode().splitlines()
    names = (
        "vllm:spec_decode_num_draft_tokens_total",
        "vllm:spec_decode_num_accepted_tokens_total",
    )
    drafted, accepted = (
        sum(float(line.split()[-1]) for line in lines if line.startswith(name)) for name in names
    )
    return drafted, accepted


def most_users(url: str, bodies: list[Body], known: list[Row]) -> int:
    """The highest number of users at once with which the 95th percentile stays below TARGET, to an
    eighth of it; 0 for none. It looks on from where the rows `known` of our server end."""

    def holds(row: Row) -> bool:
        return not row["errors"] and row["p95_ms"] < 1000 * TARGET

    def tried(users: int) -> bool:
        asked = itertools.islice(itertools.cycle(bodies), max(64, 4 * users))
        return holds(figures(users, [load(url, list(asked), users)]))

    low = max((row["users"] for row in known if holds(row)), default=0)
    high = min((row["users"] for row in known if not holds(row) and row["users"] > low), default=0)
    while not high:
        low, high = (max(1, 2 * low), 0) if tried(max(1, 2 * low)) else (low, max(1, 2 * low))
    while high - low > max(1, low // 8):
        middle = (low + high) // 2
        low, high = (middle, high) if tried(middle) else (low, middle)
    return low


def invalid(t: Task, answers: list[str]) -> int:
    """Answers that do not obey the task's schema."""
    validator = jsonschema.Draft202012Validator(t.schema)
    count = 0
    for text in answers:
        try:
            count += not validator.is_valid(json.loads(text))
        except ValueError:
            count += 1
    return count


def speculated(t: Task, tests: list[Row], inputs: list[Body], draft: str) -> Row:
    """Ours without speculation and with each kind of it, n-gram and the folder `draft` if it names
    one: what serving.json has of that, with the better default as "speculative"."""
    found: Row = {"speculation": []}
    with server([*OURS, "off"], serve.on_cpu()) as url:
        load(url, inputs[:16], 8)  # the kernels and the grammar are made at their first use
        one, two = (load(url, inputs, 32).answers for _ in range(2))
        for kind in ("ngram", *([draft] if "/" in draft else [])):
            with server([*OURS, kind], serve.on_cpu()) as other:
                load(other, inputs[:16], 8)
                before, gain = counters(other), {}
                for users in (1, 8):
                    both = {"ours, off": (url, inputs), f"ours, {kind}": (other, inputs)}
                    off, on = turns(both, users, len(tests))
                    found["speculation"] += [off, on]
                    gain[str(users)] = round(on["tokens_per_second"] / off["tokens_per_second"], 3)
                now = counters(other)
                answers = load(other, inputs, 32).answers
            drafted, accepted = now[0] - before[0], now[1] - before[1]
            rate = round(accepted / drafted, 3) if drafted else None
            hop = quantize.same(t, tests, one, answers, (one, two))
            found[kind] = {"acceptance": rate, "gain": gain, **hop}
    ngram = found["ngram"]
    wins = ngram["passed"] and min(ngram["gain"].values()) > 1
    return found | {"speculative": "ngram" if wins else "off"}


def main() -> None:
    p = params.load("predict", "serve", "teacher")
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=500, help="test rows, from the first")
    parser.add_argument("--users", type=int, nargs="*", default=USERS)
    given = parser.parse_args()
    t = settings.load()
    model = serve.student_folder(t)
    tests = t.inputs(t.data / "4-test.jsonl", "slice")[: given.rows]
    evaluated = quantize.evaluated(t)[: len(tests)]
    os.environ[gateway.KEY] = KEY
    inputs = [{"input": {name: row[name] for name in t.config["input"]}} for row in tests]
    filled = [gateway.Gateway(None).filled(body) for body in inputs]  # type: ignore[arg-type]
    plain = [body | {"response_format": {"type": "text"}} for body in inputs]
    found: Row = {"rows": len(tests), "load": [], "speculation": []}
    found["gateway_ms"] = gateway_ms(inputs)
    print("| | users | p50 ms | p95 ms | p99 ms | requests/s | tokens/s | errors |")
    print("|---|---|---|---|---|---|---|---|")
    found |= speculated(t, tests, inputs, p.serve.speculative)
    ahead = found["speculative"] if p.serve.speculative == "auto" else p.serve.speculative
    words = serve.arguments(t, model, p.predict.dtype, p.predict.max_model_len, ahead)
    del words[(place := words.index("--middleware")) : place + 2]
    values = dict(itertools.pairwise(words))
    flags = [f"--{name}" for name in USUAL if f"--{name}" in values]
    usual = [word for flag in flags for word in (flag, values[flag])]
    with server([*OURS, ahead], serve.on_cpu()) as url:
        with server([VLLM, *words], serve.on_cpu()) as bare, server([VLLM, *usual], {}) as defaults:
            servers = {"vLLM, defaults": (defaults, filled), "bare vLLM": (bare, filled)}
            servers["ours"] = url, inputs
            for where, bodies in servers.values():
                load(where, bodies[:16], 8)
            for users in given.users:
                found["load"] += turns(servers, users, len(tests))
        known = [row for row in found["load"] if row["server"] == "ours"]
        found["most_users"] = most_users(url, inputs, known)
        for name, bodies in {"served": plain, "guided": inputs}.items():
            one, two = (load(url, bodies, 32).answers for _ in range(2))
            found[name] = quantize.same(t, tests, evaluated, one, (one, two))
        if gateway.response_format(t):
            found["guided"]["invalid"] = invalid(t, one)
    if os.environ.get("TEACHER_BASE_URL") and p.teacher.model not in ("scripted", "auto"):
        common = {"model": p.teacher.model, "max_tokens": p.teacher.max_tokens}
        asked = [common | {"messages": t.messages("teacher", row)} for row in tests[:20]]
        base = os.environ["TEACHER_BASE_URL"].rstrip("/").removesuffix("/v1")
        teacher = figures(1, [load(base, asked, 1, os.environ.get("TEACHER_API_KEY", ""))])
        found["load"].append({"server": f"teacher {p.teacher.model}", **teacher})
    jsonl.write_json(t.reports / "serving.json", found)
    for name in ("gateway_ms", "most_users", "served", "guided", "ngram", "speculative"):
        print(f"{name}: {json.dumps(found[name])}")


if __name__ == "__main__":
    stage.run(main)
