"""Rows in fixed shards: each is answered by a process of its own, on this machine or on others
(potstill/core/launch.py), and its part is on disk before the next begins.

.cache/shards/STAGE/ of the task's folder has, for shard 3, 3.json (the job: all that its part
depends on), 3-<hash of the job>.json (its part, written whole or not at all), 3.log and 3.lock. A
stage that is run again uses the parts that are there; its frame deletes them when it has ended
well.
"""

import fcntl
import hashlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from potstill.core import jsonl, launch
from potstill.core.errors import UserError
from potstill.core.stage import PARTS

Job = dict[str, Any]  # {"work": a name of potstill/commands/shard.py, "arguments": its arguments}


def split(ids: list[str], count: int) -> list[list[int]]:
    """For each of `count` shards the places of its rows, by the hash of their ids: a row stays in
    its shard whatever other rows there are."""
    found: list[list[int]] = [[] for _ in range(count)]
    for place, id in enumerate(ids):
        found[int(hashlib.sha256(id.encode()).hexdigest()[:15], 16) % count].append(place)
    return found


def run(stage: str, jobs: list[Job], asks: bool = False) -> list[Any]:
    """What the jobs return, in their order; those whose parts are there are not run again. `asks`:
    whether they ask the teacher. Raises UserError, with the first shard's own words, when one
    fails: the others' parts are kept."""
    launcher, folder = launch.chosen(), PARTS / stage
    texts = [json.dumps(job, sort_keys=True) for job in jobs]
    parts = [part(folder, number, text) for number, text in enumerate(texts)]
    folder.mkdir(parents=True, exist_ok=True)
    for number, text in enumerate(texts):
        jsonl.write_text(folder / f"{number}.json", text)
    missing = [number for number, path in enumerate(parts) if not _is_whole(path)]
    kept = f", {len(jobs) - len(missing)} of them done before" if len(missing) < len(jobs) else ""
    print(f"{stage}: {len(jobs)} shards{kept}, logs in {folder}", file=sys.stderr, flush=True)
    for number in missing:
        (folder / f"{number}.log").unlink(missing_ok=True)
    if missing:
        launcher(folder, missing, asks)
    # A network file system may hide new files until it is listed
    there = list(folder.iterdir()) if folder.is_dir() else []
    if left := [n for n in missing if parts[n] not in there or not _is_whole(parts[n])]:
        first = next((number for number in left if (folder / f"{number}.log").exists()), left[0])
        why = launch.last_words(folder / f"{first}.log")
        failed = f"{len(left)} of {len(jobs)} shards failed, shard {first} because: {why}"
        again = "the same command runs only what is missing"
        raise UserError(f"{stage}: {failed} ({folder}/{first}.log; {again})")
    return [json.loads(path.read_bytes()) for path in parts]


def work(folder: Path, number: int, known: dict[str, Callable[..., Any]]) -> None:
    """Does the job of one shard, unless its part is there, and writes the part. Whoever else does
    the same job is waited for. Raises UserError when there is no such job."""
    path = folder / f"{number}.json"
    if not path.is_file():
        raise UserError(f"{path} is missing, expected the job of a shard: stages write it")
    with (folder / f"{number}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        text = path.read_text(encoding="utf-8")
        made = part(folder, number, text)
        if not _is_whole(made):
            job = json.loads(text)
            found = known[job["work"]](**job["arguments"])
            jsonl.write_text(made, json.dumps(found))


def part(folder: Path, number: int, job: str) -> Path:
    """The part of a shard with this job."""
    return folder / f"{number}-{hashlib.sha256(job.encode()).hexdigest()[:16]}.json"


def _is_whole(path: Path) -> bool:
    """Whether a part is there; a loss of power may leave an empty file."""
    return path.is_file() and path.stat().st_size > 0
