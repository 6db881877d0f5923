"""Successive halving (Jamieson and Talwalkar 2016): `make sweep S="lora_rank=4,8,16,32" ROWS=400`.

Every candidate trains on ROWS rows. The better half goes on with twice the rows, and so on; the
last two train on all rows. Better is the lower loss on the validation rows at the training's end:
the test rows, by which the winner is measured, choose nothing.
"""

import csv
import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from potstill.core import jsonl, project
from potstill.core.errors import UserError
from potstill.evaluation import score
from potstill.evaluation.statistics import percents

LAST = 2  # so many train on all rows
SPLIT = Path("data/4-split.json")
# Beside every section, such as teacher: by these the losses are of other tokens or rows
OTHER_LOSS = {"model", "model_revision", "models", "near_duplicate", "max_length"}


@dataclass
class Trial:
    """An experiment: the values that it sets, the rows that it trained on (0 = all), its name, the
    loss on the validation rows (infinite where it failed), the share of right test rows and the
    seconds that it took."""

    values: list[str]
    rows: int
    name: str = "failed"
    loss: float = math.inf
    share: float = math.nan
    seconds: float = 0.0


def run(each: list[list[str]], rows: int, start: Callable[[list[str]], int]) -> list[Trial]:
    """All experiments of the halving of the candidates `each`, in the order in which they ran;
    `start` runs one with the values given and returns an exit code. Raises UserError for a sweep
    whose losses say nothing of one another."""
    names = {value.partition("=")[0] for values in each for value in values}
    if wrong := sorted(name for name in names if "." in name or name in OTHER_LOSS):
        raise UserError(
            f"S has {wrong[0]}, which ROWS cannot choose: the losses on the validation rows could "
            "be of other tokens or rows; expected knobs of the training alone, or leave ROWS out"
        )
    trials: list[Trial] = []
    while True:
        rows = 0 if len(each) <= LAST or rows >= available() else rows
        this = [trial(values, rows, start) for values in each]
        trials += this
        left = sorted((one for one in this if one.name != "failed"), key=lambda one: one.loss)
        if not rows or not left:
            return trials
        each = [one.values for one in left[: max(LAST, math.ceil(len(this) / 2))]]
        print(f"sweep: {rows:,} rows: on go {'; '.join(map(' '.join, each))}", flush=True)
        rows *= 2


def available() -> float:
    """How many rows there are to train on, infinitely many where split has not run yet."""
    if not SPLIT.is_file():
        return math.inf
    counts = jsonl.read_json(SPLIT)
    return float(counts["train"] + counts["beyond split.train_rows"])


def trial(values: list[str], rows: int, start: Callable[[list[str]], int]) -> Trial:
    """An experiment on so many rows, run."""
    known, began = set(project.experiments()), time.monotonic()
    code = start([*values, f"split.train_rows={rows}"] if rows else values)
    done = Trial(values, rows, seconds=time.monotonic() - began)
    new = {name: sha for name, sha in project.experiments().items() if name not in known}
    if code or len(new) != 1:
        return done
    [(done.name, sha)] = new.items()
    place = f"{sha}:{project.git('rev-parse', '--show-prefix')}reports"
    losses, metrics = project.blobs([f"{place}/tables/eval_loss.csv", f"{place}/metrics.json"])
    if losses is None or metrics is None:
        raise UserError(f"{done.name} has no reports/tables/eval_loss.csv: `git status` says why")
    done.loss = float(list(csv.DictReader(losses.decode().splitlines()))[-1]["loss"])
    measured = json.loads(metrics)
    done.share = score.headline(measured[score.student(measured)])
    return done


def lines(trials: list[Trial]) -> list[str]:
    """What each experiment cost and found, as a table, and which is best."""
    wide = max(len(" ".join(one.values)) for one in trials)
    text = [f"{'rows':>6}  {'':{wide}}  validation loss  test rows right  seconds"]
    ran = [one for one in trials if one.name != "failed"]
    shares = dict(zip(map(id, ran), percents(*(one.share for one in ran)), strict=True))
    for one in trials:
        rows, given = f"{one.rows:,}" if one.rows else "all", " ".join(one.values)
        found = f"{one.loss:15.6g}  {shares[id(one)]:>15}" if id(one) in shares else " " * 32
        text.append(f"{rows:>6}  {given:{wide}}  {found}  {one.seconds:7.0f}  {one.name}")
    most = [one for one in ran if not one.rows]
    if most:
        best = min(most, key=lambda one: one.loss)
        text.append(f"best by its loss: {' '.join(best.values)}: `dvc exp apply {best.name}`")
    return text
