"""The reward of an answer in a reinforcement: what the task's checks say of it."""

import json
from typing import Any

from swift.rewards import ORM, orms

from potstill.core import jsonl
from potstill.dataset import frozen
from potstill.training import grpo


class Checks(ORM):  # type: ignore[misc]
    """Called by the trainer with all answers of a step."""

    def __init__(self, args: Any = None, **given: Any) -> None:
        super().__init__(args, **given)
        self.task = frozen.thaw(jsonl.read_json(grpo.CHECKS))

    def __call__(
        self, completions: list[str], judged: list[str], is_truncated: list[bool], **_: Any
    ) -> list[float]:
        """From 0 to 1; an answer that was cut off has 0."""
        answers = zip(completions, map(json.loads, judged), is_truncated, strict=True)
        return [
            0.0 if cut else frozen.reward(self.task, row, answer) for answer, row, cut in answers
        ]


orms[grpo.REWARD] = Checks
