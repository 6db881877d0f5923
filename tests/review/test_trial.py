"""`make try`: what is asked of whom, what becomes a seed; and the page in a browser (slow)."""

import asyncio
import json
import re
import shutil
import signal
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer

from potstill.core import jsonl, params
from potstill.dataset import reviews
from potstill.inference import predictions
from potstill.review import frame, local_model, trial
from potstill.review.local_model import LocalModel
from potstill.review.server import desk
from potstill.task import settings
from tests.conftest import ROOT, FakeTeacher, Project
from tests.review.test_server import EVIL, opened

Client = TestClient[Any, Any]
TEXT = "line 0 ends in word0"
RIGHT = '{"word": "word0", "length": 5}'


class Fake(LocalModel):
    """A model that answers the same to everything, in two pieces."""

    def load(self) -> None:
        pass

    def _parts(self, chat: list[dict[str, str]], rule: str | None = None) -> Iterator[jsonl.Row]:
        yield {"text": self.name[:9]}
        yield {
            "answer": self.name,
            "finish_reason": "stop",
            "prompt_tokens": len(chat),
            "completion_tokens": 2,
            "ms": 1,
        }


def rows(project: Project, texts: list[str]) -> None:
    """Test rows on disk, of which the first has an expected answer."""
    found: list[jsonl.Row] = [
        {"id": jsonl.row_id({"text": text}), "text": text, "slice": "gold", "expected": None}
        for text in texts
    ]
    found[0]["expected"] = {"word": "word0", "length": 5}
    jsonl.write_jsonl("data/4-test.jsonl", found)


def made(project: Project, **teacher: object) -> trial.Trial:
    """A session with two stand-ins for the models on this machine."""
    task = settings.load()
    models: dict[str, LocalModel] = {
        "base": Fake("no JSON", "teacher", SimpleNamespace(grounded=False)),
        "student": Fake(RIGHT, "student", SimpleNamespace(grounded=False)),
    }
    asked = params.load("teacher").teacher
    asked = SimpleNamespace(**vars(asked) | teacher)
    return trial.Trial(task, predictions.tests(task), models, asked)


def at_page(session: trial.Trial, act: Callable[[Client], Awaitable[None]]) -> None:
    """Runs `act` with a client of the page."""

    async def main() -> None:
        server = TestServer(trial.application(session, "secret"), host="127.0.0.1")
        async with TestClient(server) as client:
            await act(client)

    asyncio.run(main())


async def ask(client: Client, who: str, text: str = TEXT) -> list[jsonl.Row]:
    reply = await client.post("/secret/ask", json={"who": who, "input": {"text": text}})
    assert reply.status == 200, await reply.text()
    return [json.loads(line) for line in (await reply.text()).splitlines()]


def test_the_three_are_asked_the_same_and_each_check_says_what_it_says(project: Project) -> None:
    rows(project, [TEXT])

    async def act(client: Client) -> None:
        grown, whole = await ask(client, "student")
        assert (grown["text"], whole["passed"], whole["completion_tokens"]) == (RIGHT[:9], True, 2)
        assert whole["pretty"] == json.dumps(json.loads(RIGHT), indent=2)
        assert [one["name"] for one in whole["checks"]] == ["json_schema", "grounded"]
        [_, whole] = await ask(client, "base")
        assert [(one["name"], one["passed"]) for one in whole["checks"]] == [("json", False)]
        [whole] = await ask(client, "teacher")
        assert (whole["held"], whole["cost"], whole["passed"]) == (False, None, True)
        [whole] = await ask(client, "teacher")
        assert whole["held"]

    at_page(made(project), act)


def test_the_teacher_is_paid_once_and_within_its_budget(
    project: Project, fake: FakeTeacher
) -> None:
    rows(project, [TEXT])
    priced = {"model": "fake-235b", "price_in": 1e6, "price_out": 1e6, "max_tokens": 3}
    session = made(project, budget=60, retries=0, **priced)

    async def act(client: Client) -> None:
        [one] = await ask(client, "teacher")
        assert (one["cost"], one["held"], len(fake.calls)) == (10.0, False, 1)
        assert fake.calls[0]["messages"][0]["content"].startswith("You find the last word")
        [again] = await ask(client, "teacher")
        assert (again["held"], len(fake.calls)) == (True, 1)
        [over] = await ask(client, "teacher", "a long line that costs more, word9" * 9)
        assert "teacher.budget 60 is used up: 10 spent" in over["error"]
        assert len(fake.calls) == 1

    at_page(session, act)
    at_page(made(project, **priced), lambda client: no_calls(client, fake))


