"""growth, with an ask of a few lines in the endpoint's place: what each reply brings, and what it
does not."""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from potstill.checks import registry
from potstill.commands import quote
from potstill.core import jsonl, params
from potstill.core.errors import UserError
from potstill.core.jsonl import Row
from potstill.dataset import expand, expand_rules, growth
from potstill.task import settings
from stages import expand as stage
from stages import generate
from tests.conftest import Body, FakeTeacher, Project, completion
from tests.dataset.test_expand import PARAMS, asked_twice

SEEDS = [
    "写一段50字的祝福给张老师，语气要活泼。",
    "给远方的李同学写一条40字新年祝福。",
    "用60字写祝福送给王医生，多提健康。",
]


class Toy:
    """A task with one category `wish`, seeds, and an ask that answers by `reply(kind, call)` and
    keeps what was asked."""

    def __init__(
        self,
        project: Project,
        reply: Callable[[str, Row], str],
        rule: str = "{}",
        **changes: object,
    ) -> None:
        project.write(
            "task.yaml",
            "input: [text]\nchecks: [length_within: {tolerance: 2}]\n"
            f"expand: {{max_chars: 60, categories: {{wish: {rule}}}}}\n",
        )
        made = [
            {"id": jsonl.row_id({"text": text}), "text": text, "category": "wish"} for text in SEEDS
        ]
        jsonl.write_jsonl("data/seeds.jsonl", made)
        project.set(
            **{
                "generate_samples": 1,
                "expand_rows": 5,
                "expand_new": 3,
                "expand_calls": 1,
                "expand_examples": 2,
            }
            | changes
        )
        self.asked: list[tuple[str, Row]] = []
        self.reply = reply
        self.change: Callable[[Row], Row] = lambda answer: answer

    def ask(self, kind: str, calls: list[Row]) -> Iterator[Row]:
        p = params.load("generate")
        for call in calls:
            for sample in range(p.generate.samples if kind == "teacher" else 1):
                self.asked.append((kind, call))
                answer = {
                    "id": call["id"],
                    "sample": sample,
                    "answer": self.reply(kind, {**call, "sample": sample}),
                }
                yield self.change({**answer, "finish_reason": "stop", "error": None})

    def grow(self, gold: tuple[str, ...] = ()) -> tuple[list[Row], Row]:
        """What is new, and the category's part of the report."""
        p, t = params.load(*PARAMS), settings.load()
        golds = [{"id": f"g{i}", "text": text} for i, text in enumerate(gold)]
        found, report, _ = expand.grow(t, t.seeds(), golds, p, self.ask)
        return found[3:], report["categories"]["wish"]


def listed(*texts: object) -> Callable[[str, Row], str]:
    return lambda kind, call: json.dumps({"inputs": texts}, ensure_ascii=False)


NEW = "为快递员小赵拟70字的祝福，幽默一点。"


@pytest.mark.parametrize(
    ("reply", "new", "refused"),
    [
        (
            listed(NEW, "帮我祝福一下隔壁的孙奶奶，30字。", "越多越好的祝福：写给全公司，80字。"),
            2,
            {"beyond the quota": 1},
        ),
        (
            lambda kind, call: f'```json\n{{"inputs": ["{NEW}"]}}\n```',
            1,
            {"fewer than asked for": 2},
        ),
        (lambda kind, call: f'["{NEW}"]', 1, {"fewer than asked for": 2}),
        (lambda kind, call: "好的，下面是三条请求：", 0, {"no JSON": 3}),
        (lambda kind, call: '{"inputs": ["写一段', 0, {"no JSON": 3}),
        (lambda kind, call: "[" * 100_000, 0, {"no JSON": 3}),
        (lambda kind, call: f'{{"questions": ["{NEW}"]}}', 0, {"wrong shape": 3}),
        (lambda kind, call: '"祝福"', 0, {"wrong shape": 3}),
        (lambda kind, call: " \n", 0, {"empty answer": 3}),
        (
            lambda kind, call: '{"inputs": ["祝福\\ud800", 3, {"words": "祝福"}]}',
            0,
            {"wrong shape": 3},
        ),
        (lambda kind, call: "祝福\ud800", 0, {"half a surrogate pair": 3}),
        (listed("", " \n", {"text": NEW}), 1, {"empty": 2}),
        (listed("祝福" * 31, "写一首诗吧", NEW), 1, {"too long": 1, "wrong category": 1}),
        (listed(NEW, NEW, NEW.replace("。", "")), 1, {"near-duplicate": 2}),
        (listed(NEW, NEW.replace("70", "30"), "7 0 字"), 2, {"wrong category": 1}),
        (
            lambda kind, call: json.dumps({"inputs": call["examples"]}),
            0,
            {"repeats an example": 2, "fewer than asked for": 1},
        ),
        (listed(*SEEDS[:1] * 3), 0, None),
    ],
)
def test_every_input_asked_for_is_new_or_refused_with_its_reason(
    project: Project, reply: Callable[[str, Row], str], new: int, refused: dict[str, int] | None
) -> None:
    toy = Toy(project, reply, "{match: 祝福}")
    found, one = toy.grow()
    assert (len(found), one["asked"], one["calls"]) == (new, 3, 1)
    assert refused is None or one["refused"] == refused
    assert sum(one["refused"].values()) == 3 - new


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"error": "400: no"}, "no answer"),
        ({"finish_reason": "length"}, "cut off"),
        ({"finish_reason": None}, None),
    ],
)
def test_an_answer_that_did_not_come_whole_is_counted(
    project: Project, change: Row, reason: str | None
) -> None:
    toy = Toy(project, listed(NEW, "", ""))
    toy.change = lambda answer: answer | change
    assert toy.grow()[1]["refused"] == ({reason: 3} if reason else {"empty": 2})


