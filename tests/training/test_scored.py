"""The best checkpoint by the task's checks: which one ships, when training stops."""

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from potstill.core import jsonl
from potstill.core.errors import UserError
from potstill.dataset import frozen
from potstill.task import settings
from potstill.training import run, scored, swift
from tests import fakes
from tests.conftest import ROOT, Project
from tests.training import test_sft as sft


def log(*shares: float) -> list[jsonl.Row]:
    points = [{"step": 10 * (i + 1), "accuracy": share} for i, share in enumerate(shares)]
    return [{"step": 5, "loss": 1.0}, *points, {"step": 10, "eval_loss": 2.0}]


@pytest.mark.parametrize(
    ("shares", "best", "exhausted"),
    [
        ((0.5,), 10, None),
        ((0.5, 0.6, 0.6), 20, 1),  # of equal ones the earliest
        ((0.5, 0.4, 0.3), 10, 2),
        ((0.5, 0.4, 0.6), 30, None),
        ((0.0, 0.0), 10, 1),
    ],
)
def test_the_best_checkpoint_and_the_patience(
    shares: tuple[float, ...], best: int, exhausted: int | None
) -> None:
    top = scored.best(log(*shares))
    assert top and top["step"] == best
    most = exhausted or 0
    assert [scored.exhausted(log(*shares), given) for given in (None, most + 1)] == [False, False]
    assert not most or scored.exhausted(log(*shares), most)
    assert scored.best(log()) is None and not scored.exhausted(log(), 1)


def test_what_ships_in_a_sentence() -> None:
    assert scored.said(log(0.5, 0.75, 0.5), 30, 60, 8) == (
        "checkpoint 20 ships: 75.0% of 8 validation rows right, the last (step 30) 50.0%; stopped "
        "early, at step 30 of 60"
    )
    assert scored.said(log(0.5, 0.75), 20, 20, 8) == (
        "checkpoint 20 ships: 75.0% of 8 validation rows right"
    )


