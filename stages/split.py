"""3-kept.jsonl and own/messages.jsonl → 4-train.jsonl, 4-valid.jsonl, 4-test.jsonl: by the hash of
each row's family, so that a row never changes side when the data grow. The test rows are
gold.jsonl, or a held-out share where that file is empty.

Train, valid: {"id": "…", "messages": [{"role": "system", …}, {"role": "user", …}, …]}
Test:         {"id": "…", "text": "…", "slice": "like_seeds", "expected": {"province": "云南省", …}}
"""

from potstill.core import errors, jsonl, params, stage
from potstill.dataset import split
from potstill.task import settings


def main() -> None:
    p = params.load("near_duplicate", "split")
    t = settings.load()
    kept = split.inputs(t, t.data / "3-kept.jsonl", "output")
    path = t.data / "gold.jsonl"
    empty = path.is_file() and not path.stat().st_size
    gold = [] if empty else split.inputs(t, path, "slice", "gold")
    own, twice = split.chats(t, t.data / split.OWN)
    sides = split.divide(kept, own, gold, p.split.valid_share, p.split.test_share)
    split.refuse_leaks(sides, p.near_duplicate)
    train = sides["train"][: p.split.train_rows or None]
    for name, found in {**sides, "train": train}.items():
        if not found and name != "aside":
            raise errors.UserError(
                f"params.yaml: split.valid_share {p.split.valid_share} and split.test_share "
                f"{p.split.test_share} of {len(kept) + len(own)} rows leave none for {name}: "
                "give more seeds or other shares"
            )
    held_out = 0 if gold else len(sides["test"])
    beyond, aside = len(sides["train"]) - len(train), len(sides["aside"])
    counts = [len(train), beyond, len(sides["valid"]), held_out, aside, twice]
    if sum(counts) != len(kept) + len(own) + twice:
        raise AssertionError(f"{len(kept)} kept and {len(own)} own rows, but {counts} on the sides")
    jsonl.write_jsonl(t.data / "4-train.jsonl", (split.lesson(t, one.row) for one in train))
    jsonl.write_jsonl(
        t.data / "4-valid.jsonl", (split.lesson(t, one.row) for one in sides["valid"])
    )
    jsonl.write_jsonl(t.data / "4-test.jsonl", (split.test(t, one.row) for one in sides["test"]))
    print(
        f"split: {len(kept):,} kept + {len(own) + twice:,} own rows = {len(train):,} train "
        f"+ {beyond:,} beyond split.train_rows + {counts[2]:,} valid + {held_out:,} held out "
        f"+ {aside:,} own rows of a family held out + {twice:,} own rows that are there twice; "
        f"{len(sides['test']):,} test rows ({'gold' if gold else 'held out'})"
    )


if __name__ == "__main__":
    stage.run(main)
