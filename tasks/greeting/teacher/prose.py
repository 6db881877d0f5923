"""A text of at least N characters, and an essay of N: sentences in the order of a plan, about the thing that the request names.

Sentences have 19 to 25 characters, so N says how many of each kind there are; of a kind that comes twice, each place has sentences of
its own, and none is said twice.
"""

import random
import re
from collections.abc import Callable

MEMORY = {  # of an essay, in their order
    "season": """腊月的风一天比一天紧，年的脚步也就近了。 小城落了第一场雪，街边的灯笼全都挂了起来。 日历只剩薄薄几页，家家户户都忙着备年货。
巷子里飘来炒花生的香气，我就知道要过年了。 窗玻璃结了一层薄薄的霜花，屋里却暖烘烘的。 寒潮刚走，太阳露出脸来，把屋檐晒得滴水。
河面早就结了冰，桥头的集市却一天比一天热闹。 天还没亮透，远处已经响起零零星星的鞭炮声。""",
    "bustle": """厨房里热气腾腾，案板上的刀声一刻也没有停。 有人擦窗，有人扫院，连猫也跟着跑前跑后。 大人们进进出出，孩子们在门口数着新衣的扣子。
门上的旧春联揭了下来，浆糊在小锅里冒着泡。 灶上炖着肉，炉边烤着红薯，满屋子都是香味。 邻居端来一碗刚出锅的丸子，又装了一碗糖回去。
米缸添满了，水缸也添满了，母亲这才坐下歇一歇。 红纸铺了一桌，墨香和饭香在屋子里混在了一起。""",
    "detail": """我凑近了看，上面的每一处痕迹都还是老样子。 它不算新，也不算漂亮，却让人一眼就心里发暖。 我伸手轻轻碰了碰，好像碰到了很久以前的日子。
灯光落在上面，暖暖的一层，像谁刚刚擦过一样。 小时候觉得它平常得很，如今却怎么也看不够。 我站在那里看了好久，直到有人在身后喊我吃饭。""",
    "past": """那时候家里不宽裕，可是年总要过得像模像样。 记得那一年雪特别大，父亲半夜才从外地赶回来。 我踮着脚站在门口，手冻得通红也舍不得进屋。
奶奶把最好的一份留给我，自己却说早就吃过了。 那天夜里谁也没有睡，大家围着炉子说了许多话。 我们几个孩子挤在一起，笑得连碗都端不稳了。
后来我去了远方，那样的夜晚只能在梦里再见。 如今想起来，那些日子清贫，却一点也不觉得苦。""",
    "family": """母亲嘴上说不累，转过身去却悄悄捶了捶腰。 父亲话不多，只是把我碗里的菜添了又添。 爷爷的头发又白了许多，笑起来还是那样响亮。
姐姐从城里赶回来，行李还没放下就先进了厨房。 弟弟长高了一大截，说话的声音也粗了不少。 一家人好不容易坐到一起，谁也舍不得先离开桌子。
外婆拉着我的手问长问短，生怕漏掉了什么。 父亲举起杯子想说几句，最后只说了一声都好。""",
    "talk": """我问起从前的事，大家你一言我一语说开了。 母亲笑着说，年年都这样，年年又都不一样。 爷爷说，日子就像走路，慢一点才看得清风景。
我忽然明白，大人们藏在忙碌里的都是舍不得。 有人唱起了老歌，跑了调，却把大家都逗笑了。 我们约好，无论走多远，过年都要回到这张桌子旁。""",
    "night": """零点的钟声响起来，整条街都被烟火照亮了。 烟花落下去以后，夜显得更静，星星也更亮了。 窗外的雪还在下，屋里的灯一直亮到了天明。
孩子们困得睁不开眼，手里还攥着没吃完的糖。 守岁的人添了一回炭，又把茶重新沏了一遍。 夜深了，大家还围坐着，谁也不肯先说去睡。""",
    "think": """原来年味不在热闹里，而在那些等你回家的人。 东西会旧，人会老，可是那份心意从来没有变。 我们总说年味淡了，其实是自己走得太匆忙了。
一年到头，再多的奔波，也不过是为了这一刻。 有些话平时说不出口，到了过年才敢轻轻说一声。 长大以后才懂得，平常的日子才是最难得的福气。
它不会说话，却替我们记住了一家人的许多年。 人走得再远，心里也总有一盏灯为故乡亮着。""",
    "hope": """愿新的一年里，家里的老人都安康，孩子都快活。 愿出门的人平安归来，愿留守的人不再孤单。 愿来年风调雨顺，愿每一份辛苦都有好的收成。
愿我们都能慢下来，好好陪一陪身边的家人。 愿灯火常明，愿笑声常在，愿想见的人都能相见。 愿旧年的遗憾随雪化去，愿新年的希望随春发芽。""",
}
SPEECH = {  # of a long text, in their order
    "year": """回头看这一年，有过风雨，也有过许多暖心的时刻。 三百多个日子一晃而过，留下的都是实实在在的脚印。 这一年并不轻松，可我们一步一步都走了过来。
春天播下的种子，如今都有了或大或小的收成。 有人出发，有人归来，有人一直守在原来的地方。 日子有咸有淡，好在身边总有愿意搭把手的人。""",
    "effort": """清晨的第一班车上有我们，深夜的最后一盏灯下也有。 遇到难处，我们没有抱怨，而是挽起袖子一起想办法。 那些看起来很小的坚持，慢慢连成了今天的好光景。
手上的茧厚了一层，心里的底气也就多了一分。 流过的汗不会说话，可是它都落在了实处。 没有谁的路是平的，走得稳，是因为身边有人扶着。""",
    "thanks": """谢谢每一位默默付出的人，你们的好我都记在心里。 谢谢那些不问回报的帮助，它们让冬天不再那么冷。 最该谢的是家人，没有他们的体谅，就没有今天。
谢谢一路上递过热茶、说过暖话的每一个人。 这份情谊不是一句话能说完的，我只能记得更久。 有你们在，再长的路也不觉得远，再冷的夜也不觉得黑。""",
    "home": """过年了，先把忙碌放一放，陪家人好好吃一顿饭。 饭菜热了又热，不过是想等齐了人再一起动筷子。 灯笼挂起来，春联贴起来，家里就有了年的样子。
老人盼的不是礼物，是门口那一声熟悉的我回来了。 孩子们放着烟花，把整个院子都照得亮堂堂的。 窗外的雪下得正紧，屋里的笑声却一阵高过一阵。""",
    "future": """新的一年，我们不求一步登天，只求步步踏实。 该学的本事接着学，该做的事情一件一件做好。 愿我们少一些匆忙，多一些从容，把日子过出滋味。
前面的路还长，只要方向对了，就不怕走得慢。 把没做完的心愿写进新的日历，一页一页去实现。 我相信，冬天越是寒冷，春天就越是值得等待。""",
    "wish": """愿老人身体硬朗，愿孩子平安长大，愿家家灯火可亲。 愿奔波的人有热饭吃，愿远行的人有家可回。 愿来年风调雨顺，愿每一份付出都不被辜负。
愿我们再相聚的时候，都带着好消息和好心情。 愿岁岁有今日的团圆，愿年年有新的盼头。 愿笑声越来越多，愿药瓶越来越少，愿好运常来敲门。""",
}
MOST_NEEDED = {
    "memory": "past think family bustle detail season night talk hope",
    "speech": "year effort thanks home future wish",
}
OPENING = "一说起过年，我最先想到的就是{}。 每年到了这个时候，我都会想起{}。 在我的记忆里，{}就是过年的样子。 离家越久，我越是常常想起{}。"
MEETING = "今年回到家，我又一次看见了{}。 推开家门，最先看见的还是{}。 那天傍晚，我的目光又落在{}上。"
KEEPING = "{}，就是我心里最浓的年味。 我想，只要{}还在，年味就还在。 往后的每一年，我都会记得{}。"
STARTING = "今天，我想从{}说起。 提笔的时候，我先想起了{}。 说起这个年，总要先说说{}。"
RETURNING = "每次想到{}，心里就踏实下来。 {}提醒我们，好日子都是一点点攒出来的。 {}还是老样子，人却在一年年长大。"
EVENT = "一次|是不是|去哪|走失|里有|大家|为什么|一天|忙碌|岁月|这一年"  # no thing that one can look at
OF_EVENT = "说到{}，我有许多话想讲。|那时的情景，我到现在还记得。|想起{}，我心里又暖了起来。"
PUBLIC = "致辞|广播稿|演讲稿|公开信|倡议书|主持词|开场白|寄语|独白|推文"
CLOSING = "祝大家新年快乐，万事如意！ 祝各位新春大吉，阖家安康！ 给大家拜年，祝岁岁平安！"
CLOSING_TO = "祝V新年快乐，万事如意！ 祝V新春大吉，阖家安康！ 给V拜年，祝岁岁平安！"
TOPICS = (
    r"“([^”]+)”",
    r"《([^》]+)》",
    r"从([^，。]+)说起",
    r"主题是([^，。]+)",
    r"(?:描写|回忆|介绍|记录|呼吁|讲|谈谈|谈)([^，。]{2,18})",
)


