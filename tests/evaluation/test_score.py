"""Scoring: from predictions to metrics.json and the three lines."""

import json
from pathlib import Path
from typing import Any

import pytest

from potstill.core import jsonl, lockfile, stage
from potstill.core.errors import UserError
from potstill.evaluation import score
from potstill.task import settings
from tests.conftest import Project

MODELS = ("base", "sft", "teacher")
EXPECTED = {"word": "大理 市", "place": "25号"}
GOOD = {"name": "段丽娟", "phone": "13800138000", "place": "人民路25号 大理古城 3号楼"}
SCHEMA = {
    "type": "object",
    "properties": {"word": {"type": "string"}},
    "required": ["word", "place"],
}


@pytest.fixture
def toy(project: Project) -> settings.Task:
    """A task of two keys whose headline is slice a."""
    project.write("schema.json", json.dumps({**SCHEMA, "additionalProperties": {"type": "string"}}))
    project.write("task.yaml", "headline_slice: a\nchecks: [json_schema, exact_match]\n")
    return settings.load()


def question(id: str, slice: str = "a") -> jsonl.Row:
    return {"id": id, "text": "", "slice": slice, "expected": EXPECTED}


def answer(text: object, id: str = "0") -> jsonl.Row:
    """A prediction row."""
    text = text if isinstance(text, str) else json.dumps(text, ensure_ascii=False)
    return {
        "id": id,
        "answer": text,
        "finish_reason": "stop",
        "prompt_tokens": 10,
        "completion_tokens": 4,
    }


def metrics(
    toy: settings.Task, tests: list[jsonl.Row], predictions: dict[str, list[jsonl.Row]]
) -> dict[str, Any]:
    return score.metrics(toy, tests, score.marked(toy, tests, predictions))


@pytest.mark.parametrize(
    ("text", "right", "valid", "schema", "keys"),
    [
        ({"word": "大理市", "place": "25 号"}, True, True, True, [True, True]),
        ({"place": "25号", "word": " 大理市\n"}, True, True, True, [True, True]),
        ({"word": "大理", "place": "25号"}, False, True, True, [False, True]),
        ({"word": "大理市"}, False, True, False, [True, False]),
        ({"word": "大理市", "place": "25号", "more": ""}, False, True, True, [True, True]),
        ({"word": "大理市", "place": 25}, False, True, False, [True, False]),
        ([{"word": "大理市", "place": "25号"}], False, True, False, [False, False]),
        ('{"word": "大理市", "place": "25号"', False, False, False, [False, False]),
        ('```json\n{"word": "大理市", "place": "25号"}\n```', False, False, False, [False, False]),
        ("null", False, True, False, [False, False]),
        ("", False, False, False, [False, False]),
    ],
)
def test_marks(
    toy: settings.Task, text: object, right: bool, valid: bool, schema: bool, keys: list[bool]
) -> None:
    found = score.mark(toy, question("0"), answer(text))
    assert (found["right"], found["valid_json"], found["schema_valid"]) == (right, valid, schema)
    assert list(found["keys"].values()) == keys


def test_json_in_a_fence_or_a_text_is_wrong_and_counted(toy: settings.Task) -> None:
    good, bad = '{"word": "大理市", "place": "25号"}', '{"word": "大理", "place": "25号"}'
    texts = [f"```json\n{good}\n```", f"Here it is: {good}.", f"```\n{bad}\n```", good, "{", ""]
    tests = [question(str(i)) for i in range(len(texts))]
    answers = [answer(text, str(i)) for i, text in enumerate(texts)]
    found = metrics(toy, tests, dict.fromkeys(MODELS, answers))
    assert found["base"]["wrapped"] == {"rows": 3, "right": 2}
    assert (found["base"]["right"], found["base"]["valid_json"]) == (1, 0.1667)
    assert "wrapped" not in found["teacher"]  # its answers are judged as they would be learnt
    line = next(line for line in score.table(found).splitlines() if line.startswith("base"))
    assert line.endswith("; 3 in a fence or a text, 2 of them right without it")


