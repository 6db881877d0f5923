"""Stage locks, dvc.lock of every task, what `make check` and `make verify` find, models that may
run code; without a run of DVC."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from dvc.utils.serialize import load_yaml

from potstill.commands import experiments, gate
from potstill.core import lockfile, params, stage
from potstill.core import project as core_project
from potstill.core.errors import UserError
from potstill.evaluation import statistics
from potstill.task import settings
from potstill.training import model_folder
from tests import fakes
from tests.conftest import ROOT, Project

PIPELINE = """
stages:
  make:
    cmd: PYTHONPATH=. python -m stages.make
    deps: [stages/make.py, data/seeds.jsonl]
    params: [learning_rate, teacher, {task.yaml: [samples]}]
    outs: [data/1-made.jsonl]
  use:
    cmd: PYTHONPATH=. python -m stages.use
    deps: [data/1-made.jsonl]
    outs: [models, reports/metrics.json]
"""


@pytest.fixture
def made(project: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    """The toy project with two stages that have run, as DVC would write it down."""
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(project.dir / "site"))
    project.write(".dvc/config", "[core]\n    no_scm = true\n")
    project.write("dvc.yaml", PIPELINE)
    project.write("stages/make.py", "")
    project.write("data/seeds.jsonl", "{}\n")
    project.write("task.yaml", "name: toy\nsamples: 2\n")
    project.write("data/1-made.jsonl", "made\n")
    project.write("models/a/b.json", "{}")
    project.write("models/config.json", "{}")
    project.write("reports/metrics.json", "{}")
    lock(learning_rate=0.002)
    return project


def lock(learning_rate: float) -> None:
    """Writes dvc.lock, from the files that are there."""

    def listed(*paths: str) -> list[dict[str, Any]]:
        return [
            {"path": path, "hash": "md5", "md5": lockfile.md5(Path(path)), "size": 1}
            for path in paths
        ]

    teacher = params.parse(Path("params.yaml").read_text(), params.PATH)["teacher"]
    own = {
        "params.yaml": {"learning_rate": learning_rate, "teacher": teacher},
        "task.yaml": {"samples": 2},
    }
    make: dict[str, Any] = {"cmd": "PYTHONPATH=. python -m stages.make", "params": own}
    make |= {
        "deps": listed("stages/make.py", "data/seeds.jsonl"),
        "outs": listed("data/1-made.jsonl"),
    }
    use = {"cmd": "PYTHONPATH=. python -m stages.use", "deps": listed("data/1-made.jsonl")}
    use["outs"] = listed("models", "reports/metrics.json")
    Path("dvc.lock").write_text(json.dumps({"schema": "2.0", "stages": {"make": make, "use": use}}))


def test_a_folders_hash_is_that_of_dvc(tmp_path: Path) -> None:
    """The value is what `dvc add` 3.67 wrote for these files."""
    (tmp_path / "sub").mkdir()
    (tmp_path / "b").write_text("two\n")
    (tmp_path / "sub/a").write_text("one\n")
    assert lockfile.md5(tmp_path) == "de8364c7328bd87a4e6137364650a325.dir"


# Case 39
@pytest.mark.parametrize(
    "text",
    "1e-05 1.5e-7 2E3 .5 .5e3 -1. +.inf 0042 0o52 0x2A 0b11 4_2 08 1:30 yes no on off y true True "
    'TRUE "true" ~ null 2026-11-29 0.0.1 -1 +7 1e 0x'.split(),
)
def test_a_value_means_the_same_to_every_reader(text: str, tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    path.write_text(f"value: {text}\n")
    [fast] = lockfile.read_yaml(path).values()
    for found in (params.parse(path.read_text(), path), load_yaml(path)):
        assert (fast, type(fast)) == (found["value"], type(found["value"]))


def test_a_result_is_current_without_data_and_outputs(made: Project) -> None:
    Path("data/1-made.jsonl").unlink()
    assert stage.unchanged("make") and stage.unchanged("use")
    assert lockfile.made(lockfile.read()["use"]).keys() == {"models", "reports/metrics.json"}


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("stages/make.py", "new"),
        ("data/seeds.jsonl", "new"),
        ("task.yaml", "samples: 3"),
        ("task.yaml", "other: 3"),
    ],
)
def test_what_changed_makes_a_result_old(made: Project, path: str, text: str) -> None:
    Path(path).write_text(text)
    assert not stage.unchanged("make")
    assert stage.unchanged("use")


def test_a_parameter_is_compared_as_a_number(made: Project) -> None:
    lock(1e-05)
    made.set(learning_rate=0.00001)
    assert stage.unchanged("make")
    made.set(learning_rate=0.00002)
    assert not stage.unchanged("make")


@pytest.mark.parametrize("size", [0.3, 0.5, 0.7, 0.9])
def test_a_torn_lock_is_refused(made: Project, size: float) -> None:
    text = Path("dvc.lock").read_text()
    Path("dvc.lock").write_text(text[: int(len(text) * size)])
    with pytest.raises(
        UserError, match=r"^dvc\.lock:\d: not YAML: `git checkout dvc.lock`, then `make repro`"
    ):
        lockfile.read()


@pytest.mark.parametrize("key", ["cmd", "outs"])
def test_an_entry_without_its_end_is_refused(made: Project, key: str) -> None:
    found = json.loads(Path("dvc.lock").read_text())
    del found["stages"]["use"][key]
    Path("dvc.lock").write_text(json.dumps(found))
    with pytest.raises(UserError, match=r"^dvc\.lock: the entry of use is not whole"):
        lockfile.read()


def test_an_input_that_is_not_as_it_was_made_is_refused(made: Project) -> None:
    stage.verify_inputs("-m stages.use")
    made.write("data/1-made.jsonl", "edited\n")
    with pytest.raises(
        UserError, match=r"^data/1-made\.jsonl: not as make made it .* `make verify`"
    ):
        stage.verify_inputs("-m stages.use")
    stage.verify_inputs("-m stages.make")  # that is the one that makes it anew
    Path("dvc.lock").unlink()
    stage.verify_inputs("-m stages.use")


def test_an_input_in_a_folder_of_inputs_is_looked_at_too(made: Project) -> None:
    found = json.loads(Path("dvc.lock").read_text())
    found["stages"]["use"]["deps"] = [{"path": "data", "md5": "0" * 32 + ".dir"}]
    Path("dvc.lock").write_text(json.dumps(found))
    stage.verify_inputs("-m stages.use")
    made.write("data/1-made.jsonl", "edited\n")
    with pytest.raises(UserError, match=r"^data/1-made\.jsonl: not as make made it"):
        stage.verify_inputs("-m stages.use")


def test_what_was_paid_for_is_not_paid_for_again(
    made: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    made.set(teacher_model="big")
    lock(0.002)
    Path("data/1-made.jsonl").unlink()
    message = r"^make: dvc.lock has its result, which was paid for and is not here: `make pull`"
    monkeypatch.setenv("DVC_ROOT", "root")
    with pytest.raises(UserError, match=message):
        stage.verify_inputs("-m stages.make")
    stage.verify_inputs("-m stages.use")  # asks nobody
    made.write("root/.cache/teacher/toy.jsonl", "")
    stage.verify_inputs("-m stages.make")  # the answers are in the journal
    Path("root/.cache/teacher/toy.jsonl").unlink()
    made.write("data/seeds.jsonl", "{}\n{}\n")
    stage.verify_inputs("-m stages.make")  # other questions


HOLDER = """
import subprocess, sys, time
WAIT = (
    "import os, time; print('lives', flush=True)\\n"
    "while not os.path.exists('end'): time.sleep(0.05)"
)
from potstill.core import stage
def main():
    print("runs", flush=True)
    if sys.argv[1:] == ["child"]:
        subprocess.Popen([sys.executable, "-c", WAIT], close_fds=False)
        time.sleep(60)
    time.sleep(0 if sys.argv[1:] else 60)
