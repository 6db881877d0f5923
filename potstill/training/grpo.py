"""The reinforcement of a trained student: GRPO by `swift rlhf`, LoRA on the merged sft student,
which is the reference model, too. The reward of an answer is what the task's checks say of it
(plugins/reward.py)."""

import json
import os
import random
from pathlib import Path
from types import SimpleNamespace

from potstill.core import project
from potstill.core.jsonl import Row
from potstill.training import run, swift

INPUTS = project.DATA / "4-pairs/inputs.jsonl"  # what the student gets right sometimes
CHECKS = INPUTS.with_name("checks.json")  # what makes the reward
REWARD = "checks"
PLUGIN = Path(__file__).parent / "plugins/reward.py"
# The columns of curves.csv, each with its name in the log
CURVES = {
    "reward": "reward",
    "no_variance": "frac_reward_zero_std",
    "length": "completions/mean_length",
    "kl": "kl",
}


def config(p: SimpleNamespace, rows: int, path: Path, student: Path) -> swift.Config:
    """ms-swift's arguments for the reinforcement of the model in the folder `student` on the `rows`
    inputs of the file `path`. Raises UserError as run.config does."""
    own = {
        "learning_rate": p.grpo.learning_rate,
        "num_train_epochs": p.grpo.num_train_epochs,
        "beta": p.grpo.beta,
        "rpo_alpha": None,
        "gradient_accumulation_steps": min(p.grpo.inputs, rows),
        "per_device_train_batch_size": 1,  # an input: the steps are counted by these
    }
    given = {**vars(p), **own, "model": str(student), "model_revision": None}
    return run.config(SimpleNamespace(**given), path) | {
        "rlhf_type": "grpo",
        "external_plugins": [os.path.relpath(PLUGIN)],
        "reward_funcs": [REWARD],
        "num_generations": p.grpo.answers,
        "per_device_train_batch_size": p.grpo.answers,  # all answers to one input
        "dataset_shuffle": False,  # `in_steps` has done it
        **swift.drawing(p),
    }


def in_steps(rows: list[Row], inputs: int, seed: int) -> list[Row]:
    """The rows, `inputs` a step, in an order drawn by `seed` in which those of a step have kept
    answers of about the same length: a step takes as long as its longest answer. What is left over
    by whole steps goes."""
    draw, inputs = random.Random(seed), min(inputs, len(rows))
    found = draw.sample(rows, len(rows) // inputs * inputs)
    found.sort(key=lambda row: len(json.dumps(row["row"]["expected"])))
    steps = [found[i : i + inputs] for i in range(0, len(found), inputs)]
    return [row for step in draw.sample(steps, len(steps)) for row in step]


def lesson(row: Row) -> Row:
    """A row of INPUTS as ms-swift reads it: the prompt, and what judges the answers, as a text."""
    return {"messages": row["messages"], "judged": json.dumps(row["row"], ensure_ascii=False)}
