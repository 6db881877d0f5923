"""What `make` adds where nothing is to be done, and what comparing costs: python -m bench.noop [RUNS], in a checkout that is up to date.

Times a no-op `make repro` and a bare no-op `dvc repro` in turn, `make check`, and `make compare` in a clone with a hundred experiments;
prints the medians of wall and processor time.
"""

import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from potstill.core import lockfile

EXPERIMENTS = 100
MAKE = ["make", "-s", "-o", ".venv/ready", f"PY={sys.executable}"]


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
                f"lora_rank: {rank}\n" if line.startswith("lora_rank:") else line
                for line in params.splitlines(True)
            ),
            marks: "\n".join(
                [
                    head,
                    *(f"{row[0]},{row[1]},{mark}" for row, mark in zip(rows, drawn, strict=True)),
                ]
            )
            + "\n",
        }
        name = f"refs/exps/{base[:2]}/{base[2:]}/rank-{rank}"
        stream += (
            f"commit {name}\ncommitter bench <bench@example.org> 1 +0000\ndata 0\nfrom {base}\n"
        )
        stream += "".join(
            f"M 100644 inline {path}\ndata {len(text.encode())}\n{text}\n"
            for path, text in files.items()
        )
    subprocess.run(["git", "fast-import", "--quiet"], cwd=clone, input=stream.encode(), check=True)


def _cpu() -> float:
    """Seconds of processor that this process's children have used: the same on a busy machine."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    runs = int(sys.argv[1]) if sys.argv[1:] else 5
    with tempfile.TemporaryDirectory() as folder:
        clone = Path(folder, "clone")
        subprocess.run(["git", "clone", "-q", ".", clone], check=True)
        experiments(clone, lockfile.active())
        commands: dict[str, tuple[list[str], str | Path]] = {
            "make repro": ([*MAKE, "repro"], "."),
            "dvc repro": ([sys.executable, "-m", "dvc", "repro"], "."),
            "make check": ([*MAKE, "check"], "."),
            f"make compare, {EXPERIMENTS} experiments": ([*MAKE, "compare"], clone),
        }
        wall: dict[str, list[float]] = {name: [] for name in commands}
        cpu: dict[str, list[float]] = {name: [] for name in commands}
        for _ in range(runs):
            for name, (command, where) in commands.items():
                start, used = time.monotonic(), _cpu()
                done = subprocess.run(command, cwd=where, capture_output=True, text=True)
                wall[name].append(time.monotonic() - start)
                cpu[name].append(_cpu() - used)
                if done.returncode or "Running stage" in done.stdout:
                    sys.exit(
                        f"error: `{' '.join(command)}` was no no-op:\n{done.stdout}{done.stderr}"
                    )
    print(f"{'medians of ' + str(runs):30}{'wall':>8}{'CPU':>8}   seconds")
    for name in commands:
        print(f"{name:30}{statistics.median(wall[name]):8.2f}{statistics.median(cpu[name]):8.2f}")
    for name, found in (("wall", wall), ("CPU", cpu)):
        times = statistics.median(found["make repro"]) / statistics.median(found["dvc repro"])
        print(f"make repro is {times:.2f} times dvc repro by {name} time (the bar: 1.5)")


if __name__ == "__main__":
    main()
