"""The stage filter on many rows, and near-duplicate removal against others.

python -m bench.data [--json FILE], from the repository root; ten minutes.

First the stage itself, schema, four checks and near-duplicates, on a tenth of --rows and on all of
them, in a folder of its own. Then near-duplicate removal alone on --compare rows, each contender in
a process of its own:

ours         potstill.dataset.near_duplicates.firsts
datasketch   MinHashLSH, 128 permutations, its usual loop: a row that finds none is put in
distilabel   its step MinHashDedup, character 3-grams

The peers get an environment each in --peers. Recall is the share of the rows to be dropped that are
dropped, `false` the dropped rows that have no earlier near-duplicate at all; both by every pair's
own Jaccard similarity (scipy, no index). `RSS` is the largest sum over a contender's processes,
shared pages counted once for each.
"""

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import accumulate, chain, product
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
Found = dict[str, Any]
PEERS = {
    "datasketch": ("datasketch==1.6.5",),
    "distilabel": ("distilabel[minhash]==1.5.3", "datasketch==1.6.5", "requests==2.32.5"),
}
THRESHOLD = 0.8
EDITED = 0.2  # of the rows are copies of an earlier one with one to three edits
OPENINGS = ["请写一句关于", "帮我写一段", "请用{}字介绍", "把下面的话改写成{}字："]
OPENINGS += ["我想问一下", "请问", "", ""]
TASK = """
name: toy
input: [text]
checks:
  - json_schema
  - max_chars: {limit: 120, field: output}
  - excludes_input: {field: title}
  - language: {field: output}
  - repetition: {field: output}
"""
SCHEMA = {
    "type": "object",
    "properties": {
        "title": {"type": "string", "minLength": 1},
        "output": {"type": "string", "minLength": 1},
    },
    "required": ["title", "output"],
    "additionalProperties": False,
}


def texts(count: int, seed: int = 0) -> Iterator[str]:
    """Requests of 1 to 120 characters: an opening and words of a Zipf distribution, a share of
    them edited copies."""
    rng = random.Random(seed)
    common = [
        bytes(code).decode("gb2312") for code in product(range(0xB0, 0xD7), range(0xA1, 0xFA))
    ]
    pool = ["".join(rng.choices(common, k=rng.choice((1, 2, 2, 2, 3)))) for _ in range(20_000)]
    weights = list(accumulate(1 / (rank + 20) for rank in range(len(pool))))
    recent: list[str] = []
    for _ in range(count):
        if recent and rng.random() < EDITED:
            text = edited(rng, rng.choice(recent))
        else:
            length = min(40, max(1, int(rng.lognormvariate(2.3, 0.6))))
            words = "".join(rng.choices(pool, cum_weights=weights, k=length))
            text = rng.choice(OPENINGS).format(rng.randrange(20, 300, 10)) + words
        recent = [*recent[-4999:], text] if len(recent) < 5000 else recent
        recent[rng.randrange(len(recent))] = text
        yield text


def edited(rng: random.Random, text: str) -> str:
    characters = list(text)
    for _ in range(rng.choice((1, 1, 2, 3))):
        at = rng.randrange(len(characters))
        if rng.random() < 0.4:
            characters[at] = chr(rng.randrange(0x4E00, 0x9FA0))
        elif rng.random() < 0.5:
            characters.insert(at, "，")
        elif len(characters) > 4:
            del characters[at]
    return "".join(characters)


