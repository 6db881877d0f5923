"""A blessing of N characters: a greeting, what the request wants mentioned, wishes of ten characters each, and a closing.

Greeting and mention have 25 characters together wherever their parts allow; so the tens of N say how many wishes there are, and its
ones how long the closing is. A request whose parts are longer gets fewer wishes or a shorter closing: N is always met.
"""

import random
import re

# Who is greeted, by what stands in the name: the first that fits. V stands for 您 with the kinds of POLITE, else for 你.
KINDS = {
    "junior": "儿子|女儿|侄|外甥|弟|(?<!姐)妹|孙|学生|实习|徒弟|学妹|宝宝|孩子",
    "elder": "爷|奶|公$|婆|伯|叔|姨|舅|姑|父|母|爸|妈|岳|老人|婶|嫂|外祖",
    "teacher": "老师|班主任|教练|导师|师傅|教授|园长|校长|辅导员|先生",
    "helper": "医生|干部|钟点工|护士|消防|保安|快递|骑手|环卫|司机|邮递|警|军|战|兵|志愿|乘务|工人|护工|站|调度|管理员|大夫|保洁|水手",
    "business": "客户|领导|老板|伙人|供货|经理|同事|团队|公司|处长|会计|店|主任|厂长|东家|搭档",
    "friend": "",
}
POLITE = ("elder", "teacher", "helper", "business")
HELLO = {  # by the length of the name: with it, a comma, the festival's greeting and a mark, 12 characters
    1: ("给V拜年，",), 2: ("过年好，", "拜年了，"), 3: ("V好，",), 4: ("祝V",), 5: ("祝",), 6: ("",),
}  # fmt: skip
FESTIVALS = {
    "除夕|守岁|年夜饭": "除夕快乐", "元宵|灯会|十五": "元宵快乐", "元旦|跨年|零点": "元旦快乐", "小年|祭灶": "小年快乐",
    "腊八": "腊八快乐", "立春": "新春快乐", "初|拜年|春节|春运|春联|庙会": "春节快乐",
}  # fmt: skip
# What leads to the thing mentioned, by its own length: with the thing and a full stop, 13 characters.
THANKS = ("", "", "感谢", "谢谢V", "要谢谢V", "真心谢谢V", "一直想谢谢V", "这一年真谢谢V", "这一年最要谢谢V")
RECALL = ("", "", "记得", "还记得", "一直记得", "我一直记得", "这些天总想起", "每到过年就想起", "每到过年总会想起")
WISH = ("", "祝", "祝V", "更祝V", "特别祝V", "新年里祝V", "新的一年祝V", "新的一年里祝V", "在新的一年里祝V")

MENTIONS = (
    (r"提到“([^”]+)”", RECALL), (r"(?:感谢|提到)(?:[他她]们?)?([^，。“]+)", THANKS), (r"[，。]祝(?!福)([^，。]+)", WISH),
)  # fmt: skip

