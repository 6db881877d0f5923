"""potstill.teacher.journal: what was put is on disk; damage costs the damaged lines and nothing
else."""

import asyncio
import errno
import fcntl
import os
import re
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from potstill.core import project
from potstill.core.jsonl import Row
from potstill.teacher import journal
from potstill.teacher.journal import GROUP, Journal


def key(i: int) -> str:
    """A key as the engine's, which begins with `i`."""
    return f"{i:015x}".ljust(32, "f")


def row(i: int, answer: str = "x", reason: str = "stop", max_tokens: int = 10) -> Row:
    return {"key": key(i), "answer": answer, "finish_reason": reason, "max_tokens": max_tokens}


def write(path: Path, found: Iterable[Row], own: bool = False) -> None:
    async def main() -> None:
        kept = Journal(path, own)
        for one in found:
            await kept.put(one)
        await kept.flush()

    asyncio.run(main())


def answer(found: Journal, i: int, max_tokens: int = 0) -> str | None:
    """The text of the answer under key i."""
    one = found.find(key(i), max_tokens)
    assert found.has(key(i), max_tokens) == (one is not None)
    return None if one is None else str(one["answer"])


def test_answers_come_back_byte_for_byte(tmp_path: Path) -> None:
    path = tmp_path / "sub" / "j.jsonl"
    odd = ["", "中文 😀", "line\nbreak", '"}', "\\ud83d \\u0000", "\u2028", "x" * 100_000]
    write(path, [row(i, text) for i, text in enumerate(odd)])
    found = Journal(path)
    assert [answer(found, i) for i in range(len(odd))] == odd
    assert found.damaged == 0


def test_an_answer_of_an_earlier_release_that_cannot_be_written_is_none(tmp_path: Path) -> None:
    path = tmp_path / "j.jsonl"
    bad = ["half \ud83d", "\x00", "\x1b[31m", "\x7f", "\x85"]
    write(path, [row(i, text) for i, text in enumerate(bad)])
    write(path, [row(9, "right", "eos"), row(8, '{"cut', "MAX_TOKENS")])
    found = Journal(path)
    assert [answer(found, i) for i in range(5)] == [None] * 5
    assert found.damaged == 0 and found.used[""].billed()[1] > 0  # paid for all the same
    whole, cut = found.find(key(9), 0), found.find(key(8), 0)
    assert whole and whole["finish_reason"] == "stop"
    assert cut and cut["finish_reason"] == "length"
    assert found.find(key(8), 99) is None


def test_groups_are_written_at_once_and_small_ones_after_a_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    groups: list[int] = []
    append = Journal._append

    def counted(kept: Journal, group: list[Row]) -> None:
        groups.append(len(group))
        append(kept, group)

    monkeypatch.setattr(Journal, "_append", counted)

    async def main() -> None:
        kept = Journal(tmp_path / "j.jsonl")
        for i in range(GROUP + 1):
            await kept.put(row(i))
        assert groups == [GROUP]
        await asyncio.sleep(journal.DELAY * 4)
        assert groups == [GROUP, 1]  # without a close
        assert len(Journal(tmp_path / "j.jsonl")) == GROUP + 1
        await asyncio.gather(*(kept.put(row(1000 + i)) for i in range(500)))
        await kept.flush()

    asyncio.run(main())
    assert max(groups) <= GROUP
    assert sum(groups) == GROUP + 1 + 500
    assert len(Journal(tmp_path / "j.jsonl")) == GROUP + 1 + 500


