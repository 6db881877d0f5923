"""What one reply of an endpoint says: the contract of docs/teacher.md, for every dialect.

The names that providers use stand in tables; no provider has code of its own. Of what is received,
`read` makes an answer, or a NoAnswer that says why there is none, whatever the bytes are.
"""

import json
import math
import re
from dataclasses import dataclass
from typing import Any

from potstill.core.jsonl import unwritable, writable
from potstill.teacher import thinking
from potstill.teacher.limits import estimate

Path = tuple[str | int, ...]

# Where the message is: what holds it (and the finish reason), and its name there. OpenAI and all
# that follow it; Gemini's own; Ollama's own.
MESSAGES: list[tuple[Path, str]] = [
    (("choices", 0), "message"), (("candidates", 0), "content"), ((), "message")
]  # fmt: skip
WRAPPED = ("output", "result", "response", "data")  # a reply inside a reply: DashScope, gateways
CONTENT = ("content", "parts")
TEXT_PARTS = ("text", "output_text", None)  # types of parts; None: it has no type
THOUGHT_PARTS = (
    "thinking", "redacted_thinking", "reasoning", "reasoning_content", "reasoning_text", "thought",
    "reasoning.text", "reasoning.summary", "reasoning.encrypted", "summary_text",
)  # fmt: skip
THOUGHTS = ("reasoning_content", "reasoning", "thinking", "reasoning_text", "reasoning_details")
TEXTS = ("text", "thinking", "reasoning", "content", "summary", "data")  # of a thought
FINISH_FIELDS = ("finish_reason", "finishReason", "done_reason", "stop_reason")
FINISHED = {  # what counts, and what providers call it, in lower case with underscores
    "stop": """stop stopped eos eos_token end end_turn end_of_turn end_of_text end_of_sequence eot
        eot_id im_end s stop_sequence stop_token stop_word stop_words stop_str complete completed
        done finish finished success succeeded normal ok null none""",
    "length": """length max_tokens max_length max_new_tokens max_output_tokens
        max_completion_tokens model_length model_context_window_exceeded context_length
        context_length_exceeded token_limit limit truncated incomplete""",
    "content_filter": """content_filter content_filtered safety recitation blocklist spii
        prohibited_content image_safety sensitive moderation guardrail guardrail_intervened
        censored refusal refused""",
    "tool_calls": "tool_calls tool_call tool_use function_call malformed_function_call",
    # The endpoint gave up on its way: what came is no answer
    "error": """error errored abort aborted cancel cancelled canceled failed failure timeout
        network_error server_error insufficient_system_resource overloaded""",
}
THOUGHT = "thinking"  # the end of a reply that is thinking alone
_FINISH = {name: kind for kind, names in FINISHED.items() for name in names.split()}
USAGE: list[Path] = [
    ("usage",), ("usageMetadata",), ("usage_metadata",), ("x_groq", "usage"),
    ("choices", 0, "usage"), (),
]  # fmt: skip
COUNTS: dict[str, list[Path]] = {
    "in": [
        ("prompt_tokens",), ("input_tokens",), ("promptTokenCount",), ("inputTokens",),
        ("prompt_eval_count",), ("prompt_token_count",),
    ],
    "out": [
        ("completion_tokens",), ("output_tokens",), ("candidatesTokenCount",), ("outputTokens",),
        ("eval_count",), ("candidates_token_count",),
    ],
    "total": [("total_tokens",), ("totalTokenCount",), ("totalTokens",), ("total_token_count",)],
    "thought": [
        ("completion_tokens_details", "reasoning_tokens"),
        ("output_tokens_details", "reasoning_tokens"),
        ("reasoning_tokens",), ("thoughtsTokenCount",), ("thoughts_token_count",),
    ],
    "cached": [
        ("prompt_tokens_details", "cached_tokens"), ("input_tokens_details", "cached_tokens"),
        ("cached_tokens",), ("num_cached_tokens",), ("prompt_cache_hit_tokens",),
        ("cachedContentTokenCount",), ("cached_content_token_count",),
        ("cache_read_input_tokens",),
    ],
}  # fmt: skip
# Anthropic counts these beside input_tokens; who says prompt_tokens has them in it
BESIDE = ("cache_read_input_tokens", "cache_creation_input_tokens")
MOST_TOKENS = 1e7  # a count beyond is none
LIE = 16  # a count this many times below what the text must have is none
ERRORS = ("error", "errors", "detail", "base_resp", "message", "msg", "error_message")
WORDS = ("message", "msg", "status_msg", "detail", "error", "description", "reason", "raw", "title")
CODES = ("code", "status", "status_code", "http_code", "type", "reason")
STATUSES = {  # of errors that are told by a name
    400: "invalid_request_error invalid_argument bad_request content_filter "
    "content_policy_violation data_inspection_failed invalid_prompt failed_precondition",
    401: "authentication_error invalid_api_key unauthenticated unauthorized",
    402: "insufficient_balance payment_required billing_error",
    403: "permission_error permission_denied forbidden access_denied",
    404: "not_found_error not_found model_not_found",
    413: "request_too_large",
    429: "rate_limit_error rate_limit_exceeded rate_limited resource_exhausted too_many_requests "
    "insufficient_quota throttling tokens requests",
    500: "server_error internal_error internal internal_server_error api_error",
    503: "unavailable overloaded overloaded_error service_unavailable",
    504: "deadline_exceeded timeout gateway_timeout",
}
_STATUS = {name: status for status, names in STATUSES.items() for name in names.split()}


