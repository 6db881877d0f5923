"""What the gateway counts, for Prometheus: it stands beside vLLM's own under GET /metrics.

The registry is the process's own, prometheus_client.REGISTRY: vLLM's server shows what is in it.
"""

from collections.abc import Iterable

from prometheus_client import Counter, Histogram

OUTCOMES = ("answered", "refused", "failed", "left")
STUDENTS = ("student", "canary")
WHO = (*STUDENTS, "teacher")
# Why a row that should have been kept was not
WHY = ("busy", "large", "redacted", "redact_error", "disk", "error")
SECONDS = (0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1, 1.5, 2, 3, 5, 10, 30, 60)

REQUESTS = Counter(
    "potstill_requests",
    "Requests by what became of them: answered, refused (4xx), failed (5xx), or the client left",
    ["outcome"],
)
ANSWERED = Histogram(
    "potstill_answer_seconds",
    "Seconds from a request's head to the end of its answer, by who answered",
    ["by"],
    buckets=SECONDS,
)
JUDGED = Counter(
    "potstill_judged",
    "Answers that the task's checks have judged, by the student that gave",
    ["by"],
)
FAILED = Counter(
    "potstill_failed_checks", "Of these, those that fail a check, by its name", ["check", "by"]
)
CANARY_UNAVAILABLE = Counter(
    "potstill_canary_unavailable", "Answers of the student where the canary gave none"
)
UNAVAILABLE = Counter(
    "potstill_teacher_unavailable", "Answers that fail a check where the teacher gave none"
)
COST = Counter(
    "potstill_teacher_cost", "What the teacher's new answers cost, in the unit of its prices"
)
CAPTURED = Counter("potstill_captured", "Rows kept in data/captured")
DROPPED = Counter("potstill_dropped", "Rows that were to be kept and were not, by why", ["why"])

# A series that is there from the start can be told from one that is missing.
_KNOWN = ((REQUESTS, OUTCOMES), (ANSWERED, WHO), (DROPPED, WHY), (JUDGED, STUDENTS))
for _counter, _values in _KNOWN:
    for _value in _values:
        _counter.labels(_value)


def outcome(status: int) -> str:
    """One of OUTCOMES for the status of a reply, 0 where none was sent."""
    return "left" if not status else OUTCOMES[min(2, max(0, status // 100 - 3))]


def judged(failed: Iterable[str], by: str) -> None:
    """Counts one answer of the student or the canary, which fails the checks of these names."""
    JUDGED.labels(by).inc()
    for name in failed:
        FAILED.labels(name, by).inc()
