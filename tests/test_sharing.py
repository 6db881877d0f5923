"""Sharing from any state: what `make share`, `make pull` and `make check` say of a task that is
here, in the remote, here or there in part, or that never ran; in fresh, shallow, detached and
merged clones; by a folder, a real sshd and an S3-compatible server.

The tasks have two stages that take no time, and the commands run in this process, each with the
exit code and the output that it has by itself: the whole table in a minute.
"""

import contextlib
import io
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import potstill.__main__
import potstill.commands.ready
import potstill.commands.share
import potstill.commands.verify
from potstill.core import lockfile
from potstill.core import project as core_project
from tests import remotes
from tests.conftest import ROOT, Project

pytestmark = pytest.mark.slow
PIPELINE = """
stages:
  cut:
    cmd: mkdir data/1-cut && head -2 data/seeds.jsonl >data/1-cut/a && cp schema.json data/1-cut/b
    deps: [data/seeds.jsonl, schema.json]
    outs: [data/1-cut]
  train:
    cmd: mkdir models && cat data/1-cut/* > models/student
    deps: [data/1-cut]
    params: [lora_rank]
    outs: [models/student]
"""


class Place:
    """A folder of clones and remotes, and a repository with two tasks, `toy` at the root and
    `other`: main merges the branches `one`, where toy ran, and `two`, where other did."""

    def __init__(self, folder: Path) -> None:
        from dvc.repo import Repo

        self.dir, self.first = folder, folder / "first"
        project = Project(self.first)
        shutil.copytree(ROOT / ".dvc", self.first / ".dvc", ignore=shutil.ignore_patterns("cache"))
        shutil.rmtree(self.first / ".dvc/tmp", ignore_errors=True)
        (self.first / ".dvc/config.local").unlink(missing_ok=True)
        project.write(".gitignore", "/data/1-cut\n/models\n/tasks/*/data/1-cut\n/tasks/*/models\n")
        project.write("dvc.yaml", PIPELINE)
        project.seeds(3)
        for name in ("task.yaml", "params.yaml", "dvc.yaml", "schema.json", "data/seeds.jsonl"):
            text = (self.first / name).read_text()
            project.write(f"tasks/other/{name}", text.replace("toy", "other").replace("word", "x"))
        git(self.first, "init", "-q", "-b", "main")
        git(self.first, "add", "-A")
        git(self.first, "commit", "-qm", "start")
        git(self.first, "branch", "side")
        for branch, home in (("one", self.first), ("two", self.first / "tasks/other")):
            git(self.first, "checkout", "-q", "-b", branch, "main")
            with contextlib.chdir(home), Repo() as repo:
                repo.reproduce()
            git(self.first, "add", "-A")
            git(self.first, "commit", "-qm", branch)
        git(self.first, "checkout", "-q", "main")
        git(self.first, "merge", "-q", "--no-ff", "--no-edit", "one", "two")

        self.cache = self.first / ".dvc/cache/files/md5"

    def clone(self, name: str, kind: str, ran: bool, config: str) -> Path:
        """A clone of a kind in which nothing is fetched yet, with this .dvc/config.local. toy has
        run in it, and where it `ran` other, too."""
        folder, branch = self.dir / name, "main" if ran else "one"
        if kind == "merged":
            git(self.dir, "clone", "-q", "-b", "one", str(self.first), name)
            git(folder, "merge", "-q", "--no-ff", "--no-edit", f"origin/{'two' if ran else 'side'}")
        else:
            depth = ["--depth", "1"] if kind == "shallow" else []
            git(self.dir, "clone", "-q", *depth, "-b", branch, f"file://{self.first}", name)
        if kind == "detached":
            git(folder, "checkout", "-q", "--detach")
        (folder / ".dvc/config.local").write_text(config)
        return folder

    def objects(self, task: str, amount: str) -> list[str]:
        """The names of a task's objects: all, none, or a part, without a file of a folder."""
        with contextlib.chdir(self.first / task):
            made = [
                sum for entry in lockfile.read().values() for sum in lockfile.made(entry).values()
            ]
        parts = [sum for each in made for _, sum in lockfile.objects(self.cache, each)]
        found = list(dict.fromkeys(parts + made))
        return {"all": found, "part": found[1:], "none": []}[amount]

    def copy(self, names: list[str], folder: Path) -> None:
        """Copies objects into the cache or remote of a folder."""
        for name in names:
            target = folder / "files/md5" / name[:2] / name[2:]
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(self.cache / name[:2] / name[2:], target)


