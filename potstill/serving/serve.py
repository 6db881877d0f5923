"""`make serve`: the student behind vLLM's OpenAI-compatible server, with the gateway inside it.

    curl http://127.0.0.1:8000/v1/chat/completions -H "Authorization: Bearer $SERVE_API_KEY" \\
        -d '{"input": "…"}'

--host, --port   127.0.0.1 and 8000 when left out
--format         int8 or gptq: a quantised form of the student
--student        the folder of another student
--canary         the folder of a second student, which answers a share of the inputs, --share, until
                 `make canary` ends the trial
--behind         the socket of a server with neither gateway nor key: the canary's own
--speculative    another value than the parameter serve.speculative has
--cascade        what fails the task's checks goes to the teacher, which may cost (docs/serve.md)
--confidence     with it, so does an answer with a token less probable than this: `auto` (the
                 default) is what `make confidence` chose, `off`, or a number
--stream         with it, streamed requests are `buffered` until checked (the default), or for the
                 `student` alone
--down           with it, what a bad answer is where the teacher gives none: the `student`'s, with a
                 flag (the default), or `503`

Runs until SIGTERM or Ctrl-C. Answers under way are then completed, new requests are refused, and
the exit code is 0.
"""

import argparse
import errno
import json
import os
import shutil
import sys
import sysconfig
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from types import SimpleNamespace

from potstill.core import jsonl, params, stage
from potstill.core.errors import UserError
from potstill.evaluation import cascade as worth
from potstill.evaluation import compare
from potstill.inference.engine import KV_CACHE_ON_CPU
from potstill.inference.quoting import Grammars
from potstill.serving import canary, capture, cascade, confidence, gateway, served, standby
from potstill.task import settings
from potstill.task.settings import Task
from potstill.training import model_folder

# The arithmetic of the quantised forms: INT8 kernels take no float32 where the processor has AMX.
PRECISION = {"int8": "bfloat16", "gptq": "bfloat16"}
QUEUE = 2048  # requests that wait or run; vLLM answers 503 to more
GATEWAY, CASCADE = "potstill.serving.gateway.Gateway", "potstill.serving.cascade.Cascade"
NGRAM = {"method": "ngram", "num_speculative_tokens": 8}
NGRAM |= {"prompt_lookup_min": 1, "prompt_lookup_max": 3}


def precision(folder: Path, dtype: str) -> str:
    """The arithmetic for a model: `dtype`, or that of the quantised forms where it is one."""
    quantized = "quantization_config" in model_folder.check_folder(folder)
    return PRECISION["int8"] if quantized else dtype


def student_folder(t: Task, kind: str | None = None) -> Path:
    """The folder of the student that ships or, with `kind`, of its quantised form. Raises UserError
    when it has no whole model."""
    folder = t.models / "quantized" / kind if kind else t.models / "student"
    command = f"quantize FORMAT={kind}`" if kind else f"repro TASK={t.name}` trains it"
    model_folder.check_folder(folder, f"`make {command}")
    return folder


def refuse(kind: str | None) -> None:
    """Raises UserError where vLLM cannot serve the student's form of this kind on this machine. Its
    kernel for 4-bit weights on a CPU is in the library for AVX-512 alone."""
    if kind != "gptq" or model_folder.on_cuda():
        return
    import torch

    if not torch.cpu._is_avx512_supported():
        needed = "an NVIDIA GPU, or a CPU with AVX-512, for vLLM to serve it"
        remedy = "take int8, or gguf-q4_k_m for llama.cpp"
        raise UserError(f"FORMAT=gptq needs {needed}, and there is none here: {remedy}")


def speculation(t: Task, given: str) -> str:
    """The kind of speculation; "auto" is what bench.serve measured as faster for this task, "off"
    where it has not run."""
    path = t.reports / "serving.json"
    measured = jsonl.read_json(path) if path.is_file() else {"speculative": "off"}
    return str(measured["speculative"]) if given == "auto" else given


