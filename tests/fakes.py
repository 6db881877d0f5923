"""A stand-in for ms-swift: a package `swift` whose sft, rlhf and export write what the real ones
leave, in milliseconds."""

import json
import os
from pathlib import Path

from safetensors.numpy import save_file

CLI = """
import yaml
def parse_yaml_args(argv):
    argv[:1] = [yaml.safe_load(open(argv[0], encoding="utf-8"))]
"""
PIPELINES = """
import json, os, sys, time
sys.path.insert(0, TESTS)
import fakes
def sft_main(argv):
    config = argv[0]
    print("INFO: training"); print(json.dumps(config))
    behaviour = os.environ.get("FAKE_SWIFT", "")
    if behaviour == "fail":
        print("Traceback (most recent call last):")
        print("ValueError: no such thing")
        print("a last remark")
        raise SystemExit(1)
    if behaviour == "sleep":
        pid = os.path.join(os.path.dirname(config["output_dir"]), "pid")
        open(pid, "w").write(str(os.getpid()))
        time.sleep(60)
    rewards = fakes.REWARDS.get(config.get("rlhf_type"))
    fakes.checkpoint(config["output_dir"], 2 if behaviour == "short" else 4, 4, rewards)
rlhf_main = sft_main
def export_main(argv):
    if os.environ.get("FAKE_SWIFT") == "fail":
        fakes.model(argv[0]["output_dir"], 16)
        raise RuntimeError("no space left")
    fakes.model(argv[0]["output_dir"], 16)
    if os.environ.get("FAKE_SWIFT") == "sleep":
        open(os.path.join(argv[0]["output_dir"], "pid"), "w").write(str(os.getpid()))
        time.sleep(60)
    open(os.path.join(argv[0]["output_dir"], "args.json"), "w").write("{}")
"""
LOG = [
    {"epoch": 1.0, "loss": 9.0 / step, "learning_rate": 0.1, "step": step} for step in range(1, 5)
]
# In an alignment's log
REWARDS = {
    "dpo": {"rewards/chosen": 0.3, "rewards/margins": 0.5, "rewards/accuracies": 0.75},
    "grpo": {"reward": 0.5, "frac_reward_zero_std": 0.25, "completions/mean_length": 8.0},
    "gkd": {"grad_norm": 0.5},
}
LOG += [
    {"epoch": 1.0, "eval_loss": 2.0, "eval_runtime": 0.123, "step": 4},
    {"step": 4, "train_runtime": 3.21},
]


def install(folder: Path) -> str:
    """Writes the package and returns the PYTHONPATH that puts it before the real one."""
    (folder / "swift" / "cli").mkdir(parents=True)
    for path, text in (
        ("__init__", ""),
        ("cli/__init__", ""),
        ("cli/main", CLI),
        ("pipelines", PIPELINES),
    ):
        (folder / "swift" / f"{path}.py").write_text(
            text.replace("TESTS", repr(str(Path(__file__).parent)))
        )
    return os.pathsep.join((str(folder), str(Path(__file__).resolve().parents[1])))


def dvc(folder: Path) -> None:
    """Writes a package `dvc`, whose command line is what a test then writes to dvc/__main__.py."""
    for path, text in (
        ("__init__", ""),
        ("cli", "def main(words):\n    import dvc.__main__\n    return 0\n"),
        ("exceptions", "class DvcException(Exception):\n    pass\n"),
        ("stage/__init__", "class Stage:\n    save_outs = None\n"),
        ("stage/run", "cmd_run = run_stage = None\n"),
    ):
        target = folder / "dvc" / f"{path}.py"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)


def weights(path: Path) -> None:
    """A small whole .safetensors file."""
    import numpy

    save_file({"w": numpy.zeros(4, "float32")}, path)


