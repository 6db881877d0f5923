"""Whether two checkouts have the same outputs: python -m bench.same_outputs OLD NEW [TASK …]

OLD is a checkout of the former layout (one dvc.yaml for all tasks, data/<task>/…; up to commit
6d20692), NEW one of the present, both with their DVC caches. Prints a table with a line for each
output file of each task: what became of it, compared by content. Exit code 1 when any differs that
is not named in ALLOWED.
"""

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import yaml

# What the former layout calls a file → its name now; `T/` is the task's folder.
RENAMED = (
    (r"^data/T/1-calls\.jsonl$", "data/1-expand/calls.jsonl"),
    (r"^data/T/1-expand\.json$", "data/1-expand/report.json"),
    (r"^data/T/4-samples\.jsonl$", "data/4-samples/samples.jsonl"),
    (r"^data/T/4-(rejected|pairs)\.jsonl$", r"data/4-pairs/\1.jsonl"),
    (r"^data/T/4-pairs\.json$", "data/4-pairs/report.json"),
    (r"^data/T/5-predictions-again\.jsonl$", "data/5-predictions/examples/again.jsonl"),
    (r"^data/T/5-predictions-adapter-dpo\.jsonl$", "data/5-parity/dpo.jsonl"),
    (r"^data/T/5-predictions-adapter\.jsonl$", "data/5-parity/sft.jsonl"),
    (r"^data/T/5-predictions-(\w+)\.jsonl$", r"data/5-predictions/\1/test.jsonl"),
    (r"^data/T/5-valid-(\w+)\.jsonl$", r"data/5-predictions/\1/valid.jsonl"),
    (r"^data/T/5-latency-(\w+)\.json$", r"data/5-predictions/\1/latency.json"),
    (r"^data/T/5-parity\.json$", "data/5-parity/report.json"),
    (r"^data/T/5-judge\.jsonl$", "data/5-judge/verdicts.jsonl"),
    (r"^data/T/6-ship\.json$", "data/6-choice.json"),
    (r"^reports/T/(metrics\.json|cost\.json|report\.html)$", r"reports/\1"),
    (r"^reports/T/", "reports/tables/"),
    (r"^(data|models)/T/", r"\1/"),
)
# Files that may differ, with the reason; JSON lines are compared without the fields in brackets.
ALLOWED = (
    (r"latency\.json$", "times of this run", ()),
    (r"report\.html$", "the page shows names of parameters and files", ()),
    (
        r"2-answers|calls|rejected|5-predictions/teacher",
        "the scripted teacher's name is a hash of its source",
        ("key", "model", "crc"),
    ),
    (r"models/dpo/adapter/adapter_config\.json$", "names its base's folder", ()),
)
EMPTY = (
    "d41d8cd98f00b204e9800998ecf8427e"  # the MD5 of nothing: such files are not written any more
)
Files = dict[str, tuple[str, Path]]  # by name: MD5, and where DVC's cache or git has the content


def outputs(checkout: Path, home: str, stages: dict[str, dict[str, list[dict[str, str]]]]) -> Files:
    """The files that these entries of a dvc.lock made, folders with each of theirs."""
    found: Files = {}
    cache = checkout / ".dvc/cache/files/md5"
    for entry in stages.values():
        for out in entry["outs"]:
            name, md5 = out["path"], out["md5"]
            parts = [{"relpath": "", "md5": md5}]
            if md5.endswith(".dir"):
                listing = cache / md5[:2] / md5[2:]
                parts = json.loads(listing.read_bytes()) if listing.is_file() else []
                if not parts:  # kept in git
                    folder = checkout / home / name
                    parts = [{"relpath": path.name, "md5": ""} for path in sorted(folder.iterdir())]
            for part in parts:
                full = f"{name}/{part['relpath']}".rstrip("/")
                path = cache / part["md5"][:2] / part["md5"][2:]
                there = path if part["md5"] and path.is_file() else checkout / home / full
                found[full] = (part["md5"], there)
    return found


def renamed(name: str, task: str) -> str:
    """The present name of a file of the former layout."""
    name = name.replace(f"/{task}/", "/T/")
    for pattern, new in RENAMED:
        if re.search(pattern, name):
            return re.sub(pattern, new, name)
    return name


def without(path: Path, fields: tuple[str, ...]) -> list[dict[str, object]]:
    """The rows of a JSON lines file without some fields."""
    rows = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    return [{key: value for key, value in row.items() if key not in fields} for row in rows]


def compared(old: Files, new: Files) -> Iterator[tuple[str, str]]:
    """Each file with what became of it."""
    for name in sorted(old.keys() | new.keys()):
        if name not in new:
            gone = old[name][0] == EMPTY
            yield name, "empty before, not written now" if gone else "DIFFERS: is missing now"
        elif name not in old:
            yield name, "new: says in a file what an empty one said"
        elif old[name][1].read_bytes() == new[name][1].read_bytes():
            yield name, "same"
        else:
            why = [(reason, keys) for at, reason, keys in ALLOWED if re.search(at, name)]
            if not why:
                yield name, "DIFFERS"
            elif why[0][1]:
                same = without(old[name][1], why[0][1]) == without(new[name][1], why[0][1])
                yield (
                    name,
                    f"same but for {', '.join(why[0][1])}: {why[0][0]}" if same else "DIFFERS",
                )
            else:
                yield name, f"differs, as it may: {why[0][0]}"


def main() -> None:
    """Prints the table."""
    before, after, *names = sys.argv[1:]
    locked = yaml.load(Path(before, "dvc.lock").read_bytes(), yaml.CSafeLoader)["stages"]
    tasks = names or sorted({name.partition("@")[2] for name in locked})
    failed = 0
    for task in tasks:
        folder = f"tasks/{task}" if Path(after, "tasks", task, "dvc.lock").is_file() else "."
        lock = Path(after, folder, "dvc.lock").read_bytes()
        now = yaml.load(lock, yaml.CSafeLoader)["stages"]
        then = {name: one for name, one in locked.items() if name.endswith(f"@{task}")}
        old = outputs(Path(before), ".", then)
        old = {renamed(name, task): value for name, value in old.items()}
        verdicts = list(compared(old, outputs(Path(after), folder, now)))
        same = sum(verdict == "same" for _, verdict in verdicts)
        print(f"\n{task}: {same} of {len(verdicts)} files are the same byte for byte\n")
        print("| file | |\n|---|---|")
        print(*(f"| {name} | {verdict} |" for name, verdict in verdicts), sep="\n")
        failed += sum("DIFFERS" in verdict for _, verdict in verdicts)
    print(f"\n{failed} differ that should not")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
