"""`make trace ID=…`: one row's life from seed to prediction, as far as the pipeline has run.

python -m potstill.commands.trace [--task NAME] ID, where ID is a row's id or how it begins.
"""

import argparse
import json
import unicodedata
from collections.abc import Iterable, Iterator

from potstill.checks import registry
from potstill.core import errors, jsonl, params
from potstill.core.errors import UserError
from potstill.core.jsonl import Row
from potstill.dataset import reviews
from potstill.evaluation import score
from potstill.task import settings
from potstill.task.settings import Task

FILES = (
    "seeds",
    "1-inputs",
    "gold",
    "2-answers",
    "3-kept",
    "3-dropped",
    "4-train",
    "4-valid",
    "4-test",
)
SAID = {"accept": "accepted", "reject": "rejected", "edit": "edited"}
STATE = {True: "passed", False: "failed", None: "unscored"}
WIDTH = 9  # columns of the labels

Found = dict[
    str, list[tuple[int, Row]]
]  # by file: its rows of one id, each with its line; a missing file is not there


def story(t: Task, prefix: str) -> Iterator[str]:
    """The life of the row whose id begins with `prefix`, in lines. Raises UserError when there is none, or several."""
    files = {name: _read(t, name) for name in FILES if (t.data / f"{name}.jsonl").is_file()}
    predictions = {
        path.stem: _read(t, path.stem) for path in sorted(t.data.glob("5-predictions-*.jsonl"))
    }
    id = _resolve(t, prefix, (row["id"] for some in files.values() for row in some if "id" in row))
    found: Found = {
        name: [(line, row) for line, row in enumerate(some, 1) if row.get("id") == id]
        for name, some in {**files, **predictions}.items()
    }
    yield _line("row", f"{id}, task {t.name}")
    yield from _origin(t, found)
    yield from _answers(t, found)
    yield from _side(t, found)
    yield from _predictions(t, found, predictions)


def _read(t: Task, name: str) -> list[Row]:
    path = t.data / f"{name}.jsonl"
    return jsonl.read_jsonl(path) if path.stat().st_size else []


def _resolve(t: Task, prefix: str, ids: Iterable[str]) -> str:
    """The one id that begins with `prefix`."""
    known = sorted(set(ids))
    if not prefix or not known:
        such = (
            f", such as `make trace ID={known[0][:8]}`" if known else f" ({t.data} has no rows yet)"
        )
        raise UserError(f"ID is {prefix!r}, expected a row's id or how it begins{such}")
    found = [id for id in known if id.startswith(prefix)]
    if prefix in found:
        return prefix
    if not found:
        raise UserError(
            f"no row of task {t.name} has an id that begins with {prefix!r}: ids stand in {t.data}/*.jsonl"
        )
    if len(found) > 1:
        raise UserError(
            f"{len(found):,} ids begin with {prefix!r}, such as {found[0]} and {found[1]}: give more of it"
        )
    return found[0]


def _origin(t: Task, found: Found) -> Iterator[str]:
    """Where the row comes from and what is asked for it."""
    for name, label in (("seeds", "seed"), ("gold", "gold"), ("1-inputs", "input")):
        for line, _ in found.get(name, []):
            yield _line(label, f"{t.data}/{name}.jsonl:{line}")
    row = next(
        (row for name in ("1-inputs", "seeds", "gold") for _, row in found.get(name, [])), None
    )
    if row is None:  # a user's own row: it comes as messages
        return
    for key in (
        *(key for key in ("family", "category", "slice") if key in row),
        *t.config["input"],
    ):
        yield _line(key, str(row[key]))
    for message in t.messages("teacher", row):
        yield _line(f"→ {message['role']}", message["content"])


