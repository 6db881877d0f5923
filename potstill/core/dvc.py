"""DVC, which here records only what a stage has read: `python -m potstill.core.dvc repro`.

Between a stage's last look at its inputs and DVC's own, some tenths of a second later, an edit
would be recorded as read. So what DVC is about to record is held against what the stage noted at
its end and, where the run-cache had the result, against the inputs by which it was found. Where
they differ, DVC records nothing. `make` runs DVC so; a bare `dvc` lacks this look.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from potstill.core import record

Hashes = dict[tuple[str, ...], Any]


def recorded(stage: Any) -> Hashes:
    """What DVC is about to record of a stage: the MD5 of each file that it read or made, by path,
    and each parameter, by file and name."""
    found: Hashes = {}
    for item in [*stage.deps, *stage.outs]:
        path, value = Path(item.def_path), item.hash_info.value
        if isinstance(value, dict):
            found |= {(str(path), name): one for name, one in value.items()}
        elif item.hash_info.isdir:
            found |= {(str(path.joinpath(*key)),): sum.value for key, _, sum in item.obj}
        else:
            found[(str(path),)] = value
    return {key: json.loads(json.dumps(value, default=str)) for key, value in found.items()}


def differing(stage: Any) -> Iterator[str]:
    """What DVC is about to record otherwise than the stage noted it; nothing for a stage without
    our frame, which notes nothing."""
    if not (path := _note(stage)).is_file():
        return
    note, found = json.loads(path.read_bytes()), recorded(stage)
    seen: Hashes = {(name,): md5 for name, md5 in note["files"].items()}
    seen |= {(file, name): value for file, name, value in note["values"]}
    for key, value in found.items():
        if key not in seen or seen[key] not in (value, ""):  # of a large file it notes no MD5
            yield ": ".join(key)
    gone = (Path(stage.wdir, key[0]) for key in seen.keys() - found.keys())
    yield from (f"{path}" for path in gone if not path.exists())


def _note(stage: Any) -> Path:
    return Path(stage.wdir, record.note_of(stage.name))


def install() -> None:
    """Puts this look into DVC, in this process."""
    import dvc.stage
    import dvc.stage.run
    from dvc.exceptions import DvcException

    cmd_run, run_stage = dvc.stage.run.cmd_run, dvc.stage.run.run_stage
    save_outs = dvc.stage.Stage.save_outs
    inputs_of = dict[str, dict[str, Any] | None]()  # by stage, None for one that ran

    def inputs(stage: Any) -> dict[str, Any]:
        return {str(dep): dep.hash_info.value for dep in stage.deps}

    def run(stage: Any, *arguments: Any, **options: Any) -> None:
        inputs_of[stage.addressing] = None
        cmd_run(stage, *arguments, **options)

    def run_or_restore(stage: Any, *arguments: Any, **options: Any) -> None:
        _note(stage).unlink(missing_ok=True)
        inputs_of.pop(stage.addressing, None)
        run_stage(stage, *arguments, **options)
        inputs_of.setdefault(stage.addressing, inputs(stage))

    def save(stage: Any, *arguments: Any, **options: Any) -> None:
        save_outs(stage, *arguments, **options)
        before, now, wrong = inputs_of.pop(stage.addressing, {}), inputs(stage), []
        if before is None:
            wrong = list(differing(stage))
        elif before:
            wrong = [name for name, value in now.items() if value != before[name]]
        if wrong:
            said = record.not_recorded(f"{wrong[0]} has changed since {stage.name} ended", wrong)
            print(f"error: {said}", file=sys.stderr, flush=True)
            raise DvcException(said)

    dvc.stage.run.cmd_run = run
    dvc.stage.run_stage = run_or_restore
    dvc.stage.Stage.save_outs = save


def main() -> int:
    """DVC's command line. Returns its exit code."""
    install()
    from dvc.cli import main

    return int(main(sys.argv[1:]))


if __name__ == "__main__":
    sys.exit(main())
