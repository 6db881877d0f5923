"""`make new-task NAME=invoice`: a task of your own, copied from tasks/_template with the word NAME in it filled in. It holds a
small synthetic example and runs at once, so that each piece can be replaced while the whole keeps working."""

import re
import sys
from pathlib import Path

from potstill.core import errors, jsonl
from potstill.task import settings

TEMPLATE = Path("tasks/_template")


def scaffold(name: str) -> list[Path]:
    """Writes tasks/<name>, schemas/<name>.json and data/<name>; gives the files. Raises UserError when the name is none or
    taken."""
    if not re.fullmatch(settings.NAME, name):
        raise errors.UserError(
            f"NAME is {name!r}, expected small letters, digits, - and _, a letter or digit first: make new-task NAME=invoice"
        )
    homes = {
        "data": Path("data", name),
        "schema.json": Path("schemas", f"{name}.json"),
        "task": Path("tasks", name),
    }
    for there in (*homes.values(), Path("models", name), Path("reports", name)):
        if there.exists():
            raise errors.UserError(
                f"{there} is there already: choose another NAME, or move it away first"
            )
    made = []
    for part, home in homes.items():  # the folder that makes it a task comes last
        sources = sorted(
            path
            for path in (TEMPLATE / part).rglob("*")
            if path.is_file() and path.suffix != ".pyc"
        )
        for source in sources or [TEMPLATE / part]:
            made.append(home / source.relative_to(TEMPLATE / part))
            jsonl.write_text(made[-1], source.read_text(encoding="utf-8").replace("NAME", name))
    return made


def main() -> None:
    name = sys.argv[1] if len(sys.argv) == 2 else ""
    made = scaffold(name)
    print(
        f"tasks/{name}, schemas/{name}.json, data/{name}: {len(made)} files, an example to put yours in the place of. Next:"
    )
    for command, why in (
        (f"make repro TASK={name}", "the example as it is, offline, in a minute or two"),
        (
            f"make import FILE=inputs.json TASK={name}",
            f"your own inputs, once data/{name}/seeds.jsonl is gone",
        ),
        ("make quote", "what a real teacher would cost; docs/tutorial.md has the whole way"),
    ):
        print(f"  {command:{len(name) + 36}}# {why}")


if __name__ == "__main__":
    errors.run(main)
