"""expand_rules: another number in a request changes nothing else."""

import random
import re
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from potstill.dataset import expand_rules


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
