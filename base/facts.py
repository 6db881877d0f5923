"""Sentences of facts for the base's text: questions on them, their fields, and the way back."""

from __future__ import annotations

import random
import re
from functools import cache

from base.writer import HELP, NUMBERS, Example, jsons, pick, tables

# A kind of fact: a sentence with its fields in braces, and each field=pool or pattern=question.
FACTS = [
    (
        "{时间}，{主办方}在{地点}举办{活动}，{人数}人参加，{结果}。",
        (
            "时间=date=什么时候举办 主办方=org=由谁主办 地点={place}{spot}=在哪里举办 "
            "活动=event=举办了什么活动 人数=num=有多少人参加 结果=result=结果怎么样"
        ),
    ),
    (
        "{商品}是{颜色}的，材质为{材质}，售价{价格}元，保修{保修}，{发货}发货。",
        (
            "商品=o=是什么商品 颜色=color=是什么颜色 材质=mat=用什么做的 价格=num=卖多少钱 "
            "保修={d}年=保修多久 发货={n}小时内=多久发货"
        ),
    ),
    (
        "{姓名}今年{年龄}岁，是{家乡}的一名{职业}，平时喜欢{爱好}。",
        (
            "姓名=name=叫什么名字 年龄=age=今年多大 家乡=place=是哪里人 职业=job=做什么工作 "
            "爱好=hobby=有什么爱好"
        ),
    ),
    (
        "从{出发地}到{目的地}的{交通工具}{发车时间}出发，全程{时长}，票价{票价}元。",
        (
            "出发地=place=从哪里出发 目的地=place=要到哪里去 交通工具=veh=坐什么去 "
            "发车时间=clock=几点出发 时长={d}小时=路上要多久 票价=num=票价多少"
        ),
    ),
    (
        "{日期}{时间}，{主持人}在{会议室}主持会议，讨论{议题}，会议持续{时长}。",
        (
            "日期=date=哪天开会 时间=clock=几点开会 主持人=name=谁主持会议 会议室=room=在哪里开会 "
            "议题=topic=讨论什么 时长={n}分钟=开了多久"
        ),
    ),
    (
        "因{原因}，{地点}的{设施}从{开始}起暂停使用，预计{恢复}后恢复，受影响的有{数量}户。",
        (
            "原因=reason=为什么停用 地点=place=是什么地方 设施=fac=什么停用了 "
            "开始=date=从什么时候停用 恢复={d}天=多久后恢复 数量=num=影响多少户"
        ),
    ),
    (
        "{买家}在{店铺}买了{数量}个{商品}，{日期}下单，实付{金额}元，用{付款}支付。",
        (
            "买家=name=谁买的 店铺={place}{shop}=在哪家店买的 数量=d=买了几个 商品=o=买了什么 "
            "日期=date=哪天下单 金额=num=付了多少钱 付款=pay=怎么付款"
        ),
    ),
]
OTHER = (
    "联系电话是多少|天气怎么样|负责人的年龄是多少|有没有优惠|下一次是什么时候|花了多少成本|"
    "谁提供了赞助|使用了什么语言|有几个孩子|是否需要预约|邮箱是什么"
)
ABSENT = (
    "文中没有提到。|没有提到。|文中未说明。|材料里没有这一信息。|从文中看不出来。|"
    "没有给出相关信息。"
)


def _value(rng: random.Random, spec: str) -> str:
    pools = tables()[0]
    if spec == "date":
        return pick(
            rng,
            "{m}月{d}日|{m}月{d}日上午|今年{m}月|上周{w}|{m}月{d}日晚",
            m=rng.randint(1, 12),
            d=rng.randint(1, 28),
            w=rng.choice("一二三四五"),
        )
    if spec == "clock":
        return pick(
            rng, "{h}点|{h}点半|{h}:{m:02d}", h=rng.randint(7, 21), m=rng.randrange(0, 60, 5)
        )
    if spec in ("num", "age"):
        return str(
            rng.randint(18, 80)
            if spec == "age"
            else rng.choice((rng.randint(11, 99), rng.randint(100, 999), rng.randint(10, 50) * 100))
        )
    if "{" in spec:
        return re.sub(r"\{(\w+)\}", lambda m: _value(rng, m[1]), spec)
    if spec in NUMBERS:
        return str(NUMBERS[spec](rng))
    value = rng.choice(pools[spec])
    return _value(rng, value) if "{" in value else value


