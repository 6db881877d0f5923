"""A blessing turned into lines, and a letter summarised: both are made of what the request brings along."""

import random
import re

ANSWERS = """岁岁灯火照归程 一盏暖灯候远人 雪落无声春已近 门前爆竹换新声 炉边茶热话家常 旧岁风霜皆作雪 新年好梦总成真 柳色悄悄上枝头
月到中天人正圆 东风吹绿万家春 一杯清酒慰平生 笑语随风过小桥 梅花先报一枝香 四时平安便是福 山长水远情不远 檐下红灯映雪明
愿得年年共此时 春在人家笑语中 长路有光心不慌 风雪归人门半开"""
COUPLETS = """辞旧岁，迎新春，|举杯先敬平安人。 雪满山，灯满城，|万家笑语到天明。 春将至，莫心急，|好事都在路上行。
一盏灯，一壶茶，|守着团圆守着家。 山高处，路远时，|总有牵挂在心里。 岁月长，衣裳暖，|三餐四季慢慢来。"""


def poem(request: str, limit: int, who: str, chance: random.Random) -> str:
    """Lines made of the clauses of the blessing, each with a line in answer, of at most `limit` characters."""
    given = re.search(r"：(.+)", request) or re.search(r"“(.{6,})”", request)
    clauses = [part for part in re.split(r"[，、。；！\s]", given[1] if given else "愿新的一年平安喜乐") if part]
    answers = chance.sample(ANSWERS.split(), len(clauses[:4]))
    lines = [f"{clause}，\n{answer}。" for clause, answer in zip(clauses, answers, strict=False)]
    couplets = [one.replace("|", "\n") for one in chance.sample(COUPLETS.split(), 2 if limit < 120 else 3)]
    last = [f"——写给{who}"] if who else []
    while len("".join(re.sub(r"\s", "", one) for one in lines + couplets + last)) > limit:
        (couplets or lines).pop()
    return "\n".join(lines + couplets + last)


MARKS = {"工作": "工作上，", "身体": "身体方面，", "家里": "家里，", "打算": "今年打算"}
NEWS = "想好|打算|决定|约好|去年|今年|不妨|还有|重做|上个月|调到|车票|拍了"
SAID = {"工作": "工作上", "身体": "身体方面", "家里": "家里", "打算": "打算"}


def summary(request: str, limit: int) -> str:
    """The points of the letter that the request asks for, in the letter's words, in at most `limit` characters."""
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
