"""Random edits of what a stage reads, while it runs, and a look at what DVC recorded.

    python -m tests.random_edits --edits 200

Each run of a stage is by `make repro`'s own command, with one edit, of a file that the stage
depends on, at a random moment: some are undone a moment later. A ledger of the clone's own notes
which contents of the edited file the stage opened. A record is wrong when dvc.lock has a content,
or a parameter's value, that is not the only one that the stage read. The program exits with 1 where
there is a wrong record; with --bare, which runs DVC without our look, there may be some.
"""

import argparse
import hashlib
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import chdir
from pathlib import Path
from typing import NamedTuple

from potstill.core import lockfile, params, record
from tests import fakes
from tests.clone import Clone
from tests.conftest import ROOT

STAGES = "expand generate filter split pairs ask_teacher choose judge score report".split()
# Of each, the parameter whose value is edited, and the other value
KNOBS = {
    "expand": ("expand", "  temperature: 1.0", "  temperature: 0.9"),
    "generate": ("generate", "  good_share: 0.5", "  good_share: 0.4"),
    "filter": ("near_duplicate", "near_duplicate: 0.8", "near_duplicate: 0.9"),
    "split": ("split", "  valid_share: 0.2", "  valid_share: 0.3"),
    "pairs": ("pairs.rows", "  rows: 1200", "  rows: 1100"),
    "ask_teacher": ("teacher", "  timeout: 60", "  timeout: 61"),
    "choose": ("models", "models: [base, sft]", "models: [base, sft, dpo]"),
    "judge": ("judge", "  model: null", "  model: some"),
    "score": ("teacher.price_in", "  price_in: null", "  price_in: 1.5"),
    "report": ("gate.min_accuracy", "  min_accuracy: null", "  min_accuracy: 0.5"),
}
# Stands in for each stage that takes long: what it writes is made of what it reads.
STUB = '''
"""Quick: {name}."""
import json, shutil, sys
from pathlib import Path
from potstill.core import jsonl, stage
from potstill.core.project import DATA
def main():
    if "{name}" == "sft":
        shutil.copytree("stand-in", "models/sft/adapter", dirs_exist_ok=True)
        log = [{{"step": i, "loss": 1 / i, "eval_loss": 1 / i}} for i in range(1, 9)]
        jsonl.write_jsonl("models/sft/adapter/logging.jsonl", log)
    elif "{name}" == "merge":
        shutil.copytree("stand-in", "models/sft/merged", dirs_exist_ok=True)
    elif "{name}" == "parity":
        jsonl.write_json(DATA / "5-parity/report.json", {{"lessons": 0, "other_tokens": []}})
    else:
        folder = jsonl.fresh_folder(DATA / "5-predictions" / sys.argv[1])
        jsonl.write_json(folder / "latency.json", {{"requests": 1, "median": 0.1}})
        used, rows = {{"finish_reason": "stop", "prompt_tokens": 7, "completion_tokens": 3}}, []
        for row in jsonl.read_jsonl(DATA / "4-test.jsonl"):
            word = row["text"].split()[-1]
            answer = json.dumps({{"word": word, "length": len(word)}})
            rows.append({{"id": row["id"], "answer": answer}} | used)
        jsonl.write_some(folder / "test.jsonl", rows if sys.argv[1] != "dpo" else [])
        if sys.argv[1] == "examples":
            jsonl.write_some(folder / "again.jsonl", rows)
if __name__ == "__main__":
    stage.run(main)
'''
# Runs before every program of the clone: notes what it opens of the file that is edited.
LEDGER = """
import hashlib, os, sys
watched = os.environ.get("WATCHED")
if watched and os.environ.get("DVC_STAGE"):
    busy = []
    def look(event, arguments):
        path = arguments[0] if event == "open" else None
        if busy or not isinstance(path, str) or os.path.abspath(path) != watched:
            return
        busy.append(path)
        try:
            with open(path, "rb") as file, open(os.environ["READ"], "a") as ledger:
                ledger.write(hashlib.md5(file.read()).hexdigest() + "\\n")
        except OSError:
            pass
        busy.clear()
    sys.addaudithook(look)
"""


