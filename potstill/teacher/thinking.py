"""Thinking that a model writes into its answer, told apart by the marks around it."""

import json
import re

# What a mark is called: think, thinking, seed:think, longcat_think, …
_NAME = r"(?:\w+:)?(?:ant_?|m_|longcat_)?(?:think(?:ing)?|thoughts?|thought_process|reasoning)"
_MARKS = [  # an opening and a closing one
    (rf"<\s*{_NAME}(?:\s[^<>]*)?>", rf"<\s*/\s*{_NAME}\s*>"),
    (r"(?-i:\[THINK\])", r"(?-i:\[/THINK\])"),  # of Mistral
    (rf"◁\s*{_NAME}\s*▷", rf"◁\s*/\s*{_NAME}\s*▷"),
    (r"<\|(?:begin|start)_of_(?:thought|thinking)\|>", r"<\|end_of_(?:thought|thinking)\|>"),
    (r"<\|(?:start|begin)_(?:thinking|thought)\|>", r"<\|end_(?:thinking|thought)\|>"),
    (rf"<\|{_NAME}\|>", rf"<\|/{_NAME}\|>"),
    (  # harmony, of gpt-oss, whose special tokens a server let through
        r"(?:<\|start\|>assistant)?<\|channel\|>\s*(?:analysis|commentary)[^<]*<\|message\|>",
        r"(?:<\|end\|>)?(?:<\|start\|>assistant)?<\|channel\|>\s*final[^<]*<\|message\|>",
    ),
    (r"<\|channel>\s*thought\b", r"<channel\|>"),  # of Gemma
]
OPEN = re.compile("|".join(opening for opening, _ in _MARKS), re.IGNORECASE)
CLOSE = re.compile("|".join(closing for _, closing in _MARKS), re.IGNORECASE)
_EITHER = re.compile(f"(?P<open>{OPEN.pattern})|(?P<close>{CLOSE.pattern})", re.IGNORECASE)

_ENDS = re.compile(r"<\|(?:return|end|call)\|>\s*$")


def apart(text: str) -> tuple[str, str]:
    """The answer, and the thinking that was marked in it: what stands between an opening and a
    closing mark, all before a closing one that was never opened (the opening one is then in the
    chat template), and the whole text where an opening one is never closed. Text that is JSON as a
    whole has no thinking: a mark in it is part of a value."""
    marks = list(_EITHER.finditer(text))
    if not marks or _is_json(text):
        return text, ""
    answer: list[str] = []
    thought: list[str] = []
    thinks, at = False, 0
    for mark in marks:
        (thought if thinks else answer).append(text[at : mark.start()])
        at, opens = mark.end(), mark["open"] is not None
        if not opens and not thinks:
            thought, answer = [*thought, *answer], []
        thinks = opens
    if thinks:  # whatever came before was no answer yet
        return "", "".join([*answer, *thought, text[at:]]).strip()
    return _ENDS.sub("", "".join([*answer, text[at:]])).strip(), "".join(thought).strip()


def _is_json(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict | list)
    except (ValueError, RecursionError):
        return False
