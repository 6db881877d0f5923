"""How sure the student is of its answers: the threshold, what the cascade does by it, and the whole
of `make confidence` with a real model (slow)."""

import json
import math
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from starlette.types import Receive, Scope, Send

from potstill.commands import confidence as command
from potstill.core import jsonl
from potstill.core.errors import UserError
from potstill.evaluation import compare
from potstill.inference import predictions
from potstill.serving import confidence, gateway, served
from potstill.serving.capture import read
from potstill.task import settings
from tests import fakes
from tests.conftest import ROOT, FakeTeacher, Project
from tests.serving.test_cascade import CHAT, GOOD, KEY, LINE, Student, serving


class Sure(Student):
    """A student that says how likely its tokens are, where it is asked."""

    def __init__(self, answer: str, least: float) -> None:
        super().__init__(answer)
        self.least = least

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def told(message: Any) -> None:
            if message["type"] == "http.response.body" and self.bodies[-1].get("logprobs"):
                reply = json.loads(message["body"])
                tokens = [{"token": "a", "logprob": math.log(p)} for p in (0.9, self.least, 1.0)]
                reply["choices"][0]["logprobs"] = {"content": tokens}
                message = {**message, "body": json.dumps(reply).encode()}
            await send(message)

        await super().__call__(scope, receive, told)


@pytest.mark.parametrize(
    ("bar", "least", "who"), [(0.5, 0.4, "teacher"), (0.5, 0.6, "student"), (None, 0.1, "student")]
)
@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_the_student_is_not_sure_of_goes_to_the_teacher(
    project: Project,
    fake: FakeTeacher,
    teacher_params: SimpleNamespace,
    monkeypatch: pytest.MonkeyPatch,
    bar: float | None,
    least: float,
    who: str,
    stream: bool,
) -> None:
    monkeypatch.setenv(gateway.KEY, KEY)
    project.set(serve_capture=1)
    student = Sure(GOOD, least)

    async def act(client: httpx.AsyncClient) -> None:
        found = await client.post(CHAT, json={"input": LINE, "stream": stream})
        assert (found.status_code, found.headers["x-answered-by"]) == (200, who)
        assert int(found.headers["content-length"]) == len(found.content)
        assert "0.9" not in found.text and "-0." not in found.text  # the client did not ask
        if not stream:
            assert "failed_checks" not in found.json()

    serving(student, act, teacher_params, monkeypatch, confidence=bar)
    assert ("logprobs" in student.bodies[0]) == (bar is not None)
    [row] = read(settings.load())
    assert (row["by"], row["failed"]) == (who, ["confidence"] if who == "teacher" else [])


def test_without_a_teacher_the_students_answer_says_how_sure_it_is(
    project: Project,
    fake: FakeTeacher,
    teacher_params: SimpleNamespace,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(gateway.KEY, KEY)
    monkeypatch.setenv("TEACHER_BASE_URL", "http://127.0.0.1:9/v1")
    teacher_params.retries = 0

    async def act(client: httpx.AsyncClient) -> None:
        found = (await client.post(CHAT, json={"input": LINE})).json()
        assert (found["answered_by"], found["failed_checks"]) == ("student", ["confidence: 0.25"])

    serving(Sure(GOOD, 0.25), act, teacher_params, monkeypatch, confidence=0.5)


def test_the_least_likely_token_counts() -> None:
    assert confidence.least([math.log(0.5), math.log(0.25), 0.0]) == pytest.approx(0.25)
    assert confidence.least([]) == 1.0
    choice: jsonl.Row = {"logprobs": {"content": [{"logprob": math.log(0.5)}]}}
    assert confidence.of_reply(choice) == pytest.approx(0.5) and choice == {"logprobs": None}
    assert confidence.of_reply({}) == 1.0


@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        ([], None),
        ([0, 1], 0.02),  # the two least sure of a hundred
        ([0, 1, 9], 0.1),  # eight right ones are worth a third of the wrong ones
        ([0, 1, 60], 0.02),  # but not fifty-eight, and not more than MOST
        ([99], None),
    ],
)
def test_the_threshold_tells_right_from_wrong(wrong: list[int], expected: float | None) -> None:
    sure, right = [n / 100 for n in range(100)], [n not in wrong for n in range(100)]
    found = confidence.best(sure, right)
    assert found == expected
    assert confidence.best([0.5] * 100, right) is None  # equal answers cannot be told apart
    assert confidence.thresholds(sure) == [0.01, 0.02, 0.05, 0.1, 0.2, 0.3]
    assert confidence.thresholds([0.5]) == [0.5] and confidence.thresholds([0.0] * 9) == []


