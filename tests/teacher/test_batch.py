"""teacher.batch: requests in files that are answered within a day, each paid for once whatever ends
the run or the batch. Money and requests are counted by the fake's own ledger."""

import json
import multiprocessing
import os
import random
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from aiohttp import web

from potstill.commands import quote
from potstill.core import jsonl
from potstill.core import params as parameters
from potstill.core.errors import UserError
from potstill.evaluation import score
from potstill.task import settings
from potstill.teacher import asking, batch, batch_api, client
from potstill.teacher.journal import Journal
from tests.conftest import ROOT, Body, FakeTeacher, Project, completion

DIRECT = 16  # requests that come before the first batch
FOLDER = Path(".cache/teacher/toy.batches")
ANSWERS = [json.dumps({"word": f"word{i}", "length": len(f"word{i}")}) for i in range(600)]


def hurry(patch: Any = setattr) -> None:
    for module, name, value in (
        (batch, "FIRST_LOOK", 0.005),
        (batch, "LAST_LOOK", 0.01),
        (batch_api, "FIRST_DELAY", 0.005),
        (batch_api, "LONGEST_DELAY", 0.01),
        (batch_api, "LAG", 0.05),
        (client, "FIRST_DELAY", 0.01),
    ):
        patch(module, name, value)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    hurry(monkeypatch.setattr)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # by which a forkserver loads this file once


@pytest.fixture
def params(teacher_params: SimpleNamespace) -> SimpleNamespace:
    prices = {"price_in": 1000.0, "price_out": 2000.0}  # 7 and 3 tokens: 0.013 an answer
    return SimpleNamespace(**vars(teacher_params) | {"batch": True, **prices})


def ask(count: int, params: SimpleNamespace) -> list[jsonl.Row]:
    inputs = [{"id": f"r{i}", "text": f"ends in word{i}"} for i in range(count)]
    return list(asking.answer_rows(settings.load(), inputs, params, 1))


def check(rows: list[jsonl.Row]) -> None:
    assert [row["answer"] for row in rows] == ANSWERS[: len(rows)]
    assert {row["error"] for row in rows} == {None}
    assert not [path for path in FOLDER.glob("*") if path.name != "lock"]  # all is read


def once(fake: FakeTeacher, count: int) -> None:
    """Each of the requests was paid for once."""
    assert set(fake.batches.paid.values()) == {1}
    assert len(fake.batches.paid) + len(fake.calls) == count


