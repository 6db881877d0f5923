"""Every sentence that is computed: a table of what is said of which result, and 500 generated
results of which nothing said may contradict the numbers."""

import random
import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from scipy.stats import binomtest

from potstill.commands import experiments, gate, repro
from potstill.core import jsonl, params
from potstill.core import project as core_project
from potstill.core.errors import UserError
from potstill.evaluation import choose, compare, loss_curves, score, sentences, statistics
from potstill.task import settings
from tests.conftest import Project

NAMES = ("base", "examples", "sft", "teacher")
COMPARED = "name: toy\nheadline_slice: {}\nchecks: [exact_match: {{field: word}}]\n"
NOT_COMPARED = "name: toy\nheadline_slice: {}\nchecks: [json_schema]\n"
NEEDED = "No training is needed."
NOTHING = "The training achieved nothing: no test row is right."
WORSE = "The training made the model worse."
TELL = "These rows cannot tell whether the training helped."
SIZES = [1, 2, 3, 5, 6, 7, 20, 60] * 4 + [255, 400, 2500]
Right = dict[str, list[bool]]


def made(right: Right, word: str = "accuracy", unscored: int = 0) -> tuple[jsonl.Row, list[Any]]:
    """What metrics.json and pairs.csv have of these models; so many of the last wrong rows of each
    are unscored."""
    found: jsonl.Row = {"rows": len(right["base"])}
    for name, every in right.items():
        wrong = every.count(False)
        marks = [{"right": one, "unscored": False} for one in sorted(every)]
        marks = [one | {"unscored": i < min(unscored, wrong)} for i, one in enumerate(marks)]
        tokens = {"prompt_tokens": 1, "completion_tokens": 1}
        found[name] = score.summary([mark | tokens for mark in marks], word)
    order = sorted(right, key="teacher".__ne__)
    pairs = [(one, other) for i, one in enumerate(order) for other in order[i + 1 :]]
    return found, [compare.pair(*pair, *(right[name] for name in pair)) for pair in pairs]


@pytest.mark.parametrize(
    ("rows", "base", "examples", "student", "teacher", "lowest", "says"),
    [
        (100, 0, 95, 95, 95, None, NEEDED),
        (100, 0, 96, 90, 95, None, NEEDED),
        (100, 0, 90, 91, 95, 0.9, NEEDED),
        (100, 0, 90, 91, None, 0.9, NEEDED),
        (100, 95, 0, 95, 95, None, NEEDED),
        (100, 95, None, 96, 95, None, NEEDED),
        (100, 90, 91, 92, None, None, TELL),
        (100, 90, 91, 92, 95, 0.95, TELL),
        (100, 0, 0, 0, 95, None, NOTHING),
        (100, 0, 0, 0, 0, 0.0, NOTHING),
        (100, 0, None, 0, None, None, NOTHING),
        (100, 3, 3, 0, 95, None, NOTHING),
        (100, 0, 0, 3, 95, None, TELL),
        (100, 50, 0, 20, 95, None, WORSE),
        (100, 0, 50, 20, 95, None, WORSE),
        (100, 0, 50, 0, 95, None, WORSE),
        (100, 0, 50, 55, 95, None, TELL),
        (100, 0, 50, 45, 95, None, TELL),
        (100, 50, 50, 95, 95, 0.4, None),
        (100, 0, 0, 95, None, None, None),
        (6, 0, 0, 6, 6, None, None),
        (5, 0, 0, 5, 5, None, TELL),
        (5, 5, 5, 5, 5, None, TELL),
        (1, 0, 0, 1, 1, None, TELL),
        (1, 1, 1, 0, 1, None, NOTHING),
    ],
)
def test_what_is_said_of_the_gain(
    rows: int,
    base: int,
    examples: int | None,
    student: int,
    teacher: int | None,
    lowest: float | None,
    says: str | None,
) -> None:
    given = zip(NAMES, (base, examples, student, teacher), strict=True)
    right = {name: [i < n for i in range(rows)] for name, n in given if n is not None}
    gain = sentences.gain(*made(right), lowest)
    assert (gain and gain[0]) == says
    if gain and rows == 100:
        best = max(base, examples or 0)
        assert f"model has {best}.0%, the student {student}.0% (p " in gain[1]
        asked = examples is not None and examples >= base
        assert gain[1].startswith("Shown a few examples" if asked else "Asked with the teacher's")


