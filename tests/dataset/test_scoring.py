"""The validation rows that score checkpoints, as `split` writes them."""

import json

import pytest

from potstill.core import jsonl
from potstill.core.errors import UserError
from potstill.dataset import frozen
from tests.conftest import Project
from tests.dataset import test_split as splitting


def scoring() -> tuple[jsonl.Row, list[jsonl.Row]]:
    folder = "data/4-scoring"
    return jsonl.read_json(f"{folder}/report.json"), jsonl.read_some(f"{folder}/rows.jsonl")


def test_the_first_validation_rows_with_what_judges_them(project: Project) -> None:
    project.set(split_valid_share=0.5, best_checkpoint_rows=10, best_checkpoint_patience=3)
    found = splitting.run(project, splitting.kept(60), splitting.GOLD)
    report, rows = scoring()
    assert [report[name] for name in ("rows", "patience", "max_tokens")] == [10, 3, 512]
    assert [row["id"] for row in rows] == [row["id"] for row in found["valid"][:10]]
    task = frozen.thaw(json.loads(json.dumps(report["checks"])))
    for row, lesson in zip(rows, found["valid"], strict=False):
        assert [*row["messages"], {"role": "assistant", "content": row["answer"]}] == lesson[
            "messages"
        ]
        assert row["row"]["expected"] == json.loads(row["answer"])
        assert frozen.right(task, row["row"], row["answer"])
        assert not frozen.right(task, row["row"], row["answer"].replace("word", "w0rd"))
    project.set(best_checkpoint_rows=0)
    again = splitting.run(project, splitting.kept(60), splitting.GOLD)
    assert again == found and scoring() == ({"rows": 0}, [])


def test_own_rows_are_judged_where_they_ask_what_the_task_asks(project: Project) -> None:
    project.set(split_valid_share=0.5, best_checkpoint_rows=50)
    answer = '{"word":"b","length":1}'
    own = [splitting.chat(splitting.text(i), answer) for i in range(20)]
    own += [splitting.chat(splitting.text(i), answer, "thanks", "!") for i in range(20, 40)]
    found = splitting.run(project, [], splitting.GOLD, own)
    report, rows = scoring()
    asked = [row["messages"][0]["content"] for row in found["valid"] if len(row["messages"]) == 2]
    assert 0 < report["rows"] == len(rows) == len(asked) < len(found["valid"])
    assert [row["row"] for row in rows] == [
        {"text": text, "expected": json.loads(answer)} for text in asked
    ]
    says = (
        r"best_checkpoint.rows is 50, but none of the \d+ validation rows asks what .*: set it to"
    )
    with pytest.raises(UserError, match=says):
        splitting.run(project, [], splitting.GOLD, own[20:])
