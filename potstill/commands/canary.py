"""`make canary`: the student and the one on trial beside it (`make serve CANARY=FOLDER`), compared
by the share of answers that pass the checks; and the end of the trial.

--do promote   the canary is served from now on: by the server that runs, and by the next
--do rollback  the student is, likewise; also after `promote`
--do auto      whichever the test says; nothing where it says nothing

Each different input counts once, by its latest answer. It went to one of the two by its hash, so
both have a random part of what is asked, and Fisher's exact test says whether their shares differ
by more than chance. An answer that the canary did not give counts as one that fails.
"""

import argparse
from collections import Counter
from collections.abc import Iterator

from potstill.core import stage
from potstill.core.errors import UserError
from potstill.core.jsonl import Row
from potstill.evaluation import statistics
from potstill.evaluation.statistics import count, p_text
from potstill.serving import capture, confidence, served
from potstill.task import settings
from potstill.task.settings import Task

FEWEST = 30  # different inputs of each side; with fewer nothing is said
WAYS = {"promote": served.PROMOTED, "rollback": served.BACK}
NONE = "no answer"  # where the canary gave none


def sides(t: Task, found: Row, rows: list[Row]) -> dict[str, list[list[str]]]:
    """What the answers of each side fail, by the names of the checks: a list for each input."""
    latest: dict[str, dict[str, list[str]]] = {"student": {}, "canary": {}}
    for side, row in served.of_trial(rows, found):
        failed = [name for name in row["failed"] if name != confidence.NAME]
        failed = [NONE] if "canary" in row else failed
        latest[side][t.fingerprint(row["input"])] = failed
    return {side: list(of.values()) for side, of in latest.items()}


def table(found: Row, failed: dict[str, list[list[str]]]) -> Iterator[str]:
    """The shares that pass, and what fails, a line each."""
    yield f"  {'':22}{'inputs':>8}{'pass':>8}  95 % interval"
    for side, of in failed.items():
        right = sum(not names for names in of)
        low, high = statistics.wilson(right, len(of))
        share = f"{right / len(of):.1%}" if of else "-"
        name = f"{side} {found[side]}"
        yield f"  {name:22}{len(of):>8,}{share:>8}  {low:.1%} to {high:.1%}"
    counts = {side: Counter(name for names in of for name in names) for side, of in failed.items()}
    for name in sorted(set().union(*counts.values())):
        parts = [f"{side} {counts[side][name]:,}" for side in failed]
        yield f"  fails {name}: {', '.join(parts)}"


def verdict(failed: dict[str, list[list[str]]]) -> tuple[str, str]:
    """What the test says of the canary, as a sentence; and the way of WAYS that follows, or ""."""
    counts = {side: (sum(not names for names in of), len(of)) for side, of in failed.items()}
    if min(rows for _, rows in counts.values()) < FEWEST:
        return f"too few to say: expected {FEWEST} different inputs of each", ""
    p = statistics.fisher(counts["canary"], counts["student"])
    shares = {side: right / rows for side, (right, rows) in counts.items()}
    says = statistics.difference(p, shares["canary"] > shares["student"])
    said = f"the canary is {says} by its checks (Fisher's exact test, p {p_text(p)})"
    return said, {"better": "promote", "worse": "rollback"}.get(says, "")


def main() -> None:
    parser = argparse.ArgumentParser(prog="potstill canary")
    parser.add_argument("--do", choices=[*WAYS, "auto"])
    given = parser.parse_args()
    t = settings.load()
    if (found := served.trial(t)) is None:
        raise UserError("there is no trial: `make serve CANARY=<folder of a student>` begins one")
    try:
        rows = capture.read(t, found["began"])
    except UserError:
        if given.do in (None, "auto"):
            raise
        rows = []  # a trial may be ended all the same
    failed = sides(t, found, rows)
    ended = f", {found['ended']} {found['at']}" if found["ended"] else ""
    kept = count(sum(map(len, failed.values())), "different input")
    print(f"canary: {found['share']:.4g} of the inputs since {found['began']}{ended}; {kept}")
    print(*table(found, failed), sep="\n")
    said, way = verdict(failed)
    print(f"canary: {said}")
    if given.do == "auto" and found["ended"]:
        print("canary: the trial has ended; `DO=promote` or `DO=rollback` changes that")
        return
    if given.do not in (None, "auto"):
        way = given.do
    if given.do and way:
        chosen = served.end(t, found, WAYS[way])
        print(f"canary: {WAYS[way]}; {chosen} is served now, and by the next `make serve`")
    elif given.do:
        print("canary: nothing was changed; more inputs may tell, or decide yourself")
    elif not found["ended"]:
        print("  make canary DO=promote    the canary is served from now on")
        print("  make canary DO=rollback   the student is")


if __name__ == "__main__":
    stage.run(main)