if __name__ == "__main__":
    stage.run(main)
"""


def test_a_stage_runs_once_at_a_time(project: Project) -> None:
    project.write("stages/hold.py", HOLDER)
    first = project.start("stages.hold")
    assert first.stdout is not None
    assert first.stdout.readline() == "runs\n"
    code, out = project.run("stages.hold")
    assert code == 1
    who = stage.running(Path(".cache/stages/hold"))
    assert who is not None and who.startswith(f"process {first.pid}, since ")
    remedy = "wait for its end, or end it, then run this again"
    assert out == f"error: hold runs here already ({who}): {remedy}\n"
    assert project.run("stages.hold", "other") == (0, "runs\n")  # another stage
    first.terminate()
    first.communicate()
    assert stage.running(Path(".cache/stages/hold")) is None
    assert project.run("stages.hold", "other") == (0, "runs\n")


def test_a_child_that_lives_on_holds_the_lock(project: Project) -> None:
    """As a training does, until it has noticed that its stage was killed."""
    project.write("stages/hold.py", HOLDER)
    first = project.start("stages.hold", "child")
    assert first.stdout is not None
    assert [first.stdout.readline() for _ in range(2)] == ["runs\n", "lives\n"]
    first.kill()
    first.wait()
    assert "hold child runs here already" in project.run("stages.hold", "child")[1]
    project.write("end", "")
    deadline = time.monotonic() + 60
    while stage.running(Path(".cache/stages/hold child")):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_other_commands_hold_no_lock(project: Project) -> None:
    stage.run(lambda: None)
    assert not Path(".cache").exists()


def git(*command: str, input: str | None = None) -> str:
    env = os.environ | {
        f"GIT_{who}_{what}": "t@e" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")
    }
    return subprocess.run(
        ["git", *command], input=input, capture_output=True, text=True, check=True, env=env
    ).stdout


@pytest.fixture
def hundred(project: Project, monkeypatch: pytest.MonkeyPatch) -> settings.Task:
    """A commit where sft has 60 of 100 rows right, and a hundred experiments with lora_rank 1 to
    100, whose right rows are as many as the rank."""
    monkeypatch.setattr(sys, "argv", ["experiments"])
    git("init", "-q")
    text = Path("params.yaml").read_text()

    def files(rank: int) -> dict[str, str]:
        low, high = statistics.wilson(rank, 100)
        found = {"accuracy": rank / 100, "low": low, "high": high}
        found |= {"right": rank, "wrong": 100 - rank, "unscored": 0}
        marks = "id,slice,base,sft\n" + "".join(f"{i},a,0,{int(i < rank)}\n" for i in range(100))
        return {
            "params.yaml": text.replace("lora_rank: 32", f"lora_rank: {rank}"),
            "reports/metrics.json": json.dumps({"rows": 100, "base": found, "sft": found}),
            "reports/tables/marks.csv": marks,
        }

    for name, content in files(60).items():
        project.write(name, content)
    git("add", "-A")
    git("commit", "-qm", "base")
    base = git("rev-parse", "HEAD").strip()
    stream = []
    for rank in range(1, 101):
        stream.append(
            f"commit refs/exps/{base[:2]}/{base[2:]}/rank-{rank}\n"
            f"committer t <t@e> 1 +0000\ndata 1\nx\nfrom {base}\n"
        )
        stream += [
            f"M 100644 inline {name}\ndata {len(text.encode())}\n{text}\n"
            for name, text in files(rank).items()
        ]
    git("fast-import", "--quiet", input="".join(stream))
    return settings.load()


def test_a_hundred_experiments_are_compared_by_a_few_calls_of_git(
    hundred: settings.Task, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real, calls = subprocess.run, list[Any]()

    def counted(*command: Any, **options: Any) -> Any:
        calls.append(command)
        return real(*command, **options)

    monkeypatch.setattr(subprocess, "run", counted)
    experiments.main()
    assert len(calls) < 5
    _, base, first, *rest = capsys.readouterr().out.splitlines()
    assert rest.pop() == "left out: 1 experiment of another task, or without a result"
    assert rest.pop() == "all: one seed: the noise of training is not in this interval"
    assert len(rest) == 98  # that of rank 60 changes nothing
    assert base.startswith("last commit         60.0%  50.2% to 69.1%")
    assert first.endswith("better: 40 rows fixed, 0 broken, exact McNemar; lora_rank=100")
    verdicts = [line.partition(":")[0].split("  ")[-1] for line in [first, *rest]]
    middle = verdicts.count("within the noise")
    assert verdicts == ["better"] * verdicts.count("better") + ["within the noise"] * middle + [
        "worse"
    ] * verdicts.count("worse")
    alone = sum(
        statistics.exact(max(rank - 60, 0), max(60 - rank, 0)) >= statistics.ALPHA
        for rank in range(1, 101)
    )
    assert middle + 1 > alone == 11  # Holm's p is stricter than each test alone


def test_holm_is_that_of_statsmodels(hundred: settings.Task) -> None:
    from statsmodels.stats.multitest import multipletests

    found = experiments.results(hundred, {"last commit": "HEAD", **core_project.experiments()})
    alone = [gate.difference(found[0]["right"], one["right"])[0] for one in found[1:]]
    table = {one["name"]: one["p"] for one in experiments.judged(found[0], found[1:])}
    expected = multipletests(alone, method="holm")[1]
    assert [table[one["name"]] for one in found[1:]] == pytest.approx(expected)


def test_experiments_of_another_task_are_left_out(
    hundred: settings.Task, project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    """They have the last commit's parameters and results of this one."""
    base = git("rev-parse", "HEAD").strip()
    git("update-ref", "-d", f"refs/exps/{base[:2]}/{base[2:]}/rank-7")
    commit = (
        f"commit refs/exps/{base[:2]}/{base[2:]}/rank-7\ncommitter t <t@e> 1 +0000\ndata 1\nx\n"
    )
    other = f"from {base}\nM 100644 inline tasks/other/params.yaml\ndata 1\nx\n"
    git("fast-import", "--quiet", input=commit + other)
    experiments.main()
    out = capsys.readouterr().out
    assert "rank-8 " in out and "rank-7 " not in out
    assert out.endswith("left out: 2 experiments of another task, or without a result\n")


