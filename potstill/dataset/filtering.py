"""What becomes of the teacher's answers: the best to each input is kept, every other one gets the
reason why not."""

import os
import signal
import threading
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from multiprocessing import get_context, parent_process
from pathlib import Path
from typing import Any, NamedTuple

from potstill.checks import registry
from potstill.core import jsonl
from potstill.core.errors import UserError
from potstill.core.jsonl import Row
from potstill.dataset import expand
from potstill.dataset.reviews import Reviews
from potstill.dataset.split import OWN
from potstill.task.settings import Task

NOTHING = (
    f"data/seeds.jsonl and data/{OWN} have no rows: give inputs for the teacher or rows of your "
    "own (`make import FILE=…`)"
)
NEEDED = ("id", "sample", "answer", "finish_reason", "error")
INPUTS = 5000  # of one job, so that little is in memory at once
PARALLEL = 1 << 24  # bytes of answers for each process; below two such shares one process does it


@dataclass
class Sifted:
    """Lines of 3-kept.jsonl and 3-dropped.jsonl, and how many there are, the dropped by reason."""

    kept: str
    dropped: str
    count: int
    reasons: Counter[str] = field(default_factory=Counter)
    first: str = ""  # the reason of the first dropped
    unwrapped: int = 0  # answers whose JSON was taken out of a fence or a text


class Job(NamedTuple):
    """Some inputs, why each is dropped whatever its answers are (or None), and the lines of their
    answers."""

    inputs: list[Row]
    twins: list[str | None]
    lines: list[bytes]
    first: int  # the number of the first line
    sealed: bool


class Judged(NamedTuple):
    """The reasons against an answer, its rank among good ones (the smaller the better), and what
    is kept of it."""

    reasons: list[str]
    rank: tuple[float, float] = (0.0, 0.0)
    output: Any = None
    unwrapped: bool = False


def twins(task: Task, inputs: list[Row], threshold: float) -> list[str | None]:
    """For each input the reason that an earlier one makes it superfluous, or None.

    It depends on the inputs alone: a twin of an input whose answers all fail does not come and go
    with the teacher's luck. A teacher that is paid is not asked for them (`expand`).
    """
    _, dropped = expand.distinct(task, inputs, [], threshold)
    reasons = {row["id"]: row["reason"] for row in dropped}
    return [reasons.get(row["id"]) for row in inputs]


def not_asked(task: Task) -> Row:
    """How many inputs `expand` left out for each reason; {} where none."""
    path = task.data / "1-expand/report.json"
    return dict(jsonl.read_json(path).get("dropped", {})) if path.is_file() else {}


def own_rows(task: Task) -> int:
    """How many rows of their own a user has, with which a task can do without the teacher's."""
    path = task.data / OWN
    return sum(1 for _ in jsonl.read_lines(path)) if path.is_file() and path.stat().st_size else 0


def choose(
    task: Task, row: Row, answers: list[Row], twin: str | None, said: Reviews
) -> tuple[Row | None, list[Row], int]:
    """The row of 3-kept.jsonl for one input, or None, those of 3-dropped.jsonl, for every other
    answer to it, and how many answers were unwrapped.

    Of the answers that pass, one that a person accepted or edited is best, then one that a person
    ranked below no other, then one of the least distance, then the first.
    """
    judged = [Judged([twin]) if twin else _judge(task, row, answer, said) for answer in answers]
    good = [place for place, verdict in enumerate(judged) if not verdict.reasons]
    if said.rankings and good:  # what is accepted or edited comes before what is ranked
        first = min(judged[place].rank[0] for place in good)
        good = [place for place in good if judged[place].rank[0] == first]
        good = [place for place in good if not _beaten(row, answers, place, good, said)] or good
    best = min(good, key=lambda place: judged[place].rank, default=None)
    kept, spare, dropped = None, "", []
    if best is not None:
        spare = f"spare: sample {answers[best]['sample']} is kept"
        kept = {**row, "sample": answers[best]["sample"], "output": judged[best].output}
    for place, (answer, verdict) in enumerate(zip(answers, judged, strict=True)):
        if place != best:
            reason = "; ".join(verdict.reasons) or spare
            fault = {"id": row["id"], "sample": answer["sample"], "reason": reason}
            dropped.append({**fault, "answer": answer["answer"]})
    return kept, dropped, sum(verdict.unwrapped for verdict in judged)


def _beaten(row: Row, answers: list[Row], place: int, good: list[int], said: Reviews) -> bool:
    """Whether a person ranked another of the good answers above this one."""
    text = answers[place]["answer"]
    return any(said.ranking(row["id"], text, answers[other]["answer"]) == "b" for other in good)


