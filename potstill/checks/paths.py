"""Paths into a JSON answer, `vendor.name` or `items[].price`: what an answer has there, and what
schema.json says of the place."""

import re
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from potstill.task.settings import ANSWER, Task

EACH = "[]"  # the step to each entry of a list; every other step is a key
ABSENT = object()  # where an answer has nothing
DEPTH = 5  # steps of the paths that an error names
SHOWN = 12  # paths that an error names
TEXT = {"string", "null"}
WORDS = {"string": "a text", "number": "a number", "boolean": "true or false", "array": "a list"}
WORDS |= {"object": "an object", "null": "null"}
Steps = tuple[str, ...]


class Field(NamedTuple):
    """A path with what schema.json says: the types that its value may have, and after each step
    whether null may stand there, or nothing at all: what `required` leaves out. Where an object has
    no `required`, nothing is said, and nothing may be left out."""

    steps: Steps
    types: frozenset[str]
    nullable: tuple[bool, ...]
    optional: tuple[bool, ...]

    def values(self, answer: Any) -> Iterator[tuple[str, Any]]:
        """The values at the path, each with its place, such as `items[1].price`; ABSENT where a
        value should be. A null, or nothing, that the schema allows gives none."""
        if len(self.steps) == 1 and isinstance(answer, dict) and answer.get(self.steps[0]):
            yield self.steps[0], answer[self.steps[0]]  # as the general way, and twice as fast
        else:
            yield from self._values(answer, 0, "")

    def _values(self, value: Any, at: int, place: str) -> Iterator[tuple[str, Any]]:
        if at == len(self.steps):
            yield place, value
            return
        step = self.steps[at]
        if step == EACH and isinstance(value, list):
            inner = [(f"{place}[{number}]", entry) for number, entry in enumerate(value)]
        else:
            name = f"{place}.{step}" if place and step != EACH else place + step
            there = isinstance(value, dict) and step in value
            if not there and isinstance(value, dict) and self.optional[at]:
                return
            inner = [(name, value[step] if there else ABSENT)]
        for name, entry in inner:
            if entry is ABSENT:
                yield name, ABSENT
            elif entry is not None or not self.nullable[at]:
                yield from self._values(entry, at + 1, name)


def steps(path: str) -> Steps:
    """The steps of a path: ("items", "[]", "price")."""
    return tuple(re.findall(r"\[\]|(?:(?!\[\])[^.])+", path)) or (path,)


def pick(value: Any, path: Steps) -> Any:
    """The value at the path, a list of them behind EACH; ABSENT where there is none. What lies
    behind a null of an answer is null; an answer that is null as a whole has nothing."""
    if not path:
        return value
    step, *rest = path
    if step == EACH and isinstance(value, list):
        return [_behind(entry, tuple(rest)) for entry in value]
    there = isinstance(value, dict) and step in value
    return _behind(value[step], tuple(rest)) if there else ABSENT


def _behind(value: Any, path: Steps) -> Any:
    return None if value is None else pick(value, path)


def find(task: Task, path: str) -> Field:
    """The field of the task's answers. Raises ValueError, which begins with the path, when
    schema.json has no such place."""
    rules, nullable, optional = [_root(task)], list[bool](), list[bool]()
    taken = (path,) if path in _names(rules) else steps(path)
    for step in taken:
        inner = list(_inside(rules, step))
        holds = "array" if step == EACH else "object"
        if rules and not inner and (holds not in _all_types(rules) or _names(rules)):
            known = ", ".join(list(listed([_root(task)]))[:SHOWN])
            raise ValueError(f"{path!r}, expected a property of {ANSWER}: {known}")
        says = any("required" in part.rules for part in _parts(rules))
        optional.append(says and bool(inner) and not any(_needs(rule, step) for rule in rules))
        rules = inner
        nullable.append(bool(rules) and "null" in _all_types(rules))
    return Field(taken, _all_types(rules), tuple(nullable), tuple(optional))


def text(task: Task, path: str) -> Field:
    """As `find`, of a field that a check of texts looks at. Raises ValueError, too, when
    schema.json lets it be something that is neither a text nor null."""
    field = find(task, path)
    if field.types >= set(WORDS) or field.types <= TEXT:  # the schema says nothing, or a text
        return field
    kinds = " or ".join(word for kind, word in WORDS.items() if kind in field.types)
    every = [p for p in listed([_root(task)]) if find(task, p).types <= TEXT]
    near = [p for p in every if p.startswith((f"{path}.", f"{path}{EACH}"))] or every
    hint = f"a text: {', '.join(near[:SHOWN])}" if near else f"a text, and {ANSWER} has none"
    raise ValueError(f"{path!r}, which is {kinds} by {ANSWER}, expected {hint}")


