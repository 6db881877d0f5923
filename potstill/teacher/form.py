"""The form of a request: its fields, and which of them an endpoint takes, as its refusals and its
answers show. What it refuses is left out, from run to run."""

import asyncio
import json
import re
import sys
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from potstill.core import project
from potstill.core.errors import UserError
from potstill.core.jsonl import Row, read_json, write_json
from potstill.teacher.refusal import Refused

# What a request may do without, the smallest loss first, and what a refusal calls it
OPTIONAL = {
    "max_completion_tokens": r"max_completion_tokens|max_tokens",  # goes on as max_tokens
    "seed": r"\bseed\b",
    "json_schema": r"json_?schema|response_?format|schema|structured|guided",
    "json_object": r"json_?object|response_?format|structured|guided",
    "temperature": r"\btemperature\b",
}
TWICE = 2  # rows that must show the same before a field is left out for all
# Fields of teacher.extra_body that would make what is paid for, or kept, other than Potstill thinks
_COPIES = ("n", "best_of", "candidate_count", "candidateCount", "num_return_sequences")
_OURS = {
    "model": "teacher.model",
    "messages": "prompts/teacher.md",
    "max_tokens": "teacher.max_tokens",
    "max_completion_tokens": "teacher.max_tokens",
    "temperature": "teacher.temperature",
}
_GREEDY = {"top_k": 1, "top_p": 0, "do_sample": False}


class Form:
    """Which fields of a request an endpoint takes. One row at a time looks for another form; a
    field is left out for all once two rows showed that they are answered without it only, and none
    that it is taken."""

    def __init__(self, url: str, model: str, params: SimpleNamespace) -> None:
        self.model, self.params, self._place = model, params, f"{url} {model}"
        known = _remembered().get(self._place)
        self.without = frozenset(OPTIONAL) & frozenset(known if isinstance(known, list) else ())
        self.searching = asyncio.Lock()  # held by the row that looks
        self.changes = 0  # of what is known here
        self._taken: set[str] = set()  # fields that an answer came to
        self._guess: tuple[str, ...] = ()  # left out of a request that was answered, in this order
        self._shown: dict[str, set[str]] = {}  # by field: rows that speak against it
        self._in_vain = 0  # rows that no form helped

    def body(self, request: Any, without: frozenset[str]) -> Row:
        """The request's JSON, `without` some fields."""
        room = "max_tokens" if "max_completion_tokens" in without else "max_completion_tokens"
        body: dict[str, Any] = {
            "model": self.model,
            "messages": request.messages,
            "temperature": self.params.temperature,
            room: self.params.max_tokens,
            "seed": request.sample,
            **self.params.extra_body,
        }
        body = {name: value for name, value in body.items() if name not in without}
        if request.schema and "json_schema" not in without:
            schema = {"name": "answer", "schema": request.schema, "strict": True}
            body["response_format"] = {"type": "json_schema", "json_schema": schema}
        elif request.schema and "json_object" not in without:
            body["response_format"] = {"type": "json_object"}
        return body

    def refused(self, request: Any, without: frozenset[str], refusal: Refused) -> set[str]:
        """Notes a refusal; the fields that it names, of those that were sent."""
        named = {
            name
            for name, pattern in OPTIONAL.items()
            if name not in without and re.search(pattern, refusal.words, re.IGNORECASE)
        }
        if not request.schema:
            named -= {"json_schema", "json_object"}
        for name in (named or set(self._guess)) - without:
            self._shown.setdefault(name, set()).add(request.key)
        return named

    def guesses(self, request: Any, base: frozenset[str], named: set[str]) -> list[frozenset[str]]:
        """What to leave out next of a refused request, one guess after the other."""
        used = self._used(request, base)
        orders = [_steps(name, used) for name in OPTIONAL if name in named and name in used]
        if self.proven(request, base):  # perhaps a stray refusal
            return [base, *(base.union(step) for order in orders for step in order)]
        if self._guess:
            orders.insert(0, [self._guess[-1:], self._guess])
        if self._in_vain < TWICE:
            orders += [_steps(name, used) for name in OPTIONAL if name in used]
            orders += [[tuple(OPTIONAL)]]
        found = (base.union(step) for order in orders for step in order)
        return [one for one in dict.fromkeys(found) if self._used(request, one) != used]

    def answered(self, request: Any, base: frozenset[str], without: frozenset[str]) -> None:
        """Learns from an answer to a request `without` some fields, after it had been refused with
        them but without `base`."""
        used = self._used(request, without)
        self._taken |= used | ({"json_object"} if "json_schema" in used else set())
        known = self.without - used  # what is taken after all comes back
        if more := without - base:
            for name in more:
                self._shown.setdefault(name, set()).add(request.key)
            self._guess = tuple(name for name in OPTIONAL if name in more)
            self.changes += 1
            shown = {name for name in more if len(self._shown[name]) >= TWICE}
            known |= shown - self._taken
        if known != self.without:
            self._learn(known)

    def in_vain(self, request: Any, base: frozenset[str]) -> None:
        """No form of a request was answered."""
        self._in_vain += not self.proven(request, base)

    def proven(self, request: Any, without: frozenset[str]) -> bool:
        """Whether rows are answered in this form."""
        return self._used(request, without) <= self._taken

    def _used(self, request: Any, without: frozenset[str]) -> set[str]:
        """The optional fields of a request."""
        used = {"max_completion_tokens", "seed", "temperature"} - without
        formats = [name for name in ("json_schema", "json_object") if name not in without]
        return used | set(formats[:1] if request.schema else [])

    def _learn(self, without: frozenset[str]) -> None:
        self.without, self.changes = without, self.changes + 1
        left = f"without {', '.join(sorted(without))}, which it refuses" if without else "with all"
        print(f"teacher {self.model}: asked {left}", file=sys.stderr)
        write_json(_memory(), _remembered() | {self._place: sorted(without)})


def _steps(name: str, used: set[str]) -> list[tuple[str, ...]]:
    """How to do without a field: first without it, then without what takes its place."""
    if name == "json_schema":
        return [("json_schema",), ("json_schema", "json_object")]
    return [(name,)]


def check(params: SimpleNamespace) -> None:
    """Raises UserError for a field of teacher.extra_body that would buy copies, or contradict what
    Potstill sends and counts."""
    for name, value in params.extra_body.items():
        field = f"teacher.extra_body has {name}: {json.dumps(value, ensure_ascii=False)}"
        if name in _COPIES and value not in (1, None):
            raise UserError(
                f"{field}, of which all answers but the first are paid for and lost: take it out; "
                "generate.samples is the number of answers"
            )
        if name in _OURS:
            raise UserError(f"{field}: take it out and set {_OURS[name]}, which is counted")
        if name == "stream" and value:
            raise UserError(f"{field}, but answers are read whole: take it out")


def copies(params: SimpleNamespace, samples: int) -> str | None:
    """Why further samples of a row would be the same answer again, which is paid for; None where
    they may differ."""
    if samples < 2 or params.model == "scripted":
        return None
    if "seed" in params.extra_body:
        why = "teacher.extra_body fixes the seed"
    elif params.temperature == 0:
        why = "teacher.temperature is 0"
    elif any(params.extra_body.get(name) == value for name, value in _GREEDY.items()):
        why = "teacher.extra_body has the likeliest token taken"
    else:
        return None
    return f"{why}, so the {samples} samples of a row may be the same answer, paid {samples} times"


def _memory() -> Path:
    return project.journals() / "endpoints.json"


def _remembered() -> Row:
    """What each endpoint does not accept, from run to run."""
    with suppress(UserError):
        return read_json(_memory())
    return {}