def git(folder: Path, *command: str) -> None:
    subprocess.run(["git", *command], cwd=folder, check=True)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("sharing")
    who = [f"GIT_{who}_{what}" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")]
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith(("DVC_", "GIT_"))]:
            patch.delenv(name)
        for name, value in {**dict.fromkeys(who, "t@example.org"), **remotes.AWS}.items():
            patch.setenv(name, value)
        patch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
        patch.setenv("HOME", str(folder))
        patch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
        for name in ("GLOBAL_CONFIG_DIR", "SYSTEM_CONFIG_DIR", "SITE_CACHE_DIR"):
            patch.setenv(f"DVC_{name}", str(folder / name))
        patch.setenv("POTSTILL_START", "")
        patch.setenv("PYTHONPATH", str(ROOT))
        yield Place(folder)


@pytest.fixture(scope="module")
def servers(place: Place) -> Iterator[dict[str, str]]:
    """The lines of .dvc/config.local by kind of remote, with BOX for the name of its folder."""
    with remotes.sshd(place.dir) as (port, key), remotes.s3() as s3:
        config = {
            "folder": f"url = {place.dir}/BOX\n",
            "ssh": f"url = ssh://{remotes.user()}@127.0.0.1:{port}{place.dir}/BOX\n"
            f"keyfile = {key}\nallow_agent = false\n",
            "s3": f"url = s3://box/BOX\nendpointurl = {s3}\n",
        }
        yield {
            kind: f"[core]\nremote = box\n['remote \"box\"']\n{text}"
            for kind, text in config.items()
        }


def say(folder: Path, *words: str) -> tuple[int, list[str]]:
    """Exit code and output of `python -m potstill …` in a clone."""
    out, code = io.StringIO(), 0
    with pytest.MonkeyPatch.context() as patch, contextlib.chdir(folder):
        for module in (potstill.__main__, core_project):
            patch.setattr(module, "ROOT", folder)
        patch.setattr(sys, "argv", ["potstill", *words])
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
            try:
                potstill.__main__.main()
            except SystemExit as end:
                code = 1 if isinstance(end.code, str) else int(end.code or 0)
                print(end.code)
    return code, out.getvalue().strip().splitlines()


# What of `other` is here, and what in the remote; None where it has not run. Then the exit code and
# last line of `make share` here, of a colleague's `make pull`, and of `make check` there.
SENT, GOT = "share: other: 4 objects, {} of them new", "pull: other: 4 objects, 4 of them new"
IDLE = "share: other: not run here, nothing to send"
NOBODY = "pull: other: nobody has shared it, `make repro TASK=other` makes it"
PART = "error: other: 1 of 4 objects are missing, such as tasks/other/data/1-cut/a: {}"
VERIFY = PART.format("`make verify` says which and what mends it")
SHARE = PART.format("whoever made them runs `make share`")
UP_TO_DATE = "check: other: all 2 stages are up to date"
RUN = "error: dvc.lock: 2 stages of task other would run, see above: `make repro TASK=other`, then "
RUN += "commit dvc.lock and reports"
Said = tuple[int, str]
TABLE: dict[str, tuple[tuple[str, str] | None, Said, Said, Said]] = {
    "here": (("all", "none"), (0, SENT.format(4)), (0, GOT), (0, UP_TO_DATE)),
    "in the remote": (("none", "all"), (0, IDLE), (0, GOT), (0, UP_TO_DATE)),
    "here in part": (("part", "none"), (1, VERIFY), (1, SHARE), (0, UP_TO_DATE)),
    "in the remote in part": (("none", "part"), (0, IDLE), (1, SHARE), (0, UP_TO_DATE)),
    "here, and there in part": (("all", "part"), (0, SENT.format(1)), (0, GOT), (0, UP_TO_DATE)),
    "nowhere": (("none", "none"), (0, IDLE), (0, NOBODY), (0, UP_TO_DATE)),
    "never run": (None, (0, IDLE), (0, NOBODY), (1, RUN)),
}


@pytest.mark.parametrize("clone", ["fresh", "shallow", "detached", "merged"])
@pytest.mark.parametrize("state", TABLE)
@pytest.mark.parametrize("remote", ["folder", "ssh", "s3"])
def test_what_is_said_of_each_state(
    place: Place, servers: dict[str, str], remote: str, state: str, clone: str
) -> None:
    amounts, *expected = TABLE[state]
    name = "-".join(f"{remote} {state} {clone}".replace(",", "").split())
    config = servers[remote].replace("BOX", box := f"{name}-box")
    here = place.clone(name, clone, amounts is not None, config)
    place.copy(place.objects("", "all"), here / ".dvc/cache")
    if amounts:
        place.copy(place.objects("tasks/other", amounts[0]), here / ".dvc/cache")
        place.copy(place.objects("tasks/other", amounts[1]), place.dir / box)
    if remote == "s3":
        url = config.rpartition(" = ")[2].strip()
        for path in (path for path in (place.dir / box).rglob("*") if path.is_file()):
            remotes.put(f"{url}/box/{path.relative_to(place.dir)}", path.read_bytes())
    there = place.clone(f"{name}-colleague", clone, amounts is not None, config)
    said = [say(here, "share"), say(there, "pull"), say(there, "--task", "other", "check")]
    assert [(code, lines[-1]) for code, lines in said] == expected, said


