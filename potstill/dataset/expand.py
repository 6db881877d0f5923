"""Few seeds → many inputs: the teacher writes more like them, numbers are varied, near-duplicates are refused, to a quota.

After Self-Instruct (Wang et al. 2023, arXiv:2212.10560). Each call has a random generator of its own, so what is asked depends
on the seeds and on earlier answers alone: a run that was killed, or one with a larger quota, asks what is new.
"""

import json
import math
import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from types import SimpleNamespace

from potstill.checks import registry
from potstill.core.jsonl import Row, row_id, squeeze
from potstill.dataset.expand_rules import (
    Category,
    categories,
    reply_items,
    schema,
    unusable,
    writable,
)
from potstill.dataset.near_duplicates import Seen
from potstill.task.settings import Task

DRY = 8  # calls of a category with no new input after which no more are made
GOLD = "gold:"  # what keys and families of gold rows begin with; no seed's family does
# (kind, rows) → the teacher's answers: kind `teacher` is the task's own question, any other one a prompt of that name
Ask = Callable[[str, list[Row]], Iterable[Row]]


@dataclass
class Grown:
    """One category as it grows. asked + varied = new + refused, always."""

    category: Category
    quota: int
    seeds: list[Row]
    rows: list[Row] = field(default_factory=list)
    draws: int = 0
    calls: int = 0
    asked: int = 0
    varied: int = 0
    rewritten: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    numbers: Counter[int | None] = field(
        default_factory=Counter
    )  # that `vary` found or put, so that it spreads its values evenly
    dry: int = 0  # draws since the last that brought something
    weights: dict[str, float] = field(
        default_factory=dict
    )  # of the rows that proved hard, as leads; a seed's is 1

    @property
    def total(self) -> int:
        return len(self.seeds) + len(self.rows)

    @property
    def missing(self) -> int:
        return max(0, self.quota - self.total)


def asking(
    task: Task, params: SimpleNamespace, kind: str
) -> tuple[Task, SimpleNamespace, Row | None]:
    """The task, the teacher's parameters and the schema that a call of this stage is asked with: the system prompt is
    prompts/<kind>.md, the user's turn the examples as JSON."""
    own = {"temperature": params.expand.temperature, "max_tokens": params.expand.max_tokens}
    asker = replace(task, config=task.config | {"user": "{{ turn }}"}, _templates={})
    return (
        asker,
        SimpleNamespace(**vars(params.teacher) | own),
        schema(task) if kind == "expand" else None,
    )


def read(task: Task, params: SimpleNamespace) -> tuple[list[Row], list[Row]]:
    """The seeds, and the gold rows that nothing new may resemble, where anything is to be new. Raises UserError."""
    gold = task.data / "gold.jsonl"
    there = params.expand.rows and gold.is_file() and gold.stat().st_size
    return task.inputs(task.data / "seeds.jsonl"), task.inputs(gold) if there else []


def grow(
    task: Task, seeds: list[Row], gold: list[Row], params: SimpleNamespace, ask: Ask
) -> tuple[list[Row], Row]:
    """The seeds and what was grown from them, each with its `family`, and the report of data/<task>/1-expand.json.

    `params` holds near_duplicate, expand, teacher and generate. Raises UserError when task.yaml or a seed does not fit.
    """
    if not params.expand.rows:
        return [{**row, "family": row["id"]} for row in seeds], {
            "rows": len(seeds),
            "calls": 0,
            "categories": {},
        }
    growth = Growth(task, seeds, gold, params)
    growth.vary_seeds()
    growth.learn(ask)
    while calls := growth.draw():
        two_step = [call for call in calls if call["material_kind"]]
        for kind in dict.fromkeys(call["material_kind"] for call in two_step):
            growth.add_material(
                [call for call in two_step if call["material_kind"] == kind], kind, ask
            )
        calls = [call for call in calls if call["material"] or not call["material_kind"]]
        answers = {row["id"]: row for row in (ask("expand", calls) if calls else ())}
        for call in calls:
            growth.take(call, answers[call["id"]])
        growth.learn(ask)
    return growth.rows(), growth.report()


