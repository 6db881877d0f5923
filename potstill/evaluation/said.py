"""What the stage `score` says of its results on the console."""

from collections.abc import Iterator
from typing import Any

from potstill.core.jsonl import Row
from potstill.evaluation import cascade, choose, compare, score, seeds


def lines(found: Row, tables: dict[str, list[Any]], cost: Row, fit: Row) -> Iterator[str]:
    """metrics.json, the tables by name, cost.json and fit.json, in the order of a reader's
    questions: how good, how sure, why, at what price."""
    yield score.table(found)
    yield compare.lines(tables["pairs"])
    yield f"sft: {seeds.said(tables['seeds']) if 'seeds' in tables else seeds.ONE}"
    for place in found["base"].get("macro_f1", {}):
        models = {
            m: of["macro_f1"]
            for m, of in found.items()
            if isinstance(of, dict) and "macro_f1" in of
        }
        shares = (f"{model} {of[place]:.3f}" for model, of in models.items())
        yield f"macro-F1 of {place}: {', '.join(shares)}"
    yield from map(compare.hop_line, tables["hops"])
    if "ship" in found:
        yield choose.lines(found["ship"])
    yield score.cost_line(cost)
    if "cascade" in tables:
        yield cascade.lines(tables["cascade"])
    yield f"fit: {fit['verdict']}; {fit['advice']} (advice only: the score decides)"
