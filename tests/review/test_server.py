"""`make review`: what is drawn, who gets in, what is kept; and the page in a browser (slow)."""

import asyncio
import json
import os
import re
import signal
import subprocess
import urllib.request
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer

from potstill.core import jsonl
from potstill.core.errors import UserError
from potstill.core.jsonl import Row
from potstill.dataset import reviews
from potstill.review import frame, server
from potstill.task import settings
from tests.conftest import Project

ID = jsonl.row_id({"text": "x"})
FIRST, SECOND = '{"word": "word0", "length": 5}', '{"word": "word0", "length": 50}'
EVIL = (
    '<img src=x onerror="document.title=\'owned\'"></script><script>document.title="owned"</script>'
)
Client = TestClient[Any, Any]


def answer(id: str, text: str, sample: int = 0, **more: object) -> Row:
    paid = {
        "model": "m",
        "finish_reason": "stop",
        "prompt_tokens": 7,
        "completion_tokens": 3,
        "error": None,
    }
    return {"id": id, "sample": sample, "answer": text, **paid, **more}


def right(i: int) -> str:
    return json.dumps({"word": f"word{i}", "length": 5})


@pytest.fixture
def seeds(project: Project) -> list[Row]:
    """20 seeds with an answer each, the first with two that differ; every fifth is broken JSON, one
    is refused."""
    seeds = project.seeds(20)
    texts = [right(i) if i % 5 or not i else '{"word": "cut' for i in range(20)]
    found = [answer(seed["id"], text) for seed, text in zip(seeds, texts, strict=True)]
    found[19] |= {"answer": "", "error": "400: content policy"}
    jsonl.write_jsonl("data/2-answers.jsonl", [*found, answer(seeds[0]["id"], SECOND, 1)])
    return seeds


def desk(count: int = 100, seed: int = 0) -> server.Desk:
    return server.desk(settings.load(), count, seed, "Li")


def drawn(made: server.Desk) -> list[str]:
    return [one["answer"] for one in made.answers]


# ---- the sample ---------------------------------------------------------------------------------


def test_the_sample_is_the_seeds_and_grows_without_reshuffling(seeds: list[Row]) -> None:
    assert len(desk().answers) == 20  # 21, one refused
    assert drawn(desk(5)) == drawn(desk())[:5] != drawn(desk(5, seed=1))
    assert not any(one["error"] for one in desk().answers)


def test_one_text_is_shown_once_and_inputs_may_be_expanded(
    seeds: list[Row], project: Project
) -> None:
    id = seeds[0]["id"]
    jsonl.write_jsonl("data/1-inputs.jsonl", [{**seeds[0], "family": id, "category": "c"}])
    jsonl.write_jsonl("data/2-answers.jsonl", [answer(id, FIRST), answer(id, FIRST, 1)])
    made = desk()
    assert (len(made.answers), made.pairs) == (1, [])
    assert made.view(made.answers[0])["about"]["category"] == "c"


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (
            [answer("nowhere", FIRST)],
            r"2-answers.jsonl:1: id nowhere is none of the inputs': run `dvc repro filter`$",
        ),
        ([answer(ID, "", error="400")], r"2-answers.jsonl: the teacher refused every input"),
    ],
)
def test_nothing_to_review_is_one_sentence(
    project: Project, found: list[Row], message: str
) -> None:
    jsonl.write_jsonl("data/seeds.jsonl", [{"text": "x"}])
    jsonl.write_jsonl("data/2-answers.jsonl", found)
    with pytest.raises(UserError, match=message):
        desk()


def test_a_pair_is_of_two_that_pass_where_there_are_and_its_sides_are_shuffled(
    project: Project,
) -> None:
    seeds = project.seeds(40)
    found = [
        answer(seed["id"], text, sample)
        for i, seed in enumerate(seeds)
        for sample, text in enumerate(("broken", right(i), right(i).replace(": 5", ": 6")))
    ]
    jsonl.write_jsonl("data/2-answers.jsonl", found)
    pairs = desk().pairs
    assert len(pairs) == 40
    assert all({one["sample"] for one in pair} == {1, 2} for pair in pairs)
    assert 8 < sum(pair[0]["sample"] == 1 for pair in pairs) < 32
    assert desk().pairs == pairs != desk(seed=1).pairs


