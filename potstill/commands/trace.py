"""Tells one row's life from seed to prediction: ID=9d81, the row's id or how it begins."""

import json
import sys
import unicodedata
from collections.abc import Iterator

from potstill.checks import registry
from potstill.core.errors import UserError
from potstill.core.jsonl import Row, read_some
from potstill.core.models import MODELS
from potstill.dataset import reviews
from potstill.evaluation import score
from potstill.task.settings import Task, load

PREDICTIONS = {model: f"5-predictions/{model}/test" for model in MODELS}
FILES = "seeds 1-inputs gold 2-answers 3-kept 3-dropped 4-train 4-valid 4-test".split()
FILES += PREDICTIONS.values()
STATE = {True: "passed", False: "failed", None: "unscored"}
WIDTH = 9  # columns of the labels

Rows = dict[str, list[tuple[int, Row]]]  # by file: its rows of one id, each with its line


def story(t: Task, prefix: str) -> Iterator[str]:
    """The life of the row whose id begins with `prefix`, in lines. Raises UserError when no row's
    id does, or those of several."""
    files = {name: read_some(t.data / f"{name}.jsonl") for name in FILES}
    id = _resolve(t, prefix, {row["id"] for rows in files.values() for row in rows if "id" in row})
    rows = {
        name: [(line, row) for line, row in enumerate(rows, 1) if row.get("id") == id]
        for name, rows in files.items()
    }
    yield _line("row", f"{id}, task {t.name}")
    for part in (_origin, _answers, _side, _predictions):
        yield from part(t, rows)


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


def _origin(t: Task, rows: Rows) -> Iterator[str]:
    """Where the row comes from and what is asked for it."""
    for name, label in (("seeds", "seed"), ("gold", "gold"), ("1-inputs", "input")):
        for line, _ in rows[name]:
            yield _line(label, f"{t.data}/{name}.jsonl:{line}")
    if not (row := _first(rows, "1-inputs", "seeds", "gold")):
        return  # a user's own row: it comes as messages
    for key in ("family", "category", "slice", *t.config["input"]):
        if key in row:
            yield _line(key, str(row[key]))
    for message in t.messages("teacher", row):
        yield _line(f"→ {message['role']}", message["content"])


def _answers(t: Task, rows: Rows) -> Iterator[str]:
    """What the teacher answered, what is said of it, and what became of it."""
    if not (row := _first(rows, "1-inputs", "seeds")):
        return
    if not rows["2-answers"]:
        yield _line("answers", "none yet: run `dvc repro generate`")
    said = reviews.load(t.data / reviews.FILE)
    kept = {row.get("sample") for _, row in rows["3-kept"]}
    dropped = {row["sample"]: row["reason"] for _, row in rows["3-dropped"]}
    for _, answer in rows["2-answers"]:
        text, sample = answer["answer"], answer["sample"]
        yield _line(f"answer {sample}", text)
        tokens = f"{answer['prompt_tokens'] or 0:,} + {answer['completion_tokens'] or 0:,} tokens"
        yield _line("", f"{answer['model']}, {tokens}, finish reason {answer['finish_reason']}")
        if answer["error"]:
            yield _line("", f"refused: {answer['error']}")
        else:
            for check in registry.verdicts(t, row, text, training=True):
                why = f" ({check.reason.removeprefix(check.name + ': ')})" if check.reason else ""
                yield _line("", f"check {check.name}: {STATE[check.passed]}{why}")
        if verdict := said.verdict(row["id"], text):
            who = f" by {verdict['by']}" if "by" in verdict else ""
            new = f": {verdict['output']}" if verdict["verdict"] == "edit" else ""
            yield _line("", f"review: {verdict['verdict']}ed{who}{new}")
        if sample in dropped:
            yield _line("", f"dropped: {dropped[sample]}")
        elif kept & {sample, None}:
            yield _line("", "kept")
        else:
            yield _line("", "not filtered yet: run `dvc repro filter`")


def _side(t: Task, rows: Rows) -> Iterator[str]:
    """The side of the split, and the lesson or the expected answer there."""
    for name in ("4-train", "4-valid", "4-test"):
        for line, row in rows[name]:
            yield _line("split", f"{name[2:]}, {t.data}/{name}.jsonl:{line}")
            if "expected" in row:
                yield _line("expected", json.dumps(row["expected"], ensure_ascii=False))
            for message in row.get("messages", []):
                yield _line(f"  {message['role']}", message["content"])
            return
    if rows["3-kept"]:
        why = "not split yet (`dvc repro split`), or beyond split.train_rows of params.yaml"
        yield _line("split", f"on no side: {why}")


def _predictions(t: Task, rows: Rows) -> Iterator[str]:
    """What each model answered to a test row, and whether that is right."""
    if not (test := _first(rows, "4-test")):
        return
    if not any(rows[name] for name in PREDICTIONS.values()):
        yield _line("models", "no predictions yet: run `dvc repro`")
    for model, name in PREDICTIONS.items():
        for _, answer in rows[name]:
            marks = score.mark(t, test, answer)
            right = "right" if marks["right"] else "unscored" if marks.get("unscored") else "wrong"
            reasons = registry.check(t, test, answer["answer"] or "")
            yield _line(model, "; ".join([right, *reasons]))
            yield _line("", answer["answer"] or "(no answer)")


def _line(label: str, text: str) -> str:
    """A label and a text beside it. Control characters, which could move the cursor or hide text,
    are spelt out."""
    safe = "".join(
        c if c in "\n\t" or unicodedata.category(c) not in ("Cc", "Cf") else ascii(c)[1:-1]
        for c in text
    )
    first, *more = safe.split("\n")
    rest = (f"{'':<{WIDTH}} {line}".rstrip() for line in more)
    return "\n".join([f"{label:<{WIDTH}} {first}", *rest])


def main() -> None:
    print(*story(load(), " ".join(sys.argv[1:])), sep="\n")
