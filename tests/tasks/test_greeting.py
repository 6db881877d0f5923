"""The task greeting: texts have the length asked for, say what was asked for, and flaws are caught
by the task's checks."""

import json
import random
import re
from collections import Counter

import pytest

from potstill.checks import registry, requested_length
from potstill.core.jsonl import read_jsonl, row_id
from potstill.task import settings
from tasks.greeting import teacher
from tasks.greeting.data import rows
from tasks.greeting.teacher import blessing, prose, rewriting, words
from tests.conftest import ROOT


@pytest.fixture(autouse=True)
def at_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT / "tasks/greeting")


def asked(kind: str, count: int, seed: int = 1) -> list[str]:
    """New requests of a kind."""
    chance, found = random.Random(seed), []
    for _ in range(count):
        letter = teacher.letter(vars(words), chance) if kind == "letter" else ""
        found.append(
            teacher.request(kind, vars(words), chance, letter) + (f"\n\n{letter}" if letter else "")
        )
    return found


def number(request: str) -> int:
    return int(re.findall(r"\d+(?=字)", request)[0])


@pytest.mark.parametrize("kind", teacher.FRAMES)
def test_a_text_passes_every_check_of_its_request(kind: str) -> None:
    t, chance = settings.load(), random.Random(2)
    texts = set()
    for request in asked(kind, 150):
        assert len(request) <= 800 and len(requested_length.asked(request)) == 1
        text = teacher.write(request, number(request), chance)
        assert registry.check(t, {"text": request}, text, training=True) == [], (request, text)
        texts.add(text)
    assert len(texts) >= 135


def test_every_length_from_30_to_80_is_met_to_the_character() -> None:
    request = "给书法老师写一条50字的新年祝福，庄重得体，感谢耐心的指点。"
    found = {
        n: teacher.write(request.replace("50", str(n)), n, random.Random(n)) for n in range(30, 81)
    }
    assert all(requested_length.count(text) == n for n, text in found.items())
    assert all(
        text.startswith("书法老师，祝您新年快乐！") and "耐心的指点" in text
        for text in found.values()
    )


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        (
            "元宵节前想对外公说几句，帮我拟60字祝福，提到“巷口的馄饨摊”，文字朴实。",
            r"^外公，.*元宵快乐！.*巷口的馄饨摊。.*愿您",
        ),
        ("写一段45字的新年祝福，送给正在备战高考的表弟。", "^表弟，.*愿你"),
        (
            "给小姑写一条70字的新年祝福，语气俏皮，祝驾照一次拿下。",
            "^小姑，.*祝您驾照一次拿下。.*！$",
        ),
        ("以“那口老石磨”为题，写一篇300字的作文，读来温暖。", "(?s)(那口老石磨.*){3}"),
        (
            "帮我写一段不少于200字的广播稿，送给老客户，主题是墙上的年画。",
            "(?s)^各位朋友，大家新年好！.*墙上的年画.*祝",
        ),
        (
            "把“锅里有肉，杯中有茶，愿车票总是靠窗”改写成一首100字以内的诗，送给发小。",
            "(?s)^锅里有肉，\n.*愿车票总是靠窗，\n.*——写给发小$",
        ),
        (
            "用60字以内概括下面的信，只说工作和打算，不要写别的。\n\n二叔：\n见字如面。"
            "工作上，拿到了电工证。下雪了。家里，妹妹订了婚。今年打算把婚事办了。盼您回信。\n小满",
            "^小满说，工作上拿到了电工证；打算把婚事办了。$",
        ),
    ],
)
def test_a_text_is_about_what_was_asked(request_: str, expected: str) -> None:
    text = teacher.write(request_, number(request_), random.Random(3))
    assert re.search(expected, text), text


def test_what_must_not_be_mentioned_is_not() -> None:
    for word, banned in blessing.BANNED.items():
        for who in words.WHO:
            request = f"给{who}写一条80字的新年祝福，不要提{word}。"
            assert not re.search(
                banned, teacher.write(request, 80, random.Random(who)).removeprefix(who)
            )


