"""What `make` adds where nothing is to be done, and what comparing costs: python -m bench.noop
[RUNS], at the root of a checkout that is up to date.

Times a no-op `make repro` and a bare no-op `dvc repro` in turn, `make check`, and `make compare` in
a clone with a hundred experiments; prints the medians of wall and processor time.
"""

import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

EXPERIMENTS = 100
MARKS = "reports/tables/marks.csv"
MAKE = ["make", "-s", "-o", ".venv/ready", f"PY={sys.executable}"]


def experiments(clone: Path) -> None:
    """Makes experiments of the last commit with lora_rank 1 to 100; their marks are its own in
    another order."""
    base = subprocess.check_output(["git", "rev-parse", "HEAD"], cwd=clone, text=True).strip()
    params = (clone / "params.yaml").read_text(encoding="utf-8").splitlines(True)
    head, *lines = (clone / MARKS).read_text(encoding="utf-8").splitlines()
    rows = [line.split(",", 2) for line in lines]  # id, slice, marks
    stream = ""
    for rank in range(1, EXPERIMENTS + 1):
        drawn = random.Random(rank).sample([row[2] for row in rows], len(rows))
        marks = [f"{row[0]},{row[1]},{mark}\n" for row, mark in zip(rows, drawn, strict=True)]
        changed = (
            f"lora_rank: {rank}\n" if line.startswith("lora_rank:") else line for line in params
        )
        files = {"params.yaml": "".join(changed), MARKS: "".join([f"{head}\n", *marks])}
        name = f"refs/exps/{base[:2]}/{base[2:]}/rank-{rank}"
        by = "committer bench <bench@example.org> 1 +0000"
        stream += f"commit {name}\n{by}\ndata 0\nfrom {base}\n"
        for path, text in files.items():
            stream += f"M 100644 inline {path}\ndata {len(text.encode())}\n{text}\n"
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
        experiments(clone)
        commands: dict[str, tuple[list[str], str | Path]] = {
            "make repro": ([*MAKE, "repro"], "."),
            "dvc repro": ([sys.executable, "-m", "dvc", "repro"], "."),
            "make check": ([*MAKE, "check"], "."),
            f"make compare, {EXPERIMENTS} experiments": ([*MAKE, "compare"], clone),
        }
        times: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
        for _ in range(runs):
            for name, (command, where) in commands.items():
                start, used = time.monotonic(), _cpu()
                done = subprocess.run(command, cwd=where, capture_output=True, text=True)
                times[name].append((time.monotonic() - start, _cpu() - used))
                if done.returncode or "Running stage" in done.stdout:
                    said = f"`{' '.join(command)}` was no no-op:\n{done.stdout}{done.stderr}"
                    sys.exit(f"error: {said}")
    medians = {
        name: [statistics.median(column) for column in zip(*pairs, strict=True)]
        for name, pairs in times.items()
    }
    print(f"{'medians of ' + str(runs):30}{'wall':>8}{'CPU':>8}   seconds")
    for name, (wall, cpu) in medians.items():
        print(f"{name:30}{wall:8.2f}{cpu:8.2f}")
    for i, kind in enumerate(("wall", "CPU")):
        ratio = medians["make repro"][i] / medians["dvc repro"][i]
        print(f"make repro is {ratio:.2f} times dvc repro by {kind} time (the bar: 1.5)")


if __name__ == "__main__":
    main()
