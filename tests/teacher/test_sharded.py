"""teacher.shards: the questions of a stage asked by several processes. What was paid for is counted
by the fake teacher's own ledger."""

import asyncio
import json
import os
import re
import shutil
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from aiohttp import web

from potstill.core import jsonl, launch, shards
from potstill.core.errors import UserError
from potstill.task import settings
from potstill.teacher import asking, client, lease, shard
from potstill.teacher.journal import GROUP, Journal
from tests.conftest import KEY, Body, FakeTeacher, Project
from tests.inference.test_sharded import RAY, executable
from tests.inference.test_sharded import apart as apart
from tests.inference.test_sharded import cluster as cluster
from tests.inference.test_sharded import slurm as slurm

N, SHARDS, CONCURRENCY = 200, 2, 8
ANSWERS = Path("data/2-answers.jsonl")
SRUN = """#!/bin/sh
echo "$SLURM_PARTITION $@" >> submitted
while [ "${1#--}" != "$1" ]; do shift; done
exec "$@"
"""


class Ledger:
    """How often each row was asked, and the most requests under way; `slow` says how many seconds
    a row takes, by its number."""

    def __init__(self, fake: FakeTeacher) -> None:
        self.asked: Counter[int] = Counter()
        self.flying = self.most = 0
        self.slow: Callable[[int], float] = lambda row: 0.01
        self.keys: set[str | None] = set()
        fake.behave = self._behave

    async def _behave(self, n: int, body: Body, request: web.Request) -> None:
        row = int(body["messages"][-1]["content"].split()[1])
        self.keys.add(request.headers.get("Authorization"))
        self.asked[row] += 1
        self.flying += 1
        self.most = max(self.most, self.flying)
        try:
            await asyncio.sleep(self.slow(row))
        finally:
            self.flying -= 1

    @property
    def twice(self) -> int:
        """Requests beyond the first of a row."""
        return self.asked.total() - len(self.asked)


@pytest.fixture
def ledger(fake: FakeTeacher) -> Ledger:
    return Ledger(fake)


