"""Make the gold rows of the greeting task: `python -m tasks.greeting.data.rows` writes
data/gold.jsonl.

    {"id": "…", "text": "给二姑写一条47字的新年祝福，…", "slice": "short", "gold": null}

The requests have the forms of the scripted teacher's, but its words for people, occasions, things
and letters occur in none of them, nor do those of a seed. The checks judge alone: no answer is
expected. The first kind asks for each length from 30 to 80 equally often; the kinds have the shares
of the 56 seeds, the published ones.
"""

import random
from pathlib import Path

from potstill.core.jsonl import Row, read_jsonl, row_id, write_jsonl
from potstill.dataset.near_duplicates import Seen
from tasks.greeting.teacher import letter, request
from tasks.greeting.teacher import words as known

SEED = 20271  # nobody reads these rows: mistakes are studied on rows of another seed
NEAR = 0.8  # as near_duplicate of params.yaml
EACH = 5  # requests of the first kind for each length
COUNTS = {"short": 51 * EACH, "long": 217, "essay": 89, "poem": 89, "letter": 64}
DATA = Path(__file__).resolve().parent

WHO = """太姥爷 姥姥 二姑 舅妈 岳母 公公 姨父 外孙女 嫂嫂 叔公 历史老师 声乐老师 研究生导师 舞蹈教练
游泳教练 小区保安 送奶工 骨科医生 急诊护士 高铁乘务员 养路工人 社区民警 快递小哥 边防战士 公司经理
代理商 房产中介 老东家 部门主任 面馆老板 初中同学 牌友 驴友 笔友 前同事 师妹 下铺的兄弟 放羊的老伙计
开渔船的表哥 学画画的侄子 读高三的妹妹 打鼓的队友 唱戏的师姐 跑货运的邻居 做陶器的朋友
拉琴的学生""".split()
WHEN = """除夕守岁时 元旦傍晚 大年初三 小年夜 元宵灯会前 腊八早晨 大扫除之后 返乡路上 跨年倒数时
    初七开工前 庙会散场后 拜年回来的路上""".split()
