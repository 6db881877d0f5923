"""The settings of a task: one folder whose task.yaml drives prompts, schema, checks and metric."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from potstill.core import params, project
from potstill.core.errors import UserError
from potstill.core.jsonl import Row, parse_row, read_jsonl, read_lines, read_some, row_id, squeeze
from potstill.core.params import found_text, near, parse, read_text

if TYPE_CHECKING:
    from jinja2 import Template

PATH = params.TASK
SCHEMA = project.ROOT / "schemas/task.json"
ANSWER = Path("schema.json")  # the JSON schema of an answer
KNOWLEDGE = Path("prompts/knowledge.jsonl")
NAME = r"[a-z0-9][a-z0-9_-]*"
SLICE = "gold"  # of a gold row that names none
NAMED = 5  # faults that an error names; the others are counted


@dataclass
class Task:
    """The task of the working folder: its name, task.yaml with defaults, and its folders."""

    name: str
    config: dict[str, Any]
    data: Path = project.DATA
    models: Path = project.MODELS
    reports: Path = project.REPORTS
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
        return read_some(KNOWLEDGE, "label", "text")

    def messages(self, kind: str, row: Row) -> list[dict[str, str]]:
        """The chat messages that ask for `row`: the system prompt prompts/<kind>.md (`teacher`,
        `student`, `rejected`), left out when it is empty, and the user's turn, rendered with the
        row's fields and `knowledge`. Raises UserError when a template cannot be rendered."""
        system = {"role": "system", "content": self._render(f"prompts/{kind}.md", row)}
        user = {"role": "user", "content": self._render("user", row)}
        return [system, user] if system["content"] else [user]

    def seeds(self) -> list[Row]:
        """The rows of seeds.jsonl, none where it is empty or missing; each has its id, whether that
        is written there or not. Raises UserError with what is wrong in the whole file."""
        return _whole(*self.written(self.data / "seeds.jsonl"))

    def gold(self) -> list[Row]:
        """The rows of gold.jsonl likewise, each with its slice, SLICE where it names none. Raises
        UserError also where two have one input, and where headline_slice names none of theirs."""
        path = self.data / "gold.jsonl"
        return _whole(*self.written(path, "gold"))

    def written(self, path: Path, *more: str) -> tuple[list[Row], list[str]]:
        """The rows of a file of inputs that a person wrote, and everything that is wrong with it, a
        sentence each. The key `gold` among `more` says that they are test rows."""
        rows: list[Row] = []
        faults: list[str] = []
        lines: dict[str, int] = {}  # by id
        there = path.is_file() and path.stat().st_size
        for number, raw in enumerate(read_lines(path) if there else (), 1):
            where = f"{path}:{number}"
            try:
                row = parse_row(raw, where)
            except UserError as error:
                faults.append(str(error))
                continue
            found = list(_against(row, self.config["input"], more))
            if not found:
                id = row_id({name: row[name] for name in self.config["input"]})
                if row.setdefault("id", id) != id:
                    found = [
                        f"id is {row['id']}, but the id of this input is {id}: one of the two was "
                        "changed; put it right, or leave the id out"
                    ]
                elif "gold" in more and (first := lines.setdefault(id, number)) != number:
                    found = [f"its input stands in line {first} already: delete one of the two"]
                rows.append({"id": id} | row)
            faults += [f"{where}: {fault}" for fault in found]
        if "gold" not in more:
            return rows, faults
        name = self.config.get("headline_slice")
        slices = dict.fromkeys(str(row.setdefault("slice", SLICE)) for row in rows)
        if rows and not faults and name and name not in slices:
            faults.append(
                f"{PATH}: headline_slice is {name!r}, but the slices of {path} are "
                f"{', '.join(slices)}"
            )
        return rows, faults

    def inputs(self, path: str | Path, *more: str, empty: bool = False) -> list[Row]:
        """The rows of a file of inputs that a stage made, each with an id, the task's input fields
        and the keys `more`. Raises UserError, with file and line, when an input field is no text or
        empty, and when the file has no row, unless it may be `empty`."""
        fields = self.config["input"]
        rows = (read_some if empty else _read)(path, "id", *fields, *more)
        for number, row in enumerate(rows, 1):
            for name in fields:
                if not isinstance(row[name], str) or not row[name].strip():
                    found = f"{name} is {row[name]!r}"
                    raise UserError(f"{path}:{number}: {found}, expected a text that is not empty")
        return rows

    def fingerprint(self, row: Row) -> str:
        """The row's input without white space: equal for two rows that ask for the same."""
        return "\x1f".join(squeeze(row[name]) for name in self.config["input"])

    def _render(self, name: str, row: Row) -> str:
        from jinja2 import TemplateError

        try:
            if name not in self._templates:
                self._templates[name] = self._template(name)
            template = self._templates[name]
            return template if isinstance(template, str) else template.render(row)
        except TemplateError as error:
            row_id = row.get("id")
            raise UserError(f"{name}: cannot be filled in with row {row_id}: {error}") from None

    def _template(self, name: str) -> "Template | str":
        """The template, or its text where that is the same for every row: to render it for each
        would take most of the time of a resumed run."""
        from jinja2 import Environment, StrictUndefined, TemplateSyntaxError
        from jinja2.meta import find_undeclared_variables

        source = self.config["user"] if name == "user" else read_text(Path(name)).strip()
        environment = Environment(undefined=StrictUndefined, autoescape=False)
        try:
            names = find_undeclared_variables(environment.parse(source))
            if "knowledge" in names:
                environment.globals["knowledge"] = self.knowledge
            template = environment.from_string(source)
        except TemplateSyntaxError as error:
            where, why = f"{name}:{error.lineno}", error.message
            raise UserError(f"{where}: not a Jinja2 template: {why}") from None
        template.globals = dict(template.globals)  # each rendering copies it: slow for a ChainMap
        return template if names - {"knowledge"} else template.render()