def test_an_answer_that_was_cut_off_has_not_passed(project: Project) -> None:
    seeds = project.seeds(1)
    jsonl.write_jsonl(
        "data/2-answers.jsonl", [answer(seeds[0]["id"], FIRST, finish_reason="length")]
    )
    view = desk().view(desk().answers[0])
    assert view["checks"][0] == {"name": "finish_reason", "passed": False, "reason": "length"}
    assert not view["passed"]


def test_an_answer_of_text_is_judged_as_a_training_row_is(project: Project) -> None:
    project.write("task.yaml", "checks: [{max_chars: {limit: 9, train: {limit: 2}}}]\n")
    seeds = project.seeds(1)
    jsonl.write_jsonl(
        "data/2-answers.jsonl", [answer(seeds[0]["id"], "三个字"), answer(seeds[0]["id"], " ", 1)]
    )
    made = desk()
    too_long, empty = place(made, "三个字"), place(made, " ")
    assert made.view(made.answers[too_long])["checks"] == [
        {
            "name": "max_chars",
            "options": "limit: 2",
            "passed": False,
            "reason": "max_chars: 3 characters, at most 2",
        }
    ]

    async def act(client: Client) -> None:
        for index, verdict, status in (
            (too_long, "accept", 200),
            (empty, "accept", 422),
            (empty, "edit", 422),
        ):
            reply = await client.post(
                "/secret/verdict", json={"index": index, "verdict": verdict, "output": "\n"}
            )
            assert reply.status == status
        reply = await client.post(
            "/secret/verdict", json={"index": empty, "verdict": "edit", "output": " 两字\n"}
        )
        assert (await reply.json())["said"]["output"] == " 两字\n"

    at_desk(made, act)


# ---- the calls ----------------------------------------------------------------------------------


def at_desk(made: server.Desk, act: Callable[[Client], Awaitable[None]]) -> None:
    """Runs `act` with a client of the page."""

    async def main() -> None:
        async with TestClient(
            TestServer(server.application(made, "secret"), host="127.0.0.1")
        ) as client:
            await act(client)

    asyncio.run(main())


def place(made: server.Desk, text: str) -> int:
    return drawn(made).index(text)


def test_verdicts_are_kept_the_moment_they_are_given(seeds: list[Row]) -> None:
    made = desk()
    good, bad, broken = place(made, right(1)), place(made, right(2)), place(made, '{"word": "cut')
    path = Path("data/own/reviews.jsonl")

    async def act(client: Client) -> None:
        async def say(index: int, verdict: str, **more: object) -> Any:
            reply = await client.post(
                "/secret/verdict", json={"index": index, "verdict": verdict, **more}
            )
            return reply.status, (await reply.json() if reply.ok else await reply.text())

        status, reply = await say(good, "accept")
        assert (status, reply["row"], reply["said"]["verdict"]) == (200, good, "accept")
        line = json.loads(path.read_text().splitlines()[-1])
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", line.pop("at"))
        hash = reviews.answer_hash(right(1))
        assert line == {
            "id": seeds[1]["id"],
            "answer": hash,
            "verdict": "accept",
            "checks": True,
            "by": "Li",
        }
        assert (await say(bad, "reject"))[1]["tally"]["agree"] == 1
        assert await say(broken, "accept") == (
            422,
            "No later step can read this answer (json: Unterminated string starting at): "
            "edit or reject it.",
        )
        status, reply = await say(broken, "edit", output='{"word": "cut",')
        assert (status, reply[:40]) == (422, "Not kept, no later step could read it: j")
        assert (await say(broken, "edit", output='"\ud800"'))[0] == 422
        assert (await say(broken, "edit", output='{"word": "\\ud800", "length": 3}'))[0] == 422
        assert len(path.read_text().splitlines()) == 2
        status, reply = await say(
            broken, "edit", output='{\n "word": "五",\n "length": 1}'
        )  # not grounded: a person wins
        assert (status, reply["said"]["output"]) == (200, '{"word": "五", "length": 1}')
        expected = {
            "verdicts": 3,
            "accept": 1,
            "reject": 1,
            "edit": 1,
            "known": 3,
            "agree": 2,
            "rankings": 0,
        }
        assert reply["tally"] == expected

        same = right(3).replace(",", ",\n")
        assert (await say(place(made, right(3)), "edit", output=same))[1]["said"][
            "verdict"
        ] == "accept"

    at_desk(made, act)
    found = reviews.load(path)
    assert found.verdict(seeds[2]["id"], right(2)) is not None
    again = desk()
    assert [
        view["said"]["verdict"] for view in map(again.view, again.answers) if view["said"]
    ].count("edit") == 1


