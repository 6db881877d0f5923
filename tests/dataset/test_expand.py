"""potstill.expand and its stage: 56 seeds become 3,000 inputs, each accounted for, none near another or a gold row, none bought twice."""

import hashlib
import json
import re
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from potstill.checks import registry
from potstill.commands import fill, quote
from potstill.core import jsonl, params
from potstill.core.errors import UserError
from potstill.core.jsonl import Row
from potstill.dataset import expand, expand_rules, near_duplicates
from potstill.task import settings
from potstill.teacher import asking
from stages import expand as stage
from stages import generate
from tasks.greeting.teacher import answer as greeting_answer
from tests.conftest import ROOT, Body, FakeTeacher, Project, completion, serving

# The shares of the seeds, so that every category has much to do, and 3,000 by them.
SHARES = {"short": 20, "long": 17, "essay": 7, "poem": 7, "letter": 5}
QUOTAS = {"short": 1071, "long": 911, "essay": 375, "poem": 375, "letter": 268}


async def greet(n: int, body: Body, request: web.Request) -> web.StreamResponse:
    """The task's own teacher behind the fake endpoint."""
    seed = hashlib.sha256(json.dumps([body["messages"], body["seed"]]).encode()).hexdigest()
    return web.json_response(completion(greeting_answer(body["messages"], seed)))


def greeting(folder: Path, **changes: object) -> Project:
    """A checkout of the task greeting with SHARES, to be answered by a fake endpoint."""
    project = Project(folder)
    shutil.copytree(
        ROOT / "tasks/greeting",
        folder / "tasks/greeting",
        ignore=shutil.ignore_patterns("__pycache__"),
    )
    path = folder / "tasks/greeting/task.yaml"
    text, replaced = path.read_text(), 0
    for name, share in SHARES.items():
        text, count = re.subn(rf"(    {name}: .*\n      share: )\d+", rf"\g<1>{share}", text)
        replaced += count
    assert replaced == len(SHARES)
    path.write_text(text)
    shutil.copytree(
        ROOT / "data/greeting", folder / "data/greeting", ignore=shutil.ignore_patterns("[1-9]-*")
    )
    project.set(task="greeting", teacher_model="fake-235b", samples=1, **changes)
    return project


def asked_twice(fake: FakeTeacher) -> int:
    """How many calls of the ledger were made before."""
    return len(fake.calls) - len({json.dumps(call, sort_keys=True) for call in fake.calls})


def read(name: str) -> list[Row]:
    return jsonl.read_jsonl(f"data/greeting/{name}")


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    """The project after its growth to 3,000, with what the stage printed and the ledger."""
    folder = tmp_path_factory.mktemp("greeting")
    with (
        pytest.MonkeyPatch.context() as patch,
        serving() as fake,
        redirect_stdout(StringIO()) as out,
    ):
        patch.chdir(folder)
        for name, value in fake.env().items():
            patch.setenv(name, value)
        fake.behave = greet
        greeting(folder, expand_rows=3000)
        stage.main()
        yield SimpleNamespace(folder=folder, out=out, fake=fake, calls=len(fake.calls))


