"""`make exp` and `make sweep`: what S may be, and what a failure leaves behind."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from potstill.commands import experiments, verify
from potstill.core import params
from potstill.core import project as core_project
from potstill.core.errors import UserError
from potstill.evaluation import compare
from potstill.task import settings
from tests.clone import Clone
from tests.conftest import ROOT, Project


@pytest.fixture
def ran(project: Project, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """What is started; it ends with the exit code of the environment's FAILS."""
    started: list[tuple[str, ...]] = []

    def call(*command: str) -> int:
        started.append((*command[3:], Path("params.yaml").read_text()))
        return int(os.environ.get("FAILS", "0"))

    monkeypatch.setattr(core_project, "call", call)
    monkeypatch.setattr(core_project, "ROOT", project.dir)
    return started


@pytest.mark.parametrize(
    ("given", "name", "value"),
    [
        ("lora_rank=16", "lora_rank", 16),
        ("swift_args={neftune_noise_alpha: 5}", "swift_args", {"neftune_noise_alpha": 5}),
        ("swift_args={a: [1, 2], b: 'x y'} lora_rank=8", "swift_args", {"a": [1, 2], "b": "x y"}),
        ("teacher.model='a b'", "teacher", "a b"),
        ("teacher.extra_body={top_p: 0.9}", "teacher", {"top_p": 0.9}),
        ("learning_rate=1e-05", "learning_rate", 1e-05),
        ("models=[base,sft,dpo]", "models", ["base", "sft", "dpo"]),
        ("generate.samples=null", "generate", None),
    ],
)
def test_a_value_is_taken_and_the_rest_of_params_yaml_stays(
    ran: list[tuple[str, ...]],
    monkeypatch: pytest.MonkeyPatch,
    given: str,
    name: str,
    value: object,
) -> None:
    before = Path("params.yaml").read_text()
    monkeypatch.setattr("sys.argv", ["exp", given])
    experiments.run_one()
    text = Path("params.yaml").read_text()
    found = params.parse(text, params.PATH)[name]
    assert value in (found.values() if name in ("teacher", "generate") else [found])
    assert text.count(": null") >= before.count(": null") - 1
    assert ran == [("exp", "run", text)]


BAD = {
    "": "S is '', expected NAME=VALUE, no space round the =, as in `make exp S='lora_rank=16'`",
    "lora_rank": "S is 'lora_rank', expected NAME=VALUE",
    "lora_rank = 16": "S is 'lora_rank = 16', expected NAME=VALUE, no space round the =",
    "--temp lora_rank=4": "S is '--temp', expected NAME=VALUE",
    "lora_rank=500": "lora_rank is 500, expected a whole number from 1 to 64",
    "lora_rank=0040": 'lora_rank is "0040", expected a whole number',
    "group_by_length=yes": 'group_by_length is "yes", expected true or false',
    "lora_rnk=8": "unknown parameter 'lora_rnk': did you mean lora_rank?",
    "swift_args={a": "S has 'swift_args={a', whose value cannot be read",
    "teacher.model='a": """S has "teacher.model='a", whose value cannot be read""",
    "teacher.model=a'b": 'S has "teacher.model=a\'b", whose value cannot be read',
    "lora_rank=4,8": "S has several values, lora_rank=4,8: `make sweep` tries each",
}


@pytest.mark.parametrize("given", BAD)
def test_what_cannot_be_is_one_sentence_and_nothing_runs(
    ran: list[tuple[str, ...]], monkeypatch: pytest.MonkeyPatch, given: str
) -> None:
    before = Path("params.yaml").read_bytes()
    monkeypatch.setattr(experiments, "refuse_untracked", lambda: None)
    for words, main in (
        (["exp", given], experiments.run_one),
        (["sweep", "1", given], experiments.sweep),
    ):
        if "`make sweep` tries" in BAD[given] and main is experiments.sweep:
            continue
        monkeypatch.setattr("sys.argv", list(words))
        with pytest.raises(UserError) as error:
            main()
        said = str(error.value).replace('sweep S="lora_rank=4,8,16"', "exp S='lora_rank=16'")
        assert BAD[given] in said and "\n" not in said
    assert not ran and Path("params.yaml").read_bytes() == before


@pytest.mark.parametrize("stopped", [False, True])
def test_a_failure_or_a_stop_leaves_params_yaml_as_it_was(
    ran: list[tuple[str, ...]], monkeypatch: pytest.MonkeyPatch, stopped: bool
) -> None:
    before = Path("params.yaml").read_bytes()
    monkeypatch.setattr("sys.argv", ["exp", "lora_rank=16"])
    monkeypatch.setenv("FAILS", "1")

    def stop(*_: str) -> int:
        raise KeyboardInterrupt

    if stopped:
        monkeypatch.setattr(core_project, "call", stop)
    with pytest.raises(KeyboardInterrupt if stopped else UserError):
        experiments.run_one()
    assert Path("params.yaml").read_bytes() == before


