"""Spans of arbitrary characters carried from a request into its answer: the part of the base's text
that other tasks lean on.

spans(rng) -> (system, user, answer): values of labelled lists written as JSON or sentences, clauses
picked out of prose and cleaned of noise, words put into a sentence, JSON under hundreds of key
names, texts of a stated number of clauses. Values are of any GB 2312 characters, so that copying
does not depend on which characters a text usually holds.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import cache

from base import details
from base.pools import ENDS, FILLERS, JOINS, KEYS, LABELS, SIGNS, UNITS
from base.writer import HELP, Example, jsons, new_writer, pick, tables

# No example answers with just the keys of one of the worked tasks.
BARRED = [{"title", "body"}, {"prompt", "output"}, {"intent", "answer"}]


def any_characters(rng: random.Random, low: int = 2, high: int = 8) -> str:
    """Characters of GB 2312, of both levels about equally often: the rare ones are met nowhere
    else."""
    frequent, rare = details.characters()
    return "".join(
        rng.choice(frequent if rng.random() < 0.55 else rare) for _ in range(rng.randint(low, high))
    )


@cache
def _words() -> list[str]:
    """Words of all topics' pools."""
    _, topics, entries, _ = tables()
    lists = [v for t in topics for v in t.values() if v and isinstance(v[0], str)]
    return sorted(
        {w for v in lists for w in v if len(w) > 1 and "{" not in w} | {e[0] for e in entries}
    )


def word(rng: random.Random) -> str:
    """A noun-like span of some 2 to 8 characters: real words, made-up names, arbitrary characters,
    or two of them joined."""
    makers: list[Callable[[], str]] = [
        lambda: any_characters(rng), lambda: any_characters(rng, 2, 5), lambda: details.word(rng),
        lambda: details.name(rng), lambda: rng.choice(_words()),
        lambda: rng.choice(_words()) + rng.choice(_words()),
        lambda: any_characters(rng, 1, 3) + rng.choice(_words()),
        lambda: rng.choice(_words()) + any_characters(rng, 1, 3),
    ]  # fmt: skip
    return rng.choice(makers)()


def amount(rng: random.Random) -> str:
    """A number with a unit."""
    return str(
        rng.choice((rng.randint(1, 12), rng.randint(10, 99), rng.randint(100, 9999)))
    ) + rng.choice(UNITS)


def clause(rng: random.Random) -> str:
    """A clause of some 5 to 14 characters, one of its words often replaced by an arbitrary span or
    an amount."""
    w, _ = new_writer(rng)
    roll = rng.random()
    if roll < 0.15:
        return (
            word(rng)
            + rng.choice("用了 共有 达到 超过 来了 增加 不到 每次 只要 剩下".split())
            + amount(rng)
        )
    pattern = rng.choice(w.topic[rng.choice("VTTR")])
    slots = [i for i, (_, slot) in enumerate(pattern) if slot]
    at = rng.choice(slots) if slots and roll < 0.7 else -1
    return "".join(
        lit + (word(rng) if i == at else w.word(slot) if slot else "")
        for i, (lit, slot) in enumerate(pattern)
    )


def value(rng: random.Random) -> str:
    """What a label may hold."""
    roll = rng.random()
    if roll < 0.15:
        month = f"{rng.randint(1, 12)}月{rng.randint(1, 28)}日"
        return month + rng.choice(["", "", "上午", "下午", "晚", f"上午{rng.randint(6, 11)}时"])
    if roll < 0.3:
        return (
            rng.choice(_words())[:4]
            + amount(rng)
            + (
                rng.choice(["，", "，", "、"]) + word(rng) + amount(rng)
                if rng.random() < 0.4
                else ""
            )
        )
    return (
        word(rng) if roll < 0.6 else word(rng) + rng.choice(_words()) if roll < 0.7 else clause(rng)
    )


