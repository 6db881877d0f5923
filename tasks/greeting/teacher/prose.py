"""A text of at least N characters, and an essay of N: sentences on a thing, told in one order."""

import random
import re

# Sentences in the order in which they are told, "|" between variants, {} the thing. Those of STEPS
# that an essay of 400 characters has beside those of 300 come from MORE_OF_ESSAY; a text of 300
# beside those of 200, from MORE_OF_LONG.
STEPS = {
    "open": "每到过年，我总会想起{}。|一说到过年，我就想起{}。|在我心里，过年就是{}。",
    "street": "腊月里，街上挂满了灯笼，年味一天比一天浓。|年关将近，巷口挂满了彩灯，年味越来越浓。",
    "house": "妈妈把屋子打扫得干干净净，爸爸贴好了春联。|爸爸挂起了红灯笼，妈妈把窗户擦得很干净。",
    "visit": "我换上新衣服，忙着给爷爷奶奶拜年。|我给老朋友打电话问好，又给爷爷拜了年。",
    "kitchen": (
        "厨房里飘出年糕的香味，桌上摆着热气腾腾的饺子。|屋里飘着排骨汤的香味，"
        "桌上摆着热气腾腾的蒸鱼。"
    ),
    "children": "孩子们提着灯笼跑来跑去，院子里到处是笑声。|孩子们在雪地里打雪仗，巷口到处是笑声。",
    "meet": "那天晚上，我又看见了{}。|推开老宅的门，我又看见了{}。",
    "memory": "它静静地在那里，让我想起了小时候的事。|灯光照在上面，让我想起了小时候的事。",
    "then": (
        "那时候，奶奶做的汤圆格外香，一家人围坐在一起。|那时候，外婆做的年糕格外香，"
        "一家人其乐融融。"
    ),
    "story": "爷爷讲起了从前的事，大家一边包饺子一边听。|外公讲起了年轻时的事，大家听得很认真。",
    "winter": "北风呼呼地刮，可是一碗热汤就能暖全身。|窗外雪花一片片飘下来，屋里的灯一直亮着。",
    "away": "后来我去了很远的地方，坐火车回家要一整天。|长大以后我去了别的城市，一年只能回家一次。",
    "night": "我们一边包饺子一边聊天，守着电视等钟声。|一家人围着桌子吃年糕，守着电视等钟声。",
    "midnight": (
        "零点的时候，远处升起了烟花，鞭炮声此起彼伏。|钟声响了，烟花照亮了夜空，鞭炮声此起彼伏。"
    ),
    "photo": "日子像水一样流过，老照片还挂在墙上。|时间不紧不慢地走，老照片还挂在墙上。",
    "life": (
        "生活有苦也有甜，平淡却很幸福，慢一点也没关系。|这一年有苦也有甜，知足常乐，"
        "一切都会好起来的。"
    ),
    "family": "家是最温暖的地方，有人等你回家真好。|一家人在一起就好，阖家团圆最是难得。",
    "keep": "想到{}，我的心里暖暖的。|看着{}，我心里满是欢喜。",
    "spring": "旧的一年就这样过去了，春天也不远了。|冰雪就要化了，春天已经在路上了。",
    # the one that has the length which is still missing
    "sigh": (
        "真叫人欢喜。|日子越过越甜。|我们都笑出了声。|这才是过年的样子。|年年如此，年年不同。|"
        "我把这一切都记在心里。|大家都说，明年还要这样。|心里有光，就不怕路远天寒。|"
        "心里有光，就不怕前面的路远。"
    ),
    "wish": "愿所有努力都有回报，愿所有心愿都能成真。|愿每一天都有好心情，愿好运常伴左右。",
    "peace": "愿新的一年平平安安，愿家家户户灯火长明。|愿家家户户灯火长明，愿来年的日子更甜。",
}
OF_EVENT = {
    # where the thing is nothing that one can look at
    "meet": "那时的情景，我到现在还记得。|那些日子，我到现在还记得。",
    "memory": "一件件小事，让我想起了从前。|我一边走一边想，想起了许多事。",
    "keep": "想起{}，我的心里暖暖的。",
}  # fmt: skip
ESSAY = (
    "open street house kitchen meet memory then winter night midnight life family keep spring peace"
).split()
MORE_OF_ESSAY = "story children photo away visit wish".split()
LONG = "spring life open street house kitchen family keep wish peace".split()
MORE_OF_LONG = "then midnight children night winter story".split()
EVENT = "一次|是不是|去哪|走失|里有|大家|为什么|一天|忙碌|岁月|这一年"
BREAKS = {
    "essay": ("meet", "night", "family"),
    "long": ("open", "wish"),
}  # what a paragraph begins with
PUBLIC = "致辞|广播稿|演讲稿|公开信|倡议书|主持词|开场白|寄语|独白|推文"
CLOSING = "祝大家新年快乐，万事如意！|给大家拜年，祝岁岁平安！"
CLOSING_TO = "祝V新年快乐，万事如意！|给V拜年，祝岁岁平安！"
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
    return _fitting(("", ESSAY, MORE_OF_ESSAY, ""), about, number + 1, number - 1, "essay", chance)


def long(request: str, number: int, who: str, you: str, chance: random.Random) -> str:
    """A text of some 10 to 30 characters more than `number`; `who`, when it is not empty, is
    greeted."""
    about = topic(request) or "这一年"
    if re.search(PUBLIC, request):
        hello, closing = "各位朋友，大家新年好！", CLOSING
    else:
        hello, closing = (
            (f"{who}，{you}好，新年快乐！", CLOSING_TO) if who else ("又是一年新春到。", CLOSING)
        )
    last = chance.choice(closing.split("|")).replace("V", you)
    return _fitting(
        (hello, LONG, MORE_OF_LONG, last), about, number + 28, number + 6, "long", chance
    )


def _fitting(
    parts: tuple[str, list[str], list[str], str],
    about: str,
    high: int,
    low: int,
    form: str,
    chance: random.Random,
) -> str:
    """Hello, steps and closing, with as many of the further steps as fit: of many drawings the
    first between `low` and `high`."""
    hello, core, more, last = parts
    best = ""
    for _ in range(300):
        drawn = {step: _say(step, about, chance) for step in [*core, *more]}
        size = len(hello + last) + sum(len(drawn[step]) for step in core)
        taken, dropped = [], []
        for step in more:
            if size + len(drawn[step]) <= high:
                taken.append(step)
                size += len(drawn[step])
        for step in core[1:]:
            if size > high + 10 and "{" not in STEPS[step]:
                dropped.append(step)
                size -= len(drawn[step])
        if form == "essay" and (
            fitting := [one for one in STEPS["sigh"].split("|") if low <= size + len(one) <= high]
        ):
            taken.append("sigh")
            drawn["sigh"] = chance.choice(fitting)
        text = hello + "".join(
            ("\n" if step in BREAKS[form] else "") + drawn[step]
            for step in STEPS
            if step in taken or step in core and step not in dropped
        )
        best = text + last
        if low <= len(best.replace("\n", "")) <= high:
            break
    return best


def _say(step: str, about: str, chance: random.Random) -> str:
    bank = STEPS | OF_EVENT if re.search(EVENT, about) else STEPS
    return chance.choice(bank[step].split("|")).format(about)
