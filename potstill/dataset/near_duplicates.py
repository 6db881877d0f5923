"""Near-duplicates of short texts: Jaccard similarity of character shingles (Broder 1997).

A text is normalised (NFKC, no white space). Two texts are compared by their 3-grams, or by their 2-grams when either has
under SHORT characters; a text shorter than that is one shingle, so that two different short texts never collapse.

Every pair that is found was compared by its shingles themselves; the rest only spares comparisons, and loses no pair:
- of two near-duplicates each has a shingle of the other's among its few first in any one order (prefix filtering, Chaudhuri et
  al. 2006), here the rarest first: texts that share none of those are not compared;
- where many do, a bit map of each text's shingles says how many two texts differ in at least (Sandes et al. 2020).
Above EXACT texts MinHash (rensa) says first which texts have a partner at all; it misses one pair in MISSES at the threshold,
and fewer above it.
"""

import heapq
import math
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, np.dtype[Any]]

SHORT = 20  # characters; below it one changed character changes too large a share of the 3-grams
EXACT = 200_000  # texts
BANDS, MISSES = 16, 1000
CHUNK = (
    1 << 16
)  # texts whose shingles are in memory at once: 16 bits of a key are the text's place in it
WORDS = 4  # of 64 bits in a bit map
FEW = 16  # candidates that are compared at once
SCAN = 32  # bit maps that are looked at in the time in which one is gathered
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
    """All pairs i < j whose similarity is at least `threshold` (above 0, up to 1), in the order of j, then of i."""
    found = [normal(text) for text in texts]
    index = _Index()
    for j, signs in _signed(found, threshold):
        for i in index.candidates(signs):
            if (similarity := _jaccard(found[i], found[j])) >= threshold:
                yield i, j, similarity
        index.add(j, signs)


def firsts(texts: Sequence[str], families: Sequence[str], threshold: float) -> list[int | None]:
    """For each text, in order, the index of the earliest kept text that it is a near-duplicate of, or None: it is kept.

    Two texts of one family with different numbers are no near-duplicates: 50字 and 80字 are two requests.
    """
    found = [normal(text) for text in texts]
    kept: list[int | None] = [None] * len(found)
    index = _Index()
    for j, signs in _signed(found, threshold):
        for i in index.candidates(signs):
            if _jaccard(found[i], found[j]) >= threshold and not _differ(
                found[i], families[i], found[j], families[j]
            ):
                kept[j] = i
                break
        else:
            index.add(j, signs)
    return kept


class Seen:
    """Texts that were added, one by one, and the near-duplicates among them; `threshold` is above 0, up to 1."""

    def __init__(self, threshold: float) -> None:
        self.threshold = threshold
        self._rows: list[tuple[str, str, str]] = []  # key, normalised text, family
        self._index = _Index()

    def add(self, key: str, text: str, family: str) -> None:
        """Adds a text under `key`."""
        text = normal(text)
        for _, signs in _signed([text], self.threshold, alone=True):
            self._index.add(len(self._rows), signs)
        self._rows.append((key, text, family))

    def find(self, text: str, family: str) -> str | None:
        """The key of the earliest text added that this one is a near-duplicate of, but for texts of one family with
        different numbers; None when there is none."""
        text = normal(text)
        for _, signs in _signed([text], self.threshold, alone=True):
            for row in self._index.candidates(signs):
                key, other, its_family = self._rows[row]
                if _jaccard(text, other) >= self.threshold and not _differ(
                    text, family, other, its_family
                ):
                    return key
        return None


@dataclass(slots=True)
class _Sign:
    """What the index knows of the n-grams of one text."""

    keys: list[int]
    bits: "Array"  # WORDS numbers of 64 bits: bit b is set when an odd number of the shingles fall on b
    room: int  # the most shingles that only one of this text and a near-duplicate has


_Signs = tuple[
    bool, _Sign | None, _Sign | None
]  # whether the text is long, its 2-grams, its 3-grams


