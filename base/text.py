"""The text that the tiny base is pretrained on: extraction, splitting, copying, geography, plain
prose and carried spans.

It is a base, not an answer: it holds no task's prompts and rows, its records are never asked for
province, city, district, location, name and phone all together, and it avoids the layouts that the
address task keeps for its `unseen_layout` slice (see data/rows.py). An example is (system,
user, answer); either of the first two may be empty.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from base import details, places
from base.pools import (
    ASK,
    ASK_LINES,
    COLONS,
    FIELDS,
    HOW,
    ITEMS,
    LONG_RULES,
    ODD_SIGNS,
    PARTS,
    RARE_SIGNS,
    REMARKS,
    SEPARATORS,
    TITLES,
    WHAT,
    WHEN,
    WRAPS,
)
from base.prose import prose
from base.spans import spans
from base.writer import Example, jsons


def remark(rng: random.Random) -> str:
    """What a customer adds to a delivery."""
    if rng.random() < 0.4:
        return rng.choice(REMARKS)
    when = rng.choice(WHEN) if rng.random() < 0.5 else ""
    return (
        when
        + rng.choice(HOW)
        + rng.choice(["", "", rng.choice(ITEMS)])
        + rng.choice(WHAT)
        + rng.choice(["", "", "", "，谢谢", "哦", "！"])
    )


def keep(text: str) -> str:
    """A value as an answer gives it: line breaks are white space."""
    return text.replace("\n", " ")


def value(rng: random.Random, kind: str) -> tuple[str, str]:
    """A value of a field that is no part of an address: as typed, and as an answer gives it."""
    if kind == "name":
        person = details.name(rng)
        return person + (
            rng.choice(["", " "]) + rng.choice(TITLES) if rng.random() < 0.15 else ""
        ), person
    if kind == "phone":
        return details.phone(rng)

    def some(characters: str, low: int, high: int) -> str:
        return "".join(rng.choice(characters) for _ in range(rng.randint(low, high)))

    makers: dict[str, Callable[[], str]] = {
        "order": lambda: some("ABCDEFGHJKLMNPQRSTUVWXYZ0123456789", 6, 14),
        "date": lambda: rng.choice(["{}-{}-{}", "{}/{}/{}", "{}年{}月{}日", "{}.{}.{}"]).format(
            rng.randint(1990, 2030), rng.randint(1, 12), rng.randint(1, 28)
        ),
        "company": lambda: details.firm(rng),
        "amount": lambda: (
            f"{rng.randint(1, 9999)}"
            + rng.choice(["", ".5", ".99", ".00"])
            + rng.choice(["元", "块", ""])
        ),
        "email": lambda: (
            some("abcdefghijklmnopqrstuvwxyz0123456789_", 4, 10)
            + rng.choice(["@example.com", "@example.org", "@mail.example"])
        ),
        "item": lambda: (
            rng.choice(ITEMS) if rng.random() < 0.6 else details.word(rng) + rng.choice(ITEMS)
        ),
        "count": lambda: f"{rng.randint(1, 99)}" + rng.choice(["件", "个", "箱", "份", "盒", ""]),
        "remark": lambda: remark(rng),
    }
    text = makers[kind]()
    return text, text


def typed_address(rng: random.Random) -> tuple[str, str, dict[str, str]]:
    """An address: what is typed for the divisions, what is typed after them, and the four parts as
    labels."""
    divisions, place = places.typed(rng)
    detail = details.location(rng)
    parts = {
        "province": place.province,
        "city": place.city,
        "district": place.district,
        "location": detail,
    }
    return divisions, detail, parts


def asked(rng: random.Random, held: list[str]) -> list[str]:
    """The fields that a request asks for: never the four parts of an address with a name and a
    phone together."""
    wanted = rng.sample(held, rng.randint(1, min(len(held), 7)))
    if set(PARTS) <= set(held) and rng.random() < 0.6:
        wanted = [f for f in held if f in PARTS] + [
            f for f in wanted if f not in PARTS and f != "address"
        ][:3]
    if {*PARTS, "name", "phone"} <= set(wanted):
        wanted.remove(rng.choice(["name", "phone", "name", "phone", *PARTS]))
    if rng.random() < 0.5:
        rng.shuffle(wanted)
    return wanted


def request(
    rng: random.Random, keys: list[str], kinds: list[str], body: str, lines: bool
) -> tuple[str, str]:
    """System and user text of one extraction request, for a JSON object or for lines."""
    listed = rng.choice(["、", ",", "，", ", ", " ", "/", "，"])
    if rng.random() < 0.2:
        ask = listed.join(
            f"{k}({rng.choice(FIELDS[f][0])})" for k, f in zip(keys, kinds, strict=True)
        )
    else:
        ask = listed.join(keys)
    text = rng.choice(ASK_LINES if lines else ASK).format(k=ask)
    roll = rng.random()
    if roll < 0.07:
        rules = rng.sample(LONG_RULES, rng.randint(2, 12))
        text += rng.choice(["。", "\n", "。要求："]) + rng.choice(["", "\n"]).join(
            f"{i}. {r}" if roll < 0.04 else r for i, r in enumerate(rules, 1)
        )
    if rng.random() < 0.12:
        return "", text + rng.choice(["\n", "：\n", "\n文本："]) + body
    return text, body


def record(rng: random.Random, with_address: bool) -> tuple[dict[str, str], str]:
    """A typed record: its fields as an answer gives them, and the line."""
    others = [k for k in FIELDS if k not in (*PARTS, "address")]
    if with_address:
        extra = rng.choice([[], [], [], [rng.choice(others[2:])], rng.sample(others[2:], 2)])
        kinds = [k for k in ("name", "phone") if rng.random() < 0.9] + extra
    else:
        kinds = rng.sample(others, rng.randint(2, 5))
    fields: dict[str, str] = {}
    pieces: list[str] = []
    labelled, colon = rng.choice([0.0, 0.0, 1.0, 1.0, rng.random()]), rng.choice(COLONS)
    separators = [rng.choice(SEPARATORS if rng.random() < 0.85 else ODD_SIGNS) for _ in range(3)]
    if rng.random() < 0.7:  # else another sign between each two fields
        separators = separators[:1]
    if labelled == 1.0 and rng.random() < 0.15:
        separators = [""]  # 姓名王五电话…
    wrap = rng.choice(WRAPS) if rng.random() < 0.08 else None

    def piece(kind: str, text: str) -> str:
        if wrap and rng.random() < 0.8:
            text = wrap[0] + text + wrap[1]
        bare = kind in ("name", "phone", "address", "remark", "item", "company")
        if rng.random() < labelled or not bare or separators == [""]:
            return (
                rng.choice(FIELDS[kind][1])
                + (colon if rng.random() < 0.9 else rng.choice(COLONS))
                + text
            )
        return text

    for kind in kinds:
        text, kept = value(rng, kind)
        fields[kind] = kept
        pieces.append(piece(kind, text))
    if with_address:
        divisions, detail, parts = typed_address(rng)
        fields |= parts
        if rng.random() < 0.08:
            pieces.append(
                rng.choice("所在地区 地区 省市区 区域 所在区域 省市县 Region".split())
                + (colon or "：")
                + divisions
            )
            pieces.append(rng.choice(FIELDS["location"][1]) + (colon or "：") + detail)
            address = pieces[-2:]
        else:
            gap = rng.choice(["", "", "", "", " ", ",", separators[0] or " "])
            if gap in ("", " "):
                fields["address"] = divisions + gap + detail
            address = [piece("address", divisions + gap + detail)]
        if (
            rng.random() < 0.18
            and set(kinds) <= {"name", "phone"}
            and fields.get("phone")
            and "address" in fields
        ):
            return fields, glued(rng, fields.get("name", ""), fields["phone"], fields["address"])
        rest = pieces[: len(kinds)]
        rng.shuffle(rest)
        at = rng.randint(0, len(rest))
        pieces = rest[:at] + address + rest[at:]
    else:
        rng.shuffle(pieces)
    line = pieces[0]
    for text in pieces[1:]:
        line += rng.choice(separators) + text
    if rng.random() < 0.17:
        note = remark(rng)
        line += (
            rng.choice([separators[0] or "，", "，", " ", " 备注：", "，备注:", "\n"]) + note
            if rng.random() < 0.8
            else f"（{note}）"
        )
    return fields, line


def glued(rng: random.Random, name: str, number: str, address: str) -> str:
    """A line without separators, or with one only: readable where digits part the fields."""
    gap = rng.choice(["", "", " ", "，"])
    orders = [
        number + address + gap + name,
        number + name + gap + address,
        name + number + gap + address,
    ]
    orders += [address + gap + name + number, address + gap + name + gap + number]
    if address[-1] not in "0123456789":
        orders += [address + number + gap + name, name + gap + address + number]
    return rng.choice(orders)


def extract(rng: random.Random) -> Example:
    """A record and a request for some of its fields under one of many names each."""
    fields, line = record(rng, rng.random() < 0.78)
    kinds = asked(rng, list(fields))
    english = rng.random()
    keys = [FIELDS[k][0][0] if english < 0.3 else rng.choice(FIELDS[k][0]) for k in kinds]
    if len(set(keys)) < len(keys):
        keys = [FIELDS[k][0][0] for k in kinds]
    lines = rng.random() < 0.05
    system, user = request(rng, keys, kinds, line, lines)
    values = [keep(fields[k]) for k in kinds]
    if lines:
        return system, user, "\n".join(f"{k}：{v}" for k, v in zip(keys, values, strict=True))
    return system, user, jsons(dict(zip(keys, values, strict=True)))


def split(rng: random.Random) -> Example:
    """An address and its four parts, in many output forms."""
    divisions, detail, parts = typed_address(rng)
    text = divisions + rng.choice(["", "", "", " ", ","]) + detail
    values = list(parts.values())
    roll = rng.random()
    if roll < 0.3:
        mark, asks = rng.choice(
            [
                ("|", ["拆分地址", "地址拆分", "split", "把地址分成省|市|区|详址"]),
                ("\n", ["拆分地址，每行一项", "分行写出省、市、区、详址"]),
                (",", ["拆分地址，用逗号隔开", "csv"]),
            ]
        )
        return rng.choice(asks), text, mark.join(values)
    if roll < 0.75:
        keys = [rng.choice(FIELDS[p][0]) for p in PARTS]
        if len(set(keys)) < 4:
            keys = list(PARTS)
        kinds = rng.sample(range(4), rng.randint(1, 4)) if rng.random() < 0.4 else range(4)
        chosen = {keys[i]: values[i] for i in kinds}
        return rng.choice(ASK).format(k="、".join(chosen)), text, jsons(chosen)
    if roll < 0.88:
        asked, mark = rng.choice(
            [("补全地址", " "), ("规范地址", " "), ("写成完整的地址", ""), ("地址连写", "")]
        )
        return asked, text, mark.join(values)
    return rng.choice(["去掉省市区", "详细地址", "街道以下"]), text, detail


def fact(rng: random.Random) -> Example:
    """Administrative geography as questions and completions."""
    text, place = places.typed(rng, rng.choice(places.leaned_on()), brief=0.75)
    official = f"{place.province} {place.city} {place.district}"
    p = place
    questions: list[Example] = [
        (
            "",
            f"{p.district}在哪个省？"
            if p.district in places.unique_names()
            else f"{p.prefecture or p.district}在哪个省？",
            p.province,
        ),
        (rng.choice(["", "问答"]), f"{p.prefecture or p.district}属于哪个省", p.province),
        ("补全行政区划", text, official),
        ("补全行政区划", text, official),
        ("补全行政区划", text, official),
        ("行政区划JSON", text, jsons({"省": p.province, "市": p.city, "区县": p.district})),
        ("", f"{text}的全称", official.replace(" ", "")),
    ]
    if p.district in places.unique_names() and p.prefecture and rng.random() < 0.5:
        questions += [
            (
                rng.choice(["", "问答"]),
                f"{p.district}{rng.choice(['属于哪个市', '归哪里管', '在哪个市', '属于哪里'])}？",
                f"{p.province}{p.prefecture}",
            )
        ] * 4
    return rng.choice(questions)


def copy(rng: random.Random) -> Example:
    """Repeating, finding and cleaning spans of any characters."""
    roll = rng.random()
    frequent, rare = details.characters()
    span = "".join(
        rng.choice(frequent if rng.random() < 0.7 else rare) for _ in range(rng.randint(2, 20))
    )
    if roll < 0.3:
        text = rng.choice(
            [
                details.location(rng),
                details.name(rng) + details.phone(rng)[1],
                details.digits(rng, rng.randint(5, 15)),
                span,
            ]
        )
        return rng.choice(["复述", "照抄", "repeat", "原样输出"]), text, text
    if roll < 0.5:
        typed, kept = details.phone(rng)
        return rng.choice(["规范电话", "整理电话号码", "clean phone"]), typed, kept
    if roll < 0.65:
        typed, kept = value(rng, "name")
        label = rng.choice(FIELDS["name"][1]) + rng.choice(COLONS)
        return rng.choice(["姓名", "取出姓名", "name only"]), label + typed, kept
    words = [
        rng.choice(
            [
                details.word(rng),
                details.name(rng),
                details.name(rng),
                details.number(rng),
                rng.choice(ITEMS),
                details.phone(rng)[1],
            ]
        )
        for _ in range(rng.randint(3, 7))
    ]
    if roll < 0.9:
        odd = rng.random() < 0.6
        signs = [
            rng.choice(RARE_SIGNS if odd else [m for m in SEPARATORS if m not in (".", "..")])
            for _ in words
        ]
        if rng.random() < 0.5:
            signs = signs[:1] * len(words)
        if roll < 0.72:
            i = rng.randrange(len(words))
            return (
                f"第{i + 1}项",
                "".join(a + b for a, b in zip(words, signs, strict=True)),
                words[i],
            )
        return (
            "去掉符号，转成列表",
            "".join(b + a for a, b in zip(words, signs, strict=True)),
            jsons(words),
        )
    return (
        rng.choice(["转成列表", "list"]),
        rng.choice(["、", "，", " ", "\n"]).join(words),
        jsons(words),
    )


KINDS: list[tuple[Callable[[random.Random], Example], float]] = [
    (extract, 0.26), (split, 0.05), (fact, 0.28), (copy, 0.08), (prose, 0.12), (spans, 0.21),
]  # fmt: skip


def example(rng: random.Random) -> Example:
    """One pretraining example (system, user, answer)."""
    make = rng.choices([k for k, _ in KINDS], [w for _, w in KINDS])[0]
    return make(rng)