def arguments(
    t: Task,
    model: Path,
    dtype: str,
    max_model_len: int,
    speculative: str,
    middleware: str | None = GATEWAY,
    two: bool = False,
) -> list[str]:
    """The command line of vLLM's server, but for where it listens. `speculative` is "off", "ngram",
    or the folder of a smaller model with the same tokenizer, of the task or of the repository.
    `two`: there is a canary, so each of the two leaves half of a GPU's memory to the other."""
    given = {
        "model": str(model),
        "served-model-name": t.name,
        "dtype": dtype,
        "max-model-len": str(max_model_len),
        "generation-config": "vllm",  # nothing from the model's own sampling settings
        "default-chat-template-kwargs": '{"enable_thinking": false}',
        # guidance accepts every answer that the students are trained on; xgrammar 0.2 accepts none
        # of those whose schema has a pattern
        "structured-outputs-config": '{"backend": "guidance", "disable_any_whitespace": true}',
        "shutdown-timeout": str(gateway.DRAIN),
        "max-num-queued-reqs": str(QUEUE),
    }
    given |= {"middleware": middleware} if middleware else {}
    flags = ["--disable-fastapi-docs", "--disable-uvicorn-access-log"]
    if two and model_folder.on_cuda():
        given["gpu-memory-utilization"] = "0.45"
    if not model_folder.on_cuda():
        given["kv-cache-memory-bytes"] = str(KV_CACHE_ON_CPU)
        # Prompts are read whole: vLLM 0.32 on a CPU dies of a seeded one read in parts.
        given["max-num-batched-tokens"] = str(max(8192, max_model_len))
        # The engine computes itself: it and a worker process, vLLM's default, wait for one another
        # by spinning. The whole path, since vLLM turns the name "uni" into that default.
        given["distributed-executor-backend"] = "vllm.v1.executor.uniproc_executor.UniProcExecutor"
        flags += ["--no-enable-chunked-prefill", *([] if compiles() else ["--enforce-eager"])]
    if speculative != "off":
        folder = str(model_folder.local(speculative))
        draft = {"model": folder, "num_speculative_tokens": 4}
        given["speculative-config"] = json.dumps(NGRAM if speculative == "ngram" else draft)
    return [word for name, value in given.items() for word in (f"--{name}", value)] + flags


def compiles() -> bool:
    """Whether torch can build kernels on a CPU: it needs a C++ compiler and Python's headers."""
    header = Path(sysconfig.get_path("include"), "Python.h")
    return shutil.which(os.environ.get("CXX", "g++")) is not None and header.is_file()


def on_cpu() -> dict[str, str]:
    """The environment of a server that computes on a CPU; {} on a GPU. One core is left to the
    process that talks to clients, or threads that wait by spinning would take it (measured on two
    cores: 350 ms an answer with one thread, 844 with two)."""
    if model_folder.on_cuda():
        return {}
    return {
        "OMP_NUM_THREADS": str(max(1, len(os.sched_getaffinity(0)) - 1)),
        # vLLM's own binding leaves one compute thread on two cores.
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        # vLLM 0.32 can't read that cache on a CPU and compiles anew; torch's own cache works.
        "VLLM_USE_AOT_COMPILE": "0",
    }


def with_teacher(
    t: Task, stream: str, down: str, bar: float | None = None
) -> AbstractContextManager[object]:
    """Prepares the cascade, with `bar` as its threshold of confidence: says what it is worth on the
    test rows, and serves a teacher of this machine for as long as it lasts. Raises UserError as
    standby.opened does."""
    p = params.load("teacher").teacher
    path = t.reports / "tables/cascade.csv"
    if path.is_file():
        print(worth.lines(list(compare.read_csv(path.read_text(encoding="utf-8"), str(path)))))
    else:
        print(f"serve: {path} is missing, which says what the cascade is worth: `make eval`")
    if p.budget is None and p.model != "scripted":
        print("serve: teacher.budget is null: nothing caps what the teacher may cost")
    stack = ExitStack()
    teacher = stack.enter_context(standby.opened(t, p))
    os.environ.pop("TEACHER_API_KEY", None)  # vLLM's own processes need not know it
    cascade.chosen = cascade.Settings(teacher, stream, down, bar)
    return stack