@pytest.fixture
def ready(project: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    """The toy project of test_sft, where checkpoints are scored."""
    monkeypatch.setenv("PYTHONPATH", fakes.install(project.dir / "fake"))
    fakes.model("models/tiny-base")
    for name in ("4-train", "4-valid"):
        rows = [{"id": name, "messages": sft.MESSAGES}]
        jsonl.write_jsonl(project.dir / f"data/{name}.jsonl", rows)
    scoring(project, rows=1, patience=2)
    return project


def scoring(project: Project, **settings: object) -> None:
    project.write("data/4-scoring/report.json", json.dumps(settings))


def test_ms_swift_gets_the_callback_only_where_checkpoints_are_scored(ready: Project) -> None:
    p = SimpleNamespace(save_total_limit=1, save_steps=None)
    plain = sft.config(save_total_limit=1)
    given = sft.config(save_total_limit=1, more=scored.config(p, 80))
    plugin = given.pop("external_plugins")
    assert (ready.dir / plugin[0]).resolve() == scored.PLUGIN and scored.PLUGIN.is_file()
    own = {"callbacks": ["score_checkpoints"], "save_total_limit": 2, "save_steps": 8}
    assert given == plain | own
    p.save_steps = 3
    assert scored.config(p, 80)["save_steps"] == 3
    with pytest.raises(UserError, match="has callbacks, which Potstill sets itself"):
        sft.config(swift_args={"callbacks": ["lisa"]}, more=scored.config(p, 9))
    key = run.key(plain, scored.files())
    scoring(ready, rows=1, patience=3)
    assert run.key(plain) != run.key(plain, scored.files()) != key


def checkpoints(work: Path, steps: int, *shares: float) -> None:
    """Checkpoints of a training of `steps` steps, each with the log so far."""
    for i in range(len(shares)):
        path = fakes.checkpoint(work / "run", i + 1, steps)
        points = [{"step": j + 1, "accuracy": share} for j, share in enumerate(shares[: i + 1])]
        state = json.loads((path / "trainer_state.json").read_text())
        state["log_history"] = [*points, *fakes.LOG[: i + 1]]
        (path / "trainer_state.json").write_text(json.dumps(state))
        config = json.loads((path / "adapter_config.json").read_text())
        (path / "adapter_config.json").write_text(json.dumps(config | {"r": i + 1}))


@pytest.mark.parametrize(
    ("shares", "patience", "ships"),
    [((0.5, 0.6, 0.6, 0.1), None, 2), ((0.5, 0.6, 0.6, 0.1), 2, 2), ((0.5, 0.4, 0.4), 2, 1)],
)
def test_the_best_checkpoint_ships_with_the_whole_log(
    ready: Project,
    monkeypatch: pytest.MonkeyPatch,
    shares: tuple[float, ...],
    patience: int | None,
    ships: int,
) -> None:
    work, adapter = Path("work"), Path("models/sft/adapter")
    monkeypatch.setattr(swift, "run", lambda *_: checkpoints(work, 4, *shares))
    given = (sft.config(), work, adapter, "models/tiny-base")
    assert run.train(*given, patience)[0] == len(shares)
    assert json.loads((adapter / "adapter_config.json").read_text())["r"] == ships
    kept = jsonl.read_jsonl(adapter / "logging.jsonl")
    assert [row["accuracy"] for row in kept if "accuracy" in row] == list(shares)
    # Killed after its last checkpoint, a training that had stopped early trains no further
    ended = patience is not None and scored.exhausted(kept, patience)
    asked: list[Any] = []
    monkeypatch.setattr(swift, "run", lambda *config: asked.append(config))
    assert run.train(*given, patience)[0] == len(shares)
    assert len(asked) == (0 if ended else 1)
    shutil.rmtree(work / f"run/checkpoint-{ships}")
    with pytest.raises(UserError, match=f"checkpoint-{ships}, the best checkpoint, is damaged or"):
        run.train(*given, patience)


def test_without_patience_a_training_that_ended_early_is_no_result(
    ready: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(swift, "run", lambda *_: checkpoints(Path("work"), 4, 0.5, 0.4, 0.3))
    with pytest.raises(UserError, match="ended early"):
        run.train(sft.config(), Path("work"), Path("models/sft/adapter"), "models/tiny-base")


def train(project: Project, kill_at: Callable[[Path], bool] | None = None) -> list[jsonl.Row]:
    """The log of a real training, [] where it is killed."""
    process = subprocess.Popen(
        [sys.executable, "-m", "stages.sft"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if kill_at:
        while not any(map(kill_at, Path(".cache").glob("sft/*/run"))):
            assert process.poll() is None, process.communicate()[0]
            time.sleep(0.01)
        process.kill()
        process.communicate()
        return []
    out = process.communicate()[0]
    assert process.returncode == 0, out
    return jsonl.read_jsonl("models/sft/adapter/logging.jsonl")


@pytest.mark.slow
def test_scoring_changes_no_training_and_a_killed_one_keeps_its_scores(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The real ms-swift, which learns to repeat a digit, with dropout: killed on the way, it ends
    with the losses of one without scores, and what ships gives the answers that were counted."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    shutil.copytree(ROOT / "models/tiny-base", "models/tiny-base")
    task = (project.dir / "task.yaml").read_text()
    project.write("task.yaml", task[: task.index("checks:")] + "checks: [exact_match]\n")
    turns: list[dict[str, str]] = [
        {"role": role, "content": text.format(i % 5)}
        for i in range(48)
        for role, text in (("user", "say {0}"), ("assistant", "{0}{0}"))
    ]
    chats = [turns[2 * i : 2 * i + 2] for i in range(48)]
    lessons = [{"id": str(i), "messages": chat} for i, chat in enumerate(chats)]
    jsonl.write_jsonl("data/4-train.jsonl", lessons[:40])
    jsonl.write_jsonl("data/4-valid.jsonl", lessons[40:])
    project.set(save_steps=2, eval_steps=4, logging_steps=1, max_length=64, lora_rank=4)
    project.set(num_train_epochs=3, lora_dropout=0.1, save_total_limit=1)
    scoring(project, rows=0)
    plain = train(project)
    texts = [(chat[:1], chat[1]["content"]) for chat in chats[40:]]
    judged = [
        {"id": str(i), "messages": asked, "answer": answer, "row": {"text": "", "expected": answer}}
        for i, (asked, answer) in enumerate(texts)
    ]
    jsonl.write_jsonl("data/4-scoring/rows.jsonl", judged)
    checks = frozen.freeze(settings.load())
    scoring(project, rows=8, patience=None, max_tokens=16, checks=checks)
    assert train(project, lambda folder: (folder / "checkpoint-6").exists()) == []
    found = train(project)
    assert [row for row in found if "accuracy" not in row] == plain
    points = scored.points(found)
    assert [row["step"] for row in points] == [2, 4, 6, 8, 10, 12, 14, 15]
    top = scored.best(found)
    assert top and top["accuracy"] > points[0]["accuracy"]
    assert right("models/sft/adapter", judged) == top["accuracy"]


def right(adapter: str, judged: list[jsonl.Row]) -> float:
    """The share of rows to which the adapter on the base gives the right answer, one by one."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained("models/tiny-base")
    base = AutoModelForCausalLM.from_pretrained("models/tiny-base", dtype="float32")
    model = PeftModel.from_pretrained(base, adapter).eval()
    count = 0
    for row in judged:
        options = {"add_generation_prompt": True, "return_tensors": "pt", "return_dict": True}
        ids = tokenizer.apply_chat_template(row["messages"], enable_thinking=False, **options)
        made = model.generate(**ids, max_new_tokens=16, do_sample=False)
        text = tokenizer.decode(made[0, ids.input_ids.shape[1] :], skip_special_tokens=True)
        count += text == row["answer"]
    return count / len(judged)
