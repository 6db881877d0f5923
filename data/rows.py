"""Make the rows of the address task: `python -m data.rows` writes data/seeds.jsonl and gold.jsonl.

A record is a place of the gazetteer, a generated street-to-room detail, a name and a phone; a
layout is a template that writes it down the way people type it. Gold labels come from the record,
never from a parser. Rows are virtual: streets, estates, names and numbers are put together from the
word pools of pools.json, by one seed, so two runs are identical.

A seed:     {"id": "…", "text": "电话:23204753945:大理市大理市人民路25号 3号楼:收件者:段丽娟"}
A gold row: {"id": "…", "text": "…", "slice": "like_seeds",
             "gold": {"province": "云南省", …, "phone": "23204753945"}}

No street, estate, firm, town or person of a gold row occurs in any seed. The gold slice
`like_seeds` has LAYOUTS, the slice `unseen_layout` has UNSEEN: kinds that neither the seeds nor the
base's pretraining text may contain, namely a sentence of prose, the phone in brackets after the
name, fields in 【】, a name=…&phone=… query, numbered lines, arrows, JSON with Chinese keys, XML
tags, a table row with bars at both ends, a postcode line before an address on three lines, # tags,
fields between _ or ★, and the envelope order "To: …" with the name last, beside 收.
"""

import json
import random
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

from potstill.core.jsonl import row_id, squeeze, write_jsonl

from .places import Place, brief, places, provinces, typed

SEED = 20260
GOLD_SEED = 20261  # nobody reads these rows: mistakes are studied on rows of another seed
SEED_ROWS, LIKE_ROWS, UNSEEN_ROWS = 4000, 400, 100
DATA = Path(__file__).resolve().parent

# Slots: a address (r region + d detail), n name with its title, m name without, p phone; LA LN LP
# LR LD are Chinese labels, EA EN EP English ones. The order of the slots, the labels and the
# separators make a layout, a kind of its own.
LAYOUTS = (
    # no labels: every order, every separator
    "{a} {n} {p}", "{a} {p} {n}", "{n} {a} {p}", "{n} {p} {a}", "{p} {a} {n}", "{p} {n} {a}",
    "{a},{n},{p}", "{n},{p},{a}", "{a}，{n}，{p}", "{n}，{p}，{a}", "{p}，{a}，{n}",
    "{a}、{n}、{p}", "{n}、{a}、{p}", "{n};{p};{a}", "{p}；{n}；{a}", "{a} | {n} | {p}",
    "{n}|{a}|{p}", "{n}/{p}/{a}", "{p} / {a} / {n}", "{p}:{a}:{n}", "{n}：{p}：{a}",
    "{a}\t{n}\t{p}", "{n}\t{p}\t{a}", "{n}\n{p}\n{a}", "{a}\n{n}\n{p}", "{n} {p}\n{a}",
    "{a}\n{n} {p}", "{a}  {p}  {n}", "{n}  {p}  {a}", "{p} , {n} , {a}", "{a} , {n} , {p}",
    "{n}{p}{a}", "{a}{n}{p}", "{p}{a}{n}", "{a}{p}{n}", "{p}{n}{a}", "{n}{a}{p}", "{a}，{n}{p}",
    "{n}{p}，{a}",
    # Chinese labels: on all fields or some, with full or half colon, a space, or nothing after them
    "{LN}：{n}\n{LP}：{p}\n{LA}：{a}", "{LA}：{a}\n{LN}：{n}\n{LP}：{p}",
    "{LN}:{n} {LP}:{p} {LA}:{a}", "{LA}:{a},{LN}:{n},{LP}:{p}", "{LP}:{p}:{a}:{LN}:{n}",
    "{LP}：{p}，{LN}：{n}，{LA}：{a}", "{a} , {LN}{n} , {EP}:{p}", "{LN}{n}{LP}{p}{LA}{a}",
    "{LA}{a}{LN}{n}{LP}{p}", "{LN} {n}\n{LP} {p}\n{LA} {a}", "{LN}{n}，{LP}{p}，{LA}{a}",
    "{a}；{LN}：{n}；{LP}：{p}", "{LP}{p} {a} {LN}{n}", "{a} {LN}：{n} {LP}：{p}",
    "{n} {LP}:{p} {LA}:{a}", "{LN}:{n};{p};{a}", "{LN}：{n}、{LP}：{p}、{LA}：{a}",
    "{LA}：{a} | {LP}：{p} | {LN}：{n}", "{LN}:{n}/{LP}:{p}/{LA}:{a}",
    "{LN}\t{n}\n{LP}\t{p}\n{LA}\t{a}", "{n}\n{LP}：{p}\n{a}",
    # English labels, alone and mixed
    "{EN}:{n} {EP}:{p} {EA}:{a}", "{EA}: {a}\n{EN}: {n}\n{EP}: {p}", "{EN} {n}, {EP} {p}, {EA} {a}",
    "{EP}:{p}，{a}，{EN}:{n}", "{n}，{EP}：{p}，{a}", "{EA}:{a} | {EN}:{n} | {EP}:{p}",
    # region and detail as two fields
    "{LN}：{n}\n{LP}：{p}\n{LR}：{r}\n{LD}：{d}", "{LR}:{r} {LD}:{d} {LN}:{n} {LP}:{p}",
    "{LN}:{n},{LP}:{p},{LR}:{r},{LD}:{d}", "{LR}：{r}\n{LD}：{d}\n{n} {p}", "{n} {p} {r} {d}",
    "{n}，{p}，{r}，{d}", "{r}\n{d}\n{n}\n{p}", "{r} {d} {LN}:{n} {LP}:{p}",
)  # fmt: skip

