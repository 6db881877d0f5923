"""How sure the student is of an answer: the probability of its least likely token, which it gives
anyway; and the threshold under which the cascade asks the teacher.

reports/confidence.csv, which `make confidence` writes (commands/confidence.py): cascade.csv for
some thresholds, with `threshold`, `chosen` and, in `weights`, the student that was measured.
"""

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from potstill.core.errors import UserError
from potstill.core.jsonl import Row
from potstill.evaluation import compare
from potstill.inference import engine
from potstill.inference.engine import GUIDED, Chat
from potstill.serving import served
from potstill.task.settings import Task

NAME = "confidence"  # beside the names of the checks that an answer fails
MOST = 0.3  # of the validation rows are sent on at most
SHARES = (0.01, 0.02, 0.05, 0.1, 0.2, MOST)  # of them, for which the table has thresholds
COLUMNS = ("weights", "threshold", "chosen")


def file(t: Task) -> Path:
    """Where a task's table lies."""
    return t.reports / "confidence.csv"


def least(logprobs: Iterable[float]) -> float:
    """The probability of the least likely token; 1 for no token."""
    return math.exp(min(logprobs, default=0.0))


def of_reply(choice: Row) -> float:
    """The same of a choice of a chat.completion, whose logprobs it takes away."""
    found = choice.get("logprobs") or {}
    choice["logprobs"] = None
    return least(one["logprob"] for one in found.get("content") or [])


def answers(
    model: Path, batches: list[list[Chat]], grammars: list[list[str] | None], p: SimpleNamespace
) -> list[list[Row]]:
    """For each batch an answer to each of its chats, as `engine.predict` gives it, with its
    `confidence`; `p` is the section predict. Raises UserError as `engine.start` does."""
    more = GUIDED if any(grammars) else {}
    llm = engine.start(str(model), p.dtype, p.max_model_len, **more)
    from vllm import SamplingParams, TokensPrompt
    from vllm.sampling_params import StructuredOutputsParams

    tokenizer, found = llm.get_tokenizer(), []
    # 0 more than the token that was taken; before a grammar shuts others out, as when served
    given: dict[str, Any] = {"temperature": 0.0, "max_tokens": p.max_tokens, "logprobs": 0}

    def how(grammar: str | None) -> Any:
        rule = StructuredOutputsParams(grammar=grammar) if grammar else None
        return SamplingParams(**given, structured_outputs=rule)

    for chats, rules in zip(batches, grammars, strict=True):
        asked = [TokensPrompt(prompt_token_ids=engine.tokens(tokenizer, chat)) for chat in chats]
        hows = [how(rule) for rule in rules] if rules else how(None)
        outputs = llm.generate(asked, hows, use_tqdm=False) if asked else []
        found.append([_answer(output) for output in outputs])
    return found


def _answer(output: Any) -> Row:
    [made] = output.outputs
    taken = [step[token].logprob for step, token in zip(made.logprobs, made.token_ids, strict=True)]
    prompt = output.prompt_token_ids
    whole = engine.answer(prompt, made.text, made.finish_reason, made.token_ids)
    return whole | {NAME: least(taken)}


def thresholds(sure: Sequence[float]) -> list[float]:
    """Thresholds under which SHARES of these answers lie, or fewer."""
    ordered = sorted(sure)
    places = {int(share * len(ordered)) for share in SHARES}
    return sorted({ordered[place] for place in places if place < len(ordered)} - {0.0})


def best(sure: Sequence[float], right: Sequence[bool]) -> float | None:
    """The threshold that tells right answers from wrong ones best: by Youden's index, the share of
    the wrong ones below it less that of the right ones (Youden 1950, Cancer 3:32-35). At most MOST
    of the answers lie below it. None where there is no wrong one, or no threshold tells more than
    chance."""
    wrong = len(right) - sum(right)
    found, most, index = None, 0.0, 0.0
    pairs = sorted(zip(sure, right, strict=True))
    for place, (value, is_right) in enumerate(pairs):
        if not wrong or place > MOST * len(pairs):
            break
        if index > most and value > pairs[place - 1][0]:
            found, most = value, index
        index += -1 / (len(right) - wrong) if is_right else 1 / wrong
    return found


def threshold(t: Task, given: str, student: Path) -> float | None:
    """The threshold of `make serve CASCADE=1` for this student: a number as `given`, or with "auto"
    the one that `make confidence` chose; None for "off" and where it chose none. Says which.
    Raises UserError for what is no probability."""
    if given not in ("auto", "off"):
        try:
            value = float(given)
        except ValueError:
            value = math.nan
        if not 0 < value <= 1:
            expected = "expected off, auto, or a probability such as 0.5"
            raise UserError(f"CONFIDENCE is {given}, {expected}")
        return value
    path = file(t)
    if given == "off":
        return None
    if not path.is_file():
        print("serve: the checks alone send answers on; `make confidence` finds a threshold")
        return None
    rows = list(compare.read_csv(path.read_text(encoding="utf-8"), str(path)))
    if rows and rows[0]["weights"] != served.name(student):
        print(f"serve: {path} is of another student: run `make confidence` again")
        return None
    found = next((float(row["threshold"]) for row in rows if row["chosen"] == "yes"), None)
    said = "no threshold pays" if found is None else f"answers under {found:g} are sent on"
    print(f"serve: {said} ({path})")
    return found
