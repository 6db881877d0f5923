"""Preferences: to one prompt an answer that passes every check of the task, and one that is worse.
They come from four sources:

prompt   what the teacher answers to a prompt for bad answers
teacher  answers of the teacher that failed the checks, beside the one that was kept
student  what the trained student draws to its own training inputs and gets wrong
person   two answers of the teacher that a person ranked (`make review`)
"""

import json
from collections import Counter
from statistics import fmean
from typing import Any, NamedTuple

from potstill.checks import registry
from potstill.core.jsonl import Row, squeeze
from potstill.dataset.reviews import Reviews, answer_hash
from potstill.task.settings import Task

PROMPT = "rejected"  # prompts/rejected.md asks for the bad answers
GAP = 0.05  # the most that the mean lengths of the sides may differ, as a share of the chosen's
# Reasons why an answer was dropped that are not for what it says.
NOT_JUDGED = "spare duplicate near_duplicate refused finish_reason".split()


class Candidate(NamedTuple):
    """What may become a pair: a worse answer to the input `id`. `chosen` is None for the answer
    that is trained on; `fault` says why it is no pair, where that is known; of what a person
    `ranked` the checks need not find the worse one bad."""

    id: str
    rejected: str
    chosen: str | None = None
    fault: str | None = None
    ranked: bool = False


def asked(task: Task, lessons: list[Row], kept: list[Row], count: int) -> list[Row]:
    """The inputs of the first `count` training rows that the teacher answered, in the order of
    4-train.jsonl: families and inputs of all kinds, and the same ones when there are more rows."""
    by_id = {row["id"]: row for row in kept}
    rows = [by_id[lesson["id"]] for lesson in lessons if lesson["id"] in by_id]
    names = ("id", *task.config["input"])
    return [{name: row[name] for name in names} | {"draw": 0} for row in rows[:count]]


def from_prompt(answers: list[Row]) -> list[Candidate]:
    """Candidates of 4-pairs/rejected.jsonl."""
    return [
        Candidate(row["id"], row["answer"] or "", fault="refused" if row["error"] else None)
        for row in answers
    ]


def from_teacher(dropped: list[Row]) -> list[Candidate]:
    """Candidates of 3-dropped.jsonl: what failed a check, or was rejected by a person."""
    return [
        Candidate(row["id"], row["answer"], ranked=name == "review")
        for row in dropped
        if (name := row["reason"].partition(":")[0]) not in NOT_JUDGED
    ]


def from_student(samples: list[Row]) -> list[Candidate]:
    """Candidates of 4-samples/samples.jsonl."""
    faults = {"stop": None}
    return [
        Candidate(row["id"], row["answer"], fault=faults.get(row["finish_reason"], "cut off"))
        for row in samples
    ]


def from_person(said: Reviews, answers: list[Row]) -> list[Candidate]:
    """Candidates of own/reviews.jsonl, whose rankings name answers of 2-answers.jsonl by their
    hashes."""
    ids = {id for id, _, _ in said.rankings}
    ranked = [row for row in answers if row["id"] in ids]
    texts = {(row["id"], answer_hash(row["answer"])): row["answer"] for row in ranked}
    candidates = []
    for row in said.rankings.values():
        a, b = (texts.get((row["id"], hash)) for hash in row["answers"])
        chosen, rejected = (b, a) if row["verdict"] == "b" else (a, b)
        lost = "no longer there" if a is None or b is None else None
        fault = "tie" if row["verdict"] == "tie" else lost
        candidates.append(Candidate(row["id"], rejected or "", chosen, fault, ranked=True))
    return candidates