@pytest.mark.parametrize(
    ("test", "text", "right", "unscored"),
    [
        ({"text": "写3字"}, "新年好", True, False),
        ({"text": "写3字"}, "新年", False, False),
        ({"text": "写3字"}, "", False, False),
        ({"text": "写几句"}, "新年好", False, True),
        (
            {"text": "写几句"},
            "Hi",
            False,
            False,
        ),  # what fails one check is wrong, whatever else cannot be said
        ({"text": "写几句"}, "", False, False),
        (
            {"text": "写3字", "expected": "春节好"},
            "新年好",
            True,
            False,
        ),  # exact_match is not among the checks
    ],
)
def test_an_answer_is_right_wrong_or_unscored(
    toy: settings.Task, project: Project, test: jsonl.Row, text: str, right: bool, unscored: bool
) -> None:
    project.write("task.yaml", "checks: [length_within, language]\n")
    found = score.mark(settings.load(), test, answer(text))
    assert found.pop("texts", None) == ((text, "春节好") if "expected" in test else None)
    found.pop("values", None)
    off = found.pop("off")
    assert found == {
        "right": right,
        "unscored": unscored,
        "prompt_tokens": 10,
        "completion_tokens": 4,
    }
    asked = test["text"] == "写3字" and text != ""
    assert off == (abs(len(text) - 3) if asked else None)


def test_an_answer_without_the_text_is_near_to_no_length(
    toy: settings.Task, project: Project
) -> None:
    project.write("task.yaml", "checks: [json_schema, {length_within: {field: word}}]\n")
    asked = {**question("0"), "text": "写3字"}
    texts: list[object] = [{"word": "新年"}, {"place": "25号"}, {"word": None}, "{"]
    marks = [score.mark(settings.load(), asked, answer(text)) for text in texts]
    within = score.summary(marks, "accuracy")["within"]
    assert within == {"2": 0.25, "5": 0.25, "10": 0.25}


def test_no_answer_is_wrong_even_without_checks(toy: settings.Task, project: Project) -> None:
    project.write("task.yaml", "checks: []\n")
    assert [
        score.mark(settings.load(), {"text": "x"}, answer(text))["right"] for text in ("", "好")
    ] == [False, True]


def test_right_and_wrong_and_unscored_are_all_rows(toy: settings.Task, project: Project) -> None:
    project.write("task.yaml", "checks: [length_within]\n")
    tests = [
        {**question(str(i)), "text": text}
        for i, text in enumerate(["写3字", "写3字", "写几句", "写4字", "写几句"])
    ]
    answers = [answer(text, str(i)) for i, text in enumerate(["新年好", "新年", "新年", "", "好"])]
    for row in tests:
        del row["expected"]
    found = metrics(settings.load(), tests, dict.fromkeys(MODELS, answers))
    assert found["sft"] == {
        "pass_rate": 0.2,
        "low": 0.0362,
        "high": 0.6245,
        "right": 1,
        "wrong": 2,
        "unscored": 2,
        "within": {"2": 0.4, "5": 0.4, "10": 0.4},
        "prompt_tokens": 10,
        "completion_tokens": 4,
    }
    assert score.table(found).splitlines()[0] == (
        "teacher      5 rows      1 right      2 wrong   20.0% (3.6% to 62.5%)  the teacher, "
        "2 rows unscored"
    )


def test_a_test_row_that_expects_nothing_is_unscored_where_exact_match_is_listed(
    toy: settings.Task,
) -> None:
    test = question("0")
    del test["expected"]
    found = score.mark(toy, test, answer({"word": "a", "place": "b"}))
    assert (found["right"], found["unscored"], "keys" in found) == (False, True, False)


@pytest.mark.parametrize(
    ("parsed", "wrong"),
    [
        (GOOD, []),
        ({**GOOD, "place": "人民路25号大理古城 3号楼"}, []),
        ({**GOOD, "name": "段 丽\u3000娟"}, []),
        ({**GOOD, "name": "段丽"}, ["name"]),
        ({**GOOD, "phone": 13800138000}, ["phone"]),
        ({key: value for key, value in GOOD.items() if key != "name"}, ["name"]),
        (None, list(GOOD)),
        ([], list(GOOD)),
        ("段丽娟", list(GOOD)),
    ],
)
def test_each_expected_key_has_its_mark(
    toy: settings.Task, parsed: object, wrong: list[str]
) -> None:
    found = score.mark(toy, {**question("0"), "expected": GOOD}, answer(json.dumps(parsed)))["keys"]
    assert list(found) == list(GOOD)
    assert [key for key, right in found.items() if not right] == wrong


