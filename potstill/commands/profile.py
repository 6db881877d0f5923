"""Writes a profile into params.yaml of the task and keeps its comments: NAME=standard.

A profile is a file profiles/NAME.yaml of the task or, for every task, of the root; the task's wins.
"""

import io
import sys
from pathlib import Path
from typing import Any

from potstill.core import jsonl, params, project
from potstill.core.errors import UserError
from potstill.core.params import found_text

FOLDER = Path("profiles")


def apply(changes: dict[str, Any], source: Path) -> list[str]:
    """Sets parameters in params.yaml of the working folder, all or none, and returns one line for
    each that changed. Raises UserError as `changed` does."""
    lines, text = changed(changes, source)
    jsonl.write_text(params.PATH, text)
    return lines


def changed(changes: dict[str, Any], source: Path) -> tuple[list[str], str]:
    """One line for each parameter that `changes` changes, and the text of params.yaml then, with
    its comments. `changes` has {"predict": {"dtype": "auto"}} or {"predict.dtype": "auto"}. Raises
    UserError, with the line of the file `source`, for an unknown name or a wrong value."""
    from ruamel.yaml import YAML

    params.parse(text := params.read_text(params.PATH), params.PATH)
    yaml = YAML()
    yaml.preserve_quotes, yaml.width, yaml.default_flow_style = True, 4096, True
    yaml.representer.add_representer(type(None), _null)
    document = yaml.load(text)
    columns = [items[2].column for items in document.ca.items.values() if items[2]]
    usual = max(columns, key=columns.count, default=0)
    lines = []
    for name, value in params.flat(changes).items():
        section, _, key = name.rpartition(".")
        mapping = document
        for part in section.split(".") if section else []:
            mapping = mapping.get(part) if isinstance(mapping, dict) else None
        if not isinstance(mapping, dict):
            mapping, key = document, name
        if key in mapping and mapping[key] == value:
            continue
        lines.append(f"{name}: {found_text(mapping.get(key))} → {found_text(value)}")
        mapping[key] = value
        comment = mapping.ca.items.get(key, [None] * 3)[2]
        width = len(f"{key}: {value}".replace("'", "")) + 2 * (mapping is not document)
        if comment and width < usual:  # the value before may have been too long for this column
            comment.column = usual
    params.validate(document, source)
    yaml.dump(document, out := io.StringIO())
    return lines, out.getvalue()


def _null(representer: Any, value: None) -> Any:
    return representer.represent_scalar("tag:yaml.org,2002:null", "null")  # not the empty text


def main() -> None:
    name = sys.argv[1] if len(sys.argv) == 2 else ""
    folders = (project.root() / FOLDER, FOLDER)
    profiles = {path.stem: path for folder in folders for path in folder.glob("*.yaml")}
    if name not in profiles:
        listed = ", ".join(sorted(profiles)) or "none"
        raise UserError(f"task {params.task_name()} has no profile {name!r}; there are: {listed}")
    source = profiles[name]
    lines = apply(params.parse(params.read_text(source), source), source)
    print(*lines, f"params.yaml: {len(lines)} values changed, now as in {source}", sep="\n")
