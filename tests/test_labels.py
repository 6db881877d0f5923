"""Classification and nested answers from gold rows to the report, on answers made by hand: what
score says is so, and the second scorer says the same."""

import json
import random
import re
from pathlib import Path
from typing import Any

import pytest

from potstill.commands import quote
from potstill.core import jsonl, params
from potstill.core.errors import UserError
from potstill.report import pages
from potstill.task import settings
from stages import choose, expand, generate, score, split
from stages import filter as filtering
from tests import fakes
from tests.conftest import Project
from tests.second_scorer.scores import Second

Row = dict[str, Any]
MODELS = ("base", "examples", "sft", "teacher")


def written(answer: Any) -> str:
    return answer if isinstance(answer, str) else json.dumps(answer, ensure_ascii=False)


def build(
    project: Project, config: str, schema: Row, rows: list[tuple[str, Any, Row]]
) -> dict[str, Any]:
    """A task with these gold rows, (text, expected, answer of each model), scored; the first ten
    answers are the teacher's, too. Returns metrics.json."""
    project.write("task.yaml", f'name: toy\ninput: [text]\nuser: "{{{{ text }}}}"\n{config}')
    project.write("schema.json", json.dumps(schema))
    gold = [{"id": jsonl.row_id({"text": text}), "text": text} for text, _, _ in rows]
    jsonl.write_jsonl(
        "data/gold.jsonl", [g | {"gold": row[1]} for g, row in zip(gold, rows, strict=True)]
    )
    texts = [f"Acme pen0 pen1 {jsonl.row_id({'number': i})}" for i in range(10)]
    seeds = [{"id": jsonl.row_id({"text": text}), "text": text} for text in texts]
    jsonl.write_jsonl("data/seeds.jsonl", seeds)
    jsonl.write_jsonl("data/1-inputs.jsonl", [seed | {"family": seed["id"]} for seed in seeds])

    def answers(to: list[Row], texts: list[Any]) -> list[Row]:
        paid = {"finish_reason": "stop", "prompt_tokens": 3, "completion_tokens": 2, "error": None}
        pairs = zip(to, map(written, texts), strict=True)
        return [{"id": r["id"], "key": r["id"], "answer": text, **paid} for r, text in pairs]

    good = answers(seeds, [row[1] for row in rows[:10]])
    jsonl.write_jsonl("data/2-answers.jsonl", [row | {"sample": 0} for row in good])
    filtering.main()
    split.main()
    for model in MODELS:
        texts = [row[2].get(model, "") for row in rows]
        jsonl.write_jsonl(f"data/5-predictions/{model}/test.jsonl", answers(gold, texts))
        jsonl.write_json(f"data/5-predictions/{model}/latency.json", {"median": 0.1})
    for name, model in {"5-predictions/examples/again": "base", "5-parity/sft": "sft"}.items():
        again = jsonl.read_jsonl(f"data/5-predictions/{model}/test.jsonl")
        jsonl.write_jsonl(f"data/{name}.jsonl", again)
    jsonl.write_json("data/5-seeds/report.json", {"seeds": []})
    jsonl.write_json("data/5-parity/report.json", {"lessons": 9, "other_tokens": []})
    fakes.model("models/sft/merged")
    log = [{"step": n, name: 1 / (n + 3)} for n in range(8) for name in ("loss", "eval_loss")]
    jsonl.write_jsonl("models/sft/adapter/logging.jsonl", log)
    choose.main()
    score.main()
    assert Second(Path()).differences() == []
    return dict(jsonl.read_json("reports/metrics.json"))


SIZES = {"bug": 11, "praise": 8, "billing": 12, "feature": 9}
RIGHT = ("bug", "praise")