class Rule(NamedTuple):
    """A part of the schema, with what its references are relative to."""

    rules: Any
    resolver: Any

    def at(self, inner: Any) -> "Rule":
        from referencing.jsonschema import DRAFT202012

        return Rule(inner, self.resolver.in_subresource(DRAFT202012.create_resource(inner)))

    def named(self, key: str) -> "list[Rule]":
        """The schemas of `allOf` and the like."""
        inner = self.rules.get(key) if isinstance(self.rules, dict) else None
        return [self.at(one) for one in inner] if isinstance(inner, list) else []

    def reference(self) -> "Rule | None":
        """What `$ref` leads to; None where it leads nowhere."""
        from referencing.exceptions import Unresolvable

        if not isinstance(self.rules, dict) or "$ref" not in self.rules:
            return None
        try:
            found = self.resolver.lookup(self.rules["$ref"])
        except Unresolvable:
            return None
        return Rule(found.contents, found.resolver)


def _root(task: Task) -> Rule:
    from referencing import Registry
    from referencing.jsonschema import DRAFT202012

    whole = DRAFT202012.create_resource(task.schema)
    return Rule(task.schema, Registry().resolver_with_root(whole))


def _parts(rules: Iterable[Rule]) -> Iterator[Rule]:
    """The rules, and all that they are put together from, each once."""
    left, seen = list(rules), set()
    while left:
        rule = left.pop(0)
        if not isinstance(rule.rules, dict) or id(rule.rules) in seen:
            continue
        seen.add(id(rule.rules))
        yield rule
        left += filter(None, [rule.reference()])
        left += [inner for key in ("allOf", "anyOf", "oneOf") for inner in rule.named(key)]
        left += [rule.at(rule.rules[key]) for key in ("then", "else") if key in rule.rules]


def _names(rules: list[Rule]) -> dict[str, None]:
    """The properties that the rules name, in their order."""
    return dict.fromkeys(
        name for part in _parts(rules) for name in part.rules.get("properties", {})
    )


def _inside(rules: list[Rule], step: str) -> Iterator[Rule]:
    """The rules one step further."""
    for part in _parts(rules):
        given = part.rules
        if step == EACH:
            inner = [*given.get("prefixItems", []), *([given["items"]] if "items" in given else [])]
        elif step in given.get("properties", {}):
            inner = [given["properties"][step]]
        else:
            patterns = given.get("patternProperties", {}).items()
            inner = [rule for pattern, rule in patterns if re.search(pattern, step)]
            more = given.get("additionalProperties")
            inner += [more] if isinstance(more, dict) and not inner else []
        yield from map(part.at, inner)


def _needs(rule: Rule, name: str, seen: tuple[int, ...] = ()) -> bool:
    """Whether an object that obeys the rule must have the key."""
    if not isinstance(rule.rules, dict) or id(rule.rules) in seen:
        return False
    seen = (*seen, id(rule.rules))
    every = [*filter(None, [rule.reference()]), *rule.named("allOf")]
    either = (rule.named("anyOf"), rule.named("oneOf"))
    return (
        name in rule.rules.get("required", [])
        or any(_needs(inner, name, seen) for inner in every)
        or any(inner and all(_needs(one, name, seen) for one in inner) for inner in either)
    )


def _types(rule: Rule, seen: tuple[int, ...] = ()) -> frozenset[str]:
    """The types of JSON that the rule allows, an integer being a number."""
    every = frozenset(WORDS)
    if not isinstance(rule.rules, dict) or id(rule.rules) in seen:
        return every
    seen = (*seen, id(rule.rules))
    found, given = set(every), rule.rules
    if "type" in given:
        named = [given["type"]] if isinstance(given["type"], str) else given["type"]
        found &= {"number" if name == "integer" else name for name in named}
    if "enum" in given:
        found &= set(map(_type, given["enum"]))
    if "const" in given:
        found &= {_type(given["const"])}
    for inner in [*filter(None, [rule.reference()]), *rule.named("allOf")]:
        found &= _types(inner, seen)
    for either in (rule.named("anyOf"), rule.named("oneOf")):
        if either:
            found &= frozenset().union(*(_types(inner, seen) for inner in either))
    return frozenset(found)


def _all_types(rules: list[Rule]) -> frozenset[str]:
    """The types that any of the rules allows; all of them where there is no rule."""
    return frozenset[str]().union(*map(_types, rules)) if rules else frozenset(WORDS)


def _type(value: Any) -> str:
    kinds = {str: "string", bool: "boolean", list: "array", dict: "object", type(None): "null"}
    return kinds.get(type(value), "number")


def listed(rules: list[Rule], before: str = "", depth: int = DEPTH) -> Iterator[str]:
    """The paths that the schema names."""
    for name in _names(rules) if depth else ():
        path = f"{before}.{name}" if before else name
        yield path
        yield from listed(list(_inside(rules, name)), path, depth - 1)
    if entries := list(_inside(rules, EACH)) if depth else []:
        yield before + EACH
        yield from listed(entries, before + EACH, depth - 1)
