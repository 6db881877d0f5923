"""The few-shot baseline: training rows as examples in the prompts of the untrained model. Where it
is good enough, no training is needed."""

from collections.abc import Callable

from potstill.core.jsonl import Row
from potstill.inference.engine import Chat


def shown(
    chats: list[Chat], lessons: list[Row], room: int, count: Callable[[Chat], int]
) -> list[Chat]:
    """The chats, each with the turns of some lessons between its system prompt and its question: as
    many lessons, from the first, as leave the longest chat within `room` tokens, which `count`
    counts. [] where not one fits."""
    longest = max(chats, key=count)
    for most in range(len(lessons), 0, -1):
        messages = [message for lesson in lessons[:most] for message in lesson["messages"]]
        turns = [message for message in messages if message["role"] != "system"]
        if count([*longest[:-1], *turns, longest[-1]]) <= room:
            return [[*chat[:-1], *turns, chat[-1]] for chat in chats]
    return []
