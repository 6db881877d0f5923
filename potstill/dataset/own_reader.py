"""One row of a user's file → a row to train on, an input or a test row of the task.

messages, conversations    a chat of OpenAI's or sharegpt's kind
instruction, prompt        alpaca (input, output, system, history); prompt and completion
the task's input fields    with an answer or without
"""

import json
import math
import re
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from potstill.checks import registry
from potstill.core import params
from potstill.core.jsonl import DECODER, Row, row_id
from potstill.dataset import own_rows
from potstill.dataset.own_rows import MESSAGES, PREFERENCES
from potstill.task.settings import Task

TRAIN, INPUTS, GOLD = "train", "inputs", "gold"
CHATS = ("messages", "conversations", "conversation")
ANSWERS = "output completion response answer label expected gold target".split()
OTHERS = "id family category slice instruction input system history prompt".split()
# What spreadsheets and table libraries write for no value, or for a broken one
MISSING = {"nan", "nat", "<na>", "#n/a", "#ref!", "#value!", "#div/0!", "#name?", "#num!"}
OFF = (0, "0", "0.0", "false", "False", "FALSE")
CONTROL = re.compile(r"[\x00-\x08\x0e-\x1f\x7f]")
FIELDS, ALPACA, PROMPT = "the task's fields", "instruction (alpaca)", "prompt and completion"


class Refused(Exception):
    """A row cannot be taken, and why."""


def names(t: Task) -> list[str]:
    """What a column of a file may be."""
    listed = [*t.config["input"], *ANSWERS, *properties(t), *OTHERS, *CHATS]
    return list(dict.fromkeys(listed))


def properties(t: Task) -> dict[str, Any]:
    """The fields of an answer by schema.json; {} where answers are plain text."""
    return dict(t.schema.get("properties", {})) if registry.is_json(t) else {}


