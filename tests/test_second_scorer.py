"""The second scorer, which imports nothing of the product, finds no difference to what filter,
split, choose and score make of a small task of every check; and it finds each that is planted."""

import json
import random
import re
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from potstill.core import jsonl
from stages import choose, score, split
from stages import filter as filtering
from tests import fakes
from tests.conftest import ROOT, Project
from tests.second_scorer.scores import Second

Row = dict[str, Any]
SEEDS, GOLD = 60, 40
FIELD = {"json": "field: body, ", "text": ""}
CHECKS = """
  - max_chars: {FIELDlimit: 24}
  - length_within: {FIELDtolerance: 1, train: {tolerance: 0}}
  - excludes_input: {FIELDinput: text}
  - excludes: {FIELDwords: [死, HI]}
  - covers: {FIELDpattern: '提到“([^”]+)”', when: 提到}
  - ends_with: {FIELDtext: [。, ！]}
  - one_sentence: {FIELDtrain: {}}
  - regex: {FIELDpattern: '^[^#]*$'}
  - language: {FIELDallow: [app]}
  - repetition: {FIELDphrases: 3}
  - grounded: {FIELDkinds: [number, latin, title, quote, place], patterns: ['[甲乙]方']}
"""
JSON_CHECKS = """
  - json_schema
  - exact_match: {field: label}
  - grounded: {fields: {label: ""}}
  - facts: {label: label, field: body}
"""
TEXT = {"type": "string"}
SCHEMA = {"type": "object", "properties": {"label": TEXT, "body": TEXT}}
FLAWS: list[Callable[[str], str]] = [
    lambda body: body.replace("好的", "好"),
    lambda body: body.replace("好的", "好的，，"),
    lambda body: body.replace("好的", "好的Ｈi"),
    lambda body: body.replace("好的", "北京市"),
    lambda body: body.replace("元", "0元"),
    lambda body: body.replace("“", "").replace("”", "") + "！好。",
    lambda body: body.replace("元", "元#"),
    lambda body: body.replace("好的", "甲方"),
    lambda body: body.rstrip("。"),
    lambda body: body + "走吧走吧走吧。",
    lambda body: "",
]


def body(thing: str, price: int) -> str:
    return f"好的，《{thing}》卖{price}元。"


def row(dice: random.Random, kind: str, number: int) -> Row:
    """A request with its answer; some ask for no length, or name nothing."""
    thing, rest = ("".join(chr(dice.randrange(0x4E00, 0x9FA5)) for _ in range(n)) for n in (4, 14))
    label, price = ("买", "卖", "问")[number % 3], dice.randrange(1, 10) * 11
    size = len(body(thing, price))
    says = [f"写{size}字", f"{size}字以内", f"{size - 3}到{size}个字", "写几句"][
        dice.randrange(40) % 4
    ]
    names = "提到“" + thing + "”" if number % 7 else f"《{thing}》"
    text = f"{label}：{says}，{names}，{price}元{rest}"
    answer: Any = body(thing, price)
    if kind == "json":
        answer = {"label": label, "body": answer}
    return {"id": jsonl.row_id({"text": text}), "text": text, "answer": answer}


def spoilt(dice: random.Random, kind: str, answer: Any) -> str:
    """An answer with a flaw, as a text."""
    if kind == "text":
        return dice.choice(FLAWS)(answer)
    flaw = dice.randrange(len(FLAWS) + 3)
    if flaw < len(FLAWS):
        answer = answer | {"body": FLAWS[flaw](answer["body"])}
    else:
        answer = [answer | {"label": "问"}, {"label": answer["label"]}, []][flaw - len(FLAWS)]
    text = json.dumps(answer, ensure_ascii=False)
    return text if dice.random() < 0.9 else f"```{text}```"


def predictions(kind: str, rows: list[Row], flawed: float, seed: str) -> list[Row]:
    dice, found = random.Random(seed), []
    for asked in rows:
        good = asked["answer"] if kind == "text" else json.dumps(asked["answer"])
        text = spoilt(dice, kind, asked["answer"]) if dice.random() < flawed else good
        tokens = {"prompt_tokens": dice.randrange(90), "completion_tokens": dice.randrange(40)}
        paid = {"key": f"{seed}{asked['id']}", "error": None, "model": "scripted-toy"}
        found.append({"id": asked["id"], "answer": text, "finish_reason": "stop", **tokens, **paid})
    return found


