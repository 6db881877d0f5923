"""Make the rows of the news task: `python -m tasks.news.data.rows` writes data/seeds.jsonl and
gold.jsonl.

A brief is an event with its facts as a newsroom notes them down: time, place, subject, event, data,
what somebody said and background, in several orders, with labels or without. Some briefs hold what
must not be published: loaded words of the source, a rumour, somebody's personal details. All of it
is put together from beats.txt and pools.json by one seed; towns, firms and persons are invented,
phones begin with 2 and identity numbers with 000000, which nobody has.

A seed:     {"id": "…", "brief": "时间：6月18日上午\\n主体：临溪县交通运输局\\n…"}
A gold row: {"id": "…", "brief": "…", "slice": "like_seeds", "gold": null}

In beats.txt `## seeds 交通` opens a beat of a part. An event has four lines: + how often it is
drawn (once where that is left out) and what happens, @ who does it, @ where; = data; " role and
quote; * background. {a/b} is a choice, {3-18} a number, ~ a local name; a subject gets its town in
front, one that begins with ^ an invented firm's name. No event, town, local name, firm or person of
a gold row occurs in a seed; the slice `unseen_beat` has beats that no seed has.
"""

import json
import random
import re
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from potstill.core.jsonl import row_id, write_jsonl

SEED = 20270
GOLD_SEED = 20271  # nobody reads these rows: mistakes are studied on rows of another seed
SEED_ROWS, LIKE_ROWS, UNSEEN_ROWS = 3800, 400, 100
DATA = Path(__file__).resolve().parent
LABELS = {
    "time": ("时间", "日期", "何时"),
    "place": ("地点", "何地", "位置"),
    "subject": ("主体", "单位", "主办"),
    "event": ("事件", "何事", "内容"),
    "data": ("数据", "数字"),
    "direct": ("原话", "引语", "采访"),
    "indirect": ("说法", "表态"),
    "background": ("背景", "补充"),
}
# how the parts of a brief are set down, with the weight of each: (before a label, behind it,
# between the parts)
LABELLED = (
    (("", "：", "\n"), 40),
    (("", "：", "；"), 20),
    (("【", "】", "\n"), 10),
    (("", ":", " | "), 10),
)
BARE = (("1. ", "\n"), ("", "；"))  # without labels: before a part, between the parts
ORDERS = {
    "time place subject event data said background": 30,
    "subject event time place data said background": 15,
    "time subject event place background data said": 13,
    "event time place subject data said background": 12,
    "place time subject event said data background": 8,
    "data event subject time place said background": 8,
    "said subject time place event data background": 7,
    "background time subject place event data said": 7,
}
LEADS = ("time place subject event", "time subject event place", "subject event time place")


class Event(NamedTuple):
    """What happens, by whom, where, and what is known of it; templates."""

    weight: int  # how often it is drawn; more than once where it has many choices
    what: str
    who: list[str]
    where: list[str]
    data: list[str]
    said: list[tuple[str, str]]
    background: str


@lru_cache
def events() -> dict[str, list[Event]]:
    """The events of each part of beats.txt: seeds, gold, unseen."""
    found: dict[str, list[Event]] = {}
    lines = [
        line
        for line in (DATA / "beats.txt").read_text("utf8").splitlines()
        if line and not line.startswith("# ")
    ]
    part: list[Event] = []
    while lines:
        line = lines.pop(0)
        if line.startswith("##"):
            part = found.setdefault(line.split()[1], [])
            continue
        what, who, where = line[1:].split(" @")
        weight, what = what.split(" ", 1) if what[0].isdigit() else ("1", what)
        data, said, background = (lines.pop(0)[1:] for _ in range(3))
        quotes = [(role, text) for role, text in (x.split(" ", 1) for x in said.split("|"))]
        part.append(
            Event(
                int(weight), what, who.split(), where.split(), data.split("|"), quotes, background
            )
        )
    return found


@lru_cache
def pools() -> dict[str, Any]:
    """The words of pools.json."""
    return dict(json.loads((DATA / "pools.json").read_text("utf8")))


