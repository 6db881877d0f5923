"""One shard of the teacher's questions, for a launcher (potstill/core/launch.py)."""

import asyncio
import hashlib
import json
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from potstill.core.errors import UserError
from potstill.core.jsonl import Row
from potstill.teacher import asking, lease
from potstill.teacher.client import Client, UsedUp
from potstill.teacher.endpoint import Request
from potstill.teacher.journal import Journal

LEFT = "the stage that these questions belong to has ended: run it again"


def ask(
    asked: str,
    sha256: str,
    count: int,
    journal: str,
    run: str,
    ends: bool,
    model: str,
    params: dict[str, Any],
    schema: Row | None,
    held: int,
) -> Row:
    """Has `count` questions of the file `asked` answered into a file of the journal that is this
    process's own, and says what came of them. `ends`: whether it ends with its stage. Raises
    UserError when the endpoint cannot be used, when requests stay without an answer, and once `run`
    has the journal's lease no more."""
    with Path(asked).open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != sha256:
            raise UserError(f"{asked} is not as it was written: {LEFT}")
    p, short = SimpleNamespace(**params), False
    watch = lease.Watch(Path(journal), lease.ORPHANED)
    while _is_ours(watch, run) and watch.signs < 2 and not ends:  # a sign that its stage lives
        time.sleep(lease.POLL)
    if not _is_ours(watch, run):
        raise UserError(LEFT)
    # Begun again, it must not spend its part of the budget again
    kept = Journal(Path(journal), own=True, part=f"-{run}-{Path(asked).stem}")
    with asking.open_endpoint(p, model) as endpoint:
        client = Client(endpoint, kept, held + count, run, lent=True)
        client.held = held
        try:
            asyncio.run(_ask(client, _requests(Path(asked), schema), watch, run))
        except UsedUp:
            short = True
        sent, lost = endpoint.asked, endpoint.ambiguous
    found: Row = {"failed": client.failed, "short": short, "answered": client.answered}
    found |= {"files": kept.written(), "sent": sent, "retries": client.retries, "lost": lost}
    return found | {"took": asdict(client.took)}


async def _ask(client: Client, requests: Iterator[Request], watch: lease.Watch, run: str) -> None:
    async def heed() -> None:
        ours = True
        while ours:
            await asyncio.sleep(lease.BEAT)
            with suppress(OSError):  # of a network file system, for a moment
                ours = await asyncio.to_thread(_is_ours, watch, run)
        client.error = client.error or UserError(LEFT)
        client.endpoint.stopping.set()

    async with client.session():
        heeding = asyncio.create_task(heed())
        try:
            await client.ask(requests)
        finally:
            heeding.cancel()


def _is_ours(watch: lease.Watch, run: str) -> bool:
    holder = watch.holder()
    return holder is not None and holder["run"] == run


def _requests(path: Path, schema: Row | None) -> Iterator[Request]:
    """The questions, as sharded.ask wrote them."""
    first: Any = None
    with path.open("rb") as file:
        for line in file:
            key, sample, own, rest = json.loads(line)
            first = own or first
            yield Request(key, [first, *rest], sample, schema)


WORK: dict[str, Callable[..., Any]] = {"ask": ask}
