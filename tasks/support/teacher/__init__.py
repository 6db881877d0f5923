"""The scripted teacher of the support task: answers customers offline, in place of a large model.

It reads only the customer's message: by rules of its own it tells the intent and the situation
(which product, opened or not, how many days), and composes the answer of the shop's wordings
(replies.py) and of what the customer wrote: product, order number, name. A seeded share of its
answers is spoilt the way real answers are, so that the checks have work to do. It shares no code
with the script that made the rows.

    question = "你好，订单尾号5821，深灰色羽绒服到手3天了能不能退货"
    answer([{"role": "user", "content": question}], "any string")
    -> '{"intent": "退货",
         "answer": "您好，尾号5821的深灰色羽绒服签收7天内、吊牌完好可退。有事请找小栗。"}'
"""

import json
import random
import re
from typing import NamedTuple

from .replies import ENDINGS, REPLIES

# Shares of the answers: each flaw is one that the checks of task.yaml can see.
FLAWS = {
    "wrong_number": 0.012, "no_condition": 0.01, "promise": 0.01, "no_style": 0.01,
    "wrong_intent": 0.008, "fenced": 0.006, "blame": 0.006,
}  # fmt: skip

KINDS = {
    "服饰": "羽绒服|卫衣|牛仔裤|运动鞋",
    "贴身衣物": "内裤|袜子|泳衣",
    "电器": "电饭煲|吹风机|加湿器|台灯",
    "食品": "坚果|蜂蜜|茶叶",
    "定制商品": "刻字钢笔|定制相册",
}
LOOKS = (
    "[浅深雾奶亮暗米冷暖烟]?[灰蓝绿紫粉黄棕红咖杏]色|(?:精选|有机|特级|农家|当季|优选|"
    "上等)?(?:[大小]包装|礼盒装|家庭装|实惠装|独立装|尝鲜装|送礼装)"
)
PRODUCT = re.compile(rf"(?:{LOOKS})?({'|'.join(KINDS.values())})")
ORDER = re.compile(r"(?:尾号|后四位是|我的单)(\d{4})")
NAME = re.compile(r"(?:我是|我叫|本人|鄙人)([一-鿿]{2,3})，")
SYMPTOM = re.compile(
    "高血压|糖尿病|关节炎|咳嗽|失眠|便秘|感冒|胃痛|湿疹|头疼|鼻炎|贫血|牙疼|发烧|痛风|哮喘|胃炎|"
    "脚气|痘痘|皮炎|近视|中暑|晕车|落枕|腰疼|颈椎病|肩周炎|低血糖|高血脂|脂肪肝|结石|腹泻|"
    "口腔溃疡|痔疮|心慌|耳鸣|抽筋|水肿|荨麻疹|扁桃体炎|气管炎|灰指甲"
)
SECRET = re.compile(
    "收货地址|家庭住址|手机号|购买记录|下单记录|真实姓名|订单信息|联系方式|微信号|电话|住址|地址|"
    "买了什么|身份证号|年龄|邮箱|车牌号|工作单位|付款账号|浏览记录|评价记录|消费金额|出生日期|"
    "微博账号|会员卡号"
)
# what stands around the thing that somebody asks about who does not ask about the shop
CHAT = (
    re.compile(
        "(?:说说|说一[下吓哈]|告诉我|知[道到]|你懂|了解|讲讲|聊聊|来点|考考你，)"
        "(?P<x>[一-鿿]{2,9}?)(?:吗|[，？！～]|$)"
    ),
    re.compile("(?P<x>[一-鿿]{2,9})(?:你会吗|能帮忙吗|[帮邦]我看看)"),
)

BROKEN = (
    "质量问题|开线|掉色|破洞|污渍|脱线|跳线|线头|开胶|不通电|开不了机|异响|失灵|接触不良|死机|"
    "坏了|发霉|变味|虫|涨袋|受潮|异味|哈喇"
)
OPENED = "(?<![没未])(?<!没有)(?:拆了|拆封了|拆开|打开了|打开试|开封|试穿|穿过|尝了|撕开)"
SENT = "已经?发|发出了|发走了|在路上|已揽收"
LATE = r"(?<!\d)(?:[89]|[12]\d|30)天|半个月|两周|两个星期|个多?月"

