"""Make the rows of the copywriting task: `python -m tasks.copywriting.data.rows` writes
data/seeds.jsonl and gold.jsonl.

A row is the title and the content of one virtual short video, as OCR and ASR give them: a topic of
topics.txt, its main subject, three or four facts, and around them what such videos are full of
(greetings, appeals to follow, counters, exaggeration, fillers), with spaces, commas, spoken
connectives or a mix of them where sentences should be parted.

A seed:     {"id": "…", "title": "太香了 #做酸菜鱼 #家常菜",
             "content": "大家好我是小周 今天教大家做酸菜鱼 草鱼片成薄片 …"}
A gold row: {"id": "…", "title": "…", "content": "…", "slice": "like_seeds", "gold": null}

topics.txt: `# name genre` begins a topic, `T:` lists the patterns of its subject and `P:` those of
its place; `pool= a b | c d` has the words of the seeds before the bar and those of the gold rows
behind it, `dish:a:b= …` words that belong together (dish picks the entry, a and b are its further
parts); each line `- x / y` is one fact, told in one of these ways (`! x` in each row, `- x` in
most). {3-9} and {10-40/5} are numbers, the latter in steps of 5. The topics behind `@unseen` are
only in the gold slice `unseen_topic`. No subject, person, place or pool word of a gold row is one
of a seed; the slice `like_seeds` has the seeds' topics.
"""

import random
import re
from pathlib import Path
from typing import NamedTuple

from potstill.core.jsonl import row_id, write_jsonl

SEED = 30501
GOLD_SEED = 30511  # nobody reads these rows: mistakes are studied on rows of another seed (7)
SEED_ROWS, LIKE_ROWS, UNSEEN_ROWS = 6000, 400, 100
DATA = Path(__file__).resolve().parent
GRAVE = ("accident", "disaster", "death", "ill", "missing")
LONGEST_FACT = 11  # two of them, their marks and a closing word are a body of 30 characters
TOTAL = range(60, 111)  # characters of title and content

# seeds before the bar, gold rows behind it
SHARED = {
    "stem": (
        "{p1}{p2} | 鹿鸣 芦塘 星湖 丹霞 曲水 榆树 黄石 雁栖 栖霞 沧浪 九曲 紫云 珠溪 麦田 槐荫 "
        "鹤山 琴川 玉泉 蓝田 秋水 澄江 樟木 葛洲 霞浦 漓水 杏坛 荆门 渔阳 碧溪 双柏"
    ),
    "p1": (
        "青 白 云 临 安 清 海 南 北 东 西 长 平 石 松 柳 桃 金 银 龙 凤 竹 梅 兰 永 新 宁 福 和 "
        "春 大 高 广 仁 文 义"
    ),
    "p2": (
        "松 泉 源 湾 桥 林 坪 滩 冈 屏 浦 庄 塘 岩 渡 川 岭 阳 原 丰 和 安 宁 康 口 井 台 峰 洲 岗"
    ),
    "surname": (
        "王 李 张 刘 陈 杨 赵 黄 周 吴 徐 孙 胡 朱 高 林 何 郭 马 罗 梁 宋 | 郑 谢 韩 唐 冯 于 董 "
        "萧 程 曹 袁 邓"
    ),
    "given": (
        "{g1}{g2} | 振华 雅文 少华 卫东 庆丰 月林 思远 云飞 宝山 静平 德顺 巧文 守业 若谷 可心 嘉树"
    ),
    "g1": "志 秀 建 桂 明 海 永 玉 立 文 晓 长 慧 国 春 丽 金 学 景 素",
    "g2": "平 林 华 远 英 康 新 博 东 生 水 行 强 涛 宁 然", "num": "一 二 三 四 五 六 日",
    "who": "{surname}师傅 老{surname} {surname}大哥 小{surname}", "name": "{surname}{given}",
    "date": "{1-12}月{1-28}日 今天上午 昨天傍晚 近日 上周末 今天早上 昨天下午 今天",
}  # fmt: skip

