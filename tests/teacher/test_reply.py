"""potstill.teacher.reply: what each dialect says is read alike, and whatever comes instead is no
answer, with its reason."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from potstill.core.jsonl import unwritable
from potstill.teacher import reply
from potstill.teacher.reply import NoAnswer, Reply
from tests.replies import DIALECTS, JSON, mutated

GOOD = '{"word": "word3", "length": 5}'


def body(message: Any = None, used: Any = None, **more: Any) -> dict[str, Any]:
    """A chat completion."""
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": GOOD},
        "finish_reason": "stop",
    }
    choice["message"] = message if message is not None else choice["message"]
    usage = {"prompt_tokens": 20, "completion_tokens": 30, "total_tokens": 50}
    return {"choices": [choice | more], "usage": usage if used is None else used}


def read(value: Any, guessed: int = 20) -> Reply:
    return reply.read(json.dumps(value).encode(), guessed)


def one_line(text: str) -> bool:
    return unwritable(text) is None and "\n" not in text


def refusal_of(value: Any) -> NoAnswer:
    """Why the value is no answer."""
    with pytest.raises(NoAnswer) as error:
        read(value)
    return error.value


@pytest.mark.parametrize("name", DIALECTS)
def test_every_dialect_says_the_same(name: str) -> None:
    found = reply.read(DIALECTS[name].encode(), 20)
    assert (found.answer, found.finish_reason, found.refusal) == (GOOD, "stop", "")
    assert found.reasoning in ("", "six letters")
    assert (found.prompt_tokens, found.completion_tokens) == (20, 30)
    assert found.cached_tokens in (0, 16)


PARTS = [{"type": "text", "text": GOOD[:9]}, {"type": "text", "text": GOOD[9:]}]
THOUGHT = {"type": "thinking", "thinking": [{"type": "text", "text": "six letters"}]}


@pytest.mark.parametrize(
    "message",
    [
        {"content": PARTS},
        {"content": [GOOD[:9], {"text": GOOD[9:]}]},
        {"content": [THOUGHT, *PARTS]},
        {"content": [{"type": "reasoning", "text": "six letters"}, *PARTS]},
        {"content": [{"text": "six letters", "thought": True}, *PARTS]},
        {"content": [{"type": "redacted_thinking", "data": "x"}, *PARTS]},
        {"content": GOOD, "reasoning_content": "six letters"},
        {"content": GOOD, "reasoning": "six letters"},
        {"content": GOOD, "thinking": "six letters"},
        {"content": GOOD, "reasoning_details": [{"type": "reasoning.text", "text": "six letters"}]},
        {"content": GOOD, "reasoning": 5, "refusal": None, "tool_calls": []},
        *(
            {"content": text.format(answer=GOOD.replace("{", "{{").replace("}", "}}")) % GOOD}
            for text in (
                "<think>six letters</think>\n\n%s",
                "six letters\n</think>\n\n%s",
                "<thinking>six letters</thinking>%s",
                "<THINK >six letters</ think>%s",
                "◁think▷six letters◁/think▷%s",
                "[THINK]six letters[/THINK]%s",
                "<seed:think>six letters</seed:think>%s",
                "<|begin_of_thought|>six letters<|end_of_thought|>%s",
                "<|START_THINKING|>six letters<|END_THINKING|>%s",
                "<think>six <think>letters</think> or more</think>%s",
                "<think>six letters: <think> </think>%s",
                "<think>six</think>%s<think>letters</think>",
                "<|channel|>analysis<|message|>six letters<|end|><|start|>assistant"
                "<|channel|>final<|message|>%s<|return|>",
                "<|channel>thought\nsix letters<channel|>%s",
            )
        ),
        {"content": None, "reasoning": f"<think>six letters</think>{GOOD}"},
        {"content": "", "reasoning_content": f"six letters</think>{GOOD}"},
    ],
)
def test_text_and_thinking_are_told_apart(message: dict[str, Any]) -> None:
    found = read(body(message))
    assert (found.answer, found.finish_reason, found.refusal) == (GOOD, "stop", "")
    assert "think" not in found.answer


@pytest.mark.parametrize(
    ("message", "reason", "ends"),
    [
        ({"content": "<think>six letters"}, "stop", "thinking"),
        ({"content": f"Well. <thinking>{GOOD}"}, "stop", "thinking"),
        ({"content": "◁think▷six letters"}, "length", "length"),
        ({"content": None, "reasoning": f"It is {GOOD}"}, "stop", "thinking"),
        ({"reasoning_content": "six letters"}, "length", "length"),
        ({"content": None, "tool_calls": [{"id": "x"}]}, "stop", "tool_calls"),
        ({"content": ""}, "stop", "stop"),
    ],
)
def test_what_is_thinking_alone_is_no_answer(message: Any, reason: str, ends: str) -> None:
    found = read(body(message, finish_reason=reason))
    assert (found.answer, found.finish_reason) == ("", ends)


def test_a_mark_inside_json_is_part_of_the_answer() -> None:
    text = '{"word": "<think>", "note": "</think> ends it"}'
    assert read(body({"content": text})).answer == text


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (5, "content is a number, expected a text"),
        (True, "content is true or false"),
        ({"type": "text", "text": GOOD}, "content is an object"),
        ([{"type": "image_url", "image_url": {}}], "content has a part of type image_url"),
        ([{"type": "text", "text": {"value": GOOD}}], "content has a part of type text"),
        ([*PARTS, 5], "content has a part a number"),
        ([*PARTS, None], "content has a part null"),
        ("half \ud83d", r"half a surrogate pair (U+D83D) in the text"),
        ("nul \x00", "a control character (U+0000)"),
        ("\x1b[31mred", "a control character (U+001B)"),
        ([{"type": "text", "text": "\udc00"}], "half a surrogate pair (U+DC00)"),
    ],
)
def test_content_that_cannot_be_used_is_malformed(content: object, expected: str) -> None:
    error = refusal_of(body({"content": content}))
    assert expected in error.reason and one_line(error.reason)
    assert (error.tokens, error.again, error.status) == ((20, 30), False, None)


@pytest.mark.parametrize(
    ("value", "words", "status"),
    [
        ({"error": {"message": "no funds", "code": 402}}, "no funds: 402", 402),
        ({"error": {"message": "busy", "type": "overloaded_error"}, "type": "error"}, "busy", 503),
        ([{"error": {"message": "bad", "status": "INVALID_ARGUMENT", "code": 400}}], "bad", 400),
        ({"error": "model is loading"}, "model is loading", None),
        ({"error": {"code": "429", "metadata": {"raw": "slow down"}}}, "slow down", 429),
        ({"error": [{"message": "odd"}], "choices": [{"message": {"content": GOOD}}]}, "odd", None),
        ({"choices": [{"error": {"code": 502, "message": "lost"}, "message": {}}]}, "lost", 502),
        ({"code": "Throttling", "message": "too fast", "request_id": "x"}, "too fast", 429),
        ({"detail": [{"loc": ["body"], "msg": "field required"}]}, "field required", None),
        ({"choices": None, "base_resp": {"status_msg": "insufficient balance"}}, "balance", None),
        ({"errors": [{"code": 7009, "message": "upstream"}], "success": False}, "upstream", None),
        ({"error": {}, "message": "down"}, "down", None),
        ({"choices": []}, "choices is an empty list", None),
        ({"choices": [None]}, "choices[0] is null", None),
        ({"choices": [{"message": None}]}, "choices[0] message is null", None),
        ({"choices": {}}, "choices is an empty object", None),
        ({"id": "x"}, "its keys are id", None),
        ({}, "its keys are none", None),
        (None, "no chat completion but null", None),
        ([], "no chat completion but an empty list", None),
        (body(finish_reason="abort"), "ended with finish_reason abort", None),
    ],
)
def test_an_error_has_its_words_and_costs_what_usage_says(
    value: Any, words: str, status: int | None
) -> None:
    error = refusal_of(value)
    assert words in error.reason and one_line(error.reason)
    assert (error.status, error.again) == (status, True)
    has_usage = isinstance(value, dict) and "usage" in value
    assert error.tokens == ((20, 30) if has_usage else (0, 0))
    if isinstance(value, dict) and not has_usage:
        used = {"prompt_tokens": "9", "completion_tokens": None, "total_tokens": 12.0}
        assert refusal_of(value | {"usage": used}).tokens == (9, 3)


@pytest.mark.parametrize(
    ("said", "ends"),
    [
        *(
            (one, "stop")
            for one in ("stop", "eos", "eos_token", "end_turn", "STOP", "", "complete")
        ),
        *((one, "stop") for one in ("stop_sequence", None, "FinishReason.STOP", "</s>", "endTurn")),
        *((one, "stop") for one in ("FINISH_REASON_STOP", "<|im_end|>", {"type": "stop"}, "EOS")),
        *((one, "length") for one in ("length", "max_tokens", "MAX_TOKENS", "maxTokens")),
        *((one, "content_filter") for one in ("content_filter: SAFETY", "RECITATION", "sensitive")),
        ("tool_use", "tool_calls"),
        ("something new", "something new"),
    ],
)
def test_the_names_of_an_end(said: object, ends: str) -> None:
    assert read(body(finish_reason=said)).finish_reason == ends


@pytest.mark.parametrize("said", [5, True, [], ["stop"], {"type": 5}])
def test_an_end_that_is_no_word(said: object) -> None:
    assert "finish_reason is " in refusal_of(body(finish_reason=said)).reason


@pytest.mark.parametrize(
    "message",
    [
        {"content": None, "refusal": "I won't\nsay that."},
        {"content": [{"type": "refusal", "refusal": "I won't say that."}]},
        {"refusal": "I won't say that.", "content": ""},
    ],
)
def test_a_refusal_has_its_words(message: Any) -> None:
    found = read(body(message))
    assert (found.answer, found.refusal) == ("", "I won't say that.")
    found = read(body({"content": "I won't say that."}, finish_reason="refusal"))
    assert (found.answer, found.refusal) == ("", "I won't say that.")


@pytest.mark.parametrize(
    ("used", "expected"),
    [
        ({"prompt_tokens": 20, "completion_tokens": 3, "total_tokens": 5000}, (20, 4980, 0)),
        ({"prompt_tokens": "20", "completion_tokens": "30"}, (20, 30, 0)),
        ({"prompt_tokens": " 20.0 ", "completion_tokens": 29.5}, (20, 30, 0)),
        ({"completion_tokens": 30, "total_tokens": 50}, (20, 30, 0)),
        ({"prompt_tokens": 20, "total_tokens": 50}, (20, 30, 0)),
        ({"total_tokens": 50}, (None, 50, 0)),
        ({"prompt_tokens": None, "completion_tokens": None, "total_tokens": None}, (None, None, 0)),
        ({"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}, (None, None, 0)),
        ({"prompt_tokens": 1, "completion_tokens": 30}, (None, 30, 0)),  # of a prompt of some 20
        ({"prompt_tokens": -20, "completion_tokens": "many"}, (None, None, 0)),
        ({"prompt_tokens": True, "completion_tokens": [30]}, (None, None, 0)),
        ({"prompt_tokens": 1e30, "completion_tokens": 10**30}, (None, None, 0)),
        ("none", (None, None, 0)),
        ([], (None, None, 0)),
        (
            {"prompt_tokens": 20, "completion_tokens": 5}
            | {"completion_tokens_details": {"reasoning_tokens": 25}},
            (20, 30, 0),
        ),
        (
            {"prompt_tokens": 20, "completion_tokens": 30}
            | {"prompt_tokens_details": {"cached_tokens": "16"}},
            (20, 30, 16),
        ),
        ({"prompt_tokens": 20, "completion_tokens": 30, "cached_tokens": 99}, (20, 30, 20)),
        ({"input_tokens": 4, "output_tokens": 30, "cache_read_input_tokens": 16}, (20, 30, 16)),
        (
            {"prompt_tokens": 20, "completion_tokens": 30, "cache_read_input_tokens": 16},
            (20, 30, 16),
        ),
    ],
)
def test_usage(used: Any, expected: tuple[int | None, ...]) -> None:
    found = read(body(used=used))
    assert (found.prompt_tokens, found.completion_tokens, found.cached_tokens) == expected


def kept(found: Reply) -> None:
    """A row of it can be written and is read again."""
    json.dumps(vars(found), ensure_ascii=False).encode()
    assert unwritable(found.answer) is unwritable(found.reasoning) is None
    assert found.finish_reason not in ("error", "malformed", "lost")
    for count in (found.prompt_tokens, found.completion_tokens, found.cached_tokens):
        assert count is None or (type(count) is int and count >= 0)


def reads(raw: bytes) -> None:
    none = None
    try:
        kept(reply.read(raw, 20))
    except NoAnswer as error:
        none = error
    if none:
        assert none.reason and one_line(none.reason) and len(none.reason) < 500
        assert none.tokens is None or min(none.tokens) >= 0
        assert none.status is None or 400 <= none.status < 600


@settings(deadline=None)
@given(st.sampled_from([*DIALECTS]), st.randoms(use_true_random=False), JSON)
def test_any_json_at_any_place(name: str, chance: Any, value: object) -> None:
    reads(json.dumps(mutated(json.loads(DIALECTS[name]), value, chance)).encode())


@settings(deadline=None)
@given(st.binary() | st.text().map(str.encode) | JSON.map(lambda value: json.dumps(value).encode()))
def test_any_bytes(raw: bytes) -> None:
    reads(raw)
    reads(b"\xef\xbb\xbf" + raw)


@pytest.mark.parametrize(
    "raw",
    [
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"choices": [{"message": {"content": ' + b"9" * 5000 + b"}}]}",
        json.dumps(body({"content": "<think>" * 20_000})).encode(),
        json.dumps(body({"content": "< " * 50_000})).encode(),
        json.dumps(body({"content": "<|channel|>" + " " * 100_000})).encode(),
        b'{"error": ' + b'{"error": ' * 900 + b"1" + b"}" * 901,
    ],
)
def test_long_and_deep_replies_end(raw: bytes) -> None:
    reads(raw)