@pytest.mark.parametrize(
    "name", ["modeling.py", "sub/pytorch_model.bin", "optimizer.pt", "weights.pkl", "a.pth"]
)
def test_a_model_that_may_run_code_is_refused(name: str, tmp_path: Path) -> None:
    folder = fakes.model(tmp_path / "model")
    model_folder.check_folder(folder, "mend it")
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).touch()
    with pytest.raises(
        UserError, match=rf"{Path(name).name}: \.\w+ may run code when it is loaded, .*: mend it$"
    ):
        model_folder.check_folder(folder, "mend it")


def test_a_config_that_names_code_is_refused(tmp_path: Path) -> None:
    folder = fakes.model(tmp_path / "model")
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"auto_map": {"AutoTokenizer": "x.Y"}})
    )
    with pytest.raises(UserError, match="tokenizer_config.json: auto_map names code"):
        model_folder.check_folder(folder, "mend it")


@pytest.mark.parametrize(
    ("model", "revision", "refused"),
    [
        ("Qwen/Qwen3-0.6B", "main", True),
        ("Qwen/Qwen3-0.6B", "v1.0", True),
        ("Qwen/Qwen3-0.6B", "c1899de289a04d12100db370d81485cdf75e47ca", False),
        ("models/tiny-base", "main", False),
    ],
)
def test_a_model_of_the_hub_is_pinned(
    project: Project, model: str, revision: str, refused: bool
) -> None:
    project.set(model=model, model_revision=revision)
    if not refused:
        assert params.load("model").model == model
        return
    right = f"expected the commit of {model} on the hub"
    with pytest.raises(
        UserError, match=rf"^params\.yaml:\d+: model_revision is {revision}, {right}"
    ):
        params.load("model")


