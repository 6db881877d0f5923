"""The rows of the address task: what data/ holds; gold labels follow from what is typed."""

import random
import re
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from data import places as geo
from data import rows
from potstill.core.jsonl import read_jsonl, row_id, squeeze

BY_NAME = {(place.city, place.district): place for place in geo.places()}
COMPOUND = tuple(rows.weighted("compound")[0])
PROVINCES = tuple(geo.provinces() | {"内蒙"})
OWN = {place.district or place.city: place for place in geo.places()}


def seeds() -> list[rows.Row]:
    """The rows of seeds.jsonl."""
    return rows.make()[0]


def gold(*slices: int) -> list[rows.Row]:
    """The rows of gold.jsonl: slice 1 is like_seeds, 2 unseen_layout."""
    return [row for part in slices or (1, 2) for row in rows.make()[part]]


def test_committed_files_are_what_the_script_makes() -> None:
    for name, made in rows.files().items():
        assert read_jsonl(rows.DATA / name) == made, f"{name}: run `python -m data.rows`"


def test_made_twice_alike() -> None:
    assert rows.lines(rows.LAYOUTS, 400, "a seed") == rows.lines(rows.LAYOUTS, 400, "a seed")


def test_counts_ids_and_slices() -> None:
    made, labelled = rows.files()["seeds.jsonl"], rows.files()["gold.jsonl"]
    assert (len(made), len(labelled)) == (4000, 500)
    assert [row["slice"] for row in labelled] == ["like_seeds"] * 400 + ["unseen_layout"] * 100
    assert (
        len({row["id"] for row in made + labelled})
        == len({row["text"] for row in made + labelled})
        == 4500
    )
    assert all(row["id"] == row_id({"text": row["text"]}) for row in made + labelled)
    assert all(tuple(row["gold"]) == rows.KEYS and all(row["gold"].values()) for row in labelled)


def test_no_name_of_a_gold_row_occurs_in_a_seed() -> None:
    typed = "\n".join(squeeze(row.text) for row in seeds())
    for row in gold():
        assert row.record.gold["name"] in row.record.held
        found = [text for text in (*row.record.held, row.record.gold["phone"]) if text in typed]
        assert not found, f"{found} of {row.text!r} stands in a seed"
    # a street, estate, village … beside the person
    assert sum(len(row.record.held) > 1 for row in gold()) > 490


def test_layouts() -> None:
    assert len(set(rows.LAYOUTS)) == len(rows.LAYOUTS) >= 40
    assert len(set(rows.UNSEEN)) == len(rows.UNSEEN) >= 12 and not set(rows.UNSEEN) & set(
        rows.LAYOUTS
    )
    used = Counter(row.layout for row in seeds())
    assert (
        set(used) == set(rows.LAYOUTS) == {row.layout for row in gold(1)}
        and min(used.values()) >= 50
    )
    assert set(Counter(row.layout for row in gold(2)).values()) == {5}
    orders = {
        re.sub("[^anp]", "", re.sub(r"\{(?![anprd]\})\w+\}", "", x.replace("{r}", "{a}")))
        for x in rows.LAYOUTS
    }
    assert {"anp", "apn", "nap", "npa", "pan", "pna"} <= orders


@pytest.mark.parametrize(
    "mark", list("【】★│→#_=<>{}&\"'") + [r"[(（][+\d]", "麻烦寄", "我叫", "^To", "邮编", r"^\d\. "]
)
def test_seeds_have_no_mark_of_an_unseen_layout(mark: str) -> None:
    pattern = re.compile(mark if len(mark) > 1 else re.escape(mark), re.MULTILINE)
    allowed = r"\d#(楼|\d)"  # 12#楼, 3#501: a building's number
    assert not [row.text for row in seeds() if pattern.search(re.sub(allowed, "", row.text))]


def test_coverage() -> None:
    labels = [row.record.gold for row in seeds()]
    assert len({label["province"] for label in labels}) == 31
    prefectures = {(place.province, place.city) for place in geo.places() if place.city}
    assert (
        prefectures <= {(label["province"], label["city"]) for label in labels}
        and len(prefectures) > 330
    )
    assert len({(label["city"], label["district"]) for label in labels}) >= 2000
    assert len({row.record.name for row in seeds()}) > 3900
    streets = [
        text for row in seeds() for text in row.record.held if re.search("[路街道巷]$", text)
    ]
    assert len(set(streets)) > 0.9 * len(streets)


