"""4-test.jsonl → 5-predictions/teacher: the teacher's own answers to the test rows, by the same
prompt, client and journal as those to the inputs; none where 1-inputs.jsonl is empty. A row is that
of potstill/inference/predictions.py with what fills the journal again."""

from potstill.core import jsonl, params, stage
from potstill.inference import predictions
from potstill.task import settings
from potstill.teacher import asking


def main() -> None:
    p = params.load("teacher")
    t = settings.load()
    tests = predictions.tests(t)
    path = predictions.folder(t, "teacher")
    inputs = t.data / "1-inputs.jsonl"
    if inputs.is_file() and not inputs.stat().st_size:
        why = "no input is for a teacher: all rows are of the user's own"
        jsonl.write_json(jsonl.fresh_folder(path) / "report.json", {"asked": 0, "why": why})
        print(f"ask_teacher: nothing is asked, {why}")
        return
    answers = list(asking.answer_rows(t, tests, p.teacher, samples=1))
    more: tuple[str, ...] = predictions.PAID
    if any("price_share" in row for row in answers):  # of a batch
        answers = [{"price_share": 1} | row for row in answers]
        more = (*more, "price_share")
    predictions.write(jsonl.fresh_folder(path) / "test.jsonl", tests, answers, more)


if __name__ == "__main__":
    stage.run(main)
