"""`make gate`: fails where the student is below its bar, worse than the last commit by more than
noise, or another on its way to serving."""

import subprocess
from pathlib import Path

import pytest

from potstill.commands import gate
from potstill.core import jsonl
from potstill.core.errors import UserError
from potstill.evaluation import compare
from potstill.task import settings
from tests.conftest import Project


def result(right: int, rows: int = 100, first: int = 0, passed: int = 1) -> None:
    """A scored task: sft has `right` of the rows right, whose ids count from `first`; ten more rows
    are of another slice."""
    found = {"accuracy": right / rows, "low": 0.1, "high": 0.9}
    found |= {"right": right, "wrong": rows - right, "unscored": 0}
    jsonl.write_json("reports/metrics.json", {"base": found, "sft": found, "teacher": found})
    table = [{"id": str(first + i), "slice": "a", "sft": int(i < right)} for i in range(rows)]
    table += [{"id": f"other {i}", "slice": "b", "sft": 0} for i in range(10)]
    compare.write_csv(Path("reports/tables/marks.csv"), table)
    hop = {
        "hop": "adapter to merged",
        "rows": 100,
        "differ": 9,
        "flips": 9,
        "p": 0.001,
        "passed": passed,
    }
    compare.write_csv(Path("reports/tables/hops.csv"), [hop])


@pytest.fixture
def toy(project: Project) -> settings.Task:
    """A task whose committed result is 90 of 100."""
    project.write("task.yaml", "headline_slice: a\nchecks: []\n")
    result(90)
    project.commit()
    return settings.load()


@pytest.mark.parametrize(
    ("right", "more", "says"),
    [
        (
            90,
            {},
            "sft has accuracy 90.0% (10.0% to 90.0%); HEAD has 90.0%: "
            "within the noise (0 rows fixed, 0 broken, exact McNemar, p = 1); "
            "one seed: the noise of training is not in this interval",
        ),
        (86, {}, "within the noise (0 rows fixed, 4 broken, exact McNemar, p = 0.12"),
        (99, {}, "better (9 rows fixed, 0 broken, exact McNemar, p = 0.0039"),
        (84, {"first": 50}, "within the noise (other test rows, Fisher's exact, p = 0.29"),
    ],
)
def test_it_passes(toy: settings.Task, right: int, more: dict[str, int], says: str) -> None:
    result(right, **more)
    assert says in gate.judge(toy, 0.84, "HEAD")


@pytest.mark.parametrize(
    ("right", "more", "says"),
    [
        (
            83,
            {},
            r"^reports/metrics.json: sft has accuracy 83.0% .*, "
            r"expected 84.0% \(gate.min_accuracy in params.yaml\) or more$",
        ),
        (
            84,
            {},
            "HEAD has 90.0%: worse .0 rows fixed, 6 broken, exact McNemar, p = 0.031., "
            "expected no worse; one seed: the noise of training is not in this interval$",
        ),
        (
            90,
            {"passed": 0},
            "^reports/tables/hops.csv: adapter to merged: another text in 9 of 100 rows, "
            "another verdict in 9, more than chance explains: what is served is not what",
        ),
        (850, {"rows": 1000, "first": 7}, None),
    ],
)
def test_it_fails(toy: settings.Task, right: int, more: dict[str, int], says: str | None) -> None:
    result(right, **more)
    if says is None:  # 85 % of other rows is no proof of having become worse than 90 of 100
        assert "Fisher's exact" in gate.judge(toy, None, "HEAD")
    else:
        with pytest.raises(UserError, match=says):
            gate.judge(toy, 0.84, "HEAD")


def several(*right: int) -> gate.Students:
    """Students of several seeds, each with so many of 100 rows right."""
    return [{str(i): i < count for i in range(100)} for count in right]


