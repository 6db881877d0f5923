"""A chat as somebody else's tool wrote it (OpenAI's messages, sharegpt's conversations) → messages
as the trainer takes them: role, content and, where a turn is not to be learnt, `loss`."""

import json
from collections.abc import Iterable, Iterator
from functools import cache, lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from potstill.core import params
from potstill.core.errors import UserError
from potstill.core.jsonl import Row, row_id, squeeze
from potstill.core.project import ROOT
from potstill.dataset import own_files

MESSAGES, PREFERENCES = "messages", "preferences"
FIRST, ALL, NONE = "first", "all", "none"  # what is taken of several answers to one question
LAST = {  # of each kind: the key of the chat, whose the last message is, and the rule
    MESSAGES: (
        "messages",
        "assistant",
        "pairs of user and assistant, at least one: the last message is the assistant's",
    ),
    PREFERENCES: ("prompt", "user", "the last message of a prompt is the user's"),
}
ROLES = {"human": "user", "gpt": "assistant", "model": "assistant", "developer": "system"}
# Keys that change what a row or a message means and cannot be honoured
_MEDIA = "image images video videos audio audios objects".split()
ROW_KEYS = [*_MEDIA, *"tools functions tool_calls function_call loss_scale".split()]
ROW_KEYS += "rejected_response rejected_messages".split()
KEYS = [*_MEDIA, *"tool_calls function_call tool_call_id loss_scale refusal".split()]
KEYS += "reasoning_content reasoning reasoning_details thinking thinking_blocks".split()
KEYS += "prefix partial mask masked train_detail".split()
LOSS = "loss weight train training trainable".split()  # ways to say whether a turn is learnt
REMEDY = "delete the key, or leave the row out"
_NOTHING: tuple[object, ...] = (None, False, "", "[]", "{}", "null", "None", [], {})


class Chat(NamedTuple):
    """Messages as the trainer takes them (or what stood there in their place), what is wrong, each
    with place, rule and value, and the keys that are not used."""

    messages: Any
    faults: list[tuple[str, str, object]]
    unused: list[str]


class Asked(NamedTuple):
    """A row as the rule for several answers sees it: where it stands, its id, what it asks, and
    what is answered."""

    where: str
    id: str
    question: str
    answer: str


class Settled(NamedTuple):
    """By the numbers of rows: those that stand there already, why others are left out, and those of
    each question that has several answers."""

    again: set[int]
    reasons: dict[int, str]
    conflicts: dict[str, list[int]]


class File(NamedTuple):
    """A user's messages file: its rows (all of them where there are no problems), each with id and
    family where they are given, and one sentence a problem."""

    rows: list[Row]
    problems: list[str]


def read(path: str | Path) -> File:
    """A user's messages file, with every violation in it. Raises UserError when there is no such
    file, and when it is no JSON Lines."""
    found = own_files.read(Path(path))
    if found.records and (
        found.what != "JSON Lines" or found.marks[:1] and "UTF" in found.marks[0]
    ):
        what = ", ".join([found.what, *found.marks])
        raise UserError(
            f"{path}: found {what}, expected JSON Lines in UTF-8: move the file away, and "
            "`make import FILE=…` takes it in"
        )
    problems, rows, lines = [], list[Row](), dict[str, int]()
    for line, row, _, fault in found.records:
        faults = [fault] if fault else violations(MESSAGES, row)
        if "messages" not in row and {"prompt", "chosen", "rejected"} & row.keys():
            faults = ["found a row of preferences, expected the key messages"]
        if isinstance(id := row.get("id"), str) and lines.setdefault(id, line) != line:
            faults.append(f"id: no id stands there twice; found {id}, as in line {lines[id]}")
        problems += [f"{path}:{line}: {fault}" for fault in faults]
        if not faults:
            given: Row = {key: row[key] for key in ("id", "family") if key in row}
            rows.append(given | {"messages": chat(row["messages"]).messages})
    if found.blank:
        problems.append(f"{path}: {found.blank:,} lines are blank: delete them")
    return File(rows, [*problems, found.broken] if found.broken else problems)


