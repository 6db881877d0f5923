"""What the stage predict adds to bare vLLM on the same rows: python -m bench.predict, from the repository root.

Needs data/<task>/4-test.jsonl and models/<task>/sft/merged (`dvc repro merge`). Bare vLLM runs with the engine settings of the
stage. `rest` is all that is neither the engine's start nor its generation: Python's start, reading
parameters and rows, prompts, writing.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

from potstill.core import jsonl, params
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
    print(f"vLLM: started in {ready - start} s, {len(out)} rows, {made} tokens in {time.monotonic() - ready} s")
if __name__ == "__main__":
    main()
"""
SAID = re.compile(r"vLLM: started in ([0-9.]+) s, ([0-9,]+) rows, ([0-9,]+) tokens in ([0-9.]+) s")


def main() -> None:
    p = SimpleNamespace(**params.parse(params.read_text(params.PATH), params.PATH))
    t = settings.load()
    chats = [t.messages("student", row) for row in jsonl.read_jsonl(t.data / "4-test.jsonl")]
    base = model_folder.environment(hub=False) | {"VLLM_LOGGING_LEVEL": "ERROR"}
    common = {
        "dtype": p.predict.dtype,
        "max_model_len": p.predict.max_model_len,
        "generation_config": "vllm",
    }
    same = {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}
    print(f"{'':28}{'all':>8}{'start':>8}{'generate':>10}{'rest':>7}   seconds")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "bare.py").write_text(BARE)
        for title, settings, env in (
            ("bare vLLM, our settings", common | {"enforce_eager": True}, base | same),
        ):
            job = [str(t.models / "sft/merged"), chats, t.settled(p).predict.max_tokens, settings]
            (folder / "job.json").write_text(json.dumps(job))
            show(title, [str(folder / "bare.py"), str(folder / "job.json")], Path(), env)
        for part in ("potstill", "stages", "schemas", "tasks", "models", "params.yaml"):
            (folder / part).symlink_to(Path(part).resolve())
        (folder / t.data).mkdir(parents=True)
        shutil.copy(t.data / "4-test.jsonl", folder / t.data)
        show("stages.predict sft", ["-m", "stages.predict", "sft"], folder, {"PYTHONPATH": name})


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
