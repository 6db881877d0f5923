"""Grammars by which an answer only quotes, with the real tokenizer of the tiny base and llguidance
itself; the check `grounded` judges what they let through."""

import json
import random
from functools import cache
from types import SimpleNamespace
from typing import Any

import pytest

from potstill.checks import registry
from potstill.core import params
from potstill.core.errors import UserError
from potstill.inference import engine
from potstill.inference.quoting import Grammars
from potstill.review.local_model import LocalModel
from potstill.task import settings
from tests.conftest import ROOT

BASE = ROOT / "models/tiny-base"
TEXT = {"type": "string"}
SCHEMA = {
    "type": "object",
    "properties": {
        "kind": {"enum": ["a", 'b"']},
        "name": {"type": ["string", "null"], "pattern": "\\S"},
        "phone": TEXT,
        "items": {"type": "array", "maxItems": 2, "items": {"$ref": "#/$defs/item"}},
        "more": {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/item"}]},
        "other": {"$ref": "#/$defs/other"},
    },
    "required": ["kind", "name", "phone", "items", "other"],
    "additionalProperties": False,
    "$defs": {
        "item": {
            "type": "object",
            "properties": {"what": TEXT, "tags": {"type": "array", "items": TEXT, "maxItems": 2}},
            "required": ["what"],
        },
        "other": {"type": "array", "items": {"const": 1}, "maxItems": 1},
    },
}
FIELDS = {"name": "", "phone": "-", "items[].what": "", "items[].tags[]": "", "more.what": "/"}
FIELDS |= {"more.tags[]": ""}


def task(schema: Any = SCHEMA, fields: Any = FIELDS, **options: Any) -> settings.Task:
    grounded = {"grounded": {"fields": fields, **options}}
    config = {"input": ["text", "note"], "checks": ["json_schema", grounded], "user": "{{ text }}"}
    made = settings.Task("toy", config)
    made.__dict__["schema"] = schema
    return made


def row(text: str, note: str = "一") -> dict[str, str]:
    return {"id": "1", "text": text, "note": note}


@cache
def tokenizer() -> tuple[Any, Any]:
    import llguidance.hf
    from transformers import AutoTokenizer

    found = AutoTokenizer.from_pretrained(BASE)
    return found, llguidance.hf.from_tokenizer(found)


def matcher(grammar: str) -> Any:
    import llguidance

    made = llguidance.LLMatcher(tokenizer()[1], llguidance.LLMatcher.grammar_from_lark(grammar))
    assert not made.get_error()
    return made


def accepts(grammar: str, text: str) -> bool:
    """Whether the text is an answer of the grammar, which then allows nothing but its end."""
    ids = tokenizer()[0](text, add_special_tokens=False)["input_ids"]
    made = matcher(grammar)
    if made.validate_tokens(ids) < len(ids):
        return False
    made.consume_tokens(ids)
    return bool(made.is_accepting() and allowed(made) == [tokenizer()[1].eos_token])


def allowed(made: Any) -> list[int]:
    """The tokens that may come next."""
    mask = made.compute_bitmask()
    bits = range(tokenizer()[1].vocab_size)
    return [bit for bit in bits if mask[bit // 8] >> bit % 8 & 1]


SIGNS = [
    "Elm",
    "elm",
    "St.",
    "9",
    "86",
    "1380",
    "-",
    "--",
    " ",
    "  ",
    "\n",
    "\t",
    '"',
    "\\",
    "张",
    "é",
]
SIGNS += ["/", "，", "½", "²", "\u3000", "{", "null", "#", "ß", "😀"]


@pytest.mark.parametrize("seed", range(40))
def test_whatever_a_grammar_allows_is_an_answer_that_quotes(seed: int) -> None:
    """Tokens drawn at random from those that may come next, to the end."""
    draw = random.Random(seed)
    toy = task(before_number="86")
    texts = ["".join(draw.choices(SIGNS, k=draw.randint(1, 12))) + "张" for _ in range(2)]
    made, ids = matcher(Grammars(toy).of(row(*texts))), list[int]()
    while not made.is_stopped():
        ids.append(draw.choice(allowed(made)))
        assert made.consume_token(ids[-1]), made.get_error()
        assert len(ids) < 2000
    said = tokenizer()[0].decode(ids, skip_special_tokens=True)
    assert registry.check(toy, row(*texts), said) == [], (texts, said)


LINE = '9 N.  Elm-wood St,\nDr. "Q" \\ 张三丰 86-138 0013,8613900'
NAMES = ["9", "N. Elm-wood", " Elm", "St", 'Dr. "Q"', "\\ 张", "三丰", "St, Dr", None]
NOT = ["Elmwood", "St.", "N. St", "El", "", " ", "13", "00", "138-0013", "张丰", "Dr. \\", "elm"]


@pytest.mark.parametrize(
    ("field", "value", "right"),
    [
        *(("name", name, True) for name in NAMES),
        *(("name", name, False) for name in NOT),
        ("phone", "138 0013", True),
        ("phone", "1380013", True),  # without white space
        ("phone", "861380013", True),  # and without what is ignored
        ("phone", "8613900", True),
        ("phone", "13900", True),  # after the code of the country
        ("phone", "3900", False),
        ("phone", "86139", False),
        ("phone", "-", False),
        ("phone", None, False),
    ],
)
def test_a_piece_is_whole_words_and_numbers(field: str, value: Any, right: bool) -> None:
    answer = {"kind": "a", "name": None, "phone": "9", "items": [], "other": []} | {field: value}
    grammar = Grammars(task(before_number="86")).of(row(LINE))
    assert accepts(grammar, json.dumps(answer, ensure_ascii=False)) is right


@pytest.mark.parametrize(
    ("change", "right"),
    [
        ({"items": [{"what": "9", "tags": ["St", "N"]}, {"tags": [], "what": "Q"}]}, True),
        ({"items": [{"what": "9"}] * 3}, False),
        ({"items": [{"tags": ["9"]}]}, False),
        ({"items": [{"what": "8"}]}, False),
        ({"more": None}, True),
        ({"more": {"what": "St"}}, True),
        ({"more": {"what": None}}, False),
        ({"kind": 'b"', "other": [1]}, True),
        ({"kind": "c"}, False),
        ({"other": [1, 1]}, False),
        ({"unknown": 1}, False),
    ],
)
@pytest.mark.parametrize("layout", [{"separators": (",", ":")}, {}, {"indent": 2}])
def test_other_fields_follow_the_schema_in_any_order_and_layout(
    change: Any, right: bool, layout: Any
) -> None:
    answer = {"other": [], "phone": "9", "items": [], "kind": "a", "name": "St"} | change
    if layout.get("indent"):  # what no check `grounded` names stays on its line
        answer["other"] = answer["other"][:1] if right else answer["other"]
        right = right and not answer["other"]
    grammar = Grammars(task()).of(row(LINE))
    assert accepts(grammar, json.dumps(answer, ensure_ascii=False, **layout)) is right
    assert not accepts(grammar, json.dumps({"kind": "a", "phone": "9"}))


def test_where_nothing_can_be_quoted_the_text_is_empty() -> None:
    schema = {"type": "object", "properties": {"phone": TEXT}, "required": ["phone"]}
    grammar = Grammars(task(schema, {"phone": "-"})).of(row("--", "-"))
    assert accepts(grammar, '{"phone":""}')
    assert not accepts(grammar, '{"phone":"-"}')


def test_a_long_input_costs_no_stack() -> None:
    signs = [random.Random(1).choice(["word", "张", "9", ","]) for _ in range(3_000)]
    matcher(Grammars(task()).of(row(" ".join(signs))))


@pytest.mark.parametrize(
    ("schema", "fields", "said"),
    [
        (SCHEMA, {}, r"^params\.yaml: predict\.grounded is true, but no check `grounded` of"),
        ({"allOf": [SCHEMA]}, {"name": ""}, r"^schema\.json: .* cannot follow allOf to the field"),
        ({"$ref": "#"}, {"name": ""}, r"cannot follow \$ref to the field"),
        (
            {"type": "object", "patternProperties": {"^n": TEXT}},
            {"name": ""},
            "cannot follow its keywords to the field name, expected properties, items",
        ),
    ],
)
def test_what_has_no_grammar_is_said(schema: Any, fields: Any, said: str) -> None:
    with pytest.raises(UserError, match=said):
        Grammars(task(schema, fields))


@pytest.mark.parametrize("name", ["address", "postal"])
def test_the_gold_answers_of_a_task_stay(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(settings.tasks()[name])
    made = settings.load()
    if name == "postal":  # its rows are not in git
        line = {"text": "Bldg 2, 9 N. Elm St., Suite 40, New Avon IL 61415"}
        parts = ["Bldg 2", "9", " N. Elm St.", " Suite 40", " New Avon", None, "61415"]
        rows = [line | {"gold": dict(zip(made.schema["properties"], parts, strict=True))}]
    else:
        rows = [dict(one) for one in made.gold()[:60]]
    for one in rows:
        said = json.dumps(one["gold"], ensure_ascii=False, separators=(",", ":"))
        assert accepts(Grammars(made).of(one), said), one
    assert params.load("predict").predict.grounded is False  # the strict score is the shipped one


@pytest.mark.slow
def test_vllm_keeps_to_the_grammars() -> None:
    schema = {"type": "object", "properties": {"name": TEXT}, "required": ["name"]}
    toy = task(schema, {"name": ""})
    rows = [row(text) for text in ("张三 13800138000", "写\n一句 祝福", 'Elm "St" 9')]
    chats = [[{"role": "user", "content": one["text"]}] for one in rows]
    p = SimpleNamespace(max_tokens=48, dtype="float32", max_model_len=128)
    rules: list[Any] = [None, list(map(Grammars(toy).of, rows))]
    timed: list[float] = []
    free, kept = engine.predict(str(BASE), [chats, chats], p, timed=timed, grammars=rules)
    assert len(timed) == 3
    for answers, quotes in ((free, False), (kept, True)):
        pairs = zip(rows, answers, strict=True)
        found = [registry.check(toy, one, said["answer"]) == [] for one, said in pairs]
        assert found == [quotes] * 3
    tried = LocalModel(str(BASE), "student", p)  # what `make try` shows
    tried.load()
    for chat, rule, said in zip(chats, rules[1], kept, strict=True):
        *_, last = tried._parts(chat, rule)
        assert last["answer"] == said["answer"]