async def no_calls(client: Client, fake: FakeTeacher) -> None:
    """The next session finds the answer in the journal."""
    [found] = await ask(client, "teacher")
    assert found["held"] and len(fake.calls) == 1


def test_a_teacher_that_is_not_there_is_one_sentence(project: Project) -> None:
    rows(project, [TEXT])

    async def act(client: Client) -> None:
        [found] = await ask(client, "teacher")
        assert found["error"].startswith(
            "No answer: teacher.model is big, which needs TEACHER_BASE"
        )
        assert (await ask(client, "student"))[-1]["passed"]

    at_page(made(project, model="big"), act)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"who": "student"}, 400),
        ({"who": "nobody", "input": {"text": "a"}}, 400),
        ({"who": "student", "input": {"text": " "}}, 400),
        ({"who": "student", "input": {"text": "a", "more": "b"}}, 400),
        ({"who": "student", "input": {"text": "a\x00"}}, 400),
        ({"who": "student", "input": {"text": "\ud800"}}, 400),
        ([], 400),
    ],
)
def test_a_call_that_makes_no_sense_is_refused(project: Project, body: Any, status: int) -> None:
    rows(project, [TEXT])

    async def act(client: Client) -> None:
        assert (await client.post("/secret/ask", json=body)).status == status
        elsewhere = {"Origin": "http://evil.example"}
        for path, headers in (("/secret/ask", elsewhere), ("/guess/seed", {})):
            assert (await client.post(path, json=body, headers=headers)).status == 403

    at_page(made(project), act)


def test_an_input_becomes_a_seed_once_and_a_test_row_never(project: Project) -> None:
    rows(project, [TEXT])
    path = project.write("data/seeds.jsonl", '{"text": "typed by hand"}')  # without a line end

    async def act(client: Client) -> None:
        async def add(text: str) -> tuple[int, str]:
            reply = await client.post("/secret/seed", json={"input": {"text": text}})
            said = (await reply.json())["said"] if reply.ok else await reply.text()
            return reply.status, str(said)

        assert await add("a new line") == (
            200,
            "It is line 2 of data/seeds.jsonl now; `make repro` learns from it.",
        )
        for text, says in (
            (" a  newline ", "Not kept: data/seeds.jsonl:2 has this input already."),
            ("typed by hand", "Not kept: data/seeds.jsonl:1 has this input already."),
            (TEXT, "Not kept: this input is a test row, which must not be learnt."),
        ):
            assert await add(text) == (409, says)
        assert (await add(EVIL))[0] == 200
        project.write("data/dvc.yaml", "stages: {rows: {cmd: x, outs: [seeds.jsonl]}}")
        assert "is made by the stage rows" in (await add("another"))[1]

    at_page(made(project), act)
    lines = path.read_text(encoding="utf-8").splitlines()
    assert lines[:2] == [
        '{"text": "typed by hand"}',
        json.dumps({"id": jsonl.row_id({"text": "a new line"}), "text": "a new line"}),
    ]
    assert [row["text"] for row in settings.load().seeds()][1:] == ["a new line", EVIL]


def test_what_is_sent_to_review_comes_first_there_until_it_is_judged(project: Project) -> None:
    rows(project, [TEXT])
    there = project.seeds(9, alike=False)
    answers = [
        {"id": row["id"], "sample": 0, "model": "m", "answer": RIGHT, "error": None}
        | {"finish_reason": "stop", "completion_tokens": 1}
        for row in there
    ]
    jsonl.write_jsonl("data/2-answers.jsonl", answers)
    task = settings.load()
    last = desk(task, 9, 0, "me").answers[-1]
    text = next(row["text"] for row in there if row["id"] == last["id"])

    async def act(client: Client) -> None:
        async def send(text: str) -> tuple[int, str]:
            reply = await client.post("/secret/review", json={"input": {"text": text}})
            return reply.status, (await reply.json())["said"] if reply.ok else await reply.text()

        for _ in range(2):
            assert await send(text) == (200, "`make review` shows it first.")
        assert await send("a new line") == (
            200,
            "It is line 10 of data/seeds.jsonl now; `make repro` learns from it. "
            "`make review` shows it first, once `make repro` has asked the teacher.",
        )
        assert (await send("a new line"))[1].startswith("`make review` shows it first, once")
        assert (await send(TEXT))[0] == 409

    at_page(made(project), act)
    first = desk(task, 3, 0, "me")
    assert first.answers[0]["id"] == last["id"]
    verdict = {"id": last["id"], "answer": reviews.answer_hash(RIGHT), "verdict": "accept"}
    reviews.append("data/own/reviews.jsonl", verdict)
    assert desk(task, 9, 0, "me").answers[-1]["id"] == last["id"]


