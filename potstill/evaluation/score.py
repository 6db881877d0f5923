"""Answers against what is expected: the numbers of reports/metrics.json and reports/cost.json."""

import json
import math
from collections.abc import Collection, Iterable, Mapping
from itertools import chain
from pathlib import Path
from statistics import fmean
from typing import Any

from potstill.checks import registry
from potstill.core import jsonl
from potstill.core.errors import UserError
from potstill.core.jsonl import Row
from potstill.core.models import ALIGNED, MODELS
from potstill.core.project import ROOT
from potstill.evaluation import labels, statistics
from potstill.evaluation.statistics import count, percent
from potstill.inference.predictions import folder
from potstill.task.settings import Task

Marks = dict[str, list[dict[str, Any]]]  # of each model, in the order of the test rows
ALWAYS = ("base", "sft", "teacher")  # the last not where all rows are a user's own
STUDENTS = ("sft", *ALIGNED)  # of which `choose` ships one
WORD_SAYS = {  # what the share of right rows is called, and how it reads after "75 %"
    "accuracy": "right",
    "agreement": "as the teacher answers",
    "pass_rate": "passing every check",
}
TOKENS = ("prompt_tokens", "completion_tokens")
WITHIN = (2, 5, 10)  # characters off the length asked for, as the published case reports them


def predictions(task: Task) -> dict[str, list[Row]]:
    """The answers to the test rows, of each model that has any. Raises UserError where those of the
    base, the sft student or, unless nothing was to be asked of it, the teacher are missing."""
    path = task.data / "2-answers.jsonl"
    needed = ALWAYS[:2] if path.is_file() and not path.stat().st_size else ALWAYS
    return _read({model: folder(task, model) / "test.jsonl" for model in MODELS}, needed)


def repeated(task: Task) -> dict[str, list[Row]]:
    """What should not differ from the predictions: the base predicted `again`, and each `adapter`
    on its base. Raises UserError where the first is missing."""
    paths = {
        "again": folder(task, "examples") / "again.jsonl",
        "adapter": task.data / "5-parity/sft.jsonl",
        **{f"adapter-{name}": task.data / f"5-parity/{name}.jsonl" for name in ALIGNED},
    }
    return _read(paths, ("again",))


def _read(paths: dict[str, Path], needed: tuple[str, ...]) -> dict[str, list[Row]]:
    there = {name: path for name, path in paths.items() if name in needed or path.is_file()}
    return {name: jsonl.read_jsonl(path, ("id", "answer", *TOKENS)) for name, path in there.items()}


def word(task: Task, tests: list[Row]) -> str:
    """What the share of right rows is: `pass_rate` where no answer is compared with an expected
    one, `agreement` where these are the teacher's (the test rows are held out of its answers), else
    `accuracy`."""
    if not any("exact_match" in entry for entry in task.config["checks"]):
        return "pass_rate"
    if any(row["slice"] == "held_out" for row in tests):
        return "agreement"
    return "accuracy" if any(row.get("expected") is not None for row in tests) else "pass_rate"


def student(found: Mapping[str, Any]) -> str:
    """The trained model whose numbers count, of those in metrics.json or the predictions: the one
    that ships, else the last of STUDENTS."""
    if "ship" in found:
        return str(found["ship"]["ship"])
    return [name for name in STUDENTS if name in found][-1]


def word_of(model: Mapping[str, Any]) -> str:
    """What the share of right rows is called in one model's object of metrics.json."""
    return next(name for name in WORD_SAYS if name in model)


def headline(model: Mapping[str, Any]) -> float:
    """The share of right rows in one model's object of metrics.json, whatever it is called; not
    rounded, as it stands there."""
    right = int(model["right"])
    return right / (right + model["wrong"] + model["unscored"])


def interval(model: Mapping[str, Any]) -> str:
    """The 95 % interval of that share."""
    return f"{model['low']:.1%} to {model['high']:.1%}"


