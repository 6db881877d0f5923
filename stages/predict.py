"""4-test.jsonl → 5-predictions/<model>: `python -m stages.predict base`, or another model of
potstill/core/models.py. Greedy answers by vLLM, with the model's own prompt.

base      the untrained model, with the teacher's long prompt
examples  the same prompts again, of which score counts what changed between two runs of the same
          (A/A, again.jsonl), and with as many training rows as fit shown as examples (few-shot)
sft, dpo  the trained models, with the student's short prompt; where models has dpo also to the
          validation rows (valid.jsonl), by which `choose` picks one. No dpo, no answers of it.
A row is that of potstill/inference/predictions.py; a file with no rows is not written.
"""

import sys
from pathlib import Path

from potstill.core import errors, jsonl, params, stage
from potstill.core.models import MODELS
from potstill.inference import engine, few_shot, predictions
from potstill.task import settings
from potstill.training import model_folder

NAMES = [name for name in MODELS if name != "teacher"]


def untrained(name: str) -> None:
    """Predicts with the base model of params.yaml."""
    shots = MODELS[name].few_shot
    p = params.load("model", "model_revision", "predict", *(["few_shot"] if shots else []))
    t = settings.load()
    tests = predictions.tests(t)
    asked = [t.messages(MODELS[name].prompt, row) for row in tests]
    batches, files = [asked], ["test.jsonl"]
    if shots:
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
    answers = engine.predict(p.model, batches, *how, stop_loops=True, timed=timed)
    folder = jsonl.fresh_folder(predictions.folder(t, name))
    for file, found in zip(files, answers, strict=True):
        predictions.write(folder / file, tests if found else [], found)
    if not shots:
        predictions.write_latency(t, name, seconds)


def trained(name: str, weights: Path) -> None:
    """Predicts with a model of the folder models/."""
    p = params.load("models", "predict")
    t = settings.load()
    rows = {"test.jsonl": predictions.tests(t), "valid.jsonl": []}
    chats = {"test.jsonl": [t.messages(MODELS[name].prompt, row) for row in rows["test.jsonl"]]}
    if "dpo" in p.models:
        rows["valid.jsonl"] = jsonl.read_jsonl(t.data / "4-valid.jsonl", ("id", "messages"))
    chats["valid.jsonl"] = [row["messages"][:-1] for row in rows["valid.jsonl"]]
    seconds: list[float] = []
    folder = jsonl.fresh_folder(predictions.folder(t, name))
    if name in p.models:
        model_folder.check_folder(weights, "run `make repro` first")
        answers = engine.predict(str(weights), list(chats.values()), p.predict, timed=seconds)
        for (file, asked), found in zip(rows.items(), answers, strict=True):
            predictions.write(folder / file, asked, found)
    else:
        print(f"predict: nothing to do, models has no {name}")
    predictions.write_latency(t, name, seconds)


def main() -> None:
    if len(sys.argv) != 2 or sys.argv[1] not in NAMES:
        raise errors.UserError(f"usage: python -m stages.predict {'|'.join(NAMES)}")
    name = sys.argv[1]
    weights = MODELS[name].weights
    if weights is None:
        untrained(name)
    else:
        trained(name, weights)


if __name__ == "__main__":
    stage.run(main)
