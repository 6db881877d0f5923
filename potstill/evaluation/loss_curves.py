"""The curves of a training: its losses, where checkpoints were scored their accuracy, and what the
losses say about the fit."""

from collections.abc import Iterator
from contextlib import contextmanager
from math import isfinite
from pathlib import Path
from statistics import fmean
from typing import Any

from potstill.core.errors import UserError
from potstill.core.jsonl import Row, write_json, write_text
from potstill.evaluation import compare

Curve = list[tuple[int, float]]  # (step, loss)
FALLING = 0.05  # a loss that loses this share over the last third of the steps is still falling
FALLING_LAST = 0.01  # and this share of it between the last two validations
RISEN = 0.05  # a validation loss this share above its lowest has risen


def split(log: list[Row]) -> tuple[Curve, Curve]:
    """The training and the validation curve of a log of rows {"step", "loss"} and {"step",
    "eval_loss"}. Raises UserError where it lacks one of them."""
    train, valid = (
        [(row["step"], row[key]) for row in log if key in row] for key in ("loss", "eval_loss")
    )
    if not train or not valid:
        remedy = "run `dvc repro -f sft` with a smaller logging_steps"
        raise UserError(f"the training's log holds no losses: {remedy}")
    return train, valid


def fit(train: Curve, valid: Curve) -> dict[str, str]:
    """{"verdict", "advice"}: the fit, from how both losses end, and what to change."""
    if len(valid) < 3 or len(train) < 6:
        counts = f"training losses: {len(train)}, validation losses: {len(valid)}"
        advice = f"{counts}; take more rows or epochs, or smaller logging_steps and eval_steps"
        return {"verdict": "too short to tell", "advice": advice}
    if not all(isfinite(loss) for _, loss in train + valid):
        return {"verdict": "diverged", "advice": "a loss is no number: a lower learning rate"}
    end, before = valid[-1][1], valid[-2][1]
    lowest, step = min((loss, step) for step, loss in valid)
    ends = f"validation loss ended {_above(end, lowest)} its lowest"
    ends += f" (step {step:,})" if end > lowest else ""
    last = 1 - end / before if before else 0.0
    if end > lowest * (1 + RISEN):
        fell = _fall(train) > 0
        verdict, remedy = "over-fitted", "fewer epochs or a lower rank"
        if not fell:
            verdict, remedy = "diverged", "a lower learning rate"
        advice = f"{ends}, while training loss {'fell' if fell else 'did not fall'}: {remedy}"
    elif _fall(train) > FALLING and _fall(valid) > FALLING and last > FALLING_LAST:
        verdict, at_last = "under-fitted", f"by {last:.1%} from the last but one to the last"
        advice = f"both losses were still falling, that of validation {at_last}: "
        advice += "more epochs or a higher rank"
    else:
        verdict, advice = "well fitted", f"{ends}: nothing to change"
    return {"verdict": verdict, "advice": advice}


def _above(end: float, lowest: float) -> str:
    if end <= lowest:
        return "at"
    if not lowest:
        return f"{end:.2g} above"
    rise = end / lowest - 1
    return f"{f'{rise:.1%}' if rise >= 0.001 else 'less than 0.1%'} above"


def _fall(curve: Curve) -> float:
    """The share of itself that the loss lost over the last third of the steps. Single points of a
    training loss are noisy, so means over a sixth of the steps are compared."""
    last, middle = curve[-1][0], curve[len(curve) // 2][1]
    before = [loss for step, loss in curve if last / 2 < step <= last * 2 / 3] or [middle]
    start, end = fmean(before), fmean(loss for step, loss in curve if step > last * 5 / 6)
    return (start - end) / start if start else 0.0


def write(folder: Path, task: str, log: list[Row]) -> dict[str, str]:
    """Writes the curves of a log to `folder`, as tables and pictures, and what `fit` says of the
    losses, which it returns. Where no checkpoint was scored the table of their accuracy is a head
    alone."""
    train, valid = split(log)
    for name, title, curve in (("train", "Training", train), ("eval", "Validation", valid)):
        table = [{"step": step, "loss": f"{loss:.6g}"} for step, loss in curve]
        compare.write_csv(folder / f"{name}_loss.csv", table)
        draw(folder / f"{name}_loss.png", curve, f"{title} loss, {task}")
    scored = [(row["step"], row["accuracy"]) for row in log if "accuracy" in row]
    lines = [f"{step},{accuracy:.6g}\n" for step, accuracy in scored]
    write_text(folder / "accuracy.csv", "".join(["step,accuracy\n", *lines]))
    if scored:
        draw(folder / "accuracy.png", scored, f"Validation rows right, {task}", "accuracy")
    found = fit(train, valid)
    write_json(folder / "fit.json", found)
    return found


def draw(path: Path, curve: Curve, title: str, y: str = "loss") -> None:
    """A picture of one curve; equal curves give equal files."""
    steps, values = zip(*curve, strict=True)
    with picture(path, title, "step", y) as axes:
        points = {"marker": "o" if len(curve) <= 40 else None, "markersize": 3.5}
        axes.plot(steps, values, color="#1f5fa8", linewidth=1.6, **points)
        if y == "loss" and min(values) > 0 and max(values) > 20 * min(values):
            axes.set_yscale("log")


@contextmanager
def picture(path: Path, title: str, x: str, y: str) -> Iterator[Any]:
    """The axes of a chart with these labels, to draw on; saved at the end as a PNG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    yield axes
    axes.set(title=title, xlabel=x, ylabel=y)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, metadata={"Software": None})