@pytest.mark.parametrize(
    "profile", sorted(str(path.relative_to(ROOT)) for path in ROOT.glob("**/profiles/*.yaml"))
)
def test_every_profile_pins_its_model(profile: str) -> None:
    found = lockfile.read_yaml(ROOT / profile)
    assert (
        "/" not in found.get("model", "")
        or len(found["model_revision"]) == 40
        or found["model"].startswith("models/")
    )


@pytest.mark.slow
def test_ms_swift_runs_no_code_of_a_model(tmp_path: Path) -> None:
    """Past our own refusals: the process that trains and merges loads a model whose config names
    code."""
    folder = fakes.model(tmp_path / "model")
    (folder / "config.json").write_text(
        json.dumps({"model_type": "own", "auto_map": {"AutoConfig": "own.Own"}})
    )
    (folder / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    yaml = tmp_path / "export.yaml"
    yaml.write_text(
        json.dumps(
            {
                "model": str(folder),
                "model_type": "qwen3",
                "merge_lora": True,
                "adapters": [str(folder)],
            }
        )
    )
    env = (
        os.environ
        | model_folder.environment(hub=False)
        | {"HF_MODULES_CACHE": str(tmp_path / "modules")}
    )
    child = subprocess.Popen(
        [sys.executable, "-m", "potstill.training.swift", "export", str(yaml)],
        env=env,
        stdin=subprocess.PIPE,
    )
    assert child.wait(300)  # its stdin stays open: the child ends by itself
    assert not (tmp_path / "ran").exists()


PICKLED = """
import torch
from transformers import modeling_utils
from potstill.training import swift
torch.save({"x": torch.zeros(1)}, "pytorch_model.bin")
assert modeling_utils.load_state_dict("pytorch_model.bin")
swift.forbid_code()
modeling_utils.load_state_dict("pytorch_model.bin")
"""


@pytest.mark.slow
def test_pickled_weights_are_refused(tmp_path: Path) -> None:
    """In a process of its own: what is forbidden there stays so."""
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", PICKLED]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
    last = done.stderr.splitlines()[-1]
    assert "pickled, expected safetensors" in last, done.stderr


def test_the_workflow_calls_targets_that_there_are() -> None:
    targets = {line.partition(":")[0] for line in (ROOT / "Makefile").read_text().splitlines()}
    text = (ROOT / ".github/workflows/ci.yml").read_text()
    jobs = lockfile.read_yaml(ROOT / ".github/workflows/ci.yml")["jobs"]
    assert set(jobs) == {"test", "targets", "results"}
    called = {
        words[1]
        for words in map(str.split, text.replace("run: ", "\n").splitlines())
        if words[:1] == ["make"]
    }
    assert called == {"check", "gate", "repro", "setup"} <= targets
