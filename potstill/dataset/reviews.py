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
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import FileIO
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

    def last(self, row: Row) -> Row | None:
        """The row that counts for the same answers as a valid `row`, if there is one."""
        if "answers" not in row:
            return self.verdicts.get((row["id"], row["answer"]))
        first, second = sorted(row["answers"])
        return self.rankings.get((row["id"], first, second))

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


def mark(row: Row | None) -> str:
    """What stands for the row that counts now: 16 hex digits, "" where nothing was said."""
    return row_id(row) if row else ""


@contextmanager
def _locked(path: Path) -> Iterator[FileIO]:
    """The file, made where it is missing, while nobody else writes to it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        with path.open("a+b", buffering=0) as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            # another file has the name by now where somebody took a line back, or git wrote it
            if path.exists() and os.path.samestat(os.fstat(file.fileno()), path.stat()):
                yield file
                return


def append(path: str | Path, row: Row, seen: str | None = None) -> bytes:
    """Adds one line, which is on disk when this returns, and returns it. The file stays as it was
    when anything fails. Raises UserError when what counts for the row's answers is no more what
    the person saw, whose `mark` is `seen`."""
    line = json.dumps(row, ensure_ascii=False).encode() + b"\n"
    path = Path(path)
    with _locked(path) as file:
        if seen is not None and mark(found := load(path).last(row)) != seen:
            again = "it is shown now; say it again if you still mean it"
            raise UserError(f"{_told(found)} after this page had read it: {again}")
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


def _told(row: Row | None) -> str:
    """What another window or person has done, as the start of a sentence."""
    if not row:
        return "the verdict on this was taken back"
    return f"{row.get('by', 'somebody')} said {row['verdict']!r} of this"


def take_back(path: str | Path, line: bytes) -> bool:
    """Removes a line that `append` wrote, wherever it stands by now; False when it is gone."""
    path = Path(path)
    with _locked(path) as file:
        file.seek(0)
        before, found, after = file.read().rpartition(line)
        if not found:
            return False
        part = path.with_name(path.name + ".part")
        try:
            with part.open("wb") as rest:
                rest.write(before + after)
                rest.flush()
                os.fsync(rest.fileno())
            shutil.copymode(path, part)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
        part.replace(path)  # the last step: the new file is not locked
    return True
