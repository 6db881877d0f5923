"""`make try`: a local page on which a person asks the base, the student and the teacher the same.

An input is typed, or picked from the test rows. The base and the student answer on this machine, by
the prompts and settings of the stage `predict`. The teacher is asked when the person says so, since
that may cost: by the client, budget and journal of the stages, so that nothing is paid for twice.
An input may become a seed: a line of data/seeds.jsonl. One that is sent to review is a seed, too,
and comes first in `make review` on this machine.
"""

import asyncio
import json
import sys
import time
import traceback
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, aclosing, suppress
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from aiohttp import web

from potstill.checks import registry
from potstill.core import jsonl, params, stage
from potstill.core.errors import UserError
from potstill.core.jsonl import Row
from potstill.inference import predictions
from potstill.review import frame, seeds, sent
from potstill.review.local_model import LocalModel
from potstill.review.server import judged, passed, relaid
from potstill.serving import serve
from potstill.serving.standby import Standby, Unavailable, opened
from potstill.task import settings

PAGE = frame.files("try.html", "try.css", "try.js")
SHOWN = 500  # test rows to pick from
TEACHER = "teacher"


@dataclass
class Trial:
    """One session: the task, its test rows, the models on this machine by what the page calls them,
    and the section `teacher` of params.yaml."""

    task: settings.Task
    tests: list[Row]
    models: dict[str, LocalModel]
    teacher: SimpleNamespace
    _open: AsyncExitStack = field(default_factory=AsyncExitStack)
    _asked: Standby | None = None
    _opening: asyncio.Lock = field(default_factory=asyncio.Lock)

    def state(self) -> Row:
        """What the page is to know."""
        listed = self.task.config.get("expand", {}).get("categories", {})
        free = self.teacher.model == "scripted"
        return {
            "task": self.task.name,
            "input": self.task.config["input"],
            "categories": list(listed),
            "file": str(self.task.data / "seeds.jsonl"),
            "teacher": {"model": self.teacher.model, "free": free},
            "rows": [
                {
                    "id": row["id"],
                    "slice": row["slice"],
                    "input": {name: row[name] for name in self.task.config["input"]},
                    "expected": _pretty(row.get("expected")),
                }
                for row in self.tests[:SHOWN]
            ],
        }

    def row(self, body: Row) -> Row:
        """The input of a call, with what is expected where it is a test row's. Raises HTTPException
        when it is none."""
        given, names = body.get("input"), self.task.config["input"]
        texts = given if isinstance(given, dict) and given.keys() == set(names) else {}
        if not texts or not all(isinstance(x, str) and x.strip() for x in texts.values()):
            expected = f"expected a text that is not empty for {', '.join(names)}"
            raise web.HTTPBadRequest(text=f"The input is not the task's: {expected}.")
        input = {name: texts[name] for name in names}
        if problem := jsonl.unwritable("\n".join(input.values())):
            raise web.HTTPBadRequest(text=f"The input has {problem}.")
        row = {"id": jsonl.row_id(input), **input}
        return next((test for test in self.tests if test["id"] == row["id"]), row)

    async def answers(self, who: str, row: Row) -> AsyncGenerator[Row, None]:
        """{"text": …} as the answer grows and at its end what is known of it, or {"error": …}."""
        try:
            parts = self._teacher(row) if who == TEACHER else self._local(who, row)
            async with aclosing(parts):
                async for part in parts:
                    yield part
        except (UserError, Unavailable) as error:
            yield {"error": f"No answer: {error}."}
        except Exception as error:  # a bug, or a library's: the page goes on
            traceback.print_exc(file=sys.stderr)
            yield {"error": f"No answer: {type(error).__name__}: {error}."}

    async def _local(self, who: str, row: Row) -> AsyncGenerator[Row, None]:
        parts = self.models[who].answer(self.task, row)
        async with aclosing(parts):
            async for part in parts:
                yield part if "text" in part else self._judged(row, part, part["answer"])

    async def _teacher(self, row: Row) -> AsyncGenerator[Row, None]:
        start = time.monotonic()
        teacher = await self._connected()
        held = teacher.paid(row) is not None
        found = await teacher.answer(row)
        cost = teacher.budget.cost(
            found["prompt_tokens"] or 0,
            found["completion_tokens"] or 0,
            found.get("cached_tokens") or 0,
        )
        more = {"held": held, "cost": cost, "ms": round((time.monotonic() - start) * 1000)}
        yield self._judged(row, found | more, registry.taught(self.task, found))

    async def _connected(self) -> Standby:
        """The teacher, served and connected when it is asked for the first time."""
        async with self._opening:
            if self._asked is None:
                entering = opened(self.task, self.teacher)
                teacher = await asyncio.to_thread(entering.__enter__)
                self._open.push(entering.__exit__)
                await self._open.enter_async_context(teacher.connected())
                self._asked = teacher
        return self._asked

    def _judged(self, row: Row, answer: Row, text: str) -> Row:
        """An answer as the page shows it: the text as the checks see it, and what each says."""
        checks, reason = judged(self.task, row, text, training=False), answer["finish_reason"]
        if reason not in ("stop", None):
            checks.insert(0, {"name": "finish_reason", "passed": False, "reason": reason})
        names = "prompt_tokens completion_tokens ms held cost".split()
        view = {name: answer[name] for name in names if name in answer}
        return view | {"pretty": relaid(text, 2), "checks": checks, "passed": passed(checks)}

    def add_seed(self, row: Row, category: object) -> str:
        """Makes an input a seed, as a person would write it; returns what was done. Raises
        UserError when it is a test row, stands there already, or fits no category of task.yaml; or
        when a stage makes the file."""
        seed = {"id": row["id"], **{name: row[name] for name in self.task.config["input"]}}
        if seeds.has_categories(self.task):
            seed["category"] = category
        same = self.task.fingerprint(seed)
        if any(self.task.fingerprint(test) == same for test in [*self.tests, *self.task.gold()]):
            raise UserError("this input is a test row, which must not be learnt")

        def new(there: list[Row]) -> list[Row]:
            for number, other in enumerate(there, 1):
                if self.task.fingerprint(other) == same:
                    raise UserError(f"{path}:{number} has this input already")
            return [seed]

        path = self.task.data / "seeds.jsonl"
        line, _ = seeds.append(self.task, new)
        return f"It is line {line} of {path} now; `make repro` learns from it."

    def send(self, row: Row, category: object) -> str:
        """Puts an input first in `make review`, and makes it a seed where it is no input of the
        task yet; returns what was done. Raises UserError as `add_seed` does."""
        same = self.task.fingerprint(row)
        inputs, answers = (self.task.data / name for name in ("1-inputs.jsonl", "2-answers.jsonl"))
        there = [*(self.task.inputs(inputs, empty=True) if inputs.is_file() else [])]
        there += self.task.seeds()
        ids = [one["id"] for one in there if self.task.fingerprint(one) == same]
        said = "" if ids else self.add_seed(row, category) + " "
        id = ids[0] if ids else row["id"]
        sent.add(self.task, id)
        answered = any(one["id"] == id for one in jsonl.read_some(answers, "id"))
        when = "" if answered else ", once `make repro` has asked the teacher"
        return f"{said}`make review` shows it first{when}."

    async def close(self) -> None:
        """Lets the teacher's answers under way come in, and ends what was started."""
        await self._open.aclose()


