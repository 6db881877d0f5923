"""What the tests of the checks share: tasks with some checks, and one check's verdict."""

from typing import Any

from hypothesis import strategies as st

from potstill.checks import registry
from potstill.core.jsonl import Row
from potstill.task.settings import Task

HAN = st.text(st.characters(min_codepoint=0x4E00, max_codepoint=0x9FA5), min_size=1, max_size=40)
TEXTS = st.text(st.sampled_from("新年快乐龙马精神，。！？ \n3a5“”祝你…"), max_size=60)


def made(*listed: object, **config: Any) -> Task:
    """A task of plain text with these checks."""
    values = {"input": ["text"], "user": "{{ text }}", "checks": list(listed), **config}
    return Task("toy", values)


def judged(
    listed: object, text: str, row: Row | str = "写一段祝福", training: bool = False
) -> str | bool | None:
    """True for a pass, the reason for a fail, None for unscored."""
    row = {"text": row} if isinstance(row, str) else row
    (verdict,) = registry.verdicts(made(listed), row, text, training)
    assert (verdict.reason is None) == (verdict.passed is True)
    assert verdict.reason is None or verdict.reason.startswith((f"{verdict.name}: ", "text: empty"))
    assert registry.check(made(listed), row, text, training) == (
        [verdict.reason] if verdict.passed is False else []
    )
    return verdict.reason if verdict.passed is False else verdict.passed
