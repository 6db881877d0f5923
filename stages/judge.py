"""5-predictions/ → 5-judge/: which of two models' answers a language model calls better, where the
task has prompts/judge.md and judge.model names the judge; what people ranked (`make review`) is
judged, too. verdicts.jsonl is there only when somebody judged.

verdicts.jsonl: {"row": "…", "model": "sft", "against": "teacher", "a": "…", "b": "…", "verdict": 1}
                1 for `model`, -1 for the other, 0 for a tie, null unscored
report.json:    {"stage": "judge", "model": null, "pairs": 0, "unscored": 0}
"""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from potstill.core import jsonl, params, stage
from potstill.core.jsonl import Row
from potstill.evaluation import judge, score
from potstill.task import settings
from potstill.teacher import asking


def main() -> None:
    p = params.load("judge", "teacher")
    t = settings.load()
    found: list[Row] = []
    asks = p.judge.model is not None and Path("prompts", f"{judge.PROMPT}.md").is_file()
    if asks:
        asked = judge.all_questions(t, score.predictions(t))
        own = SimpleNamespace(**vars(p.teacher) | {"model": p.judge.model, "temperature": 0.0})
        how: dict[str, Any] = {"kind": judge.PROMPT, "schema": judge.SCHEMA}
        found = judge.verdicts(asked, list(asking.answer_rows(t, asked, own, samples=1, **how)))
    lost = sum(row["verdict"] is None for row in found)
    folder = jsonl.fresh_folder(t.data / "5-judge")
    jsonl.write_some(folder / "verdicts.jsonl", found)
    report = {"stage": "judge", "model": p.judge.model if asks else None}
    jsonl.write_json(folder / "report.json", report | {"pairs": len(found), "unscored": lost})
    done = f"{p.judge.model}: {len(found):,} pairs in both orders, {lost:,} unscored → {folder}"
    off = "off (judge.model is null, or the task has no prompts/judge.md)"
    print(f"judge: {done if asks else off}")


if __name__ == "__main__":
    stage.run(main)
