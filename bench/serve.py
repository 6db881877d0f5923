"""The student's server under load: python -m bench.serve, from the repository root (`make bench-serve`).

First ours without and with speculation, which tells `make serve` whether that is worth its while. Then ours as `make serve` now
starts it, bare vLLM with the same settings, and vLLM with its defaults, each of the two with its own key check. A closed loop of users
on loopback asks for the test rows; vLLM gets the requests that ours makes of the inputs, so the difference is the gateway's. The servers take
turns, so that whatever else the machine does hits all. → reports/<task>/serving.json. Where TEACHER_BASE_URL is set, the
teacher's latency stands beside.
"""

import argparse
import asyncio
import itertools
import json
import os
import signal
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import httpx
import jsonschema
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from potstill.core import errors, jsonl, params
from potstill.core.jsonl import Row
from potstill.evaluation import compare, score
from potstill.serving import gateway, quantize, serve
from potstill.task import settings
from potstill.task.settings import Task
from potstill.training import model_folder

USERS = (1, 8, 32, 128)
TARGET = 0.5  # seconds, for the 95th percentile
KEY = "bench-key-of-no-secret"
# of our settings, those that change what is answered, or are needed to start
USUAL = (
    "model",
    "served-model-name",
    "dtype",
    "max-model-len",
    "kv-cache-memory-bytes",
    "default-chat-template-kwargs",
    "structured-outputs-config",
)
Body = dict[str, Any]