def test_gold_rows_never_leak_not_even_with_another_number(project: Project) -> None:
    toy = Toy(
        project,
        listed(NEW, NEW.replace("70", "30"), NEW.replace("。", "！")),
        "{vary: {pattern: '\\d+', values: 30-80}}",
    )
    project.set(expand_rows=50)
    varied, one = toy.grow(gold=(NEW,))
    assert one["refused"] == {"near a gold row": 3}
    assert Counter(row["family"] for row in varied) == {
        jsonl.row_id({"text": text}): 2 for text in SEEDS
    }
    every = tuple(SEEDS[0].replace("50", str(number)) for number in range(30, 81))
    assert not any("张老师" in row["text"] for row in toy.grow(gold=every)[0])


def test_a_category_that_gives_nothing_new_is_left_after_a_few_calls(project: Project) -> None:
    toy = Toy(project, lambda kind, call: "sorry")
    project.set(expand_calls=300, expand_rows=400)
    _, one = toy.grow()
    assert (one["calls"], one["stopped"]) == (8, "dry")  # two, then six


def test_what_an_input_is_about_stands_below_it_once(project: Project) -> None:
    def reply(kind: str, call: Row) -> str:
        letter = f"第{call['draw']}封信"
        items = ["祝福写给信里的人", f"祝福信里的人：{letter}", call["examples"][0], ""]
        return letter if kind == "letter" else json.dumps({"inputs": [items[call["draw"]]]})

    toy = Toy(project, reply, "{material: letter}")
    project.set(expand_rows=7, expand_calls=8)
    found, one = toy.grow()
    assert [row["text"] for row in found] == [
        "祝福写给信里的人\n\n第0封信",
        "祝福信里的人：第1封信",
    ]
    assert (one["calls"], one["asked"], one["refused"]) == (
        8,
        4,
        {"empty": 1, "repeats an example": 1},
    )
    assert [kind for kind, _ in toy.asked] == ["letter"] * 2 + ["expand"] * 2 + ["letter"] * 2 + [
        "expand"
    ] * 2


def test_a_call_shows_its_lead_first_and_others_of_the_category(project: Project) -> None:
    toy = Toy(project, listed(NEW))
    found, _ = toy.grow()
    ((kind, call),) = toy.asked
    assert kind == "expand" and call["new"] == 3 and len(call["examples"]) == 2
    assert found[0]["family"] == jsonl.row_id({"text": call["examples"][0]})
    project.write(
        "prompts/expand.md",
        "{{ new }} more {{ category }} {{ examples | length }} {{ material }}\n",
    )
    asker, own, schema = expand.asking(settings.load(), params.load(*PARAMS), "expand")
    assert asker.messages("expand", call) == [
        {"role": "system", "content": "3 more wish 2 "},
        {"role": "user", "content": json.dumps({"inputs": call["examples"]}, ensure_ascii=False)},
    ]
    assert own.temperature == 1.0
    assert schema and schema["properties"]["inputs"]["items"] == {"type": "string"}


