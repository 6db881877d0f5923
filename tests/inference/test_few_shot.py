"""The stage examples: the base's own prompts again, and with as many training rows as fit."""

import sys
from pathlib import Path
from typing import Any

import pytest

from potstill.core import jsonl
from potstill.inference import engine, few_shot
from stages import examples as stage
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
    project.set(examples=count)
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
    monkeypatch.setattr(sys, "argv", ["examples"])
    stage.main()
    assert [len(chat) for chat in asked] == [2, 2] + ([6, 6] if count else [])
    again, more = (project.read(f"5-predictions-{name}.jsonl") for name in ("again", "examples"))
    assert [(row["id"], row["answer"]) for row in again] == [
        (tests[0]["id"], "00"),
        (tests[1]["id"], "01"),
    ]
    assert [(row["id"], row["answer"]) for row in more] == (
        [(tests[0]["id"], "10"), (tests[1]["id"], "11")] if count else []
    )
    assert Path("data/5-predictions/examples/test.jsonl").is_file()
