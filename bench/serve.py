"""The student's server under load: python -m bench.serve, from the repository root (`make bench-serve`).

Bare vLLM with its own key check, our server, and ours with speculation, with the same settings, on loopback; a closed loop of users
asks each of them for the test rows. Bare vLLM gets the requests that ours makes of the inputs, so the difference is the gateway's. The
two run at the same time and take turns, so that whatever else the machine does hits both. → reports/<task>/serving.json, which also
tells `make serve` whether speculation is worth its while. Where TEACHER_BASE_URL is set, the teacher's latency stands beside.
"""

import argparse
import asyncio
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import aiohttp
import jsonschema

from potstill import compare, errors, gateway, params, quantize, rows, score, serve, student, task
from potstill.rows import Row
from potstill.task import Task

USERS = (1, 8, 32, 128)
TARGET = 0.5  # seconds, for the 95th percentile
KEY = "bench-key-of-no-secret"
Body = dict[str, Any]


@contextmanager
def server(command: list[str], port: int) -> Iterator[str]:
    """A server's base URL, from the moment that it is healthy to the end of the block."""
    own = {"VLLM_CPU_OMP_THREADS_BIND": "nobind", "VLLM_LOGGING_LEVEL": "ERROR"}
    env = os.environ | student.environment(hub=False) | own | {gateway.KEY: KEY, "VLLM_API_KEY": KEY}
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
                assert process.poll() is None, f"{command[0]} ended with exit code {process.returncode}"
                time.sleep(0.5)
        yield url
    finally:
        process.terminate()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def load(url: str, bodies: list[Body], users: int, key: str = KEY, timeout: float = 600) -> Row:
    """All bodies once, by so many users at once: percentiles of the latency in ms, requests and tokens a second, errors, and the
    answers in the order of the bodies (None for an error)."""
    answers: list[str | None] = [None] * len(bodies)
    took, tokens = [], 0

    async def user(session: aiohttp.ClientSession, waiting: Iterator[tuple[int, Body]]) -> None:
        nonlocal tokens
        for i, body in waiting:
            begun = time.monotonic()
            try:
                async with session.post(f"{url}/v1/chat/completions", json=body) as reply:
                    found = await reply.json() if reply.status == 200 else None
            except (aiohttp.ClientError, TimeoutError):
                found = None
            if found:
                took.append(time.monotonic() - begun)
                answers[i] = found["choices"][0]["message"]["content"]
                tokens += found["usage"]["completion_tokens"]

    async def all_users() -> None:
        waiting = iter(enumerate(bodies))
        auth = {"Authorization": f"Bearer {key}"}
        limits = aiohttp.TCPConnector(limit=0)
        end = aiohttp.ClientTimeout(timeout)
        async with aiohttp.ClientSession(headers=auth, connector=limits, timeout=end) as session:
            await asyncio.gather(*(user(session, waiting) for _ in range(users)))

    start = time.monotonic()
    asyncio.run(all_users())
    seconds = time.monotonic() - start
    ordered = sorted(took) or [float("nan")]
    found = {f"p{q}_ms": round(1000 * ordered[min(len(ordered) - 1, len(ordered) * q // 100)], 1) for q in (50, 95, 99)}
    rates = {"requests_per_second": round(len(took) / seconds, 2), "tokens_per_second": round(tokens / seconds, 1)}
    return {"users": users, "errors": len(bodies) - len(took), **found, **rates, "answers": answers}


def counters(url: str) -> tuple[float, float]:
    """Tokens that speculation has guessed so far, and how many of them were right."""
    request = urllib.request.Request(f"{url}/metrics", headers={"Authorization": f"Bearer {KEY}"})
    with urllib.request.urlopen(request) as reply:
        lines = reply.read().decode().splitlines()
    names = ("vllm:spec_decode_num_draft_tokens_total", "vllm:spec_decode_num_accepted_tokens_total")
    drafted, accepted = (sum(float(line.split()[-1]) for line in lines if line.startswith(name)) for name in names)
    return drafted, accepted


def most_users(url: str, bodies: list[Body]) -> int:
    """The highest number of users at once with which the 95th percentile stays below TARGET, to an eighth of it; 0 for none."""

    def holds(users: int) -> bool:
        asked = list(itertools.islice(itertools.cycle(bodies), max(64, 4 * users)))
        found = load(url, asked, users)
        return not found["errors"] and found["p95_ms"] < 1000 * TARGET

    low, high = 0, 1
    while high <= 1024 and holds(high):
        low, high = high, 2 * high
    while high - low > max(1, low // 8):
        middle = (low + high) // 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low


def same(t: Task, tests: list[Row], before: list[str | None], after: list[str | None], floor: list[str | None]) -> Row:
    """The hop from one run's answers to another's, by the rule of potstill/compare.py; `floor` is a second run of the first."""
    as_rows = [quantize.predictions(tests, [text or "" for text in some]) for some in (before, floor, after)]
    marks = score.marked(t, tests, {"base": as_rows[0], "sft": as_rows[0]})
    texts = {"base": as_rows[0], "again": as_rows[1], "sft": as_rows[0], "adapter": as_rows[2]}
    hop = compare.hops(t, tests, marks, texts, {"lessons": 0, "other_tokens": []})[1]
    return {name: hop[name] for name in ("rows", "differ", "flips", "p", "passed")}


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


def shown(title: str, row: Row) -> None:
    numbers = [
        row[name]
        for name in ("users", "p50_ms", "p95_ms", "p99_ms", "requests_per_second", "tokens_per_second", "errors")
    ]
    print("| " + " | ".join([title, *(f"{number:,}" for number in numbers)]) + " |", flush=True)


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def main() -> None:
    p = params.load("task", "predict_dtype", "max_model_len", "speculative", "teacher_model", "teacher_max_tokens")
    parser = argparse.ArgumentParser()
    parser.add_argument("--task", default=p.task)
    parser.add_argument("--rows", type=int, default=400, help="test rows asked for at each number of users")
    parser.add_argument("--users", type=int, nargs="*", default=USERS)
    given = parser.parse_args()
    t = task.load(given.task)
    model = serve.model_folder(t)
    shipped = rows.read_json(t.data / "6-ship.json")["ship"]
    tests = t.inputs(t.data / "4-test.jsonl", "slice")[: given.rows]
    evaluated = [row["answer"] for row in score.predictions(t, (shipped,))[shipped]][: len(tests)]
    os.environ |= {gateway.KEY: KEY, gateway.TASK: t.name}
    inputs = [{"input": {name: row[name] for name in t.config["input"]}} for row in tests]
    filled = [gateway.Gateway(None).filled(body) for body in inputs]  # type: ignore[arg-type]
    plain = [body | {"response_format": {"type": "text"}} for body in inputs]
    words = serve.arguments(t, model, "127.0.0.1", 0, p.predict_dtype, p.max_model_len, "off")
    for name in ("--middleware", "--port"):
        del words[words.index(name) : words.index(name) + 2]
    bare = ["vllm.entrypoints.openai.api_server", *words]
    ours = ["potstill.serve", "--task", t.name, "--speculative"]
    found: dict[str, Any] = {"rows": len(tests), "load": [], "speculation": []}
    print("| | users | p50 ms | p95 ms | p99 ms | requests/s | tokens/s | errors |\n|---|---|---|---|---|---|---|---|")

    def measure(title: str, url: str, bodies: list[Body], users: int, kind: str = "load") -> Row:
        one = load(url, bodies, users)
        shown(title, one)
        found[kind].append({"server": title} | {name: value for name, value in one.items() if name != "answers"})
        return one

    with server(bare, free_port()) as bare_url, server([*ours, "off"], free_port()) as url:
        for asked, some in ((filled, bare_url), (inputs, url)):
            load(some, asked[:16], 8)  # the kernels and the grammar are made at their first use
        for users in given.users:
            measure("bare vLLM", bare_url, filled, users)
            guided = measure("ours", url, inputs, users)["answers"]
        found["most_users"] = most_users(url, inputs)
        found["invalid"] = invalid(t, guided) if gateway.response_format(t) else None
        first = measure("ours, no schema", url, plain, 1)["answers"]
        again = load(url, plain, 1)["answers"]
        found["served"] = same(t, tests, evaluated, first, again)
    off: dict[int, Row] = {}
    best = "off"
    for kind in ("off", "ngram", *([p.speculative] if "/" in p.speculative else [])):
        with server([*ours, kind], free_port()) as url:
            load(url, plain[:16], 8)
            before = counters(url)
            by_users = {users: measure(f"speculative: {kind}", url, plain, users, "speculation") for users in (1, 8)}
            drafted, accepted = (now - then for now, then in zip(counters(url), before, strict=True))
        if kind == "off":
            off = by_users
            continue
        hop = same(t, tests, first, by_users[1]["answers"], again)
        gain = {users: one["tokens_per_second"] / off[users]["tokens_per_second"] for users, one in by_users.items()}
        acceptance = round(accepted / drafted, 3) if drafted else None
        found[kind] = {
            "acceptance": acceptance,
            "gain": {str(users): round(one, 3) for users, one in gain.items()},
        } | hop
        if min(gain.values()) > 1 and hop["passed"]:
            best = kind
    found["speculative"] = best
    if os.environ.get("TEACHER_BASE_URL") and p.teacher_model not in ("scripted", "auto"):
        asked = [
            {"model": p.teacher_model, "messages": t.messages("teacher", row), "max_tokens": p.teacher_max_tokens}
            for row in tests[:20]
        ]
        base = os.environ["TEACHER_BASE_URL"].rstrip("/").removesuffix("/v1")
        one = load(base, asked, 1, os.environ.get("TEACHER_API_KEY", ""))
        shown(f"teacher {p.teacher_model}", one)
        found["load"].append({"server": "teacher"} | {name: value for name, value in one.items() if name != "answers"})
    rows.write_json(Path(t.reports, "serving.json"), found)
    told = ("most_users", "invalid", "served", "ngram", "speculative")
    print("\n".join(f"{name}: {json.dumps(found[name])}" for name in told if name in found))


if __name__ == "__main__":
    errors.run(main)
