"""Our way of asking a teacher against others: python -m bench.teacher [--json FILE], from the repository root; half an hour.

One mock teacher in a process of its own answers all; each run of each contender is a process of its own, too:

ours         potstill.teacher.answer_rows, its results written as the stage generate does, and the task's checks on every answer
aiohttp      a loop around aiohttp alone: as fast as Python gets
openai       a loop around the bare `openai` client on aiohttp, the same request
curator, distilabel   the peers, each in an environment of its own that this makes in --peers, no caches, no limits of their own
sequential   the loop that tutorials use, 50 requests

`req/s` is all of the asking, imports not counted; `served` is the rate from the first request to the last answer at the
teacher, which leaves out the time that a peer takes to start and to write its results. CPU (user and system) and memory are
the client's, its child processes included (of their memory the largest). `disk` is journal or cache, bytes an answer.
Then memory and journal at --long rows from a teacher without latency, and the same journal once more.
"""

import argparse
import asyncio
import json
import os
import platform
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from functools import partial
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.request import urlopen

ROOT = Path(__file__).resolve().parents[1]
Found = dict[str, Any]
Ask = Callable[[], int]  # asks everything and gives the number of answers

PEERS = {  # with the parts of theirs that a request goes through
    "curator": (
        "bespokelabs-curator==0.1.31",
        "litellm==1.83.7",
        "openai==2.30.0",
        "aiohttp==3.13.5",
    ),
    "distilabel": (
        "distilabel[openai]==1.5.3",
        "openai==3.52.0",
        "httpx==0.28.1",
        "requests==2.32.5",
    ),
}
TUTORIAL = 50  # requests of the sequential loop
PATIENCE = 180  # seconds for one run; a peer that takes longer asks a tenth
MODEL, ROOM = "mock", 64
SYSTEM = "You find the last word. Answer with JSON only."
SCHEMA = {
    "type": "object",
    "properties": {"word": {"type": "string"}, "length": {"type": "integer"}},
    "required": ["word", "length"],
    "additionalProperties": False,
}
TASK = """
input: [text]
checks: [json_schema, {grounded: {fields: {word: ""}}}]
"""


