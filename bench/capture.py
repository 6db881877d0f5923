"""What capture costs the server under load: python -m bench.capture [ROUNDS] in a task's folder.

Needs the student (`make repro`). Two servers as `make serve` starts them, serve.capture 0 and 1,
take turns (A B B A) under a closed loop of 8 and of 32 users, ROUNDS (3) times; the rows go to a
temporary folder. Prints the requests a second of both, and the rows that were kept and left out.
Nothing else may run.
"""

import re
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, chdir, contextmanager
from pathlib import Path

from bench import serve as bench
from bench.poisoned import TASK, link
from potstill.core import params, project, stage
from potstill.serving import serve
from potstill.task import settings
from potstill.task.settings import Task

USERS = (8, 32)
COUNTED = ("potstill_captured_total", "potstill_dropped_total")


@contextmanager
def captured(t: Task, place: Path, share: int) -> Iterator[str]:
    """The URL of the task's server with serve.capture `share`, from a copy of it in `place`."""
    folder = place / str(share)
    parts = [name for name in TASK if name != "params.yaml"]
    link(folder, *parts, t.models / "student", t.data / "4-test.jsonl", t.reports)
    text = Path("params.yaml").read_text(encoding="utf-8")
    text, count = re.subn(r"(?m)^  capture: 0\b", f"  capture: {share}", text)
    assert count == 1, "params.yaml: serve.capture is not 0"
    (folder / "params.yaml").write_text(text, encoding="utf-8")
    ahead = params.load("serve").serve.speculative
    env = serve.on_cpu() | {"DVC_ROOT": str(place), "PYTHONPATH": str(project.ROOT)}
    with ExitStack() as stack:
        with chdir(folder):
            url = stack.enter_context(bench.server([*bench.OURS, ahead], env))
        yield url


def rows(url: str) -> str:
    """What the server's own counters say of the rows that it kept and left out."""
    auth = {"Authorization": f"Bearer {bench.KEY}"}
    with urllib.request.urlopen(urllib.request.Request(f"{url}/metrics", headers=auth)) as reply:
        lines = reply.read().decode().splitlines()
    return "\n".join(line for line in lines if line.startswith(COUNTED))


def main(rounds: int = 3) -> None:
    t = settings.load()
    tests = t.inputs(t.data / "4-test.jsonl", "slice")
    bodies = [{"input": {name: row[name] for name in t.config["input"]}} for row in tests]
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        with captured(t, place, 0) as off, captured(t, place, 1) as on:
            servers = {"off": (off, bodies), "on": (on, bodies)}
            for url in (off, on):
                bench.load(url, bodies[:16], 8)
            print("| capture | users | p50 ms | p95 ms | p99 ms | requests/s | tokens/s | errors |")
            print("|---|---|---|---|---|---|---|---|")
            for users in USERS:
                found = [bench.turns(servers, users, len(tests)) for _ in range(rounds)]
                rate = {
                    name: sum(row["requests_per_second"] for both in found for row in both
                              if row["server"] == name)
                    for name in servers
                }  # fmt: skip
                change = rate["on"] / rate["off"] - 1
                print(f"{users} users: {change:+.1%} requests/s with capture", flush=True)
            print(rows(on))


if __name__ == "__main__":
    stage.run(lambda: main(*map(int, sys.argv[1:])))
