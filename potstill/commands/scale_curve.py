"""`make scale-curve`: the active task trained on more and more of its rows, scored on the same test rows.

python -m potstill.commands.scale_curve 800 2000 → reports/<task>/scale_curve.csv, .json and .png. The training is that of params.yaml with
another `split.train_rows`; the shorter one is on the first rows of the longer. DVC keeps each, so a second run trains nothing.
"""

import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

from potstill.commands import profile
from potstill.core import errors, jsonl, params
from potstill.evaluation import score, statistics
from potstill.task import settings

ROWS = (800, 2000)
COLOURS = ("#1f5fa8", "#c0562f", "#3d8b5f")


def measured(t: settings.Task, model: str) -> dict[str, list[bool]]:
    """What each test row of the headline slice is worth: right, and for a task of lengths within so many characters."""
    tests = jsonl.read_jsonl(t.data / "4-test.jsonl", ("id", "slice"))
    answers = jsonl.read_jsonl(t.data / f"5-predictions-{model}.jsonl", ("id", "answer"))
    wanted = t.config.get("headline_slice")
    pairs = [(a, b) for a, b in zip(tests, answers, strict=True) if wanted in (None, a["slice"])]
    marks = [score.mark(t, test, answer) for test, answer in pairs]
    if "off" not in marks[0]:
        return {"right": [one["right"] for one in marks]}
    off = [float("inf") if one["off"] is None else one["off"] for one in marks]
    return {f"within {most}": [one <= most for one in off] for most in score.WITHIN}


def repro() -> None:
    if code := subprocess.call([sys.executable, "-m", "dvc", "repro"]):
        raise errors.UserError(f"`dvc repro` ended with {code}; its own message stands above")


def report(found: dict[int, dict[str, list[bool]]]) -> dict[str, Any]:
    """Shares by training rows, and the paired test of each two neighbours; 0 rows are the base with the long prompt."""
    counts = sorted(found)
    points = [
        {
            "split.train_rows": count,
            **{name: round(sum(one) / len(one), 4) for name, one in found[count].items()},
        }
        for count in counts
    ]
    tests = [
        {
            "from": low,
            "to": high,
            **{
                name: statistics.mcnemar(found[low][name], found[high][name]) for name in found[low]
            },
        }
        for low, high in pairwise(counts)
    ]
    return {
        "rows": len(next(iter(found[counts[0]].values()))),
        "points": points,
        "mcnemar_p": tests,
    }


def write(folder: Path, made: dict[str, Any], title: str) -> None:
    """The report as scale_curve.json, .csv and .png."""
    from matplotlib.figure import Figure

    names = [name for name in made["points"][0] if name != "split.train_rows"]
    jsonl.write_json(folder / "scale_curve.json", made)
    lines = [
        ",".join(str(point[name]) for name in ("split.train_rows", *names))
        for point in made["points"]
    ]
    jsonl.write_text(
        folder / "scale_curve.csv",
        "\n".join([",".join(["split.train_rows", *names]), *lines]) + "\n",
    )
    figure = Figure(figsize=(7, 4), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    for name, colour in zip(names, COLOURS, strict=False):
        xs, ys = ([point[key] for point in made["points"]] for key in ("split.train_rows", name))
        axes.plot(xs, ys, color=colour, marker="o", linewidth=1.6, label=name)
    axes.set_title(title)
    axes.set_xlabel("training rows (0 = untrained, long prompt)")
    axes.set_ylabel("share of test rows")
    axes.set_ylim(0, 1)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(folder / "scale_curve.png", metadata={"Software": None})


def main() -> None:
    given = sys.argv[1:] or [str(count) for count in ROWS]
    if not all(count.isdecimal() and int(count) for count in given):
        raise errors.UserError(
            f"training rows are {' '.join(given)}, expected whole numbers above 0 such as 800 2000"
        )
    p = params.load("split.train_rows")
    t = settings.load()
    found: dict[int, dict[str, list[bool]]] = {}
    try:
        for count in sorted(set(map(int, given))):
            profile.apply({"split.train_rows": count}, params.PATH)
            repro()
            there = len(jsonl.read_jsonl(t.data / "4-train.jsonl"))
            if there < count:
                raise errors.UserError(
                    f"split.train_rows {count}: there are {there} rows to train on, give no more than that"
                )
            found[count] = measured(t, "sft")
            found[0] = measured(t, "base")
    finally:
        profile.apply({"split.train_rows": p.split.train_rows}, params.PATH)
    repro()  # the task's own training again, from DVC's cache where it was run before
    made = report(found)
    write(t.reports, made, f"More training rows, {t.name}")
    print(*Path(t.reports, "scale_curve.csv").read_text(encoding="utf-8").splitlines(), sep="\n")
    for one in made["mcnemar_p"]:
        values = ", ".join(
            f"{name} p = {p:.2g}" for name, p in one.items() if name not in ("from", "to")
        )
        print(f"{one['from']} → {one['to']} rows, exact McNemar on {made['rows']} rows: {values}")
    print(f"scale-curve: {t.reports}/scale_curve.png")


if __name__ == "__main__":
    errors.run(main)
