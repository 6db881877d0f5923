"""The words and signs that the base's text is put together from: those of delivery records
(text.py), then those of carried spans (spans.py)."""

# Each kind of field: the key names that a request may use, and the labels that a typed line may
# carry.
FIELDS: dict[str, tuple[list[str], list[str]]] = {
    "name": (
        (
            "name 姓名 联系人 收件人 客户 买家 contact person 负责人 full_name 收货人 用户 称呼 "
            "receiver customer"
        ).split(),
        (
            "姓名 联系人 收件人 收货人 客户 买家 负责人 接收人 收件者 收货者 签收人 称呼 收方 "
            "用户 Name name NAME Contact To Receiver ATTN 联络人 客人"
        ).split(),
    ),
    "phone": (
        (
            "phone 电话 手机 联系方式 tel mobile 手机号 telephone 联系电话 contact_number 号码 "
            "phone_number"
        ).split(),
        (
            "电话 手机 手机号 手机号码 联系电话 联系方式 电话号码 联络电话 座机 TEL Tel tel Phone "
            "PHONE MOBILE Mobile Mob 致电 号码 手机/电话 联系手机"
        ).split(),
    ),
    "province": ("province 省 省份 sheng prov 所属省份 省级 state".split(), ["省份", "省"]),
    "city": ("city 市 城市 shi town 所在城市 城市名称 地级市".split(), ["城市", "市"]),
    "district": ("district 区县 区 county area 县区 辖区 qu".split(), ["区县", "县区"]),
    "location": (
        (
            "specific_location 详细地址 street 地址详情 detail address_detail 具体位置 门牌 街道 "
            "address_line 位置 location"
        ).split(),
        "详细地址 街道地址 具体地址 街道 门牌 详址 Street Detail 详细".split(),
    ),
    "address": (
        "address 地址 收货地址 住址 完整地址 addr".split(),
        (
            "地址 收货地址 住址 送货地址 详细地址 收件地址 家庭住址 寄往 送至 Address Add ADDR "
            "地点 邮寄地址 配送地址 所在地"
        ).split(),
    ),
    "order": (
        "order 订单号 单号 order_id 编号 订单 order_no".split(),
        "订单号 单号 编号 订单 订单编号 Order 流水号 运单号".split(),
    ),
    "date": (
        "date 日期 时间 下单日 day 下单日期".split(),
        "日期 时间 下单日 下单时间 Date 创建于".split(),
    ),
    "company": (
        "company 公司 单位 企业 firm 商家".split(),
        "公司 单位 企业 商家 Company 抬头".split(),
    ),
    "amount": (
        "amount 金额 价格 合计 price total".split(),
        "金额 价格 合计 总价 实付 Total".split(),
    ),
    "email": ("email 邮箱 电子邮箱 mail".split(), "邮箱 Email 电子邮箱 E-mail".split()),
    "item": ("item 商品 货品 product 品名 物品".split(), "商品 货品 品名 物品 内容 Item".split()),
    "count": ("count 数量 件数 quantity qty".split(), "数量 件数 共 Qty".split()),
    "remark": (
        "remark 备注 留言 note 说明 comment".split(),
        "备注 留言 说明 买家留言 注 Note 附言".split(),
    ),
}
PARTS = ("province", "city", "district", "location")
TITLES = "先生 女士 小姐 老师 师傅 经理 同学 阿姨 大哥 医生 主任 总".split()
REMARKS = (
    "放门卫 放门口 放快递柜 放前台 放菜鸟驿站 周末送 周末派送 工作日送货 下班后送 上午送 下午送 "
    "晚上七点后送 请电联 到了打电话 送前联系 谢谢 尽快发货 急件 轻拿轻放 请勿折叠 易碎 不要放驿站 "
    "别放柜子 需要发票 加一份礼盒 本人签收 代收也可 不在家放邻居 勿压 防潮 加急 顺丰 发顺丰 "
    "发中通 请送上楼 提前一小时打电话 辛苦了 麻烦快点 冷藏保存 需要冷链 当面验货 拍照留证 "
    "不要按门铃 老客户 多放点赠品 包装严实些 易漏液 不急 周六日不收 节假日不送 可以代收 请发短信 "
    "谢谢师傅"
).split()
WHEN = (
    "上午 下午 晚上 中午 周末 工作日 下班后 明天 今天 节假日 六点以后 早上九点前 送之前 到了 "
    "不在家 周一到周五 月底 尽快 急用 收货时"
).split()
WHAT = (
    "送 派送 再送 送上楼 打电话 发短信 联系 放门口 放门卫室 放驿站 放丰巢 放前台 放鞋柜 放信箱 "
    "发货 寄出 开箱 拍照 验货 敲门 按门铃 折叠 重压 倒置 冷藏 冷冻 当面签收 本人签收 给邻居 "
    "给保安 包好一点 加冰袋 开发票"
).split()
HOW = "请 麻烦 请勿 不要 务必 别 尽量 可以 只能 先 记得 能不能 一定要 帮忙 最好".split()
ITEMS = (
    "苹果 大米 茶叶 蜂蜜 牛奶 羽绒服 运动鞋 衬衫 手机壳 耳机 充电器 键盘 台灯 雨伞 书包 水杯 "
    "洗衣液 纸巾 面膜 口红 玩具车 积木 图书 字典 相册 毛巾 被套 枕头 拖鞋 花盆 锅 电饭煲 风扇 "
    "加湿器 猫粮 狗粮 渔具 球拍 瑜伽垫 帐篷"
).split()
SEPARATORS = [
    " ", " ", "  ", ",", "，", " , ", ", ", "、", ";", "；", "; ", "|", " | ", "/", " / ", ":",
    "：", "\n", "\n", "\n", "\t", "。", "~", " - ", "--", "^", "+", "\\", "!!", "·", ".", "..",
    "，\n", ";\n", " // ", "‖",
]  # fmt: skip
COLONS = ["：", ":", ":", "：", " ", "", "", ": ", "： ", "-", "为", "是", " : ", "~", "∶", "——"]
WRAPS = [
    ("「", "」"),
    ("“", "”"),
    ('"', '"'),
    ("<", ">"),
    ("《", "》"),
    ("'", "'"),
    ("『", "』"),
    ("`", "`"),
]


