"""Errors that a user can mend, and the frame that every stage runs in."""

import contextlib
import errno
import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import NoReturn


class UserError(Exception):
    """One sentence for the user: where it is, what was found, what was expected, what to do."""


def _interrupt(signum: int, frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def run(main: Callable[[], None]) -> None:
    """Runs a stage: a user's mistake is one line and exit code 1, a stop by signal one line and 130, a bug keeps its
    traceback."""
    from potstill.core import stage

    signal.signal(signal.SIGTERM, _interrupt)
    try:
        with stage.running_once():
            try:
                main()
            finally:  # what was printed stands above the error, in a pipe or a file, too
                with contextlib.suppress(BrokenPipeError):
                    sys.stdout.flush()
    except UserError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt as stop:
        print(
            f"stopped: {str(stop) or 'what was finished is kept; run the same command again'}",
            file=sys.stderr,
        )
        sys.exit(130)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        where = f" (writing {error.filename})" if error.filename else ""
        sys.exit(
            f"error: no space left on device{where}: free some and run the same command again; nothing made is lost"
        )