def build(project: Project, kind: str, gold: str, several: bool = True) -> None:
    """Writes the task's files and runs the real stages that judge, in this process; with students
    of one seed, or of `several`."""
    dice = random.Random(0)
    listed = CHECKS.replace("FIELD", FIELD[kind]) + (JSON_CHECKS if kind == "json" else "")
    head = "headline_slice: a\n" if gold != "none" else ""
    project.write(
        "task.yaml",
        f'name: toy\ninput: [text]\nuser: "{{{{ text }}}}"\n{head}samples: 2\nchecks:\n{listed}',
    )
    project.write("schema.json", json.dumps({**SCHEMA, "required": ["label", "body"]}))
    rules = [{"label": label, "text": "卖", "states": [["元", "块"]]} for label in "买卖问"]
    if kind == "json":
        jsonl.write_jsonl("prompts/knowledge.jsonl", rules)
    project.set(models="[base, sft, dpo]", teacher_price_in=2.5, teacher_price_out=10)
    project.set(split_valid_share=0.5)
    rows = [row(dice, kind, number) for number in range(SEEDS + GOLD)]
    known = {asked["id"]: asked for asked in rows}
    seeds = [{"id": r["id"], "text": r["text"], "family": r["id"]} for r in rows[:SEEDS]]
    jsonl.write_jsonl("data/1-inputs.jsonl", seeds)
    two = [predictions(kind, rows[:SEEDS], 0.4, f"sample{sample}") for sample in range(2)]
    jsonl.write_jsonl(
        "data/2-answers.jsonl",
        [{**a, "sample": n} for pair in zip(*two, strict=True) for n, a in enumerate(pair)],
    )
    calls = two[0][:3] + predictions(kind, rows[3:8], 0, "expand")  # three of them known already
    calls[-1]["error"] = "malformed"
    jsonl.write_jsonl("data/1-expand/calls.jsonl", calls)
    expected = [{"gold": r["answer"] if gold == "labels" else None} for r in rows[SEEDS:]]
    tests = [
        {"id": r["id"], "text": r["text"], "slice": "a" if n < 30 else "b", **expected[n]}
        for n, r in enumerate(rows[SEEDS:])
    ]
    jsonl.write_jsonl("data/gold.jsonl", tests if gold != "none" else [])
    filtering.main()
    split.main()
    sides = {name: jsonl.read_jsonl(f"data/4-{name}.jsonl") for name in ("test", "valid")}
    for model, flawed in {
        "base": 1,
        "examples": 0.8,
        "sft": 0.5,
        "dpo": 0.1,
        "teacher": 0.2,
    }.items():
        for name, side in sides.items():
            answers = predictions(kind, [known[r["id"]] for r in side], flawed, model)
            jsonl.write_jsonl(f"data/5-predictions/{model}/{name}.jsonl", answers)
    for name, model in {"5-predictions/examples/again": "base", "5-parity/sft": "sft"}.items():
        again = jsonl.read_jsonl(f"data/5-predictions/{model}/test.jsonl")
        again[0]["answer"] += " "
        if model == "sft":
            again[1::2] = predictions(kind, [known[r["id"]] for r in sides["test"]], 1, "x")[1::2]
        jsonl.write_jsonl(f"data/{name}.jsonl", again)
    for seed, flawed in {43: 0.4, 44: 0.6}.items() if several else ():
        answers = predictions(kind, [known[r["id"]] for r in sides["test"]], flawed, str(seed))
        jsonl.write_jsonl(f"data/5-seeds/{seed}.jsonl", answers)
    project.set(seeds=[42, 43, 44] if several else [])
    jsonl.write_json("data/5-seeds/report.json", {"seeds": [42, 43, 44] if several else []})
    jsonl.write_json("data/5-parity/report.json", {"lessons": 9, "other_tokens": ["0"]})
    for model in ("sft", "dpo"):
        fakes.model(f"models/{model}/merged")
    log = [{"step": n, name: 1 / (n + 3)} for n in range(8) for name in ("loss", "eval_loss")]
    jsonl.write_jsonl("models/sft/adapter/logging.jsonl", log)
    choose.main()
    score.main()


@pytest.mark.parametrize(
    ("kind", "gold", "share"),
    [
        ("json", "labels", "accuracy"),
        ("json", "none", "agreement"),
        ("text", "labels", "pass_rate"),
        ("text", "null", "pass_rate"),
    ],
)
def test_both_scorers_agree(project: Project, kind: str, gold: str, share: str) -> None:
    build(project, kind, gold, several=kind == "json")
    second = Second(Path())
    assert second.differences() == []
    found = second.metrics()
    assert ("seeds" in found) is Path("reports/tables/seeds.csv").is_file() is (kind == "json")
    assert 0 < found["sft"][share] < found["dpo"][share] < 1
    seen = {mark for marks in second.marks.values() for mark in marks}
    assert seen == {True, False, None}
    assert found["ship"]["ship"] == "dpo"


