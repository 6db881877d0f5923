"""What the scripted teacher knows of delivery texts: phones, labels, surnames, titles, remarks,
endings of places."""

import re

# What is recognised is overwritten with one of these marks, so a position in the copy stays a
# position in the text.
PHONE, NAME, TEL, ADDRESS, REMARK, ANCHOR, OTHER = "\x01\x02\x03\x04\x05\x06\x07"
FULL_WIDTH = {chr(c + 0xFEE0): chr(c) for c in range(0x21, 0x7F)}
NORMAL = str.maketrans(
    FULL_WIDTH | dict(zip("　\t【】「」『』〔〕—–。“”①②③④⑤⑥", '  [][][][]--,""      ', strict=True))
)

OTHER_NUMBER = re.compile(
    (
        r"(?:订单号?|单号|编号|身份证号?|QQ号?|微信号?|邮编|邮政编码|postcode|zip)"
        r"\s*[:#]?\s*[A-Za-z\d-]{4,}"
    ),
    re.I,
)
COUNTRY = (
    r"(?:\(?(?:\+|(?<!\d)00)86\)?[- ]{0,2}|(?<!\d)86-?|"
    r"(?<![\dA-Za-z号路街道巷弄栋幢楼室])86 |(?<!\d))"
)
MOBILE = (
    r"[12](?:\d{10}|\d\d[- ]{1,2}\d{4}[- ]{1,2}\d{4}|"
    r"(?:\d\d[- ]\d{3}[- ]\d{5}|\d{3}[- ]\d{3}[- ]\d{4}|\d{3}[- ]\d{4}[- ]\d{3}|"
    r"\d{6}[- ]\d{4}|\d\d[- ]\d{8}|\d{4}[- ]\d{6})(?![- ]\d{4}(?!\d)))"
)
LANDLINE = (
    r"(?:\(0\d{2,3}\)|0\d{2,3})[- ]{0,2}\d{3,4}[- ]?\d{4}|"
    r"(?:(?<=86[- ])|(?<=\+86))[1-9]\d{1,2}-\d{7,8}|[48]00(?:[- ]?\d{3}[- ]?\d{4}|-\d{4}-\d{3})"
)
EXTENSION = (
    r"(?P<x>(?:\s?(?:转|ext\.?|分机号?)\s?:?\d{1,6}|-\d{1,5}(?![\d号栋幢楼室弄层座#]|-\d))?)"
)
PHONES = re.compile(rf"{COUNTRY}(?:(?P<m>{MOBILE})|(?P<l>{LANDLINE}))(?!\d){EXTENSION}", re.I)
# a room number runs into the phone
GLUED_PHONE = re.compile(
    rf"(?:(?P<m>[12]\d{{2}}[- ]?\d{{4}}[- ]?\d{{4}})|(?P<l>0\d{{2,3}}-\d{{7,8}}))(?!\d){EXTENSION}",
    re.I,
)
LABELLED_PHONE = re.compile(
    rf"(?:电话|手机|号码|方式|tel|phone|mobile|mob)\D{{0,3}}(?P<l>\d[\d -]{{4,}}\d){EXTENSION}",
    re.I,
)

