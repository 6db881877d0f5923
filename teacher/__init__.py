"""The scripted teacher of the address task: answers chats offline, in place of a large model.

It is a parser that reads only the text it is given (places.py: the gazetteer; words.py: labels,
phones, names) and shares no code with the script that made the rows. A seeded share of its answers
is spoilt the way real answers are, so that the filter has work to do. The rules that it follows are
written in prompts/teacher.md; docs/address-contract.md is the whole contract.

    answer([{"role": "user", "content": "张三13812345678深圳市南山区科技园路1号"}], "any string")
    -> '{"province": "广东省", "city": "深圳市", "district": "南山区",
         "specific_location": "科技园路1号", ...}'
"""

import hashlib
import json
import re
from collections.abc import Iterator
from typing import NamedTuple

from .places import MUNICIPALITIES, Anchor, find_anchor, gazetteer
from .words import (
    ADDRESS,
    ANCHOR,
    BARE_NAME,
    CHINESE,
    CHUNK,
    COMMON,
    DOUBLE,
    ENDS_PLACE,
    GIVEN_TO,
    GLUED_PHONE,
    HAN,
    IN_PROSE,
    LABEL,
    LABELLED_PHONE,
    LOOSE_WORDS,
    NAME,
    NORMAL,
    ONE_LETTER,
    OTHER,
    OTHER_NUMBER,
    PERSON,
    PHONE,
    PHONES,
    PIECE,
    PLACE,
    PREFIX_TITLE,
    REMARK,
    REMARK_PIECES,
    REMARKS,
    SURNAMES,
    TEL,
    TITLES,
)

KEYS = ("province", "city", "district", "specific_location", "name", "phone")

# Share of the answers that carry each flaw (5 % in all). No check can see the last one, so it stays
# rare.
FLAWS = {
    "cut_off": 0.008,
    "fenced": 0.010,
    "missing_key": 0.007,
    "extra_key": 0.006,
    "short_province": 0.005,
    "phone_digit_dropped": 0.005,
    "invented_word": 0.004,
    "wrong_city_or_district": 0.005,
}
FENCE = "好的，以下是从文本中提取的信息：\n```json\n{}\n```"
INVENTED_WORDS = ("东门", "附近", "商务中心", "一期", "物流园")


def answer(messages: list[dict[str, str]], seed: str) -> str:
    """Raw assistant content for one request; the hash of `seed` (request and sample) alone picks
    the flaw, if any."""
    text = next((m["content"] for m in reversed(messages) if m["role"] == "user"), "")
    return spoil(extract(text), seed)


def _paint(copy: str, start: int, end: int, mark: str) -> str:
    """`copy` with the stretch overwritten by `mark`: what is recognised is out of the way, and
    positions stay true."""
    return copy[:start] + mark * (end - start) + copy[end:]


def _take_phone(copy: str, text: str) -> tuple[str, str]:
    """The copy with every phone number painted over, and the first one under the contract ("" if
    there is none)."""
    found = (
        [*PHONES.finditer(copy)]
        or [*GLUED_PHONE.finditer(copy)][-1:]
        or [*LABELLED_PHONE.finditer(copy)][:1]
    )
    phone = ""
    for match in found:
        groups = match.groupdict()
        kind = "m" if groups.get("m") else "l"
        start = match.start(kind)
        number, extension = text[start : match.end(kind)], text[match.start("x") : match.end()]
        phone = phone or (re.sub(r"[^\d]", "", number) if kind == "m" else number) + extension
        copy = _paint(
            copy, start if match.re is LABELLED_PHONE else match.start(), match.end(), PHONE
        )
    return copy, phone.strip()


