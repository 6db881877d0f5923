"""stages.generate: every input has its answers, in order; a mistake is one sentence and loses nothing."""

from pathlib import Path

import pytest

from potstill.errors import UserError
from stages import generate
from tests.conftest import FakeTeacher, Project


def test_every_input_has_its_answers(project: Project, fake: FakeTeacher, capsys: pytest.CaptureFixture[str]) -> None:
    seeds = project.seeds(5)
    project.set(teacher_model="fake-235b", samples=2)
    generate.main()
    answers = project.read("2-answers.jsonl")
    assert [(row["id"], row["sample"]) for row in answers] == [
        (seed["id"], sample) for seed in seeds for sample in (0, 1)
    ]
    assert [row["answer"] for row in answers[:2]] == ['{"word": "word0", "length": 5}'] * 2
    assert capsys.readouterr().out == "generate: 5 inputs, 10 answers, 0 of them refused by the teacher\n"


def test_the_default_teacher_needs_no_network_and_no_key(project: Project) -> None:
    project.seeds(3)
    code, out = project.run("stages.generate", TEACHER_BASE_URL="http://127.0.0.1:9/v1", TEACHER_API_KEY="unused")
    assert code == 0, out
    assert project.read("2-answers.jsonl")[2]["answer"] == '{"length": 5, "word": "word2"}'


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ('{"id": "x", "text": ', "data/toy/1-inputs.jsonl:4: not JSON"),
        ('{"id": "x", "text": "y"}', "data/toy/1-inputs.jsonl:4: the row is not as it was written"),
    ],
)
def test_a_bad_input_is_said_before_anything_is_asked(
    project: Project, fake: FakeTeacher, line: str, expected: str
) -> None:
    project.seeds(3)
    project.set(teacher_model="fake-235b")
    with Path("data/toy/1-inputs.jsonl").open("a") as inputs:
        inputs.write(line + "\n")
    with pytest.raises(UserError, match=expected):
        generate.main()
    assert fake.calls == []


def test_an_error_is_one_line_and_exit_code_1(project: Project) -> None:
    project.seeds(2)
    project.set(teacher_model="gpt", lora_rank=32)
    code, out = project.run("stages.generate")
    assert code == 1
    assert out.startswith("error: teacher_model is gpt, which needs TEACHER_BASE_URL")
    assert out.count("\n") == 1
