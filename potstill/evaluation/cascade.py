"""The student with the teacher behind it: an answer of the student that is known to be bad, without
any label, is replaced by the teacher's. What that is worth on the test rows, and what it costs.

cascade.csv: for each slice of the test rows three lines, `student`, `cascade` and `teacher`:
slice,who,rows,right,share,low,high          the right answers, with a 95 % interval
sent,sent_share,sent_low,sent_high           the requests that the teacher gets, likewise
prompt_tokens,completion_tokens              of the teacher, in 1,000 requests
cost,cost_low,cost_high                      of 1,000 requests; empty while prices are unknown
p_student,p_teacher                          exact McNemar against the two alone
"""

from collections.abc import Sequence
from types import SimpleNamespace

from potstill.checks import registry
from potstill.core.jsonl import Row
from potstill.evaluation import score, statistics
from potstill.evaluation.score import Marks
from potstill.evaluation.statistics import count, p_text, percent
from potstill.task.settings import Task

WHO = ("student", "cascade", "teacher")
MANY = 1000  # requests, of which the table gives tokens and cost


def faults(task: Task, row: Row, answer: str, finish_reason: str | None) -> list[str]:
    """What is wrong with an answer by the input alone, which is what a server knows: it was cut
    off, or it fails a check. `exact_match` has nothing to compare with then, and says nothing."""
    if finish_reason not in ("stop", None):
        return [f"finish_reason: {finish_reason}"]
    return registry.check(task, {name: row[name] for name in task.config["input"]}, answer)


def table(
    task: Task,
    tests: list[Row],
    answers: dict[str, list[Row]],
    marks: Marks,
    student: str,
    prices: SimpleNamespace,
    unsure: Sequence[bool] = (),
) -> list[Row]:
    """cascade.csv, for the trained model `student`; `prices` are those of the section teacher of
    params.yaml. `unsure` says which answers are sent on, too, though they pass the checks."""
    sent = [
        bool(faults(task, test, answer["answer"] or "", answer.get("finish_reason")))
        for test, answer in zip(tests, answers[student], strict=True)
    ]
    sent = [bad or doubt for bad, doubt in zip(sent, unsure or [False] * len(sent), strict=True)]
    alone = {"student": student, "teacher": "teacher"}
    right = {who: [bool(mark["right"]) for mark in marks[name]] for who, name in alone.items()}
    pairs = zip(sent, right["student"], right["teacher"], strict=True)
    right["cascade"] = [teacher if on else student for on, student, teacher in pairs]
    asked = {"student": [False] * len(tests), "cascade": sent, "teacher": [True] * len(tests)}
    found = []
    for name, rows in score.by_slice(task, tests).items():
        for who in WHO:
            mine = [right[who][i] for i in rows]
            line: Row = {"slice": name or "all", "who": who, "rows": len(rows), "right": sum(mine)}
            line |= _share("", sum(mine), len(rows))
            on = [i for i in rows if asked[who][i]]
            line |= {"sent": len(on), **_share("sent_", len(on), len(rows))}
            if who in alone:  # by definition, not by chance
                line |= dict.fromkeys(("sent_low", "sent_high"), line["sent_share"])
            bought = [answers["teacher"][i] for i in on]
            for tokens in score.TOKENS:
                total = sum(row[tokens] or 0 for row in bought)
                line[tokens] = round(MANY * total / len(rows))
            every = bought or [answers["teacher"][i] for i in rows]
            line |= _cost(prices, every, line)
            for other in alone:
                p = statistics.mcnemar([right[other][i] for i in rows], mine)
                line[f"p_{other}"] = float(f"{p:.3g}")
            found.append(line)
    return found


def _share(prefix: str, part: int, rows: int) -> Row:
    """A share with its interval; its own name is `share` after the prefix."""
    low, high = (round(end, 4) for end in statistics.wilson(part, rows))
    return {f"{prefix}share": round(part / rows, 4), f"{prefix}low": low, f"{prefix}high": high}


def _cost(prices: SimpleNamespace, bought: Sequence[Row], line: Row) -> Row:
    """The cost of MANY requests where such a share as `line` says is sent on, each as dear as one
    of `bought` on average: the interval is that of the share."""
    names, given = (*score.TOKENS, "cached_tokens"), ("price_in", "price_out", "price_cached")
    costs = [
        score.money_for([row.get(name) or 0 for name in names], *(vars(prices)[n] for n in given))
        for row in bought
    ]
    known = [cost for cost in costs if cost is not None]
    each = MANY * sum(known) / len(known) if known else None
    ends = {"cost": "sent_share", "cost_low": "sent_low", "cost_high": "sent_high"}
    shares = line | {"sent_share": line["sent"] / line["rows"]}  # not rounded
    return {
        # Twelve decimals first, or the last bit of a sum would decide on which side 0.12345 falls
        name: "" if each is None else float(f"{round(each * shares[share], 12):.4g}")
        for name, share in ends.items()
    }


def lines(rows: list[Row]) -> str:
    """The table, as `table` or cascade.csv has it, for the console: a line each."""
    said = []
    for row in rows:
        number, right, sent = (int(row[name]) for name in ("rows", "right", "sent"))
        line = f"{row['slice']}: {row['who']:<8}{percent(right / number):>7} right"
        line += f" ({float(row['low']):.1%} to {float(row['high']):.1%})"
        line += f" of {count(number, 'row')}, {percent(sent / number)} sent on"
        line += f" ({float(row['sent_low']):.1%} to {float(row['sent_high']):.1%})"
        if row["cost"] != "":
            line += f", {float(row['cost']):g} for {MANY:,} requests"
            line += f" ({float(row['cost_low']):g} to {float(row['cost_high']):g})"
        if row["who"] == "cascade":
            line += f"; {verdict(row, rows)}"
        said.append(line)
    return "\n".join(said)


def verdict(row: Row, rows: list[Row]) -> str:
    """Whether the cascade pays in the slice of its `row`: what the test says of it beside the
    student alone and the teacher alone."""
    alone = {one["who"]: one for one in rows if one["slice"] == row["slice"]}
    parts = []
    for other in ("student", "teacher"):
        p = float(row[f"p_{other}"])
        more = int(row["right"]) > int(alone[other]["right"])
        parts.append(f"{statistics.difference(p, more)} against the {other} (p {p_text(p)})")
    return ", ".join(parts)
