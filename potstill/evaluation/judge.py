"""A language model as the judge of two answers to one input, asked in both orders: the place of an
answer does not count."""

import json
from contextlib import suppress
from typing import Any

from potstill.checks.wrapping import wrapped
from potstill.core import jsonl
from potstill.core.jsonl import Row
from potstill.dataset import reviews
from potstill.evaluation import score
from potstill.task.settings import Task

PROMPT = "judge"  # prompts/judge.md gets the input's fields, `a` and `b`
VALUES = {"a": 1, "b": -1, "tie": 0}
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"better": {"enum": [*VALUES]}},
    "required": ["better"],
    "additionalProperties": False,
}
HUMAN = "human"  # stands for the models in rows that people have ranked


def all_questions(task: Task, predictions: dict[str, list[Row]]) -> list[Row]:
    """What the judge is asked of the student against the base and the teacher, on the test rows,
    and of the answers that people have ranked: a row for each order of two texts that differ, which
    are `a` and `b`."""
    texts = {
        model: {row["id"]: row["answer"] or "" for row in answers}
        for model, answers in predictions.items()
    }
    student, people = score.student(predictions), ranked(task)
    inputs = task.inputs(task.data / "1-inputs.jsonl") if people else []
    pairs: list[tuple[Row, str, str, tuple[str, str]]] = [
        (row, student, other, (texts[student][row["id"]], texts[other][row["id"]]))
        for row in task.inputs(task.data / "4-test.jsonl")
        for other in ("base", "teacher")
        if other in texts
    ]
    pairs += [(row, HUMAN, HUMAN, people[row["id"]]) for row in inputs if row["id"] in people]
    asked = []
    for row, model, against, (one, other) in pairs:
        given = {name: row[name] for name in ("id", *task.config["input"])}
        given |= {"draw": 0, "model": model, "against": against}
        for order, (a, b) in enumerate([(one, other), (other, one)] if one != other else []):
            asked.append(given | {"order": order, "a": a, "b": b})
    return asked


def ranked(task: Task) -> dict[str, tuple[str, str]]:
    """The two answers of the teacher that people have ranked, by the id of their input; the last
    ranking of an input counts."""
    answers = jsonl.read_some(task.data / "2-answers.jsonl", "id", "answer")
    texts = {(row["id"], reviews.answer_hash(text := row["answer"] or "")): text for row in answers}
    pairs = {}
    for row in reviews.load(task.data / reviews.FILE).rankings.values():
        one, other = (texts.get((row["id"], hash)) for hash in row["answers"])
        if one is not None and other is not None:  # else the teacher has answered anew since
            pairs[row["id"]] = one, other
    return pairs


def verdicts(asked: list[Row], answers: list[Row]) -> list[Row]:
    """A row for each pair, {"row", "model", "against", "a", "b", "verdict"}: 1 where the first text
    was called better in both orders, -1 where the second was, 0 for a tie or where the orders
    disagree, None (unscored) where a reply is missing or no verdict."""
    rows = []
    for i in range(0, len(asked), 2):
        first, second = (VALUES.get(str(better(answer))) for answer in answers[i : i + 2])
        both = None if first is None or second is None else first if first == -second else 0
        pair = {name: asked[i][name] for name in ("model", "against", "a", "b")}
        rows.append({"row": asked[i]["id"], **pair, "verdict": both})
    return rows


def better(answer: Row) -> str | None:
    """What a reply calls better: "a", "b", "tie"; None where it is none of them."""
    text = answer["answer"] or ""
    for inner in (text, *wrapped(text)):
        with suppress(ValueError, RecursionError):
            reply = json.loads(inner)
            said = reply.get("better") if isinstance(reply, dict) else None
            return said if answer["error"] is None and said in (*VALUES,) else None
    return None


def table(task: Task) -> list[Row]:
    """A row for each two models, {"model", "against", "rows", "wins", "losses", "ties",
    "unscored"}: of `model`. The row of HUMAN counts what people ranked: wins where the judge says
    the same, losses where it says something else."""
    rows = jsonl.read_some(task.data / "5-judge/verdicts.jsonl", "row", "verdict")
    people, table = reviews.load(task.data / reviews.FILE), []
    for model, against in dict.fromkeys((row["model"], row["against"]) for row in rows):
        judged = [row for row in rows if (row["model"], row["against"]) == (model, against)]
        scored = [row for row in judged if row["verdict"] is not None]
        results = [row["verdict"] for row in scored]
        if model == HUMAN:
            ranks = (people.ranking(row["row"], row["a"], row["b"]) for row in scored)
            same = zip(results, (VALUES.get(str(rank)) for rank in ranks), strict=True)
            results = [1 if judge == person else -1 for judge, person in same]
        counts = {"wins": results.count(1), "losses": results.count(-1), "ties": results.count(0)}
        names = {"model": model, "against": against, "rows": len(judged)}
        table.append(names | counts | {"unscored": len(judged) - len(scored)})
    return table