class Growth:
    """All categories, and what was seen in any of them."""

    def __init__(
        self, task: Task, seeds: list[Row], gold: list[Row], params: SimpleNamespace
    ) -> None:
        self.task, self.params = task, params
        self.rules, self.max_chars = categories(task, seeds)
        self.seeds = [{**row, "family": row["id"]} for row in seeds]
        shares = _quotas(params.expand.rows, [category.share for category in self.rules])
        self.grown = {
            category.name: Grown(
                category, quota, [row for row in self.seeds if _category(row) == category.name]
            )
            for category, quota in zip(self.rules, shares, strict=True)
        }
        self.seen = Seen(params.near_duplicate)
        self._judged: set[str] = set()
        for row in gold:
            self.seen.add(GOLD + row["id"], self._text(row), GOLD + row["id"])
        for row in self.seeds:
            self.seen.add(row["id"], self._text(row), row["family"])

    def rows(self) -> list[Row]:
        """The seeds in their own order, then what is new."""
        return self.seeds + [row for one in self.grown.values() for row in one.rows]

    def vary_seeds(self) -> None:
        for one in self.grown.values():
            for row in one.seeds:
                self._vary(one, row)

    def draw(self) -> list[Row]:
        """The next round's calls, in turn over the categories; none when each has its quota or is dry, or the ceiling of calls is
        reached. A round asks for what is missing by the yield so far, and at most for twice the draws so far and two, so
        that little is asked of a prompt that does not work."""
        left = self.params.expand.calls - sum(one.calls for one in self.grown.values())
        wanted = {name: self._wanted(one) for name, one in self.grown.items()}
        calls = []
        for turn in range(max(wanted.values())):
            for name, count in wanted.items():
                cost = 2 if self.grown[name].category.material else 1
                if turn < count and cost <= left:
                    left -= cost
                    calls.append(self._call(self.grown[name], cost))
        return calls

    def _wanted(self, one: Grown) -> int:
        if not one.missing or one.dry >= DRY:
            return 0
        vary = one.category.vary
        per_draw = self._new(one) * (1 + (vary.times if vary else 0))
        if one.draws and one.rows:
            per_draw = min(per_draw, max(1, len(one.rows) // one.draws))
        return min(math.ceil(one.missing / per_draw), 2 + 2 * one.draws)

    def _new(self, one: Grown) -> int:
        """The inputs asked for in a call; with a material of their own, inputs come one by one."""
        return 1 if one.category.material else int(self.params.expand.new)

    def _call(self, one: Grown, cost: int) -> Row:
        """One call: a lead, seeds or inputs that proved hard, and further examples of its category, seeds first."""
        name, number = one.category.name, one.draws
        chance = random.Random(f"{name}:{number}")
        leads = one.seeds + [row for row in one.rows if row["id"] in one.weights]
        lead = chance.choices(leads, [one.weights.get(row["id"], 1.0) for row in leads])[0]
        examples = [lead]
        for pool in (one.seeds, one.rows):
            others = [row for row in pool if row is not lead]
            examples += chance.sample(
                others, min(self.params.expand.examples - len(examples), len(others))
            )
        shown = [self._item(row) for row in examples]
        one.draws += 1
        one.calls += cost
        return {
            "id": f"{name}:{number}",
            "draw": number,
            "category": name,
            "new": self._new(one),
            "examples": shown,
            "material": "",
            "material_kind": one.category.material,
            "turn": json.dumps({"inputs": shown}, ensure_ascii=False),
            "family": lead["family"],
        }

    def add_material(self, calls: list[Row], kind: str, ask: Ask) -> None:
        """Has the teacher write what the inputs of two steps are about, each into its call."""
        asked = [{**call, "id": f"{call['id']}:{kind}"} for call in calls]
        answers = {row["id"]: row for row in ask(kind, asked)}
        for call, its in zip(calls, asked, strict=True):
            one, answer = self.grown[call["category"]], answers[its["id"]]
            reason = unusable(answer)
            if reason is None:
                call["material"] = answer["answer"].strip()
                call["turn"] = json.dumps(
                    {"inputs": call["examples"], "material": call["material"]}, ensure_ascii=False
                )
            else:
                one.calls -= 1  # the second is not made
                one.asked += call["new"]
                one.refused[f"material: {reason}"] += call["new"]
                one.dry += 1

    def take(self, call: Row, answer: Row) -> None:
        """Takes what an answer holds, up to the quota; each input asked for is new or refused with its reason."""
        one = self.grown[call["category"]]
        before = len(one.rows)
        one.asked += call["new"]
        items, reason = reply_items(answer)
        items = items[: call["new"]]
        if len(items) < call["new"]:
            one.refused[reason or "fewer than asked for"] += call["new"] - len(items)
        examples = {squeeze(self._text(self._fields(shown) or {})) for shown in call["examples"]}
        for item in items:
            fields = self._fields(item)
            if fields is None:
                one.refused["wrong shape"] += 1
            elif squeeze(self._text(fields)) in examples:
                one.refused["repeats an example"] += 1
            elif row := self._add(one, self._joined(fields, call["material"]), call["family"]):
                self._vary(one, row)
        one.dry = 0 if len(one.rows) > before else one.dry + 1

    def _joined(self, fields: Row, material: str) -> Row:
        """The input with what it is about below it, unless the teacher put it there itself."""
        name = self.task.config["input"][0]
        if not material or not fields[name] or squeeze(material) in squeeze(fields[name]):
            return fields
        return {**fields, name: f"{fields[name]}\n\n{material}"}

    def _add(self, one: Grown, fields: Row, family: str) -> Row | None:
        """The new row, or None when it is refused."""
        row = {"id": row_id(fields), **fields, "category": one.category.name, "family": family}
        if not one.category.name:
            del row["category"]
        reason = self._refuse(one, fields, family)
        if reason:
            one.refused[reason] += 1
            return None
        self.seen.add(row["id"], self._text(fields), family)
        one.rows.append(row)
        return row

    def _refuse(self, one: Grown, fields: Row, family: str) -> str | None:
        text = self._text(fields)
        if not all(value.strip() for value in fields.values()):
            return "empty"
        if len(text) > self.max_chars:
            return "too long"
        if one.category.match and not one.category.match.search(text):
            return "wrong category"
        if not one.missing:
            return "beyond the quota"
        near = self.seen.find(text, family)
        return (
            None
            if near is None
            else "near a gold row"
            if near.startswith(GOLD)
            else "near-duplicate"
        )

    def _vary(self, one: Grown, row: Row) -> None:
        """Adds the row with other numbers, as far as the quota goes."""
        if vary := one.category.vary:
            fields = self._own(row)
            one.numbers[vary.number(fields)] += 1
            for value in vary.others(fields, one.numbers, random.Random(row["id"])):
                if one.missing:
                    one.varied += 1
                    one.numbers[value] += (
                        self._add(one, vary.put(fields, value), row["family"]) is not None
                    )

    def learn(self, ask: Ask) -> None:
        """With expand.hard: asks the task's own question about every row that is new, as generate will, and has those lead
        more often whose answers needed several tries. Where none passes, the length that is asked for can become the answer's."""
        if not self.params.expand.hard:
            return
        rows = [row for row in self.rows() if row["id"] not in self._judged]
        answers: dict[str, list[Row]] = {row["id"]: [] for row in rows}
        for answer in ask("teacher", rows) if rows else ():
            answers[answer["id"]].append(answer)
        for row in rows:
            self._judged.add(row["id"])
            one = self.grown[_category(row)]
            given = [
                a["answer"] if unusable(a) is None else ""
                for a in sorted(answers[row["id"]], key=_sample)
            ]
            passing = (
                i
                for i, text in enumerate(given)
                if text and not registry.check(self.task, row, text, True)
            )
            tries = next(passing, len(given))
            if tries == len(given) and (new := self._rewritten(one, row, given)):
                one.rows[one.rows.index(row)] = row = new
            if tries:
                one.weights[row["id"]] = 1.0 + self.params.expand.hard * tries

    def _rewritten(self, one: Grown, row: Row, given: list[str]) -> Row | None:
        """The row with the length that the first fitting answer has, which was asked for by the row as it was (`asked_as`)."""
        vary, fields = one.category.vary, self._own(row)
        if not vary or not vary.rewrite or row["family"] == row["id"]:
            return None
        for text in filter(None, given):
            new = vary.put(fields, len(squeeze(text)))
            if new == fields or registry.check(self.task, row | new, text, True):
                continue
            if self.seen.find(self._text(new), row["family"]) is None:
                one.rewritten += 1
                found = {**row, **new, "id": row_id(new), "asked_as": fields}
                self.seen.add(found["id"], self._text(new), row["family"])
                self._judged.add(found["id"])
                return found
        return None

    def report(self) -> Row:
        """What happened, by category. Raises AssertionError when an input is unaccounted for."""
        found = {}
        for name, one in self.grown.items():
            if one.asked + one.varied != len(one.rows) + one.refused.total():
                raise AssertionError(
                    f"{name}: {one.asked} asked for, {one.varied} varied, {len(one.rows)} new: {one.refused}"
                )
            found[name] = {
                "seeds": len(one.seeds),
                "quota": one.quota,
                "calls": one.calls,
                "asked": one.asked,
                "varied": one.varied,
                "new": len(one.rows),
                "rewritten": one.rewritten,
                "refused": dict(sorted(one.refused.items())),
                "total": one.total,
                "stopped": "quota" if not one.missing else "dry" if one.dry >= DRY else "calls",
            }
        calls = sum(one.calls for one in self.grown.values())
        return {"rows": len(self.rows()), "calls": calls, "categories": found}

    def _own(self, row: Row) -> Row:
        return {name: row[name] for name in self.task.config["input"]}

    def _text(self, row: Row) -> str:
        return "\n".join(row[name] for name in self.task.config["input"])

    def _item(self, row: Row) -> object:
        """A row as prompt and reply have it: a text where the input is one field, else an object."""
        own = self._own(row)
        return own if len(own) > 1 else next(iter(own.values()))

    def _fields(self, item: object) -> Row | None:
        """The input fields of an item, None when it has another shape or is no text that can be written."""
        names = self.task.config["input"]
        if isinstance(item, str) and len(names) == 1:
            item = {names[0]: item}
        if not isinstance(item, dict) or set(item) != set(names):
            return None
        if not all(isinstance(value, str) and writable(value) for value in item.values()):
            return None
        return {name: item[name].strip() for name in names}


def table(report: Row) -> Iterator[str]:
    """The report as lines: a row a category, then the reasons."""
    columns = ("seeds", "quota", "calls", "asked", "varied", "new", "refused", "rewritten", "total")
    yield f"{'category':16}" + "".join(f"{name:>10}" for name in columns) + "  stopped by"
    refused: Counter[str] = Counter()
    for name, one in report["categories"].items():
        refused.update(one["refused"])
        values = {**one, "refused": sum(one["refused"].values())}
        yield (
            f"{name:16}"
            + "".join(f"{values[column]:10,}" for column in columns)
            + f"  {one['stopped']}"
        )
    if short := [name for name, one in report["categories"].items() if one["stopped"] != "quota"]:
        yield (
            f"{report['rows']:,} rows, not all that were wanted: {', '.join(short)} stopped by the ceiling expand.calls (calls), or "
            f"after {DRY} calls with nothing new (dry)"
        )
    if refused:
        yield "refused: " + ", ".join(
            f"{count:,} {reason}" for reason, count in refused.most_common()
        )


def _quotas(rows: int, shares: list[float]) -> list[int]:
    """So many rows by shares, the largest remainders rounded up."""
    exact = [rows * share / sum(shares) for share in shares]
    found = [int(value) for value in exact]
    for i in sorted(range(len(exact)), key=lambda i: found[i] - exact[i])[: rows - sum(found)]:
        found[i] += 1
    return found


def _category(row: Row) -> str:
    return str(row.get("category", ""))


def _sample(answer: Row) -> int:
    return int(answer["sample"])
