"""The scripted teacher: an OpenAI-compatible server on loopback that answers by the task's rules.

It stands in for a real teacher where there is no network and no key, behind the same client,
journal and retry loop. It runs as a process of its own (`python -m potstill.teacher.scripted
teacher`) and ends when its standard input closes, so it never outlives the stage that started it.
"""

import hashlib
import importlib
import json
import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from potstill.core.errors import UserError
from potstill.core.project import ROOT

Answer = Callable[[list[dict[str, str]], str], str]
# Up to four ASCII letters or digits, or any other character that is no white space
_TOKEN = re.compile(r"[A-Za-z0-9]{1,4}|\S")


def model_name(rules: Path) -> str:
    """The model that the rules are: edited rules are another model, whose answers are asked for
    anew. Raises UserError when the task has no rules."""
    first = rules / "__init__.py"
    if not first.is_file():
        raise UserError(
            f"{first} is missing: teacher.model scripted needs the task's own rules; name another "
            "teacher.model"
        )
    files = [first, *sorted(set(rules.glob("*.py")) - {first})]
    code = b"".join(path.read_bytes() for path in files)
    return "scripted-" + hashlib.sha256(code).hexdigest()[:12]


@contextmanager
def serve(rules: Path) -> Iterator[str]:
    """Runs the server; gives its base URL, http://127.0.0.1:<free port>/v1. Raises UserError when
    the rules cannot be imported."""
    env = {name: value for name, value in os.environ.items() if name != "TEACHER_API_KEY"}
    env["PYTHONPATH"] = os.pathsep.join(filter(None, (str(ROOT), env.get("PYTHONPATH"))))
    command = [sys.executable, "-m", "potstill.teacher.scripted", str(rules)]
    # A session of its own: Ctrl-C is for the stage, which lets the answers under way come in first.
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env, start_new_session=True
    ) as server:
        assert server.stdin and server.stdout
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


def complete(answer: Answer, body: dict[str, Any], model: str) -> dict[str, Any]:
    """The chat.completion object for one request body; `max_completion_tokens` or `max_tokens`
    cuts the answer off."""
    messages = body["messages"]
    seed = hashlib.sha256(json.dumps([messages, body.get("seed")]).encode()).hexdigest()
    text, reason = answer(messages, seed), "stop"
    ends = [match.end() for match in _TOKEN.finditer(text)]
    limit = body.get("max_completion_tokens") or body.get("max_tokens") or len(ends)
    if len(ends) > limit:
        text, reason = text[: ends[limit - 1]], "length"
    tokens_in = sum(len(_TOKEN.findall(message["content"])) for message in messages)
    tokens_out = min(len(ends), limit)
    message = {"role": "assistant", "content": text}
    used = {"prompt_tokens": tokens_in, "completion_tokens": tokens_out}
    return {
        "id": f"chatcmpl-{seed[:24]}",
        "object": "chat.completion",
        "created": 0,
        "model": model,
        "choices": [{"index": 0, "message": message, "finish_reason": reason}],
        "usage": used | {"total_tokens": tokens_in + tokens_out},
    }


def main() -> None:
    """Serves the rules that the first argument names until standard input closes."""
    from aiohttp import web

    rules = Path(sys.argv[1])
    sys.path.insert(0, str(rules.parent))
    answer: Answer = importlib.import_module(rules.stem).answer
    model = model_name(rules)

    async def models(request: web.Request) -> web.Response:
        listed = [{"id": model, "object": "model", "owned_by": "potstill"}]
        return web.json_response({"object": "list", "data": listed})

    async def chat(request: web.Request) -> web.Response:
        try:
            return web.json_response(complete(answer, await request.json(), model))
        except Exception as error:  # the rules' fault at every try: a 400, so that nobody retries
            said = {"error": {"message": f"{type(error).__name__}: {error}"}}
            return web.json_response(said, status=400)

    def leave_with_the_stage() -> None:
        sys.stdin.buffer.read()
        os._exit(0)

    threading.Thread(target=leave_with_the_stage, daemon=True).start()
    app = web.Application(client_max_size=64 * 2**20)
    app.add_routes([web.get("/v1/models", models), web.post("/v1/chat/completions", chat)])
    server = socket.create_server(("127.0.0.1", 0))
    print(f"http://127.0.0.1:{server.getsockname()[1]}/v1", flush=True)
    web.run_app(app, sock=server, access_log=None, print=None)


if __name__ == "__main__":
    main()