@cache
def _fields() -> list[tuple[str, list[list[str]]]]:
    return [(sentence, [f.split("=") for f in fields.split()]) for sentence, fields in FACTS]


def facts(rng: random.Random) -> Example:
    """A question on a sentence of facts, its fields as JSON or lines, or the sentence from its
    fields."""
    sentence, fields = rng.choice(_fields())
    values = {key: _value(rng, spec) for key, spec, _ in fields}
    text = sentence.format(**values)
    some = rng.sample(fields, rng.randint(2, min(4, len(fields))))
    keys = "、".join(f[0] for f in some)
    how = rng.random()
    system = pick(rng, HELP)
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
            return (
                pick(
                    rng,
                    (
                        "根据材料回答，材料中没有的就说没有提到。\n{x}|资料：{x}|已知：{x}\n"
                        "请据此回答问题。|只依据以下内容作答：{x}"
                    ),
                    x=text,
                ),
                question + "？",
                answer,
            )
        ask = (
            "{x}\n问：{q}？|材料：{x}\n问题：{q}？|根据下文回答：{q}？\n{x}|{q}？\n"
            "{x}|阅读后回答。{x}{q}？|已知信息：{x}\n请问{q}？|文中说：{x}那么{q}？|{x}\n{q}？"
        )
        return system, pick(rng, ask, x=text, q=question), answer
    if how < 0.65:
        answer = jsons({f[0]: values[f[0]] for f in some})
        ask = (
            "提取{k}，输出JSON：{x}|从文中找出{k}，用JSON表示。{x}|{x}\n"
            "请以JSON输出{k}。|抽取字段（{k}）：{x}|把这句话转成JSON，键为{k}：{x}|JSON，{k}：{x}|"
            "整理成JSON，只要{k}：{x}|文本：{x}\n字段：{k}"
        )
        return system, pick(rng, ask, k=keys, x=text), answer
    if how < 0.9:
        items = list(values.items())
        rng.shuffle(items)
        given = rng.choice(("，", "；", "\n")).join(f"{k}：{v}" for k, v in items)
        if rng.random() < 0.25:
            given = jsons(dict(items))
        if rng.random() < 0.3:
            ask = (
                "填空。模板：{t}信息：{x}|按模板填写：{t}\n{x}|{x}\n"
                "套用模板：{t}|用这些信息补全句子：{x}\n{t}"
            )
            return (
                system,
                pick(rng, ask, t=re.sub(r"\{(\w+)\}", r"【\1】", sentence), x=given),
                text,
            )
        ask = (
            "把这些信息写成一句话：{x}|根据要点写一句通顺的话。{x}|{x}\n请连成句子。|信息：{x}\n"
            "写成一段话。|用一句话说清楚：{x}|要点如下：\n{x}\n"
            "请写成一句完整的话。|扩写成句子：{x}|将下列内容组织成句：{x}"
        )
        return system, pick(rng, ask, x=given), text
    ask = (
        "文中的{k}分别是什么？{x}|逐条列出{k}：{x}|{x}\n列出{k}。|摘出{k}：{x}|"
        "整理{k}，每行一条：{x}|找出{k}。{x}|读一读，写下{k}：{x}"
    )
    return (
        system,
        pick(rng, ask, k=keys, x=text),
        "\n".join(f"{f[0]}：{values[f[0]]}" for f in some),
    )