FIRST = {  # the first wish, by theme; ten characters with its mark
    "body": "愿V吃得香，睡得稳 愿V身体硬朗精神好 愿V腰腿轻快少吃药 愿V天天都有好胃口 愿V少生病，多笑笑",
    "road": "愿V走得稳，看得远 愿V心里有梦眼有光 愿V学得好，玩得欢 愿V一天比一天能干 愿V敢闯荡，有分寸",
    "duty": "愿V风雨中也有人疼 愿V出门在外都平安 愿V忙里也有热饭吃 愿V少值夜，多睡觉 愿V辛苦都有人看见",
    "class": "愿V桃李芬芳满天下 愿V讲台之上有春风 愿V嗓子清亮少操心 愿V弟子个个有出息 愿V一身本领有人传",
    "trade": "愿V开门就有好生意 愿V谈得成，走得远 愿V新年事事有起色 愿V财源广，人缘好 愿V宏图一步步成真",
    "heart": "愿V天天都有好心情 愿V想见的人都能见 愿V笑得多，愁得少 愿V心里亮堂不迷路 愿V好运总比烦恼多",
}
MORE = {  # further wishes
    "body": "身体健康，百病不侵 吃得香甜，睡得安稳 筋骨结实，气色红润 冬天不冷，夏天不热 每天清早都有好精神",
    "home": "家人和睦，灯火可亲 一家老小都平平安安 屋里常有笑声和饭香 团团圆圆，和和美美 家里的灯总为人亮着",
    "days": "日子红火，岁岁有余 柴米油盐也过得有味 日子像热汤一样暖和 四季平安，三餐温热 锅里有肉，杯中有茶",
    "luck": "好运连连，福气满门 好事一件接着一件来 福星高照，喜事盈门 想要的都能慢慢得到 出门遇贵，处处逢春",
    "trade": "财源广进，生意兴隆 订单不断，客似云来 账本上的数字往上走 诚信为本，越做越大 事业有成，步步登高",
    "study": "学业进步，天天向上 书本里能读出新世界 下笔有神，榜上有名 会的越来越多不怕难 有疑就问，有错就改",
    "peace": "出入平安，诸事顺遂 路上少些风雪和堵车 平平安安，顺顺当当 每次出门都平安回来 无灾无难，心宽体健",
    "friend": "常来常往，情谊长存 有空就来家里喝杯茶 天南海北都记得彼此 老友常聚，酒逢知己 有话就说，有忙就帮",
    "dream": "心想事成，万事如意 心里的愿望都能成真 前程似锦，后会有期 脚下有路，眼里有光 想做的事都有了眉目",
}
THEMES = {  # of the wishes, in their order
    "junior": ("road", "study", "body", "luck", "dream"),
    "elder": ("body", "home", "days", "peace", "luck"),
    "teacher": ("class", "body", "home", "days", "dream"),
    "helper": ("duty", "peace", "home", "body", "luck"),
    "business": ("trade", "luck", "home", "body", "dream"),
    "friend": ("heart", "days", "friend", "body", "dream"),
}
TONES = {
    "formal": "正式|得体|庄重|典雅|文雅|有礼|含蓄|书面|敬",
    "light": "俏皮|幽默|轻松|调侃|活泼|玩笑|聊天|热闹|有趣",
    "warm": "",
}
CLOSING = {  # by tone: 4 to 13 characters before the mark
    "formal": """恭贺新禧 敬颂春祺 恭祝新年好 敬祝阖府安 敬祝阖家安康 恭祝新春大吉 谨祝V新春大吉 敬祝V阖家安康 恭祝新春万事如意
敬祝新年阖家安康 敬祝V新春万事如意 恭祝V新年阖家安康 谨祝V新年里万事如意 敬祝V与家人新春吉祥 谨此向V和家人恭贺新春
敬祝V新的一年万事如意 恭祝V新的一年里万事如意 谨祝V与家人新春万事如意 谨祝V全家在新的一年里安康 恭祝V新岁平安，全家都幸福""",
    "light": """好运爆棚 新年起飞 好运跟着走 红包快快来 新年一路开挂 快乐永不打烊 祝V新年乐开花 好运今天就上门 新的一年笑口常开
愿V天天都像过年 祝V新的一年笑哈哈 烦恼打折，好运满仓 愿V的好运天天不打烊 祝V新年只有福气胖了 新的一年每天都有好笑话
祝V新的一年把烦恼甩掉 愿V新的一年每天都像过年 祝V新的一年被好运追着跑 祝V新的一年里被好运追着跑 愿V吃不胖，睡得香，玩得欢""",
    "warm": """新春大吉 平安喜乐 祝新年如意 一切都顺利 愿来年更美好 盼着和V见面 祝V新年更顺心 盼着早点见到V 愿来年比今年更好
给V和家人拜年了 祝V新的一年都顺利 把最好的祝福送给V 祝V和家人新年都顺利 愿新的一年对V温柔些 愿新的一年处处都有惊喜
盼着春暖花开时和V见面 愿V在新的一年里事事称心 愿新的一年比去年更加圆满 愿V和家人在新的一年里安康 把新年里最暖的祝福都送给V""",
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
    used = set()
    for place in range(count):
        pool = _free((FIRST if not place else MORE)[THEMES[kind][place]], banned) if place < 5 else []
        pool = [wish for wish in pool if wish not in used] or [
            w for t in MORE for w in _free(MORE[t], banned) if w not in used
        ]
        wish = chance.choice(pool)
        used.add(wish)
        wishes += wish + ("。" if place % 2 or place == count - 1 else "，")
    last = chance.choice([one for one in _free(CLOSING[tone], banned) if len(one) == size + 4])
    return (head + wishes + last + ("！" if tone == "light" else "。")).replace("V", you)


def person(request: str) -> str:
    """Who is greeted, as the request calls them: the words behind 的 where the whole is longer than six characters."""
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
    festival = _first({word: pattern for pattern, word in FESTIVALS.items()} | {"新年快乐": ""}, request)
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