INTROS = {
    "howto": (
        "今天教大家{T}|今天教你{T}|这期学{T}|跟我学{T}|手把手教{T}|{T}其实不难|很多人问怎么{T}|"
        "分享{T}的方法"
    ),
    "travel": "今天来到{T}|周末带娃逛{T}|带大家走进{T}|终于来了{T}|今天去{T}玩",
    "taste": "今天打卡{T}|探店来到{T}|跟我逛吃{T}|带你去{T}吃一顿",
    "review": "今天开箱{T}|测评一下{T}|{T}用后说几句|最近入手了{T}|体验了一把{T}",
    "know": "今天聊聊{T}|你了解{T}吗|一分钟说清{T}|给大家科普{T}|关于{T}讲几点",
    "news": "{date}{P}{T}|来看{P}的{T}|关注{P}{T}|镜头来到{P}{T}|{date}记者在{P}看到{T}",
    "sport": "来看{T}的比赛|{date}{T}出战|{T}又上场了|赛场上的{T}",
    "people": "今天认识{T}|镜头对准{T}|这位是{T}|讲讲{T}的事",
    "pet": "我家{T}来了|快看{T}|{T}又上镜了|记录一下{T}",
    "book": "最近看了{T}|今天推荐{T}|{T}看完了|终于等到{T}",
    "notice": "请注意{P}{T}|{date}发布{P}{T}|提醒一下{P}{T}|{P}{T}来了",
    "funny": "今天拍到{T}|又是{T}的一天|{T}又来了|偷拍{T}",
    "accident": "{date}{P}发生{T}|{P}突发{T}|{date}{P}{T}|据报道{P}{T}",
    "disaster": "{date}{P}发生{T}|{P}突发{T}|{date}{P}{T}|据报道{P}{T}",
    "death": "沉痛悼念{T}|送别{T}|{T}离开了我们|传来噩耗{T}走了",
    "ill": "请帮帮{T}|关注{T}|这是{T}|大家看看{T}",
    "missing": "帮忙扩散{T}|紧急寻找{T}|寻人{T}|请留意{T}",
}
# what parts two facts when nothing is written between them
GLUE = {"howto": ("首先", "然后 接着 再来")} | dict.fromkeys(
    ("news", *GRAVE), ("据了解", "随后 另外 同时")
)
OTHER_GLUE = ("你看", "而且 另外 还有就是")

HELLO = "大家好我是{who}|哈喽大家好|朋友们好|家人们好|欢迎回来我是{who}|大家好这里是{stem}频道"
GRAVE_HELLO = "观众朋友们好|大家好我是{who}|插播一条消息"
BYE = (
    "记得点赞收藏|关注我不迷路|我们下期见|点个关注再走|评论区告诉我|双击屏幕支持一下|"
    "转发给需要的人|觉得有用点个赞"
)
JUNK = "播放{1-9}.{1-9}万|HD|00:{10-59}|弹幕{100-900}条|广告|ID{10000-99999}|@{who}|自动字幕|直播中"
SWEARS = "我靠|卧槽|妈的|牛逼|尼玛"
HYPE = "真的绝了|太震撼了|绝对史上最强|不看后悔|全网都在传|简直逆天|99%的人不知道"
FILLERS = "嗯 呃 那个 啊 就是说"
TAILS = "啊 呢 哦"
CLICKS = (
    "绝了|家人们谁懂啊|必看|震惊|笑死|不看后悔|99%的人不知道|史上最全|赶紧收藏|一秒学会|逆天了|"
    "全网最火|吐血整理|yyds|{2024-2026}最新|看到最后|太绝了!!!|速看|第{2-90}期|记录一下|"
    "分享给大家|今天的视频|随手拍|日常|来了来了|第{2-30}集|原创"
)
GRAVE_CLICKS = (
    "突发|刚刚|吓死人了|太惨了!!!|现场曝光|痛心|震惊|速看|快讯|最新消息|转发扩散|令人揪心"
)
TAGS = "热门 日常 同城 涨知识 推荐 生活 记录"


