"""`make quantize`: what is asked of the tools, the table and its verdict; the real INT8 once, and
stand-ins for llama.cpp."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from potstill.core import jsonl
from potstill.core.errors import UserError
from potstill.evaluation import compare
from potstill.serving import quantize
from potstill.task import settings
from potstill.training import model_folder, swift
from tests import fakes
from tests.conftest import ROOT, Project

P = SimpleNamespace(max_tokens=32, max_model_len=1024)  # of predict
CONVERTER = """
import sys
model, _, out, _, kind = sys.argv[1:]
if kind != "q8_0" or "unknown" in model:
    raise NotImplementedError("BPE pre-tokenizer was not recognized")
open(out, "wb").write(b"GGUF" * 100)
"""
LLAMA = """#!%s
import json, sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
class Handler(BaseHTTPRequestHandler):
    def do_GET(self): self.reply({"status": "ok"})
    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        assert asked["temperature"] == 0
        assert asked["chat_template_kwargs"] == {"enable_thinking": False}
        word = asked["messages"][-1]["content"].split()[-1]
        text = json.dumps({"word": word, "length": len(word)})
        self.reply({"choices": [{"message": {"content": text}}], "usage": {"completion_tokens": 9}})
    def reply(self, found):
        body = json.dumps(found).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *more): pass