# Signs that separate nothing in a record with an address here, so that the slice `unseen_layout`
# stays unseen; lists have them.
RARE_SIGNS = (
    "→ => = & _ ★ ☆ # 【 】 │ ┃ | ( ) （ ） [ ] { } < > ◆ ● ■ ▲ ※ ○ ◇ △ § @ $ % * ~ ^ / \\ + - — "
    "… ？ ! ！ · 1. 2. 3. ① ② ③ 一、 二、 A. B. ; ： ； ， 。 、 ‘ ’ “ ” \" ' `"
).split()
ODD_SIGNS = (
    "◆ ● ■ ▲ ※ ◇ △ § @ $ % * ? ？ ！ ! … ── ++ ;; 。。 ,, ，， :: \\\\ ^^ ~~ >> ； / ; | ： ·· ‖ "
    "¦ ¶ ♪ ✓ × ÷ ∕ ｜ ﹑ ． 丨"
).split()

ASK = [
    "从文本中提取JSON信息，包含的Key有{k}", "请抽取以下字段并输出JSON：{k}", "提取字段：{k}",
    "信息抽取，Key：{k}", "{k}", "把文本整理成JSON，字段为{k}", "你负责抽取信息，输出{k}",
    "读下面的内容，给出{k}，只输出JSON", "Extract {k} as JSON", "字段：{k}。按顺序输出JSON对象。",
    "抽取{k}", "你是录单员，从客户留言中填写{k}", "输出一个JSON，键依次是{k}",
    "Return a JSON object with keys {k}.", "从一段话里找出{k}，写成JSON，不要解释",
    "你是信息抽取助手，提取{k}", "识别文本里的{k}，以JSON返回", "结构化：{k}", "以JSON格式返回{k}",
]  # fmt: skip
ASK_LINES = [
    "逐行写出{k}",
    "提取{k}，每行一项",
    "列出{k}，一行一个，格式为字段：值",
    "List {k}, one per line",
]
LONG_RULES = [
    "只输出JSON，不要输出解释。", "没有的内容不要编造。", "值要与原文一致。", "省和市写全称。",
    "直辖市的市与省相同。", "电话去掉开头的+86。", "手机号中间的空格和横线去掉。", "姓名不带称谓。",
    "详细地址从街道写到房间号。", "备注不属于任何字段。", "标签不要写进值里。",
    "县级市归在所属的地级市下。", "固定电话保留区号和分机。", "键的顺序不能变。",
    "简称要补成正式名称。", "如果省份没有写，要根据城市补上。", "所有的值都是字符串。",
    "不要使用代码块。", "只写一行。", "空格不重要。",
]  # fmt: skip

