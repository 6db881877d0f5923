"""`make quantize FORMAT=int8`: the student with fewer bits a weight, held against itself before it may be served.

int8       weights and activations, by llm-compressor on a CPU (potstill/int8.py); vLLM serves it on a CPU, too
gptq, awq  4-bit weights, by `swift export` on a GPU; calibrated, as int8 is, on training rows
gguf       8-bit weights for llama.cpp, by its own converter and answered by its own server; LLAMA_CPP is its folder

→ models/<task>/quantized/<format>; reports/<task>/quantized.csv: size, memory, tokens a second and right rows of the student and of
each format, and whether it is the same model still, by the test of the other hops (potstill/compare.py).
"""

import argparse
import json
import multiprocessing
import os
import resource
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from potstill.core import errors, jsonl, params, project
from potstill.core.errors import UserError
from potstill.core.jsonl import Row
from potstill.evaluation import compare, score, statistics
from potstill.inference import engine
from potstill.serving import serve
from potstill.serving.int8 import LESSONS
from potstill.task import settings
from potstill.task.settings import Task
from potstill.training import model_folder, run, swift

Chat = list[dict[str, str]]
FORMATS = ("int8", "gptq", "awq", "gguf")
VENV = project.ROOT / ".venv-quantize"
GGUF = "model.gguf"


def export_config(
    method: str, model: Path, lessons: Path, out: Path, max_length: int
) -> swift.Config:
    """The YAML of `swift export` for 4-bit weights."""
    return swift.model_config(str(model), "main") | {
        "quant_method": method,
        "quant_bits": 4,
        "quant_n_samples": LESSONS,
        "quant_batch_size": 1,
        "group_size": 64,
        "dataset": [str(lessons)],
        "max_length": max_length,
        "output_dir": str(out),
        "exist_ok": True,
        "load_args": False,
    }


def make(kind: str, model: Path, lessons: Path, out: Path, max_length: int) -> None:
    """Writes the quantised model to the folder `out`. Raises UserError where this machine cannot make it."""
    work = project.cache() / "quantize" / kind
    work.mkdir(parents=True, exist_ok=True)
    if kind in ("gptq", "awq"):
        if not model_folder.on_cuda():
            raise UserError(
                f"FORMAT={kind} needs an NVIDIA GPU, and there is none here: take one, or `make quantize FORMAT=int8`"
            )
        return swift.run("export", export_config(kind, model, lessons, out, max_length), work)
    out.mkdir(parents=True)
    if kind == "int8":
        command = [
            str(VENV / "bin/python"),
            "-m",
            "potstill.serving.int8",
            str(model),
            str(lessons),
            str(out),
        ]
        if not (VENV / "ready").is_file():
            raise UserError(
                f"{VENV} is missing, expected llm-compressor in it: `make quantize` makes it"
            )
    else:
        script = llama_cpp() / "convert_hf_to_gguf.py"
        command = [
            sys.executable,
            str(script),
            str(model),
            "--outfile",
            str(out / GGUF),
            "--outtype",
            "q8_0",
        ]
    log = work / "log"
    with log.open("wb") as to:
        code = subprocess.call(
            command,
            stdout=to,
            stderr=subprocess.STDOUT,
            env=os.environ | model_folder.environment(hub=False),
        )
    if code:
        raise UserError(
            f"FORMAT={kind} failed: {swift.telling_line(log, code)} (the whole log: {log})"
        )


def llama_cpp() -> Path:
    """llama.cpp's folder. Raises UserError when LLAMA_CPP does not name one that is built."""
    folder = Path(os.environ.get("LLAMA_CPP", ""))
    if (
        not (folder / "convert_hf_to_gguf.py").is_file()
        or not (folder / "build/bin/llama-server").is_file()
    ):
        raise UserError(
            f"LLAMA_CPP is {os.environ.get('LLAMA_CPP', '')!r}, expected the folder of a built llama.cpp, with "
            "convert_hf_to_gguf.py and build/bin/llama-server"
        )
    return folder


