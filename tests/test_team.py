"""Experiments, sharing and integrity under the real DVC: a small project whose training takes no
time (tests/clone.py), with a teacher whose ledger says what it was asked. What is shared goes
through a folder, a real sshd and an S3-compatible server, all on loopback."""

import asyncio
import json
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from potstill.core import lockfile
from tests import fakes, remotes
from tests.clone import Clone
from tests.conftest import ROOT, FakeTeacher, serving

pytestmark = pytest.mark.slow
METRICS = "reports/metrics.json"


@pytest.fixture(scope="module")
def teacher() -> Iterator[FakeTeacher]:
    with serving() as found:
        yield found


@pytest.fixture(scope="module")
def done(teacher: FakeTeacher, tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """The project after `dvc repro` of two tasks, toy at the root, and a commit."""
    clone = Clone.make(tmp_path_factory.mktemp("done") / "first")
    clone.env |= teacher.env()
    clone.set(teacher_model="fake-235b")
    clone.add_task("other")
    clone.do("dvc", "repro")
    clone.task("other").do("dvc", "repro")
    assert len(teacher.calls) >= 120
    clone.commit()
    return clone


@pytest.fixture
def mine(done: Clone, teacher: FakeTeacher, tmp_path: Path) -> Iterator[Clone]:
    """A copy of it for one test, which must not ask the teacher anything."""
    before = len(teacher.calls)
    yield done.twin(tmp_path / "mine")
    assert len(teacher.calls) == before


def result(clone: Clone) -> tuple[str, object]:
    """What an experiment must have made: its metrics, and the student's hash."""
    return (clone.dir / METRICS).read_text(), clone.lock()["sft"]["outs"]


def test_every_way_to_run_an_experiment_gives_the_same(
    mine: Clone, done: Clone, tmp_path: Path
) -> None:
    mine.make_target("exp", "S=lora_rank=16")
    direct = result(mine)
    assert json.loads(direct[0])["sft"]["accuracy"] == 0.56
    assert mine.trainings() == ["16"]
    mine.do("dvc", "exp", "run", "--temp", "--name", "again", "-S", "lora_rank=16")
    assert mine.trainings() == ["16"]  # from the run-cache
    for place, way in enumerate((["--temp", "--name", "other"], ["--queue", "--name", "other"])):
        other = done.twin(tmp_path / str(place) / "twin")
        other.do("dvc", "exp", "run", *way, "-S", "lora_rank=16")
        if "--queue" in way:
            other.do("dvc", "exp", "run", "--run-all", "--jobs", "1")
        other.do("dvc", "exp", "apply", "other")
        assert result(other) == direct
        assert other.trainings() == ["16"]


def test_a_sweep_is_compared(mine: Clone) -> None:
    mine.make_target("sweep", "S=lora_rank=8,30,60")
    assert sorted(mine.trainings()) == ["30", "60", "8"]
    out = mine.make_target("compare")
    lines = [line for line in out.splitlines() if "lora_rank=" in line]
    assert [line.rpartition("=")[2] for line in lines] == ["60", "30", "8"]  # the best first
    assert ["within the noise" in line for line in lines] == [False, True, False]
    assert "better: 28 rows fixed, 0 broken" in lines[0]
    assert "worse: 0 rows fixed, 24 broken" in lines[2]
    assert "last commit" in out


@pytest.fixture
def sshd(tmp_path: Path) -> Iterator[tuple[int, Path]]:
    with remotes.sshd(tmp_path) as found:
        yield found


@pytest.fixture
def s3() -> Iterator[str]:
    with remotes.s3() as found:
        yield found


def remote(
    clone: Clone, kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> list[tuple[str, ...]]:
    """Sets a remote `box` of the kind in .dvc/config; gives what .dvc/config.local of each clone
    needs beside it."""
    if kind == "folder":
        clone.do("dvc", "remote", "add", "-d", "box", str(tmp_path / "box"))
        return []
    if kind == "ssh":
        port, key = request.getfixturevalue("sshd")
        url = f"ssh://{remotes.user()}@127.0.0.1:{port}{tmp_path}/box"
        clone.do("dvc", "remote", "add", "-d", "box", url)
        return [("keyfile", str(key)), ("allow_agent", "false")]
    clone.env |= remotes.AWS
    clone.do("dvc", "remote", "add", "-d", "box", "s3://box/potstill")
    clone.do("dvc", "remote", "modify", "box", "endpointurl", request.getfixturevalue("s3"))
    return []


def set_local(clone: Clone, options: list[tuple[str, ...]]) -> None:
    for name, value in options:
        clone.do("dvc", "remote", "modify", "--local", "box", name, value)


@pytest.mark.parametrize("kind", ["folder", "ssh", "s3"])
def test_a_colleague_who_pulls_runs_nothing_again(
    kind: str, mine: Clone, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    local = remote(mine, kind, tmp_path, request)
    set_local(mine, local)
    mine.commit()
    mine.make_target("exp", "S=lora_rank=16")
    [name] = mine.do("dvc", "exp", "list", "--name-only").split()
    mine.git("checkout", "-q", "--", ".")
    mine.do("dvc", "checkout", "--quiet", "--force")
    out = mine.make_target("share")
    assert "share: toy: " in out and "share: other: " in out
    mine.git("remote", "add", "origin", str(mine.dir))  # where experiments' commits go
    clone = mine.clone("colleague")
    set_local(clone, local)
    mine.make_target("share", f"EXP={name}")
    trained = mine.trainings()
    assert "error: expand: dvc.lock has its result, which was paid for" in clone.fail(
        "dvc", "repro"
    )
    clone.git("checkout", "-q", "--", ".")
    out = clone.make_target("pull")
    assert "data/2-answers.jsonl: 60 answers, 60 of them new" in out
    assert out.count("data/2-answers.jsonl: 60 answers, ") == 2
    assert "all 6 stages are up to date" in clone.make_target("check")
    assert "is as it was made" in clone.make_target("verify")
    assert "Running stage" not in clone.do("dvc", "repro")
    assert (clone.dir / METRICS).read_bytes() == (mine.dir / METRICS).read_bytes()
    clone.make_target("pull", f"EXP={name}")
    clone.do("dvc", "exp", "apply", name)
    assert "lora_rank: 16" in (clone.dir / "params.yaml").read_text()
    assert "Running stage" not in clone.do("dvc", "repro")
    clone.git("checkout", "-q", "--", ".")
    clone.make_target("exp", "S=lora_rank=16")  # the run-cache came along, too
    assert clone.trainings() == trained
    shutil.rmtree(clone.dir / ".cache/teacher")
    assert "up to date" in clone.do("dvc", "repro", "generate")
    clone.do("dvc", "repro", "--force", "--single-item", "filter")


def test_two_clones_share_at_once(mine: Clone, tmp_path: Path) -> None:
    mine.do("dvc", "remote", "add", "-d", "box", str(tmp_path / "box"))
    mine.commit()
    subprocess.run(
        ["git", "clone", "-q", "--bare", mine.dir, tmp_path / "hub.git"], env=mine.env, check=True
    )
    mine.make_target("share")
    pair = [mine.clone(name) for name in ("one", "two")]
    for clone in pair:
        clone.git("remote", "set-url", "origin", str(tmp_path / "hub.git"))
        clone.make_target("pull")
    ranks = (8, 24)
    runs = [
        clone.start("dvc", "exp", "run", "--name", f"rank-{rank}", "-S", f"lora_rank={rank}")
        for clone, rank in zip(pair, ranks, strict=True)
    ]
    assert [run.communicate(timeout=600)[1] or run.returncode for run in runs] == [0, 0]
    runs = [
        clone.start("potstill", "share", f"rank-{rank}")
        for clone, rank in zip(pair, ranks, strict=True)
    ]
    said = [run.communicate(timeout=600)[0] for run in runs]
    assert [run.returncode for run in runs] == [0, 0], said
    third = mine.clone("three")
    third.git("remote", "set-url", "origin", str(tmp_path / "hub.git"))
    for clone, rank in zip(pair, ranks, strict=True):
        third.make_target("pull", f"EXP=rank-{rank}")
        third.git("checkout", "-q", "--", ".")
        third.do("dvc", "exp", "apply", f"rank-{rank}")
        assert result(third) == result(clone)


def test_what_was_never_shared_is_named(mine: Clone, tmp_path: Path) -> None:
    assert "no remote specified" in mine.fail("potstill", "share")
    mine.do("dvc", "remote", "add", "-d", "box", str(tmp_path / "box"))
    mine.commit()
    clone = mine.clone("early")
    out = clone.do("potstill", "pull")
    assert "pull: toy, other: nobody has shared them, `make repro TASK=NAME` makes them" in out
    mine.make_target("share")
    student = mine.lock()["sft"]["outs"][0]["md5"]  # type: ignore[index]
    sums = dict(lockfile.objects(mine.dir / ".dvc/cache/files/md5", student))
    damage(
        next(
            (tmp_path / "box/files/md5").glob(
                f"{sums['model.safetensors'][:2]}/{sums['model.safetensors'][2:]}"
            )
        )
    )
    out = clone.fail("potstill", "pull")
    assert "error: toy: 1 of " in out and "objects are damaged in the remote" in out
    assert "pull: other: " in out  # what is whole is fetched all the same


def damage(path: Path) -> None:
    """Flips a byte in the middle of a file, which may be read-only."""
    mode = path.stat().st_mode
    path.chmod(0o644)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))
    path.chmod(mode)


# Fault 16
def test_a_flipped_byte_in_the_cache_is_named_and_nothing_is_made_of_it(mine: Clone) -> None:
    md5 = mine.lock()["sft"]["outs"][0]["md5"]  # type: ignore[index]
    cache = mine.dir / ".dvc/cache/files/md5"
    sum = dict(lockfile.objects(cache, md5))["model.safetensors"]
    damage(cache / sum[:2] / sum[2:])
    shutil.rmtree(mine.dir / "models/student")
    mine.do("dvc", "checkout", "models/student")  # exit code 0
    out = mine.fail("potstill", "verify")
    assert f".dvc/cache/files/md5/{sum[:2]}/{sum[2:]}: damaged" in out
    assert "it is models/student/model.safetensors" in out
    damaged = f".dvc/cache/files/md5/{sum[:2]}/{sum[2:]} models/student/model.safetensors"
    assert f"mend it: rm -rf {damaged} && make pull" in out
    out = mine.fail("dvc", "repro", "--force", "--single-item", "score")
    assert "error: models/student: not as sft made it" in out
    shutil.rmtree(mine.dir / "models/student")
    (cache / sum[:2] / sum[2:]).unlink()
    mine.do("dvc", "repro")
    assert "is as it was made" in mine.do("potstill", "verify")


# Fault 14
def test_a_truncated_lock_is_named(mine: Clone) -> None:
    path = mine.dir / "dvc.lock"
    whole = path.read_bytes()
    for size in (len(whole) // 2, len(whole) // 3, whole.index(b"  score:")):
        path.write_bytes(whole[:size])
        said = mine.fail("potstill", "check")
        assert re.search(r"^error: dvc\.lock(:\d+)?: ", said, re.M), said
        assert "Traceback" not in said
        out = mine.fail("potstill", "verify")
        assert "mend it: `git checkout dvc.lock`, then `make repro TASK=toy`" in out
        mine.git("checkout", "-q", "dvc.lock")
        assert "Running stage" not in mine.do("dvc", "repro")


def test_a_full_disk_while_dvc_commits(tmp_path: Path) -> None:
    with serving() as teacher:
        clone = Clone.make(tmp_path / "full")
        clone.env |= teacher.env()
        clone.set(teacher_model="fake-235b")
        cache = clone.dir / ".dvc/cache"
        cache.mkdir(exist_ok=True)
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=48k", "tmpfs", cache], capture_output=True
        )
        if mounted.returncode:
            pytest.skip(f"no right to mount a small disk: {mounted.stderr.decode().strip()}")
        try:
            out = clone.fail("dvc", "repro", "filter")
            assert "No space left on device" in out
            asked = len(teacher.calls)
            assert asked == 60
            subprocess.run(["mount", "-o", "remount,size=10m", cache], check=True)
            clone.do("dvc", "repro")
            assert len(teacher.calls) == asked
            for line in clone.fail("potstill", "verify").splitlines()[:-1]:
                what, _, half = line.partition("mend it: rm ")
                if half:
                    (clone.dir / half).unlink()
                else:
                    assert what.endswith("half an object, left by a killed `dvc` or a full disk")
            assert "is as it was made" in clone.do("potstill", "verify")
        finally:
            subprocess.run(["umount", cache], check=True)


def held(clone: Clone, stage: str) -> Path:
    """Waits until a stage runs; gives its lock."""
    path, deadline = clone.dir / ".cache/stages" / stage, time.monotonic() + 120
    while not path.exists() or not path.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return path


# Fault 11
def test_a_stage_that_outlives_dvc_is_not_started_twice(tmp_path: Path) -> None:
    with serving() as teacher:
        clone = Clone.make(tmp_path / "killed")
        clone.env |= teacher.env()
        clone.set(teacher_model="fake-235b", teacher_concurrency=1)

        async def slowly(call: int, *_: object) -> None:
            await asyncio.sleep(0.2)

        teacher.behave = slowly
        first = clone.start("dvc", "repro")
        lock = held(clone, "generate")
        while len(teacher.calls) < 5:
            time.sleep(0.05)
        pid = int(lock.read_text().split()[1].rstrip(","))
        first.send_signal(signal.SIGKILL)  # dvc alone
        first.wait()
        out = clone.fail("dvc", "repro")
        who, remedy = lock.read_text().strip(), "wait for its end, or end it, then run this again"
        assert [line for line in out.splitlines() if line.startswith("error: ")] == [
            f"error: generate runs here already ({who}): {remedy}"
        ]
        assert "stage generate is running" in clone.fail("potstill", "verify")
        while Path(f"/proc/{pid}").exists():
            time.sleep(0.1)
        clone.do("dvc", "repro")
        assert len(teacher.calls) == 60


# Fault 12
def test_two_runs_at_once(mine: Clone) -> None:
    first = mine.start("dvc", "repro", "--force", "--single-item", "sft", SLOW="20")
    held(mine, "sft")
    out = mine.fail("dvc", "repro", "--force", "--single-item", "sft")
    assert f"PID {first.pid}" in out
    assert out.count("ERROR") == 1
    assert first.wait(120) == 0
    assert mine.trainings() == ["32"]


def test_a_killed_experiment_leaves_a_detached_head_that_is_named(mine: Clone) -> None:
    run = mine.start("dvc", "exp", "run", "-S", "lora_rank=16", SLOW="1")
    held(mine, "sft")
    run.send_signal(signal.SIGKILL)
    run.wait()
    while "stage sft is running" in (out := mine.fail("potstill", "verify")):
        time.sleep(1)
    assert "HEAD is detached: a `dvc exp run` was killed" in out
    assert "mend it: git checkout -; " in out
    mine.git("checkout", "-q", "-")
    assert mine.git("rev-parse", "--abbrev-ref", "HEAD") == "main"
    mine.git("checkout", "-q", "--", ".")
    mine.do("dvc", "repro")
    assert "is as it was made" in mine.do("potstill", "verify")


def test_a_release_is_found_by_its_version(mine: Clone, tmp_path: Path) -> None:
    (fakes.model(mine.dir / "models/tiny-base") / "README.md").write_text(
        "---\nlicense: apache-2.0\n---\n"
    )
    mine.do("dvc", "remote", "add", "-d", "box", str(tmp_path / "box"))
    mine.commit()
    assert "expected one such as v1.0.0" in mine.fail("potstill", "release", "1.0")
    mine.make_target("release", "VERSION=v1.0.0")
    assert mine.git("tag") == "student@v1.0.0"
    mine.make_target("share")
    assert "there is a tag student@v1.0.0 already" in mine.fail("potstill", "release", "v1.0.0")
    mine.do(
        "dvc",
        "artifacts",
        "get",
        str(mine.dir),
        "student",
        "--rev",
        "v1.0.0",
        "-o",
        str(tmp_path / "got"),
    )
    assert {path.name for path in (tmp_path / "got").iterdir()} == {
        "README.md",
        "config.json",
        "model.safetensors",
    }
    card = (tmp_path / "got/README.md").read_text()
    assert card.startswith("---\n") and "\nlicense: apache-2.0\n" in card.partition("\n---\n")[0]
    for said in (
        "| sft | short | 100, all | 72.0% | 62.5% to 79.9% |",
        "You find the last word.",
        "lora_rank: 32",
        "models/student",
    ):
        assert said in card
    assert "is as it was made" in mine.do("potstill", "verify")
    (mine.dir / "release/README.md").unlink()
    assert "release: not as it was made" in mine.fail("potstill", "verify")
    damage(mine.dir / "models/student/model.safetensors")
    assert "sft: models/student modified" in mine.fail("potstill", "release", "v1.0.1")
    (mine.dir / "models/student/modeling.py").write_text("")
    assert "modeling.py: .py may run code" in mine.fail("potstill", "release", "v1.0.1")


# Case 43
@pytest.mark.parametrize("hook", ["pre-commit", "commit-msg", "reference-transaction"])
def test_a_release_that_git_stops_leaves_nothing_and_is_made_by_a_retry(
    mine: Clone, hook: str
) -> None:
    """The last of the hooks lets the commit pass and refuses the tag."""
    mine.do("dvc", "remote", "add", "-d", "box", str(mine.dir.parent / "box"))
    mine.commit()
    mine.make_target("release", "VERSION=v1.0.0")
    card = (mine.dir / "release/README.md").read_text()
    before = mine.git("rev-parse", "HEAD"), mine.git("status", "--porcelain")
    path = mine.write(f".git/hooks/{hook}", "#!/bin/sh\n! grep -q refs/tags || exit 1\n")
    if hook != "reference-transaction":
        path.write_text("#!/bin/sh\necho no release on a Friday >&2\nexit 1\n")
    path.chmod(0o755)
    out = mine.fail("potstill", "release", "v1.0.1")
    assert "no release on a Friday" in out or hook == "reference-transaction"
    assert out.rstrip().endswith(": nothing is released, all is as before")
    assert (mine.git("rev-parse", "HEAD"), mine.git("status", "--porcelain")) == before
    assert mine.git("tag") == "student@v1.0.0"
    assert (mine.dir / "release/README.md").read_text() == card
    path.unlink()
    mine.make_target("release", "VERSION=v1.0.1")
    assert mine.git("tag").split() == ["student@v1.0.0", "student@v1.0.1"]


def test_a_first_release_that_is_stopped_leaves_nothing(mine: Clone) -> None:
    other = mine.task("other")
    before = mine.git("rev-parse", "HEAD"), mine.git("status", "--porcelain", "--ignored")
    mine.git("config", "user.useConfigOnly", "true")
    whose = [f"GIT_{who}_{what}" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")]
    other.env = {name: value for name, value in other.env.items() if name not in whose}
    out = other.fail("potstill", "release", "v1.0.0")
    assert out.startswith("error: git does not know who commits the release: `git config user.name")
    other.env = mine.env | {"PYTHONPATH": str(mine.dir)}
    path = mine.write(".git/hooks/pre-commit", "#!/bin/sh\nexit 1\n")
    path.chmod(0o755)
    assert "all is as before" in other.fail("potstill", "release", "v1.0.0")
    assert (mine.git("rev-parse", "HEAD"), mine.git("status", "--porcelain", "--ignored")) == before
    path.unlink()
    other.do("potstill", "release", "v1.0.0")
    assert mine.git("tag") == "tasks=other=student@v1.0.0"


def test_share_speaks_for_itself(mine: Clone, tmp_path: Path) -> None:
    mine.do("dvc", "remote", "add", "-d", "box", str(tmp_path / "box"))
    assert "nosuch" in mine.fail("potstill", "share", "nosuch")


def files(clone: Clone, folder: str) -> set[str]:
    """The files under a folder that DVC made, by path."""
    paths = (path for path in (clone.dir / folder).rglob("*") if path.is_file())
    return {str(path.relative_to(clone.dir)) for path in paths}


WALK = """
git clone -q hub.git first
cd first
make repro TASK=other
dvc remote add -d box ../box
git add -A && git commit -qm "a remote, and a run"
make share
git push -q
git clone -q ../hub.git ../second
cd ../second
make pull
make check TASK=other
make repro TASK=other
"""


def test_from_a_fresh_clone_to_a_colleague_in_twelve_lines(tmp_path: Path) -> None:
    """No task of the repository has run before, and `other` asks the scripted teacher."""
    start = Clone.make(tmp_path / "start")
    start.add_task("other")
    start.commit()
    start.git("clone", "-q", "--bare", ".", "../hub.git")
    lines = WALK.strip().splitlines()
    own = f'make() {{ command make -s -o .venv/ready PY={sys.executable} "$@"; }}'
    script = "\n".join([own, "set -e", *(f"echo '$ {line}'\n{line}" for line in lines)])
    done = subprocess.run(
        ["bash", "-c", script], cwd=tmp_path, env=start.env, capture_output=True, text=True
    )
    assert (done.returncode, len(lines)) == (0, 12), done.stdout + done.stderr
    said = done.stdout.partition("$ dvc remote add -d box ../box\n")[2].splitlines()
    said = [line for line in said if not line.startswith("$ ")]
    assert len(said) <= 20, said  # the table of the result is a good half of it
    assert re.fullmatch(r"share: other: (\d+) objects, \1 of them new", said[1])
    assert said[2] == "share: toy: not run here, nothing to send"
    assert re.fullmatch(r"pull: other: (\d+) objects, \1 of them new", said[3])
    assert said[4] == "pull: toy: nobody has shared it, `make repro TASK=toy` makes it"
    assert "check: other: all 6 stages are up to date" in said
    assert said[-1].startswith("time: ") and "; nothing was to do; " in said[-1]


# Case 30
def test_a_fresh_clone_in_which_one_task_was_run_is_shared(mine: Clone, tmp_path: Path) -> None:
    clone = mine.clone("fresh")
    shutil.copytree(mine.dir / ".cache/teacher", clone.dir / ".cache/teacher")
    clone.task("other").do("dvc", "repro")
    clone.do("dvc", "remote", "add", "-d", "box", str(tmp_path / "box"))
    out = clone.make_target("share")
    assert "share: toy: not run here, nothing to send" in out
    assert re.search(r"share: other: (\d+) objects, \1 of them new", out)
    clone.commit()
    third = clone.clone("third")
    out = third.make_target("pull")
    assert "pull: toy: nobody has shared it, `make repro TASK=toy` makes it" in out
    assert re.search(r"pull: other: (\d+) objects, \1 of them new", out)
    assert "all 6 stages are up to date" in third.make_target("check", "TASK=other")
    assert "is as it was made" in third.make_target("verify")
    assert "Running stage" not in third.task("other").do("dvc", "repro")
    # A part that is missing is an error, of the one task.
    student = lockfile.md5(third.dir / "tasks/other/models/student").removesuffix(".dir")
    (tmp_path / f"box/files/md5/{student[:2]}/{student[2:]}.dir").unlink()
    fourth = clone.clone("fourth")
    assert "error: other: 1 of " in fourth.fail("potstill", "pull")


# Case 32
def test_two_terminals_run_two_tasks_side_by_side(mine: Clone) -> None:
    other = mine.task("other")
    for clone in (mine, other):
        clone.set(lora_rank=16)
    runs = [clone.start("dvc", "repro", SLOW="5") for clone in (mine, other)]
    texts = [run.communicate(timeout=600)[0] for run in runs]
    assert [run.returncode for run in runs] == [0, 0], texts
    assert mine.trainings() == ["16", "16"]
    for clone in (mine, other):
        assert clone.lock()["sft"]["params"] == {"params.yaml": {"lora_rank": 16}}
        assert "Running stage" not in clone.do("dvc", "repro")


# Case 35
def test_an_experiment_leaves_the_other_task_alone(mine: Clone) -> None:
    before = files(mine, "tasks/other")
    mine.make_target("exp", "S=lora_rank=16")
    assert files(mine, "tasks/other") == before
    [name] = mine.do("dvc", "exp", "list", "--name-only").split()
    mine.git("checkout", "-q", "--", ".")
    mine.do("dvc", "exp", "apply", name)
    mine.do("dvc", "checkout")
    assert files(mine, "tasks/other") == before
    mine.task("other").do("dvc", "exp", "run", "-S", "lora_rank=8")
    assert files(mine, "tasks/other") == before
    assert '"accuracy": 0.48' in (mine.dir / "tasks/other" / METRICS).read_text()
    assert '"accuracy": 0.56' in (mine.dir / METRICS).read_text()


# Case 36
def test_garbage_collection_keeps_every_task(mine: Clone) -> None:
    mine.do("dvc", "gc", "--workspace", "--force")
    for home in (mine, mine.task("other")):
        shutil.rmtree(home.dir / "models/student")
        home.do("dvc", "checkout")
        assert (home.dir / "models/student/config.json").is_file()
    assert "is as it was made" in mine.do("potstill", "verify")


# Case 37
def test_two_colleagues_with_a_task_each_merge_without_a_conflict(mine: Clone) -> None:
    for branch, clone in (("one", mine), ("two", mine.task("other"))):
        mine.git("checkout", "-q", "-b", branch, "main")
        mine.do("dvc", "checkout", "--quiet", "--force")
        clone.set(lora_rank=16)
        clone.do("dvc", "repro")
        mine.commit()
    mine.git("merge", "-q", "--no-edit", "one")
    mine.do("dvc", "checkout", "--quiet", "--force")
    for clone in (mine, mine.task("other")):
        assert "Running stage" not in clone.do("dvc", "repro")
        assert clone.lock()["sft"]["params"] == {"params.yaml": {"lora_rank": 16}}


# Case 44
def test_a_task_whose_folder_is_removed_is_gone(mine: Clone) -> None:
    mine.git("rm", "-rq", "tasks/other")
    mine.git("commit", "-qm", "no other task")
    shutil.rmtree(mine.dir / "tasks/other", ignore_errors=True)
    assert "check: toy: all 6 stages are up to date" in mine.make_target("check")
    assert "is as it was made" in mine.make_target("verify")
    assert "expected one of toy" in mine.fail("potstill", "--task", "other", "check")
    assert "Running stage" not in mine.do("dvc", "repro")


# Case 48
def test_the_files_of_any_task_are_got_and_imported(mine: Clone, tmp_path: Path) -> None:
    for home, name in ((mine, "toy"), (mine.task("other"), "other")):
        path = str((home.dir / "models/student").relative_to(mine.dir))
        mine.do("dvc", "get", str(mine.dir), path, "-o", str(tmp_path / name))
        assert (tmp_path / name / "config.json").read_text() == "{}"
    mine.do("dvc", "import", str(mine.dir), "tasks/other/models/student", "-o", "imported")
    assert (mine.dir / "imported/config.json").is_file()


EDITS = {
    "a parameter": ("params.yaml", "lora_rank: 4", "lora_rank: 5"),
    "the code": ("stages/sft.py", "import time", "import time "),
    "the rows": ("data/4-train.jsonl", '"', " "),
}


@pytest.mark.parametrize("kind", EDITS)
def test_what_is_edited_while_a_stage_runs_is_not_recorded_as_read(mine: Clone, kind: str) -> None:
    path, before, after = EDITS[kind]
    mine.set(lora_rank=4)
    run = mine.start("dvc", "repro", "sft", SLOW="4")
    deadline = time.monotonic() + 60
    while not (mine.dir / ".cache/stages/sft").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    time.sleep(1.5)  # it has read them
    file = mine.dir / path
    original = file.read_text()
    assert before in original
    file.unlink()  # may be a link into DVC's cache
    file.write_text(original.replace(before, after, 1))
    out = run.communicate(timeout=60)[0]
    assert run.returncode, out
    assert "the result is not recorded, since it was not made from this" in out
    assert "lora_rank: 5" not in (mine.dir / "dvc.lock").read_text()
    file.write_text(original)
    mine.do("dvc", "repro", "sft")
    assert "lora_rank: 4" in (mine.dir / "dvc.lock").read_text()
    assert mine.trainings()[-2:] == ["4", "4"]


def test_git_s_line_ends_change_nothing(mine: Clone, tmp_path: Path) -> None:
    mine.write(".gitattributes", (ROOT / ".gitattributes").read_text())
    mine.commit()
    mine.git("clone", "-q", "-c", "core.autocrlf=true", str(mine.dir), str(tmp_path / "crlf"))
    other = Clone(tmp_path / "crlf", tmp_path)
    assert b"\r" not in (other.dir / "params.yaml").read_bytes()
    assert "up to date" in other.make_target("check")