def project(folder: Path, count: int) -> None:
    """A small task in `folder`, `count` inputs and an answer to each; one in twenty is wrong."""
    from potstill.core import jsonl

    shutil.copy(ROOT / "params.yaml", folder)
    jsonl.write_text(folder / "task.yaml", TASK)
    jsonl.write_json(folder / "schema.json", SCHEMA)
    rng, data = random.Random(1), folder / "data"
    shares = {'{"title": "题"}': 0.02, "": 0.95, '{"title": "题", "output": "好的 okay。"}': 0.03}

    def answer(text: str) -> str:
        [flaw] = rng.choices([*shares], [*shares.values()])
        right = {"title": "题：" + text[:8], "output": text + "。"}
        return flaw or json.dumps(right, ensure_ascii=False)

    ids = [jsonl.row_id({"line": i}) for i in range(count)]
    inputs = (
        {"id": id, "text": text, "family": id} for id, text in zip(ids, texts(count), strict=True)
    )
    jsonl.write_jsonl(data / "1-inputs.jsonl", inputs)
    more = {"key": "0" * 64, "model": "mock", "max_tokens": 1024, "finish_reason": "stop"}
    more |= {"prompt_tokens": 60, "completion_tokens": 40, "error": None}
    answers = (
        {"id": id, "sample": 0, "answer": answer(text), **more}
        for id, text in zip(ids, texts(count), strict=True)
    )
    jsonl.write_jsonl(data / "2-answers.jsonl", answers)


# The contenders: they get texts and give the places of the rows that they drop.


def ours(lines: list[str]) -> list[int]:
    from potstill.dataset import near_duplicates

    found = near_duplicates.firsts(lines, [str(i) for i in range(len(lines))], THRESHOLD)
    return [i for i, first in enumerate(found) if first is not None]


def datasketch(lines: list[str]) -> list[int]:
    from datasketch import MinHash, MinHashLSH  # type: ignore[import-not-found]

    index, dropped = MinHashLSH(threshold=THRESHOLD, num_perm=128), []
    for i, text in enumerate(lines):
        minhash = MinHash(num_perm=128)
        minhash.update_batch([text[k : k + 3].encode() for k in range(max(1, len(text) - 2))])
        if index.query(minhash):
            dropped.append(i)
        else:
            index.insert(i, minhash)
    return dropped


def distilabel(lines: list[str]) -> list[int]:
    from distilabel.steps import MinHashDedup  # type: ignore[import-not-found]

    step = MinHashDedup(tokenizer="ngrams", n=3, threshold=THRESHOLD, num_perm=128)
    step.load()
    [rows] = step.process([{"text": text} for text in lines])
    return [i for i, row in enumerate(rows) if not row["keep_row_after_minhash_filtering"]]


def contend(name: str, source: str, target: str) -> None:
    lines = json.loads(Path(source).read_text(encoding="utf-8"))
    drop = {"ours": ours, "datasketch": datasketch, "distilabel": distilabel}
    if name in PEERS:  # not on the clock
        __import__(name)
    start = time.monotonic()
    dropped = drop[name](lines)
    Path(target).write_text(json.dumps({"seconds": time.monotonic() - start, "dropped": dropped}))


def truth(lines: list[str]) -> tuple[list[int], set[int]]:
    """The rows that a walk in order drops, and all that have an earlier near-duplicate, by every
    pair's similarity."""
    import numpy as np
    from scipy.sparse import csr_matrix

    from potstill.dataset.near_duplicates import SHORT, normal, shingles

    found = [normal(line) for line in lines]
    long = np.array([len(text) >= SHORT for text in found])
    tables, sizes = {}, {}
    for n in (2, 3):
        sets = [shingles(text, n) for text in found]
        names: dict[str, int] = {}
        columns = [names.setdefault(one, len(names)) for own in sets for one in own]
        sizes[n] = np.array([len(own) for own in sets])
        starts = np.concatenate([[0], np.cumsum(sizes[n])])
        tables[n] = csr_matrix(
            (np.ones(len(columns), np.int32), columns, starts), (len(sets), len(names))
        )
    earlier: dict[int, list[int]] = {}
    for at in range(0, len(lines), 500):
        for n in (2, 3):
            shared = (tables[n][at : at + 500] @ tables[n].T).tocoo()
            row, other = shared.row + at, shared.col
            fits = (other < row) & ((long[row] & long[other]) == (n == 3))
            row, other, shared = row[fits], other[fits], shared.data[fits]
            near = shared / (sizes[n][row] + sizes[n][other] - shared) >= THRESHOLD
            for one, first in zip(row[near].tolist(), other[near].tolist(), strict=True):
                earlier.setdefault(one, []).append(first)
    dropped: set[int] = set()
    for one in sorted(earlier):
        if any(first not in dropped for first in earlier[one]):
            dropped.add(one)
    return sorted(dropped), set(earlier)