def answered(model: Path, chats: list[Chat], p: SimpleNamespace, dtype: str) -> Row:
    """Greedy answers of a model, in a process of its own: {"answers", "tokens_per_second", "memory_mib"}."""
    spawn = multiprocessing.get_context("spawn")  # vLLM's memory ends with its process
    how = _by_llama_cpp if (model / GGUF).is_file() else _by_vllm
    with ProcessPoolExecutor(1, mp_context=spawn) as pool:
        return pool.submit(
            how, str(model), chats, p.predict.max_tokens, p.predict.max_model_len, dtype
        ).result()


def _by_vllm(model: str, chats: list[Chat], max_tokens: int, max_model_len: int, dtype: str) -> Row:
    llm = engine._engine(model, dtype, max_model_len, None)
    from vllm import SamplingParams, TokensPrompt

    tokenizer = llm.get_tokenizer()
    asked = [TokensPrompt(prompt_token_ids=engine.tokens(tokenizer, chat)) for chat in chats]
    how = SamplingParams(temperature=0.0, max_tokens=max_tokens)
    llm.generate(asked[:8], how, use_tqdm=False)  # the kernels are made at their first use
    start = time.monotonic()
    found = [out.outputs[0] for out in llm.generate(asked, how, use_tqdm=False)]
    return _row(
        [one.text for one in found],
        sum(len(one.token_ids) for one in found),
        start,
        resource.RUSAGE_SELF,
    )


def _by_llama_cpp(
    model: str, chats: list[Chat], max_tokens: int, max_model_len: int, dtype: str
) -> Row:
    with _llama_server(Path(model) / GGUF, max_model_len) as ask:
        start = time.monotonic()
        with ThreadPoolExecutor(4) as pool:
            more = {
                "temperature": 0.0,
                "max_tokens": max_tokens,
                "chat_template_kwargs": {"enable_thinking": False},
            }
            found = list(
                pool.map(lambda chat: ask("/v1/chat/completions", {"messages": chat} | more), chats)
            )
        texts = [one["choices"][0]["message"]["content"] for one in found]
        done = _row(texts, sum(one["usage"]["completion_tokens"] for one in found), start, None)
    return done | {"memory_mib": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss >> 10}


def _row(answers: list[str], tokens: int, start: float, who: int | None) -> Row:
    speed = round(tokens / (time.monotonic() - start), 1)
    memory = None if who is None else resource.getrusage(who).ru_maxrss >> 10
    return {"answers": answers, "tokens_per_second": speed, "memory_mib": memory}