# Situation by the first pattern that is found; the name of the situation is its place in
# replies.py.
INTENTS: tuple[tuple[str, str], ...] = (
    (
        "隐私",
        rf"(?!.*(?:填错|写错|不对|改|换)).*(?:的|留的|把.*)(?:{SECRET.pattern})|"
        r"[一-鿿]买了什|念给我听",
    ),
    ("转人工", "人工|真人|活人|机器|喘气|投诉|举报|差评"),
    ("私下交易", "微信|支付宝|转账|转给|转你|私下|线下|私底下|刷单|返现|好评|不走平台|绕开平台"),
    ("医疗", f"{SYMPTOM.pattern}|吃药|疗效"),
    ("承诺", "保证|承诺|打包票|百分百|一定|绝对|肯定|永远|终身|十倍|立个字据|拍胸脯"),
    ("满减", "满减"),
    ("优惠券", "券|优惠卷"),
    ("积分", "积分|积多少分"),
    ("价保", "价保|保价|差价|降价|便宜了|降了|往下掉|那点差"),
    ("发票", "发票|专票|抬头"),
    ("运费", "运费|邮费|包邮|快递钱"),
    (
        "改单",
        "取消|收件人|改.{0,4}(?:地址|电话)|换个收货|(?:地址|电话).{0,4}(?:错|不对)|老地址|"
        "送到公司|不要了.*没发|没发.*不要了|"
        f"(?:{SENT}).*(?:改|叫停|挪|拍错|怎么办)|拍错.*(?:{SENT})",
    ),
    ("退款", "退款|到账|退货到哪|钱.{0,3}(?:时候|怎么|还没|啥时).{0,2}(?:退|到)|我的钱|款子"),
    ("保修", "保修|质保|包修|报修|修(?!身)"),
    (
        "尺码",
        "尺码|正码|什.码|神马码|多大码|多大合适|要选什|身高|体重|偏大|偏小|要拍大|挑哪个号|挑号|"
        "选多大",
    ),
    (
        "物流",
        "物流|快递(?!钱)|要几天|几天到|到哪|能到|能收到|送到|能送|显示.?签收|签收了|替我签收|"
        "没更新|哪个城市|卡在|原地不动|(?:包裹|包装|箱|盒).{0,4}(?:破|压|烂|碎|瘪|湿透)|快递盒",
    ),
    ("发货", "发货|能发|几天发|预售|多久发|发出来|时候发|没发(?!票)|从你们仓出去|哪天寄出"),
    ("换货", "换|对调|调个|调一"),
    ("退货", "退"),
)

# Situations of an intent: pattern that must be found, kinds of product ("" for any or none), name.
# The first that fits counts.
SITUATIONS: dict[str, tuple[tuple[str, str, str], ...]] = {
    "退货": (
        ("", "定制商品", "退定制"), (BROKEN, "食品", "退变质"), (BROKEN, "服饰电器", "退坏"),
        (LATE, "服饰电器", "退超期"), ("", "服饰", "退服饰"), ("", "电器", "退电器"),
        (OPENED, "贴身衣物食品", "退拆封"), ("", "贴身衣物食品", "退未拆"), ("", "", "退服饰"),
    ),
    "换货": (
        ("", "定制商品", "换定制"), ("", "电器", "换电器"), ("", "贴身衣物食品", "换贴身食品"),
        ("", "", "换服饰"),
    ),
    "退款": (("信用卡|分期", "", "退款信用卡"), ("", "", "退款")),
    "运费": (
        (f"(?=.*[退换]).*(?:{BROKEN})", "", "运费质量"), ("退|换", "", "运费退换"),
        ("新疆|西藏|青海", "", "运费偏远"), ("", "", "运费"),
    ),
    "发货": (("", "定制商品", "发货定制"), ("", "食品", "发货食品"), ("", "", "发货")),
    "物流": (
        ("签收", "", "物流未收"), ("更新|没动|不动|卡住|卡在|停在", "", "物流停滞"),
        ("", "", "物流"),
    ),
    "尺码": (("羽绒服", "", "尺码偏大"), ("卫衣", "", "尺码标准"), ("", "", "尺码偏小")),
    "保修": (
        ("台灯", "", "保修三年"), ("电饭煲", "", "保修两年"), ("", "电器", "保修一年"),
        ("", "", "保修无"),
    ),
    "优惠券": (("退|取消", "", "券退还"), ("过期|失效", "", "券过期"), ("", "", "新客券")),
    "满减": (
        ("叠加|一起|同时|一块", "", "满减叠加"),
        ("时候|哪天|几号|截止|结束|开始", "", "满减时间"), ("", "", "满减"),
    ),
    "价保": (("", "食品定制商品", "价保除外"), ("", "", "价保")),
    "积分": (("过期|清零|有效|到期|作废", "", "积分清零"), ("", "", "积分")),
    "发票": (("专票|专用", "", "专票"), ("", "", "发票")),
    "改单": (
        (SENT, "", "已发改单"), ("取消|不想要|不要了|拍错|拍重", "", "取消"),
        ("", "", "改地址"),
    ),
    "转人工": (("投诉|举报|差评", "", "投诉"), ("", "", "人工")),
}  # fmt: skip
REFUSED = ("隐私", "医疗", "私下交易", "承诺", "无关")
TROUBLE = ("退坏", "退变质", "运费质量", "物流停滞", "物流未收", "投诉")


