"""What a delivery text has beside its divisions: streets, estates, rooms, persons and phones.

All is put together from the word pools here; a share of the names is of characters drawn at
random, so that the base learns to copy any name and not a list of names.
"""

from __future__ import annotations

import random
from functools import lru_cache


@lru_cache(1)
def characters() -> tuple[str, str]:
    """The characters of GB 2312: level 1 (3,755 frequent ones), level 2 (3,008 rarer ones)."""

    def block(rows: range) -> str:
        cells = (
            bytes([row, cell]).decode("gb2312", "ignore")
            for row in rows
            for cell in range(0xA1, 0xFF)
        )
        return "".join(cells)

    return block(range(0xB0, 0xD8)), block(range(0xD8, 0xF8))


SURNAMES = (
    "王李张刘陈杨黄赵吴周徐孙马朱胡郭何林高罗郑梁谢宋唐许邓韩冯曹彭曾肖田董潘袁蔡蒋余于杜叶程魏苏"
    "吕丁任卢姚沈钟姜崔谭陆范汪廖石金韦贾夏付方邹熊白孟秦邱江侯尹薛闫段雷龙黎史陶贺毛郝顾龚邵万覃"
    "武钱戴严莫孔向常汤康易乔赖文施洪辛柯庄葛温牛樊尚翁俞季聂齐耿关焦左柳甘祝包霍房纪童凌欧穆裴岳"
    "翟骆路倪殷申涂安阮卜游解符梅鲁宁华应蓝饶章岑苗詹柏颜管娄冉单盛宫阎简党冀屈项成车封靳芦蒲强吉"
    "初米邢古邬蔺桂臧楚冷谷时佘牟商辜席毕伍庞兰艾尤阳农司卓缪连麦褚窦戚景费晏卫宗瞿全佟闵苟边卞姬"
    "师和仇栾隋刁沙荣巫寇桑郎甄丛仲虞敖巩明池查麻苑迟邝滕喻祁鲍蒙柴曲舒胥鞠凤宣郁茅储莘牧惠匡奚衣"
    "揭矫展由楼舍门原兆战火次尼塔扎东西门母字斯玛洛拉加力阿木其布才仁多吉索"
)
COMPOUND = (
    "欧阳 司马 诸葛 上官 慕容 令狐 皇甫 东方 尉迟 公孙 夏侯 长孙 宇文 司徒 南宫 端木 轩辕 百里 "
    "独孤 呼延 申屠 司空 太史 澹台 钟离 闻人 赫连 西门 东郭 濮阳 淳于 公冶 拓跋 公羊 左丘 第五 "
    "完颜 纳兰 万俟 仲孙"
).split()
GIVEN = (
    "伟芳娜秀英敏静丽强磊军洋勇艳杰娟涛明超霞平刚桂文辉玲志建国华红梅鹏飞鑫波斌宇浩凯健俊帆雪婷欣"
    "怡佳琪梓涵子轩雨泽思源晨曦嘉豪诗雅若曼慧颖晓东海峰云龙凤春兰德福荣贵金玉宝珍爱莲淑琴素珠瑞祥"
    "庆安宁康乐天成立新永胜光亮启航景行怀瑾瑜璇璐瑶莹菲萱薇蕊蓉蕾露彤丹青墨染书画棋锦绣绮罗纯朴厚"
    "坤乾震巽离坎艮兑元亨利贞仁义礼智信忠孝廉勤俭恭良让温柔刚毅果敢正直诚实守仲伯叔季孟之可以亦如"
    "何水清澈溪江河湖泊星辰月阳昊昕旭昂昌昱晟晗晖晴智暖暄朗朔望期服朝木本心念一凡小少林森松柏桐楠"
    "梓棠椿榕槿樱橙檀歌欢止武民泓洁洪浦涌润淇淼渊滢滨漫潇澜灵炎炜炫烁烨焱焕煜熙燕牧特玄率亚万长生"
    "根发友全倩媛娅玺宸岚妍婧婕嫣婉娴婵姝妮姗娉嫦媚妙姣娥婀珊珂珏珺琳琬琰琛琨琼琦瑛瑄璋璞璟玥玮玲"
    "珮珩莎莉茜茵荷菊萍萌葵蓓蔓薪芷芸芝芮芬芙芊苒茗茹莘莺菁菡葭蒂蕴藜馨馥香秋冬夏秦晋楚越霖霏霆霄"
    "雯雁鸿鹤鹭鹰麒麟骏骁骥驰腾翔翎翰羽翊奕弈彦彬彪影衡裕祺禧禄禹稷程穆笑笙筠筱箫简继维绍经纶纲绪"
    "缘巧存孜季宏宗定宜宝家容宽宾富寅寒尧尚岩岳峻崇嵩巍川州工左巨希帅干幼广延廷弘强归彰征循恒恩悦"
    "悠惟惠愉意慈懿戈战扬承拓振捷授敦斐方施旋旺昭易映显晏普曙有朋杉李杨柯栋栩梁森楷榆槐权欧正殿毓"
    "汉汝沁沐沛泉泰津浚润涓淳清渝游湘溢滔演潘潮澄瀚灏烈然照熠燃爽牛独玉现理甜用申界略百益盈盼真眉"
    "石砚磊祖禾竹端竣素紫红纪纯练终经翠耀聪肃胤良艺节苏若苗英茂莫菲葛蓝蕙虎融行衍裴西观言许训记译"
    "诚谦谊豫贝贤赞赫超越跃路轶辰达运进远连逸道邦郁采野量鉴钊钧钢铃铎铭银锋锐锡镇镜长门闻阔陆隽雄"
    "雷霜韬韵音韶顺颂顿颜飒首骅高魁鲁鸣黎默鼎齐龄"
)
STEMS = (
    "人民 解放 建设 中山 和平 胜利 新华 文化 青年 友谊 光明 朝阳 东风 红旗 长江 黄河 珠江 滨江 "
    "沿河 环城 学府 科技 创业 兴业 工业 迎宾 站前 体育 公园 湖滨 龙泉 凤凰 金沙 银杏 梧桐 桂花 "
    "梅林 松柏 竹园 柳荫 荷塘 枫林 樱花 紫荆 丁香 玉兰 海棠 芙蓉 牡丹 翠竹 青松 碧水 蓝天 白云 "
    "彩虹 星光 月亮 太阳 晨光 春晖 秋实 丰收 幸福 吉祥 如意 平安 康宁 福寿 同心 团结 民主 民生 "
    "民权 育才 崇文 尚德 明德 至善 求实 勤学 书院 翰林 状元 文昌 文庙 孔庙 城隍 鼓楼 钟楼 古城 "
    "老街 十字 南门 北门 东门 西门 南湖 北湖 东湖 西湖 天河 银河 金河 清河 白河 沙河 柳河 石桥 "
    "板桥 虹桥 金桥 银桥 双桥 大桥 小桥 高桥 平桥 码头 渡口 港口 机场 火车站 航空 航天 邮电 电力 "
    "水利 农业 林业 纺织 钢铁 机械 化工 冶金 电子 软件 信息 数码 世纪 新纪元 时代 未来 国际 环球 "
    "欧陆 罗马 巴黎 维也纳 香榭丽 锦绣 锦江 锦华 华府 华庭 华茂 盛世 盛大 盛和 万科 万象 万通 "
    "万福 恒大 恒通 恒丰 富贵 富力 富康 富源 金鼎 金泰 金域 金地 银座 银泰 银都 宝龙 宝利 宝华 "
    "龙湖 龙城 龙腾 凤鸣 凤起 麒麟 瑞祥 瑞景 瑞丰 嘉和 嘉华 嘉禾 佳园 佳兆 美林 美景 美佳 阳光 "
    "春天 四季 山水 绿地 绿洲 绿景 青山 青城 青云 玉泉 玉带 玉山 珍珠 翡翠 水晶 琥珀 天鹅 白鹭 "
    "飞鹤 鸿雁 北京 上海 广州 深圳 南京 天津 重庆 成都 武汉 杭州 苏州 长沙 青岛 大连 厦门 昆明 "
    "兰州 延安 井冈山 昆仑 泰山 华山 衡山 天山"
).split()
PLACE_CHARS = (
    "大小上下前后东西南北中新老古高长平安太永兴隆福禄寿康宁和顺吉祥瑞庆丰裕富贵荣华昌盛茂发金银铜"
    "铁玉石珠宝水火木土山川江河湖海溪泉池塘井沟渠湾港浦滩洲岛岭峰岗坡坪坝坑垭冲坳洼垄埂台墩堡寨营"
    "屯庄店铺集市桥渡埠码口关门城楼塔寺庙观庵祠碑坊亭阁园林松柏竹梅兰菊桃李杏梨枣槐榆柳杨桑茶麻棉"
    "稻麦花果荷莲菱芦苇草枫桐樟榕桂龙凤虎马牛羊鹿鹤雁燕鹰鸡鱼龟蛇狮象云霞星月日光明春夏秋冬晴雨雪"
    "风雷天地人民公正义仁德礼信忠孝文武学书翰墨诗画琴棋科技创新工农商军建设和谐友爱同心团结红黄蓝"
    "绿青白黑紫翠碧丹一二三四五六七八九十百千万双半首头尾心王张刘陈赵周吴郑孙何罗沈徐朱高谢宋唐韩"
    "冯邓曹彭曾肖田董袁潘蒋蔡余嘉怡悦逸雅静美丽锦绣香馨沁润泽涵澜清澄碧御尊铭鼎冠玺邸苑府庭院轩榭"
    "墅汇融创智慧源鑫泰恒利通达远航腾飞跃辉耀煌凯宏伟"
)
ROADS = (
    "路 路 路 路 街 街 大道 大道 大街 巷 弄 胡同 道 里 支路 东路 西路 南路 北路 中路 一路 二路 "
    "三路 四路 五路 东街 西街 南街 北街 后街 前街 横街 正街 公路 环路 线 坊 条 横路 东大街 西大街 "
    "南巷 东巷 西巷 快速路 老街 步行街"
).split()
ESTATES = (
    "花园 花园 小区 小区 苑 苑 府 城 公寓 广场 大厦 大厦 中心 国际 新村 家园 名邸 华庭 公馆 豪庭 "
    "雅居 山庄 别墅 大院 宿舍 家属院 酒店 大酒店 国际酒店 宾馆 客栈 招待所 医院 人民医院 中医院 "
    "学校 中学 小学 实验小学 实验学校 大学 学院 职业技术学院 幼儿园 超市 商场 商城 市场 批发市场 "
    "农贸市场 建材市场 五金城 服装城 汽配城 家居城 花鸟市场 二手车市场 产业园 工业园 工业区 "
    "科技园 创业园 软件园 物流园 生物医药产业园 写字楼 国际中心 商务大厦 金融中心 时代广场 工厂 "
    "电子厂 服装厂 公司 集团 银行 药店 餐厅 饭店 茶楼 网吧 健身房 水果店 理发店 烟酒店 奶茶店 "
    "火锅店 母婴店 文具店 花店 小卖部 洗衣店 诊所 宠物店 照相馆 驾校 汽修厂 加油站 派出所 村委会 "
    "居委会 卫生院 社区卫生服务中心 车站 码头 仓库 快递站 菜鸟驿站 大楼 安置房 安置区 廉租房 期 "
    "区 里 湾 郡 邸 庄园 半岛 一号 壹号 天地 时代 新城 嘉园 佳苑 名苑 名都 景苑 御园 悦府 东苑 "
    "西苑 南区 北区 花园东区 小区一区 一期 二期 三期 明珠 书苑 学府 东岸 上院 雅苑 购物中心 "
    "购物广场 百货 商业街 步行街"
).split()
TRADES = (
    "电子 机械 食品 服装 科技 化工 建材 纺织 塑料 五金 家具 玩具 包装 印刷 医药 生物 物流 电器 "
    "照明 陶瓷 模具 环保 农业 新能源 网络 贸易 皮革 光电 玻璃 橡胶 电缆 仪表 饲料 酒业 茶业 装饰 "
    "传媒 软件"
).split()
FIRMS = "有限公司 有限公司 公司 厂 集团 有限责任公司 股份有限公司 加工厂 工作室 商行 经营部".split()
VILLAGE = (
    "村 村 镇 镇 镇 乡 街道 街道 街道 社区 屯 寨 庄 堡 岭 沟 坪 湾 集 店 营 圩 墟 塘 苏木 嘎查 "
    "农场 林场"
).split()
PLACE_ADJ = (
    "北侧 南侧 东侧 西侧 对面 旁 旁边 斜对面 隔壁 附近 门口 村口 后面 往东100米 往北50米 "
    "往西200米 东南角 西北角 路口 地下一层 负一层 负一楼 一楼 二楼大厅 前台 门卫室 楼下 院内 北门 "
    "南门 东门 西门 药房 护士站 架空层 夹层 顶楼 底商 一楼车库 办公楼 教学楼 门诊楼 住院部 图书馆 "
    "东户 西户"
).split()


