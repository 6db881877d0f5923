"""Few seeds → many inputs, after Self-Instruct (Wang et al. 2023, arXiv:2212.10560): the teacher
writes more like them, numbers are varied, near-duplicates are refused, to a quota. Where nothing
is to be added (expand.rows is 0), growth.py is not even imported.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING

from potstill.core.jsonl import Row
from potstill.task.settings import Task

if TYPE_CHECKING:
    from potstill.dataset.growth import Ask


def asking(
    task: Task, params: SimpleNamespace, kind: str
) -> tuple[Task, SimpleNamespace, Row | None]:
    """The task, the teacher's parameters and the schema that a call of this stage is asked with:
    the system prompt is prompts/<kind>.md, the user's turn the examples as JSON."""
    from potstill.dataset.expand_rules import schema

    own = {"temperature": params.expand.temperature, "max_tokens": params.expand.max_tokens}
    asker = replace(task, config=task.config | {"user": "{{ turn }}"}, _templates={})
    teacher = SimpleNamespace(**vars(params.teacher) | own)
    return asker, teacher, schema(task) if kind == "expand" else None


def read(task: Task, params: SimpleNamespace) -> tuple[list[Row], list[Row]]:
    """The seeds, and the gold rows that no new input may resemble (none where nothing is to be
    new). Raises UserError for a row that is no input of the task."""
    gold = task.data / "gold.jsonl"
    needed = params.expand.rows and gold.is_file() and gold.stat().st_size
    return task.inputs(task.data / "seeds.jsonl"), task.inputs(gold) if needed else []


def grow(
    task: Task, seeds: list[Row], gold: list[Row], params: SimpleNamespace, ask: "Ask"
) -> tuple[list[Row], Row]:
    """The seeds and what was grown from them, each with its `family`, and the report.

    `params` holds near_duplicate, expand and generate. Raises UserError when task.yaml or a seed
    does not fit.
    """
    if not params.expand.rows:
        rows = [{**row, "family": row["id"]} for row in seeds]
        return rows, {"rows": len(rows), "calls": 0, "categories": {}}
    from potstill.dataset.growth import Growth

    growth = Growth(task, seeds, gold, params, ask)
    growth.run()
    return growth.rows(), growth.report()


def table(report: Row) -> Iterator[str]:
    """The report as lines: a row a category, then the reasons."""
    columns = "seeds quota calls asked varied new refused rewritten total".split()
    yield f"{'category':16}" + "".join(f"{name:>10}" for name in columns) + "  stopped by"
    refused: Counter[str] = Counter()
    for name, category in report["categories"].items():
        refused.update(category["refused"])
        values = {**category, "refused": sum(category["refused"].values())}
        cells = "".join(f"{values[column]:10,}" for column in columns)
        yield f"{name:16}{cells}  {category['stopped']}"
    short = [name for name, one in report["categories"].items() if one["stopped"] != "quota"]
    if short:
        yield (
            f"{report['rows']:,} rows, not all that were wanted: {', '.join(short)} stopped by the "
            f"ceiling expand.calls (calls), or after a run of calls with nothing new (dry)"
        )
    if refused:
        reasons = (f"{count:,} {reason}" for reason, count in refused.most_common())
        yield "refused: " + ", ".join(reasons)
