"""The questions of a stage in `teacher.shards` parts, each asked by a process of its own
(potstill/core/shards.py), on this machine or on others.

The journal is what counts. A shard gets the questions that it lacks, by the hash of each, and
appends its answers to a file of its own; the stage then reads them there as if it had asked itself.
So it does not matter who asks, and a shard that is begun again asks what is still missing. Limits
and budget are shared out before the shards begin; what one has not spent is left for what follows.
"""

import hashlib
import json
import shutil
from collections.abc import Iterable
from contextlib import ExitStack
from types import SimpleNamespace
from typing import Any

from potstill.core import launch, shards
from potstill.core.errors import UserError
from potstill.core.jsonl import Row
from potstill.core.stage import PARTS
from potstill.teacher import local
from potstill.teacher.client import Client
from potstill.teacher.endpoint import Request

FEW = 64  # questions for which no shards are begun
NAME = "teacher"  # of the folder of the parts


def ask(
    client: Client, requests: Iterable[Request], params: SimpleNamespace, schema: Row | None
) -> bool:
    """Has shards ask what the journal of `client` lacks of the requests, and adds to the client
    what came of it. True where some are left to be asked directly: they are few, or a shard's part
    of the budget is used up. Raises UserError when a shard fails: what the others were answered is
    in the journal."""
    folder, count = PARTS / NAME, params.shards
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    paths = [folder / f"asked-{number}.jsonl" for number in range(count)]
    seen, sizes = set[int](), [0] * count
    with ExitStack() as stack:
        files = [stack.enter_context(path.open("wb")) for path in paths]
        last: list[Any] = [None] * count
        for request in requests:
            short = int(request.key[:15], 16)
            if short in seen or request.key in client.failed:
                continue
            if client.journal.has(request.key, params.max_tokens):
                continue
            seen.add(short)
            at = short % count
            first, *rest = request.messages  # mostly the same one: written once
            line = [request.key, request.sample, None if first == last[at] else first, rest]
            files[at].write(json.dumps(line).encode() + b"\n")
            sizes[at], last[at] = sizes[at] + 1, first
    client.held = client.total - len(seen) - client.answered - len(client.failed)
    if len(seen) < FEW:
        shutil.rmtree(folder)
        return bool(seen)
    own = _shares(client, params, [size for size in sizes if size])
    jobs: list[shards.Job] = []
    for path, size in zip(paths, sizes, strict=True):
        if size:
            with path.open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
            job: shards.Job = {"asked": str(path), "sha256": found, "count": size}
            job |= {"journal": str(client.journal.path.absolute()), "run": client.run}
            job["ends"] = launch.is_here()
            job |= {"model": client.endpoint.model, "params": own.pop(0), "schema": schema}
            job |= {"held": client.total - len(seen)}
            jobs.append({"work": "ask", "arguments": job})
    parts = shards.run(NAME, jobs, asks=True)
    for part in parts:
        client.failed |= part["failed"]
        client.answered += part["answered"]
        client.retries += part["retries"]
        client.endpoint.asked += part["sent"]
        client.endpoint.ambiguous += part["lost"]
        for name, value in part["took"].items():
            setattr(client.took, name, getattr(client.took, name) + value)
    client.journal.refresh(name for part in parts for name in part.get("files", []))
    shutil.rmtree(folder)
    return any(part["short"] for part in parts)


def _shares(client: Client, params: SimpleNamespace, sizes: list[int]) -> list[dict[str, Any]]:
    """The teacher's parameters of shards with so many questions: each may have an equal share of
    what the endpoint takes at once and a minute, and what is left of the budget by its size. Raises
    UserError where fewer requests may be under way than there are shards."""
    own = dict(vars(params))
    if not local.is_local(params.model):  # else each shard has a server of its own
        many = launch.at_once(len(sizes))
        if many > params.concurrency:
            raise UserError(
                f"params.yaml: teacher.concurrency is {params.concurrency}, but {many} shards ask "
                "at once: raise it, or set fewer teacher.shards"
            )
        own["concurrency"] //= many
        own |= {name: own[name] and own[name] / many for name in ("rpm", "tpm")}
    if params.budget is None:
        return [own] * len(sizes)
    left = max(0.0, params.budget - client.spent())
    return [own | {"budget": left * size / sum(sizes)} for size in sizes]
