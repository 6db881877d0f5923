"""seeds.jsonl → 1-inputs.jsonl: the seeds and, up to expand.rows, more inputs like them.

A row: {"id": "…", "text": "…", "category": "short", "family": "<id of the seed it grew from>"}
Beside it 1-expand/: report.json, what came of them by category; calls.jsonl, the teacher's raw
replies that they were taken from; dropped.jsonl, the inputs that are like an earlier one or like a
gold row, which nobody answers. The last two only where there are any.
"""

from functools import partial

from potstill.checks import registry
from potstill.core import jsonl, params, stage
from potstill.core.jsonl import Row
from potstill.dataset import expand
from potstill.task import settings
from potstill.teacher import asking


def main() -> None:
    p = params.load("near_duplicate", "expand", "teacher", "generate")
    p.teacher.batch = False  # it asks in small rounds, each of which goes by the last one
    t = settings.load()
    registry.validate(t)
    seeds, gold = t.seeds(), t.gold()
    calls: list[Row] = []

    def ask(kind: str, asked: list[Row]) -> list[Row]:
        if kind == "teacher":
            share = 0.0 if calls else p.generate.good_share
            check = partial(registry.check_taught, t)
            samples = p.generate.samples
            return list(
                asking.answer_rows(t, asked, p.teacher, samples, check=check, good_share=share)
            )
        asker, own, schema = expand.asking(t, p, kind)
        replies = list(asking.answer_rows(asker, asked, own, 1, kind=kind, schema=schema))
        calls.extend(replies)
        return replies

    found, report, dropped = expand.grow(t, seeds, gold, p, ask)
    folder = jsonl.fresh_folder(t.data / "1-expand")
    jsonl.write_jsonl(t.data / "1-inputs.jsonl", found)
    jsonl.write_some(folder / "calls.jsonl", calls)
    jsonl.write_some(folder / "dropped.jsonl", dropped)
    jsonl.write_json(folder / "report.json", report)
    new = len(found) + len(dropped) - len(seeds)
    less = f" - {len(dropped):,} left out" if dropped else ""
    print(
        f"expand: {len(seeds):,} seeds + {new:,} new{less} = {len(found):,} inputs, "
        f"{report['calls']:,} calls"
    )
    if dropped:
        print(f"left out, and not asked: {expand.left_out(report['dropped'])}")
    if report["categories"]:
        print(*expand.table(report), sep="\n")


if __name__ == "__main__":
    stage.run(main)
