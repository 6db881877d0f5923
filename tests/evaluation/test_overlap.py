"""potstill.evaluation.score.overlap: known values, and what must hold for any texts."""

import pytest

from potstill.evaluation import score

LONG = ["春风送暖入屠苏，千门万户曈曈日", "总把新桃换旧符"]


def test_equal_texts_overlap_wholly_and_strange_ones_not_at_all() -> None:
    assert score.overlap(LONG, LONG) == {"rouge_l": 1.0, "bleu": 1.0, "chrf": 1.0}
    found = score.overlap(["甲乙丙丁戊己", "庚辛"], LONG)
    assert (found["rouge_l"], found["chrf"]) == (0.0, 0.0)
    assert found["bleu"] < 0.05  # smoothed


@pytest.mark.parametrize(
    ("answer", "expected", "rouge"),
    [
        ("我爱北京", "我爱上海北京", 0.8),
        ("北京", "我爱北京", 0.6667),
        ("", "北京", 0.0),
        ("", "", 1.0),
        ("ab", "ba", 0.5),
    ],
)
def test_rouge_l_on_characters(answer: str, expected: str, rouge: float) -> None:
    assert score.overlap([answer], [expected])["rouge_l"] == rouge


def test_bleu_by_hand() -> None:
    """All precisions (of 1, 2, 3 and 4 characters) are 1, the brevity penalty is exp(1 - 6/5)."""
    assert score.overlap(["今天天气好"], ["今天天气好吗"])["bleu"] == pytest.approx(
        0.8187, abs=1e-4
    )


def test_the_less_alike_the_lower() -> None:
    values = [score.overlap([LONG[0][:n]], [LONG[0]]) for n in (15, 11, 7, 5)]
    for name in ("rouge_l", "bleu", "chrf"):
        assert [one[name] for one in values] == sorted((one[name] for one in values), reverse=True)