def _mark_labels(copy: str) -> str:
    """Paints every label with the mark of its kind."""
    for match in GIVEN_TO.finditer(copy):
        copy = _paint(copy, *match.span(), NAME)
    for match in LABEL.finditer(copy):
        groups, (start, end) = match.groupdict(), match.span()
        bracket = match["close"].strip() and match.group().lstrip()[0] in "[(<{\"'"
        colon = bool(re.search("[:=]", match["close"]) or bracket)
        word_start = next(match.start(g) for g in ("zh", "one", *"ntar") if groups[g])
        left_free = not word_start or not re.match(r"[^\W_]", copy[word_start - 1])
        apart = left_free and bool(match["close"] or not re.match(r"[^\W_]", copy[end : end + 1]))
        if word := groups["zh"]:
            kind = CHINESE[word]
            loose = word in LOOSE_WORDS
            accept = loose and kind != TEL or colon and (loose or apart) or apart and len(word) > 1
            accept = accept or kind == TEL and copy[end : end + 1] == PHONE
            bare = kind == NAME and len(word) > 1 and BARE_NAME.match(copy, end)
            accept = accept or bool(bare) and copy[word_start - 1 : word_start] != "不"
        else:
            letter = groups["one"] or next(g for g in "ntar" if groups[g])
            kind = ONE_LETTER[letter.lower()]
            known = kind in (NAME, TEL) or (groups["a"] or "").lower().startswith("add")
            accept = (
                colon or known and (apart or bool(re.match(rf"[\d+\x01-\x07]|{HAN}", copy[end:])))
            )
        if accept:
            copy = _paint(copy, start, end, kind)
    return copy


def _mark_remarks(copy: str) -> str:
    """Paints remarks: what follows a remark label on its line, and the pieces that say how to
    deliver, not where."""
    for chunk in CHUNK.finditer(copy):
        for piece in PIECE.finditer(copy, *chunk.span(2)):
            word = piece.group()
            labelled = chunk[1] == REMARK and "\n" not in copy[chunk.start(2) : piece.start()]
            other = chunk[1] == NAME or PLACE.search(word) or PERSON.fullmatch(word)
            found = REMARKS.search(word)
            if labelled or (REMARK_PIECES.match(word) and (found or not other)):
                at = 0
            elif found:
                at = found.start()
            else:
                continue
            copy = _paint(copy, piece.start() + at, piece.end(), OTHER)
    return copy


class Span(NamedTuple):
    """A stretch of the text that may be the name; the highest score wins."""

    score: float
    start: int
    end: int


def _find_name(copy: str, titled: set[int]) -> Span | None:
    """Where the name stands: behind its label, else the piece that looks and stands most like a
    name."""
    best: Span | None = None
    for chunk in CHUNK.finditer(copy):
        pieces = [p for p in map(_trim, PIECE.finditer(copy, *chunk.span(2))) if p[0] < p[1]]
        if not pieces:
            continue
        if chunk[1] == NAME and (labelled := _labelled_name(copy, pieces, titled)):
            return labelled
        for span in _name_candidates(copy, chunk, pieces, titled):
            if best is None or span.score > best.score:
                best = span
    return best if best and best.score > 0 else None


def _trim(piece: re.Match[str]) -> tuple[int, int]:
    """Start and end of a piece without the dashes and dots at its ends."""
    word = piece.group()
    left = len(word) - len(word.lstrip("-.·•~&#"))
    right = len(word) - len(re.sub(r"[-.·•~&]+$|(?<![\dA-Za-z])#+$", "", word))
    return piece.start() + left, piece.end() - right


def _labelled_name(copy: str, pieces: list[tuple[int, int]], titled: set[int]) -> Span | None:
    """The name behind its label: the first piece, or the part of it that can be a name."""
    start, end = pieces[0]
    word = copy[start:end]
    if re.fullmatch(r"[A-Za-z.]+", word):  # a name in Latin letters goes on to the last such piece
        for _, later in pieces[1:]:
            end = later if re.fullmatch(r"[A-Za-z.\s]+", copy[start:later]) else end
        return Span(100, start, end)
    second = pieces[1][1] if len(word) == 1 and end not in titled and len(pieces) > 1 else end
    if re.fullmatch(rf"{HAN} {{1,4}}{HAN}{{1,2}}", copy[start:second]):  # a name typed with a gap
        return Span(100, start, second)
    if re.fullmatch(rf"{HAN}{{1,4}}|{HAN}+[·•]{HAN}+", word):
        return Span(100, start, end)
    run_on = re.match(rf"(?:(?:{DOUBLE}){HAN}{{1,2}}?|[{SURNAMES}]{HAN}{{2}})", word)
    return Span(100, start, start + run_on.end()) if run_on else None