# s is what is sent, z a postcode, e and f the first part and the rest of the detail.
UNSEEN = (
    "麻烦寄到{a}，我叫{m}，电话{p}", "帮{n}把{s}发到{a}，有事打{p}", "{n}（{p}）{a}",
    "{a} {n}({p})", "【收件人】{n}【电话】{p}【地址】{a}", "【{n}】【{p}】【{a}】",
    "name={n}&phone={p}&address={a}", "addr={a}&tel={p}&name={n}", "1. {n}\n2. {p}\n3. {a}",
    "1. 地址：{a}\n2. 姓名：{n}\n3. 电话：{p}", "{n}→{p}→{a}", "{a} => {n} => {p}",
    '{{"收件人":"{n}","手机":"{p}","地址":"{a}"}}',
    "<收件人>{n}</收件人><电话>{p}</电话><地址>{a}</地址>", "│{a}│{n}│{p}│",
    "{z}\n{r}\n{e}\n{f}\n{n} {p}", "#收件#{n}#电话#{p}#地址#{a}", "{n}_{p}_{a}", "★{a}★{n}★{p}",
    "To: {a}\n{p}\n收 {n}",
)  # fmt: skip

# Shares of rows by what the last named division is (direct: under the province itself); rules 3 to
# 6 of docs/address-contract.md.
DECKS = {"district": 0.56, "county": 0.25, "city": 0.13, "direct": 0.03, "bare": 0.03}
# Symbols of pools.json whose texts seeds and gold may not share.
HELD = frozenset(
    (
        "street home tower hotel mall market company park school hospital shop town town0 "
        "subdistrict village villagestem community gacha sumu male female"
    ).split()
)
KEYS = ("province", "city", "district", "specific_location", "name", "phone")


class Record(NamedTuple):
    """One address with its parts as typed, and what they mean."""

    region: tuple[str, ...]
    glue: str  # between the parts of the region
    hinge: str  # between region and detail
    detail: tuple[str, ...]
    gap: str  # between the parts of the detail
    name: str
    title: str
    phone: str
    gold: dict[str, str]
    held: frozenset[str]


class Row(NamedTuple):
    """One line and where it comes from."""

    text: str
    layout: str
    record: Record


# --- detail, name, phone --------------------------------------------------------------------------


@lru_cache
def pools() -> dict[str, Any]:
    """pools.json: a symbol's productions with their weights, or words of equal weight in one
    string."""
    return dict(json.loads((DATA / "pools.json").read_text(encoding="utf-8")))


@lru_cache
def weighted(symbol: str) -> tuple[list[str], list[float]]:
    """The productions of a symbol and their cumulative weights."""
    rule = pools()[symbol]
    weights = Counter(rule.split()) if isinstance(rule, str) else rule
    return list(weights), list(accumulate(weights.values()))


TOKEN = re.compile(r"\{(?:(\d+)-(\d+)|(\w+))\}")


