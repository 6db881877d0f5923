"""The loop of a task in production, end to end but for the training: what is served is kept, drift
sees another layout, and what the student could not do is asked of the teacher and learnt."""

import asyncio
import json
import sys

import httpx
import pytest
from starlette.types import Receive, Scope, Send

from potstill.commands import drift, harvest, trace
from potstill.core import jsonl
from potstill.review import server
from potstill.serving import gateway
from potstill.task import settings
from stages import expand, filter, generate, split
from tests.conftest import Project, completion

KEY = "canary-key-5f3a-91bc"


def old(number: int) -> str:
    """A line of the layout that the student was trained on."""
    return f"line {number:03} {jsonl.row_id({'line': number})} ends in word{number:03}"


def new(number: int) -> str:
    """A line of another layout."""
    return f"#{number:03}/{jsonl.row_id({'line': number})[:9].upper()}/END OF LINE: word{number:03}"


async def student(scope: Scope, receive: Receive, send: Send) -> None:
    """A model server whose model has the old layout right, and the first word of any other one."""
    text = json.loads((await receive())["body"])["messages"][-1]["content"]
    word = text.split()[-1] if " ends in " in text else "nothing"
    said = json.dumps(completion(json.dumps({"word": word, "length": len(word)}))).encode()
    headers = [(b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": said, "more_body": False})


def serve(texts: list[str]) -> None:
    """Serves the requests, and ends as a server does."""
    app = gateway.Gateway(student)

    async def main() -> None:
        transport = httpx.ASGITransport(app)
        headers = {"Authorization": f"Bearer {KEY}"}
        async with httpx.AsyncClient(
            transport=transport, base_url="http://here", headers=headers
        ) as client:
            for text in texts:
                found = await client.post("/v1/chat/completions", json={"input": text})
                assert found.status_code == 200

    asyncio.run(main())
    app.recorder.close()


def pipeline() -> None:
    """The stages from the seeds to the training rows."""
    for stage in (expand, generate, filter, split):
        stage.main()


def test_what_is_asked_in_production_comes_back_as_training_rows(
    project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(gateway.KEY, KEY)
    monkeypatch.setattr(sys, "argv", ["potstill"])
    project.set(serve_capture=1)
    seeds = [{"text": old(number)} for number in range(0, 120, 2)]
    jsonl.write_jsonl("data/seeds.jsonl", seeds)
    pipeline()
    before = {row["id"] for row in project.read("4-train.jsonl")}

    serve([old(number) for number in range(1, 101, 2)])
    capsys.readouterr()
    drift.main()
    assert "is like what was trained on" in capsys.readouterr().out
    serve([new(number) for number in range(200)])
    with pytest.raises(SystemExit) as end:
        drift.main()
    assert end.value.code == 1
    assert "drift: what is asked has changed: " in capsys.readouterr().out

    monkeypatch.setattr(sys, "argv", ["potstill harvest", "--rows", "60"])
    harvest.main()
    out = capsys.readouterr().out
    assert "250 rows kept" in out and "  failed: grounded 200\n" in out
    assert "harvest: 60 new seeds in data/seeds.jsonl, from line 61 on." in out

    pipeline()
    answers = {row["id"]: json.loads(row["answer"]) for row in project.read("2-answers.jsonl")}
    harvested = [row for row in settings.load().seeds() if "harvested" in row]
    assert all(answers[row["id"]]["word"] == row["text"].split()[-1] for row in harvested)
    learnt = {row["id"] for row in project.read("4-train.jsonl")} - before
    hard = {row["id"] for row in harvested if row["harvested"].startswith("failed (grounded)")}
    assert len(hard) == 48 and len(learnt & hard) > 24

    story = "\n".join(trace.story(settings.load(), min(learnt & hard)))
    assert "harvested failed (grounded), 20" in story and "split     train, " in story
    first = server.desk(settings.load(), 10, 0, "me").answers
    assert {row["id"] for row in first} <= {row["id"] for row in harvested}
