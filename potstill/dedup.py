"""Near-duplicates of short texts, exactly: Jaccard similarity of character shingles (Broder 1997).

A text is normalised (NFKC, no white space). Two texts are compared by their 3-grams, or by their 2-grams when either has
under SHORT characters; a text shorter than that is one shingle, so that two different short texts never collapse.
"""

import math
import re
import unicodedata
from collections.abc import Iterator, Sequence

SHORT = 20  # characters; below it one changed character changes too large a share of the 3-grams
NUMBERS = re.compile(r"\d+|[〇零一二两三四五六七八九十百千万]+(?=[个字词句行条段首篇])")


def normal(text: str) -> str:
    """The text as it is compared: NFKC, no white space."""
    return "".join(unicodedata.normalize("NFKC", text).split())


def shingles(text: str, n: int) -> set[str]:
    """The n-grams of a normalised text; one that is shorter than n is one shingle."""
    return {text[i : i + n] for i in range(len(text) - n + 1)} or {text}


def jaccard(a: str, b: str) -> float:
    """The similarity of two texts, 0 to 1."""
    return _jaccard(normal(a), normal(b))


def pairs(texts: Sequence[str], threshold: float) -> Iterator[tuple[int, int, float]]:
    """All pairs i < j whose similarity is at least `threshold`, in the order of j, then of i."""
    found = [normal(text) for text in texts]
    for j, b in enumerate(found):
        for i in range(j):
            if (similarity := _jaccard(found[i], b)) >= threshold:
                yield i, j, similarity


def firsts(texts: Sequence[str], families: Sequence[str], threshold: float) -> list[int | None]:
    """For each text, in order, the index of the earliest kept text that it is a near-duplicate of, or None: it is kept.

    Two texts of one family with different numbers are no near-duplicates: 50字 and 80字 are two requests.
    """
    seen, kept = Seen(threshold), []
    for i, (text, family) in enumerate(zip(texts, families, strict=True)):
        key = seen.find(text, family)
        kept.append(None if key is None else int(key))
        if key is None:
            seen.add(str(i), text, family)
    return kept


class Seen:
    """Texts that were added, one by one, and the near-duplicates among them; `threshold` above 0."""

    def __init__(self, threshold: float) -> None:
        self.threshold = threshold
        self._rows: list[tuple[str, str, str]] = []  # key, normalised text, family
        self._places: dict[tuple[bool, str], list[int]] = {}  # (is of a long text, shingle) → rows

    def add(self, key: str, text: str, family: str) -> None:
        """Adds a text under `key`."""
        text = normal(text)
        long = len(text) >= SHORT
        for shingle in shingles(text, 2) | (shingles(text, 3) if long else set()):
            self._places.setdefault((long, shingle), []).append(len(self._rows))
        self._rows.append((key, text, family))

    def find(self, text: str, family: str) -> str | None:
        """The key of the earliest text added that this one is a near-duplicate of, but for texts of one family with
        different numbers; None when there is none."""
        text = normal(text)
        for row in sorted(self._candidates(text)):
            key, other, its_family = self._rows[row]
            if _jaccard(text, other) >= self.threshold and not _differ_in_numbers(text, family, other, its_family):
                return key
        return None

    def _candidates(self, text: str) -> set[int]:
        long = len(text) >= SHORT
        found: set[int] = set()
        for others_long in (False, True):
            own = shingles(text, 3 if long and others_long else 2)
            places = sorted((self._places.get((others_long, shingle), []) for shingle in own), key=len)
            # A near-duplicate lacks fewer of these shingles than are looked up here: the rarest do.
            found.update(*places[: len(own) - _overlap(len(own), self.threshold) + 1])
        return found


def _overlap(size: int, threshold: float) -> int:
    """The fewest shingles that a near-duplicate shares with a text of `size` shingles."""
    return max(1, math.ceil(size * threshold - 1e-9))


def _jaccard(a: str, b: str) -> float:
    n = 2 if min(len(a), len(b)) < SHORT else 3
    own, other = shingles(a, n), shingles(b, n)
    shared = len(own & other)
    return shared / (len(own) + len(other) - shared)


def _differ_in_numbers(a: str, a_family: str, b: str, b_family: str) -> bool:
    return a_family == b_family and NUMBERS.findall(a) != NUMBERS.findall(b)
