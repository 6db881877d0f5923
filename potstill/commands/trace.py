"""Tells one row's life from seed to prediction: ID=9d81, the row's id or how it begins."""

import json
import sys
from collections.abc import Iterator

from potstill.checks import registry
from potstill.core.errors import UserError
from potstill.core.jsonl import Row, read_some, spelt
from potstill.core.models import MODELS
from potstill.dataset import reviews
from potstill.evaluation import score
from potstill.task.settings import Task, load

PREDICTIONS = {model: f"5-predictions/{model}/test" for model in MODELS}
FILES = "1-inputs 2-answers 3-kept 3-dropped 4-train 4-valid 4-test".split()
FILES += PREDICTIONS.values()
STATE = {True: "passed", False: "failed", None: "unscored"}
WIDTH = 9  # columns of the labels

Rows = dict[str, list[tuple[int, Row]]]  # by file: its rows of one id, each with its line
Story = Iterator[tuple[str, str]]  # a label, "" for more of the last, and a text


def story(t: Task, prefix: str) -> Iterator[str]:
    """The life of the row whose id begins with `prefix`, in lines. Raises UserError when no row's
    id does, or those of several."""
    files = {name: read_some(t.data / f"{name}.jsonl") for name in FILES}
    kinds: list[tuple[str, tuple[str, ...]]] = [("seeds", ()), ("gold", ("gold",))]
    for name, needed in kinds:  # where an id need not be written
        files[name] = t.written(t.data / f"{name}.jsonl", *needed)[0]
    id = _resolve(t, prefix, {row["id"] for rows in files.values() for row in rows if "id" in row})
    rows = {
        name: [(line, row) for line, row in enumerate(rows, 1) if row.get("id") == id]
        for name, rows in files.items()
    }
    yield f"{'row':<{WIDTH}} {id}, task {t.name}"
    for part in (_origin, _answers, _side, _predictions):
        for label, text in part(t, rows):
            first, *more = spelt(text).split("\n")
            yield f"{label:<{WIDTH}} {first}"
            yield from (f"{'':<{WIDTH}} {line}".rstrip() for line in more)


def _resolve(t: Task, prefix: str, ids: set[str]) -> str:
    """The one id that begins with `prefix`."""
    if not prefix or not ids:
        hint = f", such as `make trace ID={min(ids)[:8]}`" if ids else f": {t.data} has no rows yet"
        raise UserError(f"ID is {prefix!r}, expected a row's id or how it begins{hint}")
    matches = sorted(id for id in ids if id.startswith(prefix))
    if not matches:
        none = f"no row of task {t.name} has an id that begins with {prefix!r}"
        raise UserError(f"{none}: ids stand in {t.data}/*.jsonl")
    if len(matches) > 1 and prefix != matches[0]:
        several = f"{len(matches):,} ids begin with {prefix!r}"
        raise UserError(f"{several}, such as {matches[0]} and {matches[1]}: give more of it")
    return matches[0]


def _first(rows: Rows, *names: str) -> Row | None:
    """The row as the first of these files that has it knows it."""
    return next((row for name in names for _, row in rows[name]), None)


def _origin(t: Task, rows: Rows) -> Story:
    """Where the row comes from and what is asked for it."""
    for name, label in (("seeds", "seed"), ("gold", "gold"), ("1-inputs", "input")):
        for line, _ in rows[name]:
            yield label, f"{t.data}/{name}.jsonl:{line}"
    if not (row := _first(rows, "1-inputs", "seeds", "gold")):
        return  # a user's own row: it comes as messages
    keys = ("family", "category", "slice", "harvested", *t.config["input"])
    yield from ((key, str(row[key])) for key in keys if key in row)
    for message in t.messages("teacher", row):
        yield f"→ {message['role']}", message["content"]


def _answers(t: Task, rows: Rows) -> Story:
    """What the teacher answered, what is said of it, and what became of it."""
    if not (row := _first(rows, "1-inputs", "seeds")):
        return
    if not rows["2-answers"]:
        yield "answers", "none yet: run `dvc repro generate`"
    said = reviews.load(t.data / reviews.FILE)
    ends = {row["sample"]: f"dropped: {row['reason']}" for _, row in rows["3-dropped"]}
    ends |= {row["sample"]: "kept" for _, row in rows["3-kept"] if "sample" in row}
    for _, answer in rows["2-answers"]:
        text, sample = answer["answer"], answer["sample"]
        yield f"answer {sample}", text
        tokens = f"{answer['prompt_tokens'] or 0:,} + {answer['completion_tokens'] or 0:,} tokens"
        yield "", f"{answer['model']}, {tokens}, finish reason {answer['finish_reason']}"
        if refused := answer["error"] or answer.get("refusal"):
            yield "", f"refused: {refused}"
        else:
            taught = registry.taught(t, answer)
            for check in registry.verdicts(t, row, taught, training=True):
                why = f" ({check.reason.removeprefix(check.name + ': ')})" if check.reason else ""
                yield "", f"check {check.name}: {STATE[check.passed]}{why}"
        if verdict := said.verdict(row["id"], text):
            who = f" by {verdict['by']}" if "by" in verdict else ""
            new = f": {verdict['output']}" if verdict["verdict"] == "edit" else ""
            yield "", f"review: {verdict['verdict']}ed{who}{new}"
        yield "", ends.get(sample, "not filtered yet: run `dvc repro filter`")


def _side(t: Task, rows: Rows) -> Story:
    """The side of the split, and the lesson or the expected answer there."""
    for name in ("4-train", "4-valid", "4-test"):
        for line, row in rows[name]:
            yield "split", f"{name[2:]}, {t.data}/{name}.jsonl:{line}"
            if "expected" in row:
                yield "expected", json.dumps(row["expected"], ensure_ascii=False)
            for message in row.get("messages", []):
                yield f"  {message['role']}", message["content"]
            return
    if rows["3-kept"]:
        why = "not split yet (`dvc repro split`), or beyond split.train_rows of params.yaml"
        yield "split", f"on no side: {why}"


def _predictions(t: Task, rows: Rows) -> Story:
    """What each model answered to a test row, and whether that is right."""
    if not (test := _first(rows, "4-test")):
        return
    if not any(rows[name] for name in PREDICTIONS.values()):
        yield "models", "no predictions yet: run `dvc repro`"
    for model, name in PREDICTIONS.items():
        for _, answer in rows[name]:
            judged = score.as_judged(t, model, answer)
            marks = score.mark(t, test, judged)
            right = "right" if marks["right"] else "unscored" if marks["unscored"] else "wrong"
            yield model, "; ".join([right, *registry.check(t, test, judged["answer"] or "")])
            yield "", answer["answer"] or "(no answer)"


def main() -> None:
    """`make trace`. Raises UserError as `story` does."""
    print(*story(load(), " ".join(sys.argv[1:])), sep="\n")
