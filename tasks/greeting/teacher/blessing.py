"""A blessing of N characters: a greeting, what the request wants mentioned, wishes of ten
characters each, and a closing.

Greeting and mention have 25 characters together wherever their parts allow; so the tens of N say
how many wishes there are, and its ones how long the closing is. The wishes have an order that all
blessings end with, so the first one shows how many are to come: who learns from them looks at N
once and need not count. No two places begin with the same character, nor does a closing begin as a
wish: what N decides shows at once, before a likely word has led astray. A request whose parts are
longer gets fewer wishes or a shorter closing: N is always met.
"""

import random
import re

# Who is greeted, by what stands in the name: the first that fits. V stands for 您 with the kinds of
# POLITE, else for 你.
KINDS = {
    "junior": "儿子|女儿|侄|外甥|弟|(?<!姐)妹|孙|学生|实习|徒弟|学妹|宝宝|孩子",
    "elder": "爷|奶|公$|婆|伯|叔|姨|舅|姑|父|母|爸|妈|岳|老人|婶|嫂|外祖",
    "teacher": "老师|班主任|教练|导师|师傅|教授|园长|校长|辅导员|先生",
    "helper": (
        "医生|干部|钟点工|护士|消防|保安|快递|骑手|环卫|司机|邮递|警|军|战|兵|志愿|乘务|工人|护工|"
        "站|调度|管理员|大夫|保洁|水手"
    ),
    "business": "客户|领导|老板|伙人|供货|经理|同事|团队|公司|处长|会计|店|主任|厂长|东家|搭档",
    "friend": "",
}
POLITE = ("elder", "teacher", "helper", "business")
HELLO = {
    # by the length of the name: with it, a comma, the festival's greeting and a mark, 12 characters
    1: ("给V拜年，",), 2: ("过年好，", "拜年了，"), 3: ("V好，",), 4: ("祝V",), 5: ("祝",),
    6: ("",),
}  # fmt: skip
FESTIVALS = {
    "除夕|守岁|年夜饭": "除夕快乐", "元宵|灯会|十五": "元宵快乐", "元旦|跨年|零点": "元旦快乐",
    "小年|祭灶": "小年快乐", "腊八": "腊八快乐", "立春": "新春快乐",
    "初|拜年|春节|春运|春联|庙会": "春节快乐",
}  # fmt: skip
# What leads to the thing mentioned, by its own length: with the thing and a full stop, 13
# characters.
THANKS = (
    "",
    "",
    "感谢",
    "谢谢V",
    "要谢谢V",
    "真心谢谢V",
    "一直想谢谢V",
    "这一年真谢谢V",
    "这一年最要谢谢V",
)
RECALL = (
    "",
    "",
    "记得",
    "还记得",
    "一直记得",
    "我一直记得",
    "这些天总想起",
    "每到过年就想起",
    "每到过年总会想起",
)
WISH = (
    "",
    "祝",
    "祝V",
    "更祝V",
    "特别祝V",
    "新年里祝V",
    "新的一年祝V",
    "新的一年里祝V",
    "在新的一年里祝V",
)

MENTIONS = (
    (r"提到“([^”]+)”", RECALL), (r"(?:感谢|提到)(?:[他她]们?)?([^，。“]+)", THANKS),
    (r"[，。]祝(?!福)([^，。]+)", WISH),
)  # fmt: skip

