"""What `make` adds where nothing is to be done, and what comparing costs: python -m bench.noop [RUNS], in a checkout that is up to date.

Times a no-op `make repro` and a bare no-op `dvc repro` in turn, `make check`, and `make compare` in a clone with a hundred experiments; prints the median seconds of each.
"""

import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from potstill import lockfile

EXPERIMENTS = 100


def experiments(clone: Path, task: str) -> None:
    """Makes experiments of the last commit with lora_rank 1 to 100; their marks are its own in another order."""
    base = subprocess.check_output(["git", "rev-parse", "HEAD"], cwd=clone, text=True).strip()
    marks, params = f"reports/{task}/marks.csv", (clone / "params.yaml").read_text(encoding="utf-8")
    head, *lines = (clone / marks).read_text(encoding="utf-8").splitlines()
    stream = ""
    for rank in range(1, EXPERIMENTS + 1):
        rows = [line.split(",", 2) for line in lines]  # id, slice, marks
        drawn = random.Random(rank).sample([row[2] for row in rows], len(rows))
        files = {
            "params.yaml": "".join(
                f"lora_rank: {rank}\n" if line.startswith("lora_rank:") else line for line in params.splitlines(True)
            ),
            marks: "\n".join([head, *(f"{row[0]},{row[1]},{mark}" for row, mark in zip(rows, drawn, strict=True))])
            + "\n",
        }
        name = f"refs/exps/{base[:2]}/{base[2:]}/rank-{rank}"
        stream += f"commit {name}\ncommitter bench <bench@example.org> 1 +0000\ndata 0\nfrom {base}\n"
        stream += "".join(
            f"M 100644 inline {path}\ndata {len(text.encode())}\n{text}\n" for path, text in files.items()
        )
    subprocess.run(["git", "fast-import", "--quiet"], cwd=clone, input=stream.encode(), check=True)


def main() -> None:
    runs = int(sys.argv[1]) if sys.argv[1:] else 5
    with tempfile.TemporaryDirectory() as folder:
        clone = Path(folder, "clone")
        subprocess.run(["git", "clone", "-q", ".", clone], check=True)
        experiments(clone, lockfile.active())
        here = Path()
        commands = {
            "make repro": (["make", "-s", "repro"], here),
            "dvc repro": ([sys.executable, "-m", "dvc", "repro"], here),
            "make check": (["make", "-s", "check"], here),
            f"make compare, {EXPERIMENTS} experiments": (
                ["make", "-s", "-o", ".venv/ready", f"PY={sys.executable}", "compare"],
                clone,
            ),
        }
        seconds: dict[str, list[float]] = {name: [] for name in commands}
        for _ in range(runs):
            for name, (command, where) in commands.items():
                start = time.monotonic()
                done = subprocess.run(command, cwd=where, capture_output=True, text=True)
                seconds[name].append(time.monotonic() - start)
                if done.returncode or "Running stage" in done.stdout:
                    sys.exit(f"error: `{' '.join(command)}` was no no-op:\n{done.stdout}{done.stderr}")
    median = {name: statistics.median(found) for name, found in seconds.items()}
    for name, found in median.items():
        print(f"{name:30}{found:8.2f} s, median of {runs}")
    print(f"make repro is {median['make repro'] / median['dvc repro']:.2f} times dvc repro (the bar: 1.5)")


if __name__ == "__main__":
    main()
