"""What `make` adds where nothing is to be done, and what comparing costs: python -m bench.noop [RUNS], in a checkout that is up to date.

Times a no-op `make repro` and a bare no-op `dvc repro` in turn, then `make compare` and `make check`; prints the median seconds of each.
"""

import statistics
import subprocess
import sys
import time

COMMANDS = {
    "make repro": ["make", "-s", "repro"],
    "dvc repro": [".venv/bin/python", "-m", "dvc", "repro"],
    "make compare": ["make", "-s", "compare"],
    "make check": ["make", "-s", "check"],
}


def main() -> None:
    runs = int(sys.argv[1]) if sys.argv[1:] else 5
    seconds: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(runs):
        for name, command in COMMANDS.items():
            start = time.monotonic()
            done = subprocess.run(command, capture_output=True, text=True)
            seconds[name].append(time.monotonic() - start)
            if done.returncode or "Running stage" in done.stdout:
                sys.exit(f"error: `{' '.join(command)}` was no no-op:\n{done.stdout}{done.stderr}")
    median = {name: statistics.median(found) for name, found in seconds.items()}
    for name, found in median.items():
        print(f"{name:14}{found:8.2f} s, median of {runs}")
    print(f"make repro is {median['make repro'] / median['dvc repro']:.2f} times dvc repro (the bar: 1.5)")


if __name__ == "__main__":
    main()
