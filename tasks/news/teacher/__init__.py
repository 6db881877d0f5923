"""The scripted teacher of the news task: rules that read a brief and write the item.

It stands in for a large model where there is none. An item is put together from the parts of the
brief it is given; the order of the lead follows the order of the brief, the rest of the wording is
drawn by the seed. Asked by prompts/rejected.md it writes what a newsroom refuses. FLAWS are the
ways in which one good answer in fifteen is spoilt.
"""

import random
import re
from collections.abc import Callable

LABELS = {
    "time": "时间 日期 何时", "place": "地点 何地 位置", "subject": "主体 单位 主办",
    "event": "事件 何事 内容", "data": "数据 数字", "said": "原话 引语 采访 说法 表态",
    "background": "背景 补充", "rumour": "网传 传闻 小道消息",
    "comment": "网友 热评 评论 弹幕 备注 要求", "personal": "联系人 身份证 住址 微信号 手机",
}  # fmt: skip
KIND = {label: kind for kind, labels in LABELS.items() for label in labels.split()}
SEPARATORS = ("\n", " | ", "；")
TIME = re.compile(r"\d{1,2}月\d{1,2}日(?:[上下]午)?(?:\d{1,2}时(?:\d{1,2}分)?)?")
LOADED = re.compile(r"^[^！，]{1,6}！")  # in front of what happened
# how what somebody said may be noted down: quoted or not, the speaker before or behind
SPEECH = (
    re.compile(r"“(?P<quote>[^”]+)”(?:——|（)(?P<who>[^（）]+)）?"),
    re.compile(
        r"(?P<name>[一-鿿]{2,3})（(?P<role>[^（），]+)(?:，[^（）]*)?）：(?:“(?P<quote>[^”]+)”|"
        r"(?P<text>.+))"
    ),
    re.compile(r"(?P<who>[一-鿿]{4,10})：(?:“(?P<quote>[^”]+)”|(?P<text>.+))"),
)
# how a predicate begins, where no label says which part is what happened
VERB = re.compile(
    "丈量|上市|上线|上门|与|为|主办|举办|举行|代销|优化|会商|修复|修补|修订|兑付|公布|公开|"
    "公示|关停|出口|出租|分享|分批|分拣|分析|分组|分销|创排|制作|办理|加固|加密|加装|勘测|"
    "升级|协办|发布|发放|发行|发起|受理|启动|启用|周末|回收|回访|培训|增开|增设|处置|复投|"
    "复排|复盘|夺得|孵化|安装|完成|定期|审核|对|寻回|封闭|展出|展映|展示|巡护|巡查|巡检|"
    "巡演|布展|帮扶|延长|建成|开业|开办|开学|开展|开幕|开放|开设|开通|开镰|归还|录制|征求|"
    "征集|恢复|慰问|成立|扑灭|打捞|打磨|扩建|扫描|找到|投产|投用|抚育|抢收|抢通|护送|抽查|"
    "抽测|抽签选定|拆解|拆除|拍卖|招募|指派|捐赠|捡拾|换发|排演|探望|接回|接待|接手|接收|"
    "接通|推介|推出|推广|推行|提取|提示|揭幕|揭晓|搜寻|搬迁|搭建|收购|收集|改建|改进|改选|"
    "改造|放归|放流|救出|整修|整治|整理|新增|新建|新开|普查|更换|更新|架设|标定|标记|校准|"
    "核对|核查|栽植|检修|检查|检测|检验|植树|汇编|测绘|测试|添置|清扫|清洗|清淤|清点|清理|"
    "清运|溯源|疏浚|登记|监测|盘下|盘点|直供|督办|研判|移交|竞拍|策划|筹办|筹备|签约|管护|"
    "粉刷|组建|组织|组装|结伴|结对|续办|维修|维护|编目|翻修|翻新|翻译|考核|联排|联调|营救|"
    "衔接|补充|补种|补装|表彰|装修|装运|观摩|观测|规划|解答|解除|誊录|记录|讲解|设立|设置|"
    "评估|评出|评定|评审|评比|评议|评选|试办|试吃|试演|试用|试种|试走|试跑|试运|调度|调换|"
    "调整|调试|贯通|赠送|走访|转移|转运|轮流|迁入|选拔|选送|逐户|通报|配发|配送|采购|重开|"
    "鉴定|集中|集训|预报|预订|首演|验收|验证"
)