class Edit(NamedTuple):
    """A file of the clone, its content before and after, and the parameter that is another then,
    "" where the content is what counts."""

    path: str
    before: str
    after: str
    parameter: str = ""

    @property
    def kind(self) -> str:
        top = self.path.partition("/")[0]
        return "code" if top in ("potstill", "stages", "schemas") else top


def edits(clone: Clone, stage: str) -> list[Edit]:
    """Every edit of what the stage depends on and no stage makes."""
    name, old, new = KNOBS[stage]
    text = (clone.dir / params.PATH).read_text()
    section, _, _ = name.partition(".")
    place = text.index(old, text.index(f"\n{section}:"))
    found = [Edit(str(params.PATH), text, text[:place] + new + text[place + len(old) :], name)]
    known = clone.git("ls-files", ":!reports").splitlines()
    with chdir(clone.dir):
        tops = [Path(dep) for dep in record.spec(stage)["deps"]]
    for path in (one for one in known if {Path(one), *Path(one).parents}.intersection(tops)):
        text = (clone.dir / path).read_text()
        if path.endswith((".py", ".yaml")):
            found.append(Edit(path, text, text + "# edited\n"))
        elif path.endswith((".json", ".jsonl")) and text:
            found.append(Edit(path, text, text.replace('": ', '":  ', 1)))
        elif text:
            found.append(Edit(path, text, text + "Please.\n"))
    return found


def made(folder: Path) -> Clone:
    """The clone, whose every stage has run: the real ones but for training and prediction."""
    clone = Clone.make(folder)
    shutil.copy(ROOT / "dvc.yaml", folder)
    shutil.copytree(ROOT / "stages", folder / "stages", dirs_exist_ok=True)
    for name in ("sft", "merge", "predict", "parity"):
        clone.write(f"stages/{name}.py", STUB.format(name=name))
    fakes.model(folder / "stand-in")
    clone.seeds(30, alike=False)
    (folder / "data/1-inputs.jsonl").unlink()
    clone.write("sitecustomize.py", LEDGER)
    clone.write("potstill/report/vega.js", "// charts\n")
    gold = [f'{{"text": "a test {i} {i * 7919} of word{i}", "gold": null}}\n' for i in range(20)]
    clone.write("data/gold.jsonl", "".join(gold))
    for path in folder.rglob("__pycache__"):
        shutil.rmtree(path)
    clone.env |= {"PYTHONDONTWRITEBYTECODE": "1", "READ": str(folder.parent / "read")}
    clone.commit()
    clone.do("potstill", "repro")
    clone.commit()
    return clone


def write(path: Path, text: str, in_place: bool) -> None:
    """Writes as an editor does: in place, or under another name that is then renamed."""
    target = path if in_place else path.with_name("edited~")
    target.write_text(text)
    target.rename(path)


def keep(clone: Clone, kept: Path, back: bool = False) -> None:
    """Copies what the stages made, and the run-cache, to `kept`, or back from there."""
    source, target = (kept, clone.dir) if back else (clone.dir, kept)
    made = ("data", "models/sft", "models/dpo", "models/student", "reports", ".dvc/cache/runs")
    for name in made:
        shutil.rmtree(target / name, ignore_errors=True)
        if (source / name).is_dir():
            shutil.copytree(source / name, target / name)
    shutil.copy(source / "dvc.lock", target)


def recorded(clone: Clone, stage: str, edit: Edit) -> str:
    """Which content dvc.lock has for a stage's input: that `before` the edit, `after` it or, where
    it is neither, `another`."""
    entry = clone.lock()[stage]
    if edit.parameter:
        found = entry["params"][str(params.PATH)]  # type: ignore[index]
        section, _, key = edit.parameter.partition(".")
        texts = {"before": edit.before, "after": edit.after}
        for side, text in texts.items():
            value = params.parse(text, params.PATH)[section]
            if found[edit.parameter] == (value[key] if key else value):
                return side
        return "another"
    sums = {Path(dep["path"]): dep["md5"] for dep in entry["deps"]}  # type: ignore[attr-defined]
    path = Path(edit.path)
    top = next(one for one in (path, *path.parents) if one in sums)
    for side, text in (("before", edit.before), ("after", edit.after)):
        write(clone.dir / path, text, in_place=True)
        if lockfile.md5(clone.dir / top) == sums[top]:
            return side
    return "another"