def test_an_edit_is_checked_as_it_is_typed(seeds: list[Row]) -> None:
    made = desk()

    async def act(client: Client) -> None:
        for text, passed in (
            ('{"word": "word1", "length": 3}', [True, True]),
            ('{"word": "no", "length": 3}', [True, False]),
        ):
            reply = await client.post(
                "/secret/check", json={"index": place(made, right(1)), "output": text}
            )
            found = await reply.json()
            assert [one["passed"] for one in found["checks"]] == passed
            assert found["passed"] == all(passed)

    at_desk(made, act)
    assert not Path("data/own/reviews.jsonl").exists()


@pytest.mark.parametrize("verdict", ["a", "b", "tie"])
def test_a_ranking_is_kept_under_the_answers_own_hashes(seeds: list[Row], verdict: str) -> None:
    made = desk()
    left, right = (one["answer"] for one in made.pairs[0])
    assert {left, right} == {SECOND, json.dumps({"word": "word0", "length": 5})}

    async def act(client: Client) -> None:
        reply = await (
            await client.post("/secret/rank", json={"index": 0, "verdict": verdict})
        ).json()
        assert (reply["pair"], reply["said"], reply["tally"]["rankings"]) == (0, verdict, 1)
        assert (
            await client.post("/secret/rank", json={"index": 0, "verdict": "accept"})
        ).status == 400

    at_desk(made, act)
    assert reviews.load("data/own/reviews.jsonl").ranking(seeds[0]["id"], left, right) == verdict


def test_undo_takes_back_what_this_session_said_and_no_more(seeds: list[Row]) -> None:
    made = desk()
    before = reviews.append(
        made.path, {"id": "x", "answer": "0" * 16, "verdict": "accept", "checks": True}
    )

    async def act(client: Client) -> None:
        index = place(made, right(1))
        for verdict in ("accept", "reject"):
            await client.post("/secret/verdict", json={"index": index, "verdict": verdict})
        await client.post("/secret/rank", json={"index": 0, "verdict": "a"})
        replies = [await (await client.post("/secret/undo", json={})).json() for _ in range(3)]
        assert [reply.get("said") and reply["said"]["verdict"] for reply in replies] == [
            None,
            "accept",
            None,
        ]
        assert ("pair" in replies[0], replies[1]["row"], replies[2]["tally"]["verdicts"]) == (
            True,
            index,
            1,
        )
        assert (await client.post("/secret/undo", json={})).status == 409
        assert made.path.read_bytes() == before
        await client.post("/secret/verdict", json={"index": index, "verdict": "accept"})
        made.path.write_bytes(before)  # as git may
        reply = await client.post("/secret/undo", json={})
        assert (reply.status, await reply.text()) == (
            409,
            "Not kept: your last verdict is not in data/own/reviews.jsonl any more: somebody "
            "removed it.",
        )

    at_desk(made, act)


