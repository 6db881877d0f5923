"""A language model as the judge of two answers to one input: asked in both orders, so that the place of an answer does not count."""

import json

from potstill.core import jsonl
from potstill.core.jsonl import Row
from potstill.dataset import reviews
from potstill.evaluation import score
from potstill.task.settings import Task

PROMPT = (
    "judge"  # prompts/judge.md gets the input's fields, `a` and `b`; a task without it has no judge
)
SCHEMA = {
    "type": "object",
    "properties": {"better": {"enum": ["a", "b", "tie"]}},
    "required": ["better"],
    "additionalProperties": False,
}
HUMAN = "human"  # stands for the models in rows that people have ranked


def all_questions(task: Task, predictions: dict[str, list[Row]]) -> list[Row]:
    """What the judge is asked of the student against the base and the teacher, on the test rows,
    and of the answers that people have ranked."""
    tests = task.inputs(task.data / "4-test.jsonl")
    texts = {
        model: {row["id"]: row["answer"] or "" for row in some}
        for model, some in predictions.items()
    }
    student = score.student(predictions)
    pairs = {
        (student, other): {id: (text, texts[other][id]) for id, text in texts[student].items()}
        for other in ("base", "teacher")
    }
    asked = questions(task, tests, pairs)
    answers = jsonl.read_jsonl(task.data / "2-answers.jsonl", ("id", "answer"))
    if people := ranked(task, answers):
        inputs = task.inputs(task.data / "1-inputs.jsonl")
        asked += questions(task, inputs, {(HUMAN, HUMAN): people})
    return asked


def questions(
    task: Task, inputs: list[Row], texts: dict[tuple[str, str], dict[str, tuple[str, str]]]
) -> list[Row]:
    """What the judge is asked: a row for each pair of different texts and each order, with the texts as `a` and `b`. `texts` has, for
    each two models, the two texts by the id of the input."""
    found = []
    for row in inputs:
        for (model, against), some in texts.items():
            if row["id"] not in some or len(set(some[row["id"]])) == 1:
                continue
            given = {name: row[name] for name in ("id", *task.config["input"])} | {"draw": 0}
            for order, (a, b) in enumerate((some[row["id"]], some[row["id"]][::-1])):
                found.append(
                    given | {"model": model, "against": against, "order": order, "a": a, "b": b}
                )
    return found


def ranked(task: Task, answers: list[Row]) -> dict[str, tuple[str, str]]:
    """The two texts that people have ranked, by the id of their input, of the teacher's answers; the last ranking of an input counts."""
    texts = {
        (row["id"], reviews.answer_hash(row["answer"] or "")): row["answer"] or ""
        for row in answers
    }
    found = {}
    for row in reviews.load(task.data / reviews.FILE).rankings.values():
        pair = [texts.get((row["id"], one)) for one in row["answers"]]
        if None not in pair:  # the teacher has answered anew since
            found[row["id"]] = (str(pair[0]), str(pair[1]))
    return found


def verdicts(asked: list[Row], answers: list[Row]) -> list[Row]:
    """A row for each pair, {"row", "model", "against", "a", "b", "verdict"}: 1 where the first text was called better in both orders, -1
    where the second was, 0 for a tie or where the two orders disagree, None (unscored) where a reply is missing or no verdict."""
    found = []
    for i in range(0, len(asked), 2):
        first, second = (
            {"a": 1, "b": -1, "tie": 0}.get(str(better(answer))) for answer in answers[i : i + 2]
        )
        both = None if first is None or second is None else first if first == -second else 0
        pair = {name: asked[i][name] for name in ("model", "against", "a", "b")}
        found.append({"row": asked[i]["id"], **pair, "verdict": both})
    return found


def better(answer: Row) -> str | None:
    """What a reply calls better: "a", "b", "tie"; None where there is none, or it says something else."""
    try:
        found = json.loads(answer["answer"] or "")
    except ValueError:
        return None
    return (
        found["better"]
        if answer["error"] is None
        and isinstance(found, dict)
        and found.get("better") in ("a", "b", "tie")
        else None
    )


def table(task: Task) -> list[Row]:
    """A row for each two models, {"model", "against", "rows", "wins", "losses", "ties", "unscored"}: of `model`. That of HUMAN counts the
    rankings of people: wins where the judge says the same."""
    found = jsonl.read_some(task.data / "5-judge/verdicts.jsonl", "row", "verdict")
    said, pairs = (
        reviews.load(task.data / reviews.FILE),
        dict.fromkeys((row["model"], row["against"]) for row in found),
    )
    listed = []
    for model, against in pairs:
        some = [row for row in found if (row["model"], row["against"]) == (model, against)]
        scored = [row["verdict"] for row in some if row["verdict"] is not None]
        if model == HUMAN:
            theirs = {"a": 1, "b": -1, "tie": 0}
            human = [
                theirs.get(str(said.ranking(row["row"], row["a"], row["b"])))
                for row in some
                if row["verdict"] is not None
            ]
            scored = [
                1 if judge == person else -1 for judge, person in zip(scored, human, strict=True)
            ]
        counts = {
            name: scored.count(value) for name, value in (("wins", 1), ("losses", -1), ("ties", 0))
        }
        listed.append(
            {
                "model": model,
                "against": against,
                "rows": len(some),
                **counts,
                "unscored": len(some) - len(scored),
            }
        )
    return listed
