"""params.yaml of a task, checked whole before anything runs."""

import difflib
import json
import math
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from potstill.core import lockfile
from potstill.core.errors import UserError
from potstill.core.project import ROOT

PATH, TASK = Path("params.yaml"), Path("task.yaml")
SCHEMA = ROOT / "schemas/params.json"
# The parameters of which null means what task.yaml says: its key there, and the default
OF_TASK = {
    "expand.rows": ("expand.rows", 0),
    "generate.samples": ("samples", 1),
    "num_train_epochs": ("num_train_epochs", 3),
    "swift_args": ("swift_args", {}),
    "predict.max_tokens": ("predict_max_tokens", 512),
}
HUB = re.compile(r"(?!models/|[./~])[^/]+/[^/]+")  # a model's name there


def load(*names: str) -> SimpleNamespace:
    """The named parameters; a section (`teacher`) is a namespace, `predict.dtype` is one of its
    values. One of OF_TASK that is null has the value of task.yaml. Raises UserError when any
    parameter of params.yaml does not fit schemas/params.json."""
    params, rules = parse(read_text(PATH), PATH), schema()
    validate(params)
    of_task = lockfile.read_yaml(TASK) or {}
    for name, (key, default) in OF_TASK.items():
        values, given = _holder(params, name), _holder(of_task, key)
        if values[last := name.rpartition(".")[2]] is None:
            values[last] = given.get(key.rpartition(".")[2], default)
    chosen: dict[str, Any] = {}
    for name in names:
        section, _, key = name.partition(".")
        if key:
            chosen.setdefault(section, SimpleNamespace())
            setattr(chosen[section], key, params[section][key])
        else:
            value, is_section = params[name], "properties" in rules[name]
            chosen[name] = SimpleNamespace(**value) if is_section else value
    return SimpleNamespace(**chosen)


def _holder(given: dict[str, Any], name: str) -> dict[str, Any]:
    """The mapping that holds a value: of `predict.dtype` the section predict, {} without one."""
    section = name.rpartition(".")[0]
    return given.get(section, {}) if section else given


def declared(stage: str) -> list[str]:
    """The parameters that dvc.yaml names for a stage: those of a training go to ms-swift, whose
    names they have, so that a new one need not be named a third time."""
    names = lockfile.read_yaml(lockfile.PIPELINE)["stages"][stage]["params"]
    return [name for name in names if isinstance(name, str)]


def schema() -> dict[str, Any]:
    """The rules of schemas/params.json by parameter or section."""
    return dict(json.loads(read_text(SCHEMA))["properties"])


def task_name(folder: Path = Path()) -> str:
    """The name of the task in a folder: what its task.yaml says, else the folder's own."""
    config = lockfile.read_yaml(folder / TASK)
    return str((config if isinstance(config, dict) else {}).get("name") or folder.resolve().name)


def read_text(path: Path) -> str:
    """The text of a file. Raises UserError when it is missing or not UTF-8."""
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"{path} is missing: `git checkout {path}` brings it back") from None
    except UnicodeDecodeError as error:
        where = f"{path}: byte {error.start + 1}"
        raise UserError(f"{where} is not UTF-8: save the file as UTF-8") from None


