"""`make profile`: params.yaml changes as told, all or nothing, and keeps its comments."""

import re
import sys
from pathlib import Path

import pytest

from potstill.commands import profile
from potstill.core import errors, params
from tests.conftest import ROOT, Project

PUBLISHED = {  # published.md, section A
    "model": "Qwen/Qwen3-0.6B",
    "tuner_type": "lora",
    "torch_dtype": "bfloat16",
    "num_train_epochs": 10,
    "per_device_train_batch_size": 20,
    "per_device_eval_batch_size": 20,
    "learning_rate": 0.0001,
    "lora_rank": 8,
    "lora_alpha": 32,
    "target_modules": "all-linear",
    "gradient_accumulation_steps": 16,
    "save_steps": 1,
    "save_total_limit": 2,
    "logging_steps": 2,
    "max_length": 2048,
    "warmup_ratio": 0.05,
    "dataloader_num_workers": 4,
}


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["profile", *arguments])
    profile.main()


def text() -> str:
    return Path("params.yaml").read_text(encoding="utf-8")


def given() -> dict[str, object]:
    return params.parse(text(), params.PATH)


def test_published_carries_the_recipe_and_keeps_the_comments(
    project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = text()
    run(monkeypatch, "published")
    out = capsys.readouterr().out.splitlines()
    assert {"learning_rate: 0.002 → 0.0001", "predict.max_tokens: null → 512"} < set(out)
    assert vars(params.load(*PUBLISHED)) == PUBLISHED
    predict = params.load("predict").predict
    expected = {"max_tokens": 512, "dtype": "bfloat16", "max_model_len": 4096, "grounded": False}
    assert vars(predict) == expected | {"shards": 1}
    assert [line.partition("#")[2] for line in text().splitlines()] == [
        line.partition("#")[2] for line in before.splitlines()
    ]
    run(monkeypatch, "cpu")  # the comment that a long revision moved is where it was
    assert text() == before
    run(monkeypatch, "cpu")
    last = capsys.readouterr().out.splitlines()[-1]
    source = Path(last.removeprefix("params.yaml: 0 values changed, now as in "))
    assert source.resolve() == ROOT / "profiles/cpu.yaml"


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"models": ["base", "sft", "dpo"]}, "models: [base, sft, dpo]   # what is compared;"),
        ({"predict": {"max_tokens": 64}}, "  max_tokens: 64           # longest prediction,"),
        ({"predict.max_tokens": 64}, "  max_tokens: 64           # longest prediction,"),
        ({"split.train_rows": 800}, "  train_rows: 800          # rows to train on,"),
        ({"generate": {"samples": 4}}, "  samples: 4               # answers to each input,"),
        ({"swift_args": {"a": [1, None]}}, "swift_args: {a: [1, null]} # further arguments"),
        ({"teacher": {"extra_body": {"top_p": 0.9}}}, "  extra_body: {top_p: 0.9} # further"),
        ({"rpo_alpha": None}, "rpo_alpha: null            # weight of the chosen"),
        ({"learning_rate": 0.00001}, "learning_rate: 1e-05       # above 0,"),
        ({"per_device_train_batch_size": 16}, "per_device_train_batch_size: 16   # rows a step"),
    ],
)
def test_every_other_line_stays_as_it_is(
    project: Project, changes: dict[str, object], line: str
) -> None:
    before = text()
    profile.apply(changes, params.PATH)
    pairs = list(zip(before.splitlines(), text().splitlines(), strict=True))
    assert len(pairs) == before.count("\n")
    [changed] = [new for old, new in pairs if old != new]
    assert changed.startswith(line)
    [(name, value)] = changes.items()
    section, _, key = name.partition(".")
    now = given()[section]
    expected = {key: value} if key else value
    if isinstance(now, dict) and isinstance(expected, dict):
        assert now == {**now, **expected}
    else:
        assert now == expected


def test_the_committed_parameters_are_the_cpu_profile(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    before = text()
    assert profile.apply(params.parse(Path("profiles/cpu.yaml").read_text(), ROOT), ROOT) == []
    assert text() == before
    assert params.load("lora_rank").lora_rank != 16  # `make exp S=lora_rank=16` changes something


PRESETS = {  # the published platform's; learning rate, epochs, batch, rank, alpha, dropout
    "standard": (1e-4, 3, 8, 8, 32, 0.05),
    "quality": (1e-4, 5, 16, 16, 64, 0.1),
    "fast": (1e-4, 2, 8, 4, 16, 0.05),
}


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_for_every_task(
    project: Project, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """`toy` has no profiles of its own. The six values change, and a task.yaml's arguments for the
    tiny base no longer count."""
    before = given()
    run(monkeypatch, name)
    names = (
        "learning_rate",
        "num_train_epochs",
        "per_device_train_batch_size",
        "lora_rank",
        "lora_alpha",
        "lora_dropout",
    )
    assert given() == before | dict(zip(names, PRESETS[name], strict=True)) | {"swift_args": {}}


def test_a_task_s_own_profile_wins(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    project.write("profiles/fast.yaml", "lora_rank: 2\n")
    run(monkeypatch, "fast")
    p = params.load("lora_rank", "num_train_epochs")
    assert (p.lora_rank, p.num_train_epochs) == (2, 3)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "nosuch",
            "task toy has no profile 'nosuch'; there are: cpu, deep, dotted, fast, flat, high,",
        ),
        ("", "task toy has no profile ''; there are: cpu,"),
        ("high", "profiles/high.yaml:2: lora_rank is 999, expected a whole number from 1 to 64"),
        ("odd", "profiles/odd.yaml:1: unknown parameter 'lora_rnk': did you mean lora_rank?"),
        ("deep", "profiles/deep.yaml:3: unknown parameter 'predict.dtyp': did you mean predict"),
        ("old", "profiles/old.yaml:1: unknown parameter 'task': known are expand,"),
        ("flat", "profiles/flat.yaml:1: predict is 3, expected a section: indented lines max_tok"),
        ("dotted", "profiles/dotted.yaml: unknown parameter 'seed.x': did you mean seed?"),
        ("number", "profiles/number.yaml:1: unknown parameter '3': known are"),
    ],
)
def test_a_mistake_changes_nothing(
    project: Project, monkeypatch: pytest.MonkeyPatch, name: str, expected: str
) -> None:
    for path, content in {
        "high": "seed: 1\nlora_rank: 999\n",
        "odd": "lora_rnk: 8\n",
        "deep": "seed: 1\npredict:\n  dtyp: auto\n",
        "old": "task: toy\n",
        "flat": "predict: 3\n",
        "dotted": "seed.x: 3\n",
        "number": "3: 8\n",
    }.items():
        project.write(f"profiles/{path}.yaml", content)
    before = text()
    with pytest.raises(errors.UserError, match=f"^{re.escape(expected)}"):
        run(monkeypatch, *filter(None, [name]))
    assert text() == before