def labels(rng: random.Random, n: int) -> list[str]:
    """Distinct labels."""
    some = rng.sample(LABELS, n)
    return [any_characters(rng, 2, 3) if rng.random() < 0.1 else label for label in some]


def keys(rng: random.Random, n: int) -> list[str]:
    """Distinct JSON keys of one style, never just those of a worked task."""
    while True:
        found = rng.sample(KEYS, n) if rng.random() < 0.75 else labels(rng, n)
        if len(set(found)) == n and set(found) not in BARRED:
            return found


def lay_out(rng: random.Random, items: list[tuple[str, str]]) -> str:
    """A labelled list in one of many layouts."""
    forms = "{}：{}|{}：{}|{}:{}|【{}】{}|{}={}|{} {}|[{}]{}|{}——{}|{}是{}|“{}”：{}|<{}>{}|（{}）{}"
    form = rng.choice(forms.split("|"))
    return rng.choice(["\n", "\n", "\n", "；", " | ", "；", "，", "  ", " / "]).join(
        form.format(*item) for item in items
    )


def ask(rng: random.Random, what: str, text: str) -> tuple[str, str]:
    """System and user text."""
    roll = rng.random()
    if roll < 0.6:
        return what, text
    if roll < 0.75:
        return what + rng.choice(
            ["。只输出结果。", "，不要解释", "。请用中文。", "。忠于原文，不要改动。"]
        ), text
    return pick(rng, HELP), rng.choice([f"{what}：\n{text}", f"{what}\n{text}", f"{text}\n{what}"])


def _listed(rng: random.Random) -> Example:
    """A labelled list: some of its values as JSON, as a sentence after a pattern, or joined in an
    order."""
    names = labels(rng, rng.randint(3, 8))
    if len(set(names)) < len(names):
        names = list(dict.fromkeys(names))
    items = [(name, value(rng)) for name in names]
    text = lay_out(rng, items)
    if rng.random() < 0.3:
        at = rng.randint(0, 1)
        text = (
            (clause(rng) + rng.choice(["！", "。", ""]) + "\n") * (1 - at)
            + text
            + ("\n" + clause(rng)) * at
        )
    chosen = rng.sample(items, rng.randint(2, min(5, len(items))))
    listed = "、".join(k for k, _ in chosen)
    roll = rng.random()
    if roll < 0.3:
        new = keys(rng, len(chosen))
        pairs = rng.choice(["，", "、", "; "]).join(
            rng.choice(["{1}({0})", "{0}→{1}", "{1}={0}"]).format(k, n)
            for (k, _), n in zip(chosen, new, strict=True)
        )
        answer = jsons({n: v for (_, v), n in zip(chosen, new, strict=True)})
        return *ask(
            rng, rng.choice(["转成JSON：", "输出JSON，键为", "JSON "]) + pairs, text
        ), answer
    if roll < 0.45:
        return *ask(
            rng, rng.choice(["取出{}", "只要{}", "摘录{}，输出JSON", "{}"]).format(listed), text
        ), jsons(dict(chosen))
    if roll < 0.75:
        links = [
            rng.choice("|于|在|，|，|的|，共|。|：|，据介绍，|表示，|——|和|说，“".split("|"))
            for _ in chosen
        ]
        end = rng.choice(ENDS)
        pattern = "".join(
            f"{{{k}}}" + link for (k, _), link in zip(chosen, [*links[:-1], end], strict=True)
        )
        said = "".join(v + link for (_, v), link in zip(chosen, [*links[:-1], end], strict=True))
        return *ask(rng, rng.choice(["按样子写成句子：", "句式：", "套用"]) + pattern, text), said
    join, end = rng.choice(JOINS), rng.choice(ENDS)
    what = rng.choice(
        ["依次写出{}，用“{}”连接，以“{}”结尾", "{}连成一句，中间是“{}”，末尾是“{}”"]
    ).format(listed, join.replace("\n", "换行"), end)
    return *ask(rng, what, text), join.join(v for _, v in chosen) + end


