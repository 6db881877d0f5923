"""`make serve`: the student behind vLLM's OpenAI-compatible server, with potstill/gateway.py inside it.

    curl http://127.0.0.1:8000/v1/chat/completions -H "Authorization: Bearer $SERVE_API_KEY" -d '{"input": "…"}'

Runs until SIGTERM or Ctrl-C: then what is under way is answered, nothing new is taken, and the exit code is 0.
"""

import argparse
import errno
import json
import os
import shutil
import sysconfig
from pathlib import Path

from potstill.core import errors, jsonl, params
from potstill.core.errors import UserError
from potstill.inference.engine import KV_CACHE_ON_CPU
from potstill.serving import gateway
from potstill.task import settings
from potstill.task.settings import Task
from potstill.training import model_folder

QUEUE = 2048  # requests that wait or run; vLLM answers 503 to more
NGRAM = {
    "method": "ngram",
    "num_speculative_tokens": 8,
    "prompt_lookup_min": 1,
    "prompt_lookup_max": 3,
}


def student_folder(t: Task, kind: str | None = None) -> Path:
    """The folder of the student that ships or, with `kind`, of its quantised form. Raises UserError when there is none."""
    if kind:
        folder = t.models / "quantized" / kind
        model_folder.check_folder(folder, f"`make quantize FORMAT={kind}`")
        return folder
    folder = t.models / "student"
    model_folder.check_folder(folder, f"`make repro TASK={t.name}` trains it")
    return folder


def precision(dtype: str, kind: str | None) -> str:
    """The arithmetic of a quantised form or, by `dtype`, of the student: INT8 kernels take no float32 where there is AMX."""
    return {"int8": "bfloat16", "gptq": "float16", "awq": "float16"}.get(kind or "", dtype)


def speculation(t: Task, given: str) -> str:
    """What `speculative` comes to: "auto" is what bench.serve found faster for this task, and off where it has not run."""
    if given != "auto":
        return given
    path = t.reports / "serving.json"
    return str(jsonl.read_json(path)["speculative"]) if path.is_file() else "off"


def arguments(
    t: Task, model: Path, host: str, port: int, dtype: str, max_model_len: int, speculative: str
) -> list[str]:
    """The command line of vLLM's server. `speculative` is "off", "ngram", or the folder of a smaller model with the same tokenizer."""
    given = {
        "model": str(model),
        "served-model-name": t.name,
        "host": host,
        "port": str(port),
        "dtype": dtype,
        "max-model-len": str(max_model_len),
        "generation-config": "vllm",  # nothing from the model's own sampling settings
        "default-chat-template-kwargs": json.dumps({"enable_thinking": False}),
        # guidance takes every answer that the students are trained on; xgrammar 0.2 takes none of those with a pattern
        "structured-outputs-config": json.dumps(
            {"backend": "guidance", "disable_any_whitespace": True}
        ),
        "middleware": "potstill.serving.gateway.Gateway",
        "shutdown-timeout": str(gateway.DRAIN),
        "max-num-queued-reqs": str(QUEUE),
    }
    flags = ["--disable-fastapi-docs", "--disable-uvicorn-access-log"]
    if not model_folder.on_cuda():
        given["kv-cache-memory-bytes"] = str(KV_CACHE_ON_CPU)
        # Prompts are read whole: vLLM 0.32 on a CPU dies of a seeded one read in parts.
        given["max-num-batched-tokens"] = str(max(8192, max_model_len))
        # The engine computes itself. By default it has a worker process for it, and the two wait for one another by spinning.
        # vLLM makes "uni" into that default, since it could not set a thread count; ours is in the environment.
        given["distributed-executor-backend"] = "vllm.v1.executor.uniproc_executor.UniProcExecutor"
        flags += ["--no-enable-chunked-prefill", *([] if compiles() else ["--enforce-eager"])]
    if speculative != "off":
        ahead = (
            NGRAM if speculative == "ngram" else {"model": speculative, "num_speculative_tokens": 4}
        )
        given["speculative-config"] = json.dumps(ahead)
    return [word for name, value in given.items() for word in (f"--{name}", value)] + flags


def compiles() -> bool:
    """Whether torch can build a model's kernels on a CPU: with a C++ compiler and Python's headers."""
    header = Path(sysconfig.get_path("include"), "Python.h")
    return shutil.which(os.environ.get("CXX", "g++")) is not None and header.is_file()


def on_cpu() -> dict[str, str]:
    """The environment of a server that computes on a CPU; nothing on a GPU. One core is left to the process that talks to clients, which
    threads that wait by spinning would take (measured on two cores: 350 ms an answer with one thread, 844 with two)."""
    if model_folder.on_cuda():
        return {}
    return {
        "OMP_NUM_THREADS": str(max(1, len(os.sched_getaffinity(0)) - 1)),
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # its own binding leaves one compute thread on two cores
        "VLLM_USE_AOT_COMPILE": "0",  # vLLM 0.32 can't read that cache on a CPU and compiles anew; torch's own cache works
    }


def main() -> None:
    p = params.load("predict.dtype", "predict.max_model_len", "serve.speculative")
    parser = argparse.ArgumentParser(description="the student behind an OpenAI-compatible server")
    parser.add_argument("--task", default=os.environ.get(gateway.TASK) or p.task)
    parser.add_argument(
        "--format", help="int8, gptq or awq: a quantised form instead of the student itself"
    )
    parser.add_argument("--speculative", default=p.serve.speculative)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    given = parser.parse_args()
    t = settings.load(given.task)
    gateway.api_key()
    model = student_folder(t, given.format)
    os.environ.update(model_folder.environment(hub=False) | {gateway.TASK: t.name})
    os.environ.update({name: os.environ.get(name, value) for name, value in on_cpu().items()})
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
    os.environ.pop("VLLM_API_KEY", None)  # the gateway's is the only key
    import uvloop
    from vllm.entrypoints.launchers.api_server.entry import run_server
    from vllm.entrypoints.launchers.cli_args import make_arg_parser
    from vllm.entrypoints.serve.utils.api_utils import cli_env_setup
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    cli_env_setup()
    kind, ahead = precision(p.predict.dtype, given.format), speculation(t, given.speculative)
    words = arguments(t, model, given.host, given.port, kind, p.predict.max_model_len, ahead)
    args = make_arg_parser(FlexibleArgumentParser()).parse_args(words)
    print(
        f"serve: {model} at http://{given.host}:{given.port}/v1, the model's name is {t.name}",
        flush=True,
    )
    try:
        uvloop.run(
            run_server(
                args,
                http=gateway.Protocol,
                ws="none",
                server_header=False,
                timeout_graceful_shutdown=gateway.DRAIN,
            )
        )
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        raise UserError(
            f"port {given.port} is in use: `make serve PORT={given.port + 1}`"
        ) from None


if __name__ == "__main__":
    errors.run(main)