HOW = known.HOW
RECALL = """那盏旧台灯 一起摘过的杨梅 屋后的竹林 渡口的老船 冬夜的烤红薯 那本手抄的诗 一起走过的雪路
码头的汽笛 院墙上的牵牛花 那只走丢的狗 山里的萤火虫 没看完的那场球 河边的芦苇 集市上的泥人
那年的大雾 一起腌的酸菜 秋天的柿子林 借宿的那一晚 楼顶的星空 拼了一半的船模""".split()
THANKS = {
    "": (
        "一年来的关照 救急的那碗粥 夜里开来的车 及时的那封信 半路的搭救 送来的新棉被 那次仗义执言 "
        "修好的旧风扇"
    ),
    "elder": "腌好的萝卜 讲过的老故事 打好的毛衣 一辈子的操劳",
    "junior": "贴心的短信 画的那张全家福 常回来的周末",
    "teacher": "细致的批改 多年的教诲 一遍遍的示范",
    "helper": "寒夜里的值守 贴心的服务 每一次的奔忙",
    "business": "长久以来的照顾 公道的价钱 关键时候的担保",
    "friend": "深夜里的安慰 搬家时的出力 病中的探望",
}
WISH = {
    "": "胃口一天比一天好 新居早日落成 旅途都有好风景 肩膀不再酸痛 天天都睡到自然醒 想吃的都能吃到",
    "elder": "耳朵越来越灵 早日喝上喜酒 眼睛不再发花",
    "junior": "面试一路顺利 高考正常发挥 钢琴考级通过",
    "teacher": "画室越办越大 弟子年年得奖 讲义早日付印",
    "helper": "夜里少出急事 天天按时吃饭 出勤平平安安",
    "business": "铺面越开越多 账期越来越短 签约一路顺利",
    "friend": "体重再降五斤 早日脱单 乐队早日登台",
}
THING = """老家门口的石狮子 太爷爷的怀表 姑姑的缝纫机 村头的水井 那盏煤油灯 戏班的铜锣 灶王爷的画像
书房的毛笔 天井里的水缸 堂屋的八仙桌 过年的糖葫芦 母亲的蓝围裙 哥哥的风车 楼道里的奖状 江边的渡船
那只竹篮 晒台上的柿饼 大伯的二胡 墙角的腌菜坛 山坡上的果树""".split()
FORM = known.FORM
CLAUSE = """愿你的行囊里装着好天气 愿长夜都有人作伴 愿远路不再漫长 愿灶膛里的火常旺
想念的人就在下一站 把冬天酿成一坛酒 屋檐下的燕子会回来 愿你睡前都有好故事 走过的弯路也开出了花
盼归的人已经到家 一碗热汤胜过千言 愿旧书里夹着新叶 愿钥匙总能打开门 那些汗水都长成了果子
愿渔船满载而归 愿稻谷堆到屋檐""".split()
SENDER = "阿良 秋生 美兰 老魏 小禾 德顺 雨薇 根生".split()
FRIEND = "三叔 大姐 陈老师 姑妈 老伙计 张师傅 奶奶 战友小刘".split()
POINTS = {
    "工作": (
        "调到了质检组 升了小组长，担子重了 自己开了一家修车铺 学会了开铲车 谈下了两家新客户 "
        "换了一家印刷厂 在渔港找到了活 考下了厨师证 接了一个大工程"
    ),
    "身体": (
        "胳膊上的石膏拆了 血糖降下来了 气喘好多了，夜里不咳 每天走一万步 牙全补好了 "
        "动了个小手术，已经出院 老寒腿没有犯"
    ),
    "家里": (
        "大女儿订了亲 买了一台新冰柜 小孙子会走路了 水渠通到了门口 母亲种的菊花开了 "
        "邻居送来两只鹅 新房上了梁"
    ),
    "打算": (
        "五月去海边打工 买一台收割机 带父亲去看眼睛 学做豆腐 开春把鱼塘清一清 请你们来住几天 "
        "把欠的账结清"
    ),
}
HELLO = known.HELLO
BETWEEN = """窗外的风刮了一整夜，早上才停下来。 房东送来一盘冻梨，酸甜得很。
昨天梦见咱们在河里摸鱼，醒来还笑。 工地上只剩我们几个人了，倒也清静。
你托人带的茶叶我舍不得喝，只泡过一回。 镇上新修了一条路，走起来一点泥也没有。
电视里在放老戏，我听着听着就跟着哼。 院里那棵枣树今年结得特别多。 除夕那天我打算自己包一顿饺子。
这里的人过年要吃年糕，我也学着做了。""".split()
BYE = known.BYE


def gold(seed: int) -> list[Row]:
    """The rows, by `seed`; none is a near-duplicate of another or of a seed."""
    chance, rows, seen = random.Random(seed), [], Seen(NEAR)
    for row in read_jsonl(DATA / "seeds.jsonl"):
        seen.add(row["id"], row["text"], row["id"])
    for kind, count in COUNTS.items():
        made = 0
        while made < count:
            told = letter(globals(), chance) if kind == "letter" else ""
            text = request(kind, globals(), chance, told, 30 + made % 51 if kind == "short" else 0)
            text += f"\n\n{told}" if told else ""
            row = {"id": row_id({"text": text}), "text": text, "slice": kind, "gold": None}
            if seen.find(text, row["id"]) is None:
                seen.add(row["id"], text, row["id"])
                rows.append(row)
                made += 1
    return rows


def main() -> None:
    found = gold(SEED)
    write_jsonl(DATA / "gold.jsonl", found)
    print(f"{len(found)} gold rows → gold.jsonl")


if __name__ == "__main__":
    main()
