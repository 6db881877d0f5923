"""What models put around the JSON that they were asked for."""

import re
from collections.abc import Iterator

_FENCE = re.compile(r"(`{3,}|~{3,})[^\n`]*\n")


def wrapped(text: str) -> Iterator[str]:
    """What may be the JSON in a text that is none: what the one fence around all of it holds, and
    the one object that text stands round, which must not be part of a list."""
    text = text.strip()
    if (fence := _FENCE.match(text)) and text.endswith(fence[1]):
        yield text[fence.end() : -len(fence[1])]
    before, brace, rest = text.partition("{")
    inside, last, after = rest.rpartition("}")
    if last and not before.rstrip().endswith("[") and not after.lstrip().startswith(("]", ",")):
        yield brace + inside + last