# The bench itself.


def environment(name: str, folder: Path) -> Path:
    """The Python of a peer's environment, which is made when it is missing."""
    home, pins = folder.absolute() / name, " ".join(PEERS[name])
    python, ready = home / "bin/python", home / "ready"
    if not (ready.is_file() and ready.read_text() == pins):
        print(f"installing {pins} into {home}", file=sys.stderr, flush=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(home)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", *PEERS[name]], check=True)
        ready.write_text(pins)
    return python


def run(command: list[str], folder: Path) -> tuple[float, int]:
    """Seconds and the peak of all its processes' resident memory, in bytes."""
    env = os.environ | {
        "PYTHONPATH": str(ROOT),
        "HF_HUB_OFFLINE": "1",
        "DISTILABEL_LOG_LEVEL": "WARNING",
    }
    start, peak = time.monotonic(), 0
    process = subprocess.Popen(command, cwd=folder, env=env, start_new_session=True)
    while process.poll() is None:
        peak = max(peak, resident(process.pid))
        time.sleep(0.05)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")
    return time.monotonic() - start, peak


def resident(group: int) -> int:
    """Bytes of resident memory of all processes of a session."""
    total = 0
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == group:
            total += int(fields[21]) * os.sysconf("SC_PAGE_SIZE")
    return total


def stage(count: int) -> Found:
    """The stage filter on so many rows."""
    with tempfile.TemporaryDirectory() as name:
        project(Path(name), count)
        seconds, peak = run([sys.executable, "-m", "stages.filter"], Path(name))
        funnel = json.loads((Path(name) / "data/3-funnel.json").read_text())
    return {"contender": "stage", "rows": count, "seconds": seconds, "rss": peak, "funnel": funnel}


def compare(contenders: list[str], count: int, peers: Path) -> Iterator[Found]:
    """Near-duplicate removal by each contender on the same rows."""
    with tempfile.TemporaryDirectory() as name:
        source, target = Path(name) / "texts.json", Path(name) / "result.json"
        lines = list(texts(count))
        source.write_text(json.dumps(lines), encoding="utf-8")
        expected, near = truth(lines)
        yield {"contender": "truth", "rows": count, "dropped": len(expected)}
        for contender in contenders:
            python = environment(contender, peers) if contender in PEERS else sys.executable
            job = [str(python), str(Path(__file__).resolve()), "--job", contender]
            _, peak = run([*job, str(source), str(target)], Path(name))
            result = json.loads(target.read_text())
            dropped = set(result["dropped"])
            recall = len(dropped & set(expected)) / len(expected)
            measured = {"contender": contender, "rows": count, "seconds": result["seconds"]}
            yield measured | {"rss": peak, "recall": recall, "false": len(dropped - near)}


def show(row: Found) -> None:
    if row["contender"] == "truth":
        print(f"{row['rows']:,} rows, {row['dropped']:,} of them near-duplicates of an earlier one")
        return
    cells = f"{row['seconds']:9.2f}{row['rows'] / row['seconds']:10,.0f}{row['rss'] / 2**20:9,.0f}"
    if "recall" in row:
        cells += f"{row['recall']:9.4f}{row['false']:7,}"
    print(f"{row['contender']:12}{row['rows']:10,}{cells}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--compare", type=int, default=20_000)
    parser.add_argument("--only", nargs="*", default=["ours", *PEERS])
    parser.add_argument("--peers", type=Path, default=Path("/tmp/potstill-peers"))
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    names = ("rows", "seconds", "rows/s", "RSS MiB", "recall", "false")
    widths = (10, 9, 10, 9, 9, 7)
    header = "".join(f"{name:>{width}}" for name, width in zip(names, widths, strict=True))
    print(f"{'':12}{header}", flush=True)
    stages = (stage(count) for count in (options.rows // 10, options.rows))
    table: list[Found] = []
    for row in chain(stages, compare(options.only, options.compare, options.peers)):
        table.append(row)
        show(row)
    if options.json:
        options.json.write_text(json.dumps(table, indent=2) + "\n")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--job"]:
        contend(*sys.argv[2:])
    else:
        main()
