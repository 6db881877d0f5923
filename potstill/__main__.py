"""The command line behind the Makefile: python -m potstill [--task NAME] COMMAND [ARGUMENT …]."""

import importlib
import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# Each command with the function that does it; the module's docstring is its help.
COMMANDS = {
    "repro": "potstill.commands.repro:main",
    "eval": "potstill.commands.repro:evaluate",
    "report": "potstill.commands.repro:report",
    "exp": "potstill.commands.experiments:run_one",
    "sweep": "potstill.commands.experiments:sweep",
    "compare": "potstill.commands.experiments:main",
    "tour": "potstill.commands.tour:main",
    "scale-curve": "potstill.commands.scale_curve:main",
    "gate": "potstill.commands.gate:main",
    "check": "potstill.commands.verify:check",
    "verify": "potstill.commands.verify:main",
    "share": "potstill.commands.share:push",
    "pull": "potstill.commands.share:pull",
    "release": "potstill.commands.release:main",
    "serve": "potstill.serving.serve:main",
    "bench-serve": "bench.serve:main",
    "quantize": "potstill.serving.quantize:main",
    "lock": "potstill.commands.lock:main",
    "review": "potstill.review.server:main",
    "try": "potstill.review.trial:main",
    "harvest": "potstill.commands.harvest:main",
    "drift": "potstill.commands.drift:main",
    "confidence": "potstill.commands.confidence:main",
    "canary": "potstill.commands.canary:main",
    "doctor": "potstill.commands.doctor:main",
    "quote": "potstill.commands.quote:main",
    "fill": "potstill.commands.fill:main",
    "validate": "potstill.commands.validate:main",
    "import": "potstill.commands.import_rows:main",
    "trace": "potstill.commands.trace:main",
    "track": "potstill.commands.track:main",
    "new-task": "potstill.commands.new_task:main",
    "pipelines": "potstill.commands.pipelines:main",
    "shard": "potstill.commands.shard:main",
    "profile": "potstill.commands.profile:main",
}


def work_in(task: str) -> None:
    """Makes the folder of a task the working folder. Ends with one sentence when there is none."""
    folder = ROOT / "tasks" / task
    if not (folder / "task.yaml").is_file():
        from potstill.task import settings

        tasks = settings.tasks()
        if task not in tasks:
            sys.exit(f"error: there is no task {task!r}, expected one of {', '.join(tasks)}")
        folder = tasks[task]
    os.chdir(folder)


def main() -> None:
    """Runs a command in the folder of its task."""
    words = sys.argv[1:]
    start = Path.cwd()
    if words[:1] == ["--task"] and len(words) > 1:
        work_in(words[1])
        words = words[2:]
    if not words or words[0] not in COMMANDS:
        listed = "\n".join(f"  {name}" for name in COMMANDS)
        sys.exit(f"usage: python -m potstill [--task NAME] COMMAND …\n{listed}")
    os.environ["POTSTILL_START"] = str(start)  # what a FILE on the command line is relative to
    paths = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    if str(ROOT) not in paths:  # for child processes, which start in the task's folder
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), *paths]))
    module, _, function = COMMANDS[words[0]].partition(":")
    found = importlib.import_module(module)
    if words[1:] in (["-h"], ["--help"]):
        print((found.__doc__ or "").strip())
        return
    sys.argv = [f"potstill {words[0]}", *words[1:]]
    from potstill.commands import ready
    from potstill.core import stage

    def command() -> None:
        ready.verify(words[0])
        getattr(found, function)()

    stage.run(command)


if __name__ == "__main__":
    main()