@lru_cache
def real() -> frozenset[str]:
    """The first two characters of every real province, city and county: no invented town begins
    so."""
    import csv
    from importlib.metadata import distribution

    table = Path(str(distribution("cpca").locate_file("cpca/resources/adcodes.csv")))
    with table.open(encoding="utf-8", newline="") as file:
        return frozenset(row["name"][:2] for row in csv.DictReader(file))


@lru_cache
def names(kind: str, held: bool) -> list[str]:
    """Invented names of a kind, those of the seeds or those held out for gold rows: every
    fourth."""
    pool = pools()
    made = [
        a + b for a in pool[f"{kind}1"] for b in pool[f"{kind}2"] if a != b and a + b not in real()
    ]
    return [name for i, name in enumerate(sorted(made)) if (i * 7919 % 4 == 0) == held]


def fill(template: str, rng: random.Random) -> str:
    """The template with a choice made for each {a/b} and a number drawn for each {3-18}."""

    def one(found: re.Match[str]) -> str:
        if bounds := re.fullmatch(r"(\d+)-(\d+)", found[1]):
            return str(rng.randint(int(bounds[1]), int(bounds[2])))
        return rng.choice(found[1].split("/"))

    return re.sub(r"\{([^}]*)\}", one, template)


def facts(event: Event, held: bool, rng: random.Random) -> dict[str, str]:
    """One happening: kind of fact → text; `speaker` is role and name, parted by a space."""
    months = re.match(r"\[(\d+)-(\d+)\]", event.what)
    low, high = (int(months[1]), int(months[2])) if months else (1, 12)
    day = f"{rng.randint(low, high)}月{rng.randint(1, 28)}日"
    half = rng.choice(["", "上午", "下午"])
    hour = {"": 0, "上午": rng.randint(8, 11), "下午": rng.randint(2, 5)}[half]
    clock = f"{hour}时" + rng.choice(["", "", "30分"]) if hour and rng.random() < 0.4 else ""
    town = rng.choice(names("region", held)) + rng.choice(pools()["region3"])
    local = rng.choice(names("local", held))
    who, where = rng.choice(event.who), rng.choice(event.where)
    if who[0] == "^":
        subject = rng.choice(names("brand", held)) + who[1:]
        where = town + where if where[0] == "~" else where
    else:
        subject = town + who.replace("~", rng.choice(names("local", held)))
    found = {
        "time": day + half + clock,
        "place": where.replace("~", local),
        "subject": subject,
        "event": fill(re.sub(r"^\[.*?\]", "", event.what), rng),
        "data": "，".join(fill(x, rng) for x in rng.sample(event.data, rng.choice([1, 1, 2]))),
    }
    if rng.random() < (0.1 if held else 0.25):  # where it is rare, a student makes one up
        del found["place"]
    background = rng.random() < 0.35
    if rng.random() < (0.5 if background else 0.85):
        role, found["direct" if rng.random() < 0.7 else "indirect"] = rng.choice(event.said)
        found["speaker"] = f"{role} {person(held, rng)}"
    if background:
        found["background"] = fill(event.background, rng)
    return found


def person(held: bool, rng: random.Random) -> str:
    """A name; no given name of a gold row is one of a seed."""
    return rng.choice(pools()["surname"]) + rng.choice(names("given", held))


def size(found: dict[str, str]) -> int:
    """The characters that an item of these facts cannot do without; background only where nobody is
    quoted."""
    quoted = "speaker" in found
    return sum(len(text) for kind, text in found.items() if kind != "background" or not quoted)


def noise(held: bool, rng: random.Random) -> list[str]:
    """Parts that must not be published, of no kind, one or none."""
    pool, end = pools(), "_gold" if held else ""
    kind = rng.choices(["", "comment", "rumour", "personal", "wish"], (55, 14, 15, 13, 3))[0]
    if not kind:
        return []
    if kind == "personal":
        words = {
            "name": person(held, rng), "phone": "2" + "".join(rng.choices("0123456789", k=10)),
            "id": (
                f"000000{rng.randint(1950, 2004)}{rng.randint(1, 12):02d}"
                f"{rng.randint(1, 28):02d}{rng.randint(0, 9999):04d}"
            ),
            "local": rng.choice(names("local", held)), "n": rng.randint(1, 30),
            "room": f"{rng.randint(1, 18)}0{rng.randint(1, 4)}",
            "tail": rng.randint(1000000, 9999999),
        }  # fmt: skip
        return [rng.choice(pool["personal_form"]).format(**words)]
    if kind == "wish":
        return [rng.choice(pool["wish"])]
    return [rng.choice(pool[f"{kind}_form"]).format(rng.choice(pool[kind + end]))]


