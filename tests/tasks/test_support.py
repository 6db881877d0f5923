"""Task support: the shop's rows, its scripted teacher, and the checks that tell a good answer from
a bad one."""

import json
import re
from collections import Counter
from functools import cache
from itertools import chain
from pathlib import Path

import pytest

from potstill.checks import registry
from potstill.core import params
from potstill.core.jsonl import read_jsonl, row_id
from potstill.dataset import near_duplicates
from potstill.task import settings
from potstill.teacher.scripted import complete
from tasks.support import teacher
from tasks.support.data import rows
from tests.conftest import ROOT


@pytest.fixture(autouse=True)
def at_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT / "tasks/support")


@cache
def shop() -> settings.Task:
    return settings.load()


RIGHT = "您好，黑色卫衣签收7天内、吊牌完好可退。有事请找小栗。"
FAULTS = {  # what becomes of the right answer, and the check that fails it
    RIGHT: "",
    RIGHT.replace("7天", "9天"): "facts",
    RIGHT.replace("、吊牌完好", ""): "facts",
    RIGHT.replace("可退", "可退，15天内可换"): "facts",
    RIGHT.replace("您好，", ""): "regex",
    RIGHT.replace("有事请找小栗。", ""): "regex",
    RIGHT.replace("可退", "可退，绝对没问题"): "excludes",
    RIGHT.replace("可退", "可退，下单前就该看清楚"): "excludes",
    RIGHT.replace("。有", "！！有"): "repetition",
    RIGHT.replace("可退", "可退，OK"): "language",
}


def reply(question: str) -> str:
    """The teacher's answer to a question, as the pipeline gets it."""
    body = {"messages": shop().messages("teacher", {"id": "", "question": question}), "seed": 0}
    return str(complete(teacher.answer, body, "")["choices"][0]["message"]["content"])


@cache
def replies() -> tuple[list[str], list[str]]:
    """The teacher's answers to the seeds, and to the gold rows."""
    seeds, like, unseen = rows.make()
    return [reply(made.question) for made in seeds], [
        reply(made.question) for made in like + unseen
    ]


def test_committed_files_are_what_the_script_makes() -> None:
    for name, made in rows.files().items():
        assert read_jsonl(rows.DATA / name) == made, (
            f"{name}: run `python -m tasks.support.data.rows`"
        )


def test_counts_ids_and_slices() -> None:
    seeds, gold = rows.files()["seeds.jsonl"], rows.files()["gold.jsonl"]
    assert Counter(row["slice"] for row in gold) == {"like_seeds": 400, "unseen_wording": 100}
    assert len(seeds) == 5600 and len({row["id"] for row in seeds + gold}) == 6100
    assert all(row["id"] == row_id({"question": row["question"]}) for row in seeds + gold)
    assert all(10 <= len(row["question"]) <= 70 for row in seeds + gold)
    assert {row["gold"]["intent"] for row in gold} == set(
        shop().schema["properties"]["intent"]["enum"]
    )


def test_exactly_one_rule_applies_to_each_question() -> None:
    for made in chain(*rows.make()):
        assert rows.applying(rows.shop()["rules"][made.rule]["label"], made.question) == [
            made.rule
        ], made.question


def test_gold_is_new() -> None:
    seeds, like, unseen = rows.make()
    assert not {made.sentence for made in seeds} & {made.sentence for made in like + unseen}
    told = "\n".join(made.question for made in seeds)
    for made in like + unseen:
        found = re.findall(
            r"(?:尾号|后四位是|我的单)(\d{4})|(?:我是|我叫|本人|鄙人)(.{2,3})，", made.question
        )
        assert not any(text in told for pair in found for text in pair if text), made.question
    texts = [made.question for made in seeds + like + unseen]
    assert not any(j >= len(seeds) for _, j, _ in near_duplicates.pairs(texts, rows.NEAR))


def test_products_that_are_held_out_of_an_intent() -> None:
    def pairs(some: list[rows.Made]) -> list[tuple[str, str]]:
        return [
            (rows.shop()["rules"][made.rule]["label"], made.product)
            for made in some
            if made.product
        ]

    seeds, like, _ = rows.make()
    held = {
        (label, product) for label, products in rows.shop()["held"].items() for product in products
    }
    assert not held & set(pairs(seeds))
    assert sum(pair in held for pair in pairs(like)) > 60


