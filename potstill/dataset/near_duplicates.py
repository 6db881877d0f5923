"""Near-duplicates of short texts: Jaccard similarity of character shingles (Broder 1997).

A text is normalised (NFKC, no white space). Two texts are compared by their 3-grams, or by their
2-grams when either has under SHORT characters; a text shorter than that is one shingle, so that
two different short texts never collapse.

Every pair that is returned was compared by its shingles; the index only spares comparisons, and
loses no pair:
- of two near-duplicates each has a shingle of the other's among its few first in any one order
  (prefix filtering, Chaudhuri et al. 2006), here the rarest first;
- where many texts share one of those, a bit map of each text's shingles bounds from below in how
  many shingles two texts differ (Sandes et al. 2020).
"""

import heapq
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]

SHORT = 20  # characters; below it one changed character changes too large a share of the 3-grams
WORDS = 4  # of 64 bits in a bit map
FEW = 16  # candidates that are compared without a look at the bit maps
SCAN = 2000  # bit maps that are looked at in the time of one comparison
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


def pairs(
    texts: Sequence[str],
    threshold: float,
    wanted: Callable[[int, int], bool] | None = None,
    before: int | None = None,
) -> Iterator[tuple[int, int, float]]:
    """All pairs i < j whose similarity is at least `threshold` (above 0, up to 1), each with that
    similarity, in the order of j, then of i; with `before` only those of i < before <= j. Only
    pairs that are `wanted` at the time are compared: what was found before may decide."""
    texts = [normal(text) for text in texts]
    index = _Index(threshold)
    for j, signatures in _signed(texts, threshold):
        if before is None or j >= before:
            for i, similarity in index.near(texts[j], signatures, _with(wanted, j)):
                yield i, j, similarity
        if before is None or j < before:
            index.add(j, texts[j], signatures)


def _with(wanted: Callable[[int, int], bool] | None, j: int) -> Callable[[int], bool] | None:
    return None if wanted is None else lambda i: wanted(i, j)


def firsts(
    texts: Sequence[str], families: Sequence[str], threshold: float, always: int = 0
) -> list[int | None]:
    """For each text, in order, the index of the earliest kept text that it is a near-duplicate of,
    or None: it is kept, as the first `always` texts are, whatever they are like.

    Two texts of one family with different numbers are no near-duplicates: 50字 and 80字 are two
    requests.
    """
    texts = [normal(text) for text in texts]
    first: list[int | None] = [None] * len(texts)
    index = _Index(threshold)
    for j, signatures in _signed(texts, threshold):
        for i, _ in index.near(texts[j], signatures) if j >= always else ():
            if not _vary(texts[i], families[i], texts[j], families[j]):
                first[j] = i
                break
        else:
            index.add(j, texts[j], signatures)
    return first


class Seen:
    """Texts added one by one, and the near-duplicates among them. `threshold`: above 0, up to 1."""

    def __init__(self, threshold: float) -> None:
        self.threshold = threshold
        self._keys: list[tuple[str, str]] = []  # key and family of each text
        self._index = _Index(threshold)

    def add(self, key: str, text: str, family: str) -> None:
        """Adds a text under `key`."""
        text = normal(text)
        self._index.add(len(self._keys), text, self._signatures(text))
        self._keys.append((key, family))

    def find(self, text: str, family: str) -> str | None:
        """The key of the earliest text added that this one is a near-duplicate of, but for texts
        of one family with different numbers; None when there is none."""
        text = normal(text)
        for row, _ in self._index.near(text, self._signatures(text)):
            key, other_family = self._keys[row]
            if not _vary(text, family, self._index.texts[row], other_family):
                return key
        return None

    def _signatures(self, text: str) -> "_Signatures":
        [(_, signatures)] = _signed([text], self.threshold, alone=True)
        return signatures


@dataclass(slots=True)
class _Signature:
    """What the index knows of the n-grams of one text."""

    keys: list[int]  # of the rarest shingles: a near-duplicate shares one
    bits: Array  # WORDS numbers: bit b is set when an odd number of the shingles fall on b
    room: int  # the most shingles that only one of this text and a near-duplicate has


_Signatures = dict[int, _Signature]  # of one text, by n