@dataclass(frozen=True)
class Reply:
    """An answer. `answer` is what may be learnt; `reasoning`, the thinking before it, and
    `refusal`, the words of a model that would not answer, are empty where there are none. Tokens
    are None where the endpoint said nothing that can be so."""

    answer: str
    reasoning: str
    refusal: str
    finish_reason: str
    prompt_tokens: int | None
    completion_tokens: int | None
    cached_tokens: int

    def fields(self) -> dict[str, Any]:
        """What is kept of it beside the answer, its end and its tokens, where there is any."""
        more = {name: getattr(self, name) for name in ("reasoning", "refusal", "cached_tokens")}
        return {name: value for name, value in more.items() if value}


@dataclass(eq=False)
class NoAnswer(Exception):
    """A reply without an answer. `tokens` (of prompt and answer) were billed for it; None: nobody
    knows. `status` is the HTTP status that an error inside a reply stands for, where it names one.
    `again`: another try may bring an answer."""

    reason: str
    tokens: tuple[int, int] | None = (0, 0)
    status: int | None = None
    again: bool = True


def read(raw: bytes, guessed: int = 0) -> Reply:
    """The answer in the body of a reply whose status is good; `guessed` is the number of tokens
    that the prompt may have. Raises NoAnswer, and nothing else."""
    try:
        body = json.loads(raw.decode("utf-8-sig"), parse_int=_int)
    except (ValueError, RecursionError):
        said = one_line(raw.decode("utf-8", "replace"))[:80]
        raise NoAnswer(f"no chat completion but {said!r}", tokens=None) from None
    try:
        return _read(body, guessed)
    except NoAnswer:
        raise
    except Exception as error:  # whatever surprises us: what was received goes to the journal
        said = str(error) if isinstance(error, ValueError) else type(error).__name__
        tokens_in, tokens_out, _ = _usage(body, 0, guessed)
        known = tokens_in or guessed, tokens_out or len(raw) // 3
        reason = f"an answer that cannot be used: {one_line(said)[:200]}"
        raise NoAnswer(reason, known, again=False) from None


def _read(body: Any, guessed: int) -> Reply:
    """As `read`, of JSON. Raises ValueError for an answer that is malformed."""
    if isinstance(body, list) and len(body) == 1:  # Gemini's errors
        body = body[0]
    usage = _usage(body, 0, 0)
    billed = usage[0] or 0, usage[1] or 0
    if isinstance(body, dict) and body.get("error"):
        raise _error(body["error"], billed)
    holder, message = _message(body)
    if holder is None:
        for inner in (body.get(name) for name in WRAPPED) if isinstance(body, dict) else ():
            holder, message = _message(inner) if holder is None else (holder, message)
    if holder is None or message is None:
        raise _without(body, billed)
    if holder.get("error"):
        raise _error(holder["error"], billed)
    said = next((holder[name] for name in FINISH_FIELDS if holder.get(name) is not None), None)
    reason = finish(said)
    if reason == "error":
        ended = one_line(str(said))[:40]
        raise NoAnswer(f"an answer that ended with finish_reason {ended}", billed)
    content = next((message[name] for name in CONTENT if message.get(name) is not None), None)
    text, thoughts, refusals = _parts(content)
    thoughts = [*(_thought(message.get(name)) for name in THOUGHTS), *thoughts]
    thought = next(filter(str.strip, thoughts), "")  # the same twice, by two names
    answer, marked = thinking.apart(text)
    if not text.strip() and thinking.CLOSE.search(thought):  # all of it in the wrong field
        answer, thought = thinking.apart(thought)
    thought = "\n".join(filter(str.strip, [thought, marked]))
    refusal = message.get("refusal")
    refusal = refusal if isinstance(refusal, str) or not refusal else json.dumps(refusal)[:1000]
    refused = " ".join(filter(None, [refusal or "", *refusals])).strip()
    if reason == "content_filter" and not refused and "refus" in str(said).lower():
        answer, refused = "", answer
    if problem := unwritable(answer):
        raise ValueError(problem)
    if reason == "stop" and not answer.strip():
        reason = "tool_calls" if message.get("tool_calls") else THOUGHT if thought else reason
    shown = estimate(answer + thought + refused) if answer or thought or refused else 0
    tokens_in, tokens_out, cached = _usage(body, shown, guessed)
    answer = "" if refused else answer
    return Reply(
        answer, writable(thought), one_line(refused), reason, tokens_in, tokens_out, cached
    )


