"""`make quantize FORMAT=int8`: the student with fewer bits a weight, compared with the student
before it may be served.

int8         weights and activations, by llm-compressor; vLLM serves it, on a CPU, too
gptq         4-bit weights, likewise; vLLM serves it on a GPU, or a CPU with AVX-512
gguf         8-bit weights (Q8_0), converted by llama.cpp, for it and for Ollama
gguf-q4_k_m  mostly 4-bit weights, by llama.cpp's mix of that name

→ models/quantized/<format>; reports/quantized.csv: size, memory, tokens a second and right rows of
the student and of each format, and whether it is still the same model, by the test that merged
models must pass too (potstill/evaluation/compare.py).
"""

import argparse
import multiprocessing
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from potstill.core import jsonl, params, project, stage
from potstill.core.errors import UserError
from potstill.core.jsonl import Row
from potstill.evaluation import compare, score, statistics
from potstill.inference import answering, engine, predictions
from potstill.serving import serve
from potstill.serving.llama_cpp import PARALLEL
from potstill.task import settings
from potstill.task.settings import Task
from potstill.training import model_folder, run, swift

Chat = list[dict[str, str]]
Twice = tuple[list[str], list[str]]  # what two equal runs answer to the same rows
FORMATS = ("int8", "gptq", "gguf", "gguf-q4_k_m")
VENV = project.ROOT / ".venv-quantize"
PYTHON = VENV / "bin/python"
GGUF = "model.gguf"
# The source distribution that has llama.cpp with its converter; nothing of it is built or installed
SOURCE = "llama-cpp-python==0.3.36"
SHA256 = "832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e"
CONVERTER = "convert_hf_to_gguf.py"
PARTS = (CONVERTER, "conversion/", "gguf-py/gguf/")  # of what is in it


def make(kind: str, model: Path, lessons: Path, out: Path) -> None:
    """Writes the quantised model to the folder `out`. Raises UserError where this machine lacks
    what serves the format or makes it, and when a tool fails."""
    serve.refuse(kind)
    if not (VENV / "ready").is_file():
        remedy = "expected llm-compressor and llama.cpp in it: `make quantize` makes it"
        raise UserError(f"{VENV.name} is missing, {remedy}")
    work = project.cache() / "quantize" / kind
    work.mkdir(parents=True, exist_ok=True)
    out.mkdir(parents=True)
    log, env = work / "log", os.environ | model_folder.environment(hub=False)
    steps: list[list[str | Path]]
    if kind in ("int8", "gptq"):
        steps = [[PYTHON, "-m", "potstill.serving.compressor", kind, model, lessons, out]]
    else:
        folder, whole = converter(), out / "f16.gguf"
        env["PYTHONPATH"] = os.pathsep.join([str(project.ROOT), str(folder / "gguf-py")])
        to = ("q8_0", out / GGUF) if kind == "gguf" else ("f16", whole)
        steps = [
            [sys.executable, folder / CONVERTER, model, "--outtype", to[0], "--outfile", to[1]]
        ]
        if kind != "gguf":
            steps.append([PYTHON, "-m", "potstill.serving.llama_cpp", "q4_k_m", whole, out / GGUF])
    for command in steps:
        with log.open("wb") as to_log:
            code = subprocess.call(command, stdout=to_log, stderr=subprocess.STDOUT, env=env)
        if code:
            line = swift.telling_line(log, code)
            raise UserError(f"FORMAT={kind} failed: {line} (the whole log: {log})")
    (out / "f16.gguf").unlink(missing_ok=True)


def converter() -> Path:
    """The folder of llama.cpp's converter, from SOURCE, fetched once. Raises UserError when the
    index that pip is set to does not give it."""
    folder = project.cache() / "packages" / SOURCE.replace("==", "-")
    if folder.is_dir():
        return folder
    part = run.part(folder)
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    (part / "wanted.txt").write_text(f"{SOURCE} --hash=sha256:{SHA256}\n")
    command = [str(PYTHON), "-m", "pip", "download", "--no-deps", "--no-build-isolation"]
    command += ["--no-binary", ":all:", "--require-hashes", "--disable-pip-version-check"]
    command += ["--quiet", "--dest", str(part), "-r", str(part / "wanted.txt")]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        line = (done.stderr.strip().splitlines() or [f"pip ended with {done.returncode}"])[-1]
        remedy = "see the network and `pip config list`"
        raise UserError(f"{SOURCE} (77 MB, for GGUF) could not be fetched: {line}: {remedy}")
    packed = next(part.glob("*.tar.gz"))
    with tarfile.open(packed) as archive:
        for member in archive:
            member.name = member.name.partition("/vendor/llama.cpp/")[2]
            if member.name.startswith(PARTS):
                archive.extract(member, part, filter="data")
    packed.unlink()
    run.replace(folder)
    return folder


