"""What bench/serve.py makes of its figures, and the whole of it around a stand-in for vLLM's app
behind the real gateway."""

import json
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import Route

from bench import serve as bench
from potstill.core import jsonl
from potstill.serving import gateway, quantize, serve
from potstill.task import settings
from tests import fakes
from tests.conftest import Project


def stand_in(guess: bool, slow: float) -> Starlette:
    """vLLM's answers and counters for the toy task; where it guesses, half the tokens are right."""
    served = 0

    async def chat(request: Request) -> JSONResponse:
        nonlocal served
        served += 1
        asked = await request.json()
        assert asked["messages"][0]["content"] == "last word"  # bare vLLM gets what ours makes
        word = asked["messages"][-1]["content"].split()[-1]
        time.sleep(slow)
        text = json.dumps({"word": word, "length": len(word)})
        return JSONResponse(
            {"choices": [{"message": {"content": text}}], "usage": {"completion_tokens": 10}}
        )

    async def metrics(request: Request) -> PlainTextResponse:
        names = {"draft": 8 * served, "accepted": 4 * served} if guess else {}
        lines = [
            f'vllm:spec_decode_num_{name}_tokens_total{{engine="0"}} {n}.0'
            for name, n in names.items()
        ]
        return PlainTextResponse("\n".join(lines))

    return Starlette(
        routes=[Route("/v1/chat/completions", chat, methods=["POST"]), Route("/metrics", metrics)]
    )


@pytest.mark.parametrize("fast", [True, False])
def test_the_whole_bench(
    project: Project,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    fast: bool,
) -> None:
    """Speculation becomes the default where it is faster, and only there."""
    commands = []

    @contextmanager
    def server(command: list[str], settings: dict[str, str]) -> Iterator[str]:
        commands.append(command)
        guess = any("ngram" in word for word in command)
        app = gateway.Gateway(stand_in(guess, 0.004 if guess is fast else 0.012))
        config = uvicorn.Config(
            app, port=0, http=gateway.Protocol, ws="none", log_level="critical", lifespan="off"
        )
        running = uvicorn.Server(config)
        thread = threading.Thread(target=running.run)
        thread.start()
        while not running.started:
            time.sleep(0.01)
        try:
            yield f"http://127.0.0.1:{running.servers[0].sockets[0].getsockname()[1]}"
        finally:
            running.should_exit = True
            thread.join(10)

    tests = [{**row, "slice": "a"} for row in project.seeds(20)]
    jsonl.write_jsonl("data/4-test.jsonl", tests)
    none = {"prompt_tokens": 1, "completion_tokens": 1}
    said = [
        {"id": row["id"], "answer": f'{{"word": "word{i}", "length": {len(f"word{i}")}}}'}
        for i, row in enumerate(tests)
    ]
    said[0]["answer"] = said[0]["answer"].replace("word0", "ward0")  # the server has it right
    jsonl.write_jsonl("data/5-predictions/sft/test.jsonl", [row | none for row in said])
    jsonl.write_json("data/6-choice.json", {"ship": "sft"})
    fakes.model("models/student")
    monkeypatch.setenv(gateway.KEY, "")  # the bench sets its own
    monkeypatch.setattr(bench, "server", server)
    monkeypatch.setattr(bench, "TARGET", 0.2)
    monkeypatch.setattr(sys, "argv", ["bench.serve", "--users", "1", "4"])
    bench.main()
    vllm = "vllm.entrypoints.openai.api_server"
    assert [command[0] for command in commands] == [
        "potstill.serving.serve",
        "potstill.serving.serve",
        "potstill.serving.serve",
        vllm,
        vllm,
    ]
    winner = "ngram" if fast else "off"
    assert [command[-1] for command in commands[:3]] == ["off", "ngram", winner]
    assert ("--speculative-config" in commands[3]) is fast
    assert "--middleware" not in commands[3]
    assert set(commands[4][1::2]) <= {f"--{name}" for name in bench.USUAL}
    found = jsonl.read_json("reports/serving.json")
    assert [(row["server"], row["users"], row["errors"]) for row in found["load"]] == [
        (name, users, 0) for users in (1, 4) for name in ("vLLM, defaults", "bare vLLM", "ours")
    ]
    assert (found["served"]["differ"], found["served"]["flips"], found["served"]["floor"]) == (
        1,
        1,
        0,
    )
    assert (found["guided"]["right"], found["guided"]["invalid"], found["ngram"]["flips"]) == (
        20,
        0,
        0,
    )
    assert found["ngram"]["acceptance"] == 0.5
    assert (found["ngram"]["gain"]["1"] > 1) is fast
    assert found["most_users"] >= 4
    assert abs(found["gateway_ms"]) < 5  # below 0.1 of its own: noise may give either sign
    assert found["speculative"] == serve.speculation(settings.load(), "auto") == winner
    assert capsys.readouterr().out.count("| ours |") == 2


def test_percentiles_and_rates_are_those_of_all_passes_together() -> None:
    passes = [
        bench.Load([i / 1000 for i in range(1, 51)], 300, 2.0, ["a"] * 50),
        bench.Load([i / 1000 for i in range(51, 101)], 100, 3.0, [*["a"] * 50, ""]),
    ]
    found = bench.figures(8, passes)
    assert found == {
        "users": 8,
        "p50_ms": 51.0,
        "p95_ms": 96.0,
        "p99_ms": 100.0,
        "requests_per_second": 20.0,
        "tokens_per_second": 80.0,
        "errors": 1,
    }


@pytest.mark.parametrize("most", [0, 1, 2, 7, 8, 9, 31, 40, 127, 128, 300])
@pytest.mark.parametrize("known", [(), (1, 8, 32, 128)])
def test_the_most_users_are_found_to_an_eighth(
    monkeypatch: pytest.MonkeyPatch, most: int, known: Any
) -> None:
    def load(url: str, bodies: list[Any], users: int) -> bench.Load:
        assert len(bodies) >= 64
        return bench.Load(
            [0.4 if users <= most else 0.6] * len(bodies), 0, 1.0, ["a"] * len(bodies)
        )

    monkeypatch.setattr(bench, "load", load)
    before = [bench.figures(users, [load("", [{}] * 64, users)]) for users in known]
    found = bench.most_users("", [{}] * 3, before)
    assert most - max(1, most // 8) < found <= most or found == most


def test_a_hop_is_held_against_what_two_equal_runs_differ_by(project: Project) -> None:
    toy = settings.load()
    tests = [{**row, "slice": "a"} for row in project.seeds(40)]
    right = [f'{{"word":"word{i}","length":{len(f"word{i}")}}}' for i in range(40)]

    def wrong(count: int) -> list[str]:
        return [""] * count + right[count:]

    found = quantize.same(toy, tests, right, wrong(8), (right, right))
    assert (found["differ"], found["flips"], found["right"], found["floor"], found["passed"]) == (
        8,
        8,
        32,
        0,
        0,
    )
    found = quantize.same(toy, tests, right, wrong(8), (right, wrong(6)))
    assert (found["flips"], found["floor"], found["passed"]) == (8, 6, 1)


def test_answers_that_break_the_schema_are_counted(project: Project) -> None:
    answers = ['{"word":"a","length":1}', '{"word":"a"}', "{", ""]
    assert bench.invalid(settings.load(), answers) == 3
