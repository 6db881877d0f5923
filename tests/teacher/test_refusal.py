"""What a status, its headers and its words mean, without an endpoint."""

import json
import re
import time
from email.utils import formatdate
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from potstill.core.errors import UserError
from potstill.teacher import refusal
from potstill.teacher.refusal import Refused, Retry

OPENAI_QUOTA = {
    "message": "You exceeded your current quota, please check your plan and billing details.",
    "type": "insufficient_quota",
    "param": None,
    "code": "insufficient_quota",
}
OPENAI_RATE = (
    "Rate limit reached for gpt-4 on tokens per min (TPM): Limit 10000. Please try again in 7.2s. "
    "You can increase your rate limit by adding a payment method to your account at …/billing."
)
GEMINI_RATE = (
    "You exceeded your current quota, please check your plan and billing details. Quota exceeded "
    "for metric: generate_content_free_tier_requests, limit: 15. Please retry in 33.5s."
)


def judged(
    status: int, error: Any, answered: bool = True, headers: dict[str, str] | None = None
) -> Exception:
    body = error if isinstance(error, str) else json.dumps({"error": error})
    return refusal.judge("it", status, headers or {}, body, answered)


@pytest.mark.parametrize(
    ("status", "error", "remedy"),
    [
        (401, {"message": "who are you"}, refusal.KEY),
        (403, {"message": "Incorrect API key provided"}, refusal.KEY),
        (400, {"message": "API key not valid. Please pass a valid API key."}, refusal.KEY),
        (402, {"message": "Insufficient Balance"}, refusal.FUNDS),
        (429, OPENAI_QUOTA, refusal.FUNDS),
        (429, {"message": "Billing hard limit has been reached"}, refusal.FUNDS),
        (429, {"message": "your account balance is used up"}, refusal.FUNDS),
        (400, {"code": "Arrearage", "message": "Access denied"}, refusal.FUNDS),
        (407, "", refusal.PROXY),
    ],
)
def test_what_ends_the_run_at_once(status: int, error: Any, remedy: str) -> None:
    found = judged(status, error)
    assert isinstance(found, UserError)
    assert str(found).startswith(f"it answered {status} (")
    assert str(found).endswith(f": {remedy}")


@pytest.mark.parametrize("status", [404, 405, 301])
def test_a_wrong_place_ends_the_run_before_an_answer_only(status: int) -> None:
    assert isinstance(judged(status, {"message": "no"}, answered=False), UserError)
    assert isinstance(judged(status, {"message": "no"}), Refused)


@pytest.mark.parametrize(
    ("status", "error", "form"),
    [
        (403, {"message": "Your input was flagged by moderation"}, False),
        (403, {"message": "Forbidden"}, False),
        (400, {"code": "content_filter", "message": "The response was filtered"}, False),
        (400, {"code": "data_inspection_failed", "message": "Input data may …"}, False),
        (400, {"message": "This model's maximum context length is 4096 tokens"}, False),
        (451, "", False),
        (413, "<html>413</html>", False),
        (422, {"message": "violates our usage guidelines"}, False),
        (429, {"message": "Request too large for gpt-4: the input tokens must be reduced"}, False),
        (400, {"message": "Unknown name seed"}, True),
        (422, "Unprocessable Entity", True),
        (404, {"message": "No endpoints found that support the requested parameters"}, True),
    ],
)
@pytest.mark.parametrize("answered", [True, False])
def test_what_refuses_one_row(status: int, error: Any, form: bool, answered: bool) -> None:
    found = judged(status, error, answered)
    assert isinstance(found, Refused)
    assert found.form == form
    assert str(found).startswith(f"{status}: ")