def answered(
    model: Path, chats: list[Chat], p: SimpleNamespace, dtype: str, rules: list[str] | None = None
) -> Row:
    """A model's greedy answers, by the parameters `p` of predict and the grammars `rules`, in a
    process of its own: {"answers", "tokens_per_second", "memory_mib"}. llama.cpp answers without
    the grammars."""
    spawn = multiprocessing.get_context("spawn")  # vLLM's memory ends with its process
    gguf = (model / GGUF).is_file()
    ask = partial(_by_llama_cpp, str(PYTHON)) if gguf else partial(_by_vllm, rules)
    with ProcessPoolExecutor(1, mp_context=spawn) as pool:
        texts, tokens, seconds, kib = pool.submit(ask, model, chats, p, dtype).result()
    rates = {"tokens_per_second": round(tokens / seconds, 1), "memory_mib": kib >> 10}
    return {"answers": texts, **rates}


Asked = tuple[list[str], int, float, int]  # answers, their tokens, seconds, peak memory in KiB


def _by_vllm(
    rules: list[str] | None, model: Path, chats: list[Chat], p: SimpleNamespace, dtype: str
) -> Asked:
    llm = engine.start(str(model), dtype, p.max_model_len, **(engine.GUIDED if rules else {}))
    from vllm import SamplingParams, TokensPrompt
    from vllm.sampling_params import StructuredOutputsParams

    tokenizer = llm.get_tokenizer()
    asked = [TokensPrompt(prompt_token_ids=engine.tokens(tokenizer, chat)) for chat in chats]
    given = {"temperature": 0.0, "max_tokens": p.max_tokens}
    hows = [SamplingParams(**given) for _ in chats]
    for how, rule in zip(hows, rules or [], strict=False):
        how.structured_outputs = StructuredOutputsParams(grammar=rule)
    llm.generate(asked[:8], hows[:8], use_tqdm=False)  # the kernels are made at their first use
    start = time.monotonic()
    outputs = [out.outputs[0] for out in llm.generate(asked, hows, use_tqdm=False)]
    seconds, memory = time.monotonic() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    tokens = sum(len(output.token_ids) for output in outputs)
    return [output.text for output in outputs], tokens, seconds, memory


def _by_llama_cpp(
    python: str, model: Path, chats: list[Chat], p: SimpleNamespace, dtype: str
) -> Asked:
    from openai import OpenAI

    command = [python, "-m", "potstill.serving.llama_cpp", "serve", str(model / GGUF)]
    how: Row = {"model": GGUF, "temperature": 0.0, "max_tokens": p.max_tokens}
    how["extra_body"] = {"chat_template_kwargs": {"enable_thinking": False}}
    env = {"PYTHONPATH": str(project.ROOT)}
    with server([*command, str(p.max_model_len)], env, stderr=subprocess.DEVNULL) as url:
        client: Any = OpenAI(base_url=f"{url}/v1", api_key="none").chat.completions
        client.create(messages=chats[0], **how)
        start = time.monotonic()
        with ThreadPoolExecutor(PARALLEL) as pool:
            replies = list(pool.map(lambda chat: client.create(messages=chat, **how), chats))
        seconds = time.monotonic() - start
    texts = [reply.choices[0].message.content for reply in replies]
    tokens = sum(reply.usage.completion_tokens for reply in replies)
    return texts, tokens, seconds, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss


