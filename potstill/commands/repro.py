"""Run this task's pipeline with DVC and end with the result.

repro   `make repro`: every stage that is not up to date
eval    `make eval`: predicts and scores with the model that is there; trains nothing

A line a stage says its place in the pipeline, what it did and its time; on a terminal a bar,
elsewhere a line a minute, says how far it is. All that DVC and the libraries said is in
.cache/repro.log.
"""

import os
import re
import subprocess
import sys
import threading
import time
from collections import deque
from pathlib import Path

from potstill.core import jsonl, lockfile, params, project, weights
from potstill.core.errors import UserError
from potstill.core.models import MODELS
from potstill.task import settings
from potstill.task.settings import Task

LOG = Path(".cache/repro.log")
EVERY = 60  # seconds between two lines of progress where there is no terminal
WIDTH = 20  # characters of the bar
HELD_OUT = "held_out"  # the slice of test rows that are none of gold.jsonl's
COLUMNS = 100  # of a line
# What a stage says of its progress: of a training's steps, the teacher's answers, vLLM's prompts.
COUNT = re.compile(r"(?:step |: )(\d[\d,]*)(?:/| of )(\d[\d,]*\d|\d)")
LEFT = re.compile(r"(?:about )?([\dhms ]+?) left")


def pull_option() -> list[str]:
    """DVC's option that fetches what others have made, where a remote is set."""
    files = (project.ROOT / ".dvc/config", project.ROOT / ".dvc/config.local")
    texts = [path.read_text(encoding="utf-8") for path in files if path.is_file()]
    return ["--pull"] if any(re.search(r"^\s*remote\s*=", text, re.M) for text in texts) else []


def stage_names() -> list[str]:
    """The stages in execution order, such as predict@sft: those of data/dvc.yaml, which make the
    rows, where there is one, and those of dvc.yaml."""
    names = []
    for path in (project.DATA / lockfile.PIPELINE, lockfile.PIPELINE):
        for name, stage in ((lockfile.read_yaml(path) or {}).get("stages") or {}).items():
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
        self.last = ""  # what the stage said it did

    def take(self, line: str) -> None:
        """Takes in a line of output."""
        if match := re.match(r"Running stage '(?:.*:)?([\w@-]+)':", line):
            self.close()
            self.stage, self.last = match[1], ""
            self.started = self.shown = time.monotonic()
            self.said.clear()
            self.draw(0, "")
        elif re.match(r"Stage '.*' (didn't change|is cached)", line):
            self.done += 1
        elif line and not line.startswith((">", "Updating lock file", "Generating lock file")):
            self.said.append(line)
            count, left = COUNT.search(line), LEFT.search(line)
            if count and left:
                done, total = (float(number.replace(",", "")) for number in count.groups())
                self.draw(done / total, f"{count[1]} of {count[2]}, {left[1].strip()} left")
            elif self.stage:
                own = rf"(?:{self.stage.partition('@')[0]}|predict)(?: \S+)?: (.*)"
                self.last = match[1] if (match := re.match(own, line)) else self.last

    def place(self) -> str:
        """The stage's number, in the order in which DVC runs them, and name: `[ 5/19] sft`."""
        total = str(len(self.names))
        return f"[{self.done + 1:{len(total)}}/{total}] {self.stage or '':16}"

    def draw(self, share: float, state: str) -> None:
        """Shows how far the stage is: a bar on a terminal, elsewhere a line once a minute."""
        now = time.monotonic()
        if self.live:
            bar = ("█" * round(WIDTH * share)).ljust(WIDTH, "░")
            print(f"\r{self.place()} {bar} {state}\x1b[K", end="", flush=True)
        elif now - self.shown >= EVERY:
            self.shown = now
            print(f"{self.place()} {state}", flush=True)

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
    """Runs `dvc repro` with these arguments and shows its progress. Raises UserError for a bad
    parameter, and with what the stage said, or DVC, when it fails."""
    LOG.parent.mkdir(exist_ok=True)
    progress = Progress(stage_names())
    command = [*project.DVC, "repro", *arguments]
    with (
        LOG.open("w", encoding="utf-8") as log,
        subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,  # so that one signal reaches DVC and its stage once
            preexec_fn=project.restore_sigint,
        ) as child,
    ):
        output = child.stdout or ()
        try:
            check()  # while DVC starts: it removes a stage's outputs before the stage runs
            for line in output:
                log.write(line)
                log.flush()
                progress.take(line.rstrip())
        except BaseException:  # a stop, too: DVC and its stage end as by Ctrl-C
            progress.close(ended=False)
            stop = threading.Thread(target=project.interrupt, args=[child])
            stop.start()
            log.writelines(output)  # to its end, or DVC would wait for room in the pipe
            stop.join()
            raise
    failed = progress.stage
    progress.close(ended=not child.returncode)
    if child.returncode:
        own = any(one.startswith("error: ") for one in progress.said)
        noise = "WARN|ERROR: failed to reproduce" if own else "WARN"
        said = [one for one in progress.said if not LEFT.search(one) and not re.match(noise, one)]
        print(*said, sep="\n", file=sys.stderr)
        if match := re.search(r"unable to read: '([^']+)'", "\n".join(said)):
            path = match[1]  # DVC reads the files of every task, whichever is asked for
            raise UserError(f"{path}: not YAML, see above: mend the line, or `git checkout {path}`")
        what = f"stage {failed}" if failed else "`dvc repro`"
        raise UserError(
            f"{what} failed, see above; all that was said is in {project.prefix()}{LOG}"
        )
    return progress


