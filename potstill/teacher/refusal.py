"""What a status other than 200 means: which ends the run, refuses one row, asks for another form of
the request, or passes."""

import json
import math
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any

from potstill.core.errors import UserError
from potstill.core.jsonl import Row

Rates = dict[str, tuple[float, float]]  # requests, tokens → how many are left, for how many seconds
KEY = "check TEACHER_API_KEY"
PLACE = "check teacher.model and TEACHER_BASE_URL, which usually ends in /v1"
PROXY = "check HTTPS_PROXY and HTTP_PROXY"
FUNDS = "see to the account's quota or billing"
LONGEST_MEANT = 1e7  # seconds: a longer wait is nonsense
LONGEST_SHOWN = 200  # characters of a refusal
LONGEST_SAID = 20_000  # characters of a refusal that are searched

# What a refusal's words say of it. An echo of the request is left out, see `said`.
_FUNDS_CODE = re.compile(
    r"insufficient[_ ](user_)?(quota|balance|credits?|funds)|billing_(hard_limit|not_active)"
    r"|\barrearage\b|account_?overdue|credit balance is too low|余额不足|欠费",
    re.IGNORECASE,
)
_FUNDS = re.compile(
    r"billing|current quota|payment|good standing|(account|your) balance|spend(ing)? (limit|cap)"
    r"|(out of|no|insufficient) (\w+ )?credits?|credits? .{0,20}(exhaust|deplet|used up|run out)",
    re.IGNORECASE,
)
_PASSES = re.compile(  # a limit of rate, which often names the page of billing, too
    r"(retry|again) (in|after)|retry-?_?(delay|after)|rate.?limit|per.?(sec|min|hour|day)"
    r"|\b[rt]p[smd]\b",
    re.IGNORECASE,
)
_ROW = re.compile(
    r"moderat(ed|ion)|flagged|\bpolic(y|ies)|content.?(filter|management|check|inspection)|safety"
    r"|violat.{0,40}(terms|guideline|rules|usage)|harmful|inappropriate|(?<!case.)sensitive"
    r"|prohibited.(content|use)|data_?inspection|\brisk\b|审核|敏感|不安全|违规|不合规"
    r"|context.?(length|window)|maximum context|too many (input )?tokens|string_above_max_length"
    r"|(request|input|prompt) (is |was )?too (large|long)|tokens must be reduced|reduce the length",
    re.IGNORECASE,
)
_TOO_LARGE = re.compile(r"request (is )?too large|tokens must be reduced|reduce the length", re.I)
_BAD_KEY = re.compile(
    r"(incorrect|invalid|wrong|missing|no|expired|revoked|disabled) (authentication|api[ _-]?key)"
    r"|api[ _-]?key.{0,40}(valid|incorrect|expired|revoked|missing|disabled|required)"
    r"|invalid[_ ](api[_ ]key|auth|token|credentials)|unauthenticated|unauthorized"
    r"|authentication (failed|error|fails)"
    r"|(account|key|organi[sz]ation).{0,30}(deactivated|suspended|disabled)",
    re.IGNORECASE,
)
_PARAMETER = re.compile(r"parameter", re.IGNORECASE)
# What a server repeats of the request
_ECHO = {"input", "request", "body", "messages", "prompt", "ctx", "url", "failed_generation"}
_FIRST = ("message", "msg", "detail", "error_description", "error", "title", "description")


@dataclass(eq=False)
class Retry(Exception):
    """This try brought no answer, another may."""

    reason: str
    wait: float | None = None  # seconds, as the server asked
    limit: bool = False  # a 429, which costs no try
    overload: bool = False  # too much is under way
    billed: bool = False  # it may have been paid for
    kept: Row | None = None  # the journal's row of what came instead of an answer
    most: int | None = None  # further tries; None: teacher.retries


@dataclass(eq=False)
class Refused(Exception):
    """The server will never answer this request in this form; where it is `form`, perhaps in
    another one. `words` is all that it said."""

    reason: str
    words: str = ""
    form: bool = False
    hint: str = ""  # what to check where it refuses everything
    enough: int = 10  # such refusals in a row show that, before anything was answered

    def __str__(self) -> str:
        return self.reason


def judge(
    where: str, status: int, headers: Mapping[str, str], text: str, answered: bool
) -> Exception:
    """What a status means: Retry, Refused, or a UserError when nothing can succeed. `where` names
    the endpoint, `text` is the body, and `answered` says whether anything was ever answered
    there."""
    message, words = said(text)
    reason = f"{where} answered {status} ({message})"
    row = bool(_ROW.search(words))
    if status == 402 or (status in (400, 403, 429) and _no_funds(words, row and status != 429)):
        return UserError(f"{reason}: {FUNDS}")
    if status == 429 and not _TOO_LARGE.search(words):
        return Retry(reason, wait=retry_after(headers, words), limit=True)
    if status in (408, 409, 425) or status >= 500:
        overload = status in (502, 503, 504, 529)
        return Retry(reason, wait=retry_after(headers, words), overload=overload)
    if status == 401 or (status in (400, 403) and not row and _BAD_KEY.search(words)):
        return UserError(f"{reason}: {KEY}")
    if status == 407:
        return UserError(f"{reason}: {PROXY}")
    form = status in (400, 422) or (status == 404 and bool(_PARAMETER.search(words)))
    refused = Refused(f"{status}: {message}", words, form and not row)
    if status == 403:
        refused.hint, refused.enough = KEY, 10 if row else 3
    elif (status < 400 or status in (404, 405)) and not (row or form):
        refused.hint = PLACE
        if not answered:
            return UserError(f"{reason}: {PLACE}")
    return refused


