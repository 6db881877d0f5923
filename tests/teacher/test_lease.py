"""potstill.teacher.lease: one stage at a time has shards ask by a journal."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from potstill.teacher import lease
from potstill.teacher.lease import Watch, taken

HOLDER = """
import sys, time
from pathlib import Path
from potstill.teacher.lease import taken
with taken(Path("j.jsonl"), sys.argv[1] == "ends", 0.0):
    print("has it", flush=True)
    time.sleep(60)
"""


@pytest.fixture(autouse=True)
def quick(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(lease, "BEAT", 0.02)
    monkeypatch.setattr(lease, "MORE", 0.0)
    monkeypatch.setattr(lease, "ORPHANED", 0.5)
    monkeypatch.setattr(lease, "POLL", 0.002)


JOURNAL = Path("j.jsonl")


def test_one_at_a_time_has_it_however_many_want_it() -> None:
    within, most, done = 0, 0, []

    def want(one: int) -> None:
        nonlocal within, most
        with taken(JOURNAL, True, 0.0) as run:
            holder = Watch(JOURNAL).holder()
            assert holder is not None and holder["run"] == run
            within += 1
            most = max(most, within)
            time.sleep(0.01)
            within -= 1
            done.append(one)

    threads = [threading.Thread(target=want, args=(one,)) for one in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert (sorted(done), most) == (list(range(12)), 1)
    assert Watch(JOURNAL).holder() is None
    assert len(list(Path("j.writers").iterdir())) == 1


def stopped(*watches: Watch) -> str:
    """The name of a run that is stopped, while its shards elsewhere may have requests under way."""
    with taken(JOURNAL, False, 0.3) as run:
        for _ in range(20):
            time.sleep(0.02)
            for watch in watches:
                holder = watch.holder()
                assert holder is not None and holder["run"] == run
        Path("run").write_text(run)
        raise KeyboardInterrupt


def test_signs_of_life_keep_it_and_silence_gives_it_to_the_next() -> None:
    shard, other = Watch(JOURNAL, 0.2), Watch(JOURNAL)
    with pytest.raises(KeyboardInterrupt):
        stopped(shard, other)
    first = Path("run").read_text()
    assert shard.holder() is not None and other.holder() is not None
    time.sleep(0.3)
    assert shard.holder() is None and other.holder() is not None
    start = time.monotonic()
    with taken(JOURNAL, True, 0.0) as second:
        assert time.monotonic() - start > 0.4  # nothing was heard for 0.8 s in all
        holder = shard.holder()
        assert holder is not None and holder["run"] == second != first


@pytest.mark.parametrize("ends", [True, False])
def test_it_is_free_at_once_where_the_shards_ended_with_their_stage(
    ends: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).resolve().parents[2]))
    command = [sys.executable, "-c", HOLDER, "ends" if ends else "go on"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout
        assert holder.stdout.readline() == "has it\n"
        assert Watch(JOURNAL).holder() is not None
        os.kill(holder.pid, signal.SIGKILL)
        time.sleep(0.1)
        assert (Watch(JOURNAL).holder() is None) == ends
    if ends:
        with taken(JOURNAL, True, 0.0):
            assert [path.name for path in Path("j.writers").iterdir()] == ["lease.2"]
