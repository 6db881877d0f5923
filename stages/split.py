"""3-kept.jsonl and own/messages.jsonl → 4-train.jsonl, 4-valid.jsonl, 4-test.jsonl, 4-split.json
and 4-scoring/: by the hash of each row's family, so that a row never changes side when the data
grow. The test rows are gold.jsonl, or a held-out share where that file is empty.

Train, valid: {"id": "…", "messages": [{"role": "system", …}, {"role": "user", …}, …]}
Test:         {"id": "…", "text": "…", "slice": "like_seeds", "expected": {"province": "云南省", …}}
Split:        {"stage": "split", "kept": 3824, "own": 0, "train": 3425, …, "dropped": [{"where":
              "data/own/messages.jsonl:7", "id": "…", "reason": "near_duplicate: of …"}]}
Scoring:      the validation rows that score checkpoints (potstill/dataset/scoring.py), and with
              which checks; only {"rows": 0} where best_checkpoint.rows is 0
"""

from potstill.core import jsonl, params, stage
from potstill.dataset import lengths, scoring, split
from potstill.task import settings


def main() -> None:
    named = ("model", "model_revision", "max_length", "best_checkpoint", "predict.max_tokens")
    p = params.load("near_duplicate", "split", *named)
    t = settings.load()
    kept = split.inputs(t, t.data / "3-kept.jsonl", "output")
    gold = split.items(t, t.data / "gold.jsonl", t.gold())
    own, twice, left_out = split.chats(t, t.data / split.OWN, p.split.several)
    given = len(own) + twice + len(left_out)
    kept, own = split.joined(kept, own, p.near_duplicate)
    sides = split.divide(kept, own, gold, p.split.valid_share, p.split.test_share)
    learnt = sides["train"] + sides["valid"]
    like = split.like_tests(learnt, sides["test"], p.near_duplicate)
    sides, dropped = split.without(sides, like)
    train = sides["train"][: p.split.train_rows or None]
    split.refuse_empty({**sides, "train": train}, kept, own, len(dropped), len(left_out), p.split)
    lessons = {
        name: [split.lesson(t, one.row) for one in some]
        for name, some in (("train", train), ("valid", sides["valid"]))
    }
    chats = [row["messages"] for some in lessons.values() for row in some]
    where = [f"{one.where} (id {one.id})" for one in train + sides["valid"]]
    lengths.refuse_long(chats, where, p.max_length, p.model, p.model_revision)
    scoring.write(t, sides["valid"], p)
    counts = {
        "train": len(train),
        "beyond split.train_rows": len(sides["train"]) - len(train),
        "valid": len(sides["valid"]),
        "held out": 0 if gold else len(sides["test"]),
        "own rows of a family held out": len(sides["aside"]),
        "own rows that are there twice": twice,
        "like a test row": len(dropped),
        **({"own rows with another answer": len(left_out)} if left_out else {}),
    }
    if sum(counts.values()) != len(kept) + given:
        raise AssertionError(f"{len(kept)} kept and {given} own rows, but {counts} on the sides")
    for name, rows in lessons.items():
        jsonl.write_jsonl(t.data / f"4-{name}.jsonl", rows)
    jsonl.write_jsonl(t.data / "4-test.jsonl", (split.test(t, one) for one in sides["test"]))
    report = {"stage": "split", "kept": len(kept), "own": given, **counts}
    jsonl.write_json(t.data / "4-split.json", report | {"dropped": [*dropped, *left_out]})
    parts = " + ".join(f"{number:,} {name}" for name, number in counts.items())
    print(
        f"split: {len(kept):,} kept + {given:,} own rows = {parts}; "
        f"{len(sides['test']):,} test rows ({'gold' if gold else 'held out'})"
    )
    if left_out:
        print(f"{left_out[0]['where']}: {left_out[0]['reason']} (split.several of params.yaml)")


if __name__ == "__main__":
    stage.run(main)