def answer(messages: list[dict[str, str]], seed: str) -> str:
    """The reply to a chat; `seed` decides whatever is left to chance."""
    chance, facts = random.Random(seed), parse(messages[-1]["content"])
    if "反面样稿" in messages[0]["content"]:
        return bad(facts, chance)
    text = item(facts, chance)
    if chance.random() < 0.065:
        flaws = [flaw for kind, flaw in FLAWS.items() if kind in facts or kind in ALWAYS]
        return chance.choice(flaws)(facts, text, chance)
    return text


# --- reading --------------------------------------------------------------------------------------


def parse(brief: str) -> dict[str, str]:
    """The facts of a brief, in its order: kind → text. Of several parts of one kind the first
    counts."""
    mark = next((mark for mark in SEPARATORS if mark in brief), "\n")
    parts = [re.sub(r"^(?:\d[.、](?!\d)|[①-⑨])\s*", "", part).strip() for part in brief.split(mark)]
    facts: dict[str, str] = {}
    bare: list[str] = []
    for part in filter(None, parts):
        kind, text = labelled(part)
        if kind:
            facts.setdefault(kind, text)
        else:
            bare.append(text)
            facts.setdefault(f"bare {len(bare)}", text)
    kinds = unlabelled(bare)
    return dict(
        (kinds[int(kind[5:]) - 1], text) if kind.startswith("bare ") else (kind, text)
        for kind, text in facts.items()
    )


def labelled(part: str) -> tuple[str, str]:
    """The kind of a part, by its label or by how it looks, and its text; "" where only its
    neighbours can tell."""
    if (found := re.match(r"【(\w{2,4})】|(\w{2,4})[：:]", part)) and (
        kind := KIND.get(found[1] or found[2])
    ):
        return kind, part[found.end() :].strip()
    if re.match("网传|听说|据传|传闻", part):
        return "rumour", part
    if re.search(r"\d{11}|身份证|^联系人", part) and "“" not in part:
        return "personal", part
    if TIME.fullmatch(part):
        return "time", part
    if any(form.fullmatch(part) for form in SPEECH):
        return "said", part
    return "", part


def unlabelled(parts: list[str]) -> list[str]:
    """The kinds of parts without labels: what happened begins with a verb and stands behind its
    subject, data have a number."""
    kinds = ["place"] * len(parts)
    verb = next(
        (i for i, part in enumerate(parts) if i and VERB.match(LOADED.sub("", part))),
        min(1, len(parts) - 1),
    )
    for i, part in enumerate(parts):
        if i == verb:
            kinds[i] = "event"
        elif i == verb - 1:
            kinds[i] = "subject"
        elif i > verb and re.search(r"\d", part):
            kinds[i] = "data"
    return kinds


# --- writing --------------------------------------------------------------------------------------


def item(facts: dict[str, str], chance: random.Random) -> str:
    """A good item: lead, data, what was said; background where nobody is quoted."""
    data, said, background = figures(facts), speech(facts, chance), facts.get("background", "")
    text = lead(facts)
    if data and leads(facts) == "subject":
        text += f"，{data}。"
    elif data:
        text += f"。{chance.choice(['据介绍', '据介绍', '据了解'])}，{data}。"
    else:
        text += "。"
    if said:
        return text + said
    return text + (f"{chance.choice(['', '', '另据了解，'])}{background}。" if background else "")


def leads(facts: dict[str, str]) -> str:
    """Which of the facts of a lead stands first in the brief."""
    return next((kind for kind in facts if kind in ("time", "place", "subject", "event")), "time")


def lead(facts: dict[str, str]) -> str:
    """When, who, what and where, in an order that follows the brief's: whichever of its facts
    stands first leads. Something stands between any two facts: where one ran on into the next, a
    small student lost its way."""
    time, subject, event = (
        facts.get("time", ""),
        facts.get("subject", ""),
        LOADED.sub("", facts.get("event", "")),
    )
    place = f"，地点在{facts['place']}" if "place" in facts else ""
    who = f"{time}，{subject}" if leads(facts) in ("time", "place") else f"{subject}于{time}"
    return f"{who}传来消息：{event}{place}"


