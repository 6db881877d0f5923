"""Few-shot prompts: training rows shown to the untrained model, so that a user learns when no training is needed."""

from collections.abc import Callable

from potstill.core.jsonl import Row

Chat = list[dict[str, str]]


def shown(
    chats: list[Chat], lessons: list[Row], room: int, count: Callable[[Chat], int]
) -> list[Chat]:
    """The chats, each with the lessons' turns between its system prompt and its question: as many lessons, from the first, as leave the
    longest chat within `room` tokens, by `count`; [] where not one does."""
    longest = max(chats, key=count)
    for most in range(len(lessons), 0, -1):
        turns = [
            one
            for lesson in lessons[:most]
            for one in lesson["messages"]
            if one["role"] != "system"
        ]
        if count([*longest[:-1], *turns, longest[-1]]) <= room:
            return [[*chat[:-1], *turns, chat[-1]] for chat in chats]
    return []
