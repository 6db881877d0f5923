"""stages.generate: every input has its answers, in order; a mistake is one sentence and loses
nothing."""

import json

import pytest

from potstill.core.errors import UserError
from stages import generate
from tests.conftest import FakeTeacher, Project


def test_every_input_has_its_answers(
    project: Project, fake: FakeTeacher, capsys: pytest.CaptureFixture[str]
) -> None:
    seeds = project.seeds(5)
    project.set(teacher_model="fake-235b", generate_samples=2)
    generate.main()
    answers = project.read("2-answers.jsonl")
    assert [(row["id"], row["sample"]) for row in answers] == [
        (seed["id"], sample) for seed in seeds for sample in (0, 1)
    ]
    assert [row["answer"] for row in answers[:2]] == ['{"word": "word0", "length": 5}'] * 2
    assert (
        capsys.readouterr().out
        == "generate: 5 inputs, 10 answers, 0 of them refused by the teacher\n"
    )


def test_the_default_teacher_needs_no_network_and_no_key(project: Project) -> None:
    project.seeds(3)
    code, out = project.run(
        "stages.generate", TEACHER_BASE_URL="http://127.0.0.1:9/v1", TEACHER_API_KEY="unused"
    )
    assert code == 0, out
    assert project.read("2-answers.jsonl")[2]["answer"] == '{"length": 5, "word": "word2"}'


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ('{"id": "x", "text": ', "data/1-inputs.jsonl:4: not JSON"),
        ('{"id": "x"}', "data/1-inputs.jsonl:4: key 'text' is missing"),
        (
            '{"id": "x", "text": ""}',
            "data/1-inputs.jsonl:4: text is '', expected a text that is not empty",
        ),
        (
            '{"id": "x", "text": "y"}',
            "data/1-inputs.jsonl:4: id is x, but the id of this input is ed9f959f730280b9",
        ),
        (
            '{"id": "ed9f959f730280b9", "text": "y", "family": "x"}',
            "data/1-inputs.jsonl:4: family is 'x', expected the id of a row",
        ),
    ],
)
def test_a_bad_input_is_said_before_anything_is_asked(
    project: Project, fake: FakeTeacher, line: str, expected: str
) -> None:
    inputs = "".join(
        f"{json.dumps(seed)}\n" for seed in project.seeds(3)
    )  # from before there were seals
    project.set(teacher_model="fake-235b")
    project.write("data/1-inputs.jsonl", f"{inputs}{line}\n")
    with pytest.raises(UserError, match=expected):
        generate.main()
    assert fake.calls == []


def test_an_error_is_one_line_and_exit_code_1(project: Project) -> None:
    project.seeds(2)
    project.set(teacher_model="gpt", lora_rank=32)
    code, out = project.run("stages.generate")
    assert code == 1
    assert out.startswith("error: teacher.model is gpt, which needs TEACHER_BASE_URL")
    assert out.count("\n") == 1