def test_inputs_of_several_fields(project: Project) -> None:
    fields = [{"word": "锅", "mood": "冷"}, {"word": "伞", "mood": "热"}]
    project.write("task.yaml", "input: [word, mood]\nchecks: []\nexpand: {}\n")
    jsonl.write_jsonl("data/seeds.jsonl", [{"id": jsonl.row_id(one), **one} for one in fields])
    project.set(expand_rows=4, expand_new=3, expand_calls=1)
    p, t = params.load(*PARAMS), settings.load()
    shoe = {"word": "鞋", "mood": "暖"}
    replies = [shoe, {"word": "鞋"}, "鞋"]

    def ask(kind: str, calls: list[Row]) -> Iterator[Row]:
        for call in calls:
            assert sorted(call["examples"], key=str) == sorted(fields, key=str)
            yield {
                "id": call["id"],
                "answer": json.dumps({"inputs": replies}),
                "finish_reason": "stop",
                "error": None,
            }

    found, report, _ = expand.grow(t, t.seeds(), [], p, ask)
    assert found[2:] == [{"id": jsonl.row_id(shoe), **shoe, "family": found[2]["family"]}]
    assert report["categories"][""]["refused"] == {"wrong shape": 2}
    assert expand_rules.schema(t)["properties"]["inputs"]["items"]["required"] == ["word", "mood"]


def of_length(count: int) -> str:
    return "祝" * count


def test_what_proves_hard_leads_more_often(project: Project) -> None:
    """Requests for the doctor need a third try; with a weight of 20 a try they lead mostly."""

    def reply(kind: str, call: Row) -> str:
        if kind == "expand":
            pool = "甲乙丙丁戊己庚辛壬癸子丑寅卯辰巳午未申酉戌亥"
            return json.dumps(
                {
                    "inputs": [
                        f"写{50 + call['draw']}字送{who}{call['draw']}祝福" for who in pool[:3]
                    ]
                }
            )
        right = int(re.findall(r"\d+", call["text"])[0])
        return of_length(right + 9 if "王医生" in call["text"] and call["sample"] < 2 else right)

    def doctors(hard: float) -> tuple[int, int]:
        toy = Toy(project, reply, generate_samples=3, expand_hard=hard)
        project.set(expand_rows=400, expand_calls=40)
        toy.grow()
        leads = [call["examples"][0] for kind, call in toy.asked if kind == "expand"]
        return sum("王医生" in lead for lead in leads), sum(
            kind == "teacher" for kind, _ in toy.asked
        )

    few, none = doctors(0)
    many, some = doctors(20)
    assert few < 25 and none == 0
    assert (
        some == 3 * 123
    )  # the seeds and three inputs of each of 40 calls, three samples each, once
    assert many >= 36 and some > 0


