"""Writes a profile of a task, or the task's name, into params.yaml and keeps its comments.

python -m potstill.commands.profile NAME [TASK]    every value of tasks/TASK/profiles/NAME.yaml, or else of profiles/NAME.yaml, which
                                          is for every task; and `task: TASK` when it is given
python -m potstill.commands.profile --task TASK    `task: TASK` alone
"""

import io
import sys
from pathlib import Path
from typing import Any

from potstill.core import errors, jsonl, params
from potstill.task import settings

SHARED = Path("profiles")  # the presets of every task; a task's own profile of the same name wins


def apply(changes: dict[str, Any], source: Path) -> list[str]:
    """Sets the parameters that `source` holds in params.yaml, all or none; gives one line for each that changed. Raises
    UserError."""
    from ruamel.yaml import YAML

    yaml = YAML()
    yaml.preserve_quotes, yaml.width = True, 4096
    yaml.representer.add_representer(type(None), _null)
    yaml.representer.add_representer(list, _list)
    text = params.read_text(params.PATH)
    before = params.parse(text, params.PATH)
    params.validate({**before, **changes}, source)
    document = yaml.load(text)
    changed = {name: value for name, value in changes.items() if before.get(name) != value}
    document.update(changed)
    comments = [
        token
        for token in (of[2] for of in document.ca.items.values())
        if token and token.value[0] == "#"
    ]
    column = min(
        (comment.column for comment in comments), default=0
    )  # a value that was too long has moved its own
    for comment in comments:
        comment.column = column
    out = io.StringIO()
    yaml.dump(document, out)
    jsonl.write_text(params.PATH, out.getvalue())
    return [f"{name}: {before.get(name)} → {value}" for name, value in changed.items()]


def _null(representer: Any, value: None) -> Any:
    return representer.represent_scalar(
        "tag:yaml.org,2002:null", "null"
    )  # its own way is to write nothing


def _list(representer: Any, value: list[Any]) -> Any:
    return representer.represent_sequence(
        "tag:yaml.org,2002:seq", value, flow_style=True
    )  # in one line, as it was


def main() -> None:
    match sys.argv[1:]:
        case ["--task", name]:
            source, changes = settings.load(name).dir / "task.yaml", {"task": name}
        case [profile, *rest] if len(rest) <= 1 and not profile.startswith("-"):
            t = settings.load(rest[0] if rest else params.load("task").task)
            there = {
                path.stem: path
                for folder in (SHARED, t.dir / "profiles")
                for path in folder.glob("*.yaml")
            }
            if profile not in there:
                raise errors.UserError(
                    f"task {t.name} has no profile {profile!r}; there are: {', '.join(sorted(there)) or 'none'}"
                )
            source = there[profile]
            changes = {"task": t.name, **params.parse(params.read_text(source), source)}
        case _:
            raise errors.UserError(
                "expected `python -m potstill.commands.profile NAME [TASK]` or `--task TASK`"
            )
    changed = apply(changes, source)
    print(*changed, f"params.yaml: {len(changed)} values changed, now as in {source}", sep="\n")


if __name__ == "__main__":
    errors.run(main)
