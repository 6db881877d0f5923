"""What the client makes of replies of every kind: each row is answered or has its reason, and
nothing that was received is missing in the journal."""

import json
import tempfile
from contextlib import chdir
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from aiohttp import web
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from potstill.checks import registry
from potstill.core import jsonl
from potstill.core.errors import UserError
from potstill.task import settings
from potstill.teacher import asking, client
from stages import filter as sift
from stages import generate
from tests import replies
from tests.conftest import KEY, Body, FakeTeacher, Project, completion, serving

JOURNAL = Path(".cache/teacher/toy.jsonl")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "FIRST_DELAY", 0.01)


def ask(count: int, params: SimpleNamespace) -> list[jsonl.Row]:
    inputs = [{"id": f"r{i}", "text": f"ends in word{i}"} for i in range(count)]
    return list(asking.answer_rows(settings.load(), inputs, params, 1))


def sends(fake: FakeTeacher, value: Any, every: int = 1, usage: Any = None) -> None:
    """Answers the rows 0, `every`, … with `value`, the others rightly."""

    async def behave(n: int, body: Body, request: web.Request) -> web.StreamResponse | None:
        number = int(body["messages"][-1]["content"].rpartition("word")[2])
        used = {} if usage is None else {"usage": usage}
        return web.json_response(value | used) if number % every == 0 else None

    fake.behave = behave


def test_a_text_that_cannot_be_written_costs_its_row_alone(
    project: Project,
    fake: FakeTeacher,
    teacher_params: SimpleNamespace,
    capfd: pytest.CaptureFixture[str],
) -> None:
    sends(fake, completion('{"word": "\ud83d", "length": 1}'), every=20)
    for run in (1, 2):  # what the first left in the journal ends no later run
        found = ask(20, teacher_params)
        assert [bool(row["error"]) for row in found] == [True] + [False] * 19
        assert found[0]["error"].startswith("malformed: the teacher at ")
        assert found[0]["error"].endswith("half a surrogate pair (U+D83D) in the text")
        assert "1 without an answer, the first row r0: malformed: " in capfd.readouterr().err
        assert len(fake.calls) == 19 + run
    jsonl.write_jsonl("data/2-answers.jsonl", found)
    assert r'"\ud83d' in json.loads(JOURNAL.read_text().splitlines()[-1])["row"]["answer"]


@pytest.mark.parametrize(
    "value", [{"error": {"message": "no funds", "code": "odd"}}, {"choices": []}]
)
def test_an_error_in_a_good_status_is_paid_as_usage_says(
    project: Project, fake: FakeTeacher, teacher_params: SimpleNamespace, value: Body
) -> None:
    sends(fake, value, every=2)
    teacher_params.price_in, teacher_params.price_out, teacher_params.retries = 10, 30, 6
    teacher_params.budget = 20 * 1.6e-4 + 16 * 2.5e-3  # the answers, and what is under way
    found = ask(40, teacher_params)
    words = "no funds" if "error" in value else "choices is an empty list"
    assert [bool(row["error"]) for row in found] == [i % 2 == 0 for i in range(40)]
    assert all(words in row["error"] for row in found[::2])
    assert len(fake.calls) == 20 + 2 * 20  # not seven tries each
    sends(fake, value, usage={"prompt_tokens": 10**6, "completion_tokens": 0})
    with pytest.raises(UserError, match=r"teacher\.budget .* is used up: "):
        ask(80, teacher_params)


def test_an_endpoint_that_only_errs_says_its_words(
    project: Project, fake: FakeTeacher, teacher_params: SimpleNamespace
) -> None:
    sends(fake, {"error": {"message": "no funds left"}})
    with pytest.raises(UserError, match=r"^10 requests in a row failed, .*an error \(no funds"):
        ask(200, teacher_params)
    assert len(fake.calls) <= 2 * (16 + 10)


def test_hidden_reasoning_is_paid_for(
    project: Project,
    fake: FakeTeacher,
    teacher_params: SimpleNamespace,
    capfd: pytest.CaptureFixture[str],
) -> None:
    used = {"prompt_tokens": "7", "completion_tokens": "3", "total_tokens": 1007}
    sends(fake, completion('{"word": "x", "length": 1}'), usage=used)
    teacher_params.price_in, teacher_params.price_out, teacher_params.concurrency = 10, 30, 1
    teacher_params.budget = 10 * 0.03007 + 0.001
    with pytest.raises(UserError, match="is used up"):
        ask(40, teacher_params)
    # Only before the first answer is its length unknown
    assert len(fake.calls) == 10
    assert "70 + 10,000 tokens, cost 0.3007" in capfd.readouterr().err


def test_cached_tokens_have_their_price(
    project: Project,
    fake: FakeTeacher,
    teacher_params: SimpleNamespace,
    capfd: pytest.CaptureFixture[str],
) -> None:
    used = {"prompt_tokens": 20, "completion_tokens": 10, "prompt_cache_hit_tokens": 15}
    sends(fake, completion('{"word": "x", "length": 1}'), usage=used)
    teacher_params.price_in, teacher_params.price_out = 1000, 0
    teacher_params.price_cached = 100
    assert ask(2, teacher_params)[0]["cached_tokens"] == 15
    assert "cost 0.013" in capfd.readouterr().err