def _no_funds(words: str, row: bool) -> bool:
    if _FUNDS_CODE.search(words):
        return True
    return not row and bool(_FUNDS.search(words)) and not _PASSES.search(words)


def said(text: str) -> tuple[str, str]:
    """Of a refusal's body: what it says, and all its words, without those of the request that it
    repeats."""
    text = text[:LONGEST_SAID]
    try:
        found = list(_strings(json.loads(text)))
    except (ValueError, RecursionError):
        found = []
    if not any(name for name, _ in found):
        return " ".join(text.split())[:LONGEST_SHOWN], text
    named = dict(reversed(found))
    message = next((named[name] for name in _FIRST if named.get(name)), "")
    code = named.get("code") or named.get("type") or ""
    words = "\n".join(value for _, value in found)
    message = message or " ".join(words.split())
    message = " ".join((message if code in message else f"{message}, {code}").split())
    return message[:LONGEST_SHOWN], words


def _strings(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """Every text in a JSON value, and every key, with the key that it stands under."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if key not in _ECHO:
                yield "", key
                yield from _strings(inner, key)
    elif isinstance(value, list):
        for inner in value:
            yield from _strings(inner, name)
    elif isinstance(value, str):
        yield name, value


_UNITS = {"ms": 0.001, "s": 1, "sec": 1, "second": 1, "seconds": 1, "m": 60, "min": 60, "h": 3600}
_UNITS |= {"minute": 60, "minutes": 60, "hour": 3600, "hours": 3600, "d": 86400}
_PART = re.compile(r"(\d+(?:\.\d+)?)\s*([a-z]*)\s*")
_IN_WORDS = re.compile(
    r"(?:retry(?:ing)?|again) (?:in|after) ((?:\d+(?:\.\d+)?\s*[a-z]+\s*)+)"
    r"|^(\d+(?:\.\d+)?s)$",  # Google's retryDelay
    re.IGNORECASE | re.MULTILINE,
)


def retry_after(headers: Mapping[str, str], words: str = "") -> float | None:
    """Seconds to wait by a reply's headers, else by its words; None where neither says."""
    if (wait := seconds(headers.get("retry-after-ms", ""))) is not None:
        return wait / 1000
    if (wait := seconds(headers.get("retry-after", ""))) is not None:
        return wait
    told = _IN_WORDS.search(words[:2000])
    return seconds(told[1] or told[2]) if told else None


def seconds(value: str) -> float | None:
    """From now on: of a number of seconds, a duration (`6m0s`, `120ms`), a moment (a date, or the
    seconds or milliseconds since 1970); None for anything else."""
    found = _seconds(value.strip().lower())
    return found if found is not None and found <= LONGEST_MEANT else None


def _seconds(value: str) -> float | None:
    parts = list(_PART.finditer(value)) if value.isascii() else []
    if parts and "".join(part[0] for part in parts) == value:
        if len(parts) == 1 and not parts[0][2]:
            number = float(parts[0][1])
            since = number / 1000 if number > 1e11 else number
            return max(0.0, since - time.time()) if number > 1e9 else number
        if all(part[2] in _UNITS for part in parts):
            return sum(float(part[1]) * _UNITS[part[2]] for part in parts)
    for read in (parsedate_to_datetime, datetime.fromisoformat):
        try:
            return max(0.0, read(value.upper()).timestamp() - time.time())
        except (ValueError, TypeError, OverflowError, IndexError, OSError):
            pass
    return None


def rates(headers: Mapping[str, str]) -> Rates:
    """What a reply says of the limits: for `requests` and `tokens` how many are left, and the
    seconds until it is more. What is not said, or makes no sense, is left out."""
    found = {}
    for unit in ("requests", "tokens"):
        names = [("x-ratelimit-{}-" + unit), ("anthropic-ratelimit-" + unit + "-{}")]
        if unit == "requests":
            names += ["x-ratelimit-{}", "ratelimit-{}"]
        for name in names:
            left = _number(headers.get(name.format("remaining"), ""))
            reset = seconds(headers.get(name.format("reset"), ""))
            if left is not None and reset is not None:
                found[unit] = left, reset
                break
    return found


def _number(value: str) -> float | None:
    try:
        number = float(value)
    except ValueError:
        return None
    return number if number >= 0 and math.isfinite(number) else None
