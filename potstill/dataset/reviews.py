"""own/reviews.jsonl: what people said of the teacher's answers, a line each; the last one counts.

Verdict: {"id": "…", "answer": "5f0c0ff7a1b2c3d4", "verdict": "accept", "checks": true, "by": "Li",
         "at": "2026-11-21T09:00:00Z"}
Edit:    the same with "verdict": "edit" and "output": the text that replaces the answer
Ranking: {"id": "…", "answers": ["5f0c0ff7a1b2c3d4", "77ab00c1d2e3f405"], "verdict": "b", …}
"""

import fcntl
import json
import os
import re
from dataclasses import dataclass, field
from pathlib import Path

from potstill.core.errors import UserError
from potstill.core.jsonl import Row, parse_row, row_id

FILE = Path("own/reviews.jsonl")  # in the data folder; may be missing
VERDICTS, RANKS = ("accept", "reject", "edit"), ("a", "b", "tie")


@dataclass
class Reviews:
    """What was said last: `verdicts` by id and answer, `rankings` by id and both answers in the
    order of their hashes."""

    verdicts: dict[tuple[str, str], Row] = field(default_factory=dict)
    rankings: dict[tuple[str, str, str], Row] = field(default_factory=dict)

    def verdict(self, id: str, answer: str) -> Row | None:
        """The last verdict on the text `answer` to the row `id`."""
        # Without verdicts nothing is hashed: a million hashes take seconds.
        return self.verdicts.get((id, answer_hash(answer))) if self.verdicts else None

    def ranking(self, id: str, one: str, other: str) -> str | None:
        """Which of two texts is the better answer to the row `id`: "a" (`one`), "b" (`other`),
        "tie"; None = not ranked."""
        first, second = sorted(map(answer_hash, (one, other)))
        row = self.rankings.get((id, first, second))
        if row is None:
            return None
        if row["verdict"] == "tie":
            return "tie"
        return "a" if row["answers"][RANKS.index(row["verdict"])] == answer_hash(one) else "b"

    def add(self, row: Row) -> None:
        """Takes in a valid row; what was said before of the same answers no longer counts."""
        if "answers" in row:
            first, second = sorted(row["answers"])
            self.rankings[row["id"], first, second] = row
        else:
            self.verdicts[row["id"], row["answer"]] = row


def answer_hash(answer: str) -> str:
    """What stands for an answer's text in reviews.jsonl: 16 hex digits."""
    return row_id({"answer": answer})


def load(path: str | Path) -> Reviews:
    """The reviews of a file; none when it is empty or missing. Raises UserError with file and line
    for the first row that is wrong."""
    path, reviews = Path(path), Reviews()
    raw = path.read_bytes() if path.is_file() else b""
    for number, line in enumerate(raw.removesuffix(b"\n").split(b"\n") if raw else [], 1):
        row = parse_row(line, f"{path}:{number}")
        if fault := _fault(row):
            raise UserError(f"{path}:{number}: {fault}: mend or delete the line")
        reviews.add(row)
    return reviews


def _fault(row: Row) -> str | None:
    """What is wrong with a row, or None."""
    ranks = "answers" in row
    name, allowed = ("answers", RANKS) if ranks else ("answer", VERDICTS)
    given, verdict = row.get(name), row.get("verdict")
    hashes = given if ranks else [given]
    if not isinstance(row.get("id"), str):
        return f"id is {row.get('id')!r}, expected a text"
    digits = re.compile("[0-9a-f]{16}")
    if not isinstance(hashes, list) or not all(digits.fullmatch(str(hash)) for hash in hashes):
        return f"{name} is {given!r}, expected 16 hex digits"
    if ranks and len(set(hashes)) != 2:
        return f"answers is {hashes!r}, expected two different ones"
    if verdict not in allowed:
        return f"verdict is {verdict!r}, expected one of {', '.join(allowed)}"
    if verdict == "edit" and not isinstance(row.get("output"), str):
        return f"output is {row.get('output')!r}, expected the text of the edit"
    return None


def append(path: str | Path, row: Row) -> bytes:
    """Adds one line, which is on disk when this returns, and returns it. The file stays as it was
    when anything fails."""
    line = json.dumps(row, ensure_ascii=False).encode() + b"\n"
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b", buffering=0) as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        end = file.seek(0, os.SEEK_END)
        file.seek(max(end - 1, 0))
        between = b"" if file.read(1) in (b"", b"\n") else b"\n"  # a last line typed by hand
        try:
            if file.write(between + line) != len(between + line):
                raise OSError(f"{path}: the line was not written whole")
            os.fsync(file.fileno())
        except BaseException:
            file.truncate(end)
            raise
    return line


def take_back(path: str | Path, line: bytes) -> bool:
    """Removes the last line when it is `line`; False when it is another by now."""
    with Path(path).open("r+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        start = file.seek(0, os.SEEK_END) - len(line)
        file.seek(max(start, 0))
        if start < 0 or file.read() != line:
            return False
        file.truncate(start)
        os.fsync(file.fileno())
    return True