class Lines(Collection[Found]):
    """Rows that are made when they are read: what memory grows by is not theirs."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __contains__(self, row: object) -> bool:
        return any(row == one for one in self)

    def __iter__(self) -> Iterator[Found]:
        for i in range(self.count):
            yield {"id": f"{i:016x}", "text": f"Parcel {i:,} goes from Dali to Kunming"}


def messages(row: Found) -> list[Any]:
    return [{"role": "system", "content": SYSTEM}, {"role": "user", "content": row["text"]}]


def body(row: Found) -> Found:
    """The request as ours makes it."""
    schema = {
        "type": "json_schema",
        "json_schema": {"name": "answer", "schema": SCHEMA, "strict": True},
    }
    settings = {
        "temperature": 0.0,
        "max_completion_tokens": ROOM,
        "seed": 0,
        "response_format": schema,
    }
    return {"model": MODEL, "messages": messages(row), **settings}


# The contenders. Each imports and prepares, and gives what is clocked.


def ours(job: SimpleNamespace) -> Ask:
    import aiohttp
    import httpx_aiohttp
    import jinja2
    import jsonschema
    import openai

    from potstill.checks import registry
    from potstill.core import jsonl, params
    from potstill.task import settings
    from potstill.teacher import asking, client

    assert all((aiohttp, httpx_aiohttp, jinja2, jsonschema, openai, client))  # not on the clock
    p = SimpleNamespace(**params.parse(params.read_text(ROOT / params.PATH), params.PATH))
    p.teacher.model, p.teacher.temperature, p.teacher.max_tokens, p.teacher.extra_body = (
        MODEL,
        0.0,
        ROOM,
        {},
    )
    p.teacher.concurrency, p.teacher.rpm, p.teacher.tpm, p.teacher.budget = (
        job.concurrency,
        None,
        None,
        None,
    )
    os.environ.update(
        TEACHER_BASE_URL=job.url, TEACHER_API_KEY="none", TEACHER_JOURNAL=str(job.kept)
    )
    jsonl.write_text("task.yaml", TASK)
    jsonl.write_text("prompts/teacher.md", SYSTEM)
    jsonl.write_json("schema.json", SCHEMA)
    toy, lines = settings.load(), Lines(job.requests)

    def checked() -> Iterator[jsonl.Row]:
        found = asking.answer_rows(
            toy, lines, p, 1, check=partial(registry.check, toy), good_share=0.5
        )
        for line, answer in zip(lines, found, strict=True):
            if not job.resume and (reasons := registry.check(toy, line, answer["answer"])):
                raise AssertionError(reasons)
            yield answer

    return lambda: jsonl.write_jsonl("answers.jsonl", checked())


def bare_aiohttp(job: SimpleNamespace) -> Ask:
    import aiohttp

    async def ask() -> int:
        answers: list[str] = []
        connector = aiohttp.TCPConnector(limit=job.concurrency)
        async with aiohttp.ClientSession(connector=connector) as session:

            async def one(row: Found) -> None:
                async with session.post(f"{job.url}/chat/completions", json=body(row)) as response:
                    answers.append((await response.json())["choices"][0]["message"]["content"])

            await in_parallel(one, job)
        return len(answers)

    return lambda: asyncio.run(ask())


def bare_openai(job: SimpleNamespace) -> Ask:
    import httpx_aiohttp
    import openai
    from openai.resources import chat

    assert httpx_aiohttp and chat  # not on the clock

    async def ask() -> int:
        answers: list[str] = []
        transport = openai.DefaultAioHttpClient()
        async with openai.AsyncOpenAI(
            base_url=job.url, api_key="none", http_client=transport, max_retries=0
        ) as connection:

            async def one(row: Found) -> None:
                reply = await connection.chat.completions.create(**body(row))
                answers.append(reply.choices[0].message.content or "")

            await in_parallel(one, job)
        return len(answers)

    return lambda: asyncio.run(ask())


async def in_parallel(one: Callable[[Found], Any], job: SimpleNamespace) -> None:
    todo = iter(Lines(job.requests))

    async def work() -> None:
        for row in todo:
            await one(row)

    await asyncio.gather(*(work() for _ in range(job.concurrency)))


def sequential(job: SimpleNamespace) -> Ask:
    import openai

    def ask() -> int:
        connection = openai.OpenAI(base_url=job.url, api_key="none")
        replies = [connection.chat.completions.create(**body(row)) for row in Lines(job.requests)]
        return len([reply.choices[0].message.content for reply in replies])

    return ask


def curator(job: SimpleNamespace) -> Ask:
    import litellm.litellm_core_utils.default_encoding  # type: ignore[import-not-found]  # the tokens that it would download
    from bespokelabs import curator as bespoke  # type: ignore[import-not-found]
    from datasets import Dataset

    assert litellm

    class Asker(bespoke.LLM):  # type: ignore[misc]
        def prompt(self, input: Found) -> list[Any]:
            return messages(input)

        def parse(self, input: Found, response: str) -> Found:
            return {"id": input["id"], "answer": response}

    data = Dataset.from_list(list(Lines(job.requests)))
    llm = Asker(
        model_name=MODEL,
        backend="openai",
        generation_params={"temperature": 0.0, "max_tokens": ROOM},
        backend_params={
            "base_url": job.url,
            "api_key": "none",
            "max_concurrent_requests": job.concurrency,
            "max_requests_per_minute": 10**12,
            "max_tokens_per_minute": 10**12,
        },
    )

    def ask() -> int:
        return len(llm(data, working_dir=str(job.kept)).dataset.filter(lambda row: row["answer"]))

    return ask


def distilabel(job: SimpleNamespace) -> Ask:
    from distilabel.models import OpenAILLM  # type: ignore[import-not-found]
    from distilabel.pipeline import Pipeline  # type: ignore[import-not-found]
    from distilabel.steps import LoadDataFromDicts  # type: ignore[import-not-found]
    from distilabel.steps.tasks import TextGeneration  # type: ignore[import-not-found]

    data = [{"instruction": row["text"]} for row in Lines(job.requests)]
    settings = {"temperature": 0.0, "max_new_tokens": ROOM}
    with Pipeline(name="bench", cache_dir=job.kept) as pipeline:
        load = LoadDataFromDicts(data=data, batch_size=job.concurrency)
        llm = OpenAILLM(model=MODEL, base_url=job.url, api_key="none", generation_kwargs=settings)
        load >> TextGeneration(llm=llm, system_prompt=SYSTEM, input_batch_size=job.concurrency)

    def ask() -> int:
        made = pipeline.run(use_cache=False)["default"]["train"]
        return sum(answer is not None for answer in made["generation"])

    return ask


CONTENDERS: dict[str, Callable[[SimpleNamespace], Ask]] = {
    "ours": ours,
    "aiohttp": bare_aiohttp,
    "openai": bare_openai,
    "curator": curator,
    "distilabel": distilabel,
    "sequential": sequential,
}


def contend(job: SimpleNamespace) -> None:
    """One run of one contender, in this process; what was measured goes to the file result.json."""
    start = time.monotonic()
    job.kept = Path("kept").absolute()
    ask = CONTENDERS[job.contender](job)
    prepared = time.monotonic() - start
    at_teacher(job.url, f"start?latency={job.latency}")
    cpu, start = cpu_seconds(), time.monotonic()
    answers = ask()
    seconds, cpu = time.monotonic() - start, cpu_seconds() - cpu
    seen = at_teacher(job.url, "calls")
    usage = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    result = {
        "requests": answers,
        "calls": seen["calls"],
        "in_flight": seen["most"],
        "seconds": seconds,
        "served_seconds": seen["seconds"],
        "import_seconds": prepared,
        "cpu_seconds": cpu,
        "rss": sum(one.ru_maxrss for one in usage) * 1024,
        "disk": sum(path.stat().st_size for path in job.kept.rglob("*") if path.is_file()),
        "versions": {name: version(name) for name in ("aiohttp", "httpx", "openai")},
    }
    Path("result.json").write_text(json.dumps(result))


def cpu_seconds() -> float:
    usage = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in usage)


def at_teacher(url: str, what: str) -> Found:
    with urlopen(url.removesuffix("v1") + what) as response:
        return dict(json.load(response))


def version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


# The bench itself, which imports nothing large: a child's peak memory starts from its parent's.


class Failed(Exception):
    """A contender gave no figures; says why in one sentence."""


@contextmanager
def teacher_url() -> Iterator[str]:
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
    """The Python of a peer's environment, which is made when it is missing. Raises Failed."""
    home = folder.absolute() / name
    python, ready = home / "bin/python", home / "ready"
    pins = " ".join(PEERS[name])
    if not (ready.is_file() and ready.read_text() == pins):
        print(f"installing {pins} into {home}", file=sys.stderr, flush=True)
        venv = [sys.executable, "-m", "venv", "--clear", str(home)]
        pip = [str(python), "-m", "pip", "install", "--quiet", *PEERS[name]]
        for command in (venv, pip):
            done = subprocess.run(
                command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
            )
            if done.returncode:
                raise Failed(f"{PEERS[name][0]} could not be installed: {last_line(done.stdout)}")
        ready.write_text(pins)
    return python


