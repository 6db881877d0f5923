"""Peers of the postal student, all on the same rows in one run: python -m bench.postal

Needs tasks/postal with its predictions (`make repro TASK=postal`); without them it compares the
peers alone. The peers:

crf       usaddress's features and its kind of model (python-crfsuite), trained on the student's own
          training rows, and on those alone that people labelled; each with the settings of its own
          tool (parserator) and with crfsuite's defaults
regex     a regular expression
shipped   the CRF that comes with usaddress: it has seen every row, so it is no peer, but it says
          how far the labels can be learnt

With --models (minutes) vLLM also asks the base with 20 examples, and each model with a grammar: its
answer is then JSON of the schema whose values stand in the line (predict.grounded).

With --files FILE… (a minute) the student and the peers answer other lines than the gold rows: those
of usaddress's own measurements, which its distribution does not have. They are in its repository,
https://github.com/datamade/usaddress, measure_performance/test_data/*.xml. Lines with the street
and city of one that is learnt, or of a gold row, are left out.

usaddress 0.5.16 is installed into .cache/bench/postal, an environment of its own. A row is right
when its answer passes the checks of the task: all seven keys equal the labels. Prints Markdown,
with the 95 % interval (Wilson) and the exact McNemar test against the student, or the first peer.
"""

import argparse
import contextlib
import json
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

from potstill.checks import registry
from potstill.core import jsonl, params, project
from potstill.core.jsonl import Row
from potstill.evaluation import statistics
from potstill.inference import engine, few_shot, quoting
from potstill.task import settings
from tasks.postal.data import fetch, labels, rows

PACKAGES = ["usaddress==0.5.16", "python-crfsuite==0.9.12"]
HOME = project.cache() / "bench/postal"
MODELS = ("base", "examples", "sft")
CRF = """
import json, sys
import pycrfsuite, usaddress
job = json.load(sys.stdin)
def parts(text):
    at = 0
    for token in usaddress.tokenize(text):
        at = text.index(token, at)
        yield at, token
        at += len(token)
def trained(given):
    trainer = pycrfsuite.Trainer(verbose=False, params=given)
    for text, words in job["train"]:
        found = list(parts(text))
        tags = [next((tag for tag, a, b in words if a < at + len(token) and at < b), "NotAddress")
                for at, token in found]
        trainer.append(usaddress.tokens2features([token for _, token in found]), tags)
    trainer.train(job["model"])
    tagger = pycrfsuite.Tagger()
    tagger.open(job["model"])
    return tagger
taggers = {name: trained(given) for name, given in job["settings"].items()}
taggers["shipped"] = usaddress.TAGGER
answers = {name: [] for name in taggers}
for text in job["test"]:
    found = list(parts(text))
    for name, tagger in taggers.items():
        tags = tagger.tag(usaddress.tokens2features([token for _, token in found]))
        answers[name].append([[tag, at, at + len(token)] for (at, token), tag in zip(found, tags)])
print(json.dumps(answers))
"""
SETTINGS = {"crf": {"c1": 0.1, "c2": 0.01, "feature.minfreq": 0}, "crf, defaults": {}}
WAY = "n|s|e|w|ne|nw|se|sw|north|south|east|west|(?:north|south)(?:east|west)"
KIND = (
    "st|street|ave?|avenue|rd|road|dr|drive|blvd|boulevard|ln|lane|ct|court|cir|circle|pl|place|"
    "pkwy|parkway|way|ter|terrace|hwy|highway|plaza|plz|sq|square|trail|trl|loop|pike|row|run|walk"
)
UNIT = (
    "apt|apartment|ste|suite|unit|fl|floor|rm|room|bldg|building|lot|dept|p\\.?\\s*o\\.?\\s*box|box|"
    "rr|rfd|spc|trlr|\\#"
)
STATE = (
    "A[KLRZ]|C[AOT]|D[CE]|FL|GA|HI|I[ADLN]|K[SY]|LA|M[ADEINOST]|N[CDEHJMVY]|O[HKR]|P[AR]|RI|S[CD]|"
    "T[NX]|UT|V[AT]|W[AIVY]|new\\ \\w+|north\\ \\w+|south\\ \\w+|west\\ virginia|rhode\\ island|"
    "(?!street|avenue|drive|road)[a-z]{6,}(?=\\ \\d)"
)
ADDRESS = re.compile(
    rf"""(?ix)^ (?:(?P<recipient>[^\d]+?),?\ (?=\d+\ ))??
    (?:(?P<number>\d[\w/-]*(?:\ 1/2)?)\ )?
    (?P<street>(?:(?:state|county|us|u\.s\.)?\ ?(?:hwy|highway|route|rte?\.?|road|fm|cr)\ \w+
      |.*?\b(?:{KIND})\b\.?|[^,]+?)(?:\ (?:{WAY})\b\.?)?)??
    (?:(?:^|,?\ )(?P<unit>(?:{UNIT})(?!\w)[^,]*?(?:,?\ (?:{UNIT})(?!\w)[^,]*?)*))?
    (?:(?:^|,?\ )(?P<city>[^\d,#]+?))?
    (?:(?:^|,?\ )(?P<state>{STATE}))?
    (?:,?\ (?P<zip>\d{{5}}(?:[-—]?\d{{4}})?))?
    (?:,?\ (?:usa|us|united\ states))?$"""
)


