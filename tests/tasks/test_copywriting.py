"""The copywriting task: what its scripted teacher reads and writes, what its checks catch, and that
its rows are apart."""

import json
import random
import re
from collections import Counter
from pathlib import Path

import pytest

from potstill.checks import registry
from potstill.core.jsonl import Row, row_id
from potstill.task import settings
from tasks.copywriting import teacher
from tasks.copywriting.data import rows
from tests.conftest import ROOT


@pytest.fixture(autouse=True)
def at_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT / "tasks/copywriting")


@pytest.fixture
def t() -> settings.Task:
    return settings.load()


FLOWER = {
    "title": "家人们谁懂啊 #养绿萝 #日常",
    "content": (
        "大家好我是小周 今天教大家养绿萝 我靠 选15厘米的花盆 播放2.3万 呃见干再浇别积水 "
        "每隔7天浇水 记得点赞收藏"
    ),
}
CRASH = {
    "title": "太惨了!!!【两车追尾】",
    "content": (
        "观众朋友们好今天早上望江路两车追尾据了解雨天路滑没有刹住另外3人受伤送医同时原因正在调查"
    ),
}
DEATH = {
    "title": "突发 #老校长何文博",
    "content": "送别老校长何文博，享年85岁呢，资助30名学生，家属希望丧事从简",
}
BOOK = {
    "title": "必看《南窗》",
    "content": "最近看了《南窗》你看全书300页而且语言朴素像聊天还有就是读完想给家里打电话",
}
PLAIN = {
    "title": "看到最后，种韭菜",
    "content": "跟我学种韭菜首先备30厘米深的木箱然后种子泡4小时再来摘掉发黄的老叶",
}
NOTICE = {
    "title": "【停水通知】速看",
    "content": "请注意柳溪路停水通知 原因是管道改造 预计持续5小时 提前存好生活用水",
}


def clean(row: Row, seed: int = 0) -> dict[str, str]:
    text = settings.load().messages("teacher", row)[-1]["content"]
    return teacher.compose(teacher.read(text), random.Random(seed))


@pytest.mark.parametrize(
    ("row", "title", "body"),
    [
        (FLOWER, r".*养绿萝.*", r"选15厘米的花盆，每隔7天浇水，.{4,5}[！。]"),
        (CRASH, r"两车追尾：望江路", r"雨天路滑没有刹住，3人受伤送医，愿伤者平安。"),
        (DEATH, r"老校长何文博[逝辞]世", r"享年85岁，资助30名学生，愿逝者安息。"),
        (BOOK, r"《南窗》.*", r"全书300页，读完想给家里打电话，.*"),
        (PLAIN, r".*种韭菜.*", r"备30厘米深的木箱，种子泡4小时，.*"),
        (NOTICE, r"停水通知：柳溪路", r"原因是管道改造，预计持续5小时，.*。"),
    ],
)
def test_the_teacher_composes_from_the_input(
    t: settings.Task, row: Row, title: str, body: str
) -> None:
    for seed in range(8):
        copy = clean(row, seed)
        assert re.fullmatch(title, copy["title"])
        assert re.fullmatch(body, copy["body"])
        assert not registry.check(t, row, json.dumps(copy, ensure_ascii=False))


@pytest.mark.parametrize(
    ("row", "change", "reason"),
    [
        (FLOWER, {"title": "养绿萝要学会的十个步骤"}, "max_chars: title"),
        (FLOWER, {"body": "选15厘米的花盆，" * 5 + "试试吧！"}, "max_chars: body"),
        (FLOWER, {"title": "养绿萝必看"}, "excludes: title: 必看"),
        (FLOWER, {"body": "我靠，选15厘米的花盆，每隔7天浇水。"}, "excludes: body: 我靠"),
        (FLOWER, {"body": "选25厘米的花盆，每隔7天浇水。"}, "grounded: body: 25"),
        (FLOWER, {"body": "选15天的花盆，每隔7天浇水。"}, "grounded: body: 15天"),
        (FLOWER, {"body": "王老师说，每隔7天浇水。"}, "grounded: body: 王老师"),
        (FLOWER, {"body": "云溪村都在养，每隔7天浇水。"}, "grounded: body: 云溪村"),
        (FLOWER, {"body": "每隔7天浇水，锟斤拷□□□。"}, "regex: body"),
        (FLOWER, {"body": "每隔7天浇水，so easy。"}, "language: body"),
        (FLOWER, {"body": "每隔7天浇水，，试试吧。。"}, "repetition: body"),
        (FLOWER, {"title": "视频分享"}, "covers: 养绿萝 is left out"),
        (FLOWER, {"body": "好看。"}, "json_schema: body: minLength"),
        (FLOWER, {"note": "无"}, "json_schema: answer: additionalProperties"),
        (CRASH, {"body": "雨天路滑没有刹住，哈哈太逗了。"}, "excludes: body: 哈哈"),
        (CRASH, {"body": "3人受伤送医，一起来看看！"}, "excludes: body: ！"),
        (CRASH, {"body": "雨天路滑没有刹住，3人身亡。"}, "grounded: body: 身亡"),
        (CRASH, {"body": "3人受伤送医，愿逝者安息。"}, "excludes: 逝者"),
        (CRASH, {"body": "凌晨雨天路滑，3人受伤送医。"}, "grounded: body: 凌晨"),
    ],
)
def test_the_checks_catch_a_bad_copy(
    t: settings.Task, row: Row, change: dict[str, str], reason: str
) -> None:
    found = registry.check(t, row, json.dumps({**clean(row), **change}, ensure_ascii=False))
    assert any(why.startswith(reason) for why in found), found