def messages_rows(path: str | Path) -> list[Row]:
    """The rows of a user's messages file, row i from line i + 1. Raises UserError with the first
    violations and how many there are."""
    rows, problems = read(path)
    if problems:
        more = len(problems) - 3
        rest = f"; {more:,} more: see `make validate FILE={path}`" if more > 0 else ""
        raise UserError("; ".join(problems[:3]) + rest)
    return rows


def asked(where: str, row: Row) -> Asked:
    """A row to train on as the rule sees it. White space in a question does not count, nor does a
    last answer that is not learnt."""
    *before, last = row["messages"]
    question = json.dumps([[one["role"], squeeze(one["content"])] for one in before])
    answer = last["content"] if last.get("loss", True) else ""
    return Asked(where, row.get("id") or row_id({"messages": row["messages"]}), question, answer)


def settle(rows: Iterable[Asked], several: str) -> Settled:
    """Each row once, and of several answers to one question the `first`, `all` or `none`: the one
    rule of `make import` and of the stage split."""
    pairs, ids = set[tuple[str, str]](), dict[str, str]()  # ids: where each is
    firsts: dict[str, str] = {}  # where a question is first answered
    rivals: dict[str, list[int]] = {}  # the rows that ask a question
    again, reasons, conflicts = set[int](), dict[int, str](), dict[str, list[int]]()
    for number, (where, id, question, answer) in enumerate(rows):
        rivals.setdefault(question, []).append(number)
        if (question, answer) in pairs:
            again.add(number)
            continue
        pairs.add((question, answer))
        if question in firsts:
            conflicts[question] = rivals[question]
            if several == FIRST:
                reasons[number] = f"{firsts[question]} has another answer to this question"
        elif id in ids:
            reasons[number] = f"{ids[id]} has the id {id} already, for another row"
        ids.setdefault(id, where)
        firsts.setdefault(question, where)
    if several == NONE:
        for question, numbers in conflicts.items():
            why = f"several answers to this question, the first in {firsts[question]}"
            reasons |= dict.fromkeys(numbers, why)
        again -= reasons.keys()
    return Settled(again, reasons, conflicts)


def chat(value: object, name: str = "messages") -> Chat:
    """The messages that stand under the key `name` of a row. What only the rules of
    schemas/messages.json are against stays as it was found."""
    if not isinstance(value, list):
        return Chat(value, [], [])
    messages: list[Any] = []
    faults: list[tuple[str, str, object]] = []
    unused: list[str] = []
    for i, one in enumerate(value):
        if not isinstance(one, dict):
            messages.append(one)
            continue
        place, message = f"{name}[{i}]", dict(one)
        for key, other in (("role", "from"), ("content", "value")):
            if other in message:
                message.setdefault(key, message.pop(other))
        role = message.get("role")
        new = {"role": ROLES.get(role, role) if isinstance(role, str) else role}
        new |= {"content": _content(message, place, faults)} if "content" in message else {}
        faults += said(message, KEYS, f"{place}.")
        loss = _loss(message, place, new["role"] == "assistant", faults)
        if new["role"] == "assistant" and isinstance(text := new.get("content"), str):
            new["content"] = text.strip() or text  # as a check sees it
        unused += [key for key in message if key not in ("role", "content", *KEYS, *LOSS)]
        message = {key: new[key] for key in new if key in message or key == "content"}
        messages.append(message if loss else {**message, "loss": False})
    answers = [one for one in messages if isinstance(one, dict) and one.get("role") == "assistant"]
    if answers and all("loss" in one for one in answers):
        faults.append((name, "at least one turn of the assistant is learnt", "loss: false in all"))
    return Chat(messages, faults, unused)


def _content(message: Row, place: str, faults: list[tuple[str, str, object]]) -> Any:
    """The text of a message, whose content may be parts of text."""
    content = message["content"]
    if not isinstance(content, list) or not all(isinstance(part, dict) for part in content):
        return content
    for j, part in enumerate(content):
        if part.get("type", "text") != "text" or not isinstance(part.get("text"), str):
            faults.append((f"{place}.content[{j}]", "a part of a content is a text", part))
            return "…"  # said already
    return "".join(part["text"] for part in content)


