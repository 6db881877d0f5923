"""The scripted teacher of the copywriting task: answers chats offline, in place of a large model.

It reads only the text that it is given: cuts the content into clauses, drops greetings, appeals,
counters and exaggeration, finds the subject of the video and the kind of video, and writes a title
and a body from what is left, with a last word that fits the mood. A seeded share of the answers is
spoilt the way real answers are, so that the filter has work to do. Asked by prompts/rejected.md it
writes bad copies (bad.py).

    video = "标题：绝了 #养绿萝\\n内容：今天教大家养绿萝 见干再浇别积水 每隔7天浇水"
    answer([{"role": "user", "content": video}], "any string")
    -> '{"title": "养绿萝的步骤", "body": "见干再浇别积水，每隔7天浇水，动手试试吧！"}'
"""

import json
import random
import re
from difflib import SequenceMatcher
from typing import NamedTuple

from . import bad

# Shares of the answers that carry each flaw; those of GRAVE_FLAWS only where the video is about a
# grave matter.
FLAWS = {
    "fenced": 0.010,
    "cut_off": 0.006,
    "missing_key": 0.005,
    "too_long": 0.010,
    "clickbait": 0.008,
    "invented_number": 0.008,
    "subject_left_out": 0.006,
    "doubled_mark": 0.004,
    "foreign_word": 0.003,
}
GRAVE_FLAWS = {"joke": 0.04, "no_death": 0.02}

MARKED = re.compile(r"^[^#【《]*([#【《])([^#\s】》]+)")
GRAVE = re.compile(
    "车祸|事故|追尾|相撞|侧翻|翻车|被撞|碰撞|撞护栏|起火|着火|失火|火灾|爆燃|爆炸|溺水|溺亡|落水|"
    "身亡|遇难|去世|离世|逝世|病逝|悼念|噩耗|送别|离开了我们|丧事|走失|失联|失踪|被困|受伤|轻伤|"
    "重伤|烧伤|患病|患癌|白血病|罕见病|尿毒症|化疗|确诊|地震|滑坡|泥石流|坍塌|塌陷|垮塌|倒塌|冒顶|"
    "煤矿透水|决口|山洪|洪水|内涝|被淹|倒灌|漫堤|台风|雪崩|坠崖|失温|遇险"
)
# where one clause ends and the next begins, when nothing is written between them
GLUE = r"首先|第一步|然后|接着|再来|你看|据了解|随后|另外|同时|而且|还有就是"
APPEAL = r"记得点赞|关注我|我们下期|点个关注|评论区|双击|转发给|觉得有用"
CUT = re.compile(rf"[\s，。！？!?,；;…~～|]+|{GLUE}|(?={APPEAL})")
NOISE = re.compile(
    rf"{APPEAL}|大家好|朋友们|家人们|观众朋友|哈喽|我是|欢迎回来|频道|插播|本台|播放|弹幕|广告|"
    rf"自动字幕|直播中|HD|ID\d|@|^\d\d:\d\d|"
    r"绝了|震撼|史上|后悔|全网|逆天|99%|我靠|卧槽|妈的|牛逼|尼玛"
)
FILLER = re.compile(r"^(?:那个|就是说|[嗯呃啊哎])+|[啊呢哦]+$")
# a place of two characters and its kind, before what happens there
PLACE = (
    r"[\u4e00-\u9fff]{2}(?:小区|社区|新区|街道|小学|中学|学院|剧院|广场|大桥|隧道|高速|水库|市场|"
    r"煤矿|工地|峡谷|林场|[村镇乡县区路街河湖山])(?=的|发生|突发|看到|{t})"
)