# Where to plant, what, and a word of the difference that must be found
PLANTED = [
    ("reports/metrics.json", "sft right", 1, "metrics.json: sft: right is"),
    ("reports/metrics.json", "dpo low", 0.0001, "metrics.json: dpo: low"),
    ("reports/metrics.json", "sft b accuracy", 0.1, "metrics.json: sft: b: accuracy"),
    ("reports/metrics.json", "teacher prompt_tokens", 0.5, "teacher: prompt_tokens"),
    ("reports/metrics.json", "sft keys label", -0.1, "sft: keys: label"),
    ("reports/metrics.json", "sft within 5", -0.1, "sft: within: 5"),
    ("reports/metrics.json", "sft macro_f1 label", -0.1, "sft: macro_f1: label"),
    ("reports/metrics.json", "seeds high", 0.0001, "metrics.json: seeds: high"),
    ("reports/metrics.json", "ship test p", 0.01, "ship: test: p"),
    ("reports/cost.json", "answers", 1, "cost.json: answers"),
    ("reports/cost.json", "spent", 0.0001, "cost.json: spent"),
    ("reports/cost.json", "break_even_requests", 1, "cost.json: break_even_requests"),
    ("data/3-funnel.json", "dropped spare", 1, "3-funnel.json: dropped: spare"),
    ("data/6-choice.json", "valid only_dpo", -1, "6-choice.json: valid: only_dpo"),
    ("reports/tables/slices.csv", "3 share", 0.0001, "slices.csv"),
    ("reports/tables/pairs.csv", "0 fixed", 1, "pairs.csv: base teacher: fixed"),
    ("reports/tables/pairs.csv", "2 p", 0.001, "pairs.csv: sft teacher: p"),
    ("reports/tables/pairs.csv", "2 smallest_difference", 0.1, "smallest_difference"),
    ("reports/tables/marks.csv", "5 teacher", 1, "marks.csv"),
    ("reports/tables/marks.csv", "5 sft@43", 1, "marks.csv"),
    ("reports/tables/seeds.csv", "1 right", 1, "seeds.csv: 43: right"),
    ("reports/tables/seeds.csv", "3 low", 0.0001, "seeds.csv: mean: low"),
    ("reports/tables/confusion.csv", "0 rows", 1, "confusion.csv: label base "),
    ("reports/tables/hops.csv", "1 flips", -1, "hops.csv: adapter on its base to merged: flips"),
    ("reports/tables/cascade.csv", "1 sent", 1, "cascade.csv: a cascade: sent"),
    ("reports/tables/cascade.csv", "1 p_teacher", 0.1, "p_teacher"),
    ("reports/tables/train_loss.csv", "0 loss", 0.1, "train_loss.csv"),
]


def plant(path: Path, place: str, change: float) -> str:
    """Adds to one number of a file; returns the file's text as it was."""
    before, keys = path.read_text("utf-8"), place.split()
    if path.suffix == ".json":
        found = top = json.loads(before)
        for key in keys[:-1]:
            found = found[key]
        found[keys[-1]] += change
        path.write_text(json.dumps(top))
    else:
        lines = before.split("\n")
        column = lines[0].split(",").index(keys[1])
        cells = lines[int(keys[0]) + 1].split(",")
        cells[column] = str(float(cells[column] or 0) + change)
        lines[int(keys[0]) + 1] = ",".join(cells)
        path.write_text("\n".join(lines))
    return before


def test_each_planted_difference_is_found(project: Project) -> None:
    build(project, "json", "labels")
    second = Second(Path())
    for name, place, change, says in PLANTED:
        before = plant(Path(name), place, change)
        found = second.differences()
        assert len(found) == 1 and says in found[0], (name, place, found)
        Path(name).write_text(before, encoding="utf-8")
    for name, says in (  # an answer is lost, a verdict changes, a label does
        ("data/3-dropped.jsonl", "is 0 times in 3-kept and 3-dropped"),
        ("data/5-predictions/dpo/test.jsonl", "metrics.json: dpo: right"),
        ("data/gold.jsonl", "other rows than data/gold.jsonl"),
    ):
        path = Path(name)
        before = path.read_text("utf-8")
        first, _, rest = before.partition("\n")
        changed = json.dumps({**json.loads(first), "answer": "x", "gold": "x"})
        path.write_text(rest if "dropped" in name else f"{changed}\n{rest}")
        assert any(says in line for line in Second(Path()).differences()), name
        path.write_text(before, encoding="utf-8")


def test_the_command_prints_each_model_and_each_difference(
    project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    build(project, "text", "null")

    def run(*task: str) -> tuple[object, list[str]]:
        monkeypatch.setattr(sys, "argv", ["second_scorer", *task])
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            runpy.run_module("tests.second_scorer", run_name="__main__")
        return end.value.code, capsys.readouterr().out.splitlines()

    code, lines = run("toy")
    assert (code, lines[-1]) == (0, "toy: 0 differences")
    assert [line.split(":")[0] for line in lines[:-1]] == [
        f"toy {model}" for model in ("base", "examples", "sft", "dpo", "teacher")
    ]
    plant(Path("reports/cost.json"), "answers", 1)
    code, lines = run()
    assert (code, lines[-2]) == (1, "toy: 1 differences")
    assert lines[-1].startswith("  reports/cost.json: answers is ")
    assert run("nothing") == (1, ["error: nothing lacks predictions here, run `make repro` first"])


def test_it_imports_nothing_of_the_product() -> None:
    for path in (ROOT / "tests/second_scorer").glob("*.py"):
        assert not re.search(r"(import|from) (potstill|stages)", path.read_text("utf-8")), path
