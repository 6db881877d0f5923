"""3-kept.jsonl and your own messages.jsonl → 4-train.jsonl, 4-valid.jsonl, 4-test.jsonl: by the hash of each row's family, so that
a row never changes side when the data grow. The test rows are gold.jsonl, or a held-out share where that file is empty.

Train, valid: {"id": "…", "messages": [{"role": "system", …}, {"role": "user", …}, {"role": "assistant", "content": "{…}"}]}
Test:         {"id": "…", "text": "…", "slice": "like_seeds", "expected": {"province": "云南省", …}}
"""

import json

from potstill import errors, params, rows, split, task


def main() -> None:
    p = params.load("task", "near_duplicate", "valid_share", "test_share", "train_rows")
    t = task.load(p.task)
    kept = split.inputs(t, t.data / "3-kept.jsonl", "output")
    path = t.data / "gold.jsonl"
    gold = [] if path.is_file() and not path.stat().st_size else split.inputs(t, path, "slice", "gold")
    own, twice = split.chats(t, t.data / "messages.jsonl")
    sides = split.divide(kept, own, gold, p.valid_share, p.test_share)
    split.refuse_leaks(sides, p.near_duplicate)
    train = sides["train"][: p.train_rows or None]
    for name, found in {**sides, "train": train}.items():
        if not found and name != "aside":
            raise errors.UserError(
                f"params.yaml: valid_share {p.valid_share} and test_share {p.test_share} of {len(kept) + len(own)} rows leave "
                f"none for {name}: give more seeds or other shares"
            )
    held_out = 0 if gold else len(sides["test"])
    counts = [len(train), len(sides["train"]) - len(train), len(sides["valid"]), held_out, len(sides["aside"]), twice]
    if sum(counts) != len(kept) + len(own) + twice:
        raise AssertionError(f"{len(kept)} kept and {len(own)} own rows, but {counts} on the sides")
    rows.write_jsonl(t.data / "4-train.jsonl", (lesson(t, item.row) for item in train))
    rows.write_jsonl(t.data / "4-valid.jsonl", (lesson(t, item.row) for item in sides["valid"]))
    rows.write_jsonl(t.data / "4-test.jsonl", (test(t, item.row) for item in sides["test"]))
    print(
        f"split: {len(kept)} kept + {len(own) + twice} own rows = {counts[0]} train + {counts[1]} beyond train_rows + "
        f"{counts[2]} valid + {counts[3]} held out + {counts[4]} own rows of a family held out + {counts[5]} that stood there "
        f"twice; {len(sides['test'])} test rows ({'gold' if gold else 'held out'})"
    )


def lesson(t: task.Task, row: rows.Row) -> rows.Row:
    """A messages row: the student's short prompt, the input, the answer, an object as compact JSON; a user's own is one."""
    if "messages" in row:
        return row
    answer = row["output"]
    if not isinstance(answer, str):
        answer = json.dumps(answer, ensure_ascii=False, separators=(",", ":"))
    return {"id": row["id"], "messages": [*t.messages("student", row), {"role": "assistant", "content": answer}]}


def test(t: task.Task, row: rows.Row) -> rows.Row:
    """A test row, from a gold row or a kept one that is held out."""
    expected = row["gold"] if "gold" in row else row["output"]  # null: nothing is expected, the checks judge alone
    more = {"slice": row.get("slice", "held_out"), "expected": expected}
    return {key: row[key] for key in ("id", *t.config["input"])} | more


if __name__ == "__main__":
    errors.run(main)