def state(place: Place, servers: dict[str, str], name: str, here: str, there: str) -> Path:
    """A clone with so much of both tasks here, and there in a folder `NAME-box`."""
    clone = place.clone(name, "fresh", True, servers["folder"].replace("BOX", f"{name}-box"))
    for task in ("", "tasks/other"):
        place.copy(place.objects(task, here), clone / ".dvc/cache")
        place.copy(place.objects(task, there), place.dir / f"{name}-box")
    return clone


@pytest.mark.parametrize("cut", [0, 40], ids=["empty", "torn"])
def test_a_damaged_list_in_the_remote_is_named_with_what_mends_it(
    place: Place, servers: dict[str, str], cut: int
) -> None:
    clone = state(place, servers, f"damaged-{cut}", "none", "all")
    list = next(one for one in place.objects("tasks/other", "all") if one.endswith(".dir"))
    path = place.dir / f"damaged-{cut}-box/files/md5" / list[:2] / list[2:]
    path.write_bytes(path.read_bytes()[:cut])
    code, lines = say(clone, "pull")
    assert (code, lines[-1]) == (
        1,
        "error: other: 1 of 2 objects are damaged in the remote, first delete "
        f"{path} there: whoever made them runs `make share`",
    )
    path.unlink()
    place.copy(place.objects("tasks/other", "all"), place.dir / f"damaged-{cut}-box")
    some = GOT.replace("4 of", "3 of")  # toy has one of them, too
    assert say(clone, "pull") == (0, ["pull: toy: 4 objects, 0 of them new", some])


@pytest.mark.parametrize(
    "config",
    [
        "url = /dev/null/box\n",
        "url = ssh://127.0.0.1:9/box\nallow_agent = false\n",
        "url = s3://nosuch/box\nendpointurl = http://127.0.0.1:9\n",
    ],
    ids=["folder", "ssh", "s3"],
)
@pytest.mark.parametrize("command", ["share", "pull"])
def test_a_remote_that_cannot_be_used_is_named(
    place: Place, servers: dict[str, str], command: str, config: str
) -> None:
    name = f"unreached-{command}-{config[6:9].strip('/')}"
    clone = state(place, servers, name, "all" if command == "share" else "none", "none")
    text = (clone / ".dvc/config.local").read_text().partition("url =")[0]
    (clone / ".dvc/config.local").write_text(text + config)
    code, lines = say(clone, command)
    assert (code, len(lines)) == (1, 1), lines
    assert "/box/files/md5: the remote cannot be used: " in lines[0]


def test_a_full_disk_is_not_the_remote_s_fault(place: Place, servers: dict[str, str]) -> None:
    clone = state(place, servers, "full", "none", "all")
    with small_disk(clone / ".dvc/cache", "4k") as disk:
        code, lines = say(clone, "pull")
        assert (code, len(lines)) == (1, 1), lines
        assert lines[0] == (
            f"error: no space left on device (writing {disk}/files/md5): "
            "free some and run the same command again; nothing made is lost"
        )
        subprocess.run(["mount", "-o", "remount,size=1m", disk], check=True)
        assert say(clone, "pull")[0] == 0
    (clone / "models/student").unlink()
    with small_disk(clone / "models", "4k") as disk:
        (disk / "x").write_bytes(bytes(4096))
        place.copy(place.objects("", "all"), clone / ".dvc/cache")
        code, lines = say(clone, "pull")
        assert (code, lines[-1].partition(" (")[0]) == (1, "error: no space left on device"), lines