def last_line(text: str) -> str:
    return next(
        (line.strip()[:200] for line in reversed(text.splitlines()) if line.strip()),
        "it said nothing",
    )


def run(python: Path, folder: Path, limit: float | None = None, **job: Any) -> Found:
    """Runs a contender in a process of its own, in `folder`. Raises Failed, TimeoutExpired after `limit` seconds."""
    env = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("TEACHER_", "PYTHON", "DVC_"))
    }
    env |= {
        "HOME": str(folder),
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "HF_HUB_OFFLINE": "1",
    }  # nothing to fetch
    env |= {
        "TELEMETRY_ENABLED": "false",
        "CURATOR_DISABLE_RICH_DISPLAY": "1",
        "DISTILABEL_LOG_LEVEL": "WARNING",
    }
    if job["contender"] not in PEERS:
        env["PYTHONPATH"] = str(ROOT)
    (folder / "kept").mkdir(exist_ok=True)
    command = [
        str(python),
        str(Path(__file__).resolve()),
        "--job",
        json.dumps({"resume": False} | job),
    ]
    process = subprocess.Popen(
        command,
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
        raise Failed(
            f"{job['contender']} gave {found['requests']} of {job['requests']} answers: {last_line(said)}"
        )
    return found | {
        "rate": found["requests"] / found["seconds"],
        "served_rate": found["calls"] / found["served_seconds"] if found["calls"] else 0.0,
        "cpu_ms": 1000 * found["cpu_seconds"] / found["requests"],
        "disk_row": found["disk"] / found["requests"],
    }


def measure(python: Path, rounds: int = 1, **job: Any) -> Found:
    """The run of the median rate. Raises Failed."""
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
    pythons: dict[str, Path | str] = {}
    for name in options.only:
        try:
            pythons[name] = (
                environment(name, options.peers) if name in PEERS else Path(sys.executable)
            )
        except Failed as failed:
            pythons[name] = str(failed)
    table: list[Found] = []
    for latency in options.latency:
        for concurrency in options.concurrency:
            print(
                f"\n{latency:g} s, {concurrency} at once, at most {concurrency / latency:,.0f} req/s",
                flush=True,
            )
            print(
                f"{'':12}{'requests':>9}{'req/s':>9}{'served':>9}{'under way':>11}{'CPU ms':>8}{'MiB':>7}{'disk':>7}"
            )
            for name, python in pythons.items():
                if name == "sequential" and concurrency != options.concurrency[0]:
                    continue
                # The two that a bar compares, and their limit, are run more often where the CPU decides.
                decisive = name in ("ours", "aiohttp", "openai") and concurrency / latency > 1000
                one = name == "sequential"
                job = {
                    "contender": name,
                    "url": url,
                    "latency": latency,
                    "concurrency": 1 if one else concurrency,
                    "requests": min(TUTORIAL, options.requests) if one else options.requests,
                }
                try:
                    if isinstance(python, str):
                        raise Failed(python)
                    table.append(measure(python, options.rounds if decisive else 1, **job))
                    show(table[-1])
                except Failed as failed:
                    print(f"{name:12}{failed}", flush=True)
                    table.append(job | {"failed": str(failed)})
    return table


def show(found: Found, name: str = "") -> None:
    print(
        f"{name or found['contender']:12}{found['requests']:9,}{found['rate']:9,.1f}{found['served_rate']:9,.1f}"
        f"{found['in_flight']:11,}{found['cpu_ms']:8.2f}{found['rss'] / 2**20:7.0f}{found['disk_row']:7.0f}"
        + ("" if found["calls"] == found["requests"] else f"   {found['calls']:,} calls"),
        flush=True,
    )


def grow(url: str, options: argparse.Namespace) -> dict[str, Found]:
    """Ours with few and with many rows at no latency, and the finished journal once more."""
    common: Found = {"contender": "ours", "url": url, "latency": 0.0, "concurrency": 64}
    found, python = {}, Path(sys.executable)
    print("\nno latency, 64 at once", flush=True)
    with tempfile.TemporaryDirectory() as few, tempfile.TemporaryDirectory() as many:
        found["few"] = run(python, Path(few), requests=options.requests, **common)
        found["many"] = run(python, Path(many), requests=options.long, **common)
        found["resumed"] = run(
            python, Path(many), requests=options.long, **common | {"resume": True}
        )
    for name, one in found.items():
        show(one, name)
    return found


def bars(table: list[Found], growth: dict[str, Found]) -> list[Found]:
    """Each bar that the figures at hand can be held against."""
    at = {
        (row["contender"], row["latency"], row["concurrency"]): row
        for row in table
        if not row.get("failed")
    }  # those that have figures
    mine = [row for row in at.values() if row["contender"] == "ours"]
    found: list[tuple[str, float, bool]] = []
    if row := at.get(("ours", 1.0, 256)):
        share = row["rate"] / 256
        found.append(
            ("share of concurrency/latency at 256 and 1 s, at least 0.9", share, share >= 0.9)
        )
    if (row := at.get(("ours", 0.2, 512))) and (other := at.get(("openai", 0.2, 512))):
        share = row["rate"] / other["rate"]
        found.append(
            (
                "share of the bare openai client's rate at 512 and 200 ms, at least 0.9",
                share,
                share >= 0.9,
            )
        )
    if mine:
        worst = max(row["cpu_ms"] for row in mine)
        found.append(
            ("ms of client CPU a request, the worst row, at most 1.5", worst, worst <= 1.5)
        )
    for peer in PEERS:
        leads = [
            row["rate"] / other["rate"]
            for row in mine
            if (other := at.get((peer, row["latency"], row["concurrency"])))
        ]
        if leads:
            found.append(
                (f"times as fast as {peer}, the worst row, above 1", min(leads), min(leads) > 1)
            )
    if growth:
        few, many, resumed = growth.values()
        grown = (many["rss"] - few["rss"]) / (many["requests"] - few["requests"])
        found.append(("bytes of memory a further row, at most 200", grown, grown <= 200))
        found.append(
            (
                f"s to resume {resumed['requests']:,} rows, at most 5",
                resumed["seconds"],
                resumed["seconds"] <= 5,
            )
        )
        found.append(("calls to resume, none", resumed["calls"], resumed["calls"] == 0))
    return [{"bar": bar, "found": value, "met": met} for bar, value, met in found]


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m bench.teacher", description="See the head of bench/teacher.py."
    )
    parser.add_argument("--requests", type=int, default=5000)
    parser.add_argument("--latency", type=float, nargs="+", default=[0.2, 1.0])
    parser.add_argument("--concurrency", type=int, nargs="+", default=[64, 256, 512])
    parser.add_argument(
        "--rounds", type=int, default=3, help="runs of which the median counts, where CPU decides"
    )
    parser.add_argument("--only", nargs="+", choices=CONTENDERS, default=list(CONTENDERS))
    parser.add_argument(
        "--long", type=int, default=100_000, help="rows of the long journal; 0 leaves it out"
    )
    parser.add_argument(
        "--peers",
        type=Path,
        default=ROOT / ".cache/peers",
        help="where the peers' environments are",
    )
    parser.add_argument("--json", type=Path, help="a file for all figures")
    parser.add_argument("--job", help=argparse.SUPPRESS)  # what a contender's own process is told
    options = parser.parse_args()
    if options.job:
        return contend(SimpleNamespace(**json.loads(options.job)))
    with teacher_url() as url:
        table = compare(url, options)
        growth = grow(url, options) if options.long else {}
    held = bars(table, growth)
    print()
    for one in held:
        print(f"{'met   ' if one['met'] else 'MISSED'} {one['bar']}: {one['found']:,.3g}")
    if options.json:
        machine = {
            "python": platform.python_version(),
            "cores": os.cpu_count(),
            "system": platform.platform(),
        }
        report = {
            "machine": machine,
            "peers": PEERS,
            "table": table,
            "growth": growth,
            "bars": held,
        }
        options.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