@pytest.mark.parametrize("value", ["x=it's", "x={a: 5}", 'x="a b"', "x=a;b&c|d", "x=*"])
def test_make_gives_a_value_as_it_is(value: str, tmp_path: Path) -> None:
    """A stand-in for Python prints each of its words in a line."""
    (tmp_path / "words").write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    (tmp_path / "words").chmod(0o755)
    for target, name in (("exp", "S"), ("sweep", "S"), ("import", "FILE"), ("trace", "ID")):
        command = ["make", "-s", "-o", ".venv/ready", f"PY={tmp_path}/words", target]
        done = subprocess.run([*command, f"{name}={value}"], cwd=ROOT, capture_output=True)
        assert value in done.stdout.decode().splitlines(), done


def test_a_copy_that_a_killed_experiment_left_is_named(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(core_project, "ROOT", project.dir)
    folders = [project.dir / f".dvc/tmp/exps/standalone/tmp{name}" for name in ("old", "new", "is")]
    for folder in folders:
        (folder / "data").mkdir(parents=True)
    for folder in (folders[0], folders[2]):
        os.utime(folder, (1, 1))
    monkeypatch.chdir(folders[2] / "data")  # somebody works there
    [(what, remedy)] = verify.abandoned()
    assert what == "../../tmpold: left by an experiment that was killed"
    assert remedy == "rm -rf ../../tmpold"


def test_an_experiment_of_several_seeds_is_compared_by_their_mean(project: Project) -> None:
    """The commit has one seed with 85 of 100 rows right. The experiment's first student has 95, and
    two others have 80: better for McNemar, not for the seeds."""
    project.write("task.yaml", "checks: []\n")

    def result(*right: int) -> None:
        share = right[0] / 100
        found: dict[str, Any] = {"accuracy": share, "low": 0.1, "high": 0.9, "unscored": 0}
        found |= {"right": right[0], "wrong": 100 - right[0]}
        several = {"count": 3, "mean": 0.85, "low": 0.4, "high": 0.97}
        metrics = {"base": found, "sft": found} | ({"seeds": several} if right[1:] else {})
        project.write("reports/metrics.json", json.dumps(metrics))
        names = ["sft", "sft@43", "sft@44"]
        rows = [
            {"id": str(i), "slice": "a"}
            | {name: int(i < count) for name, count in zip(names, right, strict=False)}
            for i in range(100)
        ]
        compare.write_csv(project.dir / "reports/tables/marks.csv", rows)

    result(85)
    project.commit()
    result(95, 80, 80)
    subprocess.run(["git", "checkout", "-q", "-b", "other"], check=True)
    who = ["-c", "user.name=n", "-c", "user.email=e"]
    subprocess.run(["git", *who, "commit", "-qam", "several"], check=True)
    rows = experiments.results(settings.load(), {"last commit": "HEAD^", "several": "HEAD"})
    _, base, one = experiments.lines(rows[0], experiments.judged(rows[0], rows[1:]))
    assert base.split() == ["last", "commit", "85.0%", "10.0%", "to", "90.0%"]
    assert one.split()[:5] == ["several", "85.0%", "40.0%", "to", "97.0%"]
    assert "within the noise: 10 rows fixed, 0 broken, exact McNemar; mean of 3 seeds less" in one
    said = "last commit: one seed: the noise of training is not in this interval"
    assert experiments.of_one_seed(rows) == [said]
    assert experiments.of_one_seed(rows[1:]) == []


@pytest.mark.slow
def test_what_a_failed_and_a_stopped_experiment_leave_behind(tmp_path: Path) -> None:
    """With the real DVC: params.yaml as it was, the copy removed, and no stage that runs on."""
    clone = Clone.make(tmp_path / "clone")
    clone.write("stages/split.py", "raise SystemExit('error: it cannot be')\n")
    clone.commit()
    before = (clone.dir / "params.yaml").read_bytes()
    out = clone.fail("potstill", "exp", "lora_rank=16")
    assert "error: the experiment failed, see above; params.yaml is as it was before" in out
    assert (clone.dir / "params.yaml").read_bytes() == before
    clone.write("stages/split.py", (ROOT / "stages/split.py").read_text())
    clone.commit()
    run = clone.start("potstill", "sweep", "1", "lora_rank=8", SLOW="60")
    copies = clone.dir / ".dvc/tmp/exps/standalone"
    deadline = time.monotonic() + 300
    while not (locks := list(copies.glob("tmp*/.cache/stages/sft"))):
        assert time.monotonic() < deadline and run.poll() is None
        time.sleep(0.1)
    assert locks
    run.send_signal(signal.SIGINT)
    out = run.communicate(timeout=120)[0]
    assert run.returncode == 130 and "Traceback" not in out, out
    assert not list(copies.glob("tmp*"))
    assert (clone.dir / "params.yaml").read_bytes() == before