def _message(body: Any) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
    """What holds the message, and the message; (None, None) where there is none."""
    for path, name in MESSAGES:
        holder = _at(body, path)
        if isinstance(holder, dict):
            if isinstance(holder.get(name), dict):
                return holder, holder[name]
            if path and isinstance(holder.get("text"), str):  # a completion without chat
                return holder, {"content": holder["text"]}
            if path and holder.get("error"):
                return holder, {}
    if isinstance(body, dict) and body.get("type") == "message":  # Anthropic's own
        return body, body
    return None, None


def _without(body: Any, billed: tuple[int, int]) -> NoAnswer:
    """Why JSON without a message is no answer: an error by another name, else its shape."""
    if not isinstance(body, dict):
        return NoAnswer(f"no chat completion but {_kind(body)}", billed)
    for name in ERRORS:
        if body.get(name):
            return _error(body if name in ("message", "msg") else body[name], billed)
    choices = body.get("choices")
    if isinstance(choices, list) and choices:
        first = choices[0]
        inner = f"message is {_kind(first.get('message'))}" if isinstance(first, dict) else ""
        what = f"choices[0] {inner or 'is ' + _kind(first)}"
    elif "choices" in body:
        what = f"choices is {_kind(choices)}"
    else:
        what = f"its keys are {one_line(', '.join(body))[:80] or 'none'}"
    return NoAnswer(f"no chat completion: {what}", billed)


def _error(error: Any, billed: tuple[int, int]) -> NoAnswer:
    """An error inside a reply, with its words."""
    while isinstance(error, list) and error:
        error = error[0]
    status = None
    if isinstance(error, dict):
        status = next(filter(None, (_status(error.get(name)) for name in CODES)), None)
    return NoAnswer(f"an error ({_words(error) or 'without words'})", billed, status)


def _status(code: Any) -> int | None:
    if isinstance(code, str) and not code.isdigit():
        return _STATUS.get(_snake(code))
    number = _count(code)
    return number if number and 400 <= number < 600 else None


def _words(error: Any, depth: int = 0) -> str:
    """What an error says, in one line of at most 300 characters."""
    if isinstance(error, dict) and depth < 4:
        found = [_words(error[name], depth + 1) for name in WORDS if error.get(name)]
        found += [_words(error["metadata"], depth + 1)] if "metadata" in error else []
        codes = [str(error[name]) for name in CODES if isinstance(error.get(name), str | int)]
        text = ": ".join(dict.fromkeys(filter(None, [*found, *([] if depth else codes)])))
    else:
        text = error if isinstance(error, str) else json.dumps(error)
    return one_line(text)[:300]


def _parts(content: Any) -> tuple[str, list[str], list[str]]:
    """Text, thoughts and refusals of a message's content. Raises ValueError for a content that is
    neither a text nor a list of such parts."""
    if content is None or isinstance(content, str):
        return content or "", [], []
    if not isinstance(content, list):
        raise ValueError(f"content is {_kind(content)}, expected a text")
    texts, thoughts, refusals = [], [], []
    for part in content:
        kind = part.get("type") if isinstance(part, dict) else None
        text = part.get("text") if isinstance(part, dict) else part
        if isinstance(part, dict) and (kind in THOUGHT_PARTS or part.get("thought") is True):
            thoughts.append(_thought(part))
        elif isinstance(part, dict) and kind == "refusal" and isinstance(part.get(kind), str):
            refusals.append(part["refusal"])
        elif isinstance(text, str) and kind in TEXT_PARTS:
            texts.append(text)
        else:
            named = one_line(f"of type {kind}")[:60] if isinstance(kind, str) else _kind(part)
            raise ValueError(f"content has a part {named}, expected text")
    return "".join(texts), ["\n".join(thoughts)], refusals


