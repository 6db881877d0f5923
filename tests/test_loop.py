"""The loop of a task in production: what is served is kept, drift sees another layout, and what the
student could not do is asked of the teacher and learnt. First without a model, then with a real
server and real trainings."""

import asyncio
import json
import random
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from starlette.types import Receive, Scope, Send

from potstill.commands import drift, harvest, trace
from potstill.core import jsonl
from potstill.evaluation import compare
from potstill.review import server
from potstill.serving import gateway, quantize
from potstill.task import settings
from stages import expand, filter, generate, split
from tasks._template import teacher
from tests.conftest import ROOT, Project, completion
from tests.test_pipeline import Checkout

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


def bills(count: int) -> list[jsonl.Row]:
    """Lines in a layout that no seed of tasks/_template has, and their fields: somebody has paid
    for somebody else. The values are those of the seeds."""
    draw = random.Random("loop")
    lines = (ROOT / "tasks/_template/data/seeds.jsonl").read_text(encoding="utf-8").splitlines()
    texts = [json.loads(line)["text"] for line in lines]
    found = []
    for _ in range(count):
        company = teacher.company(draw.choice(texts))
        date = teacher.DATE.search(draw.choice(texts))
        amount = teacher.amount(draw.choice(texts))
        who = draw.choice("王李张刘") + "".join(draw.choices("明芳磊静勇艳杰娟", k=2))
        phone = f"1{draw.randrange(10**10):010}"
        assert date
        text = f"{who}垫付：{company}（{date[0]}），共¥{amount}，电话{phone}"
        found.append(
            {
                "id": jsonl.row_id({"text": text}),
                "text": text,
                "slice": "paid_for",
                "gold": {"company": company, "date": date[0], "amount": amount},
            }
        )
    return found


@pytest.mark.slow
def test_the_loop_for_real(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next student is better on the new layout, and no worse on the old ones. No gold row is
    ever asked of the server."""
    clone = Checkout(tmp_path)
    clone.write("params.yaml", (ROOT / "params.yaml").read_bytes())
    task = ("potstill", "--task", "bills")
    assert clone.run("potstill", "new-task", "bills")[0] == 0
    home = clone.dir / "tasks/bills"
    new = bills(260)
    gold = jsonl.read_jsonl(home / "data/gold.jsonl")
    jsonl.write_jsonl(home / "data/gold.jsonl", gold + new[:60])
    text = (home / "params.yaml").read_text(encoding="utf-8")
    assert text.count("\n  capture: 0 ") == 1
    clone.write("tasks/bills/params.yaml", text.replace("  capture: 0 ", "  capture: 1 ").encode())
    clone.commit()

    def right() -> dict[str, list[bool]]:
        """Slice → whether the student has each of its gold rows right."""
        code, out = clone.run(*task, "repro")
        assert code == 0, out
        table = clone.read("tasks/bills/reports/tables/marks.csv")
        found: dict[str, list[bool]] = {}
        for row in sorted(compare.read_csv(table, "marks.csv"), key=lambda row: str(row["id"])):
            found.setdefault(str(row["slice"]), []).append(row["sft"] == "1")
        return found

    before = right()
    monkeypatch.chdir(clone.dir)
    command = [sys.executable, "-m", *task, "serve"]
    with (
        quantize.server(command, {gateway.KEY: KEY}) as url,
        ThreadPoolExecutor(4) as users,
        httpx.Client(headers={"Authorization": f"Bearer {KEY}"}, timeout=300) as client,
    ):

        def ask(row: jsonl.Row) -> int:
            asked = {"input": {"text": row["text"]}}
            return client.post(f"{url}/v1/chat/completions", json=asked).status_code

        assert set(users.map(ask, new[60:])) == {200}
    code, out = clone.run(*task, "drift")
    assert code == 1 and "drift: what is asked has changed: " in out
    # The checks see few of the new faults, and a fifth of what is taken is the control sample
    code, out = clone.run(*task, "harvest", "--rows", "1000")
    assert code == 0 and "200 rows kept" in out
    after = right()
    assert {name: len(marks) for name, marks in before.items()} == {
        "like_seeds": 60,
        "paid_for": 60,
    }
    for name, marks in before.items():
        found = compare.pair("before", "after", marks, after[name])
        print(name, sum(marks), sum(after[name]), found)
        worse = found["broken"] > found["fixed"] and found["p"] < 0.05
        assert not worse
        if name == "paid_for":
            assert found["fixed"] > found["broken"] and found["p"] < 0.05