class Topic(NamedTuple):
    """A part of topics.txt."""

    name: str
    genre: str
    subjects: list[str]
    places: list[str]
    pools: dict[str, str]
    facts: list[list[str]]
    needed: list[int]  # facts that each row tells
    unseen: bool


def topics() -> list[Topic]:
    """The topics of topics.txt, in its order."""
    found: list[Topic] = []
    unseen = False
    for line in (DATA / "topics.txt").read_text("utf8").splitlines():
        unseen = unseen or line == "@unseen"
        if line.startswith("# "):
            name, genre = line[2:].split()
            found.append(Topic(name, genre, [], [], {}, [], [], unseen))
        elif line.startswith("- "):
            found[-1].facts.append(line[2:].split(" / "))
        elif line.startswith("! "):
            found[-1].needed.append(len(found[-1].facts))
            found[-1].facts.append(line[2:].split(" / "))
        elif line[:3] in ("T: ", "P: "):
            (found[-1].subjects if line[0] == "T" else found[-1].places).extend(
                line[3:].split(" / ")
            )
        elif "=" in line:
            key, words = line.split("= ")
            found[-1].pools[key] = words
    return found


class Filler:
    """Fills patterns for one row."""

    def __init__(self, rng: random.Random, topic: Topic, gold: bool) -> None:
        self.rng, self.gold = rng, gold
        self.pools = SHARED | topic.pools
        self.bound: dict[str, str] = {}
        for key, words in topic.pools.items():
            head, *parts = key.split(":")
            if parts:  # an entry of words that belong together is drawn once
                entry = rng.choice(self.side(words))
                self.bound |= dict(zip((head, *parts), entry.split(":"), strict=True))

    def side(self, words: str) -> list[str]:
        """The words for the seeds or for the gold rows."""
        sides = words.split("|")
        return sides[-1 if self.gold else 0].split()

    def fill(self, pattern: str) -> str:
        """The pattern with every slot filled."""

        def slot(match: re.Match[str]) -> str:
            low, high, step, key = match.groups()
            if low:
                return str(self.rng.randrange(int(low), int(high) + 1, int(step or 1)))
            return self.fill(
                self.bound[key]
                if key in self.bound
                else self.rng.choice(self.side(self.pools[key]))
            )

        return re.sub(r"\{(?:(\d+)-(\d+)(?:/(\d+))?|(\w+))\}", slot, pattern)

    def bind(self, key: str, patterns: list[str]) -> None:
        """Draws what the slot `key` stands for; a word of the topic in it is the one that the whole
        row has."""
        pattern = self.rng.choice(patterns)
        for word in re.findall(r"\{([a-z]\w*)\}", pattern):
            if word not in SHARED and word not in self.bound:
                self.bound[word] = self.rng.choice(self.side(self.pools[word]))
        self.bound[key] = self.fill(pattern)

    def pick(self, options: str) -> str:
        """One of the options parted by |, filled."""
        return self.fill(self.rng.choice(options.split("|")))