# kind of video, by what is said of the subject: cue (with {t} the subject), titles, last words.
# Each title begins with the subject, which a mark leads to in the video's title: where a place came
# first, a small student lost both.
KINDS: dict[str, tuple[str, str, str]] = {
    "death": (r"悼念|送别|噩耗|离开了我们", "{t}逝世 {t}辞世", ""),
    "missing": (r"走失|寻人|寻找", "{t}盼归 {t}待寻", ""),
    "ill": (r"患病|白血病|罕见病|尿毒症|烧伤|患癌", "{t}盼康复 {t}盼援手", ""),
    "howto": (
        r"教大家|教你|这期学|跟我学|手把手教|其实不难|问怎么|的方法",
        "{t}的步骤 {t}小教程 {t}这样来",
        "动手试试吧！ 快来学学吧！ 一起来试试！ 照着做就行。",
    ),
    "travel": (
        r"今天来到|逛{t}|走进|终于来了|今天去",
        "{t}游记 {t}漫步 {t}走一走",
        "一起去走走！ 有空去看看！ 出门逛逛吧！",
    ),
    "taste": (
        r"打卡|探店|逛吃|吃一顿",
        "{t}寻味 {t}打卡 {t}尝鲜",
        "快来尝尝吧！ 约上朋友吧！ 馋了就去吧！",
    ),
    "review": (
        r"开箱|测评|用后|入手|体验",
        "{t}使用感受 {t}体验 {t}实测",
        "供大家参考。 按需选择吧。 看完再决定。",
    ),
    "know": (
        r"今天聊聊|了解|说清|科普|讲几点",
        "{t}小知识 {t}小课堂 {t}知多少",
        "你记住了吗？ 涨知识了吧！ 一起记住吧。",
    ),
    "sport": (
        r"{t}的比赛|出战|上场|赛场上",
        "{t}的比赛 {t}赛场记 {t}比赛日",
        "继续加油！ 期待下一场！ 好样的！",
    ),
    "people": (
        r"认识|镜头对准|这位是|讲讲",
        "{t}的故事 {t}小记",
        "值得敬佩。 让人心里暖。 向平凡致敬。",
    ),
    "pet": (
        r"我家|快看|上镜|记录一下",
        "{t}的日常 {t}小日子 {t}来了",
        "看着就开心！ 真招人喜欢！ 可爱极了！",
    ),
    "notice": (
        r"请注意|发布|提醒一下|{t}来了$",
        "{t}：{p} {t}须知 {t}提示",
        "请提前安排。 请互相转告。 请留意时间。",
    ),
    "book": (r"《", "{t}推荐 {t}小评 {t}分享", "推荐给你。 找来看看吧！ 值得细细品。"),
    "funny": (
        r"拍到|的一天|又来了|偷拍",
        "{t}趣事 {t}的一天 {t}真逗",
        "看完笑一笑！ 太有意思了！ 真是乐坏了！",
    ),
    "news": (r"", "{t}：{p}", "为他们点赞！ 一起来看看！ 真让人高兴！"),
}
# the last word on a grave matter: for the kinds that have one, and else by the first of these that
# the body tells. Condolences are for those whom the video is about, and for nobody else: where an
# accident's dead had them, too, a small student offered them to the living.
LAST = {"death": "愿逝者安息。", "missing": "盼平安归来。", "ill": "愿早日康复。"}
DEATH = re.compile("身亡|遇难|溺亡")
WISHES = (
    ("受伤|轻伤|呛伤|送医|抢救", "愿伤者平安。"),
    ("被困|失联|转移|疏散", "愿大家平安。"),
    ("", "请注意安全。"),
)
LOSS = re.compile("离世|病逝|享年|受伤|轻伤|呛伤|被困|失联|送医|抢救|没有人员伤亡|住院|确诊")
NUMBER = re.compile(r"\d|[一二两三四五六七八九十百千万]+(?:[个次年天岁元斤倍条半小点分成]|\b)")


class Video(NamedTuple):
    """What is understood of a video."""

    subject: str
    quoted: bool  # a work's title, written in 《》
    said: str  # title and content
    about: str  # the clauses that name the subject
    place: str
    facts: list[str]
    grave: bool


def answer(messages: list[dict[str, str]], seed: str) -> str:
    """Raw assistant content for one request; `seed` alone drives chance."""
    rng = random.Random(seed)
    video = read(messages[-1]["content"])
    good = compose(video, rng)
    if messages[0]["role"] == "system" and "新手" in messages[0]["content"]:
        return bad.copy(video.subject, video.facts, video.grave, good, rng)
    return spoil(good, video, rng)


