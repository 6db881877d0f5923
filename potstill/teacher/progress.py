"""What is said while a run lasts."""

import asyncio
import sys
import time
from collections.abc import Callable


async def report(line: Callable[[float], str]) -> None:
    """Until it is cancelled, the `line` after so many seconds: every ten seconds in a log, where
    it has changed; a live line on a terminal."""
    live, start = sys.stderr.isatty(), time.monotonic()
    form, before = "\r{}\x1b[K" if live else "{}\n", ""
    try:
        while True:
            await asyncio.sleep(0.5 if live else 10)
            now = line(time.monotonic() - start)
            if live or now != before:
                print(form.format(now), end="", file=sys.stderr, flush=True)
            before = now
    finally:
        if live:
            print(form.format(""), end="", file=sys.stderr, flush=True)
