"""A beginner's copies, bad in many ways, in answer to prompts/rejected.md: what a preference pair
rejects."""

import json
import random

# Share of each kind, in percent. `good` is as good as what is chosen: such pairs must be dropped.
KINDS = {
    "hype": 14,
    "no_json": 12,
    "broken": 10,
    "meaningless": 9,
    "off_topic": 11,
    "wrong_mood": 12,
    "invented": 9,
    "rambling": 8,
    "vulgar": 6,
    "chatty": 4,
    "stuttering": 5,
    "good": 4,
}
HYPE = (
    "震惊！{t}惊呆所有人",
    "全网疯传！{t}必看",
    "史上最强{t}！！",
    "不看后悔！{t}逆天了",
    "99%的人不懂{t}",
)
HYPE_BODY = (
    "看完直接惊呆了！！！{f}，不转就亏大了",
    "绝了绝了，{f}，不看后悔一辈子！",
    "专家都震惊了，{f}，赶紧转发！！",
)
PLAIN = (
    "这个视频就是讲{t}的吧，我也没怎么看懂，{f}，大概就这样",
    "标题：{t}\n正文：{f}，还行，可以看看",
    "{t}嘛，随便写两句，{f}……剩下的忘了",
)
SIGNS = "锟斤拷烫屯□◆※＃＠＆％★$^~"
OFF_TOPIC = (
    ("周末去哪玩", "天气这么好，叫上朋友去爬山，别忘了带水。"),
    ("今天吃什么", "打开冰箱看一看，有什么就做什么，别浪费。"),
    ("早睡早起", "放下手机早点睡，明天又是新的一天，加油！"),
    ("随便聊聊", "最近工作有点忙，好久没有更新，大家多多包涵。"),
    ("我的一天", "起床刷牙吃早饭，坐地铁上班，晚上回家看剧。"),
)
JOKES = ("哈哈哈笑死我了", "这也太搞笑了吧", "快来看热闹啊😂", "真是喜闻乐见")
GLOOM = ("太惨了，愿一路走好", "各位节哀", "看得人心都凉了，愿逝者安息")
SWEARS = ("卧槽", "我靠", "牛逼", "他妈的", "尼玛")


def copy(
    subject: str, facts: list[str], grave: bool, good: dict[str, str], rng: random.Random
) -> str:
    """A bad copy of one kind, about the subject and the facts of the video; `good` is the copy as
    it should be."""
    [kind] = rng.choices([*KINDS], [*KINDS.values()])
    fact = rng.choice(facts or [subject])
    words = {"t": subject, "f": fact}
    title, body = good["title"], good["body"]
    match kind:
        case "hype":
            title, body = rng.choice(HYPE).format(**words), rng.choice(HYPE_BODY).format(**words)
        case "no_json":
            return rng.choice(PLAIN).format(**words)
        case "broken":
            half = fact[: max(2, len(fact) // 2)]
            title, body = (
                subject[: max(1, len(subject) // 2)],
                f"{half}的然后{half[::-1]}，就是那个。",
            )
        case "meaningless":
            mess = "".join(rng.choice(SIGNS) for _ in range(rng.randint(5, 12)))
            title, body = mess[:3] + subject, f"{fact}{mess}。"
        case "off_topic":
            title, body = rng.choice(OFF_TOPIC)
        case "wrong_mood":
            title = f"{subject[:4]}{'真逗' if grave else '完了'}"
            body = f"{fact}，{rng.choice(JOKES if grave else GLOOM)}。"
        case "invented":
            body = f"{rng.randint(2, 90) * 1111}人围观，{fact}，来了{rng.randint(12, 98)}位明星！"
        case "rambling":
            body = "，".join(
                [
                    *facts,
                    f"说到{subject}我想起小时候的事",
                    "那时候大家都这样",
                    "总之很多话想说也说不完。",
                ]
            )
        case "vulgar":
            title, body = rng.choice(SWEARS) + subject, f"{rng.choice(SWEARS)}，{fact}，服了！"
        case "chatty":
            return (
                f"好的！我来试试写一个：{json.dumps(good, ensure_ascii=False)}不知道行不行，"
                f"请多指教～"
            )
        case "stuttering":
            body = subject * 3 + rng.choice("好看牛赞") * rng.randint(6, 12) + "！"
    return json.dumps({"title": title, "body": body}, ensure_ascii=False)
