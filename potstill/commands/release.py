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
from potstill.evaluation import score, seeds
from potstill.evaluation.statistics import percent
from potstill.task import settings
from potstill.task.settings import Task
from potstill.training import model_folder, run

FOLDER = Path("release")
RECORD = (Path("release.dvc"), Path(".gitignore"))  # what git has of it; DVC edits the second
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
    found = jsonl.read_json(task.reports / "metrics.json")
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
        noise=seeds.sentence(found, task.reports).capitalize(),
        results=_results(task, found),
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
    written, for a state that is no release and where git knows no name to commit with; and when DVC
    or git fails (a hook, a signature): then all is as it was before."""
    if not re.fullmatch(r"v(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)", version):
        raise UserError(f"VERSION is {version!r}, expected one such as v1.0.0")
    task = settings.load()
    home = project.prefix().rstrip("/")
    artifact = f"{home}:student" if home else "student"
    tag = artifact.replace("/", "=").replace(":", "=") + f"@{version}"
    if project.git("tag", "--list", tag):
        raise UserError(f"there is a tag {tag} already: give a higher VERSION")
    for who in ("AUTHOR", "COMMITTER"):
        try:
            project.git("var", f"GIT_{who}_IDENT")
        except UserError:
            remedy = "`git config user.name …` and `git config user.email …`, then run this again"
            raise UserError(f"git does not know who commits the release: {remedy}") from None
    if changed := project.git("status", "--porcelain", "--untracked-files=no"):
        path = changed.splitlines()[0].strip().partition(" ")[2]
        raise UserError(f"{path} is not committed, expected a clean checkout: commit, then release")
    model = task.models / "student"
    model_folder.check_folder(model, "`make pull`, or `make repro`")
    print(verify.check_task(task.name))
    print(gate.judge(task, params.load("gate").gate.min_accuracy, "HEAD"))
    before = project.git("rev-parse", "HEAD")
    record = {path: path.read_bytes() if path.is_file() else None for path in RECORD}
    try:
        _make(task, version, before, tag)
    except BaseException as error:
        _undo(before, record)
        if isinstance(error, UserError):
            raise UserError(f"{error}: nothing is released, all is as before") from None
        raise
    return (
        f"release: {tag} ({FOLDER}/); `git push --follow-tags` and `make share` give it to others: "
        f"`dvc artifacts get URL {artifact} --rev {version}`"
    )


def _make(task: Task, version: str, before: str, tag: str) -> None:
    """The folder, its place in DVC's cache, the commit and the tag."""
    part = run.part(FOLDER)
    shutil.rmtree(part, ignore_errors=True)
    shutil.copytree(task.models / "student", part)
    (part / "README.md").write_text(card(task, version, before), encoding="utf-8")
    run.replace(FOLDER)
    project.dvc("add", "--quiet", str(FOLDER))
    there = [str(path) for path in RECORD if path.is_file()]
    project.git("add", *there)
    project.git("commit", "--quiet", "-m", f"Release {tag}", "--", *there)
    project.git("tag", "--annotate", "-m", f"Release {tag}", tag)


def _undo(before: str, record: dict[Path, bytes | None]) -> None:
    """Brings back the commit `before`, the files of RECORD as they were, and the release of that
    time."""
    shutil.rmtree(run.part(FOLDER), ignore_errors=True)
    shutil.rmtree(FOLDER, ignore_errors=True)
    project.git("reset", "--quiet", "--soft", before)
    project.git("reset", "--quiet", "--", *map(str, record))
    for path, content in record.items():
        if content is None:
            path.unlink(missing_ok=True)
        else:
            path.write_bytes(content)
    if RECORD[0].is_file():
        project.dvc("checkout", "--quiet", str(RECORD[0]))


def main() -> None:
    """`make release`. Raises UserError as `release` does."""
    print(release(" ".join(sys.argv[1:])))