@pytest.mark.parametrize(
    ("status", "error", "headers", "expected"),
    [
        (429, {"message": "busy"}, {"retry-after": "3"}, (3.0, True, False)),
        (429, {"message": OPENAI_RATE, "code": "rate_limit_exceeded"}, {}, (7.2, True, False)),
        (429, {"message": GEMINI_RATE, "status": "RESOURCE_EXHAUSTED"}, {}, (33.5, True, False)),
        (429, {"message": "upstream load balancer is busy"}, {}, (None, True, False)),
        (503, "", {}, (None, False, True)),
        (500, "", {}, (None, False, False)),
        (408, "", {}, (None, False, False)),
    ],
)
def test_what_passes(
    status: int, error: Any, headers: dict[str, str], expected: tuple[float | None, bool, bool]
) -> None:
    found = judged(status, error, headers=headers)
    assert isinstance(found, Retry)
    assert (found.wait, found.limit, found.overload) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("3", 3),
        ("0.5", 0.5),
        ("120ms", 0.12),
        ("6m0s", 360),
        ("1h2m3.5s", 3723.5),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0),
        ("1970-01-01T00:00:00Z", 0),
        *(
            (value, None)
            for value in ("", "soon", "-5", "nan", "inf", "1e400", "9" * 400, "²", "3 apples")
        ),
    ],
)
def test_seconds(value: str, expected: float | None) -> None:
    assert refusal.seconds(value) == expected


@pytest.mark.parametrize("form", ["{:.0f}", "date", "ms"])
def test_seconds_until_a_moment(form: str) -> None:
    then = time.time() + 20
    text = {"date": formatdate(then, usegmt=True), "ms": f"{1000 * then:.0f}"}
    found = refusal.seconds(text.get(form) or form.format(then))
    assert found == pytest.approx(20, abs=2)


def test_rates() -> None:
    headers = {
        "x-ratelimit-remaining-requests": "59",
        "x-ratelimit-reset-requests": "1s",
        "anthropic-ratelimit-tokens-remaining": "1000",
        "anthropic-ratelimit-tokens-reset": "6m0s",
    }
    assert refusal.rates(headers) == {"requests": (59, 1), "tokens": (1000, 360)}
    assert refusal.rates({"x-ratelimit-remaining": "-1", "x-ratelimit-reset": "1"}) == {}
    assert refusal.rates({"x-ratelimit-remaining": "5"}) == {}


def test_the_words_are_all_that_was_said_but_no_echo() -> None:
    wrong = {"type": "extra_forbidden", "loc": ["body", "seed"], "msg": "Extra inputs"}
    body = {"detail": [wrong | {"input": {"temperature": 0}}], "request": {"response_format": 1}}
    message, words = refusal.said(json.dumps(body))
    assert message == "Extra inputs, extra_forbidden"
    assert "seed" in words
    assert not re.search("temperature|response_format", words)
    gemini = [
        {"error": {"message": "x" * 300 + ' Unknown name "seed"', "status": "INVALID_ARGUMENT"}}
    ]
    message, words = refusal.said(json.dumps(gemini))
    assert len(message) == 200
    assert "seed" in words


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)
HEADERS = st.sampled_from(
    ["retry-after", "retry-after-ms"]
    + [f"x-ratelimit-{what}{unit}" for what in ("remaining", "reset") for unit in ("", "-tokens")]
)
TIMES = st.text() | st.from_regex(r"-?[0-9.e+msh: ]{1,30}", fullmatch=True)


@settings(deadline=None)
@given(
    st.integers(300, 999),
    st.dictionaries(HEADERS, TIMES),
    st.text() | VALUES.map(json.dumps) | st.just("[" * 9_999),
    st.booleans(),
)
def test_any_status_any_headers_any_body(
    status: int, headers: dict[str, str], body: str, answered: bool
) -> None:
    found = refusal.judge("it", status, headers, body, answered)
    assert isinstance(found, UserError | Retry | Refused)
    assert "\n" not in str(found)
    if isinstance(found, Retry):
        assert found.wait is None or 0 <= found.wait <= refusal.LONGEST_MEANT
    for left, reset in refusal.rates(headers).values():
        assert 0 <= left < float("inf")
        assert 0 <= reset <= refusal.LONGEST_MEANT