def marked(task: Task, tests: list[Row], predictions: dict[str, list[Row]]) -> Marks:
    """Each model's marks. Raises UserError unless a model's predictions are those of the test rows,
    one for each, so that right + wrong + unscored = test rows."""
    ids = [test["id"] for test in tests]
    for model, answers in predictions.items():
        if [answer["id"] for answer in answers] != ids:
            stage = "ask_teacher" if model == "teacher" else f"predict@{model}"
            raise UserError(
                f"{folder(task, model)}/test.jsonl: {len(answers)} answers, expected one to each "
                f"of the {len(ids)} test rows, in their order: run `dvc repro -f {stage}`"
            )
    return {
        model: [
            mark(task, test, as_judged(task, model, answer))
            for test, answer in zip(tests, answers, strict=True)
        ]
        for model, answers in predictions.items()
    }


def as_judged(task: Task, model: str, answer: Row) -> Row:
    """The answer as the checks see it: a teacher's as it would be learnt, any other as it is."""
    return answer | {"answer": registry.taught(task, answer)} if model == "teacher" else answer


def by_slice(task: Task, tests: list[Row]) -> dict[str | None, list[int]]:
    """The numbers of the test rows in each slice; the first is the task's headline slice (None: all
    rows, when it names none). Raises UserError when no row is in it."""
    name = task.config.get("headline_slice")
    slices: dict[str | None, list[int]] = {name: []}
    for index, row in enumerate(tests):
        slices.setdefault(row["slice"] if name else None, []).append(index)
    if not slices[name]:
        found = f"the test rows' slices are {', '.join(map(str, list(slices)[1:]))}"
        raise UserError(f"task.yaml: headline_slice is {name!r}, but {found}")
    return slices


def metrics(task: Task, tests: list[Row], marks: Marks) -> dict[str, Any]:
    """One object a model: the rows of the task's headline slice (all rows when it names none),
    other slices inside it."""
    from jsonschema import Draft202012Validator

    slices, share = by_slice(task, tests), word(task, tests)
    first, headline = next(iter(slices.items()))
    known = labels.of([next(iter(marks.values()))[i] for i in headline])
    found: dict[str, Any] = {"rows": len(headline)}
    for model, every in marks.items():
        parts = {
            str(key): summary([every[i] for i in rows], share, labels.TEXT not in known)
            for key, rows in slices.items()
        }
        found[model] = parts.pop(str(first))
        del found[model]["rows"]
        if counted := labels.counts([every[i] for i in headline], known):
            means = {place: labels.macro_f1(count) for place, count in counted.items()}
            found[model]["macro_f1"] = means
        found[model] |= parts
    rules = json.loads((ROOT / "schemas/metrics.json").read_text(encoding="utf-8"))
    Draft202012Validator(rules).validate(found)
    return found


def mark(task: Task, test: Row, answer: Row) -> dict[str, Any]:
    """One answer's marks. `right`: it passes every check of the task. `unscored`: it fails none,
    but one has nothing to judge by. A task of JSON answers has more: whether the answer is JSON and
    obeys the schema, each expected key, and, of JSON that stands in a fence or a text, whether it
    would be right without that (`wrapped`)."""
    text, expected = answer["answer"] or "", test.get("expected")
    parsed, reason = registry.parse(task, text)
    verdicts = registry.verdicts(task, test, text)
    by_check = {verdict.name: verdict for verdict in reversed(verdicts)}
    passed = [verdict.passed for verdict in verdicts]
    failed = reason is not None or False in passed
    unscored = not failed and None in passed
    marks: dict[str, Any] = {"right": not failed and not unscored, "unscored": unscored}
    if json_schema := by_check.get("json_schema"):
        marks |= {"valid_json": reason is None, "schema_valid": bool(json_schema.passed)}
        if reason and (bare := registry.taught(task, {"answer": text})) != text:
            marks["wrapped"] = all(one.passed for one in registry.verdicts(task, test, bare))
    if isinstance(expected, dict):
        compared = registry.keys(task, parsed, expected)
        marks["keys"] = {key: one.same for key, one in compared.items()}
        marks["values"] = {key: one[:2] for key, one in compared.items()}
    elif expected is not None:
        marks["values"] = {labels.TEXT: (parsed, expected)}
    if length := by_check.get("length_within"):
        judged = reason is None and length.passed is not None
        marks["off"] = length.distance if judged else None
    if isinstance(expected, str):
        marks["texts"] = (text, expected)
    return marks | {name: answer[name] or 0 for name in TOKENS}


