"""Our way of asking a teacher against others: python -m bench.teacher [--json FILE], from the
repository's root; half an hour.

One mock teacher in a process of its own answers all; each run of each contender is a process of its
own, too (bench/contenders.py):

ours         potstill.teacher, its results written as the stage generate does, and the task's checks
             on every answer
aiohttp      a loop around aiohttp alone: as fast as Python gets
openai       a loop around the bare `openai` client on aiohttp, the same request
curator, distilabel   the peers, each in an environment of its own that this makes in --peers, no
             caches, no limits of their own
sequential   the loop that tutorials use, 50 requests

`req/s` is all of the asking, imports not counted; `served` is the rate from the first request to
the last answer at the teacher, which leaves out the time that a peer takes to start and to write
its results. CPU (user and system) and memory are the client's, its child processes included (of
their memory the largest). `disk` is journal or cache, bytes an answer. Then ours, and that of an
older checkout (--before), against a teacher that answers 429: at random, or since it is full. Then
memory and journal at --long rows from a teacher without latency, and the same journal once more;
and --batch rows by the batch API, whose teacher answers a batch by the second look.
"""

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
Found = dict[str, Any]

NAMES = ("ours", "aiohttp", "openai", "curator", "distilabel", "sequential")
PEERS = {  # with the parts of theirs that a request goes through
    "curator": "bespokelabs-curator==0.1.31 litellm==1.83.7 openai==2.30.0 aiohttp==3.13.5",
    "distilabel": "distilabel[openai]==1.5.3 openai==3.52.0 httpx==0.28.1 requests==2.32.5",
}
ENVIRONMENT = {  # nothing to fetch, nothing to send, nothing on the screen
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "HF_HUB_OFFLINE": "1",
    "TELEMETRY_ENABLED": "false",
    "CURATOR_DISABLE_RICH_DISPLAY": "1",
    "DISTILABEL_LOG_LEVEL": "WARNING",
}
TUTORIAL = 50  # requests of the sequential loop
PATIENCE = 180  # seconds for one run; a peer that takes longer asks a tenth

# This process imports nothing large: a child's peak memory starts from its parent's.


class Failed(Exception):
    """A contender gave no figures; says why in one sentence."""


@contextmanager
def teacher_url() -> Iterator[str]:
    """The base URL of a mock teacher, which runs as long as this lasts."""
    command = [sys.executable, "-m", "bench.mock_teacher"]
    server = subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert server.stdin and server.stdout
    try:
        yield server.stdout.readline().strip()
    finally:
        server.stdin.close()
        server.wait(5)


def environment(name: str, folder: Path) -> Path:
    """The Python of a peer's environment, which is made when it is missing. Raises Failed when it
    cannot be."""
    home, pins = folder.absolute() / name, PEERS[name]
    python, ready = home / "bin/python", home / "ready"
    if not (ready.is_file() and ready.read_text() == pins):
        print(f"installing {pins} into {home}", file=sys.stderr, flush=True)
        venv = [sys.executable, "-m", "venv", "--clear", str(home)]
        pip = [str(python), "-m", "pip", "install", "--quiet", *pins.split()]
        for command in (venv, pip):
            done = subprocess.run(
                command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
            )
            if done.returncode:
                said = last_line(done.stdout)
                raise Failed(f"{pins.split()[0]} could not be installed: {said}")
        ready.write_text(pins)
    return python


