"""The few-shot baseline: as many training rows as fit, and the stage `predict examples`."""

import sys
from typing import Any

import pytest

from potstill.core import jsonl
from potstill.inference import engine, few_shot
from stages import predict
from tests.conftest import ROOT, Project

LESSONS = [
    {
        "id": str(i),
        "messages": [
            {"role": "system", "content": "short"},
            {"role": "user", "content": f"q{i}"},
            {"role": "assistant", "content": "a" * i},
        ],
    }
    for i in range(1, 4)
]
CHATS = [
    [{"role": "system", "content": "long"}, {"role": "user", "content": "x" * i}] for i in (1, 9)
]


def size(chat: list[dict[str, str]]) -> int:
    return sum(len(one["content"]) for one in chat)


@pytest.mark.parametrize(
    ("room", "count"), [(99, 3), (25, 3), (24, 2), (20, 2), (19, 1), (16, 1), (15, 0)]
)
def test_as_many_examples_as_fit_the_longest_chat(room: int, count: int) -> None:
    found = few_shot.shown(CHATS, LESSONS, room, size)
    assert len(found) == (2 if count else 0)
    for chat, made in zip(CHATS, found, strict=bool(count)):
        assert made[0] == chat[0] and made[-1] == chat[-1]
        assert [one["role"] for one in made] == ["system", *["user", "assistant"] * count, "user"]
        assert "short" not in str(made) and size(made) <= room


def test_no_lessons_no_examples() -> None:
    assert few_shot.shown(CHATS, [], 99, size) == []


@pytest.mark.parametrize("count", [0, 2])
def test_the_stage(project: Project, monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    (project.dir / "models").symlink_to(ROOT / "models")
    project.set(few_shot_examples=count)
    tests = [
        {"id": jsonl.row_id({"text": text}), "text": text, "slice": "a"}
        for text in ("one word", "two words")
    ]
    jsonl.write_jsonl("data/4-test.jsonl", tests)
    jsonl.write_jsonl("data/4-train.jsonl", LESSONS)
    asked: list[Any] = []

    def fake(
        model: str, batches: list[list[Any]], *rest: Any, **more: Any
    ) -> list[list[dict[str, Any]]]:
        asked.extend(chat for batch in batches for chat in batch)
        one = {"finish_reason": "stop", "prompt_tokens": 1, "completion_tokens": 1}
        return [
            [{"answer": f"{b}{i}", **one} for i in range(len(batch))]
            for b, batch in enumerate(batches)
        ]

    monkeypatch.setattr(engine, "predict", fake)
    monkeypatch.setattr(sys, "argv", ["predict", "examples"])
    predict.main()
    assert [len(chat) for chat in asked] == [2, 2] + ([6, 6] if count else [])
    assert answers(project, "again") == [(tests[0]["id"], "00"), (tests[1]["id"], "01")]
    more = [(tests[0]["id"], "10"), (tests[1]["id"], "11")] if count else []
    assert answers(project, "test") == more


def answers(project: Project, name: str) -> list[tuple[str, str]]:
    """The ids and answers of a file of 5-predictions/examples; none where it is missing."""
    rows = jsonl.read_some(project.dir / f"data/5-predictions/examples/{name}.jsonl")
    return [(row["id"], row["answer"]) for row in rows]
