"""`make quote`: what the teacher would be asked and what that costs, before a call is made."""

from dataclasses import dataclass
from types import SimpleNamespace

from potstill import errors, params, rows, task, teacher
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


def line(stage: str, questions: teacher.Questions, journal: Journal, used: Used, room: int) -> Line:
    """Counts one stage's requests against the journal."""
    ratio = used.prompt_tokens / used.estimated if used.estimated else 1.0
    answer = used.completion_tokens / used.answers if used.answers else room
    found = Line(stage, len(questions), 0, 0.0, 0.0)
    for _, _, request in questions:
        if journal.has(request.key, room):
            found.held += 1
        else:
            found.tokens_in += ratio * sum(estimate(message["content"]) for message in request.messages)
            found.tokens_out += answer
    return found


def seconds(asked: int, tokens: float, used: Used, p: SimpleNamespace) -> float | None:
    """How long so many requests take by the slowest of the limits; None when nothing is known of the endpoint's speed."""
    if not asked:
        return 0.0
    bounds = [used.seconds / used.answers * asked / p.teacher_concurrency] if used.answers else []
    bounds += [60 * asked / p.teacher_rpm] if p.teacher_rpm else []
    bounds += [60 * tokens / p.teacher_tpm] if p.teacher_tpm else []
    return max(bounds, default=None)


def quote(t: task.Task, p: SimpleNamespace) -> str:
    """The quote as text."""
    model = teacher.model_name(t, p)
    journal = teacher.open_journal(t)
    used = journal.used.get(model, Used())
    asks = {"generate": (t.inputs(t.data / "seeds.jsonl"), p.samples)}
    gold = t.data / "gold.jsonl"
    if gold.exists() and gold.stat().st_size:
        asks["predict-teacher"] = (rows.read_jsonl(gold, ("id", *t.config["input"])), 1)
    lines = [
        line(stage, teacher.Questions(t, asked, p, model, samples), journal, used, p.teacher_max_tokens)
        for stage, (asked, samples) in asks.items()
    ]
    budget = Budget(p.teacher_price_in, p.teacher_price_out, p.teacher_budget)
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
    asked = sum(one.asked for one in lines)
    tokens_in, tokens_out = sum(one.tokens_in for one in lines), sum(one.tokens_out for one in lines)
    time = seconds(asked, tokens_in + tokens_out, used, p)
    if used.answers:
        out.append(f"Tokens and time by the {used.answers:,} answers of this model in the journal.")
    elif asked:
        out.append(
            f"No answer of this model is in the journal yet: tokens in are guessed from the prompts' length, tokens out are the most, "
            f"teacher_max_tokens {p.teacher_max_tokens:,} each."
        )
    out.append("time: " + ("unknown before the first answers" if time is None else f"about {_time(time)}"))
    cost, spent = (
        budget.cost(tokens_in, tokens_out),
        budget.cost(used.prompt_tokens + used.lost_in, used.completion_tokens + used.lost_out),
    )
    if cost is None or spent is None:
        out.append("cost: unknown; set teacher_price_in and teacher_price_out, the prices of a million tokens")
    else:
        out.append(f"cost: {cost:.2f} to come, {spent:.2f} spent so far")
        if p.teacher_budget is not None:
            room = p.teacher_budget - spent
            says = "covers it" if room >= cost else f"stops it after {max(0.0, room):.2f} more"
            out.append(f"budget: teacher_budget {p.teacher_budget:g} {says}")
    return "\n".join(out)


def _time(value: float) -> str:
    if value < 100:
        return f"{value:.0f} s"
    return f"{value / 60:.0f} min" if value < 6000 else f"{value / 3600:.1f} h"


def main() -> None:
    p = params.load("task", *teacher.PARAMS, "samples")
    print(quote(task.load(p.task), p))


if __name__ == "__main__":
    errors.run(main)
