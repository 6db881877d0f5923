"""potstill.checks.grounded: what an answer names stands in its input, or is the reason."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.checks.judging import HAN, judged


@pytest.mark.parametrize(
    ("kind", "text", "expected"),
    [
        ("number", "售价1299元，打9折", True),
        ("number", "售价1,299.00元", True),
        ("number", "售价１２９９元", True),
        ("number", "一千二百九十九元", True),
        ("number", "十全十美，百年好合，二十四节气", True),
        ("number", "三斤苹果，3斤梨", True),
        ("number", "共5万人，50000人", True),
        ("number", "2025年1月2日", True),
        ("number", "售价129元", "grounded: 129"),
        ("number", "售价三百元", "grounded: 三百"),
        ("number", "售价1,299万元", "grounded: 1,299万"),
        ("number", "售价一万二元", "grounded: 一万二"),
        ("number", "打8折", "grounded: 8"),
        ("latin", "iPHONE好用", True),
        ("latin", "Phone好用", "grounded: Phone"),
        ("title", "读《红楼梦》", True),
        ("title", "读《水浒传》", "grounded: 水浒传"),
        ("quote", "他说“早点 来”", True),
        ("quote", "他说「晚点来」", "grounded: 晚点来"),
        ("place", "在大理市，云南省", True),
        ("place", "在昆明市", "grounded: 昆明市"),
        ("place", "去北京", "grounded: 北京"),
    ],
)
def test_grounded_kinds(kind: str, text: str, expected: object) -> None:
    source = "云南大理的iPhone 15，1299元，9折，三斤，5万人，2025.1.2，《红楼梦》，早点来"
    assert judged({"grounded": {"kinds": [kind]}}, text, source) == expected


@given(st.integers(0, 10**6), st.integers(0, 10**6), HAN)
def test_grounded_compares_numbers_by_value(there: int, said: int, around: str) -> None:
    around = "".join(c for c in around if c not in "零一二两三四五六七八九十百千万〇")
    found = judged(
        {"grounded": {"kinds": ["number"]}}, f"{around}：{said:,}元", f"{around}{there}元"
    )
    assert found == (True if there == said else f"grounded: {said:,}")


def test_grounded_patterns() -> None:
    listed = {"grounded": {"patterns": ["(王|李).(?=先生)"]}}
    assert judged(listed, "王明先生好", "找王明") is True
    assert judged(listed, "李明先生好", "找王明") == "grounded: 李"