def word(rng: random.Random, low: int = 2, high: int = 3) -> str:
    """A stem for names of streets and estates: a known word, or characters drawn from small to
    large pools."""
    roll = rng.random()
    if roll < 0.25:
        return rng.choice(STEMS)
    frequent, rare = characters()
    pool = (
        PLACE_CHARS if roll < 0.66 else GIVEN if roll < 0.74 else frequent if roll < 0.94 else rare
    )
    return "".join(rng.choice(pool) for _ in range(rng.choice([low, low, low, high])))


def name(rng: random.Random) -> str:
    """A person's name: surname (7 % compound) and one or two characters, a share of them drawn at
    random."""
    surname = rng.choice(COMPOUND) if rng.random() < 0.07 else rng.choice(SURNAMES)
    roll = rng.random()
    pool = GIVEN if roll < 0.76 else characters()[0] if roll < 0.92 else characters()[1]
    return surname + "".join(rng.choice(pool) for _ in range(rng.choice([1, 2, 2, 2])))


def digits(rng: random.Random, n: int) -> str:
    """`n` digits."""
    return "".join(rng.choice("0123456789") for _ in range(n))


def number(rng: random.Random) -> str:
    """A number of one to four digits, short ones more often."""
    return str(
        rng.randint(
            *rng.choice(
                [(1, 9)] * 3 + [(10, 39)] * 3 + [(40, 99), (100, 399), (100, 999), (1000, 3999)]
            )
        )
    )


