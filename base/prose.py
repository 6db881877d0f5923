"""Seeded generator of plain Chinese text for pretraining the tiny base model.

prose(rng) -> (system, user, answer): topical prose, texts of a stated length, questions on a short context, summaries,
facts <-> sentence <-> JSON, word knowledge, remarks. Length always means the count of non-white-space characters,
punctuation included. Text is composed from clause patterns whose `{slot}` is filled from word pools.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

# A table's row reads better as one line.
# fmt: off

# prose.json: topics, a line each ("@names|"; t = time phrases, who = subjects, V = verb phrases of a person, T = whole clauses, R = closing
# remarks, any other key = a word pool of that topic; items parted by white space); pools for all topics; words as
# word|category|definition|wry remark; antonyms.
WHO = "我 我们 {name} {rel} 大家 {name} 小{surname1} 老{surname1} {name}和{rel} {name}"
NUMBERS: dict[str, Callable[[random.Random], object]] = {
    "n": lambda r: r.choice((r.randint(10, 99), r.randint(2, 60) * 5)),
    "g": lambda r: r.randint(1, 9),
    "q": lambda r: r.choice(("1比0", "2比1", "3比0", "3比2", "4比1", "5比3", "21比18", "78比75", "96比88")),
    "d": lambda r: r.choice((r.randint(2, 9), "两三五六七八"[r.randrange(6)])),
    "k": lambda r: r.randint(30, 40),
    "h": lambda r: r.choice("八九十"),
    "w": lambda r: r.choice("一二三四五"),
}
Pattern = list[tuple[str, str]]  # [(literal, slot), ...], the last slot may be ''
Bank = dict[str, list[Any]]


def _blocks(text: str) -> Bank:
    """Parse "key: item item key: item" text."""
    out: Bank = {}
    key = ""
    for token in text.split():
        if token.endswith(":"):
            key = token[:-1]
        else:
            out.setdefault(key, []).append(token)
    return out


def _compile(items: list[str]) -> list[Pattern]:
    parts = [re.split(r"\{(\w+)\}", item) + [""] for item in items]
    return [list(zip(p[::2], p[1::2], strict=True)) for p in parts]


@cache
def _tables() -> tuple[Bank, list[Bank], list[list[str]], list[tuple[str, str]]]:
    """Pools, topics, word entries and antonym pairs, parsed once."""
    words = {name: "\n".join(lines) for name, lines in json.loads(Path(__file__).with_suffix(".json").read_text("utf8")).items()}
    pools = _blocks(words["pools"])
    pools["place"] = [a + b for a in pools["p1"] for b in pools["p2"] if a != b]
    pools["name"] = [s + g for s in pools["surname"] for g in pools["given"]]
    pools["surname1"] = [s for s in pools["surname"] if len(s) == 1]
    topics = []
    for block in words["topics"].strip().split("@")[1:]:
        head, _, body = block.partition("|")
        topic = {**pools, "who": WHO.split(), **_blocks(body)}
        for role in ("who", "V", "T", "R"):
            topic[role] = _compile(topic[role])
        topic["R"] = topic["R"] * 3 + _compile(pools["R0"] if head.split()[0] in pools["sober"] else pools["R0"] + pools["R1"])
        topics.append(topic | {"names": head.split()})
    pairs = [(p[0], p[-1]) if len(p) == 2 else tuple(p.split("-")) for p in words["antonyms"].split()]
    return pools, topics, [line.split("|") for line in words["words"].split()], pairs  # type: ignore[return-value]


class Writer:
    """Writes clauses and sentences on one topic; remembers subject, place and words so that a text stays coherent."""

    def __init__(self, rng: random.Random, topic: Bank) -> None:
        self.rng, self.topic = rng, topic
        self.bound: dict[str, str] = {}
        self.words: list[str] = []
        self.used: set[int] = set()
        self.sex = rng.choice("他她")

    def word(self, slot: str) -> str:
        """A filler for one slot: numbers are drawn, a place is kept for the text, other words are not repeated."""
        if slot in NUMBERS and slot not in self.topic:
            return str(NUMBERS[slot](self.rng))
        if slot in self.bound:
            return self.bound[slot]
        pool = self.topic[slot]
        word = self.rng.choice(pool)
        if word in self.words:
            word = self.rng.choice(pool)
        if slot == "place":
            self.bound[slot] = word
        self.words.append(word)
        return word

    def fill(self, pattern: Pattern) -> str:
        """The pattern with every slot filled."""
        return "".join([lit + (self.word(slot) if slot else "") for lit, slot in pattern])

    def clause(self, role: str) -> str:
        """A clause of a role (V, T or R), of a pattern not used yet where there is one."""
        pats = self.topic[role]
        for _ in range(8):
            pattern = self.rng.choice(pats)
            if id(pattern) not in self.used:
                break
        self.used.add(id(pattern))
        return self.fill(pattern)

    def subject(self) -> str:
        """The person of the text: named first, a pronoun or left out later."""
        who = self.bound.get("who")
        if who is None:
            who = self.bound["who"] = self.fill(self.rng.choice(self.topic["who"]))
            return who
        if who in ("我", "我们", "大家") or who.endswith(tuple(self.topic["orgs"])):
            return who
        if who.endswith("们") or "和" in who or who.startswith(("一群", "几只")):
            return "他们" if self.topic["names"][0] != "自然" else "它们"
        if self.topic["names"][0] in ("宠物", "自然") and not who.endswith("员"):
            return "它"
        return "她" if who in self.topic["female"] else "他" if who in self.topic["male"] else self.sex

    def sentence(self, close: bool = True) -> list[str]:
        """Clauses of one sentence."""
        rng = self.rng
        form = rng.random()
        time = rng.choice(self.topic["t"]) if rng.random() < 0.35 and "time" not in self.bound else ""
        if time:
            self.bound["time"] = time
        comma = "，" if time and rng.random() < 0.6 else ""
        if form < 0.5:
            parts = [time + comma + self.subject() + self.clause("V")]
            if rng.random() < 0.6:
                parts.append(rng.choice(("", "", "又", "还", "然后")) + self.clause("V"))
        else:
            parts = [time + comma + self.clause("T")]
            if rng.random() < 0.6:
                parts.append(self.clause("T"))
        if close and rng.random() < 0.4:
            parts.append(self.clause("R"))
        return parts

    def exact(self, size: int) -> str:
        """One sentence of exactly `size` characters with its full stop, or '' when none was met in a few draws."""
        for _ in range(10):
            state = self.state()
            parts = self.sentence() if size > 10 and self.rng.random() < 0.8 else [self.clause(self.rng.choice("TR"))]
            gap = size - 1 - sum(map(len, parts)) - len(parts)
            if gap == -1:
                return "，".join(parts) + "。"
            if 3 <= gap <= 14:
                for _ in range(8):
                    tail = self.clause(self.rng.choice("RRT"))
                    if len(tail) == gap and tail not in parts:
                        return "，".join([*parts, tail]) + "。"
            self.bound, self.used, self.words = state
        return ""

    def state(self) -> tuple[dict[str, str], set[int], list[str]]:
        """A copy of what is remembered, to go back to when a sentence is thrown away."""
        return self.bound.copy(), self.used.copy(), self.words.copy()

    def text(self, low: int, high: int) -> str:
        """Sentences of between low and high characters in all (exactly low when they are equal)."""
        return self.extend([], low, high)

    def extend(self, start: list[str], low: int, high: int) -> str:
        """Go on after the sentences `start` up to a total length between low and high."""
        rng, first = self.rng, sum(map(len, start))
        before = self.state()
        for _ in range(200):
            out, total, goal = list(start), first, rng.randint(low, high)
            while goal - total > 34 or (goal - total > 22 and rng.random() < 0.5):
                state = self.state()
                s = "，".join(self.sentence(close=total > 0)) + "。"
                if total + len(s) <= goal - 7:
                    out.append(s)
                    total += len(s)
                else:
                    self.bound, self.used, self.words = state
            s = self.exact(goal - total) if goal > total else ""
            if s or goal == total:
                return "".join([*out, s])
            self.bound, self.used, self.words = before[0].copy(), set(), []  # all patterns are free again
        raise ValueError(f"no text of {low} to {high} characters from {first} on the topic {self.topic['names'][0]}")


HELP = "|||你是一个写作助手。|你是一个有用的助手。|请用中文回答。|按要求完成任务，不要解释。|你擅长写简短通顺的中文。|回答要简洁、准确。|请认真阅读要求后回答。|你是一位语文老师。|你是编辑，语言朴实流畅。|只输出结果。"


def _pick(rng: random.Random, options: str, **values: object) -> str:
    return rng.choice(options.split("|")).format(**values)


def _new(rng: random.Random) -> tuple[Writer, str]:
    topic = rng.choice(_tables()[1])
    return Writer(rng, topic), rng.choice(topic["names"])


def _prose(rng: random.Random) -> tuple[str, str, str]:
    w, name = _new(rng)
    answer = w.text(20, rng.choice((60, 100, 150, 210)))
    if rng.random() < 0.6:
        return "", "", answer
    ask = "写一段关于{t}的文字|请写一段话，主题是{t}|说说{t}|以“{t}”为题写几句话|谈谈{t}|用几句话描写{t}|主题：{t}|写一个关于{t}的小段落|{t}"
    return _pick(rng, HELP), _pick(rng, ask, t=name).rstrip("。") + rng.choice(("", "。")), answer


def _length(rng: random.Random) -> tuple[str, str, str]:
    w, name = _new(rng)
    n = rng.randint(20, 90) if rng.random() < 0.75 else rng.randint(8, 160)
    kind = rng.choices(("exact", "max", "min", "range"), (6, 2, 1, 1))[0]
    low, high = {"exact": (n, n), "max": (max(8, n * 2 // 3), n), "min": (n, n + 30), "range": (n, n + 20)}[kind]
    answer = w.text(low, high)
    size = {
        "exact": "{n}字|{n}个字|恰好{n}字|正好{n}个字|刚好{n}字|{n}字（含标点）|一共{n}个字|{n}字整",
        "max": "不超过{n}字|{n}字以内|最多{n}个字|少于{n1}字|控制在{n}字以内|至多{n}字",
        "min": "不少于{n}字|至少{n}个字|{n}字以上|起码{n}字",
        "range": "{n}到{m}字|{n}—{m}字|{n}至{m}个字之间|不少于{n}字、不超过{m}字",
    }[kind]
    size = _pick(rng, size, n=n, n1=n + 1, m=n + 20)
    known = [x for x in w.words if len(x) > 1 and x in answer]
    if known and rng.random() < 0.25:
        name += f"，提到“{rng.choice(known)}”"
    if rng.random() < 0.2:
        system = _pick(rng, "每次写一段话，字数要求：{s}。|根据主题写文字，{s}。|你按字数写作。要求：{s}。|写作要求：{s}，标点计入。", s=size)
        return system, _pick(rng, "{t}|主题：{t}|写{t}|题目是{t}|关于{t}", t=name), answer
    ask = "写一段文字，{s}，主题是{t}|请写一段话，{s}，关于{t}|主题：{t}。字数：{s}|围绕{t}写几句，{s}|要求：{s}；主题：{t}|写作，{s}，写{t}|帮我写一段话，要{s}，内容关于{t}|以{t}为主题，写一段文字，{s}|说说{t}，字数要求：{s}|按{s}的要求写一段文字，主题是{t}"
    return _pick(rng, HELP), _pick(rng, ask, s=size, t=name).rstrip("。") + rng.choice(("", "。")), answer


def _count(rng: random.Random) -> tuple[str, str, str]:
    w, _ = _new(rng)
    text = w.text(8, 50)
    ask = "这段话有多少字？{x}|数一数字数：{x}|{x}以上文字共有多少个字？|“{x}”一共几个字（含标点）？|请给出下面这段文字的字数。{x}|统计字数：{x}|下面的话有几个字？{x}|文字：{x}字数："
    reply = _pick(rng, "{n}|{n}个字|{n}字|共{n}个字。|这段话有{n}个字。|一共{n}个字（含标点）。|“{h}”所在的这段话共{n}个字。", n=len(text), h=text[:6])
    return _pick(rng, HELP), _pick(rng, ask, x=text), reply


def _resize(rng: random.Random) -> tuple[str, str, str]:
    w, _ = _new(rng)
    sents = ["，".join(w.sentence()) + "。" for _ in range(rng.randint(1, 3))]
    keep = sents[: rng.randint(1, len(sents))]
    size = sum(map(len, keep))
    n = size + rng.choice((0, rng.randint(8, 40)))
    ask = "把下面的话改写成{n}字：{x}|改写成{n}个字。{x}|{x}请改成{n}字。|调整这段话到{n}字：{x}|原文：{x}要求：{n}字|将原文改为正好{n}字。原文：{x}|把这段话写成{n}个字：{x}|请把“{x}”改成{n}字"
    source = "".join(sents)
    return _pick(rng, HELP), _pick(rng, ask, n=n, x=source), w.extend(keep, n, n)


def _continue(rng: random.Random) -> tuple[str, str, str]:
    w, _ = _new(rng)
    head = "，".join(w.sentence(close=False)) + "。"
    rest = w.text(12, 70)
    ask = "续写：{x}|接着往下写：{x}|{x}请继续。|给下面的开头写后文：{x}|把这段话写下去。{x}|开头：{x}后文：|补全下文：{x}|顺着写几句：{x}"
    return _pick(rng, HELP), _pick(rng, ask, x=head), rest


def _title(rng: random.Random) -> tuple[str, str, str]:
    w, name = _new(rng)
    short, text = w.clause("T"), ""
    text = short + "，" + w.text(10, 50)
    how = rng.randrange(3)
    if how == 0:
        ask = "概括：{x}|用一句短语概括下文。{x}|{x}这段话主要说什么？|取要点：{x}|压缩成几个字：{x}|给这段话起个短标题：{x}|大意：{x}|一句话总结：{x}"
        return _pick(rng, HELP), _pick(rng, ask, x=text), short
    if how == 1:
        ask = "下面的话属于什么话题？{x}|判断主题：{x}|{x}主题是什么？|这段话写的是什么？{x}|主题词：{x}|归类：{x}|给出话题：{x}|话题是？{x}"
        return _pick(rng, HELP), _pick(rng, ask, x=text), w.topic["names"][0]
    a, b = rng.choice((("短句", "长句"), ("主题", "说明"), ("要点", "详情"), ("一句话", "展开"), ("名称", "描述"), ("小标题", "段落")))
    ask = "围绕{t}，用JSON给出{a}和{b}|写{t}，输出JSON，键为{a}、{b}|输出JSON对象（{a}、{b}），内容关于{t}|{t}：按{a}、{b}两项返回JSON|以JSON格式写{t}，包括{a}与{b}|关于{t}，返回{a}、{b}两个字段|JSON，字段：{a}、{b}。话题：{t}|请用JSON写一写{t}，字段为{a}和{b}"
    return _pick(rng, HELP), _pick(rng, ask, t=name, a=a, b=b), json.dumps({a: short, b: text}, ensure_ascii=False, separators=(",", ":"))


# A kind of fact: sentence | field=pool or pattern=question; ... ; the fields of the sentence in braces
FACTS = [
    ("{时间}，{主办方}在{地点}举办{活动}，{人数}人参加，{结果}。", "时间=date=什么时候举办 主办方=org=由谁主办 地点={place}{spot}=在哪里举办 活动=event=举办了什么活动 人数=num=有多少人参加 结果=result=结果怎么样"),
    ("{商品}是{颜色}的，材质为{材质}，售价{价格}元，保修{保修}，{发货}发货。", "商品=o=是什么商品 颜色=color=是什么颜色 材质=mat=用什么做的 价格=num=卖多少钱 保修={d}年=保修多久 发货={n}小时内=多久发货"),
    ("{姓名}今年{年龄}岁，是{家乡}的一名{职业}，平时喜欢{爱好}。", "姓名=name=叫什么名字 年龄=age=今年多大 家乡=place=是哪里人 职业=job=做什么工作 爱好=hobby=有什么爱好"),
    ("从{出发地}到{目的地}的{交通工具}{发车时间}出发，全程{时长}，票价{票价}元。", "出发地=place=从哪里出发 目的地=place=要到哪里去 交通工具=veh=坐什么去 发车时间=clock=几点出发 时长={d}小时=路上要多久 票价=num=票价多少"),
    ("{日期}{时间}，{主持人}在{会议室}主持会议，讨论{议题}，会议持续{时长}。", "日期=date=哪天开会 时间=clock=几点开会 主持人=name=谁主持会议 会议室=room=在哪里开会 议题=topic=讨论什么 时长={n}分钟=开了多久"),
    ("因{原因}，{地点}的{设施}从{开始}起暂停使用，预计{恢复}后恢复，受影响的有{数量}户。", "原因=reason=为什么停用 地点=place=是什么地方 设施=fac=什么停用了 开始=date=从什么时候停用 恢复={d}天=多久后恢复 数量=num=影响多少户"),
    ("{买家}在{店铺}买了{数量}个{商品}，{日期}下单，实付{金额}元，用{付款}支付。", "买家=name=谁买的 店铺={place}{shop}=在哪家店买的 数量=d=买了几个 商品=o=买了什么 日期=date=哪天下单 金额=num=付了多少钱 付款=pay=怎么付款"),
]
OTHER = "联系电话是多少|天气怎么样|负责人的年龄是多少|有没有优惠|下一次是什么时候|花了多少成本|谁提供了赞助|使用了什么语言|有几个孩子|是否需要预约|邮箱是什么"
ABSENT = "文中没有提到。|没有提到。|文中未说明。|材料里没有这一信息。|从文中看不出来。|没有给出相关信息。"


def _value(rng: random.Random, spec: str) -> str:
    pools = _tables()[0]
    if spec == "date":
        return _pick(rng, "{m}月{d}日|{m}月{d}日上午|今年{m}月|上周{w}|{m}月{d}日晚", m=rng.randint(1, 12), d=rng.randint(1, 28), w=rng.choice("一二三四五"))
    if spec == "clock":
        return _pick(rng, "{h}点|{h}点半|{h}:{m:02d}", h=rng.randint(7, 21), m=rng.randrange(0, 60, 5))
    if spec in ("num", "age"):
        return str(rng.randint(18, 80) if spec == "age" else rng.choice((rng.randint(11, 99), rng.randint(100, 999), rng.randint(10, 50) * 100)))
    if "{" in spec:
        return re.sub(r"\{(\w+)\}", lambda m: _value(rng, m[1]), spec)
    if spec in NUMBERS:
        return str(NUMBERS[spec](rng))
    value = rng.choice(pools[spec])
    return _value(rng, value) if "{" in value else value


@cache
def _fields() -> list[tuple[str, list[list[str]]]]:
    return [(sentence, [f.split("=") for f in fields.split()]) for sentence, fields in FACTS]


def _facts(rng: random.Random) -> tuple[str, str, str]:
    sentence, fields = rng.choice(_fields())
    values = {key: _value(rng, spec) for key, spec, _ in fields}
    text = sentence.format(**values)
    some = rng.sample(fields, rng.randint(2, min(4, len(fields))))
    keys = "、".join(f[0] for f in some)
    how = rng.random()
    system = _pick(rng, HELP)
    if how < 0.4:
        key, _, question = rng.choice(fields)
        answer = values[key]
        if rng.random() < 0.35:
            answer = f"{key}是{answer}。"
        if rng.random() < 0.25:
            question, answer = rng.choice(OTHER.split("|")), rng.choice(ABSENT.split("|"))
        if rng.random() < 0.3:
            lines = [f"{k}：{v}" for k, v in values.items()]
            rng.shuffle(lines)
            text = rng.choice(("\n", "；")).join(lines)
        if rng.random() < 0.3:
            return _pick(rng, "根据材料回答，材料中没有的就说没有提到。\n{x}|资料：{x}|已知：{x}\n请据此回答问题。|只依据以下内容作答：{x}", x=text), question + "？", answer
        ask = "{x}\n问：{q}？|材料：{x}\n问题：{q}？|根据下文回答：{q}？\n{x}|{q}？\n{x}|阅读后回答。{x}{q}？|已知信息：{x}\n请问{q}？|文中说：{x}那么{q}？|{x}\n{q}？"
        return system, _pick(rng, ask, x=text, q=question), answer
    if how < 0.65:
        answer = json.dumps({f[0]: values[f[0]] for f in some}, ensure_ascii=False, separators=(",", ":"))
        ask = "提取{k}，输出JSON：{x}|从文中找出{k}，用JSON表示。{x}|{x}\n请以JSON输出{k}。|抽取字段（{k}）：{x}|把这句话转成JSON，键为{k}：{x}|JSON，{k}：{x}|整理成JSON，只要{k}：{x}|文本：{x}\n字段：{k}"
        return system, _pick(rng, ask, k=keys, x=text), answer
    if how < 0.9:
        items = list(values.items())
        rng.shuffle(items)
        given = rng.choice(("，", "；", "\n")).join(f"{k}：{v}" for k, v in items)
        if rng.random() < 0.25:
            given = json.dumps(dict(items), ensure_ascii=False, separators=(",", ":"))
        if rng.random() < 0.3:
            ask = "填空。模板：{t}信息：{x}|按模板填写：{t}\n{x}|{x}\n套用模板：{t}|用这些信息补全句子：{x}\n{t}"
            return system, _pick(rng, ask, t=re.sub(r"\{(\w+)\}", r"【\1】", sentence), x=given), text
        ask = "把这些信息写成一句话：{x}|根据要点写一句通顺的话。{x}|{x}\n请连成句子。|信息：{x}\n写成一段话。|用一句话说清楚：{x}|要点如下：\n{x}\n请写成一句完整的话。|扩写成句子：{x}|将下列内容组织成句：{x}"
        return system, _pick(rng, ask, x=given), text
    ask = "文中的{k}分别是什么？{x}|逐条列出{k}：{x}|{x}\n列出{k}。|摘出{k}：{x}|整理{k}，每行一条：{x}|找出{k}。{x}|读一读，写下{k}：{x}"
    return system, _pick(rng, ask, k=keys, x=text), "\n".join(f"{f[0]}：{values[f[0]]}" for f in some)


def _word(rng: random.Random) -> tuple[str, str, str]:
    words, pairs = _tables()[2:]
    w, kind, meaning, wry = rng.choice(words)
    system, how = _pick(rng, HELP), rng.random()
    if how < 0.2:
        a, b = rng.choice(pairs)[:: rng.choice((1, -1))]
        ask = "“{a}”的反义词是什么？|{a}的反义词|写出{a}的反义词|与{a}意思相反的词|反义词：{a}|{a}反过来怎么说？|请给出“{a}”的反义词|什么词和“{a}”相反？"
        return system, _pick(rng, ask, a=a), _pick(rng, "{b}|{b}。|“{b}”|{a}的反义词是{b}。|和“{a}”相反的是“{b}”。", a=a, b=b)
    if how < 0.4:
        ask = "{w}是什么？|解释“{w}”|“{w}”的意思|什么是{w}？|给{w}下个定义|请解释词语：{w}|{w}指什么？|用一句话说明{w}"
        reply = "{w}是一种{k}，意思是{m}。|{m}。|{w}指{m}。|“{w}”属于{k}，指{m}。|{w}：{m}。"
        return system, _pick(rng, ask, w=w), _pick(rng, reply, w=w, k=kind, m=meaning)
    if how < 0.55:
        ask = "{w}属于哪一类？|给“{w}”分类|{w}是哪类词？|类别：{w}|{w}算什么？|把{w}归类|请说出{w}的类别|{w}的上位词"
        other = rng.choice(words)
        if rng.random() < 0.5 and other[1] != kind:
            return system, f"{w}和{other[0]}属于同一类吗？", f"不是，{w}属于{kind}，{other[0]}属于{other[1]}。"
        return system, _pick(rng, ask, w=w), _pick(rng, "{k}|{w}属于{k}。|{k}类", w=w, k=kind)
    if how < 0.65:
        ask = "猜词：{m}，是什么？|哪个词的意思是“{m}”？|{m}，打一词|什么{k}是{m}？|“{m}”说的是什么？|根据解释写词：{m}|这是什么：{m}|说出词语：{m}"
        return system, _pick(rng, ask, m=meaning, k=kind), _pick(rng, "{w}|{w}。|是{w}。", w=w)
    ask = "说说{w}，带点幽默|用一句话聊聊{w}|评一评{w}|对{w}说句俏皮话|{w}给你什么感觉？|谈谈你眼里的{w}|写一句关于{w}的话|轻松地说一句：{w}"
    if how < 0.9:
        if rng.random() < 0.3:
            hidden = "它{y}。|有一样东西，{y}。|总有那么一个，{y}。|人人都知道它，{y}。|谁不认识它呢，{y}。|{m}，偏偏{y}。"
            return system, f"不写出“{w}”，" + _pick(rng, ask, w="它"), _pick(rng, hidden, y=wry, m=meaning)
        reply = "{w}，{y}。|{w}的特点是：{y}。|说到{w}，{y}。|{w}嘛，{y}。|都说{w}是{m}，其实{y}。|{w}总是这样：{y}。|{w}这种{k}，{y}。|谁说{w}没用，{y}。"
        return system, _pick(rng, ask, w=w), _pick(rng, reply, w=w, y=wry, m=meaning, k=kind)
    reply = "{w}是{m}，生活里少不了它。|说到{w}，人们会想到{k}。|{w}很常见，{m}。|提起{w}，谁都不陌生。|作为一种{k}，{w}有自己的位置。"
    ask = "用一句话聊聊{w}|写一句关于{w}的话|说说{w}|谈谈{w}|{w}|用{w}写一句话|提到{w}你想说什么？|以“{w}”写一个句子"
    return system, _pick(rng, ask, w=w), _pick(rng, reply, w=w, m=meaning, k=kind)


KINDS: list[tuple[Callable[[random.Random], tuple[str, str, str]], int]] = [
    (_prose, 20), (_length, 40), (_count, 3), (_resize, 6), (_continue, 6), (_title, 8), (_facts, 16), (_word, 7),
]  # fmt: skip


def prose(rng: random.Random) -> tuple[str, str, str]:
    """One example (system, user, answer), depending on rng alone; system and user may be ''."""
    return rng.choices([k for k, _ in KINDS], [w for _, w in KINDS])[0](rng)
