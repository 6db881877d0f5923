"""params.yaml, checked whole before anything runs."""

import difflib
import json
import math
import re
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from potstill.errors import UserError

PATH = Path("params.yaml")
SCHEMA = Path("schemas/params.json")
HUB = re.compile(r"(?!models/|[./~])[^/]+/[^/]+")  # a model's name there


def load(*names: str) -> SimpleNamespace:
    """The named parameters; the whole file is checked against schemas/params.json first. Raises UserError."""
    params = parse(read_text(PATH), PATH)
    validate(params)
    return SimpleNamespace(**{name: params[name] for name in names})


def read_text(path: Path) -> str:
    """The text of a file that the user may have lost or saved in another encoding."""
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"{path} is missing: `git checkout {path}` brings it back") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: byte {error.start + 1} is not UTF-8: save the file as UTF-8") from None


def parse(text: str, path: Path) -> dict[str, Any]:
    """A YAML 1.2 mapping. DVC writes YAML 1.2, where PyYAML (1.1) reads `1e-05` as a text and `no` as false."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import MarkedYAMLError, YAMLError

    try:
        loaded = YAML(typ="safe", pure=True).load(text)  # the C loader knows YAML 1.1 only
    except MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise UserError(f"{path}:{line}: not YAML: {error.problem}") from None
    except YAMLError as error:
        raise UserError(f"{path}: not YAML: {error}") from None
    if not isinstance(loaded, dict):
        raise UserError(f"{path}: found {type(loaded).__name__}, expected `name: value` lines")
    return loaded


def validate(params: dict[str, Any], path: Path = PATH) -> None:
    """Raises UserError for the first unknown, missing, mistyped or out-of-range parameter."""
    known = json.loads(read_text(SCHEMA))["properties"]
    for name in params:
        if name not in known:
            raise UserError(f"{_line(path, name)}: unknown parameter {name!r}: {near(name, known)}")
    for name, rule in known.items():
        if name not in params:
            raise UserError(f"{path}: parameter {name} is missing, expected {_expected(rule)}")
        if not _fits(params[name], rule):
            raise UserError(f"{_line(path, name)}: {name} is {found_text(params[name])}, expected {_expected(rule)}")
    model, revision = params["model"], params["model_revision"]
    if HUB.fullmatch(model) and not Path(model).exists() and not re.fullmatch("[0-9a-f]{40}", revision):
        raise UserError(
            f"{_line(path, 'model_revision')}: model_revision is {revision}, expected the commit of {model} on the hub, 40 hex digits: "
            "what a branch or tag stands for may change"
        )


def _fits(value: object, rule: dict[str, Any]) -> bool:
    if isinstance(value, float) and not math.isfinite(value):
        return False
    from jsonschema import Draft202012Validator

    return bool(Draft202012Validator(rule).is_valid(value))


def near(name: object, known: Iterable[str]) -> str:
    """What to say of an unknown name: the known one that it is close to, or all of them."""
    close = difflib.get_close_matches(str(name), known := list(known), 1)
    return f"did you mean {close[0]}?" if close else f"known are {', '.join(known)}"


def found_text(value: object) -> str:
    """A value from a YAML file as an error shows it, in one line."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else text[:57] + "..."


def _line(path: Path, name: object) -> str:
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return next((f"{path}:{i}" for i, line in enumerate(lines, 1) if line.startswith(f"{name}:")), str(path))


def _expected(rule: dict[str, Any]) -> str:
    if "enum" in rule:
        return "one of " + ", ".join(one if isinstance(one, str) else found_text(one) for one in rule["enum"])
    if "pattern" in rule:
        return str(rule["description"])
    types = rule["type"] if isinstance(rule["type"], list) else [rule["type"]]
    kinds = {
        "integer": "a whole number",
        "number": "a number",
        "string": "a text",
        "object": "a mapping such as {top_p: 0.9}",
    }
    kind = kinds[types[0]]
    empty = " or null" if "null" in types else ""
    low, high = rule.get("minimum", rule.get("exclusiveMinimum")), rule.get("maximum")
    above = "above" if "exclusiveMinimum" in rule else "from"
    if low is not None and high is not None:
        return (f"{kind} {above} {low} to {high}" if above == "from" else f"{kind} above {low}, at most {high}") + empty
    return (kind if low is None else f"{kind} {above} {low} up" if above == "from" else f"{kind} above {low}") + empty