def room(rng: random.Random) -> str:
    """Building, unit, floor and room: each part in one of many forms, some parts left out."""
    n = lambda: number(rng)  # noqa: E731
    letter, hanzi = rng.choice("ABCDEFGH"), rng.choice("一二三四五六七八九十")
    flat = rng.choice([f"{rng.randint(1, 33)}0{rng.randint(1, 9)}", n(), n(), f"{letter}{n()}"])
    building = rng.choice(
        [
            f"{n()}号楼", f"{n()}栋", f"{n()}幢", f"{n()}座", f"{letter}座", f"{letter}栋",
            f"{letter}{n()}栋", f"{hanzi}栋", f"{hanzi}号楼", f"{n()}#楼", f"{hanzi}期{n()}栋",
            f"{letter}区{n()}号楼", f"{letter}区{n()}栋", f"{n()}号院{n()}号楼",
            f"{n()}号宿舍楼", f"学生公寓{n()}栋", f"{n()}号厂房",
        ]
    )  # fmt: skip
    unit = rng.choice([f"{n()}单元", f"{n()}单元", f"{hanzi}单元", f"{n()}门", ""])
    floor = rng.choice(
        [
            f"{n()}层",
            f"{n()}楼",
            f"{hanzi}楼",
            f"{hanzi}层",
            f"{n()}F",
            f"B{n()}层",
            f"负{hanzi}层",
            f"负{hanzi}楼",
            f"地下{hanzi}层",
        ]
    )
    door = rng.choice([f"{flat}室", f"{flat}室", flat, f"{flat}房", f"{flat}号", f"{flat}号房"])
    stall = rng.choice(
        [
            f"{n()}号铺", f"{n()}铺", f"{n()}号档口", f"{n()}档", f"{n()}号摊位",
            f"{letter}区{n()}号", f"{letter}{n()}", f"{n()}排{n()}号", f"{hanzi}号门",
            f"{n()}号门", f"{n()}号商铺", f"{n()}号库", f"{n()}号仓库", f"{n()}号车间",
            f"{hanzi}街{n()}号", f"{letter}馆{n()}号", f"{n()}号", f"{n()}栋", f"{n()}号院",
            f"{hanzi}食堂{n()}楼",
        ]
    )  # fmt: skip
    side = rng.choice(["东户", "西户", "东", "西", f"{letter}户", f"{letter}区", "前台", "大厅"])
    forms = [
        building + unit + door, building + unit + door, building + door, building + flat,
        building + unit + flat, building, building + unit, building + floor,
        building + floor + door, f"{n()}-{n()}-{flat}", f"{n()}-{flat}", f"{n()}#{flat}",
        f"{n()}#{n()}-{flat}", f"{n()}单元{door}", floor, floor + door, floor, door, flat,
        f"{letter}座{door}", f"{letter}座{floor}", stall, stall, floor + stall, building + stall,
        building + unit + floor + side, floor + side, f"{n()}、{n()}号",
    ]  # fmt: skip
    return rng.choice(forms)


