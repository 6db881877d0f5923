"""The alignment: what `swift rlhf` is given, what is kept of it; nothing without dpo in models."""

import json
import os
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from potstill.core import jsonl, lockfile, params
from potstill.training import dpo, swift
from tests import fakes
from tests.conftest import ROOT, Project

DPO = ["base", "sft", "dpo"]
DECLARED = lockfile.read_yaml(ROOT / "dvc.yaml")["stages"]["align"]["params"]
HEAD = "step,loss,margin,accuracy\n"


def pair(number: int, chosen: str = "好", rejected: str = "坏") -> jsonl.Row:
    prompt = [{"role": "system", "content": "写"}, {"role": "user", "content": f"第{number}号"}]
    return {
        "id": str(number),
        "sample": 0,
        "source": "student",
        "prompt": prompt,
        "chosen": chosen,
        "rejected": rejected,
    }


@pytest.fixture
def ready(project: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    """The toy project with a trained student and two pairs, where `swift` is the stand-in."""
    monkeypatch.setenv("PYTHONPATH", fakes.install(project.dir / "fake"))
    fakes.model("models/sft/merged")
    jsonl.write_jsonl("data/4-pairs/pairs.jsonl", [pair(1), pair(2)])
    jsonl.write_json("data/4-scoring/report.json", {"rows": 0})
    project.set(models=DPO)
    return project


def run(project: Project, **env: str) -> tuple[int, str]:
    """Exit code and output of the stage."""
    return project.run("stages.align", **{"PYTHONPATH": os.environ["PYTHONPATH"], **env})


def config(**changes: Any) -> swift.Config:
    """ms-swift's arguments for the toy project."""
    given = vars(params.load(*DECLARED)) | changes
    return dpo.config(
        SimpleNamespace(**given), Path("data/4-pairs/pairs.jsonl"), Path("models/sft/merged")
    )


def files(folder: str) -> set[str]:
    return {str(path.relative_to(folder)) for path in Path(folder).rglob("*") if path.is_file()}


def test_without_dpo_nothing_runs_and_an_old_alignment_goes(ready: Project) -> None:
    ready.set(models=["base", "sft"])
    fakes.model("models/dpo/merged")
    code, out = run(ready, FAKE_SWIFT="fail")
    assert (code, out) == (0, "align: nothing to do, models has no dpo, no grpo and no gkd\n")
    assert all(files(f"models/{name}") == {"curves.csv"} for name in ("dpo", "grpo", "gkd"))
    assert Path("models/dpo/curves.csv").read_text() == HEAD


def test_adapter_merged_model_and_curves_are_kept(ready: Project) -> None:
    code, out = run(ready)
    assert code == 0, out
    assert out.startswith("align: 2 pairs, 4 steps, ")
    adapter = {
        "adapter/adapter_config.json",
        "adapter/adapter_model.safetensors",
        "adapter/logging.jsonl",
    }
    merged = {"merged/config.json", "merged/chat_template.jinja", "merged/model.safetensors"}
    assert files("models/dpo") == adapter | merged | {"curves.csv"}
    kept = json.loads(Path("models/dpo/adapter/adapter_config.json").read_text())
    assert kept["base_model_name_or_path"] == "models/sft/merged"
    lines = Path("models/dpo/curves.csv").read_text().splitlines()
    assert lines == [
        HEAD.strip(),
        "1,9,0.5,0.75",
        "2,4.5,0.5,0.75",
        "3,3,0.5,0.75",
        "4,2.25,0.5,0.75",
    ]
    assert files(".cache/align") == set()


def test_ms_swift_gets_the_sft_student_as_model_and_reference(ready: Project) -> None:
    found = config(dpo_learning_rate=0.03, dpo_num_train_epochs=2, beta=0.3, rpo_alpha=0.5)
    assert (found["rlhf_type"], found["model"]) == ("dpo", "models/sft/merged")
    assert (
        found["learning_rate"],
        found["num_train_epochs"],
        found["beta"],
        found["rpo_alpha"],
    ) == (0.03, 2, 0.3, 0.5)
    assert not {"ref_model", "val_dataset", "models", "dpo_learning_rate"} & set(found)
    assert "rpo_alpha" not in config(rpo_alpha=None)
    assert dpo.lesson(pair(1)) == {
        "messages": [*pair(1)["prompt"], {"role": "assistant", "content": "好"}],
        "rejected_response": "坏",
    }


def test_every_parameter_that_the_stage_declares_reaches_ms_swift(ready: Project) -> None:
    names = {"dpo_learning_rate": "learning_rate", "dpo_num_train_epochs": "num_train_epochs"}
    for name in set(DECLARED) - {"models", "quant_bits", "torch_dtype"}:
        if name.partition(".")[0] in ("grpo", "gkd", "pairs", "predict"):
            continue
        value = "changed" if name == "target_modules" else 77
        assert config(**{name: value})[names.get(name, name)] in (value, [value]), name


def test_without_pairs_it_says_what_to_do(ready: Project) -> None:
    Path("data/4-pairs/pairs.jsonl").unlink()
    code, out = run(ready)
    assert (code, out.count("\n")) == (1, 1)
    assert out.startswith(
        "error: data/4-pairs/pairs.jsonl is missing, expected preferences (models has dpo): "
        "raise pairs.rows in "
    )
    assert not Path("models/dpo").exists()


@pytest.mark.parametrize("behaviour", ["fail", "short"])
def test_a_failure_leaves_no_model(ready: Project, behaviour: str) -> None:
    code, out = run(ready, FAKE_SWIFT=behaviour)
    assert code == 1
    assert out.startswith("error: swift rlhf ")
    assert not Path("models/dpo").exists()


@pytest.mark.slow
def test_dpo_for_real_prefers_what_is_chosen_and_swapped_pairs_the_other(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The real ms-swift on the tiny base: the margin of the rewards grows from 0, and the merged
    model gives the chosen answer more weight than before; with the two swapped, less."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    shutil.copytree(ROOT / "models/tiny-base", "models/sft/merged")
    jsonl.write_json("data/4-scoring/report.json", {"rows": 0})
    quick = {"logging_steps": 1, "max_length": 64, "lora_rank": 4, "per_device_train_batch_size": 8}
    project.set(models=DPO, dpo_num_train_epochs=4, warmup_ratio=0.0, rpo_alpha=None, **quick)
    odds = {"before": odds_of_good("models/sft/merged")}
    for name, answers in (("right", ("好", "坏")), ("swapped", ("坏", "好"))):
        jsonl.write_jsonl("data/4-pairs/pairs.jsonl", [pair(i, *answers) for i in range(24)])
        code, out = project.run("stages.align")
        assert code == 0, out
        curves = [
            line.split(",") for line in Path("models/dpo/curves.csv").read_text().splitlines()[1:]
        ]
        assert len(curves) == 12
        assert float(curves[0][2]) == 0
        assert float(curves[-1][2]) > 0.05
        assert float(curves[-1][3]) == 1
        odds[name] = odds_of_good("models/dpo/merged")
    assert odds["swapped"] < odds["before"] < odds["right"]


def odds_of_good(model: str) -> float:
    """The logarithm of how much likelier the model finds 好 than 坏."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    prompt = tokenizer.apply_chat_template(
        pair(1)["prompt"],
        add_generation_prompt=True,
        enable_thinking=False,
        return_tensors="pt",
        return_dict=True,
    )
    with torch.no_grad():
        logits = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)(**prompt).logits[
            0, -1
        ]
    good, bad = (tokenizer(text, add_special_tokens=False).input_ids[0] for text in "好坏")
    return float(logits[good] - logits[bad])