def _name_candidates(
    copy: str, chunk: re.Match[str], pieces: list[tuple[int, int]], titled: set[int]
) -> Iterator[Span]:
    """Scored readings of one chunk's pieces as a name; in an address, a name stands at the end or
    runs on from it."""
    place = chunk[1] in (ANCHOR, ADDRESS)
    for i, (start, end) in enumerate(pieces):
        word, last = copy[start:end], i == len(pieces) - 1
        near = (last and copy[chunk.end() : chunk.end() + 1] == PHONE) or (
            not i and chunk[1] == PHONE
        )
        if PERSON.fullmatch(word) or (end in titled and re.fullmatch(f"[{SURNAMES}]", word)):
            alone = (3 if chunk[1] == ANCHOR and start > chunk.start(2) else 1) if place else 10
            among = (5 if last else -3 if i else 2) if place else 8 if last or not i else 4
            score = alone if len(pieces) == 1 else among
            yield Span(score + _looks(word) + 10 * (end in titled) + 2 * near, start, end)
        elif place and last and not IN_PROSE.fullmatch(word):
            for size in (4, 3, 2):
                rest, name = word[:-size], word[-size:]
                if rest and PERSON.fullmatch(name):
                    fits = 3 * bool(ENDS_PLACE.search(rest))
                    yield Span(
                        1 + fits + _looks(name) / 2 + 10 * (end in titled) + near, end - size, end
                    )
        elif (prose := IN_PROSE.fullmatch(word)) and (not place or last):
            yield Span(
                5 + _looks(prose["name"]), start + prose.start("name"), start + prose.end("name")
            )
        elif (
            not place
            and re.fullmatch(rf"{HAN}{{2,4}}", word)
            and len(pieces) == 1
            and not PLACE.search(word)
        ):
            yield Span(0.5 + 10 * (end in titled), start, end)
        elif not place and near and re.fullmatch(r"[A-Za-z]{2,}", word):
            first = pieces[0][0]
            yield Span(0.3, first if re.fullmatch(r"[A-Za-z .]+", copy[first:end]) else start, end)


def _looks(word: str) -> float:
    """How much a word that may be a name looks like one."""
    double = re.match(DOUBLE, word) is not None
    return (
        2 * (word[0] in COMMON or double)
        + (len(word) == 3)
        + 2 * (double and len(word) > 2)
        - 5 * bool(PLACE.search(word))
    )


def _location(copy: str, text: str, name: Span | None, anchor: Anchor | None) -> str:
    """What stands behind the administrative part and in other address fields, as typed; else the
    longest stray text."""
    if name:  # what follows a name inside an address is address still
        marks = [c for c in copy[: name.start] if c <= OTHER]
        copy = _paint(
            copy,
            name.start,
            name.end,
            ANCHOR if marks and marks[-1] in (ANCHOR, ADDRESS) else OTHER,
        )
    parts: list[str] = []
    rest: list[str] = [""]
    for chunk in CHUNK.finditer(copy):
        pieces = [*PIECE.finditer(copy, *chunk.span(2))]
        while pieces and re.fullmatch(r"\d{6}", pieces[-1].group()):  # a postcode
            pieces.pop()
        if pieces:
            leads = anchor and chunk.end() == anchor.start
            part = _slice(text, _trim(pieces[0])[0], _trim(pieces[-1])[1]).removesuffix("的")
            (parts if chunk[1] in (ANCHOR, ADDRESS) and not leads else rest).append(part)
    return re.sub(r"\s+", " ", " ".join(p for p in parts if p) or max(rest, key=len))