@pytest.mark.parametrize("servers", [1, 2])
def test_two_windows_take_back_their_own_and_overwrite_nothing(
    seeds: list[Row], servers: int
) -> None:
    desks = [desk() for _ in range(servers)]

    async def act(first: Client, second: Client) -> None:
        clients = {"one": first, "two": second}
        row, other = place(desks[0], right(1)), place(desks[0], right(2))

        async def say(window: str, index: int, verdict: str, seen: str = "") -> Any:
            body = {"window": window, "index": index, "verdict": verdict, "seen": seen}
            call = "rank" if verdict == "tie" else "verdict"
            reply = await clients[window].post(f"/secret/{call}", json=body)
            return reply.status, (await reply.json() if reply.ok else await reply.text())

        async def undo(window: str) -> Any:
            reply = await clients[window].post("/secret/undo", json={"window": window})
            return reply.status, (await reply.json() if reply.ok else await reply.text())

        status, mine = await say("one", row, "accept")
        assert status == 200
        status, message = await say("two", row, "reject")  # it shows no verdict yet
        assert (status, message) == (
            409,
            "Not kept: Li said 'accept' of this after this page had read it: it is shown now; say "
            "it again if you still mean it.",
        )
        assert (await say("two", other, "reject"))[0] == 200
        assert (await say("two", 0, "tie"))[0] == 200
        assert (await say("one", 0, "tie"))[0] == 409
        rows = (await (await clients["two"].get("/secret/state")).json())["rows"]
        assert rows[row]["mark"] == mine["mark"]
        assert (await say("two", row, "reject", rows[row]["mark"]))[0] == 200  # knowingly
        status, reply = await undo("one")  # not the newest line: its own
        assert (status, reply["row"], reply["said"]["verdict"]) == (200, row, "reject")
        status, message = await undo("one")
        assert (status, message[:22]) == (409, "Nothing to take back: ")
        assert [(await undo("two"))[0] for _ in range(4)] == [200, 200, 200, 409]
        assert desks[0].path.read_bytes() == b""

    async def main() -> None:
        async with AsyncExitStack() as stack:
            clients = [
                await stack.enter_async_context(
                    TestClient(TestServer(server.application(made, "secret"), host="127.0.0.1"))
                )
                for made in desks
            ]
            await act(clients[0], clients[-1])

    asyncio.run(main())


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/secret/", {}, 200),
        ("/secret/", {"Host": "localhost:{port}"}, 200),
        ("/secret/state", {"Origin": "http://127.0.0.1:{port}"}, 200),
        ("/", {}, 403),
        ("/guess/", {}, 403),
        ("/guess/state", {}, 403),
        ("/secretary/state", {}, 403),
        ("/favicon.ico", {}, 403),
        ("/review.js", {}, 403),
        ("/secret/review.js", {}, 200),
        ("/secret/review.py", {}, 404),
        ("/secret/", {"Host": "evil.example:{port}"}, 403),  # a name that was pointed at 127.0.0.1
        ("/secret/", {"Host": "127.0.0.1"}, 403),
        ("/secret/state", {"Origin": "http://evil.example"}, 403),
        ("/secret/state", {"Origin": "http://localhost:{port}"}, 403),
        ("/secret/state", {"Origin": "null"}, 403),
        ("/secret/state", {"Host": "evil.example", "Origin": "http://evil.example"}, 403),
        ("/secret/../etc/passwd", {}, 403),
        ("/secret/nothing", {}, 404),
        ("/secret/verdict", {}, 405),
    ],
)
def test_only_the_page_itself_gets_in(
    seeds: list[Row], path: str, headers: dict[str, str], status: int
) -> None:
    made = desk()

    async def act(client: Client) -> None:
        sent = {name: value.format(port=client.port) for name, value in headers.items()}
        reply = await client.get(path, headers=sent)
        assert (reply.status, reply.headers["Referrer-Policy"]) == (status, "no-referrer")
        if status == 403:
            for call in ("verdict", "rank", "undo", "check"):
                where = f"{path.rsplit('/', 1)[0]}/{call}"
                posted = await client.post(
                    where, headers=sent, json={"index": 0, "verdict": "reject"}
                )
                assert posted.status == 403

    at_desk(made, act)
    assert not made.path.exists()


