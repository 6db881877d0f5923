"""The batch API of the fake teacher: /v1/files and /v1/batches, with a ledger of their own."""

import json
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

Body = dict[str, Any]
EXPIRED = {"code": "batch_expired", "message": "This request could not be executed in time."}


def completion(text: str, reason: str = "stop") -> Body:
    """A chat.completion reply."""
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": text},
        "finish_reason": reason,
    }
    return {
        "object": "chat.completion",
        "choices": [choice],
        "usage": {"prompt_tokens": 7, "completion_tokens": 3},
    }


def right(body: Body) -> Body:
    """The right reply to the toy task's question."""
    word = body["messages"][-1]["content"].split()[-1]
    return completion(json.dumps({"word": word, "length": len(word)}))


@dataclass
class FakeBatches:
    """`paid` is the ledger: how often each request was answered, by its custom_id. The n-th batch
    (from 0) ends after `looks` looks at any batch as `ends(n)` says: with a status, half of its
    requests done where that is not completed, or with (code, message) of one that failed as a
    whole. `line(body, n)` may give another line for a request that is asked for the n-th time (from
    0), without its custom_id, or "" for none. `reply(call, done)`, of a call such as "POST /files",
    may answer otherwise, before and after it is done."""

    paid: Counter[str] = field(default_factory=Counter)
    tried: Counter[str] = field(default_factory=Counter)
    files: dict[str, bytes] = field(default_factory=dict)
    batches: dict[str, Body] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)
    looks: int = 2
    page: int = 100
    ends: Callable[[int], str | tuple[str, str]] = lambda n: "completed"
    line: Callable[[Body, int], Body | str | None] = lambda body, n: None
    reply: Callable[[str, bool], web.Response | None] = lambda call, done: None
    headers: dict[str, str] = field(default_factory=dict)  # of a look's reply

    def routes(self) -> list[web.RouteDef]:
        found = [
            web.post("/v1/files", self._upload),
            web.get("/v1/files/{id}/content", self._content),
            web.post("/v1/batches", self._create),
            web.get("/v1/batches", self._list),
            web.get("/v1/batches/{id}", self._look),
        ]
        return [web.RouteDef(r.method, r.path, self._noted(r.handler), {}) for r in found]

    def _noted(self, handler: Any) -> Any:
        async def handle(request: web.Request) -> web.StreamResponse:
            call = f"{request.method} {request.path.removeprefix('/v1')}"
            self.calls.append(call)
            if said := self.reply(call, False):
                await request.read()
                return said
            response: web.StreamResponse = await handler(request)
            return self.reply(call, True) or response

        return handle

    def requests(self, number: int = -1) -> list[Body]:
        """The lines of the file of a batch."""
        batch = list(self.batches.values())[number]
        return [json.loads(line) for line in self.files[batch["input_file_id"]].splitlines()]

    def store(self, data: bytes) -> str:
        name = f"file-{len(self.files)}"
        self.files[name] = data
        return name

    async def _upload(self, request: web.Request) -> web.StreamResponse:
        fields: dict[str, bytes] = {}
        reader: Any = await request.multipart()
        async for part in reader:
            fields[part.name] = bytes(await part.read())
        assert fields["purpose"] == b"batch"
        return web.json_response({"id": self.store(fields["file"]), "object": "file"})

    async def _content(self, request: web.Request) -> web.StreamResponse:
        return web.Response(body=self.files[request.match_info["id"]])

    async def _create(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        assert (body["endpoint"], body["completion_window"]) == ("/v1/chat/completions", "24h")
        name, lines = f"batch_{len(self.batches)}", self.files[body["input_file_id"]].splitlines()
        keys = [json.loads(line)["custom_id"] for line in lines]
        assert len(keys) == len(set(keys))
        counts = {"total": len(lines), "completed": 0, "failed": 0}
        batch = body | {"id": name, "status": "validating", "request_counts": counts}
        batch |= {"created_at": int(time.time()), "looked": 0, "out": [], "bad": []}
        self.batches[name] = batch
        return web.json_response(self._shown(batch))

    async def _list(self, request: web.Request) -> web.StreamResponse:
        found = list(reversed(self.batches.values()))
        if after := request.query.get("after"):
            found = found[[batch["id"] for batch in found].index(after) + 1 :]
        page = found[: min(self.page, int(request.query["limit"]))]
        data = [self._shown(batch) for batch in page]
        return web.json_response({"data": data, "has_more": len(page) < len(found)})

    async def _look(self, request: web.Request) -> web.StreamResponse:
        batch = self.batches.get(request.match_info["id"])
        if batch is None:
            return web.json_response({"error": {"message": "no such batch"}}, status=404)
        for one in self.batches.values():  # those that nobody looks at go on, too
            if one["status"] in ("validating", "in_progress"):
                self._advance(one)
        return web.json_response(self._shown(batch), headers=self.headers)

    def _shown(self, batch: Body) -> Body:
        return {name: value for name, value in batch.items() if name not in ("out", "bad")}

    def _advance(self, batch: Body) -> None:
        """One look further: half of the requests at the first, the rest at the last."""
        batch["looked"] += 1
        end = self.ends(list(self.batches).index(batch["id"]))
        lines = self.files[batch["input_file_id"]].splitlines()
        done = len(batch["out"]) + len(batch["bad"])
        last = batch["looked"] >= self.looks
        if isinstance(end, tuple):
            error = {"code": end[0], "message": end[1], "line": None}
            batch |= {"status": "failed", "errors": {"data": [error]}}
            return
        whole = last and end == "completed"
        for raw in lines[done : len(lines) if whole else max(done, len(lines) // 2)]:
            self._run(batch, json.loads(raw))
        batch["status"] = end if last else "in_progress"
        if last and end != "completed":
            code = EXPIRED if end == "expired" else {"code": "batch_cancelled", "message": "no"}
            for raw in lines[len(batch["out"]) + len(batch["bad"]) :]:
                key = json.loads(raw)["custom_id"]
                batch["bad"].append({"custom_id": key, "response": None, "error": code})
        if last:
            for name, field_name in (("out", "output_file_id"), ("bad", "error_file_id")):
                text = "".join(json.dumps(row) + "\n" for row in batch[name] if row)
                if text:
                    batch[field_name] = self.store(text.encode())

    def _run(self, batch: Body, request: Body) -> None:
        key, body = request["custom_id"], request["body"]
        row: Any = self.line(body, self.tried[key])
        self.tried[key] += 1
        if row is None:
            row = {"response": {"status_code": 200, "body": right(body)}, "error": None}
        status = row["response"]["status_code"] if row else 200
        self.paid[key] += status == 200
        kind = "completed" if status == 200 else "failed"
        batch["request_counts"][kind] += 1
        shown = row and {"id": f"batch_req_{key}", "custom_id": key, **row}
        batch["out" if status == 200 else "bad"].append(shown)