@pytest.mark.parametrize(
    ("damage", "lost", "counted"),
    [
        (lambda data: data[:-7], {4}, 1),  # a torn tail
        (lambda data: data[:-1], set(), 0),  # only the line break is missing
        (lambda data: data.replace(b'"answer":"2"', b'"answer":"3"'), {2}, 1),  # a flipped byte
        (lambda data: data.replace(b'"answer":"2"', b'"answer":"\xff"'), {2}, 1),  # bad UTF-8
        (lambda data: data + data.split(b"\n")[1] + b"\n", set(), 0),  # a line twice
        (lambda data: data + b"\0" * 512, set(), 1),
        (lambda data: data.replace(b"\n", b"\n\0\0\n", 1), set(), 1),
        (lambda data: data + b"\n\n", set(), 0),
        (lambda data: b"[1]\n{}\nnull\n" + data, set(), 3),
        (lambda data: b"", {0, 1, 2, 3, 4}, 0),
    ],
)
def test_damage_costs_only_the_damaged_lines(
    tmp_path: Path, damage: object, lost: set[int], counted: int
) -> None:
    path = tmp_path / "j.jsonl"
    write(path, [row(i, str(i)) for i in range(5)])
    path.write_bytes(damage(path.read_bytes()))  # type: ignore[operator]
    found = Journal(path)
    assert {i for i in range(5) if answer(found, i) is not None} == set(range(5)) - lost
    assert found.damaged == counted
    write(path, [row(9)])  # goes to a line of its own, whatever the tail looks like
    again = Journal(path)
    assert [answer(again, i) for i in (*range(5), 9)] == [
        None if i in lost else str(i) for i in range(5)
    ] + ["x"]


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=40), st.integers(0, 400), st.integers(0, 20))
def test_no_damage_makes_an_answer_up(
    tmp_path_factory: pytest.TempPathFactory, junk: bytes, at: int, cut: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "damaged.jsonl"
    data = b"".join(journal._encode(row(i, f"answer {i}")) for i in range(4))
    path.write_bytes(data[:at] + junk + data[at + cut :])
    found = Journal(path)
    assert len(found) <= 4
    for i in range(4):
        assert found.find(key(i), 0) in (None, row(i, f"answer {i}"))


def test_a_cut_off_answer_does_not_satisfy_a_larger_limit(tmp_path: Path) -> None:
    path = tmp_path / "j.jsonl"
    write(path, [row(1, "whole"), row(2, "cut", "length", 10)])
    found = Journal(path)
    assert [bool(found.find(key(i), limit)) for i in (1, 2, 3) for limit in (5, 10, 11)] == [
        True, True, True, True, True, False, False, False, False,
    ]  # fmt: skip
    write(path, [row(2, "longer, but cut", "length", 20), row(2, "shorter", "length", 5)])
    assert answer(Journal(path), 2, 20) == "longer, but cut"
    assert answer(Journal(path), 2, 21) is None
    write(path, [row(2, "whole"), row(2, "another"), row(2, "cut", "length", 99)])
    assert answer(Journal(path), 2, 1000) == "whole"


@pytest.mark.parametrize("close_only", [True, False])
def test_a_full_disk_is_raised_and_leaves_no_torn_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, close_only: bool
) -> None:
    path = tmp_path / "j.jsonl"
    write(path, [row(0)])
    before = path.read_bytes()
    real, room = os.write, [10]

    def short_then_full(fd: int, data: bytes) -> int:
        if not room:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(fd, data[: room.pop()])

    async def main() -> None:
        kept = Journal(path)
        await kept.put(row(1))
        if not close_only:
            await asyncio.sleep(journal.DELAY * 3)
        with pytest.raises(OSError, match="No space left") as error:
            await (kept.flush() if close_only else kept.put(row(2)))
        assert error.value.filename == str(path)

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", short_then_full)
        asyncio.run(main())
    assert path.read_bytes() == before
    write(path, [row(1)])
    assert [answer(Journal(path), i) for i in range(3)] == ["x", "x", None]


def test_two_writers_do_not_mix_lines(tmp_path: Path) -> None:
    path = tmp_path / "j.jsonl"

    async def main() -> None:
        both = [Journal(path), Journal(path)]
        await asyncio.gather(*(both[i % 2].put(row(i, "y" * 5000)) for i in range(400)))
        for one in both:
            await one.flush()

    asyncio.run(main())
    found = Journal(path)
    assert (len(found), found.damaged) == (400, 0)


def test_a_journal_sees_what_another_process_appended(tmp_path: Path) -> None:
    path = tmp_path / "j.jsonl"
    mine, other = Journal(path), Journal(path)

    async def put(kept: Journal, one: Row) -> None:
        await kept.put(one)
        assert kept.has(one["key"], 0)  # at once, so that nobody asks for it again
        await kept.flush()

    asyncio.run(put(other, row(1, "theirs")))
    assert answer(mine, 1) is None
    asyncio.run(put(mine, row(2, "mine")))
    assert [answer(mine, i) for i in (1, 2)] == ["theirs", "mine"]


def test_a_malformed_reply_is_kept_and_never_an_answer(tmp_path: Path) -> None:
    path = tmp_path / "j.jsonl"
    write(path, [row(1, "<html>", journal.MALFORMED)])
    assert answer(Journal(path), 1) is None
    assert "<html>" in path.read_text()
    write(path, [row(1, "right")])
    assert answer(Journal(path), 1) == "right"


def test_what_the_answers_took_is_summed_by_model(tmp_path: Path) -> None:
    path = tmp_path / "j.jsonl"
    took = {"prompt_tokens": 10, "completion_tokens": 3, "seconds": 0.5, "estimated": 12}
    write(
        path,
        [row(i) | {"model": "a" if i < 3 else "b"} | took for i in range(4)]
        + [row(9) | {"model": "b"}],
    )
    assert Journal(path).used == {
        "a": journal.Used(3, 30, 9, 1.5, 36),
        "b": journal.Used(2, 10, 7, 0.5, 12),
    }  # 4 of the 7 guessed


# ---- one file a writer


def files(path: Path) -> list[Path]:
    """The files of writers, the oldest first."""
    return sorted(path.with_suffix(".writers").iterdir())