def topic(request: str) -> str:
    """What a text is to be about, or nothing."""
    found = next(filter(None, (re.search(pattern, request) for pattern in TOPICS)), None)
    return found[1] if found else ""


def essay(request: str, number: int, chance: random.Random) -> str:
    """An essay of `number` characters, give or take one."""
    about = topic(request) or "除夕夜的灯火"

    frames = OF_EVENT.split("|") if re.search(EVENT, about) else (OPENING, MEETING, KEEPING)

    def draw() -> list[list[str]]:
        opening, meeting, keeping = (chance.choice(one.split()).format(about) for one in frames)
        count = max(0, round((number - len(opening + meeting + keeping)) / 21.1))
        told = _told(MEMORY, MOST_NEEDED["memory"], count, chance)
        return [
            [opening, *told["season"], *told["bustle"]],
            [meeting, *told["detail"], *told["past"]],
            [*told["family"], *told["talk"], *told["night"]],
            [*told["think"], keeping, *told["hope"]],
        ]

    return _fitting(draw, number - 1, number + 1)


def long(request: str, number: int, who: str, you: str, chance: random.Random) -> str:
    """A text of some 10 to 30 characters more than `number`; `who`, when it is not empty, is greeted."""
    about = topic(request) or "这一年"
    back = RETURNING.split()[0] if re.search(EVENT, about) else RETURNING

    def draw() -> list[list[str]]:
        if re.search(PUBLIC, request):
            hello, closing = "各位朋友，大家新年好！", chance.choice(CLOSING.split())
        else:
            hello = f"{who}，{you}好，新年快乐！" if who else "又是一年新春到。"
            closing = chance.choice((CLOSING_TO if who else CLOSING).split()).replace("V", you)
        starting, returning = (chance.choice(one.split()).format(about) for one in (STARTING, back))
        count = max(0, -(-(number + 8 - len(hello + starting + returning + closing)) // 22))
        told = _told(SPEECH, MOST_NEEDED["speech"], count, chance)
        return [
            [hello, starting, *told["year"], *told["effort"]],
            [returning, *told["thanks"], *told["home"]],
            [*told["future"], *told["wish"], closing],
        ]

    return _fitting(draw, number + 8, number + 32)


def _told(bank: dict[str, str], order: str, count: int, chance: random.Random) -> dict[str, list[str]]:
    """`count` sentences by their kind."""
    kinds = order.split()
    told = {}
    for place, kind in enumerate(kinds):
        pool, times = bank[kind].split(), len(range(place, count, len(kinds)))
        parts = [pool[len(pool) * i // times : len(pool) * (i + 1) // times] for i in range(times)]
        told[kind] = [chance.choice(part) for part in parts if part]
    return told


def _fitting(draw: Callable[[], list[list[str]]], low: int, high: int) -> str:
    """The first of many draws whose length is between low and high; the last, when none is."""
    for _ in range(400):
        paragraphs = draw()
        if low <= sum(len(one) for paragraph in paragraphs for one in paragraph) <= high:
            break
    return "\n".join("".join(paragraph) for paragraph in paragraphs if paragraph)
