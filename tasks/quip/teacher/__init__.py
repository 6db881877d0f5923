"""The scripted teacher of the quip task: answers chats offline, in place of a large model.

It reads the word of the last turn and composes one sentence about it: a promise, a turn against it,
sometimes a sting (grammar.py). What the word is it knows from a lexicon (words.py), of an unknown
word from its end; what stands before the head (办公室 in 办公室的绿萝) or a character of the word
goes into the sentence. Which of the clauses that fit are taken follows half the time from the
word's characters and its length, else from chance: so a student can learn it, and answers still
vary. A seeded share is spoilt the way real answers are, so that the filter has work to do.

    answer([{"role": "user", "content": "周一的早高峰"}], "any string")
    -> '{"prompt": "周一的早高峰",
         "output": "本想靠它撑过周一，结果早到的人要等晚到的人，喇叭倒是跑得最快。"}'
"""

import json
import random
from typing import NamedTuple

from .clauses import CLAUSES
from .grammar import ABOUT, NAMED, TELLING, TURNS
from .words import BEFORE, WORDS

# Share of the answers that carry each flaw (6 % in all); the checks find each of them.
FLAWS = {
    "fenced": 0.010,
    "foreign": 0.010,
    "doubled_stop": 0.010,
    "word_repeated": 0.010,
    "quoted": 0.006,
    "two_sentences": 0.006,
    "other_prompt": 0.004,
    "missing_key": 0.004,
}
FENCE = "好的，这是我为您写的：\n```json\n{}\n```"
FOREIGN = ("actually", "basically", "всегда", "とても")
BY_CUE = 0.5  # share of the clauses that a character of the word, or of the clause before, picks
BY_NAME, MORE, SHORT = (
    0.4,
    0.25,
    0.08,
)  # shares: a telling character in the sentence, a second promise, no third clause
LONG = 13  # characters; a turn of so many is the end, so that no sentence has more than 40

CATEGORY = {word: category for category, words in WORDS.items() for word in words.split()}
KINDS = {before: kind for kind, befores, _ in BEFORE for before in befores.split()}


class Reading(NamedTuple):
    """What a word says: what stands before its head ("" for none) and of what kind that is, its
    head and the head's category."""

    before: str
    kind: str
    head: str
    category: str


def answer(messages: list[dict[str, str]], seed: str) -> str:
    """Raw assistant content for one request; `seed` decides whatever is left to chance, and the
    flaw, if any."""
    word = next((m["content"].strip() for m in reversed(messages) if m["role"] == "user"), "")
    chance = random.Random(seed)
    return spoil({"prompt": word, "output": compose(word, chance)}, chance)


def read(word: str) -> Reading:
    """The word taken apart: 办公室的绿萝 and 公司打印机 have a head with a word before it, 打印机
    is one."""
    before, _, head = word.rpartition("的")
    if before in KINDS and head:
        return Reading(before, KINDS[before], head, category(head))
    for cut in range(len(word) - 1, 0, -1):
        if word not in CATEGORY and word[:cut] in KINDS and word[cut:] in CATEGORY:
            return Reading(word[:cut], KINDS[word[:cut]], word[cut:], CATEGORY[word[cut:]])
    return Reading("", "", word, category(word))


def category(word: str) -> str:
    """The category of a known word, or that of most known words with its end: 搪瓷茶壶 is a thing
    like 茶壶."""
    if word in CATEGORY:
        return CATEGORY[word]
    for size in range(len(word) - 1, 0, -1):
        found = [CATEGORY[known] for known in CATEGORY if known.endswith(word[-size:])]
        likely = max(sorted(set(found)), key=found.count, default="any")
        if found and (size > 1 or found.count(likely) > max(1, len(found) / 2)):
            return likely
    return "any"


def compose(word: str, chance: random.Random) -> str:
    """One sentence about the word that does not say it."""
    found = read(word)
    names, promises, turns, stings = (
        _without(found.head, clauses) for clauses in CLAUSES[found.category]
    )
    # the characters that pick: the first, the one after it, the last; of the head where something
    # stands before it
    first, second, last = found.head[:1], found.head[1:2] or found.head[:1], found.head[-1:]
    telling = [char for char in word if char in TELLING and char != word and f"{char}字" != word]
    if found.before:
        promise = _pick(ABOUT[found.kind].split(), found.before[-1:], chance).format(found.before)
    elif telling and chance.random() < BY_NAME:
        name = _pick(names, str(len(word)), chance)
        promise = name + _pick(NAMED.split(), last, chance).format(telling[0])
    else:
        promise = _pick(promises, first, chance)
        promise = (
            promise[1:] if promise[0] == "-" else _pick(names, str(len(word)), chance) + promise
        )
    turn, more = _pick(turns, second, chance), chance.choice(promises).removeprefix("-")
    clauses = [promise, _pick(TURNS.split(), first, chance) + turn]
    if len(turn) < LONG and chance.random() >= SHORT:
        if more[:2] not in promise and chance.random() < MORE:
            clauses.insert(1, more)
        else:  # the turn picks, too: of a thousand stings a student could not tell which
            clauses.append(_pick(stings, turn[-1], chance))
    return "，".join(clauses) + "。"


def _without(head: str, clauses: str) -> list[str]:
    """The clauses that do not say the word."""
    return [clause for clause in clauses.split() if head not in clause] or ["它"]


def _pick(options: list[str], cue: str, chance: random.Random) -> str:
    at = ord(cue) if cue and chance.random() < BY_CUE else chance.randrange(len(options))
    return options[at % len(options)]


def spoil(row: dict[str, str], chance: random.Random) -> str:
    """The row as JSON, spoilt in one of the ways of FLAWS when chance falls into its share."""
    pick, flaw = chance.random(), ""
    for kind, share in FLAWS.items():
        if 0 <= pick < share:
            flaw = kind
        pick -= share
    word, output = row["prompt"], row["output"]
    first, rest = output.split("，", 1)
    spoilt = {
        "foreign": {"output": f"{first}，{chance.choice(FOREIGN)} {rest}"},
        "doubled_stop": {"output": output + "。"},
        "word_repeated": {"output": f"{word}{first.removeprefix('它')}，{rest}"},
        "quoted": {"output": f"{first}，“{rest[:-1]}”。"},
        "two_sentences": {"output": f"{first}。{rest}"},
        "other_prompt": {"prompt": f"《{word}》"},
    }
    row = row | spoilt.get(flaw, {})
    if flaw == "missing_key":
        del row["prompt"]
    raw = json.dumps(row, ensure_ascii=False)
    return FENCE.format(raw) if flaw == "fenced" else raw