@pytest.mark.parametrize(
    ("what", "holds", "low", "high"),
    [
        ("typed twice", lambda r: re.search(r"(..+市)[ /-]?\1", r.text), 0.03, 0.08),
        ("compound surname", lambda r: r.record.name.startswith(COMPOUND), 0.03, 0.06),
        ("four characters", lambda r: len(r.record.name) == 4, 0.01, 0.04),
        ("title", lambda r: r.record.title, 0.04, 0.09),
        ("landline", lambda r: r.record.gold["phone"][0] == "0", 0.14, 0.22),
        ("extension", lambda r: re.search("转|-.*-", r.record.gold["phone"]), 0.03, 0.09),
        ("virtual number", lambda r: r.record.gold["phone"][0] == "2", 0.10, 0.18),
        ("country code", lambda r: re.match(r"\+86|0086|86[ -]", r.record.phone), 0.03, 0.09),
        ("spaced mobile", lambda r: r.record.gold["phone"] not in r.record.phone, 0.06, 0.14),
        ("province out", lambda r: not r.record.region[0].startswith(PROVINCES), 0.15, 0.25),
        ("city-level", lambda r: r.record.gold["district"].endswith("市"), 0.13, 0.20),
        ("county", lambda r: re.search("[县旗]$", r.record.gold["district"]), 0.22, 0.30),
        ("its own city", lambda r: r.record.gold["city"] == r.record.gold["district"], 0.05, 0.13),
        ("remark", lambda r: any(x in r.text for x in rows.weighted("remark")[0]), 0.06, 0.10),
    ],
)
def test_shares(what: str, holds: Callable[[rows.Row], object], low: float, high: float) -> None:
    assert low <= sum(bool(holds(row)) for row in seeds()) / len(seeds()) <= high, what


def test_labels_are_found_in_the_text() -> None:
    for row in seeds() + gold():
        text, label = squeeze(row.text), row.record.gold
        assert label["name"] in text and 2 <= len(label["name"]) <= 4
        assert squeeze(label["specific_location"]) in text
        if label["phone"][0] == "0":
            assert (
                re.fullmatch(r"0\d{2,3}-?\d{7,8}([-转]\d{3,4})?", label["phone"])
                and label["phone"] in text
            )
        else:
            assert re.fullmatch(r"[12]\d{10}", label["phone"]) and label["phone"] in text.replace(
                "-", ""
            )


def test_divisions_are_official_names_of_the_gazetteer() -> None:
    for row in seeds() + gold():
        province, city, district = (row.record.gold[key] for key in rows.KEYS[:3])
        # its own city: typed twice or without its prefecture, under the province, or without
        # districts
        place = OWN[city] if city == district else BY_NAME[city, district]
        assert place.province == province
        assert row.record.region[-1] == district


@pytest.mark.parametrize(
    ("region", "province", "city"),
    [  # the rules of the contract: a place as typed, and what it means
        (("天津市", "河西区"), "天津市", "天津市"),
        (("天津", "河西区"), "天津市", "天津市"),
        (("天津市", "天津市", "河西区"), "天津市", "天津市"),
        (("重庆市", "忠县"), "重庆市", "重庆市"),
        (("深圳市", "南山区"), "广东省", "深圳市"),
        (("广西", "南宁市", "青秀区"), "广西壮族自治区", "南宁市"),
        (("内蒙", "呼和浩特市", "新城区"), "内蒙古自治区", "呼和浩特市"),
        (("吉林省", "延边", "汪清县"), "吉林省", "延边朝鲜族自治州"),
        (("大理州", "鹤庆县"), "云南省", "大理白族自治州"),
        (("云南省", "大理白族自治州", "大理市"), "云南省", "大理白族自治州"),
        (("大理市",), "云南省", "大理市"),
        (("云南省", "大理市"), "云南省", "大理市"),
        (("大理市", "大理市"), "云南省", "大理市"),
        (("江苏省", "昆山市"), "江苏省", "苏州市"),
        (("昆山市",), "江苏省", "苏州市"),
        (("苏州", "昆山市"), "江苏省", "苏州市"),
        (("昆山市", "昆山市"), "江苏省", "昆山市"),
        (("仙桃市",), "湖北省", "仙桃市"),
        (("湖北省", "仙桃市"), "湖北省", "仙桃市"),
        (("云南省", "鹤庆县"), "云南省", "大理白族自治州"),
        (("海南省", "定安县"), "海南省", "定安县"),
        (("湖北省", "神农架林区"), "湖北省", "神农架林区"),
        (("广东省", "东莞市"), "广东省", "东莞市"),
        (("儋州市",), "海南省", "儋州市"),
    ],
)
def test_what_a_typed_region_means(region: tuple[str, ...], province: str, city: str) -> None:
    last = region[-1]
    places = [p for p in geo.places() if p.province == province and (p.district or p.city) == last]
    place = next(p for p in places if p.city in ("", last, city) or p.district.endswith("市"))
    rng = random.Random(1)
    forms = [geo.typed(place, rng) for _ in range(2000)]
    meant = {(its_city, its_district) for parts, its_city, its_district in forms if parts == region}
    assert meant == {(city, last)}


