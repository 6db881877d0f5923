"""The growth of a task's inputs, round by round, until each category has its quota.

Each call has a random generator of its own, so what is asked depends on the seeds and on earlier
answers alone: a run that was killed, or one with a larger quota, asks what is new.
"""

import json
import math
import random
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from types import SimpleNamespace

from potstill.checks import registry
from potstill.core.jsonl import Row, row_id, squeeze, unwritable
from potstill.dataset.expand_rules import Category, categories, reply_items, unusable
from potstill.dataset.near_duplicates import Seen
from potstill.task.settings import Task

GOLD = "gold:"  # what keys and families of gold rows begin with; no seed's family does

DRY = 8  # calls of a category with no new input after which no more are made
# (kind, rows) → the teacher's answers: kind `teacher` is the task's own question, any other one a
# prompt of that name
Ask = Callable[[str, list[Row]], Iterable[Row]]


@dataclass
class Progress:
    """One category as it grows. asked + varied = new rows + refused, always."""

    category: Category
    quota: int
    batch: int  # inputs asked for in a call
    seeds: list[Row]
    rows: list[Row] = field(default_factory=list)  # the new ones
    draws: int = 0
    dry: int = 0  # draws since the last that brought something
    calls: int = 0
    asked: int = 0
    varied: int = 0
    rewritten: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    # How often `vary` saw or put each number, so that it spreads its values evenly.
    numbers: Counter[int | None] = field(default_factory=Counter)
    # The weights, as leads, of the rows that proved hard; a seed's is 1.
    weights: dict[str, float] = field(default_factory=dict)

    @property
    def missing(self) -> int:
        return max(0, self.quota - len(self.seeds) - len(self.rows))

    def report(self) -> Row:
        """What happened. Raises AssertionError when an input is unaccounted for."""
        new, refused = len(self.rows), self.refused.total()
        if self.asked + self.varied != new + refused:
            raise AssertionError(
                f"{self.category.name}: {self.asked} asked for, {self.varied} varied, {new} new: "
                f"{self.refused}"
            )
        stopped = "quota" if not self.missing else "dry" if self.dry >= DRY else "calls"
        counts = {"seeds": len(self.seeds), "quota": self.quota, "calls": self.calls}
        counts |= {"asked": self.asked, "varied": self.varied, "new": new}
        reasons = {"rewritten": self.rewritten, "refused": dict(sorted(self.refused.items()))}
        return {**counts, **reasons, "total": len(self.seeds) + new, "stopped": stopped}

    def wanted(self) -> int:
        """The draws of the next round: what is missing by the yield so far, and at most twice the
        draws so far and two, so that little is asked of a prompt that does not work."""
        if not self.missing or self.dry >= DRY:
            return 0
        vary = self.category.vary
        per_draw = self.batch * (1 + (vary.times if vary else 0))
        if self.draws and self.rows:
            per_draw = min(per_draw, max(1, len(self.rows) // self.draws))
        return min(math.ceil(self.missing / per_draw), 2 + 2 * self.draws)


class Growth:
    """All categories, and what was seen in any of them."""

    def __init__(
        self, task: Task, seeds: list[Row], gold: list[Row], params: SimpleNamespace, ask: Ask
    ) -> None:
        self.task, self.params, self.ask = task, params, ask
        self.fields = task.config["input"]
        self.seeds = [{**row, "family": row["id"]} for row in seeds]
        self.progress: dict[str, Progress] = {}
        rules, self.max_chars = categories(task, seeds)
        quotas = _quotas(params.expand.rows, [category.share for category in rules])
        for category, quota in zip(rules, quotas, strict=True):
            # With a material of their own, inputs come one by one.
            batch = 1 if category.material else params.expand.new
            own = [row for row in self.seeds if row.get("category", "") == category.name]
            self.progress[category.name] = Progress(category, quota, batch, own)
        self.judged: set[str] = set()  # ids
        self.seen = Seen(params.near_duplicate)
        for row in gold:
            self.seen.add(GOLD + row["id"], self._text(row), GOLD + row["id"])
        for row in self.seeds:
            self.seen.add(row["id"], self._text(row), row["family"])

    def run(self) -> None:
        """Grows all categories, as far as quotas, the ceiling of calls and the replies let it."""
        for progress in self.progress.values():
            for row in progress.seeds:
                self._vary(progress, row)
        self._learn()
        while calls := self._draw():
            for kind in dict.fromkeys(call["material_kind"] for call in calls):
                if kind:
                    same = [call for call in calls if call["material_kind"] == kind]
                    self._add_material(same, kind)
            calls = [call for call in calls if call["material"] or not call["material_kind"]]
            answers = {row["id"]: row for row in (self.ask("expand", calls) if calls else ())}
            for call in calls:
                self._take(call, answers[call["id"]])
            self._learn()

    def rows(self) -> list[Row]:
        """The seeds in their own order, then what is new."""
        return self.seeds + [row for progress in self.progress.values() for row in progress.rows]

    def report(self) -> Row:
        """What happened, by category. Raises AssertionError when an input is unaccounted for."""
        reports = {name: progress.report() for name, progress in self.progress.items()}
        calls = sum(report["calls"] for report in reports.values())
        return {"rows": len(self.rows()), "calls": calls, "categories": reports}

    def _draw(self) -> list[Row]:
        """The next round's calls, in turn over the categories; none when each has its quota or is
        dry, or the ceiling of calls is reached."""
        left = self.params.expand.calls - sum(one.calls for one in self.progress.values())
        wanted = [(progress, progress.wanted()) for progress in self.progress.values()]
        calls = []
        for turn in range(max(count for _, count in wanted)):
            for progress, count in wanted:
                cost = 2 if progress.category.material else 1
                if turn < count and cost <= left:
                    left -= cost
                    progress.calls += cost
                    calls.append(self._call(progress))
        return calls

    def _call(self, progress: Progress) -> Row:
        """One call: a lead, seeds or inputs that proved hard, and further examples of its
        category, seeds first."""
        name, number, weights = progress.category.name, progress.draws, progress.weights
        progress.draws += 1
        chance = random.Random(f"{name}:{number}")
        leads = progress.seeds + [row for row in progress.rows if row["id"] in weights]
        [lead] = chance.choices(leads, [weights.get(row["id"], 1.0) for row in leads])
        examples = [lead]
        for pool in (progress.seeds, progress.rows):
            others = [row for row in pool if row is not lead]
            room = self.params.expand.examples - len(examples)
            examples += chance.sample(others, min(room, len(others)))
        shown = [self._item(row) for row in examples]
        call = {"id": f"{name}:{number}", "draw": number, "category": name, "new": progress.batch}
        call |= {"material": "", "material_kind": progress.category.material}
        turn = json.dumps({"inputs": shown}, ensure_ascii=False)
        return {**call, "examples": shown, "turn": turn, "family": lead["family"]}

    def _add_material(self, calls: list[Row], kind: str) -> None:
        """Has the teacher write what the inputs of two steps are about, each into its call."""
        asked = [{**call, "id": f"{call['id']}:{kind}"} for call in calls]
        answers = {row["id"]: row for row in self.ask(kind, asked)}
        for call, row in zip(calls, asked, strict=True):
            progress, answer = self.progress[call["category"]], answers[row["id"]]
            if reason := unusable(answer):
                progress.calls -= 1  # the second is not made
                progress.asked += call["new"]
                progress.refused[f"material: {reason}"] += call["new"]
                progress.dry += 1
            else:
                call["material"] = answer["answer"].strip()
                turn = {"inputs": call["examples"], "material": call["material"]}
                call["turn"] = json.dumps(turn, ensure_ascii=False)

    def _take(self, call: Row, answer: Row) -> None:
        """Takes the inputs of an answer, up to the quota; each one asked for is new or refused
        with its reason."""
        progress = self.progress[call["category"]]
        before = len(progress.rows)
        progress.asked += call["new"]
        items, reason = reply_items(answer)
        items = items[: call["new"]]
        if len(items) < call["new"]:
            progress.refused[reason or "fewer than asked for"] += call["new"] - len(items)
        shown = [self._read(item) for item in call["examples"]]
        examples = {squeeze(self._text(fields)) for fields in shown if fields}
        for fields in map(self._read, items):
            if fields is None:
                progress.refused["wrong shape"] += 1
            elif squeeze(self._text(fields)) in examples:
                progress.refused["repeats an example"] += 1
            elif row := self._add(progress, self._joined(fields, call["material"]), call["family"]):
                self._vary(progress, row)
        progress.dry = 0 if len(progress.rows) > before else progress.dry + 1

    def _joined(self, fields: Row, material: str) -> Row:
        """The input with its material below it, unless the teacher put it there itself."""
        name = self.fields[0]
        if not material or not fields[name] or squeeze(material) in squeeze(fields[name]):
            return fields
        return {**fields, name: f"{fields[name]}\n\n{material}"}

    def _add(self, progress: Progress, fields: Row, family: str) -> Row | None:
        """The new row, or None when it is refused."""
        if reason := self._refusal(progress, fields, family):
            progress.refused[reason] += 1
            return None
        category = {"category": progress.category.name} if progress.category.name else {}
        row = {"id": row_id(fields), **fields, **category, "family": family}
        self.seen.add(row["id"], self._text(row), family)
        progress.rows.append(row)
        return row

    def _refusal(self, progress: Progress, fields: Row, family: str) -> str | None:
        text, match = self._text(fields), progress.category.match
        if not all(value.strip() for value in fields.values()):
            return "empty"
        if len(text) > self.max_chars:
            return "too long"
        if match and not match.search(text):
            return "wrong category"
        if not progress.missing:
            return "beyond the quota"
        if (near := self.seen.find(text, family)) is None:
            return None
        return "near a gold row" if near.startswith(GOLD) else "near-duplicate"

    def _vary(self, progress: Progress, row: Row) -> None:
        """Adds the row with other numbers, as far as the quota goes."""
        if vary := progress.category.vary:
            fields, numbers = self._input(row), progress.numbers
            numbers[vary.number(fields)] += 1
            for value in vary.others(fields, numbers, random.Random(row["id"])):
                if progress.missing:
                    progress.varied += 1
                    if self._add(progress, vary.put(fields, value), row["family"]):
                        numbers[value] += 1

    def _learn(self) -> None:
        """With expand.hard: asks the task's own question about every new row, as generate will,
        and has those rows lead more often whose answers needed several tries. Where no answer
        passes, the length that is asked for can become the answer's."""
        if not self.params.expand.hard:
            return
        rows = [row for row in self.rows() if row["id"] not in self.judged]
        replies: dict[str, list[Row]] = {row["id"]: [] for row in rows}
        for reply in self.ask("teacher", rows) if rows else ():
            replies[reply["id"]].append(reply)
        for row in rows:
            self.judged.add(row["id"])
            progress = self.progress[row.get("category", "")]
            drawn = sorted(replies[row["id"]], key=lambda reply: int(reply["sample"]))
            texts = ["" if unusable(one) else registry.taught(self.task, one) for one in drawn]
            good = [text and not registry.check(self.task, row, text, True) for text in texts]
            tries = [*good, True].index(True)
            if tries == len(texts) and (new := self._rewritten(progress, row, texts)):
                progress.rows[progress.rows.index(row)] = row = new
            if tries:
                progress.weights[row["id"]] = 1.0 + self.params.expand.hard * tries

    def _rewritten(self, progress: Progress, row: Row, texts: list[str]) -> Row | None:
        """The row with the length of the first answer that then passes, or None. The row keeps
        the request that was really asked (`asked_as`)."""
        vary, fields = progress.category.vary, self._input(row)
        if not vary or not vary.rewrite or row["family"] == row["id"]:
            return None
        for text in filter(None, texts):
            new = vary.put(fields, len(squeeze(text)))
            if new == fields or registry.check(self.task, row | new, text, True):
                continue
            if self.seen.find(self._text(new), row["family"]) is None:
                progress.rewritten += 1
                rewritten = {**row, **new, "id": row_id(new), "asked_as": fields}
                self.seen.add(rewritten["id"], self._text(new), row["family"])
                self.judged.add(rewritten["id"])
                return rewritten
        return None

    def _input(self, row: Row) -> Row:
        return {name: row[name] for name in self.fields}

    def _text(self, row: Row) -> str:
        return "\n".join(row[name] for name in self.fields)

    def _item(self, row: Row) -> object:
        """A row as prompt and reply have it: a text where it has one field, else an object."""
        return self._input(row) if len(self.fields) > 1 else row[self.fields[0]]

    def _read(self, item: object) -> Row | None:
        """The input fields of an item; None for another shape, or text that cannot be written."""
        if isinstance(item, str) and len(self.fields) == 1:
            item = {self.fields[0]: item}
        if not isinstance(item, dict) or set(item) != set(self.fields):
            return None
        if not all(isinstance(value, str) and not unwritable(value) for value in item.values()):
            return None
        return {name: item[name].strip() for name in self.fields}


def _quotas(rows: int, shares: list[float]) -> list[int]:
    """So many rows by shares, the largest remainders rounded up."""
    exact = [rows * share / sum(shares) for share in shares]
    quotas = [int(value) for value in exact]
    order = sorted(range(len(exact)), key=lambda i: quotas[i] - exact[i])
    for i in order[: rows - sum(quotas)]:
        quotas[i] += 1
    return quotas
