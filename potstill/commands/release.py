"""`make release VERSION=v1.0.0`: the active task's student that ships, with a model card, as an artifact of DVC.

releases/<task> gets the model and README.md, made from the run; DVC caches the folder (releases/<task>.dvc), git gets a commit and the tag
<task>@<version>, which `dvc artifacts get URL <task> --rev <version>` finds, offline, too.
"""

import json
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import yaml

from potstill.commands import gate, verify
from potstill.core import errors, jsonl, lockfile, params
from potstill.core.errors import UserError
from potstill.core.params import read_text
from potstill.evaluation import score
from potstill.task import settings
from potstill.training import model_folder, run

CARD = """\
---
{front}---
# {task} {version}

A small model for one task, distilled from {teacher} with {base} underneath. It answers one system prompt, and knows little else.

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

On test rows that nobody trained on, right when they pass every check of the task; 95 % intervals by Wilson. Reproduce: `dvc repro` at \
commit {commit}.

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


def card(
    t: settings.Task,
    version: str,
    stages: dict[str, lockfile.Stage],
    p: dict[str, Any],
    commit: str,
) -> str:
    """The model card, Markdown with Hugging Face's front matter."""
    found = jsonl.read_json(t.reports / "metrics.json")
    funnel = (
        jsonl.read_json(t.data / "3-funnel.json") if (t.data / "3-funnel.json").is_file() else {}
    )
    there = {name: t.data / f"4-{name}.jsonl" for name in ("train", "valid", "test")}
    data = "".join(
        f"- {name}: {sum(1 for _ in jsonl.read_lines(path)):,} rows\n"
        for name, path in there.items()
        if path.is_file() and path.stat().st_size
    )
    if funnel:
        dropped = (
            ", ".join(f"{count:,} {why}" for why, count in funnel["dropped"].items()) or "none"
        )
        data = f"The teacher gave {funnel['in']:,} answers to {funnel['inputs']:,} inputs; {funnel['kept']:,} were kept, dropped: {dropped}.\n\n{data}"
    recipe = vars(
        t.settled(
            SimpleNamespace(**(stages["sft"].lock or {}).get("params", {}).get("params.yaml", {}))
        )
    )
    made = {
        path: md5 for one in stages.values() for path, md5 in one.made().items() if path in one.outs
    }
    used = {
        dep["path"]: dep["md5"]
        for dep in (stages["sft"].lock or {}).get("deps", [])
        if dep["path"].startswith("models/")
    }
    hub = model_folder.at_hub(p["model"])
    base_card = Path(p["model"], "README.md")
    licence = _front(base_card).get("license") if base_card.is_file() else None
    own = tomllib.loads(read_text(Path("pyproject.toml")))["project"]["license"]
    front = {
        "license": str(licence or "other").lower(),
        **({"base_model": p["model"]} if hub else {}),
        "pipeline_tag": "text-generation",
        "library_name": "transformers",
        "tags": ["distillation", t.name],
    }
    base = f"{p['model']} ({'commit ' + p['model_revision'] if hub else 'in the repository'})"
    said = "its card says " + str(licence) if licence else "see its own card"
    return CARD.format(
        front=yaml.safe_dump(front, sort_keys=False, allow_unicode=True),
        task=t.name,
        version=version,
        teacher=f"the scripted teacher of {t.dir}"
        if p["teacher.model"] == "scripted"
        else p["teacher.model"],
        base=base,
        student=read_text(Path("prompts") / "student.md").strip(),
        prompt=read_text(Path("prompts") / "teacher.md").strip(),
        data=data,
        commit=commit,
        results="\n".join(_results(t, found)),
        training="\n".join(
            f"- {name}: {json.dumps(value)}" for name, value in recipe.items() if value is not None
        ),
        licence=f"The weights derive from {p['model']}: {said}. The repository is {own}; the teacher's terms may bind what is made of its answers.",
        hashes="\n".join(
            f"- `{path}`: {md5}"
            for path, md5 in (used | made).items()
            if path.startswith(("models/", f"{t.data}/4-"))
        ),
    )


def _results(t: settings.Task, found: dict[str, Any]) -> Iterator[str]:
    """The lines of the table: each model on the headline's rows, then on those of each other slice."""
    headline = t.config.get("headline_slice", "all")
    for model in (model for model in score.MODELS if model in found):
        parts = {headline: found[model] | {"rows": found["rows"]}}
        parts |= {
            name: one
            for name, one in found[model].items()
            if isinstance(one, dict) and {"rows", "low"} <= one.keys()
        }
        prompt = "long" if model in ("base", "examples", "teacher") else "short"
        for name, one in parts.items():
            yield f"| {model} | {prompt} | {one['rows']:,}, {name} | {score.headline(one):.1%} | {one['low']:.1%} to {one['high']:.1%} |"


def _front(path: Path) -> dict[str, Any]:
    match = re.match(r"---\n(.*?)\n---\n", path.read_text(encoding="utf-8"), re.DOTALL)
    return (yaml.safe_load(match[1]) or {}) if match else {}


def release(version: str) -> str:
    """Raises UserError, before anything is written, for a state that is no release."""
    if not re.fullmatch(r"v(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)", version):
        raise UserError(f"VERSION is {version!r}, expected one such as v1.0.0")
    t = settings.load(lockfile.active())
    tag = f"{t.name}@{version}"
    if _git("tag", "--list", tag):
        raise UserError(f"there is a tag {tag} already: give a higher VERSION")
    if changed := _git("status", "--porcelain", "--untracked-files=no"):
        raise UserError(
            f"{changed.splitlines()[0][3:]} is not committed, expected a clean checkout: commit, then release"
        )
    print(verify.check())
    p = vars(params.load("model", "model_revision", "teacher.model", "gate.min_accuracy"))
    print(gate.judge(t, p["gate.min_accuracy"], "HEAD"))
    model = t.models / "student"
    stages = {one.name: one for one in lockfile.stages() if one.task == t.name}
    made = {path: md5 for one in stages.values() for path, md5 in one.made().items()}
    model_folder.check_folder(model, "`make pull`, or `make repro`")
    if lockfile.md5(model) != made.get(str(model)):
        raise UserError(f"{model}: not the model that dvc.lock names: `make verify` says more")
    folder = Path("releases", t.name)
    shutil.rmtree(run.part(folder), ignore_errors=True)
    shutil.copytree(model, run.part(folder))
    (run.part(folder) / "README.md").write_text(
        card(t, version, stages, p, _git("rev-parse", "HEAD")), encoding="utf-8"
    )
    run.replace(folder)
    if subprocess.call([sys.executable, "-m", "dvc", "add", "--quiet", str(folder)]):
        raise UserError(f"`dvc add {folder}` failed, its own message stands above")
    _git("add", f"{folder}.dvc", "releases/.gitignore")
    _git("commit", "--quiet", "-m", f"Release {tag}", "--", f"{folder}.dvc", "releases/.gitignore")
    _git("tag", "--annotate", "-m", f"Release {tag}", tag)
    return f"release: {tag} ({folder}); `git push --follow-tags` and `make share` give it to others: `dvc artifacts get URL {t.name} --rev {version}`"


def _git(*command: str) -> str:
    done = subprocess.run(["git", *command], capture_output=True, text=True)
    if done.returncode:
        raise UserError(f"`git {' '.join(command)}` failed: {done.stderr.strip()}")
    return done.stdout.rstrip()


def main() -> None:
    if len(sys.argv) != 2:
        raise UserError("expected `make release VERSION=v1.0.0`")
    print(release(sys.argv[1]))


if __name__ == "__main__":
    errors.run(main)
