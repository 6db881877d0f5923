"""`make quote`: what the teacher would be asked and what that costs, before a call is made."""

from dataclasses import dataclass, fields
from types import SimpleNamespace

from potstill.core import errors, jsonl, params
from potstill.dataset import expand
from potstill.task import settings
from potstill.teacher import asking
from potstill.teacher.journal import Journal, Used
from potstill.teacher.limits import Budget, estimate


@dataclass
class Line:
    """One stage's requests, `held` of them in the journal. Tokens are those of the requests to be asked."""

    stage: str
    requests: int
    held: int
    tokens_in: float
    tokens_out: float

    @property
    def asked(self) -> int:
        return self.requests - self.held


def line(
    stage: str, questions: asking.Questions, journal: Journal | None, used: Used, room: int
) -> Line:
    """Counts one stage's requests against the journal; without one, all are to be asked."""
    ratio = used.prompt_tokens / used.estimated if used.estimated else 1.0
    answer = used.completion_tokens / used.answers if used.answers else room
    found = Line(stage, len(questions), 0, 0.0, 0.0)
    for _, _, request in questions:
        if journal is not None and journal.has(request.key, room):
            found.held += 1
        else:
            found.tokens_in += ratio * sum(
                estimate(message["content"]) for message in request.messages
            )
            found.tokens_out += answer
    return found


class Missing(Exception):
    """The journal lacks an answer that what comes next depends on."""


def expansion(
    t: settings.Task, p: SimpleNamespace, model: str, journal: Journal
) -> tuple[Line, list[jsonl.Row] | None, Used]:
    """The calls of expand, what it gives and what its calls in the journal took. It is replayed from the journal; where that
    lacks an answer, what it gives is None and the calls to ask are at most those that the ceiling expand.calls leaves."""
    own, prompts = Used(), 0.0
    found = Line("expand", p.expand.calls, 0, 0.0, 0.0)

    def ask(kind: str, asked: list[jsonl.Row]) -> list[jsonl.Row]:
        nonlocal prompts
        asker, its, schema = (t, p, None) if kind == "teacher" else expand.asking(t, p, kind)
        samples = p.generate.samples if kind == "teacher" else 1
        answers, missing = [], []
        for row, sample, request in asking.Questions(
            asker, asked, its, model, samples, kind, schema
        ):
            answer = journal.find(request.key, its.teacher.max_tokens)
            guess = sum(estimate(message["content"]) for message in request.messages)
            if answer is None:
                missing.append(guess)
            elif kind != "teacher":
                found.held += 1
                own.answers += 1
                own.prompt_tokens += answer["prompt_tokens"] or 0
                own.completion_tokens += answer["completion_tokens"] or 0
                own.seconds += answer.get("seconds") or 0.0
                own.estimated += answer.get("estimated") or 0
            answers.append({**(answer or {}), "id": row["id"], "sample": sample, "error": None})
        if missing:
            prompts = sum(missing) / len(missing)
            raise Missing
        return answers

    try:
        given, report = expand.grow(t, *expand.read(t, p), p, ask)
    except Missing:
        left = found.requests - found.held
        found.tokens_in = left * (own.prompt_tokens / own.answers if own.answers else prompts)
        found.tokens_out = left * (
            own.completion_tokens / own.answers if own.answers else p.expand.max_tokens
        )
        return found, None, own
    found.requests = report["calls"]
    return found, given, own


def seconds(asked: int, tokens: float, used: Used, p: SimpleNamespace) -> float | None:
    """How long so many requests take by the slowest of the limits; None when nothing is known of the endpoint's speed."""
    if not asked:
        return 0.0
    bounds = [used.seconds / used.answers * asked / p.teacher.concurrency] if used.answers else []
    bounds += [60 * asked / p.teacher.rpm] if p.teacher.rpm else []
    bounds += [60 * tokens / p.teacher.tpm] if p.teacher.tpm else []
    return max(bounds, default=None)