def test_a_seed_has_the_category_that_expand_asks_for(project: Project) -> None:
    rows(project, [TEXT])
    task = (project.dir / "task.yaml").read_text()
    expand = "expand: {rows: 9, categories: {short: {share: 1, match: word}}}\n"
    project.write("task.yaml", task + expand)
    project.write("data/seeds.jsonl", '{"text": "word1", "category": "short"}\n')

    async def act(client: Client) -> None:
        for text, category, status in (
            ("word2", "", 409),
            ("no match", "short", 409),
            ("word2", "short", 200),
        ):
            body = {"input": {"text": text}, "category": category}
            assert (await client.post("/secret/seed", json=body)).status == status

    at_page(made(project), act)
    assert [row["category"] for row in settings.load().seeds()] == ["short", "short"]


def test_an_answer_that_goes_round_in_circles_is_known() -> None:
    assert local_model.looping([7] * 16)
    assert local_model.looping([1, 2, 3] + [4, 5] * 16)
    assert not local_model.looping([4, 5] * 15 + [4])
    assert not local_model.looping(list(range(600)))


def test_no_source_of_the_page_reads_a_text_as_html() -> None:
    source = "".join(path.read_text(encoding="utf-8") for path in trial.PAGE.values())
    risky = r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(|https?:|style=|onclick"
    assert not re.findall(risky, source)
    assert {path.suffix for path in trial.PAGE.values()} <= frame.KINDS.keys()


@pytest.mark.slow
def test_the_page_by_its_keys_in_chromium(project: Project, browser: Any, tmp_path: Path) -> None:
    """With the real base, which stands for the student, too: it has never seen the task."""
    from playwright.sync_api import expect

    rows(project, [f"{EVIL} ends in word0", "line 1 ends in word1"])
    project.write("data/seeds.jsonl", '{"text": "typed by hand"}\n')
    project.set(predict_max_tokens=12)
    shutil.copytree(ROOT / "models/tiny-base", project.dir / "models/student")
    process = project.start("potstill.review.trial", BROWSER="none")
    try:
        url = opened(process)
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        outside: list[str] = []
        faults: list[str] = []
        page.on(
            "request", lambda sent: None if sent.url.startswith(url) else outside.append(sent.url)
        )
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.goto(url)
        field, keys = page.locator("textarea"), page.keyboard
        expect(field).to_have_value(f"{EVIL} ends in word0")
        cards = {who: page.locator(f'[data-who="{who}"]') for who in ("base", "student", "teacher")}
        for who in ("base", "student"):
            expect(cards[who].locator(".facts")).to_contain_text("tokens · ", timeout=120_000)
            expect(cards[who].locator(".badge")).to_contain_text("failed")
        expect(cards["teacher"].locator(".facts")).to_have_text("Not asked.")
        keys.press("t")
        expect(cards["teacher"].locator(".facts")).to_contain_text("ms · free")
        expect(cards["teacher"].locator(".badge")).to_have_text("2 of 2 passed")
        expect(cards["teacher"].locator(".differs").first).to_be_visible()
        assert page.locator("main img, main script").count() == 0
        page.screenshot(path=tmp_path / "try-1280.png", full_page=True)

        keys.press("s")
        expect(page.locator("#notice")).to_contain_text("is a test row, which must not be learnt")
        keys.press("ArrowRight")
        expect(field).to_have_value("line 1 ends in word1")
        expect(cards["teacher"].locator(".facts")).to_have_text("Not asked.")
        keys.press("i")
        page.keyboard.insert_text(" and more, s and t are letters here: word2")
        keys.press("Control+Enter")
        expect(page.locator("#rows")).to_have_value("")
        expect(cards["student"].locator(".facts")).to_contain_text("tokens")
        keys.press("Escape")
        keys.press("s")
        expect(page.locator("#notice")).to_contain_text("It is line 2 of data/seeds.jsonl now")
        keys.press("r")
        expect(page.locator("#notice")).to_contain_text("`make review` shows it first, once")
        keys.press("?")
        expect(page.locator("#help")).to_be_visible()
        page.get_by_role("button", name="Close").click()
        for width in (320, 390, 1280):  # nothing sticks out
            page.set_viewport_size({"width": width, "height": 844})
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            page.screenshot(path=tmp_path / f"try-{width}-typed.png", full_page=True)
        assert (page.title(), outside, faults) == ("Try toy · Potstill", [], [])
        assert len(settings.load().seeds()) == 2
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
