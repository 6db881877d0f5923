"""`make repro`: what is shown of a run, and the verdict at its end."""

import json
import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest

from potstill.commands import fresh, repro
from potstill.core import project as core_project
from potstill.core.errors import UserError
from potstill.evaluation import compare, seeds
from potstill.task import settings
from tests import fakes
from tests.conftest import ROOT, Project

NAMES = ["expand", "sft", "predict@sft", "score"]


def shown(lines: list[str], capsys: pytest.CaptureFixture[str]) -> list[str]:
    """What is printed of these lines of a run, in a pipe."""
    progress = repro.Progress(NAMES)
    for line in lines:
        progress.take(line)
    progress.close()
    return capsys.readouterr().out.splitlines()


def test_a_line_a_stage(capsys: pytest.CaptureFixture[str]) -> None:
    lines = [
        "Stage 'expand' didn't change, skipping",
        "Running stage 'sft':",
        "> PYTHONPATH=. python -m stages.sft",
        "WARNING: 'data/gold.jsonl' is empty.",
        "sft: step 660/1287, loss 0.0036, about 1m 46s left",
        "sft: 3,425 rows, 399 to validate on, 1,287 steps",
        "Updating lock file 'dvc.lock'",
        "",
        "Running stage 'tasks/x/dvc.yaml:predict@sft':",
        "predict: 500 rows, 0 cut off as too long or repetitive",
        "Use `dvc push` to send your updates to remote storage.",
    ]
    first, second = shown(lines, capsys)
    assert re.fullmatch(
        r"\[2/4\] sft +\d+\.\d s  3,425 rows, 399 to validate on, 1,287 steps", first
    )
    assert re.fullmatch(r"\[3/4\] predict@sft +\d+\.\d s  500 rows, 0 cut off .*", second)


@pytest.mark.parametrize(
    ("stage", "line", "said"),
    [
        ("parity", "parity: 0 of 100 training rows have other tokens", "0 of 100 training rows"),
        ("ask_teacher", "predict: 500 rows, 0 cut off", "500 rows, 0 cut off"),
        (
            "choose",
            "choose sft: models has no dpo, no grpo and no gkd → models/student",
            "models has no dpo, no grpo and no gkd",
        ),
    ],
)
def test_the_line_says_what_a_stage_did(
    stage: str, line: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    [shown_line] = shown([f"Running stage '{stage}':", line], capsys)
    assert f"s  {said}" in shown_line


def test_a_long_stage_says_once_a_minute_how_far_it_is(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]
    monkeypatch.setattr("potstill.commands.repro.time.monotonic", lambda: clock[0])
    progress = repro.Progress(NAMES)
    progress.take("Running stage 'sft':")
    for step in range(0, 200, 10):
        clock[0] += 10
        progress.take(f"sft: step {step}/1287, loss 0.0036, about 1m 46s left")
    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        f"[1/4] sft              {step} of 1287, 1m 46s left" for step in (50, 110, 170)
    ]


@pytest.mark.parametrize(
    "line",
    [
        "sft: step 660/1287, loss 0.0036, about 1m 46s left",
        "teacher: 2,916 of 4,000 answers, 290.2/s, 29 under way, 0 retries, 4 s left",
    ],
)
def test_what_the_stages_say_of_their_progress_is_understood(line: str) -> None:
    assert repro.COUNT.search(line) and repro.LEFT.search(line)


@pytest.mark.parametrize(
    ("seconds", "text"), [(3.21, "3.2 s"), (106.4, "1 m 46 s"), (60, "1 m 00 s")]
)
def test_a_duration_is_read_at_a_glance(seconds: float, text: str) -> None:
    assert repro.duration(seconds) == text


def test_the_stages_are_counted_with_each_model() -> None:
    names = [name for name in repro.stage_names() if name.startswith("predict@")]
    models = ("base", "examples", "sft", "dpo", "grpo", "gkd")
    assert names == [f"predict@{model}" for model in models]


def model(right: int) -> dict[str, float]:
    """A model's part of metrics.json."""
    return {"accuracy": right / 100, "low": 0.1, "high": 0.9, "right": right} | {
        "wrong": 100 - right,
        "unscored": 0,
    }


