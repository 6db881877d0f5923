"""Release this task's student with a model card, for `dvc artifacts get`: VERSION=v1.0.0.

The folder release/ gets the model that ships and README.md, made from the run. DVC caches it
(release.dvc), git gets a commit and the tag that DVC's artifacts are found by: student@v1.0.0, of a
task in a folder tasks=NAME=student@v1.0.0.
"""

import re
import shutil
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from potstill.commands import gate, verify
from potstill.core import jsonl, lockfile, params, project, weights
from potstill.core.errors import UserError
from potstill.core.models import MODELS
from potstill.core.params import read_text
from potstill.evaluation import score
from potstill.evaluation.statistics import percent
from potstill.task import settings
from potstill.task.settings import Task
from potstill.training import model_folder, run

FOLDER = Path("release")
TEMPLATE = Path(__file__).with_name("card.md")


def card(task: Task, version: str, commit: str) -> str:
    """The model card of a release, Markdown with Hugging Face's front matter."""
    from huggingface_hub import ModelCard, ModelCardData

    p, entries = params.load("model", "model_revision", "teacher"), lockfile.read()
    hub, scripted = model_folder.at_hub(p.model), p.teacher.model == "scripted"
    path, licence = model_folder.local(p.model) / "README.md", None
    if path.is_file():
        licence = ModelCard.load(path, ignore_metadata_errors=True).data.license
    front = ModelCardData(
        license=str(licence or "other").lower(),
        base_model=p.model if hub else None,
        pipeline_tag="text-generation",
        library_name="transformers",
        tags=["distillation", task.name],
    )
    own = tomllib.loads(read_text(project.ROOT / "pyproject.toml"))
    sides = {name: task.data / f"4-{name}.jsonl" for name in ("train", "valid", "test")}
    hashes = {dep["path"]: dep["md5"] for dep in entries["sft"]["deps"]}
    for entry in entries.values():
        hashes |= lockfile.made(entry)
    filled = ModelCard.from_template(
        front,
        str(TEMPLATE),
        task=task.name,
        version=version,
        commit=commit,
        model=p.model,
        teacher="the scripted teacher of the task" if scripted else p.teacher.model,
        base=weights.said(*params.student())
        or f"{p.model} ({f'commit {p.model_revision}' if hub else 'in the repository'})",
        student=read_text(Path("prompts/student.md")).strip(),
        prompt=read_text(Path("prompts/teacher.md")).strip(),
        funnel=jsonl.read_json(task.data / "3-funnel.json"),
        sides={name: len(jsonl.read_some(path)) for name, path in sides.items()},
        results=_results(task, jsonl.read_json(task.reports / "metrics.json")),
        recipe=vars(params.load(*params.declared("sft"))),
        licence=licence,
        own=own["project"]["license"],
        hashes=hashes,
    )
    return str(filled)


def _results(task: Task, metrics: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    """The rows of the table: each model on the headline's rows, then on those of other slices."""
    headline = task.config.get("headline_slice", "all")
    for model in (model for model in MODELS if model in metrics):
        parts = {headline: metrics[model] | {"rows": metrics["rows"]}}
        inner = {key: part for key, part in metrics[model].items() if isinstance(part, dict)}
        parts |= {name: part for name, part in inner.items() if {"rows", "low"} <= part.keys()}
        prompt = "short" if MODELS[model].prompt == "student" else "long"
        for name, part in parts.items():
            yield (
                model,
                prompt,
                f"{part['rows']:,}, {name}",
                percent(score.headline(part)),
                score.interval(part),
            )


def release(version: str) -> str:
    """Makes, commits and tags the release; what to do next. Raises UserError, before anything is
    written, for a state that is no release."""
    if not re.fullmatch(r"v(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)", version):
        raise UserError(f"VERSION is {version!r}, expected one such as v1.0.0")
    task = settings.load()
    home = project.prefix().rstrip("/")
    artifact = f"{home}:student" if home else "student"
    tag = artifact.replace("/", "=").replace(":", "=") + f"@{version}"
    if project.git("tag", "--list", tag):
        raise UserError(f"there is a tag {tag} already: give a higher VERSION")
    if changed := project.git("status", "--porcelain", "--untracked-files=no"):
        path = changed.splitlines()[0].strip().partition(" ")[2]
        raise UserError(f"{path} is not committed, expected a clean checkout: commit, then release")
    model = task.models / "student"
    model_folder.check_folder(model, "`make pull`, or `make repro`")
    print(verify.check_task(task.name))
    print(gate.judge(task, params.load("gate").gate.min_accuracy, "HEAD"))
    part = run.part(FOLDER)
    shutil.rmtree(part, ignore_errors=True)
    shutil.copytree(model, part)
    text = card(task, version, project.git("rev-parse", "HEAD"))
    (part / "README.md").write_text(text, encoding="utf-8")
    run.replace(FOLDER)
    project.dvc("add", "--quiet", str(FOLDER))
    record = [f"{FOLDER}.dvc", *([".gitignore"] if Path(".gitignore").is_file() else [])]
    project.git("add", *record)
    project.git("commit", "--quiet", "-m", f"Release {tag}", "--", *record)
    project.git("tag", "--annotate", "-m", f"Release {tag}", tag)
    return (
        f"release: {tag} ({FOLDER}/); `git push --follow-tags` and `make share` give it to others: "
        f"`dvc artifacts get URL {artifact} --rev {version}`"
    )


def main() -> None:
    """`make release`. Raises UserError as `release` does."""
    print(release(" ".join(sys.argv[1:])))