def regex(text: str) -> labels.Answer:
    """The fields that the regular expression finds in a line."""
    found = ADDRESS.match(text)
    parts = found.groupdict() if found else {}
    return {field: (parts.get(field) or "").strip(labels.ENDS) or None for field in labels.FIELDS}


def crfs(train: list[labels.Labelled], tests: list[Row]) -> dict[str, list[labels.Answer | None]]:
    """What each CRF answers; None where it puts a field in two places."""
    python = HOME / "bin/python"
    if not python.is_file():
        subprocess.run([sys.executable, "-m", "venv", str(HOME)], check=True)
        install = [str(python), "-m", "pip", "install", "-q", "--only-binary", ":all:", *PACKAGES]
        subprocess.run(install, check=True)
    job = {"train": [[line.text, line.words] for line in train], "settings": SETTINGS}
    job |= {"test": [row["text"] for row in tests], "model": str(HOME / "trained.crfsuite")}
    done = subprocess.run(
        [str(python), "-c", CRF],
        input=json.dumps(job),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return {
        name: [
            labels.answer(labels.Labelled(row["text"], [labels.Word(*word) for word in words]))
            for row, words in zip(tests, found, strict=True)
        ]
        for name, found in json.loads(done.stdout).items()
    }


def predicted(t: settings.Task, name: str, tests: list[Row]) -> list[str] | None:
    """A model's answers in the order of the rows; None where it has not been asked."""
    path = t.data / "5-predictions" / name / "test.jsonl"
    if not path.is_file():
        return None
    answers = {row["id"]: row["answer"] for row in jsonl.read_jsonl(path, ("id", "answer"))}
    return [answers[row["id"]] for row in tests]


def asked(t: settings.Task, tests: list[Row], train: list[Row]) -> dict[str, list[str]]:
    """What the base and the student answer with more examples, and by grammars."""
    p = params.load("model", "model_revision", "predict", "few_shot")
    rules = list(map(quoting.Grammars(t).of, tests))
    long, short = ([t.messages(prompt, row) for row in tests] for prompt in ("teacher", "student"))
    count = engine.token_counter(p.model, p.model_revision)
    room = p.predict.max_model_len - p.predict.max_tokens
    ways: dict[str, tuple[list[engine.Chat], list[str] | None]] = {"base, quoting": (long, rules)}
    for shots in (p.few_shot.examples, 20):
        chats = few_shot.shown(long, train[:shots], room, count)
        fit = (len(chats[0]) - len(long[0])) // 2
        ways[f"base, {fit} examples"] = (chats, None)
        ways[f"base, {fit} examples, quoting"] = (chats, rules)
    batches, grammars = [way[0] for way in ways.values()], [way[1] for way in ways.values()]
    how = p.predict, p.model_revision
    answers = engine.predict(p.model, batches, *how, stop_loops=True, grammars=grammars)
    said = dict(zip(ways, answers, strict=True))
    student = str(t.models / "sft/merged")
    [said["sft, quoting"]] = engine.predict(student, [short], p.predict, grammars=[rules])
    return {way: [row["answer"] for row in found] for way, found in said.items()}


def others(paths: list[Path], learnt: list[labels.Row]) -> list[Row]:
    """The rows of labelled lines in these files that have no street and city of `learnt`."""
    keys = {labels.key(row.line.text) for row in learnt}
    families = {row.family for row in learnt}
    families |= {labels.family_of(row.line.text, row.answer) for row in learnt}
    lines = [labels.labelled(line) for path in paths for line in ET.fromstring(path.read_bytes())]
    return [
        {
            "id": jsonl.row_id({"text": row.line.text}),
            "text": row.line.text,
            "slice": row.slice,
            "expected": row.answer,
        }
        for row in labels.rows(lines)[0]
        if row.family not in families and labels.key(row.line.text) not in keys
    ]


def table(tests: list[Row], marks: dict[str, list[bool]], first: str) -> str:
    """A row for each contender: right rows, interval, by slice, and p against the `first`."""
    slices = sorted({row["slice"] for row in tests})
    sizes = {name: sum(row["slice"] == name for row in tests) for name in slices}
    heads = [f"{name} ({size})" for name, size in sizes.items()]
    lines = [["", f"right of {len(tests)}", "95 %", *heads, f"p, {first}"]]
    for name, right in marks.items():
        low, high = statistics.wilson(sum(right), len(right))
        by_slice = [
            f"{sum(r for r, row in zip(right, tests, strict=True) if row['slice'] == s) / size:.1%}"
            for s, size in sizes.items()
        ]
        p = "" if name == first else f"{statistics.mcnemar(marks[first], right):.2g}"
        share = f"{sum(right)} = {sum(right) / len(right):.1%}"
        lines.append([name, share, f"{low:.1%} to {high:.1%}", *by_slice, p])
    lines.insert(1, ["---"] * len(lines[0]))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--models", action="store_true")
    parser.add_argument("--files", type=Path, nargs="+", default=[])
    args = parser.parse_args()
    archive = fetch.sdist(labels.SDIST, labels.SHA256)
    made, _ = labels.rows(labels.read(archive))
    own = {jsonl.row_id({"text": row.line.text}) for row in made}
    made += rows.added(archive, made)
    known = {jsonl.row_id({"text": row.line.text}): row.line for row in made}
    with contextlib.chdir(project.ROOT / "tasks/postal"):
        t = settings.load()
        registry.validate(t)
        tests = jsonl.read_jsonl(t.data / "4-test.jsonl", ("id", "text", "slice", "expected"))
        train = jsonl.read_jsonl(t.data / "4-train.jsonl", ("id", "messages"))
        said: dict[str, list[Any]] = {}
        if args.files:
            tests = others(args.files, made)
            chats = [t.messages("student", row) for row in tests]
            student = str(t.models / "sft/merged")
            [found] = engine.predict(student, [chats], params.load("predict").predict)
            said["sft"] = [row["answer"] for row in found]
        for name in MODELS if not args.files else ():
            if (answers := predicted(t, name, tests)) is not None:
                said[name] = answers
        said |= asked(t, tests, train) if args.models else {}
        lines = [known[row["id"]] for row in train]
        people = [known[row["id"]] for row in train if row["id"] in own]
        alone = crfs(people, tests)
        said |= crfs(lines, tests)
        said |= {f"{name}, people's lines": alone[name] for name in SETTINGS}
        said["regex"] = [regex(row["text"]) for row in tests]
        marks = {
            name: [
                one is not None
                and not registry.check(t, row, one if isinstance(one, str) else json.dumps(one))
                for row, one in zip(tests, answers, strict=True)
            ]
            for name, answers in said.items()
        }
    print(f"{len(train):,} rows to train on, {len(tests):,} to test on\n")
    print(table(tests, marks, "sft" if "sft" in marks else "crf"))


if __name__ == "__main__":
    main()