def test_the_first_are_asked_directly_and_the_rest_at_half_the_price(
    project: Project,
    fake: FakeTeacher,
    params: SimpleNamespace,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(batch, "ROWS", 30)
    fake.batches.headers = {"Retry-After": "0.01"}
    found = ask(100, params)
    check(found)
    once(fake, 100)
    assert (len(fake.calls), len(fake.batches.batches)) == (DIRECT, 3)
    request = fake.batches.requests(0)[0]
    assert request == {
        "custom_id": found[DIRECT]["key"],
        "method": "POST",
        "url": "/v1/chat/completions",
        "body": fake.calls[0] | {"messages": request["body"]["messages"]},
    }
    assert found[DIRECT] == found[0] | {
        "id": "r16",
        "key": found[DIRECT]["key"],
        "answer": ANSWERS[DIRECT],
        "price_share": 0.5,
    }
    said = capfd.readouterr().err
    cost = 16 * 0.013 + 84 * 0.013 / 2
    assert "0 answers from the journal, 100 new in 100 requests (0 retries), 700 + 300" in said
    assert f"cost {cost:.4g}," in said
    calls = len(fake.batches.calls)
    assert ask(100, params) == found
    assert len(fake.batches.calls) == calls
    spent = score.cost(found, [], 100, 1000.0, 2000.0)
    assert (spent["spent"], spent["per_request"]) == (float(f"{cost:.4g}"), 0.013)
    assert "price_share" in Path(".cache/teacher/toy.jsonl").read_text()


def test_a_few_requests_need_no_batch_and_a_scripted_teacher_has_none(
    project: Project, fake: FakeTeacher, params: SimpleNamespace
) -> None:
    check(ask(DIRECT + 5, params))  # the last five are no batch either
    assert (len(fake.calls), fake.batches.calls) == (DIRECT + 5, [])
    params.model = "scripted"
    assert len(ask(40, params)) == 40
    assert fake.batches.calls == []


def fails(status: int, words: str, times: int = 1) -> Callable[[Body, int], Body | None]:
    """Every third row answered with an error for so many times."""

    def line(body: Body, n: int) -> Body | None:
        third = int(body["messages"][-1]["content"].split("word")[1]) % 3 == 0
        reply = {"status_code": status, "body": {"error": {"message": words}}}
        return {"response": reply, "error": None} if third and n < times else None

    return line


@pytest.mark.parametrize("end", ["expired", "cancelled"])
def test_what_an_ended_batch_answered_is_kept_and_the_rest_goes_into_the_next(
    project: Project, fake: FakeTeacher, params: SimpleNamespace, end: str
) -> None:
    fake.batches.ends = lambda n: end if n == 0 else "completed"
    check(ask(116, params))
    once(fake, 116)
    assert [len(fake.batches.requests(n)) for n in range(2)] == [100, 50]


def lines_lost(body: Body, n: int) -> str | None:
    return "" if n == 0 and int(body["messages"][-1]["content"].split("word")[1]) % 3 == 0 else None


def no_answer(body: Body, n: int) -> Body | None:
    reply = {"status_code": 200, "body": completion("", "error")}
    return {"response": reply, "error": None} if n == 0 and "word5" in str(body) else None


@pytest.mark.parametrize(
    ("line", "again", "paid"),
    [
        (fails(500, "overloaded", 2), 33, 0),
        (fails(429, "slow down"), 33, 0),
        (fails(400, "seed is not supported"), 33, 0),
        (lines_lost, 33, 33),
        (no_answer, 10, 10),
    ],
)
def test_requests_that_failed_go_into_the_next_batch(
    project: Project,
    fake: FakeTeacher,
    params: SimpleNamespace,
    line: Callable[[Body, int], Body | str | None],
    again: int,
    paid: int,
) -> None:
    fake.batches.line = line
    check(ask(116, params))
    assert len(fake.batches.requests(0)) == 100
    next_ones = len(fake.batches.requests(1)) if len(fake.batches.batches) > 1 else 0
    assert next_ones == (again if again > DIRECT else 0)
    assert len(fake.calls) == DIRECT + (again if again <= DIRECT else 0)
    spent = asking.open_journal(settings.load()).used["fake-235b"]
    assert (spent.answers, bool(spent.lost_out)) == (116, paid > 0)
    assert sum(fake.batches.paid.values()) + len(fake.calls) == 116 + paid


def test_refused_rows_keep_their_reason_and_those_that_only_fail_end_the_run(
    project: Project, fake: FakeTeacher, params: SimpleNamespace
) -> None:
    fake.batches.line = fails(400, "flagged by content policy", 9)
    found = ask(116, params)
    assert sum(row["error"] is not None for row in found) == 33
    assert found[18]["error"] == "400: flagged by content policy"
    assert len(fake.batches.batches) == 1
    fake.batches.line = fails(500, "overloaded", 9)
    with pytest.raises(UserError, match=r"33 of 116 requests got no answer in 4 tries each.*500"):
        ask(116, params)
    assert max(fake.batches.tried.values()) == 1 + 4


@pytest.mark.parametrize(
    ("refusing", "said"),
    [
        ({"POST /files": 404}, "takes no batch.*404.*set teacher.batch: false"),
        ({"POST /batches": 400}, "takes no batch.*400.*set teacher.batch: false"),
        ({"POST /batches": 401}, "401.*check TEACHER_API_KEY"),
        ({"GET /batches/batch_0": 404}, r"does not know the batch batch_0.*delete this file"),
    ],
)
def test_an_endpoint_that_takes_no_batches_is_said_in_one_sentence(
    project: Project,
    fake: FakeTeacher,
    params: SimpleNamespace,
    refusing: dict[str, int],
    said: str,
) -> None:
    def reply(call: str, done: bool) -> web.Response | None:
        error = {"error": {"message": "no"}}
        return web.json_response(error, status=refusing[call]) if call in refusing else None

    fake.batches.reply = reply
    with pytest.raises(UserError, match=said) as raised:
        ask(60, params)
    assert "16 new answers are in the journal" in str(raised.value)
    fake.batches.reply = lambda call, done: None
    check(ask(60, params))
    once(fake, 60)


def test_a_batch_that_fails_as_a_whole_ends_the_run_or_becomes_smaller_ones(
    project: Project, fake: FakeTeacher, params: SimpleNamespace
) -> None:
    fake.batches.ends = lambda n: ("invalid_model", "line 3 names no model")
    with pytest.raises(UserError, match=r"failed the batch batch_0: line 3 names no model"):
        ask(116, params)
    fake.batches.batches.clear()
    full = "Enqueued token limit reached: try again once some batches have been completed"
    fake.batches.ends = lambda n: ("token_limit_exceeded", full) if n < 2 else "completed"
    check(ask(116, params))
    once(fake, 116)
    sizes = [len(fake.batches.requests(n)) for n in range(len(fake.batches.batches))]
    assert sizes == [100, 50, 50, 50]  # the second one waited for the third


@pytest.mark.parametrize("call", ["POST /batches", "POST /files", "GET /batches/batch_0"])
@pytest.mark.parametrize("done", [False, True])
def test_calls_whose_replies_are_lost_make_no_second_batch(
    project: Project, fake: FakeTeacher, params: SimpleNamespace, call: str, done: bool
) -> None:
    lost = [call, call]

    def reply(now: str, after: bool) -> web.Response | None:
        if now == call and after == done and lost:
            lost.pop()
            return web.Response(status=502, text="<html>bad gateway</html>")
        return None

    fake.batches.reply, fake.batches.page = reply, 1
    check(ask(60, params))
    once(fake, 60)
    assert len(fake.batches.batches) == 1


def test_the_budget_holds_what_is_under_way(
    project: Project, fake: FakeTeacher, params: SimpleNamespace
) -> None:
    params.price_in = params.price_out = 1e6  # of an answer 10, of a batch's 5
    params.budget = 10 * DIRECT + 2000.0
    with pytest.raises(UserError, match=r"budget 2160 is used up: \S+ spent, and the next \d+ re"):
        ask(516, params)
    spent = 5 * sum(fake.batches.paid.values()) + 10 * len(fake.calls)
    assert params.budget - 17 * 60 < spent <= params.budget
    sizes = [len(fake.batches.requests(n)) for n in range(len(fake.batches.batches))]
    assert len(sizes) > 2 and sizes == sorted(sizes, reverse=True) and sizes[-1] > DIRECT
    assert sizes[0] < 2000 / (64 / 2)  # as many as the longest answers would leave room for
    params.budget = None
    check(ask(516, params))
    once(fake, 516)


def test_without_batch_what_is_under_way_is_waited_for_and_the_rest_is_asked(
    project: Project, fake: FakeTeacher, params: SimpleNamespace
) -> None:
    fake.batches.reply = lambda call, done: (
        web.json_response({"error": {"message": "key expired"}}, status=401)
        if call.startswith("GET /batches/")
        else None
    )
    with pytest.raises(UserError, match=r"1 batch is still at the endpoint"):
        ask(60, params)
    fake.batches.reply = lambda call, done: None
    params.batch = False
    check(ask(80, params))
    once(fake, 80)
    assert len(fake.batches.batches) == 1


def test_a_stop_leaves_the_batches_and_the_next_run_goes_on(
    project: Project, fake: FakeTeacher, params: SimpleNamespace
) -> None:
    fake.batches.looks = 10**9

    def stop() -> None:
        while "GET /batches/batch_0" not in fake.batches.calls:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=stop, daemon=True).start()
    with pytest.raises(KeyboardInterrupt, match="1 batch is still at the endpoint"):
        ask(60, params)
    fake.batches.looks = 2
    check(ask(60, params))
    once(fake, 60)
    assert len(fake.batches.batches) == 1


