"""Chinese administrative geography and delivery-style values for the tiny base's pretraining text.

Divisions come from the gazetteer of the `cpca` package; streets, estates, rooms and names are composed here, a share of
them from characters drawn at random, so that the base learns to copy any name and not a list of names.
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
    "蒙古族 回族 藏族 维吾尔 苗族 彝族 壮族 布依族 朝鲜族 满族 侗族 瑶族 白族 土家族 哈尼族 哈萨克 傣族 黎族 傈僳族 佤族 畲族 "
    "拉祜族 水族 东乡族 纳西族 景颇族 柯尔克孜 土族 达斡尔族 仫佬族 羌族 布朗族 撒拉族 毛南族 仡佬族 锡伯 普米族 塔吉克 怒族 "
    "鄂温克族 德昂族 保安族 裕固族 独龙族 鄂伦春 各族 蒙古"
).split()


class Place(NamedTuple):
    """One place as the labels name it: official province, city and district, and its real prefecture if it has one."""

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
    parents = {code[:4] for code, name in names.items() if code[4:] != "00" and name not in PLACEHOLDERS}
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


@lru_cache(1)
def unique_names() -> frozenset[str]:
    """District and city names that only one place in the country has."""
    count = Counter(p.district for p in places()) + Counter({p.prefecture for p in places() if p.prefecture})
    return frozenset(name for name, n in count.items() if n == 1)


def short_province(rng: random.Random, name: str) -> str:
    """广西壮族自治区 → 广西."""
    return rng.choice(PROVINCE_SHORT.get(name, [name[:-1]]))


def short_city(rng: random.Random, name: str) -> str:
    """深圳市 → 深圳, 延边朝鲜族自治州 → 延边州 or 延边; unchanged where the short form would be a single character."""
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


def typed(rng: random.Random, place: Place | None = None) -> tuple[str, Place]:
    """A place as people type it, with the labels that follow from what was typed (docs/address-contract)."""
    place = place or rng.choice(places())
    gap = rng.choice([""] * 16 + [" ", " ", "-", "/", ",", "，"])
    province, city, district = place.province, place.prefecture, place.district
    roll = rng.random()
    first = province if roll < 0.55 else short_province(rng, province) if roll < 0.8 else ""
    alone = district in unique_names()
    if province.endswith("市"):  # a municipality
        start = rng.choice([province, province, province[:-1], province + gap + province])
        return start + gap + district, place
    if place.kind in ("whole", "direct"):
        if rng.random() < 0.12:
            district += gap + district
        return (first + gap if first else "") + district, place
    if place.kind == "county_city" and rng.random() < 0.3:
        if rng.random() < 0.4:  # typed twice: it is city and district
            text = district + gap + district
            return (first + gap if first else "") + text, place._replace(city=district)
        if first or alone:
            own = place if city.endswith("市") else place._replace(city=district)
            return (first + gap if first else "") + district, own
    if place.kind == "county" and rng.random() < 0.15 and (first or alone):
        return (first + gap if first else "") + district, place
    middle = short_city(rng, city) if rng.random() < 0.18 else city
    if not first and middle != city and not alone:
        middle = city
    return gap.join(part for part in (first, middle, district) if part), place


@lru_cache(1)
def characters() -> tuple[str, str]:
    """The characters of GB 2312: level 1 (3,755 frequent ones), level 2 (3,008 rarer ones)."""

    def block(rows: range) -> str:
        cells = (bytes([row, cell]).decode("gb2312", "ignore") for row in rows for cell in range(0xA1, 0xFF))
        return "".join(cells)

    return block(range(0xB0, 0xD8)), block(range(0xD8, 0xF8))


SURNAMES = (
    "王李张刘陈杨黄赵吴周徐孙马朱胡郭何林高罗郑梁谢宋唐许邓韩冯曹彭曾肖田董潘袁蔡蒋余于杜叶程魏苏吕丁任卢姚沈钟姜崔谭陆"
    "范汪廖石金韦贾夏付方邹熊白孟秦邱侯江尹薛闫段雷龙黎史陶贺毛郝顾龚邵万覃武钱戴严莫孔向常汤康易乔赖文施洪辛柯庄葛"
    "温牛樊尚翁俞季聂齐耿关焦左柳甘祝包霍房纪童凌欧穆裴岳翟骆路倪殷申涂安阮卜游解符梅鲁宁华应蓝饶章岑苗詹柏颜管娄"
    "冉单盛宫阎简党冀屈项成车封靳芦蒲强吉初米邢古邬蔺桂臧楚冷谷时佘牟商辜席"
)
COMPOUND = (
    "欧阳 司马 诸葛 上官 慕容 令狐 皇甫 东方 尉迟 公孙 夏侯 长孙 宇文 司徒 南宫 端木 轩辕 百里 独孤 呼延 申屠 司空 太史 澹台 钟离 闻人"
).split()
GIVEN = (
    "伟芳娜秀英敏静丽强磊军洋勇艳杰娟涛明超霞平刚桂文辉玲志建国华红梅鹏飞鑫波斌宇浩凯健俊帆雪婷欣怡佳琪梓涵子轩雨泽思源"
    "晨曦嘉豪诗雅若曼慧颖晓东海峰云龙凤春兰德福荣贵金玉宝珍爱莲淑琴素珠瑞祥庆安宁康乐天成立新永胜光亮启航景行怀瑾瑜璇"
    "璐瑶莹菲萱薇蕊蓉蕾露彤丹青墨染书画棋锦绣绮罗纯朴厚坤乾震巽离坎艮兑元亨利贞仁义礼智信忠孝廉耻勤俭恭良让温柔刚毅果"
    "敢正直诚实守仲伯叔季孟之乎者也亦如何可以若水清澈溪江河湖泊星辰月阳昊昕旭昂昌昱晟晗晖晴景智暖暄朗朔望期朋服朝木本"
    "林森松柏桐楠梓棠椿榕槿樱橙檀歌欢止武毅民泓泽洁洪浦浩涌润涵淇淼渊清溢滢滨漫潇澜灵炎炜炫烁烨焱焕煜熙燕牧特玄率"
)
STEMS = (
    "人民 解放 建设 中山 和平 胜利 新华 文化 青年 友谊 光明 朝阳 东风 红旗 长江 黄河 珠江 滨江 沿河 环城 学府 科技 创业 兴业 工业 "
    "迎宾 站前 体育 公园 湖滨 龙泉 凤凰 金沙 银杏 梧桐 桂花 梅林 松柏 竹园 柳荫 荷塘 枫林 樱花 紫荆 丁香 玉兰 海棠 芙蓉 牡丹 "
    "翠竹 青松 碧水 蓝天 白云 彩虹 星光 月亮 太阳 晨光 春晖 秋实 丰收 幸福 吉祥 如意 平安 康宁 福寿 同心 团结 民主 民生 民权 "
    "育才 崇文 尚德 明德 至善 求实 勤学 书院 翰林 状元 文昌 文庙 孔庙 城隍 鼓楼 钟楼 古城 老街 十字 南门 北门 东门 西门 南湖 "
    "北湖 东湖 西湖 天河 银河 金河 清河 白河 沙河 柳河 石桥 板桥 虹桥 金桥 银桥 双桥 大桥 小桥 高桥 平桥 码头 渡口 港口 机场 "
    "火车站 航空 航天 邮电 电力 水利 农业 林业 纺织 钢铁 机械 化工 冶金 电子 软件 信息 数码 世纪 新纪元 时代 未来 国际 环球 欧陆 "
    "罗马 巴黎 维也纳 香榭丽 锦绣 锦江 锦华 华府 华庭 华茂 盛世 盛大 盛和 万科 万象 万通 万福 恒大 恒通 恒丰 富贵 富力 富康 富源 "
    "金鼎 金泰 金域 金地 银座 银泰 银都 宝龙 宝利 宝华 龙湖 龙城 龙腾 凤鸣 凤起 麒麟 瑞祥 瑞景 瑞丰 嘉和 嘉华 嘉禾 佳园 佳兆 "
    "美林 美景 美佳 阳光 春天 四季 山水 绿地 绿洲 绿景 青山 青城 青云 玉泉 玉带 玉山 珍珠 翡翠 水晶 琥珀 天鹅 白鹭 飞鹤 鸿雁"
).split()
ROADS = "路 路 路 街 街 大道 大街 巷 弄 胡同 道 里 支路 东路 西路 南路 北路 中路 一路 二路 三路 东街 西街 后街 横街 公路 环路 线 坊 条".split()
ESTATES = (
    "花园 小区 苑 府 城 公寓 广场 大厦 中心 国际 新村 家园 名邸 华庭 公馆 豪庭 雅居 山庄 别墅 大院 宿舍 家属院 酒店 宾馆 医院 学校 中学 小学 大学 幼儿园 "
    "超市 商场 商城 市场 批发市场 产业园 工业园 科技园 创业园 软件园 物流园 写字楼 工厂 电子厂 服装厂 公司 集团 银行 药店 餐厅 饭店 茶楼 网吧 健身房 "
    "驾校 汽修厂 加油站 派出所 村委会 居委会 卫生院 车站 码头 仓库 快递站 菜鸟驿站 大楼 大院 安置房 廉租房 期 区 里 湾 郡 邸 庄园 半岛 一号 天地 时代"
).split()
VILLAGE = "村 村 镇 乡 街道 社区 屯 寨 庄 堡 岭 沟 坪 湾 集 店 营 圩 墟 塘".split()
PLACE_ADJ = "北侧 南侧 东侧 西侧 对面 旁 旁边 附近 门口 后面 往东100米 往北50米 路口 地下一层 负一层 一楼 二楼大厅 前台 门卫室 楼下 院内".split()


def word(rng: random.Random, low: int = 2, high: int = 3) -> str:
    """A stem for names of streets and estates: a known word, or two or three characters drawn at random."""
    roll = rng.random()
    if roll < 0.45:
        return rng.choice(STEMS)
    frequent, rare = characters()
    pool = GIVEN if roll < 0.6 else frequent if roll < 0.95 else rare
    return "".join(rng.choice(pool) for _ in range(rng.randint(low, high)))


def name(rng: random.Random) -> str:
    """A person's name: surname (4 % compound) and one or two characters, a share of them drawn at random."""
    surname = rng.choice(COMPOUND) if rng.random() < 0.06 else rng.choice(SURNAMES)
    pool = GIVEN if rng.random() < 0.7 else characters()[0]
    return surname + "".join(rng.choice(pool) for _ in range(rng.choice([1, 2, 2, 2])))


