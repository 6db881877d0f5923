"""Preferences: to one prompt an answer that passes every check of the task, and one that is worse. They come from four sources:

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
from potstill.dataset.reviews import RANKS, Reviews, answer_hash
from potstill.task.settings import Task

PROMPT = "rejected"  # prompts/rejected.md asks for the bad answers
GAP = 0.05  # the most that the mean lengths of chosen and rejected may differ, of the chosen's
NOT_JUDGED = (
    "spare",
    "duplicate",
    "near_duplicate",
    "refused",
    "finish_reason",
)  # dropped, but not for what was answered


class Candidate(NamedTuple):
    """What may become a pair: a worse answer to the input `id`. `chosen` is None for the answer that is trained on; `fault` says why
    it is no pair, where that is known; of what a person `ranked` the checks need not find the worse one bad."""

    id: str
    rejected: str
    chosen: str | None = None
    fault: str | None = None
    ranked: bool = False


def asked(task: Task, lessons: list[Row], kept: list[Row], count: int) -> list[Row]:
    """The inputs of the first `count` training rows that the teacher answered, in the order of 4-train.jsonl: families and
    inputs of all kinds, and the same ones when there are more rows."""
    known = {row["id"]: row for row in kept}
    there = [known[row["id"]] for row in lessons if row["id"] in known]
    return [
        {name: row[name] for name in ("id", *task.config["input"])} | {"draw": 0}
        for row in there[:count]
    ]


def from_prompt(answers: list[Row]) -> list[Candidate]:
    """Candidates of 4-rejected.jsonl."""
    return [
        Candidate(row["id"], row["answer"] or "", fault="refused" if row["error"] else None)
        for row in answers
    ]


def from_teacher(dropped: list[Row]) -> list[Candidate]:
    """Candidates of 3-dropped.jsonl: what failed a check, or was rejected by a person."""
    names = [(row, row["reason"].partition(":")[0]) for row in dropped]
    return [
        Candidate(row["id"], row["answer"], ranked=name == "review")
        for row, name in names
        if name not in NOT_JUDGED
    ]


def from_student(samples: list[Row]) -> list[Candidate]:
    """Candidates of 4-samples.jsonl."""
    return [
        Candidate(
            row["id"], row["answer"], fault=None if row["finish_reason"] == "stop" else "cut off"
        )
        for row in samples
    ]


def from_person(said: Reviews, answers: list[Row]) -> list[Candidate]:
    """Candidates of reviews.jsonl, whose rankings name answers of 2-answers.jsonl by their hashes."""
    ids = {id for id, _, _ in said.rankings}
    texts = {
        (row["id"], answer_hash(row["answer"])): row["answer"]
        for row in answers
        if row["id"] in ids
    }
    found = []
    for (id, _, _), row in said.rankings.items():
        tie = row["verdict"] == "tie"
        better = 0 if tie else RANKS.index(row["verdict"])
        chosen, rejected = (
            texts.get((id, row["answers"][place])) for place in (better, 1 - better)
        )
        fault = "tie" if tie else "no longer there" if chosen is None or rejected is None else None
        found.append(Candidate(id, rejected or "", chosen, fault, ranked=True))
    return found


def made(
    task: Task, lessons: list[Row], kept: list[Row], sources: dict[str, list[Candidate]]
) -> tuple[list[Row], dict[str, Any]]:
    """The preference rows, and what became of the candidates of each source: {"pairs", "sources": {name: {"in", "pairs", "dropped"}},
    "chars": {"before", "after"}}, the mean lengths in characters before and after they were balanced.

    The prompt is the one that the student sees. Of one input each source gives one pair, the first. `as good`: the checks find
    nothing against the worse answer, which must be like the chosen where the task compares answers with what is expected.
    """
    trained = {row["id"]: row["messages"] for row in lessons}
    inputs = {row["id"]: row for row in kept if row["id"] in trained}
    found: list[Row] = []
    dropped: dict[str, Counter[str]] = {name: Counter() for name in sources}
    there: dict[str, set[str]] = {}  # by id: what is rejected already, without white space
    for name, candidates in sources.items():
        done: set[str] = set()
        for one in candidates:
            row, texts = inputs.get(one.id), there.setdefault(one.id, set())
            worse = _as_trained(task, one.rejected)
            reason = one.fault or (
                "not trained on" if one.id not in trained else "own row" if row is None else None
            )
            if row is not None and reason is None:
                *prompt, best = trained[one.id]
                chosen = best["content"] if one.chosen is None else _as_trained(task, one.chosen)
                reason = _against(task, row, chosen, worse, one.ranked) or (
                    "spare" if one.id in done else None
                )
                reason = reason or ("twice" if squeeze(worse) in texts else None)
            if reason:
                dropped[name][reason] += 1
                continue
            pair = {"id": one.id, "sample": len(texts), "source": name, "prompt": prompt}
            found.append({**pair, "chosen": chosen, "rejected": worse})
            done.add(one.id)
            texts.add(squeeze(worse))
    level = balanced(found)
    for row in found:
        dropped[row["source"]]["length"] += 1
    for row in level:
        dropped[row["source"]]["length"] -= 1
    count = Counter(row["source"] for row in level)
    listed: dict[str, Any] = {
        name: {
            "in": len(sources[name]),
            "pairs": count[name],
            "dropped": dict((+dropped[name]).most_common()),
        }
        for name in sources
    }
    if any(one["in"] != one["pairs"] + sum(one["dropped"].values()) for one in listed.values()):
        raise AssertionError(f"candidates are unaccounted for: {listed}")
    chars = {"before": lengths(found), "after": lengths(level)}
    return level, {"stage": "pairs", "pairs": len(level), "sources": listed, "chars": chars}


def _as_trained(task: Task, text: str) -> str:
    """The answer in the form of what is trained on, objects as compact JSON: else the spaces would tell which is which."""
    parsed, _ = registry.parse(task, text)
    return (
        json.dumps(parsed, ensure_ascii=False, separators=(",", ":"))
        if isinstance(parsed, dict)
        else text
    )


def _against(task: Task, row: Row, chosen: str, worse: str, ranked: bool) -> str | None:
    """Why this is no pair of a good and a worse answer, or None."""
    if not squeeze(worse):
        return "empty"
    if registry.check(task, row, chosen, training=True):
        return "chosen fails"
    if squeeze(worse) == squeeze(chosen):
        return "as good"
    expected = {**row, "expected": row["output"]}  # what is kept is what exact_match expects
    if not ranked and not registry.check(task, expected, worse, training=True):
        return "as good"
    return None


def balanced(found: list[Row]) -> list[Row]:
    """The pairs but for those that make one side the longer: while the mean lengths differ by more than GAP, the pair that differs
    most in that direction is left out. Else an alignment learns length before anything else (Park et al. 2024, arXiv:2403.19159)."""
    off = [len(row["chosen"]) - len(row["rejected"]) for row in found]
    order = sorted(range(len(found)), key=lambda place: off[place])
    excess, chosen = sum(off), sum(len(row["chosen"]) for row in found)
    while order and abs(excess) > GAP * chosen:
        place = order.pop(0 if excess < 0 else -1)
        excess -= off[place]
        chosen -= len(found[place]["chosen"])
    return [found[place] for place in sorted(order)]


def lengths(found: list[Row]) -> dict[str, Any]:
    """How many pairs there are, and the mean length of either side, in characters; null where there are none."""
    sides = ("chosen", "rejected")
    means = {
        side: round(fmean(len(row[side]) for row in found), 1) if found else None for side in sides
    }
    return {"pairs": len(found), **means}


def table(report: dict[str, Any]) -> list[str]:
    """The report in lines."""
    lines = [f"{'source':10}{'in':>8}{'pairs':>8}  dropped"]
    for name, one in report["sources"].items():
        why = ", ".join(f"{count:,} {reason}" for reason, count in one["dropped"].items())
        lines.append(f"{name:10}{one['in']:8,}{one['pairs']:8,}  {why}".rstrip())
    before, after = (report["chars"][when] for when in ("before", "after"))
    if before["pairs"]:
        means = [f"{one['chosen']} to {one['rejected']}" for one in (before, after)]
        lines.append(f"characters, chosen to rejected: {means[0]}; balanced: {means[1]}")
    return lines
