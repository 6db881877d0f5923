"""`make quantize`: what is asked of the tools, the table and its verdict; the mix of types that
llama.cpp calls Q4_K_M; the real INT8 once, and stand-ins for llama.cpp."""

import ctypes
import json
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gguf
import numpy
import pytest

from potstill.core import jsonl
from potstill.core import project as core_project
from potstill.core.errors import UserError
from potstill.evaluation import compare
from potstill.serving import llama_cpp as llama
from potstill.serving import quantize
from potstill.task import settings
from potstill.training import model_folder
from tests import fakes
from tests.conftest import ROOT, Project

P = SimpleNamespace(max_tokens=32, max_model_len=1024)  # of predict
CONVERTER = """
import sys
model, _, kind, _, out = sys.argv[1:]
if "unknown" in model:
    raise NotImplementedError("BPE pre-tokenizer was not recognized")
open(out, "wb").write(kind.encode() * 100)
"""
# The Python of .venv-quantize: pip, llama.cpp's rounding and its server
OTHER = """#!%s
import json, pathlib, sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
words = sys.argv[1:]
if words[1] == "pip":
    import shutil
    assert "--require-hashes" in words and "--no-build-isolation" in words
    shutil.copy("llama.tar.gz", words[words.index("--dest") + 1])
    sys.exit(0)
assert words[:2] == ["-m", "potstill.serving.llama_cpp"], words
if words[2] == "q4_k_m":
    pathlib.Path(words[4]).write_bytes(pathlib.Path(words[3]).read_bytes()[:150])
    sys.exit(0)
assert words[2] == "serve" and words[4] == "1024", words
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
        "gptq": {"size": 1 << 19, **said(tests, 20)},
    }
    table = quantize.table(toy, tests, quantize.evaluated(toy), measured)
    found = {row["model"]: row for row in table}
    assert [
        (name, row["size_mib"], row["rows"], row["right"], row["differ"], row["flips"])
        for name, row in found.items()
    ] == [
        ("student", 3.0, 40, 39, 1, 1),
        ("int8", 1.0, 40, 38, 2, 2),
        ("gptq", 0.5, 40, 20, 20, 20),
    ]
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
    def made(kind: str, model: Path, lessons: Path, out: Path) -> None:
        assert (kind, str(model), str(lessons)) == ("int8", "models/student", "data/4-train.jsonl")
        fakes.model(out)

    def answered(model: Path, chats: list[Any], p: Any, dtype: str, rules: None) -> jsonl.Row:
        assert (len(chats), rules) == (40, None)
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
    monkeypatch.setattr("torch.cpu._is_avx512_supported", lambda: False)
    monkeypatch.setattr(quantize, "VENV", Path(".venv-quantize"))
    student, lessons = Path("models/student"), Path("data/4-train.jsonl")
    for kind, sentence in (
        ("gptq", "FORMAT=gptq needs an NVIDIA GPU, or a CPU with AVX-512, for vLLM to serve it"),
        ("int8", ".venv-quantize is missing, expected llm-compressor and llama.cpp in it"),
        ("gguf", ".venv-quantize is missing"),
    ):
        with pytest.raises(UserError, match=sentence):
            quantize.make(kind, student, lessons, Path("out") / kind)
    assert not Path("out").exists()
    for kind in ("gptq", "int8"):
        monkeypatch.setattr("torch.cpu._is_avx512_supported", lambda: True)
        with pytest.raises(UserError, match="is missing"):
            quantize.make(kind, student, lessons, Path("out") / kind)


def test_llama_cpp_has_no_grammar_of_a_request_s_own(
    tests: list[jsonl.Row], project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.set(predict_grounded=True)
    monkeypatch.setattr(sys, "argv", ["quantize", "int8", "gguf"])
    with pytest.raises(UserError, match=r"^params\.yaml: predict\.grounded is true, and llama"):
        quantize.main()


@pytest.fixture
def llama_cpp(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """A source distribution with a converter, and a Python that pip, llama.cpp's rounding and its
    server run in."""
    monkeypatch.setattr(quantize, "VENV", project.dir / "other")
    monkeypatch.setattr(
        quantize, "PYTHON", project.write("other/bin/python", OTHER % sys.executable)
    )
    monkeypatch.setattr(core_project, "cache", lambda: project.dir / ".cache")
    (project.dir / "other/bin/python").chmod(0o755)
    project.write("other/ready", "")
    with tarfile.open("llama.tar.gz", "w:gz") as archive:
        for name in (quantize.CONVERTER, "conversion/a.py", "gguf-py/gguf/b.py", "src/llama.cpp"):
            path = project.write(f"packed/vendor/llama.cpp/{name}", CONVERTER)
            archive.add(path, f"llama_cpp_python-1/vendor/llama.cpp/{name}")
        archive.add(path, "llama_cpp_python-1/setup.py")


def test_gguf_goes_through_llama_cpp(
    tests: list[jsonl.Row], project: Project, llama_cpp: None
) -> None:
    student, lessons = Path("models/student"), Path("data/4-train.jsonl")
    for kind, bytes_ in (("gguf", b"q8_0" * 100), ("gguf-q4_k_m", (b"f16" * 100)[:150])):
        out = Path("models/quantized") / kind
        quantize.make(kind, student, lessons, out)
        assert [path.name for path in out.iterdir()] == [quantize.GGUF]
        assert (out / quantize.GGUF).read_bytes() == bytes_
    folder = quantize.converter()
    parts = sorted(str(path.relative_to(folder)) for path in folder.rglob("*.py"))
    assert parts == ["conversion/a.py", quantize.CONVERTER, "gguf-py/gguf/b.py"]
    toy = settings.load()
    found = quantize.answered(out, [toy.messages("student", row) for row in tests], P, "float32")
    assert found["answers"] == said(tests)["answers"]
    assert found["tokens_per_second"] > 0
    assert found["memory_mib"] > 0
    with pytest.raises(
        UserError,
        match="FORMAT=gguf failed: NotImplementedError: BPE pre-tokenizer was not recognized",
    ):
        quantize.make("gguf", fakes.model("models/unknown"), lessons, Path("other/out"))
    project.write("other/bin/python", "#!/bin/sh\nexit 3\n")
    with pytest.raises(UserError, match="python ended with exit code 3"):
        quantize.answered(out, [], P, "float32")


def test_without_an_index_the_converter_is_named(llama_cpp: None, project: Project) -> None:
    project.write("other/bin/python", "#!/bin/sh\necho ERROR: no route >&2\nexit 1\n")
    expected = "llama-cpp-python==.* could not be fetched: ERROR: no route: see the network"
    with pytest.raises(UserError, match=expected):
        quantize.converter()


MORE = {0, 1, 2, 5, 8, 11, 14, 17, 20, 23, 26, 27, 28, 29}  # of 30 layers, as llama.cpp has them


@pytest.mark.parametrize(
    ("name", "tied", "expected"),
    [
        ("token_embd.weight", True, "Q6_K"),
        ("token_embd.weight", False, "Q4_K"),
        ("output.weight", False, "Q6_K"),
        ("output_norm.weight", True, None),
        ("blk.3.attn_norm.weight", True, None),
        ("blk.3.attn_q.bias", True, None),
        ("blk.3.attn_q.weight", True, "Q4_K"),
        ("blk.3.attn_qkv.weight", True, "Q5_K"),
        *(
            (f"blk.{i}.{part}.weight", True, "Q6_K" if i in MORE else "Q4_K")
            for i in range(30)
            for part in ("attn_v", "ffn_down")
        ),
    ],
)
def test_the_mix_of_types_is_llama_cpps(name: str, tied: bool, expected: str | None) -> None:
    assert llama.kind(name, 30, tied) == expected


def test_a_gguf_is_rounded_row_by_row(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its metadata and its vectors stay. A row that is no multiple of a type's block gets the type
    that llama.cpp falls back to."""
    shapes = {"token_embd": (3, 576), "blk.0.ffn_down": (2, 256), "blk.0.attn_q": (2, 96)}
    shapes["blk.0.attn_k"] = (2, 40)
    writer = gguf.GGUFWriter("whole.gguf", "llama")
    writer.add_block_count(1)
    writer.add_file_type(1)
    writer.add_token_list(["a", "b"])
    for name, shape in shapes.items():
        writer.add_tensor(f"{name}.weight", numpy.ones(shape, numpy.float16))
    writer.add_tensor("output_norm.weight", numpy.ones(576, numpy.float32))
    for step in ("header", "kv_data", "tensors"):
        getattr(writer, f"write_{step}_to_file")()
    writer.close()

    def quantize_chunk(*given: Any) -> int:
        kind, _, into, start, rows, columns, more = given
        assert (start.value, more) == (0, None)
        block, size = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType(kind.value)]
        count = rows.value * columns.value // block * size
        ctypes.memset(into, 7, count)
        return int(count)

    fake = SimpleNamespace(ggml_quantize_chunk=quantize_chunk)
    monkeypatch.setattr(ctypes, "CDLL", lambda path: fake)
    library = SimpleNamespace(xllamacpp=SimpleNamespace(__file__="x.so"))
    monkeypatch.setitem(sys.modules, "xllamacpp", library)
    quantize_chunk.restype = None  # type: ignore[attr-defined]
    llama.q4_k_m("whole.gguf", "small.gguf")
    small = gguf.GGUFReader("small.gguf")
    types = {tensor.name: tensor.tensor_type.name for tensor in small.tensors}
    assert types == {
        "token_embd.weight": "Q8_0",  # for Q6_K, whose blocks have 256
        "blk.0.ffn_down.weight": "Q6_K",
        "blk.0.attn_q.weight": "Q5_0",  # for Q4_K
        "blk.0.attn_k.weight": "F16",  # no block of 32 either
        "output_norm.weight": "F32",
    }
    assert set(small.tensors[0].data.flat) == {7}
    assert small.fields["general.file_type"].contents() == llama.Q4_K_M
    assert small.fields["tokenizer.ggml.tokens"].contents() == ["a", "b"]


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
    quantize.make("int8", model, Path("data/4-train.jsonl"), out)
    assert (
        json.loads((out / "config.json").read_text())["quantization_config"]["quant_method"]
        == "compressed-tensors"
    )
    assert quantize.size(out) < 0.8 * quantize.size(model)
    before, after = (quantize.answered(folder, chats, P, "bfloat16") for folder in (model, out))
    equal = sum(a == b for a, b in zip(before["answers"], after["answers"], strict=True))
    assert equal >= len(chats) // 2, (before["answers"][:3], after["answers"][:3])
    assert after["tokens_per_second"] > 0
