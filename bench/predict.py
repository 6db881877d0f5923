"""What the stage predict adds to bare vLLM on the same rows: python -m bench.predict in a task's
folder.

Needs data/4-test.jsonl and models/sft/merged (`dvc repro merge`). Bare vLLM runs with the engine
settings of the stage. `rest` is all that is neither the engine's start nor its generation: Python's
start, reading parameters and rows, prompts, writing.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench.poisoned import TASK, link
from potstill.core import jsonl, params, project
from potstill.inference import engine
from potstill.task import settings
from potstill.training import model_folder

BARE = """
import json, sys, time
def main():
    model, chats, max_tokens, settings = json.load(open(sys.argv[1]))
    start = time.monotonic()
    from vllm import LLM, SamplingParams
    llm = LLM(model=model, **settings)
    ready = time.monotonic()
    sampling = SamplingParams(temperature=0, max_tokens=max_tokens)
    out = llm.chat(chats, sampling, use_tqdm=False, chat_template_kwargs={"enable_thinking": False})
    made = sum(len(o.outputs[0].token_ids) for o in out)
    seconds = time.monotonic() - ready
    print(f"vLLM: started in {ready - start} s, {len(out)} rows, {made} tokens in {seconds} s")
if __name__ == "__main__":
    main()
"""
SAID = re.compile(r"vLLM: started in ([0-9.]+) s, ([0-9,]+) rows, ([0-9,]+) tokens in ([0-9.]+) s")


def main() -> None:
    t = settings.load()
    p = params.load("predict").predict
    tests, model = t.data / "4-test.jsonl", t.models / "sft/merged"
    chats = [t.messages("student", row) for row in jsonl.read_jsonl(tests)]
    options = engine.OPTIONS | {"dtype": p.dtype, "max_model_len": p.max_model_len}
    if not model_folder.on_cuda():
        options["kv_cache_memory_bytes"] = engine.KV_CACHE_ON_CPU
    env = engine.QUIET | model_folder.environment(hub=False) | engine.IN_PROCESS
    print(f"{'':28}{'all':>8}{'start':>8}{'generate':>10}{'rest':>7}   seconds")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        script, job = folder / "bare.py", folder / "job.json"
        script.write_text(BARE)
        job.write_text(json.dumps([str(model.resolve()), chats, p.max_tokens, options]))
        show("bare vLLM, our settings", [str(script), str(job)], folder, env)
        link(folder, *TASK, tests, model)
        ours = {"PYTHONPATH": str(project.ROOT)}
        show("stages.predict sft", ["-m", "stages.predict", "sft"], folder, ours)


def show(title: str, arguments: list[str], cwd: Path, env: dict[str, str]) -> None:
    """Runs Python and prints a row of the table."""
    start = time.monotonic()
    command = [sys.executable, *arguments]
    done = subprocess.run(
        command, cwd=cwd, env=os.environ | env, check=True, capture_output=True, text=True
    )
    whole = time.monotonic() - start
    said = SAID.search(done.stdout + done.stderr)
    assert said, done.stderr
    started, generated = float(said[1]), float(said[4])
    print(
        f"{title:28}{whole:8.1f}{started:8.1f}{generated:10.1f}{whole - started - generated:7.1f}",
        flush=True,
    )


if __name__ == "__main__":
    main()
