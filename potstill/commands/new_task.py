"""Makes tasks/<name>, a task of your own, from an example that runs at once: NAME=invoice.

It is tasks/_template with the word NAME filled in, and the root's pipeline and parameters: each
piece can be replaced while the whole keeps working.
"""

import re
import shutil
import sys
from pathlib import Path

from potstill.commands.pipelines import copy_pipeline
from potstill.core import project
from potstill.core.errors import UserError
from potstill.task import settings


def scaffold(name: str) -> Path:
    """Makes the folder of a new task and returns it. Raises UserError for a malformed or taken
    name."""
    if not re.fullmatch(settings.NAME, name):
        rule = "small letters, digits, - and _, a letter or digit first"
        raise UserError(f"NAME is {name!r}, expected {rule}: make new-task NAME=invoice")
    folder = project.root() / "tasks" / name
    if name in settings.tasks() or folder.exists():
        raise UserError(
            f"NAME is {name!r}, but a task of that name is there already: choose another"
        )

    def fill(source: str, target: str) -> None:
        Path(target).write_text(Path(source).read_text("utf-8").replace("NAME", name), "utf-8")

    part = folder.with_name(f"_{name}.part")  # renamed last: a task that is there is whole
    shutil.rmtree(part, ignore_errors=True)
    caches = shutil.ignore_patterns("__pycache__")
    try:
        shutil.copytree(folder.with_name("_template"), part, ignore=caches, copy_function=fill)
        copy_pipeline(part)
        shutil.copy(project.root() / "params.yaml", part)
        return part.rename(folder)
    except BaseException:  # such as a full disk, which the half copy would keep full
        shutil.rmtree(part, ignore_errors=True)
        raise


def main() -> None:
    folder = scaffold(name := sys.argv[1] if len(sys.argv) == 2 else "")
    print(f"{folder}: an example to put yours in the place of. Next:")
    for command, why in {
        f"make repro TASK={name}": "the example as it is, offline, in a minute or two",
        f"make import FILE=rows.csv TASK={name}": "your rows, in the place of the example's",
        f"make quote TASK={name}": "what a real teacher costs; docs/tutorial.md has the whole way",
        f"git add {folder}": "experiments see only what git knows",
    }.items():
        print(f"  {command:{len(name) + 36}}# {why}")