@pytest.mark.parametrize(
    "body",
    ["", "[]", "{}", '{"index": 99, "verdict": "reject"}', '{"index": -1, "verdict": "reject"}'],
)
def test_a_call_that_makes_no_sense_is_refused(seeds: list[Row], body: str) -> None:
    async def act(client: Client) -> None:
        assert (await client.post("/secret/verdict", data=body)).status == 400

    at_desk(desk(), act)
    assert not Path("data/own/reviews.jsonl").exists()


def test_a_broken_file_and_a_full_disk_are_said_and_nothing_is_lost(
    seeds: list[Row], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = desk()

    async def act(client: Client) -> None:
        def full(number: int) -> None:
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", full)
            reply = await client.post("/secret/verdict", json={"index": 0, "verdict": "reject"})
            assert (reply.status, await reply.text()) == (
                409,
                "Not kept: [Errno 28] No space left on device.",
            )
        assert made.tally()["verdicts"] == 0
        made.path.write_text("<<<<<<< ours\n")
        reply = await client.get("/secret/state")
        assert (reply.status, "reviews.jsonl:1: not JSON" in await reply.text()) == (409, True)

    at_desk(made, act)


def test_what_the_teacher_wrote_stays_text(project: Project) -> None:
    project.write("task.yaml", 'user: "{{ text }}"\nchecks: []\n')
    jsonl.write_jsonl("data/seeds.jsonl", [{"text": EVIL}])
    [seed] = settings.load().seeds()
    jsonl.write_jsonl("data/2-answers.jsonl", [answer(seed["id"], json.dumps({EVIL: EVIL}))])
    made = desk()

    async def act(client: Client) -> None:
        for name, path in server.PAGE.items():
            page = await client.get(f"/secret/{name}")
            assert page.content_type == frame.KINDS[path.suffix]
            assert "onerror" not in await page.text()
        policy = dict(
            one.strip().split(" ", 1) for one in page.headers["Content-Security-Policy"].split(";")
        )
        assert (
            policy["default-src"] == policy["frame-ancestors"] == policy["form-action"] == "'none'"
        )
        assert policy["script-src"] == policy["connect-src"] == "'self'" and "unsafe" not in str(
            policy
        )
        reply = await client.get("/secret/state")
        assert reply.content_type == "application/json"
        assert reply.headers["X-Content-Type-Options"] == "nosniff"
        assert (await reply.json())["rows"][0]["input"] == {"text": EVIL}

    at_desk(made, act)
    source = "".join(path.read_text(encoding="utf-8") for path in server.PAGE.values())
    for module in (server, frame):
        source += Path(str(module.__file__)).read_text(encoding="utf-8")
    source = source.replace("http://127.0.0.1", "").replace('f"http://{request.host}"', "")
    assert not re.findall(
        r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(|https?:|style=|onclick", source
    )


# ---- the process --------------------------------------------------------------------------------


def opened(process: "subprocess.Popen[str]") -> str:
    """The address that a started `make review` printed."""
    assert process.stdout
    for line in process.stdout:
        if found := re.search(r"http://127\.0\.0\.1:\d+/\S+/", line):
            return found[0]
    raise AssertionError("no address")


def post(url: str, body: Row) -> Row:
    request = urllib.request.Request(
        url, json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=10) as reply:
        return dict(json.load(reply))


def test_a_killed_review_keeps_its_verdicts_and_the_next_goes_on(
    seeds: list[Row], project: Project
) -> None:
    process = project.start("potstill.review.server", BROWSER="none")
    url = opened(process)
    for index in range(3):
        post(url + "verdict", {"index": index, "verdict": "reject"})
    process.kill()
    process.communicate()
    process = project.start("potstill.review.server", BROWSER="none")
    assert opened(process) != url
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=20)
    assert process.returncode == 0
    assert re.search(
        r"review: 0 new; data/own/reviews.jsonl has 0 accepted, 3 rejected, 0 edited, 0 rankings; "
        r"\d of 3 agree",
        out,
    )
    assert len(reviews.load("data/own/reviews.jsonl").verdicts) == 3


def test_a_browser_is_opened_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "linux")
    for env, expected in (
        ({}, False),
        ({"DISPLAY": ":0"}, True),
        ({"WAYLAND_DISPLAY": "wayland-0"}, True),
        ({"BROWSER": "firefox"}, True),
        ({"DISPLAY": ":0", "BROWSER": "none"}, False),
    ):
        for name in ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER"):
            monkeypatch.delenv(name, raising=False)
        for name, value in env.items():
            monkeypatch.setenv(name, value)
        assert frame.has_display() is expected