def content(f: Filler, topic: Topic, rng: random.Random) -> str:
    """What is said and shown: greeting, introduction, facts, appeals, parted in one way or in
    several."""
    grave = topic.genre in GRAVE
    others = [spot for spot in range(len(topic.facts)) if spot not in topic.needed]
    spots = sorted(topic.needed + rng.sample(others, rng.choice((3, 3, 4)) - len(topic.needed)))
    facts = []
    for spot in spots:
        fact = f.fill(rng.choice(topic.facts[spot]))
        while len(fact) > LONGEST_FACT or fact in facts:
            fact = f.fill(rng.choice(topic.facts[spot]))
        facts.append(fact)
    first, later = GLUE.get(topic.genre, OTHER_GLUE)
    way = rng.choices(("space", "comma", "glue", "mixed"), (35, 20, 27, 18))[0]

    def gap(before_fact: bool, first_fact: bool = False) -> str:
        kind = rng.choice(("space", "comma", "glue")) if way == "mixed" else way
        if kind == "glue" and before_fact:
            return first if first_fact else rng.choice(later.split())
        return {"space": " ", "comma": rng.choice("，，。"), "glue": rng.choice((" ", "，"))}[kind]

    hello = (
        f.pick(GRAVE_HELLO if grave else HELLO) if rng.random() < (0.35 if grave else 0.6) else ""
    )
    text = hello + (rng.choice((gap(False), "")) if hello else "") + f.pick(INTROS[topic.genre])
    for i, fact in enumerate(facts):
        if rng.random() < 0.16:
            text += (
                " "
                + f.pick(
                    JUNK if rng.random() < 0.6 or grave else HYPE if rng.random() < 0.7 else SWEARS
                )
                + " "
            )
        else:
            text += gap(True, i == 0)
        if rng.random() < 0.08:
            text += rng.choice(FILLERS.split())
        text += fact + (rng.choice(TAILS.split()) if rng.random() < 0.07 else "")
    if rng.random() < 0.6:
        text += gap(False) + f.pick(BYE)
    return text


def title(f: Filler, topic: Topic, rng: random.Random) -> str:
    """The video's own title: the subject, mostly as a hashtag or in brackets, and what is thought
    to bring clicks."""
    subject, click = f.bound["T"], f.pick(GRAVE_CLICKS if topic.genre in GRAVE else CLICKS)
    tag = rng.choice((f" #{topic.name}", f" #{rng.choice(TAGS.split())}", "", ""))
    if subject.startswith("《"):
        return rng.choice((f"{click}{subject}", f"{subject}{click}", f"{click} {subject}")) + tag
    return rng.choice(
        (
            f"{click}#{subject}{tag}",
            f"{click} #{subject}{tag}",
            f"#{subject} {click}",
            f"【{subject}】{click}{tag}",
        )
    )


def make(rng: random.Random, topic: Topic, gold: bool) -> dict[str, str]:
    """One row's title and content."""
    while True:
        f = Filler(rng, topic, gold)
        f.bind("T", topic.subjects)
        f.bind("P", topic.places or [""])
        row = {"title": title(f, topic, rng), "content": content(f, topic, rng)}
        if len(row["title"] + row["content"]) in TOTAL:
            return row


def rows(seed: int, count: int, chosen: list[Topic], gold: bool) -> list[dict[str, str]]:
    """So many different rows over the topics in turn."""
    rng = random.Random(seed)
    found: dict[str, dict[str, str]] = {}
    turns = [*chosen, *(topic for topic in chosen if topic.genre in GRAVE and rng.random() < 0.2)]
    while len(found) < count:
        rng.shuffle(turns)
        for topic in turns:
            row = make(rng, topic, gold)
            found[row_id(row)] = row
    return [{"id": key, **row} for key, row in list(found.items())[:count]]


def main() -> None:
    """Writes both files."""
    seen, unseen = ([topic for topic in topics() if topic.unseen is side] for side in (False, True))
    seeds = rows(SEED, SEED_ROWS, seen, gold=False)
    gold = [
        {**row, "slice": name, "gold": None}
        for name, count, chosen in (
            ("like_seeds", LIKE_ROWS, seen),
            ("unseen_topic", UNSEEN_ROWS, unseen),
        )
        for row in rows(GOLD_SEED, count, chosen, gold=True)
    ]
    for name, made in (("seeds.jsonl", seeds), ("gold.jsonl", gold)):
        write_jsonl(DATA / name, made)
        print(f"data/{name}: {len(made):,} rows")


if __name__ == "__main__":
    main()
