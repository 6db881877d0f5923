"""4-train.jsonl → 4-samples/: where models has dpo or grpo, what the sft student itself answers to
the first pairs.rows training rows, pairs.samples times each. What it gets wrong teaches an
alignment more than what others do.

samples.jsonl: {"id": "…", "sample": 0, "answer": "{…}", "finish_reason": "stop"}
report.json:   {"stage": "sample", "inputs": 1200, "answers": 4800}
"""

from potstill.core import jsonl, params, stage
from potstill.core.jsonl import Row
from potstill.core.models import aligned
from potstill.inference import sharded
from potstill.task import settings
from potstill.training import model_folder


def main() -> None:
    p = params.load("models", "seed", "pairs", "predict")
    t = settings.load()
    found: list[Row] = []
    asked: list[Row] = []
    if aligned(p.models):
        asked = jsonl.read_jsonl(t.data / "4-train.jsonl", ("id", "messages"))[: p.pairs.rows]
        merged = t.models / "sft" / "merged"
        model_folder.check_folder(merged, "run `make repro` first")
        chats = [row["messages"][:-1] for row in asked]
        drawn = {"n": p.pairs.samples, "temperature": p.pairs.temperature}
        ids = [[row["id"] for row in asked]]
        how = ids, str(merged), [chats], p.predict
        [answers] = sharded.predict("sample", *how, seed=p.seed, **drawn)
        which = [(row["id"], sample) for row in asked for sample in range(p.pairs.samples)]
        found = [
            {"id": id, "sample": sample} | {key: one[key] for key in ("answer", "finish_reason")}
            for (id, sample), one in zip(which, answers, strict=True)
        ]
    folder = jsonl.fresh_folder(t.data / "4-samples")
    jsonl.write_some(folder / "samples.jsonl", found)
    report = {"stage": "sample", "inputs": len(asked), "answers": len(found)}
    jsonl.write_json(folder / "report.json", report)
    done = f"{len(found):,} answers of the student to {len(asked):,} training rows"
    print(f"sample: {done if found else 'nothing to do, models has no dpo and no grpo'}")


if __name__ == "__main__":
    stage.run(main)