def test_a_sample_of_nothing_is_refused(seeds: list[Row], project: Project) -> None:
    code, out = project.run("potstill.review.server", "--rows", "0")
    assert (code, out) == (
        1,
        "error: N is 0, expected the number of answers to review, such as N=100\n",
    )


# ---- the page in a real browser -----------------------------------------------------------------


@pytest.fixture
def served(project: Project) -> Iterator[str]:
    """A running review of the seeds, its answers full of HTML."""
    seeds = [
        {"id": jsonl.row_id({"text": text}), "text": text}
        for text in (f"{EVIL} 第{i}行 word{i}" for i in range(4))
    ]
    jsonl.write_jsonl("data/seeds.jsonl", seeds)
    texts = [json.dumps({"word": EVIL, "length": i}) for i in range(4)]
    found = [answer(seed["id"], text) for seed, text in zip(seeds, texts, strict=True)]
    jsonl.write_jsonl("data/2-answers.jsonl", [*found, answer(seeds[0]["id"], SECOND, 1)])
    with serving(project) as url:
        yield url


@contextmanager
def serving(project: Project) -> Iterator[str]:
    """The address of a running review."""
    process = project.start("potstill.review.server", BROWSER="none")
    try:
        yield opened(process)
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=20)


WORDS = [f"word{i}" for i in range(16)]
HIDDEN = "pay\u202e001\u202c now\u2028and\u200b\u200b\u200b\u200bthen \U0001f468\u200d\U0001f469 ❤️"
SEEN = "payU+202E001U+202C nowU+2028andU+200B ×4then \U0001f468\u200d\U0001f469 ❤️"


@pytest.mark.slow
def test_failed_checks_come_first_and_nothing_is_hidden(
    project: Project, browser: Any, tmp_path: Path
) -> None:
    from playwright.sync_api import expect

    checks: list[Any] = [{"excludes": {"words": [word]}} for word in WORDS]
    checks += [{"max_chars": {"limit": 29_000}}, {"regex": {"pattern": "(?s).*"}}, "one_sentence"]
    project.write("task.yaml", json.dumps({"name": "toy", "checks": checks}))
    texts = [f"word3{'很长' * 15_000}", f"a word7, {HIDDEN}", f"short{chr(10) * 31}and long"]
    inputs = ["x" * 30_000, HIDDEN, "plain"]
    jsonl.write_jsonl("data/seeds.jsonl", [{"text": text} for text in inputs])
    ids = [jsonl.row_id({"text": text}) for text in inputs]
    found = [answer(id, text) for id, text in zip(ids, texts, strict=True)]
    jsonl.write_jsonl("data/2-answers.jsonl", found)
    with serving(project) as url:
        for width, height in ((390, 844), (1280, 800)):
            for scheme in ("light", "dark"):
                size = {"width": width, "height": height}
                page = browser.new_page(color_scheme=scheme, viewport=size)
                page.goto(url)
                seen = set()
                for _ in range(3):
                    about = page.locator("#about")
                    expect(about).to_contain_text(re.compile("|".join(ids)))
                    kind = ids.index(str(about.text_content())[:16])
                    seen.add(kind)
                    page.screenshot(path=tmp_path / f"review-{width}-{scheme}-{kind}.png")
                    assert page.evaluate("document.documentElement.scrollWidth") == width
                    failed = page.locator("#checks li")
                    if kind == 0:
                        expect(page.locator("#checks-sum")).to_have_text("2 of 19 failed")
                        lines = (
                            '✗ failedexcludeswords: ["word3"]',
                            "✗ failedmax_charslimit: 29000",
                        )
                        expect(failed).to_have_text([re.compile(re.escape(one)) for one in lines])
                        for card in ("#input", "#answer"):
                            assert page.locator(card).bounding_box()["height"] < 1_200
                        for card, cut in (("#input", "29,400"), ("#answer", "29,005")):
                            more = page.locator(f"{card} .rest")
                            expect(more).to_have_text(f"{cut} more characters")
                            more.click()
                            expect(more).to_have_count(0)
                        assert len(page.locator("#answer").text_content()) == 30_005
                        page.evaluate("scrollTo(0, 0)")
                    if kind == 1:
                        assert page.locator("#input").text_content() == SEEN
                        assert page.locator("#answer").text_content() == f"a word7, {SEEN}"
                    if kind == 2:
                        lines = page.locator("#answer")
                        expect(lines).to_have_text("short\n30 blank lines\nand long")
                        expect(page.locator("#passed-box summary")).to_have_text("18 passed")
                        expect(page.locator("#passed")).to_be_hidden()
                    if failed.count():
                        box = failed.first.bounding_box()
                        assert box["y"] + box["height"] < height - 120  # above the fold
                        assert box["y"] < page.locator("#answer").bounding_box()["y"]
                    page.keyboard.press("ArrowRight")
                assert seen == {0, 1, 2}
                page.close()


