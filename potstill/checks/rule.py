"""What a rule is, and what the checks share."""

import math
import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple
from unicodedata import normalize

from potstill.checks.paths import Field
from potstill.core.jsonl import Row, squeeze


class Finding(NamedTuple):
    """What a rule says of an answer. `passed` is None where there is nothing to judge by, and
    `reason` is None in a pass. `distance` is 0 for a perfect answer and larger for a worse one."""

    passed: bool | None
    reason: str | None = None
    distance: float = 0.0


Rule = Callable[[Row, Any, str], Finding]  # of the input row, the parsed answer and its text
PASS = Finding(True)


def failed(reason: str, distance: float = 1.0) -> Finding:
    """The check fails. The reason quotes at most 200 characters of a long answer."""
    return Finding(False, reason[:200], float(distance))


def on_text(field: Field | None, judge: Callable[[Row, str], Finding]) -> Rule:
    """The rule that judges a field of the answer, or with None its whole text. Each text at the
    path must pass, and the reason names the first that does not. A null, or nothing, passes where
    schema.json allows it: there is no text to judge."""

    def rule(row: Row, answer: Any, text: str) -> Finding:
        if field is None:
            return judge(row, text)
        worst, distance = PASS, 0.0
        for place, value in field.values(answer):
            # What is no text is near to no length: `within` in metrics.json counts by the distance.
            finding = judge(row, value) if isinstance(value, str) else failed("no text", math.inf)
            distance += finding.distance
            if finding.reason and (worst.passed or worst.passed is None and not finding.passed):
                worst = finding._replace(reason=f"{place}: {finding.reason}")
        return worst if worst.distance == distance else worst._replace(distance=distance)

    return rule


@lru_cache(4096)  # several checks look at the same answer
def plain(text: str) -> str:
    """The text without white space, case and width."""
    return squeeze(normalize("NFKC", text)).casefold()


def are_texts(value: object) -> bool:
    """Whether the value is a list of texts that are not empty."""
    return isinstance(value, list) and all(isinstance(one, str) and plain(one) for one in value)


def compiled(pattern: str) -> re.Pattern[str]:
    """The pattern, compiled. Raises ValueError when it is no regular expression."""
    try:
        return re.compile(pattern)
    except re.error as error:
        raise ValueError(f"{pattern!r} is no regular expression ({error})") from None
