"""Release this task's student with a model card, for `dvc artifacts get`: VERSION=v1.0.0.

The folder release/ gets the model that ships and README.md, made from the run. DVC caches it
(release.dvc), git gets a commit and the tag that DVC's artifacts are found by: student@v1.0.0, of a
task in a folder tasks=NAME=student@v1.0.0.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from potstill.commands import gate, verify
from potstill.core import jsonl, lockfile, params, project
from potstill.core.errors import UserError
from potstill.core.models import MODELS
from potstill.core.params import read_text
from potstill.evaluation import score
from potstill.task import settings
from potstill.task.settings import Task
from potstill.training import model_folder, run

FOLDER = Path("release")
CARD = """\
---
{front}---
# {task} {version}

A small model for one task, distilled from {teacher} with {base} underneath. It answers one system \
prompt, and knows little else.

## How to ask it

System prompt, word for word; the user's turn is the input.

```
{student}
```

## Data

{data}
The teacher's prompt:

```
{prompt}
```

## Results

On test rows that nobody trained on, right when they pass every check of the task; 95 % intervals \
by Wilson. Reproduce: `dvc repro` at commit {commit}.

| model | prompt | test rows | right | 95 % interval |
|---|---|---|---|---|
{results}

## Training

{training}

## Licence

{licence}

## Hashes

MD5, a folder's is that of its list of files (DVC).

{hashes}
"""


def card(task: Task, version: str, commit: str) -> str:
    """The model card of a release, Markdown with Hugging Face's front matter."""
    from huggingface_hub import ModelCardData

    p, entries = params.load("model", "model_revision", "teacher"), lockfile.read()
    hub = model_folder.at_hub(p.model)
    base_card = model_folder.local(p.model) / "README.md"
    licence = _licence(base_card) if base_card.is_file() else None
    own = tomllib.loads(read_text(project.ROOT / "pyproject.toml"))["project"]["license"]
    front = ModelCardData(
        license=str(licence or "other").lower(),
        base_model=p.model if hub else None,
        pipeline_tag="text-generation",
        library_name="transformers",
        tags=["distillation", task.name],
    )
    read = entries["sft"].get("params", {})
    recipe = {
        name: read.get("task.yaml", {}).get(name) if value is None else value
        for name, value in read.get("params.yaml", {}).items()
    }
    used = {dep["path"]: dep["md5"] for dep in entries["sft"]["deps"]}
    made = {path: md5 for one in entries.values() for path, md5 in lockfile.made(one).items()}
    hashes = {
        path: md5
        for path, md5 in (used | made).items()
        if "models/" in path or path.startswith("data/4-")
    }
    said = f"its card says {licence}" if licence else "see its own card"
    scripted = p.teacher.model == "scripted"
    return CARD.format(
        front=front.to_yaml() + "\n",
        task=task.name,
        version=version,
        teacher="the scripted teacher of the task" if scripted else p.teacher.model,
        base=f"{p.model} ({f'commit {p.model_revision}' if hub else 'in the repository'})",
        student=read_text(Path("prompts/student.md")).strip(),
        prompt=read_text(Path("prompts/teacher.md")).strip(),
        data="".join(_data(task)),
        commit=commit,
        results="\n".join(_results(task, jsonl.read_json(task.reports / "metrics.json"))),
        training="\n".join(
            f"- {name}: {json.dumps(value)}" for name, value in recipe.items() if value is not None
        ),
        licence=f"The weights derive from {p.model}: {said}. The repository is {own}; the "
        "teacher's terms may bind what is made of its answers.",
        hashes="\n".join(f"- `{path}`: {md5}" for path, md5 in hashes.items()),
    )


def _data(task: Task) -> Iterator[str]:
    """The paragraph and the list about the rows, of those files that are here."""
    funnel = task.data / "3-funnel.json"
    if funnel.is_file():
        counts = jsonl.read_json(funnel)
        dropped = ", ".join(f"{count:,} {why}" for why, count in counts["dropped"].items())
        yield (
            f"The teacher gave {counts['in']:,} answers to {counts['inputs']:,} inputs; "
            f"{counts['kept']:,} were kept, dropped: {dropped or 'none'}.\n\n"
        )
    for name in ("train", "valid", "test"):
        path = task.data / f"4-{name}.jsonl"
        if path.is_file():
            yield f"- {name}: {sum(1 for _ in jsonl.read_lines(path)):,} rows\n"


def _results(task: Task, metrics: dict[str, Any]) -> Iterator[str]:
    """The lines of the table: each model on the headline's rows, then on those of other slices."""
    headline = task.config.get("headline_slice", "all")
    for model in (model for model in MODELS if model in metrics):
        parts = {headline: metrics[model] | {"rows": metrics["rows"]}}
        parts |= {
            name: part
            for name, part in metrics[model].items()
            if isinstance(part, dict) and {"rows", "low"} <= part.keys()
        }
        prompt = "short" if MODELS[model].prompt == "student" else "long"
        for name, part in parts.items():
            interval = f"{part['low']:.1%} to {part['high']:.1%}"
            rows = f"{part['rows']:,}, {name}"
            yield f"| {model} | {prompt} | {rows} | {score.headline(part):.1%} | {interval} |"


def _licence(path: Path) -> str | None:
    """The licence that a model's card names."""
    from huggingface_hub import ModelCard

    return ModelCard.load(path, ignore_metadata_errors=True).data.license


def release(version: str) -> str:
    """Makes, commits and tags the release; what to do next. Raises UserError, before anything is
    written, for a state that is no release."""
    if not re.fullmatch(r"v(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)", version):
        raise UserError(f"VERSION is {version!r}, expected one such as v1.0.0")
    task = settings.load()
    home = os.path.relpath(Path.cwd(), project.ROOT)
    artifact = "student" if home == "." else f"{home}:student"
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
    if subprocess.call([sys.executable, "-m", "dvc", "add", "--quiet", str(FOLDER)]):
        raise UserError(f"`dvc add {FOLDER}` failed, its own message stands above")
    record = [f"{FOLDER}.dvc", *([".gitignore"] if Path(".gitignore").is_file() else [])]
    project.git("add", *record)
    project.git("commit", "--quiet", "-m", f"Release {tag}", "--", *record)
    project.git("tag", "--annotate", "-m", f"Release {tag}", tag)
    return (
        f"release: {tag} ({FOLDER}/); `git push --follow-tags` and `make share` give it to others: "
        f"`dvc artifacts get URL {artifact} --rev {version}`"
    )


def main() -> None:
    if len(sys.argv) != 2:
        raise UserError("expected `make release VERSION=v1.0.0`")
    print(release(sys.argv[1]))