def test_cheer_is_allowed_where_nothing_is_grave(t: settings.Task) -> None:
    copy = {"title": "一起养绿萝", "body": "每隔7天浇水，看着就开心！"}
    assert not registry.check(t, FLOWER, json.dumps(copy, ensure_ascii=False))


def test_the_teachers_flaws_are_caught(t: settings.Task) -> None:
    """About one answer in fifteen is spoilt, and nothing but the spoilt ones fails."""
    made = rows.rows(11, 200, [topic for topic in rows.topics() if not topic.unseen], gold=False)
    failed = 0
    for row in made:
        answer = teacher.answer(t.messages("teacher", row), row["id"])
        whole = json.dumps(clean(row), ensure_ascii=False)
        assert not registry.check(t, row, whole), (row, whole)
        failed += bool(registry.check(t, row, answer))
    assert 0.03 < failed / len(made) < 0.12


def test_bad_copies_are_bad_in_many_ways(t: settings.Task) -> None:
    """The bad prompt gets bad copies; some are as good as the chosen, so that the stage `pairs` has
    something to drop."""
    made = rows.rows(12, 200, [topic for topic in rows.topics() if not topic.unseen], gold=False)
    system = Path("prompts/rejected.md").read_text(encoding="utf-8").strip()
    reasons: Counter[str] = Counter()
    passed, said = 0, set()
    for row in made:
        asked = [{"role": "system", "content": system}, t.messages("teacher", row)[-1]]
        said.add(answer := teacher.answer(asked, row["id"]))
        found = registry.check(t, row, answer)
        passed += not found
        reasons.update({why.split(":")[0] for why in found})
    assert 0 < passed / len(made) < 0.12
    assert len(said) > 0.9 * len(made)
    named = "json max_chars excludes grounded covers repetition regex"
    assert set(reasons) >= set(named.split())


def test_no_word_of_a_gold_row_is_a_seeds() -> None:
    """Pools are parted by a bar, and no word stands on both sides; the unseen topics are others."""
    found = rows.topics()
    assert len({topic.name for topic in found}) == len(found)
    assert sum(not topic.unseen for topic in found) >= 40
    for pools in [rows.SHARED, *(topic.pools for topic in found if not topic.unseen)]:
        for words in pools.values():
            if "|" in words:
                seeds, gold = (
                    {word.split(":")[0] for word in side.split()} for side in words.split("|")
                )
                assert not seeds & gold
    seen = {pattern for topic in found if not topic.unseen for pattern in topic.subjects}
    assert not {p for topic in found if topic.unseen for p in topic.subjects} & seen - {"{what}"}


def test_facts_hold_nothing_that_the_teacher_reads_as_noise() -> None:
    for topic in rows.topics():
        told = [*(one for facts in topic.facts for one in facts), *topic.pools.values()]
        found = re.search(rf"{teacher.GLUE}|{teacher.NOISE.pattern}", " ".join(told))
        assert not found, (topic.name, found)


def test_rows_are_made_again_alike() -> None:
    chosen = [topic for topic in rows.topics() if not topic.unseen]
    made = rows.rows(3, 40, chosen, gold=True)
    assert made == rows.rows(3, 40, chosen, gold=True)
    for row in made:
        assert row["id"] == row_id({"title": row["title"], "content": row["content"]})
        assert 60 <= len(row["title"] + row["content"]) <= 110


def test_grave_topics_are_known_by_the_teacher_and_the_checks(t: settings.Task) -> None:
    when = next(
        o["when"]
        for check in t.config["checks"]
        if isinstance(check, dict)
        for o in check.values()
        if "when" in o
    )
    assert when == teacher.GRAVE.pattern
    for topic in rows.topics():
        for gold in (True,) if topic.unseen else (False, True):
            row = rows.make(random.Random(5), topic, gold)
            assert bool(re.search(when, row["title"] + row["content"])) == (
                topic.genre in rows.GRAVE
            ), row
