"""potstill.core.params: the whole file is checked, and an error names file, line, parameter, what
was found and what was expected."""

import json
import re
from types import SimpleNamespace

import pytest

from potstill.core import params
from potstill.core.errors import UserError
from tests.conftest import ROOT, Project

# The published platform's: refused below, lowest, highest, refused above, what an error says.
RANGES = {
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
            params.load("seed")  # although another parameter was asked for


def test_load_returns_only_the_named_parameters(project: Project) -> None:
    project.set(learning_rate=1e-05)  # written as 1e-05, which YAML 1.1 reads as a text
    assert "learning_rate: 1e-05" in (project.dir / "params.yaml").read_text()
    assert vars(params.load("learning_rate", "lora_rank", "predict.dtype", "few_shot")) == {
        "learning_rate": 1e-05,
        "lora_rank": 32,
        "predict": SimpleNamespace(dtype="float32"),
        "few_shot": SimpleNamespace(examples=5),
    }
    project.set(swift_args="{a: 1}", teacher_extra_body="{top_p: 0.9}")  # mappings, no sections
    assert params.load("swift_args").swift_args == {"a": 1}
    assert params.load("teacher").teacher.extra_body == {"top_p": 0.9}


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("lora_rank", 8.5, "lora_rank is 8.5, expected a whole number from 1 to 64"),
        ("lora_rank", True, "lora_rank is true, expected a whole number"),
        ("lora_rank", "sixteen", 'lora_rank is "sixteen", expected a whole number'),
        ("lora_rank", None, "lora_rank is null, expected a whole number"),
        ("split.train_rows", -1, "split.train_rows is -1, expected a whole number from 0 up"),
        ("split.valid_share", 0.6, "expected a number from 0.01 to 0.5"),
        ("teacher.extra_body", "x", 'teacher.extra_body is "x", expected a mapping such as'),
        ("serve.speculative", "", "serve.speculative is"),
        ("group_by_length", "on", 'group_by_length is "on", expected true or false'),
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
        ("model", "", 'model is "", expected a model\'s folder, a GGUF file, or a name of'),
    ],
)
def test_a_value_out_of_range_is_one_sentence(
    project: Project, name: str, value: object, expected: str
) -> None:
    project.set(**{name.replace(".", "_"): value})
    with pytest.raises(UserError, match=re.escape(expected)) as error:
        params.load("seed")  # although another parameter was asked for
    number = re.match(rf"params\.yaml:(\d+): {name} is ", str(error.value))[1]  # type: ignore[index]
    line = (project.dir / "params.yaml").read_text().splitlines()[int(number) - 1]
    assert line.strip().startswith(f"{name.rpartition('.')[2]}: ")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("old", "new", "expected"),  # what is there, a regular expression, and what comes in its place
    [
        (
            r"\Z",
            "lora_rnk: 8\n",
            r"params.yaml:\d+: unknown parameter 'lora_rnk': did you mean lora_",
        ),
        (r"\Z", "zzz: 8\n", "unknown parameter 'zzz': known are expand, near_duplicate,"),
        (
            "^  dtype:",
            "  dtyp:",
            r"params.yaml:\d+: unknown parameter 'predict.dtyp': did you mean p",
        ),
        ("^  dtype.*\n", "", "parameter predict.dtype is missing, expected one of"),
        (r"^judge:\n.*", "judge: 3", r"params.yaml:\d+: judge is 3, expected a section: indent"),
        ("^lora_rank.*\n", "", "lora_rank is missing, expected a whole number from 1 to 64"),
        (r"\Z", "seed: 3\n", r"params.yaml:\d+: not YAML: .*duplicate key"),
        (r"\Z", "x: [1\n", r"params.yaml:\d+: not YAML"),
        (r"(?s)\A.*", "- 1\n", "params.yaml: found list, expected `name: value` lines"),
        ("^learning_rate:.*", "learning_rate: .nan", "learning_rate is NaN, expected"),
        (
            "^seeds:.*",
            "seeds: [43, 42]",
            r"params.yaml:\d+: seeds begins with 43, expected 42, the value of seed: put it first$",
        ),
        ("^seeds:.*", "seeds: [42, 42]", r"seeds is \[42, 42\], expected \[\], or different seeds"),
    ],
)
def test_a_broken_file_is_one_sentence(project: Project, old: str, new: str, expected: str) -> None:
    path = project.dir / "params.yaml"
    path.write_text(re.sub(old, new, path.read_text(), count=1, flags=re.MULTILINE))
    with pytest.raises(UserError, match=expected):
        params.load("seed")


def test_a_file_that_is_gone_or_not_utf8(project: Project) -> None:
    path = project.dir / "params.yaml"
    path.write_bytes(b"seed: \xff\n")
    with pytest.raises(UserError, match=r"params.yaml: byte 7 is not UTF-8"):
        params.load("seed")
    path.unlink()
    with pytest.raises(UserError, match=r"params.yaml is missing: `git checkout params.yaml`"):
        params.load("seed")


def test_every_committed_parameter_has_a_comment_and_a_range() -> None:
    known: list[str] = []
    for name, rule in json.loads((ROOT / "schemas/params.json").read_text())["properties"].items():
        known += [name, *(f"  {key}" for key in rule.get("properties", ()))]
    text = (ROOT / "params.yaml").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    assert sorted(line.partition(":")[0] for line in lines) == sorted(known)
    assert [line for line in lines if not line.endswith(":") and " # " not in line] == []


# Case 55
@pytest.mark.parametrize(
    ("path", "old", "new", "expected"),
    [
        (
            "task.yaml",
            "num_train_epochs: 3\n",
            "",
            "task.yaml: key 'num_train_epochs' is missing, which stage sft of dvc.yaml reads: add "
            "the line `num_train_epochs: 3`",
        ),
        ("task.yaml", "swift_args: {}\n", "", "add the line `swift_args: {}`"),
        (
            "task.yaml",
            "swift_args: {}",
            "swift_args: {neftune_noise_alfa: 5}",
            "task.yaml:6: swift_args has 'neftune_noise_alfa', which ms-swift does not know: did "
            "you mean neftune_noise_alpha?",
        ),
        (
            "task.yaml",
            "swift_args: {}",
            "swift_args: {zzz: 5}",
            "task.yaml:6: swift_args has 'zzz', which ms-swift does not know: `swift sft --help` "
            "lists what it knows",
        ),
        (
            "task.yaml",
            "swift_args: {}",
            "swift_args: {neftune_noise_alpha: five}",
            'task.yaml:6: neftune_noise_alpha of swift_args is "five", expected null, number',
        ),
        (
            "params.yaml",
            "swift_args: null",
            "swift_args: {lora_dtyp: float16}",
            "swift_args has 'lora_dtyp', which ms-swift does not know: did you mean lora_dtype?",
        ),
    ],
)
def test_what_a_stage_would_find_late_is_said_first(
    project: Project, path: str, old: str, new: str, expected: str
) -> None:
    params.check()
    file = project.dir / path
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))
    with pytest.raises(UserError, match=re.escape(expected)):
        params.check()
