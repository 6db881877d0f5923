"""4-test.jsonl → 5-predictions/<model>: `python -m stages.predict base`, or another model of
potstill/core/models.py. Greedy answers by vLLM, with the model's own prompt.

base      the untrained model, with the teacher's long prompt
examples  the same prompts again, of which score counts what changed between two runs of the same
          (A/A, again.jsonl), and with as many training rows as fit shown as examples (few-shot)
sft, dpo  the trained models, with the student's short prompt; where models has dpo also to the
          validation rows (valid.jsonl), by which `choose` picks one. No dpo, no answers of it;
          likewise grpo and gkd
A row is that of potstill/inference/predictions.py; a file with no rows is not written. Where
predict.grounded is true answers can only quote the row (potstill/inference/quoting.py).
"""

import sys

from potstill.core import errors, params, stage
from potstill.core.models import MODELS
from potstill.inference import answering
from potstill.task import settings

NAMES = [name for name in MODELS if name != "teacher"]


def main() -> None:
    if len(sys.argv) != 2 or sys.argv[1] not in NAMES:
        raise errors.UserError(f"usage: python -m stages.predict {'|'.join(NAMES)}")
    name = sys.argv[1]
    model = MODELS[name]
    if model.weights:
        p = params.load("models", "predict")
        answering.trained(settings.load(), name, model.weights, p)
    else:
        shots = ["few_shot"] if model.few_shot else []
        p = params.load("model", "model_revision", "predict", *shots)
        answering.untrained(settings.load(), name, p)


if __name__ == "__main__":
    stage.run(main)
