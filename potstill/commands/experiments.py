"""Many experiments: running them, and telling which of them differ.

python -m potstill.commands.experiments                        `make compare`: the experiments of the active task, best first, each against the last
                                                      commit: what chance alone may explain is marked
python -m potstill.commands.experiments JOBS lora_rank=4,8 …   `make sweep`: one for each value, or for each combination of several

The test is that of `make gate`. With many experiments some look good by chance, so p is Holm's (1979): the smallest of m times m, the
next times m - 1, and so on.
"""

import json
import subprocess
import sys

import yaml

from potstill.commands import gate
from potstill.core import errors, lockfile
from potstill.core.errors import UserError
from potstill.core.jsonl import Row
from potstill.evaluation import compare, score, statistics
from potstill.task import settings


def refs() -> dict[str, str]:
    """The commit of each of DVC's experiments (refs/exps/<baseline>/<name>), by name."""
    listed = subprocess.run(
        ["git", "for-each-ref", "--format=%(refname) %(objectname)", "refs/exps"],
        capture_output=True,
        text=True,
    )
    found = [line.split() for line in listed.stdout.splitlines()]
    return {
        ref.split("/")[4]: sha
        for ref, sha in found
        if ref.count("/") == 4 and len(ref.split("/")[2]) == 2
    }


def find(name: str) -> str:
    """The commit of an experiment. Raises UserError."""
    known = refs()
    if name not in known:
        raise UserError(
            f"there is no experiment {name!r}, expected one of {', '.join(known) or 'none'} (`dvc exp list`)"
        )
    return known[name]


def blobs(names: list[str]) -> list[bytes | None]:
    """The contents of `<commit>:<path>` each, paths from the root of git's tree, None where there is none: one process for all."""
    asked = "".join(f"{name}\n" for name in names).encode()
    out = subprocess.run(
        ["git", "cat-file", "--batch"], input=asked, capture_output=True, check=True
    ).stdout
    found: list[bytes | None] = []
    for _ in names:
        head, _, out = out.partition(b"\n")
        if head.endswith(b" missing"):
            found.append(None)
        else:
            size = int(head.split()[-1])
            found.append(out[:size])
            out = out[size + 1 :]
    return found


def results(t: settings.Task, commits: dict[str, str]) -> list[Row]:
    """What each commit says of the task, {"name", "params", "model", "right", "share", "low", "high"}; a commit that has
    no result is left out, and so is an experiment of another task; HEAD holds the results of every task, whichever is active."""
    prefix = subprocess.run(
        ["git", "rev-parse", "--show-prefix"], capture_output=True, text=True
    ).stdout.strip()
    files = ("params.yaml", f"{t.reports}/metrics.json", f"{t.reports}/marks.csv")
    contents = iter(blobs([f"{sha}:{prefix}{file}" for sha in commits.values() for file in files]))
    found = []
    for name, params, metrics, marks in zip(commits, contents, contents, contents, strict=True):
        values = yaml.load(params, lockfile.Loader) if params else {}
        if (
            (values.get("task") != t.name and commits[name] != "HEAD")
            or metrics is None
            or marks is None
        ):
            continue
        measured = json.loads(metrics)
        model = score.student(measured)
        low, high = (measured[model][side] for side in ("low", "high"))
        right = gate.right(t, compare.read_csv(marks.decode(), f"{name}: marks.csv"), model)
        more = {"share": score.headline(measured[model]), "low": low, "high": high, "right": right}
        found.append({"name": name, "params": values, "model": model, **more})
    return found


def judged(base: Row, others: list[Row]) -> list[Row]:
    """The other results, best first, with what changed since `base`, and p and a verdict of the difference."""
    table = []
    for one in others:
        p, how = gate.difference(base["right"], one["right"])
        changed = {
            key: value
            for key, value in one["params"].items()
            if key != "task" and base["params"].get(key) != value
        }
        table.append(one | {"p": p, "how": how, "changed": changed})
    worst = 0.0
    for place, one in enumerate(sorted(table, key=lambda one: one["p"])):
        worst = one["p"] = min(1.0, max(worst, one["p"] * (len(table) - place)))
        better = "better" if one["share"] > base["share"] else "worse"
        one["verdict"] = better if one["p"] < statistics.ALPHA else "within the noise"
    return sorted(table, key=lambda one: -one["share"])


def lines(base: Row, table: list[Row]) -> list[str]:
    """The table as text."""
    wide = max(len(one["name"]) for one in [base, *table])
    text = [f"{'':{wide}}  {base['model']} right  95 % interval     p  against the last commit"]
    for one in [base, *table]:
        said = f"{one['p']:6.2g}  {one['verdict']}: {one['how']};" if "p" in one else " " * 8
        changed = ", ".join(f"{key}={value}" for key, value in one.get("changed", {}).items())
        text.append(
            f"{one['name']:{wide}}  {one['share']:9.1%}  {one['low']:6.1%} to {one['high']:6.1%} {said} {changed}".rstrip()
        )
    return text


def sweep(jobs: int, settings: list[str]) -> None:
    """Runs the experiments, all of them even when one fails. Raises UserError. One after the other by `--temp`: DVC's own queue waits for
    ever where its worker dies, which it does now and then when it reads a message that is half-written (kombu's transport by files)."""
    from dvc.utils.hydra import get_hydra_sweeps

    run = [sys.executable, "-m", "dvc", "exp", "run"]
    each = [one["params.yaml"] for one in get_hydra_sweeps({"params.yaml": settings})]
    failed = []
    for number, values in enumerate(each, 1):
        print(f"sweep: {number} of {len(each)}: {' '.join(values)}", flush=True)
        way = "--temp" if jobs == 1 else "--queue"
        if subprocess.call(
            [*run, way, *(word for value in values for word in ("--set-param", value))]
        ):
            failed.append(" ".join(values))
    if jobs > 1 and subprocess.call([*run, "--run-all", "--jobs", str(jobs)]):
        failed.append(f"one of {jobs} at once")
    if failed:
        raise UserError(
            f"{len(failed)} of {len(each)} experiments failed: {'; '.join(failed)}: their own messages stand above"
        )


def main() -> None:
    if sys.argv[1:]:
        if len(sys.argv) < 3 or not sys.argv[1].isdigit() or not int(sys.argv[1]):
            raise UserError('expected `make sweep S="lora_rank=4,8,16"`, and JOBS from 1 up')
        sweep(int(sys.argv[1]), sys.argv[2:])
        return
    t = settings.load(lockfile.active())
    known = refs()
    found = results(t, {"last commit": "HEAD", **known})
    if not found or found[0]["name"] != "last commit":
        raise UserError(
            f"the last commit has no result of task {t.name} to compare with: `make repro`, then commit dvc.lock and reports"
        )
    if not found[1:]:
        raise UserError(
            f"no experiment of task {t.name} has a result: `make exp S='lora_rank=16'` makes one"
        )
    print(*lines(found[0], judged(found[0], found[1:])), sep="\n")
    if left := len(known) + 1 - len(found):
        print(f"{left} experiments are of another task, or have no result")


if __name__ == "__main__":
    errors.run(main)