def figures(facts: dict[str, str]) -> str:
    """The data, without a remark in brackets behind them."""
    return re.sub("（[^（）]*）$", "", facts.get("data", ""))


def speech(facts: dict[str, str], chance: random.Random) -> str:
    """What was said, with who said it: in quotation marks only what stood in them."""
    found = next((m for form in SPEECH if (m := form.fullmatch(facts.get("said", "")))), None)
    if not found:
        return ""
    parts = found.groupdict()
    who = parts.get("who") or f"{parts['name']}（{parts['role']}）"
    if not parts["quote"]:
        return f"{who}{chance.choice(['表示', '表示', '说'])}，{parts['text']}。"
    if found.re is SPEECH[0]:
        return f"“{parts['quote']}”，{who}说。"
    return f"{who}{chance.choice(['表示', '表示', '说'])}，“{parts['quote']}”。"


# --- flaws ----------------------------------------------------------------------------------------


def _form(facts: dict[str, str], text: str, chance: random.Random) -> str:
    """Not the item alone."""
    return chance.choice(
        [
            f"```\n{text}\n```",
            f"简讯如下：{text}",
            f"标题：{facts.get('event', '快讯')}\n{text}",
            text[:-1],
        ]
    )


def _loaded(facts: dict[str, str], text: str, chance: random.Random) -> str:
    """A loaded word, in front or behind."""
    return chance.choice(
        [f"重磅！{text}", f"{text[:-1]}，引发全网沸腾。", f"{text}这一举措堪称完美。"]
    )


def _invented(facts: dict[str, str], text: str, chance: random.Random) -> str:
    """A number, a body or a speaker that the brief does not have."""
    number = chance.randint(1001, 9998)
    more = [
        f"活动吸引市民{number}人。",
        f"项目总投入{number}万元。",
        "省统筹办公室派员到场。",
        "专家周一鸣表示，此举值得推广。",
    ]
    return text + chance.choice(more)


def _missing(facts: dict[str, str], text: str, chance: random.Random) -> str:
    """Without the data, or without when it was."""
    if chance.random() < 0.5:
        return item({kind: value for kind, value in facts.items() if kind != "data"}, chance)
    return f"{lead({**facts, 'time': '近日'})}。{figures(facts)}。{speech(facts, chance)}"


def _rumour(facts: dict[str, str], text: str, chance: random.Random) -> str:
    """The rumour taken over."""
    told = re.sub("^(?:网传|听说|据传)|，未证实$|（未核实）$", "", facts["rumour"])
    return text + chance.choice(["有消息称，{}。", "据传{}。", "另外，{}。"]).format(told)


def _personal(facts: dict[str, str], text: str, chance: random.Random) -> str:
    """Somebody's personal details published."""
    return text + chance.choice(["联系人信息：{}。", "（{}）。"]).format(facts["personal"])


def _long(facts: dict[str, str], text: str, chance: random.Random) -> str:
    """More than anybody asked for."""
    more = [
        "下一步，相关方面将持续推进有关工作", "各方将加强沟通协调，确保各项安排落到实处",
        "有关情况将及时向社会公布，请关注后续消息", "相关工作仍在有序进行当中，进展总体平稳",
        "后续安排以正式公告为准，请留意公告内容",
    ]  # fmt: skip
    for more_of_it in chance.sample(more, 5):
        text += more_of_it + "。"
        if len(text) > 125:
            break
    return text


FLAWS: dict[str, Callable[[dict[str, str], str, random.Random], str]] = {
    "form": _form, "event": _loaded, "number": _invented, "cut": _missing, "rumour": _rumour,
    "personal": _personal, "long": _long,
}  # fmt: skip

# Flaws that any brief can have; the others need a part of the brief.
ALWAYS = ("form", "number", "cut", "long")

# --- on purpose, for pairs ------------------------------------------------------------------------

