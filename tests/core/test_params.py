"""potstill.params: the whole file is checked, and an error names file, line, parameter, what was found and what was expected."""

import json
import re

import pytest

from potstill.core import params
from potstill.core.errors import UserError
from tests.conftest import ROOT, Project

RANGES = {  # the published platform's: refused below, lowest, highest, refused above, what an error says
    "learning_rate": (0, 1e-9, 0.1, 0.11, "a number above 0, at most 0.1"),
    "num_train_epochs": (0, 1, 10, 11, "a whole number from 1 to 10 or null"),
    "per_device_train_batch_size": (0, 1, 32, 33, "a whole number from 1 to 32"),
    "per_device_eval_batch_size": (0, 1, 32, 33, "a whole number from 1 to 32"),
    "max_length": (0, 1, 4096, 4097, "a whole number from 1 to 4096"),
    "lora_rank": (0, 1, 64, 65, "a whole number from 1 to 64"),
    "lora_alpha": (0, 1, 128, 129, "a whole number from 1 to 128"),
    "lora_dropout": (-0.01, 0, 1, 1.01, "a number from 0 to 1"),
}


@pytest.mark.parametrize("name", RANGES)
def test_the_ranges_of_training_are_the_published_ones(project: Project, name: str) -> None:
    below, low, high, above, expected = RANGES[name]
    for value in (low, high):
        project.set(**{name: value})
        assert vars(params.load(name)) == {name: value}
    for value in (below, above):
        project.set(**{name: value})
        with pytest.raises(
            UserError, match=rf"^params\.yaml:\d+: {name} is {value}, expected {expected}$"
        ):
            params.load("task")  # although another parameter was asked for


def test_load_returns_only_the_named_parameters(project: Project) -> None:
    project.set(learning_rate=1e-05)  # written as 1e-05, which YAML 1.1 reads as a text
    assert "learning_rate: 1e-05" in (project.dir / "params.yaml").read_text()
    assert vars(params.load("task", "learning_rate", "lora_rank")) == {
        "task": "toy",
        "learning_rate": 1e-05,
        "lora_rank": 32,
    }


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("lora_rank", 8.5, "lora_rank is 8.5, expected a whole number from 1 to 64"),
        ("lora_rank", True, "lora_rank is true, expected a whole number"),
        ("lora_rank", "sixteen", 'lora_rank is "sixteen", expected a whole number'),
        ("lora_rank", None, "lora_rank is null, expected a whole number"),
        ("train_rows", -1, "train_rows is -1, expected a whole number from 0 up"),
        ("valid_share", 0.6, "expected a number from 0.01 to 0.5"),
        (
            "torch_dtype",
            "int4",
            'torch_dtype is "int4", expected one of bfloat16, float16, float32',
        ),
        (
            "models",
            ["base"],
            'models is ["base"], expected one of ["base", "sft"], ["base", "sft", "dpo"]',
        ),
        ("model", "", 'model is "", expected a model\'s folder or its name on the hub'),
    ],
)
def test_a_value_out_of_range_is_one_sentence(
    project: Project, name: str, value: object, expected: str
) -> None:
    project.set(**{name: value})
    with pytest.raises(UserError, match=re.escape(expected)) as error:
        params.load("task")  # although another parameter was asked for
    assert re.match(rf"params\.yaml:\d+: {name} is ", str(error.value))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda text: text + "lora_rnk: 8\n", r"params.yaml:\d+: unknown parameter 'lora_rnk': did you mean lora_rank\?"),
        (lambda text: text + "zzz: 8\n", r"unknown parameter 'zzz': known are task, expand_rows"),
        (lambda text: re.sub("(?m)^lora_rank.*\n", "", text), r"lora_rank is missing, expected a whole number from 1 to 64"),
        (lambda text: text + "seed: 3\n", r"params.yaml:\d+: not YAML: .*duplicate key"),
        (lambda text: text + "x: [1\n", r"params.yaml:\d+: not YAML"),
        (lambda text: "- 1\n", r"params.yaml: found list, expected `name: value` lines"),
        (lambda text: re.sub("learning_rate:.*", "learning_rate: .nan", text), r"learning_rate is NaN, expected"),
    ],
)  # fmt: skip
def test_a_broken_file_is_one_sentence(project: Project, change: object, expected: str) -> None:
    path = project.dir / "params.yaml"
    path.write_text(change(path.read_text()))  # type: ignore[operator]
    with pytest.raises(UserError, match=expected):
        params.load("task")


def test_a_file_that_is_gone_or_not_utf8(project: Project) -> None:
    path = project.dir / "params.yaml"
    path.write_bytes(b"task: \xff\n")
    with pytest.raises(UserError, match=r"params.yaml: byte 7 is not UTF-8"):
        params.load("task")
    path.unlink()
    with pytest.raises(UserError, match=r"params.yaml is missing: `git checkout params.yaml`"):
        params.load("task")


def test_every_committed_parameter_has_a_comment_and_a_range() -> None:
    known = json.loads((ROOT / "schemas/params.json").read_text())["properties"]
    text = (ROOT / "params.yaml").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    assert [line.partition(":")[0] for line in lines] == list(known)
    assert [line for line in lines if "  # " not in line] == []