LOOSE = {  # labels wherever they stand; a phone label needs a colon or the phone behind it, though
    NAME: (
        "收件人姓名 收货人姓名 联系人姓名 收件人名 收件人 收货人 收件者 收货者 接收人 接收者 "
        "联系人 收信人 客户姓名 收件方 接收方 联络人 收的人 取件人 签收人 姓名 名字 我叫 我是"
    ),
    TEL: (
        "收件人电话 收货人电话 收件人手机 收货人手机 联系人电话 联系电话 联系方式 联系手机 "
        "联系号码 手机号码 手机号 手机 电话号码 移动电话 固定电话 收件电话 收货电话 取件电话 "
        "联络电话 联络方式 电话 座机 固话 号码 联系 致电 拨打 打 电"
    ),
    ADDRESS: (
        "收件人地址 收货人地址 收货地址 收件地址 详细地址 具体地址 家庭地址 公司地址 送货地址 "
        "配送地址 邮寄地址 寄送地址 联系地址 通讯地址 街道地址 快递地址 地址 住址 详址 街道门牌 "
        "门牌地址 省市县 所在地区 所在区域 所在省市区 所在省市 所在城市 省市区县 省市区 家住 住在"
    ),
    REMARK: "备注信息 备注 买家留言 留言 附言 快递要求 配送要求 注意事项",
}
STRICT = {  # labels only before a colon or alone between separators
    NAME: "本人 客人 收方 客户 顾客 买家 收货 收件 收 致 名",
    ADDRESS: (
        "所在地 地区 区域 省份 城市 省 市 区 区县 县区 街道 详细 门牌号 门牌 收货地 行政区 目的地 "
        "地点"
    ),
    REMARK: "说明 要求 商品 货品 数量 邮箱 注",
    OTHER: "收货信息 收件信息 寄件信息 快递信息 配送信息 收件人信息 收货人信息",
}
ENGLISH = {
    NAME: (
        r"full\s?name|name|contact(?:\s?person)?|attn|attention|recipient|receiver|"
        r"consignee|customer|ship\s?to|deliver\s?to|to"
    ),
    TEL: (
        r"contact\s?(?:no|number|tel|phone)|tel(?:ephone)?(?:\s?no)?|"
        r"(?:mobile|cell)?\s?phone(?:\s?(?:no|number))?|mobile(?:\s?no)?|mob|cell"
    ),
    ADDRESS: (
        r"(?:shipping|delivery|street|detailed?)?\s?add(?:ress|r)?|location|region|"
        r"province|city|district|area|detail"
    ),
    REMARK: r"remarks?|notes?|memo|email",
}
ONE_LETTER = {"n": NAME, "t": TEL, "m": TEL, "p": TEL, "a": ADDRESS, "r": REMARK}
CHINESE = {w: k for group in (STRICT, LOOSE) for k, words in group.items() for w in words.split()}
LOOSE_WORDS = frozenset(" ".join(LOOSE.values()).split())
LABEL = re.compile(
    r"(?:(?<![\dA-Za-z])\d[.、)]|[①-⑨])?\s{0,2}[\[(<{\"']{0,2}[我他她您你]?的?(?:(?P<zh>"
    + "|".join(sorted(CHINESE, key=len, reverse=True))
    + ")|"
    + "|".join(
        f"(?P<{g}>(?<![A-Za-z])(?:{p})(?![A-Za-z]))"
        for g, p in zip("ntar", ENGLISH.values(), strict=True)
    )
    + r"|(?<![A-Za-z\d])(?P<one>[NTMPA])(?=\s?:))(?:是|为|叫|写)?(?:\(必填\))?"
    r"(?P<close>[\s/\])>}\"']{0,4}[:=.]{0,2}[\s\"'\[]{0,4})",
    re.I,
)

