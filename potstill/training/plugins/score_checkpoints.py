"""Scores each checkpoint of a training before it is saved, by the task's checks on the answers that
the model itself gives to validation rows. The score is in the trainer's log, and so in the
checkpoint: a training that is resumed has all of them.

Nothing of the training changes: the answers are greedy, and the random state is put back.
"""

import time
from typing import Any

from swift.callbacks import TrainerCallback, callbacks_map

from potstill.core import jsonl
from potstill.dataset import frozen
from potstill.training import scored

BATCH = 128  # prompts at once
SLACK = 1.25  # an answer so many times as long as the longest right one is not going to be right


class ScoreCheckpoints(TrainerCallback):  # type: ignore[misc]
    """Called by the trainer after each step."""

    def __init__(self, args: Any, trainer: Any) -> None:
        super().__init__(args, trainer)
        args.metric_for_best_model = None  # else the validation loss says which checkpoint is kept
        self.settings = scored.settings()
        self.task = frozen.thaw(self.settings["checks"])
        needed = ("id", "messages", "answer", "row")
        self.rows = jsonl.read_jsonl(scored.FOLDER / "rows.jsonl", needed)

    def on_step_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Scores where the trainer is about to save, and ends the training where `patience` is
        exhausted."""
        if not control.should_save:
            return
        start = time.monotonic()
        found = answers(
            given["model"],
            given["processing_class"],
            [row["messages"] for row in self.rows],
            [row["answer"] for row in self.rows],
            self.settings["max_tokens"],
        )
        pairs = zip(self.rows, found, strict=True)
        right = sum(frozen.right(self.task, row["row"], answer) for row, answer in pairs)
        point = {"step": state.global_step, "epoch": state.epoch, "accuracy": right / len(found)}
        state.log_history.append(point)
        seconds = time.monotonic() - start
        said = f"{right} of {len(found)} validation rows right ({seconds:.1f} s)"
        print(f"step {state.global_step}: {said}", flush=True)
        # What the trainer does not delete while it saves further checkpoints
        state.best_global_step = (scored.best(state.log_history) or point)["step"]
        if scored.exhausted(state.log_history, self.settings["patience"]):
            control.should_training_stop = control.should_evaluate = control.should_log = True


def answers(
    model: Any, tokenizer: Any, chats: list[list[dict[str, str]]], right: list[str], most: int
) -> list[str]:
    """The model's greedy answers to `chats`, each of at most `most` tokens, and no more than SLACK
    times those of the longest text of `right`. The mode of the model and the random state are
    afterwards as they were."""
    import torch
    from transformers import GenerationConfig

    options = {"add_generation_prompt": True, "enable_thinking": False, "return_dict": False}
    prompts = [list(tokenizer.apply_chat_template(chat, **options)) for chat in chats]
    longest = max(len(ids) for ids in tokenizer(right, add_special_tokens=False).input_ids)
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    greedy = GenerationConfig(
        do_sample=False,
        num_beams=1,
        repetition_penalty=1.0,
        max_new_tokens=min(most, int(SLACK * longest) + 1),
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=pad,
        use_cache=True,
    )
    found = [""] * len(chats)
    order = sorted(range(len(chats)), key=lambda place: len(prompts[place]))
    training = model.training
    model.eval()
    try:
        with torch.random.fork_rng():
            for start in range(0, len(order), BATCH):
                places = order[start : start + BATCH]
                width = max(len(prompts[place]) for place in places)
                lengths = [len(prompts[place]) for place in places]
                ids = [[pad] * (width - len(prompts[place])) + prompts[place] for place in places]
                mask = [[0] * (width - length) + [1] * length for length in lengths]
                device = next(model.parameters()).device
                out = model.generate(
                    input_ids=torch.tensor(ids, device=device),
                    attention_mask=torch.tensor(mask, device=device),
                    generation_config=greedy,
                )
                texts = tokenizer.batch_decode(out[:, width:], skip_special_tokens=True)
                for place, text in zip(places, texts, strict=True):
                    found[place] = text
    finally:
        model.train(training)
    return found


callbacks_map[scored.CALLBACK] = ScoreCheckpoints
