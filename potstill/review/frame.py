"""What the pages for a person on this machine share: they listen on loopback only, their URL holds
a secret, no other page may call them, and no text of a row is ever read as HTML."""

import os
import secrets
import socket
import sys
import threading
import webbrowser
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from pathlib import Path

from aiohttp import web

from potstill.core import jsonl
from potstill.core.errors import UserError
from potstill.core.jsonl import Row

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
HERE = Path(__file__).parent
KINDS = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}
SHARED = ("review.css", "text.js", "cards.js")  # of every page
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


def files(page: str, *more: str) -> dict[str, Path]:
    """The files of a page by the names in their URLs; "" is the page itself."""
    found = {"": HERE / page} | {name: HERE / name for name in (*SHARED, *more)}
    return found | {"text.js": Path(jsonl.__file__).with_name("text.js")}


def application(
    command: str, token: str, served: dict[str, Path], calls: Iterable[Handler]
) -> web.Application:
    """The files and calls of the page of `make <command>`, all below /<token>/. A call is posted,
    but for `state`; a refusal is one sentence."""

    async def page(request: web.Request) -> web.Response:
        path = served[request.path.split("/")[2]]
        text = path.read_text(encoding="utf-8")
        return web.Response(text=text, content_type=KINDS[path.suffix])

    @web.middleware
    async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
        """Lets only the page itself in: by the secret, and by Host and Origin, which a page
        elsewhere cannot choose."""
        port = request.transport.get_extra_info("sockname")[1] if request.transport else 0
        origin = f"http://{request.host}"
        secret = request.path.split("/")[1].encode()
        try:
            if (
                request.host not in (f"127.0.0.1:{port}", f"localhost:{port}")
                or request.headers.get("Origin", origin) != origin
                or not secrets.compare_digest(secret, token.encode())
            ):
                message = f"Not open: use the URL that `make {command}` printed."
                raise web.HTTPForbidden(text=message)
            return await handler(request)
        except UnicodeEncodeError:
            message = "Not kept: half a character (\\ud800 to \\udfff alone)."
            raise web.HTTPUnprocessableEntity(text=message) from None
        except (UserError, OSError) as error:  # a damaged file, a full disk
            raise web.HTTPConflict(text=f"Not kept: {error}.") from None

    async def with_headers(request: web.Request, response: web.StreamResponse) -> None:
        response.headers.update(HEADERS)

    app = web.Application(middlewares=[guard])
    app.on_response_prepare.append(with_headers)
    app.add_routes([web.get(f"/{token}/{name}", page) for name in served])
    for call in calls:
        name = getattr(call, "__name__", "")
        method = web.get if name == "state" else web.post
        app.add_routes([method(f"/{token}/{name}", call)])
    return app


async def body(request: web.Request) -> Row:
    """The JSON object of a call; none is an empty one."""
    try:
        found = await request.json()
    except ValueError:
        found = None
    return found if isinstance(found, dict) else {}


def run(command: str, says: str, make: Callable[[str], web.Application]) -> None:
    """Serves the application that `make` builds for a secret, on a free port of loopback, until
    Ctrl-C; prints what it `says` and the address, and opens a browser where there is one."""
    token = secrets.token_urlsafe(16)
    with socket.create_server(("127.0.0.1", 0)) as listening, suppress(KeyboardInterrupt):
        url = f"http://127.0.0.1:{listening.getsockname()[1]}/{token}/"
        print(f"{command}: {says}")
        print(f"{command}: open {url} (Ctrl-C ends)", flush=True)
        if has_display():
            threading.Thread(target=webbrowser.open, args=[url], daemon=True).start()
        web.run_app(make(token), sock=listening, print=None, access_log=None, shutdown_timeout=1)


def has_display() -> bool:
    """Whether a browser can be expected to open; BROWSER=none says no."""
    browser = os.environ.get("BROWSER")
    displays = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    return browser != "none" and bool(browser or displays or sys.platform == "darwin")