SURNAMES = (
    "王李张刘陈杨赵黄周吴徐孙胡朱高林何郭马罗梁宋郑谢韩唐冯于董萧程曹袁邓许傅沈曾彭吕苏卢蒋蔡贾丁"
    "魏薛叶阎余潘杜戴夏钟汪田任姜范方石姚谭廖邹熊金陆郝孔白崔康毛邱秦江史顾侯邵孟龙万段雷钱汤尹黎"
    "易常武乔贺赖龚文庞樊兰殷施陶洪翟安颜倪严牛温芦季俞章鲁葛伍韦申尤毕聂丛焦柳邢岳齐梅莫庄辛管祝"
    "左涂谷祁时舒耿牟卜詹关苗凌费纪靳盛童欧甄项曲成游阳裴席卫查屈鲍覃霍翁隋植甘景薄单包司柏宁柯阮"
    "桂闵解强柴华车冉边辜吉饶刁瞿戚丘古米池滕晋苑邬臧畅褚廉简娄盖符木穆党燕郎邸冀谈姬屠连郜晏栾郁"
    "蒙计喻揭窦迟宇敖糜鄢冷卓仇艾蓝都巩稽练仲乐虞卞封竺冼原官楚佟栗匡宗应台巫鞠桑荆谌沙岑习胥保和"
    "蔺水云昌凤酆雍向阴闫肖付尚代邝骆钮伏皮禹狄贝明茅支咎经裘缪干宣贲杭诸嵇滑荣羊於惠麴家储汲邴松"
    "井富乌巴弓牧隗山宓蓬郗班仰秋伊暴钭厉戎祖束幸韶印宿怀蒲鄂索籍咸能苍双闻莘贡劳逄扶冢郦璩濮寿通"
    "扈郏浦农别晁充慕茹鱼容暨居衡步耘满弘国寇广禄阙东殳沃利蔚越夔隆师厍勾融訾那空毋乜养须丰巢相红"
    "竹权逯益桓岩海帅亓苟浩奚仉缑亢况后有琴归晖佘佴伯赏墨哈谯笪年爱路全商楼房关花宫位来麦粟修展由"
    "邰敬元税朴平凡信尧鹿才区冶矫操户生银麻"
)
COMMON = frozenset(SURNAMES[:200])
DOUBLE = (
    "欧阳|上官|司马|诸葛|慕容|令狐|皇甫|尉迟|公孙|东方|夏侯|司徒|独孤|南宫|端木|长孙|宇文|轩辕|"
    "钟离|闻人|赫连|澹台|公冶|宗政|濮阳|淳于|单于|太叔|申屠|仲孙|鲜于|闾丘|司空|司寇|子车|颛孙|"
    "巫马|公西|漆雕|乐正|壤驷|公良|拓跋|夹谷|宰父|谷梁|百里|呼延|东郭|南门|羊舌|微生|左丘|西门|"
    "万俟|纳兰|完颜|耶律|叶赫|东门|梁丘|即墨|第五|太史|段干|公羊"
)
HAN = "[一-鿿㐀-䶿]"
PERSON = re.compile(rf"(?:{DOUBLE}|[{SURNAMES}]){HAN}{{1,2}}|{HAN}{{1,6}}[·•]{HAN}{{1,8}}")
# behind 收件, 收货, 客户 when they are labels
BARE_NAME = re.compile(rf"(?![前后时电地])(?:{DOUBLE}|[{SURNAMES}]){HAN}")
IN_PROSE = re.compile(
    rf"(?:这是|我是|是|给|寄给|让|交给?|由|本人|送|的)?"
    rf"(?P<name>{PERSON.pattern})(?:的(?:快递|包裹|件)?|下单|代收|寄[到往])?"
)
GIVEN_TO = re.compile(
    rf"(?:(?:寄|发|交|送|递|转)给|交由|请交|(?<!{HAN})(?:找|叫|由|联系)|"
    rf"(?<![供配补])给)(?!方式)(?=(?:{PERSON.pattern})(?:先生|女士|小姐|老师|"
    rf"[亲签查接代]?收)*(?:[^一-鿿]|$))"
)
TITLE = (
    "先生|女士|小姐姐?|老师|师傅|总?经理|太太|夫人|阿姨|叔叔?|大[哥姐爷妈叔]|医生|大夫|护士|同学|"
    "主任|教授|博士|律师|工程师|老板|店长|[局处科部院校所队班组站]长|总监|会计|秘书|警官|总"
)
RECEIVES = "代收|亲启|亲收|查收|签收|接收|收|启"
TITLES = re.compile(
    rf"[ (\[]{{0,2}}(?<=[一-鿿 (\[])(?:(?:{TITLE})[ (\[]{{0,2}}(?:{RECEIVES})?|"
    rf"(?<![亲签])(?:{RECEIVES}))[ )\]]{{0,2}}(?=[^一-鿿A-Za-z]|$)"
)
PREFIX_TITLE = re.compile(r"(?<![A-Za-z])(?:mr|mrs|ms|miss|dr)\b\.?\s*", re.I)

