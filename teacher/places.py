"""The administrative part of an address: the gazetteer, and how a text is read with it."""

import csv
import re
from collections.abc import Iterator
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

MUNICIPALITIES = ("11", "12", "31", "50")
OUT_OF_SCOPE = ("71", "81", "82")  # the gazetteer has no level below Taiwan, Hong Kong and Macau
PLACEHOLDER = re.compile(
    r"市辖区$|县$|.*直辖县级行政区划$"
)  # rows of the gazetteer that are not places
ETHNIC = re.compile(
    r"(?:(?:朝鲜|土家|哈尼|傈僳|景颇|布依|蒙古|柯尔克孜|哈萨克|[藏羌苗彝白傣壮回侗])族?)+自治州$"
)


class Form(NamedTuple):
    """One way to write a place: its level (0 province, 1 city, 2 district), the prefix of its code
    (2, 4 or 6 digits), and whether it is written in full."""

    level: int
    code: str
    full: bool


class Gazetteer(NamedTuple):
    names: dict[str, str]  # code prefix -> official name
    forms: dict[str, list[Form]]  # what may be typed -> what it may mean
    lengths: dict[
        str, list[int]
    ]  # first character -> lengths of the forms that begin with it, longest first
    districts: dict[str, list[str]]  # prefecture or municipality -> codes of its districts


