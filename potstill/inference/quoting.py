"""Answers that can only quote: for each row a grammar in which every field that the check
`grounded` names is a piece of that row's input.

A piece is whole words, numbers and marks that stand there one after the other; of a script that
does not have capital letters, single characters. White space may be left out, or a space added in
front, and so may the characters that the check ignores: whatever the grammar allows passes the
check, and not the other way round. Keys come in any order, compact or indented. The other fields
follow schema.json. Grammars are in llguidance's Lark, for vLLM's backend "guidance".
"""

import json
import re
from collections.abc import Iterator
from typing import Any

from potstill.core.errors import UserError
from potstill.core.jsonl import Row
from potstill.task.settings import ANSWER, PATH, Task

# White space that a grammar allows: none, a space, or a new line with its indentation
GAP = r"( |\n[ \t]{0,40})?"
HEAD = rf"""OPEN: /\{{{GAP}/
CLOSE: /{GAP}\}}/
FIRST: /\[{GAP}/
LAST: /{GAP}\]/
COMMA: /,{GAP}/
COLON: /: ?/
"""
# unsupported keywords of a schema are passed over, as the check still judges them
GUIDANCE: dict[str, Any] = {"whitespace_flexible": False, "lenient": True}
GUIDANCE |= {"item_separator": f",{GAP}", "key_separator": ": ?"}
EMPTY = '""'
EITHER = ("anyOf", "oneOf")
Ignored = tuple[str, str]  # of a field: the characters that the check ignores, and before_number


class Grammars:
    """The grammars of a task's answers, one for each row. Raises UserError when no check `grounded`
    of the task names a field, and when schema.json leads to a field in a way that is not known."""

    def __init__(self, task: Task) -> None:
        self.inputs: list[str] = task.config["input"]
        self.fields: dict[str, Ignored] = {}
        for entry in task.config["checks"]:
            options = entry.get("grounded", {}) if isinstance(entry, dict) else {}
            before = options.get("before_number", "")
            self.fields |= {path: (ignored, before) for path, ignored in _named(options).items()}
        if not self.fields or "json_schema" not in _checks(task):
            found = f"no check `grounded` of {PATH} names fields of a JSON answer"
            raise UserError(f"params.yaml: predict.grounded is true, but {found}: set it to false")
        self.schema, self.spans = task.schema, list(dict.fromkeys(self.fields.values()))
        self.rules: list[str] = []
        self.reached: set[str] = set()
        start = self._value(self.schema, "")
        if missed := [path for path in self.fields if path not in self.reached]:
            raise _unknown(missed[0], "its keywords")
        self.rules += [f"start: {start}"]

    def of(self, row: Row) -> str:
        """The grammar of an answer to the row."""
        texts = [row[name] for name in self.inputs]
        spans = [_span(texts, *kind, number) for number, kind in enumerate(self.spans)]
        return "\n".join([HEAD, *self.rules, *spans])

    def _value(self, schema: Any, path: str) -> str:
        """The rule of what stands at the path, its name."""
        if path in self.fields:
            self.reached.add(path)
            span = f"SPAN{self.spans.index(self.fields[path])}"
            return f'({span} | "null")' if self._nullable(schema) else span
        below = (f"{path}.", f"{path}[]") if path else ("",)
        if not any(field.startswith(below) for field in self.fields):
            return f"%json {json.dumps(self._whole(schema))}"
        schema = self._followed(schema, path)
        for key in EITHER:
            if key in schema:
                return f"({' | '.join(self._value(one, path) for one in schema[key])})"
        if "allOf" in schema or "prefixItems" in schema:
            field = next(field for field in self.fields if field.startswith(below))
            raise _unknown(field, "allOf" if "allOf" in schema else "prefixItems")
        found = [make(schema, path) for make in (self._object, self._list)]
        found += ['"null"'] if self._nullable(schema) and _types(schema) else []
        if not (named := [rule for rule in found if rule]):
            return f"%json {json.dumps(self._whole(schema))}"
        return f"({' | '.join(named)})"

    def _object(self, schema: Any, path: str) -> str:
        """The rule of an object; its keys come in any order. "" where the schema has none."""
        keys: dict[str, Any] = schema.get("properties", {})
        if not keys:
            return ""
        name, needed = f"o{len(self.rules)}", schema.get("required", [])
        self.rules.append("")  # keeps the place: names stay distinct
        bits = [bit for bit, key in enumerate(keys) if key in needed]
        ends = _all([f"bit_set({bit})" for bit in bits])
        first, more = [f"CLOSE{ends}"], [f"CLOSE{ends}"]
        for bit, (key, inner) in enumerate(keys.items()):
            said = f"{_literal(json.dumps(key, ensure_ascii=False))} COLON "
            said += self._value(inner, f"{path}.{key}" if path else key)
            self.rules.append(f"{name}k{bit}: {said}")
            more.append(f"COMMA {name}k{bit} {name}m::set_bit({bit}) %if bit_clear({bit})")
            first.append(f"{name}k{bit} {name}m::set_bit({bit})")
        if bits:
            del first[0]
        self.rules.append(f"{name}: OPEN {name}f::0\n{name}f::_ : " + "\n  | ".join(first))
        self.rules.append(f"{name}m::_ : " + "\n  | ".join(more))
        return name

    def _list(self, schema: Any, path: str) -> str:
        """The rule of a list; "" where the schema has none."""
        if not isinstance(schema.get("items"), dict):
            return ""
        item = self._value(schema["items"], f"{path}[]")
        least, most = schema.get("minItems", 0), schema.get("maxItems")
        more = f"{{{max(least - 1, 0)},{'' if most is None else max(most - 1, 0)}}}"
        entries = [] if most == 0 else [f"{item} (COMMA {item}){more}"]
        return f"FIRST ({' | '.join([*entries, *([] if least else [EMPTY])])}) LAST"

    def _followed(self, schema: Any, path: str) -> Any:
        """The schema that `$ref` leads to, within schema.json."""
        for _ in range(50):
            if not isinstance(schema, dict):
                return {}
            reference = schema.get("$ref")
            if reference is None:
                return schema
            found: Any = self.schema
            for step in reference.removeprefix("#").split("/")[1:]:
                step = step.replace("~1", "/").replace("~0", "~")
                found = found.get(step) if isinstance(found, dict) else None
            schema = found
        raise _unknown(path, "$ref")

    def _nullable(self, schema: Any) -> bool:
        """Whether null may stand there."""
        schema = self._followed(schema, "")
        for key in EITHER:
            if key in schema:
                return any(self._nullable(one) for one in schema[key])
        if "enum" in schema or "const" in schema:
            return None in schema.get("enum", [schema.get("const", "")])
        return not _types(schema) or "null" in _types(schema)

    def _whole(self, schema: Any) -> Any:
        """The part of schema.json as a schema of its own."""
        if not isinstance(schema, dict):
            return {"x-guidance": GUIDANCE} | ({} if schema else {"not": {}})
        own = {"x-guidance": GUIDANCE, **_moved(schema)}
        return own | {"$defs": {"root": _moved(self.schema)}} if "$ref" in str(schema) else own


