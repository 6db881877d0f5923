"""A real MLflow server, from requirements/mlflow.lock, in a folder of its own."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.conftest import ROOT, install

BEHIND = "import sys; sys.path.append({!r})\n"  # what the environment has itself goes first


@contextmanager
def served(folder: Path) -> Iterator[tuple[str, str]]:
    """The server's address, and a PYTHONPATH with which MLflow can be imported in the product's own
    environment."""
    install("mlflow", packages := folder / "packages")
    (folder / "site").mkdir()
    (folder / "site/sitecustomize.py").write_text(BEHIND.format(str(packages)), encoding="utf-8")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{folder}/mlflow.db"]
    own = os.environ | {"PYTHONPATH": str(packages)}
    log = folder / "mlflow.log"
    with log.open("wb") as out:
        server = subprocess.Popen(
            command, cwd=folder, env=own, stdout=out, stderr=out, start_new_session=True
        )
    uri, end = f"http://127.0.0.1:{port}", time.monotonic() + 240
    try:
        while True:
            assert server.poll() is None and time.monotonic() < end, log.read_text()[-3000:]
            with suppress(OSError):
                urllib.request.urlopen(f"{uri}/health", timeout=5).close()
                break
            time.sleep(0.5)
        yield uri, os.pathsep.join([str(ROOT), str(folder / "site")])
    finally:
        with suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGTERM)  # its workers and its job runner, too
        server.wait(60)