def test_a_length_that_no_answer_has_becomes_the_answers(
    project: Project, fake: FakeTeacher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rewritten request is not asked: its answer was given to the request as it was, and stays
    under that key."""

    async def behave(n: int, body: Body, request: web.Request) -> web.StreamResponse:
        text = body["messages"][-1]["content"]
        if "inputs" in text:
            return web.json_response(
                completion(json.dumps({"inputs": [NEW, "送孙奶奶的30字祝福，要吉祥", "三"]}))
            )
        asked = int(re.findall(r"\d+", text)[0])
        return web.json_response(completion(of_length(asked + 13 if "小赵" in text else asked)))

    fake.behave = behave
    Toy(project, listed(), "{vary: {pattern: '\\d+(?=字)', values: [90], times: 1, rewrite: true}}")
    project.set(
        teacher_model="fake-235b",
        expand_rows=8,
        expand_hard=1,
        generate_samples=2,
        generate_good_share=0.5,
    )
    project.write("prompts/expand.md", "more\n")
    stage.main()
    found = {row["text"]: row for row in project.read("1-inputs.jsonl")}
    new = NEW.replace("70", "83")
    assert NEW not in found
    assert found[new]["asked_as"] == {"text": NEW}
    assert found[new]["id"] == jsonl.row_id({"text": new})
    report = json.loads(Path("data/1-expand/report.json").read_text())["categories"]["wish"]
    assert report["rewritten"] >= 1 and report["total"] == 8
    calls = len(fake.calls)
    generate.main()
    assert len(fake.calls) == calls and not asked_twice(fake)
    answers = [row for row in project.read("2-answers.jsonl") if row["id"] == found[new]["id"]]
    assert [row["answer"] for row in answers] == [of_length(83)] * 2
    assert registry.check(settings.load(), found[new], answers[0]["answer"]) == []


@pytest.mark.parametrize(
    ("count", "end", "value", "rewritten"),
    [
        (83, "", 90, 1),
        (70, "", 90, 0),  # right as it is
        (82, "。", 90, 0),  # what else is asked of an answer still counts
        (83, "", 83, 0),  # the request with that length is there
        (0, "", 90, 0),
    ],
)
def test_a_length_is_rewritten_where_all_else_is_right(
    project: Project, count: int, end: str, value: int, rewritten: int
) -> None:
    def reply(kind: str, call: Row) -> str:
        if kind == "expand":
            return json.dumps({"inputs": [NEW]})
        if "小赵" in call["text"]:
            return of_length(count) + end
        return of_length(int(re.findall(r"\d+", call["text"])[0]))

    rule = f"{{vary: {{pattern: '\\d+', values: [{value}], times: 1, rewrite: true}}}}"
    toy = Toy(project, reply, rule, expand_hard=1)
    path = Path("task.yaml")
    path.write_text(
        path.read_text().replace("tolerance: 2}", "tolerance: 2}, regex: {pattern: '^祝*$'}")
    )
    project.set(expand_rows=8)
    found, one = toy.grow()
    numbers = [re.findall(r"\d+", row["text"])[0] for row in found if "小赵" in row["text"]]
    assert (one["rewritten"], len(set(numbers))) == (rewritten, 2)
    assert numbers[0] == ("83" if rewritten else "70")


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (
            "{categories: {wish: {match: '('}}}",
            r"expand\.categories\.wish: '\(' is no regular expression",
        ),
        (
            "{categories: {wish: {vary: {pattern: a, values: 80-30}}}}",
            "values is 80-30, expected the lower number first",
        ),
        (
            "{categories: {poem: {}}}",
            "seeds.jsonl:1: category is 'wish', expected one of task.yaml's: poem",
        ),
        ("{}", r"expected one of task.yaml's: none \(task.yaml names no categories\)"),
        ("{categories: {wish: {}, poem: {}}}", "seeds.jsonl: no seed of category 'poem'"),
        (
            "{categories: {wish: {match: 健康}}}",
            "seeds.jsonl:1: '写一段50字.*' has nothing that `match` of category 'wish'",
        ),
    ],
)
def test_a_broken_definition_is_one_sentence(
    project: Project, settings: str, expected: str
) -> None:
    toy = Toy(project, listed(NEW))
    project.write("task.yaml", f"input: [text]\nexpand: {settings}\n")
    with pytest.raises(UserError, match=expected):
        toy.grow()
    assert toy.asked == []


def test_what_cannot_be_expanded_says_so(project: Project) -> None:
    toy = Toy(project, listed(NEW))
    project.write("task.yaml", "input: [text]\n")
    with pytest.raises(UserError, match="expand is missing, but expand.rows is not 0"):
        toy.grow()
    rewrite = "{wish: {vary: {pattern: a, values: [3], rewrite: true}}}"
    project.write("task.yaml", f"checks: [json_schema]\nexpand: {{categories: {rewrite}}}\n")
    with pytest.raises(
        UserError,
        match="rewrite counts the characters of a whole answer, but json_schema says it is JSON",
    ):
        toy.grow()


@given(st.integers(1, 5000), st.lists(st.floats(0.1, 50), min_size=1, max_size=8))
def test_quotas_add_up_and_keep_to_the_shares(count: int, shares: list[float]) -> None:
    found = growth._quotas(count, shares)
    assert sum(found) == count
    assert all(
        abs(one - count * share / sum(shares)) < 1 for one, share in zip(found, shares, strict=True)
    )


def test_the_quote_before_anything_was_asked_is_the_most_there_can_be(
    project: Project, fake: FakeTeacher
) -> None:
    Toy(project, listed())
    project.write("prompts/expand.md", "more\n")
    project.set(teacher_model="fake-235b", expand_rows=30, expand_calls=7)
    p = params.load(*PARAMS)
    lines = [line.split() for line in quote.quote(settings.load(), p).splitlines()]
    assert lines[2][:4] == ["expand", "7", "0", "7"] and lines[2][5] == f"{7 * 4096:,}"
    assert lines[3][:4] == ["generate", "30", "0", "30"] and lines[3][5] == f"{30 * 1024:,}"
    assert "at most expand.calls 7 calls; generate: 30 inputs, most of them still" in " ".join(
        lines[4]
    )
    assert fake.calls == []