def test_wishes_have_ten_characters_and_closings_every_length() -> None:
    wishes = " ".join([*blessing.LAST.values(), *blessing.BEFORE]).split()
    assert {len(wish) for wish in wishes} == {9}
    for closings in blessing.CLOSING.values():
        assert {len(closing) for closing in closings.split()} == set(range(4, 14))


def test_what_the_number_decides_shows_in_the_first_character() -> None:
    places = [
        " ".join(blessing.LAST.values()),
        *blessing.BEFORE,
        " ".join(blessing.CLOSING.values()),
    ]
    firsts = [{text[0] for text in place.split()} for place in places]
    assert sum(map(len, firsts)) == len(set.union(*firsts))
    for closings in blessing.CLOSING.values():  # each length by two characters of its own
        begins = {(closing[:2], len(closing)) for closing in closings.split()}
        assert len({begin for begin, _ in begins}) == len(begins)


def test_flaws_are_caught_and_some_requests_are_hard() -> None:
    """A quarter of the answers fail and nearly all of those to one request in seven, so that
    best-of-4 keeps six in seven."""
    t = settings.load()
    reasons, kept, good, all_ = Counter[str](), 0, 0, 0
    for request in asked("short", 400):
        found = []
        for i in range(4):
            text = teacher.answer([{"role": "user", "content": request}], f"{request}{i}")
            found.append(registry.check(t, {"text": request}, text, training=True))
        kept += any(not one for one in found)
        good += sum(not one for one in found)
        all_ += 4
        reasons.update(reason.partition(":")[0] for one in found for reason in one)
    assert 0.8 < kept / 400 < 0.92 and 0.55 < good / all_ < 0.75
    assert set(reasons) == {"length_within", "excludes", "language", "repetition", "covers"}


def test_replies_with_new_requests_are_flawed_now_and_then() -> None:
    system = "以下是“short”类请求的例子。请再写 20 条"
    shown = json.dumps({"inputs": asked("short", 3)}, ensure_ascii=False)
    messages = [{"role": "system", "content": system}, {"role": "user", "content": shown}]
    replies = [teacher.answer(messages, str(i)) for i in range(200)]
    whole = [reply for reply in replies if reply.startswith("{") and reply.endswith("}")]
    assert 150 < len(whole) < 195
    assert any(len(json.loads(reply)["inputs"]) == 18 for reply in whole)


def test_gold_rows_are_as_the_docstring_says() -> None:
    made = rows.gold(7)
    assert made == rows.gold(7) != rows.gold(8)
    assert Counter(row["slice"] for row in made) == rows.COUNTS
    assert set(
        Counter(number(row["text"]) for row in made if row["slice"] == "short").values()
    ) == {rows.EACH}
    assert all(row["id"] == row_id({"text": row["text"]}) for row in made)
    seeds = (rows.DATA / "seeds.jsonl").read_text(encoding="utf-8")
    for name in ("WHO", "WHEN", "RECALL", "THING", "CLAUSE", "SENDER", "FRIEND", "BETWEEN"):
        own, known = set(getattr(rows, name)), set(getattr(words, name))
        assert not own & known and not [word for word in own if len(word) > 2 and word in seeds], (
            name
        )
    for name in ("THANKS", "WISH", "POINTS"):
        pools = [set(" ".join(getattr(of, name).values()).split()) for of in (rows, words)]
        assert not pools[0] & pools[1], name


def test_the_committed_gold_rows_are_made_by_the_seed() -> None:
    assert read_jsonl(rows.DATA / "gold.jsonl") == rows.gold(rows.SEED)


def test_an_essay_tells_in_order_and_repeats_nothing() -> None:
    for request in asked("essay", 60):
        text = prose.essay(request, number(request), random.Random(request))
        sentences = re.findall("[^。]+。", text)
        assert (
            len(sentences) == len(set(sentences))
            and abs(requested_length.count(text) - number(request)) <= 1
        )


def test_a_summary_keeps_to_its_bound() -> None:
    for request in asked("letter", 100):
        for limit in (60, 80):
            assert requested_length.count(rewriting.summary(request, limit)) <= limit
