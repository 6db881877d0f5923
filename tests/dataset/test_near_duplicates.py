"""near_duplicates against brute force, and what must never be merged."""

import os
import random
import subprocess
import sys
import unicodedata

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from potstill.dataset import near_duplicates
from tests.conftest import ROOT

# Few characters and many lengths around the border of 20 make near-duplicates likely.
CHARACTERS = "甲乙丙丁戊 ８8"
TEXTS = st.lists(st.text(CHARACTERS, max_size=28), max_size=14)
THRESHOLDS = st.sampled_from([0.3, 0.55, 0.8, 1.0])


def brute(a: str, b: str) -> float:
    """The definition, written a second time: as slow and as plain as can be."""
    a, b = ("".join(unicodedata.normalize("NFKC", text).split()) for text in (a, b))
    n = 2 if len(a) < 20 or len(b) < 20 else 3
    first, second = ({tuple(t[i : i + n]) for i in range(max(1, len(t) - n + 1))} for t in (a, b))
    return len(first & second) / len(first | second)


def all_pairs(texts: list[str], threshold: float) -> list[tuple[int, int, float]]:
    found = ((i, j, brute(texts[i], texts[j])) for j in range(len(texts)) for i in range(j))
    return [pair for pair in found if pair[2] >= threshold]


def near(i: int, j: int, texts: list[str], families: list[str], threshold: float) -> bool:
    numbers = [near_duplicates.NUMBERS.findall(near_duplicates.normal(texts[k])) for k in (i, j)]
    exempt = families[i] == families[j] and numbers[0] != numbers[1]
    return not exempt and brute(texts[i], texts[j]) >= threshold


def walk(texts: list[str], families: list[str], threshold: float) -> list[int | None]:
    kept: list[int | None] = []
    for j in range(len(texts)):
        earlier = (
            i for i in range(j) if kept[i] is None and near(i, j, texts, families, threshold)
        )
        kept.append(next(earlier, None))
    return kept


@pytest.fixture(params=["few", "scan"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each way to get the candidates: all that share a key, or a scan of all bit maps."""
    monkeypatch.setattr(near_duplicates, "FEW", 1000 if request.param == "few" else -1)


each = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@each
@given(TEXTS, THRESHOLDS)
def test_pairs_are_those_of_brute_force(way: None, texts: list[str], threshold: float) -> None:
    assert list(near_duplicates.pairs(texts, threshold)) == all_pairs(texts, threshold)


@each
@given(TEXTS, st.integers(1, 3), THRESHOLDS)
def test_firsts_keeps_in_order(way: None, texts: list[str], count: int, threshold: float) -> None:
    families = [f"f{i % count}" for i in range(len(texts))]
    assert near_duplicates.firsts(texts, families, threshold) == walk(texts, families, threshold)


@each
@given(TEXTS, st.integers(1, 3), THRESHOLDS)
def test_seen_finds_what_firsts_finds(
    way: None, texts: list[str], count: int, threshold: float
) -> None:
    families = [f"f{i % count}" for i in range(len(texts))]
    seen, found = near_duplicates.Seen(threshold), []
    for i, text in enumerate(texts):
        key = seen.find(text, families[i])
        found.append(None if key is None else int(key))
        if key is None:
            seen.add(str(i), text, families[i])
    assert found == near_duplicates.firsts(texts, families, threshold)


@settings(deadline=None)
@given(
    st.text(
        min_size=4, max_size=4, alphabet=st.characters(min_codepoint=0x4E00, max_codepoint=0x9FA0)
    ),
    st.data(),
)
def test_four_characters_that_differ_in_one_never_merge(text: str, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, 3))
    other = data.draw(
        st.characters(min_codepoint=0x4E00, max_codepoint=0x9FA0).filter(lambda c: c != text[at])
    )
    changed = text[:at] + other + text[at + 1 :]
    assert near_duplicates.firsts([text, changed], ["a", "b"], 0.8) == [None, None]
    assert near_duplicates.jaccard(text, changed) < 0.8


LONG = "请写一段给老师的中秋节祝福语气要温和一些"  # 20 characters


@pytest.mark.parametrize(
    ("a", "b", "similarity"),
    [
        ("", "", 1.0),
        ("", "好", 0.0),
        ("好", "好", 1.0),
        ("好", "坏", 0.0),
        ("好", "好好", 0.0),  # shorter than n: one shingle, and another one
        ("ａ１ 好\n", "a1好", 1.0),  # width and white space do not count
        (LONG, LONG[:-1], 18 / 19),  # one of them short: 2-grams
        (LONG[:-1], LONG, 18 / 19),
        (LONG, LONG + "些", 18 / 19),  # both long: 3-grams
        ("哈" * 19, "哈" * 200, 1.0),  # the same one shingle on both sides of the border
    ],
)
def test_similarity(a: str, b: str, similarity: float) -> None:
    assert near_duplicates.jaccard(a, b) == similarity
    expected = [(0, 1, similarity)] if similarity >= 0.8 else []
    assert list(near_duplicates.pairs([a, b], 0.8)) == expected


@pytest.mark.parametrize(
    ("a", "b", "same"),
    [
        ("写一段50字的中秋祝福送给老师", "写一段80字的中秋祝福送给老师", False),
        ("写一段五十字的中秋祝福送给老师", "写一段八十字的中秋祝福送给老师", False),
        ("写一段50字的中秋祝福送给老师", "写一段５０字的中秋祝福送给老师！", True),
    ],
)
def test_another_number_is_another_request_in_a_family(a: str, b: str, same: bool) -> None:
    assert near_duplicates.firsts([a, b], ["f", "f"], 0.7) == [None, 0 if same else None]
    assert near_duplicates.firsts([a, b], ["f", "g"], 0.7) == [None, 0]


def some(count: int) -> list[str]:
    """Random texts of 5 to 60 characters, every third an edited copy of an earlier one."""
    rng = random.Random(3)
    found: list[str] = []
    for i in range(count):
        text = "".join(chr(0x4E00 + rng.randrange(2000)) for _ in range(rng.randrange(5, 60)))
        if i % 3 == 2:
            text = rng.choice(found)
            at = rng.randrange(len(text))
            text = text[:at] + "改" + text[at + 1 :]
        found.append(text)
    return found


def test_many_texts_at_once_lose_no_pair() -> None:
    texts = some(300)
    pairs = list(near_duplicates.pairs(texts, 0.7))
    assert pairs == all_pairs(texts, 0.7)
    assert len(pairs) > 50


def test_the_hash_seed_changes_nothing() -> None:
    program = (
        "from tests.dataset.test_near_duplicates import near_duplicates, some; t = some(600);"
        "print(near_duplicates.firsts(t, ['f'] * 600, 0.6), list(near_duplicates.pairs(t, 0.6)))"
    )
    outs = {
        subprocess.run(
            [sys.executable, "-c", program],
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(outs) == 1
