"""What the scripted teacher says of any word: promises on what stands before its head or on one of
its characters, and the words that turn against a promise.
"""

# promises that name what the word says before its head (办公室的绿萝), by what that is; {} is its
# place
ABOUT = {
    "time": """{}一到人人都想起它 {}的指望全押在它身上 {}本想靠它撑过去 {}一来它就成了主角
        {}说好了全靠它 {}最让人惦记的就是它 {}它总要登场 {}就盼着它露面""",
    "event": """{}一开始人人都想起它 {}的指望全押在它身上 {}本想靠它撑过去 {}一来它就成了主角
        {}说好了全靠它 {}前早早备好了它 {}最让人惦记的就是它 {}没有它就不算数""",
    "place": """{}人人都说它好 {}没有谁比它更受器重 {}把它当成功臣 {}数它最抢手 {}有了它人人放心
        {}拿它当门面 {}上上下下都指望它 {}从来有人给它捧场""",
    "role": """{}逢人就夸它 {}拿它当宝贝 {}为它操碎了心 {}说有了它就万事大吉 {}一提起它就眉飞色舞
        {}不许别人说它不好 {}把它看得比什么都重 {}再三保证它靠得住 {}每天都要显摆它一回""",
}  # fmt: skip
# promises that play on a character of the word, and the characters that say something
NAMED = "名字里带着个{}字 仗着名字里有个{}字 沾了一个{}字的光 白白占了一个{}字 靠一个{}字招人喜欢"
TELLING = (
    "保爱家智快免急冷热甜喜福安乐美名真信富贵财金健康养平和清净忠公情暖宝香鲜全自早优奖明亮灵神仙"
    "星红春花笑欢团圆贺年节梦诗文学书银高豪新速轻净白百万千活生好顺正直善勤"
)
TURNS = "结果 到头来 偏偏 谁知 可惜 其实 没想到 最后 说到底"
