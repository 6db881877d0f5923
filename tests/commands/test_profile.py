"""potstill.profile: params.yaml changes as told, all or nothing, and keeps its comments."""

import shutil
import sys
from pathlib import Path

import pytest

from potstill.commands import profile
from potstill.core import params
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


def test_published_carries_the_recipe_and_keeps_the_comments(
    project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, home in (("published", "tasks/address/profiles"), ("cpu", "profiles")):
        project.write(f"tasks/toy/profiles/{name}.yaml", (ROOT / f"{home}/{name}.yaml").read_text())
    path = project.dir / "params.yaml"
    before = path.read_text(encoding="utf-8")
    run(monkeypatch, "published")
    assert "learning_rate: 0.002 → 0.0001" in capsys.readouterr().out
    assert vars(params.load(*PUBLISHED)) == PUBLISHED
    after = path.read_text(encoding="utf-8")
    assert [line.partition("#")[2] for line in after.splitlines()] == [
        line.partition("#")[2] for line in before.splitlines()
    ]
    run(monkeypatch, "cpu", "toy")
    assert path.read_text(encoding="utf-8") == before
    profile.apply({"models": ["base", "sft", "dpo"]}, path)
    assert "\nmodels: [base, sft, dpo]           # " in path.read_text(encoding="utf-8")
    run(monkeypatch, "cpu", "toy")
    assert path.read_text(encoding="utf-8") == before
    run(monkeypatch, "cpu")
    assert capsys.readouterr().out.endswith(
        "params.yaml: 0 values changed, now as in tasks/toy/profiles/cpu.yaml\n"
    )


def test_the_committed_parameters_are_the_cpu_profile(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    cpu = params.parse((ROOT / "profiles/cpu.yaml").read_text(), ROOT)
    assert vars(params.load(*cpu)) == cpu
    assert cpu["lora_rank"] != 16  # `dvc exp run -S lora_rank=16` must change something


PRESETS = {  # the published platform's; learning rate, epochs, batch, rank, alpha, dropout
    "standard": (1e-4, 3, 8, 8, 32, 0.05),
    "quality": (1e-4, 5, 16, 16, 64, 0.1),
    "fast": (1e-4, 2, 8, 4, 16, 0.05),
}


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_for_every_task(
    project: Project, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """`toy` has no profiles of its own; the six values change, and a task.yaml's arguments for the tiny base no longer count."""
    shutil.copytree(ROOT / profile.SHARED, profile.SHARED)
    before = vars(params.load(*params.parse(Path("params.yaml").read_text(), Path())))
    run(monkeypatch, name)
    names = (
        "learning_rate",
        "num_train_epochs",
        "per_device_train_batch_size",
        "lora_rank",
        "lora_alpha",
    )
    six = dict(zip((*names, "lora_dropout"), PRESETS[name], strict=True))
    assert vars(params.load(*before)) == before | six | {"swift_args": {}}


def test_a_tasks_own_profile_wins(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(ROOT / profile.SHARED, profile.SHARED)
    project.write("tasks/toy/profiles/fast.yaml", "lora_rank: 2\n")
    run(monkeypatch, "fast")
    p = params.load("lora_rank", "num_train_epochs")
    assert (p.lora_rank, p.num_train_epochs) == (2, None)
    project.write("tasks/other/task.yaml", "checks: []\n")
    run(monkeypatch, "fast", "other")
    p = params.load("task", "lora_rank", "num_train_epochs")
    assert (p.task, p.lora_rank, p.num_train_epochs) == ("other", 4, 2)


def test_task_alone(
    project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    project.write("tasks/other/task.yaml", "checks: []\n")
    before = (project.dir / "params.yaml").read_text()
    run(monkeypatch, "--task", "other")
    assert (
        capsys.readouterr().out
        == "task: toy → other\nparams.yaml: 1 values changed, now as in tasks/other/task.yaml\n"
    )
    assert (project.dir / "params.yaml").read_text().split() == before.replace(
        "task: toy", "task: other"
    ).split()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (
            ["nosuch"],
            "error: task toy has no profile 'nosuch'; there are: cpu, fast, high, odd, quality, standard",
        ),
        (
            ["high"],
            "error: tasks/toy/profiles/high.yaml:2: lora_rank is 999, expected a whole number from 1 to 64",
        ),
        (
            ["odd"],
            "error: tasks/toy/profiles/odd.yaml:1: unknown parameter 'lora_rnk': did you mean lora_rank?",
        ),
        (["--task", "nosuch"], "error: params.yaml: there is no task 'nosuch'"),
        ([], "error: expected `python -m potstill.commands.profile NAME [TASK]`"),
        (["--help"], "error: expected `python -m potstill.commands.profile NAME [TASK]`"),
    ],
)
def test_a_mistake_changes_nothing(
    project: Project, monkeypatch: pytest.MonkeyPatch, arguments: list[str], expected: str
) -> None:
    from potstill.core import errors

    project.write("tasks/toy/profiles/high.yaml", "seed: 1\nlora_rank: 999\n")
    project.write("tasks/toy/profiles/odd.yaml", "lora_rnk: 8\n")
    shutil.copytree(ROOT / profile.SHARED, profile.SHARED)
    before = (project.dir / "params.yaml").read_text()
    monkeypatch.setattr(sys, "argv", ["profile", *arguments])
    with pytest.raises(SystemExit) as stop:
        errors.run(profile.main)
    assert str(stop.value.code).startswith(expected)
    assert (project.dir / "params.yaml").read_text() == before