def with_canary(
    t: Task, student: Path, given: argparse.Namespace, p: SimpleNamespace, stack: ExitStack
) -> tuple[Path, bool]:
    """Begins a trial and starts the canary's server; returns the student's folder that is served,
    and whether there is a trial. Raises UserError as served.given and canary.started do, for a
    share that is none, and where nothing is kept by which the two could be compared."""
    if not 0 < given.share < 1:
        raise UserError(f"SHARE is {given.share:g}, expected a share between 0 and 1, such as 0.1")
    if not p.serve.capture:
        raise UserError("serve.capture is 0, but `make canary` compares by what is kept: set it")
    second = served.given(given.canary, "CANARY")
    if (kept := served.begin(t, student, second, given.share)) is None:
        return student, False
    names = kept[0].name, kept[1].name
    socket = stack.enter_context(canary.room())
    chosen = canary.Settings(
        names[0], names[1], given.share, socket, served.trial_file(t).absolute()
    )
    command = [sys.executable, "-m", __spec__.name if __spec__ else __name__]
    command += ["--student", str(kept[1]), "--speculative", given.speculative, "--behind"]
    said = f"{given.share:.4g} of the inputs go to {second}, {names[1]}, the others to {names[0]}"
    print(f"serve: {said}", flush=True)
    stack.enter_context(canary.started(command, chosen))
    canary.chosen = chosen
    return kept[0], True


def main() -> None:
    p = params.load("predict", "serve")
    parser = argparse.ArgumentParser()
    parser.add_argument("--format")
    parser.add_argument("--speculative", default=p.serve.speculative)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--student")
    parser.add_argument("--canary")
    parser.add_argument("--share", type=float, default=0.1)
    parser.add_argument("--behind")
    parser.add_argument("--cascade", action="store_true")
    parser.add_argument("--confidence", default="auto")
    parser.add_argument("--stream", choices=cascade.STREAMS, default=cascade.STREAMS[0])
    parser.add_argument("--down", choices=cascade.DOWN, default=cascade.DOWN[0])
    given = parser.parse_args()
    t = settings.load()
    if given.behind:
        canary.ends_with_parent()
        return run(t, Path(given.student), given, p, None, True)
    gateway.api_key()
    capture.check(t, p.serve)
    if p.predict.grounded:
        Grammars(t)  # says what is wrong before the server starts
    if given.format and given.format not in PRECISION:
        expected = f"expected {' or '.join(PRECISION)}; llama.cpp serves GGUF (docs/serve.md)"
        raise UserError(f"FORMAT={given.format} is not for vLLM, {expected}")
    if given.format:
        model = student_folder(t, given.format)
    else:
        model = served.given(given.student, "STUDENT") if given.student else served.default(t)
    refuse(given.format)
    two = False
    with ExitStack() as stack:
        if given.canary:
            model, two = with_canary(t, model, given, p, stack)
        if given.cascade:
            bar = confidence.threshold(t, given.confidence, model)
            stack.enter_context(with_teacher(t, given.stream, given.down, bar))
        run(t, model, given, p, CASCADE if given.cascade else GATEWAY, two)


def run(
    t: Task,
    model: Path,
    given: argparse.Namespace,
    p: SimpleNamespace,
    middleware: str | None,
    two: bool,
) -> None:
    """Serves the model until the server is told to stop. `given` is what main() was given, `p` has
    the sections predict and serve."""
    os.environ.update(model_folder.environment(hub=False))
    for name, value in {"VLLM_LOGGING_LEVEL": "WARNING", **on_cpu()}.items():
        os.environ.setdefault(name, value)
    os.environ.pop("VLLM_API_KEY", None)  # the gateway's is the only key
    import uvloop
    from vllm.entrypoints.launchers.api_server.entry import run_server
    from vllm.entrypoints.launchers.cli_args import make_arg_parser
    from vllm.entrypoints.serve.utils.api_utils import cli_env_setup
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    cli_env_setup()
    dtype = precision(model, p.predict.dtype)
    ahead = speculation(t, given.speculative)
    words = arguments(t, model, dtype, p.predict.max_model_len, ahead, middleware, two)
    own = {"ws": "none", "server_header": False}  # uvicorn's settings
    if given.behind:
        words += ["--uds", given.behind]
    else:
        words += ["--host", given.host, "--port", str(given.port)]
        own["http"] = gateway.Protocol
        url = f"http://{given.host}:{given.port}/v1"
        print(f"serve: {model} at {url}, the model's name is {t.name}", flush=True)
    args = make_arg_parser(FlexibleArgumentParser()).parse_args(words)
    try:
        uvloop.run(run_server(args, **own, timeout_graceful_shutdown=gateway.DRAIN))
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        remedy = f"`make serve PORT={given.port + 1}`"
        raise UserError(f"port {given.port} is in use: {remedy}") from None


if __name__ == "__main__":
    stage.run(main)
