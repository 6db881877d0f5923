"""The loop of production on address, with a real training: python -m bench.loop FOLDER

Clones this commit to FOLDER, which must not exist, with the DVC cache of this checkout, where the
student must be (`make repro`). Then, by the product's own commands: the student is served with the
scripted teacher behind it; 200 requests come whose layouts no training row has (UNSEEN of
data/rows.py, of other places than the gold rows'); `drift` says that what is asked has changed;
`harvest` makes seeds of what was hard; `repro` trains the next student. Prints what each command
says and the right gold rows of both students, by slice, with the exact McNemar test. The gold rows
themselves are never sent. Some 25 minutes on two cores; **not yet run** to its end, but until the
training begins.
"""

import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import chdir
from pathlib import Path
from typing import Any

import httpx

from data import rows
from potstill.core import project
from potstill.core.jsonl import squeeze
from potstill.evaluation import compare
from potstill.serving import quantize

REQUESTS, USERS = 200, 4
KEY = "the-key-of-the-bench"


def requests() -> list[str]:
    """Inputs of the unseen layouts, with no place, name or telephone number of seeds or gold."""
    seeds, like, unseen = rows.make()
    taken = "\n".join(squeeze(row.text) for row in (*seeds, *like, *unseen))
    return [row.text for row in rows.lines(rows.UNSEEN, REQUESTS, "bench.loop", taken)]


def run(folder: Path, *command: str) -> int:
    """Runs `python -m potstill …` in the clone."""
    print(f"\n$ potstill {' '.join(command)}", flush=True)
    start = time.monotonic()
    code = subprocess.run([sys.executable, "-m", "potstill", *command], cwd=folder).returncode
    print(f"(exit code {code}, {time.monotonic() - start:.0f} s)", flush=True)
    return code


def right(folder: Path) -> dict[str, list[bool]]:
    """Slice → whether the student has each of its gold rows right."""
    text = (folder / "reports/tables/marks.csv").read_text(encoding="utf-8")
    found: dict[str, list[bool]] = {}
    for row in sorted(compare.read_csv(text, "here"), key=lambda row: row["id"]):
        found.setdefault(row["slice"], []).append(row["sft"] == "1")
    return found


def main() -> None:
    folder = Path(sys.argv[1]).resolve()
    subprocess.run(["git", "clone", "-q", str(project.ROOT), str(folder)], check=True)
    cache = ["config", "--local", "cache.dir", str(project.ROOT / ".dvc/cache")]
    for command in (cache, ["checkout", "-q", "dvc.yaml"]):
        subprocess.run([*project.DVC, *command], cwd=folder, check=True)
    path = folder / "params.yaml"
    text, count = re.subn(r"(?m)^  capture: 0\b", "  capture: 1", path.read_text())
    assert count == 1
    path.write_text(text)
    before = right(folder)
    command = [sys.executable, "-m", "potstill", "serve", "--cascade"]
    with (
        chdir(folder),
        quantize.server(command, {"SERVE_API_KEY": KEY}) as url,
        ThreadPoolExecutor(USERS) as users,
    ):
        client = httpx.Client(headers={"Authorization": f"Bearer {KEY}"}, timeout=300)

        def ask(text: str) -> Any:
            asked = client.post(f"{url}/v1/chat/completions", json={"input": text})
            return asked.raise_for_status().json()

        replies = list(users.map(ask, requests()))
    print(f"{len(replies)} requests served")
    assert run(folder, "drift") == 1
    # The checks see few of the new faults, and a fifth of what is taken is the control sample
    assert run(folder, "harvest", "--rows", str(5 * REQUESTS)) == 0
    assert run(folder, "repro") == 0
    after = right(folder)
    print("\n| gold rows | before | after | fixed, broken | p |\n|---|---|---|---|---|")
    for name, marks in before.items():
        found = compare.pair("before", "after", marks, after[name])
        changed = f"{found['fixed']}, {found['broken']} | {found['p']}"
        print(f"| {name} | {sum(marks)} of {len(marks)} | {sum(after[name])} | {changed} |")


if __name__ == "__main__":
    main()