def test_what_is_served_is_what_was_measured_of_this_student(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    task, student = settings.load(), fakes.model("models/student")
    assert confidence.threshold(task, "auto", student) is None
    assert "`make confidence` finds a threshold" in capsys.readouterr().out
    rows = [
        {"weights": served.name(student), "threshold": value, "chosen": chosen, "rows": 1}
        for value, chosen in (("0", ""), ("0.25", ""), ("0.5", "yes"))
    ]
    compare.write_csv(confidence.file(task), rows)
    assert confidence.threshold(task, "auto", student) == 0.5
    assert "answers under 0.5 are sent on" in capsys.readouterr().out
    assert confidence.threshold(task, "off", student) is None
    assert confidence.threshold(task, "0.9", student) == 0.9
    assert confidence.threshold(task, "auto", fakes.model("models/next", 8)) is None
    assert "is of another student: run `make confidence` again" in capsys.readouterr().out
    compare.write_csv(confidence.file(task), rows[:2])
    assert confidence.threshold(task, "auto", student) is None
    for wrong in ("some", "0", "1.5", "nan"):
        with pytest.raises(UserError, match=f"CONFIDENCE is {wrong}, expected off, auto, or a pro"):
            confidence.threshold(task, wrong, student)


def made(project: Project) -> None:
    """A task whose pipeline has run: ten validation and ten test rows, all the teacher's right."""
    inputs = project.seeds(20)
    words = [row["text"].split()[-1] for row in inputs]
    targets = [json.dumps({"word": word, "length": len(word)}) for word in words]
    valid = [
        {"id": row["id"], "messages": [*settings.load().messages("student", row), {"role": "a"}]}
        for row in inputs[:10]
    ]
    for row, target in zip(valid, targets, strict=False):
        row["messages"][-1] = {"role": "assistant", "content": target}
    jsonl.write_jsonl("data/4-valid.jsonl", valid)
    tests = [{**row, "slice": "gold", "expected": None} for row in inputs[10:]]
    jsonl.write_jsonl("data/4-test.jsonl", tests)
    recorded = [
        {"id": row["id"], "answer": target, "finish_reason": "stop"}
        | {"prompt_tokens": 9, "completion_tokens": 9}
        for row, target in zip(tests, targets[10:], strict=True)
    ]
    for model in ("base", "sft", "teacher"):
        path = predictions.folder(settings.load(), model) / "test.jsonl"
        jsonl.write_jsonl(path, recorded)


def test_the_whole_command(
    project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The student has two validation and three test rows wrong, and is less sure of these; it is as
    unsure of one that is right."""
    made(project)
    fakes.model("models/student")
    project.write(
        "task.yaml",
        (project.dir / "task.yaml").read_text().replace("checks: [", "checks: [exact_match, "),
    )
    tests = project.read("4-test.jsonl")
    for row in tests:
        word = row["text"].split()[-1]
        row["expected"] = {"word": word, "length": len(word)}
    jsonl.write_jsonl("data/4-test.jsonl", tests)

    def answers(model: Path, batches: Any, grammars: Any, p: Any) -> list[list[jsonl.Row]]:
        found = []
        for batch, bad, unsure in zip(batches, (2, 3), (2, 4), strict=True):
            texts = [chat[-1]["content"].split()[-1] for chat in batch]
            rows = [
                {
                    "answer": json.dumps({"word": word, "length": len(word) + (n < bad)}),
                    "finish_reason": "stop",
                    "prompt_tokens": 1,
                    "completion_tokens": 1,
                    "confidence": 0.3 if n < unsure else 0.9 + n / 1000,
                }
                for n, word in enumerate(texts)
            ]
            found.append(rows)
        return found

    monkeypatch.setattr(confidence, "answers", answers)
    command.main()
    out = capsys.readouterr().out
    assert "10 validation rows, 10 pass the checks, of which 2 are not what the teacher" in out
    text = confidence.file(settings.load()).read_text()
    rows = list(compare.read_csv(text, "x"))
    [chosen] = [row for row in rows if row["chosen"]]
    assert (chosen["threshold"], chosen["sent"], chosen["right"]) == ("0.902", "4", "10")
    alone = {row["who"]: row["right"] for row in rows if row["threshold"] == "0"}
    assert alone == {"student": "7", "cascade": "7", "teacher": "10"}
    assert "all: under 0.902: 100.0% right, 40.0% sent on" in out and ", chosen" in out
    shutil.rmtree("data/5-predictions/teacher")
    project.write("data/2-answers.jsonl", "")  # as where all rows are a person's own
    with pytest.raises(UserError, match="no teacher has answered the test rows"):
        command.main()


@pytest.mark.slow
def test_a_real_model_says_how_sure_it_is(
    project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The model has never seen the task: no answer passes the checks."""
    made(project)
    project.set(predict_max_model_len=512, predict_max_tokens=24)
    shutil.copytree(ROOT / "models/tiny-base", "models/student")
    real, found = confidence.answers, list[list[jsonl.Row]]()

    def seen(*given: Any) -> list[list[jsonl.Row]]:
        found.extend(real(*given))
        return found

    monkeypatch.setattr(confidence, "answers", seen)
    command.main()
    assert [len(batch) for batch in found] == [10, 10]
    assert all(0 < row["confidence"] < 1 and row["answer"] for batch in found for row in batch)
    out = capsys.readouterr().out
    assert "10 validation rows, 0 pass the checks" in out
    assert "no threshold tells right from wrong: the checks alone" in out
