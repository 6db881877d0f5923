"""Says what the teacher would be asked, what that costs and how long it takes, before a call is
made."""

from collections.abc import Iterator
from dataclasses import astuple
from types import SimpleNamespace
from typing import NamedTuple

from potstill.checks import registry
from potstill.core import params
from potstill.core.errors import UserError
from potstill.core.jsonl import Row
from potstill.dataset import expand, filtering
from potstill.task import settings
from potstill.teacher import asking, batch, form, local
from potstill.teacher.journal import Journal, Used
from potstill.teacher.limits import BATCH, Budget

TABLE = "{:16}{:>10}{:>12}{:>10}{:>14}{:>14}{:>12}"


class Line(NamedTuple):
    """One stage's requests, those of them that the journal lacks, and the tokens of these."""

    stage: str
    requests: int
    asked: int
    tokens_in: float
    tokens_out: float


class Missing(Exception):
    """The journal lacks answers that what comes next depends on: the mean tokens of a prompt."""


def line(stage: str, asked: asking.Questions, journal: Journal, used: Used, more: int = 0) -> Line:
    """One stage's requests, with those of `more` further rows that are like the ones asked."""
    room, further = asked.params.max_tokens, more * asked.samples
    ratio = used.prompt_tokens / used.estimated if used.estimated else 1.0
    answer = used.completion_tokens / used.answers if used.answers else room
    guesses = [(request.guessed, journal.has(request.key, room)) for _, request in asked]
    missing = [guess for guess, held in guesses if not held]
    tokens = sum(missing) + more / len(asked.rows) * sum(guess for guess, _ in guesses)
    count = len(missing) + further
    return Line(stage, len(asked) + further, count, ratio * tokens, answer * count)


def expansion(
    t: settings.Task, p: SimpleNamespace, model: str, journal: Journal
) -> tuple[Line, list[Row] | None, dict[str, int], Used]:
    """The calls of expand, the inputs that it gives, how many it leaves out and why, and what its
    calls in the journal took. It is replayed from the journal; where that lacks an answer, the
    inputs are None and the calls to ask are at most those that the ceiling expand.calls leaves."""
    own = Used()

    def ask(kind: str, rows: list[Row]) -> list[Row]:
        task, its, schema, samples = t, p.teacher, None, p.generate.samples
        if kind != "teacher":
            task, its, schema, samples = *expand.asking(t, p, kind), 1
        answers, missing = [], []
        for row, request in asking.Questions(task, rows, its, model, samples, kind, schema):
            if answer := journal.find(request.key, its.max_tokens):
                if kind != "teacher":
                    own.add(answer)
                answers.append(answer | {"id": row["id"], "sample": request.sample, "error": None})
            else:
                missing.append(request.guessed)
        if missing:
            raise Missing(sum(missing) / len(missing))
        return answers

    try:
        inputs, report, dropped = expand.grow(t, t.seeds(), t.gold(), p, ask)
        calls = report["calls"]
        line = Line("expand", calls, calls - own.answers, 0.0, 0.0)
        return line, inputs, expand.counts(dropped), own
    except Missing as missing:
        left, count = p.expand.calls - own.answers, own.answers
        prompt = own.prompt_tokens / count if count else missing.args[0]
        reply = own.completion_tokens / count if count else p.expand.max_tokens
        return Line("expand", p.expand.calls, left, left * prompt, left * reply), None, {}, own