def digits(rng: random.Random, n: int) -> str:
    """`n` digits."""
    return "".join(rng.choice("0123456789") for _ in range(n))


def number(rng: random.Random) -> str:
    """A number of one to four digits, short ones more often."""
    return str(
        rng.choice(
            [
                rng.randint(1, 9),
                rng.randint(10, 99),
                rng.randint(10, 99),
                rng.randint(100, 999),
                rng.randint(1000, 3999),
            ]
        )
    )


def room(rng: random.Random) -> str:
    """Building, unit, floor and room in one of many forms."""
    n = lambda: number(rng)  # noqa: E731
    letter = rng.choice("ABCDEFGH")
    hanzi = rng.choice("一二三四五六七八九十")
    forms = [
        f"{n()}号楼", f"{n()}栋", f"{n()}幢", f"{n()}座", f"{letter}座", f"{letter}栋", f"{n()}号楼{n()}单元", f"{n()}栋{n()}室",
        f"{n()}幢{n()}单元{n()}室", f"{n()}号楼{n()}单元{n()}", f"{n()}-{n()}-{n()}", f"{n()}-{n()}", f"{letter}{n()}", f"{n()}层",
        f"{n()}楼", f"{hanzi}楼", f"{n()}层{n()}室", f"{letter}座{n()}室", f"{letter}座{n()}", f"{n()}号铺", f"{n()}档", f"{n()}号档口", f"{n()}号门",
        f"{n()}单元{n()}", f"{hanzi}期{n()}栋", f"{n()}号院", f"{n()}号院{n()}号楼", f"{hanzi}单元{n()}室", f"{n()}楼{letter}区", f"{letter}区{n()}号", f"{n()}栋{n()}楼",
        f"{n()}房", f"{n()}栋{n()}房", f"{n()}号房", f"{n()}#{n()}", f"{n()}宿舍{n()}", f"{n()}号商铺", f"{hanzi}号门", f"地下{hanzi}层", f"{n()}门{n()}室",
    ]  # fmt: skip
    return rng.choice(forms)


