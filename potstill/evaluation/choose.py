"""Which student ships: the aligned one only when it wins on rows that nobody trained on, fails no
check on more rows than before, and has not taken to a phrase: what is rewarded by checks may learn
to say the same of everything, which no check of one answer sees."""

import json
from collections import Counter
from collections.abc import Iterable
from typing import Any

from potstill.checks import registry
from potstill.core.jsonl import Row, read_json, squeeze
from potstill.core.models import aligned
from potstill.evaluation import score, statistics
from potstill.evaluation.compare import pair
from potstill.task.settings import Task

PHRASE = 6  # characters
OVERUSED = 0.25  # of the answers, beyond the share of sft's and of the kept ones that have it


def compare(
    task: Task, rows: list[Row], sft: list[Row], other: list[Row], name: str = "dpo"
) -> dict[str, Any]:
    """Both models' answers to the same rows, the `other` one's of the alignment `name`, here dpo:
    {"rows", "sft" and "dpo" (rows right), "only_sft" and "only_dpo" (right where the other is not),
    "p" (exact McNemar), "checks": {name: {"sft", "dpo"}} (rows that fail it, those with an answer
    that cannot be parsed among them), "phrase": see `phrase`}."""
    right: dict[str, list[bool]] = {}
    failed: dict[str, Counter[str]] = {"sft": Counter(), name: Counter()}
    for model, answers in (("sft", sft), (name, other)):
        if [row["id"] for row in rows] != [answer["id"] for answer in answers]:
            raise AssertionError(f"the answers of {model} are not those to the rows")
        pairs = list(zip(rows, answers, strict=True))
        right[model] = [score.mark(task, row, answer)["right"] for row, answer in pairs]
        for row, answer in pairs:
            verdicts = registry.verdicts(task, row, answer["answer"] or "")
            failed[model].update({check.name for check in verdicts if check.passed is False})
    checks = {
        check: {model: failed[model][check] for model in failed}
        for check in sorted(failed["sft"] | failed[name])
    }
    both = pair("sft", name, right["sft"], right[name])
    alone = {"only_sft": both["broken"], f"only_{name}": both["fixed"], "p": both["p"]}
    counts = {model: sum(values) for model, values in right.items()}
    kept = [row["expected"] for row in rows if row.get("expected") is not None]
    texts = [[answer["answer"] or "" for answer in answers] for answers in (sft, other)]
    found = phrase({"kept": map(json_text, kept), **dict(zip(failed, texts, strict=True))}, name)
    return {"rows": len(rows), **counts, **alone, "checks": checks, "phrase": found}


def json_text(value: Any) -> str:
    """What is expected of a row, as the text of an answer."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def phrase(answers: dict[str, Iterable[str]], name: str) -> dict[str, Any] | None:
    """The PHRASE characters in a row whose share of the answers of the model `name` is furthest
    above that of sft's and of the kept ones, {"text", "kept", "sft", name}, with the shares; None
    where no answer is that long. White space and what JSON puts between texts do not count."""
    shares: dict[str, dict[str, float]] = {}
    for model, texts in answers.items():
        counts: Counter[str] = Counter()
        rows = 0
        for rows, text in enumerate(texts, 1):  # noqa: B007
            counts.update(pieces(text))
        shares[model] = {piece: count / rows for piece, count in counts.items()}
    own, others = shares[name], [shares[model] for model in shares if model != name]
    if not own:
        return None
    beyond = {piece: own[piece] - max(one.get(piece, 0) for one in others) for piece in own}
    text = max(sorted(beyond), key=beyond.__getitem__)
    return {
        "text": text,
        **{model: round(share.get(text, 0), 4) for model, share in shares.items()},
    }


def pieces(answer: str) -> set[str]:
    """Each PHRASE characters in a row of the texts of an answer, which may be JSON."""
    try:
        parsed: Any = json.loads(answer)
    except ValueError:
        parsed = answer
    found: set[str] = set()
    values = [parsed]
    while values:
        value = values.pop()
        if isinstance(value, dict | list):
            values += value.values() if isinstance(value, dict) else value
        elif isinstance(value, str):
            text = squeeze(value)
            found |= {text[i : i + PHRASE] for i in range(len(text) - PHRASE + 1)}
    return found


def verdict(found: dict[str, Any]) -> tuple[str, str]:
    """What ships, "sft" or the alignment, and why, by the comparison on the validation rows."""
    counts, name = _counts(found, "validation row"), str(aligned(found))
    if found[name] <= found["sft"]:
        return "sft", f"{name} has no more rows right ({counts})"
    if found["p"] >= statistics.ALPHA:
        below = f"expected below {statistics.ALPHA}"
        return "sft", f"{name} has more rows right, but {statistics.NOISE} ({counts}, {below})"
    worse = [
        f"{check} {rows['sft']:,} → {rows[name]:,}"
        for check, rows in found["checks"].items()
        if rows[name] > rows["sft"]
    ]
    if worse:
        return "sft", f"{name} wins ({counts}), but fails a check on more rows: {', '.join(worse)}"
    if (said := found["phrase"]) and said[name] - max(said["sft"], said["kept"]) > OVERUSED:
        shares = statistics.percents(said[name], said["sft"], said["kept"])
        has = "{} of its answers have “{}”, {} of sft's and {} of the kept ones".format(
            shares[0], said["text"], *shares[1:]
        )
        return "sft", f"{name} wins ({counts}), but has taken to a phrase: {has}"
    return name, f"{name} wins ({counts}), and no check fails on more rows"


def _counts(found: dict[str, Any], what: str) -> str:
    of, after = statistics.count(found["rows"], what), found[str(aligned(found))]
    return f"right {found['sft']:,} → {after:,} of {of}, p {statistics.p_text(found['p'])}"


def on_tests(task: Task, tests: list[Row], answers: dict[str, list[Row]]) -> dict[str, Any]:
    """What was chosen (6-choice.json), with "test": the same comparison on the test rows of the
    headline slice, which decided nothing."""
    places = next(iter(score.by_slice(task, tests).values()))
    name = str(aligned(answers))
    rows, sft, other = (
        [every[place] for place in places] for every in (tests, answers["sft"], answers[name])
    )
    test = compare(task, rows, sft, other, name)
    return read_json(task.data / "6-choice.json") | {"test": test}


def lines(found: dict[str, Any]) -> str:
    """What `on_tests` returned, as text."""
    tests = _counts(found["test"], "test row")
    return f"ship {found['ship']}: {found['why']}\n      on the test rows: {tests}"