def _thought(value: Any, depth: int = 0) -> str:
    """The text of a thought: a text, a part or a list of them; it is kept, never learnt."""
    if isinstance(value, dict) and depth < 8:
        found = (_thought(value[name], depth + 1) for name in TEXTS if value.get(name))
        return next(filter(None, found), "")
    if isinstance(value, list) and depth < 8:
        return "\n".join(filter(None, (_thought(one, depth + 1) for one in value)))
    return value if isinstance(value, str) else ""


def finish(said: Any) -> str:
    """How an answer ended: a key of FINISHED, or the endpoint's own word where it is none of them.
    Raises ValueError when it is no word."""
    if isinstance(said, dict):  # SGLang's own: {"type": "stop", "matched": 2}
        said = said.get("type")
    if said is None:
        return "stop"
    if not isinstance(said, str):
        raise ValueError(f"finish_reason is {_kind(said)}, expected a text")
    word = re.sub(r"^finish_?reason_?", "", _snake(said))
    return _FINISH.get(word or "stop") or one_line(said)[:40]


def _snake(name: str) -> str:
    """The first word of a name, `MaxTokens`, `max-tokens` and `MAX_TOKENS: …` alike."""
    name = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name.strip()).replace("-", "_").replace(".", "_")
    return next(iter(re.findall(r"\w+", name)), "").strip("_").lower()


def _usage(body: Any, shown: int, guessed: int) -> tuple[int | None, int | None, int]:
    """Tokens of the prompt and of the answer, thinking included, and those of the prompt that were
    cached. None: not said, or less than a LIEth of the `guessed` and the `shown` ones, or of
    nothing where something is there. Reasoning may stand in the total alone."""
    places = [body, *(body.get(name) for name in WRAPPED)] if isinstance(body, dict) else []
    found: dict[str, int] = {}
    for used in (_at(place, path) for place in places for path in USAGE):
        if not isinstance(used, dict):
            continue
        beside = sum(_count(used.get(name)) or 0 for name in BESIDE)
        for name, paths in COUNTS.items():
            for path in paths:
                if (count := _count(_at(used, path))) is not None:
                    found[name] = count + beside * (path == ("input_tokens",))
                    break
        if found:
            break
    tokens_in, tokens_out, total = (found.get(name) for name in ("in", "out", "total"))
    if total is not None:
        tokens_out = max(tokens_out or 0, total - (tokens_in or 0))
    if tokens_in is None and total is not None and "out" in found:
        tokens_in, tokens_out = total - found["out"], found["out"]
    if found.get("thought", 0) > (tokens_out or 0):  # beside, not within
        tokens_out = (tokens_out or 0) + found["thought"]
    if tokens_in is not None and tokens_in * LIE <= guessed:
        tokens_in = None
    if tokens_out is not None and (tokens_out * LIE < shown or tokens_out == 0 < shown):
        tokens_out = None
    return tokens_in, tokens_out, min(found.get("cached", 0), tokens_in or 0)


def _count(value: Any) -> int | None:
    """A number of tokens, which may be a text; None for what is none."""
    if isinstance(value, str):
        try:
            value = float(value.strip())
        except ValueError:
            return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return math.ceil(value) if 0 <= value <= MOST_TOKENS else None


def _at(value: Any, path: Path) -> Any:
    """What stands at a place inside a JSON value; None where that is not there."""
    for step in path:
        if isinstance(step, int):
            value = value[step] if isinstance(value, list) and len(value) > step else None
        else:
            value = value.get(step) if isinstance(value, dict) else None
    return value


def _int(digits: str) -> float:
    return int(digits) if len(digits) < 20 else float(digits)


def _kind(value: Any) -> str:
    """What a JSON value is, for a reader."""
    if value is None or isinstance(value, bool):
        return "null" if value is None else "true or false"
    empty = "empty " if value in ("", [], {}) else ""
    nouns = [(str, "text"), (list, "list"), (dict, "object")]
    noun = next((noun for kind, noun in nouns if isinstance(value, kind)), "number")
    return f"{'an' if empty or noun == 'object' else 'a'} {empty}{noun}"


def one_line(text: str) -> str:
    """The text in one line that can be written."""
    return writable(" ".join(text.split()))