def _judge(task: Task, row: Row, answer: Row, said: Reviews) -> Judged:
    text = answer["answer"]
    review = said.verdict(row["id"], text)
    verdict = review and review["verdict"]
    if answer["error"]:
        return Judged([f"refused: {answer['error']}"])
    if verdict == "reject":
        return Judged(["review: rejected"])
    if not verdict and answer.get("refusal"):
        return Judged([f"refused: {answer['refusal']}"])
    if not verdict and answer["finish_reason"] not in ("stop", None):
        return Judged([f"finish_reason: {answer['finish_reason']}"])
    text = registry.taught(task, answer)
    unwrapped = text.strip() != answer["answer"].strip()
    if review and verdict == "edit":
        text, unwrapped = review["output"].strip(), False
    parsed, reason = registry.parse(task, text)
    if not reason and parsed is not text and (problem := registry.unfit(parsed, text)):
        reason = f"json: {problem}"
    checks = [] if reason else registry.verdicts(task, row, text, training=True)
    # What a person let through is held to its form alone.
    held = [check for check in checks if not verdict or check.name == "json_schema"]
    reasons = [reason, *(check.reason for check in held if check.passed is False)]
    prefix = "review: edit: " if verdict == "edit" else ""
    if isinstance(parsed, dict):  # in the schema's order: the student learns one
        keys = dict.fromkeys([*task.schema.get("properties", {}), *parsed])
        parsed = {key: parsed[key] for key in keys if key in parsed}
    rank = (0.0 if verdict else 1.0, sum(check.distance for check in checks))
    return Judged([prefix + reason for reason in reasons if reason], rank, parsed, unwrapped)


def samples(path: Path, inputs: int) -> int:
    """How many answers to each of so many inputs there are in the file. Raises UserError when some
    inputs have more than others."""
    count = sum(1 for _ in jsonl.read_lines(path))
    each, over = divmod(count, inputs)
    if over:
        raise UserError(
            f"{path} has {count} answers to {inputs} inputs, expected as many to each: "
            "run `dvc repro generate`"
        )
    return each


def jobs(path: Path, each: int, inputs: list[Row], twins: list[str | None]) -> Iterator[Job]:
    """The answers of the file, `each` to every input and in the order of the inputs, beside
    these."""
    lines, sealed = jsonl.read_lines(path), jsonl.is_sealed(path, jsonl.read_lines(path))
    for at in range(0, len(inputs), INPUTS):
        part = slice(at, at + INPUTS)
        answers = list(islice(lines, each * len(inputs[part])))
        yield Job(inputs[part], twins[part], answers, at * each + 1, sealed)


def do(task: Task, said: Reviews, job: Job) -> Sifted:
    """The rows of one job. Raises UserError when an answer is not one to the input at its place."""
    path = task.data / "2-answers.jsonl"
    answers = list(jsonl.parse_lines(job.lines, path, job.sealed, NEEDED, job.first))
    each = len(answers) // len(job.inputs)
    kept: list[Row] = []
    dropped: list[Row] = []
    unwrapped = 0
    for at, (row, twin) in enumerate(zip(job.inputs, job.twins, strict=True)):
        own = answers[at * each : (at + 1) * each]
        for number, answer in enumerate(own, job.first + at * each):
            if answer["id"] != row["id"] or not isinstance(answer["answer"], str):
                raise UserError(
                    f"{path}:{number}: id is {answer['id']}, expected the text of an answer to "
                    f"{row['id']}, as in 1-inputs.jsonl: run `dvc repro generate`"
                )
        best, rest, more = choose(task, row, own, twin, said)
        unwrapped += more
        kept += [best] if best else []
        dropped += rest
    return Sifted(
        "".join(jsonl.dump_lines(kept, task.data / "3-kept.jsonl")),
        "".join(jsonl.dump_lines(dropped, task.data / "3-dropped.jsonl")),
        len(kept),
        Counter(row["reason"].partition(":")[0] for row in dropped),
        dropped[0]["reason"] if dropped else "",
        unwrapped,
    )


class Workers:
    """Does jobs, in order; in processes of their own when there is enough to do. They begin when
    this is made: before there is much in memory that they would share."""

    def __init__(self, task: Task, said: Reviews, size: int) -> None:
        """`size` is that of all answers, in bytes."""
        self.common, self.pool = (task, said), None
        count = min(len(os.sched_getaffinity(0)), size // PARALLEL)
        if count > 1:
            self.pool = ProcessPoolExecutor(count, get_context("fork"), _begin, self.common)
            self.pool.submit(int).result()

    def do(self, jobs: Iterable[Job]) -> Iterator[Sifted]:
        """What becomes of each job."""
        if not self.pool:
            yield from (do(*self.common, job) for job in jobs)
            return
        waiting = deque[Any]()
        with self.pool as pool:
            for job in jobs:
                waiting.append(pool.submit(_do, job))
                if len(waiting) > 4:
                    yield waiting.popleft().result()
            yield from (future.result() for future in waiting)


_common: tuple[Task, Reviews]  # of a worker


def _begin(*common: Any) -> None:
    global _common
    _common = common
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent's to answer
    signal.signal(signal.SIGTERM, signal.SIG_DFL)

    def watch() -> None:
        if parent := parent_process():
            parent.join()
        os._exit(1)  # no worker outlives it

    threading.Thread(target=watch, daemon=True).start()


def _do(job: Job) -> Sifted:
    return do(*_common, job)
