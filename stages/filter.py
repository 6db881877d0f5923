"""1-inputs.jsonl, 2-answers.jsonl, own/reviews.jsonl → 3-kept.jsonl, 3-dropped.jsonl,
3-funnel.json: the best answer to each input that passes the task's checks, where no earlier input
is the same or nearly so. What people said of an answer counts before the checks. Where there is an
own/messages.jsonl, no answer need pass.

Kept:    {"id": "…", "text": "…", "family": "…", "sample": 0, "output": {"province": "云南省", …}}
Dropped: {"id": "…", "sample": 0, "reason": "json_schema: phone: required", "answer": "…"}
Funnel:  {"stage": "filter", "inputs": 4000, "in": 4000, "kept": 3600, "dropped": {"facts": 400}}
         and "unwrapped": 12, the answers whose JSON was in a fence or a text, where there are any
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

from potstill.checks import registry
from potstill.core import errors, jsonl, params, stage
from potstill.core.jsonl import Row
from potstill.dataset import filtering, reviews
from potstill.task import settings


def main() -> None:
    p = params.load("near_duplicate")
    t = settings.load()
    registry.validate(t)
    said = reviews.load(t.data / reviews.FILE)
    path = t.data / "2-answers.jsonl"
    workers = filtering.Workers(t, said, path.stat().st_size if path.is_file() else 0)
    inputs = t.inputs(t.data / "1-inputs.jsonl", "family", empty=True)
    each = filtering.samples(path, len(inputs)) if inputs else 0
    twins = filtering.twins(t, inputs, p.near_duplicate)
    own, not_asked = filtering.own_rows(t), filtering.not_asked(t)
    done: list[filtering.Sifted] = []

    def kept() -> Iterator[str]:
        for part in workers.do(filtering.jobs(path, each, inputs, twins) if inputs else ()):
            yield part.kept
            done.append(replace(part, kept=""))
        if not any(part.count for part in done):
            failed = f"no answer passes; the first fails by {done[0].first}" if done else ""
            if not own:
                raise errors.UserError(f"{path}: {failed}" if failed else filtering.NOTHING)
            said = failed or "no input was for a teacher"
            print(f"{path}: {said}: on with {own:,} rows of your own alone")

    jsonl.write_parts(t.data / "3-kept.jsonl", kept())
    jsonl.write_parts(t.data / "3-dropped.jsonl", (part.dropped for part in done))
    count, asked = sum(part.count for part in done), each * len(inputs)
    reasons = sum((part.reasons for part in done), Counter[str]())
    if asked != count + reasons.total():
        raise AssertionError(f"{asked} answers, but {count} kept and {reasons.total()} dropped")
    dropped = dict(reasons.most_common())
    funnel: Row = {"stage": "filter", "inputs": len(inputs), "in": asked}
    funnel |= {"not_asked": not_asked} if not_asked else {}
    if unwrapped := sum(part.unwrapped for part in done):
        funnel["unwrapped"] = unwrapped
    jsonl.write_json(t.data / "3-funnel.json", funnel | {"kept": count, "dropped": dropped})
    print(f"filter: {asked:,} answers = {count:,} kept + {reasons.total():,} dropped")
    if unwrapped:
        print(f"  {unwrapped:,} unwrapped: the JSON was in a fence, or in a text")
    left = asked
    for reason, number in dropped.items():
        left -= number
        print(f"  {reason:20}{-number:>12,}{left:>12,}")


if __name__ == "__main__":
    stage.run(main)