port = int(sys.argv[sys.argv.index("--port") + 1])
ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()
"""


def answer(word: str) -> str:
    return json.dumps({"word": word, "length": len(word)})


@pytest.fixture
def tests(project: Project) -> list[jsonl.Row]:
    """Forty test rows on disk, a student, and its predictions, all right."""
    found = [{**row, "slice": "a"} for row in project.seeds(40)]
    jsonl.write_jsonl("data/4-test.jsonl", found)
    chat = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    jsonl.write_jsonl("data/4-train.jsonl", [{"id": str(i), "messages": chat} for i in range(20)])
    right = [
        {"id": row["id"], "answer": answer(f"word{i}"), "prompt_tokens": 9, "completion_tokens": 9}
        for i, row in enumerate(found)
    ]
    jsonl.write_jsonl("data/5-predictions/sft/test.jsonl", right)
    jsonl.write_json("data/6-choice.json", {"ship": "sft"})
    fakes.model("models/student")
    return found


def said(tests: list[jsonl.Row], wrong: int = 0) -> jsonl.Row:
    """What a model answers that has all rows right but the first few."""
    texts = [answer("nothing" if i < wrong else f"word{i}") for i in range(len(tests))]
    return {"answers": texts, "tokens_per_second": 100.0, "memory_mib": 900}


def test_the_table_holds_each_format_against_the_student(tests: list[jsonl.Row]) -> None:
    toy = settings.load()
    measured = {
        "student": {"size": 3 << 20, **said(tests, 1)},
        "int8": {"size": 1 << 20, **said(tests, 2)},
        "awq": {"size": 1 << 19, **said(tests, 20)},
    }
    table = quantize.table(toy, tests, quantize.evaluated(toy), measured)
    found = {row["model"]: row for row in table}
    assert [
        (name, row["size_mib"], row["rows"], row["right"], row["differ"], row["flips"])
        for name, row in found.items()
    ] == [("student", 3.0, 40, 39, 1, 1), ("int8", 1.0, 40, 38, 2, 2), ("awq", 0.5, 40, 20, 20, 20)]
    # One more than the floor is chance, nineteen are not.
    assert [row["passed"] for row in found.values()] == [1, 1, 0]


@pytest.mark.parametrize(("wrong", "code"), [(0, 0), (30, 1)])
def test_a_format_that_answers_otherwise_fails_the_command(
    tests: list[jsonl.Row],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    wrong: int,
    code: int,
) -> None:
    def made(kind: str, model: Path, lessons: Path, out: Path, max_length: int) -> None:
        assert (kind, str(model), str(lessons)) == ("int8", "models/student", "data/4-train.jsonl")
        fakes.model(out)

    def answered(model: Path, chats: list[Any], p: Any, dtype: str) -> jsonl.Row:
        assert len(chats) == 40
        assert dtype == ("bfloat16" if model.name == "int8" else "float32")
        return said(tests, wrong if model.name == "int8" else 0)

    monkeypatch.setattr(quantize, "make", made)
    monkeypatch.setattr(quantize, "answered", answered)
    monkeypatch.setattr(sys, "argv", ["quantize", "int8"])
    if code:
        with pytest.raises(
            UserError, match=r"quantized.csv: a format answers otherwise than the student"
        ):
            quantize.main()
    else:
        quantize.main()
    table = compare.read_csv(Path("reports/quantized.csv").read_text(), "here")
    assert [row["model"] for row in table] == ["student", "int8"]
    assert table[1]["right"] == str(40 - wrong)
    assert ("NOT THE SAME MODEL" in capsys.readouterr().out) is bool(code)
    assert not list(Path("models/quantized").glob("*.part"))


def test_what_this_machine_cannot_do_is_one_sentence(
    tests: list[jsonl.Row], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_folder, "on_cuda", lambda: False)
    monkeypatch.setattr(quantize, "VENV", Path(".venv-quantize"))
    monkeypatch.delenv("LLAMA_CPP", raising=False)
    for kind, sentence in (
        ("gptq", "FORMAT=gptq needs an NVIDIA GPU"),
        ("awq", "FORMAT=awq needs an NVIDIA GPU"),
        ("int8", ".venv-quantize is missing, expected llm-compressor"),
        ("gguf", "LLAMA_CPP is '', expected the folder of a built llama.cpp"),
    ):
        with pytest.raises(UserError, match=sentence):
            quantize.make(
                kind, Path("models/student"), Path("data/4-train.jsonl"), Path("out") / kind, 1024
            )


def test_gguf_goes_through_llama_cpp(
    tests: list[jsonl.Row], project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.write("llama/convert_hf_to_gguf.py", CONVERTER)
    project.write("llama/build/bin/llama-server", LLAMA % sys.executable).chmod(0o755)
    monkeypatch.setenv("LLAMA_CPP", str(project.dir / "llama"))
    out, lessons = Path("models/quantized/gguf"), Path("data/4-train.jsonl")
    quantize.make("gguf", Path("models/student"), lessons, out, 1024)
    assert quantize.size(out) == 400
    toy = settings.load()
    found = quantize.answered(out, [toy.messages("student", row) for row in tests], P, "float32")
    assert found["answers"] == said(tests)["answers"]
    assert found["tokens_per_second"] > 0
    assert found["memory_mib"] > 0
    with pytest.raises(
        UserError,
        match="FORMAT=gguf failed: NotImplementedError: BPE pre-tokenizer was not recognized",
    ):
        quantize.make("gguf", fakes.model("models/unknown"), lessons, Path("other"), 1024)
    project.write("llama/build/bin/llama-server", "#!/bin/sh\nexit 3\n")
    with pytest.raises(UserError, match="llama-server ended with exit code 3"):
        quantize.answered(out, [], P, "float32")


@pytest.mark.slow
def test_the_yaml_of_swift_export_is_its_own(tests: list[jsonl.Row], tmp_path: Path) -> None:
    paths = []
    for method in ("gptq", "awq"):
        paths.append(tmp_path / f"{method}.yaml")
        config = quantize.export_config(
            method, Path("models/student"), Path("4-train.jsonl"), tmp_path / "out", 1024
        )
        paths[-1].write_text(swift.render(config))
    code = (  # the class's own parser, without its __post_init__, which would load the model
        "import argparse, json, sys; from swift.cli.main import parse_yaml_args\n"
        "from swift.arguments import ExportArguments; from transformers import HfArgumentParser\n"
        "for path in sys.argv[1:]:\n"
        "    argv = [path]; parse_yaml_args(argv)\n"
        "    parser = HfArgumentParser([ExportArguments])\n"
        "    a, rest = argparse.ArgumentParser.parse_known_args(parser, argv)\n"
        "    print(json.dumps([a.quant_method, a.quant_bits, a.group_size, a.dataset, rest]))"
    )
    env = os.environ | model_folder.environment(hub=False)
    done = subprocess.run(
        [sys.executable, "-c", code, *paths], capture_output=True, text=True, check=True, env=env
    )
    parsed = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('["')]
    assert parsed == [[method, 4, 64, ["4-train.jsonl"], []] for method in ("gptq", "awq")]


@pytest.mark.slow
def test_int8_by_llm_compressor_answers_in_vllm(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """models/tiny-base as the student: INT8 is smaller and, on what it was pretrained to do, mostly
    says the same."""
    subprocess.run(
        [sys.executable, "-m", "potstill.commands.setup", "quantize"], cwd=ROOT, check=True
    )
    shutil.copytree(ROOT / "models/tiny-base", "models/student")
    chats = [[{"role": "user", "content": f"复述：第{i}号货架在北京市海淀区"}] for i in range(24)]
    lessons = [
        {"id": str(i), "messages": [*chat, {"role": "assistant", "content": "好"}]}
        for i, chat in enumerate(chats)
    ]
    jsonl.write_jsonl("data/4-train.jsonl", lessons)
    model, out = Path("models/student"), Path("models/quantized/int8")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    quantize.make("int8", model, Path("data/4-train.jsonl"), out, 1024)
    assert (
        json.loads((out / "config.json").read_text())["quantization_config"]["quant_method"]
        == "compressed-tensors"
    )
    assert quantize.size(out) < 0.8 * quantize.size(model)
    before, after = (quantize.answered(folder, chats, P, "bfloat16") for folder in (model, out))
    equal = sum(a == b for a, b in zip(before["answers"], after["answers"], strict=True))
    assert equal >= len(chats) // 2, (before["answers"][:3], after["answers"][:3])
    assert after["tokens_per_second"] > 0
