"""The stage pairs: bad answers asked for on purpose become preferences, with the prompt that the student sees."""

import pytest
from aiohttp import web

from potstill import rows, validate
from tests.conftest import FakeTeacher, Project, completion

BAD = {"0": '{"word": "wrong", "length": 1}', "1": "no JSON at all", "2": "   ", "3": "good", "4": "good"}


@pytest.fixture
def bad(project: Project, fake: FakeTeacher) -> Project:
    """A split project whose teacher answers the bad prompt by the last digit of the word: badly, with nothing, or well."""

    async def behave(number: int, body: dict[str, object], request: web.Request) -> web.StreamResponse | None:
        messages = body["messages"]
        assert isinstance(messages, list)
        if "wrong word" not in messages[0]["content"]:
            return None
        assert "response_format" not in body  # a bad answer need not be JSON
        answer = BAD[str(int(messages[-1]["content"][-1]) % 5)]
        return None if answer == "good" else web.json_response(completion(answer))

    project.write("tasks/toy/prompts/rejected.md", "You find a wrong word.\n")
    project.set(teacher_model="fake-235b")
    project.write("data/toy/gold.jsonl", "")
    project.seeds(120, alike=False)
    for stage in ("generate", "filter", "split"):
        code, said = project.run(f"stages.{stage}", **fake.env())
        assert code == 0, said
    fake.behave = behave
    return project


def test_pairs(bad: Project, fake: FakeTeacher) -> None:
    bad.set(pairs=40)
    code, said = bad.run("stages.pairs", **fake.env())
    assert code == 0, said
    found = {row["id"]: row for row in rows.read_jsonl(bad.dir / "data/toy/4-pairs.jsonl")}
    lessons = rows.read_jsonl(bad.dir / "data/toy/4-train.jsonl")
    assert len(rows.read_jsonl(bad.dir / "data/toy/4-rejected.jsonl")) == 40
    expected = 0
    for lesson in lessons[:40]:
        *prompt, best = lesson["messages"]
        answer = BAD[str(int(prompt[-1]["content"][-1]) % 5)]
        if answer == "good" or not answer.strip():
            assert lesson["id"] not in found
            continue
        expected += 1
        pair = found[lesson["id"]]
        assert (pair["prompt"], pair["chosen"], pair["rejected"]) == (prompt, best["content"], answer)
        assert pair["prompt"][0]["content"] == "last word"
    assert len(found) == expected > 5
    assert f"40 bad answers asked for = {expected} pairs + {40 - expected} dropped" in said
    assert "as good" in said
    assert "empty" in said or "refused" in said
    assert [validate.violations("preferences", row) for row in found.values()] == [[]] * expected


def test_a_task_without_the_prompt_has_no_pairs(bad: Project, fake: FakeTeacher) -> None:
    (bad.dir / "tasks/toy/prompts/rejected.md").unlink()
    before = len(fake.calls)
    code, said = bad.run("stages.pairs", **fake.env())
    assert (code, len(fake.calls)) == (0, before)
    assert "0 bad answers asked for = 0 pairs + 0 dropped (nothing)" in said
