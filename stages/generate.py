"""1-inputs.jsonl → 2-answers.jsonl: the teacher answers each input; raw text first, parsed later.

A row: {"id": "…", "sample": 0, "key": "…", "model": "…", "max_tokens": 1024, "answer": "{…}",
"finish_reason": "stop", "prompt_tokens": 612, "completion_tokens": 58, "error": null}; whoever has
them can fill a journal (`make fill`).
"""

from collections.abc import Iterable, Iterator
from functools import partial

from potstill.checks import registry
from potstill.core import errors, jsonl, params, stage
from potstill.core.jsonl import Row
from potstill.task import settings
from potstill.teacher import asking


def main() -> None:
    p = params.load("teacher", "generate")
    t = settings.load()
    registry.validate(t)
    path = t.data / "1-inputs.jsonl"
    inputs = t.inputs(path, empty=True)
    jsonl.check_ids(path, inputs, t.config["input"])
    ids = {row["id"] for row in inputs}
    for number, row in enumerate(inputs, 1):
        if row.get("family", row["id"]) not in ids:
            raise errors.UserError(
                f"{path}:{number}: family is {row['family']!r}, expected the id of a row: "
                "run `dvc repro`"
            )
    refused = 0

    def counted(answers: Iterable[Row]) -> Iterator[Row]:
        nonlocal refused
        for row in answers:
            refused += row["error"] is not None
            yield row

    samples, share = p.generate.samples, p.generate.good_share
    check = partial(registry.check_taught, t)
    # Rows of a user's own alone ask nothing: there may be no teacher at all.
    answers: Iterable[Row] = ()
    if inputs:
        answers = asking.answer_rows(t, inputs, p.teacher, samples, check=check, good_share=share)
    written = jsonl.write_jsonl(t.data / "2-answers.jsonl", counted(answers))
    if written != len(inputs) * samples:
        raise AssertionError(f"{len(inputs)} inputs, {samples} samples, but {written} answers")
    print(
        f"generate: {len(inputs):,} inputs, {written:,} answers, "
        f"{refused:,} of them refused by the teacher"
    )


if __name__ == "__main__":
    stage.run(main)
