"""Run this task's pipeline with DVC and end with the result.

repro   `make repro`: every stage that is not up to date
eval    `make eval`: predicts and scores with the model that is there; trains nothing

A line a stage says its place in the pipeline, what it did and its time; on a terminal a bar,
elsewhere a line a minute, says how far it is. All that DVC and the libraries said is in
.cache/repro.log.
"""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from pathlib import Path
from types import FrameType

from potstill.core import lockfile, params, project
from potstill.core.errors import UserError
from potstill.core.models import MODELS

LOG = Path(".cache/repro.log")
EVERY = 60  # seconds between two lines of progress where there is no terminal
WIDTH = 20  # characters of the bar
COLUMNS = 100  # of a line
# What a stage says of its progress: of a training's steps, the teacher's answers, vLLM's prompts.
COUNT = re.compile(r"(?:step |: )(\d[\d,]*)(?:/| of )(\d[\d,]*\d|\d)")
LEFT = re.compile(r"(?:about )?([\dhms ]+?) left")
AFTER_TRAINING = "predict ask_teacher parity choose judge score report".split()


def pull_option() -> list[str]:
    """DVC's option that fetches what others have made, where a remote is set."""
    files = (project.ROOT / ".dvc/config", project.ROOT / ".dvc/config.local")
    texts = [path.read_text(encoding="utf-8") for path in files if path.is_file()]
    return ["--pull"] if any(re.search(r"^\s*remote\s*=", text, re.M) for text in texts) else []


def stage_names() -> list[str]:
    """The stages of dvc.yaml in execution order, such as predict@sft."""
    names = []
    for name, stage in lockfile.read_yaml(lockfile.PIPELINE)["stages"].items():
        names += [f"{name}@{key}" for key in stage["foreach"]] if "foreach" in stage else [name]
    return names


class Progress:
    """What is shown of a run, from the lines that DVC and the stages print."""

    def __init__(self, names: list[str]) -> None:
        self.names, self.live = names, sys.stdout.isatty()
        self.stage: str | None = None
        self.done = 0  # stages that are up to date, those that did not run included
        self.started = self.shown = time.monotonic()
        self.ran: list[str] = []
        self.said: deque[str] = deque(maxlen=40)  # of the stage that runs, for an error
        self.state = self.last = ""

    def take(self, line: str) -> None:
        """Takes in a line of output."""
        if match := re.match(r"Running stage '(?:.*:)?([\w@-]+)':", line):
            self.close()
            self.stage, self.started = match[1], time.monotonic()
            self.shown = self.started
            self.said.clear()
            self.state = self.last = ""
            self.draw()
            return
        if re.match(r"Stage '.*' (didn't change|is cached)", line):
            self.done += 1
            return
        if not line or line.startswith((">", "Updating lock file", "Generating lock file")):
            return
        self.said.append(line)
        count, left = COUNT.search(line), LEFT.search(line)
        if count and left:
            self.state = f"{count[1]} of {count[2]}, {left[1].strip()} left"
            self.draw(float(count[1].replace(",", "")) / float(count[2].replace(",", "")))
        elif self.stage:
            own = rf"(?:{self.stage.partition('@')[0]}|predict)(?: \S+)?: (.*)"
            self.last = match[1] if (match := re.match(own, line)) else self.last

    def place(self) -> str:
        """The stage's number, in the order in which DVC runs them, and name: `[ 5/19] sft`."""
        total = str(len(self.names))
        return f"[{self.done + 1:{len(total)}}/{total}] {self.stage or '':16}"

    def draw(self, share: float | None = None) -> None:
        """Shows how far the stage is: a bar on a terminal, elsewhere a line once a minute."""
        now = time.monotonic()
        if self.live:
            filled = round(WIDTH * (share or 0))
            bar = "█" * filled + "░" * (WIDTH - filled)
            print(f"\r{self.place()} {bar} {self.state}\x1b[K", end="", flush=True)
        elif share is not None and now - self.shown >= EVERY:
            self.shown = now
            print(f"{self.place()} {self.state}", flush=True)

    def close(self, ended: bool = True) -> None:
        """The line of a stage that is done; what is drawn goes when it was not `ended`."""
        if self.live and self.stage:
            print("\r\x1b[K", end="")
        if self.stage and ended:
            self.ran.append(self.stage)
            seconds = time.monotonic() - self.started
            line = f"{self.place()} {duration(seconds):>9}  {self.last}".rstrip()
            print(line if len(line) <= COLUMNS else line[: COLUMNS - 1] + "…", flush=True)
            self.done += 1
        self.stage = None


