"""Predictions in shards, by the stage itself with a stand-in for vLLM whose answers depend on what
else is asked in the same call: so a shard that is composed otherwise shows."""

import json
import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from potstill.core import jsonl, launch, shards
from potstill.core.errors import UserError
from potstill.inference import engine, parity, sharded
from tests import fakes, remotes
from tests.conftest import ROOT, Project, install

ROWS, SHARDS = 20, 2
PARTS = Path(".cache/shards/predict-sft")
PREDICTED = Path("data/5-predictions/sft/test.jsonl")
SBATCH = """#!/bin/sh
# a cluster that has one node and does one after the other
for word; do case "$word" in
  --array=*) array=${word#*=};; --output=*) log=${word#*=};; --wrap=*) script=${word#*=};;
esac; done
echo "$@" >> submitted; env >> submitted
for number in $(echo "$array" | tr , ' '); do
  SLURM_ARRAY_TASK_ID=$number sh -c "$script" > "${log%\\%a.log}$number.log" 2>&1
done
echo Submitted batch job 1
"""
RAY = """
class exceptions:
    class RayError(Exception): pass
def init(**how): pass
def shutdown(): open("shutdown", "w")
def cluster_resources(): return {"CPU": 2.0}
def remote(**needs):
    assert needs == {"num_cpus": 1}
    return lambda task: type("Remote", (), {"remote": staticmethod(task)})
get = print
"""