def expand(symbol: str, rng: random.Random, here: str = "", held: list[str] | None = None) -> str:
    """A random text of a symbol of pools.json; `here` is the place's short name, `held` collects
    the HELD texts."""
    if symbol == "here":
        return here if len(here) == 2 else expand("ea", rng)
    rules, weights = weighted(symbol)

    def fill_in(token: re.Match[str]) -> str:
        low, high, inner = token.groups()
        return expand(inner, rng, here, held) if inner else str(rng.randint(int(low), int(high)))

    text = TOKEN.sub(fill_in, rng.choices(rules, cum_weights=weights)[0])
    if held is not None and symbol in HELD:
        held.append(text)
    return text


def phone(rng: random.Random, province: str) -> tuple[str, str]:
    """A phone as typed, and as the contract wants it (rule 10)."""

    def digits(count: int) -> str:
        return "".join(rng.choices("0123456789", k=count))

    kind = rng.random()
    if kind < 0.18:
        area = pools()["areacode"][province[:2]]
        area += str(rng.randint(11, 99)) if len(area) == 2 else ""
        number = area + rng.choices(["-", ""], (9, 1))[0]
        number += str(rng.randint(2, 8)) + digits(rng.choice([6, 7, 7]))
        number += rng.choices(["", "-", "转"], (66, 22, 12))[0]
        number += str(rng.randint(100, 8999)) if not number[-1].isdigit() else ""
        return number, number
    plain = "2" + digits(10) if kind < 0.32 else "1" + rng.choice("3456789") + digits(9)
    typed_number = plain
    if rng.random() < 0.12:
        first, second = rng.choice([(3, 7), (3, 7), (3, 7), (4, 7), (3, 11)])
        typed_number = rng.choice("- ").join(
            filter(None, (plain[:first], plain[first:second], plain[second:]))
        )
    if rng.random() < 0.07:
        prefix = rng.choice(["+86", "+86 ", "+86-", "86-", "86 ", "0086", "0086-"])
        typed_number = prefix + typed_number
    return typed_number, plain


# --- records and lines ----------------------------------------------------------------------------


def draw(place: Place, layout: str, rng: random.Random) -> Record:
    """A random record at the place that reads clearly in the layout."""
    while True:
        region, city, district = typed(place, rng)
        glue = rng.choices(
            ["", " ", "-", "/"], (34, 48, 10, 8) if "{r}" in layout else (88, 12, 0, 0)
        )[0]
        held: list[str] = []
        kind = "banner" if place.district.endswith("旗") else deck_of(place)
        parts = expand(
            f"detail_{'district' if kind == 'direct' else kind}", rng, brief(district), held
        ).split("|")
        gender = rng.choice("mf")
        name = expand("male" if gender == "m" else "female", rng, "", held)
        title = expand(f"{gender}title", rng) if rng.random() < 0.07 else ""
        number, gold_phone = phone(rng, place.province)
        gap = rng.choices(["", " "], (76, 24))[0]
        values = (place.province, city, district, gap.join(parts), name, gold_phone)
        gold = dict(zip(KEYS, values, strict=True))
        hinge = " " if glue or rng.random() < 0.05 else ""
        record = Record(
            region, glue, hinge, tuple(parts), gap, name, title, number, gold, frozenset(held)
        )
        if clear(layout, record):
            return record


def clear(layout: str, record: Record) -> bool:
    """Whether a person can tell where each field of the record ends in this layout."""
    detail, address = record.detail, "".join(record.region + record.detail)
    last = detail[-1]
    if "{e}" in layout and len(detail) < 2:
        return False
    if re.search(r"\{[ad]\}\{n\}", layout):
        # 3号楼张三 reads well; 花园张三, 3号房玄龄, 5楼东方红 do not
        closed = re.search("[0-9号室楼层栋幢]$", last)
        if not closed or record.name[0] in "东西南北单房路苑和连应全":
            return False
    if re.search(r"\{[ad]\}\s*\{p\}", layout) and last[-1].isascii():
        return False
    if "{n}{a}" in layout:  # 张三广东省… reads well; 张三广东…, 张三深圳…, 刘河北京市… do not
        joined, length = record.name + record.region[0], len(record.name)
        if record.region[0] != record.gold["province"] or any(
            0 < joined.find(p) < length for p in provinces()
        ):
            return False
    return record.name not in address


