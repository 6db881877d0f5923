"""Make the rows of the support task: `python -m tasks.support.data.rows` writes
prompts/knowledge.jsonl, data/seeds.jsonl and data/gold.jsonl.

All comes from shop.yaml: the made-up shop's rules, and for each rule the wordings of customers who
are asking for it. A row's intent is the label of the rule that it was made for, and exactly that
rule applies to it. Two runs are identical.

A rule:     {"label": "退货", "when": "刻字|定制", "text": "定制商品不支持无理由退货",
             "states": ["定制", "不支持"], "never": ["7天"]}
A seed:     {"id": "…", "question": "你好，订单尾号5821，深灰色羽绒服到手3天了能不能退货，谢谢"}
A gold row: {"id": "…", "question": "…", "slice": "like_seeds", "gold": {"intent": "退货"}}

The gold slice `like_seeds` has the seeds' wordings, but no sentence of theirs (product, name and
digits left out); its looks of products, names, order numbers and some defects, places and typos
stand in no seed, and a share of it are products with an intent (`held` in shop.yaml) that no seed
has together. The slice `unseen_wording` has sentence patterns that no seed has.
"""

import random
import re
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from potstill.core.jsonl import row_id, write_jsonl
from potstill.core.params import parse, read_text
from potstill.dataset import near_duplicates

SEED = 20262
GOLD_SEED = 20263  # nobody reads these rows: mistakes are studied on rows of another seed (7)
SEED_ROWS, LIKE_ROWS, UNSEEN_ROWS = 5600, 400, 100
HELD_SHARE = 0.35  # of the like_seeds rows that name a product whose intent has held-out products
REFUSED = ("隐私", "医疗", "私下交易", "承诺", "无关")
NEAR = 0.8  # as near_duplicate in params.yaml
DATA = Path(__file__).resolve().parent


class Made(NamedTuple):
    """A question, the place of its rule in shop.yaml, its product if it names one, and its sentence
    without its names and numbers."""

    question: str
    rule: int
    product: str
    sentence: str


@lru_cache
def shop() -> dict[str, Any]:
    """shop.yaml."""
    return dict(parse(read_text(DATA / "shop.yaml"), DATA / "shop.yaml"))


@lru_cache
def group_of(product: str) -> str:
    """The group of a product."""
    return next(group for group, products in shop()["groups"].items() if product in products)


def knowledge() -> list[dict[str, Any]]:
    """The rules as data/knowledge.jsonl has them."""
    lists = {group: "|".join(products) for group, products in shop()["groups"].items()} | {
        "定制": "刻字|定制"
    }
    lists |= shop()["words"]
    found = []
    for rule in shop()["rules"]:
        when = re.sub("<(.+?)>", lambda match: lists[match[1]], rule.get("when", ""))
        found.append(
            {"label": rule["label"]}
            | ({"when": when} if when else {})
            | {
                "text": rule["text"],
                "states": list(rule["states"]),
                "never": list(rule.get("never", [])),
            }
        )
    return found


@lru_cache
def patterns() -> list[tuple[str, re.Pattern[str]]]:
    """Label and `when` of each rule."""
    return [(rule["label"], re.compile(rule.get("when", ""))) for rule in knowledge()]


def applying(label: str, question: str) -> list[int]:
    """The rules of an intent that apply to a question."""
    return [
        at for at, (name, when) in enumerate(patterns()) if name == label and when.search(question)
    ]


