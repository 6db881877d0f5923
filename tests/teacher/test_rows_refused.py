"""An endpoint that refuses some rows, or some forms of a request: the others go on as before."""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from aiohttp import web

from potstill.commands import quote
from potstill.core.errors import UserError
from potstill.core.params import load
from potstill.task import settings
from potstill.teacher import client, form, place
from potstill.teacher.refusal import Retry
from tests.conftest import KEY, Body, FakeTeacher, Project
from tests.teacher.test_asking import Behave, ask

MEMORY = Path(".cache/teacher/endpoints.json")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "FIRST_DELAY", 0.01)


def word(body: Body) -> int:
    return int(body["messages"][-1]["content"].split()[-1].removeprefix("word"))


def refusing(code: int, message: str, which: Callable[[int, Body], bool]) -> Behave:
    """Refuses the n-th call with a body where `which` says so."""

    async def behave(n: int, body: Body, request: web.Request) -> web.StreamResponse | None:
        error = {"error": {"message": message}} if message else {}
        return web.json_response(error, status=code) if which(n, body) else None

    return behave


@pytest.mark.parametrize("concurrency", [1, 16])
@pytest.mark.parametrize(
    ("code", "message"),
    [
        (403, "flagged by moderation"),
        (403, ""),
        (400, "content_filter: the prompt was filtered"),
        (400, "no"),
        (451, ""),
        (422, "Unprocessable"),
        (404, "gone"),
    ],
)
def test_a_row_that_is_always_refused_ends_no_run(
    project: Project,
    fake: FakeTeacher,
    teacher_params: SimpleNamespace,
    code: int,
    message: str,
    concurrency: int,
) -> None:
    bad = {3, 7, 8, *range(20, 35)} | ({0} if code != 404 else set())
    fake.behave = refusing(code, message, lambda n, body: word(body) in bad)
    teacher_params.concurrency = concurrency
    for _ in range(2):
        found = ask(50, teacher_params)
        assert {i for i, row in enumerate(found) if row["error"]} == bad
        assert all(row["error"].startswith(f"{code}: {message}") for row in found if row["error"])
    good = [body for body in fake.calls if word(body) not in bad]
    assert len(good) == 50 - len(bad)  # each asked once, in the usual form
    assert all("response_format" in body for body in good)
    assert not MEMORY.exists()


def test_a_run_in_which_nearly_all_are_refused_fails(
    project: Project, fake: FakeTeacher, teacher_params: SimpleNamespace
) -> None:
    fake.behave = refusing(451, "not here", lambda n, body: word(body) > 1)
    with pytest.raises(UserError, match=r"^(\d+ requests in a row failed|\d+ of 60 requests)"):
        ask(60, teacher_params)


@pytest.mark.parametrize("message", ["", "response_format: please adjust your prompt"])
@pytest.mark.parametrize("nth", [0, 5, 100])
def test_one_stray_400_changes_nothing_for_others(
    project: Project, fake: FakeTeacher, teacher_params: SimpleNamespace, message: str, nth: int
) -> None:
    fake.behave = refusing(400, message, lambda n, body: n == nth)
    assert all(row["answer"] for row in ask(200, teacher_params))
    assert len(fake.calls) == 201
    assert sum("response_format" not in body for body in fake.calls) <= 1
    assert not MEMORY.exists()


@pytest.mark.parametrize("concurrency", [1, 16])
def test_a_rows_own_400_changes_nothing_for_others(
    project: Project, fake: FakeTeacher, teacher_params: SimpleNamespace, concurrency: int
) -> None:
    message = "json_validate_failed: adjust your prompt, see response_format"
    bad = {1, 5, 40}
    fake.behave = refusing(
        400, message, lambda n, body: word(body) in bad and "response_format" in body
    )
    teacher_params.concurrency = concurrency
    assert all(row["answer"] for row in ask(60, teacher_params))
    assert all("response_format" in body for body in fake.calls if word(body) not in bad)
    assert not MEMORY.exists()


GEMINI = "Invalid JSON payload received. " + "x" * 300


@pytest.mark.parametrize("concurrency", [1, 8])
@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize(
    "fields", [{"seed"}, {"max_completion_tokens"}, {"seed", "max_completion_tokens"}]
)
def test_a_refused_field_is_found_wherever_it_is_named(
    project: Project,
    fake: FakeTeacher,
    teacher_params: SimpleNamespace,
    fields: set[str],
    named: bool,
    concurrency: int,
) -> None:
    async def strict(n: int, body: Body, request: web.Request) -> web.StreamResponse | None:
        if not (wrong := fields & set(body)):
            return None
        names = [f'Unknown name "{name}": Cannot find field.' for name in sorted(wrong)]
        message = GEMINI + "\n".join(names) if named else "invalid argument"
        return web.json_response([{"error": {"code": 400, "message": message}}], status=400)

    fake.behave, teacher_params.concurrency = strict, concurrency
    assert all(row["answer"] for row in ask(30, teacher_params))
    (left_out,) = json.loads(MEMORY.read_text()).values()
    if named or len(fields) == 1:
        assert set(left_out) == fields
    assert len(fake.calls) <= 30 + 4 * concurrency + 12
    before = len(fake.calls)
    ask(40, teacher_params)
    assert len(fake.calls) == before + 10  # remembered


def test_an_account_without_money_ends_the_run_at_once(
    project: Project, fake: FakeTeacher, teacher_params: SimpleNamespace
) -> None:
    fake.behave = refusing(429, "insufficient_quota: see billing", lambda n, body: n >= 20)
    expected = r"answered 429 \(insufficient_quota: see billing\): .*; \d+ new answers are in"
    with pytest.raises(UserError, match=expected):
        ask(200, teacher_params)
    assert len(fake.calls) <= 20 + teacher_params.concurrency


