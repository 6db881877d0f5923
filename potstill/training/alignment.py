"""The stage align: a further training of the sft student, by DPO or GRPO."""

import time
from pathlib import Path
from types import SimpleNamespace

from potstill.core import errors, jsonl
from potstill.core.jsonl import Row
from potstill.core.project import DATA, MODELS
from potstill.training import dpo, grpo, model_folder, run

CURVES = {"dpo": dpo.CURVES, "grpo": grpo.CURVES}


def train(name: str, p: SimpleNamespace, out: Path) -> tuple[list[Row], str]:
    """The log of the alignment `name`, whose models go to the folder `out`, and what is to be said
    of it; the log is empty where grpo has nothing to learn from. Raises UserError where the sft
    student, or what the alignment learns from, is missing, and as run.train does."""
    start, merged = time.monotonic(), MODELS / "sft" / "merged"
    model_folder.check_folder(merged, "run `dvc repro merge`")
    rows = _preferences() if name == "dpo" else _inputs(out)
    if not rows:
        why = "no input whose answers are right in part, so that there is nothing to learn from"
        return [], f"{DATA}/4-pairs has {why}: the sft student ships"
    path = dpo.PAIRS if name == "dpo" else grpo.INPUTS
    config = dpo.config(p, path, merged)
    lesson, more, what = dpo.lesson, [], "pairs"
    if name == "grpo":
        config = grpo.config(p, len(rows), path, merged)
        rows = grpo.in_steps(rows, p.grpo.inputs, p.seed)
        lesson, more, what = grpo.lesson, [grpo.CHECKS], "inputs"
    with run.exclusive_folder("align", config, more) as work:
        jsonl.write_jsonl(work / path.name, map(lesson, rows))
        config["dataset"] = [str(work / path.name)]
        steps, trained = run.train(config, work, out / "adapter", base=str(merged))
        run.merge(str(merged), "", out / "adapter", out / "merged", work)
    seconds = f"{time.monotonic() - start:.1f} s, {trained:.1f} of them in the trainer"
    log = jsonl.read_jsonl(out / "adapter" / "logging.jsonl")
    return log, f"{len(rows):,} {what}, {steps:,} steps, {seconds} → {MODELS}/{name}"


def _preferences() -> list[Row]:
    """The rows that dpo learns from. Raises UserError where there are none."""
    if not dpo.PAIRS.is_file():
        raise errors.UserError(
            f"{dpo.PAIRS} is missing, expected preferences (models has dpo): raise pairs.rows in "
            f"params.yaml, or add prompts/rejected.md; {dpo.PAIRS.parent}/report.json says what "
            "was dropped"
        )
    return jsonl.read_jsonl(dpo.PAIRS, ("prompt", "chosen", "rejected"))


def _inputs(out: Path) -> list[Row]:
    """The rows that grpo learns from, which may be none; `out` keeps how many there are."""
    if not grpo.CHECKS.is_file():
        raise errors.UserError(f"{grpo.CHECKS} is missing: run `dvc repro pairs`")
    rows = jsonl.read_some(grpo.INPUTS, "id", "messages", "row")
    jsonl.write_json(out / grpo.REPORT, {"rows": len(rows)})
    return rows