@lru_cache(maxsize=1)
def gazetteer() -> Gazetteer:
    """Reads the administrative levels once (3,500 rows, about 15 ms)."""
    names: dict[str, str] = {}
    spec = find_spec("cpca")  # the package is found but not imported: it would import pandas
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(
            "the package cpca is not installed: the scripted teacher reads its gazetteer"
        )
    with (Path(spec.origin).parent / "resources" / "adcodes.csv").open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            code = row["adcode"][:6].removesuffix("00")
            code = code.removesuffix("00") if len(code) == 4 else code
            if code[:2] not in OUT_OF_SCOPE and not PLACEHOLDER.match(row["name"]):
                names[code] = row["name"]
    forms: dict[str, list[Form]] = {}
    districts: dict[str, list[str]] = {}

    def add(name: str, form: Form) -> None:
        if all(known[:2] != form[:2] for known in forms.setdefault(name, [])):
            forms[name].append(form)

    for code, name in names.items():
        if len(code) == 6:
            add(name, Form(2, code, True))
            districts.setdefault(code[:2] if code[:2] in MUNICIPALITIES else code[:4], []).append(
                code
            )
            continue
        if len(code) == 2:
            shorts = [re.sub(r"(?:壮族|回族|维吾尔)?自治区$|省$|市$", "", name)]
            shorts += ["内蒙"] if shorts == ["内蒙古"] else []
        else:
            shorts = [re.sub(r"市$|地区$|盟$", "", name)]
            if name.endswith("州"):
                shorts = [ETHNIC.sub("", name), ETHNIC.sub("州", name)]
        # a municipality is its own city, so its name may stand on either level
        for level in (0, 1) if code in MUNICIPALITIES else (len(code) // 2 - 1,):
            add(name, Form(level, code, True))
            for short in shorts:
                add(short, Form(level, code, short.endswith("州")))
    lengths: dict[str, set[int]] = {}
    for name in forms:
        lengths.setdefault(name[0], set()).add(len(name))
    return Gazetteer(
        names, forms, {c: sorted(n, reverse=True) for c, n in lengths.items()}, districts
    )


class Anchor(NamedTuple):
    """Where the administrative part stands in the text and what it says."""

    score: int
    start: int
    end: int
    levels: tuple[str, str, str]


GAP = r"[\s,/|\-_>·.、:;&+\"'\\=()\[\]→\x04]*"  # \x04 is the mark of an address label
GAPS = re.compile(rf"{GAP}(?:(?:市辖区|(?:省|自治区)直辖县(?:级行政区划|级)?){GAP})?")
# "昆山市昆山市民中心" and "昆山市昆山市第一中学" do not type the city twice
NOT_AGAIN = re.compile(
    r"[场民政委立区]|第[一二三四五六七八九十\d]|人民(?:医院|政府|法院)|实验|中心|中医|博物|图书|"
    r"体育"
)
UNLISTED = re.compile(
    r"(?!.{0,3}[小社园校厂]区)[^\W\d_路街道巷村镇号]{1,6}?(?:自治县|开发区|园区|新区|区|县|"
    r"旗)(?![内一-十\d])"
)


def find_anchor(text: str) -> Anchor | None:
    """The best administrative part of the normalised `text`: the one with most levels that fit
    together."""
    places = gazetteer()
    best: Anchor | None = None
    for start in range(len(text)):
        for anchor in _anchors_at(text, start, places):
            if best is None or anchor.score > best.score:
                best = anchor
    return best


def _forms_at(text: str, start: int) -> list[tuple[int, Form]]:
    """What may begin at `start`: (end, form), longest first."""
    places = gazetteer()
    lengths = places.lengths.get(text[start : start + 1], ())
    typed = [(start + n, text[start : start + n]) for n in lengths if start + n <= len(text)]
    return [(end, form) for end, name in typed for form in places.forms.get(name, ())]


def _anchors_at(text: str, start: int, places: Gazetteer) -> Iterator[Anchor]:
    """Every reading of what begins at `start` as [province] [city] [district], each under the one
    before."""
    first = _forms_at(text, start)
    if not first:
        return
    for end0, province in [*((e, f) for e, f in first if f.level == 0), (start, None)]:
        at1 = _gap(text, end0, start)
        prefix0, score0 = (province.code, 3 if province.full else 2) if province else ("", 0)
        cities = [
            (e, f) for e, f in _forms_at(text, at1) if f.level == 1 and f.code.startswith(prefix0)
        ]
        for end1, city in [*cities, (end0, None)]:
            if not province and not city and all(f.level < 2 for _, f in first):
                continue
            prefix1 = city.code if city else prefix0
            score1 = score0 + ((3 if city.full else 2) if city else 0)
            at2 = _gap(text, end1, start)
            forms = _forms_at(text, at2)
            matches = [(e, f.code) for e, f in forms if f.level == 2 and f.code.startswith(prefix1)]
            for end2, code in matches:
                doubt = 4 if end2 - at2 < 3 and not prefix1 else 3 if len(matches) > 1 else 0
                may_repeat = text[end2 - 1] == "市" or code[2:4] == "90"
                end = _again(text, end2, text[at2:end2]) if may_repeat else end2
                levels = _levels(code, typed_city=bool(city), twice=end > end2)
                yield Anchor(score1 + 6 - doubt + 3 * (end > end2), start, end, levels)
            if not city or city.code in MUNICIPALITIES and not matches and not province:
                continue
            names = places.names[city.code[:2]], places.names[city.code]
            if (
                city.code not in places.districts
            ):  # 东莞市 and its like: no districts, so they repeat themselves
                end = _again(text, end1, names[1])
                yield Anchor(score1 + (3 if city.full else 2), start, end, (*names, names[1]))
            elif not matches:  # a district younger than the gazetteer, as typed
                unlisted = UNLISTED.match(text, at2)
                end = unlisted.end() if unlisted else end1
                score = score1 + (4 if city.full else 2) * bool(unlisted)
                yield Anchor(score, start, end, (*names, unlisted.group() if unlisted else ""))


def _gap(text: str, at: int, start: int) -> int:
    """The end of the separators and placeholders at `at`, when a place was read before them."""
    found = GAPS.match(text, at) if at > start else None
    return found.end() if found else at


def _again(text: str, end: int, name: str) -> int:
    """The end of `name` typed once more behind `end`, else `end`."""
    at = _gap(text, end, 0)
    stop = at + len(name)
    return stop if text[at:stop] == name and not NOT_AGAIN.match(text, stop) else end


def _levels(code: str, typed_city: bool, twice: bool) -> tuple[str, str, str]:
    """Official province, city, district of a six-digit code under the address contract."""
    names = gazetteer().names
    province, district = names[code[:2]], names[code]
    parent = province if code[:2] in MUNICIPALITIES else names.get(code[:4], district)
    lone = not typed_city and not parent.endswith("市")
    return province, district if district.endswith("市") and (twice or lone) else parent, district