class _Shelf:
    """Texts by their n-grams of one length."""

    def __init__(self) -> None:
        self.rows: list[int] = []
        self.places: dict[int, list[int]] = {}  # key → places in rows
        self.bits = np.empty((WORDS, 1024), np.uint64)

    def add(self, row: int, signature: _Signature) -> None:
        place = len(self.rows)
        if place == self.bits.shape[1]:
            self.bits = np.concatenate([self.bits, np.empty_like(self.bits)], axis=1)
        self.rows.append(row)
        self.bits[:, place] = signature.bits
        for key in signature.keys:
            self.places.setdefault(key, []).append(place)

    def candidates(self, signature: _Signature) -> Iterable[int]:
        """The rows that may be near-duplicates, in any order."""
        lists = [self.places[key] for key in signature.keys if key in self.places]
        if sum(map(len, lists)) <= max(FEW, len(self.rows) // SCAN):
            return {self.rows[place] for places in lists for place in places}
        differ = np.zeros(len(self.rows), np.uint16)
        for bits, own in zip(self.bits, signature.bits, strict=True):
            differ += np.bitwise_count(bits[: len(differ)] ^ own)
        return [self.rows[place] for place in np.flatnonzero(differ <= signature.room).tolist()]


class _Index:
    """Texts by number, and which of them are near-duplicates of another."""

    def __init__(self, threshold: float) -> None:
        self.threshold = threshold
        self.texts: dict[int, str] = {}
        self.shelves = {2: _Shelf(), 3: _Shelf()}

    def add(self, row: int, text: str, signatures: _Signatures) -> None:
        self.texts[row] = text
        for n, signature in signatures.items():
            self.shelves[n].add(row, signature)

    def near(
        self, text: str, signatures: _Signatures, wanted: Callable[[int], bool] | None = None
    ) -> Iterator[tuple[int, float]]:
        """The texts added that are near-duplicates, in order, each with its similarity; only those
        that are `wanted` are compared."""
        rows = (self.shelves[n].candidates(signature) for n, signature in signatures.items())
        for row in sorted(set().union(*rows)):
            if wanted and not wanted(row):
                continue
            if (similarity := _jaccard(self.texts[row], text)) >= self.threshold:
                yield row, similarity


def _signed(
    texts: Sequence[str], threshold: float, alone: bool = False
) -> Iterator[tuple[int, _Signatures]]:
    """The texts that may have a near-duplicate, in order: among `texts`, or, when it is `alone`,
    elsewhere. A long text has 2-grams only where so few differ that a short one may be like it."""
    most = (SHORT - 2) / threshold  # 2-grams; the different characters are one more at most
    rows = {
        2: [i for i, text in enumerate(texts) if len(text) < SHORT or len(set(text)) <= most + 1],
        3: [i for i, text in enumerate(texts) if len(text) >= SHORT],
    }
    streams = [_of_length(texts, rows[n], n, threshold, alone) for n in rows]
    for row, group in groupby(heapq.merge(*streams, key=itemgetter(0)), itemgetter(0)):
        yield row, {n: signature for _, n, signature in group}


def _of_length(
    texts: Sequence[str], rows: list[int], n: int, threshold: float, alone: bool
) -> Iterator[tuple[int, int, _Signature]]:
    """(row, n, signature) for each of `rows`, or for those that share a key with another."""
    if not rows:
        return
    grams, sizes = _grams([texts[row] for row in rows], n)
    # One sort serves all texts: by the text's place, then rarest first (5 bits), then by the hash.
    width = np.uint64(64 - len(rows).bit_length())
    keys = grams >> np.uint64(69) - width
    if not alone:
        keys |= _logs(grams >> np.uint64(64 - min(24, len(grams).bit_length()))) << width - 5
    del grams
    keys |= np.repeat(np.arange(len(rows), dtype=np.uint64) << width, sizes)
    keys.sort()
    keys = keys[np.concatenate([[True], keys[1:] != keys[:-1]])]
    place = (keys >> width).astype(np.uint32)
    starts = np.flatnonzero(np.diff(place, prepend=-1))
    bits = np.stack([_bit_maps(keys, word, starts) for word in range(WORDS)], 1)
    # By the number of n-grams, which is the set's size or more: keys of equal hashes are one key.
    lacking = ((1 - threshold) * sizes + 1e-9).astype(np.int64)
    rooms = ((1 - threshold) / threshold * sizes + 1e-9).astype(np.int64).tolist()
    used = np.arange(len(keys)) - starts[place] <= lacking[place]
    place, keys = place[used], keys[used] & (np.uint64(1) << width) - 1
    if not alone:
        _, which, occurrences = np.unique(keys, return_inverse=True, return_counts=True)
        shared = occurrences[which] > 1
        place, keys = place[shared], keys[shared]
    starts = np.flatnonzero(np.diff(place, prepend=-1))
    ends = [*starts[1:].tolist(), len(place)]
    for at, start, end in zip(place[starts].tolist(), starts.tolist(), ends, strict=False):
        yield rows[at], n, _Signature(keys[start:end].tolist(), bits[at], rooms[at])


def _logs(values: Array) -> Array:
    """For each value the logarithm of how often it occurs."""
    return np.log2(np.bincount(values).clip(1)).astype(np.uint64)[values]


def _bit_maps(keys: Array, word: int, starts: Array) -> Array:
    """One word of the bit map of each text, whose keys begin at `starts`."""
    bits = np.where(keys >> np.uint64(6) & 3 == word, np.uint64(1) << (keys & 63), 0)
    return np.bitwise_xor.reduceat(bits.astype(np.uint64, copy=False), starts)


def _grams(texts: list[str], n: int) -> tuple[Array, Array]:
    """The hashes of all n-grams (64 bits), text after text, and how many each text has."""
    texts = [text.ljust(n, "\0") for text in texts]
    lengths = np.fromiter(map(len, texts), np.int64, len(texts))
    encoded = "".join(texts).encode("utf-32-le", "surrogatepass")
    codes = np.frombuffer(encoded, np.uint32).astype(np.uint64)
    grams = codes[n - 1 :].copy()
    for i in range(1, n):
        grams |= codes[n - 1 - i : -i] << np.uint64(21 * i)
    whole = np.ones(len(codes), bool)
    for i in range(1, n):
        whole[np.cumsum(lengths) - i] = False  # begins in one text and ends in the next
    grams = grams[whole[: len(grams)]]
    # the mixer of splitmix64 (Vigna 2015)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        grams ^= grams >> np.uint64(shift)
        grams *= np.uint64(factor)
    return grams ^ grams >> np.uint64(31), lengths - n + 1


def _jaccard(a: str, b: str) -> float:
    n = 2 if min(len(a), len(b)) < SHORT else 3
    own, other = shingles(a, n), shingles(b, n)
    shared = len(own & other)
    return shared / (len(own) + len(other) - shared)


def _vary(a: str, a_family: str, b: str, b_family: str) -> bool:
    """Whether two texts are of one family and have different numbers."""
    return a_family == b_family and NUMBERS.findall(a) != NUMBERS.findall(b)