@pytest.fixture
def rows(project: Project, monkeypatch: pytest.MonkeyPatch) -> list[jsonl.Row]:
    """The test rows of the toy task, which has a student and is to be predicted in shards."""
    monkeypatch.setenv("PYTHONPATH", fakes.vllm(project.dir / "fake"))
    for name in ("LAUNCHER", "WORKERS", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.delenv(name, raising=False)
    fakes.model("models/sft/merged")
    texts = [f"line {number} of text" for number in range(100, 100 + ROWS)]
    found = [
        {"id": jsonl.row_id({"text": text}), "text": text, "slice": "a", "expected": {}}
        for text in texts
    ]
    jsonl.write_jsonl("data/4-test.jsonl", found)
    project.set(predict_shards=SHARDS)
    return found


def predicted(project: Project, **env: str) -> bytes:
    """The file of predictions that the stage writes, once it has run well."""
    own = {"PYTHONPATH": os.environ["PYTHONPATH"], **env}
    code, out = project.run("stages.predict", "sft", **own)
    assert code == 0, out
    assert not PARTS.exists()
    return PREDICTED.read_bytes()


def ledger() -> list[str]:
    """The texts that were answered, each as often as it was."""
    lines = Path("ledger").read_text().splitlines()
    return sorted(line.partition("|")[2] for line in lines)


def executable(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def test_the_bytes_do_not_depend_on_who_makes_the_parts(
    rows: list[jsonl.Row], project: Project
) -> None:
    one = predicted(project, WORKERS="1")
    assert ledger() == [row["text"] for row in rows]
    two = predicted(project, CUDA_VISIBLE_DEVICES="4,7")  # a process for each GPU
    assert {line.partition("|")[0] for line in Path("ledger").read_text().splitlines()[ROWS:]} == {
        "4", "7"
    }  # fmt: skip
    executable(Path("bin/sbatch"), SBATCH)
    path = f"{Path('bin').resolve()}{os.pathsep}{os.environ['PATH']}"
    slurm = predicted(project, LAUNCHER="slurm", PATH=path, TEACHER_API_KEY="secret")
    submitted = Path("submitted").read_text()
    assert "--array=0,1 " in submitted
    assert "secret" not in submitted
    Path("fake/ray.py").write_text(RAY)
    assert one == two == slurm == predicted(project, LAUNCHER="ray")
    assert Path("shutdown").exists()
    found = project.read("5-predictions/sft/test.jsonl")
    assert [row["id"] for row in found] == [row["id"] for row in rows]
    sizes = [len(places) for places in shards.split([row["id"] for row in rows], SHARDS)]
    by = {
        place: size for size, places in zip(sizes, _places(rows), strict=True) for place in places
    }
    wanted = [f"{row['text']}|0|{by[place]}|" for place, row in enumerate(rows)]
    assert [row["answer"].rpartition("|")[0] + "|" for row in found] == wanted
    project.set(predict_shards=1)
    whole = predicted(project, WORKERS="2")
    assert f"|0|{ROWS}|0" in whole.decode()
    assert whole == predicted(project, LAUNCHER="ray")


def _places(rows: list[jsonl.Row]) -> list[list[int]]:
    return shards.split([row["id"] for row in rows], SHARDS)


@pytest.mark.parametrize("killed", ["shard", "stage"])
def test_what_was_done_before_a_kill_is_not_done_again(
    rows: list[jsonl.Row], project: Project, killed: str
) -> None:
    last = rows[_places(rows)[-1][0]]["text"]
    env = {"FAKE_VLLM_STOPS": last, "PYTHONPATH": os.environ["PYTHONPATH"]}
    if killed == "stage":
        stage = project.start("stages.predict", "sft", FAKE_VLLM_WAITS="1", **env)
        while not Path("stopped").exists() or not Path("stopped").read_text():
            assert stage.poll() is None
            time.sleep(0.05)
        stage.kill()
        stage.communicate()
        worker = Path("/proc", Path("stopped").read_text())
        for _ in range(100):  # it ends with its stage
            if not worker.exists() or "\nState:\tZ" in (worker / "status").read_text():
                break
            time.sleep(0.05)
        else:
            os.kill(int(worker.name), signal.SIGKILL)
            raise AssertionError("the shard has outlived its stage")
    else:
        code, out = project.run("stages.predict", "sft", **env)
        assert code == 1
        said = f"error: predict-sft: 1 of {SHARDS} shards failed, shard {SHARDS - 1} because: "
        assert out.splitlines()[-1].startswith(said), out
        assert "Traceback" not in out
    assert len(list(PARTS.glob("*-*.json"))) == SHARDS - 1
    done = len(ledger())
    assert 0 < done < ROWS
    found = predicted(project)
    assert ledger() == [row["text"] for row in rows]  # each once
    shutil.rmtree("data/5-predictions")
    assert found == predicted(project)
    project.set(predict_max_model_len=1024)  # other settings, other parts
    predicted(project)
    assert len(ledger()) == 3 * ROWS


@pytest.mark.parametrize(
    ("env", "said"),
    [
        ({"LAUNCHER": "slrm"}, "LAUNCHER in the environment is 'slrm', expected one of local, "),
        ({"WORKERS": "0"}, "WORKERS in the environment is '0', expected a number from 1 up"),
        ({"LAUNCHER": "slurm", "PATH": ""}, "LAUNCHER is slurm, but there is no sbatch here: "),
        ({"LAUNCHER": "ray"}, "LAUNCHER is ray, which is not installed (no ray): "),
    ],
)
def test_a_launcher_that_cannot_be_used_is_one_sentence(
    env: dict[str, str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tmp_path.joinpath("ray.py").write_text("raise ImportError('no ray')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "ray", raising=False)
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=f"^{re.escape(said)}"):
        launch.chosen()


def test_what_a_shard_says_is_what_the_stage_says(rows: list[jsonl.Row], project: Project) -> None:
    fakes.model("models/sft/merged", 512)
    code, out = project.run("stages.predict", "sft", PYTHONPATH=os.environ["PYTHONPATH"])
    assert (code, "Traceback" in out) == (1, False), out
    said = "params.yaml: predict.max_model_len is 2048, but models/sft/merged reads at most 512"
    assert f"error: predict-sft: 2 of 2 shards failed, shard 0 because: {said} tokens" in out


def test_a_cluster_that_refuses_is_quoted(rows: list[jsonl.Row], project: Project) -> None:
    executable(
        Path("bin/sbatch"), "#!/bin/sh\necho 'sbatch: error: no partition gpu' >&2\nexit 1\n"
    )
    path = f"{Path('bin').resolve()}{os.pathsep}{os.environ['PATH']}"
    own = {"PYTHONPATH": os.environ["PYTHONPATH"], "LAUNCHER": "slurm", "PATH": path}
    code, out = project.run("stages.predict", "sft", **own)
    assert code == 1
    assert "error: sbatch refused the shards: sbatch: error: no partition gpu\n" in out


@pytest.fixture
def inline(monkeypatch: pytest.MonkeyPatch) -> list[shards.Job]:
    """The jobs that are run, here in this process, and as they come back from JSON."""
    ran: list[shards.Job] = []

    def run(stage: str, jobs: list[shards.Job]) -> list[Any]:
        ran.extend(jobs)
        read = json.loads(json.dumps(jobs))
        return [sharded.WORK[job["work"]](**job["arguments"]) for job in read]

    monkeypatch.setattr(shards, "run", run)
    monkeypatch.delenv("LAUNCHER", raising=False)
    return ran


def test_each_batch_draw_grammar_and_seed_reaches_its_row(
    project: Project, inline: list[shards.Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    fakes.model("m")

    def answers(
        model: str, batches: list[Any], p: Any, revision: str, timed: Any, grammars: Any, **how: Any
    ) -> list[list[Any]]:
        if timed is not None:
            timed.append(how["seed"])
        assert (model, revision, vars(p)) == ("m", "main", {"max_tokens": 4})
        rules = [rule or [None] * len(batch) for rule, batch in zip(grammars, batches, strict=True)]
        return [
            [
                {"a": [chat, rule, draw]}
                for chat, rule in zip(batch, of, strict=True)
                for draw in "xy"
            ]
            for batch, of in zip(batches, rules, strict=True)
        ]

    monkeypatch.setattr(engine, "predict", answers)
    first, second = [f"a{i}" for i in range(9)], [f"b{i}" for i in range(7)]
    timed: list[float] = []
    given: dict[str, Any] = {"timed": timed, "grammars": [[one.upper() for one in first], None]}
    p = SimpleNamespace(max_tokens=4, shards=4)
    batches: list[Any] = [first, second]
    found = sharded.predict(
        "sample", [first, second], "m", batches, p, "main", n=2, seed=40, **given
    )
    assert found == [
        [{"a": [one, one.upper(), draw]} for one in first for draw in "xy"],
        [{"a": [one, None, draw]} for one in second for draw in "xy"],
    ]
    assert len(timed) == 1
    assert [job["arguments"]["seed"] for job in inline] == [40, 41, 42, 43]


def test_the_adapters_run_in_shards_is_in_row_order(
    project: Project, inline: list[shards.Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    fakes.model("m")
    fakes.model("adapter")

    def answers(
        model: str, revision: str, adapter: Path, chats: Any, lengths: Any, p: Any, grammars: Any
    ) -> list[Any]:
        assert (model, revision, adapter, grammars) == ("m", "main", Path("adapter"), None)
        return [{"a": pair} for pair in zip(chats, lengths, strict=True)]

    monkeypatch.setattr(parity, "with_adapter", answers)
    ids: list[Any] = [f"a{i}" for i in range(9)]
    how = ids, list(range(9)), SimpleNamespace(max_tokens=4, shards=4), None
    found = sharded.with_adapter("parity/sft", ids, ("m", "main"), Path("adapter"), *how)
    assert found == [{"a": (one, number)} for number, one in enumerate(ids)]
    assert len(inline) > 1


def test_two_who_do_one_shard_do_it_once(project: Project) -> None:
    """Such as two coordinators, or a job of a cluster that outlived its own."""
    jsonl.write_text("jobs/0.json", json.dumps({"work": "w", "arguments": {"x": 3}}))
    calls: list[int] = []

    def slow(x: int) -> int:
        time.sleep(0.2)
        calls.append(x)
        return x * 2

    both = [threading.Thread(target=shards.work, args=(Path("jobs"), 0, {"w": slow})) for _ in "ab"]
    for one in both:
        one.start()
    for one in both:
        one.join()
    assert calls == [3]
    [part] = Path("jobs").glob("0-*.json")
    assert json.loads(part.read_bytes()) == 6


def test_no_rows_are_no_shards(project: Project) -> None:
    p = SimpleNamespace(max_tokens=4, shards=4)
    assert sharded.predict("sample", [[]], "m", [[]], p) == [[]]


def test_a_row_stays_in_its_shard_whatever_others_there_are() -> None:
    ids = [f"{number:x}" for number in range(1000)]
    places = shards.split(ids, 8)
    assert sorted(place for shard in places for place in shard) == list(range(1000))
    assert min(map(len, places)) > 90
    fewer = shards.split(ids[::2], 8)
    kept = [[ids[::2][place] for place in shard] for shard in fewer]
    for before, now in zip(places, kept, strict=True):
        assert set(now) <= {ids[place] for place in before}


SLURM = """
ClusterName=loopback
SlurmctldHost={host}(127.0.0.1)
AuthInfo=socket={dir}/munge.socket,cred_expire=5
SlurmUser=root
SlurmctldPort={port}
StateSaveLocation={dir}/state
SlurmdSpoolDir={dir}/spool-%n
SlurmctldPidFile={dir}/ctld.pid
SlurmdPidFile={dir}/%n.pid
SlurmctldLogFile={dir}/ctld.log
SlurmdLogFile={dir}/%n.log
ProctrackType=proctrack/pgid
TaskPlugin=task/none
ReturnToService=2
SlurmdTimeout=5
NodeName=node[1-2] NodeHostname={host} NodeAddr=127.0.0.1 Port=[{first}-{last}] CPUs=1
PartitionName=main Nodes=ALL Default=YES
"""


@pytest.fixture
def slurm() -> Iterator[Path]:
    """The configuration of a running cluster of two nodes on this machine."""
    with running([], []) as config:
        yield config


@pytest.fixture
def apart(project: Project) -> Iterator[Path]:
    """The same, but each node sees the project's folder by a network file system, as do the
    project's own commands; this process sees the server's."""
    with ExitStack() as stack:
        machines = [stack.enter_context(remotes.machine(project.dir)) for _ in "abc"]
        project.before = machines.pop()
        yield stack.enter_context(running(*machines))


@contextmanager
def running(*machines: list[str]) -> Iterator[Path]:
    """The configuration of a running cluster, with a node on each of two machines, which are words
    that stand before a command."""
    programs = ("munged", "slurmctld", "slurmd", "sbatch")
    if not all(map(shutil.which, programs)) or os.geteuid():
        pytest.skip("needs root and Debian's slurm-wlm (docs/scale.md)")
    # Not in tmp_path: the path of a socket has 108 bytes, and a longer one holds every job for ever
    folder, port = Path(tempfile.mkdtemp(dir="/tmp")), 16800 + os.getpid() % 1000 * 4
    folder.joinpath("state").mkdir(parents=True)
    folder.joinpath("key").write_bytes(os.urandom(128))
    folder.joinpath("key").chmod(0o600)
    config = folder / "slurm.conf"
    names = {"dir": folder, "host": socket.gethostname(), "port": port}
    config.write_text(SLURM.format(**names, first=port + 1, last=port + 2))
    kept = [("key-file", "key"), ("socket", "munge.socket"), ("log-file", "munge.log")]
    kept += [("pid-file", "munge.pid"), ("seed-file", "seed")]
    env = {**os.environ, "SLURM_CONF": str(config)}
    daemons = [["munged", "--force", *(f"--{name}={folder / file}" for name, file in kept)]]
    daemons += [["slurmctld", "-c"]]
    daemons += [[*words, "slurmd", "-N", f"node{n}"] for n, words in enumerate(machines, 1)]
    try:
        for daemon in daemons:
            subprocess.run(daemon, env=env, check=True)
        yield config
    finally:
        for pid in folder.glob("*.pid"):
            os.kill(int(pid.read_text()), signal.SIGKILL)
        shutil.rmtree(folder)


@pytest.mark.slow
def test_a_real_slurm_cluster_makes_the_same_bytes(
    rows: list[jsonl.Row], project: Project, slurm: Path
) -> None:
    here = predicted(project)
    env = {"LAUNCHER": "slurm", "SLURM_CONF": str(slurm)}
    assert predicted(project, **env) == here
    assert ledger() == sorted([row["text"] for row in rows] * 2)
    shutil.rmtree("data/5-predictions")
    last = rows[_places(rows)[-1][0]]["text"]  # a task of the array is killed
    env |= {"PYTHONPATH": os.environ["PYTHONPATH"]}
    code, out = project.run("stages.predict", "sft", FAKE_VLLM_STOPS=last, **env)
    assert (code, "1 of 2 shards failed, shard 1" in out) == (1, True), out
    assert predicted(project, **env) == here
    assert ledger() == sorted([row["text"] for row in rows] * 3)

    shutil.rmtree("data/5-predictions")  # a node is lost, with the task that waits there
    Path("stopped").unlink()
    own = {"FAKE_VLLM_STOPS": last, "FAKE_VLLM_WAITS": "1"}
    stage = project.start("stages.predict", "sft", **env, **own)
    while not Path("stopped").exists() or not Path("stopped").read_text():
        assert stage.poll() is None
        time.sleep(0.1)
    shard = int(Path("stopped").read_text())
    node = re.search(rb"\0SLURMD_NODENAME=(\w+)", Path(f"/proc/{shard}/environ").read_bytes())
    assert node
    daemon = slurm.with_name(f"{node[1].decode()}.pid")
    for pid in (int(daemon.read_text()), *reversed(list(ancestors(shard)))):
        with suppress(ProcessLookupError):
            if pid == shard or b"slurm" in Path(f"/proc/{pid}/cmdline").read_bytes():
                os.kill(pid, signal.SIGKILL)
    daemon.unlink()
    out = stage.communicate()[0]
    assert stage.returncode == 0, out
    assert PREDICTED.read_bytes() == here
    assert ledger() == sorted([row["text"] for row in rows] * 4)


@pytest.mark.slow
def test_machines_that_share_a_network_file_system_make_the_same_bytes(
    rows: list[jsonl.Row], project: Project, apart: Path
) -> None:
    """Also after a shard or its coordinator was killed. The next coordinator's shard is on another
    machine than the one that is still under way, and does not see that one's lock."""
    here = predicted(project, LAUNCHER="local")
    env = {"LAUNCHER": "slurm", "SLURM_CONF": str(apart)}
    assert predicted(project, **env) == here
    assert ledger() == sorted([row["text"] for row in rows] * 2)
    own = {**env, "PYTHONPATH": os.environ["PYTHONPATH"], "FAKE_VLLM_WAITS": "1"}
    own["FAKE_VLLM_STOPS"] = rows[_places(rows)[-1][0]]["text"]
    for times, killed in enumerate(("shard", "stage"), 3):
        note = Path(killed)
        stage = project.start("stages.predict", "sft", FAKE_VLLM_NOTE=killed, **own)
        while not note.exists() or not note.read_text():
            assert stage.poll() is None
            time.sleep(0.1)
        shard = int(note.read_text())
        mounts = [Path(f"/proc/{pid}/ns/mnt").readlink() for pid in (shard, stage.pid, "self")]
        assert len(set(mounts)) == 3
        os.kill(shard if killed == "shard" else stage.pid, signal.SIGKILL)
        out = stage.communicate()[0]
        assert ("1 of 2 shards failed, shard 1" in out) == (killed == "shard"), out
        assert predicted(project, **env) == here
        assert ledger() == sorted([row["text"] for row in rows] * times)


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A cluster of Ray, with a head that does no work. Ray is no part of the environment: it is
    installed for this process and those it starts."""
    install("ray", tmp_path / "ray")
    monkeypatch.syspath_prepend(tmp_path / "ray")
    found = os.pathsep.join([os.environ.get("PYTHONPATH", str(ROOT)), str(tmp_path / "ray")])
    monkeypatch.setenv("PYTHONPATH", found)
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    monkeypatch.setenv("RAY_ADDRESS", made.address)
    monkeypatch.setenv("LAUNCHER", "ray")
    try:
        yield made
    finally:
        made.shutdown()


@pytest.mark.slow
def test_a_real_ray_cluster_makes_the_same_bytes(
    rows: list[jsonl.Row], project: Project, cluster: Any
) -> None:
    """Also after the coordinator was killed, and when a node is lost."""
    here = predicted(project, LAUNCHER="local")
    nodes = [cluster.add_node(num_cpus=1) for _ in "ab"]
    env = {"PYTHONPATH": os.environ["PYTHONPATH"]}
    assert predicted(project, **env) == here
    assert ledger() == sorted([row["text"] for row in rows] * 2)
    last = rows[_places(rows)[-1][0]]["text"]
    own = {"FAKE_VLLM_STOPS": last, "FAKE_VLLM_WAITS": "1"}

    def begun() -> tuple["subprocess.Popen[str]", int]:
        """The stage and its last shard, which waits on one of the nodes."""
        shutil.rmtree("data/5-predictions")
        stage, stopped = project.start("stages.predict", "sft", **env, **own), Path("stopped")
        while not stopped.exists() or not stopped.read_text():
            assert stage.poll() is None
            time.sleep(0.1)
        return stage, int(stopped.read_text())

    stage, shard = begun()
    stage.kill()
    stage.communicate()
    os.kill(shard, signal.SIGKILL)  # what the stage had begun is waited for
    assert predicted(project, **env) == here
    assert ledger() == sorted([row["text"] for row in rows] * 3)

    Path("stopped").unlink()
    stage, shard = begun()
    above = list(ancestors(shard))
    raylets = {node.all_processes["raylet"][0].process.pid: node for node in nodes}
    [raylet] = raylets.keys() & above
    cluster.remove_node(raylets[raylet], allow_graceful=False)
    for pid in reversed(above[: above.index(raylet)]):  # all that ran there is gone, too
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    out = stage.communicate()[0]
    assert stage.returncode == 0, out
    assert PREDICTED.read_bytes() == here
    assert ledger() == sorted([row["text"] for row in rows] * 4)


def ancestors(pid: int) -> Iterator[int]:
    """The process and those that began it."""
    while pid:
        yield pid
        pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