def words(place: Place, rng: random.Random) -> dict[str, str]:
    """A text for every slot of a layout that is no part of the record: labels, what is sent, a
    postcode."""
    drawn = {
        slot: expand(slot, rng) for slot in ("LA", "LN", "LP", "LR", "LD", "EA", "EN", "EP", "s")
    }
    return drawn | {"z": f"{pools()['postcode'][place.province[:2]]}{rng.randint(0, 99):02d}00"}


def fill(layout: str, record: Record, others: dict[str, str]) -> str:
    """The line: the record written in the layout, with these texts in the layout's other slots."""
    region, detail = record.glue.join(record.region), record.gap.join(record.detail)
    return layout.format(
        a=region + record.hinge + detail, r=region, d=detail, e=record.detail[0],
        f="".join(record.detail[1:]), n=record.name + record.title, m=record.name, p=record.phone,
        **others,
    )  # fmt: skip


def with_remark(text: str, layout: str, rng: random.Random) -> str:
    """The line with a remark behind it, set off the way the line's own fields are."""
    remark = expand("remark", rng)
    if "\n" in layout:
        return text + "\n" + rng.choice(["", "", "备注："]) + remark
    return text + rng.choice(["，{}", " {}", "（{}）", " 备注：{}", "，备注:{}"]).format(remark)


def deck_of(place: Place) -> str:
    """Which key of DECKS a place belongs to."""
    if not place.district or not place.city:
        return "direct" if place.district else "bare"
    return {"区": "district", "市": "city"}.get(place.district[-1], "county")


def deck(items: Sequence[Place], rows: int, rng: random.Random) -> list[Place]:
    """`rows` items, all of them before any comes again, one of every prefecture before a second of
    any."""
    drawn: list[Place] = []
    while len(drawn) < rows:
        seen: Counter[str] = Counter()
        ranked = []
        for place in rng.sample(items, len(items)):
            ranked.append((seen[place.city], place))
            seen[place.city] += 1
        drawn += [place for _, place in sorted(ranked, key=lambda pair: pair[0])]
    return drawn[:rows]


def lines(layouts: Sequence[str], rows: int, seed: str, taken: str = "") -> list[Row]:
    """`rows` rows, every layout about equally often, with no HELD text that occurs in `taken`, and
    all different."""
    rng = random.Random(seed)
    by_deck: dict[str, list[Place]] = defaultdict(list)
    for place in places():
        by_deck[deck_of(place)].append(place)
    todo = [
        place
        for kind, share in DECKS.items()
        for place in deck(by_deck[kind], round(rows * share), rng)
    ]
    rng.shuffle(todo)
    plan = (list(layouts) * (rows // len(layouts) + 1))[:rows]
    made: dict[str, Row] = {}
    for place, layout in zip(todo, plan, strict=True):
        while True:
            record = draw(place, layout, rng)
            if taken and any(text in taken for text in (*record.held, record.gold["phone"])):
                continue
            text = fill(layout, record, words(place, rng))
            if layout in LAYOUTS and rng.random() < 0.08:
                text = with_remark(text, layout, rng)
            if text not in made:
                made[text] = Row(text, layout, record)
                break
    return rng.sample(list(made.values()), rows)


@lru_cache
def make() -> tuple[list[Row], list[Row], list[Row]]:
    """Seeds, and the two gold slices `like_seeds` and `unseen_layout`."""
    seeds = lines(LAYOUTS, SEED_ROWS, f"{SEED} seeds")
    taken = "\n".join(squeeze(row.text) for row in seeds)
    like = lines(LAYOUTS, LIKE_ROWS, f"{GOLD_SEED} like", taken)
    return seeds, like, lines(UNSEEN, UNSEEN_ROWS, f"{GOLD_SEED} unseen", taken)


def files() -> dict[str, list[dict[str, Any]]]:
    """File name → its rows."""
    seeds, like, unseen = make()
    gold = [(row, "like_seeds") for row in like] + [(row, "unseen_layout") for row in unseen]

    def start(row: Row) -> dict[str, Any]:
        return {"id": row_id({"text": row.text}), "text": row.text}

    return {
        "seeds.jsonl": [start(row) for row in seeds],
        "gold.jsonl": [start(row) | {"slice": part, "gold": row.record.gold} for row, part in gold],
    }


if __name__ == "__main__":
    for name, written in files().items():
        write_jsonl(DATA / name, written)
        print(f"data/{name}: {len(written):,} rows")
