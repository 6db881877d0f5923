"""Chinese clauses, sentences and texts on a topic, put together from the word pools of prose.json.

A clause is a pattern whose `{slot}` is filled from a pool. Length always means the count of
non-white-space characters, punctuation included.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

# prose.json: topics, a line each ("@names|"; t = time phrases, who = subjects, V = verb phrases of
# a person, T = whole clauses, R = closing remarks, any other key = a word pool of that topic; items
# parted by white space); pools for all topics; words as word|category|definition|wry remark;
# antonyms.
WHO = "我 我们 {name} {rel} 大家 {name} 小{surname1} 老{surname1} {name}和{rel} {name}"
NUMBERS: dict[str, Callable[[random.Random], object]] = {
    "n": lambda r: r.choice((r.randint(10, 99), r.randint(2, 60) * 5)),
    "g": lambda r: r.randint(1, 9),
    "q": lambda r: r.choice(
        ("1比0", "2比1", "3比0", "3比2", "4比1", "5比3", "21比18", "78比75", "96比88")
    ),
    "d": lambda r: r.choice((r.randint(2, 9), "两三五六七八"[r.randrange(6)])),
    "k": lambda r: r.randint(30, 40),
    "h": lambda r: r.choice("八九十"),
    "w": lambda r: r.choice("一二三四五"),
}
Pattern = list[tuple[str, str]]  # [(literal, slot), ...], the last slot may be ''
Bank = dict[str, list[Any]]
Example = tuple[str, str, str]  # system, user, answer; either of the first two may be empty


def _blocks(text: str) -> Bank:
    """Parse "key: item item key: item" text."""
    out: Bank = {}
    key = ""
    for token in text.split():
        if token.endswith(":"):
            key = token[:-1]
        else:
            out.setdefault(key, []).append(token)
    return out


def _compile(items: list[str]) -> list[Pattern]:
    parts = [re.split(r"\{(\w+)\}", item) + [""] for item in items]
    return [list(zip(p[::2], p[1::2], strict=True)) for p in parts]


@cache
def tables() -> tuple[Bank, list[Bank], list[list[str]], list[tuple[str, str]]]:
    """Pools, topics, word entries and antonym pairs, parsed once."""
    source = json.loads(Path(__file__).with_name("prose.json").read_text("utf8"))
    words = {name: "\n".join(lines) for name, lines in source.items()}
    pools = _blocks(words["pools"])
    pools["place"] = [a + b for a in pools["p1"] for b in pools["p2"] if a != b]
    pools["name"] = [s + g for s in pools["surname"] for g in pools["given"]]
    pools["surname1"] = [s for s in pools["surname"] if len(s) == 1]
    topics = []
    for block in words["topics"].strip().split("@")[1:]:
        head, _, body = block.partition("|")
        topic = {**pools, "who": WHO.split(), **_blocks(body)}
        for role in ("who", "V", "T", "R"):
            topic[role] = _compile(topic[role])
        topic["R"] = topic["R"] * 3 + _compile(
            pools["R0"] if head.split()[0] in pools["sober"] else pools["R0"] + pools["R1"]
        )
        topics.append(topic | {"names": head.split()})
    pairs = [
        (p[0], p[-1]) if len(p) == 2 else tuple(p.split("-")) for p in words["antonyms"].split()
    ]
    return pools, topics, [line.split("|") for line in words["words"].split()], pairs  # type: ignore[return-value]


class Writer:
    """Writes clauses and sentences on one topic; remembers subject, place and words so that a text
    stays coherent."""

    def __init__(self, rng: random.Random, topic: Bank) -> None:
        self.rng, self.topic = rng, topic
        self.bound: dict[str, str] = {}
        self.words: list[str] = []
        self.used: set[int] = set()
        self.sex = rng.choice("他她")

    def word(self, slot: str) -> str:
        """A filler for one slot: numbers are drawn, a place is kept for the text, other words are
        not repeated."""
        if slot in NUMBERS and slot not in self.topic:
            return str(NUMBERS[slot](self.rng))
        if slot in self.bound:
            return self.bound[slot]
        pool = self.topic[slot]
        word = self.rng.choice(pool)
        if word in self.words:
            word = self.rng.choice(pool)
        if slot == "place":
            self.bound[slot] = word
        self.words.append(word)
        return word

    def fill(self, pattern: Pattern) -> str:
        """The pattern with every slot filled."""
        return "".join([lit + (self.word(slot) if slot else "") for lit, slot in pattern])

    def clause(self, role: str) -> str:
        """A clause of a role (V, T or R), of a pattern not used yet where there is one."""
        pats = self.topic[role]
        for _ in range(8):
            pattern = self.rng.choice(pats)
            if id(pattern) not in self.used:
                break
        self.used.add(id(pattern))
        return self.fill(pattern)

    def subject(self) -> str:
        """The person of the text: named first, a pronoun or left out later."""
        who = self.bound.get("who")
        if who is None:
            who = self.bound["who"] = self.fill(self.rng.choice(self.topic["who"]))
            return who
        if who in ("我", "我们", "大家") or who.endswith(tuple(self.topic["orgs"])):
            return who
        if who.endswith("们") or "和" in who or who.startswith(("一群", "几只")):
            return "他们" if self.topic["names"][0] != "自然" else "它们"
        if self.topic["names"][0] in ("宠物", "自然") and not who.endswith("员"):
            return "它"
        return (
            "她" if who in self.topic["female"] else "他" if who in self.topic["male"] else self.sex
        )

    def sentence(self, close: bool = True) -> list[str]:
        """Clauses of one sentence."""
        rng = self.rng
        form = rng.random()
        time = (
            rng.choice(self.topic["t"]) if rng.random() < 0.35 and "time" not in self.bound else ""
        )
        if time:
            self.bound["time"] = time
        comma = "，" if time and rng.random() < 0.6 else ""
        if form < 0.5:
            parts = [time + comma + self.subject() + self.clause("V")]
            if rng.random() < 0.6:
                parts.append(rng.choice(("", "", "又", "还", "然后")) + self.clause("V"))
        else:
            parts = [time + comma + self.clause("T")]
            if rng.random() < 0.6:
                parts.append(self.clause("T"))
        if close and rng.random() < 0.4:
            parts.append(self.clause("R"))
        return parts

    def exact(self, size: int) -> str:
        """One sentence of exactly `size` characters with its full stop, or '' when none was met in
        a few draws."""
        for _ in range(10):
            state = self.state()
            parts = (
                self.sentence()
                if size > 10 and self.rng.random() < 0.8
                else [self.clause(self.rng.choice("TR"))]
            )
            gap = size - 1 - sum(map(len, parts)) - len(parts)
            if gap == -1:
                return "，".join(parts) + "。"
            if 3 <= gap <= 14:
                for _ in range(8):
                    tail = self.clause(self.rng.choice("RRT"))
                    if len(tail) == gap and tail not in parts:
                        return "，".join([*parts, tail]) + "。"
            self.bound, self.used, self.words = state
        return ""

    def state(self) -> tuple[dict[str, str], set[int], list[str]]:
        """A copy of what is remembered, to go back to when a sentence is thrown away."""
        return self.bound.copy(), self.used.copy(), self.words.copy()

    def text(self, low: int, high: int) -> str:
        """Sentences of between low and high characters in all (exactly low when they are equal)."""
        return self.extend([], low, high)

    def extend(self, start: list[str], low: int, high: int) -> str:
        """Go on after the sentences `start` up to a total length between low and high."""
        rng, first = self.rng, sum(map(len, start))
        before = self.state()
        for _ in range(200):
            out, total, goal = list(start), first, rng.randint(low, high)
            while goal - total > 34 or (goal - total > 22 and rng.random() < 0.5):
                state = self.state()
                s = "，".join(self.sentence(close=total > 0)) + "。"
                if total + len(s) <= goal - 7:
                    out.append(s)
                    total += len(s)
                else:
                    self.bound, self.used, self.words = state
            s = self.exact(goal - total) if goal > total else ""
            if s or goal == total:
                return "".join([*out, s])
            # all patterns are free again
            self.bound, self.used, self.words = before[0].copy(), set(), []
        raise ValueError(
            f"no text of {low} to {high} characters from {first} on the topic "
            f"{self.topic['names'][0]}"
        )


HELP = (
    "|||你是一个写作助手。|你是一个有用的助手。|请用中文回答。|按要求完成任务，不要解释。|"
    "你擅长写简短通顺的中文。|回答要简洁、准确。|请认真阅读要求后回答。|你是一位语文老师。|"
    "你是编辑，语言朴实流畅。|只输出结果。"
)


def jsons(value: object) -> str:
    """JSON without spaces."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def pick(rng: random.Random, options: str, **values: object) -> str:
    """One of the options that `|` parts, filled in."""
    return rng.choice(options.split("|")).format(**values)


def new_writer(rng: random.Random) -> tuple[Writer, str]:
    """A writer on a random topic, and one of the topic's names."""
    topic = rng.choice(tables()[1])
    return Writer(rng, topic), rng.choice(topic["names"])