def test_writers_with_files_of_their_own_are_one_journal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "OPEN", 2)
    path = tmp_path / "j.jsonl"
    write(path, [row(0, "of one machine")])
    before = path.read_bytes()
    writers = [Journal(path, own=True) for _ in range(4)]

    async def put() -> None:
        for i in range(1, 41):
            await writers[i % 4].put(row(i, str(i)) | {"model": "m", "prompt_tokens": 10})
        for one in writers:
            await one.flush()

    asyncio.run(put())
    assert path.read_bytes() == before
    assert len(files(path)) == 4
    found = Journal(path)
    assert [answer(found, i) for i in range(41)] == ["of one machine", *map(str, range(1, 41))]
    assert (found.damaged, found.used["m"].prompt_tokens, found.mine.prompt_tokens) == (0, 400, 0)
    for one in writers:
        one.refresh()
        one.refresh()
        assert [answer(one, i) for i in range(1, 41)] == list(map(str, range(1, 41)))
        assert (one.used["m"].prompt_tokens, one.mine.prompt_tokens) == (400, 100)
    for _ in "ab":  # what others write is seen while this process writes
        write(path, [row(50, "theirs")], own=True)
        asyncio.run(writers[0].put(row(51)))
        asyncio.run(writers[0].flush())
    assert answer(writers[0], 50) == "theirs"


def test_a_file_that_is_not_listed_yet_is_read_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a network file system, whose client remembers what a folder had."""
    path = tmp_path / "j.jsonl"
    mine = Journal(path)
    write(path, [row(1, "theirs")], own=True)
    [name] = [file.name for file in files(path)]
    monkeypatch.setattr(Path, "glob", lambda self, pattern: iter(()))
    mine.refresh()
    assert answer(mine, 1) is None
    mine.refresh([name, "gone-since.jsonl"])
    assert answer(mine, 1) == "theirs"


def test_of_two_answers_all_take_that_of_the_older_file(tmp_path: Path) -> None:
    path = tmp_path / "j.jsonl"
    both = [Journal(path, own=True) for _ in "ab"]

    async def put() -> None:
        for one, text in zip(both, ("first", "second"), strict=True):
            await one.put(row(1, text))
            await one.flush()
            await asyncio.sleep(0.002)  # the names begin with the milliseconds

    asyncio.run(put())
    for one in (*both, Journal(path)):
        one.refresh()
        assert answer(one, 1) == "first"
    write(path, [row(1, "of the one machine")])
    both[1].refresh()
    assert answer(both[1], 1) == answer(Journal(path), 1) == "of the one machine"
    write(path, [row(2, "cut", "length", 10)])
    write(path, [row(2, "whole")], own=True)
    assert answer(Journal(path), 2, 99) == "whole"


def test_half_a_line_of_another_writer_is_read_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "j.jsonl"
    write(path, [row(1), row(2)], own=True)
    [file] = files(path)
    data = file.read_bytes()
    file.write_bytes(data[:-20])
    found = Journal(path)
    assert [answer(found, 1), answer(found, 2), found.damaged] == ["x", None, 0]
    file.write_bytes(data)
    found.refresh()
    assert [answer(found, 1), answer(found, 2), found.damaged] == ["x", "x", 0]
    file.write_bytes(data.replace(b'"answer":"x"', b'"answer":"y"', 1))
    assert [answer(Journal(path), 1), Journal(path).damaged] == [None, 1]


def test_on_a_network_file_system_each_process_has_its_own_file_and_needs_no_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, mounts = tmp_path / "a folder/j.jsonl", tmp_path / "mounts"
    write(path, [row(1, "before")])
    place = str(path.parent).replace(" ", "\\040")
    lines = [f"1 0 0:1 / {at} rw - {kind} x rw" for at, kind in (("/", "ext4"), (place, "nfs4"))]
    mounts.write_text("\n".join(lines))
    monkeypatch.setattr(project, "MOUNTS", mounts)

    def none(fd: int, how: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", none)
    write(path, [row(2, "after")])
    assert [answer(Journal(path), i) for i in (1, 2)] == ["before", "after"]
    assert len(files(path)) == 1
    assert not Journal(tmp_path / "j.jsonl").own


@settings(max_examples=60, deadline=None)
@given(
    st.text(max_size=8),
    st.sampled_from(["stop", "length", "malformed", None]),
    st.sampled_from([None, 0, 7]),
    st.sampled_from([{}, {"seconds": 0.25}, {"seconds": 2.0, "price_share": 0.5}]),
)
def test_a_usual_line_is_counted_and_indexed_as_any_other(
    tmp_path_factory: pytest.TempPathFactory,
    text: str,
    reason: str | None,
    took: int | None,
    more: Row,
) -> None:
    path = tmp_path_factory.getbasetemp() / "usual.jsonl"
    one: Row = {"key": key(1), "model": "m", "max_tokens": 10, "answer": text}
    one |= {"finish_reason": reason, "prompt_tokens": took, "completion_tokens": took}
    path.write_bytes(journal._encode(one | {"estimated": 9} | more) + journal._encode(row(2)))
    usual = Journal(path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(journal, "_USUAL", re.compile(b"never"))
        other = Journal(path)
    for name in ("used", "damaged", "_index", "_failed_keys"):
        assert getattr(usual, name) == getattr(other, name)