def _slice(text: str, start: int, end: int) -> str:
    """text[start:end], with the bracket at either end that the pieces left out."""
    part = text[start:end]
    for left, right in ("()", "（）", "【】", "[]", "《》", "“”"):
        if part.count(left) > part.count(right) and text[end : end + 1] == right:
            return part + right
        if part.count(right) > part.count(left) and start and text[start - 1] == left:
            return left + part
    return part


def extract(text: str) -> dict[str, str]:
    """The six keys that prompts/teacher.md asks for; a key that is not found is ""."""
    copy, phone = _take_phone(
        OTHER_NUMBER.sub(lambda m: OTHER * len(m.group()), text.translate(NORMAL)), text
    )
    copy = _mark_labels(copy)
    anchor = find_anchor(copy)
    if anchor:
        copy = _paint(copy, anchor.start, anchor.end, ANCHOR)
    copy = PREFIX_TITLE.sub(lambda m: " " * len(m.group()), _mark_remarks(copy))
    titles = [*TITLES.finditer(copy)]
    for match in titles:
        copy = _paint(copy, *match.span(), " ")
    name = _find_name(copy, {match.start() for match in titles})
    location = _location(copy, text, name, anchor)
    levels = anchor.levels if anchor else ("", "", "")
    return dict(
        zip(
            KEYS,
            (*levels, location, text[name.start : name.end] if name else "", phone),
            strict=True,
        )
    )


# --- the flaws ------------------------------------------------------------------------------------


def spoil(row: dict[str, str], seed: str) -> str:
    """The row as JSON, spoilt in one of the ways of FLAWS when the hash of `seed` falls into its
    share."""
    digest = hashlib.sha256(seed.encode()).digest()
    pick, detail = (int.from_bytes(part, "big") / 2**64 for part in (digest[:8], digest[8:16]))
    flaw = ""
    for kind, share in FLAWS.items():
        if 0 <= pick < share:
            flaw = kind
        pick -= share
    row = dict(row)
    if flaw == "missing_key":
        del row[KEYS[int(detail * len(KEYS))]]
    elif flaw == "extra_key":
        row |= {"postcode": f"{int(detail * 900000) + 100000}"} if detail < 0.5 else {"remark": ""}
    elif flaw == "short_province":
        row["province"] = re.sub(r"(?:壮族|回族|维吾尔)?自治区$|省$|市$", "", row["province"])
    elif flaw == "phone_digit_dropped":
        at = 1 + int(detail * max(len(row["phone"]) - 1, 0))
        row["phone"] = row["phone"][:at] + row["phone"][at + 1 :]
    elif flaw == "invented_word":
        row["specific_location"] += INVENTED_WORDS[int(detail * len(INVENTED_WORDS))]
    elif flaw == "wrong_city_or_district":
        row |= _mistaken(row, detail)
    raw = json.dumps(row, ensure_ascii=False)
    if flaw == "cut_off":
        return raw[: int(len(raw) * (0.3 + 0.6 * detail))]
    return FENCE.format(raw) if flaw == "fenced" else raw


def _mistaken(row: dict[str, str], detail: float) -> dict[str, str]:
    """Another city for a county-level city (the rule that models confuse most), else a sister
    district."""
    places = gazetteer()
    own = [
        c
        for c, n in places.names.items()
        if n == row["district"] and places.names[c[:2]] == row["province"]
    ]
    if not own:
        return {}
    own.sort(key=lambda c: places.names.get(c[:4]) != row["city"])
    parent = places.names.get(own[0][:4], row["city"])
    if row["district"].endswith("市") and parent != row["district"]:
        return {"city": row["district"] if row["city"] != row["district"] else parent}
    sisters = places.districts.get(own[0][:2] if own[0][:2] in MUNICIPALITIES else own[0][:4], own)
    others = [places.names[c] for c in sisters if c != own[0]] or [row["district"]]
    return {"district": others[int(detail * len(others))]}