@pytest.mark.parametrize(
    ("word", "rows", "first", "none"),
    [
        ("accuracy", 40, "90.0% of the 40 test rows are right after", "is right"),
        ("agreement", 1, "100.0% of the 1 test row agrees with the teacher a", "agrees with the"),
        (
            "pass_rate",
            1000,
            "90.0% of the 1,000 test rows pass every check a",
            "passes every check",
        ),
    ],
)
def test_a_metric_says_what_was_compared(word: str, rows: int, first: str, none: str) -> None:
    right = {name: [i < 0.9 * rows for i in range(rows)] for name in ("base", "sft")}
    said = sentences.headline(made(right, word)[0], None)
    assert said.startswith(first) and said.endswith(f"Before it, {first.split()[0]}.")
    gain = sentences.gain(*made(dict.fromkeys(right, [False] * rows), word), None)
    assert gain and gain[0].startswith(f"The training achieved nothing: no test row {none}")
    assert " of slice a " in sentences.headline(made(right, word)[0], "slice a")


@pytest.mark.parametrize(
    ("word", "student", "teacher", "figure", "labels"),
    [
        ("accuracy", 97, 90, "the student is better (p = 0.016)", "your own, never the teacher's"),
        ("accuracy", 80, 90, "the student is worse (p = 0.0019)", "your own, never the teacher's"),
        ("pass_rate", 89, 90, "from the student is within the noise (p", "No answer is compared"),
        ("pass_rate", 90, 90, "from the student is within the noise (p", "No answer is compared"),
        (
            "agreement",
            80,
            100,
            "whose answers are the labels",
            "the teacher is right by definition",
        ),
        ("agreement", 70, 80, "whose answers are the labels", "Its first answer to a row is wrong"),
        ("agreement", 70, None, "", "the teacher is right by definition"),
    ],
)
def test_what_is_said_of_the_teacher(
    word: str, student: int, teacher: int | None, figure: str, labels: str
) -> None:
    counts = {"base": 0, "sft": student} | ({} if teacher is None else {"teacher": teacher})
    found, pairs = made({name: [i < n for i in range(100)] for name, n in counts.items()}, word)
    if teacher is not None:
        assert figure in sentences.teacher(found, pairs)
    assert labels in sentences.labels(found)


def test_where_nothing_can_be_judged_nothing_is_said_of_the_training() -> None:
    found, pairs = made(dict.fromkeys(("base", "sft"), [False] * 9), unscored=9)
    nothing = "The checks have nothing to judge the student's answers by."
    assert sentences.gain(found, pairs, None) == (TELL, nothing)


@pytest.mark.parametrize(
    ("p", "text", "said"),
    [
        (1.0, "= 1", "within the noise"),
        (0.0501, "= 0.05", "within the noise"),
        (0.05, "= 0.05", "within the noise"),
        (0.0497, "= 0.0497", "better"),
        (0.0412, "= 0.041", "better"),
        (0.001, "= 0.001", "better"),
        (0.00099, "< 0.001", "better"),
        (0.0, "< 0.001", "better"),
    ],
)
def test_a_p_value_reads_as_what_is_said_of_it(p: float, text: str, said: str) -> None:
    assert statistics.p_text(p) == text
    assert statistics.difference(p, True) == said
    assert statistics.difference(p, False) == said.replace("better", "worse")


@pytest.mark.parametrize(
    ("shares", "texts"),
    [
        ([0.0], "0.0%"),
        ([1.0], "100.0%"),
        ([1 / 3], "33.3%"),
        ([1 / 5000], "0.02%"),
        ([9999 / 10_000], "99.99%"),
        ([379 / 400, 0.948], "94.75% 94.80%"),
        ([0.9, 0.9], "90.0% 90.0%"),
        ([0.9, 0.1], "90.0% 10.0%"),
    ],
)
def test_a_percentage_is_never_none_or_all_or_another_that_it_is_not(
    shares: list[float], texts: str
) -> None:
    assert statistics.percents(*shares) == texts.split()


PLURAL = re.compile(r"(?<![\d.,])(\d[\d,]*) (?:test |validation )?(row|answer|request|stage)(s?)\b")
VERDICT = re.compile(r"\bp ([<=]) ([\d.e-]+)")
SHARE = re.compile(r"(?<![\d.])(\d+\.(\d+))%")
INTERVAL = re.compile(r"[\d.]+% to [\d.]+%|95 % interval")
NEVER = re.compile(r"no difference|the same|as good|equal|levelled|None|nan|inf\b|\b[01]\.\d{5}")


