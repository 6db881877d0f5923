"""`make confidence`: which answers of the student the cascade should send on because the student is
not sure of them → reports/confidence.csv.

Asks models/student the validation and the test rows once more, now with the probability of each
token; the recorded predictions stay. A threshold is chosen on the validation rows, where right is
what the task's checks and the teacher's answer say, and shown on the test rows: for each slice and
threshold the share right, the share sent on and the cost, as cascade.csv has them.
"""

from potstill.checks import registry
from potstill.core import jsonl, params, stage
from potstill.core.errors import UserError
from potstill.core.jsonl import Row
from potstill.evaluation import cascade, compare, score
from potstill.evaluation.statistics import count, percent
from potstill.inference import answering, predictions
from potstill.serving import confidence, serve, served
from potstill.task import settings
from potstill.task.settings import Task

STUDENT = "student"


def validation(t: Task) -> list[tuple[Row, list[dict[str, str]]]]:
    """The validation rows whose input is known, as test rows with the teacher's answer as what is
    expected, each with its prompt."""
    rows = jsonl.read_jsonl(t.data / "4-valid.jsonl", ("id", "messages"))
    inputs = {row["id"]: row for row in t.inputs(t.data / "1-inputs.jsonl")}
    found = []
    for row in rows:
        *chat, last = row["messages"]
        if given := inputs.get(row["id"]):
            fields = {name: given[name] for name in t.config["input"]}
            expected = registry.parse(t, last["content"])[0]
            found.append(({"id": row["id"], **fields, "expected": expected}, chat))
    if not found:
        raise UserError(f"{t.data}/4-valid.jsonl has no row with an input to choose a threshold by")
    return found


def sure(t: Task, rows: list[Row], answers: list[Row]) -> list[float]:
    """How sure the student is of each answer; 0 where the checks send it on anyway."""
    return [
        0.0
        if cascade.faults(t, row, answer["answer"], answer["finish_reason"])
        else answer[confidence.NAME]
        for row, answer in zip(rows, answers, strict=True)
    ]


def table(
    t: Task,
    tests: list[Row],
    answers: dict[str, list[Row]],
    thresholds: list[float],
    chosen: float | None,
    weights: str,
) -> list[Row]:
    """confidence.csv: the checks alone first, with the two models alone, then the thresholds."""
    prices = params.load("teacher").teacher
    marks, found = score.marked(t, tests, answers), []
    for value in [0.0, *thresholds]:
        unsure = [answer[confidence.NAME] < value for answer in answers[STUDENT]]
        own = weights, f"{value:.4g}", "yes" if value == chosen else ""
        head = dict(zip(confidence.COLUMNS, own, strict=True))
        rows = cascade.table(t, tests, answers, marks, STUDENT, prices, unsure)
        found += [head | row for row in rows if row["who"] == "cascade" or not value]
    return found


def lines(rows: list[Row]) -> list[str]:
    """The table for the console, a line for each slice and threshold."""
    said = []
    for row in rows:
        of = int(row["rows"])
        shares = f"{percent(row['right'] / of)} right, {percent(row['sent'] / of)} sent on"
        who = row["who"]
        if who == "cascade":
            under = float(row["threshold"])
            who = f"under {row['threshold']}" if under else "checks alone"
            shares += f"; {cascade.verdict(row, rows)}"
        said.append(f"  {row['slice']}: {who}: {shares}{', chosen' if row['chosen'] else ''}")
    return said


def main() -> None:
    p, t = params.load("predict", "teacher"), settings.load()
    student = serve.student_folder(t)
    tests, recorded = predictions.tests(t), score.predictions(t)
    if "teacher" not in recorded:
        raise UserError("no teacher has answered the test rows: there is no cascade to choose for")
    valid, chats = map(list, zip(*validation(t), strict=True))
    batches = [chats, [t.messages("student", row) for row in tests]]
    grammars = [answering.quoting(t, p, rows) for rows in (valid, tests)]
    found = confidence.answers(student, batches, grammars, p.predict)
    right = [
        bool(score.mark(t, row, answer)["right"])
        for row, answer in zip(valid, found[0], strict=True)
    ]
    known = sure(t, valid, found[0])
    passing = [pair for pair in zip(known, right, strict=True) if pair[0]]
    chosen = confidence.best([x for x, _ in passing], [x for _, x in passing])
    wrong = sum(not one for _, one in passing)
    said = f"{count(len(valid), 'validation row')}, {len(passing):,} pass the checks"
    print(f"confidence: {said}, of which {wrong:,} are not what the teacher says")
    values = confidence.thresholds(known)
    values = sorted({float(f"{x:.4g}") for x in [*values, *([chosen] if chosen else [])]})
    picked = float(f"{chosen:.4g}") if chosen else None
    asked = [{"id": row["id"], **one} for row, one in zip(tests, found[1], strict=True)]
    answers = {STUDENT: asked, "teacher": recorded["teacher"]}
    rows = table(t, tests, answers, values, picked, served.name(student))
    compare.write_csv(confidence.file(t), rows)
    print(*lines(rows), sep="\n")
    verdict = "no threshold tells right from wrong: the checks alone" if picked is None else picked
    print(f"confidence: {verdict} → {confidence.file(t)}")


if __name__ == "__main__":
    stage.run(main)
