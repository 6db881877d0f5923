"""Corrupt any one row of any file that a stage makes: whatever stage reads it next fails, or says
so in its counts.

Rows are corrupted in two ways: in the file, as a disk or an editor does it, and before they are
sealed, as a bug in the stage that wrote them would.
"""

import contextlib
import importlib
import io
import json
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from potstill.core import jsonl, params
from potstill.core.errors import UserError
from potstill.core.models import MODELS
from potstill.inference import engine, parity
from tests import fakes
from tests.conftest import ROOT, Body, Project, completion, serving


def specs() -> dict[str, dict[str, Any]]:
    """The stages of dvc.yaml in order, each name with its command and dependencies: `predict@sft`
    for one of predict's."""
    stages: dict[str, dict[str, Any]] = {}
    for name, spec in params.parse(PIPELINE, ROOT / "dvc.yaml")["stages"].items():
        for key, item in spec.get("foreach", {"": {}}).items():
            text = json.dumps(spec.get("do", spec)).replace("${key}", key)
            for part in ("rows", "weights"):
                text = text.replace(f"${{item.{part}}}", item.get(part, ""))
            stages[f"{name}@{key}" if key else name] = json.loads(text)
    return stages


PIPELINE = (ROOT / "dvc.yaml").read_text(encoding="utf-8")
SPECS = specs()
STAGES = [stage for stage in SPECS if stage != "merge"]  # merge reads no rows
# judge reads nothing without judge.model; report shows what score has read before it; the alignment
# here is dpo; further seeds have what sft has
LEFT_OUT = ("judge", "report", "predict@grpo", "predict@gkd", "sft_seeds", "predict_seeds")
MADE = re.compile(r"data/([1-9]-[^/]+\.jsonl)")
IN_FOLDERS = {  # what a stage reads of the folders that it depends on
    "pairs": ["4-samples/samples.jsonl"],
    "align": ["4-pairs/pairs.jsonl"],
    "parity": ["5-predictions/sft/test.jsonl", "5-predictions/dpo/test.jsonl"],
    "choose": ["5-predictions/sft/valid.jsonl", "5-predictions/dpo/valid.jsonl"],
    "score": [
        "1-expand/calls.jsonl",
        "4-pairs/rejected.jsonl",
        "5-parity/sft.jsonl",
        "5-parity/dpo.jsonl",
        "5-predictions/examples/again.jsonl",
        *(f"5-predictions/{model}/test.jsonl" for model in MODELS if model not in ("grpo", "gkd")),
    ],
}


def read(stage: str) -> list[str]:
    """The files of rows that a stage reads, in data/."""
    matches = map(MADE.fullmatch, SPECS[stage]["deps"])
    return [*dict.fromkeys(match[1] for match in matches if match), *IN_FOLDERS.get(stage, [])]


# ask_teacher looks only whether there are inputs at all; generate has read them before it. sample
# reads the kept answers where models has gkd
UNREAD = (("ask_teacher", "1-inputs.jsonl"), ("sample", "3-kept.jsonl"))
READ = [
    (stage, name)
    for stage in STAGES
    if stage not in LEFT_OUT
    for name in read(stage)
    if (stage, name) not in UNREAD
]


def run(stage: str) -> str:
    """What a stage prints, run here."""
    module, *arguments = SPECS[stage]["cmd"].partition("python -m ")[2].split()
    out = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out):
        patch.setattr(sys, "argv", [module, *arguments])
        importlib.import_module(module).main()
    return re.sub(r"[0-9.]+ s,", "", out.getvalue())


def predict(
    model: str,
    batches: list[list[Any]],
    *_: object,
    n: int = 1,
    timed: list[float] | None = None,
    **drawn: object,
) -> list[list[jsonl.Row]]:
    """A stand-in for vLLM that is right every other time, and never where it draws."""
    if timed is not None:
        timed.append(0.25)

    def answer(messages: list[dict[str, str]], number: int) -> jsonl.Row:
        word = messages[-1]["content"].split()[-1]
        found = {"word": word[::-1] if drawn else word, "length": len(word) + number % 2}
        text = json.dumps(found, separators=(",", ":"))
        return {"answer": text, "finish_reason": "stop", "prompt_tokens": 7, "completion_tokens": 3}

    return [
        [answer(chat, i) for i, chat in enumerate(batch) for _ in range(n)] for batch in batches
    ]