# ---- killed at any moment, and two at once

STEPS: list[tuple[Any, str]] = [  # where a run is killed, before or after: each call, each write
    (batch_api.BatchApi, name) for name in ("upload", "create", "find", "look", "fetch")
]
STEPS += [
    (Journal, "_append"),
    (batch, "_save"),
    (batch.Batches, "_forget"),
    (batch.Batches, "_fill"),
]


def run(folder: str, env: dict[str, str], params: SimpleNamespace, left: int) -> None:
    """Asks in a process of its own, which kills itself at a step, when so many are left to it."""
    os.chdir(folder)
    os.environ.update(env, DVC_ROOT=".")
    hurry()
    batch.ROWS = 40
    steps = 0

    def die() -> None:
        nonlocal steps
        steps += 1
        if steps == left:
            os.kill(os.getpid(), signal.SIGKILL)

    def deadly(call: Callable[..., Any]) -> Callable[..., Any]:
        def stepping(*given: Any) -> Any:
            die()
            found = call(*given)
            if not hasattr(found, "__await__"):
                die()
                return found

            async def waited() -> Any:
                got = await found
                die()
                return got

            return waited()

        return stepping

    for owner, name in STEPS:
        setattr(owner, name, deadly(getattr(owner, name)))
    ask(136, params)


