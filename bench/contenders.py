"""The contenders of bench.teacher: each run of one is a process of its own, in a folder of its own.

python bench/contenders.py JOB, where the JSON object JOB has contender, url, latency, concurrency,
requests and resume; what was measured goes to the file result.json. A contender imports and
prepares, and gives what is clocked.
"""

import asyncio
import json
import os
import resource
import sys
import time
from collections.abc import Callable, Collection, Iterator
from functools import partial
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.request import urlopen

ROOT = Path(__file__).resolve().parents[1]
Found = dict[str, Any]
Ask = Callable[[], int]  # asks everything and gives the number of answers

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
    schema = {"name": "answer", "schema": SCHEMA, "strict": True}
    return {
        "model": MODEL,
        "messages": messages(row),
        "temperature": 0.0,
        "max_completion_tokens": ROOM,
        "seed": 0,
        "response_format": {"type": "json_schema", "json_schema": schema},
    }


def ours(job: SimpleNamespace) -> Ask:
    import aiohttp
    import httpx_aiohttp
    import jinja2
    import jsonschema
    import openai

    from potstill.checks import registry
    from potstill.core import jsonl, params
    from potstill.task import settings
    from potstill.teacher import asking

    assert all((aiohttp, httpx_aiohttp, jinja2, jsonschema, openai))  # not on the clock
    p = params.parse(params.read_text(ROOT / params.PATH), params.PATH)["teacher"]
    p |= {"model": MODEL, "temperature": 0.0, "max_tokens": ROOM, "extra_body": {}}
    p["batch"] = getattr(job, "batch", False)
    p |= {"concurrency": job.concurrency, "rpm": None, "tpm": None, "budget": None}
    place = {"TEACHER_BASE_URL": job.url, "TEACHER_API_KEY": "none"}
    os.environ.update(place, TEACHER_JOURNAL=str(job.kept))
    jsonl.write_text("task.yaml", TASK)
    jsonl.write_text("prompts/teacher.md", SYSTEM)
    jsonl.write_json("schema.json", SCHEMA)
    task, lines = settings.load(), Lines(job.requests)
    check = partial(registry.check, task)

    def checked() -> Iterator[jsonl.Row]:
        teacher = SimpleNamespace(**p)
        answers = asking.answer_rows(task, lines, teacher, 1, check=check, good_share=0.5)
        for line, answer in zip(lines, answers, strict=True):
            if not job.resume and (reasons := check(line, answer["answer"])):
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
        http = openai.DefaultAioHttpClient()
        async with openai.AsyncOpenAI(
            base_url=job.url, api_key="none", http_client=http, max_retries=0
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
    # The tokens that it would download
    import litellm.litellm_core_utils.default_encoding  # type: ignore[import-not-found]
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


def contend(job: SimpleNamespace) -> Found:
    """What one run of one contender took."""
    start = time.monotonic()
    job.kept = Path("kept").absolute()
    ask = CONTENDERS[job.contender](job)
    prepared = time.monotonic() - start
    at_teacher(job.url, f"start?latency={job.latency}{getattr(job, 'mode', '')}")
    cpu, start = sum(each.ru_utime + each.ru_stime for each in usage()), time.monotonic()
    answers = ask()
    seconds = time.monotonic() - start
    seen = at_teacher(job.url, "calls")
    return {
        "requests": answers,
        "calls": seen["calls"],
        "refused": seen["refused"],
        "twice": seen["twice"],
        "in_flight": seen["most"],
        "seconds": seconds,
        "served_seconds": seen["seconds"],
        "import_seconds": prepared,
        "cpu_seconds": sum(each.ru_utime + each.ru_stime for each in usage()) - cpu,
        "rss": sum(each.ru_maxrss for each in usage()) * 1024,
        "disk": sum(path.stat().st_size for path in job.kept.rglob("*") if path.is_file()),
        "versions": {name: version(name) for name in ("aiohttp", "httpx", "openai")},
    }


def usage() -> list[resource.struct_rusage]:
    """What this process and its children used."""
    return [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]


def at_teacher(url: str, what: str) -> Found:
    with urlopen(url.removesuffix("v1") + what) as response:
        return dict(json.load(response))


def version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


if __name__ == "__main__":
    Path("result.json").write_text(json.dumps(contend(SimpleNamespace(**json.loads(sys.argv[1])))))