def test_the_verdict(project: Project) -> None:
    metrics = {"rows": 100, "base": model(0), "sft": model(97), "teacher": model(92)}
    project.write("reports/metrics.json", json.dumps(metrics))
    pair = compare.pair("base", "sft", [False] * 100, [i < 97 for i in range(100)])
    compare.write_csv(Path("reports/tables/pairs.csv"), [pair])
    cost = {"answers": 7, "prompt_tokens": 1, "completion_tokens": 2}
    unknown = dict.fromkeys(("spent", "break_even_requests"))
    project.write("reports/cost.json", json.dumps({**cost, **unknown}))
    progress = repro.Progress(NAMES)
    progress.ran = ["sft"]
    lines = repro.verdict(progress, 1.5).splitlines()
    assert lines[1] == "toy: 0.0% → 97.0% right (95 % interval 10.0% to 90.0%, one seed)"
    assert [line.split()[0] for line in lines[3:6]] == ["base", "sft", "teacher"]
    assert "report: " in lines[6] and lines[6].endswith("(all tasks: `make report`)")
    assert lines[7].startswith("cost: 7 answers of the teacher")
    assert "time: 1.5 s; 1 of 4 stages ran; the log is" in lines[8]
    assert lines[9].startswith("next: ")
    progress.ran = []
    short = repro.verdict(progress, 1.5).splitlines()
    assert short[:-1] == lines[1:7] and "s; nothing was to do; the log is" in short[-1]
    progress.ran = ["sft"]
    assert "1 of 4 stages ran" in repro.verdict(progress, 1.5)
    project.write("reports/metrics.json", json.dumps({**metrics, "sft": model(0)}))
    pair = compare.pair("base", "sft", [False] * 100, [False] * 100)
    compare.write_csv(Path("reports/tables/pairs.csv"), [pair])
    several = {"count": 3, "mean": 0.95, "low": 0.9, "high": 0.98}
    project.write("reports/metrics.json", json.dumps({**metrics, "seeds": several}))
    students = {seed: [i < right for i in range(100)] for seed, right in {42: 97, 43: 93}.items()}
    marks = {seed: [{"right": one} for one in right] for seed, right in students.items()}
    tests = [{"slice": "a"}] * 100
    table = seeds.table(settings.load(), tests, marks)
    compare.write_csv(Path("reports/tables/seeds.csv"), table)
    lines = repro.verdict(progress, 1.5).splitlines()
    assert lines[1].endswith("(95 % interval 10.0% to 90.0%, one of 3 seeds)")
    assert lines[2].startswith("2 seeds (42: 97.0%, 43: 93.0%): 95.0% on average, ")
    project.write("reports/metrics.json", json.dumps({**metrics, "sft": model(0)}))
    nothing = repro.verdict(progress, 1.5).splitlines()[2]
    assert nothing == "The training achieved nothing: no test row is right."