def test_no_proxy_stands_before_this_machine(
    project: Project,
    fake: FakeTeacher,
    teacher_params: SimpleNamespace,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("NO_PROXY", raising=False)
    assert ask(1, teacher_params)[0]["answer"]
    monkeypatch.setenv("TEACHER_BASE_URL", fake.url.replace("127.0.0.1", "localhost"))
    assert ask(2, teacher_params)[1]["answer"]


@pytest.mark.parametrize(
    ("url", "loopback"),
    [
        ("http://127.0.0.1:1/v1", True),
        ("http://127.8.9.1/v1", True),
        ("http://127.1/v1", True),
        ("http://[::1]:8000/v1", True),
        ("http://[::ffff:127.0.0.1]/v1", True),
        ("http://0.0.0.0:8000/v1", True),
        ("http://LOCALHOST/v1", True),
        ("http://api.localhost./v1", True),
        ("https://localhost.example.com/v1", False),
        ("https://10.0.0.1/v1", False),
        ("https://host/v1", False),
    ],
)
def test_what_is_this_machine(url: str, loopback: bool) -> None:
    assert place.is_loopback(url) == loopback


@pytest.mark.parametrize("name", ["TEACHER_API_KEY", "TEACHER_BASE_URL"])
@pytest.mark.parametrize(
    ("sign", "said"),
    [
        ("\u201d", r"right double quotation mark \(U\+201D\)"),
        ("\u200b", r"zero width space \(U\+200B\)"),
        ("\ufeff", r"zero width no-break space \(U\+FEFF\)"),
        ("\n", r"a line end \(U\+000A\)"),
        ("\u00a0", r"no-break space \(U\+00A0\)"),
        ('"', r"quotation mark \(U\+0022\)"),
        ("é", r"latin small letter e with acute \(U\+00E9\)"),
    ],
)
@pytest.mark.parametrize("at", [0, 5, 99])
def test_a_sign_that_no_key_has_is_named(
    monkeypatch: pytest.MonkeyPatch, name: str, sign: str, said: str, at: int
) -> None:
    values = {"TEACHER_API_KEY": KEY, "TEACHER_BASE_URL": "http://127.0.0.1:9/v1"}
    whole = values[name]
    values[name] = whole[:at] + sign + whole[at:]
    for each, value in values.items():
        monkeypatch.setenv(each, value)
    if sign == "\n" and at != 5:  # round a value it is nothing
        assert place.from_environment("m") == ("http://127.0.0.1:9/v1", KEY)
        return
    at = min(at, len(whole)) + 1
    expected = rf"^{name} has a sign .*: {said} at place {at} of {len(whole) + 1}: set it again"
    with pytest.raises(UserError, match=expected) as error:
        place.from_environment("m")
    assert whole not in str(error.value)


@pytest.mark.parametrize(
    ("extra", "expected"),
    [
        ({"n": 4}, r"extra_body has n: 4, of which all answers but the first are paid for"),
        ({"best_of": 2}, r"extra_body has best_of: 2"),
        ({"stream": True}, r"extra_body has stream: true"),
        ({"max_tokens": 9000}, r"extra_body has max_tokens: 9000: take it out and set teacher"),
        ({"model": "other"}, r"set teacher.model"),
    ],
)
def test_what_would_be_paid_in_vain_is_refused(
    project: Project,
    fake: FakeTeacher,
    teacher_params: SimpleNamespace,
    extra: dict[str, object],
    expected: str,
) -> None:
    teacher_params.extra_body = extra
    with pytest.raises(UserError, match=expected):
        ask(1, teacher_params)
    assert fake.calls == []


@pytest.mark.parametrize(
    ("change", "samples", "copies"),
    [
        ({}, 4, True),
        ({}, 1, False),
        ({"temperature": 0.7}, 4, False),
        ({"temperature": 0.7, "extra_body": {"seed": 1}}, 4, True),
        ({"temperature": 0.7, "extra_body": {"top_k": 1}}, 4, True),
        ({"model": "scripted"}, 4, False),
    ],
)
def test_samples_that_are_copies_are_told(
    teacher_params: SimpleNamespace, change: dict[str, object], samples: int, copies: bool
) -> None:
    params = SimpleNamespace(**vars(teacher_params) | change)
    assert bool(form.copies(params, samples)) == copies


def test_the_quote_says_that_copies_are_paid(project: Project, fake: FakeTeacher) -> None:
    project.seeds(5)
    project.set(teacher_model="fake-235b", generate_samples=4)
    p = load("near_duplicate", "expand", "generate", "teacher")
    said = quote.quote(settings.load(), p)
    assert "teacher.temperature is 0, so the 4 samples of a row may be the same answer" in said
    assert fake.calls == []


def test_the_progress_shows_the_last_refusal(
    project: Project,
    fake: FakeTeacher,
    teacher_params: SimpleNamespace,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lines: Counter[str] = Counter()
    real = client.Client._heed

    def heed(self: client.Client, error: Retry) -> float:
        wait = real(self, error)
        lines[self._line(1.0)] += 1
        return wait

    monkeypatch.setattr(client.Client, "_heed", heed)
    fake.behave = refusing(429, "slow down", lambda n, body: n == 3)
    ask(10, teacher_params)
    assert [line.partition(", last refusal: ")[2] for line in lines] == [
        f"the teacher at {fake.url} answered 429 (slow down)"
    ]