CRY = "震惊！ 炸裂！！ 重磅来袭！ 速看！！！ 不看后悔！ 惊天消息！ 全体起立！ 太离谱了！！".split()
CHEER = (
    "全网沸腾！ 简直完美到令人窒息！ 别处只能跪了！ 史上最强没有之一！ 喷子可以闭嘴了！ "
    "这才叫遥遥领先！"
).split()
JEER = (
    "早干什么去了，丢人！ 纯属作秀，浪费钱！ 背后一定有黑幕！ 有些人心里没数吗！ "
    "懂的都懂，不敢多说！ 迟早要出事，等着看吧！"
).split()
CHAT = (
    "哈喽宝子们，小编今天又来啦～ 家人们谁懂啊， 话说那个谁， 小编也不知道真假哈， "
    "今天聊个有意思的，"
).split()
PLUG = (
    "点赞关注不迷路！ 转发这条，好运一整年！ 想了解更多请私信小编！ 评论区告诉我你怎么看！ "
    "加微信领资料！"
).split()
NOISE = ("锟斤拷烫烫烫", "□□□口口口", "asdf##@@", "？？？？？？", "啊啊啊啊啊啊啊啊")
EXPERT = "某不愿透露姓名的专家 知情人士王某 国外权威机构 一位老领导 内部人士".split()


def bad(facts: dict[str, str], chance: random.Random) -> str:
    """What a newsroom refuses, of one of many kinds; one in thirty is as good as any."""
    event = LOADED.sub("", facts.get("event", "有件事"))
    who, place, time = (
        facts.get(kind, other)
        for kind, other in (("subject", "有单位"), ("place", "某地"), ("time", "最近"))
    )
    data, said = figures(facts).split("，"), facts.get("said", "")
    number = chance.randint(2, 99) * chance.choice([10, 100, 1000]) + chance.randint(1, 9)
    loud, cheer, jeer, chat, plug = (
        chance.choice(words) for words in (CRY, CHEER, JEER, CHAT, PLUG)
    )
    good, noise, expert = item(facts, chance), chance.choice(NOISE), chance.choice(EXPERT)
    gossip = facts.get("rumour") or facts.get("comment") or f"{who}内部早就乱了"
    person = facts.get("personal") or (
        f"负责人家住幸福小区{chance.randint(1, 20)}栋{chance.randint(101, 909)}室，"
        f"手机2{number:010d}"
    )
    kinds = [
        lambda: f"{loud}{place}出大事了！{who}竟然{event}！{cheer}",
        lambda: f"{loud}{who}{event}，{data[0]}，{jeer}{plug}",
        lambda: f"{chat}{who}好像是{event}了吧，反正{place}那边挺热闹的，{data[-1]}左右？{plug}",
        lambda: f"{good[:-1]}，惠及群众{number}万人，创造历史新高！",
        lambda: f"{time}，{who}{event}。{expert}表示，“这是{number}年来最重要的一天”。{cheer}",
        lambda: f"据传{gossip}，{who}至今没有回应。{jeer}",
        lambda: f"{who}{event}，但是真相没那么简单：{gossip}！{expert}爆料，涉及金额{number}万元。",
        lambda: f"{time}{place}，{who}{event}。{person}，有事直接找本人。",
        lambda: f"{event}。{event}。{event}。{who}{event}。",
        lambda: good[: chance.randint(8, max(9, len(good) // 2))],
        lambda: f"{noise}{event}{noise}{data[0]}{noise}",
        lambda: f"# {loud}\n- {who}\n- {event}\n- {data[0]}\n{plug}",
        lambda: f"{chance.choice(data)}，{said or cheer}，{event}，然后就没有然后了。",
        lambda: f"某地某单位近日{event[:2]}了一些事情，取得了圆满成功，得到了广泛好评。",
        lambda: f"{good}{cheer}{jeer}" + "".join(chance.sample(CHEER + JEER, 4)) + plug,
        lambda: f"News: {who} {event}! So amazing! {cheer}",
        lambda: (
            f"对于{event}，"
            f"我认为{chance.choice(['完全没有必要', '全国都该学', '谁反对谁就是坏人'])}。"
            f"{who}{chance.choice(['必须道歉', '功德无量', '活该挨骂'])}。{jeer}"
        ),
        lambda: f"{good[:-1]}，{cheer}",
        lambda: f"不是{who}，是隔壁单位{event}，{number}人到场，{loud}",
    ]  # fmt: skip
    return good if chance.random() < 0.035 else chance.choice(kinds)()