PUT = (
    r"(?<![解开])放(?:在|到|至|进)?(?:小区)?(?:[东南西北正后侧大]?门[卫口岗房]|前台|驿站|菜鸟|"
    r"妈妈驿站|快递|丰巢|物业|楼下|保安|传达室|收发室|信箱|代收|自提|柜|电表|鞋柜|奶箱|消防|车库|"
    r"大厅|一楼|超市|便利店)"
)
WHEN = (
    r"(?:周[末一二三四五六日天]|工作日|节假日|双休日|平时|随时|白天|晚上|夜间|上午|下午|中午|早上|"
    r"傍晚|下班|上班|午休|全天|\d{1,2}(?:点|:\d\d)).{0,8}?(?:送|派|配|收|在家|[有没无]人|打|再|后|"
    r"前|可|不|联系|勿|取|方便)"
)
REMARKS = re.compile(  # wherever it begins, it lasts to the end of the piece
    rf"{PUT}|{WHEN}|请|麻烦|就(?:[行好]|可以)$|即可$|谢谢|感谢|多谢|拜托|尽快|加急|急用|电联|"
    rf"电话联系|轻拿轻放|送货上[门楼]|送上[门楼]|送到(?:门|前台|家|楼|单位)"
    r"|(?:本人|家人|门卫室?|前台|物业|保安|邻居|同事|他人|可|须|需|必须)(?:代|签|亲)收|"
    r"(?:不要|不用|不可|不能|切勿|勿|别)[放压折摔扔倒敲按打投送代自发寄催挤拆晒淋丢随乱再用叠]|"
    r"(?:到|送|派送|送货|送达|配送|派件|上门|来)(?:了|后|前|之前|时)(?:请|先|提前)?"
    r"(?:打|电|联|通知|发|致|短信|给)|提前.{0,4}(?:电|联系|打|通知)"
)
REMARK_PIECES = re.compile(  # only at the beginning of a piece that does not look like a place
    (
        r"帮忙|辛苦|最好|务必|一定要?|可以[送放发]|如[果有需]|若[有无不]|先[打联通放送]|"
        r"需要?[送放提开发轻冷要]|必须|尽量|快递|师傅|直接|暂|存放|寄存|[代签]收|禁止|严禁|谢绝|"
        r"拒[收绝]|蟹蟹|谢了|thank|thx|特急|很急|急$|急[需件]|尽早|速[发递度]|早点|联系不|打不通|"
        r"保持|短信|微信|同微信|打电话|有事|送[货到的前完达人给]|派[送件]|货到|到付|自提|自取|"
        r"易碎|小心|轻[拿放点敲]|防[潮摔压水震]|贵重|生鲜|冷[藏冻链]|保价|保密|包装|包好|打包|"
        r"多[套包裹缠]|[发走][货顺圆中申韵京邮极]|顺丰|要[送放发包开轻求]|不[要用可能开在]|"
        r"家[里中]有|有人|没人|无人|生日|礼物|宝宝|老人|门铃|敲门|按[门铃时]|当面|验货|指定|现货|"
        r"补发|换货|怕[压摔碰]|切记|开箱|隔天|明天|今天|后天|就[行好]|即可|你好|您好|亲$|我(?!爱)|"
        r"[这那][里边个]|以上|寄[到往给]|邮[寄到]|拨打|收到|到货"
    ),
    re.I,
)
PLACES = (
    "号路街道巷弄村镇乡庄屯寨楼栋幢座层室厦店场园苑院府庭城湾里区县市厂校馆站局所部铺"
    "坊桥口组社团港寓墅邸居阁轩广期坪塘岭墩舍"
)
PLACE = re.compile(rf"[{PLACES}]$|\d[A-Za-z\d\-]*$")
ENDS_PLACE = re.compile(rf"[{PLACES}元户房库门墙廊心]$|[^一-鿿]$")
PIECE = re.compile(r"(?:[^\W_]|[-#.·•~&]|(?<=\d):(?=\d\d))+")
CHUNK = re.compile(r"([\x01-\x07]?)([^\x01-\x07]+)")
