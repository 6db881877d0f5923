"""3-kept.jsonl → 4-train.jsonl, 4-valid.jsonl, 4-test.jsonl: by the hash of each row's id, so that a row never changes side
when the data grow. The test rows are gold.jsonl, or a held-out share where that file is empty.

Train, valid: {"id": "…", "messages": [{"role": "system", …}, {"role": "user", …}, {"role": "assistant", "content": "{…}"}]}
Test:         {"id": "…", "text": "…", "slice": "like_seeds", "expected": {"province": "云南省", …}}
"""

import hashlib
import json

from potstill import errors, params, rows, task


def main() -> None:
    p = params.load("task", "valid_share", "train_rows")
    t = task.load(p.task)
    kept = t.inputs(t.data / "3-kept.jsonl", "output")
    path = t.data / "gold.jsonl"
    gold = [] if path.is_file() and not path.stat().st_size else t.inputs(path, "slice", "gold")
    kept.sort(key=lambda row: place(row["id"]))
    valid = [row for row in kept if place(row["id"]) < p.valid_share]
    held_out = [row for row in kept[len(valid) :] if not gold and place(row["id"]) < 2 * p.valid_share]
    learnt = kept[len(valid) + len(held_out) :]
    train = learnt[: p.train_rows or None]
    test = gold or [{**row, "slice": "held_out", "gold": row["output"]} for row in held_out]
    refuse_leaks(t, gold, learnt + valid)
    for name, found in (("train", train), ("valid", valid), ("test", test)):
        if not found:
            raise errors.UserError(
                f"params.yaml: valid_share {p.valid_share} of the {len(kept)} rows of {t.data}/3-kept.jsonl leaves none for "
                f"{name}: give more seeds or another share"
            )
    rows.write_jsonl(t.data / "4-train.jsonl", (lesson(t, row) for row in train))
    rows.write_jsonl(t.data / "4-valid.jsonl", (lesson(t, row) for row in valid))
    fields = ["id", *t.config["input"], "slice"]
    rows.write_jsonl(
        t.data / "4-test.jsonl", ({key: row[key] for key in fields} | {"expected": row["gold"]} for row in test)
    )
    print(
        f"split: {len(kept)} rows = {len(train)} train + {len(learnt) - len(train)} beyond train_rows + {len(valid)} valid + "
        f"{len(held_out)} held out; {len(test)} test rows ({'gold' if gold else 'held out'})"
    )


def place(id: str) -> float:
    """Where a row stands between 0 and 1, by its id alone."""
    return int(hashlib.sha256(id.encode()).hexdigest()[:12], 16) / 16**12


def refuse_leaks(t: task.Task, gold: list[rows.Row], learnt: list[rows.Row]) -> None:
    """Raises UserError when a gold input, white space apart, is also learnt from."""
    ids = {t.fingerprint(row): row["id"] for row in learnt}
    for number, row in enumerate(gold, 1):
        if id := ids.get(t.fingerprint(row)):
            raise errors.UserError(
                f"{t.data}/gold.jsonl:{number}: the input of {row['id']} is also row {id} of {t.data}/seeds.jsonl, which is "
                "trained on: delete one of the two"
            )


def lesson(t: task.Task, row: rows.Row) -> rows.Row:
    """A messages row: the student's short prompt, the input, the answer as compact JSON."""
    answer = json.dumps(row["output"], ensure_ascii=False, separators=(",", ":"))
    return {"id": row["id"], "messages": [*t.messages("student", row), {"role": "assistant", "content": answer}]}


if __name__ == "__main__":
    errors.run(main)