def made(
    task: Task, lessons: list[Row], kept: list[Row], sources: dict[str, list[Candidate]]
) -> tuple[list[Row], dict[str, Any]]:
    """The preference rows, and what became of the candidates of each source: {"pairs", "sources":
    {name: {"in", "pairs", "dropped"}}, "chars": {"before", "after"}}, the mean lengths in
    characters before and after they were balanced.

    The prompt is the one that the student sees. Of one input each source gives one pair, the
    first. `as good`: the checks find nothing against the worse answer, which must be like the
    chosen where the task compares answers with what is expected. Raises AssertionError when a
    candidate is unaccounted for.
    """
    trained = {row["id"]: row["messages"] for row in lessons}
    inputs = {row["id"]: row for row in kept}
    pairs: list[Row] = []
    dropped: dict[str, Counter[str]] = {name: Counter() for name in sources}
    rejected: dict[str, set[str]] = {}  # by id: the worse answers so far, without white space
    for source, candidates in sources.items():
        paired: set[str] = set()  # ids
        for candidate in candidates:
            id, better = candidate.id, candidate.chosen
            texts = rejected.setdefault(id, set())
            worse = _as_trained(task, candidate.rejected)
            fault = candidate.fault or ("not trained on" if id not in trained else None)
            fault = fault or ("own row" if id not in inputs else None)
            if not fault:
                *prompt, best = trained[id]
                chosen = best["content"] if better is None else _as_trained(task, better)
                fault = _against(task, inputs[id], chosen, worse, candidate.ranked)
            fault = fault or ("spare" if id in paired else None)
            fault = fault or ("twice" if squeeze(worse) in texts else None)
            if fault:
                dropped[source][fault] += 1
                continue
            pair = {"id": id, "sample": len(texts), "source": source, "prompt": prompt}
            pairs.append({**pair, "chosen": chosen, "rejected": worse})
            paired.add(id)
            texts.add(squeeze(worse))
    level = balanced(pairs)
    before, after = (Counter(row["source"] for row in rows) for rows in (pairs, level))
    report: dict[str, Any] = {}
    for name, candidates in sources.items():
        dropped[name]["length"] = before[name] - after[name]
        reasons = dict((+dropped[name]).most_common())
        report[name] = {"in": len(candidates), "pairs": after[name], "dropped": reasons}
        if len(candidates) != after[name] + sum(reasons.values()):
            raise AssertionError(f"candidates are unaccounted for: {name}: {report[name]}")
    chars = {"before": lengths(pairs), "after": lengths(level)}
    return level, {"stage": "pairs", "pairs": len(level), "sources": report, "chars": chars}


def _as_trained(task: Task, text: str) -> str:
    """The answer in the form of what is trained on, objects as compact JSON: else the spaces would
    tell which is which."""
    parsed, _ = registry.parse(task, text)
    if not isinstance(parsed, dict):
        return text.strip()
    return json.dumps(parsed, ensure_ascii=False, separators=(",", ":"))


def _against(task: Task, row: Row, chosen: str, worse: str, ranked: bool) -> str | None:
    """Why this is no pair of a good and a worse answer, or None."""
    if not squeeze(worse):
        return "empty"
    if registry.check(task, row, chosen, training=True):
        return "chosen fails"
    expected = {**row, "expected": row["output"]}  # what is kept is what exact_match expects
    same = squeeze(worse) == squeeze(chosen)
    if same or not (ranked or registry.check(task, expected, worse, training=True)):
        return "as good"
    return None


def balanced(pairs: list[Row]) -> list[Row]:
    """The pairs but for those that make one side the longer: while the mean lengths differ by more
    than GAP, the pair that differs most in that direction is left out. Else an alignment learns
    length before anything else (Park et al. 2024, arXiv:2403.19159)."""
    off = [len(row["chosen"]) - len(row["rejected"]) for row in pairs]
    order = sorted(range(len(pairs)), key=lambda place: off[place])
    excess, chosen = sum(off), sum(len(row["chosen"]) for row in pairs)
    while order and abs(excess) > GAP * chosen:
        place = order.pop(0 if excess < 0 else -1)
        excess -= off[place]
        chosen -= len(pairs[place]["chosen"])
    return [pairs[place] for place in sorted(order)]


def lengths(pairs: list[Row]) -> dict[str, Any]:
    """How many pairs there are, and the mean length of either side, in characters; null where
    there are none."""
    means = {
        side: round(fmean(len(row[side]) for row in pairs), 1) if pairs else None
        for side in ("chosen", "rejected")
    }
    return {"pairs": len(pairs), **means}


def table(report: dict[str, Any]) -> list[str]:
    """The report in lines."""
    lines = [f"{'source':10}{'in':>8}{'pairs':>8}  dropped"]
    for name, source in report["sources"].items():
        why = ", ".join(f"{count:,} {reason}" for reason, count in source["dropped"].items())
        lines.append(f"{name:10}{source['in']:8,}{source['pairs']:8,}  {why}".rstrip())
    before, after = report["chars"]["before"], report["chars"]["after"]
    if before["pairs"]:
        means = [f"{chars['chosen']} to {chars['rejected']}" for chars in (before, after)]
        lines.append(f"characters, chosen to rejected: {means[0]}; balanced: {means[1]}")
    return lines
