"""Prediction: the stage around vLLM, and in the tests marked slow vLLM itself."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from potstill.core import jsonl
from potstill.core.errors import UserError
from potstill.inference import engine, predictions
from potstill.training import swift
from stages import ask_teacher, predict
from tests import fakes
from tests.conftest import ROOT, Project

ANSWER = {"finish_reason": "stop", "prompt_tokens": 9, "completion_tokens": 3}
Asked = list[list[dict[str, str]]]
SECTION = {"max_tokens": 512, "dtype": "float32"}  # predict of params.yaml
SECTION |= {"max_model_len": 2048, "grounded": False, "shards": 1}


@pytest.fixture
def tests(project: Project) -> list[jsonl.Row]:
    """Three test rows of the toy task, which has a base and a merged model."""
    fakes.model("models/tiny-base")
    fakes.model("models/sft/merged")
    found = [
        {
            "id": jsonl.row_id({"text": text}),
            "text": text,
            "slice": "a",
            "expected": {"word": "text", "length": "4"},
        }
        for text in (f"line {i} of text" for i in range(3))
    ]
    jsonl.write_jsonl("data/4-test.jsonl", found)
    return found


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """What the engine is called with; it answers with the start of the system prompt and the user's
    turn."""
    calls: list[tuple[Any, ...]] = []

    def fake(
        model: str, batches: list[Asked], p: Any, *rest: Any, timed: list[float], **more: Any
    ) -> list[list[dict[str, Any]]]:
        calls.append((model, vars(p), *rest))
        timed += [0.5, 0.25, 0.125]
        return [
            [
                {"answer": f"{chat[0]['content'][:9]}|{chat[1]['content']}", **ANSWER}
                for chat in batch
            ]
            for batch in batches
        ]

    monkeypatch.setattr(engine, "predict", fake)
    return calls


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    """Runs the stage in this process."""
    monkeypatch.setattr(sys, "argv", ["predict", *arguments])
    predict.main()


@pytest.mark.parametrize(
    ("model", "prompt", "called"),
    [
        ("base", "You find ", ("models/tiny-base", SECTION, "main")),
        ("sft", "last word", ("models/sft/merged", SECTION)),
    ],
)
def test_the_base_reads_the_long_prompt_and_the_student_the_short_one(
    tests: list[jsonl.Row],
    asked: list[tuple[Any, ...]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    project: Project,
    model: str,
    prompt: str,
    called: tuple[Any, ...],
) -> None:
    run(monkeypatch, model)
    path = f"5-predictions/{model}/test.jsonl"
    assert project.read(path) == [
        {"id": row["id"], "answer": f"{prompt}|{row['text']}", **ANSWER} for row in tests
    ]
    assert asked == [called]
    latency = jsonl.read_json(f"data/5-predictions/{model}/latency.json")
    assert latency == {"requests": 3, "median": 0.25}
    said = f"predict: 3 rows, 0 cut off as too long or repetitive → data/{path}\n"
    assert capsys.readouterr().out == said


def test_with_dpo_both_students_answer_the_validation_rows_too(
    tests: list[jsonl.Row],
    asked: list[tuple[Any, ...]],
    monkeypatch: pytest.MonkeyPatch,
    project: Project,
) -> None:
    turns = [
        {"role": role, "content": text}
        for role, text in (("system", "s"), ("user", "u"), ("assistant", "a"))
    ]
    jsonl.write_jsonl("data/4-valid.jsonl", [{"id": "v", "messages": turns}])
    run(monkeypatch, "dpo")
    assert [path.name for path in Path("data/5-predictions/dpo").iterdir()] == ["latency.json"]
    assert asked == []
    project.set(models=["base", "sft", "dpo"])
    fakes.model("models/dpo/merged")
    for model in ("sft", "dpo"):
        run(monkeypatch, model)
        valid = project.read(f"5-predictions/{model}/valid.jsonl")
        assert valid == [{"id": "v", "answer": "s|u", **ANSWER}]
        answers = project.read(f"5-predictions/{model}/test.jsonl")
        assert [row["id"] for row in answers] == [row["id"] for row in tests]
    assert [call[0] for call in asked] == ["models/sft/merged", "models/dpo/merged"]


def test_the_teacher_answers_the_test_rows_itself(
    tests: list[jsonl.Row], monkeypatch: pytest.MonkeyPatch, project: Project
) -> None:
    ask_teacher.main()
    found = project.read("5-predictions/teacher/test.jsonl")
    assert [row["id"] for row in found] == [row["id"] for row in tests]
    assert json.loads(found[0]["answer"]) == {"word": "text", "length": 4}
    assert set(found[0]) == {*predictions.FIELDS, *predictions.PAID}


@pytest.mark.parametrize(
    "change", [lambda rows: rows[:-1], lambda rows: rows[::-1], lambda rows: [*rows, rows[0]]]
)
def test_an_answer_too_few_or_to_another_row_fails(
    tests: list[jsonl.Row],
    monkeypatch: pytest.MonkeyPatch,
    change: Callable[[list[jsonl.Row]], list[jsonl.Row]],
) -> None:
    found = [
        {
            "id": row["id"],
            "key": "k",
            "model": "m",
            "max_tokens": 1,
            "error": None,
            **ANSWER,
            "answer": "",
        }
        for row in tests
    ]
    monkeypatch.setattr("potstill.teacher.asking.answer_rows", lambda *args, **more: change(found))
    with pytest.raises(AssertionError, match="3 rows, but"):
        ask_teacher.main()
    assert not Path("data/5-predictions/teacher/test.jsonl").exists()


def test_a_missing_model_says_what_to_run(
    tests: list[jsonl.Row], asked: list[tuple[Any, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.rmtree("models")
    with pytest.raises(
        UserError, match=r"^models/sft/merged is missing, expected a model: run `make repro` first$"
    ):
        run(monkeypatch, "sft")
    fakes.model("models/sft/merged").joinpath("model.safetensors").unlink()
    with pytest.raises(UserError, match=r"has no config\.json with \*\.safetensors"):
        run(monkeypatch, "sft")
    assert asked == []


@pytest.mark.parametrize("arguments", [(), ("both",), ("teacher",), ("base", "sft")])
def test_usage(monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]) -> None:
    with pytest.raises(
        UserError, match=r"^usage: python -m stages.predict base\|examples\|sft\|dpo\|grpo\|gkd$"
    ):
        run(monkeypatch, *arguments)


def test_a_context_that_the_model_does_not_have_is_refused_before_the_start(
    tests: list[jsonl.Row],
) -> None:
    fakes.model("models/tiny-base", positions=512)
    said = "predict.max_model_len is 513, but models/tiny-base reads at most 512 tokens: lower it"
    with pytest.raises(UserError, match=f"^params.yaml: {said}$"):
        engine.predict("models/tiny-base", [], limits(8, 513))


def limits(max_tokens: int, max_model_len: int) -> SimpleNamespace:
    """The section `predict` of params.yaml."""
    return SimpleNamespace(max_tokens=max_tokens, dtype="float32", max_model_len=max_model_len)


@pytest.mark.slow
def test_vllm_keeps_the_order_and_answers_alike_twice() -> None:
    base, p = str(ROOT / "models/tiny-base"), limits(12, 128)
    chats = [
        [{"role": "system", "content": "复述"}, {"role": "user", "content": f"第{i}号"}]
        for i in range(20)
    ]
    found, again = engine.predict(base, [chats, chats[:3]], p)
    assert (len(found), again) == (20, found[:3])
    assert len({row["prompt_tokens"] for row in found}) <= 2
    assert all(0 < row["completion_tokens"] <= 12 for row in found)
    assert {row["finish_reason"] for row in found} <= {"stop", "length"}
    assert engine.predict(base, [chats[::-1]], p)[0][::-1] == found
    # it copies without a doubt, but is unsure of these
    unsure = [[{"role": "user", "content": f"写{i}句祝福"}] for i in range(20)]
    how: dict[str, Any] = {"n": 3, "temperature": 1.5, "seed": 7}
    drawn = [engine.predict(base, [unsure], p, **how)[0] for _ in "ab"]
    assert len(drawn[0]) == 60
    assert drawn[0] == drawn[1]
    assert len({row["answer"] for row in drawn[0][:3]}) > 1  # three of one chat
    said = r"predict\.max_model_len is 16, but the longest prompt has [0-9]+ tokens: raise it$"
    with pytest.raises(UserError, match=said):
        engine.predict(base, [[[{"role": "user", "content": "长" * 40}]]], limits(8, 16))


@pytest.mark.slow
def test_no_library_warns_on_stderr(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """In processes of their own: a library warns while it is imported."""
    code = f"""
