"""The text that the tiny base is pretrained on: extraction, splitting, copying, geography, plain prose and carried spans.

It is a base, not an answer: it holds no task's prompts and rows, its records are never asked for province, city, district,
location, name and phone all together, and it avoids the layouts that the address task keeps for its `unseen_layout` slice
(see tasks/address/rows.py). An example is (system, user, answer); either of the first two may be empty.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from base import places as geo
from base.prose import prose
from base.spans import jsons, spans

Example = tuple[str, str, str]

# Each kind of field: the key names that a request may use, and the labels that a typed line may carry.
FIELDS: dict[str, tuple[list[str], list[str]]] = {
    "name": (
        "name 姓名 联系人 收件人 客户 买家 contact person 负责人 full_name 收货人 用户 称呼 receiver customer".split(),
        "姓名 联系人 收件人 收货人 客户 买家 负责人 接收人 收件者 收货者 签收人 称呼 收方 用户 Name name NAME Contact To Receiver ATTN 联络人 客人".split(),
    ),
    "phone": (
        "phone 电话 手机 联系方式 tel mobile 手机号 telephone 联系电话 contact_number 号码 phone_number".split(),
        "电话 手机 手机号 手机号码 联系电话 联系方式 电话号码 联络电话 座机 TEL Tel tel Phone PHONE MOBILE Mobile Mob 致电 号码 手机/电话 联系手机".split(),
    ),
    "province": ("province 省 省份 sheng prov 所属省份 省级 state".split(), ["省份", "省"]),
    "city": ("city 市 城市 shi town 所在城市 城市名称 地级市".split(), ["城市", "市"]),
    "district": ("district 区县 区 county area 县区 辖区 qu".split(), ["区县", "县区"]),
    "location": (
        "specific_location 详细地址 street 地址详情 detail address_detail 具体位置 门牌 街道 address_line 位置 location".split(),
        "详细地址 街道地址 具体地址 街道 门牌 详址 Street Detail 详细".split(),
    ),
    "address": (
        "address 地址 收货地址 住址 完整地址 addr".split(),
        "地址 收货地址 住址 送货地址 详细地址 收件地址 家庭住址 寄往 送至 Address Add ADDR 地点 邮寄地址 配送地址 所在地".split(),
    ),
    "order": (
        "order 订单号 单号 order_id 编号 订单 order_no".split(),
        "订单号 单号 编号 订单 订单编号 Order 流水号 运单号".split(),
    ),
    "date": (
        "date 日期 时间 下单日 day 下单日期".split(),
        "日期 时间 下单日 下单时间 Date 创建于".split(),
    ),
    "company": (
        "company 公司 单位 企业 firm 商家".split(),
        "公司 单位 企业 商家 Company 抬头".split(),
    ),
    "amount": (
        "amount 金额 价格 合计 price total".split(),
        "金额 价格 合计 总价 实付 Total".split(),
    ),
    "email": ("email 邮箱 电子邮箱 mail".split(), "邮箱 Email 电子邮箱 E-mail".split()),
    "item": ("item 商品 货品 product 品名 物品".split(), "商品 货品 品名 物品 内容 Item".split()),
    "count": ("count 数量 件数 quantity qty".split(), "数量 件数 共 Qty".split()),
    "remark": (
        "remark 备注 留言 note 说明 comment".split(),
        "备注 留言 说明 买家留言 注 Note 附言".split(),
    ),
}
PARTS = ("province", "city", "district", "location")
TITLES = "先生 女士 小姐 老师 师傅 经理 同学 阿姨 大哥 医生 主任 总".split()
REMARKS = (
    "放门卫 放门口 放快递柜 放前台 放菜鸟驿站 周末送 周末派送 工作日送货 下班后送 上午送 下午送 晚上七点后送 请电联 到了打电话 送前联系 谢谢 尽快发货 急件 轻拿轻放 请勿折叠 易碎 "
    "不要放驿站 别放柜子 需要发票 加一份礼盒 本人签收 代收也可 不在家放邻居 勿压 防潮 加急 顺丰 发顺丰 发中通 请送上楼 提前一小时打电话 辛苦了 麻烦快点 冷藏保存 需要冷链 当面验货 拍照留证 不要按门铃 "
    "老客户 多放点赠品 包装严实些 易漏液 不急 周六日不收 节假日不送 可以代收 请发短信 谢谢师傅"
).split()
WHEN = "上午 下午 晚上 中午 周末 工作日 下班后 明天 今天 节假日 六点以后 早上九点前 送之前 到了 不在家 周一到周五 月底 尽快 急用 收货时".split()
WHAT = "送 派送 再送 送上楼 打电话 发短信 联系 放门口 放门卫室 放驿站 放丰巢 放前台 放鞋柜 放信箱 发货 寄出 开箱 拍照 验货 敲门 按门铃 折叠 重压 倒置 冷藏 冷冻 当面签收 本人签收 给邻居 给保安 包好一点 加冰袋 开发票".split()
HOW = "请 麻烦 请勿 不要 务必 别 尽量 可以 只能 先 记得 能不能 一定要 帮忙 最好".split()
ITEMS = "苹果 大米 茶叶 蜂蜜 牛奶 羽绒服 运动鞋 衬衫 手机壳 耳机 充电器 键盘 台灯 雨伞 书包 水杯 洗衣液 纸巾 面膜 口红 玩具车 积木 图书 字典 相册 毛巾 被套 枕头 拖鞋 花盆 锅 电饭煲 风扇 加湿器 猫粮 狗粮 渔具 球拍 瑜伽垫 帐篷".split()
SEPARATORS = [
    " ",
    " ",
    "  ",
    ",",
    "，",
    " , ",
    ", ",
    "、",
    ";",
    "；",
    "; ",
    "|",
    " | ",
    "/",
    " / ",
    ":",
    "：",
    "\n",
    "\n",
    "\n",
    "\t",
    "。",
    "~",
    " - ",
    "--",
    "^",
    "+",
    "\\",
    "!!",
    "·",
    ".",
    "..",
    "，\n",
    ";\n",
    " // ",
    "‖",
]
COLONS = ["：", ":", ":", "：", " ", "", "", ": ", "： ", "-", "为", "是", " : ", "~", "∶", "——"]
WRAPS = [
    ("「", "」"),
    ("“", "”"),
    ('"', '"'),
    ("<", ">"),
    ("《", "》"),
    ("'", "'"),
    ("『", "』"),
    ("`", "`"),
]


# Signs that separate nothing in a record with an address here, so that the slice `unseen_layout` stays unseen; lists have them.
RARE_SIGNS = "→ => = & _ ★ ☆ # 【 】 │ ┃ | ( ) （ ） [ ] { } < > ◆ ● ■ ▲ ※ ○ ◇ △ § @ $ % * ~ ^ / \\ + - — … ？ ! ！ · 1. 2. 3. ① ② ③ 一、 二、 A. B. ; ： ； ， 。 、 ‘ ’ “ ” \" ' `".split()
ODD_SIGNS = "◆ ● ■ ▲ ※ ◇ △ § @ $ % * ? ？ ！ ! … ── ++ ;; 。。 ,, ，， :: \\\\ ^^ ~~ >> ； / ; | ： ·· ‖ ¦ ¶ ♪ ✓ × ÷ ∕ ｜ ﹑ ． 丨".split()


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
        person = geo.name(rng)
        return person + (
            rng.choice(["", " "]) + rng.choice(TITLES) if rng.random() < 0.15 else ""
        ), person
    if kind == "phone":
        return geo.phone(rng)
    makers: dict[str, Callable[[], str]] = {
        "order": lambda: "".join(rng.choice("ABCDEFGHJKLMNPQRSTUVWXYZ0123456789") for _ in range(rng.randint(6, 14))),
        "date": lambda: rng.choice(["{}-{}-{}", "{}/{}/{}", "{}年{}月{}日", "{}.{}.{}"]).format(rng.randint(1990, 2030), rng.randint(1, 12), rng.randint(1, 28)),
        "company": lambda: geo.firm(rng),
        "amount": lambda: f"{rng.randint(1, 9999)}" + rng.choice(["", ".5", ".99", ".00"]) + rng.choice(["元", "块", ""]),
        "email": lambda: "".join(rng.choice("abcdefghijklmnopqrstuvwxyz0123456789_") for _ in range(rng.randint(4, 10))) + rng.choice(["@example.com", "@example.org", "@mail.example"]),
        "item": lambda: rng.choice(ITEMS) if rng.random() < 0.6 else geo.word(rng) + rng.choice(ITEMS),
        "count": lambda: f"{rng.randint(1, 99)}" + rng.choice(["件", "个", "箱", "份", "盒", ""]),
        "remark": lambda: remark(rng),
    }  # fmt: skip
    text = makers[kind]()
    return text, text


def typed_address(rng: random.Random) -> tuple[str, str, dict[str, str]]:
    """An address: what is typed for the divisions, what is typed after them, and the four parts as labels."""
    divisions, place = geo.typed(rng)
    detail = geo.location(rng)
    parts = {
        "province": place.province,
        "city": place.city,
        "district": place.district,
        "location": detail,
    }
    return divisions, detail, parts


def asked(rng: random.Random, held: list[str]) -> list[str]:
    """The fields that a request asks for: never the four parts of an address with a name and a phone together."""
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


ASK = [
    "从文本中提取JSON信息，包含的Key有{k}", "请抽取以下字段并输出JSON：{k}", "提取字段：{k}", "信息抽取，Key：{k}", "{k}", "把文本整理成JSON，字段为{k}", "你负责抽取信息，输出{k}",
    "读下面的内容，给出{k}，只输出JSON", "Extract {k} as JSON", "字段：{k}。按顺序输出JSON对象。", "抽取{k}", "你是录单员，从客户留言中填写{k}", "输出一个JSON，键依次是{k}",
    "Return a JSON object with keys {k}.", "从一段话里找出{k}，写成JSON，不要解释", "你是信息抽取助手，提取{k}", "识别文本里的{k}，以JSON返回", "结构化：{k}", "以JSON格式返回{k}",
]  # fmt: skip
ASK_LINES = [
    "逐行写出{k}",
    "提取{k}，每行一项",
    "列出{k}，一行一个，格式为字段：值",
    "List {k}, one per line",
]
LONG_RULES = [
    "只输出JSON，不要输出解释。", "没有的内容不要编造。", "值要与原文一致。", "省和市写全称。", "直辖市的市与省相同。", "电话去掉开头的+86。", "手机号中间的空格和横线去掉。", "姓名不带称谓。", "详细地址从街道写到房间号。", "备注不属于任何字段。",
    "标签不要写进值里。", "县级市归在所属的地级市下。", "固定电话保留区号和分机。", "键的顺序不能变。", "简称要补成正式名称。", "如果省份没有写，要根据城市补上。", "所有的值都是字符串。", "不要使用代码块。", "只写一行。", "空格不重要。",
]  # fmt: skip


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
    text, place = geo.typed(rng, rng.choice(geo.leaned_on()), brief=0.75)
    official = f"{place.province} {place.city} {place.district}"
    p = place
    questions: list[Example] = [
        (
            "",
            f"{p.district}在哪个省？"
            if p.district in geo.unique_names()
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
    if p.district in geo.unique_names() and p.prefecture and rng.random() < 0.5:
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
    frequent, rare = geo.characters()
    span = "".join(
        rng.choice(frequent if rng.random() < 0.7 else rare) for _ in range(rng.randint(2, 20))
    )
    if roll < 0.3:
        text = rng.choice(
            [
                geo.location(rng),
                geo.name(rng) + geo.phone(rng)[1],
                geo.digits(rng, rng.randint(5, 15)),
                span,
            ]
        )
        return rng.choice(["复述", "照抄", "repeat", "原样输出"]), text, text
    if roll < 0.5:
        typed, kept = geo.phone(rng)
        return rng.choice(["规范电话", "整理电话号码", "clean phone"]), typed, kept
    if roll < 0.65:
        typed, kept = value(rng, "name")
        label = rng.choice(FIELDS["name"][1]) + rng.choice(COLONS)
        return rng.choice(["姓名", "取出姓名", "name only"]), label + typed, kept
    words = [
        rng.choice(
            [
                geo.word(rng),
                geo.name(rng),
                geo.name(rng),
                geo.number(rng),
                rng.choice(ITEMS),
                geo.phone(rng)[1],
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