def location(rng: random.Random) -> str:
    """The rest of an address, from town or street to room."""
    gap = " " if rng.random() < 0.12 else ""
    parts: list[str] = []
    if rng.random() < 0.22:
        parts.append(word(rng, 1, 3) + rng.choice(VILLAGE))
        if rng.random() < 0.4:
            parts.append(word(rng, 1, 3) + rng.choice(["村", "村", "社区", "居委会", "新村", "屯", "自然村"]))
        if rng.random() < 0.4:
            parts.append(number(rng) + rng.choice(["组", "队", "号", "组" + number(rng) + "号", "社", "街坊"]))
    if not parts or rng.random() < 0.7:
        parts.append(word(rng) + rng.choice(ROADS))
        roll = rng.random()
        if roll < 0.72:
            parts[-1] += number(rng) + rng.choice(
                [
                    "号",
                    "号",
                    "号",
                    "号院",
                    "号附" + number(rng) + "号",
                    "弄" + number(rng) + "号",
                    "-" + number(rng) + "号",
                    "巷" + number(rng) + "号",
                ]
            )
        elif roll < 0.8:
            parts[-1] += (
                rng.choice(["与", "和"])
                + word(rng)
                + rng.choice(ROADS)
                + rng.choice(["交叉口", "交汇处", "路口", "交界处"])
            )
    if rng.random() < 0.68:
        parts.append(
            (rng.choice(["中国", "新", "大", "小", ""]) if rng.random() < 0.1 else "")
            + word(rng)
            + (word(rng) if rng.random() < 0.15 else "")
            + rng.choice(ESTATES)
        )
    if rng.random() < 0.72:
        parts.append(room(rng))
    if rng.random() < 0.08:
        parts.append(rng.choice(PLACE_ADJ))
    return gap.join(parts)


def phone(rng: random.Random) -> tuple[str, str]:
    """A phone as typed and as it is kept: without +86, and a mobile number without spaces and dashes."""
    roll = rng.random()
    if roll < 0.72:
        plain = rng.choice(
            ["1" + rng.choice("3456789"), "1" + rng.choice("3456789"), "2" + rng.choice("0123456789")]
        ) + digits(rng, 9)
        text = plain
        if rng.random() < 0.2:
            gap = rng.choice(" -")
            text = plain[:3] + gap + plain[3:7] + gap + plain[7:]
    else:
        area = rng.choice(["010", "02" + rng.choice("0123456789"), "0" + rng.choice("3456789") + digits(rng, 2)])
        plain = area + rng.choice(["-", "-", "-", ""]) + rng.choice("2345678") + digits(rng, rng.choice([6, 7]))
        if rng.random() < 0.25:
            plain += rng.choice(["-", "转", "转分机", " 转 "]) + digits(rng, rng.choice([3, 4]))
        text = plain
    if rng.random() < 0.08:
        text = rng.choice(["+86", "+86 ", "+86-", "86-", "86 ", "0086-", "86"]) + text
    return text, plain
