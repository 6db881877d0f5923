"""The news task: briefs hold what they should, the scripted teacher writes from them, and the
checks catch what a newsroom refuses."""

import random
import re

import pytest

from potstill.checks import registry
from potstill.core.jsonl import Row
from potstill.task import settings
from tasks.news import teacher
from tasks.news.data import rows
from tests.conftest import ROOT

LABELLED = (
    "事件：重磅！启动夜间公交线路优化\n何时：6月18日上午9时\n地点：白桥客运站\n"
    "主体：临溪县交通运输局\n数据：新增班次46个，沿线12个村受益（简直逆天）\n"
    "引语：周以宁（副局长）：“候车时间会短一些”\n据传经费被人挪用"
)
BARE = (
    "1. 6月18日\n2. 白桥客运站\n3. 临溪县交通运输局\n4. 启动夜间公交线路优化\n5. 新增班次46个\n"
    "6. 背景：原线路于2012年开通\n7. 联系人：吴明舒，手机20012345678"
)
GOOD = (
    "临溪县交通运输局于6月18日上午9时在白桥客运站启动夜间公交线路优化。新增班次46个，"
    "沿线12个村受益。副局长周以宁说，“候车时间会短一些”。"
)


@pytest.fixture(autouse=True)
def at_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT / "tasks/news")


def written(brief: str) -> str:
    return teacher.item(teacher.parse(brief), random.Random(0))


def failed(brief: str, text: str) -> set[str]:
    return {
        reason.split(":")[0] for reason in registry.check(settings.load(), {"brief": brief}, text)
    }


def test_a_brief_is_read_with_labels_and_without() -> None:
    read = teacher.parse(LABELLED)
    assert list(read) == ["event", "time", "place", "subject", "data", "said", "rumour"]
    bare = teacher.parse(BARE)
    assert (bare["place"], bare["subject"], bare["event"]) == (
        "白桥客运站",
        "临溪县交通运输局",
        "启动夜间公交线路优化",
    )
    assert {"background", "personal", "data"} <= bare.keys()


def test_the_item_has_the_facts_and_nothing_else() -> None:
    text = written(LABELLED)
    assert text.startswith(
        "临溪县交通运输局于6月18日上午9时传来消息：启动夜间公交线路优化，地点在白桥客运站。"
    )
    assert "新增班次46个，沿线12个村受益。" in text
    assert re.search("周以宁（副局长）(表示|说)，“候车时间会短一些”。$", text)
    assert not re.search("重磅|逆天|挪用", text)
    assert failed(LABELLED, text) == set()
    assert written(BARE).startswith(
        "6月18日，临溪县交通运输局传来消息：启动"
    ) and "，地点在白桥客运站。" in written(BARE)
    assert failed(BARE, written(BARE)) == set()
    assert "2012年" in written(BARE)  # nobody is quoted, so there is room for background


def test_other_facts_make_another_item() -> None:
    assert "31辆" in written(LABELLED.replace("班次46个", "班车31辆"))
    assert written(BARE.replace("白桥", "青湾")) == written(BARE).replace("白桥", "青湾")


def test_what_is_not_quoted_stays_indirect() -> None:
    assert re.search(
        "周以宁（副局长）(表示|说)，候车时间会短一些。$",
        written(LABELLED.replace("“", "").replace("”", "")),
    )


@pytest.mark.parametrize(
    ("text", "check"),
    [
        ("重磅！" + GOOD, "excludes"),
        (GOOD + "另外，经费被人挪用。", "excludes"),
        (GOOD + "负责人电话20012345678。", "regex"),
        (GOOD + "吸引市民3000人。", "grounded"),
        (GOOD + "省统筹办公室派员到场。", "grounded"),
        (GOOD + "专家李一鸣表示，很好。", "grounded"),
        (GOOD.replace("候车时间", "排队时间"), "grounded"),
        (GOOD.replace("在白桥客运站", ""), "covers"),
        (GOOD.replace("6月18日上午9时", "近日"), "covers"),
        (GOOD.replace("新增班次46个，", ""), "covers"),
        (GOOD.replace("副局长周以宁说，", ""), "covers"),
        (GOOD + "各方将加强沟通协调，把各项安排落到实处，进展请留意公告。" * 2, "max_chars"),
        ("临溪县启动公交优化。", "regex"),
        (f"简讯：\n{GOOD}", "regex"),
        (GOOD[:-1], "ends_with"),
    ],
)
def test_a_newsroom_refuses(text: str, check: str) -> None:
    assert failed(LABELLED, GOOD) == set()
    assert check in failed(LABELLED, text)


def test_the_seeded_flaws_are_caught() -> None:
    t = settings.load()
    for row in t.inputs(t.data / "seeds.jsonl")[:60]:
        facts, chance = teacher.parse(row["brief"]), random.Random(row["id"])
        good = teacher.item(facts, chance)
        assert registry.check(t, row, good) == []
        for kind, flaw in teacher.FLAWS.items():
            if kind in facts or kind in teacher.ALWAYS:
                assert registry.check(t, row, flaw(facts, good, chance)), (kind, row)


def test_bad_items_for_preferences_are_bad_and_many_kinds() -> None:
    t = settings.load()
    seeds = t.inputs(t.data / "seeds.jsonl")[:300]
    bad = [teacher.answer(t.messages("rejected", row), row["id"]) for row in seeds]
    passed = sum(not registry.check(t, row, text) for row, text in zip(seeds, bad, strict=True))
    assert 0 < passed < 0.08 * len(seeds)
    assert len({text[:4] for text in bad}) > 100


def parts(found: list[Row]) -> dict[str, set[str]]:
    """The towns, events, subjects and speakers of briefs."""
    facts = [teacher.parse(row["brief"]) for row in found]
    names = re.findall("[一-鿿]{2}(?=[县市区])", "\n".join(one["subject"][:3] for one in facts))
    return {
        "town": set(names),
        "event": {teacher.LOADED.sub("", one["event"]) for one in facts},
        "subject": {one["subject"] for one in facts},
        "said": {one["said"] for one in facts if "said" in one},
    }


def test_gold_rows_are_of_other_events_towns_and_people() -> None:
    files = rows.files()
    seeds, gold = parts(files["seeds.jsonl"]), parts(files["gold.jsonl"])
    assert {kind: seeds[kind] & gold[kind] for kind in gold} == {kind: set() for kind in gold}
    assert len(seeds["event"]) > 2000


def test_the_files_are_those_that_the_seeds_make() -> None:
    t = settings.load()
    for name, made in rows.files().items():
        assert t.inputs(t.data / name) == made
    slices = [row["slice"] for row in rows.files()["gold.jsonl"]]
    assert (slices.count("like_seeds"), slices.count("unseen_beat")) == (400, 100)
