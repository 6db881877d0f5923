"""The loss curves of a training: tables, pictures, and what they say about the fit."""

from pathlib import Path

from potstill.core.errors import UserError
from potstill.core.jsonl import Row, write_json

Curve = list[tuple[int, float]]  # (step, loss)
FALLING = (
    0.05  # a loss that lost this share of itself over the last third of the steps was still falling
)
RISEN = 0.05  # a validation loss this share above its lowest has risen


def split(log: list[Row]) -> tuple[Curve, Curve]:
    """The training and the validation curve of a log of rows {"step", "loss"} and {"step", "eval_loss"}."""
    curves = (
        [(row["step"], row[key]) for row in log if key in row] for key in ("loss", "eval_loss")
    )
    train, valid = curves
    if not train or not valid:
        raise UserError(
            "the training's log holds no losses: run `dvc repro -f sft` with a smaller logging_steps"
        )
    return train, valid


def fit(train: Curve, valid: Curve) -> dict[str, str]:
    """The verdict on the fit and what to change, from how both losses end."""
    if len(valid) < 3 or len(train) < 6:
        return {
            "verdict": "too short to tell",
            "advice": f"{len(train)} training and {len(valid)} validation losses: lower logging_steps and eval_steps",
        }
    lowest = min(loss for _, loss in valid)
    if valid[-1][1] > lowest * (1 + RISEN) and _fall(train) > 0:
        step = next(step for step, loss in valid if loss == lowest)
        return {
            "verdict": "over-fitted",
            "advice": f"validation loss has risen since step {step} while training loss fell: fewer epochs or a lower rank",
        }
    if _fall(train) > FALLING and _fall(valid) > FALLING:
        return {
            "verdict": "under-fitted",
            "advice": "both losses were still falling: more epochs or a higher rank",
        }
    return {"verdict": "well fitted", "advice": "the losses have levelled out: nothing to change"}


def _fall(curve: Curve) -> float:
    """The share of itself that the loss lost over the last third of the steps; single points of a training loss are noisy,
    so means over a sixth of the steps are compared."""
    last = curve[-1][0]
    before = [loss for step, loss in curve if last / 2 < step <= last * 2 / 3] or [
        curve[len(curve) // 2][1]
    ]
    after = [loss for step, loss in curve if step > last * 5 / 6]
    start, end = sum(before) / len(before), sum(after) / len(after)
    return (start - end) / start if start else 0.0


def write(folder: Path, task: str, log: list[Row]) -> dict[str, str]:
    """Writes both curves of a log to `folder`, as tables and pictures, and the verdict on the fit, which it gives back."""
    train, valid = split(log)
    for name, curve, title in (
        ("train_loss", train, "Training loss"),
        ("eval_loss", valid, "Validation loss"),
    ):
        write_csv(folder / f"{name}.csv", curve)
        draw(folder / f"{name}.png", curve, f"{title}, {task}")
    found = fit(train, valid)
    write_json(folder / "fit.json", found)
    return found


def write_csv(path: Path, curve: Curve) -> None:
    """A table step,loss."""
    path.write_text(
        "step,loss\n" + "".join(f"{step},{loss:.6g}\n" for step, loss in curve), encoding="utf-8"
    )


def draw(path: Path, curve: Curve, title: str) -> None:
    """A picture of one curve; equal curves give equal files."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    steps, losses = zip(*curve, strict=True)
    axes.plot(
        steps,
        losses,
        color="#1f5fa8",
        linewidth=1.6,
        marker="o" if len(curve) <= 40 else None,
        markersize=3.5,
    )
    if min(losses) > 0 and max(losses) > 20 * min(losses):
        axes.set_yscale("log")
    axes.set_title(title)
    axes.set_xlabel("step")
    axes.set_ylabel("loss")
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, metadata={"Software": None})
