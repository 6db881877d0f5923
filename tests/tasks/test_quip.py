"""The task quip: the scripted teacher composes from the word, the checks catch its flaws, the rows
are disjoint and the prompts have the sizes of the published case."""

import json
import random
import re
from collections import Counter
from functools import cache
from pathlib import Path

import pytest

from base.text import example
from potstill.checks import registry
from potstill.core import params
from potstill.core.jsonl import Row, read_jsonl, row_id
from potstill.task import settings
from potstill.teacher.scripted import complete
from tasks.quip import teacher
from tasks.quip.data import rows
from tasks.quip.teacher.clauses import CLAUSES
from tasks.quip.teacher.grammar import ABOUT, TURNS
from tasks.quip.teacher.words import BEFORE, UNSEEN, WORDS
from tests.conftest import ROOT


@pytest.fixture(autouse=True)
def at_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT / "tasks/quip")


CLEAN = "它看着比谁都老实，结果被人关起来再夸它自由，门票钱从没分给它。"


@cache
def quip() -> settings.Task:
    return settings.load()


def compose(word: str, seed: object = 0) -> str:
    return teacher.compose(word, random.Random(str(seed)))


def failed(word: str, prompt: str, output: str) -> set[str]:
    """The checks that an answer fails."""
    text = json.dumps({"prompt": prompt, "output": output}, ensure_ascii=False)
    return {reason.split(":")[0] for reason in registry.check(quip(), {"word": word}, text)}


@cache
def answered() -> dict[str, list[tuple[Row, str, list[str]]]]:
    """Each row with the answer that the pipeline gets and the checks that it fails, by file."""
    found: dict[str, list[tuple[Row, str, list[str]]]] = {}
    for name in ("seeds", "gold"):
        for row in read_jsonl(rows.DATA / f"{name}.jsonl"):
            reply = complete(
                teacher.answer, {"messages": quip().messages("teacher", row)}, "scripted"
            )
            text = reply["choices"][0]["message"]["content"]
            found.setdefault(name, []).append((row, text, registry.check(quip(), row, text)))
    return found


# --- the teacher ----------------------------------------------------------------------------------


def test_it_composes_from_the_word() -> None:
    word = "办公室的绿萝"
    assert teacher.read(word) == ("办公室", "place", "绿萝", "plant")
    assert teacher.read("房贷") == ("", "", "房贷", "money")
    assert teacher.category("搪瓷茶壶") == "thing"  # an unknown word by its end
    assert teacher.category("㗎") == "any"
    said = {compose(word, seed) for seed in range(50)}
    assert len(said) > 40 and all(
        "办公室" in sentence and "绿萝" not in sentence for sentence in said
    )
    turns = CLAUSES["money"][2].split()
    assert all(any(turn in compose("房贷", seed) for turn in turns) for seed in range(50))


def test_no_sentence_can_be_too_long() -> None:
    """Whatever clauses a student joins: each fits each, also where the teacher never joined
    them."""
    turn_word = max(map(len, TURNS.split()))
    before = max(len(word) for _, befores, _ in BEFORE for word in befores.split())
    for category, texts in CLAUSES.items():
        names, promises, turns, stings = (text.split() for text in texts)
        first = [
            len(one.removeprefix("-")) + (not one.startswith("-")) * max(map(len, names))
            for one in promises
        ]
        first += [before + len(one) - 2 for text in ABOUT.values() for one in text.split()]
        third = max(len(one.removeprefix("-")) for one in (*promises, *stings))
        assert max(first) + turn_word + max(map(len, turns)) + 2 <= 40, category
        short_turn = max(len(one) for one in turns if len(one) < teacher.LONG)
        assert max(first) + turn_word + short_turn + third + 3 <= 40, category


def test_it_never_says_the_word() -> None:
    for word in (*teacher.CATEGORY, *" ".join(UNSEEN.values()).split()):
        assert all(word not in compose(word, seed) for seed in range(3)), word


def test_a_seed_gives_the_same_answer_and_another_seed_another() -> None:
    chat = [{"role": "system", "content": "…"}, {"role": "user", "content": "年终奖"}]
    assert teacher.answer(chat, "a") == teacher.answer(chat, "a")
    assert len({teacher.answer(chat, str(seed)) for seed in range(30)}) > 25


def test_every_unspoilt_answer_passes_every_check() -> None:
    for word in [
        *teacher.CATEGORY,
        "周一的早高峰",
        "老板的承诺",
        "公司自动售货机",
        *" ".join(UNSEEN.values()).split(),
    ]:
        text = json.dumps({"prompt": word, "output": compose(word)}, ensure_ascii=False)
        assert all(one.passed for one in registry.verdicts(quip(), {"word": word}, text)), (
            word,
            text,
        )


