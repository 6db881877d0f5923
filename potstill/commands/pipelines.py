"""Writes the dvc.yaml of every task in tasks/ anew from the root's, which is the one to edit."""

import os
from pathlib import Path

from potstill.core import jsonl, params, project
from potstill.core.lockfile import PIPELINE
from potstill.task import settings


def copy_pipeline(folder: Path) -> None:
    """Writes dvc.yaml of a task's folder: the root's, with the way from there to the root."""
    text = params.read_text(project.root() / PIPELINE)
    way = f"vars: [{{root: {os.path.relpath(project.ROOT, folder)}}}]"
    jsonl.write_text(folder / PIPELINE, text.replace("vars: [{root: .}]", way))


def main() -> None:
    for name, folder in settings.tasks().items():
        if folder != project.ROOT:
            copy_pipeline(folder)
            print(f"{name}: {PIPELINE} is the root's")