class Writer:
    """Writes questions, as the seeds' customers (`gold` false) or as those of the gold rows."""

    def __init__(self, seed: str, gold: bool, unseen: bool = False) -> None:
        self.rng, self.gold, self.unseen = random.Random(seed), gold, unseen

    def pick(self, key: str, part: int) -> str:
        """One word of a list of shop.yaml that has a part for the seeds and one for the gold
        rows."""
        words = shop()[key][part]
        return self.rng.choice(words.split("|") if "|" in words else words.split())

    def name(self) -> str:
        """A person's name."""
        surnames = shop()["surnames"][self.gold]
        return self.rng.choice(surnames) + self.pick("given", self.gold)

    def products(self, rule: dict[str, Any]) -> list[str]:
        """The products that may be named: never one that is held out of the seeds, and a share of
        those in gold rows."""
        groups = shop()["groups"]
        all_of = [p for name in rule.get("products", []) for p in groups.get(name, [name])]
        held = [p for p in all_of if p in shop()["held"].get(rule["label"], [])]
        if self.gold and held and self.rng.random() < HELD_SHARE:
            return held
        return [p for p in all_of if p not in held]

    def fill(self, text: str, rule: dict[str, Any], product: str, look: str) -> str:
        """A wording with its slots filled in."""
        rng = self.rng
        group = group_of(product) if product else ""
        own, more = rule.get("x", []), rule.get("gold_x", [])
        if isinstance(own, dict):
            own, more = (words.get(product, words.get(group, [])) for words in (own, more))
        words = (
            list(more)
            if self.gold and more and rng.random() < (1 if rule["label"] in REFUSED else 0.3)
            else list(own)
        )
        measure = shop()["groups"][group][product] if product else ""
        slots = {
            "p": look + product,
            "m": measure,
            "x": str(rng.choice(words)) if words else "",
            "name": self.name(),
        }
        slots["d"] = str(rng.choice(rule.get("days", [3])))
        slots["t"] = self.pick("times", self.gold)
        return text.format(**slots)

    def look(self, product: str) -> str:
        """How a product looks, or nothing."""
        first, second = (
            words.split()
            for words in shop()["looks"]["pack" if group_of(product) == "食品" else "colour"]
        )
        pairs = [
            a + b
            for i, a in enumerate(first)
            for j, b in enumerate(second)
            if ((i + j) % 4 == 0) is self.gold
        ]
        return self.rng.choice(pairs) if self.rng.random() < 0.8 else ""

    def around(self, rule: dict[str, Any], clear: bool) -> tuple[str, str]:
        """What stands before a sentence: a greeting, and an order number or the customer's name.
        Where the sentence itself is not `clear` about who asks for what they come more often, in a
        gold row always, so that no seed has the same answer."""
        share = 1.0 if clear else 0.44 if self.gold else 0.5
        part, kind = "unseen_" if self.unseen else "", self.rng.random() * share
        opener, context = self.pick("openers", self.unseen), ""
        if rule.get("order") and (kind < 0.2 if clear else kind < 0.25):
            context = self.rng.choice(shop()[part + "orders"])
        elif rule["label"] not in ("隐私", "无关") and (kind > 0.88 if clear else kind < 0.44):
            context = self.rng.choice(shop()[part + "persons"])
        number = "".join(self.rng.choices("0123456789", k=4))
        context = context.replace("{4}", number).replace("{name}", self.name())
        return (context, opener) if opener == "请问" else (opener, context)

    def question(self, at: int, text: str) -> Made:
        """A question that asks for rule `at` in the wording `text`."""
        rule, rng = shop()["rules"][at], self.rng
        sentence = re.sub(r"\[([^\]]*)\]", lambda match: rng.choice(match[1].split("|")), text)
        product = rng.choice(self.products(rule)) if re.search("{[pm]}", sentence) else ""
        look = self.look(product) if product else ""
        core = self.fill(sentence, rule, product, look)
        tail = self.pick("tails", self.unseen)
        if tail[:1] == "？" and not re.search(
            "[吗么嘛不没几啥哪谁]|怎|多|什|能|行|可以", core.rpartition("，")[2]
        ):
            tail = tail[1:] and "，" + tail[1:]
        first, second = self.around(rule, bool(look) or rule["label"] in ("隐私", "无关"))
        typed = first + second + core + tail
        if rng.random() < 0.05:
            typo = [pair.split("=") for pair in shop()["typos"][self.gold].split()]
            typed = next(
                (typed.replace(a, b, 1) for a, b in rng.sample(typo, len(typo)) if a in typed),
                typed,
            )
        blank = re.sub(r"\d+", "0", first + second)
        return Made(
            typed,
            at,
            product,
            re.sub("是.{2,3}，|叫.{2,3}，|会员.{2,3}，", "是，", blank) + sentence + tail,
        )