@pytest.mark.parametrize("flaw", teacher.FLAWS)
def test_the_checks_catch_each_flaw(flaw: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(teacher, "FLAWS", {flaw: 1.0})
    for word in ("房贷", "周一的早高峰", "雪"):
        text = teacher.answer([{"role": "user", "content": word}], "any")
        assert registry.check(quip(), {"word": word}, text), text


def test_a_seeded_share_of_the_answers_is_spoilt() -> None:
    rate = {
        name: sum(not bad for _, _, bad in found) / len(found) for name, found in answered().items()
    }
    assert 0.9 <= rate["seeds"] <= 0.97 and 0.9 <= rate["gold"] <= 0.98


def test_answers_are_varied_and_few_sentences_are_those_of_training() -> None:
    """Whole answers never are (test_all_tasks.py): they hold the word."""
    said = {
        name: [json.loads(text)["output"] for _, text, bad in found if not bad]
        for name, found in answered().items()
    }
    for outputs in said.values():
        assert len(set(outputs)) >= 0.98 * len(outputs)
    assert len(set(said["seeds"]) & set(said["gold"])) <= 0.01 * len(said["gold"])


# --- the checks -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prompt", "output", "check"),
    [
        ("大象", CLEAN, set()),
        ("大", CLEAN, {"covers"}),
        ("大象群", CLEAN, {"grounded"}),
        ("大象", CLEAN.replace("它", "大象", 1), {"excludes_input"}),
        ("大象", CLEAN + "。", {"regex", "repetition"}),
        ("大象", CLEAN[:-1], {"ends_with", "regex"}),
        ("大象", CLEAN.replace("，", "！", 1), {"one_sentence", "regex"}),
        ("大象", CLEAN.replace("自由", "“自由”"), {"regex"}),
        ("大象", CLEAN.replace("自由", "free"), {"language"}),
        ("大象", "它被人关起来以后再被夸自由自在。", {"regex"}),
        ("大象", "它老实，人不老实。", {"json_schema"}),
        ("大象", CLEAN[:-1] + "，饲料先涨了价，人还嫌它不懂事。", {"json_schema"}),
    ],
)
def test_checks(prompt: str, output: str, check: set[str]) -> None:
    assert failed("大象", prompt, output) == check


# --- the rows -------------------------------------------------------------------------------------


def test_committed_files_are_what_the_script_makes() -> None:
    for name, made in rows.files().items():
        assert read_jsonl(rows.DATA / name) == made, f"{name}: run `python -m tasks.quip.data.rows`"


def test_counts_ids_and_lengths() -> None:
    seeds, gold = rows.files()["seeds.jsonl"], rows.files()["gold.jsonl"]
    assert len(seeds) == 3300
    assert Counter(row["slice"] for row in gold) == {"like_seeds": 400, "unseen_category": 100}
    assert len({row["id"] for row in seeds + gold}) == 3800
    assert all(
        row["id"] == row_id({"word": row["word"]}) and 1 <= len(row["word"]) <= 6
        for row in seeds + gold
    )
    assert all(row["gold"] is None for row in gold)


def test_no_word_of_a_gold_row_occurs_in_a_seed() -> None:
    typed = "\n".join(row["word"] for row in rows.files()["seeds.jsonl"])
    for row in rows.files()["gold.jsonl"]:
        found = teacher.read(row["word"])
        parts = {row["word"], found.before, found.head} if found.before else {row["word"]}
        assert not [part for part in parts if len(part) > 1 and part in typed], row


def test_no_seed_is_of_an_unseen_category() -> None:
    unseen = set(" ".join(UNSEEN.values()).split())
    assert len(unseen) == 100 and not unseen & set(teacher.CATEGORY)


def test_no_row_is_an_example_of_the_prompt_or_a_word_of_the_base() -> None:
    words = {row["word"] for found in rows.files().values() for row in found}
    examples = re.findall(
        r'"prompt":"(.+?)"', quip().messages("teacher", {"word": "x"})[0]["content"]
    )
    assert len(examples) == 8 and not words & set(examples)
    rng = random.Random(123)
    assert not [user for _, user, _ in (example(rng) for _ in range(2000)) if user.strip() in words]


def test_the_lexicon_is_whole() -> None:
    words = [word for text in WORDS.values() for word in text.split()]
    assert len(words) == len(set(words)) and WORDS.keys() == CLAUSES.keys()
    for kind, befores, heads in BEFORE:
        assert kind in ABOUT and befores and set(heads.split()) <= set(words)


# --- the prompts and the profile ------------------------------------------------------------------


def test_prompts_have_the_sizes_of_the_published_case() -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(ROOT / "models/tiny-base")
    long, short = (
        quip().messages(kind, {"word": "x"})[0]["content"] for kind in ("teacher", "student")
    )
    assert len(tokenizer.encode(short, add_special_tokens=False)) == 8
    # 553 published, by another tokenizer
    assert 500 <= len(tokenizer.encode(long, add_special_tokens=False)) <= 580


def test_the_examples_of_the_prompt_pass_the_checks() -> None:
    for line in re.findall(
        r'^\{"prompt".*$', quip().messages("teacher", {"word": "x"})[0]["content"], re.MULTILINE
    ):
        assert registry.check(quip(), {"word": json.loads(line)["prompt"]}, line) == []


def test_the_published_profile_is_the_platform_s_recipe() -> None:
    path = Path("profiles/published.yaml")
    found = params.parse(params.read_text(path), path)
    names = ("learning_rate", "num_train_epochs", "per_device_train_batch_size", "max_length")
    assert [found[name] for name in names] == [0.0001, 3, 8, 4096]
    assert [found[name] for name in ("lora_rank", "lora_alpha", "lora_dropout")] == [8, 32, 0.05]
    assert found["model"] == "Qwen/Qwen2.5-7B-Instruct"