@pytest.mark.parametrize(
    ("old", "new", "verdict", "says"),
    [
        # seven rows that are broken alone: real for McNemar, and for seeds that hardly differ
        ((90, 90, 90), (83, 83, 84), "worse", "mean of 3 seeds less that of 3: -6.7 points (-"),
        ((90, 90, 90), (83, 92, 90), "noise", "mean of 3 seeds less that of 3: -1.7 points (-"),
        ((90,), (83, 83, 84), "worse", "mean of 3 seeds less that of 1: -6.7 points (-"),
        ((90,), (83, 92, 90), "noise", "less that of 1: -1.7 points (-"),
        # the means differ, the first students do not
        ((90, 97, 98, 97), (88, 84, 85, 84), "noise", "0 rows fixed, 2 broken, exact McNemar; "),
        # the first students and the means differ in two directions
        ((90, 80, 80, 80), (83, 90, 90, 90), "noise", "less that of 4: +5.8 points ("),
    ],
)
def test_several_seeds_must_differ_in_their_first_students_and_in_their_means(
    old: tuple[int, ...], new: tuple[int, ...], verdict: str, says: str
) -> None:
    p, how = gate.difference(several(*old), several(*new))
    assert ("noise" if p >= 0.05 else "worse") == verdict, (p, how)
    assert says in how
    other = [{f"other {id}": one for id, one in rows.items()} for rows in several(*new)]
    assert gate.difference(several(*old), other)[1].startswith("other test rows, Fisher's exact; ")


def test_the_seeds_are_read_of_marks_csv(toy: settings.Task) -> None:
    table = [
        {"id": str(i), "slice": "a", "sft": int(i < 83), "dpo": 1, "sft@43": 0, "sft@44": 1}
        for i in range(100)
    ]
    compare.write_csv(Path("reports/tables/marks.csv"), table)
    found = jsonl.read_json("reports/metrics.json")
    found["sft"] |= {"right": 83, "wrong": 17}
    jsonl.write_json("reports/metrics.json", found)
    said = gate.judge(toy, None, "HEAD")  # seven rows are broken
    assert "within the noise (0 rows fixed, 7 broken, exact McNemar; mean of 3 seeds less" in said
    assert "one seed" not in said


def test_without_a_committed_result_only_the_bar_counts(toy: settings.Task) -> None:
    subprocess.run(["git", "rm", "-rq", "--cached", "reports"], check=True)
    subprocess.run(
        ["git", "-c", "user.name=n", "-c", "user.email=e", "commit", "-qm", "gone"], check=True
    )
    assert gate.judge(toy, None, "HEAD").endswith(
        "HEAD has no result of sft on such rows to compare with"
    )
    assert "90.0%: within the noise (0 rows fixed" in gate.judge(toy, None, "HEAD~1")


def test_an_unknown_revision_is_named(toy: settings.Task) -> None:
    with pytest.raises(
        UserError, match="^git has no revision 'nosuch': give a commit, a branch or a tag"
    ):
        gate.judge(toy, None, "nosuch")


def test_the_exit_code(toy: settings.Task, project: Project) -> None:
    assert project.run("potstill", "gate")[0] == 0
    project.set(gate_min_accuracy=0.95)
    code, out = project.run("potstill", "gate", "--against", "HEAD")
    assert (code, out.startswith("error: reports/metrics.json: sft has accuracy 90.0%")) == (
        1,
        True,
    ), out


def test_the_cascade_may_send_on_no_more_than_it_is_allowed_to(toy: settings.Task) -> None:
    gate.cascaded(toy, None)
    with pytest.raises(UserError, match=r"^reports/tables/cascade.csv: no cascade, .* to null$"):
        gate.cascaded(toy, 0.3)
    sent = {"student": 0, "cascade": 31, "teacher": 100}
    table = [{"slice": "a", "who": who, "rows": 100, "sent": sent[who]} for who in sent]
    table += [{"slice": "b", "who": "cascade", "rows": 10, "sent": 10}]
    compare.write_csv(Path("reports/tables/cascade.csv"), table)
    gate.cascaded(toy, 0.31)
    with pytest.raises(UserError, match=r"sends on 31\.0% of the test rows, expected 30\.0% "):
        gate.cascaded(toy, 0.3)
