"""What becomes of the teacher's answers: the best to each input is kept, every other one gets the reason why not."""

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
from potstill.dataset import near_duplicates
from potstill.dataset.reviews import Reviews
from potstill.task.settings import Task

NEEDED = ("id", "sample", "answer", "finish_reason", "error")
INPUTS = 5000  # a job's, so that little is in memory at once
PARALLEL = 1 << 24  # bytes of answers for each process; below two such shares one process does it


@dataclass
class Sifted:
    """Lines of 3-kept.jsonl and 3-dropped.jsonl, and how many there are, the dropped by reason."""

    kept: str = ""
    dropped: str = ""
    count: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    first: str = ""  # the reason of the first dropped


class Job(NamedTuple):
    """Some inputs, why each is dropped whatever its answers are (or None), and the lines of their answers."""

    inputs: list[Row]
    twins: list[str | None]
    lines: list[bytes]
    first: int  # the number of the first line
    sealed: bool


def twins(task: Task, inputs: list[Row], threshold: float) -> list[str | None]:
    """For each input the reason that an earlier one makes it superfluous, or None.

    It depends on the inputs alone: a twin of an input whose answers all fail does not come and go with the teacher's luck.
    """
    texts = [task.fingerprint(row) for row in inputs]
    first: dict[str, int] = {}
    found: list[str | None] = []
    for i, text in enumerate(texts):
        same = first.setdefault(text, i)
        found.append(None if same == i else f"duplicate: of {inputs[same]['id']}")
    rest = list(first.values())
    near = near_duplicates.firsts(
        [texts[i] for i in rest], [inputs[i]["family"] for i in rest], threshold
    )
    for i, other in zip(rest, near, strict=True):
        if other is not None:
            like = rest[other]
            found[i] = (
                f"near_duplicate: of {inputs[like]['id']} ({near_duplicates.jaccard(texts[i], texts[like]):.2f})"
            )
    return found


def choose(
    task: Task, row: Row, answers: list[Row], twin: str | None, said: Reviews
) -> tuple[Row | None, list[Row]]:
    """The row of 3-kept.jsonl for one input, or None, and those of 3-dropped.jsonl, for every other answer to it.

    Of the answers that pass, one that a person accepted or edited is best, then one of the least distance, then the first.
    """
    found = [
        _judge(task, row, answer, said) if twin is None else ([twin], (0.0, 0.0), None)
        for answer in answers
    ]
    good = [place for place, (reasons, _, _) in enumerate(found) if not reasons]
    best = min(good, key=lambda place: found[place][1], default=None)
    dropped = []
    for place, (answer, (reasons, _, _)) in enumerate(zip(answers, found, strict=True)):
        if place != best:
            why = "; ".join(reasons) or f"spare: sample {answers[best or 0]['sample']} is kept"
            dropped.append(
                {
                    "id": row["id"],
                    "sample": answer["sample"],
                    "reason": why,
                    "answer": answer["answer"],
                }
            )
    if best is None:
        return None, dropped
    return {**row, "sample": answers[best]["sample"], "output": found[best][2]}, dropped


def _judge(
    task: Task, row: Row, answer: Row, said: Reviews
) -> tuple[list[str], tuple[float, float], Any]:
    """The reasons against an answer, its rank among good ones (the smaller the better), and the output."""
    text = answer["answer"]
    review = said.verdict(row["id"], text) if said.verdicts else None
    verdict = review and review["verdict"]
    if answer["error"]:
        return [f"refused: {answer['error']}"], (0.0, 0.0), None
    if verdict == "reject":
        return ["review: rejected"], (0.0, 0.0), None
    if not verdict and answer["finish_reason"] not in ("stop", None):
        return [f"finish_reason: {answer['finish_reason']}"], (0.0, 0.0), None
    if review and verdict == "edit":
        text = review["output"]
    parsed, reason = registry.parse(task, text)
    found = [] if reason else registry.verdicts(task, row, text, training=True)
    # What a person let through is held to its form alone.
    failed = [
        one.reason
        for one in found
        if one.passed is False and (not verdict or one.name == "json_schema")
    ]
    reasons = [one for one in (reason, *failed) if one]
    if verdict == "edit":
        reasons = [f"review: edit: {one}" for one in reasons]
    return (
        reasons,
        (0.0 if verdict else 1.0, sum(one.distance for one in found)),
        _in_order(task, parsed),
    )