def _read(path: str | Path, *required: str) -> list[Row]:
    return read_jsonl(path, required)


def _against(row: Row, fields: list[str], more: tuple[str, ...]) -> Iterator[str]:
    """What is wrong with one row that a person wrote."""
    for name in fields:
        if name not in row:
            keys = ", ".join([*fields, *more])
            yield f"key {name!r} is missing, expected the keys {keys}"
        elif not isinstance(row[name], str) or not row[name].strip():
            yield f"{name} is {found_text(row[name])}, expected a text that is not empty"
    for name in more:
        if name not in row:
            yield f"key {name!r} is missing, expected the right answer, or null where checks judge"
    for name in ("id", *(["slice"] if more else ["family"])):
        if name in row and (not isinstance(row[name], str) or not row[name].strip()):
            yield f"{name} is {found_text(row[name])}, expected a text: or leave it out"


def _whole(rows: list[Row], faults: list[str]) -> list[Row]:
    """The rows. Raises UserError where there are faults: the first, and how many there are."""
    if faults:
        more = len(faults) - NAMED
        rest = f"; and {more:,} more: `make doctor` lists them" if more > 0 else ""
        raise UserError("; ".join(faults[:NAMED]) + rest)
    return rows


def load() -> Task:
    """The task of the working folder. Raises UserError when it has no task.yaml, or one that
    does not fit schemas/task.json."""
    if not PATH.is_file():
        listed = ", ".join(tasks()) or "none"
        raise UserError(f"{PATH} is missing here, expected a task's folder; tasks are: {listed}")
    given = parse(read_text(PATH), PATH)
    _validate(given)
    config = {"user": "{{ text }}", "input": ["text"], "checks": [], **given}
    return Task(params.task_name(), config)


def tasks() -> dict[str, Path]:
    """The tasks of the repository, the root's first, each name with its absolute folder."""
    files = [project.ROOT / PATH, *sorted(project.ROOT.glob("tasks/[!_]*/task.yaml"))]
    return {params.task_name(file.parent): file.parent for file in files if file.is_file()}


def _validate(given: dict[str, Any]) -> None:
    """Raises UserError, with the key, for the outermost mistake that schemas/task.json finds."""
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import relevance

    validator = Draft202012Validator(json.loads(read_text(SCHEMA)))
    error = max(validator.iter_errors(given), key=relevance, default=None)
    if error is None:
        return
    key, rule, value = error.json_path.removeprefix("$").lstrip("."), error.schema, error.instance
    where = f"{PATH}: {key}: " if key else f"{PATH}: "
    if error.validator == "additionalProperties":
        known = rule["properties"]
        unknown = next(name for name in value if name not in known)
        raise UserError(f"{where}unknown key {unknown!r}: {near(unknown, known)}")
    if error.validator == "required":
        missing = next(name for name in error.validator_value if name not in value)
        raise UserError(f"{where}key {missing!r} is missing, expected {rule['description']}")
    raise UserError(f"{PATH}: {key} is {found_text(value)}, expected {rule['description']}")
