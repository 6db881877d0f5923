"""The settings of a task: one folder whose task.yaml drives prompts, schema, checks and metric."""

import json
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from potstill.core import params
from potstill.core.errors import UserError
from potstill.core.jsonl import Row, read_jsonl, squeeze
from potstill.core.params import found_text, near, parse, read_text
from potstill.core.project import ROOT

if TYPE_CHECKING:
    from jinja2 import Template

PATH = Path("task.yaml")
SCHEMA = ROOT / "schemas/task.json"
ANSWER = Path("schema.json")  # the JSON schema of an answer
KNOWLEDGE = Path("prompts/knowledge.jsonl")
NAME = r"[a-z0-9][a-z0-9_-]*"


@dataclass
class Task:
    """The task of the working folder: its name, task.yaml with defaults, and where its files are."""

    name: str
    config: dict[str, Any]
    data: Path = Path("data")
    models: Path = Path("models")
    reports: Path = Path("reports")
    _templates: dict[str, "Template | str"] = field(default_factory=dict, repr=False)

    @cached_property
    def schema(self) -> dict[str, Any]:
        """The JSON schema of an answer. Raises UserError when schema.json is missing or no JSON."""
        try:
            return dict(json.loads(read_text(ANSWER)))
        except json.JSONDecodeError as error:
            raise UserError(f"{ANSWER}:{error.lineno}: not JSON: {error.msg}") from None

    @cached_property
    def knowledge(self) -> list[Row]:
        """The rules of prompts/knowledge.jsonl; none where it is missing."""
        there = KNOWLEDGE.is_file() and KNOWLEDGE.stat().st_size
        return read_jsonl(KNOWLEDGE, ("label", "text")) if there else []

    def settled(self, given: SimpleNamespace) -> SimpleNamespace:
        """The parameters, with task.yaml's value where one is null: params.yaml always wins."""
        own = {
            "expand.rows": self.config.get("expand", {}).get("rows", 0),
            "generate.samples": self.config.get("samples", 1),
            "num_train_epochs": self.config.get("num_train_epochs", 3),
            "swift_args": self.config.get("swift_args", {}),
            "predict.max_tokens": self.config.get("predict_max_tokens", 512),
        }
        found = SimpleNamespace(**vars(given))
        for name, value in own.items():
            section, _, key = name.rpartition(".")
            place = getattr(found, section, None) if section else found
            if place is not None and getattr(place, key, value) is None:
                if section:
                    place = SimpleNamespace(**vars(place))
                    setattr(found, section, place)
                setattr(place, key, value)
        return found

    def messages(self, kind: str, row: Row) -> list[dict[str, str]]:
        """The chat messages that ask for `row`: the system prompt prompts/<kind>.md (`teacher`,
        `student`, `rejected`) and the user's turn, both rendered with the row's fields and
        `knowledge`. Raises UserError when a template cannot be rendered."""
        system = self._render(f"prompts/{kind}.md", row)
        user = self._render("user", row)
        return ([{"role": "system", "content": system}] if system else []) + [
            {"role": "user", "content": user}
        ]

    def inputs(self, path: str | Path, *more: str) -> list[Row]:
        """The rows of a file of inputs, each with an id, the task's input fields as non-empty texts, and the keys
        `more`. Raises UserError with file and line."""
        fields = self.config["input"]
        rows = read_jsonl(path, ("id", *fields, *more))
        for number, row in enumerate(rows, 1):
            for name in fields:
                if not isinstance(row[name], str) or not row[name].strip():
                    raise UserError(
                        f"{path}:{number}: {name} is {row[name]!r}, expected a text that is not empty"
                    )
        return rows

    def fingerprint(self, row: Row) -> str:
        """The row's input with all white space removed: equal for two rows that ask for the same."""
        return "\x1f".join(squeeze(row[name]) for name in self.config["input"])

    def _render(self, name: str, row: Row) -> str:
        from jinja2 import TemplateError

        try:
            if name not in self._templates:
                self._templates[name] = self._template(name)
            template = self._templates[name]
            return template if isinstance(template, str) else template.render(row)
        except TemplateError as error:
            raise UserError(
                f"{name}: cannot be filled in with row {row.get('id')}: {error}"
            ) from None

    def _template(self, name: str) -> "Template | str":
        """The template, or its text where that is the same for every row: rendering it for each would take the most of a
        resumed run's time."""
        from jinja2 import Environment, StrictUndefined, TemplateSyntaxError
        from jinja2.meta import find_undeclared_variables

        source = self.config["user"] if name == "user" else read_text(Path(name)).strip()
        environment = Environment(undefined=StrictUndefined, autoescape=False)
        try:
            names = find_undeclared_variables(environment.parse(source))
            if "knowledge" in names:
                environment.globals["knowledge"] = self.knowledge
            template = environment.from_string(source)
            template.globals = dict(
                template.globals
            )  # a ChainMap, which is what it was, is copied slowly at each rendering
            return template if names - {"knowledge"} else template.render()
        except TemplateSyntaxError as error:
            raise UserError(
                f"{name}:{error.lineno}: not a Jinja2 template: {error.message}"
            ) from None


def load() -> Task:
    """The task of the working folder. Raises UserError when it has no task.yaml, or one that
    schemas/task.json has something against."""
    if not PATH.is_file():
        listed = ", ".join(tasks()) or "none"
        raise UserError(f"{PATH} is missing here, expected a task's folder; tasks are: {listed}")
    given = parse(read_text(PATH), PATH)
    _validate(given, PATH)
    config = {"user": "{{ text }}", "input": ["text"], "checks": [], **given}
    return Task(params.task_name(), config)


def tasks() -> dict[str, Path]:
    """The tasks of the repository, the root's first, each name with its folder."""
    files = sorted(ROOT.glob("tasks/*/task.yaml"))
    folders = [ROOT, *(file.parent for file in files if not file.parent.name.startswith("_"))]
    there = (folder for folder in folders if (folder / PATH).is_file())
    return {params.task_name(folder): folder for folder in there}


def _validate(given: dict[str, Any], path: Path) -> None:
    """Raises UserError for what schemas/task.json has against a task.yaml, the outermost of it, with the key."""
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import relevance

    validator = Draft202012Validator(json.loads(read_text(SCHEMA)))
    error = max(validator.iter_errors(given), key=relevance, default=None)
    if error is None:
        return
    key, rule, value = (
        error.json_path.removeprefix("$").removeprefix("."),
        error.schema,
        error.instance,
    )
    where = f"{path}: {key}: " if key else f"{path}: "
    if error.validator == "additionalProperties":
        known = rule["properties"]
        unknown = next(name for name in value if name not in known)
        raise UserError(f"{where}unknown key {unknown!r}: {near(unknown, known)}")
    if error.validator == "required":
        missing = next(name for name in error.validator_value if name not in value)
        raise UserError(f"{where}key {missing!r} is missing, expected {rule['description']}")
    raise UserError(f"{path}: {key} is {found_text(value)}, expected {rule['description']}")