def check() -> None:
    """Raises UserError for what is wrong with parameters and task and would be found late."""
    params.check()
    check_headline(settings.load())


def check_headline(task: Task) -> None:
    """Raises UserError where headline_slice names no slice of the test rows, which score would say
    after the training."""
    name = task.config.get("headline_slice")
    own = (task.data / "own/messages.jsonl").is_file()
    if name and not task.gold() and name != HELD_OUT and not own:
        raise UserError(
            f"task.yaml: headline_slice is {name!r}, but {task.data}/gold.jsonl has no rows and "
            f"the test rows are {HELD_OUT}: leave headline_slice out, or give test rows"
        )


def verdict(progress: Progress, seconds: float) -> str:
    """The result of the pipeline in a few lines, from the files that score and report left."""
    from potstill.evaluation import compare, score, seeds, sentences
    from potstill.evaluation.statistics import count, percent, percents

    metrics, cost = (
        jsonl.read_json(Path("reports", f"{name}.json")) for name in ("metrics", "cost")
    )
    student, tables = metrics[score.student(metrics)], Path("reports/tables")
    pairs = compare.read_csv(params.read_text(tables / "pairs.csv"), str(tables / "pairs.csv"))
    several = seeds.of(metrics)
    gain = sentences.gain(metrics, pairs, params.load("gate").gate.min_accuracy)
    sure = f"95 % interval {score.interval(student)}, {seeds.number(metrics)}"
    before, after = percents(*map(score.headline, (metrics["base"], student)))
    of = lockfile.read_yaml(Path("task.yaml")).get("headline_slice")
    rows, where = count(metrics["rows"], "test row"), project.prefix()
    ran = f"{len(progress.ran)} of {count(len(progress.names), 'stage')} ran"
    ran = ran if progress.ran else "nothing was to do"
    lines = [
        "",
        f"{params.task_name()}: {before} → {after} "
        f"{score.WORD_SAYS[score.word_of(student)]} ({sure})",
        *([seeds.sentence(metrics, Path("reports"))] if several else ()),
        *(gain or ()),
        f"  {'model':<10}{'share':>8}  95 % interval     right of {rows}"
        + (f" ({of})" if of else ""),
    ]
    for name, model in MODELS.items():
        if found := metrics.get(name):
            share, interval = percent(score.headline(found)), score.interval(found)
            right = f"{found['right']:5,}  {model.says}"
            lines.append(f"  {name:<10}{share:>8}  {interval:<16}  {right}")
    if said := weights.said(*params.student()):
        lines.append(f"the base is {said}")
    lines += [f"report: {where}reports/report.html (all tasks: `make report`)"]
    time_line = f"time: {duration(seconds)}; {ran}; the log is {where}{LOG}"
    if not progress.ran:  # as for a colleague who has pulled: the rest was said where it ran
        return "\n".join([*lines[1:], time_line])
    next_line = "next: open the report; `make review` to judge answers; `make new-task NAME=…`"
    return "\n".join([*lines, score.cost_line(cost), time_line, next_line])


def finish(*arguments: str) -> None:
    """Runs `dvc repro` with these arguments and prints the verdict. Raises UserError as `run`."""
    start = time.monotonic()
    progress = run(*arguments)
    print(verdict(progress, time.monotonic() - start))


def main() -> None:
    """`make repro`. Raises UserError as `run` does."""
    finish(*pull_option(), *sys.argv[1:])


def evaluate() -> None:
    """`make eval`. Raises UserError when no model has been trained, and as `run` does."""
    if not Path("models/sft/merged").is_dir():
        raise UserError("no trained model at models/sft/merged: run `make repro` first")
    names = stage_names()
    finish("--single-item", *names[names.index("predict@base") :])  # and all that follow it


def report() -> None:
    """`make report`: this task's page, with what it needs first, then the index of all tasks."""
    from potstill.report import pages

    run("report")
    index = project.ROOT / "reports/index.html"
    jsonl.write_text(index, pages.index())
    print(f"report: reports/report.html, {os.path.relpath(index)}")