def draw(rows: int, seed: str, key: str, taken: list[Made], gold: bool) -> list[Made]:
    """`rows` questions, spread over the rules by their `rows`, no near-duplicates of each other or
    of those taken."""
    writer = Writer(seed, gold, key == "unseen")
    rules = shop()["rules"]
    total = sum(rule["rows"] for rule in rules)
    quota = [rule["rows"] * rows / total for rule in rules]
    wanted = [int(share) for share in quota]
    for at in sorted(range(len(rules)), key=lambda at: wanted[at] - quota[at])[
        : rows - sum(wanted)
    ]:
        wanted[at] += 1
    numbers = {number for made in taken for number in re.findall(r"\d{4}(?!积分)", made.question)}
    sentences = {made.sentence for made in taken}
    found: list[Made] = []
    for _ in range(40):
        more = []
        for at, rule in enumerate(rules):
            missing = wanted[at] - sum(made.rule == at for made in found)
            for turn in range(2 * missing):
                made = writer.question(
                    at, rule[key][(turn + writer.rng.randrange(2)) % len(rule[key])]
                )
                fits = 10 <= len(made.question) <= 70 and applying(
                    rule["label"], made.question
                ) == [at]
                used = made.sentence in sentences or numbers.intersection(
                    re.findall(r"\d{4}(?!积分)", made.question)
                )
                if fits and not used:
                    more.append(made)
        texts = [made.question for made in [*taken, *found, *more]]
        near = near_duplicates.firsts(texts, [str(at) for at in range(len(texts))], NEAR)[
            len(taken) + len(found) :
        ]
        for made, twin in zip(more, near, strict=True):
            if twin is None and sum(one.rule == made.rule for one in found) < wanted[made.rule]:
                found.append(made)
        if len(found) == rows:
            return writer.rng.sample(found, rows)
    raise AssertionError(f"{key}: {len(found)} of {rows} rows, too few wordings")


@lru_cache
def make(gold_seed: int = GOLD_SEED) -> tuple[list[Made], list[Made], list[Made]]:
    """Seeds, and the two gold slices `like_seeds` and `unseen_wording`."""
    seeds = draw(SEED_ROWS, f"{SEED} seeds", "seeds", [], False)
    like = draw(LIKE_ROWS, f"{gold_seed} like", "seeds", seeds, True)
    return seeds, like, draw(UNSEEN_ROWS, f"{gold_seed} unseen", "unseen", seeds + like, True)


def files(gold_seed: int = GOLD_SEED) -> dict[str, list[dict[str, Any]]]:
    """File name → its rows."""
    seeds, like, unseen = make(gold_seed)
    gold = [(made, "like_seeds") for made in like] + [(made, "unseen_wording") for made in unseen]

    def row(made: Made) -> dict[str, Any]:
        return {"id": row_id({"question": made.question}), "question": made.question}

    labels = [rule["label"] for rule in shop()["rules"]]
    return {
        "../prompts/knowledge.jsonl": knowledge(),
        "seeds.jsonl": [row(made) for made in seeds],
        "gold.jsonl": [
            row(made) | {"slice": part, "gold": {"intent": labels[made.rule]}}
            for made, part in gold
        ],
    }


if __name__ == "__main__":
    for name, written in files().items():
        write_jsonl(DATA / name, written)
        print(f"{(DATA / name).resolve().relative_to(DATA.parent)}: {len(written):,} rows")