def test_what_was_received_is_in_the_journal_whatever_befalls_a_worker(
    project: Project,
    fake: FakeTeacher,
    teacher_params: SimpleNamespace,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def bug(*rest: Any) -> int:
        raise TypeError("a bug")

    monkeypatch.setattr(client.Client, "learn", bug)
    with pytest.raises(TypeError, match="a bug"):
        ask(50, teacher_params)
    assert 0 < len(fake.calls) <= 16
    assert JOURNAL.read_bytes().count(b"\n") == len(fake.calls)


def test_the_words_of_a_refusal_are_in_the_gate_and_in_the_dropped(
    project: Project, fake: FakeTeacher, teacher_params: SimpleNamespace
) -> None:
    refusal = {"role": "assistant", "content": None, "refusal": "I can't help with that."}
    value = {"choices": [{"message": refusal, "finish_reason": "stop"}]}
    sends(fake, value)
    inputs = [{"id": f"r{i}", "text": f"ends in word{i}"} for i in range(30)]
    check = partial(registry.check_taught, settings.load())
    with pytest.raises(UserError, match=r"only 0 of the first 16 .*\(refused: I can't help with"):
        list(
            asking.answer_rows(
                settings.load(), inputs, teacher_params, 1, check=check, good_share=0.5
            )
        )
    sends(fake, value, every=5)
    project.seeds(10, alike=False)
    project.set(teacher_model="fake-235b")
    generate.main()
    sift.main()
    reasons = [row["reason"] for row in project.read("3-dropped.jsonl")]
    assert reasons == ["refused: I can't help with that."] * 2


def test_what_stands_round_the_json_is_taken_off_and_counted(
    project: Project, fake: FakeTeacher, capsys: pytest.CaptureFixture[str]
) -> None:
    forms = [
        "```json\n%s\n```", "Here it is:\n\n```\n%s\n```\nAnything else?", "Sure! %s",  # mended
        "%s,", "[%s]", "Sure: [%s]", "%s %s", "```json\n[%s]\n```", " %s\n",
    ]  # fmt: skip

    async def behave(n: int, body: Body, request: web.Request) -> web.StreamResponse | None:
        word = body["messages"][-1]["content"].split()[-1]
        form, text = forms[int(word[4:]) % 9], json.dumps({"word": word, "length": len(word)})
        return web.json_response(completion(form % ((text,) * form.count("%s"))))

    fake.behave = behave
    seeds = project.seeds(18, alike=False)
    project.set(teacher_model="fake-235b", generate_good_share=0.4)
    generate.main()
    sift.main()
    kept = [row["id"] for row in project.read("3-kept.jsonl")]
    assert kept == [row["id"] for i, row in enumerate(seeds) if i % 9 in (0, 1, 2, 8)]
    assert json.loads(Path("data/3-funnel.json").read_text())["unwrapped"] == 8  # with the list
    assert "8 unwrapped" in capsys.readouterr().out
    mended = '{"word": "word1", "length": 5,}'
    assert registry.taught(settings.load(), {"answer": f"```\n{mended}\n```"}).startswith("```")
    assert registry.check(settings.load(), seeds[0], '```\n{"word": "a", "length": 1}\n```')


def test_white_space_round_a_text_is_not_learnt(project: Project, fake: FakeTeacher) -> None:
    project.write("task.yaml", 'name: toy\ninput: [text]\nuser: "{{ text }}"\nchecks: []\n')
    sends(fake, completion(" \n the answer\u3000\n"))
    project.seeds(2, alike=False)
    project.set(teacher_model="fake-235b")
    generate.main()
    sift.main()
    assert [row["output"] for row in project.read("3-kept.jsonl")] == ["the answer"] * 2


HEADERS = st.dictionaries(
    st.sampled_from(["Retry-After", "Content-Type", "Content-Encoding", "X-Request-Id", "Server"]),
    st.sampled_from(["", "0", "-1", "gzip", "text/html; charset=x", "a b", "1e9", "\u00e9", "now"]),
    max_size=3,
)
STATUSES = st.sampled_from([200, 201, 204, 206, 300, 304, 400, 403, 404, 418, 429, 500, 503, 599])


@hypothesis_settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    STATUSES, HEADERS, st.binary(max_size=60) | replies.JSON.map(lambda v: json.dumps(v).encode())
)
def test_any_status_header_and_bytes(
    teacher_params: SimpleNamespace,
    monkeypatch: pytest.MonkeyPatch,
    status: int,
    headers: dict[str, str],
    raw: bytes,
) -> None:
    async def behave(n: int, body: Body, request: web.Request) -> web.StreamResponse | None:
        return None if n % 2 else web.Response(status=status, headers=headers, body=raw)

    monkeypatch.setattr(client, "PATIENCE", 1.0)
    monkeypatch.delenv("TEACHER_JOURNAL", raising=False)
    teacher_params.retries = 1
    with tempfile.TemporaryDirectory() as folder, chdir(folder), serving() as fake:
        for name, value in {"DVC_ROOT": ".", **fake.env()}.items():
            monkeypatch.setenv(name, value)
        Project(Path(folder))
        fake.behave = behave
        found, said = [], ""
        try:
            found = ask(4, teacher_params)
        except UserError as error:
            said = str(error)
        assert "\n" not in said and KEY not in said
        assert len(found) == (0 if said else 4)
        assert all(row["error"] or row["finish_reason"] for row in found)
        jsonl.write_jsonl("data/2-answers.jsonl", found)


def test_generated_replies(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """A share of `python -m tests.replies`, which runs 20,000."""
    for name in ("TEACHER_BASE_URL", "TEACHER_API_KEY"):
        monkeypatch.setenv(name, "")  # set anew there, put back here
    found = replies.total(600, rows=150)
    assert {name: n for name, n in found.items() if name.startswith("FAULT") and n} == {}
    assert found["answered"] > found["malformed"] > 0 and found["budgets used up"] > 0