class Result:
    """A generated result of the task in the working folder, and what is said of it."""

    def __init__(self, seed: int, project: Project) -> None:
        self.dice = random.Random(seed)
        self.rows = self.dice.choice(SIZES)
        names = [name for name in NAMES if name in ("base", "sft") or self.dice.random() < 0.8]
        self.right = {name: self.some() for name in names}
        self.held_out, self.labels, compared = (self.dice.random() < 0.5 for _ in range(3))
        self.slice = "held_out" if self.held_out else "a"
        config = COMPARED if compared else NOT_COMPARED
        project.write("task.yaml", config.format(self.slice))
        self.task = settings.load()
        self.labels |= self.held_out
        self.compared = compared and self.labels
        self.lowest = self.dice.choice([None, None, 0.0, 0.5, 0.9, 0.948, 1.0])
        expected = {"word": "x"} if self.labels else None
        self.tests = [
            {"id": str(i), "slice": self.slice, "text": "x", "expected": expected}
            for i in range(self.rows)
        ]
        self.unscored = self.dice.choice([0.0, 0.0, 0.0, 0.5, 1.0])
        self.marks = {name: [self.mark(one) for one in self.right[name]] for name in names}
        self.found = score.metrics(self.task, self.tests, self.marks)
        self.pairs = compare.pairs(self.task, self.tests, self.marks)

    def some(self, like: list[bool] | None = None) -> list[bool]:
        """Which rows are right: none, all or some; not many others than `like`."""
        if like is not None and self.dice.random() < 0.7:
            flips = self.dice.choice([0.0, 0.01, 0.05, 0.2])
            return [one ^ (self.dice.random() < flips) for one in like]
        share = self.dice.choice([0.0, 0.0, 0.0004, 0.5, 0.9, 0.9996, 1.0, 1.0, self.dice.random()])
        return [self.dice.random() < share for _ in range(self.rows)]

    def mark(self, right: bool) -> dict[str, Any]:
        unscored = not right and self.dice.random() < self.unscored
        return {"right": right, "unscored": unscored, "prompt_tokens": 3, "completion_tokens": 1}

    def count(self, name: str) -> int:
        return self.right[name].count(True)

    def shown(self, model: str, against: str) -> str:
        """What a test of the test's own shows of two models."""
        pairs = list(zip(self.right[against], self.right[model], strict=True))
        fixed, broken = pairs.count((False, True)), pairs.count((True, False))
        p = binomtest(fixed, fixed + broken).pvalue if fixed + broken else 1.0
        return "noise" if p >= 0.05 else "better" if fixed > broken else "worse"

    def shares(self, text: str, *counts: int) -> None:
        """Each percentage of the text that is no end of an interval is one of these of the rows,
        and none says none, or all, where it is not."""
        for whole, decimals in SHARE.findall(INTERVAL.sub("", text)):
            near = 0.5 * 10.0 ** -len(decimals) + 1e-9
            fits = [n for n in counts if abs(float(whole) - 100 * n / self.rows) <= near]
            assert fits, (text, counts, self.rows)
            assert float(whole) not in (0, 100) or {0, self.rows} & set(fits), text


def well_said(text: str) -> str:
    """The text, of which plurals, p-values and words are as they must be."""
    for number, what, plural in PLURAL.findall(text):
        assert (number == "1") is not bool(plural), (number, what, text)
    for line in text.splitlines():
        for sign, p in VERDICT.findall(line):
            shown = sign == "<" or float(p) < 0.05
            said = re.search(r"\b(?:better|worse|wins)\b", line)
            noise = "within the noise" in line or "cannot tell" in line
            assert not noise or not shown, line
            assert not said or shown or "no worse" in line, line
    assert not NEVER.search(text), text
    return text


def page(result: Result) -> None:
    """The sentences of the page."""
    first = well_said(sentences.headline(result.found, result.slice))
    result.shares(first, result.count("base"), result.count("sft"))
    assert f" of {result.slice} " in first
    labels = well_said(sentences.labels(result.found))
    word = score.word_of(result.found["sft"])
    assert (word == "pass_rate") is (not result.compared)
    assert (word == "agreement") is (result.compared and result.held_out)
    assert ("No answer is compared" in labels) is (not result.compared)
    every = "teacher" not in result.right or result.count("teacher") == result.rows
    assert ("by definition" in labels) is (word == "agreement" and every)
    if "teacher" in result.right:
        figure = well_said(sentences.teacher(result.found, result.pairs))
        if word != "agreement":
            says = {"better": "better", "worse": "worse", "noise": "within the noise"}
            assert says[result.shown("sft", "teacher")] in figure


