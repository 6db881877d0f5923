"""A local model as the teacher: `teacher.model: local:MODEL`, a folder, a name of the catalogue, or
`local:FILE.gguf@SHA256` and `local:NAME/ON-THE-HUB@COMMIT`.

vLLM's OpenAI-compatible server answers on loopback while a stage asks. It runs as a process of its
own (`python -m potstill.teacher.local …` is vLLM's server with these arguments) and ends when its
standard input closes, so it never outlives the stage that started it.
"""

import hashlib
import json
import os
import re
import runpy
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path

from potstill.core import project, weights
from potstill.core.errors import UserError
from potstill.core.params import HUB

PREFIX = "local:"
PATIENCE = 3600  # seconds for one answer: it waits for those before it, and nothing is lost
PROMPT = 8192  # tokens that a prompt may have beside teacher.max_tokens
KV_CACHE = 2 << 30  # bytes, on a CPU
ENV = {"VLLM_LOGGING_LEVEL": "WARNING", "VLLM_PLUGINS": "", "TOKENIZERS_PARALLELISM": "false"}
ENV |= dict.fromkeys(("VLLM_NO_USAGE_STATS", "DO_NOT_TRACK", "HF_HUB_DISABLE_TELEMETRY"), "1")
OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
SERVER = "vllm.entrypoints.openai.api_server"


def is_local(model: str) -> bool:
    """Whether teacher.model names a model that is run here."""
    return model.startswith(PREFIX)


def parse(model: str) -> tuple[str, str]:
    """The model and its revision, "" where it has none. Raises UserError for one that is not known
    by what it names."""
    name, _, revision = model.removeprefix(PREFIX).partition("@")
    if weights.is_gguf(name) and not weights.SHA256.fullmatch(revision):
        wanted = f"{PREFIX}{name}@ and the SHA-256 of the file: `sha256sum {name}`"
        raise UserError(f"params.yaml: teacher.model is {model}, expected {wanted}")
    if weights.find(name, revision) or weights.path(name).is_dir():
        return name, revision
    if HUB.fullmatch(name) and re.fullmatch("[0-9a-f]{40}", revision):
        return name, revision
    wanted = "a model's folder, a GGUF with @SHA256, a name on the hub with @COMMIT, or one of "
    raise UserError(
        f"params.yaml: teacher.model is {model}, expected {wanted}{', '.join(weights.catalogue())}"
    )


def model_name(model: str) -> str:
    """What the teacher is called in the journal: by its weights' hash, so that other weights are
    another teacher. Raises UserError as `parse` does."""
    name, revision = parse(model)
    source = weights.find(name, revision)
    stem = re.sub(r"[^\w.-]", "-", Path(name).stem if source and source.file else Path(name).name)
    known = source.sha256 if source else revision or _hash(weights.path(name))
    return f"local-{stem}-{known[:12]}"


def _hash(folder: Path) -> str:
    """The SHA-256 of a model's folder, but for texts about it."""
    total = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if path.is_file() and path.suffix != ".md":
            with path.open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
            total.update(f"{path.name}:{found}\n".encode())
    return total.hexdigest()


