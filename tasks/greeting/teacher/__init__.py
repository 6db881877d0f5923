"""The scripted teacher of the greeting task: rules that read only the messages.

It writes new requests like those it is shown, letters, and texts of the length that a request asks
for. A seeded share is flawed, as real answers are. A quarter of the texts fail a check, most of
them by their length; for one request in seven nearly all fail. So best-of-n has something to choose
from. A reply with new requests may be no JSON, hold too few, or hold copies of the examples or
requests of another kind.
"""

import hashlib
import json
import random
import re
from typing import Any

from . import blessing, prose, rewriting
from . import words as w

HARD, EASY_FLAW, HARD_FLAW = 0.14, 0.25, 0.97
NUMBERS = {
    "short": range(30, 85),
    "long": (200, 300),
    "essay": (300, 400),
    "poem": (100, 150),
    "letter": (60, 80, 100, 120),
}
FRAMES = {"short": w.SHORT, "long": w.LONG, "essay": w.ESSAY, "poem": w.POEM, "letter": w.LETTER}


def answer(messages: list[dict[str, str]], seed: str) -> str:
    """The reply to a chat; `seed` decides whatever is left to chance."""
    chance, asked, turn = random.Random(seed), messages[0]["content"], messages[-1]["content"]
    if found := re.search(r"“(\w+)”类请求.*再写 (\d+) 条", asked, re.DOTALL):
        shown = json.loads(turn)
        return _requests(
            found[1], int(found[2]), shown["inputs"], shown.get("material", ""), chance
        )
    return _letter(chance) if "请写一封新的信" in asked else _text(turn, chance)


# --- new requests ---------------------------------------------------------------------------------


def _requests(
    kind: str, count: int, examples: list[str], letter: str, chance: random.Random
) -> str:
    flaw = chance.random()
    if flaw < 0.03:
        return "好的，以下是为您编写的请求：\n1. " + request(kind, vars(w), chance, letter)
    found = [request(kind, vars(w), chance, letter) for _ in range(count)]
    for i in range(count):
        slip = chance.random()
        if slip < 0.04:
            found[i] = chance.choice(examples)
        elif slip < 0.08:
            found[i] = f"请介绍一下{chance.choice(w.WHO)}在{chance.choice(w.WHEN)}要做些什么。"
        elif slip < 0.12:
            found[i] = found[i - 1].replace("，", "、").replace("写", "编", 1)
    text = json.dumps(
        {"inputs": found[: count - 2] if 0.03 <= flaw < 0.06 else found}, ensure_ascii=False
    )
    return (
        text[: len(text) // 2]
        if 0.06 <= flaw < 0.08
        else f"```json\n{text}\n```"
        if flaw > 0.95
        else text
    )


def request(
    kind: str, words: dict[str, Any], chance: random.Random, letter: str = "", number: int = 0
) -> str:
    """A request of a kind, from pools of words such as those of words.py; for a summary, of the
    points that the letter tells."""
    found = {
        name.lower(): chance.choice(words[name]) for name in ("WHO", "WHEN", "HOW", "FORM", "THING")
    }
    found["clause"], found["clause2"] = chance.sample(words["CLAUSE"], 2)
    found["what"] = _what(found["who"], words, chance)
    told = [point for point, mark in rewriting.MARKS.items() if mark in letter] or list(
        rewriting.MARKS
    )
    points = sorted(chance.sample(told, min(chance.choice((2, 2, 3)), len(told))), key=told.index)
    found["points"] = "、".join(points[:-1]) + "和" + points[-1]
    return chance.choice(FRAMES[kind]).format(n=number or chance.choice(NUMBERS[kind]), **found)


def _what(who: str, words: dict[str, Any], chance: random.Random) -> str:
    """What a blessing is to mention, wish or give thanks for; now and then also what it must not
    mention."""

    kind = blessing.kind_of(who)

    def of(pools: dict[str, str]) -> str:
        return chance.choice(pools[chance.choice(("", kind, kind))].split())

    what = chance.choice(
        (
            f"提到“{chance.choice(words['RECALL'])}”",
            "感谢" + of(words["THANKS"]),
            "祝" + of(words["WISH"]),
        )
    )
    avoided = chance.choice(list(blessing.BANNED)) if chance.random() < 0.12 else ""
    return (
        f"{what}，不要提{avoided}"
        if avoided and not re.search(blessing.BANNED[avoided], who + what)
        else what
    )


def _letter(chance: random.Random) -> str:
    return "" if chance.random() < 0.03 else letter(vars(w), chance)


def letter(words: dict[str, Any], chance: random.Random) -> str:
    """A letter that tells three or four things, from pools of words such as those of words.py."""
    text = f"{chance.choice(words['FRIEND'])}：\n{chance.choice(words['HELLO'])}"
    between = iter(chance.sample(words["BETWEEN"], 6))
    text += next(between)
    missing = chance.choice(("", "", "工作", "身体", "家里"))
    for point, mark in rewriting.MARKS.items():
        if point != missing:
            text += f"{mark}{chance.choice(words['POINTS'][point].split())}。" + next(between)
    return f"{text}{chance.choice(words['BYE'])}\n{chance.choice(words['SENDER'])}"


# --- texts ----------------------------------------------------------------------------------------


def _text(asked: str, chance: random.Random) -> str:
    """The text that is asked for, or a flawed one."""
    number = int((re.search(r"\d+(?=字)", asked) or ["60"])[0])
    hard = int(hashlib.sha256(asked.encode()).hexdigest()[:8], 16) / 16**8 < HARD
    if chance.random() >= (HARD_FLAW if hard else EASY_FLAW):
        return write(asked, number, chance)
    flaw = chance.random()
    if flaw < 0.75:
        return write(asked, number, chance, chance.randint(11, 25))
    text = write(asked, number, chance)
    middle = text.index("。") if "。" in text else len(text) - 1
    if flaw < 0.8:
        return f"好的，以下是为您写的文字：\n{text}"
    if flaw < 0.85:
        return f"{text}（共{len(text)}字）"
    if flaw < 0.9:
        return text[:middle] + "。" + text[middle:]
    if flaw < 0.95:
        return text[:middle] + "，happy new year" + text[middle:]
    return text[:middle] + "，穷神瘟神快滚开" + text[middle:]


def write(asked: str, number: int, chance: random.Random, off: int = 0) -> str:
    """The text of a request, `off` characters off its length."""
    if re.match(".*(总结|概括).*\n", asked):
        text = rewriting.summary(asked, number)
        more = re.findall("[^。]+。", asked.partition("\n\n")[2])[:6]
        return text if not off else f"{text}此外，" + "".join(more).replace("\n", "")
    who = blessing.person(asked) if re.search("送给|写给|说给", asked) else ""
    you = "您" if blessing.kind_of(who) in blessing.POLITE else "你"
    if "不少于" in asked:
        return prose.long(asked, number - 2 * off, who, you, chance)
    if re.search("改写成.*诗", asked):
        text = rewriting.poem(asked, number, who, chance)
        return text if not off else text + "\n" + rewriting.poem(asked, number, who, chance)
    off *= chance.choice((-1, 1))
    if "作文" in asked:
        return prose.essay(asked, number + off, chance)
    return blessing.bless(asked, number + off, chance)
