"""`make eval`: predicts and scores with the model that is there, and trains nothing."""

import subprocess
import sys

from potstill.core import errors
from potstill.task import settings

STAGES = (
    "predict-base",
    "examples",
    "predict-sft",
    "predict-dpo",
    "parity",
    "predict-teacher",
    "ship",
    "judge",
    "score",
    "report",
)


def main() -> None:
    """Raises UserError when no model has been trained; ends with DVC's exit code."""
    t = settings.load()
    merged = t.models / "sft" / "merged"
    if not merged.is_dir():
        raise errors.UserError(f"no trained model at {merged}: run `make repro` first")
    stages = [f"{stage}@{t.name}" for stage in STAGES]
    sys.exit(subprocess.call([sys.executable, "-m", "dvc", "repro", "--single-item", *stages]))


if __name__ == "__main__":
    errors.run(main)
