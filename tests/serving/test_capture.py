"""What `make serve` keeps: which share, in which files, whole or not at all, and never a key. The
middleware stands around a stand-in for vLLM's app."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from prometheus_client import REGISTRY

from potstill.core import jsonl, params
from potstill.core.errors import UserError
from potstill.serving import capture, gateway
from potstill.serving.capture import Recorder, Served
from potstill.task import settings
from tests.conftest import ROOT, Body, FakeTeacher, Project, completion
from tests.serving.test_cascade import BAD, CHAT, GOOD, KEY, LINE, Student, serving

FOLDER = Path("data/captured")


def count(name: str, **labels: str) -> float:
    """The value of one of our metrics."""
    return REGISTRY.get_sample_value(f"potstill_{name}", labels) or 0.0


@pytest.fixture(autouse=True)
def key(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(gateway.KEY, KEY)
    project.set(serve_capture=1)


def asked(app: gateway.Gateway, *bodies: Any, **more: Any) -> list[httpx.Response]:
    """The replies to some chat requests, when all that is kept of them is on disk."""

    async def main() -> list[httpx.Response]:
        headers = {"Authorization": f"Bearer {KEY}"}
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(
            transport=transport, base_url="http://here", headers=headers
        ) as client:
            return [await client.post(CHAT, json=body, **more) for body in bodies]

    found = asyncio.run(main())
    app.recorder.close()
    return found


def kept() -> list[jsonl.Row]:
    return capture.read(settings.load())


def streamed(*texts: str, end: bool = True) -> bytes:
    """vLLM's events of a stream."""
    deltas: list[Body] = [{"delta": {"role": "assistant", "content": text}} for text in texts]
    deltas += [{"delta": {}, "finish_reason": "stop"}] if end else []
    parts = [*({"choices": [delta]} for delta in deltas), {"choices": [], "usage": {}}]
    return "".join(f"data: {json.dumps(x)}\n\n" for x in parts).encode() + b"data: [DONE]\n\n"


def test_the_input_and_the_answer_are_kept_and_nothing_else(project: Project) -> None:
    bodies = [
        {"input": LINE, "user": "somebody", "metadata": {"token": KEY}},
        {"input": "another line", "n": 2},  # a question of the client's own
        {"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]},
        {"input": " "},
        {"input": "a" * (10 << 20)},
    ]
    before = count("captured_total"), count("requests_total", outcome="refused")
    found = asked(gateway.Gateway(Student(BAD)), *bodies, headers={"X-Secret": KEY})
    assert [one.status_code for one in found] == [200, 200, 200, 400, 413]
    [row] = kept()
    assert row.pop("at").startswith("20")
    row_id = jsonl.row_id({"text": LINE})
    assert row == {
        "id": row_id,
        "input": {"text": LINE},
        "answer": BAD,
        "by": "student",
        "finish_reason": "stop",
        "failed": ["grounded"],
    }
    [file] = FOLDER.iterdir()
    assert KEY not in file.read_text() and "somebody" not in file.read_text()
    assert file.stat().st_mode & 0o777 == 0o600
    after = count("captured_total"), count("requests_total", outcome="refused")
    assert (after[0] - before[0], after[1] - before[1]) == (1, 2)


def test_by_default_nothing_is_kept_and_the_checks_are_counted(project: Project) -> None:
    project.set(serve_capture=0)
    labels = {"check": "grounded", "by": "student"}
    before = count("judged_total", by="student"), count("failed_checks_total", **labels)
    asked(gateway.Gateway(Student(BAD)), {"input": LINE})
    assert not FOLDER.exists()
    after = count("judged_total", by="student"), count("failed_checks_total", **labels)
    assert [b - a for a, b in zip(before, after, strict=True)] == [1, 1]


def test_the_cascade_keeps_both_answers(
    project: Project,
    fake: FakeTeacher,
    teacher_params: SimpleNamespace,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    vars(teacher_params).update(price_in=1e6, price_out=1e6)

    async def act(client: httpx.AsyncClient) -> None:
        for stream in (False, True):
            await client.post(CHAT, json={"input": LINE, "stream": stream})

    before = count("teacher_cost_total"), count("answer_seconds_count", by="teacher")
    serving(Student(BAD), act, teacher_params, monkeypatch)  # its end writes what waits
    rows = kept()
    assert [row["by"] for row in rows] == ["teacher", "teacher"]
    for row in rows:
        assert (row["failed"], row["student"]) == (["grounded"], BAD)
        assert json.loads(row["answer"]) == json.loads(GOOD)
    assert count("teacher_cost_total") - before[0] == 10.0  # once: then the journal has it
    assert count("answer_seconds_count", by="teacher") - before[1] == 2

    async def late(client: httpx.AsyncClient) -> None:
        await client.post(CHAT, json={"input": "a second line ends in word2"})

    gone = count("teacher_unavailable_total")
    teacher_params.budget = 1e-9
    serving(Student(BAD), late, teacher_params, monkeypatch)
    assert kept()[-1]["by"] == "student" and count("teacher_unavailable_total") == gone + 1


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (json.dumps(completion(GOOD)).encode(), (GOOD, "stop")),
        (json.dumps(completion("", "length")).encode(), ("", "length")),
        (streamed('{"word": ', '"王"}'), ('{"word": "王"}', "stop")),
        (streamed("cut", end=False), None),
        (b"null", None),
    ],
)
def test_a_reply_is_read_whole_or_not_at_all(raw: bytes, said: tuple[str, str] | None) -> None:
    assert capture.reply(raw) == said