@contextlib.contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    """A disk of this size on the folder; without the right to mount one the test is skipped."""
    folder.mkdir(parents=True, exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    if subprocess.run(command, capture_output=True).returncode:
        pytest.skip("no right to mount a small disk")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


def test_a_merge_that_git_could_not_make_is_said_first(
    place: Place, servers: dict[str, str]
) -> None:
    """Both sides ran the same task."""
    clone = state(place, servers, "conflict", "all", "all")
    lock = clone / "tasks/other/dvc.lock"
    for branch, size in (("a", "1"), ("b", "2")):
        git(clone, "checkout", "-q", "-b", branch, "origin/main")
        lock.write_text(lock.read_text().replace("size: ", f"size: {size}"))
        git(clone, "commit", "-qam", branch)
    assert subprocess.run(["git", "merge", "-q", "a"], cwd=clone, capture_output=True).returncode
    remedy = (
        "expected one: `git checkout --theirs dvc.lock`, or --ours, then `make repro` and commit"
    )
    error = f"dvc.lock: two runs that git cannot merge, {remedy}"
    for command in ("share", "pull"):
        assert say(clone, command) == (1, [f"error: tasks/other/{error}"])
    for command in ("check", "repro"):
        assert say(clone, "--task", "other", command) == (1, [f"error: {error}"])
    assert "git checkout --theirs tasks/other/dvc.lock`, or" in "\n".join(say(clone, "verify")[1])
    git(clone, "checkout", "-q", "--theirs", "tasks/other/dvc.lock")
    assert say(clone, "share")[0] == 0


# Case 34
@pytest.mark.parametrize("how", ["removed", "removed from git", "removed by a commit"])
@pytest.mark.parametrize("task", ["", "tasks/other/"])
def test_an_input_that_git_has_is_there_first(
    place: Place, servers: dict[str, str], task: str, how: str
) -> None:
    name = f"{how}-{task[:1]}".replace(" ", "-")
    clone, path = state(place, servers, name, "all", "all"), f"{task}schema.json"
    if how == "removed":
        (clone / path).unlink()
        back = f"git checkout {path}"
    else:
        git(clone, "rm", "-q", path)
        back = f"git checkout HEAD -- {path}"
        if how == "removed by a commit":
            git(clone, "commit", "-qm", "gone")
            commit = subprocess.check_output(["git", "log", "-1", "--format=%h"], cwd=clone)
            back = f"git checkout {commit.decode().strip()}^ -- {path}"
    words = ["--task", "other"] if task else []
    expected = f"error: {path} is missing, which cut reads, and git has it: `{back}`"
    for command in (["check"], ["repro"], ["exp", "lora_rank=16"], ["sweep", "1", "lora_rank=1,2"]):
        assert say(clone, *words, *command) == (1, [expected])
    subprocess.run(back, shell=True, cwd=clone, check=True)
    assert say(clone, *words, "check")[0] == 0


# Case 41
def test_a_zip_download_is_told_what_to_do(place: Place, servers: dict[str, str]) -> None:
    clone = state(place, servers, "zip", "all", "none")
    shutil.rmtree(clone / ".git")
    commands = potstill.commands.ready.GIT.split()
    assert {"compare", "verify", "repro", "pull", "gate", "share", "release"} <= set(commands)
    for nested in (False, True):
        if nested:  # in a folder of another repository
            git(clone.parent, "init", "-q")
        for command in commands:
            code, [line] = say(clone, command)
            assert (code, line) == (
                1,
                f"error: {clone}: no git repository, expected one (a zip download is none): "
                "`git clone` it, or `git init && git add -A && git commit -m start` there",
            )
    shutil.rmtree(clone.parent / ".git")
    git(clone, "init", "-q")
    assert "git has no commit here, expected one: `git add -A" in say(clone, "check")[1][-1]
    git(clone, "add", "-A")
    git(clone, "commit", "-qm", "start")
    assert say(clone, "share")[0] == say(clone, "check")[0] == 0


# Case 45
@pytest.mark.parametrize(
    ("path", "before", "after", "expected"),
    [
        ("params.yaml", "lora_rank: 32", "lora_rnk: 32", "unknown parameter 'lora_rnk'"),
        ("params.yaml", "lora_rank: 32", "lora_rank: 320", "lora_rank is 320, expected a whole"),
        ("params.yaml", "lora_rank: 32", "lora_rank: [", "params.yaml:"),
        ("params.yaml", None, None, "params.yaml is missing: `git checkout params.yaml`"),
        ("task.yaml", None, None, "task.yaml is missing here, expected a task's folder"),
        ("task.yaml", "input: [text]", "inputs: [text]", "task.yaml: unknown key 'inputs'"),
        ("dvc.lock", "stages:", "stages: {", "dvc.lock:"),
        ("dvc.lock", "md5: ", "md: ", "dvc.lock: the entry of cut is not whole"),
        ("dvc.yaml", "stages:", "stages: {", "dvc.yaml:4: not YAML: `git checkout dvc.yaml`"),
        ("dvc.yaml", "deps:", "dps:", "DVC cannot read the pipelines: "),
        ("dvc.yaml", None, None, "dvc.yaml' does not exist: mend it, or git has it"),
    ],
)
def test_check_says_first_what_it_cannot_read(
    place: Place,
    servers: dict[str, str],
    path: str,
    before: str | None,
    after: str | None,
    expected: str,
) -> None:
    clone = place.dir / "check"
    if not clone.exists():
        state(place, servers, "check", "none", "none")
    text = (clone / path).read_text()
    if before is None:
        (clone / path).unlink()
    else:
        assert before in text
        (clone / path).write_text(text.replace(before, str(after)))
    try:
        code, lines = say(clone, "check")
        assert (code, len(lines)) == (1, 1), lines
        assert lines[0].startswith("error: ") and expected in lines[0], lines
    finally:
        (clone / path).write_text(text)
