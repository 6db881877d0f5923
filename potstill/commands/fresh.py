"""The example of `make new-task` gives way to a user's own rows: what is still the example's is
replaced, what somebody wrote stays. So does its model, where that cannot read the rows."""

import json
import subprocess
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from potstill.checks import registry
from potstill.commands import profile
from potstill.core import jsonl, params, project
from potstill.task import settings
from potstill.task.settings import Task

TEMPLATE = Path("tasks/_template")
INPUTS = ("data/seeds.jsonl",)  # what inputs replace; rows to learn from replace all of it
LABELS = 30  # different answers that the prompt lists, each on five rows or more
TINY, REAL = "models/tiny-base", "smollm2"  # a model, and the profile of one that reads English
# The share of the letters that the tiny base may leave in pieces: 3 % at most of what the tasks of
# this repository read, a third to two thirds of English, half and more of other languages
PIECES = 0.2
READ = 500  # texts that are looked at
UNUSED = {"title": "answers are plain text: nothing reads this file"}
TYPES = {str: "string", bool: "boolean", int: "integer", float: "number", type(None): "null"}
TYPES |= {list: "array", dict: "object"}


def settle(t: Task, answers: list[str], others: Iterable[str] = INPUTS) -> list[str]:
    """Puts what fits a user's rows in the place of each file that is still the example's, and
    returns their names: where rows to learn from have `answers`, the task, its prompts and its
    schema, and no teacher, seeds and gold rows; without answers, the files `others`, emptied."""
    new = _files(t.name, answers) if answers else dict.fromkeys(others, "")
    replaced = [name for name in new if _is_example(name, t.name)]
    for name in replaced:
        text = new[name]
        if text is None:
            Path(name).unlink()
        else:
            jsonl.write_text(name, text)
    return replaced


def fit(task: str, texts: list[str]) -> list[str]:
    """Takes the real model of the catalogue in the place of the tiny base, where that cannot read
    the `texts` of the task's first rows; what it says of it, and nothing where it can."""
    if params.student()[0] != TINY:
        return []
    share, foreign = pieces(texts[:READ])
    if share <= PIECES:
        return []
    found = (
        f"{TINY} cannot read these rows: it leaves {share:.0%} of their letters in pieces of words "
        f"(above {PIECES:.0%}; docs/models.md)"
    )
    if foreign:
        known = "the model that comes with the packages reads English alone"
        return [f"{found}, and {known}: set model of params.yaml to one that knows their language"]
    path = project.root() / profile.FOLDER / f"{REAL}.yaml"
    lines = profile.apply(params.parse(params.read_text(path), path), path)
    back = f"`make profile NAME=cpu TASK={task}` takes the old one back"
    return [f"{found}: params.yaml now names a real model, fetched once (93 MB); {back}", *lines]


def pieces(texts: list[str]) -> tuple[float, bool]:
    """The share of the letters that the tiny base's tokenizer leaves in pieces of words: letters of
    ASCII in tokens of one or two, others in bytes. And whether most letters are none of ASCII."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(project.root() / TINY / "tokenizer.json"))
    letters = foreign = left = 0
    for text in texts:
        covered = Counter[int]()  # tokens that a character is in
        for start, end in tokenizer.encode(text, add_special_tokens=False).offsets:
            places = range(start, end)
            short = sum(text[i].isalpha() for i in places) <= 2
            covered.update({i: 1 + (short and text[i].isascii()) for i in places})
        for i, sign in enumerate(text):
            letters += sign.isalpha()
            foreign += sign.isalpha() and not sign.isascii()
            left += sign.isalpha() and covered[i] > 1
    return left / max(1, letters), foreign * 2 > letters


def _is_example(name: str, task: str) -> bool:
    path, example = Path(name), project.root() / TEMPLATE / name
    if not path.is_file() or not example.is_file():
        return False
    return params.read_text(path) == params.read_text(example).replace("NAME", task)


def _files(name: str, answers: list[str]) -> dict[str, str | None]:
    """The text of each file of a task whose rows have these answers; None: no such file."""
    schema = _schema(answers)
    labels = sorted(set(answers))
    if schema:
        asked = f"Answer with a JSON object: {', '.join(schema['properties'])}."
    elif len(labels) <= LABELS and len(labels) * 5 <= len(answers):
        asked = f"Answer with one of: {', '.join(labels)}."
    else:
        asked = "Answer."
    checks = ["json_schema", "exact_match"] if schema else ["exact_match"]
    config = [
        "# The task as a whole; docs/tutorial.md and docs/data.md say what else may stand here.",
        f"name: {name}",
        "description: Rows of one's own",
        "input: [text]                      # the fields of a row",
        'user: "{{ text }}"                 # the user\'s turn',
        "num_train_epochs: 3                # passes over the training rows, 1 to 10",
        "swift_args: {}                     # further arguments of `swift sft`",
        f"checks: [{', '.join(checks)}]".ljust(34) + " # right = equal to the row's own answer",
    ]
    return {
        "task.yaml": "\n".join(config) + "\n",
        "prompts/teacher.md": asked + "\n",
        "prompts/student.md": asked + "\n",
        "schema.json": json.dumps(schema or {"title": "not used"}, ensure_ascii=False, indent=2)
        + "\n",
        "data/seeds.jsonl": "",
        "data/gold.jsonl": "",
        "teacher/__init__.py": None,
    }


def _schema(answers: list[str]) -> dict[str, Any] | None:
    """The JSON schema of answers that are all objects; None where one is not."""
    found: dict[str, set[str]] = {}
    rows = []
    for answer in answers:
        try:
            row = json.loads(answer)
        except ValueError:
            return None
        if not isinstance(row, dict):
            return None
        rows.append(row)
        for key, value in row.items():
            found.setdefault(key, set()).add(TYPES[type(value)])
    if not found:
        return None
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "properties": {key: {"type": _one(kinds)} for key, kinds in found.items()},
        "required": [key for key in found if all(key in row for row in rows)],
        "additionalProperties": False,
    }


def _one(kinds: set[str]) -> str | list[str]:
    if "number" in kinds:
        kinds = kinds - {"integer"}
    return next(iter(kinds)) if len(kinds) == 1 else sorted(kinds)


def complete() -> None:
    """Makes what a task may lack, but DVC wants, since dvc.yaml names it, where it is missing and
    git neither knows nor ignores it (then a stage makes it): seeds.jsonl and gold.jsonl, empty, and
    the schema.json that nothing reads where answers are plain text. Raises UserError where
    schema.json is missing else."""
    for path in (project.DATA / "seeds.jsonl", project.DATA / "gold.jsonl", settings.ANSWER):
        if path.exists() or not path.parent.is_dir() or not settings.PATH.exists():
            continue
        asks = ["git", "ls-files", "--error-unmatch"], ["git", "check-ignore", "-q"]
        asked = (subprocess.run([*ask, str(path)], capture_output=True) for ask in asks)
        known = not all(done.returncode for done in asked)
        if path != settings.ANSWER:
            if not known:
                path.touch()
        elif known or registry.is_json(settings.load()):
            params.read_text(path)
        else:
            jsonl.write_text(path, json.dumps(UNUSED, indent=2) + "\n")
            print(f"{path}: made, since DVC wants it: plain text needs none, so nothing reads it")
