"""Training and serving held against each other → 5-parity/: the base with the adapter on it answers
the test rows (sft.jsonl), for score to compare with those of the merged model; where models has
dpo, grpo or gkd, the sft student with the adapter of that, too (such as dpo.jsonl). report.json
counts training rows whose token ids are not the served ones.

report.json: {"lessons": 100, "other_tokens": []}
"""

from potstill.core import jsonl, params, stage
from potstill.core.models import ALIGNED
from potstill.inference import answering, parity, predictions, sharded
from potstill.task import settings
from potstill.training import model_folder

LESSONS = 100  # training rows whose tokens are compared


def main() -> None:
    named = ("predict.max_tokens", "predict.dtype", "predict.grounded", "predict.shards")
    p = params.load("model", "model_revision", *named)
    t = settings.load()
    tests = predictions.tests(t)
    merged = t.models / "sft" / "merged"
    model_folder.check_folder(merged, "run `dvc repro merge`")
    asked = [t.messages("student", row) for row in tests]
    grammars = answering.quoting(t, p, tests)
    folder = jsonl.fresh_folder(t.data / "5-parity")
    bases = {"sft": (p.model, p.model_revision), **dict.fromkeys(ALIGNED, (str(merged), ""))}
    ids = [row["id"] for row in tests]
    for name, base in bases.items():
        adapter = t.models / name / "adapter"
        if (adapter / "adapter_config.json").is_file():  # tuner_type full has none to merge
            path = predictions.folder(t, name) / "test.jsonl"
            before = predictions.read(path, tests, f"run `dvc repro -f predict@{name}`")
            lengths = [row["completion_tokens"] for row in before]
            how = (asked, lengths, p.predict, grammars)
            found = sharded.with_adapter(f"parity/{name}", ids, base, adapter, *how)
            predictions.write(folder / f"{name}.jsonl", tests, found)
    lessons = jsonl.read_jsonl(t.data / "4-train.jsonl", ("id", "messages"))[:LESSONS]
    others = list(parity.other_tokens(p.model, p.model_revision, merged, lessons))
    jsonl.write_json(folder / "report.json", {"lessons": len(lessons), "other_tokens": others})
    said = f"{len(others):,} of {len(lessons):,} training rows"
    print(f"parity: {said} have other tokens where they are served")


if __name__ == "__main__":
    stage.run(main)
