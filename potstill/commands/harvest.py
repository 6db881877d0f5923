"""`make harvest`: what the server was asked and kept (serve.capture) → new lines of seeds.jsonl,
from which the next `make repro` learns.

--rows N      new seeds at most, 100 when left out; a fifth of them is the control sample
--since DATE  only what was kept since then, such as 2026-11-30
--dry 1       shows what would be taken, and changes nothing

Taken are, in this order and in turn over the checks: inputs to which the teacher said something
else than the student (`disagrees`), inputs whose answer fails a check (`failed`), and others at
random (`control`): what the checks do not see shows there alone. Left out is what the task has
already, exactly or nearly, what is like a test row, and what the student could not be trained on.
A seed's `harvested` says why it was taken and when it was asked.
"""

import argparse
import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from potstill.commands.import_rows import shown
from potstill.core import jsonl, params, stage
from potstill.core.errors import UserError
from potstill.core.jsonl import Row, squeeze
from potstill.dataset import expand, expand_rules, lengths, near_duplicates, split
from potstill.review import seeds
from potstill.serving import capture
from potstill.task import settings
from potstill.task.settings import Task

KINDS = ("disagrees", "failed", "control")
LEFT_OUT = ("unusable", "there already", "like a test row", "like another", "beyond N")
CONTROL = 5  # one new seed in so many is of the control sample
EXAMPLES = 3  # taken inputs that are shown


@dataclass
class Found:
    """An input that was asked: why it is of use, the checks that its answer fails, the latest row
    with it, and what becomes of it: "taken", or one of LEFT_OUT."""

    kind: str
    failed: list[str]
    row: Row
    end: str = "taken"
    category: str = ""
    order: bytes = b""

    def seed(self) -> Row:
        """Its line of seeds.jsonl."""
        why = f"{self.kind} ({', '.join(self.failed)})" if self.failed else self.kind
        seed = {"id": self.row["id"], **self.row["input"]}
        seed |= {"category": self.category} if self.category else {}
        return seed | {"harvested": f"{why}, {self.row['at'][:10]}"}


@dataclass
class Known:
    """What the task has: rows by what they are, as inputs."""

    seeds: list[Row]
    rows: list[Row]
    tests: list[Row]
    asked: set[str] = field(default_factory=set)  # first turns of a user's own rows


def known(t: Task) -> Known:
    """What the task has already."""
    inputs, tests, own = (t.data / name for name in ("1-inputs.jsonl", "4-test.jsonl", split.OWN))
    rows = t.inputs(inputs, empty=True) if inputs.is_file() else []
    held = t.inputs(tests, empty=True) if tests.is_file() else []
    chats = [row.get("messages") or [] for row in jsonl.read_some(own)]
    turns = [[one.get("content") for one in chat if one.get("role") == "user"] for chat in chats]
    asked = {squeeze(turn[0]) for turn in turns if turn and isinstance(turn[0], str)}
    return Known(t.seeds(), [*t.seeds(), *rows], [*t.gold(), *held], asked)


def sorted_out(t: Task, rows: list[Row]) -> list[Found]:
    """The different inputs of captured rows, the hardest first: by kind, then in turn over the
    checks that fail, then by hash."""
    found: dict[str, Found] = {}
    for row in rows:
        one = Found(_kind(row), row["failed"], row)
        former = found.get(same := t.fingerprint(row["input"]))
        if former is None or KINDS.index(one.kind) <= KINDS.index(former.kind):
            found[same] = one
    for one in found.values():
        one.order = capture.order("harvest", one.row["input"])
    places: Counter[tuple[str, str]] = Counter()
    turns: dict[str, int] = {}
    for one in sorted(found.values(), key=lambda one: one.order):
        group = one.kind, "".join(one.failed[:1])
        turns[one.row["id"]] = places[group]
        places[group] += 1

    def rank(one: Found) -> tuple[int, int, bytes]:
        control = one.kind == KINDS[-1]
        return KINDS.index(one.kind), 0 if control else turns[one.row["id"]], one.order

    return sorted(found.values(), key=rank)


def _kind(row: Row) -> str:
    if not row["failed"]:
        return "control"
    other = row["by"] == "teacher" and not _same(row["answer"], row["student"])
    return "disagrees" if other else "failed"


def _same(one: str, other: str) -> bool:
    """Whether two answers say the same: the same JSON, or the same text but for white space."""
    try:
        return bool(json.loads(one) == json.loads(other))
    except (ValueError, RecursionError):
        return squeeze(one) == squeeze(other)