@pytest.mark.slow
def test_two_windows_and_a_server_that_dies(served: str, browser: Any) -> None:
    from playwright.sync_api import expect

    one, two = browser.new_page(), browser.new_page()
    for page in (one, two):
        page.goto(served)
        expect(page.locator("#where")).to_have_text("Answer 1 of 5")
    one.keyboard.press("a")
    expect(one.locator("#where")).to_have_text("Answer 2 of 5")
    two.keyboard.press("u")
    expect(two.locator("#notice")).to_contain_text("Nothing to take back")
    two.reload()
    two.locator("#where", has_text="of 5").wait_for()
    two.keyboard.press("ArrowLeft")
    one.keyboard.press("ArrowLeft")
    one.keyboard.press("r")  # its own verdict may be changed
    expect(one.locator("#where")).to_have_text("Answer 2 of 5")
    expect(two.locator("#said")).to_contain_text("accepted")
    two.keyboard.press("e")
    two.fill("#edit", '{"word": "mine", "length": 4}')
    two.keyboard.press("Control+Enter")
    expect(two.locator("#notice")).to_contain_text("said 'reject' of this after this page had read")
    expect(two.locator("#said")).to_contain_text("rejected")
    expect(two.locator("#edit")).to_have_value('{"word": "mine", "length": 4}')  # not lost
    two.keyboard.press("Control+Enter")  # knowingly
    expect(two.locator("#where")).to_have_text("Answer 2 of 5")
    one.keyboard.press("ArrowLeft")
    one.keyboard.press("u")
    expect(one.locator("#notice")).to_have_text("Taken back.")
    expect(one.locator("#said")).to_contain_text("edited")  # what the other window said
    one.reload()
    expect(one.locator("#where")).to_have_text("Answer 2 of 5")
    one.keyboard.press("u")  # undo outlives a reload
    expect(one.locator("#notice")).to_have_text("Taken back.")
    one.route("**/verdict", lambda route: route.abort())
    one.keyboard.press("a")
    expect(one.locator("#notice")).to_contain_text("open the address that it prints")
    one.close()
    two.close()


