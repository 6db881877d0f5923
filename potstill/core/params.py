"""params.yaml of a task, checked whole before anything runs."""

import difflib
import json
import math
import re
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import yaml

from potstill.core import lockfile, weights
from potstill.core.errors import UserError
from potstill.core.project import ROOT

PATH, TASK = Path("params.yaml"), Path("task.yaml")
SCHEMA = ROOT / "schemas/params.json"
SWIFT = ROOT / "schemas/swift_args.json"  # the arguments of `swift sft`
# The parameters of which null means what task.yaml says: its key there, and the default
OF_TASK = {
    "expand.rows": ("expand.rows", 0),
    "generate.samples": ("samples", 1),
    "num_train_epochs": ("num_train_epochs", 3),
    "swift_args": ("swift_args", {}),
    "predict.max_tokens": ("predict_max_tokens", 512),
}
read_text = lockfile.read_text
HUB = re.compile(r"(?!models/|[./~])[^/]+/[^/]+")  # a model's name there


def load(*names: str) -> SimpleNamespace:
    """The named parameters; a section (`teacher`) is a namespace, `predict.dtype` is one of its
    values. One of OF_TASK that is null has the value of task.yaml; a `model` or `gkd.teacher` that
    has to be converted is the folder that weights.prepare makes. Raises UserError when any
    parameter of params.yaml does not fit schemas/params.json."""
    params, rules = parse(read_text(PATH), PATH), schema()
    validate(params)
    params["model"] = weights.folder(params["model"], params["model_revision"])
    if (gkd := params["gkd"])["teacher"]:
        gkd["teacher"] = weights.folder(gkd["teacher"], gkd["teacher_revision"])
    of_task = lockfile.read_yaml(TASK) or {}
    for name, (key, default) in OF_TASK.items():
        section, _, last = name.rpartition(".")
        values = params[section] if section else params
        if values[last] is None:
            own = flat(of_task).get(key)
            values[last] = default if own is None else own
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


def student() -> tuple[str, str]:
    """`model` and `model_revision` as params.yaml has them. Raises UserError as `load` does."""
    params = parse(read_text(PATH), PATH)
    validate(params)
    return params["model"], params["model_revision"]


def open_teacher() -> tuple[str, str] | None:
    """`gkd.teacher` and its revision as params.yaml has them; None where no student learns from
    such a model. Raises UserError as `load` does."""
    params = parse(read_text(PATH), PATH)
    validate(params)
    teacher = params["gkd"]["teacher"] if "gkd" in params["models"] else None
    return (teacher, params["gkd"]["teacher_revision"]) if teacher else None


def check() -> None:
    """Looks at what stages would find late. Raises UserError as `load` does, for a key of task.yaml
    that dvc.yaml reads and that is missing, and for an argument that ms-swift would refuse."""
    from jsonschema import Draft202012Validator

    given = load("swift_args").swift_args
    task = lockfile.read_yaml(TASK) or {}
    for stage, entry in (lockfile.read_yaml(lockfile.PIPELINE) or {"stages": {}})["stages"].items():
        listed = entry.get("do", entry).get("params") or []
        read = [
            name for one in listed if isinstance(one, dict) for name in one.get(str(TASK)) or []
        ]
        if missing := [name for name in read if name not in task]:
            name = missing[0]
            default = json.dumps(next((value for key, value in OF_TASK.values() if key == name), 0))
            raise UserError(
                f"{TASK}: key {name!r} is missing, which stage {stage} of {lockfile.PIPELINE} "
                f"reads: add the line `{name}: {default}`"
            )
    of_task = lockfile.read_yaml(PATH)["swift_args"] is None
    where, rules = _line(TASK if of_task else PATH, "swift_args"), json.loads(read_text(SWIFT))
    for name, value in given.items():
        if name not in rules:
            raise UserError(
                f"{where}: swift_args has {name!r}, which ms-swift does not know: "
                f"{near(name, rules, many='`swift sft --help` lists what it knows')}"
            )
        if not Draft202012Validator(rules[name]).is_valid(value):
            kinds = rules[name].get("type") or rules[name]["enum"]
            expected = ", ".join(map(str, kinds)) if isinstance(kinds, list) else kinds
            raise UserError(
                f"{where}: {name} of swift_args is {found_text(value)}, expected {expected}"
            )


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