def _answers(t: Task, found: Found) -> Iterator[str]:
    """What the teacher answered, what is said of it, and what became of it."""
    row = next((row for name in ("1-inputs", "seeds") for _, row in found.get(name, [])), None)
    if row is None:
        return
    if not found.get("2-answers"):
        yield _line("answers", "none yet: run `dvc repro generate`")
    said = reviews.load(t.data / "reviews.jsonl")
    kept = {row.get("sample"): row for _, row in found.get("3-kept", [])}
    dropped = {row["sample"]: row["reason"] for _, row in found.get("3-dropped", [])}
    for _, answer in found.get("2-answers", []):
        text, sample = answer["answer"], answer["sample"]
        yield _line(f"answer {sample}", text)
        tokens = f"{answer['prompt_tokens'] or 0:,} + {answer['completion_tokens'] or 0:,} tokens"
        yield _line("", f"{answer['model']}, {tokens}, finish reason {answer['finish_reason']}")
        if answer["error"]:
            yield _line("", f"refused: {answer['error']}")
        else:
            for one in registry.verdicts(t, row, text, training=True):
                why = f" ({one.reason.removeprefix(one.name + ': ')})" if one.reason else ""
                yield _line("", f"check {one.name}: {STATE[one.passed]}{why}")
        if verdict := said.verdict(row["id"], text):
            who = f" by {verdict['by']}" if "by" in verdict else ""
            new = f": {verdict['output']}" if verdict["verdict"] == "edit" else ""
            yield _line("", f"review: {SAID[verdict['verdict']]}{who}{new}")
        if sample in dropped:
            yield _line("", f"dropped: {dropped[sample]}")
        elif sample in kept or None in kept:
            yield _line("", "kept")
        else:
            yield _line("", "not filtered yet: run `dvc repro filter`")


def _side(t: Task, found: Found) -> Iterator[str]:
    """The side of the split, and the lesson or the expected answer there."""
    for name in ("4-train", "4-valid", "4-test"):
        for line, row in found.get(name, []):
            yield _line("split", f"{name[2:]}, {t.data}/{name}.jsonl:{line}")
            if "expected" in row:
                yield _line("expected", json.dumps(row["expected"], ensure_ascii=False))
            for message in row.get("messages", []):
                yield _line(f"  {message['role']}", message["content"])
            return
    if found.get("3-kept"):
        yield _line(
            "split",
            "on no side: not split yet (`dvc repro split`), or beyond split.train_rows of params.yaml",
        )


def _predictions(t: Task, found: Found, predictions: Iterable[str]) -> Iterator[str]:
    """What each model answered to a test row, and whether that is right."""
    if not (tests := found.get("4-test")):
        return
    test, shown = tests[0][1], False
    for name in predictions:
        for _, answer in found[name]:
            marks, reasons = (
                score.mark(t, test, answer),
                registry.check(t, test, answer["answer"] or ""),
            )
            right = "right" if marks["right"] else "unscored" if marks.get("unscored") else "wrong"
            yield _line(name.removeprefix("5-predictions-"), "; ".join([right, *reasons]))
            yield _line("", answer["answer"] or "(no answer)")
            shown = True
    if not shown:
        yield _line("models", "no predictions yet: run `dvc repro`")


def _line(label: str, text: str) -> str:
    """A label and a text beside it. Control characters, which could move the cursor or hide text, are spelt out."""
    safe = "".join(
        c if c in "\n\t" or unicodedata.category(c) not in ("Cc", "Cf") else ascii(c)[1:-1]
        for c in text
    )
    first, *more = safe.split("\n")
    return "\n".join(
        [f"{label:<{WIDTH}} {first}", *(f"{'':<{WIDTH}} {line}".rstrip() for line in more)]
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m potstill.commands.trace", description=__doc__)
    parser.add_argument("--task", help="a folder of tasks/; the active one when left out")
    parser.add_argument("id", nargs="?", default="", help="a row's id or how it begins")
    options = parser.parse_args()
    for line in story(settings.load(options.task or params.load("task").task), options.id):
        print(line)


if __name__ == "__main__":
    errors.run(main)