@pytest.mark.slow
def test_the_page_by_its_keys_in_chromium(served: str, browser: Any, project: Project) -> None:
    from playwright.sync_api import expect

    def lines() -> list[Row]:
        return [
            json.loads(line)
            for line in Path("data/own/reviews.jsonl").read_text(encoding="utf-8").splitlines()
        ]

    def kept() -> list[tuple[str, ...]]:
        return [(row["verdict"], row.get("output", "")) for row in lines()]

    page = browser.new_page()
    outside: list[str] = []
    faults: list[str] = []
    page.on(
        "request",
        lambda request: None if request.url.startswith(served) else outside.append(request.url),
    )
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.goto(served)
    keys, where = page.keyboard, page.locator("#where")
    expect(where).to_have_text("Answer 1 of 5")
    expect(page.locator("#input")).to_contain_text(EVIL)
    expect(page.locator("#answer")).to_contain_text("word")
    assert page.locator("main img, main script").count() == 0

    keys.press("a")  # accept, and on to the next
    expect(where).to_have_text("Answer 2 of 5")
    keys.press("r")
    expect(where).to_have_text("Answer 3 of 5")
    assert kept() == [("accept", ""), ("reject", "")]
    expect(page.locator("#progress")).to_have_text("2 of 5 judged")

    keys.press("e")  # an edit, checked as it is typed
    page.fill("#edit", '{"word": "word')
    expect(page.locator("#checks")).to_contain_text("Unterminated string")
    keys.press("Control+Enter")
    expect(page.locator("#notice")).to_contain_text("Not kept")
    page.fill("#edit", '{"word": "ar", "length": 2}')  # a and r are letters here
    keys.press("Control+Enter")
    expect(where).to_have_text("Answer 4 of 5")
    assert kept()[2:] == [("edit", '{"word": "ar", "length": 2}')]

    keys.press("u")  # undo, and again
    expect(where).to_have_text("Answer 3 of 5")
    expect(page.locator("#notice")).to_have_text("Taken back.")
    keys.press("e")
    keys.press("Escape")
    keys.press("u")
    expect(where).to_have_text("Answer 2 of 5")
    assert kept() == [("accept", "")]
    keys.press(
        "Control+r"
    )  # the browser's own key is no verdict: it loads the page again, and the work goes on
    expect(where).to_have_text("Answer 2 of 5")
    keys.press("ArrowLeft")
    expect(page.locator("#said")).to_contain_text("accepted")
    page.select_option("#filter", "failed")
    expect(where).to_contain_text(re.compile(r"of \d|No answer"))

    keys.press("m")  # ranking
    expect(where).to_have_text("Pair 1 of 1")
    expect(page.locator("#a .differs").first).to_be_visible()
    keys.press("b")
    expect(page.locator("#said-b")).to_be_visible()
    keys.press("t")
    expect(page.locator("#rank-tie")).to_have_attribute("aria-pressed", "true")
    assert [row["verdict"] for row in lines() if "answers" in row] == ["b", "tie"]

    keys.press("?")
    expect(page.locator("#help")).to_be_visible()
    keys.press("a")  # is no verdict while the help is open
    page.get_by_role("button", name="Close").click()
    expect(page.locator("#help")).not_to_be_visible()
    page.reload()
    expect(page.locator("#progress")).to_have_text("1 of 5 judged")
    keys.press("m")
    expect(page.locator("#said-a")).to_have_text("tie")
    assert (page.title(), outside, faults) == ("Review toy · Potstill", [], [])
    assert len(kept()) == 3

    keys.press("m")
    page.select_option("#filter", "all")
    for judged in range(2, 6):
        keys.press("r")
        expect(page.locator("#progress")).to_have_text(f"{judged} of 5 judged")
    expect(page.locator("#notice")).to_contain_text("Every answer shown has a verdict")
    keys.press("e")  # there is no next one to go to
    page.fill("#edit", '{"word": "last", "length": 4}')
    page.get_by_role("button", name="Save the edit").click()
    expect(page.locator("#said")).to_have_text(re.compile("^edited"))
    expect(page.locator("#editor")).to_be_hidden()
    for width in (320, 390, 1280):  # nothing sticks out
        page.set_viewport_size({"width": width, "height": 800})
        assert page.evaluate("document.documentElement.scrollWidth") <= width
