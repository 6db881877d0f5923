"""The stage align: a further training of the sft student, by DPO, GRPO or GKD."""

import time
from pathlib import Path
from types import SimpleNamespace

from potstill.core import errors, jsonl
from potstill.core.jsonl import Row
from potstill.core.project import DATA, MODELS
from potstill.training import dpo, gkd, grpo, model_folder, run, scored, swift

CURVES = {"dpo": dpo.CURVES, "grpo": grpo.CURVES, "gkd": gkd.CURVES}
REPORT = "report.json"  # of models/grpo and models/gkd: {"rows": 120}, 0 with nothing to learn
NOTHING = {  # why one has learnt nothing
    "grpo": "no input was right sometimes",
    "gkd": "its teacher is no better than the student",
}


def train(name: str, p: SimpleNamespace, out: Path) -> tuple[list[Row], str]:
    """The log of the alignment `name`, whose models go to the folder `out`, and what is to be said
    of it; the log is empty where there is nothing to learn from. Raises UserError where the sft
    student, or what the alignment learns from, is missing, and as run.train does."""
    start, merged = time.monotonic(), MODELS / "sft" / "merged"
    model_folder.check_folder(merged, "run `dvc repro merge`")
    rows = _preferences() if name == "dpo" else _inputs(name, out)
    if not rows:
        return [], f"{nothing(name)}; the sft student ships"
    what, more = "inputs", list[Path]()
    if name == "dpo":
        path, lesson, what = dpo.PAIRS, dpo.lesson, "pairs"
        config = dpo.config(p, path, merged)
    elif name == "grpo":
        path, lesson, more = grpo.INPUTS, grpo.lesson, [grpo.CHECKS]
        config = grpo.config(p, len(rows), path, merged)
        rows = grpo.in_steps(rows, p.grpo.inputs, p.seed)
    else:
        path, lesson, more = gkd.INPUTS, gkd.lesson, gkd.files(p)
        config = gkd.config(p, path, merged)
    scoring = scored.settings()
    if scoring["rows"]:
        config, more = _scored(p, config, path), [*more, *scored.files()]
    with run.exclusive_folder("align", config, more) as work:
        jsonl.write_jsonl(work / path.name, map(lesson, rows))
        config["dataset"] = [str(work / path.name)]
        of = run.step_count(config, work / path.name)
        patience = scoring.get("patience")
        adapter = out / "adapter"
        steps, trained = run.train(config, work, adapter, base=str(merged), patience=patience)
        run.merge(str(merged), "", adapter, out / "merged", work)
    seconds = f"{time.monotonic() - start:.1f} s, {trained:.1f} of them in the trainer"
    log = jsonl.read_jsonl(adapter / "logging.jsonl")
    says = f"{len(rows):,} {what}, {steps:,} steps, {seconds} → {MODELS}/{name}"
    if scoring["rows"]:
        says += f"; {scored.said(log, steps, of, scoring['rows'])}"
    return log, says


def learnt(folder: Path) -> bool:
    """Whether the alignment in a folder of models/ trained anything. Raises UserError where its
    report is missing."""
    return folder.name not in NOTHING or jsonl.read_json(folder / REPORT)["rows"] > 0


def nothing(name: str) -> str:
    """What is said of the alignment `name` that trained nothing."""
    return f"{name} has learnt nothing: {NOTHING[name]}"


def _scored(p: SimpleNamespace, config: swift.Config, path: Path) -> swift.Config:
    """`config` for a training on the rows of the file `path` whose checkpoints are scored."""
    own = scored.config(p, run.step_count(config, path))
    plugins = config.get("external_plugins", []) + own["external_plugins"]
    return config | own | {"external_plugins": plugins}


def _preferences() -> list[Row]:
    """The rows that dpo learns from. Raises UserError where there are none."""
    if not dpo.PAIRS.is_file():
        raise errors.UserError(
            f"{dpo.PAIRS} is missing, expected preferences (models has dpo): raise pairs.rows in "
            f"params.yaml, or add prompts/rejected.md; {dpo.PAIRS.parent}/report.json says what "
            "was dropped"
        )
    return jsonl.read_jsonl(dpo.PAIRS, ("prompt", "chosen", "rejected"))


def _inputs(name: str, out: Path) -> list[Row]:
    """The rows that grpo or gkd learns from, which may be none; `out` keeps how many there are."""
    report = DATA / "4-pairs/report.json"
    if name not in jsonl.read_json(report):
        raise errors.UserError(f"{report} says nothing of {name}: run `dvc repro pairs`")
    rows = jsonl.read_some(grpo.INPUTS, "id", "messages", *(["row"] if name == "grpo" else []))
    jsonl.write_json(out / REPORT, {"rows": len(rows)})
    return rows
