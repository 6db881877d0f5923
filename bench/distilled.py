"""A student of a real teacher, without a label but those that are shown: python -m bench.distilled
MODEL [--shown 20] [--samples 4] [--epochs 3] [--keep FOLDER] in tasks/postal.

MODEL, as `model` of params.yaml is named (a .gguf, smollm2-135m, …), answers postal's training
lines, which people typed; their labels are left out, and so are the recombined lines and those of
the register. Its prompt is the task's long one with `--shown` labelled lines; it draws `--samples`
answers to each, and the checks that need no label (json_schema, grounded) choose. The student is
trained on what is kept, as postal's is, and both answer the gold rows: the teacher greedily, with
the same prompt. The last lines are the two scores and the exact McNemar test between them.

Runs the stages in a folder of its own. --keep keeps it, so that a run that was stopped goes on.
"""

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import yaml

from bench.poisoned import TASK, link
from potstill.core import jsonl, lockfile, project
from potstill.core.jsonl import row_id
from potstill.evaluation import compare, score, statistics
from potstill.inference import predictions
from potstill.task import settings
from tasks.postal.data import fetch, labels

STAGES = ("expand", "generate", "filter", "split", "sft", "merge", "predict sft", "ask_teacher")


def lines() -> list[labels.Row]:
    """The rows of the training side that people labelled, in the order of the hash of their ids."""
    made, _ = labels.rows(labels.read(fetch.sdist(labels.SDIST, labels.SHA256)))
    return sorted(
        (row for row in made if not row.gold), key=lambda row: row_id({"text": row.line.text})
    )


def prompt(shown: list[labels.Row]) -> str:
    """The task's long prompt with labelled lines."""
    text = Path("prompts/teacher.md").read_text(encoding="utf-8")
    pairs = (
        f"{row.line.text}\n{json.dumps(row.answer, ensure_ascii=False, separators=(',', ':'))}\n"
        for row in shown
    )
    return f"{text}\nExamples, the line and its answer:\n\n" + "\n".join(pairs)


def parameters(changes: dict[str, object]) -> str:
    """params.yaml with other values, by dotted names."""
    found = lockfile.read_yaml(Path("params.yaml"))
    for name, value in changes.items():
        *section, key = name.split(".")
        place = found[section[0]] if section else found
        place[key] = value
    return yaml.safe_dump(found, sort_keys=False)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("--shown", type=int, default=20)
    parser.add_argument("--samples", type=int, default=4)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--keep", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = (given.keep or Path(place)).resolve()
        made = lines()
        shown, asked = made[: given.shown], made[given.shown :]
        if not (folder / "params.yaml").exists():
            used = [name for name in TASK if name not in ("params.yaml", "prompts")]
            link(folder, *used, "teacher", "prompts/student.md", "data/gold.jsonl")
            (folder / "prompts/teacher.md").write_text(prompt(shown), encoding="utf-8")
            inputs = ({"text": row.line.text} for row in asked)
            seeds = ({"id": row_id(input), **input} for input in inputs)
            jsonl.write_jsonl(folder / "data/seeds.jsonl", seeds)
        common = {"teacher.model": f"local:{given.model}", "num_train_epochs": given.epochs}
        common |= {"generate.samples": given.samples, "generate.good_share": 0}
        env = os.environ | {"DVC_ROOT": str(folder), "PYTHONPATH": str(project.ROOT)}
        for stage in STAGES:
            heat = 0.0 if stage == "ask_teacher" else 0.8
            text = parameters(common | {"teacher.temperature": heat})
            (folder / "params.yaml").write_text(text, encoding="utf-8")
            print(f"== {stage}", flush=True)
            command = [sys.executable, "-m", *f"stages.{stage}".split()]
            subprocess.run(command, cwd=folder, env=env, check=True)
        with contextlib.chdir(folder):
            print(*compared(), sep="\n")


def compared() -> Iterator[str]:
    """What the teacher and the student have right of the gold rows, and whether that differs."""
    t = settings.load()
    tests = predictions.tests(t)
    said = {
        name: jsonl.read_jsonl(predictions.folder(t, name) / "test.jsonl")
        for name in ("teacher", "sft")
    }
    right = {
        name: [bool(mark["right"]) for mark in marks]
        for name, marks in score.marked(t, tests, said).items()
    }
    for name, found in right.items():
        low, high = statistics.wilson(sum(found), len(found))
        yield f"{name}: {sum(found)} of {len(found)} right, {low:.1%} to {high:.1%}"
    yield json.dumps(compare.pair("teacher", "sft", right["teacher"], right["sft"]))


if __name__ == "__main__":
    main()