def _in_order(task: Task, parsed: Any) -> Any:
    """The answer with its keys in the schema's order: the student learns one."""
    if not isinstance(parsed, dict):
        return parsed
    return {
        key: parsed[key] for key in (*task.schema.get("properties", {}), *parsed) if key in parsed
    }


def samples(path: Path, inputs: int) -> int:
    """How many answers to each of so many inputs there are in the file. Raises UserError when some have more than others."""
    count = sum(1 for _ in jsonl.read_lines(path))
    each, over = divmod(count, inputs)
    if over:
        raise UserError(
            f"{path} has {count} answers to {inputs} inputs, expected as many to each: run `dvc repro generate`"
        )
    return each


def jobs(path: Path, each: int, inputs: list[Row], twins: list[str | None]) -> Iterator[Job]:
    """The answers of the file, `each` to every input and in the order of the inputs, beside these."""
    lines, sealed = jsonl.read_lines(path), jsonl.is_sealed(path, jsonl.read_lines(path))
    for at in range(0, len(inputs), INPUTS):
        some = slice(at, at + INPUTS)
        yield Job(
            inputs[some],
            twins[some],
            list(islice(lines, each * len(inputs[some]))),
            at * each + 1,
            sealed,
        )


def do(task: Task, said: Reviews, job: Job) -> Sifted:
    """The rows of one job. Raises UserError when an answer is not one to the input at its place."""
    path = task.data / "2-answers.jsonl"
    answers = list(jsonl.parse_lines(job.lines, path, job.sealed, NEEDED, job.first))
    each = len(answers) // len(job.inputs)
    kept, dropped = [], []
    for place, (row, twin) in enumerate(zip(job.inputs, job.twins, strict=True)):
        own = answers[place * each : (place + 1) * each]
        for number, answer in enumerate(own, job.first + place * each):
            if answer["id"] != row["id"] or not isinstance(answer["answer"], str):
                raise UserError(
                    f"{path}:{number}: id is {answer['id']}, expected the text of an answer to {row['id']}, as in "
                    "1-inputs.jsonl: run `dvc repro generate`"
                )
        best, rest = choose(task, row, own, twin, said)
        kept += [best] if best else []
        dropped += rest
    return Sifted(
        "".join(jsonl.dump_lines(kept, task.data / "3-kept.jsonl")),
        "".join(jsonl.dump_lines(dropped, task.data / "3-dropped.jsonl")),
        len(kept),
        Counter(row["reason"].partition(":")[0] for row in dropped),
        dropped[0]["reason"] if dropped else "",
    )


class Workers:
    """Does jobs, in order; in processes of their own when there is enough to do. They begin when this is made: before there
    is much in memory that they would share."""

    def __init__(self, task: Task, said: Reviews, size: int) -> None:
        """`size` is that of all answers, in bytes."""
        self.common = task, said
        count = min(len(os.sched_getaffinity(0)), size // PARALLEL)
        self.pool = (
            ProcessPoolExecutor(
                count, get_context("fork"), initializer=_begin, initargs=self.common
            )
            if count > 1
            else None
        )
        if self.pool:
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
            yield from (one.result() for one in waiting)


_common: tuple[Task, Reviews]  # of a worker


def _begin(task: Task, said: Reviews) -> None:
    global _common
    _common = task, said
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent's to answer
    signal.signal(signal.SIGTERM, signal.SIG_DFL)

    def watch() -> None:
        if parent := parent_process():
            parent.join()
        os._exit(1)  # no worker outlives it

    threading.Thread(target=watch, daemon=True).start()


def _do(job: Job) -> Sifted:
    return do(*_common, job)
