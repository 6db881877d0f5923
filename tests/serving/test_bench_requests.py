"""bench.requests: what its figures are made of, without a model."""

import json

import pytest

from bench import requests
from potstill.task import settings
from tests.conftest import Project

BLOCK = {
    "seconds": [0.1, 0.2, 0.3, 0.4],
    "prompt": [100, 200, 100, 200],
    "answer": [10, 30, 10, 30],
    "system": [553],
}


def test_summary_over_all_blocks() -> None:
    found = requests.summary([BLOCK, {**BLOCK, "seconds": [0.5] * 4}], "a/model", 2.0, 10.0)
    assert (found["requests"], found["system_tokens"], found["prompt_tokens"]) == (8, 553, 150)
    assert found["latency_median"] == pytest.approx(0.45)
    assert found["latency_p95"] == pytest.approx(0.5)
    assert found["cost"] == pytest.approx((150 * 2 + 20 * 10) / 1e6)


def test_without_prices_there_is_no_cost() -> None:
    found = {name: requests.summary([BLOCK], name, None, 1.0) for name in ("before", "after")}
    assert found["after"]["cost"] is None
    text = requests.table({**found, "prices": {"in": None, "out": 1.0}})
    assert "no prices given" in text and "| before | 553 | 150 | 20 | 0.250 |" in text


def test_words_puts_both_answers_beside_the_input(project: Project) -> None:
    rows = [{"id": "1", "text": "甲"}, {"id": "2", "text": "乙"}]
    project.write("data/4-test.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    for model, answer in (("base", "a|b\n" + "长" * 100), ("sft", "好")):
        lines = [json.dumps({"id": row["id"], "answer": answer}) + "\n" for row in rows]
        project.write(f"data/5-predictions/{model}/test.jsonl", "".join(lines))
    table = requests.words(settings.load(), 1).splitlines()
    assert table[0] == "| text | before | after |" and len(table) == 3
    assert table[2] == f"| 甲 | a\\|b {'长' * 76}… | 好 |"