KEYS = (
    "prompt output input title body intent answer question text content summary subject message "
    "reply response category label tag tags topic keyword keywords type kind class group status "
    "state code id key value result results data items list name_list score rank level grade size "
    "length width height weight color style mood tone emotion sentiment opinion reason cause "
    "effect action step steps method plan goal target source author owner user users member team "
    "role job task tasks event place scene time day week month year start end begin finish first "
    "second third last next previous before after left right top bottom head tail header footer "
    "line lines word words sentence paragraph section chapter page note notes remarks comments "
    "description detail details info information abstract outline headline caption heading "
    "subtitle slogan copy draft post article story news report record review feedback advice tip "
    "tips hint example sample case quote speech speaker dialog role_name language zh en original "
    "translation rewritten polished short long brief full main extra other others more less new "
    "old good bad high low best worst true false yes no ok none null main_point key_point points "
    "fact facts number numbers total sum average rate ratio percent unit price cost fee discount "
    "coupon order_type delivery refund exchange return warranty invoice stock shop store brand "
    "model version product_name customer_name service support agent bot assistant system human "
    "query request command instruction context history background memory image video audio file "
    "link url path folder format json html css xml csv sql api app web site server client host "
    "port token entity relation object property attribute field fields column row table index "
    "flag mark sign symbol rule rules policy check checks error warning success failure "
    "reason_code risk safety quality hot cold sweet sour spicy food drink fruit animal plant "
    "weather season music movie book game sport travel health money work school family friend "
    "love life dream hope wish greeting poem lyrics verse rhyme ending opening theme "
    "question_type answer_text output_text input_text user_input final final_answer thought think "
    "explain explanation conclusion evidence pros cons similar opposite synonym antonym meaning "
    "usage definition pinyin"
).split()
LABELS = (
    "时间 日期 地点 单位 数字 内容 原因 结果 补充 背景 说明 主题 要点 数据 人员 目的 方式 材料 "
    "工具 步骤 结论 评价 提示 对象 颜色 尺寸 重量 产地 用途 特点 来源 作者 标题 正文 摘要 类型 "
    "等级 范围 进度 费用 期限 条件 要求 问题 回答 例子 甲方 乙方 品种 型号 口味 场景 角色 情节 "
    "优点 缺点 现状 计划 目标 措施 依据 主办 参与 人物 经过 起因 特色 规模 名额 奖项 年份 季节 "
    "食材 做法 火候 口号 反馈 意见 表现 记录 天气 路线 线索"
).split()
FILLERS = (
    "嗯 啊 呃 那个 这个 就是 然后 接着 其实 反正 对吧 你看 怎么说呢 话说 哈哈 总之 好了 听我说 "
    "还有就是 另外"
).split()
ENDS = (
    "。 。 。 ！ ？ ～ … ；".split()
    + (
        "吧。 呢。 了。 哦～ 啦！ 呀！ （完） ，谢谢。 ，请留意。 ，就这样。 ，值得一看！ "
        "，真不错。"
    ).split()
)
SIGNS = "，。！？；：、～…—·“”‘’「」『』《》〈〉【】（）％￥℃①②③④⑤×÷＋－＝／＆＠＃＊｜"
JOINS = ["，", "，", "，", "、", "；", " ", "\n", "。", "～", "！", "/", "|"]
UNITS = (
    "个 名 人 次 元 万元 分钟 小时 天 年 岁 米 公里 平方米 克 公斤 度 件 份 户 家 条 辆 座 间 盒 "
    "页 % 亩 吨 毫米 格 步 层 台 所 场 届 期"
).split()