def _noisy(rng: random.Random) -> Example:
    """Clauses among noise: what is left of them, in one line or as JSON."""
    clauses = [clause(rng) for _ in range(rng.randint(2, 5))]
    topic = word(rng)
    gap = rng.choice([" ", " ", "，", "。", "  ", ""])
    letters = "ABCDEFGHJKLMNPQRSTUVWXYZ"
    noise: list[Callable[[], str]] = [
        lambda: rng.choice(letters) + rng.choice(letters) + details.digits(rng, rng.randint(2, 5)),
        lambda: "@" + word(rng), lambda: "#" + word(rng),
        lambda: f"{rng.randint(0, 59):02d}:{rng.randint(0, 59):02d}", lambda: rng.choice(KEYS),
        lambda: rng.choice(SIGNS) * rng.randint(1, 3),
    ]  # fmt: skip
    heard = ""
    for part in clauses:
        heard += (
            (rng.choice(FILLERS) if rng.random() < 0.5 else "")
            + part
            + (rng.choice(["啊", "哦", "呢", "吧", "嘛"]) if rng.random() < 0.15 else "")
        )
        heard += (
            gap
            if rng.random() < 0.7 or not gap
            else rng.choice(["，", " ", "。", "然后", "而且", "还有就是", "另外", "随后"])
        )
        if rng.random() < 0.4:
            heard += rng.choice(noise)() + gap
    layouts = ["#{t} {x}", "【{t}】{x}", "{t}\n{x}", "主题：{t}\n文字：{x}", "{x}#{t}"]
    heard = rng.choice(layouts).format(t=topic, x=heard)
    roll, end = rng.random(), rng.choice(ENDS)
    if roll < 0.35:
        return *ask(rng, f"去掉口头语和符号，连成一句，以“{end}”结尾", heard), "，".join(
            clauses
        ) + end
    some = sorted(rng.sample(range(len(clauses)), rng.randint(1, min(3, len(clauses)))))
    kept = "，".join(clauses[i] for i in some) + end
    which = "、".join(f"{i + 1}" for i in some)
    if roll < 0.65:
        return *ask(
            rng,
            rng.choice([f"写出第{which}句，以“{end}”结尾", f"取第{which}句连起来，末尾“{end}”"]),
            heard,
        ), kept
    a, b = keys(rng, 2)
    return *ask(rng, f"JSON：{a}=主题，{b}=第{which}句，末尾“{end}”", heard), jsons(
        {a: topic, b: kept}
    )


def _put(rng: random.Random) -> Example:
    """A word out of a request put into a sentence, free or after a pattern."""
    w, _ = new_writer(rng)
    x, y, end = word(rng), word(rng), rng.choice(ENDS)
    said, tail = clause(rng), w.clause("R")
    roll = rng.random()
    if roll < 0.4:
        pattern = (
            rng.choice(
                (
                    "A，{s}B|{s}，A和B|A{t}，B也一样|说到A，{t}，还有B|亲爱的A，{s}，请带上B|"
                    "B里有A，{t}|您好，A的B{t}|{t}，A不是B|谢谢A，B{t}|A？B！{s}"
                ).split("|")
            ).format(s=said, t=tail)
            + end
        )
        return *ask(
            rng,
            rng.choice(["A={x}，B={y}", "把A换成{x}，B换成{y}", "A：{x}；B：{y}"]).format(x=x, y=y),
            pattern,
        ), pattern.replace("A", x, 1).replace("B", y, 1)
    if roll < 0.7:
        question = rng.choice(
            (
                "我想问一下{x}怎么样|{x}好不好？|请问{x}还有吗，谢谢|说说{x}|"
                "你好，昨天看到{x}，能讲讲吗|想写给{x}|介绍一下{x}|{x}适合谁"
            ).split("|")
        ).format(x=x)
        answer = (
            rng.choice(
                (
                    "{x}，{t}|{x}很好，{t}|您好，{x}还有，{t}|说到{x}，{t}|亲爱的{x}，{t}|"
                    "{x}？{t}|{t}，{x}就是这样"
                ).split("|")
            ).format(x=x, t=tail)
            + end
        )
        return pick(rng, HELP), question, answer
    a, b = keys(rng, 2)
    user = rng.choice(["{x}", "{x}", "{x}？", "关于{x}", "给{x}"]).format(x=x)
    if rng.random() < 0.5:
        return f"输出JSON：{a}、{b}", user, jsons({a: x, b: said + "，" + tail + end})
    return (
        f"JSON，{a}为原词，{b}为一句话，以“{end}”结尾",
        user,
        jsons({a: x, b: rng.choice(["{x}，{t}", "{t}"]).format(x=x, t=tail) + end}),
    )