def _pretty(expected: Any) -> str | None:
    """What is expected as an answer is shown; None where nothing is."""
    if expected is None:
        return None
    return (
        expected
        if isinstance(expected, str)
        else json.dumps(expected, ensure_ascii=False, indent=2)
    )


def application(made: Trial, token: str) -> web.Application:
    """The page and its calls, all below /<token>/."""

    async def state(request: web.Request) -> web.Response:
        return web.json_response(made.state())

    async def ask(request: web.Request) -> web.StreamResponse:
        """A line of JSON for each part of `answers`, as it comes."""
        body = await frame.body(request)
        who, row = body.get("who"), made.row(body)
        known = [*made.models, TEACHER]
        if who not in known:
            raise web.HTTPBadRequest(text=f"who is {who!r}, expected one of {', '.join(known)}")
        reply = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
        await reply.prepare(request)
        with suppress(ConnectionError):  # the page has asked something else meanwhile
            async with aclosing(made.answers(who, row)) as parts:
                async for part in parts:
                    line = json.dumps(part, ensure_ascii=False)
                    await reply.write(line.encode("utf-8", "replace") + b"\n")
            await reply.write_eof()
        return reply

    async def seed(request: web.Request) -> web.Response:
        body = await frame.body(request)
        return web.json_response({"said": made.add_seed(made.row(body), body.get("category"))})

    async def review(request: web.Request) -> web.Response:
        body = await frame.body(request)
        return web.json_response({"said": made.send(made.row(body), body.get("category"))})

    async def warm(app: web.Application) -> None:
        for model in made.models.values():  # their threads go on while the page opens
            asyncio.get_running_loop().run_in_executor(model.thread, _load, model)

    async def close(app: web.Application) -> None:
        await made.close()

    app = frame.application("try", token, PAGE, (state, ask, seed, review))
    app.on_startup.append(warm)
    app.on_cleanup.append(close)
    return app


def _load(model: LocalModel) -> None:
    """Loads a model ahead; what is wrong with it is said when it is asked."""
    with suppress(Exception):
        model.load()


def main() -> None:
    t = settings.load()
    p = params.load("model", "model_revision", "predict", "teacher")
    student = serve.student_folder(t)
    registry.validate(t)
    models = {  # the first is loaded first
        "student": LocalModel(str(student), "student", p.predict),
        "base": LocalModel(p.model, "teacher", p.predict, p.model_revision, loops=True),
    }
    made = Trial(t, predictions.tests(t), models, p.teacher)
    says = f"{student} beside {p.model} and the teacher {p.teacher.model}, {len(made.tests):,} rows"
    frame.run("try", f"{says} to pick from", lambda token: application(made, token))


if __name__ == "__main__":
    stage.run(main)