class _Shelf:
    """The texts of one kind, short or long, by their n-grams of one length."""

    def __init__(self) -> None:
        import numpy as np

        self.rows: list[int] = []
        self.places: dict[int, list[int]] = {}  # key → places in rows
        self.bits = np.empty((WORDS, 1024), np.uint64)

    def add(self, row: int, sign: _Sign) -> None:
        import numpy as np

        place = len(self.rows)
        if place == self.bits.shape[1]:
            self.bits = np.concatenate([self.bits, np.empty_like(self.bits)], axis=1)
        self.rows.append(row)
        self.bits[:, place] = sign.bits
        for key in sign.keys:
            self.places.setdefault(key, []).append(place)

    def candidates(self, sign: _Sign) -> Iterable[int]:
        """The rows that may be near-duplicates, in any order."""
        import numpy as np

        lists = [self.places[key] for key in sign.keys if key in self.places]
        count = sum(map(len, lists))
        if count <= FEW:
            return {self.rows[place] for places in lists for place in places}
        if count * SCAN < len(self.rows):
            found = set().union(*lists)
            places = np.fromiter(found, np.int64, len(found))
            differ = np.bitwise_count(self.bits[0, places] ^ sign.bits[0])
        else:  # to look at all is quicker than to gather so many
            differ = np.bitwise_count(self.bits[0, : len(self.rows)] ^ sign.bits[0])
            places = np.flatnonzero(differ <= sign.room)
            differ = differ[places]
        differ = differ.astype(np.int64)
        for word in range(1, WORDS):
            differ += np.bitwise_count(self.bits[word, places] ^ sign.bits[word])
            near = differ <= sign.room
            places, differ = places[near], differ[near]
        return [self.rows[place] for place in places.tolist()]


class _Index:
    """Texts by number, and which of them may be near-duplicates of another."""

    def __init__(self) -> None:
        self.short, self.long, self.long3 = (
            _Shelf(),
            _Shelf(),
            _Shelf(),
        )  # by 2-grams, and the long ones by 3-grams, too

    def add(self, row: int, signs: _Signs) -> None:
        long, two, three = signs
        if two:
            (self.long if long else self.short).add(row, two)
        if three:
            self.long3.add(row, three)

    def candidates(self, signs: _Signs) -> list[int]:
        """The texts added that may be near-duplicates, in order."""
        long, two, three = signs
        found: set[int] = set()
        if two:
            found.update(self.short.candidates(two))
            if not long:
                found.update(self.long.candidates(two))
        if three:
            found.update(self.long3.candidates(three))
        return sorted(found)


def _signed(
    texts: Sequence[str], threshold: float, alone: bool = False
) -> Iterator[tuple[int, _Signs]]:
    """The texts that may have a near-duplicate, in order: among `texts`, or, when it is `alone`, elsewhere."""
    most = (
        SHORT - 2
    ) / threshold  # 2-grams of a short text's near-duplicate; its characters are one more at most
    twos = [
        row for row, text in enumerate(texts) if len(text) < SHORT or len(set(text)) <= most + 1
    ]
    threes = [row for row, text in enumerate(texts) if len(text) >= SHORT]
    found = [_of_length(texts, rows, n, threshold, alone) for rows, n in ((twos, 2), (threes, 3))]
    for row, group in groupby(heapq.merge(*found, key=itemgetter(0)), itemgetter(0)):
        signs = {n: sign for _, n, sign in group}
        yield row, (len(texts[row]) >= SHORT, signs.get(2), signs.get(3))


def _of_length(
    texts: Sequence[str], rows: list[int], n: int, threshold: float, alone: bool
) -> Iterator[tuple[int, int, _Sign]]:
    """(row, n, sign) for each of `rows`, or for those that share a key with another."""
    import numpy as np

    if len(rows) > EXACT:
        rows = _with_partner(texts, rows, n, threshold)
    parts = [[texts[row] for row in rows[i : i + CHUNK]] for i in range(0, len(rows), CHUNK)]
    if not parts:
        return
    width = (
        1 if alone else min(24, sum(len(text) for part in parts for text in part).bit_length() + 2)
    )
    times = np.zeros(
        1 << width, np.uint64
    )  # how often the shingles whose hashes begin with these bits occur
    for part in () if alone else parts:
        times += np.bincount(
            _grams(part, n)[0] >> np.uint64(64 - width), minlength=len(times)
        ).astype(np.uint64)
    tables = [_table(part, n, threshold, np.minimum(times, 4095)) for part in parts]
    counts, rooms, keys, bits = (np.concatenate(columns) for columns in zip(*tables, strict=True))
    place = np.repeat(np.arange(len(rows)), counts)
    if not alone:
        _, which, found = np.unique(keys, return_inverse=True, return_counts=True)
        place, keys = place[found[which] > 1], keys[found[which] > 1]
    starts = np.flatnonzero(np.diff(place, prepend=-1))
    ends = [*starts[1:].tolist(), len(place)]
    for at, start, end in zip(place[starts].tolist(), starts.tolist(), ends, strict=False):
        yield rows[at], n, _Sign(keys[start:end].tolist(), bits[at], int(rooms[at]))


