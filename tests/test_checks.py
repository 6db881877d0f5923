"""potstill.checks on the address task's own rules: what passes, what is dropped and why."""

import json

import pytest

from potstill import checks, task
from potstill.errors import UserError
from tests.conftest import ROOT

TEXT = "电话:+86 138-0013 8000:大理市大理市人民路25号 大理古城国际酒店 3号楼:收件者:段丽娟\t座机 0872-2123456转801"
GOOD = {
    "province": "云南省",
    "city": "大理市",
    "district": "大理市",
    "specific_location": "人民路25号 大理古城国际酒店 3号楼",
    "name": "段丽娟",
    "phone": "13800138000",
}


@pytest.fixture
def address(monkeypatch: pytest.MonkeyPatch) -> task.Task:
    monkeypatch.chdir(ROOT)
    return task.load("address")


@pytest.mark.parametrize(
    ("change", "reasons"),
    [
        ({}, []),
        ({"specific_location": "人民路25号大理古城国际酒店3号楼"}, []),
        ({"phone": "0872-2123456转801"}, []),
        ({"phone": "0872-2123456"}, []),
        ({"phone": "1380013800"}, ["json_schema: phone: pattern", "grounded: phone"]),
        ({"phone": "13800138001"}, ["grounded: phone"]),
        ({"phone": "0872-212345"}, ["json_schema: phone: pattern", "grounded: phone"]),
        ({"phone": "+8613800138000"}, ["json_schema: phone: pattern"]),
        ({"name": "段丽"}, []),  # a shorter name cannot be told from a wrong one
        ({"name": "段丽华"}, ["grounded: name"]),
        ({"name": ""}, ["json_schema: name: pattern", "grounded: name"]),
        ({"name": None}, ["json_schema: name: type", "grounded: name"]),
        ({"specific_location": "人民路25号 大理古城国际酒店 3号楼 东门"}, ["grounded: specific_location"]),
        ({"specific_location": "人民路2"}, ["grounded: specific_location"]),  # a number cut in two
        ({"specific_location": "5号 大理古城"}, ["grounded: specific_location"]),
        ({"province": "云南"}, ["json_schema: province: enum"]),
        ({"city": "大理"}, ["json_schema: city: pattern"]),
        ({"district": ""}, ["json_schema: district: pattern"]),
        ({"postcode": "671000"}, ["json_schema: answer: additionalProperties"]),
    ],
)
def test_an_answer_is_judged(address: task.Task, change: dict[str, object], reasons: list[str]) -> None:
    assert checks.check(address, {"text": TEXT}, json.dumps({**GOOD, **change}, ensure_ascii=False)) == reasons


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "json: Expecting value"),
        ("好的：\n```json\n{}\n```", "json: Expecting value"),
        ('{"province": "云南省", "ci', "json: Unterminated string starting at"),
        ('{"province": "云南省"} 以上', "json: Extra data"),
        ('{"province": NaN}', "json: NaN is not JSON"),
        ("[" * 100_000, "json: nested too deep"),
        ("[]", "json_schema: answer: type"),
        ("{}", "json_schema: answer: required"),
    ],
)
def test_an_answer_that_is_no_object_is_dropped(address: task.Task, text: str, reason: str) -> None:
    assert checks.check(address, {"text": TEXT}, text)[0] == reason


def test_parse_gives_the_object_or_the_reason(address: task.Task) -> None:
    assert checks.parse(address, ' {"a": 1}\n') == ({"a": 1}, None)
    assert checks.parse(address, "{") == (None, "json: Expecting property name enclosed in double quotes")


@pytest.mark.parametrize(
    ("parsed", "wrong"),
    [
        (GOOD, []),
        ({**GOOD, "specific_location": "人民路25号大理古城国际酒店3号楼"}, []),
        ({**GOOD, "name": "段 丽\u3000娟"}, []),
        ({**GOOD, "city": "大理白族自治州"}, ["city"]),
        ({**GOOD, "phone": 13800138000}, ["phone"]),
        ({key: value for key, value in GOOD.items() if key != "name"}, ["name"]),
        (None, list(GOOD)),
        ([], list(GOOD)),
        ("段丽娟", list(GOOD)),
    ],
)
def test_exact_match_by_key(parsed: object, wrong: list[str]) -> None:
    matched = checks.exact_match(GOOD, parsed)
    assert list(matched) == list(GOOD)
    assert [key for key, right in matched.items() if not right] == wrong


def test_every_gold_label_passes_the_checks(address: task.Task) -> None:
    failed = [
        (row["text"], reasons)
        for row in address.inputs("data/address/gold.jsonl", "gold")
        if (reasons := checks.check(address, row, json.dumps(row["gold"], ensure_ascii=False)))
    ]
    assert failed == []


def test_an_unknown_check_is_named(address: task.Task) -> None:
    address.config["checks"] = ["json_shema"]
    with pytest.raises(
        UserError, match=r"tasks/address/task.yaml: unknown check 'json_shema', known are json_schema, grounded"
    ):
        checks.check(address, {"text": TEXT}, "{}")
