"""`make harvest`: what is taken and why, and that nothing is taken that is there or is tested."""

import sys
from pathlib import Path

import pytest

from potstill.commands import harvest
from potstill.core import jsonl
from potstill.core.errors import UserError
from potstill.task import settings
from tests.conftest import Project
from tests.serving.test_cascade import BAD, GOOD

SEEDS = Path("data/seeds.jsonl")


def text(number: int) -> str:
    """One of many texts that are not like each other."""
    return f"{jsonl.row_id({'n': number})} {jsonl.row_id({'m': number})} word{number}"


def row(text: str, *failed: str, by: str = "student", answer: str = BAD) -> jsonl.Row:
    more = {"student": BAD} if by == "teacher" else {}
    given = {"text": text}
    said = {"by": by, "answer": answer, "finish_reason": "stop", "failed": list(failed), **more}
    return {"at": "2026-11-30T01:00:00Z", "id": jsonl.row_id(given), "input": given, **said}


def run(monkeypatch: pytest.MonkeyPatch, *words: str) -> None:
    monkeypatch.setattr(sys, "argv", ["potstill harvest", *words])
    harvest.main()


def captured(*rows: jsonl.Row) -> None:
    jsonl.write_jsonl("data/captured/1.jsonl", rows)


def test_the_hard_ones_come_first_and_the_control_sample_is_a_fifth(
    project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    project.seeds(3, alike=False)
    before = SEEDS.read_bytes()
    captured(
        *(row(text(n), "grounded") for n in range(20)),
        *(row(text(n), "json_schema") for n in range(20, 23)),
        row(text(23), "grounded", by="teacher", answer=GOOD),
        row(text(24), "grounded", by="teacher", answer=BAD.replace(" ", "")),  # says the same
        *(row(text(n), answer=GOOD) for n in range(30, 50)),
        row(text(0), answer=GOOD),  # asked again, and then it was right
    )
    run(monkeypatch, "--rows", "10", "--dry", "1")
    dry = capsys.readouterr().out
    assert dry.endswith("harvest: 10 new seeds for data/seeds.jsonl; DRY=1: nothing was changed\n")
    assert SEEDS.read_bytes() == before
    run(monkeypatch, "--rows", "10")
    out = capsys.readouterr().out
    assert out.splitlines()[:6] == dry.splitlines()[:6]
    assert "harvest: 46 rows kept, 2026-11-30, with 45 different inputs" in out
    assert "  failed: grounded 22, json_schema 3\n" in out
    assert "harvest: 10 new seeds in data/seeds.jsonl, from line 4 on. Next:" in out
    assert SEEDS.read_bytes().startswith(before)
    why = [one["harvested"] for one in settings.load().seeds()[3:]]
    assert why[0] == "disagrees (grounded), 2026-11-30"
    assert (
        sorted(why[1:8])
        == ["failed (grounded), 2026-11-30"] * 4 + ["failed (json_schema), 2026-11-30"] * 3
    )
    assert why[8:] == ["control, 2026-11-30"] * 2
    run(monkeypatch, "--rows", "100")
    capsys.readouterr()
    assert len(settings.load().seeds()) == 3 + 24 + 20 + 1
    run(monkeypatch)
    assert "harvest: 0 new seeds for data/seeds.jsonl; nothing is new: nothing was changed" in (
        capsys.readouterr().out
    )


def test_what_is_there_or_tested_is_not_taken(
    project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seed, *_ = project.seeds(2, alike=False)
    gold = {"text": text(1), "gold": {"word": "word1", "length": 5}}
    jsonl.write_jsonl("data/gold.jsonl", [gold])
    turns = [{"role": "user", "content": text(2)}, {"role": "assistant", "content": "{}"}]
    jsonl.write_jsonl("data/own/messages.jsonl", [{"messages": turns}])
    captured(
        *(row(one, "grounded") for one in (seed["text"], seed["text"].replace("word0", "word9"))),
        *(row(one, "grounded") for one in (text(1), "  " + text(1), text(1) + "0")),
        row(text(2), "grounded"),
        row(text(3), "grounded"),
        row(text(3) + "4", "grounded"),
        row("a word " * 3000, "grounded"),
        row("\x07 bell", "grounded"),
    )
    run(monkeypatch)
    [head, counts] = [line.split() for line in capsys.readouterr().out.splitlines()[1:4:2]]
    assert (
        head == "inputs unusable there already like a test row like another beyond N taken".split()
    )
    assert counts == "failed 9 2 3 2 1 0 1".split()
    [new] = settings.load().seeds()[2:]
    assert new["text"] in (text(3), text(3) + "4")


def test_a_seed_gets_the_category_of_the_one_it_is_most_like(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = (project.dir / "task.yaml").read_text()
    listed = "{short: {match: word}, long: {match: word}, other: {match: nowhere}}"
    project.write("task.yaml", task + f"expand: {{rows: 9, categories: {listed}}}\n")
    lines = [("amber basil word1", "short"), ("cedar delta ember word2", "long")]
    lines.append(("nowhere", "other"))
    jsonl.write_jsonl(SEEDS, [{"text": one, "category": name} for one, name in lines])
    captured(row("cedar ember delta word7", "grounded"), row("no category", "grounded"))
    run(monkeypatch)
    [new] = settings.load().seeds()[3:]
    assert (new["text"], new["category"]) == ("cedar ember delta word7", "long")


def test_what_cannot_be_done_is_one_sentence(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match="data/captured has no rows: set serve.capture"):
        run(monkeypatch)
    with pytest.raises(UserError, match="N is 0, expected the number of new seeds"):
        run(monkeypatch, "--rows", "0")
    project.write("data/dvc.yaml", "stages: {rows: {cmd: x, outs: [seeds.jsonl]}}")
    with pytest.raises(UserError, match="data/seeds.jsonl is made by the stage rows"):
        run(monkeypatch)
