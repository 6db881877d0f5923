"""A blessing turned into lines, and a letter summarised: both use what the request brings along."""

import random
import re

ANSWERS = (
    "一盏暖灯候远人 雪落无声春已近",
    "岁岁灯火照归程 新年好梦总成真",
    "愿得年年共此时 四时平安便是福",
    "春在人家笑语中 一路繁花来相送",
)
COUPLETS = (
    "雪满山，灯满城，/万家笑语到天明。|一盏灯，一壶茶，/守着团圆守着家。|"
    "岁月长，衣裳暖，/三餐四季慢慢来。"
)


def poem(request: str, limit: int, who: str, chance: random.Random) -> str:
    """Lines made of the clauses of the blessing, each with a line in answer, of at most `limit`
    characters."""
    given = re.search(r"：(.+)", request) or re.search(r"“(.{6,})”", request)
    clauses = [
        part
        for part in re.split(r"[，、。；！\s]", given[1] if given else "愿新的一年平安喜乐")
        if part
    ]
    answers = [chance.choice(one.split()) for one in ANSWERS]
    lines = [f"{clause}，\n{answer}。" for clause, answer in zip(clauses, answers, strict=False)]
    couplets = COUPLETS.replace("/", "\n").split("|")[: 2 if limit < 120 else 3]
    last = [f"——写给{who}"] if who else []
    while len("".join(re.sub(r"\s", "", one) for one in lines + couplets + last)) > limit:
        (couplets or lines).pop()
    return "\n".join(lines + couplets + last)


MARKS = {"工作": "工作上，", "身体": "身体方面，", "家里": "家里，", "打算": "今年打算"}
NEWS = "想好|打算|决定|约好|去年|今年|不妨|还有|重做|上个月|调到|车票|拍了"
SAID = {"工作": "工作上", "身体": "身体方面", "家里": "家里", "打算": "打算"}


def summary(request: str, limit: int) -> str:
    """The points of the letter that the request asks for, in the letter's words, in at most `limit`
    characters."""
    asked, _, letter = request.partition("\n")
    letter = letter.strip()
    sender = letter.split()[-1]
    points = []
    for point, mark in MARKS.items():
        if point in asked and (found := re.search(f"{mark}([^。]+)。", letter)):
            points.append(SAID[point] + found[1])
    if not points:  # a letter that marks nothing: what sounds like news or a decision
        told = [one for one in re.split(r"[。！？\n]", letter)[1:-1] if re.search(NEWS, one)]
        points = ["，".join(one.split("，")[:2]) for one in told]
    text = f"{sender}说，{points[0]}" if points else f"{sender}来信问好"
    for one in points[1:]:
        if len(re.sub(r"\s", "", text + one)) + 2 <= limit:
            text += "；" + one
    return text[: limit - 1] + "。"