def _loss(message: Row, place: str, learnt: bool, faults: list[tuple[str, str, object]]) -> bool:
    """Whether a turn may be learnt by all that its keys say. Only the assistant's are."""
    loss = True
    for key in LOSS:
        value = message.get(key)
        if value is None:
            continue
        if value not in (0, 1):
            faults.append((f"{place}.{key}", "0, 1, false or true", value))
        elif value and not learnt:
            faults.append((f"{place}.{key}", "only the assistant's turns are learnt", value))
        elif learnt:
            loss = loss and bool(value)
    return loss


def said(row: Row, keys: list[str], place: str = "") -> Iterator[tuple[str, str, object]]:
    """Those of the `keys` that say something in a row or a message, which cannot be honoured."""
    for key in keys:
        if key in row and row[key] not in _NOTHING:
            yield f"{place}{key}", f"it changes what the row means: {REMEDY}", row[key]


def violations(kind: str, row: Row) -> list[str]:
    """What is wrong with a row of this kind: place, rule and value found of each violation."""
    name = LAST[kind][0]
    found = chat(row.get(name), name)
    faults: dict[tuple[str, str], object] = {}
    for place, rule, value in [*said(row, ROW_KEYS), *found.faults]:
        faults[place, rule] = value
    row = row | ({name: found.messages} if name in row else {})
    roles = _roles(row) if kind == MESSAGES else None
    for error in () if roles and _fit(roles) else _validator(kind).iter_errors(row):
        place = error.json_path.removeprefix("$").removeprefix(".")
        faults[place, str(error.schema["description"])] = error.instance
    faults |= {(place, rule): value for place, rule, value in _unsaid(kind, row)}
    return [
        f"{place}: {rule}; found {params.found_text(value)}".removeprefix(": ")
        for (place, rule), value in faults.items()
    ]


def _roles(row: Row) -> tuple[str, ...] | None:
    """The roles of a row of messages that the schema can have nothing against but for these: all
    its texts have a sign. None for any other. Ten thousand rows have a few orders of roles."""
    messages = row.get("messages")
    if not isinstance(messages, list) or {"id", "family"} & row.keys():
        return None
    roles = []
    for one in messages:
        match one:
            case {"role": str(role), "content": str(text)} if (
                text[:1] > " " and text[0].isprintable()  # no white space, no mark
            ):
                roles.append(role)
            case _:
                return None
    return tuple(roles)


@lru_cache(1024)
def _fit(roles: tuple[str, ...]) -> bool:
    turns = [{"role": role, "content": "x"} for role in roles]
    return bool(_validator(MESSAGES).is_valid({"messages": turns}))


@cache
def _validator(kind: str) -> Any:
    from jsonschema import Draft202012Validator

    return Draft202012Validator(json.loads(params.read_text(ROOT / "schemas" / f"{kind}.json")))


def _unsaid(kind: str, row: Row) -> Iterator[tuple[str, str, object]]:
    """The rules that a schema cannot say: user and assistant take turns, and the two answers of a
    preference differ."""
    name, last, rule = LAST[kind]
    messages = row.get(name)
    if isinstance(messages, list) and messages:
        roles = [one.get("role") if isinstance(one, dict) else None for one in messages]
        turns = [(i, role) for i, role in enumerate(roles) if role != "system"]
        for (_, before), (i, role) in pairwise(turns):
            if role == before and role in ("user", "assistant"):
                yield f"{name}[{i}].role", "user and assistant take turns", role
        if roles[-1] != last and roles[-1] in ("system", "user", "assistant"):
            yield f"{name}[{len(roles) - 1}].role", rule, roles[-1]
    if kind == PREFERENCES:
        match row.get("chosen"), row.get("rejected"):
            case str(chosen), str(rejected) if squeeze(chosen) == squeeze(rejected):
                yield "rejected", "chosen and rejected differ in more than white space", rejected