def quote(t: settings.Task, p: SimpleNamespace) -> str:
    """The quote as text. Raises UserError when the teacher has no name, a row does not fit, or
    there are no rows at all."""
    form.check(p.teacher)
    registry.validate(t)
    if not t.seeds():
        if not (own_rows := filtering.own_rows(t)):
            raise UserError(filtering.NOTHING)
        alone = f"{own_rows:,} rows of your own and no inputs for a teacher"
        return f"task {t.name}: {alone}: 0 requests, cost 0"
    model = asking.model_name(p.teacher)
    journal = asking.open_journal(t)
    used = journal.used[model]
    growth, inputs, left_out, own = expansion(t, p, model, journal)
    pairs = zip(astuple(used), astuple(own), strict=True)
    rest = Used(*(whole - part for whole, part in pairs))  # replies of expand are much longer
    rows, more, notes = inputs, 0, []
    if rows is None:
        rows, dropped = expand.distinct(t, expand.once(t.seeds())[0], t.gold(), p.near_duplicate)
        left_out = expand.counts(dropped)
        more = max(0, p.expand.rows - len(rows))
        notes = [
            f"expand: at most expand.calls {p.expand.calls:,} calls; generate: {p.expand.rows:,} "
            f"inputs, most of them still to be written, taken to be like the {len(rows):,} seeds"
        ]
    elif p.expand.rows:
        notes = [f"generate: the {len(rows):,} inputs that expand gives; the journal has its calls"]
    if not rows:
        raise UserError(f"{t.data}/seeds.jsonl: every seed is like a gold row: give other seeds")
    if p.teacher.model == "scripted":
        _, dropped = expand.distinct(t, rows, t.gold(), p.near_duplicate)
        left_out = expand.counts(dropped)
    if left_out:
        free = "not kept; a teacher that is paid is not asked for them"
        said = free if p.teacher.model == "scripted" else "left out, and not asked"
        notes.append(f"{said}: {expand.left_out(left_out)} (near_duplicate {p.near_duplicate:g})")
    lines = [growth] if p.expand.rows else []
    asked = asking.Questions(t, rows, p.teacher, model, p.generate.samples)
    lines.append(line("generate", asked, journal, rest, more))
    if gold := t.gold():
        asked = asking.Questions(t, gold, p.teacher, model, 1)
        lines.append(line("ask_teacher", asked, journal, rest))
    if why := form.copies(p.teacher, p.generate.samples):
        notes.append(f"generate: {why}")
    text = [f"task {t.name}, teacher {model}", *_text(lines, notes, used, p.teacher)]
    return "\n".join(text)


def _text(lines: list[Line], notes: list[str], used: Used, p: SimpleNamespace) -> Iterator[str]:
    budget = Budget(p.price_in, p.price_out, None, getattr(p, "price_cached", None))
    if local.is_local(p.model) and budget.cost(0, 0) is None:
        budget = Budget(0.0, 0.0, None)
    yield TABLE.format("", "requests", "in journal", "to ask", "tokens in", "tokens out", "cost")
    in_batches, costs = asking.in_batches(p), []
    for stage, requests, asked, *tokens in lines:
        share = BATCH if in_batches and stage != "expand" else 1
        cost = budget.cost(*(share * count for count in tokens))
        costs.append(cost or 0.0)
        counts = (f"{count:,.0f}" for count in (requests, requests - asked, asked, *tokens))
        yield TABLE.format(stage, *counts, "unknown" if cost is None else f"{cost:.2f}")
    yield from notes
    asked, *tokens = (sum(column) for column in list(zip(*lines, strict=True))[2:])
    if used.answers:
        yield f"Tokens and time by the {used.answers:,} answers of this model in the journal."
    elif asked:
        yield (
            "No answer of this model is in the journal yet: tokens in are guessed from the "
            f"prompts' length, tokens out are the most, teacher.max_tokens {p.max_tokens:,} each."
        )
    if in_batches and asked:
        yield (
            f"In batches of at most {batch.ROWS:,} requests, at half the prices; expand, the first "
            f"{asking.SMOKE} requests of a stage and its last few are asked directly."
        )
        yield "time: a day at most for each stage's batches"
    else:
        yield f"time: {_time(asked, sum(tokens), used, p)}"
    cost, spent = sum(costs), budget.cost(*used.billed())
    if spent is None:
        prices = "teacher.price_in and teacher.price_out, the prices of a million tokens"
        yield f"cost: unknown; set {prices}"
        return
    yield f"cost: {cost:.2f} to come, {spent:.2f} spent so far"
    if p.budget is not None:
        room = p.budget - spent
        says = "covers it" if room >= cost else f"stops it after {max(0.0, room):.2f} more"
        yield f"budget: teacher.budget {p.budget:g} {says}"


def _time(asked: int, tokens: float, used: Used, p: SimpleNamespace) -> str:
    """How long so many requests take by the slowest of the limits."""
    bounds = [used.seconds / used.answers * asked / p.concurrency] if used.answers else []
    bounds += [60 * asked / p.rpm] if p.rpm else []
    bounds += [60 * tokens / p.tpm] if p.tpm else []
    if asked and not bounds:
        return "unknown before the first answers"
    time = max(bounds) if asked else 0.0
    if time < 100:
        return f"about {time:.0f} s"
    return f"about {time / 60:.0f} min" if time < 6000 else f"about {time / 3600:.1f} h"


def main() -> None:
    params.check()
    p = params.load("near_duplicate", "expand", "generate", "teacher")
    print(quote(settings.load(), p))
