"""A task: one folder under tasks/ that drives prompts, schema, checks and metric."""

import json
import re
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from potstill.errors import UserError
from potstill.params import found_text, near, parse, read_text
from potstill.rows import Row, read_jsonl, squeeze

if TYPE_CHECKING:
    from jinja2 import Template

SCHEMA = Path("schemas/task.json")
NAME = r"[a-z0-9][a-z0-9_-]*"


@dataclass
class Task:
    """One task's definition (task.yaml) and the folders of its files."""

    name: str
    config: dict[str, Any]
    dir: Path
    data: Path
    models: Path
    reports: Path
    _templates: dict[str, "Template | str"] = field(default_factory=dict, repr=False)

    @cached_property
    def schema(self) -> dict[str, Any]:
        """The JSON schema of an answer, schemas/<name>.json."""
        path = Path("schemas") / f"{self.name}.json"
        try:
            return dict(json.loads(read_text(path)))
        except json.JSONDecodeError as error:
            raise UserError(f"{path}:{error.lineno}: not JSON: {error.msg}") from None

    @cached_property
    def knowledge(self) -> list[Row]:
        """The rules of data/<name>/knowledge.jsonl; none where it is empty or missing."""
        path = self.data / "knowledge.jsonl"
        return read_jsonl(path, ("label", "text")) if path.is_file() and path.stat().st_size else []

    def settled(self, params: SimpleNamespace) -> SimpleNamespace:
        """The parameters, those that are null as task.yaml has them: a value in params.yaml always wins."""
        own = {
            "expand_rows": self.config.get("expand", {}).get("rows", 0),
            "samples": self.config.get("samples", 1),
            "num_train_epochs": self.config.get("num_train_epochs", 3),
            "swift_args": self.config.get("swift_args", {}),
            "predict_max_tokens": self.config.get("predict_max_tokens", 512),
        }
        given = vars(params)
        return SimpleNamespace(**given | {name: own[name] for name in own if name in given and given[name] is None})

    def messages(self, kind: str, row: Row) -> list[dict[str, str]]:
        """The chat messages that ask for `row`: the system prompt prompts/<kind>.md (`teacher`, `student`, `rejected`)
        and the user's turn, both rendered with the row's fields and `knowledge`."""
        system = self._render(f"{self.dir}/prompts/{kind}.md", row)
        user = self._render("user", row)
        return ([{"role": "system", "content": system}] if system else []) + [{"role": "user", "content": user}]

    def inputs(self, path: str | Path, *more: str) -> list[Row]:
        """The rows of a file of inputs, each with an id, the task's input fields as non-empty texts, and the keys
        `more`. Raises UserError with file and line."""
        fields = self.config["input"]
        rows = read_jsonl(path, ("id", *fields, *more))
        for number, row in enumerate(rows, 1):
            for name in fields:
                if not isinstance(row[name], str) or not row[name].strip():
                    raise UserError(f"{path}:{number}: {name} is {row[name]!r}, expected a text that is not empty")
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
            raise UserError(f"{name}: cannot be filled in with row {row.get('id')}: {error}") from None

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
            raise UserError(f"{name}:{error.lineno}: not a Jinja2 template: {error.message}") from None


def load(name: str) -> Task:
    """The task called `name`. Raises UserError, with the tasks there are, when it has no tasks/<name>/task.yaml."""
    folder = Path("tasks") / name
    path = folder / "task.yaml"
    if not re.fullmatch(NAME, name) or not path.is_file():
        there = ", ".join(sorted(p.parent.name for p in Path("tasks").glob("*/task.yaml"))) or "none"
        raise UserError(f"params.yaml: there is no task {name!r} ({path} is missing); tasks there are: {there}")
    given = parse(read_text(path), path)
    _validate(given, path)
    config = {"user": "{{ text }}", "input": ["text"], "checks": [], **given}
    return Task(name, config, folder, Path("data") / name, Path("models") / name, Path("reports") / name)


def _validate(given: dict[str, Any], path: Path) -> None:
    """Raises UserError for what schemas/task.json has against a task.yaml, the outermost of it, with the key."""
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import relevance

    validator = Draft202012Validator(json.loads(read_text(SCHEMA)))
    error = max(validator.iter_errors(given), key=relevance, default=None)
    if error is None:
        return
    key, rule, value = error.json_path.removeprefix("$").removeprefix("."), error.schema, error.instance
    where = f"{path}: {key}: " if key else f"{path}: "
    if error.validator == "additionalProperties":
        known = rule["properties"]
        unknown = next(name for name in value if name not in known)
        raise UserError(f"{where}unknown key {unknown!r}: {near(unknown, known)}")
    if error.validator == "required":
        missing = next(name for name in error.validator_value if name not in value)
        raise UserError(f"{where}key {missing!r} is missing, expected {rule['description']}")
    raise UserError(f"{path}: {key} is {found_text(value)}, expected {rule['description']}")
