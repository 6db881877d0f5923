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
from potstill.dataset import near_duplicates
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


def grow(
    task: Task, seeds: list[Row], gold: list[Row], params: SimpleNamespace, ask: "Ask"
) -> tuple[list[Row], Row, list[Row]]:
    """The seeds and what was grown from them, each with its `family`, the report, and the inputs
    that are left out with their `reason`: those that stand there twice and, where the teacher is
    paid, those that are like an earlier one or like a gold row, since no answer to them is kept.

    `params` holds near_duplicate, expand, generate and teacher. Raises UserError when task.yaml or
    a seed does not fit.
    """
    rows, dropped = once(seeds)
    if params.expand.rows and seeds:
        from potstill.dataset.expand_rules import categories

        categories(task, seeds)  # with the lines of the file
    threshold, paid = params.near_duplicate, params.teacher.model != "scripted"
    if paid:
        rows, like = distinct(task, rows, gold, threshold)
        dropped += like
    report: Row = {"rows": len(rows), "calls": 0, "categories": {}}
    if params.expand.rows and rows:
        from potstill.dataset.growth import Growth

        growth = Growth(task, rows, gold, params, ask)
        growth.run()
        rows, report = growth.rows(), growth.report()
        if paid:
            rows, like = distinct(task, rows, gold, threshold)
            dropped += like
            report["rows"] = len(rows)
    if dropped:
        report["dropped"] = counts(dropped)
    return rows, report, dropped


def once(seeds: list[Row]) -> tuple[list[Row], list[Row]]:
    """The seeds, each its own family, and those that stand there for the second time."""
    rows: dict[str, Row] = {}
    dropped = []
    for row in seeds:
        if row["id"] in rows:
            dropped.append({**row, "reason": f"duplicate: of {row['id']}"})
        else:
            rows[row["id"]] = {**row, "family": row["id"]}
    return list(rows.values()), dropped


def distinct(
    task: Task, rows: list[Row], gold: list[Row], threshold: float
) -> tuple[list[Row], list[Row]]:
    """The rows that are like no earlier one and like no gold row, and the others, with the `reason`
    against each. It depends on the inputs alone: nobody is paid to answer what is never learnt."""
    every = [*gold, *rows]
    texts = [task.fingerprint(row) for row in every]
    places: dict[str, int] = {}  # of the first input with this text
    same = [places.setdefault(text, i) for i, text in enumerate(texts)]
    rest = [*range(len(gold)), *(i for i in places.values() if i >= len(gold))]
    families = [every[i].get("family", f"gold:{i}") for i in rest]
    near = near_duplicates.firsts([texts[i] for i in rest], families, threshold, len(gold))
    first = dict(zip(rest, near, strict=True))
    kept: list[Row] = []
    dropped: list[Row] = []
    for i, row in enumerate(rows, len(gold)):
        like, reason = same[i], "duplicate: of {id}"
        if like == i and (found := first[i]) is not None:
            like = rest[found]
            similarity = near_duplicates.jaccard(texts[i], texts[like])
            reason = f"near_duplicate: of {{id}} ({similarity:.2f})"
        if like < len(gold):
            reason = "gold: a " + reason.replace(": of", " of")
        if like == i:
            kept.append(row)
        else:
            dropped.append({**row, "reason": reason.format(id=every[like]["id"])})
    return kept, dropped


def counts(dropped: list[Row]) -> dict[str, int]:
    """How many inputs are left out for each reason, the most frequent first."""
    return dict(Counter(row["reason"].partition(":")[0] for row in dropped).most_common())


def left_out(counts: dict[str, int]) -> str:
    """What `counts` says, as words: `59 near-duplicates`; "" for none."""
    words = {"duplicate": "twice", "near_duplicate": "near-duplicates", "gold": "like a gold row"}
    return ", ".join(f"{number:,} {words[reason]}" for reason, number in counts.items())


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