async def wrong_at_times(
    number: int, body: Body, request: web.Request
) -> web.StreamResponse | None:
    """Every fifth input gets an answer that no check lets pass."""
    asked = body["messages"][-1]["content"]
    return web.json_response(completion(f"no JSON: {asked}")) if asked[-1] in "49" else None


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A project in which every stage has run; what each printed."""
    with serving() as teacher, pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("mutation")
        patch.chdir(folder)
        for name, value in {**teacher.env(), "PYTHONPATH": fakes.install(folder / "fake")}.items():
            patch.setenv(name, value)
        for name in ("DVC_ROOT", "TEACHER_JOURNAL"):
            patch.delenv(name, raising=False)
        patch.setattr(engine, "predict", predict)
        patch.setattr(
            parity,
            "with_adapter",
            lambda model, revision, adapter, chats, *_: predict(model, [chats])[0],
        )
        patch.setattr(parity, "other_tokens", lambda *_: iter(()))
        teacher.behave = wrong_at_times
        project = Project(folder)
        project.seeds(60, alike=False)
        project.write("data/gold.jsonl", "")
        project.write("prompts/rejected.md", "You find a wrong word.\n")
        project.set(
            teacher_model="fake-235b",
            split_valid_share=0.2,
            split_test_share=0.2,
            models=["base", "sft", "dpo"],
            pairs_samples=1,
        )
        project.write("dvc.yaml", PIPELINE)
        project.write("dvc.lock", "stages: {}\n")
        for model in ("models/tiny-base", "models/sft/merged"):
            fakes.model(model)
        said = {}
        for stage in STAGES:
            said[stage] = run(stage)
            if stage == "expand":  # the seeds were enough: as a larger expand.rows would have it
                jsonl.write_jsonl("data/1-expand/calls.jsonl", map(call, range(6)))
        yield said


def call(number: int) -> jsonl.Row:
    """A reply that expand took inputs from."""
    asked = {
        "id": f":{number}",
        "sample": 0,
        "key": f"{number:032x}",
        "model": "fake-235b",
        "max_tokens": 64,
    }
    reply = {
        "answer": json.dumps({"inputs": [f"line {number}"]}),
        "finish_reason": "stop",
        "prompt_tokens": 7,
        "completion_tokens": 3,
    }
    return {**asked, **reply, "error": None}


@contextlib.contextmanager
def kept() -> Iterator[None]:
    """Puts the project's data back when it ends."""
    shutil.copytree("data", "before")
    try:
        yield
    finally:
        shutil.rmtree("data")
        Path("before").rename("data")


Lines = list[bytes]


def change(edit: Callable[[jsonl.Row, jsonl.Row], jsonl.Row]) -> Callable[[Lines, int], Lines]:
    """A corruption that gives a row, and the one after it, another content."""

    def corrupt(lines: Lines, at: int) -> Lines:
        row, other = (json.loads(lines[i % len(lines)]) for i in (at, at + 1))
        return (
            lines[:at]
            + [json.dumps(edit(row, other), ensure_ascii=False).encode()]
            + lines[at + 1 :]
        )

    return corrupt


def text_of(row: jsonl.Row) -> str:
    """The key of a row that holds what it says."""
    return next(key for key in ("messages", "text", "answer", "chosen") if key in row)


def output_of(row: jsonl.Row) -> str:
    """The key of a row that holds what was answered, or is expected."""
    return next(
        key
        for key in ("messages", "output", "expected", "answer", "text", "rejected")
        if key in row
    )


def swapped(lines: Lines, at: int) -> Lines:
    row, other = (json.loads(lines[i % len(lines)]) for i in (at, at + 1))
    found = list(lines)
    for i, one, id in ((at, row, other["id"]), (at + 1, other, row["id"])):
        found[i % len(lines)] = json.dumps(one | {"id": id}, ensure_ascii=False).encode()
    return found