def by_key(marks: list[dict[str, Any]]) -> dict[str, list[bool]]:
    """Whether each expected key is right, in the rows that expect it."""
    right: dict[str, list[bool]] = {}
    for key, value in chain.from_iterable(mark.get("keys", {}).items() for mark in marks):
        right.setdefault(key, []).append(value)
    return right


def summary(marks: list[dict[str, Any]], share: str, free: bool = True) -> dict[str, Any]:
    """Counts, shares and means over rows: right + wrong + unscored = rows. `share` names the share
    of right rows, low to high is its 95 % interval; tokens are means a row. Expected texts that are
    not `free` are labels, whose overlap says nothing."""
    rows = len(marks)
    right, unscored = (sum(mark[name] for mark in marks) for name in ("right", "unscored"))
    low, high = (round(end, 4) for end in statistics.wilson(right, rows))
    found: dict[str, Any] = {"rows": rows, share: round(right / rows, 4), "low": low, "high": high}
    found |= {"right": right, "wrong": rows - right - unscored, "unscored": unscored}
    for name in ("valid_json", "schema_valid"):
        if name in marks[0]:
            found[name] = _mean(mark[name] for mark in marks)
    if wrapped := [mark["wrapped"] for mark in marks if "wrapped" in mark]:
        found["wrapped"] = {"rows": len(wrapped), "right": sum(wrapped)}
    if "off" in marks[0]:
        off = [math.inf if mark["off"] is None else mark["off"] for mark in marks]
        found["within"] = {str(most): _mean(value <= most for value in off) for most in WITHIN}
    texts = [mark["texts"] for mark in marks if "texts" in mark]
    if texts and free:
        found["overlap"] = overlap(*map(list, zip(*texts, strict=True)))
    if keys := by_key(marks):
        found["keys"] = {key: _mean(values) for key, values in keys.items()}
    return found | {name: _mean(mark[name] for mark in marks) for name in TOKENS}


def overlap(answers: list[str], expected: list[str]) -> dict[str, float]:
    """How much answers have of the expected texts, 0 to 1; it decides nothing. ROUGE-L (F-measure
    of the longest common subsequence, a mean over rows; Lin 2004), BLEU and chrF (of all rows at
    once, sacreBLEU's own), on characters: Chinese has no spaces between words."""
    from rapidfuzz.distance import LCSseq
    from sacrebleu.metrics import BLEU, CHRF

    pairs = zip(answers, expected, strict=True)
    rouge = (2 * LCSseq.similarity(a, b) / (len(a) + len(b)) if a or b else 1.0 for a, b in pairs)
    bleu = BLEU(tokenize="char").corpus_score(answers, [expected]).score / 100
    chrf = CHRF().corpus_score(answers, [expected]).score / 100
    found = {"rouge_l": fmean(rouge), "bleu": bleu, "chrf": chrf}
    return {name: round(min(value, 1.0), 4) for name, value in found.items()}


def _mean(values: Iterable[float]) -> float:
    return round(fmean(values), 4)


def table(found: dict[str, Any]) -> str:
    """A line a model of metrics.json, the teacher's first."""
    order = sorted((model for model in MODELS if model in found), key="teacher".__ne__)
    lines = []
    for model in order:
        of = found[model]
        line = f"{model:<8}{count(found['rows'], 'row'):>11} {of['right']:6,} right "
        line += f"{of['wrong']:6,} wrong {percent(headline(of)):>7} ({interval(of)})"
        unscored = f", {count(of['unscored'], 'row')} unscored" if of["unscored"] else ""
        lines.append(f"{line}  {MODELS[model].says}{unscored}")
        if wrapped := of.get("wrapped"):
            lines[-1] += f"; {wrapped['rows']:,} in a fence or a text, "
            lines[-1] += f"{wrapped['right']:,} of them right without it"
    return "\n".join(lines)