def quote(t: settings.Task, p: SimpleNamespace) -> str:
    """The quote as text."""
    p = t.settled(p)
    model = asking.model_name(t, p)
    journal = asking.open_journal(t)
    used = journal.used.get(model, Used())
    growth, given, own = expansion(t, p, model, journal)
    rest = Used(
        *(getattr(used, f.name) - getattr(own, f.name) for f in fields(Used))
    )  # replies of expand are much longer
    seeds = t.inputs(t.data / "seeds.jsonl")
    asks = {"generate": (seeds if given is None else given, p.generate.samples)}
    gold = t.data / "gold.jsonl"
    if gold.exists() and gold.stat().st_size:
        asks["predict-teacher"] = (jsonl.read_jsonl(gold, ("id", *t.config["input"])), 1)
    lines = [
        line(
            stage,
            asking.Questions(t, asked, p, model, samples),
            journal,
            rest,
            p.teacher.max_tokens,
        )
        for stage, (asked, samples) in asks.items()
    ]
    if given is None:  # what is still to be written is taken to be like the seeds
        one = line(
            "generate",
            asking.Questions(t, seeds, p, model, p.generate.samples),
            None,
            rest,
            p.teacher.max_tokens,
        )
        more = max(0, p.expand.rows - len(seeds))
        lines[0].requests += more * p.generate.samples
        lines[0].tokens_in += more / len(seeds) * one.tokens_in
        lines[0].tokens_out += more / len(seeds) * one.tokens_out
    lines = ([growth] if p.expand.rows else []) + lines
    budget = Budget(p.teacher.price_in, p.teacher.price_out, p.teacher.budget)
    out = [
        f"task {t.name}, teacher {model}",
        f"{'':16}{'requests':>10}{'in journal':>12}{'to ask':>10}{'tokens in':>14}{'tokens out':>14}{'cost':>12}",
    ]
    for one in lines:
        cost = budget.cost(one.tokens_in, one.tokens_out)
        out.append(
            f"{one.stage:16}{one.requests:10,}{one.held:12,}{one.asked:10,}{one.tokens_in:14,.0f}{one.tokens_out:14,.0f}"
            f"{'unknown' if cost is None else f'{cost:.2f}':>12}"
        )
    if given is None:
        out.append(
            f"expand: at most expand.calls {p.expand.calls:,} calls; generate: {p.expand.rows:,} inputs, most of them still to be "
            f"written, taken to be like the {len(seeds):,} seeds"
        )
    elif p.expand.rows:
        out.append(
            f"generate: the {len(given):,} inputs that expand gives, all of whose calls are in the journal"
        )
    asked = sum(one.asked for one in lines)
    tokens_in, tokens_out = (
        sum(one.tokens_in for one in lines),
        sum(one.tokens_out for one in lines),
    )
    time = seconds(asked, tokens_in + tokens_out, used, p)
    if used.answers:
        out.append(f"Tokens and time by the {used.answers:,} answers of this model in the journal.")
    elif asked:
        out.append(
            f"No answer of this model is in the journal yet: tokens in are guessed from the prompts' length, tokens out are the most, "
            f"teacher.max_tokens {p.teacher.max_tokens:,} each."
        )
    out.append(
        "time: " + ("unknown before the first answers" if time is None else f"about {_time(time)}")
    )
    cost, spent = (
        budget.cost(tokens_in, tokens_out),
        budget.cost(used.prompt_tokens + used.lost_in, used.completion_tokens + used.lost_out),
    )
    if cost is None or spent is None:
        out.append(
            "cost: unknown; set teacher.price_in and teacher.price_out, the prices of a million tokens"
        )
    else:
        out.append(f"cost: {cost:.2f} to come, {spent:.2f} spent so far")
        if p.teacher.budget is not None:
            room = p.teacher.budget - spent
            says = "covers it" if room >= cost else f"stops it after {max(0.0, room):.2f} more"
            out.append(f"budget: teacher.budget {p.teacher.budget:g} {says}")
    return "\n".join(out)


def _time(value: float) -> str:
    if value < 100:
        return f"{value:.0f} s"
    return f"{value / 60:.0f} min" if value < 6000 else f"{value / 3600:.1f} h"


def main() -> None:
    p = params.load(*asking.PARAMS, *expand.PARAMS, "samples")
    print(quote(settings.load(), p))


if __name__ == "__main__":
    errors.run(main)