def console(result: Result, monkeypatch: pytest.MonkeyPatch) -> None:
    """The verdict at the end of `make repro`, with what is said of the gain."""
    jsonl.write_json("reports/metrics.json", result.found)
    compare.write_csv(Path("reports/tables/pairs.csv"), result.pairs)
    answers, kept = (result.dice.choice([0, 1, 2, 3000]) for _ in "ab")
    rows = [
        {"key": str(i), "error": None, "prompt_tokens": 5, "completion_tokens": 5}
        for i in range(answers)
    ]
    price = result.dice.choice([None, 0.0, 2.5])
    jsonl.write_json("reports/cost.json", score.cost(rows, [], kept, price, price))
    given = SimpleNamespace(gate=SimpleNamespace(min_accuracy=result.lowest))
    monkeypatch.setattr(params, "load", lambda *_: given)
    text = well_said(repro.verdict(repro.Progress(["sft"]), 1.0))
    lines, gain = text.splitlines(), sentences.gain(result.found, result.pairs, result.lowest)
    result.shares(lines[1], result.count("base"), result.count("sft"))
    assert ("\n".join(gain) in text) if gain else ("raining" not in text)
    for name in result.right:
        [line] = [line for line in lines if re.match(rf"  {name} +[\d.]+%", line)]
        result.shares(line, result.count(name))
        assert f" {result.count(name):,}  " in line

    untrained = {name: result.count(name) for name in ("examples", "base") if name in result.right}
    best, student = max(untrained.values()), result.count("sft")
    strongest = next(name for name, n in untrained.items() if n == best)
    shown, unscored = result.shown("sft", strongest), result.found["sft"]["unscored"]
    assert (gain is None) is (shown == "better")
    verdict, why = gain or ("", "")
    bars = [] if result.lowest is None else [result.lowest * result.rows]
    bars += [result.count("teacher")] if "teacher" in result.right else []
    if unscored < result.rows:
        bare = why.partition("; gate.min_accuracy")[0]
        result.shares(bare, best, student, *map(result.count, result.right))
        if best == student == 0:
            assert verdict.startswith("The training achieved nothing: no test row ")
    if verdict.startswith("The training achieved"):
        assert student == 0 and unscored < result.rows
    if verdict == NEEDED:
        assert best and any(best >= bar for bar in bars) and result.rows >= 6
    if verdict == WORSE:
        assert shown == "worse" and student < best


def tables(result: Result) -> None:
    """What `score` prints."""
    text = well_said(score.table(result.found))
    for line in text.splitlines():
        result.shares(line, result.count(line.split()[0]))
    says = {"better": "better", "worse": "worse", "noise": "within the noise"}
    for line in well_said(compare.lines(result.pairs)).splitlines():
        model, _, against = line.partition(":")[0].split()
        assert line.endswith(says[result.shown(model, against)])
    differ, flips = (result.dice.choice([0, 1, result.rows]) for _ in "ab")
    counts = {"rows": result.rows, "differ": differ, "flips": flips}
    for hop in (compare.SERVED, "base, predicted twice"):
        for passed in (0, 1):
            line = well_said(compare.hop_line(counts | {"hop": hop, "passed": passed}))
            assert (hop == compare.SERVED) is ("verdict" not in line)
            assert (line.endswith(", expected 0") or "more than chance" in line) is not passed


def choice(result: Result) -> None:
    """Which student ships, and why."""
    sft, dpo = result.right["sft"], result.some(result.right["sft"])
    both = compare.pair("sft", "dpo", sft, dpo)
    checks = {"language": {"sft": 2, "dpo": result.dice.choice([1, 2, 3])}}
    found = {"rows": result.rows, "sft": sum(sft), "dpo": sum(dpo), "p": both["p"]}
    share = result.dice.choice([0, 0.1, 0.3499, 0.3501, 1])
    phrase = result.dice.choice(
        [None, {"text": "一路平安！万", "kept": 0.1, "sft": 0, "dpo": share}]
    )
    ship, why = choose.verdict(found | {"checks": checks, "phrase": phrase})
    said = f"right {sum(sft):,} → {sum(dpo):,} of {result.rows:,} "
    assert said in well_said(why)
    wins = both["p"] < 0.05 and sum(dpo) > sum(sft)
    assert ("dpo wins" in why) is wins
    stock = phrase is not None and share > 0.35
    assert (ship == "dpo") is (wins and checks["language"]["dpo"] <= 2 and not stock)
    assert ("taken to a phrase" in why) is (wins and checks["language"]["dpo"] <= 2 and stock)
    assert ("no more rows right" in why) is (sum(dpo) <= sum(sft))