def parse(text: str, path: Path) -> dict[str, Any]:
    """A YAML 1.2 mapping: PyYAML (1.1) reads `1e-05` as a text and `no` as false, DVC does not.
    Raises UserError for anything else."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        loaded = YAML(typ="safe", pure=True).load(text)  # the C loader knows YAML 1.1 only
    except YAMLError as error:
        mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", error)
        where = f"{path}:{mark.line + 1}" if mark else path
        raise UserError(f"{where}: not YAML: {problem}") from None
    if not isinstance(loaded, dict):
        raise UserError(f"{path}: found {type(loaded).__name__}, expected `name: value` lines")
    return loaded


def validate(params: dict[str, Any], path: Path = PATH) -> None:
    """Raises UserError for the first unknown, missing, mistyped or out-of-range parameter."""
    for name, value, rule in _walk(params, schema(), path):
        if not _fits(value, rule):
            found, expected = found_text(value), _expected(rule)
            raise UserError(f"{_line(path, name)}: {name} is {found}, expected {expected}")
    model, revision = params["model"], params["model_revision"]
    local = not HUB.fullmatch(model) or (ROOT / model).exists()
    if not local and not re.fullmatch("[0-9a-f]{40}", revision):
        wrong = f"{_line(path, 'model_revision')}: model_revision is {revision}"
        right = f"the commit of {model} on the hub, 40 hex digits"
        raise UserError(f"{wrong}, expected {right}: what a branch or tag stands for may change")


def _walk(
    params: dict[str, Any], known: dict[str, Any], path: Path, section: str = ""
) -> Iterator[tuple[str, Any, dict[str, Any]]]:
    """Each parameter with its full name, value and rule. Raises UserError when one is unknown or
    missing."""
    for name in params:
        if name not in known:
            full, hint = section + str(name), near(name, known, section)
            raise UserError(f"{_line(path, full)}: unknown parameter {full!r}: {hint}")
    for name, rule in known.items():
        full = section + name
        if "properties" in rule:
            inner = params.get(name, {})
            if not isinstance(inner, dict):
                wrong = f"{_line(path, full)}: {full} is {found_text(inner)}"
                keys = ", ".join(rule["properties"])
                raise UserError(f"{wrong}, expected a section: indented lines {keys}")
            yield from _walk(inner, rule["properties"], path, f"{full}.")
        elif name not in params:
            raise UserError(f"{path}: parameter {full} is missing, expected {_expected(rule)}")
        else:
            yield full, params[name], rule


def _fits(value: object, rule: dict[str, Any]) -> bool:
    if isinstance(value, float) and not math.isfinite(value):
        return False
    from jsonschema import Draft202012Validator

    return bool(Draft202012Validator(rule).is_valid(value))


def near(name: object, known: Iterable[str], prefix: str = "") -> str:
    """What to say of an unknown name: the known one that it is close to, or all of them."""
    close = difflib.get_close_matches(str(name), known := list(known), 1)
    listed = ", ".join(prefix + other for other in known)
    return f"did you mean {prefix}{close[0]}?" if close else f"known are {listed}"


def found_text(value: object) -> str:
    """A value from a YAML file as an error shows it, in one line."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else text[:57] + "..."


def _line(path: Path, name: str) -> str:
    """file:line of a parameter; the file alone where it does not stand there."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    section, _, key = name.partition(".")
    inside = False
    for number, line in enumerate(lines, 1):
        if line[:1] not in ("", " ", "#"):
            inside = line.startswith(f"{section}:")
            if inside and (not key or re.search(rf"[{{,]\s*{re.escape(key)}:", line)):
                return f"{path}:{number}"
        elif inside and key and line.lstrip().startswith(f"{key}:"):
            return f"{path}:{number}"
    return str(path)


def _expected(rule: dict[str, Any]) -> str:
    """What a rule allows, in words."""
    if "enum" in rule:
        texts = (value if isinstance(value, str) else found_text(value) for value in rule["enum"])
        return "one of " + ", ".join(texts)
    if "pattern" in rule:
        return str(rule["description"])
    types = rule["type"] if isinstance(rule["type"], list) else [rule["type"]]
    kinds = {"integer": "a whole number", "number": "a number", "string": "a text"}
    kinds["object"] = "a mapping such as {top_p: 0.9}"
    kind, empty = kinds[types[0]], " or null" if "null" in types else ""
    low, high = rule.get("minimum", rule.get("exclusiveMinimum")), rule.get("maximum")
    above = "exclusiveMinimum" in rule
    if low is None:
        return kind + empty
    if high is None:
        return f"{kind} above {low}{empty}" if above else f"{kind} from {low} up{empty}"
    return f"{kind} {f'above {low}, at most' if above else f'from {low} to'} {high}{empty}"
