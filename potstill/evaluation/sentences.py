"""What a result says, in sentences: the same ones on the page and at the console."""

from collections.abc import Iterable, Mapping
from typing import Any

from potstill.evaluation import score
from potstill.evaluation.statistics import NOISE, count, difference, p_text, percents

IS_RIGHT = {  # of one row, of several: by what their share is called
    "accuracy": ("is right", "are right"),
    "agreement": ("agrees with the teacher", "agree with the teacher"),
    "pass_rate": ("passes every check", "pass every check"),
}
UNTRAINED = {"examples": "Shown a few examples", "base": "Asked with the teacher's prompt"}
TOO_LITTLE = "These rows cannot tell whether the training helped."
LEAST = 6  # rows: the exact McNemar test shows nothing on fewer

Pair = Mapping[str, Any]  # a row of pairs.csv; its values may be the texts that stand there


def headline(found: Mapping[str, Any], name: str | None) -> str:
    """The result, of metrics.json; `name` is that of the headline slice, None for all test rows."""
    base, student = found["base"], found[score.student(found)]
    before, after = percents(score.headline(base), score.headline(student))
    rows = count(found["rows"], "test row") + (f" of {name}" if name else "")
    right = IS_RIGHT[score.word_of(base)][found["rows"] != 1]
    return f"{after} of the {rows} {right} after the training. Before it, {before}."


def gain(
    found: Mapping[str, Any], pairs: Iterable[Pair], lowest: float | None
) -> tuple[str, str] | None:
    """What the training brought, and the numbers that say so, where the student is not shown to be
    better than the untrained model: with examples in its prompt or without, whichever has more rows
    right. None where it is. `found` is metrics.json, `lowest` the share that the gate asks for."""
    name = score.student(found)
    against = {str(row["against"]): row for row in pairs if row["model"] == name}
    shares = {model: score.headline(found[model]) for model in (*UNTRAINED, name) if model in found}
    untrained = max((model for model in UNTRAINED if model in against), key=shares.__getitem__)
    before, after = shares[untrained], shares[name]
    p = float(against[untrained]["p"])
    verdict = difference(p, after > before)
    if verdict == "better":
        return None
    bars = {} if lowest is None else {"gate.min_accuracy asks for": lowest}
    if "teacher" in found:
        bars["the teacher has"] = score.headline(found["teacher"])
    met = next((bar for bar, share in bars.items() if before and before >= share), None)
    texts = percents(before, after, *bars.values())
    why = f"{UNTRAINED[untrained]}, the untrained model has {texts[0]}, the student {texts[1]} "
    why += f"(p {p_text(p)})"
    student = found[name]
    if not student["right"] + student["wrong"]:
        return TOO_LITTLE, "The checks have nothing to judge the student's answers by."
    if not after and verdict != "worse":
        none = f"no test row {IS_RIGHT[score.word_of(student)][0]}"
        return f"The training achieved nothing: {none}.", f"{why}."
    if met and found["rows"] >= LEAST:
        bar = texts[2 + list(bars).index(met)]
        return "No training is needed.", f"{why}; {met} {bar}."
    if verdict == "worse":
        return "The training made the model worse.", f"{why}."
    return TOO_LITTLE, f"{why}."


def teacher(found: Mapping[str, Any], pairs: Iterable[Pair]) -> str:
    """How the student stands to its teacher, after the teacher's share. Where the labels are the
    teacher's own answers, that is no comparison of the two."""
    name = score.student(found)
    if score.word_of(found[name]) == "agreement":
        return "the teacher itself, whose answers are the labels"
    [p] = (float(row["p"]) for row in pairs if (row["model"], row["against"]) == (name, "teacher"))
    verdict = difference(p, score.headline(found[name]) > score.headline(found["teacher"]))
    than = "the difference from the student is" if verdict == NOISE else "the student is"
    return f"the teacher itself: {than} {verdict} (p {p_text(p)})"


def labels(found: Mapping[str, Any]) -> str:
    """What the answers were compared with."""
    word = score.word_of(found["base"])
    if word == "pass_rate":
        return "No answer is compared with an expected one: the task's checks alone judge."
    if word == "accuracy":
        return "The labels are your own, never the teacher's."
    said = "The labels are the teacher's own answers, as they were kept"
    if "teacher" not in found or score.headline(found["teacher"]) == 1:
        return f"{said}: the teacher is right by definition."
    return f"{said}. Its first answer to a row is wrong where another was kept, or a check fails."
