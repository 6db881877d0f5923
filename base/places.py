"""Chinese administrative geography for the tiny base's pretraining text.

The divisions come from the gazetteer of the `cpca` package; what stands beside them in a delivery
text is made by base/details.py.
"""

from __future__ import annotations

import csv
import importlib.util
import random
from collections import Counter
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

PLACEHOLDERS = {"市辖区", "县", "省直辖县级行政区划", "自治区直辖县级行政区划"}
OUT_OF_SCOPE = {"71", "81", "82"}
PROVINCE_SHORT = {
    "内蒙古自治区": ["内蒙古", "内蒙"],
    "广西壮族自治区": ["广西"],
    "西藏自治区": ["西藏"],
    "宁夏回族自治区": ["宁夏"],
    "新疆维吾尔自治区": ["新疆"],
}
NATIONS = (
    "蒙古族 回族 藏族 维吾尔 苗族 彝族 壮族 布依族 朝鲜族 满族 侗族 瑶族 白族 土家族 哈尼族 "
    "哈萨克 傣族 黎族 傈僳族 佤族 畲族 拉祜族 水族 东乡族 纳西族 景颇族 柯尔克孜 土族 达斡尔族 "
    "仫佬族 羌族 布朗族 撒拉族 毛南族 仡佬族 锡伯 普米族 塔吉克 怒族 鄂温克族 德昂族 保安族 "
    "裕固族 独龙族 鄂伦春 各族 蒙古"
).split()


class Place(NamedTuple):
    """One place as the labels name it: official province, city and district, and its real
    prefecture if it has one."""

    province: str
    city: str
    district: str
    prefecture: str
    kind: str  # district | county | county_city | direct | whole


@lru_cache(1)
def places() -> list[Place]:
    """Every place of the gazetteer that an address can stand in, in code order."""
    spec = importlib.util.find_spec("cpca")  # not imported: that would load pandas
    if not spec or not spec.origin:
        raise ModuleNotFoundError("cpca, whose gazetteer this reads")
    source = Path(spec.origin).with_name("resources").joinpath("adcodes.csv").read_text("utf8")
    names = {row["adcode"][:6]: row["name"] for row in csv.DictReader(source.splitlines())}
    found: list[Place] = []
    parents = {
        code[:4] for code, name in names.items() if code[4:] != "00" and name not in PLACEHOLDERS
    }
    for code, name in sorted(names.items()):
        if code[:2] in OUT_OF_SCOPE or code[2:] == "0000" or name in PLACEHOLDERS:
            continue
        province, above = names[code[:2] + "0000"], names.get(code[:4] + "00", "")
        if code[4:] == "00":
            if code[:4] not in parents:
                found.append(Place(province, name, name, name, "whole"))
        elif province.endswith("市"):
            found.append(Place(province, province, name, province, "district"))
        elif above in PLACEHOLDERS or not above:
            found.append(Place(province, name, name, "", "direct"))
        elif name.endswith("市"):
            found.append(Place(province, above, name, above, "county_city"))
        else:
            kind = "county" if name[-1] in "县旗" else "district"
            found.append(Place(province, above, name, above, kind))
    return found


@lru_cache(64)
def unique_names(province: str = "") -> frozenset[str]:
    """District and city names that only one place has, in the country or in one province."""
    held = [p for p in places() if province in ("", p.province)]
    count = Counter(p.district for p in held) + Counter(
        {p.prefecture for p in held if p.prefecture}
    )
    return frozenset(
        name for name, n in count.items() if n == 1 and (len(name) > 2 or name[-1] != "区")
    )


@lru_cache(1)
def leaned_on() -> list[Place]:
    """Places as often as an address leans on knowing them: what people type without the prefecture
    comes more than once."""
    times = {"county_city": 4, "direct": 2}
    found = []
    for place in places():
        brief = place.district in unique_names(place.province) and not place.province.endswith("市")
        found += [place] * times.get(place.kind, 2 if brief else 1)
    return found


def short_province(rng: random.Random, name: str) -> str:
    """广西壮族自治区 → 广西."""
    return rng.choice(PROVINCE_SHORT.get(name, [name[:-1]]))


def short_city(rng: random.Random, name: str) -> str:
    """深圳市 → 深圳, 延边朝鲜族自治州 → 延边州 or 延边; unchanged where the short form would be a
    single character."""
    if name.endswith("自治州"):
        stem = name[:-3]
        cut = True
        while cut:
            cut = False
            for nation in NATIONS:
                if stem.endswith(nation) and len(stem) > len(nation) + 1:
                    stem, cut = stem[: -len(nation)], True
        return rng.choice([stem + "州", stem])
    stem = name[:-2] if name.endswith("地区") else name[:-1]
    return stem if len(stem) > 1 else name


def typed(rng: random.Random, place: Place | None = None, brief: float = 0.3) -> tuple[str, Place]:
    """A place as people type it, with the labels that follow from what was typed
    (docs/address-contract.md).

    With the probability `brief` the prefecture is left out where the rest still names one place.
    """
    place = place or rng.choice(places())
    gap = rng.choice([""] * 16 + [" ", " ", " ", "-", "/", ",", "，"])
    province, city, district = place.province, place.prefecture, place.district
    roll = rng.random()
    first = province if roll < 0.42 else short_province(rng, province) if roll < 0.67 else ""
    alone, brief_here = district in unique_names(), rng.random() < brief
    if province.endswith("市"):  # a municipality
        start = rng.choice(
            [
                province,
                province,
                province[:-1],
                province + gap + province,
                province[:-1] + gap + province,
            ]
        )
        return (
            district if alone and brief_here and rng.random() < 0.4 else start + gap + district
        ), place
    head = first + gap if first else ""
    if place.kind in ("whole", "direct"):
        return head + district + (gap + district if rng.random() < 0.12 else ""), place
    if place.kind == "county_city" and rng.random() < brief + 0.2:
        if rng.random() < 0.3:  # typed twice: it is city and district
            return head + district + gap + district, place._replace(city=district)
        if first or alone:
            return head + district, place if city.endswith("市") else place._replace(city=district)
    elif place.kind in ("county", "district") and brief_here:
        if alone:
            return head + district, place
        if district in unique_names(province):
            return (first or province) + gap + district, place
    middle = short_city(rng, city) if rng.random() < 0.18 else city
    if not first and middle != city and not alone:
        middle = city
    return gap.join(part for part in (first, middle, district) if part), place