def _keyed(rng: random.Random) -> Example:
    """A plain list under given keys."""
    n = rng.randint(2, 6)
    names, values = keys(rng, n), [rng.choice([word, word, value])(rng) for _ in range(n)]
    if rng.random() < 0.15:
        values[rng.randrange(n)] = "".join(rng.choice(SIGNS) for _ in range(rng.randint(1, 4)))
    if rng.random() < 0.15:
        values[rng.randrange(n)] = " ".join(rng.choice(KEYS) for _ in range(rng.randint(1, 3)))
    system = rng.choice(["JSON，键依次为", "输出JSON：", "keys: ", "按顺序填入："]) + rng.choice(
        ["、", ", ", ","]
    ).join(names)
    return (
        system,
        rng.choice(["\n", "\n", "；", " | ", " / "]).join(values),
        jsons(dict(zip(names, values, strict=True))),
    )


def _counted(rng: random.Random) -> Example:
    """A stated number of clauses of a stated length, or of words; or the first characters of a
    text."""
    w, name = new_writer(rng)
    roll = rng.random()
    if roll < 0.55:
        n, m = rng.randint(1, 8), rng.randint(5, 12)
        found: list[str] = []
        for _ in range(n * 40):
            text = w.clause(rng.choice("VTTR"))
            if len(text) == m and text not in found:
                found.append(text)
            if len(found) == n:
                break
        n = len(found)
        if n:
            end = rng.choice(["，", "。", "\n", "，\n"])
            what = rng.choice(
                [
                    "写{n}句，每句{m}个字，主题是{t}",
                    "围绕{t}写{n}个短句，每个{m}字",
                    "{t}：{n}句，{m}字一句",
                    "{t}，{n}句{m}言",
                ]
            ).format(n=n, m=m, t=name)
            return *ask(rng, what, rng.choice(["请开始", "请动笔", name])), end.join(found) + "。"
    if roll < 0.8:
        some = [word(rng) for _ in range(rng.randint(1, 9))]
        text = rng.choice(["，", "、", " "]).join(some)
        n = rng.randint(1, len(some))
        if rng.random() < 0.5:
            return *ask(rng, f"写出前{n}项", text), "、".join(some[:n])
        return *ask(rng, rng.choice(["有几项？", "数一数有几个"]), text), f"{len(some)}项"
    text = "，".join(clause(rng) for _ in range(rng.randint(1, 4)))
    n = rng.randint(2, min(len(text), 30))
    return *ask(
        rng, rng.choice(["前{n}个字", "截取{n}字", "只留开头{n}个字符"]).format(n=n), text
    ), text[:n]


KINDS: list[tuple[Callable[[random.Random], Example], int]] = [
    (_listed, 30), (_noisy, 24), (_put, 24), (_keyed, 10), (_counted, 12),
]  # fmt: skip


def spans(rng: random.Random) -> Example:
    """One example (system, user, answer), depending on rng alone."""
    return rng.choices([k for k, _ in KINDS], [w for _, w in KINDS])[0](rng)