def duration(seconds: float) -> str:
    """Seconds as `1 m 46 s`."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} m {rest:02} s" if minutes else f"{seconds:.1f} s"


def run(*arguments: str) -> Progress:
    """Runs `dvc repro` with these arguments and shows its progress. Raises UserError with what the
    stage said, or DVC, when it fails; KeyboardInterrupt when it was stopped."""
    LOG.parent.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "dvc", "repro", *arguments]
    progress, stopped = Progress(stage_names()), threading.Event()
    with LOG.open("w", encoding="utf-8") as log:
        child = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
        )
        try:  # while DVC starts, which takes longer: a stage's outputs are removed before it runs
            params.load()
        except UserError:
            child.kill()
            child.wait()
            raise

        def stop(signum: int, frame: FrameType | None) -> None:
            stopped.set()
            if signum == signal.SIGTERM:  # Ctrl-C reaches the child by itself
                child.terminate()

        before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            for line in child.stdout or ():
                log.write(line)
                log.flush()
                progress.take(line.rstrip())
            code = child.wait()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
    failed = progress.stage
    progress.close(ended=not code)
    if stopped.is_set():
        raise KeyboardInterrupt
    if code:
        said = [one for one in progress.said if not LEFT.search(one) and not one.startswith("WARN")]
        own = [one for one in said if not one.startswith("ERROR: failed to reproduce")]
        print(*(own if failed else said), sep="\n", file=sys.stderr)
        if match := re.search(r"unable to read: '([^']+)'", "\n".join(said)):
            path = match[1]  # DVC reads the files of every task, whichever is asked for
            raise UserError(f"{path}: not YAML, see above: mend the line, or `git checkout {path}`")
        what = f"stage {failed}" if failed else "`dvc repro`"
        raise UserError(f"{what} failed, see above; all that was said is in {LOG}")
    return progress


def verdict(progress: Progress, seconds: float) -> str:
    """The result of the pipeline in a few lines, from the files that score and report left."""
    from potstill.evaluation import score

    config = lockfile.read_yaml(Path("task.yaml"))
    metrics = json.loads(params.read_text(Path("reports/metrics.json")))
    cost = json.loads(params.read_text(Path("reports/cost.json")))
    model = score.student(metrics)
    before, after = metrics["base"], metrics[model]
    rows = config.get("headline_slice")
    home = os.path.relpath(Path.cwd(), project.ROOT)
    count = len(progress.ran)
    ran = f"{count} of {len(progress.names)} stages ran" if count else "nothing was to do"
    where = "" if home == "." else f"{home}/"
    lines = [
        "",
        f"{params.task_name()}: {score.headline(before):.1%} → {score.headline(after):.1%} "
        f"{score.WORD_SAYS[score.word_of(after)]} "
        f"(95 % interval {after['low']:.1%} to {after['high']:.1%})",
        f"  {'model':<10}{'share':>8}  95 % interval     right of {metrics['rows']:,} test rows"
        + (f" ({rows})" if rows else ""),
    ]
    for name in (name for name in MODELS if name in metrics):
        found = metrics[name]
        interval = f"{found['low']:.1%} to {found['high']:.1%}"
        lines.append(
            f"  {name:<10}{score.headline(found):>8.1%}  {interval:<16}  {found['right']:5,}  "
            f"{MODELS[name].says}"
        )
    lines += [
        f"report: {where}reports/report.html (all tasks: `make report`)",
        score.cost_line(cost),
        f"time: {duration(seconds)}; {ran}; the log is {where}{LOG}",
        "next: open the report; `make review` to judge answers; `make new-task NAME=…`",
    ]
    return "\n".join(lines)


def main() -> None:
    """`make repro`. Raises UserError as `run` does."""
    start = time.monotonic()
    progress = run(*pull_option(), *sys.argv[1:])
    print(verdict(progress, time.monotonic() - start))


def evaluate() -> None:
    """`make eval`. Raises UserError when no model has been trained, and as `run` does."""
    start = time.monotonic()
    if not Path("models/sft/merged").is_dir():
        raise UserError("no trained model at models/sft/merged: run `make repro` first")
    names = [name for name in stage_names() if name.partition("@")[0] in AFTER_TRAINING]
    progress = run("--single-item", *names)
    print(verdict(progress, time.monotonic() - start))


def report() -> None:
    """`make report`: this task's page, with what it needs first, then the index of all tasks."""
    from potstill.core import jsonl
    from potstill.report import pages

    run("report")
    index = project.ROOT / "reports/index.html"
    jsonl.write_text(index, pages.index())
    print(f"report: reports/report.html, {os.path.relpath(index)}")