@pytest.fixture
def ready(project: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    for name in ("LAUNCHER", "WORKERS", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.delenv(name, raising=False)
    project.seeds(N)
    project.set(teacher_model="fake-235b", teacher_concurrency=CONCURRENCY)
    return project


def generated(project: Project, journal: str, **env: str) -> bytes:
    """The answers that the stage writes with a journal of its own."""
    code, out = project.run("stages.generate", TEACHER_JOURNAL=journal, **env)
    assert code == 0, out
    assert "Traceback" not in out
    assert not Path(".cache/shards").exists() or not list(Path(".cache/shards").iterdir())
    return ANSWERS.read_bytes()


@pytest.mark.slow
def test_the_bytes_do_not_depend_on_who_asks_and_each_question_is_paid_for_once(
    ready: Project, ledger: Ledger
) -> None:
    whole = generated(ready, "one")
    assert [path.name for path in Path("one").iterdir()] == ["toy.jsonl"]
    ready.set(teacher_shards=SHARDS)
    for name in ("srun", "sbatch"):
        executable(Path("bin", name), SRUN)
    ready.write("fake/ray.py", RAY)
    path = f"{Path('bin').resolve()}{os.pathsep}{os.environ['PATH']}"
    python = os.pathsep.join([str(Path("fake").resolve()), str(Path(__file__).parents[2])])
    runs = [{"WORKERS": "2"}, {"LAUNCHER": "slurm", "PATH": path, "SBATCH_PARTITION": "big"}]
    runs += [{"LAUNCHER": "ray", "PYTHONPATH": python}]
    for number, env in enumerate(runs, 2):
        ledger.most = 0
        assert generated(ready, f"journal-{number}", **env) == whole
        assert set(ledger.asked.values()) == {number}
        assert ledger.most <= CONCURRENCY
        assert len(list(Path(f"journal-{number}/toy.writers").glob("*.jsonl"))) == SHARDS + 1
    assert ledger.keys == {f"Bearer {KEY}"}
    assert Path("submitted").read_text().count("big --ntasks=1") == SHARDS
    files = [file for file in Path().rglob("*") if file.is_file()]
    assert not [file for file in files if KEY.encode() in file.read_bytes()]
    ready.set(teacher_shards=1)
    assert generated(ready, "journal-2") == whole
    assert set(ledger.asked.values()) == {len(runs) + 1}


@pytest.mark.slow
def test_a_real_slurm_cluster_asks_the_same(ready: Project, ledger: Ledger, slurm: Path) -> None:
    whole = generated(ready, "one")
    ready.set(teacher_shards=SHARDS)
    ledger.slow = lambda row: 0.1
    env = {"LAUNCHER": "slurm", "SLURM_CONF": str(slurm)}
    stage = ready.start("stages.generate", TEACHER_JOURNAL="two", **env)
    wait(lambda: ledger.asked.total() > N + 40, stage)
    kept = [file for file in slurm.parent.rglob("*") if file.is_file()]
    assert len(kept) > 5
    assert not [file for file in kept if KEY.encode() in file.read_bytes()]
    out = stage.communicate()[0]
    assert stage.returncode == 0, out
    assert ANSWERS.read_bytes() == whole
    assert set(ledger.asked.values()) == {2}


@pytest.mark.slow
def test_machines_that_share_a_network_file_system_ask_the_same(
    ready: Project, ledger: Ledger, apart: Path
) -> None:
    whole = generated(ready, "one", LAUNCHER="local")
    ready.set(teacher_shards=SHARDS)
    env = {"LAUNCHER": "slurm", "SLURM_CONF": str(apart)}
    assert generated(ready, "two", **env) == whole
    assert set(ledger.asked.values()) == {2}
    assert len(list(Path("two/toy.writers").glob("*.jsonl"))) == SHARDS + 1
    assert not Path("two/toy.jsonl").read_bytes()  # where locks are not seen, nobody writes there


@pytest.mark.slow
def test_a_real_ray_cluster_asks_the_same(ready: Project, ledger: Ledger, cluster: Any) -> None:
    whole = generated(ready, "one", LAUNCHER="local")
    ready.set(teacher_shards=SHARDS)
    for _ in "ab":
        cluster.add_node(num_cpus=1)
    assert generated(ready, "two", PYTHONPATH=os.environ["PYTHONPATH"]) == whole
    assert set(ledger.asked.values()) == {2}
    assert ledger.keys == {f"Bearer {KEY}"}


def wait(until: Callable[[], bool], *stages: "subprocess.Popen[str]") -> None:
    for _ in range(1200):
        if until():
            return
        assert all(stage.poll() is None for stage in stages)
        time.sleep(0.05)
    raise AssertionError("it took too long")


def workers(stage: "subprocess.Popen[str]") -> list[int]:
    """The processes of a stage's shards."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(path.read_text().rpartition(")")[2].split()[1])
            words = path.with_name("cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if parent == stage.pid and b"shard" in words:
            found.append(int(path.parent.name))
    return sorted(found)


@pytest.mark.slow
@pytest.mark.parametrize("killed", ["shard", "stage"])
def test_a_kill_buys_again_at_most_what_was_under_way(
    ready: Project, ledger: Ledger, killed: str
) -> None:
    ready.set(teacher_shards=SHARDS)
    ledger.slow = lambda row: 0.1
    stage = ready.start("stages.generate", WORKERS="2")
    wait(lambda: ledger.asked.total() > 80 and len(workers(stage)) == 2, stage)
    [first, second] = workers(stage)
    os.kill(first if killed == "shard" else stage.pid, signal.SIGKILL)
    out = stage.communicate()[0]
    if killed == "shard":
        assert stage.returncode == 1
        said = r"error: teacher: 1 of 2 shards failed, shard \d because: .*the same command "
        assert re.match(said, out.splitlines()[-1]), out
        assert "Traceback" not in out
    else:  # with its shards
        wait(lambda: not any(map(lease._born, (first, second))))
    assert not ANSWERS.exists()
    start = time.monotonic()
    code, out = ready.run("stages.generate", WORKERS="2")
    assert code == 0, out
    assert time.monotonic() - start < 30  # nobody waits for a lease of the dead
    found = ready.read("2-answers.jsonl")
    assert {row["error"] for row in found} == {None} and len(found) == N
    assert len(ledger.asked) == N
    assert ledger.twice <= (1 if killed == "shard" else 2) * (CONCURRENCY // 2 + 2 * GROUP)


@pytest.mark.slow
def test_a_stop_lets_what_is_under_way_come_in(ready: Project, ledger: Ledger) -> None:
    ready.set(teacher_shards=SHARDS)
    ledger.slow = lambda row: 0.3
    stage = ready.start("stages.generate", WORKERS="2")
    wait(lambda: ledger.asked.total() > 40 and len(workers(stage)) == 2, stage)
    stage.send_signal(signal.SIGINT)
    out = stage.communicate()[0]
    assert (stage.returncode, "Traceback" in out) == (130, False), out
    assert ledger.asked.total() < N
    ledger.slow = lambda row: 0.0
    assert ready.run("stages.generate")[0] == 0
    assert (len(ledger.asked), ledger.twice) == (N, 0)


@pytest.mark.slow
def test_a_straggler_is_waited_for_and_two_stages_at_once_pay_for_nothing_twice(
    ready: Project, ledger: Ledger, tmp_path: Path
) -> None:
    """Two checkouts whose journal is one folder: the second waits for the first."""
    other = Project(tmp_path / "other")
    other.seeds(N)
    for project in (ready, other):
        project.set(teacher_model="fake-235b", teacher_shards=SHARDS)
    ledger.slow = lambda row: 2.0 if row % 50 == 7 else 0.01
    shared = {"TEACHER_JOURNAL": str(tmp_path / "shared"), "WORKERS": "2"}
    both = [project.start("stages.generate", **shared) for project in (ready, other)]
    said = [stage.communicate(timeout=120)[0] for stage in both]
    assert [stage.returncode for stage in both] == [0, 0], said
    assert (len(ledger.asked), ledger.twice) == (N, 0)
    assert sum("waits for the shards of process" in out for out in said) == 1
    assert ANSWERS.read_bytes() == (other.dir / ANSWERS).read_bytes()


def ask(params: SimpleNamespace, count: int) -> list[jsonl.Row]:
    rows = [{"id": f"r{i}", "text": f"line {i} ends in word{i}"} for i in range(count)]
    return list(asking.answer_rows(settings.load(), rows, params, 1))


@pytest.fixture
def inline(monkeypatch: pytest.MonkeyPatch) -> list[jsonl.Row]:
    """The jobs of the shards, which are run here, one after the other, as they come from JSON."""
    ran: list[jsonl.Row] = []

    def run(stage: str, jobs: list[jsonl.Row], asks: bool) -> list[jsonl.Row]:
        ran.extend(job["arguments"] for job in jobs)
        return [json.loads(json.dumps(shard.ask(**json.loads(json.dumps(job))))) for job in ran]

    monkeypatch.setattr(shards, "run", run)
    return ran


def test_the_budget_is_shared_out_and_never_overrun(
    ready: Project, ledger: Ledger, teacher_params: SimpleNamespace, inline: list[jsonl.Row]
) -> None:
    """An answer costs 1.6e-4 (7 x 10 + 3 x 30 millionths) and may cost 7.9e-4."""
    price, most, p = 1.6e-4, 7.9e-4, teacher_params
    p.price_in, p.price_out, p.max_tokens, p.shards, p.budget = 10, 30, 16, SHARDS, 0.02
    used = r"^teacher.budget 0.02 is used up: 0.019\d* spent, and the next req.*goes on from there$"
    with pytest.raises(UserError, match=used):
        ask(p, N)
    parts = [job["params"]["budget"] for job in inline]
    assert sum(parts) == pytest.approx(0.02 - 16 * price) and min(parts) > 0.004
    bought = ledger.asked.total()
    assert 0.02 - most <= bought * price <= 0.02
    again = inline[0]  # as a cluster does: it has spent its part already
    part = Journal(Path(again["journal"]), own=True, part=f"-{again['run']}-asked-0")
    assert again["params"]["budget"] - most < part.mine.answers * price <= again["params"]["budget"]
    inline.clear()
    p.budget = N * price + most
    found = ask(p, N)
    assert {row["error"] for row in found} == {None}
    assert (len(ledger.asked), ledger.twice) == (N, 0)
    assert sum(job["count"] for job in inline) == N - bought


def test_limits_are_divided_and_every_kind_of_question_is_asked_as_it_is_directly(
    ready: Project,
    fake: FakeTeacher,
    teacher_params: SimpleNamespace,
    inline: list[jsonl.Row],
    capfd: pytest.CaptureFixture[str],
) -> None:
    ready.write("prompts/other.md", "Another question.\n")
    teacher_params.rpm, teacher_params.tpm = 60_000.0, 60_000_000
    rows = [{"id": f"r{i}", "text": f"word{i % 80}", "draw": i // 80} for i in range(160)]

    async def refuse(n: int, body: Body, request: web.Request) -> web.Response | None:
        if "word33" not in body["messages"][-1]["content"]:
            return None
        return web.json_response({"error": {"message": "content policy"}}, status=403)

    fake.behave = refuse

    def asked() -> list[jsonl.Row]:
        how = settings.load(), rows, teacher_params, 2
        return list(asking.answer_rows(*how, kind="other", schema={"type": "object"}))

    whole = asked()
    bodies = sorted(json.dumps(body, sort_keys=True) for body in fake.calls)
    assert len(bodies) == 240 and inline == []  # draws 0 and 1, 1 and 2
    fake.calls.clear()
    shutil.rmtree(".cache/teacher")
    capfd.readouterr()
    teacher_params.shards = 3
    assert asked() == whole
    assert sorted(json.dumps(body, sort_keys=True) for body in fake.calls) == bodies
    assert sum(row["error"] is not None for row in whole) == 4
    own = [(job["params"]["concurrency"], job["params"]["rpm"]) for job in inline]
    assert own == [(16, 60_000.0)] * 3  # one after the other: WORKERS is not set
    said = capfd.readouterr().err
    assert "80 answers from the journal, 237 new in 240 requests (0 retries), 1,659 + 711" in said


def test_whoever_asks_directly_leaves_a_budget_alone_that_is_lent(
    ready: Project, ledger: Ledger, teacher_params: SimpleNamespace
) -> None:
    teacher_params.price_in = teacher_params.price_out = 1.0
    with lease.taken(Path(".cache/teacher/toy.jsonl"), True, 0.0):
        assert len(ask(teacher_params, 3)) == 3
        teacher_params.budget = 1.0
        with pytest.raises(UserError, match=r"^teacher.budget is lent to the shards of process"):
            ask(teacher_params, 6)
    assert len(ask(teacher_params, 6)) == 6
    assert (len(ledger.asked), ledger.twice) == (6, 0)


def test_a_shard_whose_stage_has_gone_sends_nothing_more(
    ready: Project, ledger: Ledger, teacher_params: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "BEAT", 0.02)
    monkeypatch.setattr(lease, "ORPHANED", 0.3)
    monkeypatch.setattr(lease, "MORE", 0.0)
    monkeypatch.setattr(lease, "POLL", 0.02)
    monkeypatch.setattr(launch, "is_here", lambda: False)  # its shards go on without it
    teacher_params.timeout = 1
    teacher_params.shards, ledger.slow = SHARDS, lambda row: 0.1
    jobs: list[jsonl.Row] = []
    said: list[str] = []

    def work() -> None:
        try:
            shard.ask(**jobs[0])
        except UserError as error:
            said.append(str(error))

    thread = threading.Thread(target=work)

    def run(stage: str, found: list[jsonl.Row], asks: bool) -> list[jsonl.Row]:
        jobs.extend(job["arguments"] for job in found)
        thread.start()
        wait(lambda: ledger.asked.total() > 20)
        raise KeyboardInterrupt

    monkeypatch.setattr(shards, "run", run)
    monkeypatch.setattr(client.Client, "_signals", lambda self: nullcontext())  # in a thread
    with pytest.raises(KeyboardInterrupt):
        ask(teacher_params, N)
    thread.join(20)
    [why] = said  # after a while
    assert why.startswith(shard.LEFT)
    asked = ledger.asked.total()
    assert 20 < asked < 16 + jobs[0]["count"]
    with pytest.raises(UserError, match=shard.LEFT):  # it asks for nothing
        shard.ask(**jobs[1])
    assert ledger.asked.total() == asked
    assert len(Journal(Path(jobs[0]["journal"]))) == asked  # what was under way came in
    monkeypatch.setattr(launch, "at_once", lambda count: 17)
    with pytest.raises(UserError, match="teacher.concurrency is 16, but 17 shards ask at once"):
        ask(teacher_params, N)