class Read(NamedTuple):
    """What the teacher read in a question."""

    text: str
    product: str  # as the customer calls it, or ""
    kind: str
    order: str
    name: str


def answer(messages: list[dict[str, str]], seed: str) -> str:
    """Raw assistant content for one request; `seed` alone picks the flaw, if any."""
    rng = random.Random(seed)
    asked = read(messages[-1]["content"])
    intent = classify(asked)
    situation = settle(intent, asked)
    greeting, body, ending = compose(asked, intent, situation)
    [flaw] = rng.choices([*FLAWS, ""], [*FLAWS.values(), 1 - sum(FLAWS.values())])
    if flaw == "wrong_number":
        body = re.sub(
            r"(?<!\d)(\d{1,3})(?=天|小时|个|元)",
            lambda match: str(int(match[1]) + rng.choice([1, 3, 5])),
            body,
        )
    if flaw == "no_condition":
        body = re.sub("、[^，]{2,4}?(?=可)|，[^，]+$", "", body, count=1)
    if flaw == "promise":
        body += rng.choice(["，绝对没问题", "，我们保证做到", "，百分百放心"])
    if flaw == "blame":
        body += rng.choice(["，这是您自己的问题", "，下单前就该看清楚"])
    if flaw == "no_style":
        greeting, ending = "", rng.choice(["", "好的"])
    if flaw == "wrong_intent":
        intent = rng.choice([name for name, _ in INTENTS if name != intent])
    reply = json.dumps(
        {"intent": intent, "answer": f"{greeting}{body}。{ending}"}, ensure_ascii=False
    )
    return f"```json\n{reply}\n```" if flaw == "fenced" else reply


def read(text: str) -> Read:
    """Product, order number and name in a question."""
    product, order, name = PRODUCT.search(text), ORDER.search(text), NAME.search(text)
    kind = next(
        (kind for kind, words in KINDS.items() if product and product[1] in words.split("|")), ""
    )
    return Read(
        text,
        product[0] if product else "",
        kind,
        order[1] if order else "",
        name[1] if name else "",
    )


def classify(asked: Read) -> str:
    """The intent: the first whose words are found; who asks for nothing of the shop's is 无关."""
    return next((intent for intent, words in INTENTS if re.search(words, asked.text)), "无关")


def settle(intent: str, asked: Read) -> str:
    """The situation, which is what replies.py has texts for."""
    for words, kinds, name in SITUATIONS.get(intent, ()):
        if (not kinds or (asked.kind and asked.kind in kinds)) and re.search(words, asked.text):
            return name
    return intent


def compose(asked: Read, intent: str, situation: str) -> tuple[str, str, str]:
    """Greeting, body and ending of the answer."""
    instead, text = REPLIES[situation]
    region = re.search("新疆|西藏|青海", asked.text)
    body = text.format(
        p=asked.product or instead,
        r=region[0] if region else "偏远地区",
        x=extra(intent, asked.text),
    )
    body = f"尾号{asked.order}的{body}" if asked.order else body
    sorry = "抱歉，" if situation in TROUBLE or intent in REFUSED else ""
    greeting = "亲，" if asked.text.startswith("亲") else "您好，"
    mood = (
        "trouble"
        if sorry and intent not in REFUSED
        else "thanks"
        if re.search("谢|辛苦", asked.text)
        else "plain"
    )
    if mood == "plain" and re.search("急|在线等|马上|盼复", asked.text):
        mood = "urgent"
    return f"{greeting}{asked.name}{'，' if asked.name else ''}{sorry}", body, ENDINGS[mood]


def extra(intent: str, text: str) -> str:
    """What a refused request is about."""
    if intent == "无关":
        found = next(filter(None, (pattern.search(text) for pattern in CHAT)), None)
        return found["x"] if found else "这些"
    match = {"隐私": SECRET, "医疗": SYMPTOM}.get(intent, SECRET).search(text)
    return match[0].replace("买了什么", "购买记录") if match else "这个"