def _checks(task: Task) -> set[str]:
    return {next(iter(one)) if isinstance(one, dict) else one for one in task.config["checks"]}


def _named(options: Any) -> dict[str, str]:
    return (options.get("fields") or {}) if isinstance(options, dict) else {}


def _types(schema: Any) -> list[str]:
    given = schema.get("type", [])
    return [given] if isinstance(given, str) else given


def _all(conditions: list[str]) -> str:
    """A condition of a rule from several; "" from none."""
    if not conditions:
        return ""
    whole = conditions[0]
    for one in conditions[1:]:
        whole = f"and({whole}, {one})"
    return f" %if {whole}"


def _moved(schema: Any) -> Any:
    """The schema with its references to a copy of schema.json at #/$defs/root."""
    if isinstance(schema, list):
        return [_moved(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    found = {key: _moved(value) for key, value in schema.items() if key not in ("$schema", "$id")}
    if isinstance(reference := found.get("$ref"), str) and reference.startswith("#"):
        found["$ref"] = f"#/$defs/root{reference[1:]}"
    return found


def _unknown(path: str, how: str) -> UserError:
    known = "properties, items, $ref, anyOf and oneOf"
    found = f"predict.grounded cannot follow {how} to the field {path}"
    return UserError(
        f"{ANSWER}: {found}, expected {known}: write it with these, or set it to false"
    )


def _literal(text: str) -> str:
    """A text as a string of the grammar."""
    return json.dumps(text)


def _span(texts: list[str], ignored: str, before: str, number: int) -> str:
    """The terminals of a JSON string that is a piece of one of the texts."""
    sources = [part for text in texts for part in (text, *_after(text, before))]
    kinds = {(space, kept) for space in (" ", "") for kept in (True, False)}
    lists = [_chunks(text, ignored, *kind) for text in sources for kind in sorted(kinds)]
    unlike = [list(one) for one in dict.fromkeys(map(tuple, lists)) if one]
    if not unlike:  # nothing to quote: an empty text, which the check refuses, is at least JSON
        return f'SPAN{number}: "\\"\\""'
    parts = [f"%regex {json.dumps({'substring_chunks': one})}" for one in unlike]
    names = [f"PART{number}_{index}" for index in range(len(parts))]
    lines = [f"{name}: {part}" for name, part in zip(names, parts, strict=True)]
    # no piece is empty or has white space at its ends; a space in front may be what is taught
    lines += [f"PIECE{number}: ({' | '.join(names)}) & /[^ ]((?s:.*)[^ ])?/"]
    return "\n".join([*lines, f'SPAN{number}: "\\"" " "? PIECE{number} "\\""'])


def _after(text: str, before: str) -> Iterator[str]:
    """What follows each `before` that a digit comes after, and a number may begin at."""
    for match in re.finditer(f"(?={re.escape(before)})", text) if before else ():
        rest = text[match.start() + len(before) :]
        if rest[:1].isdigit():
            yield rest


def _chunks(text: str, ignored: str, space: str, kept: bool) -> list[str]:
    """The words, numbers and marks of a text as JSON writes them, white space as `space`. What the
    check ignores is part of what follows it, so that it never stands alone, or is not `kept`."""
    found: list[str] = []
    held = ""
    for unit in _units(text):
        if unit.isspace():
            found += [space] if space and found[-1:] != [space] else []
        elif set(unit) <= set(ignored):
            held += unit if kept else ""
        else:
            found.append(json.dumps(held + unit, ensure_ascii=False)[1:-1])
            held = ""
    return found if any(one != " " for one in found) else []


def _units(text: str) -> Iterator[str]:
    """The runs of digits and of letters that have capitals; each other character alone."""
    run = ""
    for sign in text:
        if run and not (
            (sign.isdigit() and run[-1].isdigit()) or (_is_cased(sign) and _is_cased(run[-1]))
        ):
            yield run
            run = ""
        run += sign
    if run:
        yield run


def _is_cased(sign: str) -> bool:
    return sign.isalpha() and sign.lower() != sign.upper()