def test_metrics_hold_the_headline_slice_and_the_others_inside(toy: settings.Task) -> None:
    tests = [question("0"), question("1"), question("2", "b"), question("3")]
    good, bad = {"word": "大理市", "place": "25号"}, {"word": "大理市", "place": "26号"}
    answers = [answer(text, str(i)) for i, text in enumerate([good, bad, good, "oops"])]
    found = metrics(toy, tests, dict.fromkeys(MODELS, answers))
    assert list(found) == ["rows", "base", "sft", "teacher"]
    assert found["rows"] == 3
    assert found["sft"] == {
        "accuracy": 0.3333,
        "low": 0.0615,
        "high": 0.7923,
        "right": 1,
        "wrong": 2,
        "unscored": 0,
        "valid_json": 0.6667,
        "schema_valid": 0.6667,
        "keys": {"word": 0.6667, "place": 0.3333},
        "prompt_tokens": 10,
        "completion_tokens": 4,
        "b": {
            "rows": 1,
            "accuracy": 1.0,
            "low": 0.2065,
            "high": 1.0,
            "right": 1,
            "wrong": 0,
            "unscored": 0,
            "valid_json": 1.0,
            "schema_valid": 1.0,
            "keys": {"word": 1.0, "place": 1.0},
            "prompt_tokens": 10,
            "completion_tokens": 4,
        },
    }


def test_without_a_headline_all_rows_count(toy: settings.Task, project: Project) -> None:
    project.write("task.yaml", "checks: [json_schema, exact_match]\n")
    tests = [question("0"), question("1", "b")]
    answers = [answer("{}", "0"), answer("{}", "1")]
    found = metrics(settings.load(), tests, dict.fromkeys(MODELS, answers))
    assert (found["rows"], found["base"]["wrong"]) == (2, 2)


@pytest.mark.parametrize(
    ("answers", "count"),
    [([answer("{}", "0")], "1 answers"), ([answer("{}", "1"), answer("{}", "0")], "2 answers")],
)
def test_an_unaccounted_row_fails(toy: settings.Task, answers: list[jsonl.Row], count: str) -> None:
    says = f"^data/5-predictions/sft/test.jsonl: {count}, expected one to each of the 2 test rows"
    with pytest.raises(UserError, match=says):
        metrics(toy, [question("0"), question("1")], {"sft": answers})


def test_a_headline_that_no_row_has(toy: settings.Task) -> None:
    with pytest.raises(UserError, match="headline_slice is 'a', but the test rows' slices are b"):
        metrics(toy, [question("0", "b")], {"sft": [answer("{}")]})


def test_a_refused_answer_is_a_wrong_one(toy: settings.Task) -> None:
    refused: dict[str, Any] = {
        "id": "0",
        "answer": "",
        "finish_reason": None,
        "prompt_tokens": None,
    }
    found = score.mark(toy, question("0"), {**refused, "completion_tokens": None})
    assert (found["right"], found["prompt_tokens"]) == (False, 0)


