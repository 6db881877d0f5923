"""potstill.checks.facts: what the rows of prompts/knowledge.jsonl require of an answer."""

import json
import re

import pytest

from potstill.checks import registry
from potstill.core import jsonl
from potstill.core.errors import UserError
from potstill.task import settings
from tests.conftest import Project

SCHEMA = {
    "type": "object",
    "properties": {"intent": {"type": "string"}, "answer": {"type": "string"}},
}
KNOWN: list[jsonl.Row] = [
    {
        "label": "return",
        "text": "七天内可以退货，商品须完好。",
        "states": ["7天", ["完好", "没有破损"]],
        "never": ["15天"],
    },
    {"label": "return", "when": "定制|刻字", "text": "定制商品不退。", "states": ["不支持退货"]},
    {"label": "warranty", "when": "耳机", "text": "耳机保修12个月。", "states": ["12个月"]},
]


@pytest.fixture
def shop(project: Project) -> settings.Task:
    project.write("task.yaml", "checks: [json_schema, facts: {label: intent, field: answer}]\n")
    project.write("schema.json", json.dumps(SCHEMA))
    jsonl.write_jsonl("prompts/knowledge.jsonl", KNOWN)
    return settings.load()


@pytest.mark.parametrize(
    ("question", "intent", "answer", "reasons"),
    [
        ("杯子能退吗", "return", "7 天内商品完好可以退。", []),
        ("杯子能退吗", "return", "7天内没有破损可以退。", []),
        ("杯子能退吗", "return", "7天内可以退。", ["facts: answer: 完好 is left out"]),
        ("杯子能退吗", "return", "7天内完好可以退，最多15天。", ["facts: answer: 15天"]),
        ("杯子能退吗", "return", "7天内完好可以退，3天到账。", ["facts: answer: 3"]),
        ("杯子30元能退吗", "return", "30元的杯子7天内完好可以退。", []),
        ("杯子能退吗", "return", "七天内完好可以退。", ["facts: answer: 7天 is left out"]),
        (
            "刻字的杯子能退吗",
            "return",
            "7天内完好可以退。",
            ["facts: answer: 不支持退货 is left out"],
        ),
        ("耳机坏了", "warranty", "保修12个月。", []),
        ("音箱坏了", "warranty", "保修12个月。", ["facts: no rule for intent 'warranty'"]),
        ("耳机坏了", "refund", "保修12个月。", ["facts: no rule for intent 'refund'"]),
    ],
)
def test_facts(
    shop: settings.Task, question: str, intent: str, answer: str, reasons: list[str]
) -> None:
    text = json.dumps({"intent": intent, "answer": answer}, ensure_ascii=False)
    assert registry.check(shop, {"text": question}, text) == reasons


def test_an_answer_without_the_fields_fails(shop: settings.Task) -> None:
    assert registry.check(shop, {"text": "耳机"}, "{}") == ["facts: no rule for intent None"]
    assert registry.check(shop, {"text": "耳机"}, '{"intent": "warranty"}') == [
        "facts: answer: no text"
    ]


@pytest.mark.parametrize(
    ("row", "says"),
    [
        (
            {"label": "a", "text": "b", "states": [[]]},
            "knowledge.jsonl:1: states is [[]], expected a list of texts",
        ),
        (
            {"label": "a", "text": "b", "never": "c"},
            "knowledge.jsonl:1: never is 'c', expected a list of texts",
        ),
        ({"label": "a", "text": 3}, "knowledge.jsonl:1: text is 3, expected a text"),
        (
            {"label": "a", "text": "b", "when": "("},
            "knowledge.jsonl:1: when: '(' is no regular expression",
        ),
        ({"label": "a"}, "knowledge.jsonl:1: "),
        (None, "knowledge.jsonl has no rows, expected the rules to judge by"),
    ],
)
def test_a_wrong_rule_is_one_sentence(
    shop: settings.Task, row: jsonl.Row | None, says: str
) -> None:
    jsonl.write_jsonl("prompts/knowledge.jsonl", [row] if row else [])
    with pytest.raises(UserError, match=re.escape(says)):
        registry.validate(shop)


def test_prompts_get_the_knowledge(shop: settings.Task, project: Project) -> None:
    project.write("prompts/teacher.md", "{% for k in knowledge %}- {{ k.text }}\n{% endfor %}")
    system = shop.messages("teacher", {"id": "1", "text": "x"})[0]["content"]
    assert system.splitlines() == [f"- {row['text']}" for row in KNOWN]