CORRUPTIONS: dict[str, Callable[[Lines, int], Lines]] = {
    "delete": lambda lines, at: lines[:at] + lines[at + 1 :],
    "duplicate": lambda lines, at: lines[: at + 1] + lines[at:],
    "blank": lambda lines, at: lines[:at] + [b""] + lines[at + 1 :],
    "torn": lambda lines, at: lines[:at] + [lines[at][: len(lines[at]) // 2]] + lines[at + 1 :],
    "swap ids": swapped,
    "another id": change(lambda row, _: row | {"id": "0123456789abcdef"}),
    "id of another type": change(lambda row, _: row | {"id": 7}),
    "no id": change(lambda row, _: {key: value for key, value in row.items() if key != "id"}),
    "no text": change(
        lambda row, _: {key: value for key, value in row.items() if key != text_of(row)}
    ),
    "text of another type": change(lambda row, _: row | {text_of(row): 7}),
    "text of another row": change(lambda row, other: row | {text_of(row): other[text_of(row)]}),
    "output of another row": change(
        lambda row, other: row | {output_of(row): other[output_of(row)]}
    ),
    "a list": lambda lines, at: lines[:at] + [b"[" + lines[at] + b"]"] + lines[at + 1 :],
}
AS_COUNTS = {"delete"}  # no row can say that another one is missing; the counts can


def outcome(stage: str, ran: dict[str, str]) -> str:
    """What the stage makes of the data there are: the error, `other counts`, or `nothing`."""
    try:
        said = run(stage)
    except (UserError, AssertionError) as error:
        return f"{type(error).__name__}: {error}"
    return "nothing" if said == ran[stage] else "other counts"


@pytest.mark.parametrize("corruption", CORRUPTIONS)
@pytest.mark.parametrize(("stage", "name"), READ)
def test_a_corrupted_row_is_found(
    ran: dict[str, str], stage: str, name: str, corruption: str
) -> None:
    path = Path("data", name)
    for place in (0, 0.5, 1):
        with kept():
            lines = path.read_bytes().splitlines()
            path.write_bytes(
                b"\n".join(CORRUPTIONS[corruption](lines, int(place * (len(lines) - 1)))) + b"\n"
            )
            found = outcome(stage, ran)
        assert found.startswith("UserError") or (
            found == "other counts" and corruption in AS_COUNTS
        ), (place, found)


WITH_INPUTS = re.compile(
    "[13]-.*|4-test.*"
)  # elsewhere, in messages and predictions, a row does not tell its id
BY_IDS = [
    pair
    for pair in READ
    if WITH_INPUTS.match(pair[1]) and pair[0].startswith(("generate", "split", "predict", "ask"))
]
BUGS = [name for name in CORRUPTIONS if re.search("id|text|duplicate", name)]


@pytest.mark.parametrize("corruption", BUGS)
@pytest.mark.parametrize(("stage", "name"), [*BY_IDS, ("score", "4-test.jsonl")])
def test_a_row_that_was_wrong_when_it_was_sealed(
    ran: dict[str, str], stage: str, name: str, corruption: str
) -> None:
    path = Path("data", name)
    with kept():
        lines = [json.dumps(row, ensure_ascii=False).encode() for row in jsonl.read_jsonl(path)]
        lines = CORRUPTIONS[corruption](lines, len(lines) // 2)
        path.write_text(
            "".join(f"{jsonl._seal(line.decode())}\n" for line in lines), encoding="utf-8"
        )
        found = outcome(stage, ran)
    assert found.startswith("UserError"), found


def test_what_is_tried(ran: dict[str, str]) -> None:
    """A change of dvc.yaml that hides files from these tests is seen."""
    names = {name for _, name in READ}
    made = {str(path.relative_to("data")) for path in Path("data").glob("[1-9]-*/**/*.jsonl")}
    made |= {path.name for path in Path("data").glob("[1-9]-*.jsonl")}
    assert names == made
    for stage, files in IN_FOLDERS.items():
        folders = {str(parent) for name in files for parent in Path("data", name).parents}
        assert folders & set(SPECS[stage]["deps"])
    assert {stage for stage, _ in READ} == set(STAGES) - {"expand", *LEFT_OUT}
    assert len(BY_IDS) >= 7
