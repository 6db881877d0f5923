"""The checks of a task as a document."""

import json

import pytest

from potstill.checks import registry
from potstill.core.errors import UserError
from potstill.dataset import frozen
from potstill.task import settings
from tests.conftest import Project

CHECKS = """
checks:
  - json_schema
  - exact_match: {field: length}
  - facts: {label: word}
"""


def test_thawed_checks_judge_alike_whatever_becomes_of_the_folder(project: Project) -> None:
    project.write("prompts/knowledge.jsonl", '{"label": "b", "text": "约80字"}\n')
    config = (project.dir / "task.yaml").read_text()
    project.write("task.yaml", config[: config.index("checks:")] + CHECKS)
    task = settings.load()
    found = json.loads(json.dumps(frozen.freeze(task)))
    answers = ['{"word": "b", "length": 1}', '{"word": "b", "length": 2}', '{"word": 3}', "no"]
    row = {"text": "a b", "expected": {"word": "b", "length": 1}}
    said = [registry.verdicts(task, row, answer) for answer in answers]
    assert {verdict.passed for each in said for verdict in each} == {True, False}
    for path in ("task.yaml", "schema.json", "prompts/knowledge.jsonl"):
        (project.dir / path).unlink()
    again = frozen.thaw(found)
    assert [registry.verdicts(again, row, answer) for answer in answers] == said


def test_what_has_nothing_to_judge_by_is_not_right(project: Project) -> None:
    config = (project.dir / "task.yaml").read_text()
    project.write("task.yaml", config[: config.index("checks:")] + "checks: [exact_match]\n")
    task = settings.load()
    assert not frozen.right(task, {"text": "a"}, "a")
    assert frozen.right(task, {"text": "a", "expected": "a"}, "a")


def test_the_document_changes_with_what_the_checks_depend_on(project: Project) -> None:
    before = frozen.freeze(settings.load())
    task = (project.dir / "task.yaml").read_text()
    project.write("task.yaml", task + "samples: 4\n")
    assert frozen.freeze(settings.load()) == before
    project.write("task.yaml", task.replace("word: ", "length: "))
    with pytest.raises(UserError, match="grounded"):
        frozen.freeze(settings.load())
    project.write("task.yaml", task.replace('word: ""', 'word: "-"'))
    assert frozen.freeze(settings.load()) != before
