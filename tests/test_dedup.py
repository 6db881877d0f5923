"""potstill.dedup against brute force, and what must never be merged."""

from hypothesis import given, settings
from hypothesis import strategies as st

from potstill import dedup

DEFAULT = 0.8
# Few characters and many lengths around the border make near-duplicates likely.
TEXTS = st.lists(st.text("甲乙丙丁戊 ８8", max_size=28), max_size=12)


def brute(a: str, b: str) -> float:
    """The definition, written a second time: as slow and as plain as can be."""
    a, b = ("".join(__import__("unicodedata").normalize("NFKC", text).split()) for text in (a, b))
    n = 2 if len(a) < 20 or len(b) < 20 else 3
    first, second = ({tuple(t[i : i + n]) for i in range(max(1, len(t) - n + 1))} for t in (a, b))
    return len(first & second) / len(first | second)


@settings(deadline=None)
@given(TEXTS, st.sampled_from([0.3, 0.55, 0.8, 1.0]))
def test_pairs_are_those_of_brute_force(texts: list[str], threshold: float) -> None:
    expected = [
        (i, j, brute(texts[i], texts[j]))
        for j in range(len(texts))
        for i in range(j)
        if brute(texts[i], texts[j]) >= threshold
    ]
    assert list(dedup.pairs(texts, threshold)) == expected


def near(i: int, j: int, texts: list[str], families: list[str], threshold: float) -> bool:
    numbers = [dedup.NUMBERS.findall(dedup.normal(texts[k])) for k in (i, j)]
    exempt = families[i] == families[j] and numbers[0] != numbers[1]
    return not exempt and brute(texts[i], texts[j]) >= threshold


@settings(deadline=None)
@given(TEXTS, st.integers(1, 3), st.sampled_from([0.3, 0.55, 0.8, 1.0]))
def test_firsts_keeps_in_order(texts: list[str], count: int, threshold: float) -> None:
    families = [f"f{i % count}" for i in range(len(texts))]
    kept: list[int | None] = []
    for j in range(len(texts)):
        earlier = (i for i in range(j) if kept[i] is None and near(i, j, texts, families, threshold))
        kept.append(next(earlier, None))
    assert dedup.firsts(texts, families, threshold) == kept
