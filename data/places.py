"""The places that an address of the rows can name, and how people type them.

The rules that the comments name are the numbered ones of docs/address-contract.md.
"""

import random
import re
from collections import Counter, defaultdict
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

PLACEHOLDERS = {"市辖区", "县", "省直辖县级行政区划", "自治区直辖县级行政区划"}
# Peoples in the names of regions and prefectures, which the short forms leave out.
PEOPLES = "朝鲜|蒙古|土家|布依|哈尼|哈萨克|柯尔克孜|傈僳|景颇|维吾尔|[藏羌回彝白傣壮苗侗]"


class Place(NamedTuple):
    """One division that an address can name last."""

    province: str
    city: str  # the prefecture; "" where the district stands directly under the province
    district: str  # "" for a prefecture without districts
    unique: bool  # the district's name alone names one place of the gazetteer
    inside: bool  # … one place of its province
    shorts: tuple[str, ...]  # unambiguous short forms of the city


def brief(name: str) -> str:
    """A province, prefecture or district as people shorten it: 广西壮族自治区 → 广西,
    延边朝鲜族自治州 → 延边."""
    stem = re.sub("(自治[区州县旗]|地区|[省市县区盟旗])$", "", name)
    while name.endswith(("自治区", "自治州")) and (people := re.search(f"({PEOPLES})族?$", stem)):
        if people.start() < 2:  # 内蒙古, 西藏
            break
        stem = stem[: people.start()]
    return stem


@lru_cache
def provinces() -> frozenset[str]:
    """The short names of the 31 provinces."""
    return frozenset(brief(place.province) for place in places())


@lru_cache
def places() -> tuple[Place, ...]:
    """Every place that an address can name, from the gazetteer of cpca (Hong Kong, Macau and Taiwan
    left out)."""
    import csv
    from importlib.metadata import distribution

    # `import cpca` would load pandas
    table = Path(str(distribution("cpca").locate_file("cpca/resources/adcodes.csv")))
    with table.open(encoding="utf-8") as file:
        names = {row["adcode"][:6]: row["name"] for row in csv.DictReader(file)}
    names = {
        code: name for code, name in sorted(names.items()) if code[:2] not in ("71", "81", "82")
    }
    province = {code[:2]: name for code, name in names.items() if code.endswith("0000")}
    city = {
        c[:4]: n
        for c, n in names.items()
        if c[4:] == "00" and c[2:] != "0000" and n not in PLACEHOLDERS
    }
    district = {
        c: n
        for c, n in names.items()
        if c[4:] != "00" and n not in PLACEHOLDERS and not n.endswith("海域")
    }
    everywhere = Counter(district.values())
    by_province = Counter((code[:2], name) for code, name in district.items())
    short_provinces = {brief(name) for name in province.values()}
    # stem → prefectures in which some division has it
    stems: dict[str, set[str]] = defaultdict(set)
    for code, name in {**city, **district}.items():
        stems[brief(name)].add(code[:4])

    def shorts(code: str, last: str) -> tuple[str, ...]:
        name = city.get(code[:4], "")
        stem, short = brief(name), []
        # 大理大理市 would read as typed twice
        own_city = last.endswith("市") and brief(last) == stem
        if (
            name
            and stem not in short_provinces
            and stems[stem] == {code[:4]}
            and not own_city
            and last[0] != "市"
        ):
            short.append(stem)
        return (*short, *([stem + "州"] if name.endswith("自治州") else []))

    def found(code: str, name: str) -> Place:
        """A district, with what it may be typed without."""
        clear = not re.match("(.区$|市)", name) and not name.startswith(tuple(short_provinces))
        above = city.get(
            code[:4], province[code[:2]] if code[:2] in ("11", "12", "31", "50") else ""
        )
        unique, inside = clear and everywhere[name] == 1, clear and by_province[code[:2], name] == 1
        return Place(province[code[:2]], above, name, unique, inside, shorts(code, name))

    with_districts = {code[:4] for code in district}
    bare = [
        Place(province[c[:2]], n, "", True, True, ())
        for c, n in city.items()
        if c not in with_districts
    ]
    return (*(found(code, name) for code, name in district.items()), *bare)


def typed(place: Place, rng: random.Random) -> tuple[tuple[str, ...], str, str]:
    """The region as somebody types it, and the city and district that it means (rules 1 to 7)."""
    province, city, district = place.province, place.city, place.district
    short = rng.choice(["内蒙", "内蒙古"]) if province.startswith("内蒙古") else brief(province)
    first: tuple[str, ...] = rng.choices([(province,), (short,), ()], (60, 20, 20))[0]
    if province == city:
        forms: list[tuple[str, ...]] = [(city, district), (short, district)]
        forms += [(city, city, district), (short, city, district), (district,)]
        parts = rng.choices(forms, (60, 24, 8, 3, 5 * place.unique))[0]
        return parts, city, district
    if not district:  # rule 6
        return (*first, *(city,) * rng.choices((1, 2), (9, 1))[0]), city, city
    # rules 3 and 4: the prefecture is left out
    if not city or (district.endswith("市") and rng.random() < 0.58):
        twice = rng.random() < (0.3 if district.endswith("市") else 0)
        own = twice or not city.endswith("市")
        return (*first, *(district,) * (1 + twice)), district if own else city, district
    if rng.random() < 0.065 and place.inside and not district.endswith("市"):  # rules 5 and 7
        return (*(first or (province,) * (not place.unique)), district), city, district
    called = rng.choice(place.shorts) if place.shorts and rng.random() < 0.12 else city
    return (*first, called, district), city, district