def test_the_share_is_by_the_inputs_own_hash() -> None:
    rows = [{"text": f"line {i}"} for i in range(4000)]
    tenth = [row for row in rows if capture.chosen(row, 0.1)]
    assert 320 < len(tenth) < 480
    assert tenth == [row for row in rows if capture.chosen(row, 0.1)]
    third = [row for row in rows if capture.chosen(row, 1 / 3)]
    assert all(row in third for row in tenth)
    assert not any(capture.chosen(row, 0) for row in rows)


HOOK = """
def clean(row):
    if "secret" in row["input"]["text"]:
        return None
    if "bad" in row["input"]["text"]:
        raise RuntimeError("cannot")
    if "shape" in row["input"]["text"]:
        return {**row, "more": "x"}
    if "number" in row["input"]["text"]:
        return {**row, "answer": 7}
    row["input"]["text"] = row["input"]["text"].replace("138001", "<phone>")
    return row
"""


def test_the_hook_goes_over_every_row_and_one_that_fails_keeps_nothing(
    project: Project, capfd: pytest.CaptureFixture[str]
) -> None:
    project.write("redact.py", HOOK)
    project.set(serve_redact="redact.py:clean")
    before = {why: count("dropped_total", why=why) for why in ("redacted", "redact_error")}
    texts = ("call 138001 word1", "a secret", "bad", "shape", "number")
    found = asked(gateway.Gateway(Student(GOOD)), *({"input": text} for text in texts))
    assert {one.status_code for one in found} == {200}
    [row] = kept()
    assert row["input"] == {"text": "call <phone> word1"}
    assert row["id"] == jsonl.row_id(row["input"])
    after = {why: count("dropped_total", why=why) - was for why, was in before.items()}
    assert after == {"redacted": 1, "redact_error": 3}
    assert "serve: a row is not kept (redact_error): RuntimeError: cannot" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("given", "text", "error"),
    [
        ("redact.py:clean", None, "redact.py is missing"),
        ("redact.py:clean", "x = 1", "redact.py has no function clean"),
        ("redact.py:clean", "import nothing_of_this_name", "redact.py cannot be imported: Module"),
        ("redact.clean", None, "serve.redact is .* expected FILE.py:FUNCTION"),
    ],
)
def test_a_hook_that_cannot_be_had_is_said_before_the_server_starts(
    project: Project, given: str, text: str | None, error: str
) -> None:
    if text is not None:
        project.write("redact.py", text)
    project.set(serve_redact=given)
    with pytest.raises(UserError, match=error):
        capture.check(settings.load(), params.load("serve").serve)


def recorder(project: Project, **more: float) -> Recorder:
    p = SimpleNamespace(**{"capture": 1.0, "capture_mb": 1, "redact": None, **more})
    return Recorder(settings.load(), p)


def served(text: str) -> Served:
    return Served({"text": text}, json.dumps(completion(GOOD)).encode())


def test_the_oldest_files_give_way_and_a_large_row_is_left_out(project: Project) -> None:
    made = recorder(project)
    for number in range(400):
        made._do(served(f"{number} " + "x" * 6000), True)
    sizes = [path.stat().st_size for path in FOLDER.iterdir()]
    assert len(sizes) <= capture.PARTS and 0.8 * 2**20 < sum(sizes) <= 2**20
    rows = kept()
    assert [int(row["input"]["text"].split()[0]) for row in rows] == [*range(400 - len(rows), 400)]
    before = count("dropped_total", why="large")
    made._do(served("x" * 2**17), True)
    assert count("dropped_total", why="large") == before + 1 and len(kept()) == len(rows)