def bought(task: Task) -> list[Row]:
    """Every answer that the teacher was asked for: to the inputs, by expand and by pairs, which may
    have needed none."""
    needed = ("key", "error", *TOKENS)
    answers = jsonl.read_some(task.data / "2-answers.jsonl", *needed)
    for path in ("1-expand/calls.jsonl", "4-pairs/rejected.jsonl"):
        answers += jsonl.read_some(task.data / path, *needed)
    return answers


def cost(
    answers: list[Row],
    tests: list[Row],
    kept: int,
    price_in: float | None,
    price_out: float | None,
    price_cached: float | None = None,
) -> dict[str, Any]:
    """cost.json: what the teacher's answers took, `answers` of `bought` and those to the test rows,
    each request once. Prices are those of a million tokens (`price_cached` of a prompt's that the
    endpoint had cached; None: price_in), of which an answer cost its `price_share`; money is null
    while they are unknown.
    After `break_even_requests` to the teacher, each as dear as one to a test row at the full price,
    the answers bought for the distillation are paid back; machines are not counted."""
    bought = {row["key"]: row for row in [*answers, *tests] if row["error"] is None}.values()

    def tokens(rows: Collection[Row]) -> list[int]:
        return [sum(row[name] or 0 for row in rows) for name in TOKENS]

    def price(rows: Collection[Row], shares: bool) -> float | None:
        if any(row[name] is None for row in rows for name in TOKENS):
            return None
        sums = [
            sum((row.get(name) or 0) * (row.get("price_share", 1) if shares else 1) for row in rows)
            for name in (*TOKENS, "cached_tokens")
        ]
        return money_for(sums, price_in, price_out, price_cached)

    asked = [row for row in tests if row["error"] is None] or bought
    spent = price(bought, shares=True)
    each = price(asked, shares=False)
    request = None if spent is None or not asked else (each or 0.0) / len(asked)
    kept_row = None if spent is None or not kept else spent / kept
    money = {"spent": spent, "per_kept_row": kept_row, "per_request": request}
    return {
        "answers": len(bought),
        "kept_rows": kept,
        **dict(zip(TOKENS, tokens(bought), strict=True)),
        **{name: None if value is None else float(f"{value:.4g}") for name, value in money.items()},
        "break_even_requests": math.ceil(spent / request) if spent and request else None,
    }


def money_for(
    tokens: Iterable[float],
    price_in: float | None,
    price_out: float | None,
    price_cached: float | None,
) -> float | None:
    """What `tokens` of prompts, of answers, and of prompts that were cached cost, by prices as
    `cost` has them; None while they are unknown."""
    if price_in is None or price_out is None:
        return None
    prompt, completion, cached = tokens
    less = 0.0 if price_cached is None else price_in - price_cached
    return (prompt * price_in + completion * price_out - cached * less) / 1e6


def cost_line(found: dict[str, Any]) -> str:
    """The cost in one line."""
    answers = f"{count(found['answers'], 'answer')} of the teacher"
    tokens = f"{found['prompt_tokens']:,} + {found['completion_tokens']:,} tokens"
    spent, requests = found["spent"], found["break_even_requests"]
    if not found["answers"]:
        return "cost: nothing was asked of a teacher"
    if spent is None:
        return f"cost: {answers}, {tokens}, prices unknown (teacher.price_in, teacher.price_out)"
    kept = f"{found['per_kept_row']:g} a kept row" if found["kept_rows"] else "no row was kept"
    back = "" if requests is None else f"; paid back after {count(requests, 'request')}"
    return f"cost: {spent:g} for {answers} ({tokens}), {kept}{back}"
