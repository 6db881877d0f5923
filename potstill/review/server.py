"""`make review`: a local page on which a person judges and ranks the teacher's answers.

--rows N   answers in the sample, and pairs at most; 100 when left out
--seed N   another seed draws other answers

Verdicts go to data/own/reviews.jsonl, each on disk before the page goes on. The page is for one
person on this machine, and no other page may call it (frame.py).
"""

import argparse
import getpass
import hashlib
import json
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from aiohttp import web

from potstill.checks import registry
from potstill.core import jsonl, project, stage
from potstill.core.errors import UserError
from potstill.core.jsonl import Row
from potstill.dataset import reviews
from potstill.review import frame, sent
from potstill.task import settings

PAGE = frame.files("review.html", "review.js")
# A failure of these cannot be overruled: no later step could read the answer.
BREAKING = ("json", "text", "json_schema")
ABOUT = ("category", "family", "harvested")
FIELDS = ("id", "sample", "model", "answer", "finish_reason", "completion_tokens", "error")
BROKEN = {
    "accept": "No later step can read this answer ({}): edit or reject it.",
    "edit": "Not kept, no later step could read it: {}.",
}
Place = tuple[str, int]  # "row" or "pair", and its index


@dataclass
class Desk:
    """One session: the sampled answers, the pairs to rank, and the verdicts. Other windows of the
    page, other sessions and git write to the same file meanwhile."""

    task: settings.Task
    path: Path  # of the verdicts
    said: reviews.Reviews
    inputs: dict[str, Row]
    answers: list[Row]
    by: str  # the person's name
    pairs: list[tuple[Row, Row]] = field(default_factory=list)
    done: dict[str, list[tuple[bytes, Place]]] = field(default_factory=dict)  # lines, by window

    def keep(self, body: Row, place: Place, row: Row) -> None:
        """Puts a verdict of the window that sent `body` on disk. Raises UserError when the one that
        counts is no more what that window shows, or else what this session read last."""
        seen = body.get("seen", reviews.mark(self.said.last(row)))
        row = {**row, "by": self.by, "at": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"}
        line = reviews.append(self.path, row, seen)
        self.done.setdefault(str(body.get("window")), []).append((line, place))
        self.said = reviews.load(self.path)

    def undo(self, window: str) -> Place | None:
        """Takes back the window's last verdict and returns its place; None when there is none.
        Raises UserError when it is not in the file any more."""
        if not (done := self.done.get(window)):
            return None
        line, place = done.pop()
        found = reviews.take_back(self.path, line)
        self.said = reviews.load(self.path)
        if not found:
            gone = f"your last verdict is not in {self.path} any more"
            raise UserError(f"{gone}: somebody removed it")
        return place

    def judge(self, answer: Row, text: str) -> list[Row]:
        """Each check's verdict on `text` as an answer to the input of `answer`."""
        own = text == answer["answer"]
        text = registry.taught(self.task, answer) if own else text
        checks = judged(self.task, self.inputs[answer["id"]], text, training=True)
        reason = answer["finish_reason"]
        if own and not registry.parse(self.task, text)[1] and reason not in ("stop", None):
            checks.insert(0, {"name": "finish_reason", "passed": False, "reason": reason})
        return checks

    def view(self, answer: Row) -> Row:
        """An answer as the page shows it."""
        text, checks = answer["answer"], self.judge(answer, answer["answer"])
        said = self.said.verdict(answer["id"], text)
        view = self._input(answer["id"])
        view["about"] |= {name: answer[name] for name in ("sample", "model", "completion_tokens")}
        return view | {
            "answer": text,
            "pretty": relaid(text, 2),
            "checks": checks,
            "passed": passed(checks),
            "mark": reviews.mark(said),
            "said": said and {**said, "pretty": relaid(str(said.get("output", text)), 2)},
        }

    def compare(self, pair: tuple[Row, Row]) -> Row:
        """Two answers to one input as the page shows them: without checks, which would sway."""
        texts = [answer["answer"] for answer in pair]
        id, hashes = pair[0]["id"], [reviews.answer_hash(text) for text in texts]
        last = self.said.last({"id": id, "answers": hashes})
        view = {"mark": reviews.mark(last), "said": self.said.ranking(id, *texts)}
        return self._input(id) | {"pretty": [relaid(x, 2) for x in texts]} | view

    def _input(self, id: str) -> Row:
        row = self.inputs[id]
        return {
            "id": id,
            "input": {name: row[name] for name in self.task.config["input"]},
            "about": {name: row[name] for name in ABOUT if name in row},
            "prompt": self.task.messages("teacher", row),
        }

    def tally(self) -> dict[str, int]:
        """The number of verdicts in the file, of each kind, of those whose checks are known, and of
        those that agree with the checks: an edit says that the answer failed."""
        rows = list(self.said.verdicts.values())
        known = [row for row in rows if isinstance(row.get("checks"), bool)]
        return {
            "verdicts": len(rows),
            **{kind: sum(row["verdict"] == kind for row in rows) for kind in reviews.VERDICTS},
            "known": len(known),
            "agree": sum(row["checks"] == (row["verdict"] == "accept") for row in known),
            "rankings": len(self.said.rankings),
        }


def judged(task: settings.Task, row: Row, text: str, training: bool) -> list[Row]:
    """Each check's verdict on `text` as an answer to `row`, as the page shows it; one for all where
    the text cannot be parsed."""
    if reason := registry.parse(task, text)[1]:  # then all fail, for this one reason
        return [{"name": reason.split(":")[0], "passed": False, "reason": reason}]
    listed = zip(registry.verdicts(task, row, text, training), task.config["checks"], strict=True)
    return [
        {
            "name": one.name,
            "options": options(entry, training),
            "passed": one.passed,
            "reason": one.reason,
        }
        for one, entry in listed
    ]


def passed(checks: list[Row]) -> bool:
    """Whether no check failed."""
    return all(check["passed"] is not False for check in checks)


def options(entry: str | Row, training: bool) -> str:
    """The options of a check as task.yaml lists it, where so asked those for `training` rows:
    `field: title, words: ["new"]`."""
    given = dict(next(iter(entry.values()))) if isinstance(entry, dict) else {}
    train = given.pop("train", {})
    given |= train if training else {}
    return ", ".join(
        f"{name}: {value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)}"
        for name, value in given.items()
    )


def relaid(text: str, indent: int | None = None) -> str:
    """JSON in one line or, with an `indent`, a value a line; a text that is no object or list of
    JSON as it is."""
    try:
        parsed = json.loads(text)
    except (ValueError, RecursionError):
        return text
    is_nested = isinstance(parsed, dict | list)
    return json.dumps(parsed, ensure_ascii=False, indent=indent) if is_nested else text


def order(seed: int, *what: str) -> bytes:
    """A sort key that shuffles by `seed`: the same in every run, whatever else is sorted."""
    return hashlib.sha256("\x1f".join((str(seed), *what)).encode()).digest()


def desk(t: settings.Task, count: int, seed: int, by: str) -> Desk:
    """A sample of `count` answers drawn by `seed`, and of as many pairs of answers to one input.
    First come those that `make try` has sent and nobody judged, then harvested inputs. Raises
    UserError when an answer's input is missing, or when there is no answer."""
    path, source = t.data / "1-inputs.jsonl", t.data / "2-answers.jsonl"
    rows = t.inputs(path) if path.is_file() else t.seeds()
    inputs = {row["id"]: row for row in rows}
    answers: dict[str, dict[str, Row]] = {}  # by id and hash; of equal texts the first
    for number, answer in enumerate(jsonl.read_jsonl(source, FIELDS), 1):
        id, text = answer["id"], answer["answer"]
        if id not in inputs:
            remedy = "run `dvc repro filter`"
            raise UserError(f"{source}:{number}: id {id} is none of the inputs': {remedy}")
        if not answer["error"]:
            answers.setdefault(id, {}).setdefault(reviews.answer_hash(text), answer)
    if not answers:
        raise UserError(f"{source}: the teacher refused every input: there is nothing to review")
    path = t.data / reviews.FILE
    said, first = reviews.load(path), sent.ids(t)
    keys = [(id, hash) for id, texts in answers.items() for hash in texts]
    # what was asked in production comes first (`make harvest`), but for what a person sent
    keys.sort(
        key=lambda key: (
            key[0] not in first or key in said.verdicts,
            "harvested" not in inputs[key[0]],
            order(seed, *key),
        )
    )
    sample = [answers[id][hash] for id, hash in keys[:count]]
    made = Desk(t, path, said, inputs, sample, by)
    several = [id for id, texts in answers.items() if len(texts) > 1]
    several.sort(key=lambda id: order(seed, id))
    made.pairs = [pair(made, answers[id], seed) for id in several[:count]]
    return made


def pair(made: Desk, answers: dict[str, Row], seed: int) -> tuple[Row, Row]:
    """Two of the answers to one input, by hash: two that pass the checks where there are. The seed
    decides which is on the left."""
    good = {hash: passed(made.judge(one, one["answer"])) for hash, one in answers.items()}
    two = sorted(answers, key=lambda hash: (not good[hash], order(seed, hash)))[:2]
    two.sort(key=lambda hash: order(seed, "side", answers[hash]["id"], hash))
    return answers[two[0]], answers[two[1]]


def application(made: Desk, token: str) -> web.Application:
    """The page and its five calls, all below /<token>/; a refusal is one sentence."""

    async def state(request: web.Request) -> web.Response:
        made.said = reviews.load(made.path)  # git may have changed the file
        rows, pairs = [*map(made.view, made.answers)], [*map(made.compare, made.pairs)]
        head = {"task": made.task.name, "file": str(made.path), "tally": made.tally()}
        return web.json_response({**head, "rows": rows, "pairs": pairs})

    async def check(request: web.Request) -> web.Response:
        body, answer = await _call(request, made.answers)
        checks = made.judge(answer, _edited(body))
        return web.json_response({"checks": checks, "passed": passed(checks)})

    async def verdict(request: web.Request) -> web.Response:
        body, answer = await _call(request, made.answers, reviews.VERDICTS)
        text, kind, edited = answer["answer"], body["verdict"], _edited(body)
        if kind == "edit" and edited == relaid(text):
            kind = "accept"  # the edit changes nothing
        row = {"id": answer["id"], "answer": reviews.answer_hash(text), "verdict": kind}
        if kind == "edit":
            row["output"] = edited
        reason = _broken(made.judge(answer, row.get("output", text)))
        if reason and kind in BROKEN:
            raise web.HTTPUnprocessableEntity(text=BROKEN[kind].format(reason))
        place, checks = ("row", body["index"]), made.judge(answer, text)
        made.keep(body, place, {**row, "checks": passed(checks)})
        return said(place)

    async def rank(request: web.Request) -> web.Response:
        body, pair = await _call(request, made.pairs, reviews.RANKS)
        answers = [reviews.answer_hash(answer["answer"]) for answer in pair]
        place = ("pair", body["index"])
        row = {"id": pair[0]["id"], "answers": answers, "verdict": body["verdict"]}
        made.keep(body, place, row)
        return said(place)

    async def undo(request: web.Request) -> web.Response:
        body = await frame.body(request)
        if place := made.undo(str(body.get("window"))):
            return said(place)
        message = "Nothing to take back: undo reaches back to what you said in this window."
        raise web.HTTPConflict(text=message)

    def said(place: Place) -> web.Response:
        kind, i = place
        view = made.view(made.answers[i]) if kind == "row" else made.compare(made.pairs[i])
        told = {name: view[name] for name in ("said", "mark")}
        return web.json_response({kind: i, **told, "tally": made.tally()})

    return frame.application("review", token, PAGE, (state, check, verdict, rank, undo))


async def _call(
    request: web.Request, rows: list[Any], verdicts: Iterable[str] = ()
) -> tuple[Row, Any]:
    """The JSON object of a call, its verdict one of `verdicts` where there are any, and the one of
    `rows` that its index names."""
    body = await frame.body(request)
    if verdicts and str(body.get("verdict")) not in verdicts:
        message = f"expected a JSON object with index and verdict ({', '.join(verdicts)})"
        raise web.HTTPBadRequest(text=message)
    index = body.get("index")
    if not isinstance(index, int) or not 0 <= index < len(rows):
        raise web.HTTPBadRequest(text=f"index is {index!r}, expected 0 to {len(rows) - 1}")
    return body, rows[index]


def _edited(body: Row) -> str:
    """The text of an edit, JSON in one line."""
    text = body.get("output")
    return relaid(text) if isinstance(text, str) else ""


def _broken(checks: list[Row]) -> str | None:
    """The reason why no later step could read an answer, or None."""
    failed = (one for one in checks if one["name"] in BREAKING and one["passed"] is False)
    return next((check["reason"] for check in failed), None)


def who() -> str:
    """The name of the person at the keyboard: git's user.name or, without one, the account's."""
    name = ""
    with suppress(UserError, OSError):
        name = project.git("config", "user.name")
    return name or getpass.getuser()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if options.rows < 1:
        expected = "the number of answers to review, such as N=100"
        raise UserError(f"N is {options.rows}, expected {expected}")
    made = desk(settings.load(), options.rows, options.seed, who())
    counts = f"{len(made.answers):,} answers, {len(made.pairs):,} pairs"
    have = f"{len(made.said.verdicts):,} verdicts and {len(made.said.rankings):,} rankings"
    says = f"{counts}; {made.path} has {have}"
    frame.run("review", says, lambda token: application(made, token))
    tally = made.tally()
    have = "{accept:,} accepted, {reject:,} rejected, {edit:,} edited, {rankings:,} rankings"
    have += "; {agree:,} of {known:,} agree with the checks" if tally["known"] else ""
    new = sum(map(len, made.done.values()))
    print(f"\nreview: {new:,} new; {made.path} has {have.format(**tally)}")


if __name__ == "__main__":
    stage.run(main)
