"""models/seeds, 4-test.jsonl → 5-seeds/43.jsonl: what the student of each further one of `seeds`
answers to the test rows, as stages/predict.py has sft answer.

Each is merged for as long as it answers, in a process of its own: vLLM gives memory back only when
its process ends. report.json: {"stage": "predict_seeds", "seeds": [42, 43, 44]}, of which the first
is sft.
"""

import shutil
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from potstill.core import errors, jsonl, params, stage
from potstill.core.models import MODELS
from potstill.inference import answering, predictions, sharded
from potstill.task import settings
from potstill.training import run

WORK = Path(".cache/seeds")  # of the working folder


def main() -> None:
    p = params.load("seeds", "model", "model_revision", "predict")
    t = settings.load()
    tests = predictions.tests(t)
    ids, prompt = [row["id"] for row in tests], MODELS["sft"].prompt
    chats = [t.messages(prompt, row) for row in tests]
    how: dict[str, Any] = {"grammars": [answering.quoting(t, p, tests)]}
    folder = jsonl.fresh_folder(t.data / "5-seeds")
    for seed in p.seeds[1:]:
        merged, adapter = WORK / f"{seed}/merged", t.models / f"seeds/{seed}"
        run.merge(p.model, p.model_revision, adapter, merged, WORK / f"{seed}")
        asked = f"predict_seeds/{seed}", [ids], str(merged), [chats], p.predict
        with ProcessPoolExecutor(1, get_context("spawn")) as pool:
            try:
                [answers] = pool.submit(sharded.predict, *asked, **how).result()
            except BrokenProcessPool:
                ended = f"seed {seed}: the process that answers was ended, perhaps out of memory"
                raise errors.UserError(f"{ended}: free some, and run the same again") from None
        shutil.rmtree(WORK / f"{seed}")
        predictions.write(folder / f"{seed}.jsonl", tests, answers)
    jsonl.write_json(folder / "report.json", {"stage": "predict_seeds", "seeds": p.seeds})
    if not p.seeds[1:]:
        print("predict_seeds: nothing to do, seeds has no further one")


if __name__ == "__main__":
    stage.run(main)