def flat(params: dict[Any, Any]) -> dict[str, Any]:
    """Values by the parameters' full names, such as predict.dtype for one of a section."""
    known, found = schema(), dict[str, Any]()
    for name, value in params.items():
        if "properties" in known.get(name, {}) and isinstance(value, dict):
            found |= {f"{name}.{key}": inner for key, inner in value.items()}
        else:
            found[str(name)] = value
    return found


def validate(params: dict[str, Any], path: Path = PATH) -> None:
    """Raises UserError for the first unknown, missing, mistyped or out-of-range parameter."""
    from jsonschema import Draft202012Validator

    known, values = schema(), flat(params)
    rules = flat({name: rule.get("properties", rule) for name, rule in known.items()})
    for name in (name for name in values if name not in rules):
        section, _, key = name.partition(".")
        keys = known.get(section, {}).get("properties", {})
        if keys and not key:
            wrong = f"{name} is {found_text(values[name])}, expected a section"
            raise UserError(f"{_line(path, name)}: {wrong}: indented lines {', '.join(keys)}")
        hint = near(key, keys, f"{section}.") if keys else near(name, known)
        raise UserError(f"{_line(path, name)}: unknown parameter {name!r}: {hint}")
    for name, rule in rules.items():
        if name not in values:
            raise UserError(f"{path}: parameter {name} is missing, expected {_expected(rule)}")
        value = values[name]
        endless = isinstance(value, float) and not math.isfinite(value)
        if endless or not Draft202012Validator(rule).is_valid(value):
            wrong = f"{name} is {found_text(value)}, expected {_expected(rule)}"
            raise UserError(f"{_line(path, name)}: {wrong}")
    if params["seeds"][:1] not in ([], [params["seed"]]):
        wrong = f"{_line(path, 'seeds')}: seeds begins with {params['seeds'][0]}"
        raise UserError(f"{wrong}, expected {params['seed']}, the value of seed: put it first")
    for name in ("model", "gkd.teacher"):
        model, revision = values[name], values[f"{name}_revision"]
        if model is None:
            continue
        if not_right := weights.wrong(model, revision, name):
            raise UserError(f"{_line(path, not_right.split()[0])}: {not_right}")
        local = not HUB.fullmatch(model) or (ROOT / model).exists() or weights.is_gguf(model)
        if not local and not re.fullmatch("[0-9a-f]{40}", revision):
            wrong = f"{_line(path, f'{name}_revision')}: {name}_revision is {revision}"
            right = f"the commit of {model} on the hub, 40 hex digits"
            branch = "what a branch or tag stands for may change"
            raise UserError(f"{wrong}, expected {right}: {branch}")


def near(name: object, known: Iterable[str], prefix: str = "", many: str = "") -> str:
    """What to say of an unknown name: the known one that it is close to, or all of them, or `many`
    in their place."""
    close = difflib.get_close_matches(str(name), known := list(known), 1)
    if many and not close:
        return many
    listed = ", ".join(prefix + other for other in known)
    return f"did you mean {prefix}{close[0]}?" if close else f"known are {listed}"


def found_text(value: object) -> str:
    """A value from a YAML file as an error shows it, in one line."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else text[:57] + "..."


def _line(path: Path, name: str) -> str:
    """file:line of a parameter; the file alone where it does not stand there."""
    node: Any = yaml.compose(path.read_text(encoding="utf-8"), lockfile.Loader)
    line = 0
    for part in name.split("."):
        pairs = node.value if isinstance(node, yaml.MappingNode) else []
        line, node = next(
            ((key.start_mark.line + 1, value) for key, value in pairs if key.value == part),
            (0, None),
        )
    return f"{path}:{line}" if line else str(path)


def _expected(rule: dict[str, Any]) -> str:
    """What a rule allows, in words."""
    if "enum" in rule:
        texts = (value if isinstance(value, str) else found_text(value) for value in rule["enum"])
        return "one of " + ", ".join(texts)
    if "description" in rule:
        return str(rule["description"])
    types = rule["type"] if isinstance(rule["type"], list) else [rule["type"]]
    kinds = {"integer": "a whole number", "number": "a number", "boolean": "true or false"}
    text = kinds[types[0]]
    high = rule.get("maximum")
    if "exclusiveMinimum" in rule:
        text += f" above {rule['exclusiveMinimum']}" + (f", at most {high}" if high else "")
    elif "minimum" in rule:
        text += f" from {rule['minimum']} " + (f"to {high}" if high else "up")
    return text + (" or null" if "null" in types else "")