def firm(rng: random.Random) -> str:
    """A company."""
    return word(rng, 2, 2) + rng.choice(TRADES) + rng.choice(FIRMS)


def door(rng: random.Random) -> str:
    """What follows a street's name: mostly a house number in one of many forms."""
    n = lambda: number(rng)  # noqa: E731
    forms = [
        f"{n()}号", f"{n()}号", f"{n()}号", f"{n()}号", f"{n()}号", f"{n()}号院",
        f"{n()}号附{n()}号", f"{n()}弄{n()}号", f"{n()}-{n()}号", f"{n()}巷{n()}号", f"附{n()}号",
        f"{n()}号之{rng.choice('一二三四五')}", f"{rng.choice('甲乙丙')}{n()}号", f"{n()}号-{n()}",
        f"{n()}弄", f"第{n()}号",
    ]  # fmt: skip
    roll = rng.random()
    if roll < 0.8:
        return rng.choice(forms)
    if roll < 0.9:
        other = rng.choice(["与", "和", ""]) + word(rng) + rng.choice(ROADS)
        return (
            other
            + rng.choice(["交叉口", "交汇处", "路口", "交界处"])
            + (rng.choice(PLACE_ADJ) if rng.random() < 0.3 else "")
        )
    return rng.choice(["", "", rng.choice(PLACE_ADJ)])