def _table(
    texts: list[str], n: int, threshold: float, times: "Array"
) -> tuple["Array", "Array", "Array", "Array"]:
    """For each text how many keys it has and its room; all keys, text after text; each text's bits."""
    import numpy as np

    grams, sizes = _grams(texts, n)
    # 16 bits of the text's place, 12 of how common the shingle is, 36 of its hash: one sort serves all texts.
    keys = np.repeat(np.arange(len(texts), dtype=np.uint64) << np.uint64(48), sizes)
    keys |= times[grams >> np.uint64(65 - len(times).bit_length())] << np.uint64(
        36
    ) | grams >> np.uint64(28)
    keys.sort()
    keys = keys[np.concatenate([[True], keys[1:] != keys[:-1]])]
    place = (keys >> np.uint64(48)).astype(np.int64)
    starts = np.flatnonzero(np.diff(place, prepend=-1))
    word, bit = keys >> np.uint64(6) & np.uint64(3), np.uint64(1) << (keys & np.uint64(63))
    bits = [
        np.bitwise_xor.reduceat(np.where(word == i, bit, np.uint64(0)), starts)
        for i in range(WORDS)
    ]
    # By the number of n-grams, which is the set's size or more: keys of equal hashes have become one.
    lacking = ((1 - threshold) * sizes + 1e-9).astype(np.int64)
    first = np.arange(len(keys)) - starts[place] <= lacking[place]
    counts = np.bincount(place[first], minlength=len(texts))
    rooms = ((1 - threshold) / threshold * sizes + 1e-9).astype(np.int64)
    return counts, rooms, keys[first] & np.uint64((1 << 48) - 1), np.stack(bits, 1)


def _grams(texts: list[str], n: int) -> tuple["Array", "Array"]:
    """The hashes of all n-grams (64 bits), text after text, and how many each text has."""
    import numpy as np

    texts = [text.ljust(n, "\0") for text in texts]
    lengths = np.fromiter(map(len, texts), np.int64, len(texts))
    codes = np.frombuffer("".join(texts).encode("utf-32-le", "surrogatepass"), np.uint32).astype(
        np.uint64
    )
    grams = codes[n - 1 :].copy()
    for i in range(1, n):
        grams |= codes[n - 1 - i : -i] << np.uint64(21 * i)
    whole = np.ones(len(codes), bool)
    for i in range(1, n):
        whole[np.cumsum(lengths) - i] = False  # begins in one text and ends in the next
    grams = grams[whole[: len(grams)]]
    for shift, factor in (
        (30, 0xBF58476D1CE4E5B9),
        (27, 0x94D049BB133111EB),
    ):  # the mixer of splitmix64 (Vigna 2015)
        grams ^= grams >> np.uint64(shift)
        grams *= np.uint64(factor)
    return grams ^ grams >> np.uint64(31), lengths - n + 1


def _with_partner(texts: Sequence[str], rows: list[int], n: int, threshold: float) -> list[int]:
    """Those of `rows` that MinHash finds a similar one for: a band of equal digests."""
    import numpy as np
    from rensa import RMinHash, RMinHashLSH  # type: ignore[import-untyped]

    # The widest bands of which two texts at the threshold share one with a probability of 1 - 1 / MISSES.
    share = 1 - (1 / MISSES) ** (1 / BANDS)
    width = min(8, max(1, int(math.log(share) / math.log(threshold)))) if threshold < 1 else 8
    grams, sizes = _grams([texts[row] for row in rows], n)
    offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.uint64)
    digests = RMinHash.digest_matrix_from_flat_token_hashes(grams, offsets, BANDS * width, 0)
    flags = RMinHashLSH(threshold, BANDS * width, BANDS).query_duplicate_flags_matrix_one_shot(
        digests
    )
    return [row for row, flag in zip(rows, flags, strict=True) if flag]


def _jaccard(a: str, b: str) -> float:
    n = 2 if min(len(a), len(b)) < SHORT else 3
    own, other = shingles(a, n), shingles(b, n)
    shared = len(own & other)
    return shared / (len(own) + len(other) - shared)


def _differ(a: str, a_family: str, b: str, b_family: str) -> bool:
    return a_family == b_family and NUMBERS.findall(a) != NUMBERS.findall(b)