def free_port() -> int:
    """A port of loopback that nobody has taken."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@contextmanager
def _llama_server(model: Path, max_model_len: int) -> Iterator[Callable[[str, Row | None], Any]]:
    """llama.cpp's own server on loopback, four requests at once: a function that asks it."""
    port = free_port()
    command = [
        str(llama_cpp() / "build/bin/llama-server"),
        "-m",
        str(model),
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
    ]
    command += ["--jinja", "-np", "4", "-c", str(4 * max_model_len)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def ask(path: str, body: Row | None = None) -> Any:
        headers = {"Content-Type": "application/json"}
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", data, headers)
        with urllib.request.urlopen(request, timeout=600) as reply:
            return json.load(reply)

    try:
        while True:
            try:
                ask("/health")
                break
            except OSError:  # not up yet, or still loading (503)
                if server.poll() is not None:
                    raise UserError(
                        f"llama-server ended with exit code {server.returncode}: {' '.join(command)}"
                    ) from None
                time.sleep(0.2)
        yield ask
    finally:
        server.terminate()
        server.wait()


def table(
    t: Task, tests: list[Row], evaluated: list[Row], measured: dict[str, Row], sizes: dict[str, int]
) -> list[Row]:
    """A row for each model, {"model", "size_mib", "memory_mib", "tokens_per_second", "rows", "right", "share", "low", "high", "differ",
    "flips", "p", "passed"}. `evaluated` are the student's predictions; that it answers once more is the floor of the hops."""
    before = score.marked(t, tests, {"student": evaluated})["student"]
    none = {"lessons": 0, "other_tokens": []}
    again = predictions(tests, measured["student"]["answers"])
    found = []
    for name, one in measured.items():
        answers = predictions(tests, one["answers"])
        right = sum(mark["right"] for mark in score.marked(t, tests, {name: answers})[name])
        low, high = statistics.wilson(right, len(tests))
        # The hops by their names in compare.HOPS: first the floor, then what is held against it.
        marks, texts = (
            {"base": before, "sft": before},
            {"base": evaluated, "again": again, "sft": evaluated},
        )
        floor, hop, _ = compare.hops(t, tests, marks, texts | {"adapter": answers}, none)
        counts = floor if name == "student" else hop
        found.append(
            {"model": name, "size_mib": round(sizes[name] / (1 << 20), 1)}
            | {key: one[key] for key in ("memory_mib", "tokens_per_second")}
            | {"rows": len(tests), "right": right, "share": round(right / len(tests), 4)}
            | {"low": round(low, 4), "high": round(high, 4)}
            | {key: counts[key] for key in ("differ", "flips", "p", "passed")}
        )
    return found


def predictions(tests: list[Row], answers: list[str]) -> list[Row]:
    """Answers as rows of predictions, without their tokens."""
    none = {"prompt_tokens": 0, "completion_tokens": 0}
    return [
        {"id": test["id"], "answer": text} | none for test, text in zip(tests, answers, strict=True)
    ]


def size(folder: Path) -> int:
    """Bytes of the weights in a model's folder."""
    return sum(
        path.stat().st_size for path in folder.iterdir() if path.suffix in (".safetensors", ".gguf")
    )


def main() -> None:
    p = params.load("predict", "max_length")
    parser = argparse.ArgumentParser(description="the student with fewer bits a weight")
    parser.add_argument("format", nargs="*", choices=FORMATS, default=["int8"])
    parser.add_argument("--task", default=p.task)
    given = parser.parse_args()
    t = settings.load(given.task)
    p = t.settled(p)
    model = serve.student_folder(t)
    tests = t.inputs(t.data / "4-test.jsonl", "slice")
    shipped = jsonl.read_json(t.data / "6-choice.json")["ship"]
    evaluated = score.predictions(t, (shipped,))[shipped]
    for kind in given.format:
        out = t.models / "quantized" / kind
        shutil.rmtree(run.part(out), ignore_errors=True)
        make(kind, model, t.data / "4-train.jsonl", run.part(out), p.max_length)
        run.replace(out)
    folders = {"student": model} | {kind: t.models / "quantized" / kind for kind in FORMATS}
    folders = {name: folder for name, folder in folders.items() if folder.is_dir()}
    chats = [t.messages("student", row) for row in tests]
    measured = {
        name: answered(folder, chats, p, serve.precision(p.predict.dtype, name))
        for name, folder in folders.items()
    }
    found = table(
        t, tests, evaluated, measured, {name: size(folder) for name, folder in folders.items()}
    )
    t.reports.mkdir(parents=True, exist_ok=True)
    compare.write_csv(t.reports / "quantized.csv", found)
    for one in found:
        print(
            f"{one['model']:8} {one['size_mib']:8.1f} MiB {one['tokens_per_second']:9,.1f} tokens/s  right {one['right']:,} of "
            f"{one['rows']:,}  {one['differ']:,} differ, {one['flips']:,} flips{'' if one['passed'] else ': NOT THE SAME MODEL'}"
        )
    if not all(one["passed"] for one in found):
        raise UserError(
            f"{t.reports}/quantized.csv: a format answers otherwise than the student: do not serve it"
        )


if __name__ == "__main__":
    errors.run(main)