def test_the_stage_prints_three_lines_the_cost_and_the_fit(
    toy: settings.Task, project: Project
) -> None:
    ids = [jsonl.row_id({"text": text}) for text in "ab"]
    tests = [question(id) | {"text": text} for id, text in zip(ids, "ab", strict=True)]
    jsonl.write_jsonl("data/4-test.jsonl", tests)
    paid = {"key": "", "error": None}
    for model in MODELS:
        found = [
            answer("{}", ids[0]) | paid | {"key": "0"},
            answer(EXPECTED, ids[1]) | paid | {"key": "1"},
        ]
        jsonl.write_jsonl(f"data/5-predictions/{model}/test.jsonl", found)
    jsonl.write_jsonl(
        "data/5-predictions/examples/again.jsonl", [answer("{ }", ids[0]), answer(EXPECTED, ids[1])]
    )
    jsonl.write_json("data/5-seeds/report.json", {"seeds": []})
    jsonl.write_json("data/5-parity/report.json", {"lessons": 9, "other_tokens": ["0"]})
    jsonl.write_jsonl("data/2-answers.jsonl", [answer("{}", "2") | paid | {"key": "2"}])
    jsonl.write_jsonl("data/1-expand/calls.jsonl", [answer("[]", "3") | paid | {"key": "3"}])
    jsonl.write_jsonl("data/3-kept.jsonl", [{"id": "2"}])
    log = [{"step": i, "loss": 1 / (i + 1)} for i in range(8)] + [
        {"step": i, "eval_loss": 1 / (i + 1)} for i in range(8)
    ]
    jsonl.write_jsonl("models/sft/adapter/logging.jsonl", log)
    code, out = project.run("stages.score")
    assert code == 0, out
    same = "0 rows fixed, 0 broken, p = 1 (exact McNemar): "
    same += "within the noise"
    noise = "within the noise against the student (p = 1), within the noise against the teacher"
    half = "50.0% right (9.4% to 90.5%) of 2 rows"
    assert out.splitlines() == [
        "score: 2 answers of the teacher, 1 kept, 2 test rows",
        "teacher      2 rows      1 right      1 wrong   50.0% (9.4% to 90.5%)  the teacher",
        "base         2 rows      1 right      1 wrong   50.0% (9.4% to 90.5%)  before",
        "sft          2 rows      1 right      1 wrong   50.0% (9.4% to 90.5%)  after",
        f"sft against teacher: {same}",
        f"sft against base: {same}",
        "sft: one seed: the noise of training is not in this interval",
        "base, predicted twice: another text in 1 of 2 rows, another verdict in 0",
        "training rows: other tokens where served: 1 of 9 rows, expected 0",
        "cost: 4 answers of the teacher, 40 + 16 tokens, "
        "prices unknown (teacher.price_in, teacher.price_out)",
        f"a: student   {half}, 0.0% sent on (0.0% to 0.0%)",
        f"a: cascade   {half}, 50.0% sent on (9.4% to 90.5%); {noise} (p = 1)",
        f"a: teacher   {half}, 100.0% sent on (100.0% to 100.0%)",
        "fit: under-fitted; both losses were still falling, that of validation by 12.5% from the "
        "last but one to the last: more epochs or a higher rank "
        "(advice only: the score decides)",
    ]
    made = [path for path in Path("reports").rglob("*") if path.is_file()]
    curves = {f"tables/{name}_loss.{end}" for name in ("train", "eval") for end in ("csv", "png")}
    tables = {f"tables/{name}.csv" for name in ("slices", "pairs", "marks", "hops", "cascade")}
    tables.add("tables/accuracy.csv")
    others = {"metrics.json", "cost.json", "tables/fit.json", "tables/judge.json"}
    assert {path.relative_to("reports").as_posix() for path in made} == curves | tables | others
    before = {path: path.read_bytes() for path in made}
    assert project.run("stages.score")[0] == 0
    assert {path: path.read_bytes() for path in made} == before


def predicted(project: Project) -> Path:
    """Predictions of three models for two test rows, with a dvc.lock that has their hashes; the
    path of sft's."""
    unknown = "0" * 32 + ".dir"
    score_entry = {
        "cmd": "python -m stages.score",
        "deps": [{"path": "data/5-predictions", "md5": unknown}],
        "outs": [{"path": "reports/tables", "md5": unknown}],
    }
    stages: dict[str, Any] = {"score": score_entry}
    for number, model in enumerate(MODELS):
        made = Path("data/5-predictions", model)
        rows = [answer({"word": str(number)}, id) for id in ("0", "1")]
        jsonl.write_jsonl(made / "test.jsonl", rows)
        outs = [{"path": str(made), "md5": lockfile.md5(made)}]
        stages[f"predict@{model}"] = {"cmd": f"python -m stages.predict {model}", "outs": outs}
    project.write("dvc.lock", json.dumps({"stages": stages}))
    return Path("data/5-predictions/sft/test.jsonl")