def read(text: str) -> Video:
    """Finds subject, place and facts in the user's turn."""
    title, _, content = text.removeprefix("标题：").partition("\n内容：")
    clauses = [clause for part in CUT.split(content) if part and (clause := FILLER.sub("", part))]
    mark = MARKED.search(title)
    if mark:
        subject = mark[2]
    else:  # what the title and a clause both say
        title = NOISE.sub("，", title)
        found = [
            SequenceMatcher(None, title, clause, autojunk=False).find_longest_match()
            for clause in clauses
        ]
        subject = (
            title[(best := max(found, key=lambda m: m.size)).a : best.a + best.size]
            if found
            else title[:6]
        )
    about = "".join(clause for clause in clauses if subject in clause)
    facts = [c for c in clauses if subject not in c and not NOISE.search(c) and len(c) > 3]
    place = re.search(PLACE.replace("{t}", re.escape(subject)), about)
    said = f"{title} {content}"
    quoted = f"《{subject}》" in said
    return Video(
        subject, quoted, said, about, place[0] if place else "", facts, bool(GRAVE.search(said))
    )


def kind_of(video: Video) -> str:
    """The kind of video: the first whose cue is said beside the subject."""
    for kind, (cue, _, _) in KINDS.items():
        if kind in ("death", "missing", "ill") and not video.grave:
            continue
        where = f"《{video.subject}" if kind == "book" and video.quoted else video.about
        if re.search(cue.replace("{t}", re.escape(video.subject)), where):
            return kind
    return "news"


def compose(video: Video, rng: random.Random) -> dict[str, str]:
    """The copy as it should be: a title around the subject, two facts and a last word."""
    kind = kind_of(video)
    subject = f"《{video.subject}》" if video.quoted else video.subject
    _, titles, ends = KINDS[kind]
    if video.grave and kind not in ("death", "missing", "ill"):
        titles = "{t}：{p}"
    options = [pattern.format(t=subject, p=video.place).rstrip("：") for pattern in titles.split()]
    if kind == "notice" and video.place:
        options = options[:1]
    title = rng.choice(
        [option for option in options if len(option) <= 10 and option != subject] or [subject[:10]]
    )
    first, *rest = video.facts or [subject]
    keys = (DEATH, LOSS, NUMBER) if video.grave else (NUMBER,)
    found = (fact for key in keys for fact in rest if key.search(fact))
    parts = [first, *([next(found, rest[-1])] if rest else [])]
    if video.grave:
        ends = LAST.get(kind) or next(
            wish for cue, wish in WISHES if re.search(cue, "".join(parts))
        )
    end = rng.choice(ends.split())
    if len("，".join([*parts, end])) > 30:
        parts = parts[:1]
    return {"title": title, "body": "，".join([*parts, end])}


def spoil(copy: dict[str, str], video: Video, rng: random.Random) -> str:
    """The copy as JSON, spoilt in one of the ways of FLAWS when chance falls into its share."""
    flaws = FLAWS | (GRAVE_FLAWS if video.grave else {})
    [flaw] = rng.choices([*flaws, ""], [*flaws.values(), 1 - sum(flaws.values())])
    copy = dict(copy)
    match flaw:
        case "missing_key":
            del copy[rng.choice(["title", "body"])]
        case "too_long":
            copy["body"] = "，".join([*video.facts, copy["body"], "欢迎大家一起来看看这条视频"])
        case "clickbait":
            key = rng.choice(["title", "body"])
            copy[key] = (
                rng.choice(["必看", "绝了", "震惊"]) + copy[key][: 8 if key == "title" else 28]
            )
        case "invented_number":
            copy["body"] = f"第{rng.randint(1001, 9999)}期，" + copy["body"][-20:]
        case "subject_left_out":
            copy["title"] = rng.choice(["视频分享", "今日内容", "一起来看"])
        case "doubled_mark":
            copy["body"] += "。"
        case "foreign_word":
            copy["body"] = copy["body"][:-6] + "，nice。"
        case "no_death":
            copy["body"] = re.sub("[^，]+$", "愿逝者安息。", copy["body"])
        case "joke":
            copy["body"] = copy["body"][:-6] + rng.choice(["哈哈太逗了", "笑一笑吧！", "好热闹！"])
    raw = json.dumps(copy, ensure_ascii=False)
    if flaw == "cut_off":
        return raw[: rng.randint(8, len(raw) - 3)]
    return f"好的，文案如下：\n```json\n{raw}\n```" if flaw == "fenced" else raw