def test_a_full_disk_tears_no_row_and_stops_nothing(
    project: Project, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    write, before = os.write, count("dropped_total", why="disk")
    full = False

    def half(fd: int, line: bytes) -> int:
        return write(fd, line[: len(line) // 2] if full else line)

    made = recorder(project)
    monkeypatch.setattr(os, "write", half)
    for number in range(6):
        full = 2 <= number < 4
        made._do(served(f"line {number}"), True)
    assert [row["input"]["text"] for row in kept()] == ["line 0", "line 1", "line 4", "line 5"]
    assert count("dropped_total", why="disk") == before + 2
    assert capfd.readouterr().err.count("No space left") == 1


def test_a_disk_that_really_fills_up_tears_no_row(project: Project) -> None:
    """The kernel writes what has room and refuses the rest, in a process that may write so much;
    then there is room again."""
    code = (
        "import resource, signal, types; from potstill.serving import capture; "
        "from potstill.task import settings; from tests.serving.test_capture import served\n"
        "p = types.SimpleNamespace(capture=1.0, capture_mb=64, redact=None)\n"
        "r = capture.Recorder(settings.load(), p)\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "for n in range(60):\n"
        "    most = 100_000 if n < 40 else -1\n"
        "    resource.setrlimit(resource.RLIMIT_FSIZE, (most, -1))\n"
        "    r._do(served(f'{n} ' + 'x' * 5000), True)\n"
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert done.returncode == 0 and done.stderr.count("serve: a row is not kept (disk): ") == 1
    numbers = [int(row["input"]["text"].split()[0]) for row in kept()]
    first = sum(number < 40 for number in numbers)
    assert 10 < first < 30 and numbers == [*range(first), *range(40, 60)]


def test_half_a_character_is_not_kept_and_breaks_nothing(project: Project) -> None:
    made = recorder(project)
    for text in ("\ud800", "a line"):
        made.put(served(text))
    made.close()
    assert [row["input"]["text"] for row in kept()] == ["a line"]


def test_what_comes_faster_than_it_may_be_written_is_left_out_and_counted(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(capture, "REST", 10**6)
    before, made = count("dropped_total", why="busy"), recorder(project)
    start = time.process_time()
    for number in range(2000):
        made.put(served(f"line {number}"))
    assert time.process_time() - start < 1.0  # the request path waits for nothing
    made.close()
    lost = count("dropped_total", why="busy") - before
    assert len(kept()) + lost == 2000 and lost >= 2000 - capture.QUEUE - 2


def test_a_killed_server_leaves_whole_rows_and_a_torn_one_is_left_out(project: Project) -> None:
    code = (
        "import json, types; from potstill.serving import capture; "
        "from potstill.task import settings; from tests.serving.test_capture import served\n"
        "p = types.SimpleNamespace(capture=1.0, capture_mb=64, redact=None)\n"
        "r = capture.Recorder(settings.load(), p)\n"
        "for n in range(10**9): r._do(served(f'{n} ' + 'x' * 5000), True)\n"
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen([sys.executable, "-c", code], env=env)
    deadline = time.monotonic() + 60
    while sum(path.stat().st_size for path in FOLDER.glob("*")) < 2**18:
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    numbers = [int(row["input"]["text"].split()[0]) for row in kept()]
    assert numbers == [*range(len(numbers))] and len(numbers) > 20
    last = max(FOLDER.iterdir())
    last.write_bytes(last.read_bytes() + b'{"at": "2026-')
    assert len(kept()) == len(numbers)
    last.write_bytes(b'{"at": "20\n' + last.read_bytes())
    with pytest.raises(UserError, match=r"captured/.*\.jsonl:1: not JSON"):
        kept()


def test_only_what_is_since_a_date(project: Project) -> None:
    task = settings.load()
    with pytest.raises(UserError, match="data/captured has no rows: set serve.capture"):
        capture.read(task)
    recorder(project)._do(served("a line"), True)
    assert len(capture.read(task, "2026-01-01")) == 1
    with pytest.raises(UserError, match="has no rows since 2999-01-01"):
        capture.read(task, "2999-01-01")
    with pytest.raises(UserError, match="SINCE is 'yesterday', expected a date"):
        capture.read(task, "yesterday")
    (FOLDER / "0.jsonl").write_text('{"at": "2026-11-30", "input": {"a": "x"}}\n')
    with pytest.raises(UserError, match=r"0.jsonl:1: expected what .make serve. keeps, with the"):
        capture.read(task)


def test_what_is_kept_is_said_and_a_folder_that_cannot_be_written_too(
    project: Project, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    capture.check(settings.load(), params.load("serve").serve)
    said = "serve: keeps 1 of the inputs, with their answers, as they are (serve.redact is null)"
    assert said in capsys.readouterr().out and not list(FOLDER.iterdir())
    FOLDER.rmdir()
    FOLDER.write_text("a file")
    with pytest.raises(UserError, match="data/captured cannot be written: .*: get the right"):
        capture.check(settings.load(), params.load("serve").serve)


def test_capture_takes_little_of_the_request_path(project: Project) -> None:
    """Of the thread that answers: less than 0.1 ms a request."""
    app, best = gateway.Gateway(Student(GOOD)), float("inf")
    messages: list[Body] = [
        {"type": "http.response.start", "status": 200, "headers": []},
        {"type": "http.response.body", "body": json.dumps(completion(GOOD)).encode()},
    ]

    async def send(message: Any) -> None:
        pass

    async def main() -> None:
        nonlocal best
        for _ in range(5):
            start = time.thread_time()
            for _ in range(100):
                told = app.heard({"text": LINE}, send)
                for message in messages:
                    await told(message)
            best = min(best, (time.thread_time() - start) / 100)

    asyncio.run(main())
    app.recorder.close()
    assert best < 1e-4, f"{best * 1e6:.0f} µs"