def test_a_file_of_another_task_that_dvc_cannot_read_is_named(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    fakes.dvc(project.dir)
    said = "ERROR: unable to read: 'tasks/x/params.yaml', YAML file structure is corrupted"
    project.write("dvc/__main__.py", f'import sys\nprint("{said}")\nsys.exit(255)\n')
    monkeypatch.setenv("PYTHONPATH", f"{project.dir}{os.pathsep}{ROOT}")
    with pytest.raises(
        UserError, match=r"^tasks/x/params\.yaml: not YAML, .* `git checkout tasks/x"
    ):
        repro.run()


def test_a_bad_parameter_stops_the_run_before_a_stage_begins(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    fakes.dvc(project.dir)
    late = "import pathlib, time\ntime.sleep(90)\npathlib.Path('began').touch()\n"
    project.write("dvc/__main__.py", late)
    monkeypatch.setenv("PYTHONPATH", f"{project.dir}{os.pathsep}{ROOT}")
    project.set(lora_rank=320)
    with pytest.raises(UserError, match=r"^params\.yaml:\d+: lora_rank is 320"):
        repro.run()
    assert not Path("began").exists()


# Case 55
def test_a_headline_that_no_test_row_has_stops_the_run_too(project: Project) -> None:
    task = project.dir / "task.yaml"
    task.write_text(task.read_text() + "headline_slice: hard\n")
    wrong = r"^task\.yaml: headline_slice is 'hard', but data/gold\.jsonl has no rows"
    with pytest.raises(UserError, match=wrong):
        repro.check()
    project.write("data/gold.jsonl", '{"text": "a", "gold": null, "slice": "easy"}\n')
    with pytest.raises(UserError, match=r"headline_slice is 'hard', but the slices of .* are easy"):
        repro.check()
    project.write("data/gold.jsonl", '{"text": "a", "gold": null, "slice": "hard"}\n')
    repro.check()


STAGE = """
import pathlib, sys, time
print("Running stage 'generate':", flush=True)
pathlib.Path("began").touch()
try:
    time.sleep(60)
except KeyboardInterrupt:
    pathlib.Path("kept").touch()
    sys.exit("stopped: 3 answers kept")
"""
DVC = """
import signal, subprocess, sys
stage = subprocess.Popen([sys.executable, "-c", open("stage").read()])
signal.signal(signal.SIGINT, signal.SIG_IGN)  # as DVC does while a stage runs
sys.exit(stage.wait())
"""


@pytest.mark.parametrize(
    ("sent", "nohup"), [(signal.SIGINT, False), (signal.SIGTERM, False), (signal.SIGTERM, True)]
)
def test_a_stop_reaches_the_stage(project: Project, sent: signal.Signals, nohup: bool) -> None:
    project.write("dvc.yaml", (ROOT / "dvc.yaml").read_text())
    fakes.dvc(project.dir)
    project.write("dvc/__main__.py", DVC)
    project.write("stage", STAGE)
    path = f"{project.dir}{os.pathsep}{ROOT}"
    before = signal.getsignal(signal.SIGINT)
    if nohup:  # as a shell starts what runs in the background: SIGINT is ignored, and inherited
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    run = project.start("potstill", "repro", PYTHONPATH=path)
    signal.signal(signal.SIGINT, before)
    deadline = time.monotonic() + 60
    while not Path("began").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    run.send_signal(sent)
    out = run.communicate(timeout=60)[0]
    assert (run.returncode, "stopped: what was finished is kept" in out) == (130, True), out
    assert Path("kept").exists()
    assert "stopped: 3 answers kept" in Path(".cache/repro.log").read_text()


def test_a_failure_is_shown_without_what_dvc_says_of_it(
    project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A stand-in for DVC, run as `python -m dvc`: the stage's own sentence, and where the log
    is."""
    project.write("dvc.yaml", (ROOT / "dvc.yaml").read_text())
    fakes.dvc(project.dir)
    project.write(
        "dvc/__main__.py",
        "import sys\n"
        "print(\"Running stage 'filter':\")\n"
        "print('> PYTHONPATH=. python -m stages.filter')\n"
        "print('error: data/2-answers.jsonl: no answer passes')\n"
        "print(\"ERROR: failed to reproduce 'filter': failed to run: …, exited with 1\")\n"
        "sys.exit(255)\n",
    )
    monkeypatch.setenv("PYTHONPATH", f"{project.dir}{os.pathsep}{ROOT}")
    with pytest.raises(UserError) as error:
        repro.run()
    said = capsys.readouterr()
    assert said.err == "error: data/2-answers.jsonl: no answer passes\n"
    log = core_project.prefix() + ".cache/repro.log"  # from the root, where make is called
    assert str(error.value) == f"stage filter failed, see above; all that was said is in {log}"
    assert "failed to reproduce" in Path(".cache/repro.log").read_text()
    assert said.out == ""


@pytest.mark.parametrize(
    ("checks", "known", "says"),
    [
        ("[language]", False, None),
        ("[language]", True, "schema.json is missing: `git checkout schema.json` brings it back"),
        ("[json_schema]", False, "schema.json is missing: `git checkout schema.json` brings"),
    ],
)
def test_a_schema_is_needed_only_where_it_is_used(
    project: Project, checks: str, known: bool, says: str | None
) -> None:
    """schema.json of a task of plain text was deleted: DVC wants it all the same."""
    project.write("task.yaml", f"checks: {checks}\n")
    for command in [["init", "-q"], ["add", "schema.json"]][: 1 + known]:
        subprocess.run(["git", *command], check=True)
    Path("schema.json").unlink()
    if says:
        with pytest.raises(UserError, match=re.escape(says)):
            fresh.complete()
        return
    fresh.complete()
    assert "nothing reads this file" in Path("schema.json").read_text()
    assert Path("data/gold.jsonl").read_text() == ""


def test_eval_without_a_model_says_so(project: Project) -> None:
    expected = r"^no trained model at models/sft/merged: run `make repro` first$"
    with pytest.raises(UserError, match=expected):
        repro.evaluate()


def test_eval_predicts_and_scores_only(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    (project.dir / "models/sft/merged").mkdir(parents=True)
    project.write("dvc.yaml", (ROOT / "dvc.yaml").read_text())
    asked: list[tuple[str, ...]] = []

    def run(*arguments: str) -> repro.Progress:
        asked.append(arguments)
        return repro.Progress(NAMES)

    monkeypatch.setattr(repro, "run", run)
    monkeypatch.setattr(repro, "verdict", lambda *_: "verdict")
    repro.evaluate()
    first, *stages = asked[0]
    assert first == "--single-item"
    models = ("base", "examples", "sft", "dpo", "grpo", "gkd")
    after = ["predict_seeds", "ask_teacher", "parity", "choose", "judge", "score", "report"]
    assert stages == [*(f"predict@{model}" for model in models), *after]