@dataclass
class Reader:
    """Reads rows for a task: `target` is train, inputs or gold ("" = by whether a row has an
    answer), `columns` says which column has what (output: label). It counts what kinds of rows
    there were, and what is to be said of them."""

    t: Task
    target: str = ""
    columns: dict[str, str] = field(default_factory=dict)
    kinds: Counter[str] = field(default_factory=Counter)
    notes: Counter[str] = field(default_factory=Counter)
    there: set[str] = field(default_factory=set)  # all names of the file
    used: set[str] = field(default_factory=set)  # keys of the row at hand

    def row(self, row: Row) -> tuple[str, Row]:
        """The target and what becomes of a row. Raises Refused for one that cannot be taken, and
        UserError when a template or a check of the task is broken."""
        row = {key: value for key, value in self._named(row).items() if value is not None}
        if re.fullmatch(r"\d{1,15}(\.0)?", str(row.get("id"))):  # a hash has 16 digits
            del row["id"]
            self.notes["number as id is not used: the hash of the row is the id"] += 1
        fields, target = self.t.config["input"], self.target
        chat = next((key for key in CHATS if key in row and key not in fields), "")
        alpaca = {"instruction", "input"} - set(fields) and row.get("input", "") != ""
        self.used = {*fields, "id"}
        there = row.keys() - set(fields)
        if not chat and ("chosen" in there or ("rejected" in there and not there & set(ANSWERS))):
            return self._preference(row)
        known = {*fields, *self.columns, *properties(self.t)}
        keys = [key for key in own_rows.ROW_KEYS if key not in known]
        for place, rule, value in own_rows.said(row, keys):
            raise Refused(f"{place}: {rule}; found {params.found_text(value)}")
        for key in [*own_rows.LOSS, *(["label"] if chat else [])]:
            if key not in known and row.get(key) in OFF:
                found = params.found_text(row[key])
                raise Refused(f"{key}: {found} says not to learn the row: leave the row out")
        if chat:
            kind = MESSAGES if chat == MESSAGES else "conversations (sharegpt)"
            made = self._chat(kind, row, chat, target)
        elif all(name in row for name in fields) and not (alpaca and "instruction" in row):
            made = self._single(FIELDS, row, {name: row[name] for name in fields}, target)
        elif "instruction" in row:
            made = self._alpaca(row, target)
        elif "prompt" in row:
            made = self._prompt(row, target)
        else:
            for name in [*fields, "instruction", "prompt"]:
                if name in self.there and name not in row:
                    raise Refused(f"{name}: a text that is not empty; found nothing")
            listed, wanted = ", ".join(map(repr, row)) or "nothing", ", ".join(fields)
            raise Refused(
                f"found {listed}, expected {wanted} of the task, or instruction, prompt, messages "
                f'or conversations: say which column is what, such as MAP="{fields[0]}=…,output=…"'
            )
        for key in row.keys() - self.used:
            self.notes[f"key {key} is not used"] += 1
        return made

    def _named(self, row: Row) -> Row:
        """The row with the names that MAP gives its columns."""
        columns = self.columns
        rest = {k: v for k, v in row.items() if k not in columns.values() and k not in columns}
        return rest | {name: row[column] for name, column in columns.items() if column in row}

    def _preference(self, row: Row) -> tuple[str, Row]:
        if faults := own_rows.violations(PREFERENCES, row):
            raise Refused("; ".join(faults))
        self.kinds[PREFERENCES] += 1
        return PREFERENCES, row

    def _alpaca(self, row: Row, target: str) -> tuple[str, Row]:
        """A row of instruction and input, which become one text, as ms-swift joins them."""
        parts = [self._text(row, "instruction")]
        parts += [self._text(row, "input")] if row.get("input", "") != "" else []
        self.used |= {"instruction", "input"}
        return self._single(ALPACA, row, self._one_field("\n".join(parts)), target)

    def _prompt(self, row: Row, target: str) -> tuple[str, Row]:
        """A row of a prompt and its completion, each a text or a list of messages."""
        self.used |= {"prompt"}
        prompt, answer = _decoded(row["prompt"]), _decoded(self._answer(row))
        if isinstance(prompt, str) and not _are_messages(answer):
            return self._single(PROMPT, row, self._one_field(self._text(row, "prompt")), target)
        if isinstance(prompt, str):
            prompt = [{"role": "user", "content": prompt}]
        if not isinstance(prompt, list):
            raise Refused(f"prompt is {params.found_text(prompt)}, expected a text or messages")
        if answer is not None and not _are_messages(answer):
            answer = [{"role": "assistant", "content": answer}]
        chat = row | {"messages": [*prompt, *(answer or [])]}
        return self._chat(PROMPT, chat, "messages", target)

    def _one_field(self, text: str) -> Row:
        fields = self.t.config["input"]
        if len(fields) > 1:
            listed = ", ".join(fields)
            raise Refused(f"one text cannot be the fields {listed} of the task: name them by MAP")
        return {fields[0]: text}

    def _single(self, kind: str, row: Row, given: Row, target: str) -> tuple[str, Row]:
        """A row of one question: its input, and perhaps its answer."""
        input = {name: self._text(given, name) for name in given}
        answer = self._answer(row)
        target = target or (INPUTS if answer is None else TRAIN)
        own = {
            name: _decoded(row[name])
            for name in ("system", "history")
            if row.get(name) not in (None, "", "[]", []) and name not in input
        }
        self.used |= own.keys()
        if target != TRAIN:
            for name in own:
                raise Refused(f"{name}: only a row to train on may have one: delete it")
            self.kinds[kind] += 1
            return self._input(row, input, answer, target)
        if answer is None:
            raise Refused("the answer (output) is missing, expected one in a row to train on")
        self._check_id(row, row_id(input), "[0-9a-f]{16}")
        row = {key: value for key, value in row.items() if (key, value) != ("id", row_id(input))}
        text = self._learnt(answer)
        messages = self.t.messages("student", {"id": row_id(input), **input})
        if "history" in own:
            messages[-1:-1] = self._turns(own["history"])
        if "system" in own:
            messages = [one for one in messages if one["role"] != "system"]
            messages.insert(0, {"role": "system", "content": self._text(row, "system")})
            self.notes["row has a system text of its own, which stays"] += 1
        for reason in registry.check(self.t, input, text, training=True)[:1]:
            name = reason.partition(":")[0]
            self.notes[f"answer fails the check {name} (it is taken all the same)"] += 1
        messages.append({"role": "assistant", "content": text})
        return self._lesson(kind, row, messages)

    def _turns(self, history: object) -> list[dict[str, str]]:
        """The earlier turns of an alpaca row: pairs of question and answer."""
        turns = []
        for pair in history if isinstance(history, list) else [history]:
            if not (isinstance(pair, list) and list(map(type, pair)) == [str, str]):
                found = params.found_text(pair)
                raise Refused(f"history: expected pairs of question and answer; found {found}")
            turns += [{"role": "user", "content": pair[0]}]
            turns += [{"role": "assistant", "content": pair[1].strip()}]
        return turns

    def _chat(self, kind: str, row: Row, key: str, target: str) -> tuple[str, Row]:
        """A chat: a row to train on as it is; an input or a test row where it asks one thing."""
        self.used |= {key}
        value = _decoded(row[key])
        if isinstance(value, list) and row.get("system", "") != "":
            self.used |= {"system"}
            value = [{"role": "system", "content": row["system"]}, *value]
        chat = own_rows.chat(value)
        messages = chat.messages if isinstance(chat.messages, list) else []
        roles = [one.get("role") if isinstance(one, dict) else None for one in messages]
        turns = roles[1:] if roles[:1] == ["system"] else roles
        if (target or (INPUTS if turns == ["user"] else TRAIN)) == TRAIN or not messages:
            for name in set(chat.unused):
                self.notes[f"key {name} of a message is not used"] += 1
            return self._lesson(kind, row, value)
        if chat.faults or turns not in (["user"], ["user", "assistant"]):
            said = "; ".join(f"{place}: {rule}" for place, rule, _ in chat.faults)
            raise Refused(
                said or f"a chat of {len(turns)} turns is no input, expected one question"
            )
        by = {one["role"]: one.get("content") for one in messages}
        if "system" in by:
            self.notes["system text is not used: the student has its own prompt"] += 1
        input = self._one_field(self._text(by, "user"))
        self.kinds[kind] += 1
        return self._input(row, input, by.get("assistant"), target or INPUTS)

    def _lesson(self, kind: str, row: Row, value: Any) -> tuple[str, Row]:
        """A row to train on, checked as a whole."""
        given: Row = {key: row[key] for key in ("id", "family") if key in row}
        self.used |= given.keys()
        if faults := own_rows.violations(MESSAGES, given | {"messages": value}):
            raise Refused("; ".join(faults))
        messages = own_rows.chat(value).messages
        for one in messages:
            _readable(one["role"], one["content"])
        self.kinds[kind] += 1
        return TRAIN, {"id": row_id({"messages": messages}), **given, "messages": messages}

    def _input(self, row: Row, input: Row, answer: Any, target: str) -> tuple[str, Row]:
        """A row of seeds.jsonl or gold.jsonl, by the id that its input has."""
        id = row_id(input)
        self._check_id(row, id, "")
        new: Row = {"id": id, **input}
        for key in ("slice",) if target == GOLD else ("category",):
            if row.get(key) not in (None, ""):
                new[key] = self._text(row, key)
                self.used |= {key}
        if target == INPUTS:
            if answer is not None:
                self.notes["answer is not used: the teacher gives one"] += 1
            return INPUTS, new
        new["gold"] = None if answer is None else self._expected(answer)
        if answer is None:
            self.notes["test row expects no answer: the checks alone judge it"] += 1
        return GOLD, new

    def _check_id(self, row: Row, right: str, pattern: str) -> None:
        """Raises Refused for an id that is not the hash of the row's input: any other, or with a
        `pattern` one that looks so."""
        given = row.get("id", right)
        if given != right and (not pattern or re.fullmatch(pattern, str(given))):
            raise Refused(
                f"id is {params.found_text(given)}, but the id of this input is {right}: leave the "
                'column out (MAP="id="), or put it right'
            )

    def _answer(self, row: Row) -> Any:
        """The answer of a row; None where it has none. Where answers are JSON, it may be in columns
        that are named as the fields of schema.json."""
        fields, columns = self.t.config["input"], self.columns
        names = [name for name in ANSWERS if name in row and name not in fields]
        if named := [name for name in names if columns.get(name)]:
            names = named
        rules = properties(self.t)
        parts = {name: row[name] for name in rules if name in row and name not in fields}
        whole = any(isinstance(row[name], dict) or "{" in str(row[name])[:1] for name in names)
        if parts and not whole and (not names or set(names) & parts.keys()):
            self.used |= parts.keys()
            empty = {name: None for name, rule in rules.items() if "null" in _kinds(rule)}
            return {
                name: _typed(parts[name], rules[name]) if name in parts else None
                for name in rules
                if name in parts or name in empty
            }
        if len(names) > 1:
            listed = " and ".join(names)
            raise Refused(
                f'found {listed}, expected one answer: say which, MAP="output={names[0]}"'
            )
        self.used |= set(names)
        value = row[names[0]] if names else None
        return None if isinstance(value, str) and not value.strip() else value

    def _text(self, row: Row, name: str) -> str:
        """A value that has to be a text. A number or true is what a table makes of one."""
        value = row[name]
        if isinstance(value, bool | int | float):
            value = _written(name, value)
            self.notes[f"number or true/false in {name} is taken as a text"] += 1
        if not isinstance(value, str) or not value.strip():
            raise Refused(f"{name}: a text that is not empty; found {params.found_text(row[name])}")
        return _readable(name, value)

    def _learnt(self, answer: Any) -> str:
        """An answer as it is learnt: a text without white space around; JSON compact, as the
        teacher's answers are."""
        if isinstance(answer, str):
            text = _readable("output", answer).strip()
            parsed, problem = registry.parse(self.t, text)
            if problem or isinstance(parsed, str):
                return text
            answer = _strict(text)
        elif not isinstance(answer, dict | list):
            self.notes["answer is a number or true/false, learnt as a text"] += 1
        return _readable("output", _written("output", answer))

    def _expected(self, answer: Any) -> Any:
        """An answer as gold.jsonl has it: an object where answers are JSON, else a text."""
        text = self._learnt(answer)
        parsed, problem = registry.parse(self.t, text)
        if problem:
            found = params.found_text(text)
            raise Refused(
                f"gold: expected JSON as schema.json describes it, found {found}: to say which "
                'field a column is, MAP="field=column"'
            )
        return parsed