@contextmanager
def server(command: list[str], settings: dict[str, str]) -> Iterator[str]:
    """A server's base URL, from the moment that it is healthy to the end of the block, with `settings` in its environment."""
    port = quantize.free_port()
    own = {"VLLM_LOGGING_LEVEL": "ERROR", gateway.KEY: KEY, "VLLM_API_KEY": KEY}
    env = os.environ | model_folder.environment(hub=False) | settings | own
    process = subprocess.Popen(
        [sys.executable, "-m", *command, "--port", str(port)],
        env=env,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    url = f"http://127.0.0.1:{port}"
    try:
        while True:
            try:
                urllib.request.urlopen(f"{url}/health", timeout=5).close()
                break
            except OSError:
                assert process.poll() is None, (
                    f"{command[0]} ended with exit code {process.returncode}"
                )
                time.sleep(0.5)
        yield url
    finally:
        process.terminate()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@dataclass
class Load:
    """What came of one pass: seconds of each answer, completion tokens, wall time, and the answers in the order of the bodies
    (None for an error)."""

    took: list[float]
    tokens: int
    seconds: float
    answers: list[str | None]


def load(url: str, bodies: list[Body], users: int, key: str = KEY) -> Load:
    """All bodies once, by so many users at once, each of whom waits for an answer before the next question."""
    done = Load([], 0, 0.0, [None] * len(bodies))

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
    """Percentiles of the latency in ms, requests and tokens a second, and errors, of some passes together."""
    took = sorted(one for part in loads for one in part.took) or [float("nan")]
    seconds = sum(one.seconds for one in loads)
    found = {
        f"p{q}_ms": round(1000 * took[min(len(took) - 1, len(took) * q // 100)], 1)
        for q in (50, 95, 99)
    }
    answered = sum(len(one.took) for one in loads)
    rates = {"requests_per_second": answered, "tokens_per_second": sum(one.tokens for one in loads)}
    errors = sum(len(one.answers) for one in loads) - answered
    return {
        "users": users,
        **found,
        **{name: round(n / seconds, 1) for name, n in rates.items()},
        "errors": errors,
    }


def turns(servers: dict[str, tuple[str, list[Body]]], users: int, rows: int) -> list[Row]:
    """Servers under the same load, A B B A, so that what else the machine does hits both: {"server", …} of each. A fifth of
    `rows` is asked for, and a fiftieth more for each user."""
    count = max(2, rows // 10 + users * rows // 100)
    some = {
        name: list(itertools.islice(itertools.cycle(bodies), count))
        for name, (_, bodies) in servers.items()
    }
    order = [*servers, *reversed(servers)]
    loads = [(name, load(servers[name][0], some[name], users)) for name in order]
    found = [
        {"server": name} | figures(users, [one for other, one in loads if other == name])
        for name in servers
    ]
    for row in found:
        print(
            "| "
            + " | ".join(f"{value:,}" if name != "server" else value for name, value in row.items())
            + " |",
            flush=True,
        )
    return found


def gateway_ms(inputs: list[Body]) -> float:
    """The gateway's own milliseconds, the median over the inputs, around an app that answers at once: two equal servers differ by
    more (measured: 4 to 8 ms of a median of 185), so a difference between servers can't show it."""

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
    """The highest number of users at once with which the 95th percentile stays below TARGET, to an eighth of it; 0 for none. It
    looks on from where the rows `known` of our server end."""

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


def same(
    t: Task,
    tests: list[Row],
    before: list[str | None],
    after: list[str | None],
    twice: tuple[list[str | None], list[str | None]],
) -> Row:
    """The hop from one run's answers to another's, by the rule of potstill/compare.py; the floor is what changes between the two
    equal runs of `twice`."""
    names = dict(zip(("sft", "adapter", "base", "again"), (before, after, *twice), strict=True))
    texts = {
        name: quantize.predictions(tests, [text or "" for text in some])
        for name, some in names.items()
    }
    marks = score.marked(t, tests, {name: texts[name] for name in ("base", "sft")})
    floor, hop, _ = compare.hops(t, tests, marks, texts, {"lessons": 0, "other_tokens": []})
    right = sum(
        mark["right"] for mark in score.marked(t, tests, {"adapter": texts["adapter"]})["adapter"]
    )
    return (
        {"rows": len(tests), "right": right}
        | {name: hop[name] for name in ("differ", "flips", "p", "passed")}
        | {"floor": floor["flips"]}
    )


def invalid(t: Task, answers: list[str | None]) -> int:
    """Answers that do not obey the task's schema."""
    validator = jsonschema.Draft202012Validator(t.schema)
    count = 0
    for text in answers:
        try:
            count += not validator.is_valid(json.loads(text or ""))
        except ValueError:
            count += 1
    return count


def main() -> None:
    p = params.load(
        "predict.dtype", "max_model_len", "speculative", "teacher.model", "teacher.max_tokens"
    )
    parser = argparse.ArgumentParser()
    parser.add_argument("--task", default=p.task)
    parser.add_argument(
        "--rows", type=int, default=500, help="test rows to take; fewer for a quick look"
    )
    parser.add_argument("--users", type=int, nargs="*", default=USERS)
    given = parser.parse_args()
    t = settings.load(given.task)
    model = serve.student_folder(t)
    shipped = jsonl.read_json(t.data / "6-choice.json")["ship"]
    tests = t.inputs(t.data / "4-test.jsonl", "slice")[: given.rows]
    evaluated = [row["answer"] for row in score.predictions(t, (shipped,))[shipped]][: len(tests)]
    os.environ |= {gateway.KEY: KEY, gateway.TASK: t.name}
    inputs = [{"input": {name: row[name] for name in t.config["input"]}} for row in tests]
    filled = [gateway.Gateway(None).filled(body) for body in inputs]  # type: ignore[arg-type]
    plain = [body | {"response_format": {"type": "text"}} for body in inputs]
    ours, vllm = (
        ["potstill.serving.serve", "--task", t.name, "--speculative"],
        "vllm.entrypoints.openai.api_server",
    )
    found: dict[str, Any] = {
        "rows": len(tests),
        "load": [],
        "speculation": [],
        "gateway_ms": gateway_ms(inputs),
    }
    print(
        "| | users | p50 ms | p95 ms | p99 ms | requests/s | tokens/s | errors |\n|---|---|---|---|---|---|---|---|"
    )
    with server([*ours, "off"], serve.on_cpu()) as url:
        load(url, inputs[:16], 8)  # the kernels and the grammar are made at their first use
        guided = [load(url, inputs, 32).answers for _ in range(2)]
        for kind in ("ngram", *([p.serve.speculative] if "/" in p.serve.speculative else [])):
            with server([*ours, kind], serve.on_cpu()) as other:
                load(other, inputs[:16], 8)
                before, gain = counters(other), {}
                for users in (1, 8):
                    off, on = turns(
                        {"ours, off": (url, inputs), f"ours, {kind}": (other, inputs)},
                        users,
                        len(tests),
                    )
                    found["speculation"] += [off, on]
                    gain[str(users)] = round(on["tokens_per_second"] / off["tokens_per_second"], 3)
                drafted, accepted = (
                    now - then for now, then in zip(counters(other), before, strict=True)
                )
                hop = same(
                    t, tests, guided[0], load(other, inputs, 32).answers, (guided[0], guided[1])
                )
            acceptance = round(accepted / drafted, 3) if drafted else None
            found[kind] = {"acceptance": acceptance, "gain": gain} | hop
    ngram = found["ngram"]
    found["speculative"] = "ngram" if ngram["passed"] and min(ngram["gain"].values()) > 1 else "off"
    ahead = found["speculative"] if p.serve.speculative == "auto" else p.serve.speculative
    words = serve.arguments(
        t, model, "127.0.0.1", 0, p.predict.dtype, p.predict.max_model_len, ahead
    )
    for name in ("--middleware", "--port"):
        del words[words.index(name) : words.index(name) + 2]
    values = dict(itertools.pairwise(words))
    usual = [
        word for name in USUAL if (flag := f"--{name}") in values for word in (flag, values[flag])
    ]
    with server([*ours, ahead], serve.on_cpu()) as url:
        with server([vllm, *words], serve.on_cpu()) as bare, server([vllm, *usual], {}) as defaults:
            servers = {
                "vLLM, defaults": (defaults, filled),
                "bare vLLM": (bare, filled),
                "ours": (url, inputs),
            }
            for where, bodies in servers.values():
                load(where, bodies[:16], 8)
            for users in given.users:
                found["load"] += turns(servers, users, len(tests))
        known = [row for row in found["load"] if row["server"] == "ours"]
        found["most_users"] = most_users(url, inputs, known)
        texts = [load(url, plain, 32).answers for _ in range(2)]
        guided = [load(url, inputs, 32).answers for _ in range(2)]
        found["served"] = same(t, tests, evaluated, texts[0], (texts[0], texts[1]))
        found["guided"] = same(t, tests, evaluated, guided[0], (guided[0], guided[1]))
        if gateway.response_format(t):
            found["guided"]["invalid"] = invalid(t, guided[0])
    if os.environ.get("TEACHER_BASE_URL") and p.teacher.model not in ("scripted", "auto"):
        asked = [
            {
                "model": p.teacher.model,
                "messages": t.messages("teacher", row),
                "max_tokens": p.teacher.max_tokens,
            }
            for row in tests[:20]
        ]
        base = os.environ["TEACHER_BASE_URL"].rstrip("/").removesuffix("/v1")
        one = figures(1, [load(base, asked, 1, os.environ.get("TEACHER_API_KEY", ""))])
        found["load"].append({"server": f"teacher {p.teacher.model}"} | one)
    jsonl.write_json(Path(t.reports, "serving.json"), found)
    told = ("gateway_ms", "most_users", "served", "guided", "ngram", "speculative")
    print("\n".join(f"{name}: {json.dumps(found[name])}" for name in told))


if __name__ == "__main__":
    errors.run(main)