@pytest.fixture
def there(grown: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """`grown`, whose project is the working folder."""
    monkeypatch.chdir(grown.folder)
    for name, value in grown.fake.env().items():
        monkeypatch.setenv(name, value)
    return grown


def test_56_seeds_in_5_categories_become_3000_inputs(there: SimpleNamespace) -> None:
    seeds, found = read("seeds.jsonl"), read("1-inputs.jsonl")
    assert found[:56] == [{**seed, "family": seed["id"]} for seed in seeds]
    assert len(seeds) == 56
    assert Counter(row["category"] for row in found) == QUOTAS
    assert len({row["id"] for row in found}) == 3000
    kinds = {seed["id"]: seed["category"] for seed in seeds}
    for row in found:
        assert set(row) == {"id", "text", "category", "family"}
        assert row["id"] == jsonl.row_id({"text": row["text"]})
        assert kinds[row["family"]] == row["category"]
        assert len(row["text"]) <= 800
    # every seed leads: no category lives by one or two of them
    families = Counter(row["family"] for row in found)
    assert min(families.values()) > 1 and len(families) == 56


def test_what_happened_is_a_table_that_adds_up(there: SimpleNamespace) -> None:
    report = json.loads(Path("data/greeting/1-expand/report.json").read_text())
    replies = Counter(row["id"].split(":")[0] for row in read("1-expand/calls.jsonl"))
    assert report["calls"] == sum(replies.values()) == there.calls <= 300
    for name, one in report["categories"].items():
        assert one["asked"] + one["varied"] == one["new"] + sum(one["refused"].values())
        assert (one["seeds"] + one["new"], one["calls"], one["stopped"]) == (
            one["total"],
            replies[name],
            "quota",
        )
        assert one["total"] == one["quota"] == QUOTAS[name]
    letter = report["categories"][
        "letter"
    ]  # two calls an input, and one where the first wrote nothing
    assert (
        letter["calls"]
        == 2 * letter["asked"] - letter["refused"]["material: empty answer"]
        < 2 * letter["asked"]
    )
    said = there.out.getvalue()
    assert f"expand: 56 seeds + 2,944 new = 3,000 inputs, {there.calls} calls" in said
    assert re.search(r"short +20 +1,071 +\d+ +\d+ +\d+ +1,051 +\d+ +0 +1,071  quota", said)
    reasons = {reason for one in report["categories"].values() for reason in one["refused"]}
    assert reasons >= {
        "no JSON",
        "wrong category",
        "repeats an example",
        "near-duplicate",
        "fewer than asked for",
    }


def test_no_two_inputs_are_near_duplicates_and_none_is_near_a_gold_row(
    there: SimpleNamespace,
) -> None:
    """Every pair, by matrices and not by what the stage uses."""
    from scipy.sparse import csr_matrix

    found = read("1-inputs.jsonl")
    both = found + [{**row, "family": "gold"} for row in read("gold.jsonl")]
    texts = [near_duplicates.normal(row["text"]) for row in both]
    long = np.array([len(text) >= 20 for text in texts])
    close: set[tuple[int, int]] = set()
    for n, of in ((3, long[:, None] & long[None, :]), (2, ~(long[:, None] & long[None, :]))):
        grams = [{text[i : i + n] for i in range(len(text) - n + 1)} for text in texts]
        places = {gram: i for i, gram in enumerate(sorted(set().union(*grams)))}
        at = [(i, places[gram]) for i, own in enumerate(grams) for gram in own]
        matrix = csr_matrix(
            (np.ones(len(at), "int32"), tuple(zip(*at, strict=True))), (len(texts), len(places))
        )
        shared = (matrix @ matrix.T).toarray()
        sizes = np.array([len(own) for own in grams])
        similar = shared >= 0.8 * (sizes[:, None] + sizes[None, :] - shared)
        close |= {(int(i), int(j)) for i, j in np.argwhere(np.triu(similar & of, 1))}
    assert len(close) > 1000  # the varied numbers
    for i, j in close:
        assert both[i]["family"] == both[j]["family"], (texts[i], texts[j])
        if (
            both[i]["family"] != "gold"
        ):  # two gold rows may resemble each other: both are on the test side
            assert re.findall(r"\d+", texts[i]) != re.findall(r"\d+", texts[j])


def test_numbers_are_varied_within_the_family(there: SimpleNamespace) -> None:
    lengths: dict[tuple[str, str], set[str]] = {}
    for row in read("1-inputs.jsonl"):
        lengths.setdefault((row["family"], re.sub(r"\d+(?=字)", "N", row["text"])), set()).update(
            re.findall(r"\d+(?=字)", row["text"])
        )
    assert Counter(len(one) for one in lengths.values())[3] > 250
    first = read("seeds.jsonl")[0]
    its = lengths[first["id"], first["text"].replace("50字", "N字")]
    assert "50" in its and len(its) == 3 and all(30 <= int(one) <= 80 for one in its)


def test_two_steps_the_letter_first_then_the_request(there: SimpleNamespace) -> None:
    letters = [
        row["answer"].strip() for row in read("1-expand/calls.jsonl") if row["id"].endswith(":letter")
    ]
    written = [
        row
        for row in read("1-inputs.jsonl")
        if row["category"] == "letter" and row["family"] != row["id"]
    ]
    assert len(written) == 263
    of_seeds = {row["text"].partition("\n\n")[2] for row in read("seeds.jsonl")}
    about = Counter(row["text"].partition("\n\n")[2] for row in written)
    assert set(about) <= set(filter(None, letters)) | of_seeds
    assert (
        sum(count for text, count in about.items() if text in of_seeds) == 10
    )  # the seeds with two other numbers each
    shown = [call for call in there.fake.calls if '"material"' in call["messages"][-1]["content"]]
    assert len(shown) == len([letter for letter in letters if letter])
    assert all("response_format" in call for call in shown)
    wrote = [
        call for call in there.fake.calls if "请写一封新的信" in call["messages"][0]["content"]
    ]
    assert len(wrote) == len(letters) and not any("response_format" in call for call in wrote)
    assert all(
        call["temperature"] == 1.0 and call["max_completion_tokens"] == 4096
        for call in shown + wrote
    )


def test_a_second_run_asks_nothing_and_gives_the_same(
    there: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("1-inputs.jsonl", "1-expand/calls.jsonl", "1-expand/report.json")
    before = [(there.folder / "data/greeting" / name).read_bytes() for name in names]
    stage.main()
    assert [(there.folder / "data/greeting" / name).read_bytes() for name in names] == before
    fill.main()
    monkeypatch.setenv(
        "TEACHER_JOURNAL", "elsewhere"
    )  # a colleague's machine, filled from the data
    fill.main()
    stage.main()
    assert [(there.folder / "data/greeting" / name).read_bytes() for name in names] == before
    assert len(there.fake.calls) == there.calls and not asked_twice(there.fake)


def test_the_quote_of_a_finished_growth_is_of_its_very_rows(there: SimpleNamespace) -> None:
    p = params.load("task", *asking.PARAMS, *expand.PARAMS, "samples")
    lines = [line.split() for line in quote.quote(settings.load("greeting"), p).splitlines()]
    assert lines[2] == ["expand", str(there.calls), str(there.calls), "0", "0", "0", "unknown"]
    assert lines[3][:4] == ["generate", "3,000", "0", "3,000"]
    # not by the replies of expand, which are much longer: no other answer is known, so the most there can be
    assert lines[3][5] == f"{3000 * 1024:,}"
    assert " ".join(lines[5]).startswith("generate: the 3,000 inputs that expand gives")


def test_a_stopped_run_goes_on_and_pays_nothing_twice(project: Project, fake: FakeTeacher) -> None:
    one = greeting(project.dir / "a", expand_rows=800, teacher_concurrency=4)

    async def slow(n: int, body: Body, request: web.Request) -> web.StreamResponse:
        time.sleep(0.02)
        return await greet(n, body, request)

    fake.behave = slow
    for count in (5, 30):
        process = one.start("stages.expand")
        while len(fake.calls) < count:
            assert process.poll() is None, process.communicate()
            time.sleep(0.005)
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 130, process.communicate()
        assert not (one.dir / "data/greeting/1-inputs.jsonl").exists()
    stopped = len(fake.calls)
    assert one.run("stages.expand")[0] == 0
    assert len(fake.calls) > stopped and not asked_twice(fake)
    two, fake.behave = greeting(project.dir / "b", expand_rows=800), greet
    assert two.run("stages.expand")[0] == 0
    found = [(path / "data/greeting/1-inputs.jsonl").read_bytes() for path in (one.dir, two.dir)]
    assert found[0] == found[1]


def test_a_larger_quota_asks_for_what_is_new_alone(
    project: Project, fake: FakeTeacher, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake.behave = greet
    monkeypatch.chdir(project.dir)
    small = greeting(project.dir / "a", expand_rows=600)
    monkeypatch.chdir(small.dir)
    stage.main()
    first, calls = read("1-inputs.jsonl"), len(fake.calls)
    small.set(expand_rows=1200)
    stage.main()
    assert {row["id"] for row in first} <= {row["id"] for row in read("1-inputs.jsonl")}
    assert calls < len(fake.calls) and not asked_twice(fake)


def test_at_the_ceiling_the_stage_goes_on_with_what_there_is(
    project: Project,
    fake: FakeTeacher,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    fake.behave = greet
    monkeypatch.chdir(greeting(project.dir / "a", expand_rows=3000, expand_calls=11).dir)
    stage.main()
    report = json.loads(Path("data/greeting/1-expand/report.json").read_text())
    assert report["calls"] <= 11 and len(fake.calls) == report["calls"] > 9
    assert len(read("1-inputs.jsonl")) == report["rows"] < 1000
    assert {one["stopped"] for one in report["categories"].values()} == {"calls"}
    assert (
        "rows, not all that were wanted: short, long, essay, poem, letter stopped by"
        in capsys.readouterr().out
    )


def test_seeds_that_are_enough_pass_through(
    project: Project, fake: FakeTeacher, capsys: pytest.CaptureFixture[str]
) -> None:
    seeds = project.seeds(4)
    project.set(teacher_model="fake-235b")
    (project.dir / "data/1-inputs.jsonl").unlink()
    stage.main()
    assert project.read("1-inputs.jsonl") == [{**seed, "family": seed["id"]} for seed in seeds]
    assert project.read("1-expand/calls.jsonl") == []
    assert json.loads(Path("data/1-expand/report.json").read_text()) == {
        "rows": 4,
        "calls": 0,
        "categories": {},
    }
    assert capsys.readouterr().out == "expand: 4 seeds + 0 new = 4 inputs, 0 calls\n"
    fill.main()  # finds no reply to take
    assert fake.calls == []
    assert not Path(".cache").exists()


# The rules themselves, with an ask of a few lines in the endpoint's place.

SEEDS = [
    "写一段50字的祝福给张老师，语气要活泼。",
    "给远方的李同学写一条40字新年祝福。",
    "用60字写祝福送给王医生，多提健康。",
]


class Toy:
    """A task with one category `wish`, seeds, and an ask that answers by `reply(kind, call)` and keeps what was asked."""

    def __init__(
        self,
        project: Project,
        reply: Callable[[str, Row], str],
        rule: str = "{}",
        **changes: object,
    ) -> None:
        project.write(
            "task.yaml",
            f"input: [text]\nchecks: [length_within: {{tolerance: 2}}]\nexpand: {{max_chars: 60, categories: {{wish: {rule}}}}}\n",
        )
        made = [
            {"id": jsonl.row_id({"text": text}), "text": text, "category": "wish"} for text in SEEDS
        ]
        jsonl.write_jsonl("data/seeds.jsonl", made)
        project.set(
            **{
                "samples": 1,
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
        p = params.load("samples")
        for call in calls:
            for sample in range(p.samples if kind == "teacher" else 1):
                self.asked.append((kind, call))
                answer = {
                    "id": call["id"],
                    "sample": sample,
                    "answer": self.reply(kind, {**call, "sample": sample}),
                }
                yield self.change({**answer, "finish_reason": "stop", "error": None})

    def grow(self, gold: tuple[str, ...] = ()) -> tuple[list[Row], Row]:
        """What is new, and the category's part of the report."""
        p, t = params.load(*expand.PARAMS, "samples"), settings.load()
        golds = [{"id": f"g{i}", "text": text} for i, text in enumerate(gold)]
        found, report = expand.grow(t, expand.read(t, p)[0], golds, p, self.ask)
        return found[3:], report["categories"]["wish"]


def listed(*texts: object) -> Callable[[str, Row], str]:
    return lambda kind, call: json.dumps({"inputs": texts}, ensure_ascii=False)


NEW = "为快递员小赵拟70字的祝福，幽默一点。"


@pytest.mark.parametrize(
    ("reply", "new", "refused"),
    [
        (listed(NEW, "帮我祝福一下隔壁的孙奶奶，30字。", "越多越好的祝福：写给全公司，80字。"), 2, {"beyond the quota": 1}),
        (lambda kind, call: f'```json\n{{"inputs": ["{NEW}"]}}\n```', 1, {"fewer than asked for": 2}),
        (lambda kind, call: f'["{NEW}"]', 1, {"fewer than asked for": 2}),
        (lambda kind, call: "好的，下面是三条请求：", 0, {"no JSON": 3}),
        (lambda kind, call: '{"inputs": ["写一段', 0, {"no JSON": 3}),
        (lambda kind, call: "[" * 100_000, 0, {"no JSON": 3}),
        (lambda kind, call: f'{{"questions": ["{NEW}"]}}', 0, {"wrong shape": 3}),
        (lambda kind, call: '"祝福"', 0, {"wrong shape": 3}),
        (lambda kind, call: " \n", 0, {"empty answer": 3}),
        (lambda kind, call: '{"inputs": ["祝福\\ud800", 3, {"words": "祝福"}]}', 0, {"wrong shape": 3}),
        (lambda kind, call: "祝福\ud800", 0, {"half a surrogate pair": 3}),
        (listed("", " \n", {"text": NEW}), 1, {"empty": 2}),
        (listed("祝福" * 31, "写一首诗吧", NEW), 1, {"too long": 1, "wrong category": 1}),
        (listed(NEW, NEW, NEW.replace("。", "")), 1, {"near-duplicate": 2}),
        (listed(NEW, NEW.replace("70", "30"), "7 0 字"), 2, {"wrong category": 1}),
        (lambda kind, call: json.dumps({"inputs": call["examples"]}), 0, {"repeats an example": 2, "fewer than asked for": 1}),
        (listed(*SEEDS[:1] * 3), 0, None),
    ],
)  # fmt: skip
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
    asker, own, schema = expand.asking(settings.load(), params.load(*expand.PARAMS), "expand")
    assert asker.messages("expand", call) == [
        {"role": "system", "content": "3 more wish 2 "},
        {"role": "user", "content": json.dumps({"inputs": call["examples"]}, ensure_ascii=False)},
    ]
    assert own.teacher_temperature == 1.0
    assert schema and schema["properties"]["inputs"]["items"] == {"type": "string"}


def test_inputs_of_several_fields(project: Project) -> None:
    fields = [{"word": "锅", "mood": "冷"}, {"word": "伞", "mood": "热"}]
    project.write("task.yaml", "input: [word, mood]\nchecks: []\nexpand: {}\n")
    jsonl.write_jsonl("data/seeds.jsonl", [{"id": jsonl.row_id(one), **one} for one in fields])
    project.set(expand_rows=4, expand_new=3, expand_calls=1)
    p, t = params.load(*expand.PARAMS, "samples"), settings.load()
    replies = [{"word": "鞋", "mood": "暖"}, {"word": "鞋"}, "鞋"]

    def ask(kind: str, calls: list[Row]) -> Iterator[Row]:
        for call in calls:
            assert sorted(call["examples"], key=str) == sorted(fields, key=str)
            yield {
                "id": call["id"],
                "answer": json.dumps({"inputs": replies}),
                "finish_reason": "stop",
                "error": None,
            }

    found, report = expand.grow(t, expand.read(t, p)[0], [], p, ask)
    assert found[2:] == [
        {"id": jsonl.row_id(replies[0]), **replies[0], "family": found[2]["family"]}
    ]  # type: ignore[dict-item, arg-type]
    assert report["categories"][""]["refused"] == {"wrong shape": 2}
    assert expand_rules.schema(t)["properties"]["inputs"]["items"]["required"] == ["word", "mood"]


def of_length(count: int) -> str:
    return "祝" * count


def test_what_proves_hard_leads_more_often(project: Project) -> None:
    """Requests for the doctor need a third try; with a weight of 20 a try they lead nearly always."""

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
        toy = Toy(project, reply, samples=3, expand_hard=hard)
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
    """The rewritten request is not asked: its answer was given to the request as it was, and stays under that key."""

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
        teacher_model="fake-235b", expand_rows=8, expand_hard=1, samples=2, teacher_good_share=0.5
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
        ("{categories: {wish: {match: '('}}}", r"expand\.categories\.wish: '\(' is no regular expression"),
        ("{categories: {wish: {vary: {pattern: a, values: 80-30}}}}", "values is 80-30, expected the lower number first"),
        ("{categories: {poem: {}}}", "seeds.jsonl:1: category is 'wish', expected one of task.yaml's: poem"),
        ("{}", r"category is 'wish', expected one of task.yaml's: none \(task.yaml names no categories\)"),
        ("{categories: {wish: {}, poem: {}}}", "seeds.jsonl: no seed of category 'poem'"),
        ("{categories: {wish: {match: 健康}}}", "seeds.jsonl:1: '写一段50字.*' has nothing that `match` of category 'wish'"),
    ],
)  # fmt: skip
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
    with pytest.raises(UserError, match="expand is missing, but expand_rows is not 0"):
        toy.grow()
    rewrite = "{wish: {vary: {pattern: a, values: [3], rewrite: true}}}"
    project.write(
        "task.yaml", f"checks: [json_schema]\nexpand: {{categories: {rewrite}}}\n"
    )
    with pytest.raises(
        UserError,
        match="rewrite counts the characters of a whole answer, but json_schema says it is JSON",
    ):
        toy.grow()


@given(
    st.text(max_size=20),
    st.integers(0, 999),
    st.text(max_size=20),
    st.sets(st.integers(0, 99), min_size=1),
    st.integers(),
)
def test_another_number_changes_nothing_else(
    before: str, number: int, after: str, values: set[int], seed: int
) -> None:
    import random

    before = re.sub(r"\d", "", before)
    vary = expand_rules.Vary(re.compile(r"[0-9]+(?=字)"), sorted(values), 2, False)
    fields = {"text": f"{before}{number}字{after}"}
    used = Counter[int | None]()
    found = vary.others(fields, used, random.Random(seed))
    assert len(found) == min(2, len(values - {number})) and set(found) <= values - {number}
    for value in found:
        assert vary.put(fields, value) == {"text": f"{before}{value}字{after}"}
        assert vary.put(vary.put(fields, value), number) == fields
    assert vary.put({"text": before}, 5) == {"text": before}
    assert vary.others({"text": before}, used, random.Random(seed)) == []
    used.update(found)
    again, rest = (
        set(vary.others(fields, used, random.Random(seed))),
        values - {number} - set(found),
    )
    assert again <= rest if len(rest) > 1 else again >= rest  # the least used first


@given(st.integers(1, 5000), st.lists(st.floats(0.1, 50), min_size=1, max_size=8))
def test_quotas_add_up_and_keep_to_the_shares(count: int, shares: list[float]) -> None:
    found = expand._quotas(count, shares)
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
    p = params.load("task", *asking.PARAMS, *expand.PARAMS, "samples")
    lines = [line.split() for line in quote.quote(settings.load(), p).splitlines()]
    assert lines[2][:4] == ["expand", "7", "0", "7"] and lines[2][5] == f"{7 * 4096:,}"
    assert lines[3][:4] == ["generate", "30", "0", "30"] and lines[3][5] == f"{30 * 1024:,}"
    assert "at most expand_calls 7 calls; generate: 30 inputs, most of them still" in " ".join(
        lines[4]
    )
    assert fake.calls == []


def test_the_fixtures_own_teacher_serves_the_stage(project: Project) -> None:
    """As a user runs it: the real scripted server, in a process of its own."""
    one = greeting(project.dir / "a", expand_rows=200)
    one.set(teacher_model="scripted")
    code, out = one.run("stages.expand")
    assert code == 0, out
    assert "expand: 56 seeds + 144 new = 200 inputs" in out