def _decoded(value: Any) -> Any:
    """A list or an object that stands in a cell as JSON; any other value as it is."""
    if isinstance(value, str) and value.strip()[:2] in ("[]", "[{", "[["):
        return _strict(value)
    return value


def _strict(text: str) -> Any:
    try:
        return DECODER.decode(text)
    except (ValueError, RecursionError) as error:
        raise Refused(f"not JSON ({error}): {text[:40]!r}") from None


def _are_messages(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(x, dict) and "role" in x for x in value)


def _kinds(rule: Any) -> list[str]:
    """The types that a rule of schema.json allows; a text where it doesn't say."""
    kinds = rule.get("type", "string") if isinstance(rule, dict) else "string"
    return [kinds] if isinstance(kinds, str) else list(kinds)


def _typed(value: Any, rule: Any) -> Any:
    """A cell of a table as schema.json wants it: a number, true or a list where that is no text."""
    if not isinstance(value, str):
        return value
    if "string" in _kinds(rule):
        return _readable("output", value).strip()
    try:
        return DECODER.decode(value.lower() if value.lower() in ("true", "false") else value)
    except (ValueError, RecursionError):
        return value


def _written(name: str, value: Any) -> str:
    """A value as compact JSON. Raises Refused for one that is none."""
    if isinstance(value, float) and not math.isfinite(value):
        raise Refused(f"{name}: the value is missing ({value})")
    try:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise Refused(f"{name}: no text and no JSON ({error})") from None


def _readable(name: str, text: str) -> str:
    """The text. Raises Refused where it stands for no value, or has characters of no text."""
    if text.strip().casefold() in MISSING:
        raise Refused(f"{name}: {text.strip()!r} stands for a missing or broken value")
    if control := CONTROL.search(text):
        raise Refused(f"{name}: found the control character U+{ord(control[0]):04X}: delete it")
    if half := re.search("[\ud800-\udfff]", text):
        raise Refused(f"{name}: found half a surrogate pair, U+{ord(half[0]):04X}: delete it")
    return text