# Wishes of ten characters with their mark: the last by the kind of person, those before it by their
# place counted from the end.
LAST = {
    "junior": "愿V一天比一天能干 愿V心里有梦眼有光", "elder": "愿V吃得香，睡得稳 愿V身体硬朗精神好",
    "teacher": "愿V桃李芬芳满天下 愿V弟子个个有出息",
    "helper": "愿V出门在外都平安 愿V忙里也有热饭吃",
    "business": "愿V开门就有好生意 愿V新年事事有起色",
    "friend": "愿V天天都有好心情 愿V想见的人都能见",
}  # fmt: skip
BEFORE = (
    "三餐四季里都有快乐 三餐四季里都有欢笑 三餐四季里都有幸福",
    "所有努力都会有回报 所有心愿都能够成真",
    "四季平安，笑口常开 样样顺遂，心想事成",
    "家家户户都灯火长明 一家老小都平平安安",
    "路上有光，也有花香 年年如意，岁岁有余",
)
TONES = {
    "formal": "正式|得体|庄重|典雅|文雅|有礼|含蓄|书面|敬",
    "light": "俏皮|幽默|轻松|调侃|活泼|玩笑|聊天|热闹|有趣",
    "warm": "",
}
# By tone: closings of 4 to 13 characters before the mark. Each length begins in its own way, and
# none begins as a wish does.
CLOSING = {
    "formal": """恭贺新禧 谨祝新年好 敬祝阖家安康 顺祝V阖家安康 恭祝新春万事如意 在此恭祝V阖家安康
谨以此信祝V新春吉祥 值此新春，祝V万事如意 新的一年里，祝V万事如意 辞旧迎新之际，祝V阖家幸福""",
    "light": """好运爆棚 天天乐呵呵 快乐永不打烊 今天好运就上门 新的一年笑口常开 笑哈哈地过好每一天
V的好运天天都不打烊 把所有烦恼都甩到脑后去 祝V一出门就被好运追着跑 没烦恼，睡得香，天天有好梦""",
    "warm": """万事如意 前程似锦 心想的都成 盼着来年更好 日子越过越甜 好运常伴V左右 平平安安过每一天
全家人在一起就好 每个清晨都有好运来 每一个清晨都有好运来 祝福像春风一样来到身边
生活温柔以待，万事都如意 来年日子更甜，心里常有暖意""",
}
BANNED = {"工作": "工作|值夜|[上下加]班|事业|项目", "钱": "钱|财|红包|账|生意|订单|回款|房贷|卖"}
PARTS = 25  # characters of greeting and mention


def bless(request: str, number: int, chance: random.Random) -> str:
    """The blessing that the request asks for, of `number` characters."""
    who, kind, tone = person(request), kind_of(person(request)), _first(TONES, request)
    you = "您" if kind in POLITE or tone == "formal" else "你"
    head = _hello(who, request, chance) + _mention(request)
    banned = next((words for word, words in BANNED.items() if f"不要提{word}" in request), "$^")
    rest = number - len(head)
    count, size = divmod(rest - 5, 10)
    while count < 0:  # a long name, few characters: the greeting alone
        head = head[: head.index("！") + 1] if "！" in head[:-1] else ""
        count, size = divmod(number - len(head) - 5, 10)
    wishes = ""
    for left in reversed(range(count)):
        pool = _free(BEFORE[(left - 1) % len(BEFORE)] if left else LAST[kind], banned)
        wishes += chance.choice(pool) + ("，" if left % 2 else "。")
    last = chance.choice([one for one in _free(CLOSING[tone], banned) if len(one) == size + 4])
    return (head + wishes + last + ("！" if tone == "light" else "。")).replace("V", you)


def person(request: str) -> str:
    """Who is greeted, as the request calls them: the words behind 的 where the whole is longer than
    six characters."""
    found = re.search(r"说给([^，。：]+?)的话", request)
    found = found or re.search(
        r"(?:送给|发给|写给|收信人是|献给|对)([^，。：]{1,20}?)(?=[，。：]|说几句|写|拟|$)", request
    )
    found = found or re.search(r"[给为]([^，。：]{1,20}?)(?=写|拟|发)", request)
    who = re.sub("^我们?的?", "", found[1]) if found else "朋友"
    return who if len(who) <= 6 else who.rpartition("的")[2][-6:]


def kind_of(who: str) -> str:
    """The key of KINDS for a person."""
    return _first(KINDS, who)


def _hello(who: str, request: str, chance: random.Random) -> str:
    festival = _first(
        {word: pattern for pattern, word in FESTIVALS.items()} | {"新年快乐": ""}, request
    )
    return f"{who}，{chance.choice(HELLO[len(who)])}{festival}！"


def _mention(request: str) -> str:
    for pattern, leads in MENTIONS:
        if found := re.search(pattern, request):
            lead = leads[min(max(PARTS - 13 - len(found[1]), 2), 8)]
            return f"{lead}{found[1]}。"
    return ""


def _first(patterns: dict[str, str], text: str) -> str:
    return next(key for key, pattern in patterns.items() if not pattern or re.search(pattern, text))


def _free(words: str, banned: str) -> list[str]:
    return [word for word in words.split() if not re.search(banned, word)]
