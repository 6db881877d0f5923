"""The base's text: a base, not an answer. And what its training leaves in the embeddings."""

import json
import random
from collections import Counter

import pytest

from base import details, places, text, train
from base.pools import FIELDS, KEYS, SIGNS
from base.prose import prose
from base.spans import spans
from base.writer import Example
from potstill.core.jsonl import read_jsonl, squeeze
from potstill.task import settings

# Without those whose rows a script makes: they are for a model that somebody else trained
FOLDERS = {
    name: folder
    for name, folder in settings.tasks().items()
    if not (folder / "data/dvc.yaml").is_file()
}
SIX = [
    set(FIELDS[kind][0]) for kind in ("province", "city", "district", "location", "name", "phone")
]


@pytest.fixture(scope="module")
def examples() -> list[Example]:
    rng = random.Random(123)
    return [text.example(rng) for _ in range(8000)]


def test_equal_seeds_give_equal_text(examples: list[Example]) -> None:
    rng = random.Random(123)
    assert [text.example(rng) for _ in range(200)] == examples[:200]


def test_no_answer_holds_the_six_keys_of_the_address_task(examples: list[Example]) -> None:
    objects = [json.loads(answer) for _, _, answer in examples if answer.startswith("{")]
    assert len(objects) > 3000
    for found in objects:
        assert not all(names & set(found) for names in SIX), found


@pytest.mark.parametrize("name", FOLDERS)
def test_it_has_no_prompt_key_set_seed_or_gold_row_of_a_task(
    examples: list[Example], name: str
) -> None:
    folder = FOLDERS[name]
    prompts = {path.read_text().strip() for path in (folder / "prompts").glob("*.md")}
    assert len(prompts) >= 2
    schema = json.loads((folder / "schema.json").read_text())
    keys = set(schema.get("properties", {}))  # none of plain text
    other = ("id", "slice", "gold", "category")
    typed = {
        squeeze("".join(value for key, value in row.items() if key not in other))
        for part in ("seeds", "gold")
        for row in read_jsonl(folder / f"data/{part}.jsonl")
    }
    assert len(typed) > 50
    # a task's rows may be words, and words are in any text
    typed = {line for line in typed if len(line) > 6}
    for system, user, answer in examples:
        assert not any(prompt in system or prompt in user for prompt in prompts)
        assert squeeze(user) not in typed
        assert squeeze(answer) not in typed
        if keys and answer.startswith("{"):
            assert set(json.loads(answer)) != keys


def test_every_ascii_word_and_sign_of_the_tokenizer_occurs_in_answers() -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained("models/tiny-base")
    rng = random.Random(9)
    met: Counter[int] = Counter()
    for _ in range(12000):
        met.update(tokenizer(spans(rng)[2])["input_ids"])
    words = [w for w in KEYS if len(tokenizer(f'"{w}"')["input_ids"]) <= 3]
    assert len(words) > 150
    for text_ in [*words, *SIGNS]:
        assert all(met[token] for token in tokenizer(text_)["input_ids"]), text_


@pytest.mark.parametrize(
    "mark", ["【", "★", "│", "→", "=>", "&", "<收件人>", "#收件#", "（1", "(1", "麻烦寄到", "我叫"]
)
def test_its_records_avoid_the_layouts_kept_for_unseen_layout(mark: str) -> None:
    rng = random.Random(7)
    assert not any(mark in text.record(rng, True)[1] for _ in range(3000))


def test_a_typed_place_follows_the_contract() -> None:
    rng = random.Random(5)
    by_name = {place.district: place for place in places.places() if place.kind == "county_city"}
    found = {places.typed(rng, by_name["大理市"]) for _ in range(300)}
    for line, place in found:
        expected = (
            "大理白族自治州"
            if "州" in line or line.startswith(("大理大理市", "云南大理大理市", "云南省大理大理市"))
            else "大理市"
        )
        if line.replace("大理市", "").rstrip(" -/,，").endswith("大理"):
            expected = "大理白族自治州"
        assert (place.city, place.district) == (expected, "大理市"), line
    alone = {
        place.city
        for line, place in (places.typed(rng, by_name["昆山市"]) for _ in range(300))
        if line.count("昆山市") == 1
    }
    assert alone == {"苏州市"}


def test_prose_of_a_stated_length_has_it() -> None:
    import re

    rng = random.Random(3)
    checked = 0
    for _ in range(4000):
        _, user, answer = prose(rng)
        if found := re.search(r"(?:正好|刚好|恰好)(\d+)个?字", user):
            checked += 1
            assert len(squeeze(answer)) == int(found[1]), (user, answer)
    assert checked > 50


def test_every_kind_of_place_occurs() -> None:
    kinds = Counter(place.kind for place in places.places())
    assert set(kinds) == {"district", "county", "county_city", "direct", "whole"}
    assert sum(kinds.values()) > 2800
    assert len({place.province for place in places.places()}) == 31


def test_no_character_of_the_base_lies_near_the_mean_of_all() -> None:
    """The committed base has been through train.lengthen: before it, three in four characters lay
    half as far as the others."""
    from safetensors.torch import load_file
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained("models/tiny-base")
    ids = tokenizer.convert_tokens_to_ids(tokenizer.tokenize("".join(details.characters())))
    assert len(set(ids)) == len("".join(details.characters()))
    vectors = load_file("models/tiny-base/model.safetensors")["model.embed_tokens.weight"][
        ids
    ].float()
    apart = (vectors - vectors.mean(0)).norm(dim=1)
    # The steps after it move them a little; before it, the nearest was at 0.36.
    assert apart.min() > 0.85 * train.NEAREST


def test_lengthen_moves_the_near_characters_only_and_straight_away_from_the_mean() -> None:
    import torch
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained("models/tiny-base")
    ids = tokenizer.convert_tokens_to_ids(tokenizer.tokenize("".join(details.characters())))
    model = train.make_model(tokenizer, 3)
    weights = model.get_input_embeddings().weight
    with torch.no_grad():
        weights[ids[:100]] *= 0.2
        before = weights.clone()
    mean = before[ids].mean(0)
    assert train.lengthen(model, tokenizer) == 100
    near = (before[ids] - mean).norm(dim=1) < train.NEAREST
    assert near[:100].all() and not near[100:].any()
    after = weights.detach()
    assert torch.equal(
        torch.nonzero((after != before).any(1))[:, 0], torch.tensor(sorted(ids[:100]))
    )
    moved, was = after[ids[:100]] - mean, before[ids[:100]] - mean
    assert torch.allclose(moved.norm(dim=1), torch.full((100,), train.NEAREST), atol=1e-4)
    assert torch.nn.functional.cosine_similarity(moved, was).min() > 0.999
