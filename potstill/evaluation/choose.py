"""Which student ships: the aligned one only when it wins on rows that nobody trained on and no check gets worse."""

from collections import Counter
from typing import Any

from potstill.checks import registry
from potstill.core.jsonl import Row, read_json
from potstill.evaluation import score, statistics
from potstill.task.settings import Task

ALPHA = 0.05  # the p-value of the exact McNemar test from which on a win may be luck


def compare(task: Task, rows: list[Row], sft: list[Row], dpo: list[Row]) -> dict[str, Any]:
    """Both models' answers to the same rows: {"rows", "sft" and "dpo" (rows right), "only_sft" and "only_dpo" (right where the other is not),
    "p" (exact McNemar), "checks": {name: {"sft", "dpo"}} (rows that fail it, those that cannot be read among them)}."""
    right: dict[str, list[bool]] = {}
    failed: dict[str, Counter[str]] = {}
    for model, answers in (("sft", sft), ("dpo", dpo)):
        both = list(zip(rows, answers, strict=True))
        if any(row["id"] != answer["id"] for row, answer in both):
            raise AssertionError(f"the answers of {model} are not those to the rows")
        right[model] = [score.mark(task, row, answer)["right"] for row, answer in both]
        found = [registry.verdicts(task, row, answer["answer"] or "") for row, answer in both]
        failed[model] = Counter(
            name for some in found for name in {one.name for one in some if one.passed is False}
        )
    pairs = list(zip(right["sft"], right["dpo"], strict=True))
    return {
        "rows": len(rows),
        "sft": sum(right["sft"]),
        "dpo": sum(right["dpo"]),
        "only_sft": sum(a and not b for a, b in pairs),
        "only_dpo": sum(b and not a for a, b in pairs),
        "p": float(f"{statistics.mcnemar(right['sft'], right['dpo']):.3g}"),
        "checks": {
            name: {model: failed[model][name] for model in failed}
            for name in sorted(failed["sft"] | failed["dpo"])
        },
    }


def on_tests(task: Task, tests: list[Row], answers: dict[str, list[Row]]) -> dict[str, Any]:
    """What was chosen (6-choice.json), with the same comparison on the headline's test rows, which decided nothing: "test"."""
    places = next(iter(score.by_slice(task, tests).values()))
    both = ([some[place] for place in places] for some in (tests, answers["sft"], answers["dpo"]))
    chosen: dict[str, Any] = read_json(task.data / "6-choice.json")
    return chosen | {"test": compare(task, *both)}


def lines(found: dict[str, Any]) -> str:
    """What on_tests found, as text."""
    test = found["test"]
    counts = f"right {test['sft']:,} → {test['dpo']:,} of {test['rows']:,}, p = {test['p']:.2g}"
    return f"ship {found['ship']}: {found['why']}\n      the test rows say: {counts}"


def verdict(found: dict[str, Any]) -> tuple[str, str]:
    """What ships, "sft" or "dpo", and why, by the comparison on the validation rows."""
    counts = f"right {found['sft']:,} → {found['dpo']:,} of {found['rows']:,} validation rows, p = {found['p']:.2g}"
    if found["dpo"] <= found["sft"]:
        return "sft", f"dpo is not better ({counts})"
    if found["p"] >= ALPHA:
        return "sft", f"dpo is better, but that may be luck ({counts}, expected below {ALPHA})"
    worse = [
        f"{name} {one['sft']:,} → {one['dpo']:,}"
        for name, one in found["checks"].items()
        if one["dpo"] > one["sft"]
    ]
    if worse:
        return "sft", f"dpo wins ({counts}), but fails a check on more rows: {', '.join(worse)}"
    return "dpo", f"dpo wins ({counts}), and no check fails on more rows"