def start(project: Project, fake: FakeTeacher, params: SimpleNamespace, left: int) -> Any:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__, "openai", "aiohttp", "httpx", "jinja2", "jsonschema"])
    process = context.Process(target=run, args=(str(project.dir), fake.env(), params, left))
    process.start()
    return process


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(20))
def test_kills_at_any_moment_pay_for_nothing_twice(
    project: Project, fake: FakeTeacher, params: SimpleNamespace, seed: int
) -> None:
    chance = random.Random(seed)
    fake.batches.ends = lambda n: "expired" if n == 1 else "completed"
    killed = 0
    # The first kills of all seeds together come to every step until the batches are there
    for step in (2 * seed + chance.randint(1, 2), *(chance.randint(1, 45) for _ in range(2))):
        process = start(project, fake, params, step)
        process.join(60)
        assert process.exitcode in (0, -signal.SIGKILL)
        killed += process.exitcode != 0
    # One more, so that something is asked: a run whose answers are all in the journal opens no
    # endpoint, and leaves what was killed between its last answer and the end of its batch
    check(ask(137, params))
    assert killed
    assert set(fake.batches.paid.values()) == {1}
    direct = [body["messages"][-1]["content"] for body in fake.calls]
    assert len(fake.batches.paid) + len(set(direct)) == 137
    assert len(direct) - len(set(direct)) <= DIRECT * killed  # as without batches


@pytest.mark.slow
def test_two_at_once_share_their_batches(
    project: Project, fake: FakeTeacher, params: SimpleNamespace
) -> None:
    fake.batches.looks = 4
    ask(DIRECT, params)
    both = [start(project, fake, params, 0) for _ in range(2)]
    for process in both:
        process.join(60)
    assert [process.exitcode for process in both] == [0, 0]
    check(ask(136, params))
    once(fake, 136)


# ---- what is said before


def test_the_quote_has_the_price_of_batches(project: Project, params: SimpleNamespace) -> None:
    project.seeds(100, alike=False)
    project.set(teacher_model="fake-235b", teacher_price_in=1000.0, teacher_price_out=2000.0)

    def said() -> str:
        names = ("near_duplicate", "expand", "generate", "teacher")
        return quote.quote(settings.load(), parameters.load(*names))

    def cost(text: str) -> float:
        return float(text.split("cost: ")[1].split()[0].replace(",", ""))

    full = said()
    project.set(teacher_batch=True)
    half = said()
    assert cost(half) == pytest.approx(cost(full) / 2, abs=0.01)
    assert "In batches of at most 50,000 requests, at half the prices" in half
    assert "a day at most" in half and "batches" not in full
