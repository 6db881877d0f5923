"""The scripted teacher of the example: answers chats offline, in place of a large model.

It reads only the text that it is given. A seeded share of its answers is spoilt the way real
answers are, so that the filter has work to do.

    bill = "在梧桐路书店买了3本字典，合计126元，2026年3月2日"
    answer([{"role": "user", "content": bill}], "any string")
    -> '{"company": "梧桐路书店", "date": "2026年3月2日", "amount": "126"}'
"""

import json
import random
import re

FLAWS = {"fenced": 0.02, "missing_key": 0.02, "invented_year": 0.02}  # shares of the answers
SHOP = (
    "有限公司|经营部|事务所|打印社|旅行社|加油站|文具店|水果店|维修部|家具城|超市|书店|花店|药房|"
    "面馆|酒楼|宾馆|工厂"
)
COMPANY = re.compile(rf"[\u4e00-\u9fff]*?(?:{SHOP})")
BEFORE = re.compile(r"^.*(?:开票单位|销售方|收款方|商家|付给|来自|去了|今天|在|由|到)")
DATE = re.compile(r"(?:\d{4}年)?\d{1,2}月\d{1,2}日|\d{4}([-/.])\d{1,2}\1\d{1,2}")
TOTAL = re.compile(r"(?:合计|总计|一共|实付|总价|金额|共计)\D{0,2}(\d+(?:\.\d+)?)")
MONEY = re.compile(r"[¥￥](\d+(?:\.\d+)?)|(\d+(?:\.\d+)?)(?=元|块)")


def answer(messages: list[dict[str, str]], seed: str) -> str:
    """Raw assistant content for one request; `seed` alone picks the flaw, if any."""
    text, chance = messages[-1]["content"], random.Random(seed)
    found = {
        "company": company(text),
        "date": (DATE.search(text) or [""])[0],
        "amount": amount(text),
    }
    [flaw] = chance.choices([*FLAWS, ""], [*FLAWS.values(), 1 - sum(FLAWS.values())])
    if flaw == "missing_key":
        del found[chance.choice(list(found))]
    if flaw == "invented_year" and "date" in found:
        found["date"] = f"{chance.randint(2010, 2020)}年{found['date']}"
    reply = json.dumps(found, ensure_ascii=False)
    return f"好的，结果如下：\n```json\n{reply}\n```" if flaw == "fenced" else reply


def company(text: str) -> str:
    """The name that ends like a shop's, without the words before it."""
    match = COMPANY.search(text)
    return BEFORE.sub("", match[0]) if match else ""


def amount(text: str) -> str:
    """The number named as the total, or else the last sum of money."""
    if total := TOTAL.search(text):
        return total[1]
    sums = [match[1] or match[2] for match in MONEY.finditer(text)]
    return sums[-1] if sums else ""
