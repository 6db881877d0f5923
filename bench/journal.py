"""A journal of many writers read again: python -m bench.journal, from the repository's root; under
a minute.

--writers files of --rows answers each, as shards write them, in a folder of their own. A process of
its own then resumes: it opens the journal and asks it for every key. Seconds are of the wall and of
the CPU, memory is that process's peak.
"""

import argparse
import hashlib
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from potstill.teacher import journal

BAR = 8.0  # seconds for 8 x 100,000 rows
ANSWER = '{"word": "Kunming", "length": 7, "note": "the capital of Yunnan, 昆明"}'


def key(number: int) -> str:
    return hashlib.sha256(b"%d" % number).hexdigest()[:32]


def write(path: Path, writers: int, rows: int) -> None:
    """The files of a journal."""
    folder = path.with_suffix(".writers")
    folder.mkdir()
    path.touch()
    row = {"model": "mock", "max_tokens": 1024, "answer": ANSWER, "finish_reason": "stop"}
    row |= {"prompt_tokens": 842, "completion_tokens": 31, "estimated": 901, "seconds": 1.207}
    for writer in range(writers):
        with (folder / f"{writer:x}-host-1-{writer:08x}.jsonl").open("wb") as file:
            for number in range(writer * rows, (writer + 1) * rows):
                file.write(journal._encode({"key": key(number), **row}))


def resume(path: Path, count: int) -> dict[str, float]:
    """What it takes to open the journal and to find each key."""
    keys = [key(number) for number in range(count)]
    start, used = time.perf_counter(), time.process_time()
    found = journal.Journal(path)
    opened = time.perf_counter() - start
    if not all(found.has(one, 1024) for one in keys) or found.damaged:
        raise AssertionError("answers are missing")
    seconds, cpu = time.perf_counter() - start, time.process_time() - used
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"opened": opened, "seconds": seconds, "cpu": cpu, "mib": peak}


def main() -> None:
    parser = argparse.ArgumentParser(description="See the head of bench/journal.py.")
    parser.add_argument("--writers", type=int, default=8)
    parser.add_argument("--rows", type=int, default=100_000, help="answers of each writer")
    parser.add_argument("--resume", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.resume:
        print(json.dumps(resume(Path(options.resume[0]), int(options.resume[1]))))
        return
    count = options.writers * options.rows
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "task.jsonl"
        write(path, options.writers, options.rows)
        size = sum(file.stat().st_size for file in path.with_suffix(".writers").iterdir())
        command = [sys.executable, "-m", "bench.journal", "--resume", str(path), str(count)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found = json.loads(done.stdout)
    print(f"{platform.python_version()}, {os.cpu_count()} cores, {count:,} rows, {size:,} bytes")
    print(
        "opened {opened:.2f} s, resumed {seconds:.2f} s ({cpu:.2f} s CPU), {mib:.0f} MiB".format(
            **found
        )
    )
    bar = BAR * count / 800_000
    print(f"{'met' if found['seconds'] <= bar else 'MISSED'}: at most {bar:g} s")


if __name__ == "__main__":
    main()