def decide(t: Task, found: list[Found], has: Known, count: int) -> None:
    """Writes into each input what becomes of it; `count` are taken at most. Raises UserError as
    params.load does."""
    p = params.load("near_duplicate", "max_length")
    for one in found:
        if jsonl.unwritable("\n".join(one.row["input"].values())) or not _filled(one.row):
            one.end = "unusable"
    left = [one for one in found if one.end == "taken"]
    chats = [t.messages("student", one.row["input"]) for one in left]
    for one, chat in zip(left, chats, strict=True):
        if squeeze(chat[-1]["content"]) in has.asked:
            one.end = "there already"
    answered = [
        [*chat, {"role": "assistant", "content": one.row["answer"]}]
        for one, chat in zip(left, chats, strict=True)
    ]
    for place in _too_long(answered, p.max_length):
        left[place].end = "unusable"
    left = [one for one in left if one.end == "taken"]
    new = [{"id": one.row["id"], **one.row["input"]} for one in left]
    tests = {row["id"] for row in has.tests}
    _, dropped = expand.distinct(t, new, [*has.tests, *has.rows], p.near_duplicate)
    reasons = {row["id"]: row["reason"] for row in dropped}
    for one in left:
        if reason := reasons.get(one.row["id"]):
            of = re.search(r"of (\S+)", reason)
            one.end = "like another"
            if reason.startswith("gold:") and of:
                one.end = "like a test row" if of[1] in tests else "there already"
    room = {True: count // CONTROL, False: count - count // CONTROL}
    for one in left:
        control = one.kind == "control"
        if one.end != "taken":
            continue
        if not room[control]:
            one.end = "beyond N"
        elif not _categorised(t, one, has):
            one.end = "unusable"
        else:
            room[control] -= 1


def _filled(row: Row) -> bool:
    return all(isinstance(text, str) and text.strip() for text in row["input"].values())


def _too_long(chats: list[lengths.Chat], limit: int) -> Iterator[int]:
    """The places of chats that `split` would refuse; none where the student's tokenizer is on a hub
    that cannot be reached."""
    if all(lengths.at_most(chat) <= limit for chat in chats):
        return
    try:
        yield from (at for at, _ in lengths.Counter(*params.student()).longer(chats, limit))
    except lengths.Unreachable:
        return


def _categorised(t: Task, one: Found, has: Known) -> bool:
    """Gives the input the category of the seed that is most like it, among those whose `match` it
    has; False where there is none."""
    if not seeds.has_categories(t):
        return True
    rules, _ = expand_rules.categories(t, has.seeds)
    text = "\n".join(one.row["input"].values())
    fit = {rule.name for rule in rules if not rule.match or rule.match.search(text)}
    near = [row for row in has.seeds if row.get("category") in fit]
    own = t.fingerprint(one.row["input"])
    near.sort(key=lambda row: -near_duplicates.jaccard(own, t.fingerprint(row)))
    one.category = near[0]["category"] if near else ""
    return bool(near)


def table(found: list[Found]) -> Iterator[str]:
    """What became of the inputs, a line a kind; each input is in one column."""
    ends = Counter((one.kind, one.end) for one in found)
    columns = ["inputs", *LEFT_OUT, "taken"]
    yield f"  {'':10}" + "".join(f"{name:>{len(name) + 2}}" for name in columns)
    for kind in KINDS:
        counts = {name: ends[kind, name] for name in columns}
        counts["inputs"] = sum(counts.values())
        cells = "".join(f"{counts[name]:>{len(name) + 2},}" for name in columns)
        yield f"  {kind:10}{cells}"
    failed = Counter(name for one in found for name in one.failed)
    if failed:
        yield "  failed: " + ", ".join(f"{name} {count:,}" for name, count in failed.most_common())
    for one in [one for one in found if one.end == "taken"][:EXAMPLES]:
        text = shown(" ".join("\n".join(one.row["input"].values()).split()))
        yield f"  {one.seed()['harvested']}: {text}"


def main() -> None:
    parser = argparse.ArgumentParser(prog="potstill harvest")
    parser.add_argument("--rows", type=int, default=100)
    parser.add_argument("--since", default="")
    parser.add_argument("--dry", default="")
    given = parser.parse_args()
    if given.rows < 1:
        raise UserError(f"N is {given.rows}, expected the number of new seeds, such as N=100")
    t = settings.load()
    seeds.mine(t)
    rows, has = capture.read(t, given.since), known(t)
    found = sorted_out(t, rows)
    decide(t, found, has, given.rows)
    span = " to ".join(dict.fromkeys(row["at"][:10] for row in (rows[0], rows[-1])))
    print(f"harvest: {len(rows):,} rows kept, {span}, with {len(found):,} different inputs")
    print(*table(found), sep="\n")
    taken = [one.seed() for one in found if one.end == "taken"]
    path = t.data / "seeds.jsonl"
    if given.dry not in ("", "0") or not taken:
        why = "nothing is new" if not taken else "DRY=1"
        print(f"harvest: {len(taken):,} new seeds for {path}; {why}: nothing was changed")
        return

    def new(there: list[Row]) -> list[Row]:  # somebody may have added one of them meanwhile
        ids = {row["id"] for row in there}
        return [row for row in taken if row["id"] not in ids]

    line, added = seeds.append(t, new)
    print(f"harvest: {len(added):,} new seeds in {path}, from line {line:,} on. Next:")
    print("  make quote     what asking the teacher for them costs")
    print("  make repro     asks it, and trains on what passes the checks")
    print("  make review    shows the answers to them first")


if __name__ == "__main__":
    stage.run(main)
