"""Make the rows of the quip task: `python -m tasks.quip.data.rows` writes data/seeds.jsonl and
gold.jsonl.

A row is a word of the teacher's lexicon (teacher/words.py), or one with what may stand before it:
打印机, 办公室的打印机. By one seed some words and some of what stands before them are set aside for
gold: no word of a gold row (of two characters or more) occurs in a seed. The slice `like_seeds` has
the categories of the seeds, `unseen_category` those of UNSEEN, which no seed has.

A seed:     {"id": "…", "word": "周一的早高峰"}
A gold row: {"id": "…", "word": "…", "slice": "like_seeds", "gold": null}; the checks judge alone
"""

import random
from pathlib import Path

from potstill.core.jsonl import Row, row_id, write_jsonl
from tasks.quip.teacher.words import BEFORE, UNSEEN, WORDS

SEED = 20260
GOLD_SEED = 20277  # nobody reads these rows: mistakes are studied on rows of another seed (7)
SEED_ROWS, LIKE_ROWS, UNSEEN_ROWS = 3300, 400, 100
ALONE, PAIRED = 310, 90  # gold rows of one word, and of a word with what stands before it
LONGEST = 6  # characters
DATA = Path(__file__).resolve().parent


def make(seed: int = SEED, gold_seed: int = GOLD_SEED) -> tuple[list[str], list[str], list[str]]:
    """The words of the seeds, of like_seeds and of unseen_category."""
    words = [word for text in WORDS.values() for word in text.split()]
    before = list(dict.fromkeys(text for _, befores, _ in BEFORE for text in befores.split()))
    pick = random.Random(gold_seed)
    # a word that others contain stays with the seeds: 茶 would keep 奶茶 and 茶杯 from them
    free = [
        word
        for word in words
        if len(word) > 1 and sum(word in other for other in [*words, *before]) == 1
    ]
    heads = sorted({head for _, _, heads in BEFORE for head in heads.split()} & set(free))
    alone, held_heads = pick.sample(free, ALONE), pick.sample(heads, len(heads) // 4)
    held = {*alone, *held_heads, *pick.sample(before, len(before) // 4)}
    joined = {
        word: (left, right)
        for kind, befores, heads in BEFORE
        for left in befores.split()
        for right in heads.split()
        if (word := join(kind, left, right))
    }
    like = alone + pick.sample(
        sorted(word for word, parts in joined.items() if held.issuperset(parts)), PAIRED
    )
    draw = random.Random(seed)
    rest = sorted(set(joined) - set(words))
    draw.shuffle(rest)
    seeds = [word for word in words + rest if not any(part in word for part in held)][:SEED_ROWS]
    draw.shuffle(seeds)
    pick.shuffle(like)
    return seeds, like, [word for text in UNSEEN.values() for word in text.split()]


def join(kind: str, left: str, right: str) -> str:
    """The two as one word, with 的 where there is room; "" where there is none."""
    full, short = f"{left}的{right}", f"{left}{right}"
    plain = len(short) == LONGEST and (
        kind == "time" or left in ("公司", "小区", "食堂", "学校", "医院", "酒店", "办公室")
    )
    return full if len(full) <= LONGEST else short if plain else ""


def files() -> dict[str, list[Row]]:
    """The rows of seeds.jsonl and gold.jsonl."""
    seeds, like, unseen = make()
    return {
        "seeds.jsonl": list(map(_row, seeds)),
        "gold.jsonl": [
            _row(word) | {"slice": name, "gold": None}
            for name, words in (("like_seeds", like), ("unseen_category", unseen))
            for word in words
        ],
    }


def _row(word: str) -> Row:
    return {"id": row_id({"word": word}), "word": word}


if __name__ == "__main__":
    for name, written in files().items():
        write_jsonl(DATA / name, written)
        print(f"data/{name}: {len(written):,} rows")