def test_predictions_as_they_were_made_are_read(toy: settings.Task, project: Project) -> None:
    predicted(project)
    stage.verify_inputs("-m stages.score")
    assert list(score.predictions(toy)) == list(MODELS)
    jsonl.write_json("data/5-predictions/dpo/latency.json", {"requests": 0, "median": None})
    assert list(score.predictions(toy)) == list(MODELS)  # this model was not trained
    jsonl.write_jsonl("data/5-predictions/dpo/test.jsonl", [answer({}, id) for id in ("0", "1")])
    assert list(score.predictions(toy)) == ["base", "sft", "dpo", "teacher"]


@pytest.mark.parametrize("fault", ["corrupted", "dropped", "swapped"])
def test_predictions_that_are_not_as_they_were_made_are_refused(
    toy: settings.Task, project: Project, fault: str
) -> None:
    path = predicted(project)
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    match fault:
        case "corrupted":
            path.write_text(lines[0].replace("2", "7", 1) + lines[1], encoding="utf-8")
        case "dropped":
            path.write_text(lines[0], encoding="utf-8")
        case "swapped":
            base = Path("data/5-predictions/base/test.jsonl")
            base.rename("kept")
            path.rename(base)
            Path("kept").rename(path)
    code, out = project.run("stages.score")
    model = "base" if fault == "swapped" else "sft"
    assert (code, out.partition(" (")[0]) == (
        1,
        f"error: data/5-predictions/{model}: not as predict@{model} made it",
    )


@pytest.mark.parametrize(
    ("slice", "expected", "word"),
    [
        ("a", {"word": "x"}, "accuracy"),
        ("held_out", {"word": "x"}, "agreement"),
        ("a", None, "pass_rate"),
    ],
)
def test_what_the_share_is_called(
    project: Project, slice: str, expected: jsonl.Row | None, word: str
) -> None:
    tests = [{"id": "0", "slice": slice, "expected": expected}]
    project.write("task.yaml", "checks: [json_schema, exact_match: {field: word}]\n")
    assert score.word(settings.load(), tests) == word
    project.write("task.yaml", "checks: [json_schema]\n")  # nothing is compared
    assert score.word(settings.load(), tests) == "pass_rate"


def test_the_cost_counts_each_request_once_and_no_failure() -> None:
    def paid(key: str, error: str | None = None) -> jsonl.Row:
        return answer("{}") | {"key": key, "error": error}

    answers = [paid("a"), paid("a"), paid("b"), paid("c", "400")]
    found = score.cost(
        answers, [paid("t")], 2, 1000.0, 5000.0
    )  # 10 and 4 tokens a request: 0.03 each
    assert found == {
        "answers": 3,
        "kept_rows": 2,
        "prompt_tokens": 30,
        "completion_tokens": 12,
        "spent": 0.09,
        "per_kept_row": 0.045,
        "per_request": 0.03,
        "break_even_requests": 3,
    }
    assert score.cost_line(found) == (
        "cost: 0.09 for 3 answers of the teacher (30 + 12 tokens), 0.045 a kept row; "
        "paid back after 3 requests"
    )


@pytest.mark.parametrize("prices", [(None, None), (1.0, None), (None, 1.0)])
def test_an_unknown_price_is_null_and_never_0(prices: tuple[float | None, float | None]) -> None:
    found = score.cost([answer("{}") | {"key": "a", "error": None}], [], 1, *prices)
    assert [
        found[name] for name in ("spent", "per_kept_row", "per_request", "break_even_requests")
    ] == [None] * 4
    assert "prices unknown" in score.cost_line(found)


def test_a_task_that_expects_texts_has_their_overlap(toy: settings.Task, project: Project) -> None:
    project.write("task.yaml", "checks: []\n")
    tests = [{**question(str(i)), "expected": "新年好呀"} for i in range(2)]
    found = metrics(
        settings.load(),
        tests,
        {key: [answer("新年好呀", "0"), answer("新年好", "1")] for key in MODELS},
    )
    assert found["sft"]["overlap"]["rouge_l"] == 0.9286
    assert 0.8 < found["sft"]["overlap"]["bleu"] < 1
    assert (
        "overlap"
        not in metrics(toy, [question("0")], {key: [answer(EXPECTED, "0")] for key in MODELS})[
            "sft"
        ]
    )
