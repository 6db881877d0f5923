"""The students of further seeds: the same training but for its seed, none of them made twice, and
each asked as sft is."""

import os
from pathlib import Path
from typing import Any

import pytest

from potstill.core import jsonl
from potstill.training import run
from stages import sft, sft_seeds
from tests import fakes
from tests.conftest import Project

MESSAGES = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
FOLDER = Path("models/seeds")


@pytest.fixture
def ready(project: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    """The toy project with split data and a model, where `swift` and vLLM are the stand-ins."""
    paths = [fakes.install(project.dir / "swift"), fakes.vllm(project.dir / "vllm")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))
    fakes.model("models/tiny-base")
    for name in ("4-train", "4-valid"):
        jsonl.write_jsonl(f"data/{name}.jsonl", [{"id": name, "messages": MESSAGES}])
    project.write("data/4-scoring/report.json", '{"rows": 0}')
    texts = [f"line {number}" for number in range(5)]
    found = [{"id": jsonl.row_id({"text": text}), "text": text, "slice": "a"} for text in texts]
    jsonl.write_jsonl("data/4-test.jsonl", found)
    return project


def run_stage(project: Project, name: str, **env: str) -> str:
    """The output of a stage, which must end well."""
    own = {"PYTHONPATH": os.environ["PYTHONPATH"], **env}
    code, out = project.run(f"stages.{name}", **own)
    assert code == 0, out
    return out


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.mark.parametrize("seeds", [[], [42]])
def test_one_seed_trains_nothing_and_asks_nothing(ready: Project, seeds: list[int]) -> None:
    ready.set(seeds=seeds)
    for stage, folder in (("sft_seeds", FOLDER), ("predict_seeds", Path("data/5-seeds"))):
        said = run_stage(ready, stage, FAKE_SWIFT="fail")
        assert said == f"{stage}: nothing to do, seeds has no further one\n"
        assert names(folder) == {"report.json"}
        assert jsonl.read_json(folder / "report.json")["seeds"] == seeds
    assert not Path("ledger").exists()


@pytest.fixture
def given(ready: Project, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What the trainings are given, which write an adapter and do nothing else."""
    found: list[dict[str, Any]] = []

    def train(config: dict[str, Any], work: Path, adapter: Path, **how: Any) -> tuple[int, float]:
        found.append({**config, "adapter": adapter, "how": how})
        jsonl.write_jsonl(adapter / "logging.jsonl", [{"step": len(found)}])
        return 4, 1.5

    monkeypatch.setattr(run, "train", train)
    return found


def test_it_is_the_training_of_sft_but_for_its_seed(
    ready: Project, given: list[dict[str, Any]]
) -> None:
    ready.set(seeds=[42, 43])
    sft.main()
    sft_seeds.main()
    first, second = given
    assert first.pop("adapter") == Path("models/sft/adapter")
    assert second.pop("adapter") == FOLDER / "43"
    assert second == {**first, "seed": 43, "data_seed": 43}


def test_a_student_that_is_there_is_not_trained_again(
    ready: Project, given: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    def says(**changes: object) -> str:
        ready.set(**changes)
        sft_seeds.main()
        return capsys.readouterr().out.splitlines()[-1].removeprefix("sft_seeds: ")

    assert says(seeds=[42, 43, 44]) == "43 4 steps, 1.5 s; 44 4 steps, 1.5 s"
    assert names(FOLDER) == {"43", "43.json", "44", "44.json", "report.json"}
    assert says(seeds=[42, 44, 45]) == "44 is there; 45 4 steps, 1.5 s"  # one more, one less
    assert names(FOLDER) == {"44", "44.json", "45", "45.json", "report.json"}
    (FOLDER / "46.part").mkdir()  # left by a kill
    with (FOLDER / "44/logging.jsonl").open("a") as log:  # damaged
        log.write("{}\n")
    assert says() == "44 4 steps, 1.5 s; 45 is there"
    assert "46.part" not in names(FOLDER)
    assert "is there" not in says(learning_rate=0.001)
    assert len(given) == 6
    assert says(seeds=[]).startswith("nothing to do") and names(FOLDER) == {"report.json"}


def test_each_student_answers_the_test_rows_by_itself(ready: Project) -> None:
    ready.set(seeds=[42, 43, 44], predict_max_model_len=16)  # of the stand-in's models
    out = run_stage(ready, "sft_seeds")
    assert out.endswith("sft_seeds: 43 4 steps, 3.2 s; 44 4 steps, 3.2 s\n")
    out = run_stage(ready, "predict_seeds")
    assert out.count("predict: 5 rows, 0 cut off") == 2
    folder = Path("data/5-seeds")
    assert names(folder) == {"43.jsonl", "44.jsonl", "report.json"}
    fakes.model("models/sft/merged")
    own = {"PYTHONPATH": os.environ["PYTHONPATH"]}
    assert ready.run("stages.predict", "sft", **own)[0] == 0
    asked = Path("data/5-predictions/sft/test.jsonl").read_bytes()
    for seed in (43, 44):  # the stand-in answers whatever model it has alike
        assert (folder / f"{seed}.jsonl").read_bytes() == asked
    assert len(Path("ledger").read_text().splitlines()) == 15
    assert list(Path(".cache/seeds").iterdir()) == []
    code, out = ready.run("stages.predict_seeds", **own, FAKE_VLLM_STOPS="4")  # killed at row 4
    assert code == 1 and "error: seed 43: the process that answers was ended, perhaps out" in out