import sys
from pathlib import Path
from types import SimpleNamespace
sys.path.insert(0, {str(ROOT)!r})
from potstill.inference import engine, parity
base, chat = {str(ROOT / "models/tiny-base")!r}, [{{"role": "user", "content": "写"}}]
p = SimpleNamespace(max_tokens=4, dtype="float32", max_model_len=64)
lesson = {{"id": "1", "messages": [*chat, {{"role": "assistant", "content": "好"}}]}}
if sys.argv[1] == "engine":
    engine.token_counter(base, "")(chat)
    engine.predict(base, [[chat]], p, timed=[], stop_loops=True)
else:
    engine.prepared(base, "")  # as with_adapter does
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM
    from transformers.utils.logging import disable_progress_bar
    disable_progress_bar()
    student = AutoModelForCausalLM.from_pretrained(base)
    get_peft_model(student, LoraConfig(r=1, target_modules="all-linear")).save_pretrained("adapter")
    parity.with_adapter(base, "", Path("adapter"), [chat], [1], p)
    list(parity.other_tokens(base, "", Path(base), [lesson]))
"""
    for part in ("engine", "parity"):
        subprocess.run([sys.executable, "-c", code, part], cwd=tmp_path, check=True)
    said = r"vLLM: started in [0-9.]+ s, 1 rows, [0-9]+ tokens in [0-9.]+ s\n"
    assert re.fullmatch(said, capfd.readouterr().err)


@pytest.mark.slow
def test_the_prompt_that_is_trained_on_is_the_prompt_that_is_predicted_from() -> None:
    from swift.model import get_processor
    from swift.template import get_template

    base = str(ROOT / "models/tiny-base")
    config = swift.model_config(base, "main")
    tokenizer = get_processor(base, model_type=config["model_type"])
    template = get_template(tokenizer, template_type=config["template"])
    template.set_mode("train")
    chat = [{"role": "system", "content": "提取"}, {"role": "user", "content": "云南省大理市 123"}]
    trained = template.encode({"messages": [*chat, {"role": "assistant", "content": "{}"}]})[
        "input_ids"
    ]
    asked = engine.tokens(tokenizer, chat)
    assert trained[: len(asked)] == asked
    assert Path(base).is_dir()
