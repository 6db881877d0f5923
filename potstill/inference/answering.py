"""The stage predict: a model's greedy answers to the test rows, with its own prompt."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from potstill.core import jsonl
from potstill.core.jsonl import Row
from potstill.core.models import MODELS, aligned
from potstill.inference import engine, few_shot, predictions, sharded
from potstill.inference.quoting import Grammars
from potstill.task.settings import Task
from potstill.training import alignment, model_folder


def untrained(t: Task, name: str, p: SimpleNamespace) -> None:
    """Predicts with the base model of params.yaml; `p` has its model, model_revision and predict,
    and few_shot where the model of that name is shown examples. Raises UserError as
    `engine.predict` and `Grammars` do."""
    tests = predictions.tests(t)
    asked = [t.messages(MODELS[name].prompt, row) for row in tests]
    batches, files = [asked], ["test.jsonl"]
    grammars = quoting(t, p, tests)
    if shots := MODELS[name].few_shot:
        lessons = jsonl.read_jsonl(t.data / "4-train.jsonl", ("id", "messages"))
        count = engine.token_counter(p.model, p.model_revision)
        room = p.predict.max_model_len - p.predict.max_tokens
        shown = few_shot.shown(asked, lessons[: p.few_shot.examples], room, count)
        said = (len(shown[0]) - len(asked[0])) // 2 if shown else 0
        print(f"examples: {said} of {len(lessons):,} training rows shown, in {room:,} tokens")
        batches, files = [asked, shown], ["again.jsonl", "test.jsonl"]
    seconds: list[float] = []
    timed = None if shots else seconds
    how = p.predict, p.model_revision
    rules = [grammars] * len(batches)
    ids = [[row["id"] for row in tests[: len(batch)]] for batch in batches]
    more: dict[str, Any] = {"stop_loops": True, "timed": timed, "grammars": rules}
    answers = sharded.predict(f"predict-{name}", ids, p.model, batches, *how, **more)
    folder = jsonl.fresh_folder(predictions.folder(t, name))
    for file, found in zip(files, answers, strict=True):
        predictions.write(folder / file, tests if found else [], found)
    if not shots:
        predictions.write_latency(t, name, seconds)


def trained(t: Task, name: str, weights: Path, p: SimpleNamespace) -> None:
    """Predicts with a model of the folder models/; `p` has models and predict. Where models has
    an alignment, also the validation rows, without grammars: they have no input of their own.
    Raises UserError as `untrained` does, and when the model is not whole."""
    rows = {"test.jsonl": predictions.tests(t), "valid.jsonl": []}
    chats = {"test.jsonl": [t.messages(MODELS[name].prompt, row) for row in rows["test.jsonl"]]}
    if aligned(p.models):
        rows["valid.jsonl"] = jsonl.read_jsonl(t.data / "4-valid.jsonl", ("id", "messages"))
    chats["valid.jsonl"] = [row["messages"][:-1] for row in rows["valid.jsonl"]]
    seconds: list[float] = []
    grammars = [quoting(t, p, rows["test.jsonl"]), None]
    folder = jsonl.fresh_folder(predictions.folder(t, name))
    if name not in p.models:
        print(f"predict: nothing to do, models has no {name}")
    elif not alignment.learnt(weights.parent):
        print(f"predict: nothing to do, align trained no {name}")
    else:
        model_folder.check_folder(weights, "run `make repro` first")
        asked, model = list(chats.values()), str(weights)
        ids = [[row["id"] for row in to] for to in rows.values()]
        how: dict[str, Any] = {"timed": seconds, "grammars": grammars}
        answers = sharded.predict(f"predict-{name}", ids, model, asked, p.predict, **how)
        for (file, to), found in zip(rows.items(), answers, strict=True):
            predictions.write(folder / file, to, found)
    predictions.write_latency(t, name, seconds)


def quoting(t: Task, p: SimpleNamespace, rows: list[Row]) -> list[str] | None:
    """The grammar of each row's answer where predict.grounded is true. Raises UserError as
    `Grammars` does."""
    return list(map(Grammars(t).of, rows)) if p.predict.grounded else None
