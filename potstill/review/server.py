"""`make review`: a local page where a person accepts, rejects, edits and ranks the teacher's answers.

python -m potstill.review.server [--task NAME] [--rows N] [--seed N] [--no-open]

Verdicts go to data/<task>/reviews.jsonl (potstill/reviews.py), each on disk before the page goes on. The page is for one
person on this machine: loopback only, a secret in its URL, no other page may call it, and no text of a teacher is ever
read as HTML.
"""

import argparse
import asyncio
import getpass
import hashlib
import json
import os
import secrets
import subprocess
import sys
import webbrowser
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from aiohttp import web

from potstill.checks import registry
from potstill.core import errors, jsonl, params
from potstill.core.errors import UserError
from potstill.dataset import reviews
from potstill.task import settings

PAGE = {
    "": "text/html",
    "review.css": "text/css",
    "review.js": "text/javascript",
}  # potstill/review.html comes first
# A failure of these cannot be overruled: no later step could read the answer.
BREAKING = ("json", "text", "json_schema")
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


@dataclass
class Desk:
    """What lies on the table: the sampled answers, the pairs to rank, and where the verdicts go."""

    task: settings.Task
    inputs: dict[str, jsonl.Row]
    answers: list[jsonl.Row]
    pairs: list[tuple[jsonl.Row, jsonl.Row]]
    by: str
    said: reviews.Reviews = field(default_factory=reviews.Reviews)
    done: list[bytes] = field(default_factory=list)  # the lines of this session, for undo

    @property
    def path(self) -> Path:
        """Where the verdicts are kept."""
        return self.task.data / "reviews.jsonl"

    def load(self) -> None:
        """Reads what has been said from the file, which git may have changed. Raises UserError."""
        self.said = reviews.load(self.path)

    def keep(self, row: jsonl.Row) -> None:
        """Puts a verdict on disk."""
        row = {**row, "by": self.by, "at": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"}
        self.done.append(reviews.append(self.path, row))
        self.said.add(row)

    def judge(self, answer: jsonl.Row, text: str) -> list[jsonl.Row]:
        """Each check's verdict on `text` as an answer to the input of `answer`."""
        if reason := registry.parse(self.task, text)[1]:  # then all fail, for this one reason
            return [{"name": reason.split(":")[0], "passed": False, "reason": reason}]
        found = registry.verdicts(self.task, self.inputs[answer["id"]], text, training=True)
        listed = [{"name": one.name, "passed": one.passed, "reason": one.reason} for one in found]
        if text == answer["answer"] and answer["finish_reason"] not in ("stop", None):
            listed.insert(
                0, {"name": "finish_reason", "passed": False, "reason": answer["finish_reason"]}
            )
        return listed

    def view(self, answer: jsonl.Row) -> jsonl.Row:
        """An answer as the page shows it."""
        row, text = self.inputs[answer["id"]], answer["answer"]
        said = self.said.verdict(answer["id"], text)
        listed = self.judge(answer, text)
        return {
            "id": answer["id"],
            "input": {name: row[name] for name in self.task.config["input"]},
            "about": {name: row[name] for name in ("category", "family") if name in row}
            | {name: answer[name] for name in ("sample", "model", "completion_tokens")},
            "prompt": self.task.messages("teacher", row),
            "answer": text,
            "pretty": relaid(text, 2),
            "checks": listed,
            "passed": passed(listed),
            "said": said and {**said, "pretty": relaid(str(said.get("output", text)), 2)},
        }

    def compare(self, pair: tuple[jsonl.Row, jsonl.Row]) -> jsonl.Row:
        """Two answers as the page shows them, side by side and without their checks, so that these sway nobody."""
        id, texts = pair[0]["id"], [one["answer"] for one in pair]
        row = self.inputs[id]
        return {
            "id": id,
            "input": {name: row[name] for name in self.task.config["input"]},
            "about": {name: row[name] for name in ("category", "family") if name in row},
            "prompt": self.task.messages("teacher", row),
            "pretty": [relaid(text, 2) for text in texts],
            "said": self.said.ranking(id, *texts),
        }

    def undo(self) -> jsonl.Row | None:
        """Takes this session's last verdict back and gives it; None when there is none, or it is no longer the last line."""
        line = self.done.pop() if self.done else b""
        if not line or not reviews.take_back(self.path, line):
            self.done.clear()
            return None
        self.load()
        return dict(json.loads(line))

    def place(self, row: jsonl.Row) -> dict[str, Any]:
        """Where the answer or the pair of a verdict lies, and what is said of it now."""
        if "answers" in row:
            index = next(i for i, pair in enumerate(self.pairs) if pair[0]["id"] == row["id"])
            return {"pair": index, "said": self.compare(self.pairs[index])["said"]}
        wanted = row["id"], row["answer"]
        index = next(
            i
            for i, one in enumerate(self.answers)
            if (one["id"], reviews.answer_hash(one["answer"])) == wanted
        )
        return {"row": index, "said": self.view(self.answers[index])["said"]}

    def tally(self) -> dict[str, int]:
        """Verdicts in the file, and how many of them say the same as the checks did: an edit says that the answer failed."""
        listed = list(self.said.verdicts.values())
        kinds = {kind: sum(row["verdict"] == kind for row in listed) for kind in reviews.VERDICTS}
        known = [row for row in listed if isinstance(row.get("checks"), bool)]
        agree = sum(row["checks"] == (row["verdict"] == "accept") for row in known)
        return {
            "verdicts": len(listed),
            **kinds,
            "known": len(known),
            "agree": agree,
            "rankings": len(self.said.rankings),
        }


def passed(listed: list[jsonl.Row]) -> bool:
    """Whether no check failed."""
    return all(one["passed"] is not False for one in listed)


def relaid(text: str, indent: int | None = None) -> str:
    """A JSON object or list anew: one value a line with an `indent`, else all in one line. Any other text as it is."""
    try:
        parsed = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return (
        json.dumps(parsed, ensure_ascii=False, indent=indent)
        if isinstance(parsed, dict | list)
        else text
    )


def order(seed: int, *what: str) -> bytes:
    """Where something stands in the shuffled order of `seed`: the same in every run and whatever else there is."""
    return hashlib.sha256("\x1f".join((str(seed), *what)).encode()).digest()


def desk(t: settings.Task, count: int, seed: int, by: str) -> Desk:
    """A seeded sample of `count` answers, and of as many pairs of answers to one input. Raises UserError."""
    path = t.data / "1-inputs.jsonl"
    inputs = {
        row["id"]: row for row in t.inputs(path if path.is_file() else t.data / "seeds.jsonl")
    }
    fields = ("id", "sample", "model", "answer", "finish_reason", "completion_tokens", "error")
    found: dict[str, dict[str, jsonl.Row]] = {}  # of one text that came twice, the first
    for number, answer in enumerate(jsonl.read_jsonl(t.data / "2-answers.jsonl", fields), 1):
        if answer["id"] not in inputs:
            raise UserError(
                f"{t.data}/2-answers.jsonl:{number}: id {answer['id']} is none of the inputs': run `dvc repro filter`"
            )
        if not answer["error"]:
            found.setdefault(answer["id"], {}).setdefault(
                reviews.answer_hash(answer["answer"]), answer
            )
    every = [
        (order(seed, id, text), answer)
        for id, some in found.items()
        for text, answer in some.items()
    ]
    listed = sorted(every, key=lambda one: one[0])
    if not listed:
        raise UserError(
            f"{t.data}/2-answers.jsonl: the teacher refused every input: there is nothing to review"
        )
    made = Desk(t, inputs, [answer for _, answer in listed[:count]], [], by)
    several = sorted(
        (id for id, some in found.items() if len(some) > 1), key=lambda id: order(seed, id)
    )
    made.pairs = [pair(made, found[id], seed) for id in several[:count]]
    made.load()
    return made


def pair(made: Desk, some: dict[str, jsonl.Row], seed: int) -> tuple[jsonl.Row, jsonl.Row]:
    """Two of the answers to one input, rather two that pass the checks; which is on the left is the seed's choice."""
    listed = sorted(
        some.items(),
        key=lambda one: (not passed(made.judge(one[1], one[1]["answer"])), order(seed, *one[:1])),
    )
    left, right = sorted(listed[:2], key=lambda one: order(seed, "side", one[1]["id"], one[0]))
    return left[1], right[1]


def application(made: Desk, token: str) -> web.Application:
    """The page and its five calls, all below /<token>/. A call that is refused answers with one sentence."""

    async def page(request: web.Request) -> web.Response:
        name = request.path.split("/")[2]
        text = Path(__file__).with_name(name or "review.html").read_text(encoding="utf-8")
        return web.Response(text=text, content_type=PAGE[name])

    async def state(request: web.Request) -> web.Response:
        made.load()
        return web.json_response(
            {
                "task": made.task.name,
                "file": str(made.path),
                "rows": [made.view(answer) for answer in made.answers],
                "pairs": [made.compare(pair) for pair in made.pairs],
                "tally": made.tally(),
            }
        )

    async def check(request: web.Request) -> web.Response:
        body = await _body(request)
        listed = made.judge(_chosen(body, made.answers), _edited(body))
        return web.json_response({"checks": listed, "passed": passed(listed)})

    async def verdict(request: web.Request) -> web.Response:
        body = await _body(request, reviews.VERDICTS)
        answer = _chosen(body, made.answers)
        listed = made.judge(answer, answer["answer"])
        row = {
            "id": answer["id"],
            "answer": reviews.answer_hash(answer["answer"]),
            "verdict": body["verdict"],
        }
        if row["verdict"] == "edit" and _edited(body) == relaid(answer["answer"]):
            row["verdict"] = "accept"  # the edit changes nothing
        if row["verdict"] == "edit":
            row["output"] = _edited(body)
            if broken := _broken(made.judge(answer, row["output"])):
                raise web.HTTPUnprocessableEntity(
                    text=f"Not kept, no later step could read it: {broken}."
                )
        elif row["verdict"] == "accept" and (broken := _broken(listed)):
            raise web.HTTPUnprocessableEntity(
                text=f"No later step can read this answer ({broken}): edit or reject it."
            )
        return kept({**row, "checks": passed(listed)})

    async def rank(request: web.Request) -> web.Response:
        body = await _body(request, reviews.RANKS)
        pair = _chosen(body, made.pairs)
        answers = [reviews.answer_hash(one["answer"]) for one in pair]
        return kept({"id": pair[0]["id"], "answers": answers, "verdict": body["verdict"]})

    def kept(row: jsonl.Row) -> web.Response:
        made.keep(row)
        return web.json_response({**made.place(row), "tally": made.tally()})

    async def undo(request: web.Request) -> web.Response:
        if row := made.undo():
            return web.json_response({**made.place(row), "tally": made.tally()})
        raise web.HTTPConflict(
            text="Nothing to take back: undo reaches back to the start of this session."
        )

    @web.middleware
    async def guard(
        request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        """Only the page itself gets in: by the secret, and by Host and Origin, which a page elsewhere cannot choose."""
        port = request.transport.get_extra_info("sockname")[1] if request.transport else 0
        hosts = (f"127.0.0.1:{port}", f"localhost:{port}")
        secret = request.path.split("/")[1].encode()
        if (
            request.host not in hosts
            or request.headers.get("Origin", f"http://{request.host}") != f"http://{request.host}"
            or not secrets.compare_digest(secret, token.encode())
        ):
            raise web.HTTPForbidden(
                text="Not open: use the URL that `make review` printed.", headers=HEADERS
            )
        try:
            response = await handler(request)
        except web.HTTPException as refusal:
            refusal.headers.update(HEADERS)
            raise
        except (UserError, OSError) as error:  # a file that somebody broke, a full disk
            return web.Response(text=f"Not kept: {error}.", status=409, headers=HEADERS)
        response.headers.update(HEADERS)
        return response

    app = web.Application(middlewares=[guard])
    calls = [web.post(f"/{token}/{one.__name__}", one) for one in (check, verdict, rank, undo)]
    files = [web.get(f"/{token}/{name}", page) for name in PAGE]
    app.add_routes([*files, web.get(f"/{token}/state", state), *calls])
    return app


async def _body(request: web.Request, verdicts: Iterable[str] = ()) -> jsonl.Row:
    """The JSON object of a call, its verdict one of `verdicts` where there are any."""
    try:
        body = await request.json()
    except ValueError:
        body = None
    if not isinstance(body, dict) or (verdicts and str(body.get("verdict")) not in verdicts):
        raise web.HTTPBadRequest(
            text=f"expected a JSON object with index and verdict ({', '.join(verdicts)})"
        )
    return body


def _chosen(body: jsonl.Row, some: list[Any]) -> Any:
    """The answer or pair that a call speaks of."""
    index = body.get("index")
    if not isinstance(index, int) or not 0 <= index < len(some):
        raise web.HTTPBadRequest(text=f"index is {index!r}, expected 0 to {len(some) - 1}")
    return some[index]


def _edited(body: jsonl.Row) -> str:
    """The text of an edit, JSON in one line."""
    text = body.get("output")
    try:
        text = relaid(text) if isinstance(text, str) else ""
        text.encode()
    except UnicodeEncodeError:
        raise web.HTTPUnprocessableEntity(
            text="Not kept: half a character (\\ud800 to \\udfff alone)."
        ) from None
    return text


def _broken(listed: list[jsonl.Row]) -> str | None:
    """The reason why no later step could read an answer, or None."""
    return next(
        (one["reason"] for one in listed if one["name"] in BREAKING and one["passed"] is False),
        None,
    )


async def serve(made: Desk, opens: bool) -> None:
    """Serves the page on a free port of 127.0.0.1 until it is cancelled."""
    token = secrets.token_urlsafe(16)
    runner = web.AppRunner(application(made, token), access_log=None, shutdown_timeout=1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        url = f"http://127.0.0.1:{runner.addresses[0][1]}/{token}/"
        have = f"{len(made.said.verdicts):,} verdicts and {len(made.said.rankings):,} rankings"
        print(
            f"review: {len(made.answers):,} answers, {len(made.pairs):,} pairs; {made.path} has {have}"
        )
        print(f"review: open {url} (Ctrl-C ends)", flush=True)
        if opens:
            await asyncio.to_thread(webbrowser.open, url)
        await asyncio.Event().wait()
    finally:
        await runner.cleanup()


def has_display() -> bool:
    """Whether a browser can be expected to open; BROWSER=none says no."""
    browser = os.environ.get("BROWSER")
    shown = (
        sys.platform == "darwin" or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    )
    return browser != "none" and bool(browser or shown)


def who() -> str:
    """The person at the keyboard: git's user.name or, without one, the name of the account."""
    try:
        asked = subprocess.run(
            ["git", "config", "user.name"], capture_output=True, text=True, check=False
        )
        return asked.stdout.strip() or getpass.getuser()
    except OSError:
        return "unknown"


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m potstill.review.server", description="See the head of potstill/review.py."
    )
    parser.add_argument("--task", help="a folder of tasks/; the active one when left out")
    parser.add_argument(
        "--rows", type=int, default=100, help="answers in the sample, and pairs at most"
    )
    parser.add_argument("--seed", type=int, default=0, help="another seed draws other answers")
    parser.add_argument("--no-open", action="store_true", help="open no browser")
    options = parser.parse_args()
    if options.rows < 1:
        raise UserError(
            f"N is {options.rows}, expected the number of answers to review, such as N=100"
        )
    made = desk(
        settings.load(options.task or params.load("task").task), options.rows, options.seed, who()
    )
    try:
        asyncio.run(serve(made, has_display() and not options.no_open))
    except KeyboardInterrupt:
        tally = made.tally()
        agree = (
            f"; {tally['agree']:,} of {tally['known']:,} agree with the checks"
            if tally["known"]
            else ""
        )
        print(
            f"\nreview: {len(made.done):,} new; {made.path} has {tally['accept']:,} accepted, {tally['reject']:,} rejected, "
            f"{tally['edit']:,} edited, {tally['rankings']:,} rankings{agree}"
        )


if __name__ == "__main__":
    errors.run(main)