def speech(found: dict[str, str], rng: random.Random) -> str:
    """What somebody said, as it was noted down."""
    role, name = found["speaker"].split(" ")
    if "direct" not in found:
        return rng.choice([f"{role}{name}：", f"{name}（{role}）："]) + found["indirect"]
    text = f"“{found['direct']}”"
    phone = "2" + "".join(rng.choices("0123456789", k=10))
    forms = [
        f"{role}{name}：{text}",
        f"{name}（{role}）：{text}",
        f"{text}——{role}{name}",
        f"{text}（{role}{name}）",
    ]
    return rng.choices([*forms, f"{name}（{role}，手机{phone}）：{text}"], (46, 18, 18, 13, 5))[0]


def brief(found: dict[str, str], held: bool, rng: random.Random) -> str:
    """The facts, set down as a newsroom would."""
    pool, end = pools(), "_gold" if held else ""
    parts = {
        kind: text for kind, text in found.items() if kind not in ("speaker", "direct", "indirect")
    }
    loaded = rng.random()
    if loaded < 0.12:
        parts["event"] = rng.choice(pool["prefix" + end]) + parts["event"]
    elif loaded < 0.2:
        parts["data"] += f"（{rng.choice(pool['tail' + end])}）"
    if "speaker" in found:
        parts["said"] = speech(found, rng)
    rest = noise(held, rng)
    if rng.random() < 0.85:
        (before, behind, between), order = draw(dict(LABELLED), rng), draw(ORDERS, rng).split()
        label = LABELS | {"said": LABELS["direct" if "direct" in found else "indirect"]}
        texts = [
            before + rng.choice(label[kind]) + behind + parts[kind]
            for kind in order
            if kind in parts
        ]
    else:
        before, between = rng.choice(BARE)
        order = [*rng.choice(LEADS).split(), "data", "said"]
        texts = [parts[kind] for kind in order if kind in parts]
        texts += ["背景：" + parts["background"]] if "background" in parts else []
    for text in rest:
        texts.insert(rng.choice([0, rng.randint(0, len(texts)), len(texts), len(texts)]), text)
    return between.join(
        f"{i}. {text}" if before == "1. " else text for i, text in enumerate(texts, 1)
    )


def draw(weights: dict[Any, int], rng: random.Random) -> Any:
    """A key, by weight."""
    return rng.choices(list(weights), list(weights.values()))[0]


def lines(part: str, rows: int, seed: str) -> list[str]:
    """`rows` different briefs on the events of a part, each about equally often."""
    rng, held, made = random.Random(seed), part != "seeds", dict[str, None]()
    while len(made) < rows:
        deck = [event for event in events()[part] for _ in range(event.weight)]
        for event in rng.sample(deck, len(deck)):
            found = facts(event, held, rng)
            while not 38 <= size(found) <= 96:
                found = facts(event, held, rng)
            if len(made) < rows:
                made[brief(found, held, rng)] = None
    return rng.sample(list(made), rows)


@lru_cache
def files() -> dict[str, list[dict[str, Any]]]:
    """File name → its rows."""
    gold = [(text, "like_seeds") for text in lines("gold", LIKE_ROWS, f"{GOLD_SEED} like")]
    gold += [(text, "unseen_beat") for text in lines("unseen", UNSEEN_ROWS, f"{GOLD_SEED} unseen")]
    return {
        "seeds.jsonl": [
            {"id": row_id({"brief": x}), "brief": x}
            for x in lines("seeds", SEED_ROWS, f"{SEED} seeds")
        ],
        "gold.jsonl": [
            {"id": row_id({"brief": x}), "brief": x, "slice": part, "gold": None}
            for x, part in gold
        ],
    }


if __name__ == "__main__":
    for name, written in files().items():
        write_jsonl(DATA / name, written)
        print(f"data/{name}: {len(written):,} rows")