@pytest.mark.parametrize(
    ("city", "district", "never"),
    [
        ("大理白族自治州", "大理市", ("大理", "大理市")),  # would read as typed twice
        ("济南市", "市中区", ("济南", "市中区")),  # 济南市中区
        ("朝阳市", "双塔区", ("朝阳", "双塔区")),  # Beijing has a 朝阳区
        ("海南藏族自治州", "共和县", ("海南", "共和县")),
        ("南京市", "鼓楼区", ("江苏省", "鼓楼区")),  # Xuzhou has one too
        ("晋城市", "城区", ("城区",)),
    ],
)
def test_forms_that_are_never_typed(city: str, district: str, never: tuple[str, ...]) -> None:
    rng = random.Random(2)
    assert never not in {geo.typed(BY_NAME[city, district], rng)[0] for _ in range(2000)}


@pytest.mark.parametrize(
    ("layout", "others", "record", "text"),
    [
        (
            "{LP}:{p}:{a}:{LN}:{n}",
            {"LP": "电话", "LN": "收件者"},
            (
                ("大理市", "大理市"),
                ("人民路25号", "大理古城国际酒店", "3号楼"),
                " ",
                "段丽娟",
                "23204753945",
            ),
            "电话:23204753945:大理市大理市人民路25号 大理古城国际酒店 3号楼:收件者:段丽娟",
        ),
        (
            "{a} , {LN}{n} , {EP}:{p}",
            {"LN": "接收人", "EP": "MOBILE"},
            (
                ("天津市", "河西区"),
                ("珠江道21号", "金泰大厦", "3层"),
                "",
                "慕容修远",
                "22323185576",
            ),
            "天津市河西区珠江道21号金泰大厦3层 , 接收人慕容修远 , MOBILE:22323185576",
        ),
    ],
)
def test_published_lines_are_in_range(
    layout: str, others: dict[str, str], record: tuple[Any, ...], text: str
) -> None:
    region, detail, gap, name, phone = record
    made = rows.Record(region, "", "", detail, gap, name, "", phone, {}, frozenset())
    assert layout in rows.LAYOUTS and rows.clear(layout, made)
    assert all(word in rows.weighted(slot)[0] for slot, word in others.items())
    assert rows.fill(layout, made, others) == text


@pytest.mark.parametrize(
    ("symbol", "text"),
    [
        ("street", "人民路"),
        ("street", "珠江道"),
        ("tower", "金泰大厦"),
        ("hotel", "大理古城国际酒店"),
        ("fl", "3层"),
    ]
    + [("male", "慕容修远"), ("female", "段丽娟"), ("bld", "3号楼")],
)
def test_published_words_are_in_range(symbol: str, text: str) -> None:
    def pattern(symbol: str) -> str:
        if symbol == "here":
            return ".."
        inner = [
            rows.TOKEN.sub(lambda m: pattern(m[3]) if m[3] else r"\d+", rule)
            for rule in rows.weighted(symbol)[0]
        ]
        return "(?:" + "|".join(inner) + ")"

    assert re.fullmatch(pattern(symbol), text)


@pytest.mark.parametrize(
    ("layout", "region", "detail", "name", "fine"),
    [
        ("{a}{n}{p}", ("广东省",), ("翠湖花园",), "张明", False),  # 花园张明
        ("{a}{n}{p}", ("广东省",), ("翠湖花园", "3号楼"), "张明", True),
        ("{a}{n}{p}", ("广东省",), ("翠湖花园", "5楼"), "东方红", False),
        ("{a}{p}{n}", ("广东省",), ("翠湖花园", "3-501"), "张明", False),  # digits before digits
        ("{a} {p} {n}", ("广东省",), ("翠湖花园", "A座"), "张明", True),
        ("{p}{n}{a}", ("广东省",), ("翠湖花园",), "张明", True),
        ("{p}{n}{a}", ("广东",), ("翠湖花园",), "张明", False),
        ("{p}{n}{a}", ("北京市",), ("翠湖花园",), "刘河", False),  # 刘河北京市
    ],
)
def test_clear(
    layout: str, region: tuple[str, ...], detail: tuple[str, ...], name: str, fine: bool
) -> None:
    gold = {"province": "北京市" if region == ("北京市",) else "广东省"}
    assert (
        rows.clear(
            layout, rows.Record(region, "", "", detail, "", name, "", "1", gold, frozenset())
        )
        is fine
    )