@pytest.mark.parametrize("kind", ["text", "json"])
def test_a_classification(project: Project, kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Right: bug 11 of 11, praise 8 of 8, billing 0 of 12, feature 0 of 9."""
    rows: list[tuple[str, Any, Row]] = []
    for label in [label for label, size in SIZES.items() for _ in range(size)]:
        wrong = "bug" if len(rows) % 2 else "<b>no idea</b>"
        after = label if label in RIGHT else wrong
        said: Row = {
            "base": "no idea",
            "sft": f" {after}\n",
            "teacher": label,
            "examples": "praise",
        }
        expected: Any = label
        if kind == "json":
            expected = {"kind": label, "why": f"free text {len(rows)}"}
            said = {name: {**expected, "kind": one} for name, one in said.items()} | {"base": "{"}
        rows.append((f"message {len(rows)} {len(rows) ** 5}", expected, said))
    listed = "[json_schema, {exact_match: {field: kind}}]" if kind == "json" else "[exact_match]"
    text = {"type": "string"}
    schema = {"type": "object", "properties": {"kind": text, "why": text}}
    found = build(project, f"checks: {listed}\n", schema, rows)
    place = "kind" if kind == "json" else "answer"
    assert (found["sft"]["accuracy"], found["teacher"]["macro_f1"]) == (0.475, {place: 1.0})
    matrix = [row for row in table("confusion") if row["model"] == "sft"]
    cells = {(row["expected"], row["answer"]): int(row["rows"]) for row in matrix}
    assert {row["key"] for row in matrix} == {place}
    assert (
        sum(cells.values()) == 40 and cells["bug", "bug"] == 11 and cells["praise", "praise"] == 8
    )
    assert cells["billing", "bug"] + cells["billing", ""] == 12
    as_bug = sum(rows for (_, answer), rows in cells.items() if answer == "bug")
    assert found["sft"]["macro_f1"] == {place: round((22 / (11 + as_bug) + 1) / 4, 4)}
    assert found["base"]["macro_f1"] == {place: 0.0}
    assert f"macro-F1 of {place}: base 0.000, " in capsys.readouterr().out
    shares = [row for row in table("slices") if row["kind"] == "label" and row["model"] == "sft"]
    before = "kind " if kind == "json" else ""
    assert {row["name"]: (row["right"], row["rows"]) for row in shares} == {
        f"{before}{label}": (str(size * (label in RIGHT)), str(size))
        for label, size in SIZES.items()
    }
    assert "overlap" not in found["sft"]
    project.write("dvc.yaml", "stages:\n  sft: {}\n")
    page = pages.build(settings.load())
    [section] = re.findall(r"<h2>Which label is taken for which</h2>.*?</section>", page, re.S)
    section = re.sub(r"\n *", "", section)
    assert '<td>billing<td class="n">0 of 12<td class="n">0.000' in section
    assert re.search(r"<details open><summary>\w+, after: ?macro-F1 0.\d{3}<", section)
    assert "By label" in page and "Overlap with" not in page


def table(name: str) -> list[dict[str, str]]:
    return pages._table(settings.load(), name)


def test_free_text_has_no_labels(project: Project) -> None:
    rows: list[tuple[str, Any, Row]] = [
        (f"message {i} {i**5}", f"an answer {i}", dict.fromkeys(MODELS, "an answer 3"))
        for i in range(12)
    ]
    found = build(project, "checks: [exact_match]\n", {}, rows)
    assert found["sft"]["overlap"]["rouge_l"] > 0.8
    assert "macro_f1" not in found["sft"] and not Path("reports/tables/confusion.csv").exists()
    assert not [row for row in table("slices") if row["kind"] == "label"]


INVOICE = """checks:
  - json_schema
  - grounded: {fields: {vendor.name: "", "items[].name": ""}}
  - max_chars: {field: "items[].name", limit: 8}
  - regex: {field: due, pattern: '^\\d+$'}
  - exact_match: {field: vendor.name}
  - exact_match: {field: "items[].price", tolerance: 0.01}
  - exact_match: {field: tags, order: false}
  - exact_match: {field: due}
"""
TEXT = {"type": "string"}
ITEM = {"type": "object", "properties": {"name": TEXT, "price": {"type": "number"}}}
SCHEMA = {
    "type": "object",
    "properties": {
        "vendor": {"type": "object", "properties": {"name": TEXT}, "required": ["name"]},
        "items": {"type": "array", "items": {"$ref": "#/$defs/item"}},
        "tags": {"type": "array", "items": TEXT},
        "due": {"type": ["string", "null"]},
        "note": TEXT,
    },
    "required": ["vendor", "items", "tags", "due"],
    "$defs": {"item": ITEM | {"required": ["name", "price"]}},
}


def items(*prices: object, name: str = "pen") -> list[Row]:
    return [{"name": f"{name}{i}", "price": price} for i, price in enumerate(prices)]


GOOD: Row = {"vendor": {"name": "Acme"}, "items": items(3, 4.5), "tags": ["a", "b"], "due": None}
CHANGES: list[tuple[Row, bool]] = [  # to the expected answer, and whether it is right then
    ({}, True),
    ({"tags": ["b", "a"]}, True),
    ({"tags": ["b", "b"]}, False),
    ({"items": items(3.0, 4.5)}, True),
    ({"items": items(3.01, 4.49)}, True),
    ({"items": items(3.011, 4.5)}, False),
    ({"items": items(4.5, 3)}, False),
    ({"items": items(3)}, False),
    ({"items": items(3, 4.5, name="ink")}, False),  # not in the input
    ({"items": items(3, 4.5, name="a long name")}, False),
    ({"items": [*items(3), {"price": 4.5}]}, False),
    ({"items": items("3", 4.5)}, False),
    ({"vendor": {"name": "Ac me"}}, True),
    ({"vendor": {"name": "acme"}}, False),
    ({"vendor": None}, False),
    ({"due": "5"}, False),
    ({"due": ""}, False),
    ({"note": "x"}, True),
]


def test_nested_answers(project: Project) -> None:
    """Paths, lists with and without order, a tolerance, and null by schema."""
    dice, rows = random.Random(0), list[tuple[str, Any, Row]]()
    for i, (change, _) in enumerate(CHANGES):
        said: Row = {model: GOOD | dice.choice(CHANGES)[0] for model in MODELS}
        rows.append((f"Acme {i**7} pen0 pen1", GOOD, said | {"sft": GOOD | change}))
    for i in range(4):  # due is there
        due = GOOD | {"due": "12"}
        rows.append((f"Acme {i**8} pen0 pen1 x", due, {"sft": [due, GOOD, {}, []][i]}))
    rows.append(("Acme pen0 pen1 7 77", {"vendor": {}}, {"sft": GOOD}))
    found = build(project, INVOICE, SCHEMA, rows)
    marks = [row["sft"] for row in table("marks")]
    right = [*(str(int(right)) for _, right in CHANGES), "1", "0", "0", "0", ""]
    assert marks == right
    assert list(found["sft"]["keys"]) == [
        "vendor",
        "items",
        "tags",
        "due",
        "vendor.name",
        "items[].price",
    ]
    assert found["sft"]["keys"]["items[].price"] == round((len(CHANGES) - 4 + 2) / 22, 4)
    assert found["sft"]["keys"]["tags"] == round((len(CHANGES) - 1 + 2) / 22, 4)


@pytest.mark.parametrize(
    ("check", "says"),
    [
        ("max_chars: {field: items, limit: 3}", "'items', which is a list by schema.json"),
        ("grounded: {fields: {'items[].price': ''}}", "'items[].price', which is a number by"),
    ],
)
def test_a_check_of_texts_on_something_else_is_refused_before_anything_is_asked(
    project: Project, check: str, says: str
) -> None:
    project.seeds(3)
    project.write("schema.json", json.dumps(SCHEMA))
    project.write("task.yaml", f"checks: [json_schema, {{{check}}}]\n")
    every = params.load("near_duplicate", "expand", "generate", "teacher")
    for ask in (expand.main, generate.main, lambda: quote.quote(settings.load(), every)):
        with pytest.raises(UserError, match=re.escape(says)):
            ask()
    assert not Path(".cache/teacher").exists()