def test_teacher_answers_pass_the_checks_and_are_varied() -> None:
    seeds, like, unseen = rows.make()
    made, tested = replies()
    labels = [rule["label"] for rule in rows.shop()["rules"]]
    passed = [
        not registry.check(
            shop(), {"question": one.question, "expected": {"intent": labels[one.rule]}}, text
        )
        for one, text in zip(seeds + like + unseen, made + tested, strict=True)
    ]
    assert 0.9 < sum(passed[: len(seeds)]) / len(seeds) < 0.97, (
        "a share of the answers is spoilt on purpose"
    )
    assert sum(passed[len(seeds) :]) / len(tested) > 0.88
    assert len(set(made)) > 0.95 * len(made) and not set(made) & set(tested)


def test_teacher_reads_the_question_alone() -> None:
    system, user = shop().messages(
        "teacher", {"id": "", "question": "亲，尾号5821，有机小包装茶叶尝了一口能退吗"}
    )
    assert teacher.answer([user], "x") == teacher.answer([system, user], "x")
    said = json.loads(teacher.answer([user], "x"))
    assert said["intent"] == "退货"
    assert all(words in said["answer"] for words in ("5821", "有机小包装茶叶", "不支持"))


@pytest.mark.parametrize(
    ("question", "situation"),
    [
        ("羽绒服收到3天能退吗", "退服饰"),
        ("羽绒服收到12天能退吗", "退超期"),
        ("羽绒服开线了，要退货", "退坏"),
        ("吹风机没用过能退吗", "退电器"),
        ("泳衣没拆封能退吗", "退未拆"),
        ("泳衣试穿了一下能退吗", "退拆封"),
        ("茶叶发霉了给我退货", "退变质"),
        ("退货运费谁出", "运费退换"),
        ("退款后优惠券还在吗", "券退还"),
        ("加湿器到哪了", "物流"),
        ("台灯保修多久", "保修三年"),
        ("蜂蜜能治咳嗽吗", "医疗"),
        ("给我说说明天的天气", "无关"),
    ],
)
def test_teacher_tells_situations(question: str, situation: str) -> None:
    asked = teacher.read(question)
    assert teacher.settle(teacher.classify(asked), asked) == situation


@pytest.mark.parametrize(("answer", "check"), FAULTS.items())
def test_checks_catch_faults(answer: str, check: str) -> None:
    row = {"question": "黑色卫衣收到3天了能退吗", "expected": {"intent": "退货"}}
    text = json.dumps({"intent": "退货", "answer": answer}, ensure_ascii=False)
    failed = registry.check(shop(), row, text)
    assert check in " ".join(failed) if check else not failed, failed


def test_wrong_intent_fails() -> None:
    row = {"question": "黑色卫衣收到3天了能退吗", "expected": {"intent": "退货"}}
    text = json.dumps(
        {"intent": "换货", "answer": "您好，黑色卫衣签收15天内、吊牌完好可换。有事请找小栗。"},
        ensure_ascii=False,
    )
    assert registry.check(shop(), row, text) == ["exact_match: intent"]


@pytest.mark.parametrize("flaw", teacher.FLAWS)
def test_checks_catch_the_teachers_flaws(flaw: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(teacher, "FLAWS", {flaw: 1.0})
    row = {"question": "黑色卫衣收到3天了能退吗"}
    chat = [{"role": "user", "content": row["question"]}]
    caught = [registry.check(shop(), row, teacher.answer(chat, str(turn))) for turn in range(10)]
    assert all(caught)


def test_prompts_are_long_and_short() -> None:
    long, short = (
        shop().messages(kind, {"id": "", "question": "？"})[0]["content"]
        for kind in ("teacher", "student")
    )
    assert len(shop().knowledge) == len(rows.shop()["rules"])
    assert all(rule["text"] in long for rule in shop().knowledge)
    assert len(long) < 2000 and len(short) < 40


def test_profiles_are_the_published_recipes() -> None:
    published, full = (
        params.parse(params.read_text(path := Path(f"profiles/{name}.yaml")), path)
        for name in ("published", "full")
    )
    recipe = {
        "quant_bits": 4,
        "lora_rank": 8,
        "lora_alpha": 32,
        "lora_dropout": 0.05,
        "max_length": 512,
        "learning_rate": 0.0002,
    }
    recipe |= {
        "per_device_train_batch_size": 2,
        "gradient_accumulation_steps": 4,
        "num_train_epochs": 3,
    }
    assert (
        recipe.items() <= published.items()
        and published["target_modules"] == "q_proj k_proj v_proj o_proj"
    )
    assert (full["tuner_type"], full["quant_bits"]) == ("full", None)
