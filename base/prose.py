"""Seeded generator of plain Chinese text for pretraining the tiny base model.

prose(rng) -> (system, user, answer): topical prose, texts of a stated length, questions on a short
context, summaries, facts <-> sentence <-> JSON, word knowledge, remarks. Length always means the
count of non-white-space characters, punctuation included.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from base.facts import facts
from base.writer import HELP, Example, jsons, new_writer, pick, tables


def _prose(rng: random.Random) -> Example:
    w, name = new_writer(rng)
    answer = w.text(20, rng.choice((60, 100, 150, 210)))
    if rng.random() < 0.6:
        return "", "", answer
    ask = (
        "写一段关于{t}的文字|请写一段话，主题是{t}|说说{t}|以“{t}”为题写几句话|谈谈{t}|"
        "用几句话描写{t}|主题：{t}|写一个关于{t}的小段落|{t}"
    )
    return pick(rng, HELP), pick(rng, ask, t=name).rstrip("。") + rng.choice(("", "。")), answer


def _length(rng: random.Random) -> Example:
    w, name = new_writer(rng)
    n = rng.randint(20, 90) if rng.random() < 0.75 else rng.randint(8, 160)
    kind = rng.choices(("exact", "max", "min", "range"), (6, 2, 1, 1))[0]
    low, high = {
        "exact": (n, n),
        "max": (max(8, n * 2 // 3), n),
        "min": (n, n + 30),
        "range": (n, n + 20),
    }[kind]
    answer = w.text(low, high)
    size = {
        "exact": (
            "{n}字|{n}个字|恰好{n}字|正好{n}个字|刚好{n}字|{n}字（含标点）|一共{n}个字|{n}字整"
        ),
        "max": "不超过{n}字|{n}字以内|最多{n}个字|少于{n1}字|控制在{n}字以内|至多{n}字",
        "min": "不少于{n}字|至少{n}个字|{n}字以上|起码{n}字",
        "range": "{n}到{m}字|{n}—{m}字|{n}至{m}个字之间|不少于{n}字、不超过{m}字",
    }[kind]
    size = pick(rng, size, n=n, n1=n + 1, m=n + 20)
    known = [x for x in w.words if len(x) > 1 and x in answer]
    if known and rng.random() < 0.25:
        name += f"，提到“{rng.choice(known)}”"
    if rng.random() < 0.2:
        system = pick(
            rng,
            (
                "每次写一段话，字数要求：{s}。|根据主题写文字，{s}。|你按字数写作。要求：{s}。|"
                "写作要求：{s}，标点计入。"
            ),
            s=size,
        )
        return system, pick(rng, "{t}|主题：{t}|写{t}|题目是{t}|关于{t}", t=name), answer
    ask = (
        "写一段文字，{s}，主题是{t}|请写一段话，{s}，关于{t}|主题：{t}。字数：{s}|"
        "围绕{t}写几句，{s}|要求：{s}；主题：{t}|写作，{s}，写{t}|"
        "帮我写一段话，要{s}，内容关于{t}|以{t}为主题，写一段文字，{s}|说说{t}，字数要求：{s}|"
        "按{s}的要求写一段文字，主题是{t}"
    )
    return (
        pick(rng, HELP),
        pick(rng, ask, s=size, t=name).rstrip("。") + rng.choice(("", "。")),
        answer,
    )


def _count(rng: random.Random) -> Example:
    w, _ = new_writer(rng)
    text = w.text(8, 50)
    ask = (
        "这段话有多少字？{x}|数一数字数：{x}|{x}以上文字共有多少个字？|"
        "“{x}”一共几个字（含标点）？|请给出下面这段文字的字数。{x}|统计字数：{x}|"
        "下面的话有几个字？{x}|文字：{x}字数："
    )
    reply = pick(
        rng,
        (
            "{n}|{n}个字|{n}字|共{n}个字。|这段话有{n}个字。|一共{n}个字（含标点）。|"
            "“{h}”所在的这段话共{n}个字。"
        ),
        n=len(text),
        h=text[:6],
    )
    return pick(rng, HELP), pick(rng, ask, x=text), reply


def _resize(rng: random.Random) -> Example:
    w, _ = new_writer(rng)
    sents = ["，".join(w.sentence()) + "。" for _ in range(rng.randint(1, 3))]
    keep = sents[: rng.randint(1, len(sents))]
    size = sum(map(len, keep))
    n = size + rng.choice((0, rng.randint(8, 40)))
    ask = (
        "把下面的话改写成{n}字：{x}|改写成{n}个字。{x}|{x}请改成{n}字。|调整这段话到{n}字：{x}|"
        "原文：{x}要求：{n}字|将原文改为正好{n}字。原文：{x}|把这段话写成{n}个字：{x}|"
        "请把“{x}”改成{n}字"
    )
    source = "".join(sents)
    return pick(rng, HELP), pick(rng, ask, n=n, x=source), w.extend(keep, n, n)


def _continue(rng: random.Random) -> Example:
    w, _ = new_writer(rng)
    head = "，".join(w.sentence(close=False)) + "。"
    rest = w.text(12, 70)
    ask = (
        "续写：{x}|接着往下写：{x}|{x}请继续。|给下面的开头写后文：{x}|把这段话写下去。{x}|"
        "开头：{x}后文：|补全下文：{x}|顺着写几句：{x}"
    )
    return pick(rng, HELP), pick(rng, ask, x=head), rest


def _title(rng: random.Random) -> Example:
    w, name = new_writer(rng)
    short = w.clause("T")
    text = short + "，" + w.text(10, 50)
    how = rng.randrange(3)
    if how == 0:
        ask = (
            "概括：{x}|用一句短语概括下文。{x}|{x}这段话主要说什么？|取要点：{x}|"
            "压缩成几个字：{x}|给这段话起个短标题：{x}|大意：{x}|一句话总结：{x}"
        )
        return pick(rng, HELP), pick(rng, ask, x=text), short
    if how == 1:
        ask = (
            "下面的话属于什么话题？{x}|判断主题：{x}|{x}主题是什么？|这段话写的是什么？{x}|"
            "主题词：{x}|归类：{x}|给出话题：{x}|话题是？{x}"
        )
        return pick(rng, HELP), pick(rng, ask, x=text), w.topic["names"][0]
    pairs = "短句|长句 主题|说明 要点|详情 一句话|展开 名称|描述 小标题|段落".split()
    a, b = rng.choice(pairs).split("|")
    ask = (
        "围绕{t}，用JSON给出{a}和{b}|写{t}，输出JSON，键为{a}、{b}|"
        "输出JSON对象（{a}、{b}），内容关于{t}|{t}：按{a}、{b}两项返回JSON|"
        "以JSON格式写{t}，包括{a}与{b}|关于{t}，返回{a}、{b}两个字段|"
        "JSON，字段：{a}、{b}。话题：{t}|请用JSON写一写{t}，字段为{a}和{b}"
    )
    return (pick(rng, HELP), pick(rng, ask, t=name, a=a, b=b), jsons({a: short, b: text}))


def _word(rng: random.Random) -> Example:
    words, pairs = tables()[2:]
    w, kind, meaning, wry = rng.choice(words)
    system, how = pick(rng, HELP), rng.random()
    if how < 0.2:
        a, b = rng.choice(pairs)[:: rng.choice((1, -1))]
        ask = (
            "“{a}”的反义词是什么？|{a}的反义词|写出{a}的反义词|与{a}意思相反的词|反义词：{a}|"
            "{a}反过来怎么说？|请给出“{a}”的反义词|什么词和“{a}”相反？"
        )
        return (
            system,
            pick(rng, ask, a=a),
            pick(rng, "{b}|{b}。|“{b}”|{a}的反义词是{b}。|和“{a}”相反的是“{b}”。", a=a, b=b),
        )
    if how < 0.4:
        ask = (
            "{w}是什么？|解释“{w}”|“{w}”的意思|什么是{w}？|给{w}下个定义|请解释词语：{w}|"
            "{w}指什么？|用一句话说明{w}"
        )
        reply = "{w}是一种{k}，意思是{m}。|{m}。|{w}指{m}。|“{w}”属于{k}，指{m}。|{w}：{m}。"
        return system, pick(rng, ask, w=w), pick(rng, reply, w=w, k=kind, m=meaning)
    if how < 0.55:
        ask = (
            "{w}属于哪一类？|给“{w}”分类|{w}是哪类词？|类别：{w}|{w}算什么？|把{w}归类|"
            "请说出{w}的类别|{w}的上位词"
        )
        other = rng.choice(words)
        if rng.random() < 0.5 and other[1] != kind:
            return (
                system,
                f"{w}和{other[0]}属于同一类吗？",
                f"不是，{w}属于{kind}，{other[0]}属于{other[1]}。",
            )
        return system, pick(rng, ask, w=w), pick(rng, "{k}|{w}属于{k}。|{k}类", w=w, k=kind)
    if how < 0.65:
        ask = (
            "猜词：{m}，是什么？|哪个词的意思是“{m}”？|{m}，打一词|什么{k}是{m}？|"
            "“{m}”说的是什么？|根据解释写词：{m}|这是什么：{m}|说出词语：{m}"
        )
        return system, pick(rng, ask, m=meaning, k=kind), pick(rng, "{w}|{w}。|是{w}。", w=w)
    ask = (
        "说说{w}，带点幽默|用一句话聊聊{w}|评一评{w}|对{w}说句俏皮话|{w}给你什么感觉？|"
        "谈谈你眼里的{w}|写一句关于{w}的话|轻松地说一句：{w}"
    )
    if how < 0.9:
        if rng.random() < 0.3:
            hidden = (
                "它{y}。|有一样东西，{y}。|总有那么一个，{y}。|人人都知道它，{y}。|"
                "谁不认识它呢，{y}。|{m}，偏偏{y}。"
            )
            return (
                system,
                f"不写出“{w}”，" + pick(rng, ask, w="它"),
                pick(rng, hidden, y=wry, m=meaning),
            )
        reply = (
            "{w}，{y}。|{w}的特点是：{y}。|说到{w}，{y}。|{w}嘛，{y}。|都说{w}是{m}，其实{y}。|"
            "{w}总是这样：{y}。|{w}这种{k}，{y}。|谁说{w}没用，{y}。"
        )
        return system, pick(rng, ask, w=w), pick(rng, reply, w=w, y=wry, m=meaning, k=kind)
    reply = (
        "{w}是{m}，生活里少不了它。|说到{w}，人们会想到{k}。|{w}很常见，{m}。|"
        "提起{w}，谁都不陌生。|作为一种{k}，{w}有自己的位置。"
    )
    ask = (
        "用一句话聊聊{w}|写一句关于{w}的话|说说{w}|谈谈{w}|{w}|用{w}写一句话|提到{w}你想说什么？|"
        "以“{w}”写一个句子"
    )
    return system, pick(rng, ask, w=w), pick(rng, reply, w=w, m=meaning, k=kind)


KINDS: list[tuple[Callable[[random.Random], Example], int]] = [
    (_prose, 20), (_length, 40), (_count, 3), (_resize, 6), (_continue, 6), (_title, 8),
    (facts, 16), (_word, 7),
]  # fmt: skip


def prose(rng: random.Random) -> Example:
    """One example (system, user, answer), depending on rng alone; system and user may be ''."""
    return rng.choices([k for k, _ in KINDS], [w for _, w in KINDS])[0](rng)
