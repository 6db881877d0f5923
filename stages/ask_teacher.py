"""4-test.jsonl → 5-predictions/teacher: the teacher's own answers to the test rows, by the same
prompt, client and journal as those to the inputs. A row is that of
potstill/inference/predictions.py with what fills the journal again."""

from potstill.core import jsonl, params, stage
from potstill.inference import predictions
from potstill.task import settings
from potstill.teacher import asking


def main() -> None:
    p = params.load("teacher")
    t = settings.load()
    tests = predictions.tests(t)
    answers = list(asking.answer_rows(t, tests, p.teacher, samples=1))
    folder = jsonl.fresh_folder(predictions.folder(t, "teacher"))
    predictions.write(folder / "test.jsonl", tests, answers, predictions.PAID)


if __name__ == "__main__":
    stage.run(main)
