"""Which inputs `make try` has sent to review: .cache/review/<task>.txt, an id a line. It is this
machine's own, as both pages are."""

from pathlib import Path

from potstill.core import project
from potstill.task.settings import Task


def path(task: Task) -> Path:
    """The file of a task."""
    return project.cache() / "review" / f"{task.name}.txt"


def ids(task: Task) -> set[str]:
    """The ids that were sent; none before the first."""
    return set(path(task).read_text(encoding="utf-8").split()) if path(task).is_file() else set()


def add(task: Task, id: str) -> None:
    """Sends an input, once."""
    if id in ids(task):
        return
    path(task).parent.mkdir(parents=True, exist_ok=True)
    with path(task).open("a", encoding="utf-8") as file:
        file.write(f"{id}\n")
