"""potstill.teacher against a fake endpoint: each answer asked once, faults survived or said in one
sentence, no key shown."""

import json
import socket
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
from aiohttp import web

from potstill.checks import registry
from potstill.commands import fill, quote
from potstill.core import jsonl, params
from potstill.core.errors import UserError
from potstill.task import settings
from potstill.teacher import asking, client, endpoint, refusal
from potstill.teacher.journal import Journal
from stages import generate
from tests.conftest import KEY, ROOT, Body, FakeTeacher, Project, completion

Behave = Callable[[int, Body, web.Request], Awaitable[web.StreamResponse | None]]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "FIRST_DELAY", 0.01)


def ask(count: int, params: SimpleNamespace, samples: int = 1) -> list[jsonl.Row]:
    inputs = [{"id": f"r{i}", "text": f"ends in word{i}"} for i in range(count)]
    return list(asking.answer_rows(settings.load(), inputs, params, samples))


def journal_text() -> str:
    return Path(".cache/teacher/toy.jsonl").read_text()


def test_an_answer_that_is_not_to_be_seen_ends_the_stage(
    project: Project,
    fake: FakeTeacher,
    teacher_params: SimpleNamespace,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is no row without an answer: the next run has it from the journal."""
    with monkeypatch.context() as blind:
        blind.setattr(Journal, "find", lambda self, key, max_tokens: None)
        with pytest.raises(UserError, match=r"toy.jsonl: no answer to row r0, which the teacher"):
            ask(3, teacher_params)
    assert [row["error"] for row in ask(3, teacher_params)] == [None] * 3
    assert len(fake.calls) == 3


def test_answers_come_in_order_and_are_asked_once(
    project: Project,
    fake: FakeTeacher,
    teacher_params: SimpleNamespace,
    capfd: pytest.CaptureFixture[str],
) -> None:
    first = ask(30, teacher_params, samples=2)
    assert [(row["id"], row["sample"]) for row in first] == [
        (f"r{i}", sample) for i in range(30) for sample in (0, 1)
    ]
    assert first[6] == {
        "id": "r3",
        "sample": 0,
        "key": first[6]["key"],
        "model": "fake-235b",
        "max_tokens": 64,
        "answer": '{"word": "word3", "length": 5}',
        "finish_reason": "stop",
        "prompt_tokens": 7,
        "completion_tokens": 3,
        "error": None,
    }
    assert len(fake.calls) == 60
    call = next(
        body
        for body in fake.calls
        if "word0" in body["messages"][-1]["content"] and not body["seed"]
    )
    messages = call.pop("messages")
    schema = {"name": "answer", "strict": True, "schema": settings.load().schema}
    assert call.pop("response_format") == {"type": "json_schema", "json_schema": schema}
    assert call == {
        "model": "fake-235b",
        "temperature": 0.0,
        "max_completion_tokens": 64,
        "seed": 0,
    }
    assert messages[0] == {
        "role": "system",
        "content": "You find the last word. Answer with JSON only.",
    }
    assert messages[1:] == [{"role": "user", "content": "ends in word0"}]
    said = capfd.readouterr().err
    assert (
        "teacher fake-235b: 0 answers from the journal, "
        "60 new in 60 requests (0 retries), 420 + 180 tokens" in said
    )
    assert ask(30, teacher_params, samples=2) == first
    assert len(fake.calls) == 60
    assert "60 answers from the journal, none asked" in capfd.readouterr().err
    assert len(ask(31, teacher_params)) == 31
    assert len(fake.calls) == 61


@pytest.mark.parametrize(
    ("change", "calls"),
    [
        ({"concurrency": 1, "timeout": 9, "retries": 0}, 0),
        ({"max_tokens": 32}, 0),
        ({"max_tokens": 640}, 0),
        ({"temperature": 0}, 0),  # the same as 0.0
        ({"temperature": 0.7}, 4),
        ({"model": "another"}, 4),
    ],
)
def test_what_makes_a_question_new(
    project: Project,
    fake: FakeTeacher,
    teacher_params: SimpleNamespace,
    change: dict[str, object],
    calls: int,
) -> None:
    ask(4, teacher_params)
    ask(4, SimpleNamespace(**{**vars(teacher_params), **change}))
    assert len(fake.calls) == 4 + calls


def test_an_edited_prompt_and_an_equal_input(
    project: Project, fake: FakeTeacher, teacher_params: SimpleNamespace
) -> None:
    t = settings.load()
    twins = [{"id": "a", "text": "x y"}, {"id": "b", "text": "x y"}]
    assert [row["answer"] for row in asking.answer_rows(t, twins, teacher_params, 1)] == [
        '{"word": "y", "length": 1}'
    ] * 2
    assert len(fake.calls) == 1
    project.write("prompts/teacher.md", "Another prompt.")
    list(asking.answer_rows(settings.load(), twins, teacher_params, 1))
    assert len(fake.calls) == 2


def test_a_cut_off_answer_is_asked_again_with_more_room(
    project: Project, fake: FakeTeacher, teacher_params: SimpleNamespace
) -> None:
    async def cut(n: int, body: Body, request: web.Request) -> web.StreamResponse | None:
        return (
            web.json_response(completion('{"wo', "length"))
            if body["max_completion_tokens"] < 100
            else None
        )

    fake.behave = cut
    assert ask(3, teacher_params)[0]["finish_reason"] == "length"
    assert ask(3, teacher_params)[0]["finish_reason"] == "length"
    assert len(fake.calls) == 3
    teacher_params.max_tokens = 200
    assert ask(3, teacher_params)[0]["finish_reason"] == "stop"
    teacher_params.max_tokens = 64
    assert ask(3, teacher_params)[0]["finish_reason"] == "stop"
    assert len(fake.calls) == 6


def status(code: int, **headers: str) -> Behave:
    async def behave(n: int, body: Body, request: web.Request) -> web.StreamResponse | None:
        if n % 3 == 1:
            return web.json_response({"error": {"message": "busy"}}, status=code, headers=headers)
        return None

    return behave


async def html(n: int, body: Body, request: web.Request) -> web.StreamResponse | None:
    return (
        web.Response(text="<html>welcome</html>", content_type="text/html") if n % 3 == 1 else None
    )


@pytest.mark.parametrize(
    "behave", [status(500), status(503), status(429), status(429, **{"Retry-After": "0"}), html]
)
def test_faults_that_pass_are_retried(
    project: Project, fake: FakeTeacher, teacher_params: SimpleNamespace, behave: Behave
) -> None:
    fake.behave = behave
    teacher_params.retries = 8
    found = ask(30, teacher_params)
    assert [row["answer"] for row in found] == [
        json.dumps({"word": f"word{i}", "length": len(f"word{i}")}) for i in range(30)
    ]
    assert [row["error"] for row in found] == [None] * 30
    assert len(fake.calls) == 30 + sum(
        n % 3 == 1 for n in range(len(fake.calls))
    )  # each fault costs one call, no more


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "3"}, 3),
        ({"retry-after": "Thu, 01 Jan 1970 00:00:00 GMT"}, 0),
        ({"retry-after": "soon"}, None),
        ({}, None),
    ],
)
def test_retry_after(headers: dict[str, str], seconds: float | None) -> None:
    assert refusal.retry_after(headers) == seconds


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (
            401,
            r"answered 401 \(.*Incorrect API key: \*\*\*.*\): check TEACHER_API_KEY; "
            r"0 new answers are in the journal",
        ),
        (
            404,
            r"answered 404 .*check teacher.model and TEACHER_BASE_URL, which usually ends in /v1",
        ),
    ],
)
def test_what_no_retry_can_mend_stops_at_once(
    project: Project,
    fake: FakeTeacher,
    teacher_params: SimpleNamespace,
    capfd: pytest.CaptureFixture[str],
    code: int,
    expected: str,
) -> None:
    async def refuse(n: int, body: Body, request: web.Request) -> web.StreamResponse:
        return web.json_response({"error": {"message": f"Incorrect API key: {KEY}"}}, status=code)

    fake.behave = refuse
    with pytest.raises(UserError, match=expected) as error:
        ask(200, teacher_params)
    assert len(fake.calls) <= teacher_params.concurrency
    assert "\n" not in str(error.value)
    assert KEY not in str(error.value) + "".join(capfd.readouterr())


def test_rows_that_the_endpoint_refuses_are_told_apart(
    project: Project, fake: FakeTeacher, teacher_params: SimpleNamespace
) -> None:
    async def refuse(n: int, body: Body, request: web.Request) -> web.StreamResponse | None:
        bad = body["messages"][-1]["content"].endswith("word3")
        return (
            web.json_response({"error": {"message": "content policy"}}, status=400) if bad else None
        )

    fake.behave = refuse
    found = ask(6, teacher_params)
    assert [bool(row["error"]) for row in found] == [False, False, False, True, False, False]
    assert (found[3]["answer"], found[3]["finish_reason"]) == ("", None)
    assert found[3]["error"].startswith("400: ")
    assert "content policy" in found[3]["error"]
    assert len(fake.calls) == 6


@pytest.mark.parametrize(
    ("code", "count", "expected"),
    [
        (400, 50, r"^10 requests in a row failed, the last because 400: .*0 new answers"),
        (
            500,
            4,
            r"^4 of 4 requests got no answer in 2 tries each, the last because "
            r"the teacher at http.* answered 500",
        ),
    ],
)
def test_an_endpoint_that_only_fails_ends_the_stage(
    project: Project,
    fake: FakeTeacher,
    teacher_params: SimpleNamespace,
    code: int,
    count: int,
    expected: str,
) -> None:
    async def fail(n: int, body: Body, request: web.Request) -> web.StreamResponse:
        return web.json_response({"error": {"message": "no"}}, status=code)

    fake.behave, teacher_params.retries = fail, 1
    with pytest.raises(UserError, match=expected):
        ask(count, teacher_params)
    assert len(fake.calls) <= 3 * (16 + 10)  # with the schema, with JSON alone, with neither


def test_a_teacher_that_is_down_is_one_sentence(
    project: Project, teacher_params: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    monkeypatch.setenv("TEACHER_BASE_URL", f"http://127.0.0.1:{port}/v1")
    monkeypatch.setenv("TEACHER_API_KEY", KEY)
    with pytest.raises(
        UserError, match=rf"teacher at http://127.0.0.1:{port}/v1 cannot be reached"
    ):
        ask(20, teacher_params)


@pytest.mark.parametrize(
    "url",
    ["nowhere/v1", "ftp://nowhere/v1", "https://user:hidden@nowhere/v1", "http://no where/v1"],
)
def test_an_address_that_is_none_is_not_repeated(
    project: Project,
    fake: FakeTeacher,
    teacher_params: SimpleNamespace,
    monkeypatch: pytest.MonkeyPatch,
    url: str,
) -> None:
    monkeypatch.setenv("TEACHER_BASE_URL", url)
    with pytest.raises(
        UserError, match=r"TEACHER_BASE_URL is no URL such as https://host/v1"
    ) as error:
        ask(1, teacher_params)
    assert url not in str(error.value)


@pytest.mark.parametrize("missing", ["TEACHER_BASE_URL", "TEACHER_API_KEY"])
def test_a_real_teacher_needs_the_environment(
    project: Project,
    fake: FakeTeacher,
    teacher_params: SimpleNamespace,
    monkeypatch: pytest.MonkeyPatch,
    missing: str,
) -> None:
    monkeypatch.delenv(missing)
    with pytest.raises(
        UserError,
        match=r"teacher.model is fake-235b, which needs TEACHER_BASE_URL .* and TEACHER_API_KEY",
    ):
        ask(1, teacher_params)


def test_the_key_is_kept_nowhere(
    project: Project,
    fake: FakeTeacher,
    teacher_params: SimpleNamespace,
    capfd: pytest.CaptureFixture[str],
) -> None:
    fake.behave = status(500)
    ask(10, teacher_params)
    assert KEY not in "".join(capfd.readouterr()) + journal_text() + repr(
        endpoint.Endpoint(fake.url, KEY, "m", teacher_params)
    )


def refusing(*words: str) -> Behave:
    """An endpoint that refuses every request whose body has one of the words, naming the word."""

    async def behave(n: int, body: Body, request: web.Request) -> web.StreamResponse | None:
        text = json.dumps({name: value for name, value in body.items() if name != "messages"})
        found = next((word for word in words if f'"{word}"' in text), None)
        message = f"Unsupported parameter: {found}. See the documentation."
        return web.json_response({"error": {"message": message}}, status=400) if found else None

    return behave


@pytest.mark.parametrize(
    ("refused", "left_out", "has"),
    [
        (
            ["json_schema"],
            ["json_schema"],
            {"response_format", "max_completion_tokens", "seed", "temperature"},
        ),
        (
            ["json_schema", "json_object"],
            ["json_object", "json_schema"],
            {"max_completion_tokens", "seed", "temperature"},
        ),
        (
            ["max_completion_tokens"],
            ["max_completion_tokens"],
            {"response_format", "max_tokens", "seed", "temperature"},
        ),
        (["seed"], ["seed"], {"response_format", "max_completion_tokens", "temperature"}),
        (
            ["temperature", "max_completion_tokens"],
            ["max_completion_tokens", "temperature"],
            {"response_format", "max_tokens", "seed"},
        ),
    ],
)
def test_what_an_endpoint_refuses_is_left_out_and_remembered(
    project: Project,
    fake: FakeTeacher,
    teacher_params: SimpleNamespace,
    capfd: pytest.CaptureFixture[str],
    refused: list[str],
    left_out: list[str],
    has: set[str],
) -> None:
    fake.behave, teacher_params.concurrency = refusing(*refused), 4
    assert all(row["answer"] for row in ask(20, teacher_params))
    assert len(fake.calls) <= 20 + 4 * len(refused)  # what was under way before the first answer
    assert set(fake.calls[-1]) == {"model", "messages"} | has
    assert json.loads(Path(".cache/teacher/endpoints.json").read_text()) == {
        f"{fake.url} fake-235b": left_out
    }
    assert (
        f"teacher fake-235b: asked without {', '.join(left_out)}, which it refuses"
        in capfd.readouterr().err
    )
    before = len(fake.calls)
    ask(30, teacher_params)
    assert len(fake.calls) == before + 10
    assert all(set(body) == {"model", "messages"} | has for body in fake.calls[before:])
    assert '"without":["' in journal_text()


def test_an_endpoint_that_refuses_the_schema_without_naming_it(
    project: Project, fake: FakeTeacher, teacher_params: SimpleNamespace
) -> None:
    async def vague(n: int, body: Body, request: web.Request) -> web.StreamResponse | None:
        return (
            web.json_response({"detail": "Bad Request"}, status=400)
            if "response_format" in body
            else None
        )

    fake.behave, teacher_params.concurrency = vague, 1
    assert all(row["answer"] for row in ask(3, teacher_params))
    # The first row tries max_tokens, no seed, json_object and none; the second shows the same
    with_format = ["response_format" in body for body in fake.calls]
    assert with_format == [True] * 4 + [False, True, False, False]
    assert json.loads(Path(".cache/teacher/endpoints.json").read_text()) == {
        f"{fake.url} fake-235b": ["json_object", "json_schema"]
    }


@pytest.mark.parametrize(
    "message",
    [
        {"content": "{}", "reasoning_content": "six letters"},
        {"content": "{}", "reasoning": "six letters"},
        {"content": "<think>six letters</think>\n\n{}"},
    ],
)
def test_reasoning_is_kept_apart_from_the_answer(
    project: Project, fake: FakeTeacher, teacher_params: SimpleNamespace, message: dict[str, str]
) -> None:
    async def think(n: int, body: Body, request: web.Request) -> web.StreamResponse | None:
        return web.json_response({"choices": [{"message": message, "finish_reason": "stop"}]})

    fake.behave = think
    for _ in range(2):  # from the endpoint, from the journal
        (row,) = ask(1, teacher_params)
        assert (row["answer"], row["reasoning"]) == ("{}", "six letters")
    assert len(fake.calls) == 1


def test_auto_takes_the_one_model_that_is_there(
    project: Project, fake: FakeTeacher, teacher_params: SimpleNamespace
) -> None:
    fake.models, teacher_params.model = ["qwen"], "auto"
    assert [row["model"] for row in ask(2, teacher_params)] == ["qwen", "qwen"]
    assert [body["model"] for body in fake.calls] == ["qwen", "qwen"]
    teacher_params.model = "qwen"  # by name it is the same question
    ask(2, teacher_params)
    assert len(fake.calls) == 2


@pytest.mark.parametrize(
    ("models", "expected"),
    [([], r"has 0 models \(none\)"), (["a", "b"], r"has 2 models \(a, b\): name one")],
)
def test_auto_does_not_choose(
    project: Project,
    fake: FakeTeacher,
    teacher_params: SimpleNamespace,
    models: list[str],
    expected: str,
) -> None:
    fake.models, teacher_params.model = models, "auto"
    with pytest.raises(UserError, match=expected):
        ask(2, teacher_params)
    assert fake.calls == []


def test_more_samples_ask_for_the_missing_ones_only(
    project: Project, fake: FakeTeacher, teacher_params: SimpleNamespace
) -> None:
    ask(50, teacher_params, samples=2)
    assert sorted(body["seed"] for body in fake.calls) == [0] * 50 + [1] * 50
    found = ask(50, teacher_params, samples=4)
    assert [(row["id"], row["sample"]) for row in found] == [
        (f"r{i}", sample) for i in range(50) for sample in range(4)
    ]
    assert sorted(body["seed"] for body in fake.calls[100:]) == [2] * 50 + [3] * 50
    assert len(ask(50, teacher_params, samples=3)) == 150
    assert len(fake.calls) == 200


def test_a_redraw_asks_anew_and_keeps_the_old_answers(
    project: Project, fake: FakeTeacher, teacher_params: SimpleNamespace
) -> None:
    async def numbered(n: int, body: Body, request: web.Request) -> web.StreamResponse | None:
        return web.json_response(completion(f"answer {n}"))

    fake.behave, teacher_params.concurrency = numbered, 1
    for redraw, expected in (
        (0, "answer 0"),
        (1, "answer 1"),
        (2, "answer 2"),
        (0, "answer 0"),
        (1, "answer 1"),
    ):
        teacher_params.redraw = redraw
        assert ask(1, teacher_params)[0]["answer"] == expected
    assert len(fake.calls) == 3


def smoke(params: SimpleNamespace, good_share: float) -> list[jsonl.Row]:
    t, inputs = (settings.load(), [{"id": f"r{i}", "text": f"ends in word{i}"} for i in range(100)])
    return list(
        asking.answer_rows(
            t, inputs, params, 1, check=partial(registry.check, t), good_share=good_share
        )
    )


def test_bad_first_answers_stop_the_run_before_the_rest_is_paid_for(
    project: Project, fake: FakeTeacher, teacher_params: SimpleNamespace
) -> None:
    async def mostly_wrong(n: int, body: Body, request: web.Request) -> web.StreamResponse | None:
        good = body["messages"][-1]["content"].endswith(("word1", "word2", "word3", "word4"))
        return None if good else web.json_response(completion("Sure! Here is the answer:"))

    fake.behave = mostly_wrong
    expected = (
        r"^teacher fake-235b: only 4 of the first 16 answers pass the checks of task.yaml "
        r"\(json: .*\), expected a share of 0.5 \(generate.good_share\): mend prompts/teacher.md"
    )
    for _ in range(2):  # the answers are in the journal: said again, not asked again
        with pytest.raises(UserError, match=expected):
            smoke(teacher_params, 0.5)
        assert len(fake.calls) == 16
    assert len(smoke(teacher_params, 0.25)) == 100
    assert len(fake.calls) == 100
    teacher_params.redraw = 1
    assert len(smoke(teacher_params, 0)) == 100


def paced(fake: FakeTeacher, params: SimpleNamespace) -> list[float]:
    """When each of 60 calls came, from the first on."""
    times: list[float] = []

    async def note(n: int, body: Body, request: web.Request) -> web.StreamResponse | None:
        times.append(time.monotonic())
        return None

    fake.behave = note
    assert all(row["answer"] for row in ask(60, params))
    return [at - times[0] for at in times]


def test_no_more_requests_a_minute_than_allowed(
    project: Project, fake: FakeTeacher, teacher_params: SimpleNamespace
) -> None:
    teacher_params.rpm = 1200
    times = paced(fake, teacher_params)
    assert all(times[i] - times[j] >= (i - j - 21) / 20 - 0.1 for i in range(60) for j in range(i))
    assert 1.8 <= times[-1] < 4


def test_tokens_that_an_answer_did_not_take_are_given_back(
    project: Project, fake: FakeTeacher, teacher_params: SimpleNamespace
) -> None:
    """An answer takes 10 tokens, some 90 are reserved for it: without a refund 60 answers would
    take 27 seconds."""
    teacher_params.tpm = 12_000
    times = paced(fake, teacher_params)
    assert all(10 * i <= 200 * (at + 1) + 100 for i, at in enumerate(times))
    assert 1.5 <= times[-1] < 8


def test_a_budget_needs_prices(
    project: Project, fake: FakeTeacher, teacher_params: SimpleNamespace
) -> None:
    teacher_params.budget, teacher_params.price_in = 5, 1.0
    with pytest.raises(
        UserError, match=r"^teacher.budget is 5, but without teacher.price_in and teacher.price_out"
    ):
        ask(1, teacher_params)
    assert fake.calls == []


def test_a_journal_is_filled_from_answers_that_came_with_the_data(
    project: Project,
    fake: FakeTeacher,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    async def mixed(n: int, body: Body, request: web.Request) -> web.StreamResponse | None:
        last = body["messages"][-1]["content"].split()[-1]
        odd = {
            "word1": completion('{"wor', "length"),
            "word2": completion('<think>hm</think>{"word": "word2", "length": 5}'),
            "word3": {"error": {"message": "content policy"}},
        }
        return (
            web.json_response(odd[last], status=400 if last == "word3" else 200)
            if last in odd
            else None
        )

    fake.behave = mixed
    project.seeds(40)
    project.set(teacher_model="fake-235b", generate_samples=2)
    generate.main()
    before, answers = len(fake.calls), Path("data/2-answers.jsonl").read_bytes()
    monkeypatch.setenv("TEACHER_JOURNAL", "elsewhere")
    for new in (78, 0):
        fill.main()
        said = f"data/2-answers.jsonl: 78 answers, {new} of them new to elsewhere/toy.jsonl\n"
        assert capsys.readouterr().out.endswith(said)
    generate.main()
    assert {body["messages"][-1]["content"] for body in fake.calls[before:]} == {
        "line 3 ends in word3"
    }
    assert Path("data/2-answers.jsonl").read_bytes() == answers


def test_a_local_teacher_costs_nothing(project: Project) -> None:
    project.seeds(3)
    project.set(teacher_model=f"local:{ROOT}/models/tiny-base")
    p = params.load("near_duplicate", "expand", "generate", "teacher")
    said = quote.quote(settings.load(), p)
    assert said.endswith("\ncost: 0.00 to come, 0.00 spent so far")
    p.teacher.model = "another"
    assert "cost: unknown" in quote.quote(settings.load(), p)


def test_the_quote_before_the_first_answer_and_after(project: Project, fake: FakeTeacher) -> None:
    seeds = project.seeds(40)
    jsonl.write_jsonl("data/gold.jsonl", [{"text": "line 0 ends in gold0", "gold": None}])
    project.set(
        teacher_model="fake-235b",
        teacher_temperature=0.5,
        generate_samples=2,
        teacher_price_in=1000,
        teacher_price_out=3000,
        teacher_rpm=60,
        near_duplicate=1,  # these lines resemble each other
    )
    names = ("near_duplicate", "expand", "generate", "teacher")

    def quoted() -> list[list[str]]:
        return [
            line.split() for line in quote.quote(settings.load(), params.load(*names)).splitlines()
        ]

    # A third of the prompts' bytes and 4 for each message: 19 + 10, 19 + 11 for 30 longer lines.
    first = quoted()
    assert first[2] == ["generate", "80", "0", "80", "2,380", "81,920", "248.14"]
    assert first[3] == ["ask_teacher", "1", "0", "1", "29", "1,024", "3.10"]
    assert first[4][:10] == "No answer of this model is in the journal".split() + ["yet:"]
    assert first[5:] == [
        "time: about 81 s".split(),
        "cost: 251.24 to come, 0.00 spent so far".split(),
    ]
    assert fake.calls == []
    project.set(teacher_rpm=None)
    assert (
        len(list(asking.answer_rows(settings.load(), seeds, params.load("teacher").teacher, 1)))
        == 40
    )
    project.set(teacher_rpm=60, teacher_budget=1)
    # Now by what the 40 answers took: 7 tokens in and 3 out each.
    after = quoted()
    assert after[2] == ["generate", "80", "40", "40", "280", "120", "0.64"]
    assert after[3] == ["ask_teacher", "1", "0", "1", "7", "3", "0.02"]
    assert after[4] == "Tokens and time by the 40 answers of this model in the journal.".split()
    assert after[5:7] == [
        "time: about 41 s".split(),
        "cost: 0.66 to come, 0.64 spent so far".split(),
    ]
    assert after[7] == "budget: teacher.budget 1 stops it after 0.36 more".split()
    project.set(teacher_price_in=None)
    prices = "teacher.price_in and teacher.price_out, the prices of a million tokens"
    assert quoted()[-1] == f"cost: unknown; set {prices}".split()
    assert len(fake.calls) == 40


def test_what_was_asked_is_indexed_without_being_parsed(
    project: Project,
    fake: FakeTeacher,
    teacher_params: SimpleNamespace,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By which a journal of 800,000 rows is read in seconds (bench/journal.py)."""
    ask(40, teacher_params)

    def never(line: bytes) -> None:
        raise AssertionError(line)

    monkeypatch.setattr("potstill.teacher.journal._decode", never)
    kept = asking.open_journal(settings.load())
    assert (len(kept), kept.used["fake-235b"].prompt_tokens) == (40, 280)