@contextmanager
def serve(model: str, max_tokens: int) -> Iterator[tuple[str, str]]:
    """Runs the server; gives its base URL, http://127.0.0.1:<free port>/v1, and its key. Raises
    UserError when the model cannot be had, or vLLM does not start, with the log's last words."""
    name, revision = parse(model)
    weights.prepare(name, revision)
    key, port = secrets.token_hex(16), _free_port()
    log = project.cache() / "local" / f"{model_name(model)}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    env = {k: value for k, value in os.environ.items() if k != "TEACHER_API_KEY"}
    env |= {**ENV, "VLLM_API_KEY": key, "PYTHONUNBUFFERED": "1"}
    env["PYTHONPATH"] = os.pathsep.join(filter(None, (str(project.ROOT), env.get("PYTHONPATH"))))
    words = _arguments(name, revision, max_tokens)
    if "--revision" not in words:
        env |= OFFLINE
    if _on_cpu():  # one core is left to the process that talks to the stage
        cores = len(os.sched_getaffinity(0))
        env |= {"OMP_NUM_THREADS": str(max(1, cores - 1)), "VLLM_CPU_OMP_THREADS_BIND": "nobind"}
    words += ["--served-model-name", model_name(model), "--host", "127.0.0.1", "--port", str(port)]
    print(f"teacher {model}: vLLM starts (log: {log})", file=sys.stderr, flush=True)
    start = time.monotonic()
    # A session of its own: Ctrl-C is for the stage, which lets the answers under way come in first.
    with (
        log.open("wb") as out,
        subprocess.Popen(
            [sys.executable, "-m", "potstill.teacher.local", *words],
            stdin=subprocess.PIPE,
            stdout=out,
            stderr=out,
            env=env,
            start_new_session=True,
        ) as server,
    ):
        assert server.stdin
        try:
            while not _answers(port):
                if server.poll() is not None:
                    raise UserError(
                        f"teacher {model}: vLLM did not start: {_last(log)} (the whole log: {log})"
                    )
                time.sleep(0.3)
            said = f"teacher {model}: ready in {time.monotonic() - start:.0f} s"
            print(said, file=sys.stderr, flush=True)
            yield f"http://127.0.0.1:{port}/v1", key
        finally:
            server.stdin.close()  # ends it, with all that it started
            server.wait()


def _arguments(name: str, revision: str, max_tokens: int) -> list[str]:
    """vLLM's command line for the model, but for its name and address."""
    given = {"generation-config": "vllm"}  # nothing from the model's own sampling settings
    source = weights.find(name, revision)
    folder = weights.path(str(source.folder) if source else name)
    if folder.is_dir():
        given["model"] = str(folder)
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        length = min(config.get("max_position_embeddings", PROMPT), PROMPT + max_tokens)
        given["max-model-len"] = str(length)
    else:
        length = PROMPT
        given |= {"model": name, "revision": revision}
    # As `make serve`; guidance accepts what xgrammar 0.2 does not, such as a pattern
    given["structured-outputs-config"] = '{"backend": "guidance", "disable_any_whitespace": true}'
    given["default-chat-template-kwargs"] = '{"enable_thinking": false}'
    flags = ["--disable-uvicorn-access-log"]
    if _on_cpu():
        # Prompts are read whole: vLLM 0.32 on a CPU dies of a seeded one read in parts
        flags += ["--enforce-eager", "--no-enable-chunked-prefill"]
        given["max-num-batched-tokens"] = str(length)
        given["kv-cache-memory-bytes"] = str(KV_CACHE)
        given["distributed-executor-backend"] = "vllm.v1.executor.uniproc_executor.UniProcExecutor"
    return [word for key, value in given.items() for word in (f"--{key}", value)] + flags


def _on_cpu() -> bool:
    return version("torch").endswith("+cpu") or os.environ.get("CUDA_VISIBLE_DEVICES") == ""


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


def _answers(port: int) -> bool:
    """Whether the server takes requests."""
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with suppress(OSError), direct.open(f"http://127.0.0.1:{port}/health", timeout=5):
        return True
    return False


def _last(log: Path) -> str:
    """The line of the log that says most: its last exception, else its last line."""
    lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
    lines = [line.strip() for line in lines if line.strip()]
    raised = [line for line in lines if re.search(r"\b\w*(Error|Exception)\b: ", line)]
    return (raised or lines or ["it said nothing"])[-1][:300]


def main() -> None:
    """vLLM's server, with the arguments of this process, until standard input closes."""

    def leave_with_the_stage() -> None:
        os.read(0, 1)
        os.killpg(0, signal.SIGKILL)  # the engine, too

    threading.Thread(target=leave_with_the_stage, daemon=True).start()
    runpy.run_module(SERVER, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