def waited(note: Path, seconds: float, run: "subprocess.Popen[str]") -> None:
    """Waits until a file is written anew, and a moment longer, or until the run ends."""
    before = note.stat().st_mtime_ns if note.exists() else 0
    while run.poll() is None:
        if note.exists() and note.stat().st_mtime_ns != before:
            time.sleep(seconds)
            return
        time.sleep(0.002)


def tried(
    clone: Clone, stage: str, edit: Edit, chance: random.Random, length: float, bare: bool
) -> str:
    """Runs a stage, of so many seconds, with an edit at a random moment. Returns what came of it,
    beginning with WRONG where the record is."""
    path, read = clone.dir / edit.path, Path(clone.env["READ"])
    read.write_text("")
    words = ["dvc", "repro"] if bare else ["potstill", "repro"]
    if cached := chance.random() < 0.15:
        for out in lockfile.made(clone.lock()[stage]):
            target = clone.dir / out
            shutil.rmtree(target) if target.is_dir() else target.unlink()
    words += ["--single-item", *([] if cached else ["--force"]), stage]
    run = clone.start(*words, WATCHED=str(path))
    when, moment = chance.choice(["any", "begun", "ended"]), chance.random()
    if when == "any" or cached:
        time.sleep(moment * length)
    elif when == "begun":
        waited(clone.dir / ".cache/stages" / stage, moment, run)
    else:
        waited(clone.dir / record.note_of(stage), moment / 3, run)
    late = run.poll() is not None
    write(path, edit.after, in_place=chance.random() < 0.5)
    if undone := chance.random() < 0.25:
        time.sleep(chance.random() / 2)
        write(path, edit.before, in_place=chance.random() < 0.5)
    out, _ = run.communicate(timeout=600)
    sums = {hashlib.md5(edit.before.encode()).hexdigest(): "before"}
    sums |= {hashlib.md5(edit.after.encode()).hexdigest(): "after"}
    opened = {sums.get(line, "half") for line in read.read_text().split()}
    assert "Traceback" not in out, out
    if run.returncode:
        return "refused" if "is not recorded" in out else "failed: " + out.strip()[-150:]
    log = out if bare else (clone.dir / ".cache/repro.log").read_text()
    if "is cached - skipping run" in log:
        opened = {"before"}  # the only content of which there is a result
    side = recorded(clone, stage, edit)
    if side == "another" or opened - {side}:
        how = f"{edit.path}{' (undone)' * undone}, {when}"
        return f"WRONG: {stage} recorded {side} and read {sorted(opened)}: {how}"
    return "came too late" if late else f"recorded as it was {side} the edit"


def total(count: int, seed: int, bare: bool = False) -> Counter[str]:
    """Makes so many edits. Returns how often each thing came of one, by kind of input."""
    found, chance = Counter[str](), random.Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        clone, kept = made(Path(folder) / "clone"), Path(folder) / "kept"
        kept.mkdir()
        keep(clone, kept)
        lengths = dict.fromkeys(STAGES, 8.0)
        for number in range(count):
            stage = STAGES[number % len(STAGES)]
            known = edits(clone, stage)
            kind = chance.choice(sorted({one.kind for one in known}))
            edit = chance.choice([one for one in known if one.kind == kind])
            start = time.monotonic()
            said = tried(clone, stage, edit, chance, lengths[stage], bare)
            lengths[stage] = (lengths[stage] + time.monotonic() - start) / 2
            print(f"{number + 1:4} {stage:12}{edit.path:32}{said}", flush=True)
            found[said.partition(":")[0]] += 1
            found[f"  {kind}"] += 1
            write(clone.dir / edit.path, edit.before, in_place=True)
            keep(clone, kept, back=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.random_edits")
    parser.add_argument("--edits", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--bare", action="store_true")
    options = parser.parse_args()
    start = time.monotonic()
    found = total(options.edits, options.seed, options.bare)
    for name, count in sorted(found.items()):
        print(f"{count:8,}  {name}")
    print(f"{time.monotonic() - start:8.0f}  seconds")
    sys.exit(found["WRONG"] > 0)


if __name__ == "__main__":
    main()