def location(rng: random.Random) -> str:
    """The rest of an address, from town or street to room."""
    gap = " " if rng.random() < 0.22 else ""
    parts: list[str] = []
    if rng.random() < 0.32:
        parts.append(word(rng, 2, 3) + rng.choice(VILLAGE))
        if rng.random() < 0.5:
            parts.append(
                word(rng, 2, 3)
                + rng.choice("村 村 村 社区 社区 居委会 新村 屯 嘎查 自然村".split())
            )
        if rng.random() < 0.45:
            order = rng.choice(["第", "", "", ""]) + rng.choice(
                [number(rng), rng.choice("一二三四五六七八九十")]
            )
            order += rng.choice(
                ["组", "组", f"组{number(rng)}号", "队", "社", "村民小组", "号", "街坊"]
            )
            if rng.random() < 0.5:
                parts[-1] += order
            else:
                parts.append(order)
        if rng.random() < 0.35:
            return gap.join(parts) + (rng.choice(PLACE_ADJ) if rng.random() < 0.08 else "")
    if rng.random() < 0.75:
        parts.append(word(rng) + rng.choice(ROADS) + door(rng))
    if rng.random() < 0.62 or not parts:
        estate = word(rng) + (word(rng, 1, 2) if rng.random() < 0.15 else "") + rng.choice(ESTATES)
        parts.append(estate if rng.random() < 0.88 else firm(rng))
    if rng.random() < 0.7:
        parts.append(room(rng))
        if rng.random() < 0.08:
            parts.append(rng.choice([firm(rng), word(rng) + rng.choice(ESTATES)]))
    if rng.random() < 0.08:
        parts[-1] += rng.choice(PLACE_ADJ)
    return gap.join(parts)


def phone(rng: random.Random) -> tuple[str, str]:
    """A phone as typed and as it is kept: without +86, and a mobile number without spaces and
    dashes."""
    if rng.random() < 0.76:
        plain = rng.choice(
            ["1" + rng.choice("3456789")] * 4 + ["2" + rng.choice("0123456789")]
        ) + digits(rng, 9)
        text = plain
        if rng.random() < 0.25:
            first, second = rng.choice([(3, 7), (3, 7), (4, 7), (4, 8), (3, 11), (4, 11), (7, 11)])
            text = rng.choice(" -").join(
                filter(None, (plain[:first], plain[first:second], plain[second:]))
            )
    else:
        area = rng.choice(
            [
                "010",
                "02" + rng.choice("0123456789"),
                *["0" + rng.choice("3456789") + digits(rng, 2)] * 3,
            ]
        )
        plain = (
            area
            + rng.choice(["-", "-", "-", "-", ""])
            + rng.choice("2345678")
            + digits(rng, rng.choice([6, 7]))
        )
        if rng.random() < 0.3:
            plain += rng.choice(["-", "-", "转", "转分机", " 转 "]) + digits(
                rng, rng.choice([3, 4, 4])
            )
        text = plain
    if rng.random() < 0.09:
        text = rng.choice(["+86", "+86 ", "+86-", "86-", "86 ", "0086-", "0086", "86"]) + text
    return text, plain