@contextmanager
def server(command: list[str], env: dict[str, str], stderr: int | None = None) -> Iterator[str]:
    """The URL of a server on a free port of loopback, healthy until the end of the block, with
    `env` added to its environment. Raises UserError when it ends before it is healthy."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [*command, "--port", str(port)],
        env=os.environ | env,
        stdout=subprocess.DEVNULL,
        stderr=stderr,
        start_new_session=True,
    )
    url = f"http://127.0.0.1:{port}"
    try:
        while True:
            with suppress(OSError):  # not up yet, or still loading (503)
                urllib.request.urlopen(f"{url}/health", timeout=5).close()
                break
            if (code := process.poll()) is not None:
                ended = f"{Path(command[0]).name} ended with exit code {code}"
                raise UserError(f"{ended}: {' '.join(command)}")
            time.sleep(0.2)
        yield url
    finally:
        process.terminate()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def same(t: Task, tests: list[Row], before: list[str], after: list[str], twice: Twice) -> Row:
    """Whether `after` are the answers of the model that gave `before`, by the test of
    potstill/evaluation/compare.py: {"rows", "right", "differ", "flips", "p", "passed", "floor"}.
    `floor` counts the flips between `twice`, the answers of two equal runs."""
    runs = {"sft": before, "adapter": after, "base": twice[0], "again": twice[1]}
    none = {"prompt_tokens": 0, "completion_tokens": 0}
    texts = {
        name: [
            {"id": test["id"], "answer": text, **none}
            for test, text in zip(tests, answers, strict=True)
        ]
        for name, answers in runs.items()
    }
    marks = score.marked(t, tests, {name: texts[name] for name in ("base", "sft", "adapter")})
    floor, hop, _ = compare.hops(t, tests, marks, texts, {"lessons": 0, "other_tokens": []})
    right = sum(mark["right"] for mark in marks["adapter"])
    del hop["hop"], hop["rows"]
    return {"rows": len(tests), "right": right, **hop, "floor": floor["flips"]}


def table(t: Task, tests: list[Row], evaluated: list[str], measured: dict[str, Row]) -> list[Row]:
    """The rows of quantized.csv, one for each of the models `measured`, of which "student" is
    one: what answered() gives of it, and its "size" in bytes. `evaluated` are the answers that
    the student gave in the evaluation; that it answers once more is the floor of the test."""
    rows = []
    for name, model in measured.items():
        twice = evaluated, measured["student"]["answers"]
        hop = same(t, tests, evaluated, model["answers"], twice)
        del hop["floor"]
        row = {"model": name, "size_mib": round(model["size"] / (1 << 20), 1)}
        row |= {key: model[key] for key in ("memory_mib", "tokens_per_second")}
        row |= {key: hop[key] for key in ("rows", "right")}
        low, high = statistics.wilson(hop["right"], hop["rows"])
        share = {"share": hop["right"] / hop["rows"], "low": low, "high": high}
        rows.append(row | {key: round(value, 4) for key, value in share.items()} | hop)
    return rows


def size(folder: Path) -> int:
    """Bytes of the weights in a model's folder."""
    weights = [*folder.glob("*.safetensors"), *folder.glob("*.gguf")]
    return sum(path.stat().st_size for path in weights)


def evaluated(t: Task) -> list[str]:
    """The answers to the test rows of the model that ships. Raises UserError where it has none."""
    shipped = jsonl.read_json(t.data / "6-choice.json")["ship"]
    path = predictions.folder(t, shipped) / "test.jsonl"
    return [row["answer"] for row in jsonl.read_jsonl(path, ("id", "answer"))]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("format", nargs="*", choices=FORMATS, default=["int8"])
    given = parser.parse_args()
    t = settings.load()
    p = params.load("predict")
    model = serve.student_folder(t)
    tests = t.inputs(t.data / "4-test.jsonl", "slice")
    before = evaluated(t)
    folders = {kind: t.models / "quantized" / kind for kind in FORMATS}
    if p.predict.grounded:  # what llama.cpp answers without is no comparison
        folders = {kind: path for kind, path in folders.items() if not kind.startswith("gguf")}
    if not folders.keys() >= set(given.format):
        raise UserError(
            "params.yaml: predict.grounded is true, and llama.cpp knows no grammar of a request's "
            "own: expected FORMAT=int8 or gptq, or set it to false"
        )
    for kind in given.format:
        part = run.part(folders[kind])
        shutil.rmtree(part, ignore_errors=True)
        make(kind, model, t.data / "4-train.jsonl", part)
        run.replace(folders[kind])
    chats = [t.messages("student", row) for row in tests]
    rules = answering.quoting(t, p, tests)
    measured = {}
    for name, folder in {"student": model, **folders}.items():
        if folder.is_dir():
            dtype = serve.PRECISION.get(name, p.predict.dtype)
            found = answered(folder, chats, p.predict, dtype, rules)
            measured[name] = {"size": size(folder), **found}
    path, rows = t.reports / "quantized.csv", table(t, tests, before, measured)
    compare.write_csv(path, rows)
    for row in rows:
        print(
            f"{row['model']:11} {row['size_mib']:7.1f} MiB {row['tokens_per_second']:8,.1f} token/s"
            f"  right {row['right']:,} of {row['rows']:,}  {row['differ']:,} differ,"
            f" {row['flips']:,} flips{'' if row['passed'] else ': NOT THE SAME MODEL'}"
        )
    if not all(row["passed"] for row in rows):
        raise UserError(f"{path}: a format answers otherwise than the student: do not serve it")


if __name__ == "__main__":
    stage.run(main)
