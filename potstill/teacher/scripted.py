"""The scripted teacher: an OpenAI-compatible server on loopback whose answers come from tasks/<task>/teacher.

It stands in for a real teacher where there is no network and no key, behind the same client, journal and retry loop. Run as
a process of its own (`python -m potstill.teacher.scripted tasks/<task>/teacher`), it ends when its standard input
closes, so it never outlives the stage that started it, however that one dies.
"""

import hashlib
import importlib
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from potstill.core.errors import UserError

if TYPE_CHECKING:
    from aiohttp import web

Answer = Callable[[list[dict[str, str]], str], str]
_TOKEN = re.compile(r"[A-Za-z0-9]{1,4}|\S")


def model_name(rules: Path) -> str:
    """The model that the rules are: edited rules are another model, whose answers are asked for anew."""
    try:
        code = (rules / "__init__.py").read_bytes()
        for path in sorted(set(rules.glob("*.py")) - {rules / "__init__.py"}):
            code += path.read_bytes()
        return "scripted-" + hashlib.sha256(code).hexdigest()[:12]
    except FileNotFoundError:
        raise UserError(
            f"{rules}/__init__.py is missing: teacher.model scripted needs the task's own rules; name another teacher.model"
        ) from None


@contextmanager
def serve(rules: Path) -> Iterator[str]:
    """Runs the server in a process of its own; gives its base URL, http://127.0.0.1:<free port>/v1."""
    root = str(Path(__file__).resolve().parents[2])
    env = {name: value for name, value in os.environ.items() if name != "TEACHER_API_KEY"}
    env["PYTHONPATH"] = os.pathsep.join(filter(None, (root, env.get("PYTHONPATH"))))
    server = subprocess.Popen(
        [sys.executable, "-m", "potstill.teacher.scripted", str(rules)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=env,
        start_new_session=True,  # Ctrl-C is for the stage, which lets the answers under way come in first
    )
    assert server.stdin is not None
    assert server.stdout is not None
    try:
        url = server.stdout.readline().decode().strip()
        if not url:
            raise UserError(
                f"{rules}: the scripted teacher did not start; its own message stands above"
            )
        yield url
    finally:
        server.stdin.close()
        try:
            server.wait(5)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()
        server.stdout.close()


def count_tokens(text: str) -> int:
    """Tokens by a simple rule: up to four ASCII letters or digits, or any other character that is no white space."""
    return sum(1 for _ in _TOKEN.finditer(text))


def complete(answer: Answer, body: dict[str, Any], model: str) -> dict[str, Any]:
    """The chat.completion object for one request body; `max_completion_tokens` or `max_tokens` cuts the answer off."""
    messages = body["messages"]
    seed = hashlib.sha256(json.dumps([messages, body.get("seed")]).encode()).hexdigest()
    text, reason = answer(messages, seed), "stop"
    ends = [match.end() for match in _TOKEN.finditer(text)]
    limit = body.get("max_completion_tokens") or body.get("max_tokens") or len(ends)
    if len(ends) > limit:
        text, reason = text[: ends[limit - 1]], "length"
    used = {
        "prompt_tokens": sum(count_tokens(message["content"]) for message in messages),
        "completion_tokens": min(len(ends), limit),
    }
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": text},
        "finish_reason": reason,
    }
    return {
        "id": f"chatcmpl-{seed[:24]}",
        "object": "chat.completion",
        "created": 0,
        "model": model,
        "choices": [choice],
        "usage": used | {"total_tokens": sum(used.values())},
    }


def app(answer: Answer, model: str) -> "web.Application":
    """The server's routes: /v1/models and /v1/chat/completions."""
    from aiohttp import web

    async def models(request: web.Request) -> web.Response:
        return web.json_response(
            {"object": "list", "data": [{"id": model, "object": "model", "owned_by": "potstill"}]}
        )

    async def chat(request: web.Request) -> web.Response:
        try:
            return web.json_response(complete(answer, await request.json(), model))
        except Exception as error:  # the rules' own fault, and the same at every try: a 400, so that nobody retries it
            return web.json_response(
                {"error": {"message": f"{type(error).__name__}: {error}"}}, status=400
            )

    application = web.Application(client_max_size=64 * 2**20)
    application.add_routes([web.get("/v1/models", models), web.post("/v1/chat/completions", chat)])
    return application


def main(rules: Path) -> None:
    """Serves until standard input closes."""
    import asyncio

    from aiohttp import web

    def leave_with_the_stage() -> None:
        sys.stdin.buffer.read()
        os._exit(0)

    threading.Thread(target=leave_with_the_stage, daemon=True).start()
    sys.path.insert(0, str(rules.parent))
    answer: Answer = importlib.import_module(rules.stem).answer

    async def forever() -> None:
        runner = web.AppRunner(app(answer, model_name(rules)), access_log=None)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        print(f"http://127.0.0.1:{runner.addresses[0][1]}/v1", flush=True)
        await asyncio.Event().wait()

    asyncio.run(forever())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