def judged(result: Result, monkeypatch: pytest.MonkeyPatch) -> None:
    """`make gate` and `make compare`: the result against an earlier one."""
    table = compare.states(result.tests, result.marks)
    compare.write_csv(Path("reports/tables/marks.csv"), table)
    hop = {"hop": "merged", "rows": 9, "differ": 0, "flips": 0, "passed": 1}
    compare.write_csv(Path("reports/tables/hops.csv"), [hop])
    before = result.some(result.right["sft"])
    earlier = [row | {"sft": int(one)} for row, one in zip(table, before, strict=True)]
    compare.write_csv(Path("earlier.csv"), earlier)
    committed = Path("earlier.csv").read_bytes()
    monkeypatch.setattr(core_project, "git", lambda *_: "")
    monkeypatch.setattr(core_project, "committed", lambda *_: committed)
    was, now = sum(before), result.count("sft")
    result.right["before"] = before
    shown = result.shown("sft", "before")
    low = result.lowest is not None and now / result.rows < result.lowest
    text, failed = "", False
    try:
        text = gate.judge(result.task, result.lowest, "HEAD")
    except UserError as error:
        text, failed = str(error), True
    assert failed is (low or shown == "worse"), well_said(text)
    if low:
        share, bar = SHARE.findall(INTERVAL.sub("", text))
        assert float(share[0]) < float(bar[0])
    else:
        result.shares(well_said(text), now, was)
        says = {"better": ": better", "worse": ": worse", "noise": ": within the noise"}
        assert says[shown] in text
    assert score.word_of(result.found["sft"]) in text

    rows = []
    for name, right in (("last commit", before), ("one", result.right["sft"])):
        found = {"model": "sft", "word": "accuracy", "share": sum(right) / result.rows}
        by_id = dict(enumerate(right))
        rows.append(found | {"name": name, "params": {}, "interval": "0.0% to 9.9%"})
        rows[-1]["right"] = [{str(i): one for i, one in by_id.items()}]
    _, *lines = experiments.lines(rows[0], experiments.judged(rows[0], rows[1:]))
    for line, right in zip(lines, (before, result.right["sft"]), strict=True):
        result.shares(well_said(line), sum(right))
    says = {"better": "better:", "worse": "worse:", "noise": "within the noise:"}
    assert says[shown] in lines[1]


def curves(dice: random.Random) -> Iterator[loss_curves.Curve]:
    """Two loss curves: falling, flat or rising in each part, one in ten with noise."""
    for points in (dice.choice([3, 20, 60]), dice.choice([2, 3, 8])):
        loss, noise = dice.choice([0.0, 0.01, 3.0]), dice.choice([0.0] * 9 + [0.3])
        curve = []
        for i in range(points):
            loss *= 1 + dice.choice([-0.2, -0.01, 0.0, 0.0, 0.01, 0.2])
            wild = dice.choice([1.0] * 300 + [float("nan"), float("inf")])
            curve.append((10 * (i + 1), loss * (1 + noise * dice.random()) * wild))
        yield curve


def fits(result: Result) -> None:
    """What is said of the loss curves."""
    train, valid = curves(result.dice)
    found = loss_curves.fit(train, valid)
    losses = [loss for _, loss in valid]
    end, lowest, advice = losses[-1], min(losses), found["advice"]
    assert not NEVER.search(advice.replace("is no number", "")), advice
    if found["verdict"] == "under-fitted":
        assert end < losses[-2] and f"by {1 - end / losses[-2]:.1%} from" in advice
    if found["verdict"] == "over-fitted":
        assert end > 1.05 * lowest and "training loss fell" in advice
    if found["verdict"] == "well fitted":
        assert end <= 1.05 * lowest and ("ended at its lowest" in advice) is (end == lowest)
    if match := re.search(r"ended (\d+\.\d)% above its lowest \(step (\d+)\)", advice):
        assert match[1] == f"{100 * (end / lowest - 1):.1f}"
        assert dict(valid)[int(match[2])] == lowest


@pytest.mark.parametrize(
    "seeds", [range(50), pytest.param(range(50, 500), marks=pytest.mark.slow)], ids=["50", "500"]
)
def test_no_sentence_contradicts_the_numbers_of_its_result(
    project: Project, monkeypatch: pytest.MonkeyPatch, seeds: range
) -> None:
    """Each percentage is the rows right of all, and only none is 0.0 % and all 100.0 %. Better and
    worse are said where a test shows it, and then; a difference that is not shown is within the
    noise, and never none. No training is needed only where the untrained model is not below the
    teacher or the bar; that no row is right is said at once. Accuracy and agreement are said where
    answers are compared, and of the teacher that it is right by definition where it is so. One row
    is a row, and two are rows."""
    for seed in seeds:
        result = Result(seed, project)
        page(result)
        console(result, monkeypatch)
        tables(result)
        choice(result)
        judged(result, monkeypatch)
        fits(result)