def model(folder: str | Path, positions: int = 2048) -> Path:
    """A folder that looks like a model's."""
    path = Path(folder)
    path.mkdir(parents=True, exist_ok=True)
    (path / "config.json").write_text(
        json.dumps({"model_type": "qwen3", "max_position_embeddings": positions})
    )
    (path / "chat_template.jinja").write_text(
        "{% for m in messages %}<|im_start|>{{ m.role }}{% endfor %}"
    )
    weights(path / "model.safetensors")
    return path


def checkpoint(
    run: str | Path, step: int, steps: int, rewards: dict[str, float] | None = None
) -> Path:
    """A complete checkpoint-STEP of a training of `steps` steps; each point of its log has the
    `rewards`, too."""
    import zipfile

    path = Path(run) / f"checkpoint-{step}"
    path.mkdir(parents=True)
    (Path(run) / "logging.jsonl").write_text(
        '{"loss": 1.0}\n{"train_runtime": 3.21}\n{"log_history": []}\n'
    )
    weights(path / "adapter_model.safetensors")
    adapter = {
        "base_model_name_or_path": str(Path.cwd()),
        "target_modules": ["up_proj", "down_proj"],
        "r": 4,
    }
    (path / "adapter_config.json").write_text(json.dumps(adapter))
    for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth"):
        with zipfile.ZipFile(path / name, "w") as file:
            file.writestr("data.pkl", "state")
    (path / "args.json").write_text("{}")
    log = [{**row, **rewards} for row in LOG] if rewards else LOG
    (path / "trainer_state.json").write_text(
        json.dumps({"global_step": step, "max_steps": steps, "log_history": log}), encoding="utf-8"
    )
    return path


VLLM = """
import os, signal, time
from types import SimpleNamespace
class SamplingParams:
    def __init__(self, n=1, **how): self.n = n
TokensPrompt = dict
class Tokenizer:
    def apply_chat_template(self, chat, **how): return [ord(sign) for sign in chat[-1]["content"]]
class LLM:
    def __init__(self, seed=0, **how): self.seed = seed
    def get_tokenizer(self): return Tokenizer()
    def reset_prefix_cache(self): pass
    def generate(self, asked, how, use_tqdm=False):
        if isinstance(asked, dict): return  # one that is timed
        texts = ["".join(map(chr, one["prompt_token_ids"])) for one in asked]
        gpu = os.environ.get("CUDA_VISIBLE_DEVICES", "")
        at = os.environ.get("FAKE_VLLM_STOPS", "nowhere")
        note = os.environ.get("FAKE_VLLM_NOTE", "stopped")
        if any(text.endswith(at) for text in texts) and not os.path.exists(note):
            with open(note, "w") as file: file.write(str(os.getpid()))
            if "FAKE_VLLM_WAITS" in os.environ: time.sleep(60)
            os.kill(os.getpid(), signal.SIGKILL)
        with open("ledger", "a") as file:
            file.write("".join(f"{gpu}|{text}\\n" for text in texts))
        return [output(text, f"{len(asked)}|{self.seed}", how.n) for text in texts]
def output(text, by, n):
    made = [SimpleNamespace(text=f"{text}|{draw}|{by}", finish_reason="stop", token_ids=[1])
            for draw in range(n)]
    return SimpleNamespace(prompt_token_ids=[1, 2], outputs=made)
"""


def vllm(folder: Path) -> str:
    """Writes a stand-in for vLLM, whose answers name the other chats of their call (how many), and
    returns the PYTHONPATH that puts it before the real one. `ledger` in the working folder has a
    line for each answer. The first call with a text that ends in $FAKE_VLLM_STOPS kills its
    process, or waits where FAKE_VLLM_WAITS is set; the file $FAKE_VLLM_NOTE (`stopped`) says so."""
    (folder / "vllm").mkdir(parents=True)
    (folder / "vllm/__init__.py").write_text(VLLM)
    names = "RepetitionDetectionParams = StructuredOutputsParams = dict\n"
    (folder / "vllm/sampling_params.py").write_text(names)
    return os.pathsep.join((str(folder), str(Path(__file__).resolve().parents[1])))
