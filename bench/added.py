"""What a part of the server adds to an answer: python -m bench.added PART [ROUNDS] in a task's
folder, where PART is

capture     what is asked and answered is kept (serve.capture 1)
cascade     each answer is checked, and the teacher stands behind it
confidence  so, and the log-probabilities of its tokens are asked for

Needs the student (`make repro`). Two servers as `make serve` starts them, without the part and with
it. Under a closed loop of 8 and of 32 users they take turns (A B B A), ROUNDS (3) times; then one
user asks one and the other for the same row, ROUNDS times all rows, so that the latencies are
pairs. But for capture only the rows are asked whose answers pass the checks, so that the teacher
answers nothing. What is kept goes to a temporary folder. Nothing else may run.
"""

import asyncio
import re
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, chdir, contextmanager
from pathlib import Path
from statistics import median

import httpx

from bench import serve as bench
from bench.poisoned import TASK, link
from potstill.core import jsonl, params, project, stage
from potstill.evaluation.cascade import faults
from potstill.serving import serve
from potstill.task import settings
from potstill.task.settings import Task

USERS = (8, 32)
PARTS: dict[str, list[str]] = {
    "capture": [],
    "cascade": ["--cascade", "--confidence", "off"],
    "confidence": ["--cascade", "--confidence", "0.000001"],
}
COUNTED = ("potstill_captured_total", "potstill_dropped_total", "potstill_answered_seconds_count")
AUTH = {"Authorization": f"Bearer {bench.KEY}"}


@contextmanager
def served(t: Task, place: Path, part: str | None) -> Iterator[str]:
    """The URL of the task's server with that part, from a copy of the task in `place`."""
    folder = place / str(part)
    parts = [name for name in TASK if name != "params.yaml"]
    link(folder, *parts, "teacher", t.models / "student", t.data / "4-test.jsonl", t.reports)
    text = Path("params.yaml").read_text(encoding="utf-8")
    share = int(part == "capture")
    text, count = re.subn(r"(?m)^  capture: 0\b", f"  capture: {share}", text)
    assert count == 1, "params.yaml: serve.capture is not 0"
    (folder / "params.yaml").write_text(text, encoding="utf-8")
    ahead = params.load("serve").serve.speculative
    env = serve.on_cpu() | {"DVC_ROOT": str(place), "PYTHONPATH": str(project.ROOT)}
    with ExitStack() as stack:
        with chdir(folder):
            words = [*bench.OURS, ahead, *(PARTS[part] if part else [])]
            url = stack.enter_context(bench.server(words, env))
        yield url


def passing(t: Task) -> list[bench.Body]:
    """The inputs of the test rows whose answers pass the checks that the cascade asks."""
    said = jsonl.read_jsonl(t.data / "5-predictions/sft/test.jsonl")
    tests = t.inputs(t.data / "4-test.jsonl", "slice")
    return [
        {"input": row}
        for row, answer in zip(
            ({name: row[name] for name in t.config["input"]} for row in tests), said, strict=True
        )
        if not faults(t, row, answer["answer"], answer["finish_reason"])
    ]


def counted(url: str) -> str:
    """What the server's own counters say of the rows that it kept and left out, and of who
    answered."""
    with urllib.request.urlopen(urllib.request.Request(f"{url}/metrics", headers=AUTH)) as reply:
        lines = reply.read().decode().splitlines()
    return "\n".join(line for line in lines if line.startswith(COUNTED))


async def pairs(off: str, on: str, bodies: list[bench.Body]) -> list[tuple[float, float]]:
    """The milliseconds of each row's answer, without and with the part. One user, who asks one
    server first for every other row."""
    found = []
    async with httpx.AsyncClient(headers=AUTH, timeout=600) as client:
        for i, body in enumerate(bodies):
            took = {}
            for url in (off, on) if i % 2 else (on, off):
                start = time.perf_counter()
                reply = await client.post(f"{url}/v1/chat/completions", json=body)
                took[url] = 1000 * (time.perf_counter() - start)
                reply.raise_for_status()
                assert reply.headers.get("x-answered-by", "student") == "student"
            found.append((took[off], took[on]))
    return found


def main(part: str, rounds: int = 3) -> None:
    t = settings.load()
    if part == "capture":
        tests = t.inputs(t.data / "4-test.jsonl", "slice")
        bodies = [{"input": {name: row[name] for name in t.config["input"]}} for row in tests]
    else:
        bodies = passing(t)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        with served(t, place, None) as off, served(t, place, part) as on:
            servers = {"off": (off, bodies), "on": (on, bodies)}
            for url in (off, on):
                bench.load(url, bodies[:16], 8)
            print(f"| {part} | users | p50 ms | p95 ms | p99 ms | requests/s | tokens/s | errors |")
            print("|---|---|---|---|---|---|---|---|")
            for users in USERS:
                found = [bench.turns(servers, users, len(bodies)) for _ in range(rounds)]
                rate = {
                    name: sum(row["requests_per_second"] for both in found for row in both
                              if row["server"] == name)
                    for name in servers
                }  # fmt: skip
                change = rate["on"] / rate["off"] - 1
                print(f"{users} users: {change:+.1%} requests/s with {part}", flush=True)
            took = asyncio.run(pairs(off, on, bodies * rounds))
            print(f"one user, {len(bodies)} rows {rounds} times, ms without and with {part}")
            for name, at in (("p50", 0.5), ("p95", 0.95)):
                one, two = (sorted(times)[int(at * len(took))] for times in zip(*took, strict=True))
                print(f"{name}: {one:.1f}, {two:.1f}, difference {two - one:+.1f}")
            differences = sorted(b - a for a, b in took)
            print(f"median of the pairs' differences: {median(differences):+.2f}")
            print(counted(on))


if __name__ == "__main__":
    stage.run(lambda: main(sys.argv[1], *map(int, sys.argv[2:])))