def last_line(text: str) -> str:
    lines = [line.strip()[:200] for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "it said nothing"


def run(
    python: Path, folder: Path, limit: float | None = None, code: Path = ROOT, **job: Any
) -> Found:
    """Runs a contender in a process of its own, in `folder`; ours by the Potstill of `code`. Raises
    Failed when it gives too few answers, TimeoutExpired after `limit` seconds."""
    ours = ("TEACHER_", "PYTHON", "DVC_")
    env = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    env |= ENVIRONMENT | {"HOME": str(folder)}
    if job["contender"] not in PEERS:
        env["PYTHONPATH"] = str(code)
    (folder / "kept").mkdir(exist_ok=True)
    # -P: what a peer imports as `requests` is not bench/requests.py
    command = [str(python), "-P", str(ROOT / "bench/contenders.py")]
    process = subprocess.Popen(
        [*command, json.dumps({"resume": False} | job)],
        cwd=folder,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        said, _ = process.communicate(timeout=limit)
    except BaseException:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        raise
    if process.returncode:
        raise Failed(f"{job['contender']} ended with {process.returncode}: {last_line(said)}")
    found = job | json.loads((folder / "result.json").read_text())
    if found["requests"] != job["requests"]:
        few = f"{found['requests']} of {job['requests']} answers"
        raise Failed(f"{job['contender']} gave {few}: {last_line(said)}")
    return found | {
        "rate": found["requests"] / found["seconds"],
        "served_rate": found["calls"] / found["served_seconds"] if found["calls"] else 0.0,
        "cpu_ms": 1000 * found["cpu_seconds"] / found["requests"],
        "disk_row": found["disk"] / found["requests"],
    }


def measure(python: Path, rounds: int = 1, **job: Any) -> Found:
    """The run of the median rate. Raises Failed when none came to an end."""
    runs = []
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as name:
            try:
                runs.append(run(python, Path(name), limit=PATIENCE, **job))
            except subprocess.TimeoutExpired:
                break
    if runs:
        return sorted(runs, key=lambda found: float(found["rate"]))[len(runs) // 2]
    if job["requests"] < 1000:
        raise Failed(f"{job['contender']} did not end within {PATIENCE} s")
    return measure(python, **job | {"requests": job["requests"] // 10})


def compare(url: str, options: argparse.Namespace) -> list[Found]:
    """Every contender at every latency and concurrency, row by row printed as it comes."""
    pythons: dict[str, Path | Failed] = {}
    for name in options.only:
        try:
            own = name in PEERS
            pythons[name] = environment(name, options.peers) if own else Path(sys.executable)
        except Failed as failed:
            pythons[name] = failed
    table: list[Found] = []
    for latency, width in [(one, n) for one in options.latency for n in options.concurrency]:
        most = f"at most {width / latency:,.0f} req/s"
        print(f"\n{latency:g} s, {width} at once, {most}", flush=True)
        heads = f"{'requests':>9}{'req/s':>9}{'served':>9}{'under way':>11}"
        print(f"{'':12}{heads}{'CPU ms':>8}{'MiB':>7}{'disk':>7}")
        for name, python in pythons.items():
            job = {"contender": name, "url": url, "latency": latency}
            job |= {"concurrency": width, "requests": options.requests}
            if name == "sequential":
                if width != options.concurrency[0]:
                    continue
                job |= {"concurrency": 1, "requests": min(TUTORIAL, options.requests)}
            # The two that a bar compares, and their limit, are run more often where CPU decides.
            decisive = name in ("ours", "aiohttp", "openai") and width / latency > 1000
            try:
                if isinstance(python, Failed):
                    raise python
                table.append(measure(python, options.rounds if decisive else 1, **job))
                show(table[-1])
            except Failed as failed:
                print(f"{name:12}{failed}", flush=True)
                table.append(job | {"failed": str(failed)})
    return table


def show(found: Found, name: str = "") -> None:
    rates = f"{found['rate']:9,.1f}{found['served_rate']:9,.1f}{found['in_flight']:11,}"
    used = f"{found['cpu_ms']:8.2f}{found['rss'] / 2**20:7.0f}{found['disk_row']:7.0f}"
    calls = "" if found["calls"] == found["requests"] else f"   {found['calls']:,} calls"
    head = f"{name or found['contender']:12}{found['requests']:9,}"
    print(f"{head}{rates}{used}{calls}", flush=True)


def grow(url: str, options: argparse.Namespace) -> dict[str, Found]:
    """Ours with few and with many rows at no latency, and the finished journal once more."""
    common: Found = {"contender": "ours", "url": url, "latency": 0.0, "concurrency": 64}
    many: Found = common | {"requests": options.long}
    found, python = {}, Path(sys.executable)
    print("\nno latency, 64 at once", flush=True)
    with tempfile.TemporaryDirectory() as first, tempfile.TemporaryDirectory() as second:
        found["few"] = run(python, Path(first), requests=options.requests, **common)
        found["many"] = run(python, Path(second), **many)
        found["resumed"] = run(python, Path(second), resume=True, **many)
    for name, one in found.items():
        show(one, name)
    return found


def in_batches(url: str, options: argparse.Namespace) -> Found:
    """Ours by the batch API."""
    job: Found = {"contender": "ours", "url": url, "latency": 0.0, "concurrency": 64}
    print("\nin batches", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        found = run(Path(sys.executable), Path(folder), requests=options.batch, batch=True, **job)
    show(found, "batches")
    return found


REFUSING = {  # what the teacher does, and what the ideal client would reach, in answers a second
    "429 for 15 % at random": ("&refuse=0.15", None),
    "full: 50 requests a second": ("&rate=50", 50),
    "full: the same, and its headers say so": ("&rate=50&headers=1", 50),
    "full: 8 under way": ("&capacity=8", 160),
}


def refusals(url: str, options: argparse.Namespace) -> list[Found]:
    """Ours against a teacher that answers 429, at 50 ms and 64 at once: by the code of --before, if
    that is given, with a quarter of the requests, and by that of today."""
    table: list[Found] = []
    print("\n429 with `Retry-After: 1`, 0.05 s, 64 at once", flush=True)
    heads = f"{'requests':>9}{'answers/s':>11}{'sent/s':>9}{'refused':>9}"
    print(f"{'':42}{heads}", flush=True)
    for name, (mode, best) in REFUSING.items():
        for code in filter(None, (options.before, ROOT)):
            count = options.refused // (4 if code == options.before else 1)
            job: Found = {"contender": "ours", "url": url, "latency": 0.05, "concurrency": 64}
            job |= {"requests": count, "mode": mode}
            with tempfile.TemporaryDirectory() as folder:
                found = run(Path(sys.executable), Path(folder), code=code.absolute(), **job)
            found |= {"kind": name, "best": best, "before": code == options.before}
            found["sent_rate"] = found["calls"] / found["seconds"]
            found["refused_share"] = found["refused"] / found["calls"]
            table.append(found)
            which = f"{name}{', before' if found['before'] else ''}"
            rates = f"{found['rate']:11.1f}{found['sent_rate']:9.1f}{found['refused_share']:9.1%}"
            print(f"{which:42}{count:9,}{rates}", flush=True)
    return table


def bars(
    table: list[Found], growth: dict[str, Found], refused: list[Found], batch: Found
) -> list[Found]:
    """Each bar that the figures at hand can be held against."""
    found: list[tuple[str, float, bool]] = []

    def bar(text: str, value: float, met: bool) -> None:
        found.append((text, value, met))

    at = {
        (row["contender"], row["latency"], row["concurrency"]): row
        for row in table
        if not row.get("failed")
    }
    mine = [row for row in at.values() if row["contender"] == "ours"]
    if row := at.get(("ours", 1.0, 256)):
        share = row["rate"] / 256
        bar("share of concurrency/latency at 256 and 1 s, at least 0.9", share, share >= 0.9)
    if (row := at.get(("ours", 0.2, 512))) and (other := at.get(("openai", 0.2, 512))):
        share, where = row["rate"] / other["rate"], "at 512 and 200 ms, at least 0.9"
        bar(f"share of the bare openai client's rate {where}", share, share >= 0.9)
    if mine:
        worst = max(row["cpu_ms"] for row in mine)
        bar("ms of client CPU a request, the worst row, at most 1.5", worst, worst <= 1.5)
    for peer in PEERS:
        pairs = ((row, at.get((peer, row["latency"], row["concurrency"]))) for row in mine)
        if leads := [row["rate"] / other["rate"] for row, other in pairs if other]:
            bar(f"times as fast as {peer}, the worst row, above 1", min(leads), min(leads) > 1)
    if growth:
        few, many, again = growth.values()
        grown = (many["rss"] - few["rss"]) / (many["requests"] - few["requests"])
        bar("bytes of memory a further row, at most 200", grown, grown <= 200)
        resume = f"s to resume {again['requests']:,} rows, at most 5"
        bar(resume, again["seconds"], again["seconds"] <= 5)
        bar("calls to resume, none", again["calls"], again["calls"] == 0)
    if batch:
        million = batch["cpu_seconds"] * 1e6 / batch["requests"]
        bar("s of CPU for a million rows in batches, at most 600", million, million <= 600)
        memory = batch["rss"] / 2**20
        bar("MiB of memory for them, at most 1,024", memory, memory <= 1024)
        bar("requests of them paid for twice, none", batch["twice"], batch["twice"] == 0)
    for row in (row for row in refused if not row["before"]):
        if row["best"] is None:
            bar(f"answers a second, {row['kind']}, at least 80", row["rate"], row["rate"] >= 80)
            continue
        share = row["refused_share"]
        bar(f"share refused, {row['kind']}, at most 0.1", share, share <= 0.1)
    return [{"bar": text, "found": value, "met": met} for text, value, met in found]


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m bench.teacher", description="See the head of bench/teacher.py."
    )
    rounds = "runs of which the median counts, where CPU decides"
    add = parser.add_argument
    add("--requests", type=int, default=5000)
    add("--latency", type=float, nargs="+", default=[0.2, 1.0])
    add("--concurrency", type=int, nargs="+", default=[64, 256, 512])
    add("--rounds", type=int, default=3, help=rounds)
    add("--only", nargs="+", choices=NAMES, default=list(NAMES))
    add("--long", type=int, default=100_000, help="rows of the long journal; 0 leaves it out")
    add("--batch", type=int, default=100_000, help="rows of the batches; 0 leaves them out")
    add("--peers", type=Path, default=ROOT / ".cache/peers", help="the peers' environments")
    add("--refused", type=int, default=4000, help="requests to a teacher that answers 429; 0: none")
    add("--before", type=Path, help="a checkout of an older commit, for the same of it")
    add("--json", type=Path, help="a file for all figures")
    options = parser.parse_args()
    with teacher_url() as url:
        table = compare(url, options) if options.requests else []
        refused = refusals(url, options) if options.refused else []
        growth = grow(url, options) if options.long else {}
        batch = in_batches(url, options) if options.batch else {}
    held = bars(table, growth, refused, batch)
    print()
    for one in held:
        print(f"{'met   ' if one['met'] else 'MISSED'} {one['bar']}: {one['found']:,.3g}")
    if options.json:
        machine = {
            "python": platform.python_version(),
            "cores": os.cpu_count(),
            "system": platform.platform(),
        }
        report = {"machine": machine, "peers": PEERS, "table": table}
        report |= {"growth": growth, "refusals": refused, "batch": batch, "bars": held}
        options.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
